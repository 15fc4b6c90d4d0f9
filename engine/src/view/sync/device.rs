//! What every sync of a device asks for, remembered until something of the user's own changes.
//!
//! Invariant: whatever changes it touches its user, under a position of its own.

use std::sync::Arc;

use crate::{
    core::{
        json::splice::{number_member, object_member, raw_member},
        num::{StreamPos, TextNum, UserNum},
    },
    device::{one_time_keys, to_device},
    error::{Error, Result},
    store::{Reader, StorageError},
};

/// What remembering it costs besides its text.
const FACTS_BYTES: usize = 192;

/// See the module.
pub(crate) struct DeviceFacts {
    as_of: StreamPos,
    /// How many one-time keys are left, by algorithm, and which fallback keys are unused: members of the answer, to be
    /// put behind others.
    pub key_counts: Box<[u8]>,
    /// Whether to-device messages wait for it, or did when this was read.
    pub has_messages: bool,
}

/// The device's facts. `None` for the number: its id was never used for anything, so there are no keys and no messages.
pub(super) fn facts(reader: &Reader, user: UserNum, device: Option<TextNum>) -> Result<Arc<DeviceFacts>> {
    let Some(device) = device else {
        let key_counts = key_counts(reader, user, None)?;
        return Ok(Arc::new(DeviceFacts { as_of: reader.pos, key_counts, has_messages: false }));
    };
    let memo = &reader.shared.memo.devices;
    if let Some(known) = memo.get(&(user, device))
        && reader.shared.watch.is_current(user, known.as_of.min(reader.pos))
    {
        // Receiving messages is no news; that they are gone is seen here.
        if !known.has_messages || to_device::waiting(reader, user, device)? > 0 {
            return Ok(known);
        }
    }
    let facts = Arc::new(DeviceFacts {
        as_of: reader.pos,
        key_counts: key_counts(reader, user, Some(device))?,
        has_messages: to_device::waiting(reader, user, device)? > 0,
    });
    memo.replace((user, device), facts.clone(), FACTS_BYTES + facts.key_counts.len());
    Ok(facts)
}

fn key_counts(reader: &Reader, user: UserNum, device: Option<TextNum>) -> Result<Box<[u8]>> {
    // A device whose id has no number has never uploaded anything.
    let (counts, unused) = match device {
        None => Default::default(),
        Some(device) => (
            one_time_keys::counts(reader, user, device)?,
            one_time_keys::unused_fallback_types(reader, user, device)?,
        ),
    };
    let mut out = Vec::new();
    object_member(&mut out, "device_one_time_keys_count", |out| {
        // Without this entry Element X on Android never uploads keys again; other servers always send it.
        let signed = "signed_curve25519";
        if !counts.contains_key(signed) {
            number_member(out, signed, 0);
        }
        for (algorithm, count) in &counts {
            number_member(out, algorithm, *count);
        }
        Ok::<(), Error>(())
    })?;
    let unused = serde_json::to_vec(&unused).map_err(|error| StorageError::Corrupt(error.to_string()))?;
    raw_member(&mut out, "device_unused_fallback_key_types", &unused);
    // The name that clients of before version 1.2 ask for.
    raw_member(&mut out, "org.matrix.msc2732.device_unused_fallback_key_types", &unused);
    Ok(out.into_boxed_slice())
}
