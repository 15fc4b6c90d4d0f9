//! Users of this server sign master keys of users of other servers, whether these are known here or not.

use serde_json::{Map, Value, json};

use super::{
    Signer,
    keys::{User, store},
    kind, query, register,
};
use crate::{
    command::{FollowDevices, ReceiveEdus, SignedKey, StoreRemoteDevices, ToldMasterKey, UploadSignatures},
    fixture::World,
    view::{UnknownMasterKey, UnknownMasterKeys, WithOwnSignatures, federation::StaleDeviceList},
};

const ROOM: &str = "!room:here.example";
const BOB: &str = "@bob:there.example";

type Key = Map<String, Value>;

/// Alice, who has all keys.
fn world() -> (World, User) {
    let world = World::new();
    let alice = User::new(&world, "alice", 10);
    store(&world, alice.keys()).unwrap();
    (world, alice)
}

/// Who signs in Alice's name with another key than hers.
fn forger(world: &World) -> User {
    let mut forger = User::new(world, "alice", 10);
    forger.user_signing = Signer::new(52);
    forger
}

/// Bob's master key, as his server tells it.
fn master(signer: &Signer) -> Key {
    let mut key = signer.cross_signing(BOB, "master");
    Signer::new(90).sign(&mut key, BOB, "B");
    key
}

/// The key as a client uploads it: with the new signature alone.
fn signed(alice: &User, key: &Key) -> Key {
    let mut key = key.clone();
    key.remove("signatures");
    alice.user_signing.sign(&mut key, &alice.id, &alice.user_signing.public());
    key
}

fn unknown(world: &World, alice: &User, owner: &str, object: &Key) -> Vec<UnknownMasterKey> {
    world.engine.read(&UnknownMasterKeys { signer: &alice.id, signed: vec![(owner, object)] }).unwrap()
}

/// What becomes of a signature on Bob's master key, of which his server has told this.
fn upload(
    world: &World,
    alice: &User,
    signer: &Signer,
    object: &Key,
    told: Vec<ToldMasterKey>,
) -> &'static str {
    let signed = SignedKey { user_id: BOB.to_owned(), key_id: signer.public(), object: object.clone() };
    let command = UploadSignatures { user_id: alice.id.clone(), signed: vec![signed], told };
    let failure = world.engine.write(command).wait().unwrap().pop();
    kind(failure.map_or(Ok(()), |failure| Err(failure.error)))
}

fn shown(world: &World, asker: &str, key: &Key) -> Option<Key> {
    world.engine.read(&WithOwnSignatures { asker, user_id: BOB, key }).unwrap()
}

fn follow(world: &World) -> Vec<String> {
    world.engine.write(FollowDevices { user_ids: vec![BOB.to_owned()] }).wait().unwrap()
}

#[test]
fn a_key_that_is_not_known_here_is_taken_from_its_server() {
    let (world, alice) = world();
    let carol = register(&world, "carol", &[]);
    let signer = Signer::new(50);
    let (told, object) = (master(&signer), signed(&alice, &master(&signer)));
    let ask = || unknown(&world, &alice, BOB, &object).pop().unwrap();
    assert_eq!(ask().user_id, BOB);
    assert_eq!(upload(&world, &alice, &signer, &object, Vec::new()), "not found");
    // The client has signed what Bob's server does not tell.
    let other = master(&Signer::new(51));
    assert_eq!(upload(&world, &alice, &signer, &object, vec![ask().told(other)]), "not found");
    let forged = signed(&forger(&world), &told);
    assert_eq!(upload(&world, &alice, &signer, &forged, vec![ask().told(told.clone())]), "not found");
    assert!(world.ask(|reader| Ok(reader.user_num(BOB)?)).is_none(), "nothing of it is kept");

    assert_eq!(upload(&world, &alice, &signer, &object, vec![ask().told(told.clone())]), "ok");
    assert_eq!(unknown(&world, &alice, BOB, &object), []);
    assert_eq!(upload(&world, &alice, &signer, &object, Vec::new()), "ok", "the same again");
    let mut both = told.clone();
    both["signatures"][&alice.id] = object["signatures"][&alice.id].clone();
    assert_eq!(shown(&world, &alice.id, &told), Some(both));
    assert_eq!(shown(&world, &carol, &told), None, "whom Alice verified is Alice's business");
    // Bob has another key by now, which she has not signed; when she does, it takes the place of this one.
    let signer = Signer::new(53);
    let (told, object) = (master(&signer), signed(&alice, &master(&signer)));
    assert_eq!(shown(&world, &alice.id, &told), None);
    let asked = unknown(&world, &alice, BOB, &object).pop().unwrap();
    assert_eq!(upload(&world, &alice, &signer, &object, vec![asked.told(told.clone())]), "ok");
    assert!(shown(&world, &alice.id, &told).is_some());
}

