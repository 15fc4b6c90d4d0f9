//! What peers get: who may ask at all, what each history visibility shows to whom, and the shapes of walks.

mod doors;
mod handshakes;
mod invites_by_address;
mod pieces;
mod policies;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::{
    Denied, Error, Invalid, View, What,
    check::Check,
    command::{PurgeBefore, PurgeHistory, StepPurge},
    fixture::{START_MS, World},
    room::{
        RoomCtx,
        servers::{self, server_allowed},
    },
    store::{Reader, schema::EventStatus},
};

const ROOM: &str = "!room:here.example";
const OTHER_ROOM: &str = "!other:here.example";
const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:there.example";
const CAROL: &str = "@carol:there.example";
const DAVE: &str = "@dave:third.example";
const THERE: &str = "there.example";
const THIRD: &str = "third.example";

fn world(visibility: &str) -> World {
    let world = World::new();
    world.room(ROOM, ALICE, Some(visibility));
    world
}

fn ask<V: View>(world: &World, view: &V) -> V::Output {
    world.engine.read(view).unwrap()
}

fn events(world: &World, ids: &[&str], server: &str) -> Vec<crate::Result<Bytes>> {
    let event_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    ask(world, &EventsById { room_id: None, event_ids, server: server.into() })
}

/// The body of the message as the server gets it: `None` where it is redacted.
fn body(world: &World, event_id: &str, server: &str) -> Option<String> {
    let pdu = events(world, &[event_id], server).remove(0).unwrap();
    body_of(&pdu)
}

fn body_of(pdu: &[u8]) -> Option<String> {
    let pdu: Value = serde_json::from_slice(pdu).unwrap();
    assert!(pdu["hashes"]["sha256"].is_string() && pdu["signatures"].is_object());
    pdu["content"]["body"].as_str().map(str::to_owned)
}

fn state_at(event_id: &str, server: &str) -> StateAt {
    StateAt { room_id: ROOM.into(), event_id: event_id.into(), server: server.into() }
}

fn event_auth(event_id: &str, server: &str) -> EventAuth {
    EventAuth { room_id: ROOM.into(), event_id: event_id.into(), server: server.into() }
}

fn missing(earliest: &[&str], latest: &[&str], limit: usize) -> MissingEvents {
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    MissingEvents {
        room_id: ROOM.into(),
        earliest_events: ids(earliest),
        latest_events: ids(latest),
        limit,
        min_depth: 0,
        server: THERE.into(),
    }
}

fn backfill(from: &[&str], limit: usize, server: &str) -> Backfill {
    let from = from.iter().map(|id| (*id).to_owned()).collect();
    Backfill { room_id: ROOM.into(), from, limit, server: server.into() }
}

fn by_timestamp(ts: u64, forwards: bool, server: &str) -> PeerEventByTimestamp {
    PeerEventByTimestamp { room_id: ROOM.into(), ts, forwards, server: server.into() }
}

