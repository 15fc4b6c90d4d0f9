//! A local user sends a message or a state event.
//!
//! Not here: memberships changed by their own endpoints (`change_membership`); as plain state events they pass the same
//! checks.

use serde_json::Value;

use crate::{
    account::presence,
    command::{Command, Lanes},
    core::{event::JsonObject, num::UserNum},
    error::{Denied, Error, Invalid, Result},
    room::{NewEvent, RoomCtx, append, membership, sending, upgrade},
    store::{Positioned, Tx, schema, schema::Membership},
};

/// The type of the state that says whether guests may be in a room.
const GUEST_ACCESS: &str = "m.room.guest_access";

/// `PUT /rooms/{roomId}/send/…`, `…/state/…`, `…/redact/…`: the three differ in what is given.
#[derive(Clone, Debug)]
pub struct SendEvent {
    /// The room's id.
    pub room_id: String,
    /// The user who sends.
    pub sender: String,
    /// Whether the sender is a guest.
    pub is_guest: bool,
    /// The event's type.
    pub kind: String,
    /// Given for a state event.
    pub state_key: Option<String>,
    /// The content.
    pub content: JsonObject,
    /// The event to redact, for an `m.room.redaction`; else taken from the content.
    pub redacts: Option<String>,
    /// The client's device and transaction id: the same again answers with the event that was made the first time.
    pub transaction: Option<(String, String)>,
    /// The time that an application service gives it, in milliseconds since the epoch; else now.
    pub origin_server_ts: Option<u64>,
}

impl Command for SendEvent {
    /// The event's id.
    type Output = String;

    fn lanes(&self) -> Lanes {
        let lanes = Lanes::default().room(&self.room_id);
        match self.replacement_room() {
            // Who replaces a room may bring settings along.
            Some(_) => lanes.user(&self.sender),
            None => lanes,
        }
    }

    fn run(&self, tx: &mut Tx) -> Result<String> {
        Ok(self.send(tx, &[])?.event_id)
    }
}

/// A user sends an event that may end that guests are in the room ([`SendEvent::may_shut_out_guests`]). They leave with it, unless
/// the room's policy server has to sign that.
#[derive(Clone, Debug)]
pub struct ShutOutGuests {
    /// The event.
    pub event: SendEvent,
}

/// An event that was sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sent {
    /// Its id.
    pub event_id: String,
    /// Whether guests of this server have to leave the room, and its policy server has to sign that before
    /// ([`crate::command::RemoveGuests`]).
    pub has_guests_to_remove: bool,
}

impl Command for ShutOutGuests {
    type Output = Sent;

    fn lanes(&self) -> Lanes {
        self.event.lanes()
    }

    fn run(&self, tx: &mut Tx) -> Result<Sent> {
        self.event.send(tx, &[])
    }
}

/// A user gives a room its names, an `m.room.canonical_alias`, of which other servers were asked for theirs.
#[derive(Clone, Debug)]
pub struct SetCanonicalAlias {
    /// The event.
    pub event: SendEvent,
    /// Aliases of other servers that point to the room, as these say.
    pub aliases_elsewhere: Vec<String>,
}

impl Command for SetCanonicalAlias {
    /// The event's id.
    type Output = String;

    fn lanes(&self) -> Lanes {
        self.event.lanes()
    }

    fn run(&self, tx: &mut Tx) -> Result<String> {
        Ok(self.event.send(tx, &self.aliases_elsewhere)?.event_id)
    }
}

impl SendEvent {
    fn send(&self, tx: &mut Tx, aliases_elsewhere: &[String]) -> Result<Sent> {
        let sender = tx.user_num(&self.sender)?.ok_or(Denied::NotInRoom)?;
        let transaction = match &self.transaction {
            None => None,
            Some((device_id, id)) => Some((tx.intern_text(device_id)?, id.clone())),
        };
        let transaction_key = transaction.as_ref().map(|(device, id)| {
            // A transaction id counts for one endpoint path: what is sent where is part of it.
            let endpoint = self.redacts.as_deref().unwrap_or(&self.kind);
            (sender, *device, format!("{}/{endpoint}/{id}", self.room_id))
        });
        if let Some(key) = &transaction_key
            && let Some(done) = tx.get(&schema::TRANSACTIONS, key)?
        {
            return Ok(Sent { event_id: done.value, has_guests_to_remove: false });
        }
        let mut room = RoomCtx::find(tx, &self.room_id)?.ok_or(Denied::NotInRoom)?;
        let mut content = self.content.clone();
        let redacts = self.check(tx, &room, &mut content, aliases_elsewhere)?;
        let shuts_out = self.concerns_guest_access(tx, &room, redacts.as_deref())?;
        if let Some(event_id) = self.unchanged_state(tx, &room, sender, &content)? {
            // Those who were kept may be let go when the room is closed again.
            let has_guests_to_remove = shuts_out && !membership::allows_guests(tx, &room)?;
            if has_guests_to_remove {
                tx.put(&schema::GUESTS_TO_REMOVE, &room.num, &());
            }
            return Ok(Sent { event_id, has_guests_to_remove });
        }
        let origin_server_ts = self.sent_ms(tx, &room)?;
        let event = append(
            tx,
            &mut room,
            NewEvent {
                sender: &self.sender,
                kind: &self.kind,
                state_key: self.state_key.as_deref(),
                content,
                redacts: redacts.as_deref(),
                origin_server_ts,
                transaction,
            },
        )
        .map_err(malformed)?;
        let pos = tx.last_position();
        let has_guests_to_remove = shuts_out && membership::shut_out_guests(tx, &mut room)?;
        room.save(tx);
        if let Some(replacement) = self.replacement_room() {
            upgrade::carry_settings_of_member(tx, sender, replacement)?;
        }
        presence::acted(tx, sender);
        if let Some(key) = transaction_key {
            tx.put(&schema::TRANSACTIONS, &key, &Positioned { pos, value: event.event_id.to_string() });
        }
        Ok(Sent { event_id: event.event_id.to_string(), has_guests_to_remove })
    }

