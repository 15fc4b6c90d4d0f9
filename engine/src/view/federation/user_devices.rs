//! `GET /user/devices/{userId}`: all devices of a local user, for servers that have missed a change of them.
//!
//! Specification: server-server API, "Device Management".

use bytes::Bytes;
use serde_json::Value;

use crate::{
    core::{
        identifiers::server_name,
        json::{splice::member, splice::string_member, write_string},
        num::{TextNum, UserNum},
    },
    device::{
        cross_signing::{self, CrossSigningUsage},
        device_keys,
        signatures::{self, OnKey},
        updates::names_are_told,
    },
    error::{Error, Result, What},
    store::{Reader, schema},
    view::View,
};

/// The devices of a user of this server, with those keys and signatures that everybody may see.
pub struct UserDevices {
    /// The user's id.
    pub user_id: String,
}

impl View for UserDevices {
    /// The answer's body as JSON. Its `stream_id` is that of the last change that other servers were told.
    ///
    /// Errors: [`What::User`] not found.
    type Output = Bytes;

    fn read(&self, reader: &Reader) -> Result<Bytes> {
        let not_found = || Error::NotFound(What::User);
        if server_name(&self.user_id) != Some(&*reader.shared.server_name) {
            return Err(not_found());
        }
        let user = reader.user_num(&self.user_id)?.ok_or_else(not_found)?;
        if !reader.has(&schema::ACCOUNTS, &user)? {
            return Err(not_found());
        }
        let signatures = signatures::visible(reader, user, None)?;
        let changed_last = reader.get(&schema::DEVICE_LIST_POSITIONS, &user)?.unwrap_or_default();
        let mut out = vec![b'{'];
        string_member(&mut out, "user_id", &self.user_id);
        member(&mut out, "stream_id");
        out.extend_from_slice(changed_last.0.max(0).to_string().as_bytes());
        member(&mut out, "devices");
        out.push(b'[');
        for (index, (device, keys)) in device_keys::all(reader, user)?.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_device(reader, &mut out, (user, device), &keys, signatures.get(&device))?;
        }
        out.push(b']');
        let shown =
            [(CrossSigningUsage::Master, "master_key"), (CrossSigningUsage::SelfSigning, "self_signing_key")];
        for (usage, name) in shown {
            let Some(stored) = cross_signing::stored(reader, user, usage)? else { continue };
            let public = cross_signing::stored_public_key(reader, user, usage)?;
            let text = public.map(|public| reader.text_num(&public)).transpose()?.flatten();
            member(&mut out, name);
            signatures::write_signed(
                reader,
                &mut out,
                &stored,
                text.and_then(|key| signatures.get(&key)),
                None,
            )?;
        }
        out.push(b'}');
        Ok(out.into())
    }
}

fn write_device(
    reader: &Reader,
    out: &mut Vec<u8>,
    (user, device): (UserNum, TextNum),
    keys: &[u8],
    signed: Option<&OnKey>,
) -> Result<()> {
    let device_id = reader.text(device)?;
    out.push(b'{');
    string_member(out, "device_id", &device_id);
    let row = reader.get(&schema::DEVICES, &(user, device_id.to_string()))?;
    if let Some(name) = row.and_then(|row| row.display_name).filter(|_| names_are_told(reader)) {
        member(out, "device_display_name");
        write_string(out, &name);
    }
    member(out, "keys");
    // A device's keys always have the member, be it empty.
    let unsigned_key = OnKey::new();
    let nothing: Option<&Value> = None;
    signatures::write_signed(reader, out, keys, Some(signed.unwrap_or(&unsigned_key)), nothing)?;
    out.push(b'}');
    Ok(())
}