fn ids(world: &World, list: &PduList) -> Vec<String> {
    let (mut ids, mut from) = (Vec::new(), Some(0));
    while let Some(start) = from {
        let piece = ask(world, &EventIds { list, from: start });
        ids.extend(piece.items.iter().map(ToString::to_string));
        from = piece.next;
    }
    ids
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

fn is_not_in_room(error: &Error) -> bool {
    matches!(error, Error::Denied(Denied::NotInRoom))
}

/// Every read on behalf of a peer, and whether it is refused with the error.
fn all_refused(world: &World, event_id: &str, server: &str, expected: impl Fn(&Error) -> bool) {
    let engine = &world.engine;
    let named =
        EventsById { room_id: Some(ROOM.into()), event_ids: vec![event_id.into()], server: server.into() };
    let errors = [
        events(world, &[event_id], server).remove(0).err(),
        engine.read(&named).and_then(|mut found| found.remove(0)).err(),
        engine.read(&state_at(event_id, server)).err(),
        engine.read(&event_auth(event_id, server)).err(),
        engine.read(&MissingEvents { server: server.into(), ..missing(&[], &[event_id], 5) }).err(),
        engine.read(&backfill(&[event_id], 5, server)).err(),
        engine.read(&by_timestamp(START_MS, true, server)).err(),
    ];
    for (index, error) in errors.into_iter().enumerate() {
        assert!(error.as_ref().is_some_and(&expected), "read {index}: {error:?}");
    }
}

#[test]
fn only_servers_that_are_in_the_room_are_served() {
    let world = world("world_readable");
    world.join(ROOM, BOB);
    let event = world.message(ROOM, ALICE, "hello");
    assert_eq!(body(&world, &event, THERE).as_deref(), Some("hello"));
    // Never in the room; invited to it; banned from it.
    all_refused(&world, &event, THIRD, is_not_in_room);
    world.member(ROOM, ALICE, DAVE, "invite").unwrap();
    all_refused(&world, &event, THIRD, is_not_in_room);
    world.member(ROOM, ALICE, DAVE, "ban").unwrap();
    all_refused(&world, &event, THIRD, is_not_in_room);
    // The last user leaves.
    world.join(ROOM, CAROL);
    world.leave(ROOM, BOB);
    assert_eq!(body(&world, &event, THERE).as_deref(), Some("hello"));
    world.leave(ROOM, CAROL);
    let since = world.message(ROOM, ALICE, "since");
    all_refused(&world, &since, THERE, is_not_in_room);
    all_refused(&world, &event, "unheard.example", is_not_in_room);
}

/// It may have been told of that without what was before, or have told that it has that, and lost it before it had fetched all.
#[test]
fn who_was_turned_out_is_given_what_led_to_that_and_nothing_since() {
    for (visibility, shown) in [("world_readable", true), ("shared", true), ("joined", false)] {
        let world = world(visibility);
        let early = world.message(ROOM, ALICE, "early");
        world.join(ROOM, BOB);
        let said = world.message(ROOM, ALICE, "said");
        let kick = world.member(ROOM, ALICE, BOB, "leave").unwrap();
        let since = world.message(ROOM, ALICE, "since");
        let topic = world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "since"}));
        assert_eq!(body(&world, &said, THERE).as_deref(), Some("said"), "{visibility}");
        assert_eq!(body(&world, &early, THERE).is_some(), shown, "{visibility}");
        assert!(events(&world, &[&kick], THERE).remove(0).is_ok(), "{visibility}");
        let expected = if shown { vec!["early", "said"] } else { vec!["said"] };
        // It names what is not known here as well, and what is none of its business.
        let between = ask(&world, &missing(&["$unknown", &since], &[&kick, &topic], 20));
        assert_eq!(bodies(&between), expected, "{visibility}");
        let back = ask(&world, &backfill(&[&kick, &topic], 100, THERE));
        assert_eq!(bodies(&back), expected.into_iter().rev().collect::<Vec<_>>(), "{visibility}");
        let state = ask(&world, &state_at(&kick, THERE));
        assert!(!ids(&world, &state.state).contains(&topic), "{visibility}");
        assert!(!ids(&world, &ask(&world, &event_auth(&kick, THERE))).is_empty(), "{visibility}");
        for later in [&since, &topic] {
            all_refused(&world, later, THERE, is_not_in_room);
        }
        // An invite that is taken back makes nothing of it.
        world.member(ROOM, ALICE, BOB, "invite").unwrap();
        let again = world.message(ROOM, ALICE, "again");
        world.member(ROOM, ALICE, BOB, "leave").unwrap();
        all_refused(&world, &again, THERE, is_not_in_room);
        assert!(body(&world, &said, THERE).is_some(), "{visibility}");
        // Nor does it count for others that nobody of theirs was there.
        all_refused(&world, &said, THIRD, is_not_in_room);
    }
}

