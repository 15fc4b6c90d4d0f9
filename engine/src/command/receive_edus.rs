//! What another server tells outside of rooms comes in: who types, who has read what, who is there, messages to devices,
//! changes of devices and keys.
//!
//! Invariant: each part is judged by itself; what is not the server's to tell, or is about what is not here, is passed over.
//! A message to devices comes once, however often it is told (for as long as its id is remembered). A batch has a bounded size,
//! whatever a server tells: what is left is for the next one. If it comes to none, the transaction comes again.
//! Specification: server-server API, "EDUs", "Server Access Control Lists (ACLs)".

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    account::presence,
    command::{Command, Lanes},
    core::{
        event::JsonObject,
        identifiers,
        num::{RoomNum, TextNum, UserNum},
    },
    device::{
        elsewhere::{self, Update, Updated},
        lists, strangers,
        to_device::{self, Enqueued},
    },
    error::Result,
    outbox::shares::{Queue, Sender},
    remote::{self, IncomingEdu, IncomingPresence, IncomingReceipt, received},
    room::{
        RoomCtx,
        early_receipts::{self, EarlyReceipts, Standing, UNTHREADED},
        servers::{self, server_allowed},
    },
    store::{
        Reader, Tx, schema,
        schema::{EarlyReceipt, Membership, PresenceState, ReceivedTransaction},
    },
    stream::{Activity, EarlyPresence, Touch},
};

/// How long a typing notice holds, in milliseconds: other servers renew theirs every 40 seconds or sooner.
const TYPING_MS: u64 = 60_000;
/// The most bytes of an answer that is kept: a reason of a thousand bytes for each of fifty events. After a longer one, the
/// same transaction is taken in again, which does no harm.
const ANSWER_BYTES_MAX: usize = 65_536;
/// The longest id of a transaction that is remembered, in bytes.
const TRANSACTION_ID_BYTES_MAX: usize = 255;
/// After how many bytes a batch takes in no more parts: a usual transaction is one batch. The last part may have as much as a
/// request of a user of this server ([`to_device::REQUEST_BYTES_MAX`]).
const BATCH_BYTES: usize = 1 << 20;
/// After how many entries of parts (users, receipts, messages) it does, too, so that it is made in milliseconds: meanwhile it holds
/// the lanes of all users whom these name. A part with more of them is taken in in pieces, unless it has an id of its own.
const BATCH_ENTRIES: usize = 200;
/// What a row counts for that tells of a device list: its key, and what is kept of it until it is on the disk.
const NEWS_BYTES: usize = 128;
/// What a message to a device counts for, whether or not there is such a device: it is looked for.
const LOOK_UP_BYTES: usize = 64;
/// The device id that stands for all devices of a user.
const ALL_DEVICES: &str = "*";
/// Why a message to a device is passed over, or another one is gone in whose place it is: too many wait.
const QUEUE_FULL: &str = "queue_full";
/// Why something is passed over: its user is not in the room, or the room's access list shuts the server out.
const NOT_IN_ROOM: &str = "not_in_room";
/// The same: it is about an event that is not part of the room.
const UNKNOWN_EVENT: &str = "unknown_event";
/// The same: its event is not here, and too much waits for events in the room.
const TOO_MANY_WAITING: &str = "too_many_waiting";
/// The same: no user of this server shares a room with its user.
const NO_SHARED_ROOM: &str = "no_shared_room";
/// The same: its server shares no room with its user, and has as much waiting for the device as such servers may.
const STRANGER: &str = "stranger";
/// The same: what comes with it is as much as one request may put into queues.
const TOO_MUCH: &str = "too_much";
/// The same: it is for a user or a device that is not here.
const UNKNOWN_DEVICE: &str = "unknown_device";

