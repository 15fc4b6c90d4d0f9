//! Identity keys, one-time keys, cross-signing.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Signer, kind, object, query, register, upload_device, user_id};
use crate::{
    Committer, Engine, Options,
    command::{
        CLAIM_BATCH, ClaimKeys, ClaimedKey, Command, CrossSigningUpload, RemoveDevices, RenewKeyStock,
        SignatureFailure, SignedKey, UploadCrossSigningKeys, UploadKeys, UploadSignatures, WantedKey,
        WhichDevices,
    },
    core::num::StreamPos,
    device::{one_time_keys, signatures},
    error::Result,
    fixture::World,
    store::{Faults, Memory, schema},
    view::{HaveDevices, QueryKeys},
};

fn one_time_key(key: &str) -> Value {
    json!({"key": key, "signatures": {"@a:b": {"ed25519:D": "s"}}})
}

fn upload(user: &str, one_time: &[(&str, &str)], fallback: &[(&str, &str)]) -> UploadKeys {
    let keys = |keys: &[(&str, &str)]| {
        keys.iter().map(|(name, key)| (format!("signed_curve25519:{name}"), one_time_key(key))).collect()
    };
    UploadKeys {
        user_id: user.to_owned(),
        device_id: "D".to_owned(),
        device_keys: None,
        one_time_keys: keys(one_time),
        fallback_keys: keys(fallback),
    }
}

fn claim(engine: &Engine, user: &str) -> Result<Vec<ClaimedKey>> {
    let wanted = WantedKey {
        user_id: user.to_owned(),
        device_id: "D".to_owned(),
        algorithm: "signed_curve25519".to_owned(),
    };
    engine.write(ClaimKeys { wanted: vec![wanted] }).wait()
}

/// That keys are wanted of a device each.
fn wanted_of(user_ids: &[String]) -> Vec<WantedKey> {
    let (device_id, algorithm) = ("D".to_owned(), "signed_curve25519".to_owned());
    let of = |user_id: &String| WantedKey {
        user_id: user_id.clone(),
        device_id: device_id.clone(),
        algorithm: algorithm.clone(),
    };
    user_ids.iter().map(of).collect()
}

fn claim_name(world: &World, user: &str) -> Option<String> {
    claim(&world.engine, user).unwrap().into_iter().next().map(|claimed| claimed.name)
}

fn unused_fallback(world: &World, user: &str) -> Vec<String> {
    world.ask(|reader| {
        let (user, device) = (reader.user_num(user)?.unwrap(), reader.text_num("D")?.unwrap());
        one_time_keys::unused_fallback_types(reader, user, device)
    })
}

#[test]
fn what_a_lost_database_may_have_given_out_is_not_given_out_again() {
    let world = World::new();
    let alice = register(&world, "alice", &["D"]);
    let store = |one_time: &[(&str, &str)], fallback: &[(&str, &str)]| {
        world.engine.write(upload(&alice, one_time, fallback)).wait().unwrap();
    };
    store(&[("1", "a"), ("2", "b")], &[("f", "c")]);
    let lost = StreamPos(world.engine.position().0 + 1);
    let renew = || {
        let (user_id, device_id) = (alice.clone(), "D".to_owned());
        world.engine.write(RenewKeyStock { user_id, device_id, before: lost }).wait().unwrap()
    };
    assert!(renew());
    assert!(unused_fallback(&world, &alice).is_empty(), "a new one is to be made");
    assert_eq!(claim_name(&world, &alice).as_deref(), Some("signed_curve25519:f"));
    store(&[("3", "d")], &[]);
    assert!(!renew(), "it came after what was lost");
    assert_eq!(claim_name(&world, &alice).as_deref(), Some("signed_curve25519:3"));
}

#[test]
fn no_claim_holds_the_lanes_of_many_users() {
    let world = World::new();
    let users: Vec<String> =
        (0..2 * CLAIM_BATCH + 1).map(|n| register(&world, &format!("u{n}"), &["D"])).collect();
    for user in &users {
        world.engine.write(upload(user, &[("1", "a")], &[])).wait().unwrap();
    }
    let mut owners = Vec::new();
    for batch in ClaimKeys::in_batches(&wanted_of(&users)) {
        assert!(batch.lanes().hashes().count() <= CLAIM_BATCH);
        owners.extend(world.engine.write(batch).wait().unwrap().into_iter().map(|claimed| claimed.user_id));
    }
    assert_eq!(owners, users, "each key is given out once");
    assert_eq!(ClaimKeys::in_batches(&[]).count(), 0);
}

