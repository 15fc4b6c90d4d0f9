//! One-time keys and fallback keys: what others start encrypted sessions with while a device is away.
//!
//! Invariant: a one-time key is given out once: it is removed in the batch whose commit the answer waits for. The stock
//! row counts what the other rows hold. All writes happen under the owner's lane.
//! Specification: "One-time and fallback keys"; `POST /keys/upload` and `/keys/claim`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use serde_json::Value;

use super::{KEY_NAME_BYTES_MAX, parameter};
use crate::{
    core::{
        json::{self, Strictness},
        num::{StreamPos, TextNum, UserNum},
    },
    error::{Conflict, Error, Invalid, Result},
    store::{
        Direction, Reader, Tx, schema,
        schema::{FallbackKey, KeyStock},
    },
    stream::Touch,
};

/// The most unclaimed one-time keys of a device. Clients keep 50 to 100; more than this is a mistake or abuse.
pub const ONE_TIME_KEYS_MAX: usize = 1000;

/// The most algorithms that a device has fallback keys for; there is one today.
pub const FALLBACK_KEYS_MAX: usize = 16;

/// The most bytes of one key; some 200 are used today, post-quantum keys have some thousands.
pub const KEY_BYTES_MAX: usize = 16 * 1024;

/// The algorithm that clients expect a count of even if it is zero: some only upload keys when they read one.
const USUAL_ALGORITHM: &str = "signed_curve25519";

/// The algorithm and the id in a key's name, `algorithm:id`, and the key in canonical JSON.
///
/// Errors: a malformed or too large one.
pub(super) fn checked<'a>(
    what: &'static str,
    name: &'a str,
    key: &Value,
) -> Result<(&'a str, &'a str, Bytes)> {
    let (algorithm, key_id) = name
        .split_once(':')
        .filter(|(algorithm, key_id)| !algorithm.is_empty() && !key_id.is_empty())
        .ok_or_else(|| parameter(what, "a key's name must be its algorithm, a colon and an id"))?;
    if name.len() > KEY_NAME_BYTES_MAX {
        return Err(parameter(what, "a key's name is too long"));
    }
    let is_key = match key {
        Value::String(_) => algorithm != USUAL_ALGORITHM,
        Value::Object(object) => {
            object.get("key").is_some_and(Value::is_string)
                && object.get("signatures").is_some_and(Value::is_object)
        }
        _ => false,
    };
    if !is_key {
        return Err(parameter(what, format!("{name} must be an object with key and signatures")));
    }
    json::check(key, Strictness::Strict, 1).map_err(|error| parameter(what, error.to_string()))?;
    let bytes = json::canonical(key);
    if bytes.len() > KEY_BYTES_MAX {
        return Err(Invalid::TooLarge { what: "bytes of a one-time key", max: KEY_BYTES_MAX }.into());
    }
    Ok((algorithm, key_id, bytes.into()))
}

/// Adds one-time keys to the device's. The same key again is no error and changes nothing.
///
/// Errors: [`Conflict::KeyExists`] for another key under a known id; malformed or too many keys. Nothing is stored then.
pub fn upload(tx: &mut Tx, user: UserNum, device: TextNum, keys: &[(String, Value)]) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    if keys.len() > ONE_TIME_KEYS_MAX {
        return Err(too_many());
    }
    let mut known: HashMap<(TextNum, String), Bytes> = HashMap::new();
    tx.scan(
        &schema::ONE_TIME_KEYS,
        &(user, device),
        Direction::Forward,
        |(_, _, algorithm, _, key_id), key| {
            known.insert((algorithm, key_id), key);
            true
        },
    )?;
    let mut stock = stock(tx, user, device)?;
    let pos = tx.next_position();
    for (name, key) in keys {
        let (algorithm, key_id, key) = checked("one_time_keys", name, key)?;
        let algorithm = tx.intern_text(algorithm)?;
        let place = (algorithm, key_id.to_owned());
        match known.get(&place) {
            Some(same) if *same == key => continue,
            Some(_) => return Err(Conflict::KeyExists.into()),
            None => {}
        }
        if known.len() >= ONE_TIME_KEYS_MAX {
            return Err(too_many());
        }
        tx.put(&schema::ONE_TIME_KEYS, &(user, device, algorithm, pos, place.1.clone()), &key);
        *stock.one_time.entry(algorithm).or_default() += 1;
        known.insert(place, key);
    }
    put_stock(tx, user, device, &stock);
    Ok(())
}

fn too_many() -> Error {
    Invalid::TooLarge { what: "one-time keys of a device", max: ONE_TIME_KEYS_MAX }.into()
}

