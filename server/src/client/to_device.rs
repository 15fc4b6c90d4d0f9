//! `to_device.yaml`: messages to devices.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use warren_engine::command::{DeviceMessage, SendToDevice};

use crate::http::limits::DEVICE_MESSAGES_MAX;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    PUT "/_matrix/client/v3/sendToDevice/{eventType}/{txnId}" ["r0", "unstable"] Guest Write Bulk put_to_device;
}

#[derive(Deserialize)]
struct Request<'a> {
    /// Users, their devices, and the content for each.
    #[serde(borrow)]
    messages: BTreeMap<String, BTreeMap<String, &'a RawValue>>,
}

async fn put_to_device(call: Call) -> Outcome {
    let request: Request<'_> = call.json()?;
    if request.messages.values().map(BTreeMap::len).sum::<usize>() > DEVICE_MESSAGES_MAX {
        let sentence = format!("No more than {DEVICE_MESSAGES_MAX} messages are sent at once");
        return Err(ApiError::too_large(sentence));
    }
    let mut messages = Vec::new();
    for (user_id, devices) in &request.messages {
        for (device_id, content) in devices {
            messages.push(DeviceMessage {
                user_id: user_id.clone(),
                device_id: device_id.clone(),
                content: Bytes::copy_from_slice(content.get().as_bytes()),
            });
        }
    }
    let device_id = call.session()?.device_id.as_ref();
    let transaction_id = call.path("txnId")?.into_owned();
    let command = SendToDevice {
        sender: call.user()?.to_string(),
        kind: call.path("eventType")?.into_owned(),
        messages,
        transaction: device_id.map(|device_id| (device_id.to_string(), transaction_id)),
    };
    call.ctx.engine.write(command).await?;
    Ok(Answer::empty())
}
