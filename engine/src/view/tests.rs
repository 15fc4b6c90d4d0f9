//! Pages, contexts, members, relations: what the views of a room's history answer.

mod erasure;
mod relations;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    Error,
    command::ForgetRoom,
    core::filter::RoomEventFilter,
    fixture::{START_MS, World},
    store::schema::Membership,
};

const ROOM: &str = "!room:here.example";
const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:here.example";

fn filter(json: &Value) -> RoomEventFilter {
    RoomEventFilter::parse(json.to_string().as_bytes()).unwrap()
}

fn messages(user: &str) -> Messages {
    Messages {
        room_id: ROOM.into(),
        user: user.into(),
        device: None,
        from: None,
        to: None,
        forwards: false,
        limit: None,
        filter: RoomEventFilter::default(),
    }
}

fn read<V: View<Output = Vec<u8>>>(world: &World, view: &V) -> Value {
    serde_json::from_slice(&world.engine.read(view).unwrap()).unwrap()
}

fn refused<V: View>(world: &World, view: &V) -> Option<Error> {
    world.engine.read(view).err()
}

fn ids(events: &Value) -> Vec<String> {
    events.as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

fn token(value: &Value) -> Option<StreamToken> {
    value.as_str().map(|text| StreamToken::decode(text).unwrap())
}

/// All pages from one end, joined.
fn all(world: &World, mut view: Messages) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let page = read(world, &view);
        assert!(ids(&page["chunk"]).len() <= view.limit.unwrap() as usize);
        if let Some(from) = view.from {
            assert_eq!(page["start"], from.to_string());
        }
        found.extend(ids(&page["chunk"]));
        match token(&page["end"]) {
            Some(end) => view.from = Some(end),
            None => return found,
        }
    }
}

fn world() -> World {
    let world = World::new();
    world.room(ROOM, ALICE, Some("shared"));
    world.join(ROOM, BOB);
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pages_join_to_the_timeline(count in 0_usize..40, limit in 1_u32..17, other_room in any::<bool>()) {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        let whole = all(&world, Messages { limit: Some(1000), forwards: true, ..messages(ALICE) });
        prop_assert_eq!(whole.len(), 3);
        let mut expected = whole;
        if other_room {
            world.room("!other:here.example", ALICE, None);
        }
        for index in 0..count {
            expected.push(world.message(ROOM, ALICE, &index.to_string()));
            if other_room {
                world.message("!other:here.example", ALICE, "elsewhere");
            }
        }
        let forwards = all(&world, Messages { limit: Some(limit), forwards: true, ..messages(ALICE) });
        prop_assert_eq!(&forwards, &expected);
        let mut backwards = all(&world, Messages { limit: Some(limit), ..messages(ALICE) });
        backwards.reverse();
        prop_assert_eq!(&backwards, &expected);
        // A page and what follows it in the other direction meet without gap or overlap.
        let page = read(&world, &Messages { limit: Some(limit), ..messages(ALICE) });
        if let Some(end) = token(&page["end"]) {
            let later = all(
                &world,
                Messages { limit: Some(limit), forwards: true, from: Some(end), ..messages(ALICE) },
            );
            prop_assert_eq!(later.as_slice(), &expected[expected.len() - limit as usize..]);
        }
        let types = filter(&json!({"types": ["m.room.message"]}));
        let filtered = all(&world, Messages { limit: Some(limit), filter: types, ..messages(ALICE) });
        prop_assert_eq!(filtered.len(), count);
    }

    /// Whatever happens: who has left sees nothing later, in any view; who is joined under `shared` sees everything.
    #[test]
    fn after_leaving_no_view_shows_a_later_event(
        steps in proptest::collection::vec(0_u8..8, 1..25),
        visibility in prop_oneof![Just("shared"), Just("invited"), Just("joined")],
    ) {
        let world = World::new();
        world.room(ROOM, ALICE, Some(visibility));
        let mut joined = false;
        let mut ever_joined = false;
        // What the model says that Bob may see of the messages.
        let mut events: Vec<(String, bool)> = Vec::new();
        for (index, step) in steps.into_iter().enumerate() {
            match step {
                0 if !joined => {
                    world.join(ROOM, BOB);
                    joined = true;
                    ever_joined = true;
                    if visibility == "shared" {
                        events.iter_mut().for_each(|(_, seen)| *seen = true);
                    }
                }
                1 if joined => {
                    world.leave(ROOM, BOB);
                    joined = false;
                }
                2 if joined => {
                    world.member(ROOM, ALICE, BOB, "ban").unwrap();
                    world.member(ROOM, ALICE, BOB, "leave").unwrap();
                    joined = false;
                }
                _ => events.push((world.message(ROOM, ALICE, &index.to_string()), joined)),
            }
        }
        if !ever_joined {
            prop_assert!(refused(&world, &messages(BOB)).is_some());
        } else {
            let types = filter(&json!({"types": ["m.room.message"]}));
            let mut seen = all(&world, Messages { limit: Some(7), filter: types, ..messages(BOB) });
            seen.reverse();
            let expected: Vec<String> =
                events.iter().filter(|(_, seen)| *seen).map(|(id, _)| id.clone()).collect();
            prop_assert_eq!(seen, expected);
        }
        for (event_id, seen) in &events {
            let event = || OneEvent {
                room_id: ROOM.into(),
                event_id: event_id.clone(),
                user: BOB.into(),
                device: None,
            };
            prop_assert_eq!(world.engine.read(&event()).is_ok(), *seen);
            let context = EventContext { event: event(), limit: Some(100), filter: RoomEventFilter::default() };
            let context = world.engine.read(&context);
            prop_assert_eq!(context.is_ok(), *seen);
            let Ok(context) = context else { continue };
            let context: Value = serde_json::from_slice(&context).unwrap();
            let shown = [ids(&context["events_before"]), ids(&context["events_after"])].concat();
            let hidden = events.iter().filter(|(_, seen)| !seen);
            prop_assert!(hidden.into_iter().all(|(hidden, _)| !shown.contains(hidden)));
        }
    }
}

