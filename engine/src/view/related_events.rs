//! `/relations` and `/threads`: the events that relate to one, and the roots of a room's threads.
//!
//! Invariant: nobody is told of a relation by an event that they may not see.
//! Specification: client-server API, "Relationships API" and "Querying threads in a room".

use std::{collections::HashSet, sync::Arc};

use crate::{
    core::{
        event::ClientFormat,
        filter::LIMIT_MAX,
        num::{EventNum, RoomNum, StreamPos, TextNum},
    },
    error::{Error, Result, What},
    room::{
        Event,
        relations::{Related, RelationClass},
        visibility::Viewer,
    },
    store::{Direction, Reader, StorageError, schema},
    view::{StreamToken, View, render::Renderer},
};

/// How many events or threads a page has when the client does not say.
pub const RELATIONS_LIMIT_DEFAULT: u32 = 10;
/// How deep relations of relations are followed; the specification asks for at least three.
const RECURSION_DEPTH: usize = 3;
/// How many events are collected when relations of relations are followed: beyond, what is farthest is left out.
const RECURSION_EVENTS_MAX: usize = 2_000;
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
        let related = match self.recurse {
            true => self.collect_deep(reader, viewer.room, target.num, range)?,
            false => self.collect(reader, viewer.room, target.num, range)?,
        };
        let mut events = Vec::with_capacity(limit.min(related.len()));
        let mut next = None;
        let mut looked_at = related.iter().peekable();
        while let Some(relation) = looked_at.next() {
            let event = reader.event(relation.relation.event)?;
            if event.header.redacted_by.is_none() && viewer.may_see_whole(&event)? {
                events.push(event);
            }
            if events.len() == limit && looked_at.peek().is_some() {
                next = Some(self.beyond(relation.pos));
                break;
            }
        }
        if next.is_none() && related.len() >= LOOKED_AT_MAX && !self.recurse {
            next = related.last().map(|relation| self.beyond(relation.pos));
        }
        self.write(reader, viewer, &events, next)
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

    /// The type of relation and of event that are asked for; the inner `None` of what no event ever had.
    fn wanted(&self, reader: &Reader) -> Result<[Option<Option<TextNum>>; 2], StorageError> {
        let num = |text: &Option<String>| text.as_ref().map(|text| reader.text_num(text)).transpose();
        Ok([num(&self.rel_type)?, num(&self.kind)?])
    }

    /// What relates to `target` directly, in the direction of reading.
    fn collect(
        &self,
        reader: &Reader,
        room: RoomNum,
        target: EventNum,
        (after, up_to): (StreamPos, StreamPos),
    ) -> Result<Vec<Related>> {
        let [rel_type, kind] = self.wanted(reader)?;
        let mut found = Vec::new();
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
                |(_, _, target, pos), relation| {
                    let wanted = rel_type.is_none_or(|wanted| wanted == Some(relation.rel_type))
                        && kind.is_none_or(|wanted| wanted == Some(relation.kind));
                    if wanted {
                        found.push(Related { target, pos, relation });
                        in_class += 1;
                    }
                    in_class < LOOKED_AT_MAX
                },
            )?;
        }
        self.sort(&mut found);
        found.truncate(LOOKED_AT_MAX);
        Ok(found)
    }

    fn classes(&self) -> Vec<RelationClass> {
        match &self.rel_type {
            Some(rel_type) => vec![RelationClass::of(rel_type)],
            None => RelationClass::ALL.to_vec(),
        }
    }

    fn sort(&self, found: &mut [Related]) {
        found.sort_unstable_by_key(|related| related.pos);
        if !self.forwards {
            found.reverse();
        }
    }

    /// What relates to `target` directly or through others. The types asked for apply to each event returned; one that
    /// is reached only through others that do not match is left out.
    fn collect_deep(
        &self,
        reader: &Reader,
        room: RoomNum,
        target: EventNum,
        (after, up_to): (StreamPos, StreamPos),
    ) -> Result<Vec<Related>> {
        let [rel_type, kind] = self.wanted(reader)?;
        let mut seen = HashSet::from([target]);
        let mut found: Vec<Related> = Vec::new();
        let mut targets = vec![target];
        for _ in 0..RECURSION_DEPTH {
            targets.sort_unstable();
            let mut below = Vec::new();
            for class in self.classes() {
                for related in reader.relations_to(room, class, &targets)? {
                    let wanted = rel_type.is_none_or(|wanted| wanted == Some(related.relation.rel_type))
                        && kind.is_none_or(|wanted| wanted == Some(related.relation.kind));
                    if wanted && found.len() < RECURSION_EVENTS_MAX && seen.insert(related.relation.event) {
                        below.push(related.relation.event);
                        found.push(related);
                    }
                }
            }
            targets = below;
        }
        found.retain(|related| related.pos > after && related.pos <= up_to);
        self.sort(&mut found);
        Ok(found)
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
