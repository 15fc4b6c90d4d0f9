//! One room of a sync.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Request, Rooms, Section, ephemeral, own, shared,
    state::{self, Beside, Span},
    summary::{self, Summary},
};
use crate::{
    core::{
        event::{ClientFormat, StoredEvent, write_client_event},
        filter::EventFormat,
        json::splice::{
            bool_member, events_member, item, member, number_member, object_member, raw_member, string_member,
        },
        num::{EventNum, RoomNum, StreamPos, UserNum},
    },
    error::{Error, Result},
    room::{Event, gap, unread, visibility::Viewer},
    store::{
        Direction, Positioned, Reader, StorageError,
        schema::{Membership, OutOfBand, UserRoom},
    },
    view::{
        render::Renderer,
        senders::named_membership,
        timeline::{self, AtGaps, Stretch},
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
    /// Whether state may have changed by what is passed over, so that it must be told elsewhere.
    passes_over_state: bool,
}

impl Timeline {
    fn senders(&self) -> BTreeSet<UserNum> {
        self.events.iter().map(|event| event.header.sender).collect()
    }

    /// The memberships that the first events of their senders name, where the state may lack them and the client wants them.
    fn named_memberships(&self, request: &Request<'_>) -> Result<BTreeMap<UserNum, EventNum>> {
        let mut named = BTreeMap::new();
        if !request.sync.filter.room.state.lazy_load_members {
            return Ok(named);
        }
        for event in self.events.iter().rev() {
            if let Some(membership) = named_membership(request.reader, event)? {
                named.insert(event.header.sender, membership);
            }
        }
        Ok(named)
    }
}

/// Whether a membership is among the events.
fn shows_membership(request: &Request<'_>, events: &[Arc<Event>]) -> Result<bool> {
    if events.is_empty() {
        return Ok(false);
    }
    let kind = request.reader.text_num("m.room.member")?;
    let is_membership =
        |event: &Arc<Event>| event.header.state_key.is_some() && Some(event.header.kind) == kind;
    Ok(events.iter().any(is_membership))
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
    let summary = Summary::new(request, room);
    let mut wrote = false;
    object_member(out, &room_id, |out| {
        let first = out.len();
        let stay = Stay { since, until: reader.pos, later: None, over: None };
        let told = write_events(request, out, room, stay, Some(&summary))?;
        ephemeral::write(request, out, room, &room_id, since)?;
        own::write_room_account_data(request, out, room, &room_id, since)?;
        let has_summary = is_new || request.sync.full_state || told.changes_summary;
        wrote = out.len() > first || has_summary;
        if wrote {
            complete_state(request, out, told)?;
            write_unread(request, out, room)?;
            if has_summary {
                summary.write(out)?;
            }
        }
        Ok::<(), Error>(())
    })?;
    if !wrote {
        out.truncate(start);
    }
    Ok(())
}

/// A room that the user has left or was removed from: what happened until then, and what they are in it now.
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
    let room_id = reader.room_id(room)?;
    object_member(out, &room_id, |out| {
        if let Some(outside) = reader.out_of_band(request.user, room)? {
            // The event is in no timeline here.
            write_out_of_band(request, out, &outside)?;
        } else {
            let last = reader.event(row.value.event)?;
            let viewer = request.viewer(room)?;
            if let Some((until, later)) = end_of_stay(request, &viewer, since, &last)? {
                let stay = Stay { since, until, later, over: Some(viewer) };
                let told = write_events(request, out, room, stay, None)?;
                // Some clients do without either list in rooms they are in, but in none that they have left.
                if !told.state {
                    write_no_state(request, out)?;
                }
            } else {
                // Who was not in the room meanwhile, or ever, or of whose time there nothing is known, sees no more than what they are
                // in it now.
                write_only(request, viewer, out, &last)?;
            }
        }
        own::write_room_account_data(request, out, room, &room_id, since)
    })
}

/// Up to where a stay that is over is to be told, and what became of the user after that, if they were there at `since`, what they know
/// of it, or later. Up to the leave; where that has no place in the timeline, up to the last that they were told of as members, for
/// what tells of it tells of later things, too. A leave that was filled in before what they know is told as what came after.
fn end_of_stay(
    request: &Request<'_>,
    viewer: &Viewer<'_>,
    since: Option<StreamPos>,
    last: &Arc<Event>,
) -> Result<Option<(StreamPos, Option<Arc<Event>>)>> {
    let left = viewer.left();
    let was_in = left.is_some_and(|left| request.since.is_none_or(|since| since < left.until));
    if since.is_none() && !was_in {
        return Ok(None);
    }
    let Some(until) = viewer.told_until()? else { return Ok(None) };
    let until = since.map_or(until, |since| until.max(since));
    let is_told = left
        .and_then(|left| left.with.as_ref())
        .is_some_and(|leave| leave.num == last.num && since.is_none_or(|since| since < leave.pos()));
    // Of a join that came to nothing there is nothing new to tell.
    let is_join = last.pdu()?.membership() == Some(Membership::Join.name());
    let later = (!is_told && !is_join).then(|| last.clone());
    Ok(Some((until, later)))
}

