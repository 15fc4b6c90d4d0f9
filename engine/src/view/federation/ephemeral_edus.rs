//! What a server is told that is soon stale: who types, who has read what, who is there. As it is now, and once; but for what was
//! read, which it may be told again after an end of this server.
//!
//! Invariant: of what was to be told while a server was in a room it is told nothing once it has left.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    account::presence,
    core::num::{StreamPos, TextNum},
    error::{Error, Result},
    outbox::Ephemeral,
    remote::edu,
    room::{
        company::Company,
        receipts::{ReceiptKind, UNTHREADED},
    },
    store::{Reader, StorageError, schema},
    view::View,
};

/// Takes what is soon stale for a server; and notes what the server has been sent before.
pub struct EphemeralEdus<'a> {
    /// The server.
    pub destination: &'a str,
    /// Up to here the server has everything.
    pub delivered_to: StreamPos,
    /// Whether nothing else waits for it.
    pub is_all: bool,
    /// How many at most.
    pub limit: usize,
}

impl View for EphemeralEdus<'_> {
    /// EDUs in JSON.
    type Output = Vec<Bytes>;

    fn read(&self, reader: &Reader) -> Result<Vec<Bytes>> {
        let Some(server) = reader.text_num(self.destination)? else { return Ok(Vec::new()) };
        let outbox = &reader.shared.outbox;
        outbox.settle(server, self.delivered_to, self.is_all);
        look_for_missed(reader, server, self.limit)?;
        let (mut told, mut company) = (Told::default(), Company::new(reader, server));
        for ephemeral in outbox.take_ephemeral(server, self.limit) {
            match told.add(reader, &mut company, ephemeral) {
                Ok(()) => {}
                // It would be taken again each time, and keep all that is for the server waiting.
                Err(Error::Storage(error @ StorageError::Corrupt(_))) => {
                    tracing::warn!(%error, "what a server is to be told cannot be read, and is passed over");
                }
                Err(error) => return Err(error),
            }
        }
        let edus = told.edus();
        if edus.is_empty() {
            // Nobody is to be told of what was taken. It is not on its way, or it would be put back when the server is left, and be
            // due again at once, without end.
            drop(outbox.take_ephemeral(server, 0));
        }
        Ok(edus)
    }
}

/// What the server is told.
#[derive(Default)]
struct Told {
    typing: Vec<Value>,
    /// Receipts by rooms and threads, with their users.
    receipts: BTreeMap<(String, String), Vec<(String, Value)>>,
    present: Vec<Value>,
}

impl Told {
    /// Adds this as it is now, if the server is to be told of it.
    fn add(&mut self, reader: &Reader, company: &mut Company<'_>, ephemeral: Ephemeral) -> Result<()> {
        let is_told = match ephemeral {
            Ephemeral::Typing(room, ..) | Ephemeral::Receipt(room, ..) => company.is_in(room)?,
            Ephemeral::Presence(user, room) => company.has(user, Some(room))?,
        };
        if !is_told {
            return Ok(());
        }
        match ephemeral {
            Ephemeral::Typing(room, user, typing) => {
                let (room_id, user_id) = (reader.room_id(room)?, reader.user_id(user)?);
                let content = json!({"room_id": &*room_id, "user_id": &*user_id, "typing": typing});
                self.typing.push(content);
            }
            Ephemeral::Receipt(room, user, thread) => {
                let key = (room, user, ReceiptKind::Read as u8, thread);
                let Some(row) = reader.get(&schema::RECEIPTS, &key)? else { return Ok(()) };
                let Some(event) = reader.events_left(&[row.value.event])?.pop() else { return Ok(()) };
                // That who wrote an event has read it needs no saying.
                if event.header.sender == user {
                    return Ok(());
                }
                let mut data = json!({"ts": row.value.ts});
                let thread = reader.text(thread)?;
                if &*thread != UNTHREADED {
                    data["thread_id"] = (*thread).into();
                }
                let receipt = json!({"event_ids": [&*event.event_id], "data": data});
                let place = (reader.room_id(room)?.to_string(), thread.to_string());
                let user_id = reader.user_id(user)?.to_string();
                self.receipts.entry(place).or_default().push((user_id, receipt));
            }
            Ephemeral::Presence(user, _) => {
                let mut update = presence::content(reader, user)?;
                update["user_id"] = (*reader.user_id(user)?).into();
                if update.get("last_active_ago").is_none() {
                    update["last_active_ago"] = 0.into();
                }
                self.present.push(update);
            }
        }
        Ok(())
    }

    /// The same in JSON.
    fn edus(self) -> Vec<Bytes> {
        let typing = self.typing.into_iter().map(|content| ("m.typing", content));
        // A user may have receipts for several threads of a room, for which one object has no place.
        let receipts = self.receipts.into_iter().map(|((room_id, _), users)| {
            let users: serde_json::Map<String, Value> = users.into_iter().collect();
            ("m.receipt", json!({room_id: {"m.read": users}}))
        });
        let presence = Some(self.present).filter(|present| !present.is_empty());
        let presence = presence.map(|present| ("m.presence", json!({"push": present})));
        let edus = typing.chain(receipts).chain(presence);
        edus.map(|(kind, content)| edu(kind, content.to_string().as_bytes())).collect()
    }
}

/// Looks for receipts that the server has missed, at most `limit` with what waits for it; the rest is looked for when it has taken
/// these. One that cannot be read keeps no other and no event waiting, so that nothing more is looked for then.
fn look_for_missed(reader: &Reader, server: TextNum, limit: usize) -> Result<()> {
    let outbox = &reader.shared.outbox;
    let Some((search, max)) = outbox.search(server, limit) else { return Ok(()) };
    // It may lead through all rooms that the server is in.
    let mut searched = None;
    (reader.shared.wait)(&mut || searched = Some(search.go_on(reader, server, max)));
    let Some(searched) = searched else { return Ok(()) };
    let found = match searched {
        Ok(found) => found,
        Err(error @ StorageError::Corrupt(_)) => {
            tracing::warn!(%error, "what a server is to be told of what was read cannot be read, and is passed over");
            (Vec::new(), None)
        }
        Err(error) => return Err(error.into()),
    };
    outbox.found_receipts(server, search.from, found, reader.shared.clock.now_ms());
    Ok(())
}