#[test]
fn a_server_that_was_only_taken_to_be_in_the_room_is_not_served() {
    let world = world("world_readable");
    let supposed = [THIRD.to_owned()];
    world
        .act(|tx| {
            let room = RoomCtx::load(tx, ROOM)?.num;
            Ok(servers::suppose(tx, room, &supposed)?)
        })
        .unwrap();
    let said = world.message(ROOM, ALICE, "said");
    all_refused(&world, &said, THIRD, is_not_in_room);
    world
        .act(|tx| {
            let room = RoomCtx::load(tx, ROOM)?.num;
            let pos = tx.next_position();
            Ok(servers::settle_supposed(tx, room, &supposed, pos)?)
        })
        .unwrap();
    all_refused(&world, &said, THIRD, is_not_in_room);
}

#[test]
fn servers_that_the_access_list_shuts_out_are_not_served() {
    let world = world("shared");
    world.join(ROOM, BOB);
    let event = world.message(ROOM, ALICE, "hello");
    let acl = json!({"allow": ["*"], "deny": ["THERE.*"]});
    world.state(ROOM, ALICE, "m.room.server_acl", "", acl);
    all_refused(&world, &event, THERE, |error| matches!(error, Error::Denied(Denied::ServerAcl)));
    let allowed = |reader: &Reader, server: &str| {
        let room = RoomCtx::load(reader, ROOM)?;
        server_allowed(reader, &room, server)
    };
    assert!(world.engine.read(&Ask(|reader: &Reader| allowed(reader, THIRD))).is_ok());
    assert!(world.engine.read(&Ask(|reader: &Reader| allowed(reader, "there.example:8448"))).is_err());
}

struct Ask<F>(F);

impl<T, F: Fn(&Reader) -> crate::Result<T>> View for Ask<F> {
    type Output = T;

    fn read(&self, reader: &Reader) -> crate::Result<T> {
        (self.0)(reader)
    }
}

#[test]
fn what_each_history_visibility_shows_of_the_time_before() {
    for (visibility, before_invite, invited) in [
        ("world_readable", true, true),
        ("shared", true, true),
        ("invited", false, true),
        ("joined", false, false),
    ] {
        let world = world(visibility);
        let before_invite_id = world.message(ROOM, ALICE, "alone");
        world.member(ROOM, ALICE, BOB, "invite").unwrap();
        let invited_id = world.message(ROOM, ALICE, "invited");
        let join = world.join(ROOM, BOB);
        let joined_id = world.message(ROOM, ALICE, "joined");
        let shown = |id: &str| body(&world, id, THERE).is_some();
        assert_eq!(shown(&before_invite_id), before_invite, "{visibility}");
        assert_eq!(shown(&invited_id), invited, "{visibility}");
        assert!(shown(&joined_id), "{visibility}");
        // The walks show the same.
        let back = ask(&world, &backfill(&[&joined_id], 100, THERE));
        let bodies: Vec<String> = back.iter().filter_map(|pdu| body_of(pdu)).collect();
        let mut expected = vec!["joined"];
        expected.extend(invited.then_some("invited"));
        expected.extend(before_invite.then_some("alone"));
        assert_eq!(bodies, expected, "{visibility}");
        let between = ask(&world, &missing(&[], &[&join], 20));
        let bodies: Vec<String> = between.iter().filter_map(|pdu| body_of(pdu)).collect();
        assert_eq!(bodies.len(), usize::from(invited) + usize::from(before_invite), "{visibility}");
    }
}

