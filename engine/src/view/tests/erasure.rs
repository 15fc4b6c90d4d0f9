//! Who asked to be forgotten: what others are shown of what they sent.

use super::*;
use crate::{command::Deactivate, core::filter::Filter, device::tests::register, store::Memory};

const CAROL: &str = "@carol:here.example";
const DAVE: &str = "@dave:here.example";
const EVE: &str = "@eve:here.example";
const SECRET: &str = "nobody is to know";

/// Alice has an account, and shares the room with Bob.
fn with_account() -> World {
    let world = world();
    register(&world, "alice", &[]);
    world
}

fn erase(world: &World) {
    world.engine.write(Deactivate { user_id: ALICE.into(), erase: true }).wait().unwrap();
}

fn one(room_id: &str, event_id: &str, user: &str) -> OneEvent {
    OneEvent { room_id: room_id.into(), event_id: event_id.into(), user: user.into(), device: None }
}

fn content(world: &World, room_id: &str, event_id: &str, user: &str) -> Value {
    read(world, &one(room_id, event_id, user))["content"].clone()
}

/// What the user can read of the room, by where: `message` has an edit, and `root` a thread.
fn everything(world: &World, user: &str, message: &str, root: &str) -> Vec<(&'static str, String)> {
    let related = |event_id: &str| RelatedEvents {
        room_id: ROOM.into(),
        event_id: event_id.into(),
        user: user.into(),
        device: None,
        rel_type: None,
        kind: None,
        from: None,
        to: None,
        forwards: false,
        limit: None,
        recurse: false,
    };
    let threads = Threads {
        room_id: ROOM.into(),
        user: user.into(),
        device: None,
        participated: false,
        limit: None,
        from: None,
    };
    let context = EventContext {
        event: one(ROOM, message, user),
        limit: Some(100),
        filter: RoomEventFilter::default(),
    };
    let sync = |filter: &str| Sync {
        user_id: user.into(),
        device_id: None,
        since: None,
        filter: Arc::new(Filter::parse(filter.as_bytes()).unwrap()),
        full_state: false,
        state_after: None,
        waits: false,
    };
    let engine = &world.engine;
    let bodies = [
        ("the message", engine.read(&one(ROOM, message, user)).unwrap()),
        ("the root", engine.read(&one(ROOM, root, user)).unwrap()),
        ("context", engine.read(&context).unwrap()),
        ("messages", engine.read(&Messages { limit: Some(100), ..messages(user) }).unwrap()),
        ("edits", engine.read(&related(message)).unwrap()),
        ("the thread", engine.read(&related(root)).unwrap()),
        ("threads", engine.read(&threads).unwrap()),
        ("sync", engine.read(&sync("{}")).unwrap().body),
        ("sync of whole events", engine.read(&sync(r#"{"event_format":"federation"}"#)).unwrap().body),
    ];
    bodies.map(|(place, body)| (place, String::from_utf8(body).unwrap())).into()
}

#[test]
fn who_comes_after_an_erasure_is_shown_nothing_but_redacted_copies() {
    let world = with_account();
    let message = world.message(ROOM, ALICE, SECRET);
    let edited = json!({"body": SECRET, "m.new_content": {"body": SECRET}});
    let edit = world.relate(ROOM, ALICE, "m.replace", &message, edited);
    let root = world.message(ROOM, BOB, "root");
    let reply = world.relate(ROOM, ALICE, "m.thread", &root, json!({"body": SECRET}));
    let topic = world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "for all"}));
    erase(&world);
    world.join(ROOM, CAROL);
    for (place, body) in everything(&world, BOB, &message, &root) {
        assert!(body.contains(SECRET), "{place}: {body}");
    }
    for (place, body) in everything(&world, CAROL, &message, &root) {
        assert!(!body.contains(SECRET), "{place}: {body}");
    }
    let all = |user: &str| read(&world, &Messages { limit: Some(100), ..messages(user) })["chunk"].clone();
    assert_eq!(ids(&all(BOB)), ids(&all(CAROL)), "no event is missing");
    for event_id in [&message, &edit, &reply] {
        let shown = read(&world, &one(ROOM, event_id, CAROL));
        assert_eq!((&shown["content"], &shown["type"]), (&json!({}), &json!("m.room.message")));
        assert_eq!((&shown["sender"], shown["unsigned"].get("m.relations")), (&json!(ALICE), None));
    }
    assert_eq!(content(&world, ROOM, &root, CAROL)["body"], "root");
    assert_eq!(content(&world, ROOM, &topic, CAROL), json!({"topic": "for all"}));
}

#[test]
fn who_could_see_an_event_until_the_erasure_goes_on_seeing_it() {
    let world = with_account();
    let open = "!open:here.example";
    world.room(open, ALICE, Some("world_readable"));
    let readable = world.message(open, ALICE, SECRET);
    let first = world.message(ROOM, ALICE, SECRET);
    world.join(ROOM, CAROL);
    world.leave(ROOM, CAROL);
    let second = world.message(ROOM, ALICE, SECRET);
    world.join(ROOM, DAVE);
    erase(&world);
    let sees =
        |room_id: &str, event_id: &str, user: &str| content(&world, room_id, event_id, user) != json!({});
    assert!(sees(ROOM, &first, CAROL), "who has left saw it while they were there");
    let renamed = json!({"membership": "join", "displayname": "Dave"});
    world.state(ROOM, DAVE, "m.room.member", DAVE, renamed);
    world.join(ROOM, CAROL);
    world.join(ROOM, EVE);
    for (user, expected) in [
        (BOB, [true, true]),
        // Came back only after the erasure to what was said without her.
        (CAROL, [true, false]),
        (DAVE, [true, true]),
        (EVE, [false, false]),
    ] {
        assert_eq!([&first, &second].map(|event_id| sees(ROOM, event_id, user)), expected, "{user}");
    }
    world.leave(ROOM, DAVE);
    assert!(sees(ROOM, &second, DAVE));
    assert!(!sees(open, &readable, EVE), "whoever only looks in has not seen it either");
    assert!(sees(open, &readable, ALICE));
}

#[test]
fn an_erasure_outlives_a_restart() {
    let backend = Arc::new(Memory::default());
    let world = World::on(backend.clone());
    register(&world, "alice", &[]);
    world.room(ROOM, ALICE, None);
    world.join(ROOM, BOB);
    let event_id = world.message(ROOM, ALICE, SECRET);
    erase(&world);
    drop(world);
    let world = World::on(backend);
    world.join(ROOM, CAROL);
    assert_eq!(content(&world, ROOM, &event_id, CAROL), json!({}));
    assert_eq!(content(&world, ROOM, &event_id, BOB)["body"], SECRET);
}

#[test]
fn filters_do_not_tell_what_is_not_shown() {
    let world = with_account();
    let picture = json!({"msgtype": "m.image", "body": "x", "url": "mxc://here.example/x"});
    let event_id = world.send(ROOM, ALICE, "m.room.message", picture);
    erase(&world);
    world.join(ROOM, CAROL);
    let found = |user: &str, contains_url: bool| {
        let wanted = filter(&json!({"contains_url": contains_url, "types": ["m.room.message"]}));
        let view = Messages { filter: wanted, limit: Some(100), ..messages(user) };
        ids(&read(&world, &view)["chunk"]).contains(&event_id)
    };
    assert_eq!([found(BOB, true), found(BOB, false)], [true, false]);
    assert_eq!([found(CAROL, true), found(CAROL, false)], [false, true]);
}
