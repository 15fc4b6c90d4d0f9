//! Which of many events are not here: what is asked of a peer after it has told a state by ids.

use std::sync::Arc;

use crate::{error::Result, store::Reader, view::View};

/// Events that a peer tells of.
pub struct UnknownEvents<'a> {
    /// Their ids.
    pub event_ids: &'a [Arc<str>],
}

impl View for UnknownEvents<'_> {
    /// Those that are not here in any form, in their order, each once.
    type Output = Vec<Arc<str>>;

    fn read(&self, reader: &Reader) -> Result<Vec<Arc<str>>> {
        let mut seen = std::collections::HashSet::new();
        let mut unknown = Vec::new();
        for event_id in self.event_ids {
            if seen.insert(event_id) && reader.event_num(event_id)?.is_none() {
                unknown.push(event_id.clone());
            }
        }
        Ok(unknown)
    }
}
