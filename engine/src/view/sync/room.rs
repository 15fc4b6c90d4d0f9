//! One room of a sync.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Request, Rooms, Section, own, shared,
    state::{self, Span},
};
use crate::{
    core::{
        event::{ClientFormat, StoredEvent, write_client_event},
        json::splice::{
            bool_member, events_member, item, member, number_member, object_member, plain_event_item,
            raw_member, string_member,
        },
        num::{RoomNum, StreamPos, UserNum},
    },
    error::{Error, Result},
    room::{Event, gap, heroes::heroes, receipts, typing, unread},
    store::{
        Direction, Positioned, Reader, StorageError, schema,
        schema::{Membership, OutOfBand, UserRoom},
    },
    view::{
        render::Renderer,
        timeline::{self, Stretch},
        token::StreamToken,
    },
};

/// Events of a timeline when the filter names no limit, as other servers do.
const TIMELINE_LIMIT_DEFAULT: usize = 10;
/// A room's timeline in a sync.
struct Timeline {
    events: Vec<Arc<Event>>,
    limited: bool,
    prev_batch: StreamPos,
}

impl Timeline {
    fn senders(&self) -> BTreeSet<UserNum> {
        self.events.iter().map(|event| event.header.sender).collect()
    }

    fn changes_membership(&self, request: &Request<'_>) -> Result<bool> {
        let kind = request.reader.text_num("m.room.member")?;
        Ok(self
            .events
            .iter()
            .any(|event| event.header.state_key.is_some() && Some(event.header.kind) == kind))
    }
}

/// A room that the user is in.
pub(super) fn write_joined(
    request: &Request<'_>,
    out: &mut Vec<u8>,
    room: RoomNum,
    rooms: &Rooms,
) -> Result<()> {
    let reader = request.reader;
    let is_new = request.since.is_none() || rooms.newly_joined.contains(&room);
    let since = if is_new { None } else { request.since };
    let start = out.len();
    let room_id = reader.room_id(room)?;
    let mut wrote = false;
    object_member(out, &room_id, |out| {
        let first = out.len();
        let shown = write_events(request, out, room, since, reader.pos)?;
        write_ephemeral(request, out, room, since)?;
        own::write_room_account_data(request, out, room, since)?;
        wrote = out.len() > first || is_new || request.sync.full_state;
        if wrote {
            write_unread(request, out, room)?;
            if is_new || request.sync.full_state || shown {
                write_summary(request, out, room)?;
            }
        }
        Ok::<(), Error>(())
    })?;
    if !wrote {
        out.truncate(start);
    }
    Ok(())
}

/// A room that the user has left or was removed from: what happened until then.
pub(super) fn write_left(
    request: &Request<'_>,
    out: &mut Vec<u8>,
    room: RoomNum,
    row: &Positioned<UserRoom>,
) -> Result<()> {
    let reader = request.reader;
    let was_joined = match request.since {
        Some(since) => state::membership_at(reader, request.user, room, since)? == Some(Membership::Join),
        None => false,
    };
    let since = request.since.filter(|_| was_joined);
    object_member(out, &reader.room_id(room)?, |out| {
        if let Some(outside) = reader.out_of_band(request.user, room)? {
            // The event is in no timeline here.
            write_out_of_band(out, &outside)?;
        } else if row.value.ever_joined {
            write_events(request, out, room, since, row.pos)?;
        } else {
            // Someone who never was in the room sees no more than the event that turned them away.
            write_only(request, out, &reader.event(row.value.event)?)?;
        }
        own::write_room_account_data(request, out, room, since)
    })
}

/// The event that declined an invite to a room, or took back a knock at one, that this server is not in.
fn write_out_of_band(out: &mut Vec<u8>, outside: &OutOfBand) -> Result<()> {
    let corrupt = |error| StorageError::Corrupt(format!("event {}: {error}", outside.event_id));
    let event = StoredEvent { event_id: &outside.event_id, room_id: "", json: &outside.json };
    events_member(out, "state", |_| Ok::<(), Error>(()))?;
    object_member(out, "timeline", |out| {
        member(out, "events");
        out.push(b'[');
        write_client_event(out, event, ClientFormat::Sync, None).map_err(corrupt)?;
        out.push(b']');
        bool_member(out, "limited", false);
        Ok(())
    })
}

