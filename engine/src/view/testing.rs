//! What a room has come to, for fuzz targets. Nothing else may use it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    core::num::{EventNum, NodeId, RoomNum, StreamPos},
    error::Result,
    room::RoomCtx,
    store::{Direction, Reader, schema, schema::EventStatus},
    view::View,
};

/// Everything about a room that should not depend on the order in which its events came.
pub struct RoomShape {
    /// The room's id.
    pub room_id: String,
}

/// Ids of events.
pub type Ids = BTreeSet<Arc<str>>;

/// See [`RoomShape`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The forward extremities.
    pub ends: Ids,
    /// The current state.
    pub state: Ids,
    /// What became of each event that is part of the graph, and the state before it.
    pub events: BTreeMap<Arc<str>, (EventStatus, Ids)>,
}

impl View for RoomShape {
    type Output = Shape;

    fn read(&self, reader: &Reader) -> Result<Shape> {
        let room = RoomCtx::load(reader, &self.room_id)?;
        let ids = |snapshot: NodeId| -> Result<Ids> {
            let entries = reader.state_entries(room.num, snapshot)?;
            entries.into_iter().map(|(_, num)| Ok(reader.event(num)?.event_id.clone())).collect()
        };
        let mut nums: Vec<EventNum> = Vec::new();
        let timeline = |_: (RoomNum, StreamPos), num| {
            nums.push(num);
            true
        };
        reader.scan(&schema::TIMELINE, &room.num, Direction::Forward, timeline)?;
        let off_timeline = |(_, num): (RoomNum, EventNum), ()| {
            nums.push(num);
            true
        };
        reader.scan(&schema::OFF_TIMELINE, &room.num, Direction::Forward, off_timeline)?;
        let mut events = BTreeMap::new();
        for event in reader.events(&nums)? {
            if event.header.is_in_graph() {
                events.insert(event.event_id.clone(), (event.header.status, ids(event.header.state_before)?));
            }
        }
        let ends = room.head.extremities.iter().map(|(_, event_id)| event_id.as_str().into()).collect();
        Ok(Shape { ends, state: ids(room.head.state)?, events })
    }
}
