//! `admin.yaml`: what administrators ask about users, and how they lock and suspend them.

use std::collections::BTreeMap;

use ruma_common::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use warren_engine::account::Account;
use warren_engine::command::SetAccount;
use warren_engine::view::{AccountOf, DevicesOfUser};

use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/admin/whois/{userId}"   ["r0"]                           Required Read  Nothing get_whois;
    GET "/_matrix/client/v1/admin/suspend/{userId}" ["unstable/uk.timedout.msc4323"] Admin    Read  Nothing get_suspended;
    PUT "/_matrix/client/v1/admin/suspend/{userId}" ["unstable/uk.timedout.msc4323"] Admin    Write Json    put_suspended;
    GET "/_matrix/client/v1/admin/lock/{userId}"    ["unstable/uk.timedout.msc4323"] Admin    Read  Nothing get_locked;
    PUT "/_matrix/client/v1/admin/lock/{userId}"    ["unstable/uk.timedout.msc4323"] Admin    Write Json    put_locked;
}

#[derive(Serialize)]
struct Connection {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    last_seen: u64,
}

/// Users may look at themselves, administrators at everybody.
async fn get_whois(call: Call) -> Outcome {
    let user_id: OwnedUserId = call.path_as("userId")?;
    let session = call.session()?;
    if !session.is_admin && session.user_id != user_id {
        return Err(ApiError::forbidden("Only administrators of this server can look at other users"));
    }
    let devices = call.ctx.engine.read(&DevicesOfUser(user_id.as_str()))?;
    let devices: BTreeMap<_, _> = devices
        .into_iter()
        .map(|device| {
            let seen = device.seen.map(|seen| Connection { ip: seen.ip, last_seen: seen.ts });
            let connections: Vec<_> = seen.into_iter().collect();
            (device.device_id, json!({ "sessions": [{ "connections": connections }] }))
        })
        .collect();
    Answer::json(&json!({ "user_id": user_id, "devices": devices }))
}

async fn get_suspended(call: Call) -> Outcome {
    let (_, account) = target(&call)?;
    Answer::json(&json!({ "suspended": account.is_suspended }))
}

async fn get_locked(call: Call) -> Outcome {
    let (_, account) = target(&call)?;
    Answer::json(&json!({ "locked": account.is_locked }))
}

async fn put_suspended(call: Call) -> Outcome {
    #[derive(Deserialize)]
    struct Request {
        suspended: bool,
    }
    let Request { suspended } = call.json()?;
    let user_id = changeable(&call)?.to_string();
    let set = SetAccount { user_id, is_suspended: Some(suspended), ..SetAccount::default() };
    call.ctx.engine.write(set).await?;
    Answer::json(&json!({ "suspended": suspended }))
}

async fn put_locked(call: Call) -> Outcome {
    #[derive(Deserialize)]
    struct Request {
        locked: bool,
    }
    let Request { locked } = call.json()?;
    let user_id = changeable(&call)?.to_string();
    let set = SetAccount { user_id, is_locked: Some(locked), ..SetAccount::default() };
    call.ctx.engine.write(set).await?;
    Answer::json(&json!({ "locked": locked }))
}

/// The account in the path. Errors: 400 if it is another server's user; 404 if there is none, or it is deactivated.
fn target(call: &Call) -> Result<(OwnedUserId, Account), ApiError> {
    let user_id: OwnedUserId = call.path_as("userId")?;
    if user_id.server_name() != call.ctx.config.server_name {
        return Err(ApiError::invalid_param("This is not a user of this server"));
    }
    let account = call.ctx.engine.read(&AccountOf(user_id.as_str()))?;
    let account = account.filter(|account| !account.is_deactivated);
    Ok((user_id, account.ok_or_else(|| ApiError::not_found("There is no such user"))?))
}

/// The same, if the one who asks may change it. Errors: 403 for administrators, oneself among them.
fn changeable(call: &Call) -> Result<OwnedUserId, ApiError> {
    let (user_id, account) = target(call)?;
    let asker: &UserId = call.user()?;
    if account.is_admin || asker == user_id {
        return Err(ApiError::forbidden("Administrators can be neither locked nor suspended"));
    }
    Ok(user_id)
}
