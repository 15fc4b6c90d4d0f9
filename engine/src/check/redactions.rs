//! Redactions: a redacted event says by which, and has nothing left that redaction takes away.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    early_events,
    pass::{Pass, Row},
};
use crate::{
    core::{
        auth::may_redact,
        event::{JsonObject, Pdu, redact},
        json::write_object,
        limits::EARLY_REDACTIONS_MAX,
        num::{EventNum, RoomNum, StateKeyId},
        power_levels::PowerLevels,
        version::RoomVersion,
    },
    room::{encode_body, redactions::is_spared, room_version},
    store::{Direction, StorageError, schema, schema::EventHeader},
};

pub(super) fn passes() -> Vec<Pass> {
    let problem = "a redaction is not there or is of another event";
    vec![early_events::pass(&schema::EARLY_REDACTIONS, is_of, problem)]
}

/// Whether an event is a redaction, in the room, of `target`.
fn is_of(row: &Row<'_>, room: RoomNum, redaction: EventNum, target: &str) -> Result<bool, StorageError> {
    let (Some(header), Some((id, json))) = (row.header(redaction)?, row.body(redaction)?) else {
        return Ok(false);
    };
    Ok(header.value.room == room && names(room_version(header.value.version)?, &id, &json, target))
}

/// What redaction leaves of an event.
fn redacted(version: &RoomVersion, json: &Bytes) -> Result<Vec<u8>, StorageError> {
    let corrupt = |_| StorageError::Corrupt("the body is not JSON".into());
    let object: JsonObject = serde_json::from_slice(json).map_err(corrupt)?;
    let mut left = Vec::with_capacity(json.len());
    write_object(&mut left, &redact(version, &object));
    Ok(left)
}

/// Whether the event has nothing that redaction would take away.
pub(super) fn is_redacted(version: &RoomVersion, json: &Bytes) -> Result<bool, StorageError> {
    Ok(redacted(version, json)? == json[..])
}

/// Whether the event is a redaction of `target`.
pub(super) fn names(version: &RoomVersion, id: &Arc<str>, json: &Bytes, target: &str) -> bool {
    // A redaction that is redacted itself may have lost the name of its target.
    Pdu::from_stored(version, id.clone(), json.clone()).is_ok_and(|pdu| {
        &*pdu.kind == "m.room.redaction" && pdu.redacts.as_deref().is_none_or(|redacts| redacts == target)
    })
}

/// Expects a redaction to have been applied, or to wait for its target.
pub(super) fn expect_of(
    row: &mut Row<'_>,
    num: EventNum,
    header: &EventHeader,
    pdu: &Pdu,
) -> Result<(), StorageError> {
    let Some(target_id) = pdu.redacts.as_deref() else { return Ok(()) };
    // While members are missing nobody knows for certain whether it was allowed.
    if &*pdu.kind != "m.room.redaction" || !header.takes_effect() || header.partial_state {
        return Ok(());
    }
    let Some(target) = row.event_num(target_id)? else {
        let (waiting, max) = ((header.room, num, target_id), EARLY_REDACTIONS_MAX);
        let problem = "the redaction's target is not there, and the redaction does not wait for it";
        return early_events::expect(row, &schema::EARLY_REDACTIONS, waiting, max, problem);
    };
    // A target that came later is for the one that took it in to judge.
    let Some(found) = row.header(target)?.map(|found| found.value) else { return Ok(()) };
    let is_whole = found.room == header.room && found.redacted_by.is_none() && target < num;
    if !is_whole || !may(row, header, pdu, &found)? {
        return Ok(());
    }
    let version = room_version(found.version)?;
    let target_pdu = match row.body(target)? {
        Some((id, json)) => Pdu::from_stored(version, id, json).ok(),
        None => None,
    };
    if target_pdu.as_ref().is_some_and(|target| is_spared(pdu, target)) {
        return Ok(());
    }
    row.found("the redaction was not applied");
    if let Some(target_pdu) = target_pdu {
        mend_body(row, target, version, Arc::new(target_pdu));
        row.change_header(target, move |_, header| {
            header.value.redacted_by = Some(num);
            Ok(())
        });
    }
    Ok(())
}

