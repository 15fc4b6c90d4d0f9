//! Finds out whether a store that has refused a write takes them again, when nobody else writes.

use crate::{
    command::{Command, Lanes},
    error::Result,
    store::Tx,
};

/// A write that says nothing. To be run every few seconds while [`takes_writes`](crate::Engine::takes_writes) says no.
///
/// Errors: [`StorageError`](crate::StorageError) if the store still refuses.
pub struct TryStore;

impl Command for TryStore {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        // After a commit that failed, the first batch with a position writes the marks of what is given out anew.
        tx.next_position();
        Ok(())
    }
}