fn write_only(request: &Request<'_>, out: &mut Vec<u8>, event: &Arc<Event>) -> Result<()> {
    events_member(out, "state", |_| Ok::<(), Error>(()))?;
    object_member(out, "timeline", |out| {
        member(out, "events");
        out.push(b'[');
        write_event_list(
            request,
            &mut renderer(request, event.header.room)?,
            out,
            std::slice::from_ref(event),
            List::Timeline,
        )?;
        out.push(b']');
        bool_member(out, "limited", false);
        string_member(out, "prev_batch", &StreamToken::before(event.pos()).to_string());
        Ok(())
    })
}

/// An invite or knock: what it shows of the room.
pub(super) fn write_stripped(
    request: &Request<'_>,
    out: &mut Vec<u8>,
    room: RoomNum,
    member_name: &str,
) -> Result<()> {
    let reader = request.reader;
    let Some(row) = reader.user_room(request.user, room)? else { return Ok(()) };
    object_member(out, &reader.room_id(room)?, |out| {
        object_member(out, member_name, |out| {
            raw_member(out, "events", row.value.stripped_state.as_deref().unwrap_or(b"[]"));
            Ok::<(), Error>(())
        })
    })
}

/// Timeline and state after `since` (`None`: from the beginning) up to `until`. Returns whether a membership is among what
/// was written.
fn write_events(
    request: &Request<'_>,
    out: &mut Vec<u8>,
    room: RoomNum,
    since: Option<StreamPos>,
    until: StreamPos,
) -> Result<bool> {
    let may_share = shared::is_possible(request, since)?;
    if let (Some(since), true) = (since, may_share)
        && let Some(section) = shared::find(request, room, since, timeline_limit(request))
    {
        return write_section(request, out, room, &section);
    }
    let mut renderer = renderer(request, room)?;
    let timeline = read_timeline(request, &mut renderer, room, since, until)?;
    let end = match timeline.events.last().filter(|event| event.pos() == until) {
        Some(last) => last.header.room_state,
        None => state::at(request.reader, room, until)?,
    };
    let forked = state::was_forked(request.reader, room)?;
    let beginning = match timeline.events.first() {
        Some(first) if forked => state::at(request.reader, room, StreamPos(first.pos().0.saturating_sub(1)))?,
        Some(first) => first.header.state_before,
        None => end,
    };
    let from = match since.filter(|_| !request.sync.full_state) {
        None => None,
        // Without a gap what the client knows is the state at the timeline's start.
        Some(_) if !timeline.limited && !forked => Some(beginning),
        Some(since) => Some(state::at(request.reader, room, since)?),
    };
    let to = if request.sync.state_after.is_some() { end } else { beginning };
    let mut selected = select_state(request, room, &Span { from, to }, &timeline)?;
    if forked && request.sync.state_after.is_none() {
        let beside = state::beside_timeline(request.reader, room, (beginning, end), &timeline.events)?;
        selected.extend(request.reader.events(&beside)?);
    }
    if !timeline.events.is_empty() || timeline.limited || since.is_none() {
        let start = out.len();
        write_timeline(request, &mut renderer, out, &timeline)?;
        if let (Some(since), true, false) = (since, may_share, timeline.limited) {
            let written = out.get(start..).unwrap_or_default();
            let value = written.iter().position(|byte| *byte == b'{').unwrap_or_default();
            let value = written.get(value..).unwrap_or_default();
            shared::keep(request, room, since, &timeline.events, value, renderer.is_personal())?;
        }
    }
    if !selected.is_empty() || since.is_none() {
        write_selected(request, &mut renderer, out, &selected)?;
    }
    let member_kind = request.reader.text_num("m.room.member")?;
    let in_state = selected.iter().any(|event| Some(event.header.kind) == member_kind);
    Ok(in_state || timeline.changes_membership(request)?)
}

