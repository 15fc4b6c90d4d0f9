//! The `state` of a room in a sync: all of it, or what changed, with members only as far as they are needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Request, summary::Summary};
use crate::{
    core::num::{EventNum, NodeId, RoomNum, StreamPos, UserNum},
    error::Result,
    room::{Event, stay},
    store::{Reader, StorageError, schema, schema::Membership},
    view::{LazyRoom, LazySent, timeline},
};

/// The room's current state at `pos`; empty if there was none.
pub(crate) fn at(reader: &Reader, room: RoomNum, pos: StreamPos) -> Result<NodeId, StorageError> {
    let (mut since, mut state) = (StreamPos(i64::MIN), NodeId(0));
    if let Some(event) = timeline::last_at(reader, room, pos)? {
        let event = reader.event(event)?;
        (since, state) = (event.pos(), event.header.room_state);
    }
    if was_forked(reader, room)? {
        let changed = stay::last_change(reader, room, since, pos)?;
        state = changed.map_or(state, |(_, changed)| changed);
    }
    Ok(state)
}

/// Whether the room's current state ever was another than that after its last event.
pub(super) fn was_forked(reader: &Reader, room: RoomNum) -> Result<bool, StorageError> {
    Ok(reader.get(&schema::ROOM_HEADS, &room)?.is_some_and(|head| head.forked))
}

/// What has changed between the beginning and the end of a timeline by events that are not in it.
pub(super) fn beside_timeline(
    reader: &Reader,
    room: RoomNum,
    (beginning, end): (NodeId, NodeId),
    timeline: &[Arc<Event>],
) -> Result<Vec<EventNum>, StorageError> {
    let changed =
        reader.state_difference(room, beginning, end)?.into_iter().filter_map(|change| change.after);
    Ok(changed.filter(|num| timeline.iter().all(|event| event.num != *num)).collect())
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

/// What a client that loads members lazily is given beside the state.
pub(super) struct Beside<'b> {
    /// Who sent something in the timeline.
    pub senders: BTreeSet<UserNum>,
    /// The memberships of those among them that may be missing from the state.
    pub named: BTreeMap<UserNum, EventNum>,
    /// Whether the summary may say something else than before, or the timeline, or what is told of the state elsewhere, shows a
    /// membership.
    pub changes_summary: bool,
    /// What comes then, with other memberships and with a room that is given whole; `None` for a room that is given none.
    pub summary: Option<&'b Summary<'b, 'b>>,
}

/// Picks the state events to send. With lazy loading, of the members only those that have changed or sent something in the
/// timeline, those that the summary names and, in a room that is given whole, the user.
///
/// What changed is told of all members, because clients that have asked for the members of a room keep that list up to
/// date by it (specification: "Lazy-loading room members").
pub(super) fn select(
    request: &Request<'_>,
    room: RoomNum,
    span: &Span,
    beside: Beside<'_>,
) -> Result<Vec<Arc<Event>>> {
    if span.from.is_none() {
        request.reader.shared.memo.lazy_members.forget(&lazy_room(request, room));
    }
    let filter = &request.sync.filter.room.state;
    if filter.is_nothing() {
        return Ok(Vec::new());
    }
    let lazy = filter.lazy_load_members;
    let (mut selected, changes_membership) = between(request, room, span)?;
    if lazy {
        let Beside { senders: mut wanted, named, changes_summary, summary } = beside;
        if span.from.is_none() {
            wanted.insert(request.user);
        }
        let adds_members = select_members(request, room, span, (&wanted, &named), &mut selected)?;
        let has_summary = changes_summary || span.from.is_none() || changes_membership || adds_members;
        if let (true, Some(summary)) = (has_summary, summary) {
            let heroes: BTreeSet<UserNum> = summary.heroes()?.iter().copied().collect();
            let heroes = heroes.difference(&wanted).copied().collect();
            select_members(request, room, span, (&heroes, &named), &mut selected)?;
        }
    }
    wanted_events(request, room, &selected)
}

/// The events that the filter of the state lets through.
pub(super) fn wanted_events(
    request: &Request<'_>,
    room: RoomNum,
    nums: &[EventNum],
) -> Result<Vec<Arc<Event>>> {
    let reader = request.reader;
    let filter = &request.sync.filter.room.state;
    let events = reader.events(nums)?;
    if filter.is_everything() {
        return Ok(events);
    }
    let room_id = reader.room_id(room)?;
    let mut kept = Vec::with_capacity(events.len());
    for event in events {
        if timeline::matches(reader, filter, &room_id, &event)? {
            kept.push(event);
        }
    }
    Ok(kept)
}

/// The state at the end of the span, or what has changed in it; whether a membership has. With lazy loading, a room that is
/// given whole comes without its members.
fn between(request: &Request<'_>, room: RoomNum, span: &Span) -> Result<(Vec<EventNum>, bool)> {
    let reader = request.reader;
    let lazy = request.sync.filter.room.state.lazy_load_members;
    let member_kind = reader.text_num("m.room.member")?;
    let Some(from) = span.from else {
        let entries = match member_kind.filter(|_| lazy) {
            None => reader.state_entries(room, span.to)?,
            Some(kind) => reader.state_entries_except(room, span.to, kind)?,
        };
        return Ok((entries.into_iter().map(|(_, event)| event).collect(), false));
    };
    let mut changes_membership = false;
    let mut changed = Vec::new();
    for change in reader.state_difference(room, from, span.to)? {
        let Some(event) = change.after else { continue };
        changed.push(event);
        if lazy && Some(change.key.kind()) == member_kind {
            changes_membership = true;
            if let Some(member) = reader.user_num(&reader.text(change.key.state_key())?)? {
                let sent = LazySent { event, at: reader.pos };
                reader.shared.memo.lazy_members.put(lazy_room(request, room), member, sent);
            }
        }
    }
    Ok((changed, changes_membership))
}

/// Adds the membership events of `wanted`, of whom the state does not know those in `named`, but not those that this device
/// was already given and has acknowledged. Whether there were any.
fn select_members(
    request: &Request<'_>,
    room: RoomNum,
    span: &Span,
    (wanted, named): (&BTreeSet<UserNum>, &BTreeMap<UserNum, EventNum>),
    selected: &mut Vec<EventNum>,
) -> Result<bool> {
    let reader = request.reader;
    let redundant = request.sync.filter.room.state.include_redundant_members;
    let (lazy_members, lazy_room) = (&reader.shared.memo.lazy_members, lazy_room(request, room));
    let before = selected.len();
    for user in wanted {
        let user_id = reader.user_id(*user)?;
        let known = reader.state_num(room, span.to, "m.room.member", &user_id)?;
        let Some(event) = known.or_else(|| named.get(user).copied()) else { continue };
        if span.from.is_some() {
            let is_changed = selected.get(..before).unwrap_or_default().contains(&event);
            let is_known = || {
                let sent = lazy_members.get(&lazy_room, *user).filter(|sent| sent.event == event);
                !redundant && sent.is_some_and(|sent| request.since.is_some_and(|since| sent.at <= since))
            };
            if is_changed || is_known() {
                continue;
            }
        }
        lazy_members.put(lazy_room, *user, LazySent { event, at: reader.pos });
        selected.push(event);
    }
    Ok(selected.len() > before)
}

fn lazy_room(request: &Request<'_>, room: RoomNum) -> LazyRoom {
    LazyRoom { user: request.user, device: request.device, room }
}
