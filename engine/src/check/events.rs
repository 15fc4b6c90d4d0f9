//! Events: header, body and id must agree with each other, with the hashes, and with the signatures.
//!
//! The body is the fact. From it follow the row of its id, and of the header everything but what became of the event:
//! status, position, redaction, state. A body that its own hashes refute mends nothing.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    names::expect_number,
    pass::{Pass, Row, readable},
    snapshots,
};
use crate::{
    core::{
        event::{
            EVENT_BYTES_MAX, Pdu, SignatureError, event_id, reference_hash_of_json, required_signatures,
            strictness, verify_content_hash,
        },
        identifiers::server_name,
        json::{Limits, parse_object, write_object},
        num::{EventNum, RoomNum, StreamPos, TextNum, UserNum},
        version::{EventIdFormat, RoomVersion},
    },
    room::{decode_body, gap, room_version},
    store::{
        InternedKind, Positioned, StorageError, schema,
        schema::{EventHeader, EventStatus},
    },
};

pub(super) fn passes() -> Vec<Pass> {
    vec![
        Pass::over(&schema::EVENT_BODIES, |row, num, body| body_row(row, num, &body)),
        Pass::over_derived(&schema::EVENT_NUMS, id_row),
        Pass::over(&schema::EVENT_HEADERS, |row, num, header| event(row, num, &header)),
    ]
}

fn body_row(row: &mut Row<'_>, num: EventNum, body: &Bytes) -> Result<(), StorageError> {
    row.seen.uses_event(num);
    let known = row.reader().has(&schema::EVENT_HEADERS, &num)?;
    row.expect(known, "the body has no header");
    // What cannot be read is told where the header is visited.
    let Some((id, _)) = decode_body(body) else { return Ok(()) };
    match row.event_num(&id)? {
        Some(found) if found == num => {}
        Some(other) if row.body(other)?.is_some_and(|(found, _)| found == id) => {
            row.found(format!("event number {} has the same id: {id}", other.0));
        }
        _ => {
            row.found(format!("the event's id does not lead to it: {id}"));
            row.put(&schema::EVENT_NUMS, &id.to_string(), &num);
        }
    }
    Ok(())
}

fn id_row(row: &mut Row<'_>, id: String, num: EventNum) -> Result<(), StorageError> {
    let body = row.body(num)?;
    let leads_right = body.as_ref().is_some_and(|(found, _)| **found == *id);
    if row.expect(leads_right, "it leads to another event or to none") {
        return Ok(());
    }
    // While there is a header, the id may be all that is left of the event's body.
    if body.is_some() || !row.reader().has(&schema::EVENT_HEADERS, &num)? {
        row.delete(&schema::EVENT_NUMS, &id);
    }
    Ok(())
}

fn event(row: &mut Row<'_>, num: EventNum, header: &Positioned<EventHeader>) -> Result<(), StorageError> {
    row.seen.uses_event(num);
    if row.is_going(header.value.room) {
        return Ok(());
    }
    let Some(body) = row.reader().get(&schema::EVENT_BODIES, &num)? else {
        row.found("the event has no body");
        return Ok(());
    };
    let Some((id, json)) = decode_body(&body) else {
        row.found("the body cannot be read");
        return Ok(());
    };
    row.subject = format!("{id} (number {})", num.0);
    let version = room_version(header.value.version)?;
    let pdu = match Pdu::from_stored(version, id.clone(), json.clone()) {
        Ok(pdu) => Arc::new(pdu),
        Err(error) => {
            row.found(format!("the body is not an event: {error}"));
            return Ok(());
        }
    };
    let is_sound = bytes(row, version, &id, &json)?
        & content_hash(row, version, &pdu, header.value.redacted_by.is_some())?
        & signatures(row, version, &pdu)?;
    if is_sound {
        fields(row, num, &pdu, &header.value)?;
        edges(row, num, &pdu, header)?;
        redaction(row, num, version, &pdu, &header.value)?;
    }
    timeline(row, num, header)?;
    snapshots::check_event(row, num, &pdu, header)?;
    super::gaps::expect_of(row, num, header, &pdu)?;
    super::relations::expect_of(row, num, header, &pdu)?;
    super::citations::expect_of(row, num, &header.value)?;
    super::redactions::expect_of(row, num, &header.value, &pdu)?;
    super::streams::expect_of(row, header, &pdu)
}

