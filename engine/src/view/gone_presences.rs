//! Who went, and of whom it may still be stored that they are there.

use crate::{error::Result, store::Reader, view::View};

/// Of how many it is told at once: each costs a command, and after a break of the network thousands go in the same moment.
const GONE_MAX: usize = 200;

/// The ids of users who went, for [`crate::command::ForgetPresence`]. Those who are left out are named once these are done with.
pub struct GonePresences;

impl View for GonePresences {
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Vec<String>> {
        let gone = reader.shared.watch.presences.gone(GONE_MAX);
        gone.into_iter().map(|user| Ok(reader.user_id(user)?.to_string())).collect()
    }
}
