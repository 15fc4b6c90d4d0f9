//! The purges that are under way, for whoever goes on with them after a start.

use crate::{
    error::Result,
    room::purge::{self, PurgeProgress},
    store::Reader,
    view::View,
};

/// Which rooms are being purged, and how far.
pub struct Purges;

impl View for Purges {
    /// Room ids with their progress.
    type Output = Vec<(String, PurgeProgress)>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        Ok(purge::running(reader)?)
    }
}
