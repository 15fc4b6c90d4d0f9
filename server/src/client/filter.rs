//! `filter.yaml`: filters that clients store and name in `/sync`.

use serde_json::json;
use warren_engine::command::StoreFilter;
use warren_engine::view::StoredFilter;

use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/user/{userId}/filter"            ["r0", "v2_alpha"] Guest Write Json    post_filter;
    GET  "/_matrix/client/v3/user/{userId}/filter/{filterId}" ["r0", "v2_alpha"] Guest Read  Nothing get_filter;
}

async fn post_filter(call: Call) -> Outcome {
    let user_id = call.own_user("userId")?.to_string();
    let json = call.body().slice_ref(call.json_content()?.trim().as_bytes());
    let filter_id = call.ctx.engine.write(StoreFilter { user_id, json }).await?;
    Answer::json(&json!({ "filter_id": filter_id }))
}

async fn get_filter(call: Call) -> Outcome {
    call.own_user("userId")?;
    let (user, id) = (call.session()?.user, call.path("filterId")?);
    Ok(Answer::json_bytes(call.ctx.engine.read(&StoredFilter { user, id: &id })?))
}