/// A timeline that was rendered for others too, and the members that come with it.
fn write_section(request: &Request<'_>, out: &mut Vec<u8>, room: RoomNum, section: &Section) -> Result<bool> {
    raw_member(out, "timeline", &section.timeline);
    let filter = &request.sync.filter.room.state;
    if !filter.lazy_load_members {
        return Ok(false);
    }
    let span = Span { from: Some(section.snapshot), to: section.snapshot };
    let senders = section.senders.iter().copied().collect();
    let selected = request.reader.events(&state::select(request, room, &span, &senders)?)?;
    write_selected(request, &mut renderer(request, room)?, out, &selected)?;
    Ok(!selected.is_empty())
}

fn write_selected(
    request: &Request<'_>,
    renderer: &mut Renderer<'_>,
    out: &mut Vec<u8>,
    selected: &[Arc<Event>],
) -> Result<()> {
    let name = request.sync.state_after.unwrap_or("state");
    events_member(out, name, |out| write_event_list(request, renderer, out, selected, List::State))
}

fn timeline_limit(request: &Request<'_>) -> usize {
    let limit = request.sync.filter.room.timeline.event.limit;
    limit.map_or(TIMELINE_LIMIT_DEFAULT, |limit| limit as usize)
}

fn select_state(
    request: &Request<'_>,
    room: RoomNum,
    span: &Span,
    timeline: &Timeline,
) -> Result<Vec<Arc<Event>>> {
    let selected = state::select(request, room, span, &timeline.senders())?;
    Ok(request.reader.events(&selected)?)
}

fn renderer<'r>(request: &Request<'r>, room: RoomNum) -> Result<Renderer<'r>> {
    let viewer = request.viewer(room)?;
    Ok(Renderer::with_viewer(request.reader, room, ClientFormat::Sync, Some(viewer), request.device)?)
}

fn read_timeline(
    request: &Request<'_>,
    renderer: &mut Renderer<'_>,
    room: RoomNum,
    since: Option<StreamPos>,
    until: StreamPos,
) -> Result<Timeline> {
    let filter = &request.sync.filter.room.timeline;
    let limit = timeline_limit(request);
    let after = since.unwrap_or(StreamPos(i64::MIN));
    let Some(viewer) = renderer.viewer().filter(|_| !filter.is_nothing()) else {
        return Ok(Timeline { events: Vec::new(), limited: false, prev_batch: until });
    };
    let stretch = Stretch { after, up_to: until, direction: Direction::Backward, limit };
    let mut page = timeline::page(request.reader, viewer, stretch, filter)?;
    page.events.reverse();
    if let Some(behind_gap) = last_behind_gap(request.reader, &page.events)? {
        // What is missing there can be asked for with `/messages`.
        page.events.drain(..behind_gap);
        page.rest = Some(StreamToken::before(page.events.first().map_or(until, |first| first.pos())).0);
    }
    let prev_batch = page.events.first().map_or(until, |first| StreamToken::before(first.pos()).0);
    // What was purged is a gap, too: the client may lack changes of the state in it.
    let is_cut = match since {
        Some(since) if page.rest.is_none() => timeline::is_cut(request.reader, room, since)?,
        _ => false,
    };
    Ok(Timeline { events: page.events, limited: page.rest.is_some() || is_cut, prev_batch })
}

