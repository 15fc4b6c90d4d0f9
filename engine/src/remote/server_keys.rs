//! Signing keys of servers: this one's own, and those that others publish.
//!
//! Invariant: a key id never comes to stand for another key, and the time until which a key counts only grows. One that went
//! out of use stays so, with the time that was told first: an answer from before, which a notary or a cache still gives, may
//! be the wish of whoever the key was taken out of use for.
//!
//! Own keys that others tell, since this server has lost them, are old ones to it whatever is told, and count for nothing that is of
//! later than the moment at which it last hears of them, nor than they say themselves, which is a week at most. It does not publish them: that it trusts whoever told does not mean that all do.
//! Source: server-server API, "Retrieving server keys".

use crate::{
    core::{
        checked::{KnownKey, SigningKeys},
        num::TextNum,
    },
    error::Result,
    store::{Direction, Reader, StorageError, Tx, schema, schema::StoredServerKey},
};

/// Bytes of an Ed25519 public key.
const PUBLIC_KEY_BYTES: usize = 32;

/// A signing key that a server publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKey {
    /// Its id, such as `ed25519:abc`.
    pub key_id: String,
    /// The Ed25519 public key, 32 bytes.
    pub public_key: Vec<u8>,
    /// Until when it counts, in milliseconds since the epoch: `valid_until_ts`, or for an old key `expired_ts`.
    pub valid_until_ts: u64,
    /// Whether it is among the server's `old_verify_keys`.
    pub is_old: bool,
}

impl ServerKey {
    /// Whether a request that is signed with it now is the server's. Old keys are only good for events.
    pub fn is_good_for_requests(&self, now_ms: u64) -> bool {
        !self.is_old && self.valid_until_ts > now_ms
    }
}

/// Stores keys that a server publishes, and have been verified to be its. Returns those key ids that are refused, because
/// they stand for another key already or are none.
pub(crate) fn store(tx: &mut Tx, server_name: &str, keys: &[ServerKey]) -> Result<Vec<String>> {
    let shared = tx.shared.clone();
    let is_own = *server_name == *shared.server_name;
    let server = tx.intern_text(server_name)?;
    let mut refused = Vec::new();
    for key in keys {
        let row = (server, key.key_id.clone());
        let is_in_use = is_own && key.key_id == shared.key_pair.key_id();
        let before = tx.get(&schema::SERVER_KEYS, &row)?;
        let is_other = match &before {
            _ if is_in_use => key.public_key != *shared.key_pair.public_key(),
            Some(before) => before.public_key != key.public_key,
            None => false,
        };
        if is_other || key.public_key.len() != PUBLIC_KEY_BYTES {
            refused.push(key.key_id.clone());
            continue;
        }
        if is_own && (is_in_use || before.as_ref().is_some_and(|before| before.is_old)) {
            continue;
        }
        let told = key.valid_until_ts;
        let (valid_until_ts, is_old) = match before {
            // It is not this server that put it out of use.
            None if is_own => (told.min(shared.clock.now_ms()), false),
            // Another notary may have asked for it later; of what is still to come none can know.
            Some(before) if is_own => (before.valid_until_ts.max(told.min(shared.clock.now_ms())), false),
            Some(before) if before.is_old => (before.valid_until_ts, true),
            Some(before) if !key.is_old => (before.valid_until_ts.max(told), false),
            _ => (told, key.is_old),
        };
        let stored = StoredServerKey { public_key: key.public_key.clone(), valid_until_ts, is_old };
        tx.put(&schema::SERVER_KEYS, &row, &stored);
    }
    Ok(refused)
}

/// The keys with which this server signed before and that it put out of use itself, or that its operator names, the last first. Those
/// that are never trusted are not published either.
pub(crate) fn own_old_keys(reader: &Reader) -> Result<Vec<ServerKey>, StorageError> {
    let shared = &reader.shared;
    let is_published = |key_id: &str| {
        key_id != shared.key_pair.key_id() && !shared.never_trusted.has(&shared.server_name, key_id)
    };
    let named = shared.old_signing_keys.iter().filter(|key| is_published(&key.key_id));
    let mut keys: Vec<ServerKey> = named.cloned().collect();
    if let Some(own) = reader.text_num(&shared.server_name)? {
        reader.scan(
            &schema::SERVER_KEYS,
            &own,
            Direction::Forward,
            |(_, key_id): (TextNum, String), stored: StoredServerKey| {
                let StoredServerKey { public_key, valid_until_ts, is_old } = stored;
                if is_old && is_published(&key_id) && shared.named_old_key(&key_id).is_none() {
                    keys.push(ServerKey { key_id, public_key, valid_until_ts, is_old });
                }
                true
            },
        )?;
    }
    keys.sort_by_key(|key| std::cmp::Reverse(key.valid_until_ts));
    Ok(keys)
}

/// The keys that are known here, among them this server's own, of now and of before.
pub(crate) struct ServerKeys<'a>(pub &'a Reader);

impl SigningKeys for ServerKeys<'_> {
    type Error = StorageError;

    fn is_trusted(&self, server_name: &str, key_id: &str) -> bool {
        !self.0.shared.never_trusted.has(server_name, key_id)
    }

    fn key(&self, server_name: &str, key_id: &str) -> Result<Option<KnownKey>, StorageError> {
        let shared = &self.0.shared;
        let is_own = server_name == &*shared.server_name;
        if is_own && key_id == shared.key_pair.key_id() {
            let public_key = shared.key_pair.public_key().to_vec();
            return Ok(Some(KnownKey { public_key, valid_until_ts: u64::MAX, is_old: false }));
        }
        if let Some(named) = shared.named_old_key(key_id).filter(|_| is_own) {
            let (public_key, valid_until_ts) = (named.public_key.clone(), named.valid_until_ts);
            return Ok(Some(KnownKey { public_key, valid_until_ts, is_old: true }));
        }
        let Some(server) = self.0.text_num(server_name)? else { return Ok(None) };
        let stored = self.0.get(&schema::SERVER_KEYS, &(server, key_id.to_owned()))?;
        Ok(stored.map(|stored| KnownKey {
            public_key: stored.public_key,
            valid_until_ts: stored.valid_until_ts,
            is_old: stored.is_old || is_own,
        }))
    }
}