/// A room that the user has left and forgotten, of which nothing is kept.
pub(super) fn write_gone(request: &Request<'_>, out: &mut Vec<u8>, room: RoomNum) -> Result<()> {
    object_member(out, &request.reader.room_id(room)?, |out| {
        write_no_state(request, out)?;
        object_member(out, "timeline", |out| {
            member(out, "events");
            out.extend_from_slice(b"[]");
            bool_member(out, "limited", false);
            Ok::<(), Error>(())
        })
    })
}

/// The event that declined an invite to a room, or took back a knock at one, that this server is not in.
fn write_out_of_band(request: &Request<'_>, out: &mut Vec<u8>, outside: &OutOfBand) -> Result<()> {
    let corrupt = |error| StorageError::Corrupt(format!("event {}: {error}", outside.event_id));
    // A membership redacts nothing.
    let redacts_in_content = false;
    let event =
        StoredEvent { event_id: &outside.event_id, room_id: "", json: &outside.json, redacts_in_content };
    write_no_state(request, out)?;
    object_member(out, "timeline", |out| {
        member(out, "events");
        out.push(b'[');
        write_client_event(out, event, format(request), None).map_err(corrupt)?;
        out.push(b']');
        bool_member(out, "limited", false);
        Ok(())
    })
}

fn write_only<'r>(
    request: &Request<'r>,
    viewer: Viewer<'r>,
    out: &mut Vec<u8>,
    event: &Arc<Event>,
) -> Result<()> {
    write_no_state(request, out)?;
    object_member(out, "timeline", |out| {
        member(out, "events");
        out.push(b'[');
        write_event_list(
            request,
            &mut renderer(request, viewer)?,
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

/// What was written of a room's timeline and state.
#[derive(Clone, Copy)]
struct Told {
    /// Whether a list of state events, be it empty.
    state: bool,
    /// Whether the summary may say something else than before, or a membership is among them.
    changes_summary: bool,
}

/// What of a room's timeline is to be told.
struct Stay<'r> {
    /// Behind here; `None`: from the beginning.
    since: Option<StreamPos>,
    /// Up to here.
    until: StreamPos,
    /// What became of the user after that: an event of their membership.
    later: Option<Arc<Event>>,
    /// The user in front of the room, if they are in it no longer: then the timeline is told, be it empty.
    over: Option<Viewer<'r>>,
}

/// Timeline and state of a stay. If a membership is among what was written, or what the filter leaves out changes `summary`, that
/// is to be written too; lazily loaded members are also those that it needs.
fn write_events<'r>(
    request: &Request<'r>,
    out: &mut Vec<u8>,
    room: RoomNum,
    Stay { since, until, later, over }: Stay<'r>,
    summary: Option<&Summary<'_, '_>>,
) -> Result<Told> {
    let may_share = shared::is_possible(request, since)?;
    if let (Some(since), true) = (since, may_share)
        && let Some(section) = shared::find(request, room, since, timeline_limit(request))
    {
        return write_section(request, out, room, &section, summary);
    }
    let is_over = over.is_some();
    let viewer = over.map_or_else(|| request.viewer(room), Ok)?;
    let mut renderer = renderer(request, viewer)?;
    let mut timeline = read_timeline(request, &mut renderer, room, since, until)?;
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
        // Where nothing is left out, what the client knows is the state at the timeline's start.
        Some(_) if !timeline.limited && !timeline.passes_over_state && !forked => Some(beginning),
        Some(since) => Some(state::at(request.reader, room, since)?),
    };
    let to = if request.sync.state_after.is_some() { end } else { beginning };
    let mut changed_beside = Vec::new();
    if (forked || timeline.passes_over_state) && request.sync.state_after.is_none() {
        let nums = state::beside_timeline(request.reader, room, (beginning, end), &timeline.events)?;
        changed_beside = state::wanted_events(request, room, &nums)?;
    }
    timeline.events.extend(later);
    let mut changes_summary =
        shows_membership(request, &timeline.events)? || shows_membership(request, &changed_beside)?;
    if let (false, Some(from), Some(_)) = (changes_summary, from, summary) {
        let told = (&*timeline.events, timeline.limited);
        changes_summary = summary::is_changed(request, room, (from, end), told)?;
    }
    let beside = Beside {
        senders: timeline.senders(),
        named: timeline.named_memberships(request)?,
        changes_summary,
        summary,
    };
    let mut selected = state::select(request, room, &Span { from, to }, beside)?;
    selected.extend(changed_beside);
    if is_over || !timeline.events.is_empty() || timeline.limited || since.is_none() {
        let start = out.len();
        write_timeline(request, &mut renderer, out, &timeline)?;
        if let (Some(since), true, false) = (since, may_share, timeline.limited || changes_summary) {
            let written = out.get(start..).unwrap_or_default();
            let value = written.iter().position(|byte| *byte == b'{').unwrap_or_default();
            let value = written.get(value..).unwrap_or_default();
            shared::keep(request, room, since, &timeline.events, value, renderer.is_personal())?;
        }
    }
    let state = !selected.is_empty() || since.is_none();
    if state {
        write_selected(request, &mut renderer, out, &selected)?;
    }
    Ok(Told { state, changes_summary: changes_summary || shows_membership(request, &selected)? })
}

/// A timeline that was rendered for others too, and the members that come with it.
fn write_section(
    request: &Request<'_>,
    out: &mut Vec<u8>,
    room: RoomNum,
    section: &Section,
    summary: Option<&Summary<'_, '_>>,
) -> Result<Told> {
    raw_member(out, "timeline", &section.timeline);
    let filter = &request.sync.filter.room.state;
    let nothing = Told { state: false, changes_summary: false };
    if !filter.lazy_load_members {
        return Ok(nothing);
    }
    let span = Span { from: Some(section.snapshot), to: section.snapshot };
    let senders = section.senders.iter().copied().collect();
    let beside = Beside { senders, named: BTreeMap::new(), changes_summary: false, summary };
    let selected = state::select(request, room, &span, beside)?;
    if selected.is_empty() {
        return Ok(nothing);
    }
    write_selected(request, &mut renderer(request, request.viewer(room)?)?, out, &selected)?;
    Ok(Told { state: true, changes_summary: true })
}

fn write_selected(
    request: &Request<'_>,
    renderer: &mut Renderer<'_>,
    out: &mut Vec<u8>,
    selected: &[Arc<Event>],
) -> Result<()> {
    let name = state_name(request);
    events_member(out, name, |out| write_event_list(request, renderer, out, selected, List::State))
}

/// Who asks for the state after the timeline knows by the list, even an empty one, that they are given it.
fn complete_state(request: &Request<'_>, out: &mut Vec<u8>, told: Told) -> Result<()> {
    match request.sync.state_after.is_some() && !told.state {
        true => write_no_state(request, out),
        false => Ok(()),
    }
}

fn write_no_state(request: &Request<'_>, out: &mut Vec<u8>) -> Result<()> {
    events_member(out, state_name(request), |_| Ok(()))
}

fn state_name(request: &Request<'_>) -> &'static str {
    request.sync.state_after.unwrap_or("state")
}

fn timeline_limit(request: &Request<'_>) -> usize {
    let limit = request.sync.filter.room.timeline.event.limit;
    limit.map_or(TIMELINE_LIMIT_DEFAULT, |limit| limit as usize)
}

/// The format of events in timelines and state.
fn format(request: &Request<'_>) -> ClientFormat {
    match request.sync.filter.event_format {
        EventFormat::Client => ClientFormat::Sync,
        EventFormat::Federation => ClientFormat::Federation,
    }
}

fn renderer<'r>(request: &Request<'r>, viewer: Viewer<'r>) -> Result<Renderer<'r>> {
    let room = viewer.room;
    Ok(Renderer::with_viewer(request.reader, room, format(request), Some(viewer), request.device)?)
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
        return Ok(Timeline {
            events: Vec::new(),
            limited: false,
            prev_batch: until,
            passes_over_state: true,
        });
    };
    let stretch = Stretch { after, up_to: until, direction: Direction::Backward, limit };
    let mut page = timeline::page(request.reader, viewer, stretch, filter, &AtGaps::Behind)?;
    if page.hides_state && request.sync.state_after.is_none() {
        // Clients make up the state of what is in the timeline. Who was in the room may read it.
        viewer.show_state(Some(state::at(request.reader, room, until)?));
        page = timeline::page(request.reader, viewer, stretch, filter, &AtGaps::Behind)?;
        viewer.show_state(None);
        // But not at the beginning: the state before has what it took the place of, and that is for nobody who came later.
        while let Some(first) = page.events.last()
            && !viewer.may_see(first)?
        {
            page.events.pop();
            page.passes_over_state = true;
        }
    }
    if let (Some(rest), Some(_)) = (page.rest, since)
        && page.events.len() == limit
    {
        // Whether anything was left out, and not only passed over.
        let stretch = Stretch { up_to: rest, limit: 1, ..stretch };
        let beyond = timeline::page(request.reader, viewer, stretch, filter, &AtGaps::Behind)?;
        page.passes_over_state |= beyond.passes_over_state;
        if beyond.events.is_empty() {
            page.rest = beyond.rest;
        }
    }
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
    let limited = page.rest.is_some() || is_cut;
    Ok(Timeline { events: page.events, limited, prev_batch, passes_over_state: page.passes_over_state })
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

fn write_unread(request: &Request<'_>, out: &mut Vec<u8>, room: RoomNum) -> Result<()> {
    let unread = unread::counts(request.reader, request.user, room, request.ignored()?)?;
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
