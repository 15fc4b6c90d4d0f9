//! `user_devices.yaml`: all devices of a user of this server, for who has missed a change of them.

use warren_engine::view::federation::UserDevices;

use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/federation/v1/user/devices/{userId}" [] Server Federation Nothing get_user_devices;
}

async fn get_user_devices(call: Call) -> Outcome {
    let view = UserDevices { user_id: call.path("userId")?.into_owned() };
    Ok(Answer::json_bytes(call.ctx.engine.read(&view)?))
}
