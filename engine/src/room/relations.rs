//! Relations: which events annotate, replace, refer to or continue another; and threads.
//!
//! Specification: client-server API, "Forming relationships between events" and "Threading".

use std::sync::Arc;

use serde_json::Value;

use super::{Event, RoomCtx};
use crate::{
    core::num::StreamPos,
    error::Result,
    store::{
        Positioned, Tx, schema,
        schema::{Relation, Thread},
    },
};

/// What a content says it relates to: the type of relation and the event's id.
pub(crate) fn relation_of(content: &crate::core::event::JsonObject) -> Option<(&str, &str)> {
    let relates_to = content.get("m.relates_to")?.as_object()?;
    let rel_type = relates_to.get("rel_type").and_then(Value::as_str)?;
    let event_id = relates_to.get("event_id").and_then(Value::as_str)?;
    Some((rel_type, event_id))
}

/// Indexes the event under the one that it relates to, if that one is in the same room.
pub(crate) fn apply(tx: &mut Tx, room: &RoomCtx, event: &Arc<Event>, pos: StreamPos) -> Result<()> {
    let pdu = event.pdu()?;
    let Some((rel_type, target_id)) = relation_of(&pdu.content) else { return Ok(()) };
    let Some(target) = tx.event_num(target_id)? else { return Ok(()) };
    if tx.event(target)?.header.room != room.num {
        return Ok(());
    }
    let relation = Relation {
        event: event.num,
        rel_type: tx.intern_text(rel_type)?,
        kind: event.header.kind,
        sender: event.header.sender,
    };
    tx.put(&schema::RELATIONS, &(room.num, target, pos), &relation);
    if rel_type == "m.thread" {
        let before = tx.get(&schema::THREADS, &(room.num, target))?;
        if let Some(before) = &before {
            tx.delete(&schema::THREAD_STREAM, &(room.num, before.pos));
        }
        let count = before.map_or(0, |before| before.value.count) + 1;
        tx.put(
            &schema::THREADS,
            &(room.num, target),
            &Positioned { pos, value: Thread { latest: event.num, count } },
        );
        tx.put(&schema::THREAD_STREAM, &(room.num, pos), &target);
        tx.put(&schema::THREAD_USERS, &(room.num, target, event.header.sender), &());
    }
    Ok(())
}