#[test]
fn nobody_is_asked_for_what_would_be_refused() {
    let (world, alice) = world();
    let key = master(&Signer::new(50));
    assert_eq!(unknown(&world, &alice, BOB, &key), [], "she has not signed it");
    let forged = signed(&forger(&world), &key);
    assert_eq!(unknown(&world, &alice, BOB, &forged), [], "it is not her key that has signed it");
    let object = signed(&alice, &key);
    for owner in ["@carol:here.example", "bob:there.example", "@bob", ""] {
        assert_eq!(unknown(&world, &alice, owner, &object), [], "{owner}");
    }
    let without_keys = User::new(&world, "carol", 70);
    assert_eq!(unknown(&world, &without_keys, BOB, &signed(&without_keys, &key)), []);
}

#[test]
fn of_whom_all_is_known_nobody_is_asked() {
    let (world, alice) = world();
    world.room(ROOM, &alice.id, None);
    world.join(ROOM, BOB);
    let object = signed(&alice, &master(&Signer::new(51)));
    assert_eq!(follow(&world), [BOB]);
    assert_eq!(follow(&world), [BOB], "his list has not come yet");
    assert_eq!(unknown(&world, &alice, BOB, &object).len(), 1);
    let list = StoreRemoteDevices {
        user_id: BOB.to_owned(),
        stream_id: 5,
        mark: world.engine.read(&StaleDeviceList(BOB)).unwrap(),
        master: Some(master(&Signer::new(50))),
        ..StoreRemoteDevices::default()
    };
    assert!(world.engine.write(list).wait().unwrap());
    assert_eq!(follow(&world), [""; 0]);
    assert_eq!(unknown(&world, &alice, BOB, &object), []);
    let object = signed(&alice, &master(&Signer::new(50)));
    assert_eq!(upload(&world, &alice, &Signer::new(50), &object, Vec::new()), "ok");
    let answer = query(&world, &alice.id, &[BOB]);
    assert_eq!(
        answer["master_keys"][BOB]["signatures"][&alice.id], object["signatures"][&alice.id],
        "it is answered for from here"
    );
}

#[test]
fn what_was_told_meanwhile_is_later_than_what_was_asked_for() {
    let (world, alice) = world();
    world.room(ROOM, &alice.id, None);
    world.join(ROOM, BOB);
    follow(&world);
    let old = Signer::new(50);
    let object = signed(&alice, &master(&old));
    let asked = unknown(&world, &alice, BOB, &object).pop().unwrap();
    let new = master(&Signer::new(51));
    let content = json!({"user_id": BOB, "master_key": new});
    let edu = json!({"edu_type": "m.signing_key_update", "content": content});
    world.engine.write(ReceiveEdus::new("there.example", [&edu])).wait().unwrap();
    assert_eq!(upload(&world, &alice, &old, &object, vec![asked.told(master(&old))]), "not found");
    let object = signed(&alice, &new);
    assert_eq!(unknown(&world, &alice, BOB, &object), []);
    assert_eq!(upload(&world, &alice, &Signer::new(51), &object, Vec::new()), "ok");
    assert!(shown(&world, &alice.id, &new).is_some());
}
