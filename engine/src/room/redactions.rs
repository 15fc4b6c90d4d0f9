//! Redactions: applying one that may be applied to the event that it names.
//!
//! Specification: "Handling redactions" of each room version.

use std::sync::Arc;

use super::{Event, RoomCtx, event::encode_body, relations};
use crate::{
    core::{
        auth::may_redact,
        event::{JsonObject, redact},
        json::write_object,
    },
    error::Result,
    store::{Positioned, StorageError, Tx, schema},
};

/// If the event is a redaction, applies it to its target, when that is there and the sender may.
pub(crate) fn apply(tx: &mut Tx, room: &RoomCtx, redaction: &Arc<Event>) -> Result<()> {
    let pdu = redaction.pdu()?;
    if &*pdu.kind != "m.room.redaction" {
        return Ok(());
    }
    let Some(target_id) = pdu.redacts.as_deref() else { return Ok(()) };
    let Some(target) = tx.event_num(target_id)? else {
        tx.put(&schema::EARLY_REDACTIONS, &(room.num, target_id.to_owned()), &redaction.num);
        return Ok(());
    };
    let target = tx.event(target)?;
    let target_sender = tx.user_id(target.header.sender)?;
    let levels = room.power_levels(tx)?;
    let allowed = target.header.room == room.num
        && target.header.redacted_by.is_none()
        && levels.is_some_and(|levels| may_redact(room.version, &pdu, &target_sender, &levels));
    if allowed { erase(tx, &target, redaction) } else { Ok(()) }
}

/// Replaces the target's content by what redaction leaves of it.
fn erase(tx: &mut Tx, target: &Arc<Event>, redaction: &Arc<Event>) -> Result<()> {
    relations::remove(tx, target)?;
    let corrupt = |_| StorageError::Corrupt(format!("event {} is not JSON", target.event_id));
    let object: JsonObject = serde_json::from_slice(&target.json).map_err(corrupt)?;
    let mut json = Vec::with_capacity(target.json.len());
    write_object(&mut json, &redact(target.version()?, &object));
    let mut header = target.header.clone();
    header.redacted_by = Some(redaction.num);
    tx.put(&schema::EVENT_BODIES, &target.num, &encode_body(&target.event_id, &json));
    tx.put(&schema::EVENT_HEADERS, &target.num, &Positioned { pos: target.pos(), value: header.clone() });
    let erased = Event::new(target.num, target.event_id.clone(), header, json.into());
    erased.set_position(target.pos());
    tx.replaced_event(Arc::new(erased));
    Ok(())
}
