//! Reads of the signing keys of other servers.

use bytes::Bytes;

use crate::{
    core::checked::SigningKeys,
    error::Result,
    remote::{KeyStanding, ServerKey, ServerKeys},
    store::{Reader, schema},
    view::View,
};

/// What a signing key of a server is to this one; this server's own key is known too.
#[derive(Clone, Copy, Debug)]
pub struct StandingOfKey<'a> {
    /// The server.
    pub server_name: &'a str,
    /// The key's id, such as `ed25519:abc`.
    pub key_id: &'a str,
}

impl View for StandingOfKey<'_> {
    type Output = KeyStanding;

    fn read(&self, reader: &Reader) -> Result<KeyStanding> {
        let keys = ServerKeys(reader);
        if !keys.is_trusted(self.server_name, self.key_id) {
            return Ok(KeyStanding::NeverTrusted);
        }
        let known = keys.key(self.server_name, self.key_id)?;
        Ok(known.map_or(KeyStanding::Unknown, |key| {
            KeyStanding::Known(ServerKey {
                key_id: self.key_id.to_owned(),
                public_key: key.public_key,
                valid_until_ts: key.valid_until_ts,
                is_old: key.is_old,
            })
        }))
    }
}

/// What a server last published of its keys, by its name.
#[derive(Clone, Copy, Debug)]
pub struct PublishedKeysOf<'a>(
    /// The server.
    pub &'a str,
);

/// An answer of a server to who asks for its keys.
#[derive(Clone, Debug)]
pub struct PublishedKeys {
    /// The answer in JSON, with its signatures.
    pub json: Bytes,
    /// When it was fetched, in milliseconds since the epoch.
    pub fetched_ts: u64,
}

impl View for PublishedKeysOf<'_> {
    type Output = Option<PublishedKeys>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let Some(server) = reader.text_num(self.0)? else { return Ok(None) };
        let stored = reader.get(&schema::PUBLISHED_KEYS, &server)?;
        Ok(stored.map(|stored| PublishedKeys { json: stored.json.into(), fetched_ts: stored.fetched_ts }))
    }
}
