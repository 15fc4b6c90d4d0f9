//! Users of here who are removed where no leave in the timeline follows their join: they are told of their own stay, and of nothing later.

use super::{
    history::{answer, backfill, messages},
    *,
};
use crate::{
    command::{AdoptState, Deactivate},
    core::filter::Filter,
    device::tests::register,
    error::{Denied, Error},
    room::stay,
    store::schema::{MemberChange, Move},
    view::{Members, OneEvent, RoomState, Sync, SyncToken},
};

const DORA: &str = "@dora:here.example";
/// What is said and set of which she is not to be told.
const HIDDEN: &str = "hidden";

/// A room in which Bob may do as Alice may, and Dora is, or is only invited.
fn room(visibility: &str, is_in: bool) -> Scene {
    let scene = Scene::new();
    let world = &scene.world;
    world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 100}}));
    let content = json!({"history_visibility": visibility});
    world.state(ROOM, ALICE, "m.room.history_visibility", "", content);
    world.state(ROOM, ALICE, "m.room.join_rules", "", json!({"join_rule": "invite"}));
    world.member(ROOM, ALICE, DORA, "invite").unwrap();
    if is_in {
        come_in(&scene);
    }
    scene
}

fn come_in(scene: &Scene) {
    scene.world.join(ROOM, DORA);
    scene.world.message(ROOM, DORA, "mine");
}

fn said(scene: &Scene, body: &str, prev: &[&str], depth: u64) -> Pdu {
    scene.draft(BOB, "m.room.message", None, json!({"body": body}), prev, depth)
}

