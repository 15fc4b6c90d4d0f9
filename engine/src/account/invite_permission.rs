//! Whether a user wants to be invited at all. Specification: client-server API, "Invite permission".

use serde_json::Value;

use super::account_data;
use crate::{
    core::num::UserNum,
    error::{Denied, Result},
    store::{Reader, StorageError},
};

/// The account data that says so.
const CONFIG: &str = "m.invite_permission_config";

/// Whether a user refuses all invites. O(1).
pub(crate) fn blocks_invites(reader: &Reader, user: UserNum) -> Result<bool, StorageError> {
    let Some(content) = account_data::get(reader, user, None, CONFIG)? else { return Ok(false) };
    // Clients may store what they like. Specification: "A missing, invalid or unsupported value means that the user wants to
    // receive invites as normal."
    let content: Value = serde_json::from_slice(&content).unwrap_or_default();
    Ok(content.get("default_action").and_then(Value::as_str) == Some("block"))
}

/// Refuses to invite a local user who wants no invites. What users of other servers want, their servers say.
///
/// Errors: [`Denied::InvitesBlocked`].
pub(crate) fn check_invitable(reader: &Reader, user_id: &str) -> Result<()> {
    match reader.user_num(user_id)? {
        Some(user) if blocks_invites(reader, user)? => Err(Denied::InvitesBlocked.into()),
        _ => Ok(()),
    }
}
