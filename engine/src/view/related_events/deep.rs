//! Relations of relations: what relates to an event through others.
//!
//! What lies below an event is all listed by the index, and put in order: what has come last may relate to what came first. Of
//! an event below which there is too much for that, the timeline is read instead, in stretches; both find the same.

use std::{collections::HashSet, sync::Arc};

use super::{Found, LOOKED_AT_MAX, RECURSION_DEPTH, RelatedEvents, Wanted};
use crate::{
    core::num::{EventNum, RoomNum, StreamPos},
    error::Result,
    room::{Event, relations::relation_of},
    store::{Reader, StorageError},
    view::timeline::{self, Stretch},
};

/// What one page may cost.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Scans of the index and rows read there.
    steps: usize,
    /// Events of the timeline looked at, where those steps are not enough.
    walked: usize,
}

/// 20,000 steps are some 20 ms where events lie close together, and five times that where each is sought alone; 10,000 events
/// some 30 ms.
pub(super) const BOUNDS: Bounds = Bounds { steps: 20_000, walked: 10_000 };

/// How many events are read at once.
const READ_AT_ONCE: usize = 100;

impl RelatedEvents {
    /// What relates to `target` directly or through others. The types asked for apply to each event returned; one that
    /// is reached only through others that do not match is left out.
    pub(super) fn collect_deep(
        &self,
        reader: &Reader,
        room: RoomNum,
        target: EventNum,
        range: (StreamPos, StreamPos),
        bounds: Bounds,
    ) -> Result<Found> {
        match self.below(reader, room, target, range, bounds.steps)? {
            Some(related) => Ok(self.in_order(related)),
            None => self.walk(reader, room, range, bounds.walked),
        }
    }

    /// What the index lists below `target` and within the range; nothing if that takes more steps.
    fn below(
        &self,
        reader: &Reader,
        room: RoomNum,
        target: EventNum,
        (after, up_to): (StreamPos, StreamPos),
        mut steps: usize,
    ) -> Result<Option<Vec<(StreamPos, EventNum)>>, StorageError> {
        let wanted = self.wanted(reader)?;
        let mut seen = HashSet::from([target]);
        let mut found = Vec::new();
        let mut targets = vec![target];
        for _ in 0..RECURSION_DEPTH {
            targets.sort_unstable();
            let mut below = Vec::new();
            for class in self.classes() {
                let Some(related) = reader.relations_within(room, class, &targets, &mut steps)? else {
                    return Ok(None);
                };
                for related in related {
                    let event = related.relation.event;
                    if !wanted.includes(&related.relation) || !seen.insert(event) {
                        continue;
                    }
                    below.push(event);
                    if related.pos > after && related.pos <= up_to {
                        found.push((related.pos, event));
                    }
                }
            }
            targets = below;
        }
        Ok(Some(found))
    }

    /// What of the timeline leads to the event that is asked for, among the first events of the range.
    fn walk(
        &self,
        reader: &Reader,
        room: RoomNum,
        (after, up_to): (StreamPos, StreamPos),
        count: usize,
    ) -> Result<Found> {
        let stretch = Stretch { after, up_to, direction: self.direction(), limit: count };
        let rows = timeline::rows(reader, room, stretch, count)?;
        let wanted = self.wanted(reader)?;
        let mut found = Found::default();
        if rows.len() == count {
            found.cut_at = rows.last().map(|(pos, _)| *pos);
        }
        for rows in rows.chunks(READ_AT_ONCE) {
            let nums: Vec<EventNum> = rows.iter().map(|(_, num)| *num).collect();
            for ((pos, num), event) in rows.iter().zip(reader.events(&nums)?) {
                if !self.is_below(reader, room, wanted, event)? {
                    continue;
                }
                found.related.push((*pos, *num));
                if found.related.len() == LOOKED_AT_MAX {
                    found.cut_at = Some(*pos);
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// Whether what the event relates to, or what that relates to, is the event that is asked for.
    fn is_below(
        &self,
        reader: &Reader,
        room: RoomNum,
        wanted: Wanted,
        mut event: Arc<Event>,
    ) -> Result<bool, StorageError> {
        for _ in 0..RECURSION_DEPTH {
            let pdu = event.pdu()?;
            let Some((rel_type, parent)) = relation_of(&pdu.content) else { return Ok(false) };
            let has_type = self.rel_type.as_ref().is_none_or(|wanted| wanted == rel_type);
            if !has_type || !wanted.includes_kind(event.header.kind) {
                return Ok(false);
            }
            if *parent == self.event_id {
                return Ok(true);
            }
            let Some(parent) = reader.event_num(parent)? else { return Ok(false) };
            event = reader.event(parent)?;
            if event.header.room != room {
                return Ok(false);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture::World;

    const ROOM: &str = "!room:here.example";
    const ALICE: &str = "@alice:here.example";

    /// What all pages of these bounds have, joined.
    fn pages(world: &World, view: &RelatedEvents, bounds: Bounds) -> Vec<String> {
        world.ask(|reader| {
            let room = reader.room_num(&view.room_id)?.unwrap();
            let target = reader.event_num(&view.event_id)?.unwrap();
            let (mut after, mut up_to) = (StreamPos(i64::MIN), reader.pos);
            let mut all = Vec::new();
            loop {
                let found = view.collect_deep(reader, room, target, (after, up_to), bounds)?;
                for (_, event) in &found.related {
                    all.push(reader.event(*event)?.event_id.to_string());
                }
                match found.cut_at {
                    None => return Ok(all),
                    Some(pos) if view.forwards => after = pos,
                    Some(pos) => up_to = StreamPos(pos.0 - 1),
                }
            }
        })
    }

    #[test]
    fn the_timeline_tells_what_the_index_does() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        let relate = |kind: &str, target: &str| world.relate(ROOM, ALICE, kind, target, json!({}));
        let (root, other) = (world.message(ROOM, ALICE, "root"), world.message(ROOM, ALICE, "other"));
        let replies: Vec<String> = (0..10).map(|_| relate("m.thread", &root)).collect();
        relate("m.thread", &other);
        // The one before the last is the deepest that counts; what is said of a reply that is gone leads nowhere.
        let edit = relate("m.replace", &replies[0]);
        let reaction = relate("m.annotation", &edit);
        relate("m.reference", &reaction);
        relate("m.annotation", &replies[1]);
        world.redact(ROOM, ALICE, &replies[1]);
        let late = relate("m.annotation", &replies[2]);
        let mut expected: Vec<String> = replies.clone();
        expected.retain(|reply| *reply != replies[1]);
        expected.extend([edit, reaction, late]);
        let mut view = RelatedEvents {
            room_id: ROOM.into(),
            event_id: root,
            user: ALICE.into(),
            device: None,
            rel_type: None,
            kind: None,
            from: None,
            to: None,
            forwards: true,
            limit: None,
            recurse: true,
        };
        let walked = Bounds { steps: 5, walked: 3 };
        assert_eq!(pages(&world, &view, BOUNDS), expected);
        assert_eq!(pages(&world, &view, walked), expected);
        view.forwards = false;
        expected.reverse();
        assert_eq!(pages(&world, &view, BOUNDS), expected);
        assert_eq!(pages(&world, &view, walked), expected);
        view.rel_type = Some("m.thread".into());
        expected.retain(|event| replies.contains(event));
        assert_eq!(pages(&world, &view, BOUNDS), expected);
        assert_eq!(pages(&world, &view, walked), expected);
    }
}
