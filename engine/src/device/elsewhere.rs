//! Devices of users of other servers, as far as they are followed: kept in the same rows as those of this server's users, so
//! that whoever asks for keys is answered from here.
//!
//! Invariant: a list is complete up to its `stream_id` unless it says that it is stale. It is followed only while its user
//! shares a room with this server: nobody tells of changes otherwise (`room::servers` makes it stale then). While it is
//! stale, its `stream_id` is a mark that grows with all that is told of it: an answer settles it only if the mark is what it was
//! when the server was asked, since what was told meanwhile may be later than the answer. Of users who are not followed only
//! the master keys that users of this server have signed are kept.
//! Specification: server-server API, "Device Management".

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    KEY_NAME_BYTES_MAX,
    cross_signing::{self, CrossSigningUsage},
    device_keys, signatures,
};
use crate::{
    core::{event::JsonObject, identifiers, num::UserNum},
    error::{Error, Result},
    store::{Reader, StorageError, Tx, schema, schema::RemoteDeviceList},
};

/// How many devices of one user are kept: some ten are usual, and a hostile server must not fill the disk.
pub const DEVICES_MAX: usize = 1_000;

/// An update of one device.
pub struct Update<'a> {
    /// The device.
    pub device_id: &'a str,
    /// Its position.
    pub stream_id: u64,
    /// The positions of those that it follows.
    pub prev_ids: &'a [u64],
    /// What the device is called.
    pub name: Option<&'a str>,
    /// Its identity keys; `None` if it has none, or is gone.
    pub keys: Option<&'a JsonObject>,
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// It was taken in, or the user is not followed.
    Taken,
    /// It has come before.
    Known,
    /// An update before it may be missing: the list has to be asked for anew.
    Stale,
}

/// A master key of a user of another server, as their server has told it when it was asked.
#[derive(Clone, Debug)]
pub struct ToldMasterKey {
    /// Whose.
    pub user_id: String,
    /// What was stored as the user's master key when their server was asked: what came meanwhile may be later than the answer.
    pub known: Option<Bytes>,
    /// The key.
    pub object: JsonObject,
}

/// Whether a user id is one of another server's users.
pub fn is_elsewhere(reader: &Reader, user_id: &str) -> bool {
    let server = identifiers::server_name(user_id);
    identifiers::is_user_id(user_id) && server != Some(&*reader.shared.server_name)
}

/// Whether the user's list is known here and complete.
pub fn is_followed(reader: &Reader, user: UserNum) -> Result<bool, StorageError> {
    Ok(reader.get(&schema::REMOTE_DEVICE_LISTS, &user)?.is_some_and(|list| !list.is_stale))
}

/// The mark of the user's list, if it is to be asked for.
pub fn stale_mark(reader: &Reader, user: UserNum) -> Result<Option<u64>, StorageError> {
    let list = reader.get(&schema::REMOTE_DEVICE_LISTS, &user)?;
    Ok(list.filter(|list| list.is_stale).map(|list| list.stream_id))
}

/// Something may have been missed of the user's list, or be told while their server is asked: it is to be asked for anew,
/// and an answer that is under way does not settle it.
pub fn make_stale(tx: &mut Tx, user: UserNum) -> Result<(), StorageError> {
    let Some(list) = tx.get(&schema::REMOTE_DEVICE_LISTS, &user)? else { return Ok(()) };
    let list = RemoteDeviceList { stream_id: list.stream_id.saturating_add(1), is_stale: true };
    tx.put(&schema::REMOTE_DEVICE_LISTS, &user, &list);
    Ok(())
}

/// Lets the user's list be asked for, if nothing is known of it and they share a room with this server. Answers whether it is
/// to be asked for, be it that something of it was missed.
pub fn follow(tx: &mut Tx, user: UserNum) -> Result<bool, StorageError> {
    let is_known = is_followed(tx, user)? || tx.has(&schema::ACCOUNTS, &user)?;
    if is_known || !tx.is_neighbour(user, None)? {
        return Ok(false);
    }
    if !tx.has(&schema::REMOTE_DEVICE_LISTS, &user)? {
        let list = RemoteDeviceList { stream_id: 0, is_stale: true };
        tx.put(&schema::REMOTE_DEVICE_LISTS, &user, &list);
    }
    Ok(true)
}

