//! Whether an event is part of its room here: what became of one that came otherwise before it could be taken in.

use crate::{
    error::Result,
    store::{Reader, schema::EventStatus},
    view::View,
};

/// An event that may be here.
pub struct IsAccepted<'a> {
    /// Its id.
    pub event_id: &'a str,
}

impl View for IsAccepted<'_> {
    /// Not if it is soft-failed or rejected, or known outside of the graph alone.
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        match reader.event_num(self.event_id)? {
            Some(num) => Ok(reader.event(num)?.header.status == EventStatus::Accepted),
            None => Ok(false),
        }
    }
}