#[test]
fn a_gap_in_which_no_user_of_the_server_was_there_is_hidden() {
    for (visibility, shown) in [("shared", true), ("invited", false), ("joined", false)] {
        let world = world(visibility);
        world.join(ROOM, BOB);
        let with_bob = world.message(ROOM, ALICE, "bob is here");
        world.leave(ROOM, BOB);
        let alone = world.message(ROOM, ALICE, "nobody of them is here");
        world.join(ROOM, DAVE);
        let with_dave = world.message(ROOM, ALICE, "dave is here");
        world.join(ROOM, CAROL);
        assert!(body(&world, &with_bob, THERE).is_some(), "{visibility}");
        assert_eq!(body(&world, &alone, THERE).is_some(), shown, "{visibility}");
        // Another server's user helps nobody.
        assert_eq!(body(&world, &with_dave, THERE).is_some(), shown, "{visibility}");
        assert!(body(&world, &with_dave, THIRD).is_some(), "{visibility}");
    }
}

#[test]
fn a_change_of_visibility_does_not_reach_back() {
    let world = world("joined");
    let secret = world.message(ROOM, ALICE, "secret");
    world.state(
        ROOM,
        ALICE,
        "m.room.history_visibility",
        "",
        json!({"history_visibility": "world_readable"}),
    );
    let open = world.message(ROOM, ALICE, "open");
    world.join(ROOM, BOB);
    assert_eq!(body(&world, &secret, THERE), None);
    assert_eq!(body(&world, &open, THERE).as_deref(), Some("open"));
}

#[test]
fn replaced_state_from_before_is_redacted_and_current_state_is_not() {
    let world = world("joined");
    let first = world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "first"}));
    let second = world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "second"}));
    world.join(ROOM, BOB);
    let topic = |id: &str| {
        let pdu = events(&world, &[id], THERE).remove(0).unwrap();
        serde_json::from_slice::<Value>(&pdu).unwrap()["content"]["topic"].as_str().map(str::to_owned)
    };
    assert_eq!(topic(&first), None);
    assert_eq!(topic(&second).as_deref(), Some("second"));
}

/// Removes the room's history before an event.
fn purge_before(world: &World, event_id: &str) {
    let purge = PurgeHistory { room_id: ROOM.into(), before: PurgeBefore::Event(event_id.to_owned()) };
    let mut last = world.engine.write(purge).wait().unwrap();
    while last.freed.is_none() {
        last = world.engine.write(StepPurge::after(ROOM, Some(&last))).wait().unwrap();
    }
}

#[test]
fn what_a_purge_of_the_history_leaves_is_hidden_as_before() {
    let world = world("joined");
    let set = |kind: &str, content: Value| world.state(ROOM, ALICE, kind, "", content);
    let hidden = set("m.room.topic", json!({"topic": "hidden"}));
    let rules = set("m.room.join_rules", json!({"join_rule": "public", "topic": "rules"}));
    set("m.room.history_visibility", json!({"history_visibility": "shared"}));
    set("m.room.join_rules", json!({"join_rule": "public"}));
    let open = set("m.room.topic", json!({"topic": "open"}));
    let current = set("m.room.topic", json!({"topic": "current"}));
    world.join(ROOM, BOB);
    let last = world.message(ROOM, ALICE, "last");
    let topic = |id: &str| {
        let pdu: Value = serde_json::from_slice(&events(&world, &[id], THERE).remove(0).unwrap()).unwrap();
        assert!(pdu["hashes"]["sha256"].is_string() && pdu["signatures"].is_object());
        pdu["content"]["topic"].as_str().map(str::to_owned)
    };
    let shown = || (topic(&hidden), topic(&open), topic(&current));
    let expected = (None, Some("open".to_owned()), Some("current".to_owned()));
    assert_eq!(shown(), expected);
    purge_before(&world, &last);
    let status =
        |id: &str| world.ask(|reader| Ok(reader.event(reader.event_num(id)?.unwrap())?.header.status));
    assert_eq!(status(&hidden), EventStatus::Outlier);
    assert_eq!(shown(), expected);
    // What others are judged by is given whole, as with an auth chain.
    assert_eq!(topic(&rules).as_deref(), Some("rules"));
    let report = world.engine.read(&Check { progress: &|_, _| () }).unwrap();
    assert_eq!(report.findings, []);
}