/// Takes in an update of a device of the user.
pub fn update(tx: &mut Tx, user: UserNum, user_id: &str, update: &Update<'_>) -> Result<Updated> {
    let Some(list) = tx.get(&schema::REMOTE_DEVICE_LISTS, &user)? else { return Ok(Updated::Taken) };
    if list.is_stale {
        make_stale(tx, user)?;
        return Ok(Updated::Stale);
    }
    // Not every server counts a user's changes: some say of each that it follows nothing.
    let follows_some = !update.prev_ids.is_empty();
    let is_late = update.stream_id <= list.stream_id;
    if follows_some && is_late && is_known(tx, user, user_id, update)? {
        return Ok(Updated::Known);
    }
    // What is late and no repetition may be of a server that has lost its count, as one that was restored from a copy.
    let follows = follows_some && !is_late && update.prev_ids.iter().all(|prev| *prev == list.stream_id);
    if !follows || !put_device(tx, user, user_id, update.device_id, update.name, update.keys)? {
        make_stale(tx, user)?;
        return Ok(Updated::Stale);
    }
    let list = RemoteDeviceList { stream_id: update.stream_id, is_stale: false };
    tx.put(&schema::REMOTE_DEVICE_LISTS, &user, &list);
    Ok(Updated::Taken)
}

/// Whether an update tells of its device what is known of it, as one does that comes again.
fn is_known(reader: &Reader, user: UserNum, user_id: &str, update: &Update<'_>) -> Result<bool> {
    let known = match reader.text_num(update.device_id)? {
        Some(device) => reader.get(&schema::DEVICE_KEYS, &(user, device))?.map(|keys| (device, keys)),
        None => None,
    };
    match (known, checked_keys(user_id, update.device_id, update.keys)?) {
        (None, None) => Ok(true),
        (Some((device, known)), Some((told, own))) => {
            let name = reader.get(&schema::REMOTE_DEVICE_NAMES, &(user, device))?;
            let signatures = signatures::of(reader, user, user, device)?;
            let signatures: BTreeSet<_> = signatures.iter().map(|(id, text)| (&**id, &**text)).collect();
            Ok(known == told
                && name.as_deref() == update.name
                && own.iter().all(|signature| signatures.contains(signature)))
        }
        _ => Ok(false),
    }
}

/// Puts the whole list in the place of what is known. Devices whose keys are malformed are left out.
pub fn replace<'a>(
    tx: &mut Tx,
    user: UserNum,
    user_id: &str,
    stream_id: u64,
    devices: impl IntoIterator<Item = (&'a str, Option<&'a str>, Option<&'a JsonObject>)>,
) -> Result<()> {
    forget_devices(tx, user)?;
    for (device_id, name, keys) in devices.into_iter().take(DEVICES_MAX) {
        put_device(tx, user, user_id, device_id, name, keys)?;
    }
    tx.put(&schema::REMOTE_DEVICE_LISTS, &user, &RemoteDeviceList { stream_id, is_stale: false });
    Ok(())
}

/// Forgets the devices of a user who shares no room with this server any more. Cross-signing keys stay, and with them what
/// users of this server have signed: they are to hold when the user comes back.
pub fn drop_list(tx: &mut Tx, user: UserNum) -> Result<()> {
    forget_devices(tx, user)?;
    tx.delete(&schema::REMOTE_DEVICE_LISTS, &user);
    Ok(())
}

fn forget_devices(tx: &mut Tx, user: UserNum) -> Result<()> {
    for (device, _) in device_keys::all(tx, user)? {
        tx.delete(&schema::DEVICE_KEYS, &(user, device));
        tx.delete(&schema::REMOTE_DEVICE_NAMES, &(user, device));
        signatures::forget(tx, user, device)?;
    }
    Ok(())
}

