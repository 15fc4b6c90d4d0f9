//! What servers may send each other, what they have sent, and what was made of it: the promises of deliveries.
//!
//! An event goes to the servers that were in the room before or after it, as its sender's server knew the room, and to
//! nobody else; those of one room go in their order; an id stands for one transaction for ever; what was taken is kept; a
//! message to a device comes once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use serde_json::{Value, json};
use warren_engine::{
    Engine,
    command::Transaction,
    core::{
        event::Pdu,
        version::{ROOM_VERSIONS, RoomVersion},
    },
    view::{
        Frontier,
        federation::{
            IncomingRoom, OutOfBandMembership, ParkedOrigins, ParkedPdus, PartialRooms, UnknownEvents,
        },
    },
};

use super::{Breach, SERVER_NAMES, World, approach::is_allowed_by};
use crate::plan::User;

/// To whom an event of a server may go.
struct Audience {
    room: usize,
    /// Its place among all events that servers send.
    order: usize,
    /// Another server has taken it already. It comes back when it comes back, perhaps behind what the server's users have done
    /// since.
    is_told: bool,
    to: BTreeSet<usize>,
    /// Servers to which it may go, too: that of somebody who is turned away, which is told if that one was invited; and
    /// those that were told to be in the room while its members are not known.
    perhaps: BTreeSet<usize>,
    /// Servers that came into the room while it was one of its ends: it may go to them, behind what came later.
    late: BTreeSet<usize>,
}

/// What went out under an id.
struct Sent {
    /// By their ids: what has been redacted since goes out without its contents.
    events: Vec<Arc<str>>,
    edus: Vec<Bytes>,
}

/// A message to a device.
struct Told {
    number: usize,
    from: User,
    to: User,
    /// Whether the two were in one room, as far as the sender's server knew.
    are_met: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Ledger {
    /// By server and event.
    audiences: BTreeMap<(usize, Arc<str>), Audience>,
    /// By sender, receiver and transaction id.
    sent: BTreeMap<(usize, usize, String), Sent>,
    /// The place of the last event of a room that went out: (sender, receiver, room).
    last: BTreeMap<(usize, usize, usize), usize>,
    /// What the sender knows to be taken: (sender, receiver, event).
    taken: BTreeSet<(usize, usize, Arc<str>)>,
    /// Senders and receivers of which the one could not reach the other for an hour: it sends only what is last in each room.
    caught_up: BTreeSet<(usize, usize)>,
    /// What a server has answered for: (server, room, event).
    kept: BTreeSet<(usize, usize, Arc<str>)>,
    /// What each event follows that has gone out.
    prev_events: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    /// The joins by which servers came into rooms by way of others: (server, room).
    pub entrances: BTreeMap<(usize, usize), Arc<str>>,
    told: Vec<Told>,
    /// Users and servers: a change of the user's devices came while the user's server did not know of the room that the other
    /// believes to share with the user. It learns of the change with the next one.
    pub torn: BTreeSet<(User, usize)>,
    /// Users who were invited or knocked. Their devices are told to those in the room, and nobody that these are out of sight when they
    /// do not come in.
    pub asked: BTreeSet<User>,
    /// The last event about a user's membership that their server was told while it was not in the room; none while it cannot
    /// be told what came of a request.
    pub outside: BTreeMap<(usize, User), Arc<str>>,
    /// The access lists that users have set.
    pub lists: BTreeSet<String>,
    /// Servers that a list has shut out of a room, be it over or not: (room, server). What they have sent before may have been refused.
    pub shut_out: BTreeSet<(usize, usize)>,
    /// What servers took for history: (server, event).
    pub past: BTreeSet<(usize, Arc<str>)>,
    /// Users who had left a room, and were in it again when their server came back by way of one that had not heard of that:
    /// until it has, which makes undone what they said there.
    pub revived: BTreeSet<(usize, User)>,
}

impl Ledger {
    /// The server could not reach the other for so long that it sends only what is last.
    pub fn catches_up(&mut self, from: usize, to: usize) {
        self.caught_up.insert((from, to));
    }

    /// Whether the server catches up, and was out of the room for a time behind an event in it.
    fn was_away(&self, from: usize, to: usize, room: usize, order: usize) -> bool {
        let is_later = |server: usize, audience: &Audience| {
            server == from && audience.room == room && audience.order > order && !audience.is_told
        };
        let mut later = self.audiences.iter().filter(|((server, _), audience)| is_later(*server, audience));
        self.caught_up.contains(&(from, to)) && later.any(|(_, audience)| !audience.to.contains(&to))
    }

