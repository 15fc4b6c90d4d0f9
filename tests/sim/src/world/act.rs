//! What a user asks of their server, and what becomes of it.
//!
//! A client whose server fails asks again, once, with the same transaction id: whatever the server had done before, the
//! message must be there once.

use serde_json::{Value, json};
use warren_engine::{
    Error, Preset,
    command::{
        ChangeMembership, CreateRoom, DeviceMessage, ForgetRoom, MembershipAction, SendEvent, SendToDevice,
        SetReceipts,
    },
    core::event::JsonObject,
    view::RoomStateEvent,
};

use super::{
    Acknowledged, Breach, Room, SERVER_NAMES, Stopped, World, devices, join::Failed, lists, server::DEVICE,
};
use crate::{
    client::{StateMap, current_state},
    plan::{Deed, OfDevices, Trouble, User, What},
};

/// A message as its client keeps it until it is acknowledged.
#[derive(Clone)]
pub struct Message {
    user: User,
    room: usize,
    request: SendEvent,
}

/// One request of a client, which can be made again.
enum Request {
    Create(CreateRoom),
    Send(Box<SendEvent>),
    Member(ChangeMembership),
    Forget {
        room_id: String,
        user_id: String,
    },
    /// The message's number and to whom it is.
    Tell(usize, User),
    /// What changes, and a number of its own.
    Devices(OfDevices, usize),
    /// The room and the event.
    Read(String, String),
}

/// What a request made.
enum Made {
    Room(String),
    Event(String),
    Nothing,
    /// Nothing, and the user is told why.
    Refused(String),
}

impl World {
    /// Plays a deed, with a fault of the disk in the middle of it.
    pub(super) fn act(&mut self, user: User, deed: Deed, trouble: Option<Trouble>) -> Result<(), Breach> {
        let Some((request, room, words)) = self.request(user, deed) else { return Ok(()) };
        let words = format!("{} {words}", self.user_id(user));
        if let Request::Send(send) = &request
            && let Some(target) = &send.redacts
        {
            self.note_redaction(user, room, target);
        }
        self.servers[user.server].arm(trouble);
        let before = self.audiences(user.server);
        let mut outcome = self.submit(user, room, &request)?;
        self.servers[user.server].disk.disarm();
        self.note_events(user.server, &before)?;
        if let Err(Stopped::Crashed | Stopped::Failed(Error::Storage(_))) = outcome {
            let how = if self.servers[user.server].disk.has_crashed() { "crashes" } else { "fails to write" };
            self.tell(format!("{words}: the server {how}"));
            if self.servers[user.server].disk.has_crashed() {
                self.servers[user.server].restart()?;
            }
            // What was done all the same, before it is done again.
            self.note_events(user.server, &before)?;
            outcome = self.submit(user, room, &request)?;
            self.note(user, room, &request, &format!("{words}, again"), outcome)?;
            self.note_events(user.server, &before)
        } else {
            self.note(user, room, &request, &words, outcome)
        }
    }

    fn note(
        &mut self,
        user: User,
        room: usize,
        request: &Request,
        words: &str,
        outcome: Result<Made, Stopped>,
    ) -> Result<(), Breach> {
        match (&outcome, request) {
            (Ok(_), Request::Tell(number, target)) => self.tell_device(user, *target, *number),
            (_, Request::Devices(change, _)) => self.note_devices(user, *change),
            (Ok(made), Request::Send(send)) if send.kind == lists::KIND => {
                let event_id = if let Made::Event(event_id) = made { Some(event_id.clone()) } else { None };
                self.note_list(room, event_id, &send.content);
            }
            _ => {}
        }
        match outcome {
            Ok(Made::Room(id)) => {
                self.rooms.push(Room { id });
                self.tell(format!("{words}: room {}", self.rooms.len()));
            }
            Ok(Made::Event(event_id)) => {
                if let Request::Send(send) = request {
                    self.past.note_said(&event_id, Value::Object(send.content.clone()));
                }
                let known = self.acknowledged.iter().position(|event| event.event_id == event_id);
                let number = known.unwrap_or_else(|| {
                    self.acknowledged.push(Acknowledged { user, room, event_id: event_id.clone() });
                    self.acknowledged.len() - 1
                });
                self.tell(format!("{words}: event {} ({event_id})", number + 1));
            }
            Ok(Made::Nothing) => self.tell(format!("{words}: done")),
            Ok(Made::Refused(why)) => self.tell(format!("{words}: refused, {why}")),
            Err(Stopped::Failed(Error::Storage(error))) => {
                return Err(Breach::new("storage", format!("{words}: {error}, though the disk is sound")));
            }
            Err(Stopped::Failed(error)) => self.tell(format!("{words}: refused, {error}")),
            Err(Stopped::Crashed) => return Err(Breach::new("storage", "a crash that nobody asked for")),
        }
        Ok(())
    }