#[test]
fn users_that_are_made_up_have_no_devices() {
    let world = World::new();
    let alice = register(&world, "alice", &["D"]);
    // Of whom something is known, but who has no account here.
    let met = user_id("met");
    world.act(|tx| Ok(tx.intern_user(&met)?)).unwrap();
    let asked = ["@nobody:here.example", &*alice, &*met, "@nobody:elsewhere.example", "", &*alice];
    let have = world.engine.read(&HaveDevices(asked.to_vec())).unwrap();
    assert_eq!(have, [false, true, false, false, false, true]);
}

#[test]
fn one_time_keys_go_in_order_and_then_the_fallback_key() {
    let world = World::new();
    let alice = register(&world, "alice", &["D"]);
    let counts = world.engine.write(upload(&alice, &[("z", "1")], &[("f", "9")])).wait().unwrap();
    assert_eq!(counts["signed_curve25519"], 1);
    let again = world.engine.write(upload(&alice, &[("z", "1"), ("a", "2")], &[])).wait().unwrap();
    assert_eq!(again["signed_curve25519"], 2, "the same key again is one key");
    assert_eq!(kind(world.engine.write(upload(&alice, &[("z", "3")], &[])).wait()), "conflict");
    assert_eq!(unused_fallback(&world, &alice), ["signed_curve25519"]);
    assert_eq!(claim_name(&world, &alice).unwrap(), "signed_curve25519:z", "uploaded first");
    assert_eq!(claim_name(&world, &alice).unwrap(), "signed_curve25519:a");
    assert_eq!(unused_fallback(&world, &alice), ["signed_curve25519"]);
    assert_eq!(claim_name(&world, &alice).unwrap(), "signed_curve25519:f");
    assert_eq!(claim_name(&world, &alice).unwrap(), "signed_curve25519:f", "it stays");
    assert!(unused_fallback(&world, &alice).is_empty());
    world.engine.write(upload(&alice, &[], &[("f", "9")])).wait().unwrap();
    assert!(unused_fallback(&world, &alice).is_empty(), "the same key is still a used one");
    world.engine.write(upload(&alice, &[], &[("g", "8")])).wait().unwrap();
    assert_eq!(unused_fallback(&world, &alice), ["signed_curve25519"]);
    let counts = world.engine.write(upload(&alice, &[], &[])).wait().unwrap();
    assert_eq!(counts["signed_curve25519"], 0);
}

#[test]
fn malformed_keys_are_refused_whole() {
    let world = World::new();
    let alice = register(&world, "alice", &["D"]);
    let bad = [("no_colon", json!("k")), (":id", json!("k")), ("alg:", json!("k")), ("alg:id", json!(1))];
    let unsigned = [
        ("signed_curve25519:a", json!("text")),
        ("signed_curve25519:a", json!({"key": "k"})),
        ("alg:id", json!({"key": "k", "signatures": {}, "more": 1.5})),
    ];
    for (name, key) in bad.into_iter().chain(unsigned) {
        let mut command = upload(&alice, &[("good", "1")], &[]);
        command.one_time_keys.push((name.to_owned(), key));
        assert_eq!(kind(world.engine.write(command).wait()), "invalid", "{name}");
    }
    assert_eq!(claim_name(&world, &alice), None, "nothing of a refused request is stored");
    let two = upload(&alice, &[], &[("a", "1"), ("b", "2")]);
    assert_eq!(kind(world.engine.write(two).wait()), "invalid", "two fallback keys of an algorithm");
}