    /// A server made an event that another one has taken, and tells to all who were in the room.
    pub fn note_told(&mut self, server: usize, room: usize, event_id: Arc<str>, perhaps: BTreeSet<usize>) {
        let (order, to, late) = (self.audiences.len(), BTreeSet::new(), BTreeSet::new());
        let audience = Audience { room, order, is_told: true, to, perhaps, late };
        self.audiences.entry((server, event_id)).or_insert(audience);
    }

    /// The server lets another one into a room while the event is one of its ends, and may tell it of that.
    pub fn note_end(&mut self, server: usize, room: usize, event_id: Arc<str>, to: usize) {
        self.note_told(server, room, event_id.clone(), BTreeSet::new());
        if let Some(audience) = self.audiences.get_mut(&(server, event_id)) {
            audience.late.insert(to);
        }
    }

    /// Whether an event of a server was for another one, which was in the room.
    pub fn is_for(&self, from: usize, to: usize, event_id: &Arc<str>) -> bool {
        self.audiences.get(&(from, event_id.clone())).is_some_and(|audience| audience.to.contains(&to))
    }

    /// Whether a server sends another one nothing but what that one was sent before, of rooms that have shut the server out.
    pub fn is_told_again(&self, from: usize, to: usize, events: &[Arc<str>]) -> bool {
        let is_again = |event_id: &Arc<str>| {
            let audience = self.audiences.get(&(from, event_id.clone()));
            audience.is_some_and(|audience| self.shut_out.contains(&(audience.room, from)))
                && self.taken.contains(&(from, to, event_id.clone()))
        };
        !events.is_empty() && events.iter().all(is_again)
    }

    /// Whether some server knows that another one has taken the event.
    pub fn came(&self, to: usize, event_id: &str) -> bool {
        self.taken.iter().any(|(_, taker, taken)| *taker == to && **taken == *event_id)
    }

    /// The server answers for these events of a room no more: it has left it, or they have waited for too long.
    pub fn let_go<'a>(&mut self, server: usize, room: usize, events: impl Iterator<Item = &'a str>) {
        for event_id in events {
            self.kept.remove(&(server, room, event_id.into()));
        }
    }

    /// The server takes these for history, which it does not keep, but asks for when somebody reads it. What follows its join is none.
    pub fn let_history_go<'a>(&mut self, server: usize, room: usize, events: impl Iterator<Item = &'a str>) {
        let entrance = self.entrances.get(&(server, room));
        let is_history = |event_id: &&str| entrance.is_none_or(|join| !self.follows(event_id, join));
        let history: Vec<&str> = events.filter(is_history).collect();
        self.let_go(server, room, history.into_iter());
    }

    /// What an event follows, if it has gone out.
    pub fn prev_events(&self, event_id: &str) -> &[Arc<str>] {
        self.prev_events.get(event_id).map_or(&[], Vec::as_slice)
    }

    /// Whether an event follows another one, by way of such as have gone out.
    fn follows(&self, event_id: &str, other: &str) -> bool {
        let (mut seen, mut next) = (BTreeSet::new(), vec![event_id]);
        while let Some(event_id) = next.pop() {
            for prev in self.prev_events.get(event_id).into_iter().flatten() {
                if **prev == *other {
                    return true;
                }
                if seen.insert(prev) {
                    next.push(prev);
                }
            }
        }
        false
    }
}

impl World {
    /// The servers that a server knows in each room, before it does something.
    pub(super) fn audiences(&self, server: usize) -> Vec<BTreeSet<usize>> {
        (0..self.rooms.len()).map(|room| self.servers_in_room(server, room)).collect()
    }

    /// Notes to whom what a server's users have just done may go; `before` are the servers in each room before it.
    pub(super) fn note_events(&mut self, server: usize, before: &[BTreeSet<usize>]) -> Result<(), Breach> {
        for room in 0..self.rooms.len() {
            let view = Frontier { room_id: self.rooms[room].id.clone() };
            let frontier = self.servers[server].engine().read(&view);
            let frontier = frontier.map_err(|error| Breach::new("frontier", error))?;
            let own = format!(":{}", SERVER_NAMES[server]);
            for event in frontier.into_iter().flat_map(|frontier| frontier.extremities) {
                if event.sender.ends_with(&own) {
                    let to = before.get(room).cloned().unwrap_or_default();
                    let perhaps = turned_away(&event.json).into_iter().collect();
                    self.note_event((server, server), room, event.event_id, to, perhaps);
                }
            }
        }
        Ok(())
    }

