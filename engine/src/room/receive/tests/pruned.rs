//! Events that other servers tell pruned, as a redaction would leave them, and whole: what is here of them is the whole.

use super::*;
use crate::{
    core::event::redact,
    room::{decode_body, ignored, relations::RelationClass, unread},
    view::federation::{Backfill, MissingEvents, PrunedEvents, WantedWhole},
};

const DAVE: &str = "@dave:third.example";

/// The event as it is given to a server that could not see it.
fn pruned(version: &RoomVersion, pdu: &Pdu) -> Pdu {
    let object: JsonObject = serde_json::from_slice(&pdu.json).unwrap();
    Pdu::from_object(version, redact(version, &object)).unwrap()
}

/// A scene in which Bob may set the topic, and his topic, which is not here yet.
fn with_topic() -> (Scene, Pdu, Pdu) {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let content = json!({"topic": "mine"});
    let topic = scene.draft(BOB, "m.room.topic", Some(""), content, &strs(&scene.ends()), 20);
    let bare = pruned(version(), &topic);
    (scene, topic, bare)
}

impl Scene {
    /// An event as it is stored.
    fn stored(&self, pdu: &Pdu) -> Value {
        self.world.ask(|reader| {
            let num = reader.event_num(&pdu.event_id)?.unwrap();
            let body = reader.get(&schema::EVENT_BODIES, &num)?.unwrap();
            let (_, json) = decode_body(&body).unwrap();
            assert_eq!(json, reader.event(num)?.json, "what is remembered is what is stored");
            Ok(serde_json::from_slice(&json).unwrap())
        })
    }

    /// Those of the events that are here without their content.
    fn bare(&self, pdu: &Pdu) -> Vec<Arc<str>> {
        let event_ids = [pdu.event_id.clone(), "$unheard".into()];
        self.world.engine.read(&PrunedEvents { event_ids: &event_ids }).unwrap()
    }

    /// What Dave's server is told of the two events before this one: by a page of history, and as what lies between.
    fn told_before(&self, last: &Pdu) -> [Vec<Bytes>; 2] {
        let (from, server) = (vec![last.event_id.to_string()], "third.example".to_owned());
        let backfill =
            Backfill { room_id: ROOM.into(), from: from.clone(), limit: 3, server: server.clone() };
        let between = MissingEvents {
            room_id: ROOM.into(),
            earliest_events: Vec::new(),
            latest_events: from,
            limit: 2,
            min_depth: 0,
            server,
        };
        let engine = &self.world.engine;
        let mut page = engine.read(&backfill).unwrap();
        page.retain(|json| *json != last.json);
        [page, engine.read(&between).unwrap()]
    }

    /// Whether others are to be asked for an event that was told without its content.
    pub(super) fn is_wanted(&self, pdu: &Pdu) -> bool {
        let events = [(pdu.event_id.clone(), pdu.sender.clone())];
        let wanted = self.world.engine.read(&WantedWhole { room_id: ROOM, events: &events }).unwrap();
        assert!(wanted.iter().all(|event_id| *event_id == pdu.event_id));
        !wanted.is_empty()
    }

    /// Receives an event whose place in the room is known.
    fn receive_again(&self, pdu: &Pdu) {
        assert_eq!(self.receive(&[pdu]).outcomes, [(pdu.event_id.clone(), Outcome::Known)]);
    }
}

#[test]
fn reading_history_takes_nothing_from_the_state() {
    let (scene, topic, bare) = with_topic();
    scene.receive_outliers(&[&topic]);
    let last = scene.message(BOB, &[&topic.event_id], 21);
    let mut state = scene.state_ids();
    state.push(topic.event_id.clone());
    let states = vec![GivenState { event_id: last.event_id.clone(), state }];
    let live = ReceivePdus { pdus: scene.check(&[&last]), states, ..ReceivePdus::default() };
    assert!(accepted(&scene.write(live)));
    let backfill = ReceivePdus { pdus: scene.check(&[&bare]), backfill: true, ..ReceivePdus::default() };
    let received = scene.write(backfill);
    assert_eq!(received.outcomes, [(topic.event_id.clone(), Outcome::Accepted)]);
    assert_eq!(scene.state("m.room.topic", ""), Some(topic.event_id.to_string()));
    assert_eq!(scene.stored(&topic)["content"], json!({"topic": "mine"}));
    // Told once more, it is known, and whole as before.
    scene.write(ReceivePdus { pdus: scene.check(&[&bare]), backfill: true, ..ReceivePdus::default() });
    assert_eq!(scene.stored(&topic)["content"], json!({"topic": "mine"}));
    scene.is_sound();
}

