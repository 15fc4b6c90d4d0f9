//! Devices of users of other servers, as far as they are followed: kept in the same rows as those of this server's users, so
//! that whoever asks for keys is answered from here.
//!
//! Invariant: a list is complete up to its `stream_id` unless it says that it is stale. It is followed only while its user
//! shares a room with this server: nobody tells of changes otherwise (`room::servers` makes it stale then). While it is
//! stale, its `stream_id` is a mark that grows with all that is told of it: an answer settles it only if the mark is what it was
//! when the server was asked, since what was told meanwhile may be later than the answer. Of users who are not followed only
//! the master keys that users of this server have signed are kept.
//! Specification: server-server API, "Device Management".

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::{
    cross_signing::{self, CrossSigningUsage},
    device_keys, signatures,
};
use crate::{
    core::{
        event::JsonObject,
        identifiers,
        num::{TextNum, UserNum},
    },
    error::{Error, Result},
    store::{Direction, Reader, StorageError, Tx, schema, schema::RemoteDeviceList},
};

/// How many devices of one user are kept: some ten are usual, and a hostile server must not fill the disk.
pub const DEVICES_MAX: usize = 1_000;

/// How many ids that no device here had before may be told of one user within [`NEW_IDS_MS`]: a whole list. Names are kept for
/// ever, so that whoever replaces their devices again and again would fill the disk with them. Further ones are left out.
pub const NEW_IDS_MAX: u32 = 1_000;

/// See [`NEW_IDS_MAX`]: a day, in milliseconds.
pub const NEW_IDS_MS: u64 = 24 * 60 * 60 * 1000;

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
    let list = RemoteDeviceList { stream_id: list.stream_id.saturating_add(1), is_stale: true, ..list };
    tx.put(&schema::REMOTE_DEVICE_LISTS, &user, &list);
    Ok(())
}

/// Lets the user's list be asked for, if nothing is known of it and they share a room with this server: somebody wants it, and is
/// answered by the user's server until it is here. Answers whether it is to be asked for, be it that something of it was missed.
pub fn follow(tx: &mut Tx, user: UserNum) -> Result<bool, StorageError> {
    let is_known = is_followed(tx, user)? || tx.has(&schema::ACCOUNTS, &user)?;
    if is_known || !tx.is_neighbour(user, None)? {
        return Ok(false);
    }
    let list = tx.get(&schema::REMOTE_DEVICE_LISTS, &user)?.unwrap_or_default();
    if !list.is_awaited {
        let list = RemoteDeviceList { is_stale: true, is_awaited: true, ..list };
        tx.put(&schema::REMOTE_DEVICE_LISTS, &user, &list);
    }
    Ok(true)
}

/// Takes in an update of a device of the user.
pub fn update(tx: &mut Tx, user: UserNum, user_id: &str, update: &Update<'_>) -> Result<Updated> {
    let Some(mut list) = tx.get(&schema::REMOTE_DEVICE_LISTS, &user)? else { return Ok(Updated::Taken) };
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
    if !follows || !replace_one(tx, user, user_id, update, &mut list)? {
        make_stale(tx, user)?;
        return Ok(Updated::Stale);
    }
    list.stream_id = update.stream_id;
    tx.put(&schema::REMOTE_DEVICE_LISTS, &user, &list);
    Ok(Updated::Taken)
}