    /// Makes the request; what the server cannot do alone, by way of another one.
    fn submit(
        &mut self,
        user: User,
        room: usize,
        request: &Request,
    ) -> Result<Result<Made, Stopped>, Breach> {
        let elsewhere = match request {
            Request::Member(change) => self.submit_elsewhere(user, room, change),
            _ => Ok(false),
        };
        match elsewhere {
            Ok(true) => Ok(Ok(Made::Nothing)),
            Ok(false) => Ok(self.submit_here(user, request)),
            Err(Failed::Stopped(stopped)) => Ok(Err(stopped)),
            Err(Failed::Refused(why)) => Ok(Ok(Made::Refused(why))),
            Err(Failed::Breach(breach)) => Err(breach),
        }
    }

    /// Makes a change of a membership that needs another server. Answers whether it does.
    fn submit_elsewhere(
        &mut self,
        user: User,
        room: usize,
        change: &ChangeMembership,
    ) -> Result<bool, Failed> {
        if change.action != MembershipAction::Invite {
            return self.go_elsewhere(user, room, change.action);
        }
        let target = self.plan.users().into_iter().find(|target| self.user_id(*target) == change.target);
        match target.filter(|target| target.server != user.server) {
            Some(target) => self.invite_elsewhere(user, room, target).map(|()| true),
            None => Ok(false),
        }
    }

    fn submit_here(&self, user: User, request: &Request) -> Result<Made, Stopped> {
        let server = &self.servers[user.server];
        match request {
            Request::Create(create) => server.write(create.clone()).map(Made::Room),
            Request::Send(send) => {
                // Setting state to what it is makes no event.
                let before = match send.state_key {
                    Some(_) => {
                        current_state(&server.engine(), &send.room_id, &send.sender).unwrap_or_default()
                    }
                    None => StateMap::new(),
                };
                let event_id = server.write((**send).clone())?;
                let is_old = before.values().any(|old| *old == event_id);
                Ok(if is_old { Made::Nothing } else { Made::Event(event_id) })
            }
            Request::Member(change) => server.write(change.clone()).map(|()| Made::Nothing),
            Request::Tell(number, target) => {
                let message = DeviceMessage {
                    user_id: self.user_id(*target),
                    device_id: DEVICE.to_owned(),
                    content: json!({ "number": number }).to_string().into(),
                };
                let tell = SendToDevice {
                    sender: self.user_id(user),
                    kind: "org.example.message".to_owned(),
                    messages: vec![message],
                    transaction: Some((DEVICE.to_owned(), number.to_string())),
                };
                server.write(tell).map(|()| Made::Nothing)
            }
            Request::Devices(change, number) => {
                devices::change_devices(server, &self.user_id(user), *change, *number).map(|()| Made::Nothing)
            }
            Request::Read(room_id, event_id) => {
                let receipt = SetReceipts {
                    room_id: room_id.clone(),
                    user: self.user_id(user),
                    read: Some(event_id.clone()),
                    read_private: None,
                    fully_read: None,
                    thread_id: None,
                };
                server.write(receipt).map(|_| Made::Nothing)
            }
            Request::Forget { room_id, user_id } => {
                let forget = ForgetRoom { room_id: room_id.clone(), user_id: user_id.clone() };
                server.write(forget).map(|()| Made::Nothing)
            }
        }
    }

