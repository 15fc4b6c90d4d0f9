//! How deliveries to other servers fare, as Synapse documents it ("Federation API").
//!
//! Beside the members that are documented there, each server has when it last took something, and what waits for it.

use ruma_common::OwnedServerName;
use serde_json::{Value, json};
use warren_engine::command::ResetDestination;
use warren_engine::view::federation::{
    DestinationOf, DestinationRooms, DestinationStatus, Destinations, MakeDue,
};

use super::listing::page;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET  "/_synapse/admin/v1/federation/destinations"                                [] Admin Read  Nothing get_destinations;
    GET  "/_synapse/admin/v1/federation/destinations/{destination}"                  [] Admin Read  Nothing get_destination;
    GET  "/_synapse/admin/v1/federation/destinations/{destination}/rooms"            [] Admin Read  Nothing get_rooms;
    POST "/_synapse/admin/v1/federation/destinations/{destination}/reset_connection" [] Admin Write Json    post_reset;
}

fn shown(status: &DestinationStatus) -> Value {
    let or_null = |number: u64| if number > 0 { json!(number) } else { Value::Null };
    json!({
        "destination": &*status.destination,
        "retry_last_ts": status.failed_ms,
        "retry_interval": status.retry_ms.saturating_sub(status.failed_ms),
        "failure_ts": or_null(status.failing_since_ms),
        "last_successful_stream_ordering": or_null(status.delivered_to.0.unsigned_abs()),
        "failures": status.failures,
        "last_success_ts": or_null(status.succeeded_ms),
        "rooms_waiting": status.rooms_waiting,
        "messages_waiting": status.messages_waiting,
    })
}

/// What a list can be ordered by.
type Order = fn(&DestinationStatus) -> u64;

const ORDERS: &[(&str, Option<Order>)] = &[
    ("destination", None),
    ("retry_last_ts", Some(|status| status.failed_ms)),
    ("retry_interval", Some(|status| status.retry_ms.saturating_sub(status.failed_ms))),
    ("failure_ts", Some(|status| status.failing_since_ms)),
    ("last_successful_stream_ordering", Some(|status| status.delivered_to.0.unsigned_abs())),
];

async fn get_destinations(call: Call) -> Outcome {
    let page = page(&call)?;
    let order = call.query_enum("order_by", ORDERS)?.flatten();
    let wanted = call.query("destination")?;
    let wanted = wanted.unwrap_or_default().to_lowercase();
    let is_wanted = |name: &str| name.to_lowercase().contains(&wanted);
    let mut all = tokio::task::block_in_place(|| call.ctx.engine.read(&Destinations(&is_wanted)))?;
    if let Some(order) = order {
        all.sort_by_key(order);
    }
    page.answer("destinations", all, |status| shown(&status))
}

async fn get_destination(call: Call) -> Outcome {
    let destination: OwnedServerName = call.path_as("destination")?;
    Answer::json(&shown(&call.ctx.engine.read(&DestinationOf(destination.as_str()))?))
}

async fn get_rooms(call: Call) -> Outcome {
    let page = page(&call)?;
    let destination: OwnedServerName = call.path_as("destination")?;
    let mut rooms = call.ctx.engine.read(&DestinationRooms(destination.as_str()))?;
    rooms.sort_by(|a, b| a.room_id.cmp(&b.room_id));
    page.answer(
        "rooms",
        rooms,
        |room| json!({ "room_id": &*room.room_id, "stream_ordering": room.last_event.0 }),
    )
}

/// Errors: 400 if the server is not left alone, and does not count as failing.
async fn post_reset(call: Call) -> Outcome {
    let destination: OwnedServerName = call.path_as("destination")?;
    if !call.ctx.engine.write(ResetDestination { destination: destination.to_string() }).await? {
        return Err(ApiError::unknown("This server is not left alone, so there is nothing to be reset"));
    }
    let due_ms = call.ctx.engine.now_ms();
    call.ctx.engine.read(&MakeDue { destination: destination.as_str(), due_ms })?;
    Ok(Answer::empty())
}
