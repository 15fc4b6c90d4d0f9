//! Events: header, body, id and timeline must agree with each other, with the hashes, and with our own signature.

use std::sync::Arc;

use bytes::Bytes;

use super::{Checker, Row};
use crate::{
    core::{
        event::{EVENT_BYTES_MAX, Pdu, event_id, reference_hash_of_json, strictness, verify_content_hash},
        identifiers::server_name,
        json::{Limits, parse_object, write_object},
        num::{EventNum, StateKeyId},
        version::RoomVersion,
    },
    room::{decode_body, room_version},
    store::{
        Positioned, StorageError, schema,
        schema::{EventHeader, EventStatus},
    },
};

pub(super) fn check(checker: &mut Checker<'_>) -> Result<(), StorageError> {
    checker.rows(&schema::EVENT_HEADERS, |row, num, header| event(row, num, &header))?;
    checker.rows(&schema::EVENT_NUMS, |row, id, num| {
        let body = row.reader().get(&schema::EVENT_BODIES, &num)?;
        let found = body.as_ref().and_then(decode_body);
        row.expect(found.is_some_and(|(found, _)| *found == *id), "it leads to another event or to none");
        Ok(())
    })?;
    checker.rows(&schema::EVENT_BODIES, |row, num, _| {
        let known = row.reader().has(&schema::EVENT_HEADERS, &num)?;
        row.expect(known, "the body has no header");
        Ok(())
    })?;
    checker.rows(&schema::OFF_TIMELINE, |row, (room, num), ()| {
        let header = row.reader().get(&schema::EVENT_HEADERS, &num)?;
        let agrees = header
            .is_some_and(|header| header.value.room == room && header.value.status != EventStatus::Accepted);
        row.expect(agrees, "the event is another room's, in its timeline, or not there");
        Ok(())
    })?;
    checker.rows(&schema::TIMELINE, |row, (room, pos), num| {
        let header = row.reader().get(&schema::EVENT_HEADERS, &num)?;
        let agrees = header.is_some_and(|header| header.pos == pos && header.value.room == room);
        row.expect(agrees, "the event that stands here does not say so");
        Ok(())
    })
}

fn event(row: &mut Row<'_, '_>, num: EventNum, header: &Positioned<EventHeader>) -> Result<(), StorageError> {
    let Some(body) = row.reader().get(&schema::EVENT_BODIES, &num)? else {
        row.found("the event has no body");
        return Ok(());
    };
    let Some((id, json)) = decode_body(&body) else {
        row.found("the body cannot be read");
        return Ok(());
    };
    row.subject = format!("{id} (number {})", num.0);
    let known = row.reader().event_num(&id)?;
    row.expect(known == Some(num), "the event's id does not lead to it");
    let version = room_version(header.value.version)?;
    let pdu = match Pdu::from_stored(version, id.clone(), json.clone()) {
        Ok(pdu) => pdu,
        Err(error) => {
            row.found(format!("the body is not an event: {error}"));
            return Ok(());
        }
    };
    bytes(row, version, &id, &json)?;
    hashes(row, version, &pdu, header.value.redacted_by.is_some())?;
    fields(row, &pdu, &header.value)?;
    edges(row, &pdu, &header.value)?;
    if header.value.status == EventStatus::Accepted {
        let stands = row.reader().get(&schema::TIMELINE, &(header.value.room, header.pos))?;
        row.expect(stands == Some(num), "the event is not in the timeline at its position");
        state(row, num, &header.value)?;
    } else {
        let is_listed = row.reader().has(&schema::OFF_TIMELINE, &(header.value.room, num))?;
        row.expect(is_listed, "the event is not listed among those off the timeline");
    }
    Ok(())
}

/// The bytes are canonical JSON, and in room versions 1 and 2 they have the id in them.
fn bytes(
    row: &mut Row<'_, '_>,
    version: &RoomVersion,
    id: &Arc<str>,
    json: &Bytes,
) -> Result<(), StorageError> {
    let limits = Limits { bytes_max: EVENT_BYTES_MAX, strictness: strictness(version) };
    let object = match parse_object(json, limits) {
        Ok(object) => object,
        Err(error) => {
            row.found(format!("the body is not JSON: {error}"));
            return Ok(());
        }
    };
    let mut canonical = Vec::with_capacity(json.len());
    write_object(&mut canonical, &object);
    row.expect(canonical == json[..], "the body is not in canonical form");
    let hash = reference_hash_of_json(version, json)
        .map_err(|error| StorageError::Corrupt(format!("the body cannot be hashed: {error}")))?;
    match event_id(version, &hash) {
        Some(made) => row.expect(made == **id, "the id is not that of the body's reference hash"),
        None => {
            let own = object.get("event_id").and_then(|own| own.as_str());
            row.expect(own == Some(id), "the id is not the one in the body");
        }
    }
    Ok(())
}

