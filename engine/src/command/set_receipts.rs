//! A user has read up to an event. Specification: client-server API, "Receipts" and "Fully read markers".

use std::sync::Arc;

use serde_json::json;

use crate::{
    account::account_data,
    command::{Command, Lanes},
    core::num::{RoomNum, UserNum},
    error::{Denied, Error, Invalid, Result},
    room::{
        Event,
        receipts::{self, MAIN_THREAD, ReceiptKind, UNTHREADED, thread_root},
        visibility::Viewer,
    },
    store::{Reader, Tx},
};

/// The type of the account data that holds the read marker.
const FULLY_READ: &str = "m.fully_read";

/// `POST /rooms/{roomId}/receipt/…` and `/read_markers`: event ids for what is to be moved.
#[derive(Default)]
pub struct SetReceipts {
    /// The room's id.
    pub room_id: String,
    /// Who has read.
    pub user: String,
    /// `m.read`.
    pub read: Option<String>,
    /// `m.read.private`.
    pub read_private: Option<String>,
    /// `m.fully_read`.
    pub fully_read: Option<String>,
    /// The thread that the receipts are for: `main` or the id of its root; else for the whole room.
    pub thread_id: Option<String>,
}

impl Command for SetReceipts {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (room, user, read, read_private, fully_read) = {
            let (mut viewer, _) = Viewer::enter(tx, &self.room_id, &self.user)?;
            if !viewer.is_joined() {
                return Err(Denied::NotInRoom.into());
            }
            let mut event = |event_id: &Option<String>| {
                event_id.as_ref().map(|event_id| viewer.event(event_id)).transpose()
            };
            let events = (event(&self.read)?, event(&self.read_private)?, event(&self.fully_read)?);
            (viewer.room, viewer.user, events.0, events.1, events.2)
        };
        let now_ms = tx.shared.clock.now_ms();
        for (kind, event) in [(ReceiptKind::Read, read), (ReceiptKind::ReadPrivate, read_private)] {
            let Some(event) = event else { continue };
            let thread = self.thread(tx, &event)?;
            receipts::set(tx, room, user, kind, thread, &event, now_ms)?;
        }
        if let Some(event) = fully_read {
            if self.thread_id.is_some() {
                return Err(invalid_thread("m.fully_read is not for a thread"));
            }
            set_fully_read(tx, room, user, &event)?;
        }
        Ok(())
    }
}

impl SetReceipts {
    /// The thread, if the event belongs to it.
    fn thread(&self, reader: &Reader, event: &Arc<Event>) -> Result<&str> {
        let Some(thread_id) = self.thread_id.as_deref() else { return Ok(UNTHREADED) };
        let root = thread_root(reader, event)?;
        let belongs = match thread_id {
            "" => return Err(invalid_thread("thread_id must not be empty")),
            MAIN_THREAD => root.is_none(),
            // A root may be read as the first event of its thread.
            thread_id => {
                *event.event_id == *thread_id || (root.is_some() && reader.event_num(thread_id)? == root)
            }
        };
        if belongs { Ok(thread_id) } else { Err(invalid_thread("the event is not in this thread")) }
    }
}

fn invalid_thread(why: &str) -> Error {
    Invalid::Parameter { what: "thread_id", why: why.to_owned() }.into()
}

/// Moves the read marker, if that is forwards.
fn set_fully_read(tx: &mut Tx, room: RoomNum, user: UserNum, event: &Event) -> Result<()> {
    if let Some(content) = account_data::get(tx, user, Some(room), FULLY_READ)?
        && let Ok(content) = serde_json::from_slice::<serde_json::Value>(&content)
        && let Some(before) = content.get("event_id").and_then(serde_json::Value::as_str)
        && let Some(before) = tx.event_num(before)?
        && tx.event(before)?.pos() >= event.pos()
    {
        return Ok(());
    }
    let content = json!({ "event_id": &*event.event_id }).to_string();
    Ok(account_data::set(tx, user, Some(room), FULLY_READ, &content.into())?)
}
