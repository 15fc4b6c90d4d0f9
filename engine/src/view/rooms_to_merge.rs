//! The rooms whose ends have become too many.

use crate::{error::Result, room::merging, store::Reader, view::View};

/// For whom [`MergeEnds`](crate::command::MergeEnds) is. O(rooms).
pub struct RoomsToMerge;

impl View for RoomsToMerge {
    /// Room ids.
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Vec<String>> {
        Ok(merging::rooms_to_merge(reader)?)
    }
}
