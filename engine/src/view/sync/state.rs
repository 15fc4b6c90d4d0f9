//! The `state` of a room in a sync: all of it, or what changed, with members only as far as they are needed.

use std::{collections::BTreeSet, sync::Arc};

use super::Request;
use crate::{
    core::num::{EventNum, NodeId, RoomNum, StateKeyId, StreamPos, TextNum, UserNum},
    error::Result,
    room::Event,
    store::{Direction, Reader, StorageError, schema, schema::Membership},
    view::{LazyMember, timeline},
};

/// The room's current state at `pos`; empty if there was none.
pub(crate) fn at(reader: &Reader, room: RoomNum, pos: StreamPos) -> Result<NodeId, StorageError> {
    let (mut since, mut state) = (StreamPos(i64::MIN), NodeId(0));
    if let Some(event) = timeline::last_at(reader, room, pos)? {
        let event = reader.event(event)?;
        (since, state) = (event.pos(), event.header.room_state);
    }
    if was_forked(reader, room)? {
        let (start, end) = ((room, since), (room, StreamPos(pos.0.saturating_add(1))));
        reader.scan_between(
            &schema::STATE_CHANGES,
            &start,
            &end,
            Direction::Backward,
            |(_, _): (RoomNum, StreamPos), changed| {
                state = changed;
                false
            },
        )?;
    }
    Ok(state)
}

/// Whether the room's current state ever was another than that after its last event.
pub(super) fn was_forked(reader: &Reader, room: RoomNum) -> Result<bool, StorageError> {
    Ok(reader.get(&schema::ROOM_HEADS, &room)?.is_some_and(|head| head.forked))
}

/// What differs between the state at the end of a timeline and what a client makes of it who sets each of its state
/// events upon the state at its beginning.
pub(super) fn beside_timeline(
    reader: &Reader,
    room: RoomNum,
    (beginning, end): (NodeId, NodeId),
    timeline: &[Arc<Event>],
) -> Result<Vec<EventNum>, StorageError> {
    let in_timeline: BTreeSet<StateKeyId> =
        timeline.iter().filter_map(|event| event.state_key_id()).collect();
    let changes = reader.state_difference(room, beginning, end)?;
    let beside = changes.into_iter().filter(|change| !in_timeline.contains(&change.key));
    Ok(beside.filter_map(|change| change.after).collect())
}

/// The user's membership after the last event at or before `pos`.
pub(in crate::view) fn membership_at(
    reader: &Reader,
    user: UserNum,
    room: RoomNum,
    pos: StreamPos,
) -> Result<Option<Membership>> {
    let Some(event) = reader.member_event(room, at(reader, room, pos)?, user)? else { return Ok(None) };
    Ok(event.pdu()?.membership().and_then(Membership::from_name))
}

/// Between which snapshots a client's knowledge of a room moves.
pub(super) struct Span {
    /// What the client knows, or `None` if it knows nothing.
    pub from: Option<NodeId>,
    /// Where its state should be: at the start of the timeline, or at the end with `state_after`.
    pub to: NodeId,
}

/// Picks the state events to send. With lazy loading, of the members only those that sent something in the timeline
/// (`senders`) and, in a room that is new to the client, the user.
pub(super) fn select(
    request: &Request<'_>,
    room: RoomNum,
    span: &Span,
    senders: &BTreeSet<UserNum>,
) -> Result<Vec<EventNum>> {
    let reader = request.reader;
    let filter = &request.sync.filter.room.state;
    if filter.is_nothing() {
        return Ok(Vec::new());
    }
    let lazy = filter.lazy_load_members;
    let member_kind = reader.text_num("m.room.member")?;
    let mut selected: Vec<EventNum> = match span.from {
        None => match member_kind.filter(|_| lazy) {
            None => reader.state_entries(room, span.to)?.into_iter().map(|(_, event)| event).collect(),
            Some(kind) => without_kind(reader, room, span.to, kind)?,
        },
        Some(from) => reader
            .state_difference(room, from, span.to)?
            .into_iter()
            .filter(|change| !lazy || Some(change.key.kind()) != member_kind)
            .filter_map(|change| change.after)
            .collect(),
    };
    if lazy {
        let mut wanted = senders.clone();
        if span.from.is_none() {
            wanted.insert(request.user);
        }
        select_members(request, room, span, &wanted, &mut selected)?;
    }
    if filter.event.is_everything() {
        return Ok(selected);
    }
    let room_id = reader.room_id(room)?;
    let mut kept = Vec::with_capacity(selected.len());
    for event in reader.events(&selected)? {
        if timeline::matches(reader, filter, &room_id, &event)? {
            kept.push(event.num);
        }
    }
    Ok(kept)
}

fn without_kind(reader: &Reader, room: RoomNum, root: NodeId, kind: TextNum) -> Result<Vec<EventNum>> {
    let entries = reader.state_entries_except(room, root, kind)?;
    Ok(entries.into_iter().map(|(_, event)| event).collect())
}

/// Adds the membership events of `wanted`, but not those that this device was already given and has acknowledged.
fn select_members(
    request: &Request<'_>,
    room: RoomNum,
    span: &Span,
    wanted: &BTreeSet<UserNum>,
    selected: &mut Vec<EventNum>,
) -> Result<()> {
    let reader = request.reader;
    let redundant = request.sync.filter.room.state.include_redundant_members;
    let lazy_members = &reader.shared.memo.lazy_members;
    for user in wanted {
        let user_id = reader.user_id(*user)?;
        let Some(event) = reader.state_num(room, span.to, "m.room.member", &user_id)? else { continue };
        let key = LazyMember { user: request.user, device: request.device, room, member: *user };
        if let (false, Some(since), Some(sent)) = (redundant, request.since, lazy_members.get(&key))
            && span.from.is_some()
            && sent.event == event
            && sent.at <= since
        {
            continue;
        }
        lazy_members.put(key, event, reader.pos);
        selected.push(event);
    }
    Ok(())
}