/// Replaces the device's fallback keys of the algorithms that occur. The same key again does not count as unused again.
///
/// Errors: malformed or too many keys, or two of one algorithm. Nothing is stored then.
pub fn upload_fallback(tx: &mut Tx, user: UserNum, device: TextNum, keys: &[(String, Value)]) -> Result<()> {
    const WHAT: &str = "fallback_keys";
    if keys.is_empty() {
        return Ok(());
    }
    if keys.len() > FALLBACK_KEYS_MAX {
        return Err(Invalid::TooLarge { what: "fallback keys", max: FALLBACK_KEYS_MAX }.into());
    }
    let mut stock = stock(tx, user, device)?;
    let mut algorithms = BTreeSet::new();
    for (name, key) in keys {
        let (algorithm, key_id, key) = checked(WHAT, name, key)?;
        let algorithm = tx.intern_text(algorithm)?;
        if !algorithms.insert(algorithm) {
            return Err(parameter(WHAT, "there can only be one key of an algorithm"));
        }
        let place = (user, device, algorithm);
        let known = tx.get(&schema::FALLBACK_KEYS, &place)?;
        if known.is_some_and(|known| known.key_id == key_id && known.key == key) {
            continue;
        }
        let row = FallbackKey { key_id: key_id.to_owned(), key: key.to_vec(), used: false };
        tx.put(&schema::FALLBACK_KEYS, &place, &row);
        stock.unused_fallback.insert(algorithm);
    }
    if stock.unused_fallback.len() > FALLBACK_KEYS_MAX {
        return Err(Invalid::TooLarge { what: "fallback keys", max: FALLBACK_KEYS_MAX }.into());
    }
    put_stock(tx, user, device, &stock);
    Ok(())
}

/// Takes the oldest one-time key of the algorithm, or else the fallback key, which stays: the key's id within the
/// algorithm, and the key.
pub fn claim(
    tx: &mut Tx,
    user: UserNum,
    device: TextNum,
    algorithm: TextNum,
) -> Result<Option<(String, Bytes)>> {
    let mut oldest = None;
    tx.scan(&schema::ONE_TIME_KEYS, &(user, device, algorithm), Direction::Forward, |row, key| {
        oldest = Some((row, key));
        false
    })?;
    if let Some((row, key)) = oldest {
        tx.delete(&schema::ONE_TIME_KEYS, &row);
        let mut stock = stock(tx, user, device)?;
        let count = stock.one_time.entry(algorithm).or_default();
        *count = count.saturating_sub(1);
        put_stock(tx, user, device, &stock);
        return Ok(Some((row.4, key)));
    }
    let place = (user, device, algorithm);
    let Some(mut fallback) = tx.get(&schema::FALLBACK_KEYS, &place)? else { return Ok(None) };
    let key = Bytes::from(fallback.key.clone());
    let key_id = fallback.key_id.clone();
    if !fallback.used {
        fallback.used = true;
        tx.put(&schema::FALLBACK_KEYS, &place, &fallback);
        let mut stock = stock(tx, user, device)?;
        stock.unused_fallback.remove(&algorithm);
        put_stock(tx, user, device, &stock);
    }
    Ok(Some((key_id, key)))
}

/// Lets the device make new keys, as some of those here may have been given out by a database that was lost: its one-time keys of
/// before a position are forgotten. Its fallback keys stay, and count as given out. Answers whether it had any.
pub fn renew(tx: &mut Tx, user: UserNum, device: TextNum, before: StreamPos) -> Result<bool> {
    let mut old = Vec::new();
    tx.scan(
        &schema::ONE_TIME_KEYS,
        &(user, device),
        Direction::Forward,
        |row: (UserNum, TextNum, TextNum, StreamPos, String), _| {
            if row.3 < before {
                old.push(row);
            }
            true
        },
    )?;
    let mut stock = stock(tx, user, device)?;
    if old.is_empty() && stock.unused_fallback.is_empty() {
        return Ok(false);
    }
    for row in old {
        let count = stock.one_time.entry(row.2).or_default();
        *count = count.saturating_sub(1);
        tx.delete(&schema::ONE_TIME_KEYS, &row);
    }
    for algorithm in std::mem::take(&mut stock.unused_fallback) {
        let place = (user, device, algorithm);
        if let Some(fallback) = tx.get(&schema::FALLBACK_KEYS, &place)? {
            tx.put(&schema::FALLBACK_KEYS, &place, &FallbackKey { used: true, ..fallback });
        }
    }
    put_stock(tx, user, device, &stock);
    Ok(true)
}

fn put_stock(tx: &mut Tx, user: UserNum, device: TextNum, stock: &KeyStock) {
    tx.put(&schema::KEY_STOCKS, &(user, device), stock);
    stock_changed(tx, user);
}

/// Notes that what is remembered of the stocks of the user's devices no longer holds.
pub(super) fn stock_changed(tx: &mut Tx, user: UserNum) {
    // The position tells from which moment on.
    tx.next_position();
    tx.touch(Touch::User(user));
}

fn stock(reader: &Reader, user: UserNum, device: TextNum) -> Result<KeyStock> {
    Ok(reader.get(&schema::KEY_STOCKS, &(user, device))?.unwrap_or_default())
}

/// How many unclaimed one-time keys the device has of each algorithm: `device_one_time_keys_count` of `/sync` and the
/// answer of `/keys/upload`. One read.
pub fn counts(reader: &Reader, user: UserNum, device: TextNum) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::from([(USUAL_ALGORITHM.to_owned(), 0)]);
    for (algorithm, count) in stock(reader, user, device)?.one_time {
        counts.insert(reader.text(algorithm)?.to_string(), u64::from(count));
    }
    Ok(counts)
}

/// The algorithms of the device's fallback keys that have not been given out: `device_unused_fallback_key_types` of
/// `/sync`. One read.
pub fn unused_fallback_types(reader: &Reader, user: UserNum, device: TextNum) -> Result<Vec<String>> {
    let unused = stock(reader, user, device)?.unused_fallback;
    unused.into_iter().map(|algorithm| Ok(reader.text(algorithm)?.to_string())).collect()
}