/// What a server tells in one transaction.
#[derive(Clone, Debug)]
pub struct ReceiveEdus {
    origin: String,
    /// In pieces of [`BATCH_ENTRIES`] at most.
    edus: Arc<[IncomingEdu]>,
    /// How many of them are taken in already.
    done: usize,
    not_understood: u64,
    left_out: u64,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenEdus {
    /// Users whose devices have to be asked for anew ([`crate::command::StoreRemoteDevices`]).
    pub stale: Vec<String>,
    /// Rooms in which receipts wait for their events, to be looked at once more when this is written
    /// ([`crate::view::federation::DueReceipts`]): the events may have come meanwhile.
    pub rooms_to_settle: BTreeSet<String>,
    /// What was passed over, by the reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// How many parts were looked at: what is left is to be written by itself ([`ReceiveEdus::rest`]).
    pub parts: usize,
}

impl TakenEdus {
    fn drop(&mut self, reason: &'static str) {
        *self.dropped.entry(reason).or_default() += 1;
    }
}

impl ReceiveEdus {
    /// `origin` is the server that has signed the request.
    pub fn new<'a>(origin: &str, edus: impl IntoIterator<Item = &'a serde_json::Value>) -> Self {
        let (mut parsed, mut not_understood, mut left_out) = (Vec::new(), 0, 0);
        for edu in edus.into_iter().take(super::Transaction::EDUS_MAX) {
            match remote::parse(origin, edu) {
                Some((edu, more)) => {
                    parsed.extend(edu.pieces(BATCH_ENTRIES));
                    left_out += more;
                }
                None => not_understood += 1,
            }
        }
        Self { origin: origin.to_owned(), edus: parsed.into(), done: 0, not_understood, left_out }
    }

    /// What is left when this was written, with what became of it; `None` if nothing is. One batch has room for so much.
    pub fn rest(&self, taken: &TakenEdus) -> Option<Self> {
        let rest = Self { done: self.done + taken.parts, ..self.clone() };
        (!rest.is_empty()).then_some(rest)
    }

    /// How many parts are malformed, of no kind that is known here, or not the server's to tell.
    pub fn not_understood(&self) -> u64 {
        self.not_understood
    }

    /// How many entries of parts are beyond those that a part may have.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        self.left().is_empty()
    }
}

impl Command for ReceiveEdus {
    type Output = TakenEdus;

    fn lanes(&self) -> Lanes {
        let mut users: BTreeSet<&str> = BTreeSet::new();
        for edu in self.batch() {
            match edu {
                IncomingEdu::Typing { .. } => {}
                IncomingEdu::Receipts(receipts) => {
                    users.extend(receipts.iter().map(|receipt| &*receipt.user_id));
                }
                IncomingEdu::Presence(updates) => users.extend(updates.iter().map(|update| &*update.user_id)),
                IncomingEdu::Direct { messages, .. } => {
                    users.extend(messages.iter().map(|(user_id, _, _)| &**user_id));
                }
                IncomingEdu::DeviceList { user_id, .. } | IncomingEdu::SigningKeys { user_id, .. } => {
                    users.insert(user_id);
                }
            }
        }
        users.into_iter().fold(Lanes::default().name(&self.origin), Lanes::user)
    }

    fn run(&self, tx: &mut Tx) -> Result<TakenEdus> {
        let (mut batch, mut early) = (Batch::default(), EarlyReceipts::of(&self.origin));
        for edu in self.batch() {
            if batch.bytes >= BATCH_BYTES {
                break;
            }
            self.take_in(tx, edu, &mut early, &mut batch)?;
            batch.taken.parts += 1;
        }
        batch.taken.stale = batch.stale.into_iter().collect();
        Ok(batch.taken)
    }
}

/// What is known of a batch while it is made.
#[derive(Default)]
struct Batch {
    /// About how many bytes it has: of messages to devices, and of news of device lists.
    bytes: usize,
    /// Users whose devices have changed, of which all who follow them are told.
    told: BTreeSet<UserNum>,
    /// Users whose devices have to be asked for anew.
    stale: BTreeSet<String>,
    /// Whether the server shares no room with users of this one.
    strangers: BTreeMap<UserNum, bool>,
    /// Of how many users that was found.
    strangers_met: usize,
    /// Who sent the last message that was looked at, and the sender's rooms.
    sender_rooms: (String, Vec<RoomNum>),
    taken: TakenEdus,
}