/// Whether an update tells of its device what is known of it, as one does that comes again. Of one without keys, of a device of which
/// nothing is known, that cannot be said: a server that was restored from a copy tells so of a device that is new, and what it has
/// lost of others is still known here.
fn is_known(reader: &Reader, user: UserNum, user_id: &str, update: &Update<'_>) -> Result<bool> {
    let known = match reader.text_num(update.device_id)? {
        Some(device) => reader.get(&schema::DEVICE_KEYS, &(user, device))?.map(|keys| (device, keys)),
        None => None,
    };
    match (known, checked_keys(user_id, update.device_id, update.keys)?) {
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

/// Puts the whole list in the place of what is known; what is as it was is left alone. Devices whose keys are malformed are left
/// out, and so are those with too many new ids. Answers whether those who follow the user are to be told: something is another, or
/// somebody has asked meanwhile, who knows what the user's server has said then, or nothing. O(devices), those that are known and
/// those that are told.
pub fn replace<'a>(
    tx: &mut Tx,
    user: UserNum,
    user_id: &str,
    stream_id: u64,
    devices: impl IntoIterator<Item = (&'a str, Option<&'a str>, Option<&'a JsonObject>)>,
) -> Result<bool> {
    let before = tx.get(&schema::REMOTE_DEVICE_LISTS, &user)?.unwrap_or_default();
    let is_awaited = before.is_awaited;
    let mut list = RemoteDeviceList { stream_id, is_stale: false, is_awaited: false, ..before };
    let mut told = BTreeMap::new();
    for (device_id, name, keys) in devices.into_iter().take(DEVICES_MAX) {
        // Of several with the same id the last counts.
        told.insert(device_id, Told::read(user_id, device_id, name, keys)?);
    }
    let mut known = known_devices(tx, user)?;
    let mut news = Vec::new();
    for told in told.into_values().flatten() {
        let device = tx.text_num(told.device_id)?;
        match device.filter(|device| known.get(device).is_some_and(|known| known.is_as(&told))) {
            Some(device) => drop(known.remove(&device)),
            None => news.push(told),
        }
    }
    let mut is_news = is_awaited || !known.is_empty();
    forget_devices(tx, user, &known.into_keys().collect())?;
    for told in news {
        is_news |= put_device(tx, user, &told, &mut list)?;
    }
    tx.put(&schema::REMOTE_DEVICE_LISTS, &user, &list);
    Ok(is_news)
}

/// Forgets the devices of a user who shares no room with this server any more. Cross-signing keys stay, and with them what
/// users of this server have signed: they are to hold when the user comes back.
pub fn drop_list(tx: &mut Tx, user: UserNum) -> Result<()> {
    let devices = device_keys::all(tx, user)?.into_iter().map(|(device, _)| device).collect();
    forget_devices(tx, user, &devices)?;
    tx.delete(&schema::REMOTE_DEVICE_LISTS, &user);
    Ok(())
}

fn forget_devices(tx: &mut Tx, user: UserNum, devices: &BTreeSet<TextNum>) -> Result<()> {
    for device in devices {
        tx.delete(&schema::DEVICE_KEYS, &(user, *device));
        tx.delete(&schema::REMOTE_DEVICE_NAMES, &(user, *device));
    }
    signatures::forget_all(tx, user, devices)
}

/// A device with keys that are in order, as its server tells it.
struct Told<'a> {
    device_id: &'a str,
    name: Option<&'a str>,
    keys: Bytes,
    own: device_keys::Signatures<'a>,
}

impl<'a> Told<'a> {
    /// `None` for one without keys, which is of no use to anybody here.
    fn read(
        user_id: &str,
        device_id: &'a str,
        name: Option<&'a str>,
        keys: Option<&'a JsonObject>,
    ) -> Result<Option<Self>> {
        let checked = checked_keys(user_id, device_id, keys)?;
        Ok(checked.map(|(keys, own)| Self { device_id, name, keys: keys.into(), own }))
    }
}

/// What is known of a device.
struct Known {
    name: Option<String>,
    keys: Bytes,
    /// Its owner's signatures, by the ids of their keys.
    own: HashMap<String, String>,
}

impl Known {
    fn is_as(&self, told: &Told<'_>) -> bool {
        self.keys == told.keys
            && self.name.as_deref() == told.name
            && self.own.len() == told.own.len()
            && told.own.iter().all(|(id, text)| self.own.get(*id).is_some_and(|known| known == text))
    }
}

fn known_devices(reader: &Reader, user: UserNum) -> Result<HashMap<TextNum, Known>> {
    let mut signatures = signatures::visible(reader, user, None)?;
    let mut names = HashMap::new();
    reader.scan(
        &schema::REMOTE_DEVICE_NAMES,
        &user,
        Direction::Forward,
        |(_, device): (UserNum, TextNum), name| {
            names.insert(device, name);
            true
        },
    )?;
    let mut known = HashMap::new();
    for (device, keys) in device_keys::all(reader, user)? {
        let own = signatures.remove(&device).unwrap_or_default();
        let own = own.into_iter().map(|(_, id, text)| (id, text)).collect();
        known.insert(device, Known { name: names.remove(&device), keys, own });
    }
    Ok(known)
}

/// Puts what an update tells in the place of what is known of its device. Answers whether it could be.
fn replace_one(
    tx: &mut Tx,
    user: UserNum,
    user_id: &str,
    update: &Update<'_>,
    list: &mut RemoteDeviceList,
) -> Result<bool> {
    let told = Told::read(user_id, update.device_id, update.name, update.keys)?;
    if let Some(device) = tx.text_num(update.device_id)?
        && tx.has(&schema::DEVICE_KEYS, &(user, device))?
    {
        forget_devices(tx, user, &BTreeSet::from([device]))?;
    } else if told.is_some() && device_keys::all(tx, user)?.len() >= DEVICES_MAX {
        return Ok(false);
    }
    match told {
        Some(told) => put_device(tx, user, &told, list),
        None => Ok(true),
    }
}

/// Puts a device of which nothing is known any more. Answers whether it could be: its id may be one new id too many.
fn put_device(tx: &mut Tx, user: UserNum, told: &Told<'_>, list: &mut RemoteDeviceList) -> Result<bool> {
    if tx.text_num(told.device_id)?.is_none() && !counts_new_id(list, tx.shared.clock.now_ms()) {
        return Ok(false);
    }
    let device = tx.intern_text(told.device_id)?;
    tx.put(&schema::DEVICE_KEYS, &(user, device), &told.keys);
    if let Some(name) = told.name {
        tx.put(&schema::REMOTE_DEVICE_NAMES, &(user, device), &name.to_owned());
    }
    match signatures::put(tx, user, user, device, &told.own, signatures::ON_DEVICE_BYTES_MAX) {
        // It is called like a cross-signing key, which may have more of them than a device. It is as good without its own, and what
        // came with it is taken in.
        Ok(_) | Err(Error::Invalid(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Counts a new id of a device, if there may be one more.
fn counts_new_id(list: &mut RemoteDeviceList, now_ms: u64) -> bool {
    // The clock may have been set back.
    if now_ms.abs_diff(list.counted_since_ms) >= NEW_IDS_MS {
        (list.counted_since_ms, list.new_ids) = (now_ms, 0);
    }
    let is_one_more = list.new_ids < NEW_IDS_MAX;
    list.new_ids += u32::from(is_one_more);
    is_one_more
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
