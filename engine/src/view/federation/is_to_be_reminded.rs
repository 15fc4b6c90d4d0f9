//! Whether a server goes by that this one is in a room which it has left.

use bytes::Bytes;
use serde::Deserialize;

use crate::{
    core::{acl::ServerAcl, event::JsonObject},
    error::Result,
    room::{RoomCtx, servers::KIND_OF_ACCESS_LISTS, untold},
    store::Reader,
    view::View,
};

/// A server has sent events of a room that this server is not in.
///
/// Who was delivered long ago that this server's users have left refused it, if the room's access list denied this server then, and
/// goes on sending for good. It is told once more, but not again for an hour ([`crate::command::RemindOfLeave`]); if it sends an
/// access list that lets this server in, for some seconds. Whatever is made up leads to no more than that: nothing is judged.
pub struct IsToBeReminded<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The server.
    pub server: &'a str,
    /// The events, as they were sent.
    pub pdus: &'a [Bytes],
}

impl View for IsToBeReminded<'_> {
    /// Whether it is. It counts as reminded then. O(extremities of the room).
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        // Most rooms that are made up end here.
        let Some(room) = RoomCtx::find(reader, self.room_id)? else { return Ok(false) };
        let Some(server) = reader.text_num(self.server)? else { return Ok(false) };
        let (now_ms, reminders) = (reader.shared.clock.now_ms(), &reader.shared.reminders);
        let is_let_in = || self.pdus.iter().any(|pdu| lets_in(pdu, &reader.shared.server_name));
        if reminders.is_recent(server, room.num, now_ms, is_let_in)
            || untold::delivered_leave(reader, &room, server)?.is_empty()
        {
            return Ok(false);
        }
        reminders.note(server, room.num, now_ms);
        Ok(true)
    }
}

#[derive(Deserialize)]
struct OfKind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct OfContent {
    content: JsonObject,
}

/// Whether the event is an access list that lets the server take part.
fn lets_in(pdu: &[u8], server: &str) -> bool {
    serde_json::from_slice::<OfKind>(pdu).is_ok_and(|event| event.kind == KIND_OF_ACCESS_LISTS)
        && serde_json::from_slice::<OfContent>(pdu)
            .is_ok_and(|event| ServerAcl::from_content(&event.content).allows(server))
}