    /// Notes that an event, which a user of the server `maker` made, is for `to` and for all who are in the room now.
    pub(super) fn note_event(
        &mut self,
        (server, maker): (usize, usize),
        room: usize,
        event_id: Arc<str>,
        mut to: BTreeSet<usize>,
        mut perhaps: BTreeSet<usize>,
    ) {
        perhaps.extend(self.supposed(server, room));
        to.extend(self.servers_in_room(server, room));
        to.retain(|to| *to != server && *to != maker);
        let order = self.ledger.audiences.len();
        let audience = Audience { room, order, is_told: false, to, perhaps, late: BTreeSet::new() };
        self.ledger.audiences.entry((server, event_id)).or_insert(audience);
    }

    /// The servers of which a server was told, when it joined, that they are in the room.
    pub(super) fn supposed(&self, server: usize, room: usize) -> BTreeSet<usize> {
        let partial = self.servers[server].engine().read(&PartialRooms).unwrap_or_default();
        let of_room = partial.into_iter().filter(|partial| partial.room_id == self.rooms[room].id);
        of_room.flat_map(|partial| partial.servers).filter_map(|name| self.index(&name)).collect()
    }

    fn version(&self) -> &'static RoomVersion {
        let named = ROOM_VERSIONS.iter().find(|version| version.id == self.plan.version);
        named.expect("plans name versions that there are")
    }

    /// The ids of a transaction's events.
    pub(super) fn event_ids(&self, transaction: &Transaction) -> Vec<Arc<str>> {
        let id = |json: &Bytes| self.event_id(json).expect("servers send events");
        transaction.pdus.iter().map(id).collect()
    }

    /// The id of an event of the run.
    pub(super) fn event_id(&self, json: &[u8]) -> Option<Arc<str>> {
        Pdu::parse(self.version(), json).ok().map(|pdu| pdu.event_id)
    }

    /// A transaction goes out.
    pub(super) fn check_sent(
        &mut self,
        from: usize,
        to: usize,
        transaction: &Transaction,
    ) -> Result<(), Breach> {
        let key = (from, to, transaction.id.clone());
        let way = format!("{} → {}", SERVER_NAMES[from], SERVER_NAMES[to]);
        let events = self.event_ids(transaction);
        if let Some(first) = self.ledger.sent.get(&key) {
            let is_new = |edu: &&Bytes| !first.edus.iter().any(|first| is_same(first, edu));
            let lacks = |edu: &&Bytes| is_message(edu) && !transaction.edus.contains(edu);
            let added = transaction.edus.iter().find(is_new).or_else(|| first.edus.iter().find(lacks));
            if first.events != events || added.is_some() {
                let what = format!("{way}: {} goes out with other contents", transaction.id);
                return Err(Breach::new("transaction id", what));
            }
            return Ok(());
        }
        let version = self.version();
        for pdu in transaction.pdus.iter().filter_map(|json| Pdu::parse(version, json).ok()) {
            self.ledger.prev_events.insert(pdu.event_id, pdu.prev_events);
        }
        for event_id in &events {
            let name = self.event_name(event_id);
            let Some(audience) = self.ledger.audiences.get(&(from, event_id.clone())) else {
                return Err(Breach::new("audience", format!("{way}: {name} is not for others")));
            };
            let is_late = audience.late.contains(&to);
            if !is_late && !audience.to.contains(&to) && !audience.perhaps.contains(&to) {
                return Err(Breach::new("audience", format!("{way}: {name} is not for them")));
            }
            let (room, order, is_told) = (audience.room, audience.order, audience.is_told);
            let last = self.ledger.last.get(&(from, to, room)).copied().unwrap_or_default();
            if is_told || is_late {
                continue;
            }
            if last <= order {
                self.ledger.last.insert((from, to, room), order);
            } else if self.servers_in_room(from, room).contains(&to)
                && !self.ledger.was_away(from, to, room, order)
                && !self.ledger.shut_out.contains(&(room, from))
            {
                // Otherwise it is made up for: of a room that the other left while it caught up, also if it came back, it comes behind
                // where that ended.
                // And what is told once more, since the room lets the server in again, may come before what is still to be told.
                return Err(Breach::new("order", format!("{way}: {name} comes behind later ones")));
            }
        }
        for edu in transaction.edus.iter().filter(|edu| is_message(edu)) {
            let edu: Value = serde_json::from_slice(edu).unwrap_or_default();
            let users = edu["content"]["messages"].as_object().into_iter().flatten();
            let is_theirs = |user: &str| user.ends_with(&format!(":{}", SERVER_NAMES[to]));
            if let Some((user, _)) = users.into_iter().find(|(user, _)| !is_theirs(user)) {
                return Err(Breach::new("audience", format!("{way}: a message for {user}")));
            }
        }
        self.ledger.sent.insert(key, Sent { events, edus: transaction.edus.clone() });
        Ok(())
    }

    /// The sender is told that a transaction was taken.
    pub(super) fn note_taken(&mut self, from: usize, to: usize, transaction: &Transaction) {
        let taken = self.event_ids(transaction).into_iter().map(|event_id| (from, to, event_id));
        self.ledger.taken.extend(taken);
    }

    /// A server has answered for the events of a transaction.
    pub(super) fn note_answer(&mut self, server: usize, transaction: &Transaction, results: &Value) {
        for (event_id, pdu) in self.event_ids(transaction).into_iter().zip(&transaction.pdus) {
            let pdu: Value = serde_json::from_slice(pdu).unwrap_or_default();
            let room = self.rooms.iter().position(|room| pdu["room_id"] == *room.id);
            let Some(room) = room.filter(|_| results[&*event_id] == json!({})) else { continue };
            if self.servers_in_room(server, room).contains(&server) {
                self.ledger.kept.insert((server, room, event_id));
                continue;
            }
            // Of a room that it is not in it only tells its user, and only what ends what that one is shown.
            let told = self.plan.users().into_iter().find(|user| pdu["state_key"] == self.user_id(*user));
            let told = told.filter(|told| !self.stays_open(server, room, *told, &pdu));
            if let Some(told) = told {
                match self.may_be_refused(room, &pdu) {
                    true => self.ledger.outside.remove(&(room, told)),
                    false => self.ledger.outside.insert((room, told), event_id),
                };
            }
        }
    }

    /// Whether a user is shown an invite or a knock that the event does not name, be it that who made the event had not heard of that, or
    /// that it came before.
    fn stays_open(&self, server: usize, room: usize, user: User, event: &Value) -> bool {
        let (room_id, user_id) = (self.rooms[room].id.clone(), self.user_id(user));
        let open = self.servers[server].engine().read(&OutOfBandMembership { room_id, user_id });
        open.is_ok_and(|open| !is_allowed_by(event, &open.event_id))
    }

    /// Once nothing is under way: everything has gone to whom it was for.
    pub(super) fn check_deliveries(&self) -> Result<(), Breach> {
        let ledger = &self.ledger;
        let mut last: BTreeMap<_, (usize, Option<&Arc<str>>)> = BTreeMap::new();
        for ((from, event_id), audience) in &ledger.audiences {
            for to in &audience.to {
                let is_taken = ledger.taken.contains(&(*from, *to, event_id.clone()));
                if !is_taken && !ledger.caught_up.contains(&(*from, *to)) {
                    return Err(self.undelivered(*from, *to, event_id));
                }
                let place = last.entry((*from, *to, audience.room)).or_default();
                *place = (*place).max((audience.order, Some(event_id)));
            }
            // Who is sent only what is last may be sent that, which they have.
            for to in (0..self.servers.len()).filter(|_| audience.is_told) {
                let place = last.entry((*from, to, audience.room)).or_default();
                *place = (*place).max((audience.order, None));
            }
        }
        for ((from, to, _), (_, event_id)) in last {
            let Some(event_id) = event_id else { continue };
            if !ledger.taken.contains(&(from, to, event_id.clone())) {
                return Err(self.undelivered(from, to, event_id));
            }
        }
        self.check_kept()
    }

    fn undelivered(&self, from: usize, to: usize, event_id: &str) -> Breach {
        let (event, from, to) = (self.event_name(event_id), SERVER_NAMES[from], SERVER_NAMES[to]);
        Breach::new("delivery", format!("{event} of {from} has not come to {to}"))
    }

    /// What a server has answered for is known to it, or waits there.
    fn check_kept(&self) -> Result<(), Breach> {
        for (server, room, event_id) in &self.ledger.kept {
            let (engine, room_id) = (self.servers[*server].engine(), &self.rooms[*room].id);
            if engine.read(&IncomingRoom { room_id, server: SERVER_NAMES[*server] }).is_err() {
                continue;
            }
            let is_here =
                self.is_here(*server, *room, event_id).map_err(|error| Breach::new("kept", error))?;
            if !is_here {
                let what = format!("{} has lost {}", SERVER_NAMES[*server], self.event_name(event_id));
                return Err(Breach::new("kept", what));
            }
        }
        Ok(())
    }

    /// Whether a server knows an event of a room, or has it wait there.
    pub(super) fn is_here(
        &self,
        server: usize,
        room: usize,
        event_id: &Arc<str>,
    ) -> warren_engine::Result<bool> {
        let engine = self.servers[server].engine();
        let unknown = engine.read(&UnknownEvents { event_ids: std::slice::from_ref(event_id) })?;
        Ok(unknown.is_empty() || waiting(&engine, &self.rooms[room].id)?.contains(&**event_id))
    }

    /// A user was told that their message is on its way to another's device.
    pub(super) fn tell_device(&mut self, from: User, to: User, number: usize) {
        let engine = self.servers[from.server].engine();
        let joined = warren_engine::view::JoinedRooms { user_id: self.user_id(from) };
        let joined = engine.read(&joined).unwrap_or_default();
        let is_there = |room: usize| joined.iter().any(|joined| **joined == *self.rooms[room].id);
        let mut rooms = (0..self.rooms.len()).filter(|room| is_there(*room));
        let are_met = from.server == to.server
            || rooms.any(|room| self.servers_in_room(from.server, room).contains(&to.server));
        self.ledger.told.push(Told { number, from, to, are_met });
    }

    /// Each message to a device is there once, and those of one user in the order in which they were sent.
    pub(super) fn check_messages(&self) -> Result<(), Breach> {
        for user in self.plan.users() {
            let server = &self.servers[user.server];
            let found = server.clients[user.number].messages(&server.engine())?;
            for sender in self.plan.users() {
                let sent = |told: &&Told| told.from == sender && told.to == user;
                let sent: Vec<&Told> = self.ledger.told.iter().filter(sent).collect();
                let came: Vec<usize> = found
                    .iter()
                    .copied()
                    .filter(|found| sent.iter().any(|told| told.number == *found))
                    .collect();
                let due: Vec<usize> = sent
                    .iter()
                    .filter(|told| told.are_met || came.contains(&told.number))
                    .map(|told| told.number)
                    .collect();
                if came != due {
                    let (to, from) = (self.user_id(user), self.user_id(sender));
                    let what = format!("{to} was sent the messages {due:?} by {from}, and has {came:?}");
                    return Err(Breach::new("messages", what));
                }
            }
        }
        Ok(())
    }
}