/// What a peer is given redacted it keeps. What there was no time to look for in a long answer, it is to ask for by itself.
#[test]
fn what_was_not_looked_at_is_left_out_and_found_when_it_is_asked_for() {
    /// With the other numbers here, more memberships at more times than one request looks up.
    const OTHERS: usize = 110;
    const TOPICS: usize = 98;
    let world = world("joined");
    for number in 0..OTHERS {
        let user = format!("@user{number}:{THERE}");
        world.join(ROOM, &user);
        world.leave(ROOM, &user);
    }
    world.join(ROOM, CAROL);
    let first = world.message(ROOM, ALICE, "for carol");
    world.leave(ROOM, CAROL);
    let mut last = String::new();
    for number in 0..TOPICS {
        last = world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": number.to_string()}));
    }
    world.join(ROOM, BOB);
    let given = ask(&world, &backfill(&[&last], 100, THERE));
    assert!((2..100).contains(&given.len()), "{}", given.len());
    let is_message = |pdu: &Bytes| serde_json::from_slice::<Value>(pdu).unwrap()["type"] == "m.room.message";
    assert!(!given.iter().any(is_message));
    assert_eq!(body(&world, &first, THERE).as_deref(), Some("for carol"));
}

#[test]
fn events_of_other_rooms_are_not_found() {
    let world = world("shared");
    world.join(ROOM, BOB);
    world.room(OTHER_ROOM, ALICE, Some("world_readable"));
    let here = world.message(ROOM, ALICE, "here");
    let other = world.message(OTHER_ROOM, ALICE, "other");
    let not_found = |error: Option<Error>| matches!(error, Some(Error::NotFound(What::Event)));
    let engine = &world.engine;
    assert!(not_found(engine.read(&state_at(&other, THERE)).err()));
    assert!(not_found(engine.read(&event_auth(&other, THERE)).err()));
    assert!(not_found(engine.read(&event_auth("$nowhere", THERE)).err()));
    assert!(ask(&world, &backfill(&[&other], 10, THERE)).is_empty());
    assert!(ask(&world, &missing(&[], &[&other], 10)).is_empty());
    let named = EventsById {
        room_id: Some(ROOM.into()),
        event_ids: vec![here.clone(), other.clone(), "$nowhere".into()],
        server: THERE.into(),
    };
    let found = ask(&world, &named);
    assert!(found[0].is_ok());
    assert!(not_found(found[1].clone().err()) && not_found(found[2].clone().err()));
    // Without a room, each event is judged in its own.
    let found = events(&world, &[&here, &other, "$nowhere"], THERE);
    assert!(found[0].is_ok());
    assert!(is_not_in_room(found[1].as_ref().unwrap_err()));
    assert!(not_found(found[2].clone().err()));
}

#[test]
fn long_lists_are_refused() {
    let world = world("shared");
    world.join(ROOM, BOB);
    let many: Vec<String> = (0..100_000).map(|n| format!("$event{n}")).collect();
    let too_large = |error: Option<Error>| matches!(error, Some(Error::Invalid(Invalid::TooLarge { .. })));
    let engine = &world.engine;
    let by_id = EventsById { room_id: None, event_ids: many.clone(), server: THERE.into() };
    assert!(too_large(engine.read(&by_id).err()));
    assert!(too_large(engine.read(&Backfill { from: many.clone(), ..backfill(&[], 5, THERE) }).err()));
    let earliest = MissingEvents { earliest_events: many.clone(), ..missing(&[], &[], 5) };
    assert!(too_large(engine.read(&earliest).err()));
    assert!(too_large(engine.read(&MissingEvents { latest_events: many, ..missing(&[], &[], 5) }).err()));
}