#[test]
fn a_device_holds_a_limited_number_of_keys() {
    let world = World::new();
    let alice = register(&world, "alice", &["D"]);
    let names: Vec<String> =
        (0..=one_time_keys::ONE_TIME_KEYS_MAX).map(|number| number.to_string()).collect();
    let keys: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "k")).collect();
    assert_eq!(kind(world.engine.write(upload(&alice, &keys, &[])).wait()), "too large");
    assert_eq!(kind(world.engine.write(upload(&alice, &keys[1..], &[])).wait()), "ok");
    assert_eq!(kind(world.engine.write(upload(&alice, &keys[..1], &[])).wait()), "too large");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever claims at the same time as others, with commits that fail now and then: no key is answered twice, and
    /// none is answered that was not uploaded.
    #[test]
    fn no_key_is_given_out_twice(
        keys in 1usize..40,
        claimers in 2usize..6,
        each in 1usize..12,
        seed in any::<u64>(),
        faults in prop_oneof![Just(0u64), Just(5u64)],
        threaded in any::<bool>(),
    ) {
        let mut options = Options::new(crate::fixture::SERVER);
        options.committer = if threaded { Committer::Thread } else { Committer::Inline };
        let engine = Engine::open(Arc::new(Memory::with_faults(Faults { seed, refused_one_in: faults, ..Faults::default() })), options);
        // Opening writes, too, and may meet a fault; then there is nothing to test.
        let Ok(engine) = engine else { return Ok(()) };
        let alice = super::user_id("alice");
        let names: Vec<String> = (0..keys).map(|number| number.to_string()).collect();
        let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "k")).collect();
        while engine.write(Known(alice.clone())).wait().is_err() {}
        while engine.write(upload(&alice, &pairs, &[])).wait().is_err() {}
        let mut got: Vec<String> = std::thread::scope(|scope| {
            let claimer = || (0..each).filter_map(|_| claim(&engine, &alice).ok()).flatten().map(|key| key.name);
            let threads: Vec<_> =
                (0..claimers).map(|_| scope.spawn(move || claimer().collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let answered = got.len();
        got.sort();
        got.dedup();
        prop_assert_eq!(got.len(), answered);
        prop_assert!(answered <= keys.min(claimers * each));
        prop_assert!(faults > 0 || answered == keys.min(claimers * each));
    }
}

/// Makes a user with a device known.
struct Known(String);

impl crate::Command for Known {
    type Output = ();

    fn lanes(&self) -> crate::Lanes {
        crate::Lanes::default().user(&self.0)
    }

    fn run(&self, tx: &mut crate::store::Tx) -> Result<()> {
        let user = tx.intern_user(&self.0)?;
        tx.put(&schema::DEVICES, &(user, "D".to_owned()), &schema::DeviceRow::default());
        Ok(())
    }
}

#[test]
fn device_keys_are_answered_as_uploaded() {
    let world = World::new();
    let (alice, bob) = (register(&world, "alice", &["D", "E"]), register(&world, "bob", &["D"]));
    let keys = Signer::new(1).device(&alice, "D");
    upload_device(&world, &alice, "D", keys.clone()).unwrap();
    let answer = query(&world, &bob, &[&alice, &bob, "@nobody:here.example"]);
    let mut expected = Value::Object(keys.clone());
    expected["unsigned"] = json!({"device_display_name": "D's name"});
    assert_eq!(answer["device_keys"], json!({alice.as_str(): {"D": expected}, bob.as_str(): {}}));
    assert_eq!(answer["master_keys"], json!({}));
    assert_eq!(answer["failures"], json!({}));
    let mut others = keys.clone();
    others.insert("device_id".to_owned(), json!("E"));
    assert_eq!(kind(upload_device(&world, &alice, "D", others)), "invalid");
    assert_eq!(kind(upload_device(&world, &bob, "D", keys)), "invalid");
}

#[test]
fn a_forgotten_device_leaves_nothing() {
    let world = World::new();
    let alice = register(&world, "alice", &["D"]);
    upload_device(&world, &alice, "D", Signer::new(1).device(&alice, "D")).unwrap();
    world.engine.write(upload(&alice, &[("a", "1")], &[("f", "2")])).wait().unwrap();
    let remove = RemoveDevices { user_id: alice.clone(), devices: WhichDevices::These(vec!["D".to_owned()]) };
    world.engine.write(remove).wait().unwrap();
    assert_eq!(query(&world, &alice, &[&alice])["device_keys"][&alice], json!({}));
    assert_eq!(claim_name(&world, &alice), None);
    assert!(unused_fallback(&world, &alice).is_empty());
}

#[test]
fn a_device_that_is_gone_takes_no_keys_and_what_is_left_of_it_can_be_removed() {
    let world = World::new();
    let alice = register(&world, "alice", &["D"]);
    let remove =
        || RemoveDevices { user_id: alice.clone(), devices: WhichDevices::These(vec!["D".to_owned()]) };
    world.engine.write(remove()).wait().unwrap();
    let keys = || Signer::new(1).device(&alice, "D");
    assert_eq!(kind(upload_device(&world, &alice, "D", keys())), "not found");
    assert_eq!(kind(world.engine.write(upload(&alice, &[("a", "1")], &[])).wait()), "not found");
    assert_eq!(query(&world, &alice, &[&alice])["device_keys"][&alice], json!({}));
    // As it was when keys came behind the logout.
    register(&world, "alice", &["D"]);
    upload_device(&world, &alice, "D", keys()).unwrap();
    world.engine.write(upload(&alice, &[("a", "1")], &[])).wait().unwrap();
    world
        .act(|tx| {
            let user = tx.intern_user(&alice)?;
            tx.delete(&schema::DEVICES, &(user, "D".to_owned()));
            Ok(())
        })
        .unwrap();
    assert!(query(&world, &alice, &[&alice])["device_keys"][&alice].get("D").is_some());
    world.engine.write(remove()).wait().unwrap();
    assert_eq!(query(&world, &alice, &[&alice])["device_keys"][&alice], json!({}));
    assert_eq!(claim_name(&world, &alice), None);
}

/// A user with a device and the three keys.
pub(super) struct User {
    pub id: String,
    device: Signer,
    pub master: Signer,
    self_signing: Signer,
    pub user_signing: Signer,
}

impl User {
    pub fn new(world: &World, name: &str, seed: u8) -> Self {
        let id = register(world, name, &["D"]);
        let device = Signer::new(seed);
        upload_device(world, &id, "D", device.device(&id, "D")).unwrap();
        let [master, self_signing, user_signing] = [1, 2, 3].map(|more| Signer::new(seed + more));
        Self { id, device, master, self_signing, user_signing }
    }

    fn signed_by_master(&self, signer: &Signer, usage: &str) -> Map<String, Value> {
        let mut key = signer.cross_signing(&self.id, usage);
        self.master.sign(&mut key, &self.id, &self.master.public());
        key
    }

    pub fn keys(&self) -> UploadCrossSigningKeys {
        let mut master = self.master.cross_signing(&self.id, "master");
        self.device.sign(&mut master, &self.id, "D");
        UploadCrossSigningKeys {
            user_id: self.id.clone(),
            master: Some(master),
            self_signing: Some(self.signed_by_master(&self.self_signing, "self_signing")),
            user_signing: Some(self.signed_by_master(&self.user_signing, "user_signing")),
            authenticated: false,
        }
    }

    pub fn sign(
        &self,
        world: &World,
        owner: &str,
        key_id: &str,
        object: Map<String, Value>,
    ) -> Vec<SignatureFailure> {
        let signed = SignedKey { user_id: owner.to_owned(), key_id: key_id.to_owned(), object };
        let command = UploadSignatures { user_id: self.id.clone(), signed: vec![signed], told: Vec::new() };
        world.engine.write(command).wait().unwrap()
    }
}

pub(super) fn store(world: &World, command: UploadCrossSigningKeys) -> Result<CrossSigningUpload> {
    world.engine.write(command).wait()
}

#[test]
fn the_first_keys_are_free_and_others_need_proof() {
    let world = World::new();
    let alice = User::new(&world, "alice", 10);
    let bob = register(&world, "bob", &[]);
    assert_eq!(store(&world, alice.keys()).unwrap(), CrossSigningUpload::Stored);
    assert_eq!(store(&world, alice.keys()).unwrap(), CrossSigningUpload::Stored, "the same again");
    let own = query(&world, &alice.id, &[&alice.id]);
    assert_eq!(own["master_keys"][&alice.id], Value::Object(alice.keys().master.unwrap()));
    assert_eq!(own["self_signing_keys"][&alice.id], Value::Object(alice.keys().self_signing.unwrap()));
    assert_eq!(own["user_signing_keys"][&alice.id], Value::Object(alice.keys().user_signing.unwrap()));
    let others = query(&world, &bob, &[&alice.id]);
    assert_eq!(others["master_keys"], own["master_keys"]);
    assert_eq!(others["self_signing_keys"], own["self_signing_keys"]);
    assert_eq!(others["user_signing_keys"], json!({}), "for its owner only");

    let new = User { master: Signer::new(20), ..User::new(&world, "alice", 10) };
    let only_master = || UploadCrossSigningKeys { self_signing: None, user_signing: None, ..new.keys() };
    assert_eq!(store(&world, only_master()).unwrap(), CrossSigningUpload::NeedsAuthentication);
    assert_eq!(
        query(&world, &alice.id, &[&alice.id])["master_keys"],
        own["master_keys"],
        "nothing was changed"
    );
    let proven = UploadCrossSigningKeys { authenticated: true, ..only_master() };
    assert_eq!(store(&world, proven).unwrap(), CrossSigningUpload::Stored);
    let replaced = query(&world, &alice.id, &[&alice.id]);
    assert_eq!(replaced["master_keys"][&alice.id], Value::Object(new.keys().master.unwrap()));
    assert_eq!(replaced["self_signing_keys"], json!({}), "the old master key signed it");
}

#[test]
fn bad_cross_signing_keys_are_refused() {
    let world = World::new();
    let alice = User::new(&world, "alice", 10);
    let without_master = UploadCrossSigningKeys { master: None, ..alice.keys() };
    assert_eq!(kind(store(&world, without_master)), "no master key");
    let mut by_another = alice.self_signing.cross_signing(&alice.id, "self_signing");
    Signer::new(99).sign(&mut by_another, &alice.id, &alice.master.public());
    let forged = UploadCrossSigningKeys { self_signing: Some(by_another), ..alice.keys() };
    assert_eq!(kind(store(&world, forged)), "signature");
    let unsigned = alice.user_signing.cross_signing(&alice.id, "user_signing");
    let unsigned = UploadCrossSigningKeys { user_signing: Some(unsigned), ..alice.keys() };
    assert_eq!(kind(store(&world, unsigned)), "signature");
    let wrong_usage = alice.signed_by_master(&alice.self_signing, "user_signing");
    let wrong_usage = UploadCrossSigningKeys { self_signing: Some(wrong_usage), ..alice.keys() };
    assert_eq!(kind(store(&world, wrong_usage)), "invalid");
    let twice = alice.signed_by_master(&alice.master, "self_signing");
    let twice = UploadCrossSigningKeys { self_signing: Some(twice), ..alice.keys() };
    assert_eq!(kind(store(&world, twice)), "key id in use");
    for keys in [
        json!({"ed25519:abc": "abc"}),
        json!({}),
        json!({"curve25519:x": "x"}),
        json!({"ed25519:a": alice.master.public()}),
    ] {
        let malformed = object(json!({"user_id": alice.id, "usage": ["master"], "keys": keys}));
        let malformed = UploadCrossSigningKeys { master: Some(malformed), ..alice.keys() };
        assert_eq!(kind(store(&world, malformed)), "invalid");
    }
    let public = alice.master.public();
    register(&world, "alice", &[&public]);
    assert_eq!(kind(store(&world, alice.keys())), "key id in use", "a device has this id");
    assert_eq!(query(&world, &alice.id, &[&alice.id])["master_keys"], json!({}));
}

#[test]
fn a_device_may_not_have_the_id_of_a_cross_signing_key() {
    let world = World::new();
    let alice = User::new(&world, "alice", 10);
    store(&world, alice.keys()).unwrap();
    let public = alice.self_signing.public();
    register(&world, "alice", &[&public]);
    let keys = Signer::new(30).device(&alice.id, &public);
    assert_eq!(kind(upload_device(&world, &alice.id, &public, keys)), "key id in use");
}

#[test]
fn signatures_are_verified_and_seen_by_whom_they_concern() {
    let world = World::new();
    let alice = User::new(&world, "alice", 10);
    let bob = User::new(&world, "bob", 50);
    let carol = register(&world, "carol", &[]);
    store(&world, alice.keys()).unwrap();
    store(&world, bob.keys()).unwrap();

    let mut device = alice.device.device(&alice.id, "D");
    alice.self_signing.sign(&mut device, &alice.id, &alice.self_signing.public());
    assert!(alice.sign(&world, &alice.id, "D", device.clone()).is_empty());
    let seen = &query(&world, &carol, &[&alice.id])["device_keys"][&alice.id]["D"];
    assert_eq!(seen["signatures"], device["signatures"]);

    let mut master = bob.master.cross_signing(&bob.id, "master");
    alice.user_signing.sign(&mut master, &alice.id, &alice.user_signing.public());
    assert!(alice.sign(&world, &bob.id, &bob.master.public(), master.clone()).is_empty());
    let of = |asker: &str| query(&world, asker, &[&bob.id])["master_keys"][&bob.id]["signatures"].clone();
    assert_eq!(of(&alice.id)[&alice.id], master["signatures"][&alice.id]);
    assert!(of(&bob.id).get(&alice.id).is_none(), "whom Alice verified is Alice's business");
    assert!(of(&carol).get(&alice.id).is_none());
    assert!(of(&carol)[&bob.id].get("ed25519:D").is_some(), "Bob's own device signed it");

    let refused = |owner: &str, key_id: &str, object: Map<String, Value>| {
        let failures = alice.sign(&world, owner, key_id, object);
        kind::<()>(Err(failures.into_iter().next().unwrap().error))
    };
    let mut wrong = alice.device.device(&alice.id, "D");
    Signer::new(99).sign(&mut wrong, &alice.id, &alice.self_signing.public());
    assert_eq!(refused(&alice.id, "D", wrong), "signature");
    assert_eq!(refused(&alice.id, "D", alice.device.device(&alice.id, "D")), "signature", "no new one");
    let mut other_key = alice.device.device(&alice.id, "D");
    other_key.insert("algorithms".to_owned(), json!([]));
    alice.self_signing.sign(&mut other_key, &alice.id, &alice.self_signing.public());
    assert_eq!(refused(&alice.id, "D", other_key), "invalid");
    let mut foreign = bob.device.device(&bob.id, "D");
    alice.user_signing.sign(&mut foreign, &alice.id, &alice.user_signing.public());
    assert_eq!(refused(&bob.id, "D", foreign), "not found", "devices are signed by their user");
    assert_eq!(refused("@nobody:here.example", "D", object(json!({}))), "not found");
}

#[test]
fn a_device_that_is_named_often_is_told_once() {
    let world = World::new();
    let alice = register(&world, "alice", &["D"]);
    upload_device(&world, &alice, "D", Signer::new(1).device(&alice, "D")).unwrap();
    let query = QueryKeys { asker: alice.clone(), users: vec![(alice.clone(), vec!["D".to_owned(); 30])] };
    let answer = world.engine.read(&query).unwrap();
    let told = String::from_utf8(answer.to_vec()).unwrap();
    assert_eq!(told.matches("\"device_id\":\"D\"").count(), 1);
}

#[test]
fn a_user_has_a_limited_amount_of_signatures_on_a_key() {
    let world = World::new();
    let alice = User::new(&world, "alice", 10);
    store(&world, alice.keys()).unwrap();
    let with = |names: std::ops::Range<usize>, bytes: usize| {
        let mut keys = alice.device.device(&alice.id, "D");
        for name in names {
            keys["signatures"][&alice.id][format!("future:{name}")] = json!("s".repeat(bytes));
        }
        keys
    };
    let count = || {
        let answer = query(&world, &alice.id, &[&alice.id]);
        answer["device_keys"][&alice.id]["D"]["signatures"][&alice.id].as_object().unwrap().len()
    };
    let upload = |keys| kind(upload_device(&world, &alice.id, "D", keys));
    let longest = signatures::SIGNATURE_BYTES_MAX;
    let most = signatures::ON_DEVICE_BYTES_MAX / (longest + "future:10".len());
    assert_eq!(upload(with(0..most + 1, longest)), "too large", "at once");
    assert_eq!(count(), 1, "nothing of a refused request is stored");
    assert_eq!(upload(with(0..most, longest)), "ok");
    assert_eq!(upload(with(most..most + 3, longest)), "too large", "one after the other");
    assert_eq!(count(), most + 1);
    // Other signatures in the place of those that are known are no more than before.
    assert_eq!(upload(with(0..3, 100)), "ok");
    assert_eq!(upload(with(most..most + 3, longest)), "ok");
    // Small ones, until there is no place for another.
    let full = (most + 3..).take_while(|name| upload(with(*name..name + 1, 85)) == "ok").count();
    assert!((1..10).contains(&full), "{full}");
    let mut signed = alice.device.device(&alice.id, "D");
    alice.self_signing.sign(&mut signed, &alice.id, &alice.self_signing.public());
    let failures = alice.sign(&world, &alice.id, "D", signed);
    assert_eq!(kind::<()>(Err(failures.into_iter().next().unwrap().error)), "too large");
}

#[test]
fn new_identity_keys_end_what_was_signed_of_the_old() {
    let world = World::new();
    let alice = User::new(&world, "alice", 10);
    store(&world, alice.keys()).unwrap();
    let mut device = alice.device.device(&alice.id, "D");
    alice.self_signing.sign(&mut device, &alice.id, &alice.self_signing.public());
    assert!(alice.sign(&world, &alice.id, "D", device).is_empty());
    let new = Signer::new(77).device(&alice.id, "D");
    upload_device(&world, &alice.id, "D", new.clone()).unwrap();
    let seen = &query(&world, &alice.id, &[&alice.id])["device_keys"][&alice.id]["D"];
    assert_eq!(seen["signatures"], new["signatures"]);
}
