//! Accounts, devices, keys, queues, backups and media ids: what counts or finds others agrees with what it counts or finds.

use std::collections::{BTreeMap, BTreeSet};

use super::pass::{Pass, Row, readable};
use crate::{
    account::erasures,
    core::num::{TextNum, UserNum},
    store::{
        Direction, Key, StorageError, Value, schema,
        schema::{
            AccessTokenRow, DeviceRow, KeyBackup, KeyStock, Keyspace, MediaState, RefreshTokenRow, TokenHash,
            TokenPair,
        },
    },
};

/// Bytes of an Ed25519 public key.
const PUBLIC_KEY_BYTES: usize = 32;

pub(super) fn passes() -> Vec<Pass> {
    let mut passes = account_passes();
    passes.extend(key_passes());
    passes.extend(queue_passes());
    passes.extend(media_passes());
    passes
}

fn account_passes() -> Vec<Pass> {
    vec![
        Pass::over(&schema::ACCOUNTS, |row, user, account| {
            row.expect_user(user)?;
            let is_dated = !account.is_erased || row.reader().has(&schema::ERASURES, &user)?;
            if !row.expect(is_dated, "it is not known when the user asked to be forgotten") {
                // Whoever could see what they sent until now goes on seeing it.
                row.mend(schema::ERASURES.name, move |tx| erasures::add(tx, user));
            }
            Ok(())
        }),
        Pass::over(&schema::ERASURES, |row, user, pos| {
            row.seen.uses_position(pos);
            let account = readable(row.reader().get(&schema::ACCOUNTS, &user))?;
            let is_erased = account.is_some_and(|account| account.is_erased);
            row.expect(is_erased, "the user did not ask to be forgotten");
            Ok(())
        }),
        Pass::over(&schema::DEACTIVATIONS, |row, user, ()| {
            let account = readable(row.reader().get(&schema::ACCOUNTS, &user))?;
            let is_closed = account.is_some_and(|account| account.is_deactivated);
            if !row.expect(is_closed, "the account is not closed") {
                row.delete(&schema::DEACTIVATIONS, &user);
            }
            Ok(())
        }),
        Pass::over(&schema::DEVICES, |row, key, device| device_row(row, key, &device)),
        Pass::over(&schema::DEVICE_SIGHTINGS, |row, key, _| {
            let there = row.reader().has(&schema::DEVICES, &key)?;
            if !row.expect(there, "the device is not there") {
                row.delete(&schema::DEVICE_SIGHTINGS, &key);
            }
            Ok(())
        }),
        Pass::over_derived(&schema::ACCESS_TOKENS, |row, hash, token| {
            let key = (token.user, token.device_id);
            token_row(row, &schema::ACCESS_TOKENS, hash, key, |pair| pair.access == hash)
        }),
        Pass::over_derived(&schema::REFRESH_TOKENS, |row, hash, token| {
            let key = (token.user, token.device_id);
            token_row(row, &schema::REFRESH_TOKENS, hash, key, |pair| pair.refresh == Some(hash))
        }),
        Pass::over(&schema::REGISTRATION_TOKENS, |_, _, _| Ok(())),
        Pass::over(&schema::SERVER_KEYS, |row, (server, _), key| {
            let named = row.text(server)?.is_some();
            row.expect(named, "the server's number has no name");
            row.expect(key.public_key.len() == PUBLIC_KEY_BYTES, "it is no Ed25519 key");
            Ok(())
        }),
        Pass::over(&schema::PUBLISHED_KEYS, |row, server, published| {
            let named = row.text(server)?.is_some();
            row.expect(named, "the server's number has no name");
            row.expect_json(&published.json);
            Ok(())
        }),
        Pass::over(&schema::PASSING_TOKENS, |row, _, token| row.expect_user(token.user).map(drop)),
        Pass::over(&schema::PROFILE_FIELDS, |row, (user, _), value| json_of(row, user, &value)),
        Pass::over(&schema::TIME_MARKS, |row, _, pos| {
            row.expect(pos <= row.reader().pos, "the position is still to come");
            Ok(())
        }),
        Pass::over(&schema::FILTERS, |row, (user, _), value| json_of(row, user, &value)),
        Pass::over(&schema::TRANSACTIONS, |row, (user, device, _), _| {
            row.expect_user(user)?;
            let named = row.text(device)?.is_some();
            row.expect(named, "the device's number has no name");
            Ok(())
        }),
    ]
}