impl Batch {
    /// The user's devices have changed, whatever else of them changes in this batch: one row for each who follows them tells it.
    fn lists_changed(&mut self, tx: &mut Tx, user: UserNum) -> Result<()> {
        if self.told.insert(user) {
            self.bytes += lists::changed_elsewhere(tx, user)? * NEWS_BYTES;
        }
        Ok(())
    }

    /// Whether `server`, whose user sends, shares no room with the user, as far as it is known. O(the sender's rooms), and of a
    /// sender who shares none O(the user's): that is looked for until [`BATCH_ENTRIES`] strangers are met, and whoever comes
    /// behind those is taken for one, or one message to everybody here would hold the lanes of all of them for seconds.
    fn is_stranger(
        &mut self,
        reader: &Reader,
        (sender, server): (&str, TextNum),
        user: UserNum,
    ) -> Result<bool> {
        if let Some(known) = self.strangers.get(&user) {
            return Ok(*known);
        }
        if self.strangers_met >= BATCH_ENTRIES {
            return Ok(true);
        }
        let is_stranger = !self.shares_room(reader, (sender, server), user)?;
        self.strangers_met += usize::from(is_stranger);
        self.strangers.insert(user, is_stranger);
        Ok(is_stranger)
    }

    fn shares_room(
        &mut self,
        reader: &Reader,
        (sender, server): (&str, TextNum),
        user: UserNum,
    ) -> Result<bool> {
        if self.sender_rooms.0 != sender {
            let rooms = match reader.user_num(sender)? {
                Some(sender) => reader.joined_rooms(sender)?,
                None => Vec::new(),
            };
            self.sender_rooms = (sender.to_owned(), rooms);
        }
        // As a rule they meet where the sender is, and servers have few of the rooms of another one's user.
        let rooms = &mut self.sender_rooms.1;
        for (at, room) in rooms.iter().enumerate() {
            if reader.membership(user, *room)? == Some(Membership::Join) {
                // Most likely the next one is there, too.
                rooms.swap(0, at);
                return Ok(true);
            }
        }
        for room in reader.joined_rooms(user)? {
            if servers::is_in_or_supposed(reader, server, room)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl ReceiveEdus {
    /// What has still to be taken in.
    fn left(&self) -> &[IncomingEdu] {
        self.edus.get(self.done..).unwrap_or_default()
    }

    /// What of it is taken in at once, unless that comes to too many bytes before.
    fn batch(&self) -> impl Iterator<Item = &IncomingEdu> {
        let mut entries = 0;
        self.left().iter().take_while(move |edu| {
            let has_room = entries < BATCH_ENTRIES;
            entries += edu.entries();
            has_room
        })
    }

    fn take_in(
        &self,
        tx: &mut Tx,
        edu: &IncomingEdu,
        early: &mut EarlyReceipts,
        batch: &mut Batch,
    ) -> Result<()> {
        match edu {
            IncomingEdu::Typing { room_id, user_id, typing } => {
                self.typing(tx, room_id, user_id, *typing, &mut batch.taken)
            }
            IncomingEdu::Receipts(receipts) => {
                for receipt in receipts {
                    self.receipt(tx, receipt, early, &mut batch.taken)?;
                }
                Ok(())
            }
            IncomingEdu::Presence(updates) => {
                for update in updates {
                    self.present(tx, update, &mut batch.taken)?;
                }
                Ok(())
            }
            IncomingEdu::Direct { sender, kind, message_id, messages } => {
                // What reaches nobody is not remembered: others could make up as much of it as they like.
                let server = tx.intern_text(&self.origin)?;
                if received::is_known(tx, server, message_id)? {
                    batch.taken.drop("repeated");
                } else if deliver(tx, (sender.as_str(), server), kind, messages, batch)? {
                    received::note(tx, server, message_id)?;
                }
                Ok(())
            }
            IncomingEdu::DeviceList { user_id, device_id, stream_id, prev_ids, name, keys } => {
                let update = Update {
                    device_id,
                    stream_id: *stream_id,
                    prev_ids,
                    name: name.as_deref(),
                    keys: keys.as_ref(),
                };
                device_changed(tx, user_id, &update, batch)
            }
            IncomingEdu::SigningKeys { user_id, master, self_signing } => {
                signing_keys_changed(tx, user_id, (master.as_ref(), self_signing.as_ref()), batch)
            }
        }
    }

    /// The room and the user, if the user is in the room and the server may take part in it.
    fn member(&self, tx: &Tx, room_id: &str, user_id: &str) -> Result<Option<(RoomNum, UserNum)>> {
        let Some(room) = RoomCtx::find(tx, room_id)? else { return Ok(None) };
        let Some(user) = tx.user_num(user_id)? else { return Ok(None) };
        let is_in = tx.membership(user, room.num)? == Some(Membership::Join);
        let may = is_in && server_allowed(tx, &room, &self.origin).is_ok();
        Ok(may.then_some((room.num, user)))
    }

    fn typing(
        &self,
        tx: &mut Tx,
        room_id: &str,
        user_id: &str,
        typing: bool,
        taken: &mut TakenEdus,
    ) -> Result<()> {
        let Some((room, user)) = self.typist(tx, room_id, user_id, typing)? else {
            taken.drop(NOT_IN_ROOM);
            return Ok(());
        };
        let until_ms = if typing { tx.shared.clock.now_ms() + TYPING_MS } else { 0 };
        tx.next_position();
        tx.touch(Touch::Typing { user, room, until_ms });
        Ok(())
    }

    /// The room, and the user whom its clients are told of: a member or, where members are not all known, who may be one.
    fn typist(
        &self,
        tx: &mut Tx,
        room_id: &str,
        user_id: &str,
        typing: bool,
    ) -> Result<Option<(RoomNum, UserNum)>> {
        if let Some(member) = self.member(tx, room_id, user_id)? {
            return Ok(Some(member));
        }
        let Some(room) = self.room_of_unknown_member(tx, room_id)? else { return Ok(None) };
        if room.state(tx, "m.room.member", user_id)?.is_some() {
            return Ok(None);
        }
        let user = match tx.user_num(user_id)? {
            Some(user) => user,
            // Names are kept for ever: a server must not make up users without end.
            None if typing && tx.shared.watch.admits_stranger(room.num) => tx.intern_user(user_id)?,
            None => return Ok(None),
        };
        Ok(Some((room.num, user)))
    }

    /// A receipt moves at once, or waits for its event and, where members are not known yet or joins wait, for its user.
    fn receipt(
        &self,
        tx: &mut Tx,
        receipt: &IncomingReceipt,
        early: &mut EarlyReceipts,
        taken: &mut TakenEdus,
    ) -> Result<()> {
        let IncomingReceipt { room_id, user_id, event_id, .. } = receipt;
        let thread = receipt.thread_id.as_deref().unwrap_or(UNTHREADED);
        let ts = receipt.ts.min(tx.shared.clock.now_ms());
        let standing = match self.member(tx, room_id, user_id)? {
            Some((room, user)) => match early_receipts::standing(tx, room, event_id, thread)? {
                Standing::Here(event) => return early_receipts::set(tx, room, user, thread, &event, ts),
                standing => Some((room, standing)),
            },
            None => match self.room_of_unknown_member(tx, room_id)? {
                Some(room) => Some((room.num, Standing::Early)),
                None => early.room_of_comer(tx, room_id, user_id)?.map(|room| (room, Standing::Early)),
            },
        };
        match standing {
            None => taken.drop(NOT_IN_ROOM),
            Some((room, Standing::Early)) => {
                let since_ms = tx.shared.clock.now_ms();
                let row = EarlyReceipt { event_id: event_id.clone(), ts, since_ms };
                match early.keep(tx, room, user_id, thread, &row)? {
                    true => drop(taken.rooms_to_settle.insert(room_id.clone())),
                    false => taken.drop(TOO_MANY_WAITING),
                }
            }
            Some(_) => taken.drop(UNKNOWN_EVENT),
        }
        Ok(())
    }

    /// Who shares a room with this server is shown to be as present as their server says. Of somebody else it is kept for a
    /// while: whoever lets this server into a room tells of its users before the room is entered.
    fn present(&self, tx: &mut Tx, update: &IncomingPresence, taken: &mut TakenEdus) -> Result<()> {
        let told_ms = tx.shared.clock.now_ms();
        let claim = presence::claim_elsewhere(tx, update.state);
        let activity = Activity {
            last_active_ms: told_ms.saturating_sub(update.last_active_ago_ms),
            currently_active: update.currently_active,
        };
        let (user_id, text) = (update.user_id.clone(), update.status_msg.clone());
        let neighbour = neighbour(tx, &user_id)?;
        let early_presences = &tx.shared.watch.early_presences;
        match neighbour {
            Some(user) => {
                early_presences.take(&self.origin, &user_id);
                presence::tell(tx, user, claim, activity, text)?;
            }
            // Who is not known to be there is offline without being told.
            None if update.state == PresenceState::Offline => {
                early_presences.take(&self.origin, &user_id);
                taken.drop(NO_SHARED_ROOM);
            }
            None => {
                let early = EarlyPresence { user_id, claim, activity, text, told_ms };
                if !early_presences.keep(&self.origin, early) {
                    taken.drop(NO_SHARED_ROOM);
                }
            }
        }
        Ok(())
    }

    /// The room, if its members are not all known yet, so that the server may have more of them than are.
    fn room_of_unknown_member(&self, tx: &Tx, room_id: &str) -> Result<Option<RoomCtx>> {
        let room = RoomCtx::find(tx, room_id)?.filter(|room| room.head.partial_state);
        let (Some(room), Some(server)) = (room, tx.text_num(&self.origin)?) else { return Ok(None) };
        let may = servers::is_in_or_supposed(tx, server, room.num)?
            && server_allowed(tx, &room, &self.origin).is_ok();
        Ok(may.then_some(room))
    }
}

/// The user, if they are in a room that this server is in.
fn neighbour(tx: &Tx, user_id: &str) -> Result<Option<UserNum>> {
    let Some(user) = tx.user_num(user_id)? else { return Ok(None) };
    Ok(tx.is_neighbour(user, None)?.then_some(user))
}

/// Whether the message is in the queue of any device.
fn deliver(
    tx: &mut Tx,
    (sender, server): (&str, TextNum),
    kind: &str,
    messages: &[(String, String, JsonObject)],
    batch: &mut Batch,
) -> Result<bool> {
    let pos = tx.next_position();
    let mut reached: BTreeSet<Queue> = BTreeSet::new();
    let (mut is_kept, mut bytes) = (false, 0);
    batch.bytes += messages.len() * LOOK_UP_BYTES;
    for (user_id, device_id, content) in messages {
        let Some((user, devices)) = recipients(tx, user_id, device_id)? else {
            batch.taken.drop(UNKNOWN_DEVICE);
            continue;
        };
        let Some(event) = to_device::event_within_bounds(sender, kind, content) else {
            batch.taken.drop("too_large");
            continue;
        };
        let is_stranger = batch.is_stranger(tx, (sender, server), user)?;
        for device_id in devices {
            let queue = (user, tx.intern_text(&device_id)?);
            if !reached.insert(queue) {
                continue;
            }
            if bytes + event.len() > to_device::REQUEST_BYTES_MAX {
                batch.taken.drop(TOO_MUCH);
                continue;
            }
            if is_stranger && !strangers::has_place(tx, queue, server, event.len())? {
                batch.taken.drop(STRANGER);
                continue;
            }
            let enqueued = to_device::enqueue(tx, queue, pos, Sender::Elsewhere(server), &event)?;
            if enqueued != Enqueued::Taken {
                batch.taken.drop(QUEUE_FULL);
            }
            if enqueued != Enqueued::Dropped {
                is_kept = true;
                bytes += event.len();
                if is_stranger {
                    strangers::note(tx, queue, server, pos, event.len())?;
                }
            }
        }
    }
    batch.bytes += bytes;
    Ok(is_kept)
}

/// The user, one of this server, and the devices that are meant, if there are any.
fn recipients(tx: &Tx, user_id: &str, device_id: &str) -> Result<Option<(UserNum, BTreeSet<String>)>> {
    let is_own = identifiers::server_name(user_id) == Some(&*tx.shared.server_name);
    let Some(user) = tx.user_num(user_id)?.filter(|_| is_own) else { return Ok(None) };
    if device_id == ALL_DEVICES {
        return Ok(Some((user, to_device::devices(tx, user)?)));
    }
    let is_there = tx.has(&schema::DEVICES, &(user, device_id.to_owned()))?;
    Ok(is_there.then(|| (user, BTreeSet::from([device_id.to_owned()]))))
}

fn device_changed(tx: &mut Tx, user_id: &str, update: &Update<'_>, batch: &mut Batch) -> Result<()> {
    let Some(user) = neighbour(tx, user_id)? else {
        batch.taken.drop(NO_SHARED_ROOM);
        return Ok(());
    };
    let updated = elsewhere::update(tx, user, user_id, update)?;
    if updated == Updated::Stale {
        batch.stale.insert(user_id.to_owned());
    }
    if updated == Updated::Known { Ok(()) } else { batch.lists_changed(tx, user) }
}

fn signing_keys_changed(
    tx: &mut Tx,
    user_id: &str,
    (master, self_signing): (Option<&JsonObject>, Option<&JsonObject>),
    batch: &mut Batch,
) -> Result<()> {
    let Some(user) = neighbour(tx, user_id)? else {
        batch.taken.drop(NO_SHARED_ROOM);
        return Ok(());
    };
    let is_kept = tx.has(&schema::REMOTE_DEVICE_LISTS, &user)?;
    if !elsewhere::is_followed(tx, user)? {
        elsewhere::make_stale(tx, user)?;
    }
    let is_news = !is_kept || elsewhere::put_signing_keys(tx, user, user_id, master, self_signing)?;
    if is_news { batch.lists_changed(tx, user) } else { Ok(()) }
}

/// Notes how a server's transaction was answered, so that it is answered alike when it is sent again.
#[derive(Clone, Debug)]
pub struct NoteTransaction {
    /// The server.
    pub origin: String,
    /// The transaction's id.
    pub transaction_id: String,
    /// The body of the answer.
    pub answer: Vec<u8>,
    /// An older transaction of the server, which it will not send again.
    pub over: Option<String>,
}

impl Command for NoteTransaction {
    type Output = ();

    fn lanes(&self) -> Lanes {
        // Whoever answers it twice at once has taken the same in twice, which does no harm.
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let origin = tx.intern_text(&self.origin)?;
        if let Some(over) = &self.over {
            tx.delete(&schema::RECEIVED_TRANSACTIONS, &(origin, over.clone()));
        }
        let key = (origin, self.transaction_id.clone());
        if self.answer.len() > ANSWER_BYTES_MAX || self.transaction_id.len() > TRANSACTION_ID_BYTES_MAX {
            return Ok(());
        }
        let received_ms = tx.shared.clock.now_ms();
        let row = ReceivedTransaction { received_ms, answer: self.answer.clone() };
        tx.put(&schema::RECEIVED_TRANSACTIONS, &key, &row);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
