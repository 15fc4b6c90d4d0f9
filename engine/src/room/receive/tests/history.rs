//! Gaps that are half filled: where pages of history end, and that what is filled in is no news to anybody.

use super::*;
use crate::{
    room::{ignored, unread},
    view::{
        BeforeGap, EventContext, OneEvent, View,
        federation::{Backfill, MissingEvents},
    },
};

pub(super) fn backfill(scene: &Scene, pdus: &[&Pdu]) {
    let received =
        scene.write(ReceivePdus { pdus: scene.check(pdus), backfill: true, ..ReceivePdus::default() });
    assert!(accepted(&received), "{received:?}");
}

pub(super) fn messages(from: Option<StreamToken>, forwards: bool) -> Messages {
    Messages {
        room_id: ROOM.into(),
        user: ALICE.into(),
        device: None,
        from,
        to: None,
        forwards,
        limit: Some(100),
        filter: RoomEventFilter::default(),
    }
}

pub(super) fn answer(scene: &Scene, view: &impl View<Output = Vec<u8>>) -> Value {
    serde_json::from_slice(&scene.world.engine.read(view).unwrap()).unwrap()
}

pub(super) fn ids(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap()).collect()
}

pub(super) fn end(page: &Value) -> Option<StreamToken> {
    page["end"].as_str().map(|end| StreamToken::decode(end).unwrap())
}

#[test]
fn a_page_towards_earlier_events_ends_where_what_is_missing_would_stand() {
    let scene = Scene::new();
    let mut before = scene.timeline();
    before.reverse();
    let [one, two, three, four] = with_gap(&scene);
    backfill(&scene, &[&three]);
    let page = answer(&scene, &messages(None, false));
    assert_eq!(ids(&page["chunk"]), [&*four.event_id, &*three.event_id]);
    // While others are asked for what is missing, who reads on is told to come again.
    let at_gap = messages(end(&page), false);
    let waiting = answer(&scene, &BeforeGap(&at_gap));
    assert!(ids(&waiting["chunk"]).is_empty());
    assert_eq!(end(&waiting), at_gap.from);
    assert_ne!(waiting["end"], waiting["start"], "it would be taken for the last page");
    backfill(&scene, &[&two]);
    let page = answer(&scene, &BeforeGap(&at_gap));
    assert_eq!(ids(&page["chunk"]), [&*two.event_id]);
    // What is not to be had is left out.
    let beyond = answer(&scene, &messages(end(&page), false));
    assert_eq!((ids(&beyond["chunk"]), end(&beyond)), (strs(&before), None));
    backfill(&scene, &[&one]);
    let page = answer(&scene, &messages(None, false));
    assert_eq!(ids(&page["chunk"])[..4], [&four, &three, &two, &one].map(|pdu| &*pdu.event_id));
    assert_eq!((ids(&page["chunk"]).len(), end(&page)), (4 + before.len(), None));
}

#[test]
fn a_page_towards_later_events_ends_before_what_is_missing() {
    let scene = Scene::new();
    let before = scene.timeline();
    let [_, two, three, four] = with_gap(&scene);
    backfill(&scene, &[&two, &three]);
    let behind = [&two, &three, &four].map(|pdu| &*pdu.event_id);
    let page = answer(&scene, &messages(None, true));
    assert_eq!(ids(&page["chunk"]), strs(&before));
    let at_gap = messages(end(&page), true);
    let waiting = answer(&scene, &BeforeGap(&at_gap));
    assert_eq!((ids(&waiting["chunk"]).len(), end(&waiting)), (0, at_gap.from));
    assert_eq!(ids(&answer(&scene, &at_gap)["chunk"]), behind);
    // So does what surrounds the last event before it.
    let event_id = before.last().unwrap().clone();
    let event = OneEvent { room_id: ROOM.into(), event_id, user: ALICE.into(), device: None };
    let context = EventContext { event, limit: Some(4), filter: RoomEventFilter::default() };
    assert!(ids(&answer(&scene, &BeforeGap(&context))["events_after"]).is_empty());
    assert_eq!(ids(&answer(&scene, &context)["events_after"]), behind[..2]);
}

fn pos(scene: &Scene, event_id: &str) -> StreamPos {
    scene.world.ask(|reader| Ok(reader.event(reader.event_num(event_id)?.unwrap())?.pos()))
}

