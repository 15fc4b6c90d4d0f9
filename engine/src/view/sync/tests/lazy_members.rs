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
