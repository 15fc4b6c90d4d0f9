//! Reads of the signing keys of other servers.

use bytes::Bytes;

use crate::{
    core::checked::SigningKeys,
    error::Result,
    remote::{self, KeyStanding, ServerKey, ServerKeys},
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

/// The keys with which this server signed before, those that are never trusted left out.
#[derive(Clone, Copy, Debug)]
pub struct OwnOldKeys;

impl View for OwnOldKeys {
    /// The last that went out of use first.
    type Output = Vec<ServerKey>;

    fn read(&self, reader: &Reader) -> Result<Vec<ServerKey>> {
        Ok(remote::own_old_keys(reader)?)
    }
}

/// What a server last published of its keys, by its name.
#[derive(Clone, Copy, Debug)]
pub struct PublishedKeysOf<'a>(
    /// The server.
    pub &'a str,
);

/// An answer of a server to who asks for its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        Engine, Options,
        command::StorePublishedKeys,
        core::{
            checked::{PduCheck, Refused},
            event::{EventBuilder, JsonObject, KeyPair},
            version::RoomVersion,
        },
        store::Memory,
        view::CheckPdus,
    };

    const SERVER: &str = "there.example:8448";

    fn key_pair() -> KeyPair {
        KeyPair::from_seed("leaked", &[7; 32]).unwrap()
    }

    /// An engine that knows the key, opened with an option.
    fn engine(never_trust_keys: &[&str]) -> Engine {
        let mut options = Options::new("here.example");
        options.never_trust_keys = never_trust_keys.iter().map(|key| (*key).to_owned()).collect();
        let engine = Engine::open(Arc::new(Memory::default()), options).unwrap();
        let key = ServerKey {
            key_id: key_pair().key_id().to_owned(),
            public_key: key_pair().public_key().to_vec(),
            valid_until_ts: 2_000,
            is_old: false,
        };
        let json = Bytes::from_static(b"{}");
        let (server_name, fetched_ts) = (SERVER.to_owned(), 1_000);
        let store = StorePublishedKeys { server_name, keys: vec![key], json, fetched_ts };
        assert!(engine.write(store).wait().unwrap().is_empty());
        engine
    }

    fn standing(engine: &Engine, server_name: &str, key_id: &str) -> KeyStanding {
        engine.read(&StandingOfKey { server_name, key_id }).unwrap()
    }

    #[test]
    fn keys_and_what_was_published_are_read_back() {
        let engine = engine(&[]);
        let KeyStanding::Known(key) = standing(&engine, SERVER, "ed25519:leaked") else {
            panic!("not known")
        };
        assert_eq!(key.public_key, key_pair().public_key());
        assert!(key.is_good_for_requests(1_999) && !key.is_good_for_requests(2_000));
        assert_eq!(standing(&engine, SERVER, "ed25519:other"), KeyStanding::Unknown);
        assert_eq!(standing(&engine, "there.example", "ed25519:leaked"), KeyStanding::Unknown);
        let own = engine.key_pair();
        assert!(matches!(standing(&engine, "here.example", own.key_id()), KeyStanding::Known(_)));
        let published = PublishedKeys { json: Bytes::from_static(b"{}"), fetched_ts: 1_000 };
        assert_eq!(engine.read(&PublishedKeysOf(SERVER)).unwrap(), Some(published));
        assert!(engine.read(&PublishedKeysOf("there.example")).unwrap().is_none());
    }

    #[test]
    fn own_keys_that_others_tell_are_old_ones_and_are_not_published() {
        let engine = Engine::open(Arc::new(Memory::default()), Options::new("here.example")).unwrap();
        let own_id = engine.key_pair().key_id().to_owned();
        let told = |key_id: &str, valid_until_ts, is_old| ServerKey {
            key_id: key_id.to_owned(),
            public_key: key_pair().public_key().to_vec(),
            valid_until_ts,
            is_old,
        };
        let keys = vec![
            told("ed25519:lost", u64::MAX, false),
            told("ed25519:rotated", 5, true),
            told(&own_id, u64::MAX, false),
        ];
        let store = |keys| StorePublishedKeys {
            server_name: "here.example".to_owned(),
            keys,
            json: Bytes::from_static(b"{}"),
            fetched_ts: 1_000,
        };
        assert_eq!(engine.write(store(keys)).wait().unwrap(), std::slice::from_ref(&own_id));
        // It is none the better for what is still to come, however often that is said.
        let keys = vec![told("ed25519:lost", u64::MAX, false)];
        assert!(engine.write(store(keys)).wait().unwrap().is_empty());
        let now_ms = engine.now_ms();
        let known = |key_id: &str| match standing(&engine, "here.example", key_id) {
            KeyStanding::Known(key) => key,
            other => panic!("{other:?}"),
        };
        let (lost, rotated) = (known("ed25519:lost"), known("ed25519:rotated"));
        assert!(lost.valid_until_ts <= now_ms && rotated.valid_until_ts == 5);
        assert!(!lost.is_good_for_requests(0) && !rotated.is_good_for_requests(0));
        assert_eq!(known(&own_id).public_key, engine.key_pair().public_key());
        assert!(engine.read(&OwnOldKeys).unwrap().is_empty());
        assert!(engine.read(&PublishedKeysOf("here.example")).unwrap().is_none());
    }

    #[test]
    fn own_keys_that_the_operator_names_are_old_ones_and_are_published() {
        let named = ServerKey {
            key_id: key_pair().key_id().to_owned(),
            public_key: key_pair().public_key().to_vec(),
            valid_until_ts: 5,
            is_old: true,
        };
        let mut options = Options::new("here.example");
        options.old_signing_keys = vec![named.clone()];
        let engine = Engine::open(Arc::new(Memory::default()), options).unwrap();
        let known = standing(&engine, "here.example", &named.key_id);
        assert_eq!(known, KeyStanding::Known(named.clone()));
        assert_eq!(standing(&engine, SERVER, &named.key_id), KeyStanding::Unknown);
        assert_eq!(engine.read(&OwnOldKeys).unwrap(), [named]);
    }

    #[test]
    fn nothing_that_a_leaked_key_signed_counts() {
        for version in ["1", "10"] {
            let version = RoomVersion::get(version).unwrap();
            let event = EventBuilder {
                room_id: Some("!room:there.example".into()),
                sender: "@bob:there.example:8448".into(),
                kind: "m.room.message".into(),
                state_key: None,
                content: JsonObject::new(),
                redacts: None,
                prev_events: Vec::new(),
                auth_events: Vec::new(),
                depth: 1,
                origin_server_ts: 1_000,
                event_id_localpart: Some("a".into()),
            };
            let event = event.build(version, SERVER, &key_pair()).unwrap();
            let check = |never: &[&str]| {
                let pdus = [event.json.clone()];
                engine(never).read(&CheckPdus { version, pdus: &pdus }).unwrap().remove(0)
            };
            assert!(matches!(check(&[]), PduCheck::Ready(_)), "{:?}", check(&[]));
            assert!(matches!(check(&["else.example:ed25519:leaked"]), PduCheck::Ready(_)));
            for never in ["ed25519:leaked", "there.example:8448:ed25519:leaked"] {
                let PduCheck::Refused { error, .. } = check(&[never]) else { panic!("{never} is trusted") };
                assert_eq!(error, Refused::KeyNeverTrusted(SERVER.to_owned()));
                assert_eq!(standing(&engine(&[never]), SERVER, "ed25519:leaked"), KeyStanding::NeverTrusted);
            }
        }
    }
}
