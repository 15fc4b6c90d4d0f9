//! `/relations` and `/threads`: the events that relate to one, and the roots of a room's threads.
//!
//! Invariant: nobody is told of a relation by an event that they may not see.
//! Specification: client-server API, "Relationships API" and "Querying threads in a room".

mod deep;

use std::sync::Arc;

use crate::{
    core::{
        event::ClientFormat,
        filter::LIMIT_MAX,
        num::{EventNum, RoomNum, StreamPos, TextNum},
    },
    error::{Error, Result, What},
    room::{Event, relations::RelationClass, visibility::Viewer},
    store::{Direction, Reader, StorageError, schema, schema::Relation},
    view::{StreamToken, View, render::Renderer},
};

/// How many events or threads a page has when the client does not say.
pub const RELATIONS_LIMIT_DEFAULT: u32 = 10;
/// How deep relations of relations are followed; the specification asks for at least three.
const RECURSION_DEPTH: usize = 3;
/// How many relations or threads one page looks at before it is given as it is, with a token to go on.
const LOOKED_AT_MAX: usize = 2_000;

/// The events that relate to an event.
pub struct RelatedEvents {
    /// The room's id.
    pub room_id: String,
    /// The event that they relate to.
    pub event_id: String,
    /// Who asks.
    pub user: String,
    /// The device that asks.
    pub device: Option<String>,
    /// Only this type of relation.
    pub rel_type: Option<String>,
    /// Only events of this type.
    pub kind: Option<String>,
    /// Where to begin; else at the end from which the direction leads away.
    pub from: Option<StreamToken>,
    /// Where to stop.
    pub to: Option<StreamToken>,
    /// Towards later events, or towards earlier ones.
    pub forwards: bool,
    /// Most events; more than [`LIMIT_MAX`] means that.
    pub limit: Option<u32>,
    /// Whether to follow relations of relations.
    pub recurse: bool,
}

impl View for RelatedEvents {
    /// The response's JSON.
    type Output = Vec<u8>;

    fn read(&self, reader: &Reader) -> Result<Vec<u8>> {
        let not_found = |error| match error {
            Error::Denied(_) => Error::NotFound(What::Event),
            other => other,
        };
        let (mut viewer, access) = Viewer::enter(reader, &self.room_id, &self.user).map_err(not_found)?;
        let target = viewer.event(&self.event_id)?;
        let limit = self.limit.unwrap_or(RELATIONS_LIMIT_DEFAULT).clamp(1, LIMIT_MAX) as usize;
        let last = access.last(reader);
        let (after, up_to) = if self.forwards { (self.from, self.to) } else { (self.to, self.from) };
        let range = (
            after.map_or(StreamPos(i64::MIN), |token| token.0),
            up_to.map_or(last, |token| token.0.min(last)),
        );
        let found = match self.recurse {
            true => self.collect_deep(reader, viewer.room, target.num, range, deep::BOUNDS)?,
            false => self.collect(reader, viewer.room, target.num, range)?,
        };
        let mut events = Vec::with_capacity(limit.min(found.related.len()));
        let mut next = None;
        let mut looked_at = found.related.iter().peekable();
        while let Some((pos, related)) = looked_at.next() {
            let event = reader.event(*related)?;
            if event.header.redacted_by.is_none() && viewer.may_see_whole(&event)? {
                events.push(event);
            }
            if events.len() == limit && looked_at.peek().is_some() {
                next = Some(self.beyond(*pos));
                break;
            }
        }
        let next = next.or_else(|| found.cut_at.map(|pos| self.beyond(pos)));
        self.write(reader, viewer, &events, next)
    }
}

/// What relates to an event, as far as one page looks.
#[derive(Debug, Default)]
struct Found {
    /// The events with their positions, in the direction of reading.
    related: Vec<(StreamPos, EventNum)>,
    /// The last position that was looked at, if there may be more beyond.
    cut_at: Option<StreamPos>,
}

/// The type of relation and of event that are asked for; the inner `None` of what no event ever had.
#[derive(Clone, Copy)]
struct Wanted {
    rel_type: Option<Option<TextNum>>,
    kind: Option<Option<TextNum>>,
}

impl Wanted {
    fn includes(self, relation: &Relation) -> bool {
        self.rel_type.is_none_or(|wanted| wanted == Some(relation.rel_type))
            && self.includes_kind(relation.kind)
    }

    fn includes_kind(self, kind: TextNum) -> bool {
        self.kind.is_none_or(|wanted| wanted == Some(kind))
    }
}

impl RelatedEvents {
    fn beyond(&self, pos: StreamPos) -> StreamToken {
        if self.forwards { StreamToken(pos) } else { StreamToken::before(pos) }
    }

    fn direction(&self) -> Direction {
        if self.forwards { Direction::Forward } else { Direction::Backward }
    }

