//! `tags.yaml`: how a user sorts rooms.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use warren_engine::command::SetTag;
use warren_engine::view::AccountData;
use warren_engine::{Error, What};

use super::account_data::room_id;
use crate::http::limits::TAG_BYTES_MAX;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET    "/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags"       ["r0"] Guest Read  Nothing get_tags;
    PUT    "/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}" ["r0"] Guest Write Json    put_tag;
    DELETE "/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}" ["r0"] Guest Write Nothing delete_tag;
}

async fn get_tags(call: Call) -> Outcome {
    call.own_user("userId")?;
    let room_id = room_id(&call)?;
    let stored = AccountData { user: call.session()?.user, room_id: Some(&room_id), kind: "m.tag" };
    let content = match call.ctx.engine.read(&stored) {
        Err(Error::NotFound(What::AccountData)) => Bytes::new(),
        stored => stored?,
    };
    // A client may have set it as account data, to anything.
    let tags = serde_json::from_slice::<Content<'_>>(&content).ok().map(|content| content.tags.get());
    let tags = tags.filter(|tags| tags.starts_with('{')).unwrap_or("{}");
    Ok(Answer::json_bytes(format!(r#"{{"tags":{tags}}}"#).into()))
}

/// The content of `m.tag`.
#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    tags: &'a RawValue,
}

async fn put_tag(call: Call) -> Outcome {
    if !call.body().trim_ascii().is_empty() {
        call.json_content()?;
    }
    let mut content: Map<String, Value> = call.json_or_empty()?;
    // Some clients write null for no order.
    if content.get("order").is_some_and(Value::is_null) {
        content.remove("order");
    }
    // Clients of old wrote the order as a string.
    if let Some(order) =
        content.get("order").and_then(Value::as_str).and_then(|text| text.parse::<f64>().ok())
    {
        content.insert("order".to_owned(), order.into());
    }
    if content.get("order").is_some_and(|order| !order.is_number()) {
        return Err(ApiError::bad_json("order must be a number between 0 and 1"));
    }
    set(&call, Some(content)).await
}

async fn delete_tag(call: Call) -> Outcome {
    set(&call, None).await
}

async fn set(call: &Call, content: Option<Map<String, Value>>) -> Outcome {
    let user_id = call.own_user("userId")?.to_string();
    let (room_id, tag) = (room_id(call)?, call.path("tag")?.into_owned());
    if tag.len() > TAG_BYTES_MAX {
        return Err(ApiError::invalid_param(format!("The tag is longer than {TAG_BYTES_MAX} bytes")));
    }
    call.ctx.engine.write(SetTag { user_id, room_id, tag, content }).await?;
    Ok(Answer::empty())
}
