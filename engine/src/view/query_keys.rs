//! The identity and cross-signing keys of users, with the signatures that the asker may see.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Value, json};

use super::View;
use crate::{
    core::{
        json::write_string,
        num::{TextNum, UserNum},
    },
    device::{
        cross_signing::{self, CrossSigningUsage},
        device_keys, elsewhere,
        signatures::{self, OnKey},
        updates::names_are_told,
    },
    error::Result,
    store::{Reader, schema},
};

/// `POST /keys/query`, for users of this server, and for those of others whose devices are followed. Other servers are to be
/// answered only for users of this one.
pub struct QueryKeys {
    /// Who asks; nobody, if it is another server.
    pub asker: String,
    /// Whose keys, and of which of their devices; none named means all.
    pub users: Vec<(String, Vec<String>)>,
}

/// Who asks, and what they may see.
struct Asker {
    user: Option<UserNum>,
    /// Whether they see what devices are called.
    sees_names: bool,
}

/// The parts of the answer, each an open JSON object that users are added to.
#[derive(Default)]
struct Parts {
    devices: Vec<u8>,
    keys: [Vec<u8>; 3],
}

const KEY_PARTS: [(CrossSigningUsage, &str); 3] = [
    (CrossSigningUsage::Master, "master_keys"),
    (CrossSigningUsage::SelfSigning, "self_signing_keys"),
    (CrossSigningUsage::UserSigning, "user_signing_keys"),
];

impl View for QueryKeys {
    /// The answer's body as JSON. Users that are not known are not in it.
    type Output = Bytes;

    fn read(&self, reader: &Reader) -> Result<Bytes> {
        let asker = Asker {
            user: reader.user_num(&self.asker)?,
            sees_names: !self.asker.is_empty() || names_are_told(reader),
        };
        let mut parts = Parts::default();
        for (user_id, device_ids) in &self.users {
            let Some(user) = reader.user_num(user_id)? else { continue };
            if !reader.has(&schema::ACCOUNTS, &user)? && !elsewhere::is_followed(reader, user)? {
                continue;
            }
            write_user(reader, &mut parts, (user, user_id), device_ids, &asker)?;
        }
        let mut out = b"{\"device_keys\":{".to_vec();
        out.extend_from_slice(&parts.devices);
        out.extend_from_slice(b"},\"failures\":{}");
        for ((_, name), part) in KEY_PARTS.into_iter().zip(&parts.keys) {
            out.push(b',');
            write_string(&mut out, name);
            out.extend_from_slice(b":{");
            out.extend_from_slice(part);
            out.push(b'}');
        }
        out.push(b'}');
        Ok(out.into())
    }
}

fn write_user(
    reader: &Reader,
    parts: &mut Parts,
    (user, user_id): (UserNum, &str),
    device_ids: &[String],
    asker: &Asker,
) -> Result<()> {
    let signatures = signatures::visible(reader, user, asker.user)?;
    let on = |key: TextNum| signatures.get(&key);
    let out = &mut parts.devices;
    write_member(out, user_id);
    out.push(b'{');
    let mut first = true;
    for (device, keys) in wanted_devices(reader, user, device_ids)? {
        let device_id = reader.text(device)?;
        let row = reader.get(&schema::DEVICES, &(user, device_id.to_string()))?;
        let name = match row {
            Some(row) => row.display_name,
            None => reader.get(&schema::REMOTE_DEVICE_NAMES, &(user, device))?,
        };
        let unsigned: Option<Value> =
            name.filter(|_| asker.sees_names).map(|name| json!({ "device_display_name": name }));
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write_string(out, &device_id);
        out.push(b':');
        let unsigned_key = OnKey::new();
        // A device's keys always have the member, be it empty.
        let signed = on(device).unwrap_or(&unsigned_key);
        signatures::write_signed(reader, out, &keys, Some(signed), unsigned.as_ref())?;
    }
    out.push(b'}');
    for ((usage, _), out) in KEY_PARTS.into_iter().zip(&mut parts.keys) {
        // Whom a user has verified is nobody else's business, nor is the key that shows it.
        if usage == CrossSigningUsage::UserSigning && asker.user != Some(user) {
            continue;
        }
        let Some(stored) = cross_signing::stored(reader, user, usage)? else { continue };
        let public = cross_signing::stored_public_key(reader, user, usage)?;
        let text = public.map(|public| reader.text_num(&public)).transpose()?.flatten();
        let signed: Option<&OnKey> = text.and_then(on);
        write_member(out, user_id);
        signatures::write_signed(reader, out, &stored, signed, None)?;
    }
    Ok(())
}

/// Begins a member of an open object.
fn write_member(out: &mut Vec<u8>, name: &str) {
    if !out.is_empty() {
        out.push(b',');
    }
    write_string(out, name);
    out.push(b':');
}

fn wanted_devices(reader: &Reader, user: UserNum, device_ids: &[String]) -> Result<Vec<(TextNum, Bytes)>> {
    if device_ids.is_empty() {
        return Ok(device_keys::all(reader, user)?);
    }
    let mut found = Vec::new();
    // Each once, however often it is named.
    let device_ids: BTreeSet<&String> = device_ids.iter().collect();
    for device_id in device_ids {
        let Some(device) = reader.text_num(device_id)? else { continue };
        let keys = reader.get(&schema::DEVICE_KEYS, &(user, device))?;
        found.extend(keys.map(|keys| (device, keys)));
    }
    Ok(found)
}
