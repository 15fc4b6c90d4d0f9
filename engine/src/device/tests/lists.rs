//! Who is told of whose devices.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Signer,
    keys::{User, store},
    register, upload_device, user_id,
};
use crate::{
    command::{Command, DoubtDeviceLists, FOLLOW_BATCH, FollowDevices, RemoteDevice, StoreRemoteDevices},
    core::num::StreamPos,
    device::lists::{self, RoomChanges},
    fixture::{World, observed::Observed},
    store::Tx,
    view::{ChangedUsers, HaveDevices, KeyChanges, Sync, SyncToken, federation::StaleDeviceList},
};

const ROOM: &str = "!room:here.example";
const OTHER: &str = "!other:here.example";

fn changes(world: &World, user: &str, from: StreamPos) -> ChangedUsers {
    let view = KeyChanges { user_id: user.to_owned(), from, to: StreamPos::MAX };
    world.engine.read(&view).unwrap()
}

fn expect(world: &World, user: &str, from: StreamPos, changed: &[&str], left: &[&str]) {
    let found = changes(world, user, from);
    let ids = |names: &[&str]| names.iter().map(|name| user_id(name)).collect::<Vec<_>>();
    let (mut told, mut gone) = (found.changed, found.left);
    told.sort();
    gone.sort();
    assert_eq!((told, gone), (ids(changed), ids(left)), "as told to {user}");
}

/// What `/sync` says of device lists, as it is when nothing changed.
fn synced(world: &World, user: &str, from: StreamPos) -> Value {
    let sync = Sync {
        user_id: user.to_owned(),
        device_id: None,
        since: Some(SyncToken { pos: from, to_device: from }),
        filter: Arc::default(),
        full_state: false,
        state_after: None,
        waits: false,
    };
    let body: Value = serde_json::from_slice(&world.engine.read(&sync).unwrap().body).unwrap();
    let lists = body["device_lists"].clone();
    if lists.is_null() { json!({"changed": [], "left": []}) } else { lists }
}

fn new_keys(world: &World, user: &str, seed: u8) {
    upload_device(world, user, "D", Signer::new(seed).device(user, "D")).unwrap();
}

/// Alice and Bob share a room; Carol is alone in another.
fn world() -> (World, String, String, String) {
    let world = World::new();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| register(&world, name, &["D"]));
    world.room(ROOM, &alice, None);
    world.join(ROOM, &bob);
    world.room(OTHER, &carol, None);
    (world, alice, bob, carol)
}

#[test]
fn who_shares_a_room_is_told_of_new_keys() {
    let (world, alice, bob, carol) = world();
    let from = world.engine.position();
    new_keys(&world, &alice, 1);
    for (user, told) in [(&alice, true), (&bob, true), (&carol, false)] {
        expect(&world, user, from, if told { &["alice"] } else { &[] }, &[]);
    }
    let from = world.engine.position();
    new_keys(&world, &alice, 1);
    expect(&world, &bob, from, &[], &[]);
    assert_eq!(world.engine.position(), from, "the same keys are no news");
}

#[test]
fn coming_together_and_going_apart() {
    let (world, alice, bob, carol) = world();
    let from = world.engine.position();
    world.join(ROOM, &carol);
    expect(&world, &alice, from, &["carol"], &[]);
    expect(&world, &carol, from, &["alice", "bob"], &[]);
    world.join(OTHER, &bob);
    let from = world.engine.position();
    world.leave(ROOM, &carol);
    expect(&world, &alice, from, &[], &["carol"]);
    expect(&world, &carol, from, &[], &["alice"]);
    expect(&world, &bob, from, &[], &[]);
    new_keys(&world, &carol, 1);
    expect(&world, &alice, from, &[], &["carol"]);
    expect(&world, &bob, from, &["carol"], &[]);
    let from = world.engine.position();
    world.leave(OTHER, &bob);
    expect(&world, &bob, from, &[], &["carol"]);
    expect(&world, &carol, from, &[], &["bob"]);
}

#[test]
fn who_came_and_went_in_between_is_no_change() {
    let (world, alice, _, carol) = world();
    let from = world.engine.position();
    world.join(ROOM, &carol);
    world.leave(ROOM, &carol);
    expect(&world, &alice, from, &[], &["carol"]);
}

#[test]
fn who_came_back_in_between_is_told_of_what_was_missed() {
    let (world, alice, bob, _) = world();
    let from = world.engine.position();
    world.leave(ROOM, &bob);
    new_keys(&world, &alice, 1);
    world.join(ROOM, &bob);
    expect(&world, &bob, from, &["alice"], &[]);
    assert_eq!(synced(&world, &bob, from), json!({"changed": [alice], "left": []}));
}

#[test]
fn who_was_there_for_a_moment_follows_nobody() {
    let (world, alice, _, carol) = world();
    let from = world.engine.position();
    world.join(ROOM, &carol);
    new_keys(&world, &alice, 1);
    world.leave(ROOM, &carol);
    assert_eq!(synced(&world, &carol, from)["changed"], json!([]));
}