    /// What a deed means at this moment: the request, the index of its room, and the words for it.
    fn request(&mut self, user: User, deed: Deed) -> Option<(Request, usize, String)> {
        match deed {
            Deed::Create { public } => {
                let mut create = CreateRoom::new(self.user_id(user), self.plan.version);
                create.preset = if public { Preset::PublicChat } else { Preset::PrivateChat };
                let kind = if public { "public" } else { "private" };
                let words = format!("makes a {kind} room of version {}", self.plan.version);
                Some((Request::Create(create), self.rooms.len(), words))
            }
            Deed::Tell(target) => {
                self.messages += 1;
                let words = format!("tells {} message {}", self.user_id(target), self.messages);
                Some((Request::Tell(self.messages, target), 0, words))
            }
            Deed::Devices(change) => {
                self.messages += 1;
                Some((Request::Devices(change, self.messages), 0, devices::words(change)))
            }
            Deed::In { room, what } => {
                let index = usize::from(room) % self.rooms.len().max(1);
                self.rooms.get(index)?;
                let (request, index, words) = self.request_in(user, index, what)?;
                let place =
                    if self.rooms.len() > 1 { format!(" in room {}", index + 1) } else { String::new() };
                Some((request, index, format!("{words}{place}")))
            }
        }
    }

    fn request_in(&mut self, user: User, room: usize, what: What) -> Option<(Request, usize, String)> {
        use MembershipAction as Action;
        self.ledger.asked.extend(match what {
            What::Knock => Some(user),
            What::Invite(target) => Some(target),
            _ => None,
        });
        let own = |action, words: &str| Some((self.member(user, room, user, action), room, words.to_owned()));
        let other = |target, action, words: &str| {
            Some((self.member(user, room, target, action), room, format!("{words} {}", self.user_id(target))))
        };
        match what {
            What::Join => own(Action::Join, "joins"),
            What::Leave => own(Action::Leave, "leaves"),
            What::Knock => own(Action::Knock, "knocks"),
            What::Invite(target) => other(target, Action::Invite, "invites"),
            What::Kick(target) => other(target, Action::Kick, "kicks"),
            What::Ban(target) => other(target, Action::Ban, "bans"),
            What::Unban(target) => other(target, Action::Unban, "unbans"),
            What::Say => Some(self.say(user, room)),
            What::Repeat => {
                let last = self.last_message.clone().filter(|message| message.user == user)?;
                Some((
                    Request::Send(Box::new(last.request)),
                    last.room,
                    "sends the last message again".into(),
                ))
            }
            What::Topic => {
                self.messages += 1;
                let text = format!("topic {}", self.messages);
                let request = self.state(user, room, "m.room.topic", "", json!({"topic": text}));
                Some((request, room, format!("sets the topic to “{text}”")))
            }
            What::State(key) => {
                self.messages += 1;
                let value = self.messages;
                let key = format!("key {key}");
                let request = self.state(user, room, "org.example.entry", &key, json!({"value": value}));
                Some((request, room, format!("sets “{key}” to {value}")))
            }
            What::Power(target, level) => {
                let target = self.user_id(target);
                let words = format!("sets the power of {target} to {level}");
                let change = |levels: &mut Value| levels["users"][target.as_str()] = level.into();
                Some((self.power_levels(user, room, change)?, room, words))
            }
            What::Level(field, level) => {
                let change = |levels: &mut Value| levels[field] = level.into();
                Some((self.power_levels(user, room, change)?, room, format!("sets {field} to {level}")))
            }
            What::JoinRule(rule) => {
                let request = self.state(user, room, "m.room.join_rules", "", json!({"join_rule": rule}));
                Some((request, room, format!("sets the join rule to {rule}")))
            }
            What::Visibility(seen) => {
                let content = json!({"history_visibility": seen});
                let request = self.state(user, room, "m.room.history_visibility", "", content);
                Some((request, room, format!("sets the history visibility to {seen}")))
            }
            What::ShutOut(server) => Some(self.list(user, room, Some(server))),
            What::LetIn => Some(self.list(user, room, None)),
            What::Redact(pick) => self.redact(user, room, pick),
            What::Read(pick) => {
                let (number, event_id) = self.any_event(room, pick)?;
                let words = format!("has read event {}", number + 1);
                Some((Request::Read(self.rooms[room].id.clone(), event_id), room, words))
            }
            What::Forget => {
                let (room_id, user_id) = (self.rooms[room].id.clone(), self.user_id(user));
                Some((Request::Forget { room_id, user_id }, room, "forgets the room".to_owned()))
            }
        }
    }