/// As a client does with the gap of a sync, from its beginning to where the client was before.
#[test]
fn a_page_that_is_to_end_within_a_gap_goes_on_as_long_as_something_is_missing_before_that() {
    let scene = Scene::new();
    let old = StreamToken(pos(&scene, scene.timeline().last().unwrap()));
    let [one, two, three, four] = with_gap(&scene);
    let prev_batch = StreamToken::before(pos(&scene, &four.event_id));
    let backwards = |from| Messages { to: Some(old), ..messages(Some(from), false) };
    let forwards = Messages { to: Some(prev_batch), ..messages(Some(old), true) };
    for page in [&backwards(prev_batch), &forwards] {
        let waiting = answer(&scene, &BeforeGap(page));
        assert_eq!((ids(&waiting["chunk"]).len(), end(&waiting)), (0, page.from));
        assert_ne!(waiting["end"], waiting["start"], "it would be taken for the last page");
        // Who is asked for has nothing.
        let last = answer(&scene, page);
        assert_eq!((ids(&last["chunk"]).len(), end(&last)), (0, None));
    }
    backfill(&scene, &[&two, &three]);
    let found = answer(&scene, &backwards(prev_batch));
    assert_eq!(ids(&found["chunk"]), [&*three.event_id, &*two.event_id]);
    let filter = RoomEventFilter::parse(br#"{"types": ["m.room.topic"]}"#).unwrap();
    let filtered = answer(&scene, &Messages { filter, ..backwards(prev_batch) });
    assert_eq!((ids(&filtered["chunk"]).len(), end(&filtered)), (0, end(&found)));
    let beyond = end(&found).unwrap();
    assert_eq!(end(&answer(&scene, &backwards(beyond))), None);
    assert_eq!(ids(&answer(&scene, &forwards)["chunk"]), [&*two.event_id, &*three.event_id]);
    backfill(&scene, &[&one]);
    let last = answer(&scene, &backwards(beyond));
    assert_eq!((ids(&last["chunk"]), end(&last)), (vec![&*one.event_id], None));
}

#[test]
fn what_is_missing_beyond_a_page_is_not_asked_for() {
    let scene = Scene::new();
    let old = StreamToken(pos(&scene, scene.timeline().last().unwrap()));
    let [_, _, three, four] = with_gap(&scene);
    let behind = StreamToken(pos(&scene, &four.event_id));
    let prev_batch = StreamToken::before(behind.0);
    let missing = |from: Option<StreamToken>, to: Option<StreamToken>, forwards: bool| {
        let view = HistoryGap { room_id: ROOM, from, to, forwards, limit: 100 };
        scene.world.engine.read(&view).unwrap().map(|gap| gap.missing)
    };
    let found = Some(vec![three.event_id.to_string()]);
    assert_eq!(missing(None, Some(old), false), found);
    assert_eq!(missing(Some(prev_batch), Some(old), false), found);
    assert_eq!(missing(None, Some(prev_batch), false), None);
    assert_eq!(missing(None, Some(prev_batch), true), found);
    assert_eq!(missing(Some(old), Some(behind), true), found);
    assert_eq!(missing(None, Some(old), true), None);
    assert_eq!(missing(Some(prev_batch), None, true), None);
}

/// Specification: server-server API, "Backfilling and retrieving missing events".
#[test]
fn others_are_given_what_was_filled_in() {
    let scene = Scene::new();
    let earliest_events = scene.ends();
    let [one, two, three, four] = with_gap(&scene);
    // In pages: nothing that one of them names was here before it.
    for pdu in [&three, &two, &one] {
        backfill(&scene, &[pdu]);
    }
    let latest_events = vec![four.event_id.to_string()];
    let depths = |events: Vec<Bytes>| -> Vec<u64> {
        let depth = |json: &Bytes| serde_json::from_slice::<Value>(json).unwrap()["depth"].as_u64().unwrap();
        events.iter().map(depth).collect()
    };
    let server = "there.example".to_owned();
    let (room_id, from) = (ROOM.to_owned(), latest_events.clone());
    let before = Backfill { room_id: room_id.clone(), from, limit: 4, server: server.clone() };
    assert_eq!(
        depths(scene.world.engine.read(&before).unwrap()),
        [&four, &three, &two, &one].map(|pdu| pdu.depth)
    );
    let between = MissingEvents { room_id, earliest_events, latest_events, limit: 10, min_depth: 0, server };
    assert_eq!(depths(scene.world.engine.read(&between).unwrap()), [&one, &two, &three].map(|pdu| pdu.depth));
}

/// Of two servers that are asked for history, one may lie.
#[test]
fn a_depth_that_history_claims_is_not_the_rooms() {
    const DEPTH_MAX: u64 = (1 << 53) - 1;
    let scene = Scene::new();
    let deepest = scene.message(BOB, &strs(&scene.ends()), DEPTH_MAX);
    let last = scene.message(BOB, &[&deepest.event_id], 22);
    let states = vec![GivenState { event_id: last.event_id.clone(), state: scene.state_ids() }];
    let pdus = scene.check(&[&last]);
    assert!(accepted(&scene.write(ReceivePdus { pdus, states, ..ReceivePdus::default() })));
    backfill(&scene, &[&deepest]);
    scene.is_sound();
    let own = scene.world.message(ROOM, ALICE, "and on");
    let depth = scene.world.ask(|reader| Ok(reader.event(reader.event_num(&own)?.unwrap())?.header.depth));
    assert_eq!(depth, 23, "one more than the deepest that it follows");
}

#[test]
fn what_is_filled_in_is_not_unread() {
    let scene = Scene::new();
    let [one, two, three, _] = with_gap(&scene);
    backfill(&scene, &[&one, &two, &three]);
    // Nothing is remembered of a count before, as after a restart.
    let unread = scene.world.ask(|reader| {
        let (user, room) = (reader.user_num(ALICE)?.unwrap(), reader.room_num(ROOM)?.unwrap());
        unread::counts(reader, user, room, ignored::by(reader, user)?)
    });
    assert_eq!(unread.notification_count, 1);
}

#[test]
fn a_membership_that_is_filled_in_is_in_no_stream_and_that_is_sound() {
    let scene = Scene::new();
    let join = scene.member(CARL, CARL, "join", &strs(&scene.ends()), 20);
    let mut auth = scene.auth(CARL, "m.room.member", Some(CARL), false);
    auth.push(join.event_id.to_string());
    let leave = scene.peer.make(Draft {
        sender: CARL,
        kind: "m.room.member",
        state_key: Some(CARL),
        content: json!({"membership": "leave"}),
        prev: vec![&join.event_id],
        auth: strs(&auth),
        depth: 21,
    });
    behind_gap(&scene, &leave);
    backfill(&scene, &[&join, &leave]);
    scene.is_sound();
}