fn hashes(
    row: &mut Row<'_, '_>,
    version: &RoomVersion,
    pdu: &Pdu,
    is_redacted: bool,
) -> Result<(), StorageError> {
    // The content hash is that of what was redacted away.
    if !is_redacted {
        let holds = verify_content_hash(pdu)
            .map_err(|error| StorageError::Corrupt(format!("the body cannot be hashed: {error}")))?;
        row.expect(holds, "the content hash is wrong");
    }
    let shared = &row.reader().shared;
    let server = &*shared.server_name;
    if server_name(&pdu.sender) == Some(server) {
        let key = &shared.key_pair;
        if let Err(error) = pdu.verify_signature(version, server, key.key_id(), key.public_key()) {
            row.found(format!("this server's signature: {error}"));
        }
    }
    Ok(())
}

fn fields(row: &mut Row<'_, '_>, pdu: &Pdu, header: &EventHeader) -> Result<(), StorageError> {
    let reader = row.reader();
    row.expect(*reader.room_id(header.room)? == *pdu.room_id, "header and body differ in the room");
    row.expect(*reader.user_id(header.sender)? == *pdu.sender, "header and body differ in the sender");
    row.expect(*reader.text(header.kind)? == *pdu.kind, "header and body differ in the type");
    let state_key = header.state_key.map(|state_key| reader.text(state_key)).transpose()?;
    row.expect(state_key.as_deref() == pdu.state_key.as_deref(), "header and body differ in the state key");
    row.expect(header.depth == pdu.depth, "header and body differ in the depth");
    row.expect(header.origin_server_ts == pdu.origin_server_ts, "header and body differ in the time");
    if let Some(redaction) = header.redacted_by {
        row.expect(reader.has(&schema::EVENT_HEADERS, &redaction)?, "the redaction is not there");
    }
    Ok(())
}

/// Every edge leads to an event of the body; our own events have all of theirs.
fn edges(row: &mut Row<'_, '_>, pdu: &Pdu, header: &EventHeader) -> Result<(), StorageError> {
    let reader = row.reader();
    let is_own = server_name(&pdu.sender) == Some(&*reader.shared.server_name);
    let is_cut = reader.has(&schema::HISTORY_STARTS, &header.room)?;
    for (what, ids, nums) in
        [("a previous", &pdu.prev_events, &header.prev), ("an auth", &pdu.auth_events, &header.auth)]
    {
        let mut named = Vec::with_capacity(ids.len());
        for id in ids {
            named.extend(reader.event_num(id)?);
        }
        for num in nums {
            let there = reader.has(&schema::EVENT_HEADERS, num)?;
            row.expect(there, &format!("{what} event is not there: number {}", num.0));
            row.expect(named.contains(num), &format!("{what} event is not one that the body names"));
        }
        // A purge cuts what leads to the history that it removes.
        let may_lack = !is_own || (what == "a previous" && is_cut);
        let has_all = may_lack || (named.len() == nums.len() && named.len() == ids.len());
        row.expect(has_all, &format!("the header lacks {what} event that the body names"));
    }
    Ok(())
}

/// The state after the event is the state before it with the event in it, and nothing else.
fn state(row: &mut Row<'_, '_>, num: EventNum, header: &EventHeader) -> Result<(), StorageError> {
    let reader = row.reader();
    let changes = reader.state_difference(header.room, header.state_before, header.state_after)?;
    let own = header.state_key.map(|state_key| StateKeyId::new(header.kind, state_key));
    let holds = match (own, changes.as_slice()) {
        (None, []) => true,
        (Some(own), [change]) => change.key == own && change.after == Some(num),
        _ => false,
    };
    row.expect(holds, "the state after the event is not the state before it with the event in it");
    Ok(())
}