#[test]
fn who_signs_keys_without_sharing_a_room_tells_their_own_devices() {
    let world = World::new();
    let [alice, carol] = [("alice", 20), ("carol", 30)].map(|(name, seed)| User::new(&world, name, seed));
    for user in [&alice, &carol] {
        store(&world, user.keys()).unwrap();
    }
    let from = world.engine.position();
    let mut master = carol.master.cross_signing(&carol.id, "master");
    alice.user_signing.sign(&mut master, &alice.id, &alice.user_signing.public());
    assert!(alice.sign(&world, &carol.id, &carol.master.public(), master).is_empty());
    expect(&world, &alice.id, from, &["carol"], &[]);
    assert_eq!(synced(&world, &alice.id, from), json!({"changed": [carol.id], "left": []}));
    expect(&world, &carol.id, from, &[], &[]);
    // Also if something else happened to the user in between.
    world.room(ROOM, &alice.id, None);
    expect(&world, &alice.id, from, &["carol"], &[]);
    assert_eq!(synced(&world, &alice.id, from), json!({"changed": [carol.id], "left": []}));
}

/// How many rows it takes a user of so many rooms to learn that somebody has new keys.
fn rows_of_news(rooms: usize) -> usize {
    let backend = Observed::counting();
    let world = World::on(backend.clone());
    let [alice, bob] = ["alice", "bob"].map(|name| register(&world, name, &["D"]));
    let room_ids: Vec<String> = (0..rooms).map(|number| format!("!{number}:here.example")).collect();
    for room_id in &room_ids {
        world.room(room_id, &alice, None);
    }
    world.join(&room_ids[0], &bob);
    let from = world.engine.position();
    new_keys(&world, &bob, 1);
    let to = world.engine.position();
    let count = |tx: &mut Tx| {
        let (alice, bob) = (tx.user_num(&alice)?.unwrap(), tx.user_num(&bob)?.unwrap());
        let room = tx.room_num(&room_ids[0])?.unwrap();
        let rooms = RoomChanges { with_news: &[room], ..RoomChanges::default() };
        let before = backend.observer.rows_read();
        let found = lists::between(tx, alice, from, to, rooms)?;
        assert!(found.changed.contains(&bob));
        Ok(backend.observer.rows_read() - before)
    };
    world.act(count).unwrap()
}

#[test]
fn news_of_devices_cost_the_same_in_any_number_of_rooms() {
    assert_eq!(rows_of_news(2), rows_of_news(50));
}

#[test]
fn who_is_invited_is_told_nothing_of_members() {
    let (world, alice, bob, carol) = world();
    let from = world.engine.position();
    world.member(ROOM, &alice, &carol, "invite").unwrap();
    expect(&world, &carol, from, &[], &[]);
    // Who was there, is out, and is invited again does lose the others.
    let from = world.engine.position();
    world.leave(ROOM, &bob);
    world.member(ROOM, &alice, &bob, "invite").unwrap();
    expect(&world, &bob, from, &[], &["alice"]);
    assert_eq!(synced(&world, &bob, from), json!({"changed": [], "left": [alice]}));
}

#[test]
fn who_is_invited_or_knocks_may_be_written_for_by_those_in_the_room() {
    let (world, alice, bob, carol) = world();
    world.state(ROOM, &alice, "m.room.join_rules", "", json!({"join_rule": "knock"}));
    for (sender, membership) in [(&alice, "invite"), (&carol, "knock")] {
        let from = world.engine.position();
        world.member(ROOM, sender, &carol, membership).unwrap();
        for user in [&alice, &bob] {
            expect(&world, user, from, &["carol"], &[]);
            assert_eq!(synced(&world, user, from), json!({"changed": [carol], "left": []}));
        }
        expect(&world, &carol, from, &[], &[]);
        world.leave(ROOM, &carol);
        expect(&world, &alice, from, &[], &[]);
    }
    let from = world.engine.position();
    world.member(ROOM, &alice, "@dora:there.example", "invite").unwrap();
    assert_eq!(changes(&world, &alice, from).changed, ["@dora:there.example"]);
}

#[test]
fn who_has_left_and_is_invited_again_is_not_gone() {
    let (world, alice, bob, _) = world();
    let from = world.engine.position();
    world.leave(ROOM, &bob);
    new_keys(&world, &bob, 1);
    let between = world.engine.position();
    expect(&world, &alice, from, &[], &["bob"]);
    world.member(ROOM, &alice, &bob, "invite").unwrap();
    for from in [from, between] {
        expect(&world, &alice, from, &["bob"], &[]);
        assert_eq!(synced(&world, &alice, from), json!({"changed": [bob], "left": []}));
    }
}