/// Whether one part is the other: of devices and keys it tells how they are whenever it goes out.
fn is_same(one: &Bytes, other: &Bytes) -> bool {
    let place = |edu: &Bytes| {
        let edu: Value = serde_json::from_slice(edu).unwrap_or_default();
        let content = &edu["content"];
        let is_of_now =
            edu["edu_type"] == "m.device_list_update" || edu["edu_type"] == "m.signing_key_update";
        is_of_now
            .then(|| json!([edu["edu_type"], content["user_id"], content["device_id"], content["stream_id"]]))
    };
    one == other || (place(one).is_some() && place(one) == place(other))
}

fn is_message(edu: &[u8]) -> bool {
    let edu: Value = serde_json::from_slice(edu).unwrap_or_default();
    edu["edu_type"] == "m.direct_to_device"
}

/// The server of a user who is turned away by the event: it is told also when nobody of it is in the room.
fn turned_away(json: &[u8]) -> Option<usize> {
    let event: Value = serde_json::from_slice(json).ok()?;
    let membership = event["content"]["membership"].as_str()?;
    let server = event["state_key"].as_str()?.split(':').nth(1)?;
    let is_member = event["type"] == "m.room.member" && matches!(membership, "leave" | "ban");
    is_member.then(|| SERVER_NAMES.iter().position(|name| *name == server)).flatten()
}

/// The ids of the events that wait in a room, whoever sent them.
pub(super) fn waiting(engine: &Engine, room_id: &str) -> warren_engine::Result<BTreeSet<String>> {
    let mut waiting = BTreeSet::new();
    for origin in engine.read(&ParkedOrigins { room_id })? {
        let pdus = engine.read(&ParkedPdus { room_id, origin: &origin })?;
        waiting.extend(pdus.into_iter().map(|pdu| pdu.event_id));
    }
    Ok(waiting)
}