/// Puts a device in the place of what is known of it. Answers whether it could be.
fn put_device(
    tx: &mut Tx,
    user: UserNum,
    user_id: &str,
    device_id: &str,
    name: Option<&str>,
    keys: Option<&JsonObject>,
) -> Result<bool> {
    if device_id.len() > KEY_NAME_BYTES_MAX {
        return Ok(false);
    }
    if let Some(device) = tx.text_num(device_id)?
        && tx.has(&schema::DEVICE_KEYS, &(user, device))?
    {
        tx.delete(&schema::DEVICE_KEYS, &(user, device));
        tx.delete(&schema::REMOTE_DEVICE_NAMES, &(user, device));
        signatures::forget(tx, user, device)?;
    } else if keys.is_some() && device_keys::all(tx, user)?.len() >= DEVICES_MAX {
        return Ok(false);
    }
    // One without keys is of no use to anybody here.
    let Some((stored, own)) = checked_keys(user_id, device_id, keys)? else { return Ok(true) };
    // Not before: names without keys are to fill no disk.
    let device = tx.intern_text(device_id)?;
    tx.put(&schema::DEVICE_KEYS, &(user, device), &stored.into());
    if let Some(name) = name {
        tx.put(&schema::REMOTE_DEVICE_NAMES, &(user, device), &name.to_owned());
    }
    signatures::put(tx, user, user, device, &own, signatures::ON_DEVICE_BYTES_MAX)?;
    Ok(true)
}

/// The keys as they are stored, and their owner's signatures; `None` if there are none that are in order.
fn checked_keys<'a>(
    user_id: &str,
    device_id: &str,
    keys: Option<&'a JsonObject>,
) -> Result<Option<(Vec<u8>, device_keys::Signatures<'a>)>> {
    let Some(keys) = keys else { return Ok(None) };
    match device_keys::checked(user_id, device_id, keys) {
        Ok(checked) => Ok(Some(checked)),
        Err(error @ Error::Storage(_)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Takes in the user's cross-signing keys, if they are in order. Answers whether anything is new.
pub fn put_signing_keys(
    tx: &mut Tx,
    user: UserNum,
    user_id: &str,
    master: Option<&JsonObject>,
    self_signing: Option<&JsonObject>,
) -> Result<bool> {
    let given = [(CrossSigningUsage::Master, master), (CrossSigningUsage::SelfSigning, self_signing)];
    let given: Vec<_> = given.into_iter().filter_map(|(usage, key)| Some((usage, key?))).collect();
    if given.is_empty() {
        return Ok(false);
    }
    match cross_signing::check(tx, user, user_id, &given) {
        Ok(keys) => cross_signing::store(tx, user, user_id, &keys),
        Err(error @ Error::Storage(_)) => Err(error),
        Err(_) => Ok(false),
    }
}

/// Takes in the master key of a user of another server, who need not share a room with this one, if `signer`, a user of this
/// one, has signed it: `signed` is the key with the signature. Nothing else is kept, and nothing that is older than what is
/// known: whoever asks for the user's keys meets the signature then, wherever the key comes from.
pub fn put_signed_master_key(
    tx: &mut Tx,
    signer: (UserNum, &str),
    told: &ToldMasterKey,
    signed: &JsonObject,
) -> Result<()> {
    let is_kept = is_elsewhere(tx, &told.user_id)
        && cross_signing::is_same_key(&told.object, signed)
        && cross_signing::is_user_signed(tx, signer, signed)?;
    if !is_kept {
        return Ok(());
    }
    // Not before: users whom nobody has signed are to fill no disk.
    let user = tx.intern_user(&told.user_id)?;
    if cross_signing::stored(tx, user, CrossSigningUsage::Master)? == told.known {
        put_signing_keys(tx, user, &told.user_id, Some(&told.object), None)?;
    }
    Ok(())
}