#[test]
fn who_was_never_in_the_room_sees_it_only_if_all_may() {
    let world = World::new();
    world.room(ROOM, ALICE, Some("world_readable"));
    world.room("!closed:here.example", ALICE, Some("shared"));
    world.join("!closed:here.example", BOB);
    let carol = "@carol:here.example";
    world.join("!closed:here.example", carol);
    let open = world.message(ROOM, ALICE, "open");
    assert_eq!(ids(&read(&world, &messages(carol))["chunk"]).first(), Some(&open));
    world.state(ROOM, ALICE, "m.room.history_visibility", "", json!({"history_visibility": "joined"}));
    world.message(ROOM, ALICE, "closed");
    assert!(refused(&world, &messages(carol)).is_some());
    assert!(refused(&world, &Messages { room_id: "!none:here.example".into(), ..messages(carol) }).is_some());
}

#[test]
fn lazy_loading_sends_the_members_who_sent() {
    let world = world();
    world.message(ROOM, BOB, "hello");
    let lazy = filter(&json!({"lazy_load_members": true}));
    let page = read(&world, &Messages { limit: Some(1), filter: lazy, ..messages(ALICE) });
    let members: Vec<&Value> = page["state"].as_array().unwrap().iter().map(|m| &m["state_key"]).collect();
    assert_eq!(members, [BOB]);
    assert!(read(&world, &messages(ALICE)).get("state").is_none());
}

#[test]
fn a_filter_by_relations() {
    let world = world();
    let one = world.message(ROOM, ALICE, "one");
    world.message(ROOM, ALICE, "two");
    world.relate(ROOM, BOB, "m.thread", &one, json!({"body": "in thread"}));
    let threads = filter(&json!({"related_by_rel_types": ["m.thread"], "related_by_senders": [BOB]}));
    assert_eq!(ids(&read(&world, &Messages { filter: threads, ..messages(ALICE) })["chunk"]), [one]);
    let none = filter(&json!({"related_by_rel_types": ["m.thread"], "related_by_senders": [ALICE]}));
    assert!(ids(&read(&world, &Messages { filter: none, ..messages(ALICE) })["chunk"]).is_empty());
}