/// The index of the last of the events before which there is a gap.
fn last_behind_gap(reader: &Reader, events: &[Arc<Event>]) -> Result<Option<usize>, StorageError> {
    for (at, event) in events.iter().enumerate().rev() {
        if gap::is_open_before(reader, event)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn write_timeline(
    request: &Request<'_>,
    renderer: &mut Renderer<'_>,
    out: &mut Vec<u8>,
    timeline: &Timeline,
) -> Result<()> {
    object_member(out, "timeline", |out| {
        member(out, "events");
        out.push(b'[');
        write_event_list(request, renderer, out, &timeline.events, List::Timeline)?;
        out.push(b']');
        bool_member(out, "limited", timeline.limited);
        string_member(out, "prev_batch", &StreamToken(timeline.prev_batch).to_string());
        Ok(())
    })
}

/// How a list of events is shown: a timeline with what belongs to it, or entries of state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    Timeline,
    State,
}

fn write_event_list(
    request: &Request<'_>,
    renderer: &mut Renderer<'_>,
    out: &mut Vec<u8>,
    events: &[Arc<Event>],
    list: List,
) -> Result<()> {
    let mut write = |out: &mut Vec<u8>, events: &[Arc<Event>]| match list {
        List::Timeline => renderer.write_timeline(out, events),
        List::State => renderer.write_state(out, events),
    };
    let fields = &request.sync.filter.event_fields;
    if fields.is_everything() {
        return write(out, events);
    }
    for event in events {
        let mut whole = Vec::new();
        write(&mut whole, std::slice::from_ref(event))?;
        item(out);
        let wanted = fields.apply(&whole);
        out.extend_from_slice(&wanted.map_err(|error| StorageError::Corrupt(error.to_string()))?);
    }
    Ok(())
}

fn write_ephemeral(
    request: &Request<'_>,
    out: &mut Vec<u8>,
    room: RoomNum,
    since: Option<StreamPos>,
) -> Result<()> {
    let filter = &request.sync.filter.room.ephemeral;
    let reader = request.reader;
    let typing = match filter.event.includes_type("m.typing") {
        true => typing::since(reader, room, since.unwrap_or_default())?,
        false => None,
    };
    let receipts = match filter.event.includes_type("m.receipt") {
        true => receipts::since(reader, room, request.user, since.unwrap_or_default())?,
        false => None,
    };
    if typing.is_none() && receipts.is_none() {
        return Ok(());
    }
    events_member(out, "ephemeral", |out| {
        if let Some(content) = typing {
            plain_event_item(out, "m.typing", &content);
        }
        if let Some(content) = receipts {
            plain_event_item(out, "m.receipt", &content);
        }
        Ok(())
    })
}

fn write_unread(request: &Request<'_>, out: &mut Vec<u8>, room: RoomNum) -> Result<()> {
    let unread = unread::counts(request.reader, request.user, room)?;
    let by_thread = request.sync.filter.room.timeline.unread_thread_notifications;
    // Without the filter's consent the counts of threads are part of the room's.
    let (notifications, highlights) =
        if by_thread { (unread.notification_count, unread.highlight_count) } else { unread.total() };
    let write = |out: &mut Vec<u8>, notifications, highlights| {
        number_member(out, "notification_count", notifications);
        number_member(out, "highlight_count", highlights);
        Ok::<(), Error>(())
    };
    object_member(out, "unread_notifications", |out| write(out, notifications, highlights))?;
    if by_thread && !unread.threads.is_empty() {
        object_member(out, "unread_thread_notifications", |out| {
            for (root, counts) in &unread.threads {
                object_member(out, root, |out| write(out, counts.0, counts.1))?;
            }
            Ok::<(), Error>(())
        })?;
    }
    Ok(())
}

/// Counts of members and, for a room without a name, whom to name it after.
fn write_summary(request: &Request<'_>, out: &mut Vec<u8>, room: RoomNum) -> Result<()> {
    let reader = request.reader;
    let Some(head) = reader.get(&schema::ROOM_HEADS, &room)? else { return Ok(()) };
    let heroes = heroes(reader, room, head.state, request.user)?;
    object_member(out, "summary", |out| {
        if let Some(heroes) = heroes {
            member(out, "m.heroes");
            out.push(b'[');
            for user in heroes {
                item(out);
                crate::core::json::write_string(out, &reader.user_id(user)?);
            }
            out.push(b']');
        }
        number_member(out, "m.joined_member_count", head.joined);
        number_member(out, "m.invited_member_count", head.invited);
        Ok(())
    })
}