/// The bytes are canonical JSON, and the id is the one that they make or, in room versions 1 and 2, have in them.
fn bytes(
    row: &mut Row<'_>,
    version: &RoomVersion,
    id: &Arc<str>,
    json: &Bytes,
) -> Result<bool, StorageError> {
    let limits = Limits { bytes_max: EVENT_BYTES_MAX, strictness: strictness(version) };
    let object = match parse_object(json, limits) {
        Ok(object) => object,
        Err(error) => {
            row.found(format!("the body is not JSON: {error}"));
            return Ok(false);
        }
    };
    let mut canonical = Vec::with_capacity(json.len());
    write_object(&mut canonical, &object);
    let is_canonical = row.expect(canonical == json[..], "the body is not in canonical form");
    let hash = reference_hash_of_json(version, json).map_err(unhashable)?;
    let is_named = match event_id(version, &hash) {
        Some(made) => row.expect(made == **id, "the id is not that of the body's reference hash"),
        None => {
            let own = object.get("event_id").and_then(|own| own.as_str());
            row.expect(own == Some(id), "the id is not the one in the body")
        }
    };
    Ok(is_canonical && is_named)
}

fn unhashable(error: impl std::fmt::Display) -> StorageError {
    StorageError::Corrupt(format!("the body cannot be hashed: {error}"))
}

/// The content hash is that of the content, or of what was redacted away.
fn content_hash(
    row: &mut Row<'_>,
    version: &RoomVersion,
    pdu: &Pdu,
    is_redacted: bool,
) -> Result<bool, StorageError> {
    if is_redacted || verify_content_hash(pdu).map_err(unhashable)? {
        return Ok(true);
    }
    // Other servers hand on what a redaction has left, which is proven by its signature, and by its reference hash where that is
    // the id; a content hash over what this server made itself is over all of it.
    let is_own = server_name(&pdu.sender) == Some(&*row.reader().shared.server_name);
    let is_made_here = is_own && !is_by_lost_key(row, pdu)?;
    if !is_made_here && super::redactions::is_redacted(version, &pdu.json)? {
        return Ok(true);
    }
    row.found("the content hash is wrong");
    Ok(version.event_ids != EventIdFormat::Own && super::redactions::is_redacted(version, &pdu.json)?)
}

/// Those who must have signed the event did, as far as their keys are known.
fn signatures(row: &mut Row<'_>, version: &RoomVersion, pdu: &Pdu) -> Result<bool, StorageError> {
    let shared = &row.reader().shared;
    let own = &*shared.server_name;
    let mut hold = true;
    if server_name(&pdu.sender) == Some(own) {
        let mut verified = Err(SignatureError::Missing);
        for signature in pdu.signatures().map_err(unhashable)? {
            if *signature.server == *own
                && let Some(public_key) = own_key(row, &signature.key_id)?
            {
                verified = pdu.verify_signature(version, own, &signature.key_id, &public_key);
            }
        }
        if let Err(error) = verified {
            row.found(format!("this server's signature: {error}"));
            hold = false;
        }
    }
    for server in required_signatures(version, pdu) {
        let Some(number) = row.text_num(server)?.filter(|_| *server != *own) else { continue };
        for signature in pdu.signatures().map_err(unhashable)? {
            if *signature.server != *server {
                continue;
            }
            let stored = row.reader().get(&schema::SERVER_KEYS, &(number, signature.key_id.clone()));
            let Some(key) = readable(stored)? else { continue };
            if let Err(error) = pdu.verify_signature(version, server, &signature.key_id, &key.public_key) {
                row.found(format!("the signature of {server} with {}: {error}", signature.key_id));
                hold = false;
            }
        }
    }
    Ok(hold)
}

