//! A local user sends a message or a state event.

use crate::{
    command::{Command, Lanes},
    core::event::JsonObject,
    error::{Error, Invalid, Result, What},
    room::{NewEvent, RoomCtx, append},
    store::{Positioned, Tx, schema},
};

/// `PUT /rooms/{roomId}/send/…`, `…/state/…`, `…/redact/…`: the three differ in what is given.
pub struct SendEvent {
    /// The room's id.
    pub room_id: String,
    /// The user who sends.
    pub sender: String,
    /// The event's type.
    pub kind: String,
    /// Given for a state event.
    pub state_key: Option<String>,
    /// The content.
    pub content: JsonObject,
    /// The event to redact, for an `m.room.redaction`.
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
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<String> {
        let sender = tx.user_num(&self.sender)?.ok_or(Error::NotFound(What::User))?;
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
            return Ok(done.value);
        }
        let mut room = RoomCtx::load(tx, &self.room_id)?;
        if let Some(event_id) = self.unchanged_state(tx, &room)? {
            return Ok(event_id);
        }
        self.check_alias_content(tx)?;
        let event = append(
            tx,
            &mut room,
            NewEvent {
                sender: &self.sender,
                kind: &self.kind,
                state_key: self.state_key.as_deref(),
                content: self.content.clone(),
                redacts: self.redacts.as_deref(),
                origin_server_ts: self.origin_server_ts.unwrap_or_else(|| tx.shared.clock.now_ms()),
                transaction,
            },
        )?;
        room.save(tx);
        if let Some(key) = transaction_key {
            let done = Positioned { pos: tx.last_position(), value: event.event_id.to_string() };
            tx.put(&schema::TRANSACTIONS, &key, &done);
        }
        Ok(event.event_id.to_string())
    }
}

impl SendEvent {
    /// Setting state to what it is already makes no new event (as other servers do), if the sender could have set it.
    fn unchanged_state(&self, tx: &Tx, room: &RoomCtx) -> Result<Option<String>> {
        let Some(state_key) = &self.state_key else { return Ok(None) };
        let Some(current) = room.state(tx, &self.kind, state_key)? else { return Ok(None) };
        let pdu = current.pdu()?;
        let same = *pdu.sender == *self.sender && pdu.content == self.content;
        Ok(same.then(|| current.event_id.to_string()))
    }

    /// Every alias that `m.room.canonical_alias` names anew must exist and point to this room.
    ///
    /// Specification: client-server API, `m.room.canonical_alias` and the errors of `PUT …/state/…`.
    fn check_alias_content(&self, tx: &Tx) -> Result<()> {
        if self.kind != "m.room.canonical_alias" || self.state_key.is_none() {
            return Ok(());
        }
        let named = self.content.get("alias").into_iter();
        let others =
            self.content.get("alt_aliases").and_then(|aliases| aliases.as_array()).into_iter().flatten();
        for alias in named.chain(others).filter_map(|alias| alias.as_str()) {
            let found = tx.get(&schema::ALIASES, &alias.to_owned())?;
            if found.is_none_or(|found| found.room_id != self.room_id) {
                return Err(Invalid::AliasTarget(alias.to_owned()).into());
            }
        }
        Ok(())
    }
}
