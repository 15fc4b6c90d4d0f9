//! A user's push rules.

use ruma_common::push::Ruleset;

use crate::{
    account::push_rules,
    error::{Error, Result, What},
    store::Reader,
    view::View,
};

/// The user's ruleset, with the server's default rules in it.
pub struct PushRules {
    /// The user's id.
    pub user_id: String,
}

impl View for PushRules {
    type Output = Ruleset;

    fn read(&self, reader: &Reader) -> Result<Ruleset> {
        let user = reader.user_num(&self.user_id)?.ok_or(Error::NotFound(What::User))?;
        Ok(push_rules::ruleset(reader, user)?)
    }
}
