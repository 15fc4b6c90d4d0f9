//! This server gets a new signing key, and the old one goes out of use.

use bytes::Bytes;

use crate::{
    command::{Command, Lanes},
    error::Result,
    open::{FACT_SIGNING_KEY_VERSION, FACT_SIGNING_SEED, SEED_BYTES, key_version},
    store::{Tx, schema, schema::StoredServerKey},
};

/// Makes a new signing key. The engine signs with it once it is opened anew; of the old one, what verifies its signatures is kept
/// and published, what signs is gone.
pub struct RotateSigningKey;

/// The ids of two keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RotatedKeys {
    /// The one that has gone out of use.
    pub old: String,
    /// The one in its place.
    pub new: String,
}

impl Command for RotateSigningKey {
    type Output = RotatedKeys;

    fn lanes(&self) -> Lanes {
        Lanes::default().name("signing key")
    }

    fn run(&self, tx: &mut Tx) -> Result<RotatedKeys> {
        let shared = tx.shared.clone();
        let mut seed = vec![0; SEED_BYTES];
        shared.random.fill(&mut seed);
        let version = key_version(&*shared.random);
        let own = tx.intern_text(&shared.server_name)?;
        let old = StoredServerKey {
            public_key: shared.key_pair.public_key().to_vec(),
            valid_until_ts: shared.clock.now_ms(),
            is_old: true,
        };
        let rotated =
            RotatedKeys { old: shared.key_pair.key_id().to_owned(), new: format!("ed25519:{version}") };
        tx.put(&schema::SERVER_KEYS, &(own, rotated.old.clone()), &old);
        tx.put(&schema::FACTS, &FACT_SIGNING_SEED.to_owned(), &Bytes::from(seed));
        tx.put(&schema::FACTS, &FACT_SIGNING_KEY_VERSION.to_owned(), &Bytes::from(version));
        Ok(rotated)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        check::Check,
        core::{
            checked::{PduCheck, Refused},
            event::{EventBuilder, JsonObject},
            version::RoomVersion,
        },
        fixture::{SERVER, World},
        remote::KeyStanding,
        store::Memory,
        view::{CheckPdus, OwnOldKeys, StandingOfKey},
    };

    const ROOM: &str = "!room:here.example";
    const ALICE: &str = "@alice:here.example";

    #[test]
    fn what_the_old_key_signed_in_its_time_holds_and_nothing_else() {
        let store = Arc::new(Memory::default());
        let world = World::on(store.clone());
        world.room(ROOM, ALICE, None);
        world.message(ROOM, ALICE, "signed with the first key");
        let version = RoomVersion::get("10").unwrap();
        let signed_at = |origin_server_ts| {
            let builder = EventBuilder {
                room_id: Some(ROOM.into()),
                sender: ALICE.into(),
                kind: "m.room.message".into(),
                state_key: None,
                content: JsonObject::new(),
                redacts: None,
                prev_events: Vec::new(),
                auth_events: Vec::new(),
                depth: 1,
                origin_server_ts,
                event_id_localpart: None,
            };
            builder.build(version, SERVER, world.engine.key_pair()).unwrap().json
        };
        let end_ms = world.engine.now_ms() + 5;
        let pdus = [signed_at(end_ms), signed_at(end_ms + 1)];
        world.pass_ms(5);
        let rotated = world.engine.write(RotateSigningKey).wait().unwrap();
        assert_eq!(rotated.old, world.engine.key_pair().key_id());
        let old_key = world.engine.key_pair().public_key().to_vec();
        drop(world);

        let world = World::on(store.clone());
        assert_eq!(world.engine.key_pair().key_id(), rotated.new);
        assert_ne!(world.engine.key_pair().public_key(), old_key);
        let [published] = &world.engine.read(&OwnOldKeys).unwrap()[..] else { panic!("one") };
        assert_eq!((&published.key_id, &published.public_key), (&rotated.old, &old_key));
        assert_eq!(published.valid_until_ts, end_ms);
        let checks = world.engine.read(&CheckPdus { version, pdus: &pdus }).unwrap();
        assert!(matches!(checks[0], PduCheck::Ready(_)), "{checks:?}");
        assert!(
            matches!(&checks[1], PduCheck::Refused { error: Refused::KeyExpired(server), .. } if server == SERVER)
        );
        let standing = world.engine.read(&StandingOfKey { server_name: SERVER, key_id: &rotated.old });
        let KeyStanding::Known(key) = standing.unwrap() else { panic!("it is not known") };
        assert!(!key.is_good_for_requests(0));
        world.message(ROOM, ALICE, "signed with the second key");
        let report = world.engine.read(&Check { progress: &|_, _| () }).unwrap();
        assert_eq!(report.findings, []);
        // And again: the first stays known.
        // The randomness of a world begins anew with it, and would make the first key once more.
        let _ = world.engine.random_text(7);
        let again = world.engine.write(RotateSigningKey).wait().unwrap();
        assert_eq!(again.old, rotated.new);
        drop(world);
        let world = World::on(store);
        let keys = world.engine.read(&OwnOldKeys).unwrap();
        let ids: std::collections::BTreeSet<String> = keys.into_iter().map(|key| key.key_id).collect();
        assert_eq!(ids, [rotated.old, again.old].into());
    }
}