fn json_of(row: &mut Row<'_>, user: UserNum, value: &[u8]) -> Result<(), StorageError> {
    row.expect_user(user)?;
    row.expect_json(value);
    Ok(())
}

fn pairs(device: &DeviceRow) -> impl Iterator<Item = &TokenPair> {
    device.tokens.iter().chain(&device.next_tokens)
}

/// A device is an account's, and its tokens lead to it.
fn device_row(row: &mut Row<'_>, key: (UserNum, String), device: &DeviceRow) -> Result<(), StorageError> {
    let account = row.reader().has(&schema::ACCOUNTS, &key.0)?;
    row.expect(account, "the device is of no account");
    let (user, device_id) = key;
    for pair in pairs(device) {
        let access = readable(row.reader().get(&schema::ACCESS_TOKENS, &pair.access))?;
        let leads_here =
            access.as_ref().is_some_and(|found| found.user == user && found.device_id == device_id);
        if !row.expect(leads_here, "an access token does not lead to the device") {
            // When it was to end is lost: one that can be refreshed ends now.
            let unknown = pair.refresh.map(|_| 0);
            let expires_ms = access.map_or(unknown, |found| found.expires_ms);
            let right = AccessTokenRow { user, device_id: device_id.clone(), expires_ms };
            row.put(&schema::ACCESS_TOKENS, &pair.access, &right);
        }
        if let Some(refresh) = &pair.refresh {
            let right = RefreshTokenRow { user, device_id: device_id.clone() };
            let problem = "a refresh token does not lead to the device";
            row.expect_row(&schema::REFRESH_TOKENS, refresh, &right, problem)?;
        }
    }
    Ok(())
}

/// A token is one of its device's. One that is not opens nothing and must not stay.
fn token_row<V: Value>(
    row: &mut Row<'_>,
    keyspace: &Keyspace<TokenHash, V>,
    hash: TokenHash,
    key: (UserNum, String),
    is_it: impl Fn(&TokenPair) -> bool,
) -> Result<(), StorageError> {
    // The hash is not for logs.
    row.subject = format!("of {:?}, device {}", key.0, key.1);
    let device = readable(row.reader().get(&schema::DEVICES, &key))?;
    let is_its = device.is_some_and(|device| pairs(&device).any(is_it));
    if !row.expect(is_its, "the token is not its device's") {
        row.delete(keyspace, &hash);
    }
    Ok(())
}

fn key_passes() -> Vec<Pass> {
    vec![
        Pass::over(&schema::DEVICE_KEYS, |row, (user, _), value| json_of(row, user, &value)),
        Pass::over(&schema::CROSS_SIGNING_KEYS, |row, (user, _), value| json_of(row, user, &value)),
        Pass::over(&schema::KEY_SIGNATURES, |row, (user, signer, _, _), _| {
            row.expect_user(user)?;
            row.expect_user(signer).map(drop)
        }),
        Pass::over(&schema::ONE_TIME_KEYS, |row, (user, device, _, pos, _), value| {
            row.seen.uses_position(pos);
            row.expect_json(&value);
            has_stock(row, user, device)
        }),
        Pass::over(&schema::FALLBACK_KEYS, |row, (user, device, _), key| {
            row.expect_json(&key.key);
            has_stock(row, user, device)
        }),
        Pass::over_derived(&schema::KEY_STOCKS, |row, (user, device), mut found| {
            found.one_time.retain(|_, count| *count > 0);
            let right = stock(row, user, device)?;
            if !row.expect(found == right, "the device's keys are counted wrong") {
                row.put(&schema::KEY_STOCKS, &(user, device), &right);
            }
            Ok(())
        }),
        Pass::over(&schema::KEY_BACKUPS, |row, key, backup| {
            row.expect_user(key.0)?;
            let count = count(row, &schema::BACKED_UP_KEYS.raw(), &key)?;
            if !row.expect(backup.count == count, "the backup's sessions are counted wrong") {
                row.put(&schema::KEY_BACKUPS, &key, &KeyBackup { count, ..backup });
            }
            Ok(())
        }),
        Pass::over(&schema::BACKED_UP_KEYS, |row, (user, version, _), value| {
            row.expect_json(&value);
            let backup = row.reader().has(&schema::KEY_BACKUPS, &(user, version))?;
            row.expect(backup, "the session is in no backup");
            Ok(())
        }),
    ]
}

