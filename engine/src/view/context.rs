//! `/context` and `/event`: one event, and what surrounds it.
//!
//! Specification: client-server API, "Event context" and `GET /rooms/{roomId}/event/{eventId}`.

use std::sync::Arc;

use crate::{
    core::{
        event::ClientFormat,
        filter::{LIMIT_MAX, RoomEventFilter},
        num::{EventNum, StreamPos, TextNum},
    },
    error::{Error, Result, What},
    room::{
        Event,
        visibility::{Access, Viewer},
    },
    store::{Direction, Reader},
    view::{
        BeforeGap, StreamToken, View,
        render::Renderer,
        senders::members_of_senders,
        timeline,
        timeline::{AtGaps, Page, Stretch},
    },
};

/// How many events surround the one when the client does not say.
pub const CONTEXT_LIMIT_DEFAULT: u32 = 10;

/// One event of a room.
pub struct OneEvent {
    /// The room's id.
    pub room_id: String,
    /// The event's id.
    pub event_id: String,
    /// Who asks.
    pub user: String,
    /// The device that asks.
    pub device: Option<String>,
}

impl View for OneEvent {
    /// The event's JSON.
    type Output = Vec<u8>;

    fn read(&self, reader: &Reader) -> Result<Vec<u8>> {
        let (mut viewer, _) = enter(reader, &self.room_id, &self.user)?;
        let event = viewer.event(&self.event_id)?;
        let mut renderer = renderer(reader, viewer, self.device.as_deref())?;
        let mut out = Vec::new();
        renderer.write_timeline(&mut out, &[event])?;
        Ok(out)
    }
}

/// An event with what came before and after it.
pub struct EventContext {
    /// The event, and who asks.
    pub event: OneEvent,
    /// Most events around it; more than [`LIMIT_MAX`] means that.
    pub limit: Option<u32>,
    /// Which events around it, and which state.
    pub filter: RoomEventFilter,
}

impl View for EventContext {
    /// The response's JSON.
    type Output = Vec<u8>;

    fn read(&self, reader: &Reader) -> Result<Vec<u8>> {
        self.answer(reader, true)
    }
}

impl View for BeforeGap<'_, EventContext> {
    /// The response's JSON.
    type Output = Vec<u8>;

    fn read(&self, reader: &Reader) -> Result<Vec<u8>> {
        self.0.answer(reader, false)
    }
}

impl EventContext {
    /// What is on either side as far as the next gap, and beyond one that the event stands at if it `passes_gap`.
    fn answer(&self, reader: &Reader, passes_gap: bool) -> Result<Vec<u8>> {
        let (mut viewer, access) = enter(reader, &self.event.room_id, &self.event.user)?;
        let event = viewer.event(&self.event.event_id)?;
        let limit = self.limit.or(self.filter.event.limit).unwrap_or(CONTEXT_LIMIT_DEFAULT).min(LIMIT_MAX);
        let before = Stretch {
            after: StreamPos(i64::MIN),
            up_to: StreamToken::before(event.pos()).0,
            direction: Direction::Backward,
            limit: limit as usize / 2,
        };
        let gaps = AtGaps::of(reader, viewer.room, passes_gap)?;
        let before = timeline::page(reader, &mut viewer, before, &self.filter, &gaps)?;
        let after = Stretch {
            after: event.pos(),
            up_to: access.last(reader),
            direction: Direction::Forward,
            limit: limit as usize - limit as usize / 2,
        };
        let after = timeline::page(reader, &mut viewer, after, &self.filter, &gaps)?;
        let first = before.events.last().unwrap_or(&event);
        let last = after.events.last().unwrap_or(&event);
        let (start, end) = (StreamToken::before(first.pos()), StreamToken(last.pos()));
        let state = self.state(reader, &event, &before, &after)?;

        let mut renderer = renderer(reader, viewer, self.event.device.as_deref())?;
        let mut out = format!("{{\"start\":\"{start}\",\"end\":\"{end}\",\"event\":").into_bytes();
        renderer.write_timeline(&mut out, &[event])?;
        out.extend_from_slice(b",\"events_before\":[");
        renderer.write_timeline(&mut out, &before.events)?;
        out.extend_from_slice(b"],\"events_after\":[");
        renderer.write_timeline(&mut out, &after.events)?;
        out.extend_from_slice(b"],\"state\":[");
        renderer.write_state(&mut out, &state)?;
        out.extend_from_slice(b"]}");
        Ok(out)
    }

    /// The room's state after the last event returned, as far as the filter wants it.
    fn state(
        &self,
        reader: &Reader,
        event: &Arc<Event>,
        before: &Page,
        after: &Page,
    ) -> Result<Vec<Arc<Event>>> {
        let header = &after.events.last().unwrap_or(event).header;
        let (room, snapshot) = (header.room, header.state_after);
        let lazy = self.filter.lazy_load_members;
        let member: Option<TextNum> = if lazy { reader.text_num("m.room.member")? } else { None };
        let entries = reader.state_entries(room, snapshot)?.into_iter();
        let nums: Vec<EventNum> =
            entries.filter(|(key, _)| Some(key.kind()) != member).map(|(_, num)| num).collect();
        let mut state = reader.events(&nums)?;
        if lazy {
            let shown = before.events.iter().chain(&after.events).chain(std::iter::once(event));
            state.extend(members_of_senders(reader, room, snapshot, shown)?);
        }
        let mut wanted = Vec::with_capacity(state.len());
        for entry in state {
            if timeline::matches(reader, &self.filter, &self.event.room_id, &entry)? {
                wanted.push(entry);
            }
        }
        Ok(wanted)
    }
}

/// Whoever may not look into the room is told that the event is not there.
fn enter<'r>(reader: &'r Reader, room_id: &str, user: &str) -> Result<(Viewer<'r>, Access)> {
    Viewer::enter(reader, room_id, user).map_err(|error| match error {
        Error::Denied(_) => Error::NotFound(What::Event),
        other => other,
    })
}

fn renderer<'r>(reader: &'r Reader, viewer: Viewer<'r>, device: Option<&str>) -> Result<Renderer<'r>> {
    let device = match device {
        Some(device) => reader.text_num(device)?,
        None => None,
    };
    Ok(Renderer::with_viewer(reader, viewer.room, ClientFormat::Room, Some(viewer), device)?)
}
