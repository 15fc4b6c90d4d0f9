//! Users come into rooms, knock, go, and invite by way of other servers: the requests between the two, of which the network
//! may lose one, or its answer, or a server may lie.
//!
//! Whom to ask, what to sign, and what is believed, the engine says.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Value, json};
use warren_engine::{
    Error, Outcome,
    approach::{Approach, Change, Failure, Next, Tells, Template},
    command::{
        AcceptMembership, AcceptedMembership, LeaveOutOfBand, MembershipAction, NoteKnock, ReceiveInvite,
    },
    core::{event::JsonObject, version::ROOM_VERSIONS},
    intake::Intake,
    room::handshake::Handshake,
    view::federation::{
        EventsById, IncomingRoom, Invite, MakeInvite, MakeMembership, OutOfBandMembership, SignedEvent,
        TakeSignature, TakenSignature, Way, WayIntoRoom,
    },
};

use super::{Breach, SERVER_NAMES, Stopped, World, join::Failed, take_in::Asking};
use crate::plan::{Lapse, User};

/// Why a server was of no help.
struct NoHelp(String);

impl From<Error> for NoHelp {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

impl Failure for NoHelp {
    fn is_final(&self) -> bool {
        false
    }

    fn tells(&self) -> Tells {
        Tells::Refusal
    }
}

/// A template and whether it is a lie, or why there is none.
type Templated = Result<(Template, bool), NoHelp>;

/// What became of a request to another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    /// It is answered.
    Through,
    /// The other server never sees it.
    Lost,
    /// The other server does it, and nobody hears of that.
    Unanswered,
    /// The answer is about something else.
    Lie,
}

impl World {
    /// What becomes of the next request from a server to another.
    fn passage(&mut self, from: usize, to: usize) -> Passage {
        if !self.reaches(from, to) {
            return Passage::Lost;
        }
        let lapse = match self.lapse.take() {
            None => return Passage::Through,
            Some((0, lapse)) => lapse,
            Some((skipped, lapse)) => {
                self.lapse = Some((skipped - 1, lapse));
                return Passage::Through;
            }
        };
        match lapse {
            Lapse::Request => Passage::Lost,
            Lapse::Answer => Passage::Unanswered,
            Lapse::Lie => Passage::Lie,
        }
    }

    /// Whether another server has to help with a change of a user's own membership, and which may. Somebody has told the user
    /// of all servers.
    pub(super) fn way(&self, user: User, room: usize) -> Result<Way, Failed> {
        let named: Vec<String> = self.servers.iter().map(|server| server.name.to_owned()).collect();
        let user_id = self.user_id(user);
        let view = WayIntoRoom { room_id: &self.rooms[room].id, user_id: &user_id, named: &named };
        Ok(self.servers[user.server].engine().read(&view)?)
    }

    /// Changes a user's own membership by way of another server, if one has to help. Answers whether one had to.
    pub(super) fn go_elsewhere(
        &mut self,
        user: User,
        room: usize,
        action: MembershipAction,
    ) -> Result<bool, Failed> {
        match action {
            MembershipAction::Join => {
                let way = self.way(user, room)?;
                if way.needs_help() {
                    let before = self.local_members(user.server, room);
                    let user_id = self.user_id(user);
                    let has_not_heard = |other: usize| self.joined(other, &user_id).contains(&room);
                    let is_back = !before.contains(&user) && (0..self.servers.len()).any(has_not_heard);
                    let entered = self.approach(user, room, Handshake::Join, &way.servers);
                    // The resident may not have heard that others have left, or this one, and its word counts.
                    let after = self.local_members(user.server, room);
                    let back = after.difference(&before).filter(|back| **back != user || is_back);
                    self.ledger.revived.extend(back.map(|back| (room, *back)));
                    match entered {
                        // What this server knows of the room counts then.
                        Err(Failed::Refused(_)) if way.may_be_behind => return Ok(false),
                        entered => drop(entered?),
                    }
                }
                // The room tells of the user from now on.
                self.ledger.outside.remove(&(room, user));
                Ok(way.needs_help())
            }
            MembershipAction::Knock => {
                let way = self.way(user, room)?;
                let has_help = way.needs_help_to_knock();
                if has_help {
                    let (_, event) = self.approach(user, room, Handshake::Knock, &way.servers)?;
                    self.ledger.outside.insert((room, user), event.event_id);
                }
                Ok(has_help)
            }
            MembershipAction::Leave => self.leave_elsewhere(user, room),
            _ => Ok(false),
        }
    }

