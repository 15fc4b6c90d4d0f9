//! Which of many events are stored pruned: another server has told of them what a redaction would leave, and nobody told them whole.

use std::sync::Arc;

use crate::{
    core::{event::verify_content_hash_of_json, num::EventNum},
    error::Result,
    store::{Reader, StorageError, schema},
    view::View,
};

/// Events read at once.
const READ_AT_ONCE: usize = 1_000;

/// Events of a state that a peer tells of.
pub struct PrunedEvents<'a> {
    /// Their ids.
    pub event_ids: &'a [Arc<str>],
}

impl View for PrunedEvents<'_> {
    /// Those that are here without their content, though nothing redacted them here, in no order. O(bytes of the events).
    type Output = Vec<Arc<str>>;

    fn read(&self, reader: &Reader) -> Result<Vec<Arc<str>>> {
        let mut pruned = Vec::new();
        for event_ids in self.event_ids.chunks(READ_AT_ONCE) {
            let found = reader.get_many(&schema::EVENT_NUMS, event_ids.iter().map(ToString::to_string))?;
            let known: Vec<EventNum> = found.into_iter().flatten().collect();
            let mut looked_at = Vec::with_capacity(known.len());
            reader.each_header(&known, |num, header| {
                if header.redacted_by.is_none() {
                    looked_at.push(num);
                }
            })?;
            for (event_id, json) in reader.bodies(&looked_at)? {
                let is_whole = verify_content_hash_of_json(&json)
                    .map_err(|_| StorageError::Corrupt(format!("event {event_id} is not JSON")))?;
                if !is_whole {
                    pruned.push(event_id);
                }
            }
        }
        Ok(pruned)
    }
}
