//! Tokens and the sessions they stand for. Specification: client-server API, "Using access tokens", "Refreshing access
//! tokens", "Relationship between access tokens and devices".
//!
//! Invariant: a device has at most one access token in use, and at most one more that a refresh gave out and that has
//! not been used yet.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ring::digest::{SHA256, digest};
use ruma_common::{OwnedDeviceId, OwnedUserId};

use super::{devices, users};
use crate::{
    core::{deadline::has_come, num::UserNum},
    error::{Denied, Error, Result, What},
    store::{
        Reader, StorageError, Tx, schema,
        schema::{AccessTokenRow, DeviceRow, RefreshTokenRow, Sighting, TokenHash, TokenPair},
    },
};

/// Random characters of a token: 192 bits.
const TOKEN_CHARS: usize = 32;
/// Random characters of a device id that the server makes: 60 bits, enough among the devices of one user.
const DEVICE_ID_CHARS: usize = 10;
/// How long an access token is good that can be refreshed: short enough that a stolen one is soon worth nothing.
const REFRESHABLE_TOKEN_MS: u64 = 60 * 60 * 1000;

/// A logged-in device, or an application service acting as a user.
#[derive(Debug, Clone)]
pub struct Session {
    /// The user's number.
    pub user: UserNum,
    /// The user's id.
    pub user_id: OwnedUserId,
    /// `None` for an application service that has not named a device.
    pub device_id: Option<OwnedDeviceId>,
    /// Guests may use the endpoints that say so.
    pub is_guest: bool,
    /// May use the server administration API.
    pub is_admin: bool,
    /// The account is locked: only logging out is possible.
    pub is_locked: bool,
    /// The account is suspended: what the section "Account suspension" lists is refused.
    pub is_suspended: bool,
    /// When the access token ends, in milliseconds since the epoch; `None` for never.
    pub expires_ms: Option<u64>,
    /// The token comes from a refresh and is used for the first time: the tokens before it have to be ended.
    pub ends_older: bool,
    /// When the device was last noted as seen.
    pub seen: Seen,
}

/// A time in milliseconds since the epoch that changes without the session's being changed.
#[derive(Debug, Default)]
pub struct Seen(AtomicU64);

