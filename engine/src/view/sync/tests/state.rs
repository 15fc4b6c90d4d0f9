//! A client that sets what it is told of the state, and then each state event of the timeline, has the room's state.

use std::collections::BTreeMap;

use super::*;
use crate::{command::ForgetRoom, core::num::RoomNum};

/// Event ids by type and state key.
type State = BTreeMap<(String, String), String>;

/// Filters that leave events out of timelines, and none out of the state.
const FILTERS: [&str; 6] = [
    "{}",
    r#"{"rooms":["!own:here.example"]}"#,
    r#"{"types":["m.room.message"]}"#,
    r#"{"types":["m.room.message"],"limit":1}"#,
    r#"{"types":[]}"#,
    r#"{"limit":0}"#,
];

struct Reading {
    filter: &'static str,
    since: Option<SyncToken>,
    held: State,
}

impl Reading {
    fn new(filter: &'static str) -> Self {
        Self { filter, since: None, held: State::new() }
    }

    fn sync(&mut self, world: &World) {
        let nothing = SyncToken { pos: StreamPos::ZERO, to_device: StreamPos::ZERO };
        let view = sync(BOB, nothing, &format!(r#"{{"room":{{"timeline":{},"state":{{}}}}}}"#, self.filter));
        let (answer, given) = read(world, &Sync { since: self.since, ..view });
        self.since = Some(given.token);
        let room = ["join", "leave"].map(|section| &answer["rooms"][section][ROOM]);
        for list in room.iter().flat_map(|room| [&room["state"], &room["timeline"]]) {
            for event in list["events"].as_array().into_iter().flatten() {
                let text = |name: &str| event[name].as_str().map(str::to_owned);
                if let Some(state_key) = text("state_key") {
                    self.held.insert((text("type").unwrap(), state_key), text("event_id").unwrap());
                }
            }
        }
    }
}

fn current(world: &World) -> State {
    world.ask(|reader| {
        let room: RoomNum = reader.room_num(ROOM)?.unwrap();
        let head = reader.get(&crate::store::schema::ROOM_HEADS, &room)?.unwrap();
        let mut state = State::new();
        for (key, num) in reader.state_entries(room, head.state)? {
            let key = (reader.text(key.kind())?.to_string(), reader.text(key.state_key())?.to_string());
            state.insert(key, reader.event(num)?.pdu()?.event_id.to_string());
        }
        Ok(state)
    })
}

fn is_in(world: &World, user: &str) -> bool {
    let key = ("m.room.member".to_owned(), user.to_owned());
    current(world).get(&key).is_some_and(|event_id| {
        world.ask(|reader| {
            let event = reader.event(reader.event_num(event_id)?.unwrap())?;
            Ok(event.pdu()?.membership() == Some("join"))
        })
    })
}

#[derive(Clone, Debug)]
enum Step {
    Message,
    Topic,
    Visibility(&'static str),
    Member(&'static str, &'static str),
    Kick,
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    let visibility = prop::sample::select(&["joined", "invited", "shared", "world_readable"][..]);
    let membership = prop::sample::select(&["join", "leave"][..]);
    prop_oneof![
        4 => Just(Step::Message),
        3 => Just(Step::Topic),
        1 => visibility.prop_map(Step::Visibility),
        2 => membership.clone().prop_map(|membership| Step::Member(CAROL, membership)),
        3 => membership.prop_map(|membership| Step::Member(BOB, membership)),
        1 => Just(Step::Kick),
        5 => Just(Step::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn who_sets_what_is_told_has_the_state(steps in prop::collection::vec(step(), 1..40)) {
        let world = World::new();
        world.room(ROOM, ALICE, Some("joined"));
        let mut readings = FILTERS.map(Reading::new);
        // Bob is known, so that he can ask.
        world.room("!own:here.example", BOB, None);
        for (number, step) in steps.into_iter().chain([Step::Member(BOB, "join"), Step::Sync]).enumerate() {
            // What the room's rules refuse does not happen.
            let _ = match step {
                Step::Message => {
                    world.try_send(ROOM, ALICE, "m.room.message", None, &json!({"body": "hello"}), None)
                }
                Step::Topic => {
                    world.try_send(ROOM, ALICE, "m.room.topic", Some(""), &json!({"topic": number}), None)
                }
                Step::Visibility(visibility) => {
                    let content = json!({"history_visibility": visibility});
                    world.try_send(ROOM, ALICE, "m.room.history_visibility", Some(""), &content, None)
                }
                Step::Member(user, membership) => world.member(ROOM, user, user, membership),
                Step::Kick => world.member(ROOM, ALICE, BOB, "leave"),
                Step::Sync => {
                    for reading in &mut readings {
                        reading.sync(&world);
                        if is_in(&world, BOB) {
                            prop_assert_eq!(&reading.held, &current(&world), "{}", reading.filter);
                        }
                    }
                    continue;
                }
            };
        }
    }
}

#[test]
fn a_timeline_is_limited_only_if_something_is_left_out() {
    let world = world();
    let since = start(&world, BOB);
    let topic = |number: usize| world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": number}));
    let limited = |filter: &str| {
        let (answer, _) = read(&world, &sync(BOB, since, &format!(r#"{{"room":{{"timeline":{filter}}}}}"#)));
        answer["rooms"]["join"][ROOM]["timeline"]["limited"].clone()
    };
    topic(1);
    world.message(ROOM, ALICE, "one");
    topic(2);
    assert_eq!(limited(r#"{"types":["m.room.message"],"limit":1}"#), false);
    assert_eq!(limited(r#"{"limit":0}"#), true);
    world.message(ROOM, ALICE, "two");
    assert_eq!(limited(r#"{"types":["m.room.message"],"limit":1}"#), true);
    assert_eq!(limited(r#"{"types":["m.room.message"],"limit":2}"#), false);
    assert_eq!(limited(r#"{"limit":4}"#), false);
    // What the user is not shown is not left out.
    ignore(&world, BOB, &[CAROL]);
    let (_, given) = read(&world, &sync(BOB, since, "{}"));
    world.message(ROOM, CAROL, "unheard");
    world.message(ROOM, ALICE, "heard");
    let (answer, _) = read(&world, &sync(BOB, given.token, r#"{"room":{"timeline":{"limit":1}}}"#));
    let timeline = &answer["rooms"]["join"][ROOM]["timeline"];
    assert_eq!((&timeline["limited"], bodies(&answer)), (&json!(false), vec!["heard".to_owned()]));
}

#[test]
fn an_invite_that_was_declined_and_forgotten_leaves_other_devices() {
    let world = World::new();
    world.room(ROOM, ALICE, None);
    world.room("!own:here.example", BOB, None);
    world.member(ROOM, ALICE, BOB, "invite").unwrap();
    let since = start(&world, BOB);
    world.leave(ROOM, BOB);
    let forget = ForgetRoom { room_id: ROOM.into(), user_id: BOB.into() };
    world.engine.write(forget).wait().unwrap();
    let (answer, given) = read(&world, &sync(BOB, since, "{}"));
    let left = &answer["rooms"]["leave"][ROOM]["timeline"]["events"];
    assert_eq!(left[0]["content"]["membership"], "leave");
    // What becomes of it later is no news of a room that is forgotten.
    world.member(ROOM, ALICE, BOB, "ban").unwrap();
    assert_eq!(read(&world, &sync(BOB, given.token, "{}")).0.get("rooms"), None);
}

#[test]
fn invites_by_who_is_ignored_are_not_shown() {
    let world = World::new();
    world.room(ROOM, ALICE, None);
    world.room("!own:here.example", BOB, None);
    let since = start(&world, BOB);
    ignore(&world, BOB, &[ALICE]);
    world.member(ROOM, ALICE, BOB, "invite").unwrap();
    let invites = |since| {
        let view =
            Sync { since, ..sync(BOB, SyncToken { pos: StreamPos::ZERO, to_device: StreamPos::ZERO }, "{}") };
        read(&world, &view).0["rooms"]["invite"].take()
    };
    assert_eq!([invites(None), invites(Some(since))], [Value::Null, Value::Null]);
    ignore(&world, BOB, &[]);
    assert!(invites(None)[ROOM].is_object());
}

#[test]
fn who_is_out_of_a_room_is_told_what_becomes_of_them_there_and_no_more() {
    let world = world();
    world.leave(ROOM, BOB);
    let mut since = start(&world, BOB);
    world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "not for Bob"}));
    let mut last = String::new();
    for membership in ["ban", "leave", "invite", "leave"] {
        last = world.member(ROOM, ALICE, BOB, membership).unwrap();
        let (answer, given) =
            read(&world, &Sync { state_after: Some("state_after"), ..sync(BOB, since, "{}") });
        since = given.token;
        let room = &answer["rooms"]["leave"][ROOM];
        if membership == "invite" {
            assert!(answer["rooms"]["invite"][ROOM].is_object() && room.is_null());
            continue;
        }
        let events = room["timeline"]["events"].as_array().unwrap();
        assert_eq!((events.len(), &events[0]["event_id"]), (1, &json!(last)), "{membership}");
        assert_eq!(room["state_after"]["events"], json!([]));
    }
    // Who begins anew is told of their time there, and of the end of it all.
    let view = sync(BOB, since, r#"{"room":{"include_leave":true}}"#);
    let (answer, _) = read(&world, &Sync { since: None, ..view });
    let room = &answer["rooms"]["leave"][ROOM];
    let events = room["timeline"]["events"].as_array().unwrap();
    assert_eq!(events.last().unwrap()["event_id"], last);
    assert_eq!(events[events.len() - 2]["content"]["membership"], "leave");
    assert!(!answer.to_string().contains("not for Bob"));
}

#[test]
fn who_was_in_a_room_for_a_moment_is_told_of_that_moment_alone() {
    let world = world();
    world.leave(ROOM, BOB);
    let since = start(&world, BOB);
    world.join(ROOM, BOB);
    world.message(ROOM, ALICE, "welcome");
    world.leave(ROOM, BOB);
    world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "not for Bob"}));
    let ban = world.member(ROOM, ALICE, BOB, "ban").unwrap();
    for state_after in [None, Some("state_after")] {
        let (answer, _) = read(&world, &Sync { state_after, ..sync(BOB, since, "{}") });
        let events = answer["rooms"]["leave"][ROOM]["timeline"]["events"].as_array().unwrap();
        assert!(events.iter().any(|event| event["content"]["body"] == "welcome"));
        assert_eq!(events.last().unwrap()["event_id"], ban);
        assert!(!answer.to_string().contains("not for Bob"));
    }
}

#[test]
fn a_token_of_a_time_that_is_not_known_begins_anew() {
    let world = world();
    let ahead = StreamPos(world.engine.position().0 + 50);
    let (answer, given) = read(&world, &sync(BOB, SyncToken { pos: ahead, to_device: ahead }, "{}"));
    assert!(answer["rooms"]["join"][ROOM].is_object());
    assert_eq!(given.token.pos, world.engine.position());
    world.message(ROOM, ALICE, "news");
    assert_eq!(bodies(&read(&world, &sync(BOB, given.token, "{}")).0), ["news"]);
}

#[test]
fn who_comes_into_a_room_is_told_no_state_of_before_that_is_over() {
    let world = World::new();
    world.room(ROOM, ALICE, Some("joined"));
    world.room("!own:here.example", BOB, None);
    world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "not for Bob"}));
    for number in 0..9 {
        world.join(ROOM, &format!("@user{number}:here.example"));
    }
    let since = start(&world, BOB);
    world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "for all"}));
    world.join(ROOM, BOB);
    let nothing = SyncToken { pos: StreamPos::ZERO, to_device: StreamPos::ZERO };
    for since in [None, Some(since)] {
        let (answer, _) = read(&world, &Sync { since, ..sync(BOB, nothing, "{}") });
        let told = answer["rooms"]["join"][ROOM].to_string();
        assert!(told.contains("for all") && !told.contains("not for Bob"), "{told}");
    }
}

#[test]
fn who_is_invited_again_by_somebody_they_ignore_learns_that_they_are_out() {
    let world = world();
    let since = start(&world, BOB);
    ignore(&world, BOB, &[ALICE]);
    world.member(ROOM, ALICE, BOB, "leave").unwrap();
    world.member(ROOM, ALICE, BOB, "invite").unwrap();
    let (answer, _) = read(&world, &sync(BOB, since, "{}"));
    assert!(answer["rooms"]["invite"][ROOM].is_object());
}
