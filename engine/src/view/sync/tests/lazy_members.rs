//! Which membership events come to a client that loads members lazily.

use super::*;

const DAVE: &str = "@dave:here.example";
const LAZY: &str = r#"{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":1}}}"#;

/// A room with one message of Alice's, which the first sync with a timeline of one event brings.
fn busy() -> World {
    let world = world();
    world.message(ROOM, ALICE, "hello");
    world
}

fn first(world: &World, user: &str) -> (Value, SyncToken) {
    let nothing = SyncToken { pos: StreamPos::ZERO, to_device: StreamPos::ZERO };
    let (answer, given) = read(world, &Sync { since: None, ..sync(user, nothing, LAZY) });
    (answer["rooms"]["join"][ROOM].clone(), given.token)
}

fn next(world: &World, user: &str, since: SyncToken) -> (Value, SyncToken) {
    let (answer, given) = read(world, &sync(user, since, LAZY));
    (answer["rooms"]["join"][ROOM].clone(), given.token)
}

/// Whose membership events are under `key`, sorted.
fn members(room: &Value, key: &str) -> Vec<String> {
    let events = room[key]["events"].as_array().cloned().unwrap_or_default();
    let members = events.iter().filter(|event| event["type"] == "m.room.member");
    let mut users: Vec<String> =
        members.map(|event| event["state_key"].as_str().unwrap().to_owned()).collect();
    users.sort();
    users
}