#[test]
fn nor_does_what_comes_live() {
    let (scene, topic, bare) = with_topic();
    scene.receive_outliers(&[&topic]);
    assert!(accepted(&scene.receive(&[&bare])));
    assert_eq!(scene.state("m.room.topic", ""), Some(topic.event_id.to_string()));
    assert_eq!(scene.stored(&topic)["content"], json!({"topic": "mine"}));
    scene.receive_again(&bare);
    assert_eq!(scene.stored(&topic)["content"], json!({"topic": "mine"}));
    scene.is_sound();
}

#[test]
fn what_was_told_pruned_is_whole_once_it_is_told_whole() {
    let (scene, topic, bare) = with_topic();
    scene.receive_outliers(&[&bare]);
    assert_eq!(scene.stored(&topic)["content"], json!({}));
    assert_eq!(scene.bare(&topic), std::slice::from_ref(&topic.event_id));
    let again = scene.receive_outliers(&[&topic]);
    assert_eq!(again.outcomes, [(topic.event_id.clone(), Outcome::Known)]);
    assert_eq!(scene.stored(&topic)["content"], json!({"topic": "mine"}));
    assert!(scene.bare(&topic).is_empty());
    // What is told as it is, or with less, writes nothing.
    let rewrites = || scene.world.ask(|reader| Ok(reader.shared.rewrites()));
    let before = rewrites();
    scene.receive_outliers(&[&topic]);
    scene.receive_outliers(&[&bare]);
    assert_eq!((rewrites(), scene.stored(&topic)["content"].clone()), (before, json!({"topic": "mine"})));
    scene.is_sound();
}

#[test]
fn so_is_what_has_a_place_in_the_room() {
    let (scene, topic, bare) = with_topic();
    assert!(accepted(&scene.receive(&[&bare])));
    scene.receive_again(&topic);
    assert_eq!(scene.stored(&topic)["content"], json!({"topic": "mine"}));
    assert_eq!(scene.state("m.room.topic", ""), Some(topic.event_id.to_string()));
    scene.is_sound();
}

#[test]
fn what_is_redacted_here_stays_so_whoever_tells_it_whole() {
    let (scene, topic, bare) = with_topic();
    scene.receive_outliers(&[&bare]);
    let redaction = scene.redaction(&topic, &scene.ends(), 500);
    assert!(accepted(&scene.receive(&[&redaction])));
    assert!(scene.bare(&topic).is_empty(), "nothing is missing of it");
    scene.receive_outliers(&[&topic]);
    assert_eq!(scene.stored(&topic)["content"], json!({}));
    assert!(accepted(&scene.receive(&[&topic])));
    scene.receive_again(&topic);
    assert_eq!(scene.stored(&topic)["content"], json!({}));
    scene.is_sound();
}

#[test]
fn a_redaction_that_came_without_its_target_is_applied_once_it_is_whole() {
    let scene = Scene::new();
    let message = scene.message(BOB, &strs(&scene.ends()), 20);
    let redaction = scene.redaction(&message, &scene.ends(), 21);
    assert!(accepted(&scene.receive(&[&message, &pruned(version(), &redaction)])));
    assert_eq!(scene.stored(&message)["content"], json!({"msgtype": "m.text", "body": "at depth 20"}));
    scene.receive_again(&redaction);
    assert_eq!(scene.stored(&message)["content"], json!({}));
    scene.is_sound();
}