    fn say(&mut self, user: User, room: usize) -> (Request, usize, String) {
        self.messages += 1;
        let text = format!("message {}", self.messages);
        let request = SendEvent {
            transaction: Some((DEVICE.to_owned(), self.messages.to_string())),
            ..SendEvent::message(
                &self.rooms[room].id,
                &self.user_id(user),
                object(json!({"msgtype": "m.text", "body": text})),
            )
        };
        self.last_message = Some(Message { user, room, request: request.clone() });
        (Request::Send(Box::new(request)), room, format!("says “{text}”"))
    }

    fn member(&self, user: User, room: usize, target: User, action: MembershipAction) -> Request {
        Request::Member(ChangeMembership {
            room_id: self.rooms[room].id.clone(),
            sender: self.user_id(user),
            target: self.user_id(target),
            action,
            reason: None,
            is_guest: false,
        })
    }

    fn state(&self, user: User, room: usize, kind: &str, state_key: &str, content: Value) -> Request {
        Request::Send(Box::new(SendEvent {
            kind: kind.to_owned(),
            state_key: Some(state_key.to_owned()),
            ..SendEvent::message(&self.rooms[room].id, &self.user_id(user), object(content))
        }))
    }

    /// An access list that lets all servers take part but one, if one is given.
    fn list(&self, user: User, room: usize, shut_out: Option<usize>) -> (Request, usize, String) {
        let shut_out = shut_out.map(|server| SERVER_NAMES[server % self.servers.len()]);
        let words = match shut_out {
            Some(name) => format!("shuts {name} out"),
            None => "lets all servers in".to_owned(),
        };
        let deny: Vec<&str> = shut_out.into_iter().collect();
        (self.state(user, room, lists::KIND, "", json!({"allow": ["*"], "deny": deny})), room, words)
    }

    /// The power levels that the user sees, changed.
    fn power_levels(&self, user: User, room: usize, change: impl FnOnce(&mut Value)) -> Option<Request> {
        let view = RoomStateEvent {
            room_id: self.rooms[room].id.clone(),
            user_id: self.user_id(user),
            kind: "m.room.power_levels".to_owned(),
            state_key: String::new(),
            is_whole: false,
        };
        let levels = self.servers[user.server].engine().read(&view).ok()?;
        let mut levels = serde_json::from_slice(&levels).ok()?;
        change(&mut levels);
        Some(self.state(user, room, "m.room.power_levels", "", levels))
    }

    fn redact(&self, user: User, room: usize, pick: u8) -> Option<(Request, usize, String)> {
        let (number, event_id) = self.any_event(room, pick)?;
        // A server that has the list refuses that, and one that has not would shut the room for everybody: of a list nothing is left.
        if self.ledger.lists.contains(&event_id) {
            return None;
        }
        let request = SendEvent {
            kind: "m.room.redaction".to_owned(),
            redacts: Some(event_id),
            ..SendEvent::message(&self.rooms[room].id, &self.user_id(user), JsonObject::new())
        };
        Some((Request::Send(Box::new(request)), room, format!("redacts event {}", number + 1)))
    }

    /// One of the events of a room, with its number.
    fn any_event(&self, room: usize, pick: u8) -> Option<(usize, String)> {
        let in_room = self.acknowledged.iter().enumerate().filter(|(_, event)| event.room == room);
        let events: Vec<(usize, &Acknowledged)> = in_room.collect();
        let (number, event) = events.get(usize::from(pick) % events.len().max(1))?;
        Some((*number, event.event_id.clone()))
    }
}

fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        _ => JsonObject::new(),
    }
}
