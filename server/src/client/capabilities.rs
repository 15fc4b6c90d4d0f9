//! `capabilities.yaml`: what this server lets its users do.

use serde_json::{Map, json};

use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/capabilities" ["r0"] Guest Read Nothing get_capabilities;
}

/// All room versions of the specification are stable.
const ROOM_VERSIONS: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

async fn get_capabilities(call: Call) -> Outcome {
    let available: Map<_, _> =
        ROOM_VERSIONS.iter().map(|version| ((*version).to_owned(), json!("stable"))).collect();
    let (is_guest, is_admin) = (call.session()?.is_guest, call.session()?.is_admin);
    let mut capabilities = json!({
        "m.room_versions": { "default": call.ctx.config.default_room_version, "available": available },
        "m.change_password": { "enabled": !is_guest },
        "m.set_displayname": { "enabled": true },
        "m.set_avatar_url": { "enabled": true },
        "m.profile_fields": { "enabled": true },
        "m.3pid_changes": { "enabled": false },
        "m.get_login_token": { "enabled": !is_guest },
        "m.forget_forced_upon_leave": { "enabled": false },
    });
    if is_admin {
        capabilities["m.account_moderation"] = json!({ "lock": true, "suspend": true });
    }
    Answer::json(&json!({ "capabilities": capabilities }))
}