#[test]
fn context_surrounds_and_its_tokens_lead_on() {
    let world = world();
    let sent: Vec<String> = (0..9).map(|index| world.message(ROOM, ALICE, &index.to_string())).collect();
    let event = OneEvent { room_id: ROOM.into(), event_id: sent[4].clone(), user: BOB.into(), device: None };
    let lazy = filter(&json!({"lazy_load_members": true}));
    let context = read(&world, &EventContext { event, limit: Some(4), filter: lazy });
    assert_eq!(context["event"]["event_id"], sent[4]);
    assert_eq!(ids(&context["events_before"]), [sent[3].clone(), sent[2].clone()]);
    assert_eq!(ids(&context["events_after"]), [sent[5].clone(), sent[6].clone()]);
    let members = context["state"].as_array().unwrap().iter();
    assert_eq!(members.filter(|event| event["type"] == "m.room.member").count(), 1);
    let earlier = Messages { from: token(&context["start"]), limit: Some(1), ..messages(BOB) };
    assert_eq!(ids(&read(&world, &earlier)["chunk"]), [sent[1].clone()]);
    let later = Messages { from: token(&context["end"]), forwards: true, limit: Some(1), ..messages(BOB) };
    assert_eq!(ids(&read(&world, &later)["chunk"]), [sent[7].clone()]);
    // An event is found in its own room only.
    let elsewhere = OneEvent {
        room_id: "!other:here.example".into(),
        event_id: sent[4].clone(),
        user: BOB.into(),
        device: None,
    };
    assert!(refused(&world, &elsewhere).is_some());
}

#[test]
fn members_by_membership_and_time() {
    let world = world();
    let before = world.message(ROOM, ALICE, "before");
    let at = world.ask(|reader| Ok(reader.event(reader.event_num(&before)?.unwrap())?.pos()));
    world.leave(ROOM, BOB);
    world.member(ROOM, ALICE, "@carol:here.example", "invite").unwrap();
    let members = |at, membership, not_membership, user: &str| {
        let view = Members { room_id: ROOM.into(), user: user.into(), at, membership, not_membership };
        let mut found: Vec<String> = read(&world, &view)["chunk"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["state_key"].as_str().unwrap()[1..2].to_owned())
            .collect();
        found.sort();
        found.concat()
    };
    assert_eq!(members(None, None, None, ALICE), "abc");
    assert_eq!(members(None, Some(Membership::Join), None, ALICE), "a");
    assert_eq!(members(None, None, Some(Membership::Join), ALICE), "bc");
    assert_eq!(members(None, Some(Membership::Join), Some(Membership::Invite), ALICE), "ab");
    assert_eq!(members(Some(StreamToken(at)), Some(Membership::Join), None, ALICE), "ab");
    // Who has left sees the members of then, whatever token they name, and whatever became of them since.
    assert_eq!(members(None, None, None, BOB), "ab");
    world.member(ROOM, ALICE, BOB, "ban").unwrap();
    assert_eq!(members(None, None, None, BOB), "ab");
    assert_eq!(members(Some(StreamToken(crate::core::num::StreamPos::MAX)), None, None, BOB), "ab");
    let joined = JoinedMembers { room_id: ROOM.into(), user: ALICE.into() };
    assert_eq!(read(&world, &joined), json!({"joined": {ALICE: {}}}));
    assert!(refused(&world, &JoinedMembers { user: BOB.into(), ..joined }).is_some());
}

#[test]
fn members_of_a_time_that_is_hidden_are_told_to_nobody_who_came_later() {
    const CAROL: &str = "@carol:here.example";
    for visibility in ["joined", "invited", "shared"] {
        let world = World::new();
        world.room(ROOM, ALICE, Some(visibility));
        world.join(ROOM, CAROL);
        let pos = |event_id: &str| {
            world.ask(|reader| Ok(reader.event(reader.event_num(event_id)?.unwrap())?.pos()))
        };
        let is_told = |at: StreamToken, user: &str| {
            let (room_id, user, at) = (ROOM.into(), user.into(), Some(at));
            let view = Members { room_id, user, at, membership: None, not_membership: None };
            match refused(&world, &view) {
                None => true,
                Some(Error::Denied(crate::error::Denied::HiddenState)) => false,
                Some(other) => panic!("{other}"),
            }
        };
        let hidden = StreamToken(pos(&world.leave(ROOM, CAROL)));
        world.message(ROOM, ALICE, "not for Bob");
        let join = pos(&world.join(ROOM, BOB));
        let is_shared = visibility == "shared";
        assert_eq!(is_told(hidden, BOB), is_shared, "{visibility}");
        // A sync that begins with the join tells the state before it, and gives this token.
        assert!(is_told(StreamToken::before(join), BOB), "{visibility}");
        assert!(is_told(StreamToken(join), BOB) && is_told(hidden, ALICE));
        let left = StreamToken(pos(&world.leave(ROOM, BOB)));
        let later = StreamToken(pos(&world.message(ROOM, ALICE, "nor is this")));
        world.message(ROOM, ALICE, "nor this");
        // Who has left is told of then, whatever they name.
        assert!(is_told(left, BOB) && is_told(later, BOB));
        world.join(ROOM, BOB);
        assert!(is_told(left, BOB), "{visibility}");
        assert_eq!(is_told(later, BOB), is_shared, "{visibility}");
        let content = json!({"history_visibility": "world_readable"});
        let open = StreamToken(pos(&world.state(ROOM, ALICE, "m.room.history_visibility", "", content)));
        assert!(is_told(open, CAROL) && is_told(hidden, CAROL));
        assert!(!is_told(later, CAROL), "{visibility}");
    }
}