    fn write(
        &self,
        reader: &Reader,
        viewer: Viewer<'_>,
        events: &[Arc<Event>],
        next: Option<StreamToken>,
    ) -> Result<Vec<u8>> {
        let device = match &self.device {
            Some(device) => reader.text_num(device)?,
            None => None,
        };
        let mut out = b"{\"chunk\":[".to_vec();
        Renderer::with_viewer(reader, viewer.room, ClientFormat::Room, Some(viewer), device)?
            .write_timeline(&mut out, events)?;
        out.push(b']');
        if let Some(next) = next {
            out.extend_from_slice(format!(",\"next_batch\":\"{next}\"").as_bytes());
        }
        if let Some(from) = self.from {
            out.extend_from_slice(format!(",\"prev_batch\":\"{from}\"").as_bytes());
        }
        if self.recurse {
            out.extend_from_slice(format!(",\"recursion_depth\":{RECURSION_DEPTH}").as_bytes());
        }
        out.push(b'}');
        Ok(out)
    }

    fn wanted(&self, reader: &Reader) -> Result<Wanted, StorageError> {
        let num = |text: &Option<String>| text.as_ref().map(|text| reader.text_num(text)).transpose();
        Ok(Wanted { rel_type: num(&self.rel_type)?, kind: num(&self.kind)? })
    }

    /// What relates to `target` directly, in the direction of reading.
    fn collect(
        &self,
        reader: &Reader,
        room: RoomNum,
        target: EventNum,
        (after, up_to): (StreamPos, StreamPos),
    ) -> Result<Found> {
        let wanted = self.wanted(reader)?;
        let mut related = Vec::new();
        for class in self.classes() {
            let key = |pos: StreamPos| (room, class as u8, target, StreamPos(pos.0.saturating_add(1)));
            if after >= up_to {
                break;
            }
            let mut in_class = 0;
            let (from, to) = (key(after), key(up_to));
            reader.scan_between(
                &schema::RELATIONS,
                &from,
                &to,
                self.direction(),
                |(_, _, _, pos), relation| {
                    if wanted.includes(&relation) {
                        related.push((pos, relation.event));
                        in_class += 1;
                    }
                    in_class < LOOKED_AT_MAX
                },
            )?;
        }
        Ok(self.in_order(related))
    }

    fn classes(&self) -> Vec<RelationClass> {
        match &self.rel_type {
            Some(rel_type) => vec![RelationClass::of(rel_type)],
            None => RelationClass::ALL.to_vec(),
        }
    }

    /// In the direction of reading, as many as one page looks at.
    fn in_order(&self, mut related: Vec<(StreamPos, EventNum)>) -> Found {
        related.sort_unstable_by_key(|(pos, _)| *pos);
        if !self.forwards {
            related.reverse();
        }
        related.truncate(LOOKED_AT_MAX);
        let cut_at = related.get(LOOKED_AT_MAX - 1).map(|(pos, _)| *pos);
        Found { related, cut_at }
    }
}

/// The roots of a room's threads, those with the latest events first.
pub struct Threads {
    /// The room's id.
    pub room_id: String,
    /// Who asks.
    pub user: String,
    /// The device that asks.
    pub device: Option<String>,
    /// Only threads that the asker took part in.
    pub participated: bool,
    /// Most threads; more than [`LIMIT_MAX`] means that.
    pub limit: Option<u32>,
    /// Where to begin.
    pub from: Option<StreamToken>,
}

impl View for Threads {
    /// The response's JSON.
    type Output = Vec<u8>;

    fn read(&self, reader: &Reader) -> Result<Vec<u8>> {
        let (mut viewer, access) = Viewer::enter(reader, &self.room_id, &self.user)?;
        let limit = self.limit.unwrap_or(RELATIONS_LIMIT_DEFAULT).clamp(1, LIMIT_MAX) as usize;
        let last = access.last(reader);
        let up_to = self.from.map_or(last, |token| token.0.min(last));
        let room = viewer.room;
        let mut rows = Vec::new();
        let (from, to) = ((room, StreamPos(i64::MIN)), (room, StreamPos(up_to.0.saturating_add(1))));
        reader.scan_between(&schema::THREAD_STREAM, &from, &to, Direction::Backward, |(_, pos), root| {
            rows.push((pos, root));
            rows.len() <= LOOKED_AT_MAX
        })?;
        let mut roots = Vec::new();
        let mut next = None;
        let mut rest = rows.iter().take(LOOKED_AT_MAX).peekable();
        while let Some((pos, root)) = rest.next() {
            let root = reader.event(*root)?;
            let wanted = !self.participated
                || root.header.sender == viewer.user
                || reader.has(&schema::THREAD_USERS, &(room, root.num, viewer.user))?;
            if wanted && viewer.may_see(&root)? {
                roots.push(root);
            }
            if roots.len() == limit && rest.peek().is_some() {
                next = Some(StreamToken::before(*pos));
                break;
            }
        }
        if next.is_none() && rows.len() > LOOKED_AT_MAX {
            next = rows.get(LOOKED_AT_MAX - 1).map(|(pos, _)| StreamToken::before(*pos));
        }
        let device = match &self.device {
            Some(device) => reader.text_num(device)?,
            None => None,
        };
        let mut out = b"{\"chunk\":[".to_vec();
        Renderer::with_viewer(reader, room, ClientFormat::Room, Some(viewer), device)?
            .write_timeline(&mut out, &roots)?;
        out.push(b']');
        if let Some(next) = next {
            out.extend_from_slice(format!(",\"next_batch\":\"{next}\"").as_bytes());
        }
        out.push(b'}');
        Ok(out)
    }
}
