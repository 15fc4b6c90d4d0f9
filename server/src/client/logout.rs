//! `logout.yaml`: ending sessions.

use warren_engine::command::{RemoveDevices, WhichDevices};

use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/logout"     ["r0"] Locked Write Json post_logout;
    POST "/_matrix/client/v3/logout/all" ["r0"] Locked Write Json post_logout_all;
}

async fn post_logout(call: Call) -> Outcome {
    let device_id = call.device()?.to_string();
    remove(&call, WhichDevices::These(vec![device_id])).await
}

async fn post_logout_all(call: Call) -> Outcome {
    remove(&call, WhichDevices::All).await
}

async fn remove(call: &Call, devices: WhichDevices) -> Result<Answer, ApiError> {
    let user_id = call.user()?.to_string();
    call.ctx.engine.write(RemoveDevices { user_id, devices }).await?;
    Ok(Answer::empty())
}