#[test]
fn state_is_that_before_the_event_with_its_auth_chain() {
    let world = world("shared");
    let join = world.join(ROOM, BOB);
    let topic = world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "a"}));
    let next = world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "b"}));
    // The event's own change is not in it.
    let at_topic = ask(&world, &state_at(&topic, THERE));
    let state = ids(&world, &at_topic.state);
    assert!(state.contains(&join) && !state.contains(&topic));
    let at_next = ask(&world, &state_at(&next, THERE));
    let with_topic = ids(&world, &at_next.state);
    assert!(with_topic.contains(&topic) && !with_topic.contains(&next));
    assert_eq!(with_topic.len(), state.len() + 1);
    // Each event of the chain allows another; it is closed under auth_events, and in order.
    let chain = ids(&world, &at_next.auth_chain);
    assert_eq!(sorted(chain.clone()).iter().collect::<std::collections::BTreeSet<_>>().len(), chain.len());
    let pdus = ask(&world, &Pdus { list: &at_next.auth_chain, from: 0 }).items;
    let all: Vec<Bytes> =
        pdus.into_iter().chain(ask(&world, &Pdus { list: &at_next.state, from: 0 }).items).collect();
    for pdu in &all {
        let pdu: Value = serde_json::from_slice(pdu).unwrap();
        for auth in pdu["auth_events"].as_array().unwrap() {
            assert!(chain.contains(&auth.as_str().unwrap().to_owned()));
        }
    }
    let create = chain.first().unwrap().clone();
    let first = ask(&world, &event_auth(&join, THERE));
    assert_eq!(ids(&world, &first).first(), Some(&create));
    assert!(!ids(&world, &first).contains(&join));
    // The create event has nothing before it.
    let at_create = ask(&world, &state_at(&create, THERE));
    assert!(at_create.state.is_empty() && at_create.auth_chain.is_empty());
}

/// A line of messages, the room's last events.
fn line(world: &World, count: usize) -> Vec<String> {
    (0..count).map(|n| world.message(ROOM, ALICE, &n.to_string())).collect()
}

fn bodies(pdus: &[Bytes]) -> Vec<String> {
    pdus.iter().filter_map(|pdu| body_of(pdu)).collect()
}

#[test]
fn missing_events_are_those_between_the_nearest_first_to_be_kept() {
    let world = world("shared");
    world.join(ROOM, BOB);
    let line = line(&world, 30);
    let between = |from: usize, to: usize| (from..to).map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(bodies(&ask(&world, &missing(&[&line[3]], &[&line[9]], 20))), between(4, 9));
    // The limit keeps what is next to the latest, and has a limit itself.
    assert_eq!(bodies(&ask(&world, &missing(&[&line[3]], &[&line[9]], 2))), between(7, 9));
    assert_eq!(bodies(&ask(&world, &missing(&[], &[&line[29]], 1_000_000))), between(9, 29));
    assert!(ask(&world, &missing(&[], &[&line[29]], 0)).is_empty());
    // What one side does not know, or names on both sides.
    assert_eq!(
        bodies(&ask(&world, &missing(&["$unknown", &line[3]], &["$unknown", &line[6]], 20))),
        between(4, 6)
    );
    assert!(ask(&world, &missing(&[&line[6]], &[&line[6]], 20)).is_empty());
    assert!(ask(&world, &missing(&[], &[], 20)).is_empty());
    // Several latest, one before the other.
    assert_eq!(bodies(&ask(&world, &missing(&[&line[3]], &[&line[6], &line[9]], 20))), ["4", "5", "7", "8"]);
    let depth = |id: &str| -> u64 {
        let pdu = events(&world, &[id], THERE).remove(0).unwrap();
        serde_json::from_slice::<Value>(&pdu).unwrap()["depth"].as_u64().unwrap()
    };
    let shallow = MissingEvents { min_depth: depth(&line[5]), ..missing(&[], &[&line[9]], 20) };
    assert_eq!(bodies(&ask(&world, &shallow)), between(5, 9));
    let beyond = MissingEvents { min_depth: u64::MAX, ..missing(&[], &[&line[9]], 20) };
    assert!(ask(&world, &beyond).is_empty());
}