fn sync(scene: &Scene, since: Option<SyncToken>) -> (Value, SyncToken) {
    let filter = Filter::parse(br#"{"room":{"include_leave":true}}"#).unwrap();
    let view = Sync {
        user_id: DORA.into(),
        device_id: None,
        since,
        filter: Arc::new(filter),
        full_state: false,
        state_after: None,
        waits: false,
    };
    let answer = scene.world.engine.read(&view).unwrap();
    (serde_json::from_slice(&answer.body).unwrap(), answer.token)
}

fn bodies(events: &Value) -> Vec<String> {
    let body = |event: &Value| event["content"]["body"].as_str().map(str::to_owned);
    events.as_array().unwrap().iter().filter_map(body).collect()
}

/// `last` comes, before which others are missing, with the state that is told there: by `entries` Dora is out.
fn receive_behind_gap(scene: &Scene, last: &Pdu, entries: &[&Pdu]) {
    scene.receive_outliers(entries);
    let join = scene.state("m.room.member", DORA).unwrap();
    let mut state = scene.state_ids();
    state.retain(|event_id| **event_id != *join);
    state.extend(entries.iter().map(|pdu| pdu.event_id.clone()));
    let given = GivenState { event_id: last.event_id.clone(), state };
    let pdus = scene.check(&[last]);
    assert!(accepted(&scene.write(ReceivePdus { pdus, states: vec![given], ..ReceivePdus::default() })));
    assert!(!scene.is_joined(DORA));
}

/// What Dora, who is out, finds said in the room when she pages back, oldest first. Neither there nor elsewhere is she told of
/// what is later than her leave. `since` is what she had as a member.
fn told(scene: &Scene, since: SyncToken) -> Vec<String> {
    let page = answer(scene, &Messages { user: DORA.into(), ..messages(None, false) });
    let state = RoomState { room_id: ROOM.into(), user_id: DORA.into() };
    let state: Value = serde_json::from_slice(&scene.world.engine.read(&state).unwrap()).unwrap();
    assert!(state.as_array().unwrap().iter().any(|event| event["type"] == "m.room.create"));
    let members = |at| {
        let (room_id, user) = (ROOM.to_owned(), DORA.to_owned());
        answer(scene, &Members { room_id, user, at, membership: None, not_membership: None })
    };
    let (news, _) = sync(scene, Some(since));
    let (anew, _) = sync(scene, None);
    let last = members(Some(StreamToken(StreamPos::MAX)));
    for given in [&page, &state, &members(None), &last, &news, &anew] {
        assert!(!given.to_string().contains(HIDDEN), "{given}");
    }
    // Both tell what has become of her, and a new device her stay.
    let leave = scene.state("m.room.member", DORA).unwrap();
    for given in [&news, &anew] {
        let events = &given["rooms"]["leave"][ROOM]["timeline"]["events"];
        assert_eq!(events.as_array().unwrap().last().unwrap()["event_id"], leave, "{given}");
    }
    assert!(bodies(&anew["rooms"]["leave"][ROOM]["timeline"]["events"]).contains(&"mine".to_owned()));
    let mut bodies = bodies(&page["chunk"]);
    bodies.reverse();
    bodies
}

#[test]
fn by_the_state_behind_a_gap() {
    for visibility in ["shared", "joined"] {
        let scene = room(visibility, true);
        let (_, since) = sync(&scene, None);
        let before = said(&scene, "before", &strs(&scene.ends()), 100);
        let kick = scene.member(BOB, DORA, "leave", &[&before.event_id], 101);
        let topic = json!({"topic": HIDDEN});
        let topic = scene.draft(BOB, "m.room.topic", Some(""), topic, &[&kick.event_id], 102);
        let hidden = said(&scene, HIDDEN, &[&topic.event_id], 103);
        let last = said(&scene, HIDDEN, &[&hidden.event_id], 104);
        receive_behind_gap(&scene, &last, &[&kick, &topic]);
        assert_eq!(told(&scene, since), ["mine"]);
        // What is filled in is hers once it is known where her stay ended.
        backfill(&scene, &[&hidden]);
        assert_eq!(told(&scene, since), ["mine"]);
        backfill(&scene, &[&before, &kick, &topic]);
        assert_eq!(told(&scene, since), ["mine", "before"]);
        scene.is_sound();
    }
}

#[test]
fn by_the_state_behind_a_gap_and_a_kick_that_comes_later() {
    for membership in ["leave", "ban"] {
        let scene = room("shared", true);
        let (_, since) = sync(&scene, None);
        let kick = scene.member(BOB, DORA, membership, &strs(&scene.ends()), 100);
        let between = said(&scene, HIDDEN, &[&kick.event_id], 101);
        receive_behind_gap(&scene, &said(&scene, HIDDEN, &[&between.event_id], 102), &[&kick]);
        assert!(accepted(&scene.receive(&[&kick])));
        assert_eq!(scene.timeline().last().map(String::as_str), Some(&*kick.event_id));
        assert_eq!(told(&scene, since), ["mine"]);
        scene.is_sound();
    }
}

/// What she knows is later than the place of the kick, and still she is told of it.
#[test]
fn by_a_state_and_a_kick_that_is_filled_into_an_earlier_gap() {
    let scene = room("shared", true);
    let kick = scene.member(BOB, DORA, "leave", &strs(&scene.ends()), 100);
    behind_gap(&scene, &kick);
    let (_, since) = sync(&scene, None);
    let between = said(&scene, HIDDEN, &[&kick.event_id], 102);
    receive_behind_gap(&scene, &said(&scene, HIDDEN, &[&between.event_id], 103), &[&kick]);
    backfill(&scene, &[&kick]);
    assert_eq!(told(&scene, since), ["mine"]);
    scene.is_sound();
}

#[test]
fn by_herself_and_a_kick_that_comes_later_and_wins() {
    for membership in ["leave", "ban"] {
        let scene = room("shared", true);
        let (_, since) = sync(&scene, None);
        let kick = scene.member(BOB, DORA, membership, &strs(&scene.ends()), 100);
        scene.world.leave(ROOM, DORA);
        let (_, later) = sync(&scene, None);
        scene.world.message(ROOM, ALICE, HIDDEN);
        assert!(accepted(&scene.receive(&[&kick])));
        assert_eq!(scene.state("m.room.member", DORA), Some(kick.event_id.to_string()));
        assert_eq!(told(&scene, since), ["mine"]);
        let (news, _) = sync(&scene, Some(later));
        assert!(!news.to_string().contains(HIDDEN), "{news}");
        if membership == "leave" {
            scene.world.member(ROOM, ALICE, DORA, "invite").unwrap();
            scene.world.message(ROOM, ALICE, HIDDEN);
            scene.world.leave(ROOM, DORA);
            assert_eq!(told(&scene, since), ["mine"]);
        }
        scene.is_sound();
    }
}

/// A ban that follows her leave moves nothing.
#[test]
fn by_herself_where_the_room_was_forked_before() {
    let scene = room("shared", true);
    let fork = said(&scene, "fork", &strs(&scene.ends()), 100);
    scene.world.message(ROOM, ALICE, "more");
    assert!(accepted(&scene.receive(&[&fork])));
    let (_, since) = sync(&scene, None);
    scene.world.leave(ROOM, DORA);
    scene.world.message(ROOM, ALICE, HIDDEN);
    assert_eq!(told(&scene, since), ["mine", "more", "fork"]);
    scene.world.member(ROOM, ALICE, DORA, "ban").unwrap();
    assert_eq!(told(&scene, since), ["mine", "more", "fork"]);
    scene.is_sound();
}

#[test]
fn by_a_state_that_is_adopted() {
    let scene = room("shared", true);
    let (_, since) = sync(&scene, None);
    let end = scene.ends().remove(0);
    let kick = scene.member(BOB, DORA, "leave", &[&end], 100);
    let topic = scene.draft(BOB, "m.room.topic", Some(""), json!({"topic": HIDDEN}), &[&kick.event_id], 101);
    scene.receive_outliers(&[&kick, &topic]);
    let mut state = scene.state_ids();
    state.extend([&kick, &topic].map(|pdu| pdu.event_id.clone()));
    let state = GivenState { event_id: end.as_str().into(), state };
    scene.world.engine.write(AdoptState { room_id: ROOM.into(), state }).wait().unwrap();
    assert!(!scene.is_joined(DORA));
    scene.world.message(ROOM, ALICE, HIDDEN);
    assert_eq!(told(&scene, since), ["mine"]);
    scene.is_sound();
}

#[test]
fn by_a_kick_of_the_invite_that_wins_against_the_join() {
    for visibility in ["shared", "joined"] {
        let scene = room(visibility, false);
        let kick = scene.member(BOB, DORA, "leave", &strs(&scene.ends()), 100);
        come_in(&scene);
        let (_, since) = sync(&scene, None);
        assert!(accepted(&scene.receive(&[&kick])));
        assert_eq!(scene.state("m.room.member", DORA), Some(kick.event_id.to_string()));
        scene.world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": HIDDEN}));
        scene.world.message(ROOM, ALICE, HIDDEN);
        assert_eq!(told(&scene, since), ["mine"]);
        // An invite later, and its end, take nothing of that, nor add to it.
        scene.world.member(ROOM, ALICE, DORA, "invite").unwrap();
        scene.world.message(ROOM, ALICE, HIDDEN);
        scene.world.leave(ROOM, DORA);
        assert_eq!(told(&scene, since), ["mine"]);
        scene.is_sound();
    }
}

#[test]
fn what_is_said_before_a_kick_that_comes_later_is_forgotten_like_all_that_she_was_not_there_for() {
    let scene = room("world_readable", true);
    let kick = scene.member(BOB, DORA, "leave", &strs(&scene.ends()), 100);
    scene.world.leave(ROOM, DORA);
    let event_id = scene.world.message(ROOM, ALICE, HIDDEN);
    assert!(accepted(&scene.receive(&[&kick])));
    let event = OneEvent { room_id: ROOM.into(), event_id, user: DORA.into(), device: None };
    assert_eq!(answer(&scene, &event)["content"]["body"], HIDDEN);
    register(&scene.world, "alice", &[]);
    scene.world.engine.write(Deactivate { user_id: ALICE.into(), erase: true }).wait().unwrap();
    assert_eq!(answer(&scene, &event)["content"], json!({}));
}

#[test]
fn nothing_is_shown_where_too_much_came_since_to_look_for_the_end() {
    let scene = room("shared", true);
    let kick = scene.member(BOB, DORA, "leave", &strs(&scene.ends()), 100);
    scene.world.leave(ROOM, DORA);
    assert!(accepted(&scene.receive(&[&kick])));
    let page = Messages { user: DORA.into(), ..messages(None, false) };
    assert!(scene.world.engine.read(&page).is_ok());
    scene
        .world
        .act(|tx| {
            let (room, user) = (tx.room_num(ROOM)?.unwrap(), tx.user_num(ALICE)?.unwrap());
            for _ in 0..stay::MEMBER_CHANGES_MAX {
                let pos = tx.next_position();
                tx.put(&schema::MEMBER_STREAM, &(room, pos), &MemberChange { user, to: Move::In });
            }
            Ok(())
        })
        .unwrap();
    assert!(matches!(scene.world.engine.read(&page), Err(Error::Denied(Denied::NotInRoom))));
}

/// She has come back, and asks what she may know of when she was out.
#[test]
fn what_is_adopted_behind_a_leave_is_not_told_with_it() {
    let scene = room("joined", true);
    scene.world.leave(ROOM, DORA);
    let end = scene.ends().remove(0);
    let named = json!({"membership": "join", "displayname": HIDDEN});
    let named = scene.draft(BOB, "m.room.member", Some(BOB), named, &[&end], 100);
    scene.receive_outliers(&[&named]);
    let mut state = scene.state_ids();
    state.push(named.event_id.clone());
    let state = GivenState { event_id: end.as_str().into(), state };
    scene.world.engine.write(AdoptState { room_id: ROOM.into(), state }).wait().unwrap();
    assert_eq!(scene.state("m.room.member", BOB), Some(named.event_id.to_string()));
    let (_, then) = sync(&scene, None);
    scene.world.member(ROOM, ALICE, DORA, "invite").unwrap();
    come_in(&scene);
    let (room_id, user, at) = (ROOM.to_owned(), DORA.to_owned(), Some(StreamToken(then.pos)));
    let members =
        answer(&scene, &Members { room_id, user, at, membership: None, not_membership: None }).to_string();
    assert!(members.contains(BOB) && !members.contains(HIDDEN), "{members}");
}