/// The public key with this id with which this server signs, or signed before.
fn own_key(row: &mut Row<'_>, key_id: &str) -> Result<Option<Vec<u8>>, StorageError> {
    let shared = row.reader().shared.clone();
    if key_id == shared.key_pair.key_id() {
        return Ok(Some(shared.key_pair.public_key().to_vec()));
    }
    if let Some(named) = shared.named_old_key(key_id) {
        return Ok(Some(named.public_key.clone()));
    }
    let Some(own) = row.text_num(&shared.server_name)? else { return Ok(None) };
    let stored = readable(row.reader().get(&schema::SERVER_KEYS, &(own, key_id.to_owned())))?;
    Ok(stored.map(|key| key.public_key))
}

/// Whether this server signed the event with a key that it has lost since, so that others have given it back.
fn is_by_lost_key(row: &Row<'_>, pdu: &Pdu) -> Result<bool, StorageError> {
    let shared = row.reader().shared.clone();
    let Some(own) = row.text_num(&shared.server_name)? else { return Ok(false) };
    for signature in pdu.signatures().map_err(unhashable)? {
        if *signature.server == *shared.server_name {
            let stored = readable(row.reader().get(&schema::SERVER_KEYS, &(own, signature.key_id.clone())))?;
            let is_told = stored.is_some_and(|key| !key.is_old);
            if is_told || shared.named_old_key(&signature.key_id).is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What the header repeats of the body.
fn fields(row: &mut Row<'_>, num: EventNum, pdu: &Pdu, header: &EventHeader) -> Result<(), StorageError> {
    use InternedKind::{Room, Text, User};
    if expect_number(row, Room, header.room.0, &pdu.room_id, "header and body differ in the room")? {
        let room_id = pdu.room_id.clone();
        row.change_header(num, move |tx, header| {
            header.value.room = tx.intern_room(&room_id)?;
            Ok(())
        });
    }
    if expect_number(row, User, header.sender.0, &pdu.sender, "header and body differ in the sender")? {
        let sender = pdu.sender.clone();
        row.change_header(num, move |tx, header| {
            header.value.sender = tx.intern_user(&sender)?;
            Ok(())
        });
    }
    let kind = u64::from(header.kind.0);
    if expect_number(row, Text, kind, &pdu.kind, "header and body differ in the type")? {
        let kind = pdu.kind.clone();
        row.change_header(num, move |tx, header| {
            header.value.kind = tx.intern_text(&kind)?;
            Ok(())
        });
    }
    let differs = match (header.state_key, pdu.state_key.as_deref()) {
        (None, None) => false,
        (Some(state_key), Some(text)) => {
            let problem = "header and body differ in the state key";
            expect_number(row, Text, u64::from(state_key.0), text, problem)?
        }
        _ => !row.expect(false, "header and body differ in the state key"),
    };
    if differs {
        let state_key = pdu.state_key.clone();
        row.change_header(num, move |tx, header| {
            header.value.state_key = state_key.map(|text| tx.intern_text(&text)).transpose()?;
            Ok(())
        });
    }
    let same_depth = row.expect(header.depth == pdu.depth, "header and body differ in the depth");
    let same_time =
        row.expect(header.origin_server_ts == pdu.origin_server_ts, "header and body differ in the time");
    if !same_depth || !same_time {
        let (depth, origin_server_ts) = (pdu.depth, pdu.origin_server_ts);
        row.change_header(num, move |_, header| {
            (header.value.depth, header.value.origin_server_ts) = (depth, origin_server_ts);
            Ok(())
        });
    }
    Ok(())
}

/// Every edge leads to an event of the same room that the body names, and no edge is missing that was there to be made.
///
/// Bodies name each other by their hashes, and auth depths grow, so there are no cycles where edges are those of bodies.
fn edges(
    row: &mut Row<'_>,
    num: EventNum,
    pdu: &Pdu,
    header: &Positioned<EventHeader>,
) -> Result<(), StorageError> {
    let prev = known(row, &pdu.prev_events)?;
    let auth = known(row, &pdu.auth_events)?;
    let needed_prev = needed_prev(row, num, pdu, header, &prev)?;
    let needed_auth = needed_auth(row, &auth)?;
    let Positioned { value: header, .. } = header;
    for (what, named, needed, nums) in [
        ("a previous", prev, needed_prev, &header.prev),
        ("an auth", auth.clone(), needed_auth, &header.auth),
    ] {
        for edge in nums {
            match row.header(*edge)? {
                None => row.found(format!("{what} event is not there: number {}", edge.0)),
                Some(found) if found.value.room != header.room => {
                    row.found(format!("{what} event is of another room: number {}", edge.0));
                }
                Some(_) => {}
            }
        }
        let is_named = nums.iter().all(|edge| named.contains(edge));
        let is_named = row.expect(is_named, &format!("{what} event is not one that the body names"));
        let has_all = needed.iter().all(|edge| nums.contains(edge));
        let has_all = row.expect(has_all, &format!("the header lacks {what} event that the body names"));
        if !is_named || !has_all {
            let is_prev = what == "a previous";
            let left = nums.iter().copied();
            let mut right: Vec<EventNum> = named
                .into_iter()
                .filter(|edge| needed.contains(edge) || left.clone().any(|num| num == *edge))
                .collect();
            right.dedup();
            row.change_header(num, move |_, header| {
                *(if is_prev { &mut header.value.prev } else { &mut header.value.auth }) = right;
                Ok(())
            });
        }
    }
    auth_depth(row, num, pdu, header, &auth)
}

/// The previous events that were part of the graph when this one came, as far as that can be told: they stand before it
/// in the timeline, and were numbered before it. An event after a gap may have come before them, and the join by which a
/// room is entered follows nothing. What was filled into a gap came when much that stands behind it was there, and may have
/// been numbered long before, as part of a state that was told.
fn needed_prev(
    row: &Row<'_>,
    num: EventNum,
    pdu: &Pdu,
    header: &Positioned<EventHeader>,
    named: &[EventNum],
) -> Result<Vec<EventNum>, StorageError> {
    let Positioned { pos, value } = header;
    let is_own = server_name(&pdu.sender) == Some(&*row.reader().shared.server_name);
    let is_entry = value.prev.is_empty() && pdu.membership() == Some("join");
    let mut needed = Vec::new();
    if !is_own || value.status != EventStatus::Accepted || value.after_gap || is_entry {
        return Ok(needed);
    }
    let starts = readable(row.reader().get(&schema::HISTORY_STARTS, &value.room))?;
    for prev in named {
        let stands = row.header(*prev)?.is_some_and(|found| {
            found.value.status == EventStatus::Accepted
                && found.value.room == value.room
                && found.pos < *pos
                && !found.value.is_filled_in
                // A purge cuts what leads to the history that it removes.
                && starts.is_none_or(|starts| starts <= found.pos)
        });
        if stands && *prev < num {
            needed.push(*prev);
        }
    }
    Ok(needed)
}

/// Events are taken in with all that allow them; a purge cuts off messages, which allow nothing.
fn needed_auth(row: &Row<'_>, named: &[EventNum]) -> Result<Vec<EventNum>, StorageError> {
    let mut needed = Vec::new();
    for num in named {
        if row.header(*num)?.is_some_and(|found| found.value.state_key.is_some()) {
            needed.push(*num);
        }
    }
    Ok(needed)
}

/// The auth depth is one more than the greatest of the auth events'.
fn auth_depth(
    row: &mut Row<'_>,
    num: EventNum,
    pdu: &Pdu,
    header: &EventHeader,
    auth: &[EventNum],
) -> Result<(), StorageError> {
    let mut right = 0;
    for num in auth {
        let Some(found) = row.header(*num)? else { return Ok(()) };
        right = right.max(found.value.auth_depth.saturating_add(1));
    }
    // One that was cut off counts.
    let is_whole = auth.len() == pdu.auth_events.len();
    if is_whole && !row.expect(header.auth_depth == right, "the auth depth is not that of its auth events") {
        row.change_header(num, move |_, header| {
            header.value.auth_depth = right;
            Ok(())
        });
    }
    Ok(())
}

/// Those of the events that are known here.
pub(super) fn known(row: &Row<'_>, ids: &[Arc<str>]) -> Result<Vec<EventNum>, StorageError> {
    let mut nums = Vec::with_capacity(ids.len());
    for id in ids {
        nums.extend(row.event_num(id)?);
    }
    Ok(nums)
}

/// What the header says of a redaction is true, and the body was redacted.
fn redaction(
    row: &mut Row<'_>,
    num: EventNum,
    version: &'static RoomVersion,
    pdu: &Arc<Pdu>,
    header: &EventHeader,
) -> Result<(), StorageError> {
    let is_redacted = super::redactions::is_redacted(version, &pdu.json)?;
    match header.redacted_by {
        Some(redaction) => {
            let found = row.body(redaction)?;
            let names_it = match &found {
                Some((id, json)) => super::redactions::names(version, id, json, &pdu.event_id),
                None => false,
            };
            if !row.expect(names_it, "the redaction is not there or is of another event") {
                super::redactions::mend_by(row, num, header, pdu)?;
            }
            if !row.expect(is_redacted, "the event is marked as redacted but has its content") && names_it {
                super::redactions::mend_body(row, num, version, pdu.clone());
            }
        }
        // The content hash has been found wrong.
        None if is_redacted && !verify_content_hash(pdu).map_err(unhashable)? => {
            super::redactions::mend_by(row, num, header, pdu)?;
        }
        None => {}
    }
    Ok(())
}

/// Accepted events stand in the timeline, others do not (see the pass over the timeline).
fn timeline(row: &mut Row<'_>, num: EventNum, header: &Positioned<EventHeader>) -> Result<(), StorageError> {
    if header.value.status != EventStatus::Accepted {
        return Ok(());
    }
    let key = (header.value.room, header.pos);
    let stands = row.reader().get(&schema::TIMELINE, &key)?;
    if row.expect(stands == Some(num), "the event is not in the timeline at its position") {
        return Ok(());
    }
    super::timeline::mend_position(row, num, header, stands)
}

/// The header of an event that has lost its own, at a place in the timeline; `None` if it cannot be told.
pub(super) fn rebuilt_header(
    row: &mut Row<'_>,
    version_index: u8,
    at: (RoomNum, StreamPos),
    id: &Arc<str>,
    json: &Bytes,
) -> Result<Option<EventHeader>, StorageError> {
    use InternedKind::{Room, Text, User};
    let version = room_version(version_index)?;
    let Ok(pdu) = Pdu::from_stored(version, id.clone(), json.clone()) else { return Ok(None) };
    let (Some(room), Some(sender), Some(kind)) = (
        row.number(Room, &pdu.room_id)?,
        row.number(User, &pdu.sender)?,
        row.number(Text, &pdu.kind)?.and_then(|num| u32::try_from(num).ok()),
    ) else {
        return Ok(None);
    };
    let state_key = match &pdu.state_key {
        None => None,
        Some(text) => match row.text_num(text)? {
            None => return Ok(None),
            found => found,
        },
    };
    let mut header = EventHeader {
        room: RoomNum(room),
        version: version_index,
        sender: UserNum(sender),
        kind: TextNum(kind),
        state_key,
        prev: known(row, &pdu.prev_events)?,
        auth: known(row, &pdu.auth_events)?,
        depth: pdu.depth,
        // What follows from other events is put right where the header is visited.
        auth_depth: 0,
        origin_server_ts: pdu.origin_server_ts,
        status: EventStatus::Accepted,
        redacted_by: None,
        state_before: Default::default(),
        state_after: Default::default(),
        room_state: Default::default(),
        partial_state: row.reader().has(&schema::PARTIAL_STATES, &at)?,
        after_gap: row.reader().has(&schema::GAPS, &at)?,
        transaction: None,
        // Of a gap that is filled nothing is left that could tell.
        is_filled_in: at.1 < StreamPos::ZERO || gap::is_filled_in(row.reader(), at.0, at.1)?,
    };
    let Some(before) = snapshots::before(row, &pdu, &header)? else { return Ok(None) };
    (header.state_before, header.state_after, header.room_state) = (before, before, before);
    Ok(Some(header))
}