#[test]
fn what_a_message_relates_to_is_known_once_it_is_whole() {
    let scene = Scene::new();
    let message = scene.message(BOB, &strs(&scene.ends()), 20);
    let relation = json!({"rel_type": "m.replace", "event_id": &*message.event_id});
    let content = json!({"body": "* new", "m.new_content": {"body": "new"}, "m.relates_to": relation});
    let edit = scene.draft(BOB, "m.room.message", None, content, &[&message.event_id], 21);
    assert!(accepted(&scene.receive(&[&message, &pruned(version(), &edit)])));
    let edits = || {
        scene.world.ask(|reader| {
            let (room, num) =
                (reader.room_num(ROOM)?.unwrap(), reader.event_num(&message.event_id)?.unwrap());
            Ok(reader.relations_to(room, RelationClass::Bundled, &[num])?.len())
        })
    };
    assert_eq!(edits(), 0);
    for _ in 0..2 {
        scene.receive_again(&edit);
        assert_eq!(edits(), 1);
    }
    scene.is_sound();
}

#[test]
fn what_turns_out_to_relate_to_another_is_the_root_of_no_thread() {
    let scene = Scene::new();
    let first = scene.message(BOB, &strs(&scene.ends()), 20);
    let reply = |to: &Pdu, depth| {
        let relation = json!({"rel_type": "m.thread", "event_id": &*to.event_id});
        let content = json!({"body": "a reply", "m.relates_to": relation});
        scene.draft(BOB, "m.room.message", None, content, &[&to.event_id], depth)
    };
    let second = reply(&first, 21);
    let third = reply(&second, 22);
    assert!(accepted(&scene.receive(&[&first, &pruned(version(), &second), &third])));
    let is_root = |pdu: &Pdu| {
        scene.world.ask(|reader| {
            let (room, num) = (reader.room_num(ROOM)?.unwrap(), reader.event_num(&pdu.event_id)?.unwrap());
            Ok(reader.has(&schema::THREADS, &(room, num))?)
        })
    };
    assert_eq!([&first, &second].map(is_root), [false, true]);
    scene.receive_again(&second);
    assert_eq!([&first, &second].map(is_root), [true, false]);
    scene.is_sound();
}

#[test]
fn who_is_mentioned_is_notified_once_that_is_known() {
    let scene = Scene::new();
    let content = json!({"msgtype": "m.text", "body": "you", "m.mentions": {"user_ids": [ALICE]}});
    let message = scene.draft(BOB, "m.room.message", None, content, &strs(&scene.ends()), 20);
    let highlights = || {
        scene.world.ask(|reader| {
            let (user, room) = (reader.user_num(ALICE)?.unwrap(), reader.room_num(ROOM)?.unwrap());
            Ok(unread::counts(reader, user, room, ignored::by(reader, user)?)?.highlight_count)
        })
    };
    assert!(accepted(&scene.receive(&[&pruned(version(), &message)])));
    assert_eq!(highlights(), 0);
    scene.receive_again(&message);
    assert_eq!(highlights(), 1);
}

#[test]
fn no_signature_is_lost_with_a_copy() {
    let third = KeyPair::from_seed("1", &[9; 32]).unwrap();
    for is_whole_first in [true, false] {
        let (scene, topic, bare) = with_topic();
        let signed = bare.with_signature(version(), "third.example", &third).unwrap();
        if is_whole_first {
            scene.receive_outliers(&[&topic]);
            assert!(accepted(&scene.receive(&[&signed])));
        } else {
            scene.receive_outliers(&[&signed]);
            scene.receive_outliers(&[&topic]);
        }
        let stored = scene.stored(&topic);
        assert_eq!(stored["content"], json!({"topic": "mine"}));
        assert!(stored["signatures"]["third.example"][KEY_ID].is_string(), "{stored}");
        assert!(stored["signatures"]["there.example"][KEY_ID].is_string(), "{stored}");
        scene.is_sound();
    }
}

