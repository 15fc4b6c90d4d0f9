//! Who types in a room and who has read what, in a sync.
//!
//! Neither event has a sender of its own: the senders that a filter names are the users in it.
//! Specification: client-server API, "Typing Notifications", "Receipts"; the example of "Filtering".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Request;
use crate::{
    core::{
        filter::EventFilter,
        json::splice::{events_member, plain_event_item},
        num::{RoomNum, StreamPos},
    },
    error::{Error, Result},
    room::{receipts, typing},
    store::StorageError,
};

const TYPING: &str = "m.typing";
const RECEIPT: &str = "m.receipt";

/// What has changed after `since` (`None`: what there is), as far as the filter wants it.
pub(super) fn write(
    request: &Request<'_>,
    out: &mut Vec<u8>,
    room: RoomNum,
    room_id: &str,
    since: Option<StreamPos>,
) -> Result<()> {
    let filter = &request.sync.filter.room.ephemeral;
    let (reader, since) = (request.reader, since.unwrap_or_default());
    let typing = match filter.includes_ephemeral(TYPING, room_id) {
        true => typing::since(reader, room, since)?,
        false => None,
    };
    let receipts = match filter.includes_ephemeral(RECEIPT, room_id) {
        true => receipts::since(reader, room, request.user, since)?,
        false => Vec::new(),
    };
    let typing = typing.map(|content| typing_of_wanted(&filter.event, content)).transpose()?;
    let receipts: Vec<Vec<u8>> = receipts
        .into_iter()
        .filter_map(|content| receipts_of_wanted(&filter.event, content).transpose())
        .collect::<Result<_>>()?;
    if typing.is_none() && receipts.is_empty() {
        return Ok(());
    }
    events_member(out, "ephemeral", |out| {
        if let Some(content) = typing {
            plain_event_item(out, TYPING, &content);
        }
        for content in &receipts {
            plain_event_item(out, RECEIPT, content);
        }
        Ok(())
    })
}

/// Also when nobody is left: one of them may just have stopped.
fn typing_of_wanted(filter: &EventFilter, content: Vec<u8>) -> Result<Vec<u8>> {
    #[derive(Serialize, Deserialize)]
    struct Typing {
        user_ids: Vec<String>,
    }
    if filter.includes_every_sender() {
        return Ok(content);
    }
    let mut typing: Typing = serde_json::from_slice(&content).map_err(not_as_written)?;
    typing.user_ids.retain(|user_id| filter.includes_sender(user_id));
    serde_json::to_vec(&typing).map_err(not_as_written)
}

/// `None` when no receipt is left.
fn receipts_of_wanted(filter: &EventFilter, content: Vec<u8>) -> Result<Option<Vec<u8>>> {
    /// By event, kind and user.
    type Receipts<'a> = BTreeMap<String, BTreeMap<String, BTreeMap<String, &'a RawValue>>>;
    if filter.includes_every_sender() {
        return Ok(Some(content));
    }
    let mut receipts: Receipts<'_> = serde_json::from_slice(&content).map_err(not_as_written)?;
    receipts.retain(|_, kinds| {
        kinds.retain(|_, users| {
            users.retain(|user_id, _| filter.includes_sender(user_id));
            !users.is_empty()
        });
        !kinds.is_empty()
    });
    match receipts.is_empty() {
        true => Ok(None),
        false => serde_json::to_vec(&receipts).map(Some).map_err(not_as_written),
    }
}

fn not_as_written(error: serde_json::Error) -> Error {
    StorageError::Corrupt(error.to_string()).into()
}