#[test]
fn backfill_begins_with_the_events_that_were_named() {
    let world = world("shared");
    world.join(ROOM, BOB);
    let line = line(&world, 120);
    let back = |from: usize, count: usize| (0..count).map(|n| (from - n).to_string()).collect::<Vec<_>>();
    assert_eq!(bodies(&ask(&world, &backfill(&[&line[9]], 4, THERE))), back(9, 4));
    assert_eq!(bodies(&ask(&world, &backfill(&[&line[119]], 1_000, THERE))), back(119, 100));
    // Named twice, or one before the other: each event once.
    assert_eq!(bodies(&ask(&world, &backfill(&[&line[9], &line[9], &line[7]], 4, THERE))), back(9, 4));
    assert!(ask(&world, &backfill(&[&line[9]], 0, THERE)).is_empty());
    assert!(ask(&world, &backfill(&[], 10, THERE)).is_empty());
    // To the beginning of the room.
    let all = ask(&world, &backfill(&[&line[0]], 100, THERE));
    let create: Value = serde_json::from_slice(all.last().unwrap()).unwrap();
    assert_eq!(create["type"], "m.room.create");
}

#[test]
fn the_event_closest_to_a_time_is_one_that_the_peer_may_see() {
    let world = world("joined");
    let hidden = world.message(ROOM, ALICE, "hidden");
    let join = world.join(ROOM, BOB);
    let seen = world.message(ROOM, ALICE, "seen");
    let ts = |id: &str| {
        world.ask(|reader| Ok(reader.event(reader.event_num(id)?.unwrap())?.header.origin_server_ts))
    };
    let at = |ts, forwards| world.engine.read(&by_timestamp(ts, forwards, THERE));
    assert_eq!(at(ts(&hidden), true).unwrap(), (join.clone(), ts(&join)));
    assert_eq!(at(ts(&seen), true).unwrap(), (seen.clone(), ts(&seen)));
    assert_eq!(at(ts(&seen) + 1_000, false).unwrap(), (seen.clone(), ts(&seen)));
    assert_eq!(at(ts(&seen) - 1, false).unwrap().0, join);
    assert!(matches!(at(ts(&seen) + 1, true), Err(Error::NotFound(What::Event))));
    // Of what is hidden not even the time is told; what is current state is no secret.
    let found = at(ts(&hidden), false).unwrap();
    assert!(found.0 != hidden && found.1 < ts(&hidden));
}

#[test]
fn servers_are_counted_by_their_joined_users() {
    let world = world("shared");
    let servers = || -> Vec<(String, u64)> {
        let mut servers: Vec<_> = ask(&world, &ServersInRoom { room_id: ROOM.into() })
            .into_iter()
            .map(|(server, joined): (Arc<str>, u64)| (server.to_string(), joined))
            .collect();
        servers.sort();
        servers
    };
    let row = |server: &str, joined: u64| (server.to_owned(), joined);
    assert_eq!(servers(), [row("here.example", 1)]);
    world.member(ROOM, ALICE, BOB, "invite").unwrap();
    assert_eq!(servers(), [row("here.example", 1)]);
    world.join(ROOM, BOB);
    world.join(ROOM, CAROL);
    world.join(ROOM, CAROL);
    world.join(ROOM, DAVE);
    assert_eq!(servers(), [row("here.example", 1), row(THERE, 2), row(THIRD, 1)]);
    world.leave(ROOM, BOB);
    world.member(ROOM, ALICE, DAVE, "ban").unwrap();
    assert_eq!(servers(), [row("here.example", 1), row(THERE, 1)]);
    world.member(ROOM, ALICE, CAROL, "leave").unwrap();
    assert_eq!(servers(), [row("here.example", 1)]);
    let unknown = ServersInRoom { room_id: "!unknown:here.example".into() };
    assert!(matches!(world.engine.read(&unknown), Err(Error::NotFound(What::Room))));
}
