//! What other servers are told of the devices and keys of this server's users: as they are when they are told.
//!
//! Specification: server-server API, "Device Management", "End-to-End Encryption".

use bytes::Bytes;
use serde_json::json;

use super::{
    cross_signing::{self, CrossSigningUsage},
    signatures::{self, OnKey},
};
use crate::{
    core::{
        json::splice::{bool_member, member, number_member, raw_member, string_member},
        num::{StreamPos, TextNum, UserNum},
    },
    error::Result,
    store::{Reader, schema},
};

/// The content of an `m.device_list_update` about a device, at `pos`; `before` is the position of the user's update before
/// it.
pub fn device_list_update(
    reader: &Reader,
    user: UserNum,
    device: TextNum,
    pos: StreamPos,
    before: StreamPos,
) -> Result<Bytes> {
    let (user_id, device_id) = (reader.user_id(user)?, reader.text(device)?);
    let keys = reader.get(&schema::DEVICE_KEYS, &(user, device))?;
    let row = reader.get(&schema::DEVICES, &(user, device_id.to_string()))?;
    let mut out = vec![b'{'];
    if row.is_none() && keys.is_none() {
        bool_member(&mut out, "deleted", true);
    }
    if let Some(name) = row.and_then(|row| row.display_name).filter(|_| names_are_told(reader)) {
        string_member(&mut out, "device_display_name", &name);
    }
    string_member(&mut out, "device_id", &device_id);
    if let Some(keys) = keys {
        let own = signatures::of(reader, user, user, device)?;
        let own: OnKey = own.into_iter().map(|(key_id, signature)| (user, key_id, signature)).collect();
        member(&mut out, "keys");
        signatures::write_signed(reader, &mut out, &keys, Some(&own), None)?;
    }
    let before: Vec<i64> = (before > StreamPos::ZERO).then_some(before.0).into_iter().collect();
    raw_member(&mut out, "prev_id", json!(before).to_string().as_bytes());
    number_member(&mut out, "stream_id", pos.0.unsigned_abs());
    string_member(&mut out, "user_id", &user_id);
    out.push(b'}');
    Ok(out.into())
}

/// Whether other servers are told what users call their devices: often after themselves, or where these stand.
pub fn names_are_told(reader: &Reader) -> bool {
    reader.shared.device_names_over_federation
}

/// The content of an `m.signing_key_update`.
pub fn signing_key_update(reader: &Reader, user: UserNum) -> Result<Bytes> {
    let on_keys = signatures::visible(reader, user, None)?;
    let mut out = vec![b'{'];
    for (usage, name) in
        [(CrossSigningUsage::Master, "master_key"), (CrossSigningUsage::SelfSigning, "self_signing_key")]
    {
        let Some(key) = cross_signing::stored(reader, user, usage)? else { continue };
        let public = cross_signing::stored_public_key(reader, user, usage)?;
        let text = public.map(|public| reader.text_num(&public)).transpose()?.flatten();
        member(&mut out, name);
        signatures::write_signed(reader, &mut out, &key, text.and_then(|text| on_keys.get(&text)), None)?;
    }
    string_member(&mut out, "user_id", &reader.user_id(user)?);
    out.push(b'}');
    Ok(out.into())
}
