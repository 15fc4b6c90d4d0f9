//! A room's new messages, rendered once and copied for all who wait for them.
//!
//! Invariant: a section holds only what is the same for everyone who may use it: plain messages, with nothing that hangs
//! on who asks. Whoever uses it is in the room, and was at each of its events: all of them stand on the room's current
//! state, which has all members, and the user's own memberships have not changed since before the first, so that they are shown
//! them whole, whoever asked to be forgotten. They ignore nobody, sent none of the events, and filter nothing out of timelines,
//! nor ask for another format. Everyone else's answer is written for them alone.

use std::sync::Arc;

use bytes::Bytes;

use super::Request;
use crate::{
    core::{
        filter::EventFormat,
        num::{NodeId, RoomNum, StreamPos, UserNum},
    },
    error::Result,
    room::{Event, tail},
    store::schema,
};

/// How long a section may be used: the age of its events, which stands in it, is not more wrong than by this.
const USED_MS_MAX: u64 = 250;
/// What a section costs besides its bytes.
const SECTION_BYTES: usize = 256;

/// See the module.
pub(crate) struct Section {
    /// Nothing lies behind this …
    after: StreamPos,
    /// … and before the first event.
    first: StreamPos,
    last: StreamPos,
    /// Nothing lies behind the last event up to here.
    up_to: StreamPos,
    made_ms: u64,
    events: usize,
    /// The state at all of the events.
    pub snapshot: NodeId,
    /// Who sent them.
    pub senders: Vec<UserNum>,
    /// The member `timeline`, its name left out.
    pub timeline: Bytes,
}

/// Whether the request could use a section or make one.
pub(super) fn is_possible(request: &Request<'_>, since: Option<StreamPos>) -> Result<bool> {
    let filter = &request.sync.filter;
    let is_plain = since.is_some()
        && !request.has_own_news
        && !request.sync.full_state
        && filter.event_format == EventFormat::Client
        && filter.event_fields.is_everything()
        && filter.room.timeline.is_everything();
    Ok(is_plain && request.ignored()?.is_empty())
}

/// The section with exactly what the request has to be told of the room's timeline after `since`.
pub(super) fn find(
    request: &Request<'_>,
    room: RoomNum,
    since: StreamPos,
    limit: usize,
) -> Option<Arc<Section>> {
    let reader = request.reader;
    let section = reader.shared.memo.sections.get(&room)?;
    let is_all_before = section.after <= since && since < section.first && section.last <= reader.pos;
    let is_all_behind = reader.pos <= section.up_to
        || reader.shared.watch.room_news(room).is_some_and(|news| news <= section.up_to);
    let is_fresh = reader.shared.clock.now_ms().abs_diff(section.made_ms) <= USED_MS_MAX;
    let is_others = !section.senders.contains(&request.user);
    (is_all_before && is_all_behind && is_fresh && is_others && section.events <= limit).then_some(section)
}

/// Keeps what was written for a request that [could make a section](is_possible), if it is the same for others.
/// `is_personal` says that something in it is not.
pub(super) fn keep(
    request: &Request<'_>,
    room: RoomNum,
    since: StreamPos,
    events: &[Arc<Event>],
    timeline: &[u8],
    is_personal: bool,
) -> Result<()> {
    let reader = request.reader;
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
    let snapshot = first.header.state_before;
    let is_plain = |event: &Arc<Event>| {
        let header = &event.header;
        header.state_key.is_none() && header.state_before == snapshot && header.state_after == snapshot
    };
    if is_personal || !events.iter().all(is_plain) {
        return Ok(());
    }
    // Not in a room with forks, on some of which others may not be in it; nor where members are missing, as the members that
    // come with a section are the state's.
    let is_current = reader
        .get(&schema::ROOM_HEADS, &room)?
        .is_some_and(|head| head.state == snapshot && !head.forked && !head.partial_state);
    let Some(tail) = tail::since(reader, room, since)?.filter(|_| is_current) else { return Ok(()) };
    let section = Section {
        after: tail.last_before(first.pos()),
        first: first.pos(),
        last: last.pos(),
        up_to: reader.pos,
        made_ms: reader.shared.clock.now_ms(),
        events: events.len(),
        snapshot,
        senders: events.iter().map(|event| event.header.sender).collect(),
        timeline: Bytes::copy_from_slice(timeline),
    };
    let weight = SECTION_BYTES + timeline.len();
    reader.shared.memo.sections.replace(room, Arc::new(section), weight);
    Ok(())
}
