//! `device_management.yaml`: a user's devices.

use serde::{Deserialize, Serialize};
use warren_engine::account::devices::Device;
use warren_engine::command::{RemoveDevices, RenameDevice, WhichDevices};
use warren_engine::view::{DeviceOf, Devices};

use super::registration::check_device_name;
use crate::http::uia::{self, Stage};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET    "/_matrix/client/v3/devices"            ["r0", "unstable"] Guest    Read  Nothing get_devices;
    GET    "/_matrix/client/v3/devices/{deviceId}" ["r0", "unstable"] Guest    Read  Nothing get_device;
    PUT    "/_matrix/client/v3/devices/{deviceId}" ["r0", "unstable"] Guest    Write Json    put_device;
    DELETE "/_matrix/client/v3/devices/{deviceId}" ["r0", "unstable"] Required Write Json    delete_device;
    POST   "/_matrix/client/v3/delete_devices"     ["r0", "unstable"] Required Write Json    delete_devices;
}

/// Devices that one request may remove; nobody has as many.
const DEVICES_REMOVED_MAX: usize = 1000;

#[derive(Serialize)]
struct DeviceAnswer {
    device_id: String,
    /// Empty if there is none: matrix-nio refuses devices without it.
    display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ts: Option<u64>,
}

impl From<Device> for DeviceAnswer {
    fn from(device: Device) -> DeviceAnswer {
        let (last_seen_ts, last_seen_ip) = device.seen.map_or((None, None), |seen| (Some(seen.ts), seen.ip));
        let Device { device_id, display_name, .. } = device;
        let display_name = display_name.unwrap_or_default();
        DeviceAnswer { device_id, display_name, last_seen_ip, last_seen_ts }
    }
}

async fn get_devices(call: Call) -> Outcome {
    #[derive(Serialize)]
    struct Listed {
        devices: Vec<DeviceAnswer>,
    }
    let devices = call.ctx.engine.read(&Devices(call.session()?.user))?;
    Answer::json(&Listed { devices: devices.into_iter().map(DeviceAnswer::from).collect() })
}

async fn get_device(call: Call) -> Outcome {
    let device = call.ctx.engine.read(&DeviceOf(call.session()?.user, &call.path("deviceId")?))?;
    Answer::json(&DeviceAnswer::from(device))
}

async fn put_device(call: Call) -> Outcome {
    #[derive(Deserialize)]
    struct Request {
        display_name: Option<String>,
    }
    let Request { display_name } = call.json_or_empty()?;
    check_device_name(display_name.as_deref())?;
    let (user_id, device_id) = (call.user()?.to_string(), call.path("deviceId")?.into_owned());
    match display_name {
        Some(name) => {
            let display_name = Some(name).filter(|name| !name.is_empty());
            call.ctx.engine.write(RenameDevice { user_id, device_id, display_name }).await?;
        }
        // No name given leaves the name; the device must be there all the same.
        None => drop(call.ctx.engine.read(&DeviceOf(call.session()?.user, &device_id))?),
    }
    Ok(Answer::empty())
}

async fn delete_device(call: Call) -> Outcome {
    let device_id = call.path("deviceId")?.into_owned();
    let call = uia::fill_in(call)?;
    uia::perform(call, &[&[Stage::Password]], |call, _| remove(call, vec![device_id])).await
}

async fn delete_devices(call: Call) -> Outcome {
    #[derive(Deserialize)]
    struct Request {
        devices: Vec<String>,
    }
    let call = uia::fill_in(call)?;
    let Request { devices } = call.json()?;
    if devices.len() > DEVICES_REMOVED_MAX {
        return Err(ApiError::invalid_param(format!("devices: more than {DEVICES_REMOVED_MAX} at once")));
    }
    uia::perform(call, &[&[Stage::Password]], |call, _| remove(call, devices)).await
}

async fn remove(call: Call, devices: Vec<String>) -> Outcome {
    let user_id = call.user()?.to_string();
    call.ctx.engine.write(RemoveDevices { user_id, devices: WhichDevices::These(devices) }).await?;
    Ok(Answer::empty())
}
