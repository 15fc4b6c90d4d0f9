//! `password_management.yaml`: a new password.

use serde::Deserialize;
use warren_engine::command::{ChangePassword, WhichDevices};

use super::registration::{check_password, hash_password};
use crate::http::uia::{self, Proof, Stage};
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/account/password" ["r0"] Required Login Json post_password;
}

#[derive(Deserialize)]
struct Request {
    new_password: String,
    #[serde(default = "yes")]
    logout_devices: bool,
}

fn yes() -> bool {
    true
}

async fn post_password(call: Call) -> Outcome {
    #[derive(Deserialize)]
    struct Asked {
        new_password: Option<String>,
    }
    let call = uia::fill_in(call)?;
    // Whoever only asks what is wanted need not have said the new password yet.
    let asked: Asked = call.json_or_empty()?;
    if let Some(password) = &asked.new_password {
        check_password(password)?;
    }
    uia::perform(call, &[&[Stage::Password]], change_password).await
}

async fn change_password(call: Call, proof: Proof) -> Outcome {
    let request: Request = call.json()?;
    let password_hash = hash_password(&call, request.new_password).await?;
    let log_out = match (request.logout_devices, &call.session()?.device_id) {
        (false, _) => WhichDevices::These(Vec::new()),
        (true, Some(device_id)) => WhichDevices::AllBut(device_id.to_string()),
        (true, None) => WhichDevices::All,
    };
    let user_id = call.user()?.to_string();
    let change = ChangePassword { user_id, proven_hash: proof.password_hash, password_hash, log_out };
    call.ctx.engine.write(change).await?;
    Ok(Answer::empty())
}
