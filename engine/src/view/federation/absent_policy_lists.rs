//! Which of the moderation policy lists that this server is to go by as a policy server say nothing.

use crate::{error::Result, room::policy_lists, store::Reader, view::View};

/// The ids of [`policy_lists`](crate::Options::policy_lists) in whose rooms this server is not.
pub struct AbsentPolicyLists;

impl View for AbsentPolicyLists {
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Vec<String>> {
        Ok(policy_lists::absent(reader)?)
    }
}