/// A device that has keys has a row that counts them.
fn has_stock(row: &mut Row<'_>, user: UserNum, device: TextNum) -> Result<(), StorageError> {
    let counted = row.reader().has(&schema::KEY_STOCKS, &(user, device))?;
    if !row.expect(counted, "the device's keys are not counted") {
        let right = stock(row, user, device)?;
        row.put(&schema::KEY_STOCKS, &(user, device), &right);
    }
    Ok(())
}

/// What is left of a device's keys, counted.
fn stock(row: &Row<'_>, user: UserNum, device: TextNum) -> Result<KeyStock, StorageError> {
    let mut one_time = BTreeMap::new();
    let mut unused_fallback = BTreeSet::new();
    let device = (user, device);
    row.reader().scan(
        &schema::ONE_TIME_KEYS,
        &device,
        Direction::Forward,
        |(_, _, algorithm, _, _): (UserNum, TextNum, TextNum, crate::core::num::StreamPos, String), _| {
            *one_time.entry(algorithm).or_default() += 1;
            true
        },
    )?;
    row.reader().scan(&schema::FALLBACK_KEYS, &device, Direction::Forward, |(_, _, algorithm), key| {
        if !key.used {
            unused_fallback.insert(algorithm);
        }
        true
    })?;
    Ok(KeyStock { one_time, unused_fallback })
}

/// How many rows begin with `prefix`.
pub(super) fn count<P: Key>(
    row: &Row<'_>,
    keyspace: &Keyspace<crate::store::RestOfKey, bytes::Bytes>,
    prefix: &P,
) -> Result<u64, StorageError> {
    let mut count = 0;
    row.reader().scan(keyspace, prefix, Direction::Forward, |_, _| {
        count += 1;
        true
    })?;
    Ok(count)
}

fn queue_passes() -> Vec<Pass> {
    vec![
        Pass::over(&schema::TO_DEVICE, |row, (user, device, pos), value| {
            row.seen.uses_position(pos);
            row.expect_json(&value);
            let counted = row.reader().has(&schema::TO_DEVICE_COUNTS, &(user, device))?;
            if !row.expect(counted, "the device's messages are not counted") {
                put_count(row, user, device)?;
            }
            Ok(())
        }),
        Pass::over_derived(&schema::TO_DEVICE_COUNTS, |row, (user, device), found| {
            let right = count(row, &schema::TO_DEVICE.raw(), &(user, device))?;
            if !row.expect(u64::from(found) == right, "the device's messages are counted wrong") {
                put_count(row, user, device)?;
            }
            Ok(())
        }),
        Pass::over_derived(&schema::STRANGER_SHARES, |row, (user, device, server), share| {
            row.seen.uses_position(share.pos);
            let waits = row.reader().has(&schema::TO_DEVICE_COUNTS, &(user, device))?;
            if !row.expect(waits, "nothing waits for the device") {
                row.delete(&schema::STRANGER_SHARES, &(user, device, server));
            }
            Ok(())
        }),
    ]
}

fn put_count(row: &mut Row<'_>, user: UserNum, device: TextNum) -> Result<(), StorageError> {
    match count(row, &schema::TO_DEVICE.raw(), &(user, device))? {
        0 => row.delete(&schema::TO_DEVICE_COUNTS, &(user, device)),
        count => {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            row.put(&schema::TO_DEVICE_COUNTS, &(user, device), &count);
        }
    }
    Ok(())
}

fn media_passes() -> Vec<Pass> {
    vec![
        Pass::over(&schema::MEDIA, |row, media_id, media| {
            row.expect_user(media.uploader)?;
            if let MediaState::Pending { expires_at } = media.state {
                let key = (media.uploader, expires_at, media_id);
                let problem = "the pending id is not among its maker's";
                row.expect_row(&schema::PENDING_MEDIA, &key, &(), problem)?;
            }
            Ok(())
        }),
        Pass::over_derived(&schema::PENDING_MEDIA, |row, (user, expires_at, media_id), ()| {
            let media = readable(row.reader().get(&schema::MEDIA, &media_id))?;
            let is_pending = media.is_some_and(|media| {
                media.uploader == user && media.state == MediaState::Pending { expires_at }
            });
            if !row.expect(is_pending, "the id is not pending, or not the user's") {
                row.delete(&schema::PENDING_MEDIA, &(user, expires_at, media_id));
            }
            Ok(())
        }),
        Pass::over(&schema::MEDIA_ACCESS, |_, _, _| Ok(())),
        Pass::over(&schema::REMOTE_MEDIA, |row, (server, _), _| {
            let named = row.text(server)?.is_some();
            row.expect(named, "the server has no name");
            Ok(())
        }),
    ]
}