fn related(event_id: &str) -> RelatedEvents {
    RelatedEvents {
        room_id: ROOM.into(),
        event_id: event_id.into(),
        user: BOB.into(),
        device: None,
        rel_type: None,
        kind: None,
        from: None,
        to: None,
        forwards: false,
        limit: Some(2),
        recurse: false,
    }
}

#[test]
fn relations_in_pages_by_type_and_depth() {
    let world = world();
    let root = world.message(ROOM, ALICE, "root");
    let kinds = ["m.thread", "m.annotation", "m.thread", "m.reference", "m.replace"];
    let sent: Vec<String> =
        kinds.iter().map(|kind| world.relate(ROOM, ALICE, kind, &root, json!({}))).collect();
    let below = world.relate(ROOM, ALICE, "m.annotation", &sent[0], json!({}));
    let pages = |mut view: RelatedEvents| {
        let mut found = Vec::new();
        loop {
            let page = read(&world, &view);
            found.extend(ids(&page["chunk"]));
            match token(&page["next_batch"]) {
                Some(next) => view.from = Some(next),
                None => return found,
            }
        }
    };
    let mut forwards = pages(RelatedEvents { forwards: true, ..related(&root) });
    assert_eq!(forwards, sent);
    forwards.reverse();
    assert_eq!(pages(related(&root)), forwards);
    let threads = RelatedEvents { rel_type: Some("m.thread".into()), ..related(&root) };
    assert_eq!(pages(threads), [sent[2].clone(), sent[0].clone()]);
    let none = RelatedEvents { kind: Some("m.sticker".into()), ..related(&root) };
    assert!(pages(none).is_empty());
    let deep = RelatedEvents { recurse: true, limit: Some(10), ..related(&root) };
    let page = read(&world, &deep);
    assert_eq!(ids(&page["chunk"]).first(), Some(&below));
    assert_eq!(ids(&page["chunk"]).len(), 6);
    assert!(page["recursion_depth"].is_u64());
    assert!(refused(&world, &related("$none")).is_some());
    world.redact(ROOM, ALICE, &sent[0]);
    assert!(!pages(related(&root)).contains(&sent[0]));
}

#[test]
fn threads_by_their_latest_event() {
    let world = world();
    let roots: Vec<String> = (0..3).map(|index| world.message(ROOM, ALICE, &index.to_string())).collect();
    for root in [&roots[1], &roots[0], &roots[2], &roots[1]] {
        world.relate(ROOM, ALICE, "m.thread", root, json!({}));
    }
    world.relate(ROOM, BOB, "m.thread", &roots[0], json!({}));
    let view = |from, participated| Threads {
        room_id: ROOM.into(),
        user: BOB.into(),
        device: None,
        participated,
        limit: Some(2),
        from,
    };
    let page = read(&world, &view(None, false));
    assert_eq!(ids(&page["chunk"]), [roots[0].clone(), roots[1].clone()]);
    assert_eq!(page["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"], 2);
    let page = read(&world, &view(token(&page["next_batch"]), false));
    assert_eq!(ids(&page["chunk"]), [roots[2].clone()]);
    assert!(page.get("next_batch").is_none());
    assert_eq!(ids(&read(&world, &view(None, true))["chunk"]), [roots[0].clone()]);
}

