//! What is told of users of whom nobody knows whether they are in a room, because its members are not all known.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::{
    room::{RoomCtx, servers},
    store::{
        Tx, schema,
        schema::{ParkedPdu, PartialJoin},
    },
};

const THIRD: &str = "third.example";

/// The members of the room are not all known: users of `servers` may be among them.
fn make_partial(world: &World, servers: &[&str]) {
    let supposed: Vec<String> = servers.iter().map(|server| (*server).to_owned()).collect();
    let make = |tx: &mut Tx| {
        let mut room = RoomCtx::load(tx, ROOM)?;
        room.head.partial_state = true;
        room.save(tx);
        let row = PartialJoin { event_id: "$join".into(), servers: supposed.clone() };
        tx.put(&schema::PARTIAL_JOINS, &room.num, &row);
        Ok(servers::suppose(tx, room.num, &supposed)?)
    };
    world.act(make).unwrap();
}

/// Whether the user has a number, which is kept for ever.
fn is_known(world: &World, user: &str) -> bool {
    world.ask(|reader| Ok(reader.user_num(user)?.is_some()))
}

fn typing(user: &str, typing: bool) -> (&'static str, Value) {
    ("m.typing", json!({"room_id": ROOM, "user_id": user, "typing": typing}))
}

#[test]
fn whom_a_server_makes_up_is_not_known_for_ever() {
    let world = world();
    make_partial(&world, &[THIRD]);
    let made_up = |number: usize| format!("@user{number}:third.example");
    let take = |user: &str| {
        let (kind, content) = receipt_of(user, "$none", None);
        world.pass_ms(1);
        take(&world, THIRD, &[json!({"edu_type": kind, "content": content})]).dropped
    };
    // As many as of a large server have read lately may wait.
    assert!((0..250).all(|number| take(&made_up(number)).is_empty()));
    let too_many = BTreeMap::from([("too_many_waiting", 1)]);
    assert!((250..300).all(|number| take(&made_up(number)) == too_many));
    assert!(is_known(&world, &made_up(249)));
    assert!(!(250..300).any(|number| is_known(&world, &made_up(number))));
    // Who is known does not suffer from that.
    world.join(ROOM, "@carl:third.example");
    assert!(take("@carl:third.example").is_empty());
    let users: Vec<String> = waiting_receipts(&world).into_iter().map(|(user, _, _)| user).collect();
    assert_eq!((users.len(), users.contains(&"@carl:third.example".to_owned())), (250, true));
}

#[test]
fn typing_is_shown_of_those_who_may_be_in_the_room() {
    let (carl, dan, banned) = ("@carl:third.example", "@dan:third.example", "@banned:third.example");
    let world = world();
    world.member(ROOM, ALICE, banned, "ban").unwrap();
    let acl = json!({"deny": ["shut-out.example"], "allow": ["*"]});
    world.state(ROOM, ALICE, "m.room.server_acl", "", acl);
    receive(&world, THIRD, &[typing(carl, true)]);
    assert_eq!(typists(&world), Value::Null, "all members are known");
    make_partial(&world, &[THIRD, "shut-out.example"]);
    receive(&world, THIRD, &[typing(banned, true), typing(dan, false)]);
    receive(&world, "fourth.example", &[typing("@eve:fourth.example", true)]);
    receive(&world, "shut-out.example", &[typing("@eve:shut-out.example", true)]);
    assert_eq!(typists(&world), Value::Null);
    receive(&world, THIRD, &[typing(carl, true)]);
    receive(&world, THERE, &[typing(BOB, true)]);
    assert_eq!(typists(&world), json!({"user_ids": [BOB, carl]}));
    receive(&world, THIRD, &[typing(carl, false)]);
    assert_eq!(typists(&world), json!({"user_ids": [BOB]}));
    // Nobody becomes known by what says nothing of them.
    assert!(is_known(&world, carl) && !is_known(&world, dan));
}

#[test]
fn who_types_and_is_made_up_is_not_known_for_ever() {
    let world = world();
    make_partial(&world, &[THIRD]);
    let made_up = |number: usize| format!("@user{number}:third.example");
    for number in 0..1_100 {
        receive(&world, THIRD, &[typing(&made_up(number), true), typing(&made_up(number), false)]);
    }
    assert!(is_known(&world, &made_up(999)));
    assert!(!(1_000..1_100).any(|number| is_known(&world, &made_up(number))));
    // Who is known types on.
    receive(&world, THIRD, &[typing(&made_up(7), true)]);
    assert_eq!(typists(&world), json!({"user_ids": [made_up(7)]}));
}

/// A join of the user has come, and waits for what is before it.
fn park_join(world: &World, user: &str) {
    let join = json!({"type": "m.room.member", "state_key": user, "content": {"membership": "join"}});
    let (since_ms, json) = (world.engine.now_ms(), join.to_string().into_bytes());
    let row = ParkedPdu { origin: "fourth.example".into(), since_ms, json };
    let park = |tx: &mut Tx| {
        let room = tx.room_num(ROOM)?.unwrap();
        tx.put(&schema::PARKED_PDUS, &(room, "$join".to_owned()), &row);
        Ok(())
    };
    world.act(park).unwrap();
}

#[test]
fn receipts_of_a_user_whose_join_waits_wait_with_it() {
    const DORA: &str = "@dora:third.example";
    const EVE: &str = "@eve:third.example";
    for is_given_up in [false, true] {
        let world = world();
        let event_id = world.message(ROOM, ALICE, "hello");
        let tell = |user: &str| {
            let (kind, content) = receipt_of(user, &event_id, None);
            take(&world, THIRD, &[json!({"edu_type": kind, "content": content})]).dropped
        };
        let not_in_room = BTreeMap::from([("not_in_room", 1)]);
        assert_eq!(tell(DORA), not_in_room);
        park_join(&world, DORA);
        assert!(tell(DORA).is_empty());
        // Of somebody else nothing waits.
        assert_eq!(tell(EVE), not_in_room);
        assert!(!is_known(&world, EVE));
        settle(&world);
        assert_eq!(waiting_receipts(&world), [(DORA.to_owned(), String::new(), event_id.clone())]);
        assert_eq!(receipts_told(&world, StreamPos::ZERO), Value::Null);
        if is_given_up {
            let release = |tx: &mut Tx| {
                let room = tx.room_num(ROOM)?.unwrap();
                tx.delete(&schema::PARKED_PDUS, &(room, "$join".to_owned()));
                Ok(())
            };
            world.act(release).unwrap();
        } else {
            world.join(ROOM, DORA);
        }
        settle(&world);
        assert!(waiting_receipts(&world).is_empty());
        let expected = json!({&event_id: {"m.read": {DORA: {"ts": 5}}}});
        let told = receipts_told(&world, StreamPos::ZERO);
        assert_eq!(told, if is_given_up { Value::Null } else { expected });
    }
}

#[test]
fn whom_the_access_list_shuts_out_has_nothing_waiting_with_a_join() {
    let world = world();
    park_join(&world, "@dora:third.example");
    world.state(ROOM, ALICE, "m.room.server_acl", "", json!({"deny": [THIRD], "allow": ["*"]}));
    let (kind, content) = receipt_of("@dora:third.example", "$none", None);
    let taken = take(&world, THIRD, &[json!({"edu_type": kind, "content": content})]);
    assert_eq!(taken.dropped, BTreeMap::from([("not_in_room", 1)]));
    assert!(waiting_receipts(&world).is_empty());
}
