//! `/messages`: a room's history, page by page.
//!
//! Specification: client-server API, `GET /rooms/{roomId}/messages`, "Lazy-loading room members".

use std::sync::Arc;

use crate::{
    core::{
        event::ClientFormat,
        filter::{LIMIT_MAX, RoomEventFilter},
        num::StreamPos,
    },
    error::Result,
    room::{Event, visibility::Viewer},
    store::{Direction, Reader, StorageError},
    view::{
        BeforeGap, StreamToken, View,
        render::Renderer,
        senders::members_of_senders,
        timeline,
        timeline::{AtGaps, Stretch},
    },
};

/// How many events a page has when the client does not say. Specification: `limit` of `/messages`.
pub const MESSAGES_LIMIT_DEFAULT: u32 = 10;

/// Which page of a room's history.
pub struct Messages {
    /// The room's id.
    pub room_id: String,
    /// Who asks.
    pub user: String,
    /// The device that asks.
    pub device: Option<String>,
    /// Where to begin; else at the end of the history from which `direction` leads away.
    pub from: Option<StreamToken>,
    /// Where to stop.
    pub to: Option<StreamToken>,
    /// Towards later events, or towards earlier ones.
    pub forwards: bool,
    /// Most events; more than [`LIMIT_MAX`] means that.
    pub limit: Option<u32>,
    /// Which events.
    pub filter: RoomEventFilter,
}

impl View for Messages {
    /// The response's JSON.
    type Output = Vec<u8>;

    fn read(&self, reader: &Reader) -> Result<Vec<u8>> {
        self.answer(reader, true)
    }
}

impl View for BeforeGap<'_, Messages> {
    /// The response's JSON.
    type Output = Vec<u8>;

    fn read(&self, reader: &Reader) -> Result<Vec<u8>> {
        self.0.answer(reader, false)
    }
}

impl Messages {
    /// The page, which ends at a gap; one that begins there goes beyond if it `passes_gap`.
    fn answer(&self, reader: &Reader, passes_gap: bool) -> Result<Vec<u8>> {
        let (mut viewer, access) = Viewer::enter(reader, &self.room_id, &self.user)?;
        let limit = self.limit.or(self.filter.event.limit).unwrap_or(MESSAGES_LIMIT_DEFAULT).min(LIMIT_MAX);
        let last = access.last(reader);
        let direction = if self.forwards { Direction::Forward } else { Direction::Backward };
        let (after, up_to) = match direction {
            Direction::Forward => (self.from, self.to),
            Direction::Backward => (self.to, self.from),
        };
        let stretch = Stretch {
            after: after.map_or(StreamPos(i64::MIN), |token| token.0),
            up_to: up_to.map_or(last, |token| token.0.min(last)),
            direction,
            limit: limit as usize,
        };
        let gaps = AtGaps::of(reader, viewer.room, passes_gap)?;
        let page = timeline::page(reader, &mut viewer, stretch, &self.filter, &gaps)?;
        let start = match (self.from, page.events.first()) {
            (Some(from), _) => from,
            (None, Some(first)) if self.forwards => StreamToken::before(first.pos()),
            (None, _) => StreamToken(last),
        };

        let mut out = Vec::with_capacity(256 + 512 * page.events.len());
        out.extend_from_slice(format!("{{\"start\":\"{start}\",\"chunk\":[").as_bytes());
        let device = match &self.device {
            Some(device) => reader.text_num(device)?,
            None => None,
        };
        let mut renderer =
            Renderer::with_viewer(reader, viewer.room, ClientFormat::Room, Some(viewer), device)?;
        renderer.write_timeline(&mut out, &page.events)?;
        out.push(b']');
        if let Some(rest) = page.rest {
            let mut end = StreamToken(rest).to_string();
            if end == start.to_string() {
                // Some clients take a page that ends where it begins for the last one.
                end = StreamToken(rest).anew();
            }
            out.extend_from_slice(format!(",\"end\":\"{end}\"").as_bytes());
        }
        if self.filter.lazy_load_members && !page.events.is_empty() {
            out.extend_from_slice(b",\"state\":[");
            renderer.write_state(&mut out, &senders(reader, &page.events)?)?;
            out.push(b']');
        }
        out.push(b'}');
        Ok(out)
    }
}

/// The member events of those who sent `events`, as they were at the latest of these.
fn senders(reader: &Reader, events: &[Arc<Event>]) -> Result<Vec<Arc<Event>>, StorageError> {
    let Some(latest) = events.iter().max_by_key(|event| event.pos()) else { return Ok(Vec::new()) };
    members_of_senders(reader, latest.header.room, latest.header.state_after, events.iter())
}
