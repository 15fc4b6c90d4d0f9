//! `account-data.yaml`: what clients keep about their user.

use warren_engine::core::identifiers::is_room_id;
use warren_engine::view::AccountData;

use crate::http::limits::{ACCOUNT_DATA_BYTES_MAX, ACCOUNT_DATA_TYPE_BYTES_MAX, JSON_BODY_BYTES_MAX};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/user/{userId}/account_data/{type}"                ["r0"] Guest Read  Nothing get_global;
    PUT "/_matrix/client/v3/user/{userId}/account_data/{type}"                ["r0"] Guest Write Bulk    put_global;
    GET "/_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}" ["r0"] Guest Read  Nothing get_of_room;
    PUT "/_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}" ["r0"] Guest Write Bulk    put_of_room;
}

/// Types that have endpoints of their own, which check what these do not.
const NOT_SET_HERE: [&str; 2] = ["m.fully_read", "m.push_rules"];

async fn get_global(call: Call) -> Outcome {
    get(&call, None)
}

async fn get_of_room(call: Call) -> Outcome {
    let room_id = room_id(&call)?;
    get(&call, Some(&room_id))
}

fn get(call: &Call, room_id: Option<&str>) -> Outcome {
    call.own_user("userId")?;
    let (user, kind) = (call.session()?.user, call.path("type")?);
    let content = call.ctx.engine.read(&AccountData { user, room_id, kind: &kind })?;
    Ok(Answer::json_bytes(content))
}

async fn put_global(call: Call) -> Outcome {
    put(&call, None).await
}

async fn put_of_room(call: Call) -> Outcome {
    let room_id = room_id(&call)?;
    put(&call, Some(room_id)).await
}

async fn put(call: &Call, room_id: Option<String>) -> Outcome {
    let user_id = call.own_user("userId")?.to_string();
    let kind = call.path("type")?.into_owned();
    if NOT_SET_HERE.contains(&kind.as_str()) {
        return Err(ApiError::bad_json(format!("{kind} cannot be set here"))
            .with_status(http::StatusCode::METHOD_NOT_ALLOWED));
    }
    if kind.len() > ACCOUNT_DATA_TYPE_BYTES_MAX {
        return Err(ApiError::invalid_param(format!(
            "The type is longer than {ACCOUNT_DATA_TYPE_BYTES_MAX} bytes"
        )));
    }
    // A guest is somebody today, and somebody else tomorrow.
    let bytes_max = if call.session()?.is_guest { JSON_BODY_BYTES_MAX } else { ACCOUNT_DATA_BYTES_MAX };
    if call.body().len() > bytes_max {
        return Err(ApiError::too_large(format!("Account data of one type may have {bytes_max} bytes")));
    }
    let content = call.body().slice_ref(call.json_content()?.trim().as_bytes());
    let set = warren_engine::command::SetAccountData { user_id, room_id, kind, content };
    call.ctx.engine.write(set).await?;
    Ok(Answer::empty())
}

/// The room in the path. Errors: 400 if it is no room id.
pub fn room_id(call: &Call) -> Result<String, ApiError> {
    let room_id = call.path("roomId")?;
    match is_room_id(&room_id) {
        true => Ok(room_id.into_owned()),
        false => Err(ApiError::invalid_param("roomId in the path is not a room id")),
    }
}