    /// The users of a server who are in a room, as it knows.
    pub(super) fn local_members(&self, server: usize, room: usize) -> BTreeSet<User> {
        let users = self.plan.users().into_iter().filter(|user| user.server == server);
        users.filter(|user| self.joined(server, &self.user_id(*user)).contains(&room)).collect()
    }

    /// Declines an invite, or takes a knock back, of which only other servers know. Whether they can be reached or not, the
    /// user is rid of it.
    fn leave_elsewhere(&mut self, user: User, room: usize) -> Result<bool, Failed> {
        let (room_id, user_id) = (self.rooms[room].id.clone(), self.user_id(user));
        let open = OutOfBandMembership { room_id: room_id.clone(), user_id: user_id.clone() };
        let servers = match self.servers[user.server].engine().read(&open) {
            Ok(open) => open.servers,
            Err(Error::NotFound(_)) => {
                // What comes of that is for the room to say: of a leave and the invite before it the later one counts, by clocks that differ.
                self.ledger.outside.remove(&(room, user));
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let left = match self.approach(user, room, Handshake::Leave, &servers) {
            Ok(event) => Some(event),
            Err(Failed::Refused(_)) => None,
            Err(failed) => return Err(failed),
        };
        match &left {
            Some((_, event)) => self.ledger.outside.insert((room, user), event.event_id.clone()),
            None => self.ledger.outside.remove(&(room, user)),
        };
        let mut is_in_room = false;
        if let Some((resident, event)) = &left
            && self.takes_part(user.server, room)
        {
            match self.take_in_own(user.server, room, resident, event) {
                Ok(()) => is_in_room = true,
                Err(Failed::Refused(_)) => {}
                Err(failed) => return Err(failed),
            }
        }
        let event = left.map(|(_, event)| event.json);
        match self.servers[user.server].write(LeaveOutOfBand { room_id, user_id, event, reason: None }) {
            // The room's own state tells that the user has left.
            Err(Stopped::Failed(Error::NotFound(_))) if is_in_room => Ok(true),
            noted => Ok(noted.map(|()| true)?),
        }
    }

    /// Asks one server after the other. Answers with the one that has taken the event, and the event.
    fn approach(
        &mut self,
        user: User,
        room: usize,
        handshake: Handshake,
        servers: &[String],
    ) -> Result<(String, SignedEvent), Failed> {
        let change =
            Change { room_id: self.rooms[room].id.clone(), user_id: self.user_id(user), reason: None };
        let mut approach: Approach<NoHelp> = Approach::new(change, handshake, servers);
        loop {
            match approach.next_step() {
                Next::Ask(server) => match self.template(user, room, handshake, &server)? {
                    Ok((template, is_lie)) => {
                        match approach.templated(&self.servers[user.server].engine(), &template) {
                            Ok(()) if is_lie => {
                                let what = format!("{} signs what {server} wants", SERVER_NAMES[user.server]);
                                return Err(Failed::Breach(Breach::new("signed", what)));
                            }
                            Ok(()) => {}
                            Err(error) => approach.failed(error.into()),
                        }
                    }
                    Err(why) => approach.failed(why),
                },
                Next::HandIn(server, event) => {
                    let done = self.hand_in(user, room, handshake, (&server, &event));
                    match done {
                        Ok(()) => return Ok((server, event)),
                        Err(Failed::Refused(why)) => approach.failed(NoHelp(why)),
                        Err(failed) => return Err(failed),
                    }
                }
                Next::Nobody => {
                    let why = approach
                        .into_failure()
                        .map_or_else(|| "there is nobody to ask".to_owned(), |why| why.0);
                    return Err(Failed::Refused(why));
                }
            }
        }
    }

    /// What a server answers to who asks for a template, and whether it lies.
    fn template(
        &mut self,
        user: User,
        room: usize,
        handshake: Handshake,
        server: &str,
    ) -> Result<Templated, Failed> {
        let Some(resident) = self.index(server) else { return Ok(Err(NoHelp("nobody is there".to_owned()))) };
        let way = self.passage(user.server, resident);
        if matches!(way, Passage::Lost | Passage::Unanswered) {
            return Ok(Err(NoHelp(format!("{server} does not answer"))));
        }
        self.ask_for_key_of(resident, user.server)?;
        let make = MakeMembership {
            room_id: self.rooms[room].id.clone(),
            user_id: self.user_id(user),
            handshake,
            versions: ROOM_VERSIONS.iter().map(|version| version.id.to_owned()).collect(),
            server: SERVER_NAMES[user.server].to_owned(),
        };
        let made = match self.servers[resident].engine().read(&make) {
            Ok(made) => made,
            Err(error @ Error::Storage(_)) => return Err(error.into()),
            Err(error) => return Ok(Err(error.into())),
        };
        let mut template = Template { room_version: Some(made.room_version.to_owned()), event: made.event };
        if way == Passage::Lie {
            self.tell(format!("{server} lies to {}", SERVER_NAMES[user.server]));
            self.falsify(&mut template.event);
        }
        Ok(Ok((template, way == Passage::Lie)))
    }

    /// Makes a template one for something that nobody asked for.
    fn falsify(&self, template: &mut JsonObject) {
        let lies = [
            ("type", json!("m.room.power_levels")),
            ("state_key", json!("@c:one")),
            ("sender", json!("@c:one")),
            ("room_id", json!("!other:one")),
            ("content", json!({"membership": "ban"})),
            ("content", json!({})),
        ];
        let (name, value) = lies[self.story.len() % lies.len()].clone();
        template.insert(name.to_owned(), value);
    }

    /// Hands an event in, and does what follows.
    fn hand_in(
        &mut self,
        user: User,
        room: usize,
        handshake: Handshake,
        (server, event): (&str, &SignedEvent),
    ) -> Result<(), Failed> {
        let resident = self.index(server).ok_or_else(|| Failed::Refused("nobody is there".to_owned()))?;
        let way = self.passage(user.server, resident);
        if way == Passage::Lost {
            return Err(Failed::Refused(format!("{server} cannot be reached")));
        }
        // Until it is known what the other server has made of it, nothing can be expected of either.
        self.ledger.outside.remove(&(room, user));
        let room_state = self.let_in(user.server, room, (resident, handshake), event)?;
        if way == Passage::Unanswered {
            self.tell(format!("the answer of {server} to {} is lost", self.user_id(user)));
            return Err(Failed::Refused(format!("{server} does not answer")));
        }
        match handshake {
            Handshake::Join | Handshake::Knock if self.takes_part(user.server, room) => {
                self.take_in_own(user.server, room, server, event)
            }
            Handshake::Join => {
                // Of one that fails nobody can tell whether it has come in.
                self.ledger.entrances.remove(&(user.server, room));
                self.enter(user.server, room, resident, event)?;
                self.ledger.entrances.insert((user.server, room), event.event_id.clone());
                Ok(())
            }
            Handshake::Knock => {
                let note = NoteKnock {
                    room_id: self.rooms[room].id.clone(),
                    user_id: self.user_id(user),
                    version: event.version,
                    event: event.json.clone(),
                    room_state: room_state.iter().map(|event| object(event)).collect(),
                    server: server.to_owned(),
                };
                Ok(self.servers[user.server].write(note)?)
            }
            Handshake::Leave => Ok(()),
        }
    }

    fn takes_part(&self, server: usize, room: usize) -> bool {
        let own = IncomingRoom { room_id: &self.rooms[room].id, server: SERVER_NAMES[server] };
        self.servers[server].engine().read(&own).is_ok()
    }

    /// Takes a user's own event, which a resident has let in, into a room that the user's server takes part in.
    fn take_in_own(
        &self,
        server: usize,
        room: usize,
        resident: &str,
        event: &SignedEvent,
    ) -> Result<(), Failed> {
        /// Questions about what it follows that are answered: more than one event leads to.
        const ANSWERS: usize = 50;
        let mut intake = Intake::new(self.rooms[room].id.clone(), event.version, vec![event.json.clone()]);
        let servers = [resident.to_owned()];
        self.drive(server, &mut intake, &mut Asking { servers: &servers, answers: ANSWERS })?;
        match intake.outcomes.get(&event.event_id) {
            Some(Outcome::Accepted | Outcome::Known) => Ok(()),
            outcome => Err(Failed::Refused(format!("what {resident} has let in is {outcome:?} here"))),
        }
    }

    /// The resident takes an event in, and tells the others. Answers with what a knock shows of the room.
    fn let_in(
        &mut self,
        asking: usize,
        room: usize,
        (resident, handshake): (usize, Handshake),
        event: &SignedEvent,
    ) -> Result<Vec<Bytes>, Failed> {
        let checked = self.check_with_keys(resident, event.version, vec![event.json.clone()])?.pop();
        let checked = checked.ok_or_else(|| Failed::Refused("the event is not believed".to_owned()))?;
        let before = self.servers_in_room(resident, room);
        let accept = AcceptMembership {
            room_id: self.rooms[room].id.clone(),
            event_id: event.event_id.to_string(),
            handshake,
            event: checked,
            server: SERVER_NAMES[asking].to_owned(),
        };
        // Only the asking server's disk has faults meanwhile.
        let accepted = self.servers[resident].write(accept);
        let room_state = match accepted
            .map_err(|_| Failed::Refused("the room refuses the event".to_owned()))?
        {
            AcceptedMembership::Accepted { room_state, .. } => room_state,
            AcceptedMembership::Waiting(missing) => {
                return Err(Failed::Breach(Breach::new("join", format!("the resident lacks {missing:?}"))));
            }
        };
        // It is passed on to all but the server that asked, which need not tell it again.
        let mut known = self.servers_in_room(asking, room);
        known.extend(before.iter().copied().chain(self.supposed(asking, room)));
        self.ledger.note_told(asking, room, event.event_id.clone(), known);
        self.note_event((resident, asking), room, event.event_id.clone(), before, BTreeSet::new());
        // What the join does not follow, because the room has more ends than one event follows, is told to who asked.
        let ends = self.frontier(resident, room).map_err(Failed::Breach)?;
        for end in ends.into_iter().flat_map(|frontier| frontier.extremities) {
            if handshake == Handshake::Join && end.event_id != event.event_id {
                self.ledger.note_end(resident, room, end.event_id, asking);
            }
        }
        Ok(room_state)
    }

    /// A user invites a user of another server, which has to sign the invite.
    pub(super) fn invite_elsewhere(&mut self, user: User, room: usize, target: User) -> Result<(), Failed> {
        let (room_id, target_id) = (self.rooms[room].id.clone(), self.user_id(target));
        let make = MakeInvite {
            room_id: room_id.clone(),
            sender: self.user_id(user),
            target: target_id,
            content: JsonObject::new(),
            third_party_signed: None,
        };
        let invite = self.servers[user.server].engine().read(&make)?;
        let way = self.passage(user.server, target.server);
        if way == Passage::Lost {
            return Err(Failed::Refused("the server of whom to invite cannot be reached".to_owned()));
        }
        // Who is shown the invite is not in the room's state before the answer has come.
        self.ledger.outside.remove(&(room, target));
        let signed = self.receive_invite(user.server, room, target.server, &invite)?;
        if way == Passage::Unanswered {
            return Err(Failed::Refused("the invite is signed, and nobody hears of it".to_owned()));
        }
        let mut answer = object(&signed);
        if way == Passage::Lie {
            answer.insert("content".to_owned(), json!({"membership": "ban"}));
        }
        self.ask_for_key_of(user.server, target.server)?;
        let take =
            TakeSignature { event: &invite.event, answer: &answer, server: SERVER_NAMES[target.server] };
        let event = match self.servers[user.server].engine().read(&take)? {
            TakenSignature::Signed(event) => event,
            TakenSignature::MissingKeys(keys) => {
                let what = format!("the key that has just been asked for is missing: {keys:?}");
                return Err(Failed::Breach(Breach::new("invite", what)));
            }
        };
        let mut intake = Intake::new(room_id, invite.event.version, vec![event]);
        self.drive(user.server, &mut intake, &mut Asking { servers: &[], answers: 0 })?;
        match intake.outcomes.get(&invite.event.event_id) {
            Some(Outcome::Accepted | Outcome::Known) => {
                let takes_part = self.servers_in_room(target.server, room).contains(&target.server);
                if !takes_part {
                    self.ledger.outside.insert((room, target), invite.event.event_id);
                }
                Ok(())
            }
            Some(Outcome::SoftFailed(denied) | Outcome::Rejected(denied)) => {
                Err(Failed::Refused(denied.to_string()))
            }
            outcome => {
                let what = format!("an invite that its server has signed is {outcome:?}");
                Err(Failed::Breach(Breach::new("invite", what)))
            }
        }
    }

    /// The invited user's server signs the invite, and shows it.
    fn receive_invite(
        &mut self,
        asking: usize,
        room: usize,
        server: usize,
        invite: &Invite,
    ) -> Result<Bytes, Failed> {
        self.ask_for_key_of(server, asking)?;
        let event =
            self.check_with_keys(server, invite.event.version, vec![invite.event.json.clone()])?.pop();
        let event = event.ok_or_else(|| Failed::Refused("the invite is not believed".to_owned()))?;
        let receive = ReceiveInvite {
            room_id: self.rooms[room].id.clone(),
            event_id: invite.event.event_id.to_string(),
            version: invite.event.version,
            event: event.pdu().clone(),
            room_state: invite.room_state.iter().map(|event| object(event)).collect(),
            server: SERVER_NAMES[asking].to_owned(),
        };
        let signed = self.servers[server].write(receive);
        signed
            .map(|received| received.event)
            .map_err(|_| Failed::Refused("the other server does not take the invite".to_owned()))
    }

    /// What users outside of rooms are shown of their memberships is what the rooms say, as far as their servers were told.
    pub(super) fn check_outsiders(&self) -> Result<(), Breach> {
        for room in 0..self.rooms.len() {
            let is_there = |server: &usize| self.servers_in_room(*server, room).contains(server);
            // What a server makes of a room that has shut it out is no word of the room.
            let speaks = |server: &usize| is_there(server) && !self.shuts_out(*server, room, *server);
            let Some(resident) = (0..self.servers.len()).find(speaks) else { continue };
            let Some(state) = self.state_on(resident, room)? else { continue };
            for user in self.plan.users().into_iter().filter(|user| !is_there(&user.server)) {
                let key = ("m.room.member".to_owned(), self.user_id(user));
                if let Some(event_id) = state.get(&key) {
                    self.check_outsider(user, room, (resident, event_id))?;
                }
            }
        }
        Ok(())
    }

    fn check_outsider(
        &self,
        user: User,
        room: usize,
        (resident, event_id): (usize, &str),
    ) -> Result<(), Breach> {
        let (room_id, user_id) = (self.rooms[room].id.clone(), self.user_id(user));
        let event = self.event_of(resident, &room_id, event_id)?;
        let says = event["content"]["membership"].as_str().unwrap_or_default().to_owned();
        let engine = self.servers[user.server].engine();
        let shown = self.servers[user.server].clients[user.number].shown_outside(&engine, &room_id)?;
        let last = self.ledger.outside.get(&(room, user));
        let is_last = last.is_some_and(|last| **last == *event_id);
        // An event that ends an invite or a knock was brought to the user's server by whoever made it.
        let open = engine.read(&OutOfBandMembership { room_id, user_id: user_id.clone() }).ok();
        let is_ended = open.is_some_and(|open| is_allowed_by(&event, &open.event_id));
        let came = self.ledger.came(user.server, event_id) && !self.may_be_refused(room, &event);
        let is_open = matches!(says.as_str(), "invite" | "knock");
        let is_wrong = match is_open {
            true => is_last && shown != Some(&*says),
            false => (is_last && shown.is_some()) || (is_ended && came),
        };
        if is_wrong {
            let what = format!(
                "{user_id} is shown {shown:?} in room {}, where {} says {says}",
                room + 1,
                self.event_name(event_id)
            );
            return Err(Breach::new("outside", what));
        }
        Ok(())
    }

    fn event_of(&self, resident: usize, room_id: &str, event_id: &str) -> Result<Value, Breach> {
        let view = EventsById {
            room_id: Some(room_id.to_owned()),
            event_ids: vec![event_id.to_owned()],
            server: SERVER_NAMES[resident].to_owned(),
        };
        let events =
            self.servers[resident].engine().read(&view).map_err(|error| Breach::new("outside", error))?;
        let event = events.into_iter().flatten().next();
        let event = event.ok_or_else(|| Breach::new("outside", format!("{event_id} is not there")))?;
        serde_json::from_slice(&event).map_err(|error| Breach::new("outside", error))
    }
}

/// Whether an event has another one among its auth events, as one has that ends an invite or a knock.
pub(super) fn is_allowed_by(event: &Value, other: &str) -> bool {
    let named = event["auth_events"].as_array().into_iter().flatten();
    named.flat_map(|named| [named.as_str(), named[0].as_str()]).any(|named| named == Some(other))
}

fn object(json: &[u8]) -> JsonObject {
    serde_json::from_slice(json).expect("servers send events")
}