#[test]
fn a_new_room_comes_with_the_members_that_it_is_named_after() {
    let world = busy();
    let (room, since) = first(&world, BOB);
    assert_eq!(room["summary"]["m.heroes"], json!([ALICE, CAROL]));
    assert_eq!(members(&room, "state"), [ALICE, BOB, CAROL]);
    // Who stands neither in the summary nor in the timeline does not come.
    let users: Vec<String> = (0..9).map(|number| format!("@{number}:here.example")).collect();
    for user in &users {
        world.join(ROOM, user);
    }
    world.join(ROOM, DAVE);
    world.message(ROOM, ALICE, "welcome");
    let (room, _) = first(&world, DAVE);
    let named = room["summary"]["m.heroes"].as_array().unwrap().len();
    assert_eq!((named, members(&room, "state").len()), (5, 6));
    // In an answer with messages only, nobody is told of again.
    world.message(ROOM, ALICE, "back to work");
    let (_, since) = next(&world, BOB, since);
    world.message(ROOM, ALICE, "done");
    let (room, _) = next(&world, BOB, since);
    assert_eq!((&room["state"], &room["summary"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_room_with_a_name_is_named_after_nobody() {
    let world = busy();
    world.state(ROOM, ALICE, "m.room.name", "", json!({"name": "The burrow"}));
    world.message(ROOM, ALICE, "hello");
    let (room, _) = first(&world, BOB);
    assert_eq!(room["summary"], json!({"m.joined_member_count": 3, "m.invited_member_count": 0}));
    assert_eq!(members(&room, "state"), [ALICE, BOB]);
}

#[test]
fn who_becomes_a_name_of_the_room_is_told_of_when_the_summary_is() {
    let world = busy();
    let users: Vec<String> = (1..=6).map(|number| format!("@{number}:here.example")).collect();
    for user in &users {
        world.join(ROOM, user);
    }
    world.message(ROOM, ALICE, "so many");
    let (room, since) = first(&world, BOB);
    let heroes = json!([ALICE, CAROL, users[0], users[1], users[2]]);
    assert_eq!(room["summary"]["m.heroes"], heroes);
    world.leave(ROOM, CAROL);
    let (room, since) = next(&world, BOB, since);
    assert_eq!(room["summary"]["m.heroes"], json!([ALICE, users[0], users[1], users[2], users[3]]));
    // Carol's own is new to Bob in the timeline; how she stood before, he knows.
    assert_eq!(members(&room, "state"), [users[3].as_str()]);
    world.leave(ROOM, &users[0]);
    let (room, _) = next(&world, BOB, since);
    assert_eq!(members(&room, "state"), [users[4].as_str()]);
}

#[test]
fn heroes_come_with_the_state_at_the_end_too_and_with_the_full_state() {
    let world = busy();
    let (_, since) = first(&world, BOB);
    let after = Sync { state_after: Some("state_after"), ..sync(BOB, since, LAZY) };
    let whole = Sync { full_state: true, ..sync(BOB, since, LAZY) };
    let (answer, _) = read(&world, &whole);
    assert_eq!(members(&answer["rooms"]["join"][ROOM], "state"), [ALICE, BOB, CAROL]);
    world.join(ROOM, DAVE);
    let (answer, _) = read(&world, &after);
    let room = &answer["rooms"]["join"][ROOM];
    assert_eq!(room["summary"]["m.heroes"], json!([ALICE, CAROL, DAVE]));
    assert_eq!(members(room, "state_after"), [DAVE]);
}

#[test]
fn what_changed_is_told_of_members_who_said_nothing() {
    let world = busy();
    let (_, since) = first(&world, BOB);
    world.member(ROOM, ALICE, CAROL, "leave").unwrap();
    let end = Sync { state_after: Some("state_after"), ..sync(BOB, since, LAZY) };
    let (answer, _) = read(&world, &end);
    // Clients take nothing of the state from a timeline that comes with the state at its end.
    assert_eq!(members(&answer["rooms"]["join"][ROOM], "state_after"), [CAROL]);
    world.message(ROOM, ALICE, "who was that?");
    let (room, since) = next(&world, BOB, since);
    assert_eq!(room["timeline"]["limited"], true);
    assert_eq!(members(&room, "state"), [CAROL]);
    assert_eq!(room["summary"]["m.joined_member_count"], 2);
    // He has been given it now.
    world.join(ROOM, CAROL);
    let (_, since) = next(&world, BOB, since);
    world.message(ROOM, CAROL, "me");
    let (room, since) = next(&world, BOB, since);
    assert_eq!(members(&room, "state"), [CAROL]);
    world.message(ROOM, CAROL, "again");
    assert_eq!(next(&world, BOB, since).0["state"], Value::Null);
}

/// A room with a name, in which Alice has spoken last: nobody but her and who asks comes with it.
fn named() -> (World, String) {
    let world = world();
    let name = world.state(ROOM, ALICE, "m.room.name", "", json!({"name": "The burrow"}));
    world.message(ROOM, ALICE, "hello");
    (world, name)
}

/// Bob is told of Carol, once; then Alice speaks last again.
fn tell_of_carol(world: &World, since: SyncToken) -> SyncToken {
    world.message(ROOM, CAROL, "here");
    let (room, since) = next(world, BOB, since);
    assert_eq!(members(&room, "state"), [CAROL]);
    world.message(ROOM, CAROL, "still");
    let (room, since) = next(world, BOB, since);
    assert_eq!(members(&room, "state"), Vec::<String>::new());
    world.message(ROOM, ALICE, "good");
    next(world, BOB, since).1
}

#[test]
fn a_device_that_begins_anew_is_told_of_everybody_again() {
    let (world, _) = named();
    let since = tell_of_carol(&world, first(&world, BOB).1);
    // At the very position of its last sync.
    let (room, anew) = first(&world, BOB);
    assert_eq!((anew, members(&room, "state")), (since, vec![ALICE.to_owned(), BOB.to_owned()]));
    let since = tell_of_carol(&world, anew);
    let whole = Sync { full_state: true, ..sync(BOB, since, LAZY) };
    tell_of_carol(&world, read(&world, &whole).1.token);
}

#[test]
fn who_comes_back_into_a_room_is_told_of_everybody_again() {
    let (world, _) = named();
    let since = tell_of_carol(&world, first(&world, BOB).1);
    world.leave(ROOM, BOB);
    let (_, since) = next(&world, BOB, since);
    world.join(ROOM, BOB);
    world.message(ROOM, ALICE, "welcome back");
    let (room, since) = next(&world, BOB, since);
    assert_eq!(members(&room, "state"), [ALICE, BOB]);
    tell_of_carol(&world, since);
}

#[test]
fn one_device_that_begins_anew_changes_nothing_for_another() {
    let (world, _) = named();
    let since = tell_of_carol(&world, first(&world, BOB).1);
    world.act(|tx| Ok(tx.intern_text("OTHER")?)).unwrap();
    let other = Sync { device_id: Some("OTHER".into()), since: None, ..sync(BOB, since, LAZY) };
    read(&world, &other);
    world.message(ROOM, CAROL, "again");
    assert_eq!(next(&world, BOB, since).0["state"], Value::Null);
}

#[test]
fn members_of_an_answer_that_was_lost_come_again() {
    let (world, _) = named();
    let (_, since) = first(&world, BOB);
    world.message(ROOM, CAROL, "here");
    for _ in 0..2 {
        assert_eq!(members(&next(&world, BOB, since).0, "state"), [CAROL]);
    }
}

#[test]
fn a_room_that_loses_its_name_comes_with_whom_it_is_named_after() {
    let alias = json!({"alias": "#burrow:here.example"});
    for (kind, content, is_redacted) in [
        ("m.room.name", json!({"name": "The burrow"}), false),
        ("m.room.name", json!({"name": "The burrow"}), true),
        ("m.room.canonical_alias", alias, false),
    ] {
        let world = world();
        let event_id = world.state(ROOM, ALICE, kind, "", content);
        world.message(ROOM, ALICE, "hello");
        let both = [BOB, CAROL];
        let since = both.map(|user| {
            let (room, since) = first(&world, user);
            assert_eq!(room["summary"]["m.heroes"], Value::Null);
            since
        });
        match is_redacted {
            true => world.redact(ROOM, ALICE, &event_id),
            false => world.state(ROOM, ALICE, kind, "", json!({})),
        };
        // Both are told alike, whoever asks first.
        for ((user, since), other) in both.into_iter().zip(since).zip([CAROL, BOB]) {
            let (room, since) = next(&world, user, since);
            let mut heroes = vec![ALICE, other];
            heroes.sort_unstable();
            assert_eq!(room["summary"]["m.heroes"], json!(heroes), "{kind}");
            // Alice is known already.
            assert_eq!(members(&room, "state"), [other]);
            world.message(ROOM, ALICE, "as before");
            assert_eq!(next(&world, user, since).0["summary"], Value::Null);
        }
    }
}

#[test]
fn who_is_shown_no_members_is_told_how_many_there_are() {
    const NO_MEMBERS: &str =
        r#"{"room":{"state":{"not_types":["m.room.member"]},"timeline":{"not_types":["m.room.member"]}}}"#;
    let world = world();
    let since = start(&world, BOB);
    world.join(ROOM, DAVE);
    let (answer, given) = read(&world, &sync(BOB, since, NO_MEMBERS));
    let room = &answer["rooms"]["join"][ROOM];
    assert_eq!(room["summary"]["m.joined_member_count"], 4);
    assert_eq!((bodies(&answer), members(room, "state")), (Vec::<String>::new(), Vec::<String>::new()));
    world.message(ROOM, ALICE, "nothing new");
    let (answer, _) = read(&world, &sync(BOB, given.token, NO_MEMBERS));
    assert_eq!(
        (bodies(&answer), &answer["rooms"]["join"][ROOM]["summary"]),
        (vec!["nothing new".to_owned()], &Value::Null)
    );
}

#[test]
fn a_room_is_named_after_those_who_came_first() {
    let world = world();
    let users: Vec<String> = (1..=6).map(|number| format!("@{number}:here.example")).collect();
    for user in &users {
        world.join(ROOM, user);
    }
    // Those are known here before anybody of the other room, and come last there.
    let other = "!other:here.example";
    world.room(other, DAVE, None);
    for user in ["@z:here.example", "@y:here.example", "@x:here.example"] {
        world.join(other, user);
    }
    world.member(other, DAVE, ALICE, "invite").unwrap();
    world.leave(other, "@y:here.example");
    world.join(other, "@y:here.example");
    for user in &users {
        world.join(other, user);
    }
    let (answer, _) = read(&world, &Sync { since: None, ..sync(&users[5], start(&world, &users[5]), LAZY) });
    let heroes = json!([DAVE, "@z:here.example", "@x:here.example", ALICE, "@y:here.example"]);
    assert_eq!(answer["rooms"]["join"][other]["summary"]["m.heroes"], heroes);
}