#[test]
fn the_event_closest_to_a_time() {
    let world = world();
    world.room("!other:here.example", BOB, None);
    let mut sent = Vec::new();
    for index in 0..20 {
        world.pass_ms(99);
        sent.push(world.message(ROOM, ALICE, &index.to_string()));
        world.message("!other:here.example", BOB, "elsewhere");
    }
    let times: Vec<u64> = sent
        .iter()
        .map(|id| {
            world.ask(|reader| Ok(reader.event(reader.event_num(id)?.unwrap())?.header.origin_server_ts))
        })
        .collect();
    let find = |ts, forwards| {
        let view = EventByTimestamp { room_id: ROOM.into(), user: BOB.into(), ts, forwards };
        world.engine.read(&view).unwrap().event.map(|(event_id, _)| event_id)
    };
    for (index, ts) in times.iter().enumerate() {
        assert_eq!(find(*ts, true).as_ref(), Some(&sent[index]));
        assert_eq!(find(*ts, false).as_ref(), Some(&sent[index]));
        assert_eq!(find(*ts + 1, false).as_ref(), Some(&sent[index]));
        assert_eq!(find(*ts + 1, true).as_ref(), sent.get(index + 1));
    }
    assert!(find(0, true).is_some());
    assert_eq!(find(START_MS - 1, false), None);
}

/// A clock that was wrong for a while, in the middle of what was said.
#[test]
fn events_of_wrong_times_mislead_nobody_who_asks_for_others() {
    const WRONG_MS: u64 = 1 << 30;
    for (count, wrong, is_early) in [(16, 1, true), (16, 1, false), (200, 5, true), (200, 5, false)] {
        let world = world();
        world.pass_ms(2 * WRONG_MS);
        world.room("!other:here.example", BOB, None);
        let mut sent = Vec::new();
        for index in 0..count {
            world.pass_ms(99);
            sent.push(world.message(ROOM, ALICE, &index.to_string()));
            if index != count / 2 {
                continue;
            }
            // Most positions lead to what comes behind them.
            (0..60).for_each(|_| drop(world.message("!other:here.example", BOB, "elsewhere")));
            if is_early {
                world.set_back_ms(WRONG_MS)
            } else {
                world.pass_ms(WRONG_MS)
            }
            (0..wrong).for_each(|_| drop(world.message(ROOM, ALICE, "wrong")));
            if is_early { world.pass_ms(WRONG_MS) } else { world.set_back_ms(WRONG_MS) }
        }
        let time = |id: &String| {
            world.ask(|reader| Ok(reader.event(reader.event_num(id)?.unwrap())?.header.origin_server_ts))
        };
        let find = |ts, forwards| {
            let view = EventByTimestamp { room_id: ROOM.into(), user: BOB.into(), ts, forwards };
            world.engine.read(&view).unwrap().event.map(|(event_id, _)| event_id)
        };
        for pair in sent.windows(2).step_by(1 + count / 50) {
            let (earlier, later) = (time(&pair[0]), time(&pair[1]));
            let found =
                [find(earlier, true), find(earlier, false), find(earlier + 1, true), find(later - 1, false)];
            let expected = [&pair[0], &pair[0], &pair[1], &pair[0]].map(|id| Some(id.clone()));
            assert_eq!(found, expected, "{count} {is_early} {}", earlier - START_MS);
        }
    }
}

#[test]
fn a_device_learns_of_a_leave_from_a_room_that_is_forgotten_already() {
    let world = world();
    let sync = |since| Sync {
        user_id: BOB.into(),
        device_id: None,
        since,
        filter: Arc::default(),
        full_state: false,
        state_after: Some("state_after"),
        waits: false,
    };
    let since = world.engine.read(&sync(None)).unwrap().token;
    let left = world.leave(ROOM, BOB);
    world.engine.write(ForgetRoom { room_id: ROOM.into(), user_id: BOB.into() }).wait().unwrap();
    let answer = world.engine.read(&sync(Some(since))).unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(ids(&body["rooms"]["leave"][ROOM]["timeline"]["events"]), [left]);
    let again = world.engine.read(&sync(Some(answer.token))).unwrap();
    assert!(again.is_empty);
}
