//! Which events a room's history lacks, of those that are told to be followed by others.

use std::sync::Arc;

use crate::{error::Result, store::Reader, view::View};

/// Events that events of a room's past follow.
pub struct EventsNotInGraph<'a> {
    /// Their ids.
    pub event_ids: &'a [Arc<str>],
}

impl View for EventsNotInGraph<'_> {
    /// Those that are no part of the room's graph here, though they may be known from outside of it; in their order.
    type Output = Vec<Arc<str>>;

    fn read(&self, reader: &Reader) -> Result<Vec<Arc<str>>> {
        let mut missing = Vec::new();
        for event_id in self.event_ids {
            let is_here = match reader.event_num(event_id)? {
                Some(num) => reader.event(num)?.header.is_in_graph(),
                None => false,
            };
            if !is_here {
                missing.push(event_id.clone());
            }
        }
        Ok(missing)
    }
}