#[test]
fn who_comes_into_a_room_learns_of_those_invited_there() {
    let (world, alice, bob, carol) = world();
    let dora = register(&world, "dora", &["D"]);
    world.member(ROOM, &alice, &carol, "invite").unwrap();
    let from = world.engine.position();
    world.join(ROOM, &dora);
    expect(&world, &dora, from, &["alice", "bob", "carol"], &[]);
    assert_eq!(synced(&world, &dora, from), json!({"changed": [alice, bob, carol], "left": []}));
    let from = world.engine.position();
    world.leave(ROOM, &dora);
    expect(&world, &dora, from, &[], &["alice", "bob"]);
}

#[test]
fn only_what_lies_between_the_positions_is_told() {
    let (world, alice, bob, _) = world();
    new_keys(&world, &alice, 1);
    let from = world.engine.position();
    new_keys(&world, &alice, 2);
    let to = world.engine.position();
    new_keys(&world, &bob, 3);
    let found = world.ask(|reader| {
        let user = reader.user_num(&bob)?.unwrap();
        let found = lists::between(reader, user, from, to, RoomChanges::default())?;
        found.changed.into_iter().map(|user| Ok(reader.user_id(user)?.to_string())).collect()
    });
    let found: Vec<String> = found;
    assert_eq!(found, [alice]);
}

#[test]
fn who_comes_from_a_database_that_was_lost_asks_for_everybody_anew() {
    let (world, alice, bob, _) = world();
    let dora = register(&world, "dora", &["D"]);
    world.member(ROOM, &alice, &dora, "invite").unwrap();
    let here = world.engine.position();
    expect(&world, &alice, here, &[], &[]);
    // Given out after the copy was made.
    let lost = StreamPos(here.0 + 1);
    expect(&world, &alice, lost, &["alice", "bob", "dora"], &[]);
    assert_eq!(synced(&world, &alice, lost), json!({"changed": [alice, bob, dora], "left": []}));
    // Who is only invited encrypts for nobody there.
    expect(&world, &dora, lost, &["dora"], &[]);
}

#[test]
fn who_shares_a_room_may_be_followed_and_no_write_holds_the_lanes_of_many() {
    const DAVE: &str = "@dave:there.example";
    let (world, ..) = world();
    assert_eq!(world.engine.read(&HaveDevices(vec![DAVE])).unwrap(), [false]);
    world.join(ROOM, DAVE);
    assert_eq!(world.engine.read(&HaveDevices(vec![DAVE])).unwrap(), [true]);
    let mut user_ids: Vec<String> = (0..FOLLOW_BATCH).map(|n| format!("@u{n}:there.example")).collect();
    user_ids.push(DAVE.to_owned());
    let mut followed = Vec::new();
    for batch in FollowDevices::in_batches(&user_ids) {
        assert!(batch.lanes().hashes().count() <= FOLLOW_BATCH);
        followed.extend(world.engine.write(batch).wait().unwrap());
    }
    assert_eq!(followed, [DAVE]);
}

#[test]
fn a_list_that_comes_again_as_it_was_is_told_only_if_somebody_asked_meanwhile() {
    const DAVE: &str = "@dave:there.example";
    let (world, alice, ..) = world();
    world.join(ROOM, DAVE);
    let asks = || world.engine.write(FollowDevices { user_ids: vec![DAVE.to_owned()] }).wait().unwrap();
    // Whom Alice is told of when the list has come.
    let comes = |stream_id: u64, device_ids: &[&str]| {
        let devices = device_ids.iter().map(|device_id| RemoteDevice {
            device_id: (*device_id).to_owned(),
            name: None,
            keys: Some(Signer::new(1).device(DAVE, device_id)),
        });
        let list = StoreRemoteDevices {
            user_id: DAVE.to_owned(),
            stream_id,
            mark: world.engine.read(&StaleDeviceList(DAVE)).unwrap(),
            devices: devices.collect(),
            ..StoreRemoteDevices::default()
        };
        let from = world.engine.position();
        assert!(world.engine.write(list).wait().unwrap());
        let told = changes(&world, &alice, from).changed;
        world.engine.write(DoubtDeviceLists { user_ids: vec![DAVE.to_owned()] }).wait().unwrap();
        told
    };
    assert_eq!(asks(), [DAVE]);
    assert_eq!(comes(1, &[]), [DAVE], "what she was answered before may be of another time");
    assert_eq!(comes(2, &[]), [""; 0]);
    assert_eq!(comes(3, &["P"]), [DAVE]);
    assert_eq!(comes(4, &["P"]), [""; 0]);
    assert_eq!(asks(), [DAVE]);
    assert_eq!(comes(5, &["P"]), [DAVE]);
    assert_eq!(comes(6, &["P"]), [""; 0]);
    assert_eq!(comes(7, &["P", "Q"]), [DAVE]);
    assert_eq!(comes(8, &["Q"]), [DAVE]);
}