/// Whether the redaction may be applied, by the power levels before it.
fn may(
    row: &mut Row<'_>,
    header: &EventHeader,
    pdu: &Pdu,
    target: &EventHeader,
) -> Result<bool, StorageError> {
    let version = room_version(header.version)?;
    if !super::snapshots::is_whole(row, header.room, header.state_before)? {
        return Ok(false);
    }
    let Some(create) = state_pdu(row, header, "m.room.create")? else { return Ok(false) };
    let levels = state_pdu(row, header, "m.room.power_levels")?;
    let levels = PowerLevels::new(version, &create, levels.as_ref());
    let Some(sender) = row.user_id(target.sender)? else { return Ok(false) };
    Ok(may_redact(version, pdu, &sender, &levels))
}

/// The state event of a type and the empty key before an event.
fn state_pdu(row: &Row<'_>, header: &EventHeader, kind: &str) -> Result<Option<Pdu>, StorageError> {
    let (Some(kind), Some(state_key)) = (row.text_num(kind)?, row.text_num("")?) else { return Ok(None) };
    let key = StateKeyId::new(kind, state_key);
    let Some(num) = row.reader().state_num_at(header.room, header.state_before, key)? else {
        return Ok(None);
    };
    let Some((id, json)) = row.body(num)? else { return Ok(None) };
    Ok(Pdu::from_stored(room_version(header.version)?, id, json).ok())
}

/// Proposes to take from the body what redaction takes, and from the indexes what the event related to.
pub(super) fn mend_body(row: &mut Row<'_>, num: EventNum, version: &'static RoomVersion, pdu: Arc<Pdu>) {
    row.mend(schema::EVENT_BODIES.name, move |tx| {
        let left = redacted(version, &pdu.json)?;
        tx.put(&schema::EVENT_BODIES, &num, &encode_body(&pdu.event_id, &left));
        Ok(())
    });
}

/// Proposes to say by which event `pdu` was redacted: the first redaction of the room that names it. O(events of the
/// room), for what is wrong alone.
pub(super) fn mend_by(
    row: &mut Row<'_>,
    num: EventNum,
    header: &EventHeader,
    pdu: &Pdu,
) -> Result<(), StorageError> {
    let found = find(row, header.room, &pdu.event_id)?;
    let is_whole = crate::core::event::verify_content_hash(pdu).unwrap_or(false);
    // An event that nothing redacted must have its whole content.
    if found.is_some() || is_whole {
        row.change_header(num, move |_, header| {
            header.value.redacted_by = found;
            Ok(())
        });
    }
    Ok(())
}

/// The first redaction of `target` in the room's timeline that was accepted, or else one of history that is shown to nobody.
fn find(row: &Row<'_>, room: RoomNum, target: &str) -> Result<Option<EventNum>, StorageError> {
    let Some(kind) = row.text_num("m.room.redaction")? else { return Ok(None) };
    let mut nums = Vec::new();
    row.reader().scan(&schema::TIMELINE, &room, Direction::Forward, |_: (RoomNum, _), num: EventNum| {
        nums.push(num);
        true
    })?;
    let off_timeline = &schema::OFF_TIMELINE;
    row.reader().scan(off_timeline, &room, Direction::Forward, |(_, num): (RoomNum, EventNum), ()| {
        nums.push(num);
        true
    })?;
    for num in nums {
        let Some(header) = row.header(num)? else { continue };
        if header.value.kind != kind || !header.value.takes_effect() {
            continue;
        }
        let Some((id, json)) = row.body(num)? else { continue };
        let Ok(pdu) = Pdu::from_stored(room_version(header.value.version)?, id, json) else { continue };
        if pdu.redacts.as_deref() == Some(target) {
            return Ok(Some(num));
        }
    }
    Ok(None)
}