impl Clone for Seen {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

impl Seen {
    /// Whether `interval_ms` have gone by since this was last true; whoever gets `true` notes the sighting.
    pub fn is_due(&self, now_ms: u64, interval_ms: u64) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        has_come(last.saturating_add(interval_ms), interval_ms, now_ms)
            && self.0.compare_exchange(last, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// How somebody wants to be logged in.
#[derive(Clone, Debug, Default)]
pub struct NewSession {
    /// The device, if it is to have a certain id; tokens that it has already end.
    pub device_id: Option<String>,
    /// The name of the device, if it is new.
    pub display_name: Option<String>,
    /// Whether the client can refresh its token.
    pub is_refreshable: bool,
    /// When and from where it is logged in, if somebody was there: the device is told of as seen then.
    pub seen: Option<Sighting>,
}

/// What a client gets to keep.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The device.
    pub device_id: String,
    /// The access token.
    pub access_token: String,
    /// The refresh token, if it was asked for.
    pub refresh_token: Option<String>,
    /// How long the access token is good, in milliseconds; `None` for ever.
    pub expires_in_ms: Option<u64>,
}

/// What is stored of a token.
pub(crate) fn token_hash(token: &str) -> TokenHash {
    let mut hash = TokenHash::default();
    // SHA-256 is exactly as long as its place.
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// A new token; the prefix tells people and scanners of leaked secrets what it is.
pub(crate) fn new_token(reader: &Reader, prefix: &str) -> String {
    format!("{prefix}_{}", reader.random_text(TOKEN_CHARS))
}

/// The session that an access token stands for; also one that has expired.
pub(crate) fn find(reader: &Reader, hash: &TokenHash) -> Result<Option<Arc<Session>>> {
    let cache = &reader.shared.sessions;
    if let Some(session) = cache.get(hash) {
        return Ok(Some(session));
    }
    let Some(token) = reader.get(&schema::ACCESS_TOKENS, hash)? else { return Ok(None) };
    let account = users::account(reader, token.user)?;
    let device = reader.get(&schema::DEVICES, &(token.user, token.device_id.clone()))?;
    let (Some(account), Some(device)) = (account, device) else {
        return Err(StorageError::Corrupt("an access token has no account or device".into()).into());
    };
    let user_id = reader.user_id(token.user)?;
    let user_id = OwnedUserId::try_from(&*user_id)
        .map_err(|error| StorageError::Corrupt(format!("an account's user id is not valid: {error}")))?;
    let sighting = reader.get(&schema::DEVICE_SIGHTINGS, &(token.user, token.device_id.clone()))?;
    let session = Arc::new(Session {
        user: token.user,
        user_id,
        device_id: Some(token.device_id.into()),
        is_guest: account.is_guest,
        is_admin: account.is_admin,
        is_locked: account.is_locked,
        is_suspended: account.is_suspended,
        expires_ms: token.expires_ms,
        ends_older: device.next_tokens.is_some_and(|next| next.access == *hash),
        seen: Seen(AtomicU64::new(sighting.map_or(0, |sighting| sighting.ts))),
    });
    if !session.ends_older {
        cache.insert(*hash, &session, reader.pos);
    }
    Ok(Some(session))
}

/// Logs a device in, making it if it is new. Returns its tokens, and whether it is.
pub(crate) fn open(tx: &mut Tx, user: UserNum, new: &NewSession) -> Result<(Tokens, bool), StorageError> {
    let device_id = new.device_id.clone().unwrap_or_else(|| new_device_id(tx));
    let key = (user, device_id);
    // Every sync of the device asks for the number, and the lack of one is not remembered.
    tx.intern_text(&key.1)?;
    let before = tx.get(&schema::DEVICES, &key)?;
    let is_new = before.is_none();
    let mut device = match before {
        Some(mut device) => {
            end_tokens(tx, user, &mut device);
            device
        }
        None => DeviceRow {
            display_name: new.display_name.clone(),
            created_ms: tx.shared.clock.now_ms(),
            ..DeviceRow::default()
        },
    };
    let (tokens, pair) = make_tokens(tx, user, &key.1, new.is_refreshable);
    device.tokens = Some(pair);
    tx.put(&schema::DEVICES, &key, &device);
    if let Some(sighting) = &new.seen {
        devices::note_seen(tx, user, &key.1, sighting);
    }
    Ok((tokens, is_new))
}

fn new_device_id(reader: &Reader) -> String {
    // Upper case letters and digits, as clients show device ids to people, who compare them.
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut bytes = [0; DEVICE_ID_CHARS];
    reader.shared.random.fill(&mut bytes);
    bytes.iter().filter_map(|byte| LETTERS.get(usize::from(byte % 32))).copied().map(char::from).collect()
}

fn make_tokens(tx: &mut Tx, user: UserNum, device_id: &str, is_refreshable: bool) -> (Tokens, TokenPair) {
    let access_token = new_token(tx, "wat");
    let refresh_token = is_refreshable.then(|| new_token(tx, "wrt"));
    let expires_in_ms = is_refreshable.then_some(REFRESHABLE_TOKEN_MS);
    let expires_ms = expires_in_ms.map(|left| tx.shared.clock.now_ms() + left);
    let pair =
        TokenPair { access: token_hash(&access_token), refresh: refresh_token.as_deref().map(token_hash) };
    let device_id = device_id.to_owned();
    let row = AccessTokenRow { user, device_id: device_id.clone(), expires_ms };
    tx.put(&schema::ACCESS_TOKENS, &pair.access, &row);
    if let Some(refresh) = &pair.refresh {
        let row = RefreshTokenRow { user, device_id: device_id.clone() };
        tx.put(&schema::REFRESH_TOKENS, refresh, &row);
    }
    (Tokens { device_id, access_token, refresh_token, expires_in_ms }, pair)
}

/// Ends all tokens of a device, whose row the caller writes or deletes.
pub(crate) fn end_tokens(tx: &mut Tx, user: UserNum, device: &mut DeviceRow) {
    for pair in [device.tokens.take(), device.next_tokens.take()].into_iter().flatten() {
        end_pair(tx, user, &pair);
    }
}

fn end_pair(tx: &mut Tx, user: UserNum, pair: &TokenPair) {
    tx.delete(&schema::ACCESS_TOKENS, &pair.access);
    if let Some(refresh) = &pair.refresh {
        tx.delete(&schema::REFRESH_TOKENS, refresh);
    }
    users::sessions_changed(tx, user);
}

/// The user whose access token this is, also if it has expired.
pub(crate) fn access_token_owner(reader: &Reader, token: &str) -> Result<Option<UserNum>, StorageError> {
    Ok(reader.get(&schema::ACCESS_TOKENS, &token_hash(token))?.map(|row| row.user))
}

/// The user whose refresh token this is.
pub(crate) fn refresh_token_owner(reader: &Reader, token: &str) -> Result<Option<UserNum>, StorageError> {
    Ok(reader.get(&schema::REFRESH_TOKENS, &token_hash(token))?.map(|row| row.user))
}

/// Gives out new tokens for a refresh token. The older ones end when the new ones are used.
///
/// Errors: [`What::Token`] not found.
pub(crate) fn refresh(tx: &mut Tx, token: &str) -> Result<Tokens> {
    let hash = token_hash(token);
    let row = tx.get(&schema::REFRESH_TOKENS, &hash)?.ok_or(Error::NotFound(What::Token))?;
    let key = (row.user, row.device_id);
    let mut device = tx.get(&schema::DEVICES, &key)?.ok_or(Error::NotFound(What::Token))?;
    let is_next = device.next_tokens.as_ref().is_some_and(|next| next.refresh == Some(hash));
    if is_next {
        promote(tx, row.user, &mut device);
    }
    if let Some(unused) = device.next_tokens.take() {
        end_pair(tx, row.user, &unused);
    }
    let (tokens, pair) = make_tokens(tx, row.user, &key.1, true);
    device.next_tokens = Some(pair);
    tx.put(&schema::DEVICES, &key, &device);
    Ok(tokens)
}

/// Ends the tokens that a refresh has replaced, now that the new access token is used.
pub(crate) fn end_older(tx: &mut Tx, hash: &TokenHash) -> Result<()> {
    // Somebody else may have ended the session, or done this, in the meantime.
    let Some(row) = tx.get(&schema::ACCESS_TOKENS, hash)? else { return Ok(()) };
    let key = (row.user, row.device_id);
    let Some(mut device) = tx.get(&schema::DEVICES, &key)? else { return Ok(()) };
    if device.next_tokens.as_ref().is_some_and(|next| next.access == *hash) {
        promote(tx, row.user, &mut device);
        tx.put(&schema::DEVICES, &key, &device);
    }
    Ok(())
}

fn promote(tx: &mut Tx, user: UserNum, device: &mut DeviceRow) {
    if let Some(older) = device.tokens.take() {
        end_pair(tx, user, &older);
    }
    device.tokens = device.next_tokens.take();
}

/// Checks that what the user proved is still what the account says.
pub(crate) fn still_proven(stored: Option<&str>, proven: Option<&str>) -> Result<()> {
    match proven {
        Some(proven) if stored != Some(proven) => Err(Denied::CredentialsChanged.into()),
        _ => Ok(()),
    }
}
