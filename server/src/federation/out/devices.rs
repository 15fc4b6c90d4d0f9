//! Device lists of which something was missed are asked for anew.
//!
//! Specification: server-server API, "Device Management".

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ruma_common::UserId;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};
use warren_engine::command::{RemoteDevice, StoreRemoteDevices};
use warren_engine::view::federation::StaleDeviceLists;

use super::ask::{Ask, path};
use crate::context::Context;

/// How often it is looked for lists to be asked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How many are asked for at each look.
const LISTS_MAX: usize = 50;
/// How long a server that did not answer is not asked again.
const SILENT_TIME: Duration = Duration::from_secs(10 * 60);

/// Asks for lists until the server stops.
pub async fn run(ctx: Arc<Context>) {
    let mut silent: HashMap<String, Instant> = HashMap::new();
    loop {
        tokio::select! {
            () = ctx.shutdown.cancelled() => return,
            () = sleep(LOOK_EVERY) => {}
        }
        silent.retain(|_, until| *until > Instant::now());
        let limit = LISTS_MAX + silent.len();
        let stale = match tokio::task::block_in_place(|| ctx.engine.read(&StaleDeviceLists { limit })) {
            Ok(stale) => stale,
            Err(error) => {
                warn!(%error, "it cannot be told whose devices are to be asked for");
                continue;
            }
        };
        for user_id in stale {
            let Ok(user) = UserId::parse(user_id.as_str()) else { continue };
            let server = user.server_name().to_string();
            if silent.contains_key(&server) {
                continue;
            }
            let refreshed = tokio::select! {
                () = ctx.shutdown.cancelled() => return,
                refreshed = refresh(&ctx, &user) => refreshed,
            };
            if let Err(error) = refreshed {
                debug!(%user_id, error, "the devices of a user cannot be had");
                silent.insert(server, Instant::now() + SILENT_TIME);
            }
        }
    }
}

/// Asks a user's server for all their devices and keys, and keeps what it says.
///
/// Errors: a sentence about why they cannot be had or kept.
pub async fn refresh(ctx: &Context, user: &UserId) -> Result<(), String> {
    let target = path("v1/user/devices/{userId}", &[user.as_str()]);
    let list: DeviceList =
        Ask::get(user.server_name().as_str(), target).read(ctx).await.map_err(|error| error.to_string())?;
    let devices = list.devices.into_iter().map(|device| RemoteDevice {
        device_id: device.device_id,
        name: device.device_display_name,
        keys: Some(device.keys),
    });
    let store = StoreRemoteDevices {
        user_id: user.to_string(),
        stream_id: list.stream_id,
        devices: devices.collect(),
        master: list.master_key,
        self_signing: list.self_signing_key,
    };
    ctx.engine.write(store).await.map(drop).map_err(|error| error.to_string())
}

/// The answer of `GET /user/devices/{userId}`. That it is of the user who was asked for is checked with the keys.
#[derive(Deserialize)]
struct DeviceList {
    stream_id: u64,
    devices: Vec<Device>,
    master_key: Option<Map<String, Value>>,
    self_signing_key: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Device {
    device_id: String,
    device_display_name: Option<String>,
    keys: Map<String, Value>,
}