#[test]
fn two_events_of_one_id_are_no_copies() {
    let scene = Scene { world: World::new(), peer: Peer::new() };
    scene.world.engine.write(scene.peer.keys()).wait().unwrap();
    scene.world.room_of_version_1(ROOM, ALICE);
    scene.world.join(ROOM, BOB);
    let version = RoomVersion::get("1").unwrap();
    let reference = |id: &String| EventReference::from(Arc::<str>::from(id.as_str()));
    let make = |depth| {
        let builder = EventBuilder {
            room_id: Some(ROOM.into()),
            sender: BOB.into(),
            kind: "m.room.message".into(),
            state_key: None,
            content: json!({"body": "one of two"}).as_object().cloned().unwrap(),
            redacts: None,
            prev_events: scene.ends().iter().map(reference).collect(),
            auth_events: scene.auth(BOB, "m.room.message", None, false).iter().map(reference).collect(),
            depth,
            origin_server_ts: START_MS,
            event_id_localpart: Some("twice".to_owned()),
        };
        builder.build(version, "there.example", &scene.peer.key).unwrap()
    };
    let check = |pdu: &Pdu| {
        let json = [pdu.json.clone()];
        match scene.world.engine.read(&CheckPdus { version, pdus: &json }).unwrap().remove(0) {
            PduCheck::Ready(checked) => checked,
            other => panic!("{other:?}"),
        }
    };
    let (one, other) = (make(20), make(21));
    scene.write(ReceivePdus { outliers: vec![check(&one)], ..ReceivePdus::default() });
    let bare = check(&pruned(version, &other));
    assert!(accepted(&scene.write(ReceivePdus { pdus: vec![bare], ..ReceivePdus::default() })));
    let stored = scene.stored(&other);
    assert_eq!((&stored["depth"], &stored["content"]), (&json!(21), &json!({})));
    // Nor does the first get its content into the place of the second.
    scene.write(ReceivePdus { outliers: vec![check(&one)], ..ReceivePdus::default() });
    assert_eq!(scene.stored(&other), stored);
    scene.is_sound();
}

/// What follows it would not be taken by who is not told it.
#[test]
fn what_is_here_pruned_is_given_as_it_is_here() {
    let (scene, topic, bare_topic) = with_topic();
    let message = scene.message(BOB, &[&topic.event_id], 21);
    let bare_message = pruned(version(), &message);
    let last = scene.message(BOB, &[&message.event_id], 22);
    assert!(accepted(&scene.receive(&[&bare_topic, &bare_message, &last])));
    scene.world.join(ROOM, DAVE);
    let by_id = EventsById {
        room_id: None,
        event_ids: vec![topic.event_id.to_string(), message.event_id.to_string()],
        server: "third.example".into(),
    };
    let is_given = |topic: &Pdu, message: &Pdu| {
        let found = scene.world.engine.read(&by_id).unwrap();
        let found: Vec<Bytes> = found.into_iter().map(Result::unwrap).collect();
        let (topic, message) = (topic.json.clone(), message.json.clone());
        let before = vec![message.clone(), topic.clone()];
        let between = vec![topic, message];
        assert_eq!(found, between);
        assert_eq!(scene.told_before(&last), [before, between]);
    };
    is_given(&bare_topic, &bare_message);
    scene.receive_again(&message);
    is_given(&bare_topic, &message);
    scene.is_sound();
}

#[test]
fn of_two_copies_that_come_together_the_whole_one_is_kept() {
    for is_whole_first in [true, false] {
        let scene = Scene::new();
        let message = scene.message(BOB, &strs(&scene.ends()), 20);
        let mut copies = vec![message.json.clone(), pruned(version(), &message).json];
        if !is_whole_first {
            copies.reverse();
        }
        scene.drive(Intake::new(ROOM.into(), version(), copies), |_| Answer::Nothing);
        assert_eq!(scene.stored(&message)["content"]["body"], json!("at depth 20"), "{is_whole_first}");
    }
}

#[test]
fn of_what_a_known_redaction_left_nobody_is_asked_for_more() {
    let (scene, topic, bare) = with_topic();
    assert!(scene.is_wanted(&topic), "it is not here");
    scene.receive_outliers(&[&bare]);
    assert!(scene.is_wanted(&topic), "it is without its content");
    scene.receive_outliers(&[&topic]);
    assert!(!scene.is_wanted(&topic), "it is whole");
    let message = scene.message(BOB, &strs(&scene.ends()), 30);
    let redaction = scene.redaction(&message, &scene.ends(), 31);
    assert!(accepted(&scene.receive(&[&redaction])));
    assert!(!scene.is_wanted(&message), "it will be redacted");
    assert!(accepted(&scene.receive(&[&message])));
    assert!(!scene.is_wanted(&message), "it is redacted");
    let scene = Scene::new();
    let message = scene.message(ALICE, &strs(&scene.ends()), 20);
    let redaction = scene.redaction(&message, &scene.ends(), 21);
    assert!(accepted(&scene.receive(&[&redaction])));
    assert!(scene.is_wanted(&message), "Bob may not redact what is Alice's");
}