    /// When it is sent, in milliseconds since the epoch.
    fn sent_ms(&self, tx: &Tx, room: &RoomCtx) -> Result<u64> {
        match (self.origin_server_ts, self.kind.as_str(), self.state_key.as_deref()) {
            (Some(given), ..) => Ok(given),
            (None, "m.room.member", Some(target)) => membership::sent_ms(tx, room, target),
            _ => Ok(tx.shared.clock.now_ms()),
        }
    }

    /// The room that replaces this one, if the event says so.
    fn replacement_room(&self) -> Option<&str> {
        let is_tombstone = self.kind == "m.room.tombstone" && self.state_key.as_deref() == Some("");
        self.content.get("replacement_room").and_then(Value::as_str).filter(|_| is_tombstone)
    }

    /// Whether it may say whether guests may be in the room, or redact what says so, as far as that is to be seen by its type.
    pub fn may_shut_out_guests(&self) -> bool {
        matches!(self.kind.as_str(), GUEST_ACCESS | "m.room.redaction")
    }

    /// Whether the event says whether guests may be in the room, or redacts what says so.
    fn concerns_guest_access(&self, tx: &Tx, room: &RoomCtx, redacts: Option<&str>) -> Result<bool> {
        let Some(redacts) = redacts else {
            return Ok(self.kind == GUEST_ACCESS && self.state_key.as_deref() == Some(""));
        };
        Ok(room.state(tx, GUEST_ACCESS, "")?.is_some_and(|current| *current.event_id == *redacts))
    }

    /// A message (`m.room.message`) with this content.
    pub fn message(room_id: &str, sender: &str, content: JsonObject) -> Self {
        Self {
            room_id: room_id.to_owned(),
            sender: sender.to_owned(),
            is_guest: false,
            kind: "m.room.message".to_owned(),
            state_key: None,
            content,
            redacts: None,
            transaction: None,
            origin_server_ts: None,
        }
    }

    /// What is asked of an event besides the room's rules; completes its content. Answers what it redacts.
    fn check(
        &self,
        tx: &Tx,
        room: &RoomCtx,
        content: &mut JsonObject,
        aliases_elsewhere: &[String],
    ) -> Result<Option<String>> {
        match (self.kind.as_str(), self.state_key.as_deref()) {
            ("m.room.create", _) => return Err(self.second_create(tx, room)?),
            ("m.room.member", Some(target)) => {
                membership::prepare(tx, room, target, self.is_guest, content)?;
            }
            ("m.room.canonical_alias", Some(state_key)) => {
                sending::check_aliases(tx, room, state_key, content, aliases_elsewhere)?;
            }
            ("m.room.server_acl", Some("")) => sending::check_access_list(tx, content)?,
            ("m.room.redaction", None) => {
                let named = match content.remove("redacts") {
                    Some(Value::String(event_id)) => Some(event_id),
                    _ => None,
                };
                let missing = || Invalid::Parameter { what: "redacts", why: "it must name an event".into() };
                let redacts = self.redacts.clone().or(named).ok_or_else(missing)?;
                sending::check_redaction(tx, room, &self.sender, &redacts)?;
                return Ok(Some(redacts));
            }
            (kind, None) => sending::check_relation(tx, room, &self.sender, kind, content)?,
            _ => {}
        }
        Ok(None)
    }

    /// Why the room is not created again: that makes no sense, whoever asks for it. Who is not in the room is told that alone.
    fn second_create(&self, tx: &Tx, room: &RoomCtx) -> Result<Error> {
        let sender = tx.user_num(&self.sender)?.ok_or(Denied::NotInRoom)?;
        Ok(match tx.membership(sender, room.num)? {
            Some(Membership::Join) => {
                Invalid::Parameter { what: "eventType", why: "the room is there already".into() }.into()
            }
            _ => Denied::NotInRoom.into(),
        })
    }

    /// Setting state to what it is already makes no new event, as on other servers, while the sender is in the room.
    fn unchanged_state(
        &self,
        tx: &Tx,
        room: &RoomCtx,
        sender: UserNum,
        content: &JsonObject,
    ) -> Result<Option<String>> {
        let Some(state_key) = &self.state_key else { return Ok(None) };
        let Some(current) = room.state(tx, &self.kind, state_key)? else { return Ok(None) };
        let pdu = current.pdu()?;
        let same = *pdu.sender == *self.sender && pdu.content == *content;
        let is_joined = same && tx.membership(sender, room.num)? == Some(Membership::Join);
        Ok(is_joined.then(|| current.event_id.to_string()))
    }
}

/// What the room's rules refuse for its shape alone, the sender can correct: the content is theirs.
fn malformed(error: Error) -> Error {
    match error {
        Error::Denied(Denied::Rule { rule, reason }) if reason.is_malformed() => {
            Invalid::Content { rule, reason }.into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
