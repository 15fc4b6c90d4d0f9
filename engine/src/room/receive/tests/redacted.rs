//! What was redacted before it came into the room stays so, whatever becomes of it.

use serde_json::json;

use super::*;
use crate::{
    command::{PurgeBefore, PurgeHistory, StepPurge},
    core::limits::EARLY_REDACTIONS_MAX,
    view::federation::IsAccepted,
};

const EVE: &str = "@eve:here.example";

impl Scene {
    /// A redaction of Bob's.
    pub(super) fn redaction(&self, target: &Pdu, prev: &[String], depth: u64) -> Pdu {
        self.redaction_with(Some(&target.event_id), &json!({}), prev, depth)
    }

    /// One that names its target or not, and has a content.
    pub(super) fn redaction_with(
        &self,
        target: Option<&str>,
        content: &Value,
        prev: &[String],
        depth: u64,
    ) -> Pdu {
        let reference = |id: &String| EventReference::from(Arc::<str>::from(id.as_str()));
        let redaction = EventBuilder {
            room_id: Some(ROOM.into()),
            sender: BOB.into(),
            kind: "m.room.redaction".into(),
            state_key: None,
            content: content.as_object().cloned().unwrap(),
            redacts: target.map(Arc::from),
            prev_events: prev.iter().map(reference).collect(),
            auth_events: self.auth(BOB, "m.room.redaction", None, false).iter().map(reference).collect(),
            depth,
            origin_server_ts: START_MS,
            event_id_localpart: None,
        };
        redaction.build(version(), "there.example", &self.peer.key).unwrap()
    }

    /// An event is known from outside of the graph, and redacted.
    fn redact_outlier(&self, pdu: &Pdu) {
        assert_eq!(self.receive_outliers(&[pdu]).outcomes, [(pdu.event_id.clone(), Outcome::Stored)]);
        let redaction = self.redaction(pdu, &self.ends(), pdu.depth + 500);
        assert!(accepted(&self.receive(&[&redaction])));
        assert!(self.is_redacted(pdu));
    }

    /// Whether an event is redacted, with nothing left of its content.
    pub(super) fn is_redacted(&self, pdu: &Pdu) -> bool {
        self.world.ask(|reader| {
            let event = reader.event(reader.event_num(&pdu.event_id)?.unwrap())?;
            Ok(event.header.redacted_by.is_some() && event.pdu()?.content.is_empty())
        })
    }
}

#[test]
fn what_was_redacted_before_it_came_into_the_room_stays_so() {
    let scene = Scene::new();
    let message = scene.message(BOB, &strs(&scene.ends()), 20);
    scene.redact_outlier(&message);
    // It comes whole, from a server that has not heard of the redaction.
    assert!(accepted(&scene.receive(&[&message])));
    assert!(scene.is_redacted(&message));
    scene.is_sound();
}

/// Nobody could come into the room by what is left of it, in versions before 11.
#[test]
fn a_create_event_is_spared_whoever_redacts_it() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 100}}));
    let create = scene.world.ask(|reader| {
        let room = RoomCtx::load(reader, ROOM)?;
        Ok(room.state(reader, "m.room.create", "")?.unwrap().pdu()?)
    });
    let redaction = scene.redaction(&create, &scene.ends(), 500);
    assert!(accepted(&scene.receive(&[&redaction])));
    let is_whole = scene.world.ask(|reader| {
        let event = reader.event(reader.event_num(&create.event_id)?.unwrap())?;
        Ok(event.header.redacted_by.is_none() && event.json == create.json)
    });
    assert!(is_whole);
    assert!(!scene.world.ask(|reader| {
        let event = reader.event(reader.event_num(&redaction.event_id)?.unwrap())?;
        Ok(crate::room::redactions::is_told(reader, &event)?)
    }));
    scene.is_sound();
}

#[test]
fn so_does_what_came_to_be_known_behind_its_redaction() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let topic =
        scene.draft(BOB, "m.room.topic", Some(""), json!({"topic": "mine"}), &strs(&scene.ends()), 20);
    assert!(accepted(&scene.receive(&[&scene.redaction(&topic, &scene.ends(), 500)])));
    // As part of a state that is told by who has not heard of it.
    scene.receive_outliers(&[&topic]);
    assert!(scene.is_redacted(&topic));
    scene.is_sound();
    // Nor does it get its content back with a place in the room.
    assert!(accepted(&scene.receive(&[&topic])));
    assert!(scene.is_redacted(&topic));
    scene.is_sound();
}

#[test]
fn so_does_what_is_soft_failed_behind_its_redaction() {
    let scene = Scene::new();
    let message = scene.message(BOB, &strs(&scene.ends()), 20);
    assert!(accepted(&scene.receive(&[&scene.redaction(&message, &scene.ends(), 500)])));
    scene.world.member(ROOM, ALICE, BOB, "ban").unwrap();
    let received = scene.receive(&[&message]);
    assert!(matches!(&received.outcomes[..], [(_, Outcome::SoftFailed(_))]), "{received:?}");
    assert!(scene.is_redacted(&message));
    scene.is_sound();
}

#[test]
fn so_does_what_is_soft_failed() {
    let scene = Scene::new();
    let message = scene.message(BOB, &strs(&scene.ends()), 20);
    scene.redact_outlier(&message);
    scene.world.member(ROOM, ALICE, BOB, "ban").unwrap();
    let received = scene.receive(&[&message]);
    assert!(matches!(&received.outcomes[..], [(_, Outcome::SoftFailed(_))]), "{received:?}");
    assert!(scene.is_redacted(&message));
    // Given again it is known, which does not say that it counts.
    assert!(matches!(&scene.receive(&[&message]).outcomes[..], [(_, Outcome::Known)]));
    let counts = |event_id: &str| scene.world.engine.read(&IsAccepted { event_id }).unwrap();
    assert!(!counts(&message.event_id) && !counts("$unheard") && counts(&scene.ends()[0]));
    scene.is_sound();
}

#[test]
fn so_does_what_is_rejected() {
    let scene = Scene::new();
    let levels = |bob: u64| {
        let content = json!({"users": {ALICE: 100, BOB: bob}});
        scene.world.state(ROOM, ALICE, "m.room.power_levels", "", content);
    };
    levels(50);
    let auth = scene.auth(BOB, "m.room.topic", None, false);
    levels(0);
    // What it names allows it, and the state before it does not.
    let topic = scene.peer.make(Draft {
        sender: BOB,
        kind: "m.room.topic",
        state_key: Some(""),
        content: json!({"topic": "mine"}),
        prev: strs(&scene.ends()),
        auth: strs(&auth),
        depth: 20,
    });
    scene.redact_outlier(&topic);
    let received = scene.receive(&[&topic]);
    assert!(matches!(&received.outcomes[..], [(_, Outcome::Rejected(_))]), "{received:?}");
    assert!(scene.is_redacted(&topic));
    scene.is_sound();
}

#[test]
fn so_does_what_fills_a_gap() {
    let scene = Scene::new();
    let [one, two, three, _] = with_gap(&scene);
    scene.redact_outlier(&two);
    let backfill =
        ReceivePdus { pdus: scene.check(&[&one, &two, &three]), backfill: true, ..ReceivePdus::default() };
    assert!(accepted(&scene.write(backfill)));
    assert_eq!([&one, &two, &three].map(|pdu| scene.is_redacted(pdu)), [false, true, false]);
    scene.is_sound();
}

#[test]
fn so_does_what_many_wanted_to_redact_who_may_not() {
    let scene = Scene::new();
    scene.world.join(ROOM, EVE);
    let message = scene.message(BOB, &strs(&scene.ends()), 20);
    // As many as may wait for it.
    for _ in 0..EARLY_REDACTIONS_MAX {
        scene.world.redact(ROOM, EVE, &message.event_id);
    }
    scene.redact_outlier(&message);
    assert!(accepted(&scene.receive(&[&message])));
    assert!(scene.is_redacted(&message));
    scene.is_sound();
}

/// As many wait as may, of a server whose users may not.
fn crowd(scene: &Scene, target: &Pdu) {
    if scene.world.ask(|reader| Ok(reader.user_num(EVE)?.is_none())) {
        scene.world.join(ROOM, EVE);
    }
    for _ in 0..EARLY_REDACTIONS_MAX {
        scene.world.redact(ROOM, EVE, &target.event_id);
    }
}

#[test]
fn so_does_what_somebody_redacts_behind_many_who_may_not() {
    for is_by_moderator in [true, false] {
        let scene = Scene::new();
        let message = scene.message(BOB, &strs(&scene.ends()), 20);
        crowd(&scene, &message);
        match is_by_moderator {
            true => drop(scene.world.redact(ROOM, ALICE, &message.event_id)),
            // Of the sender's server, which is what allows it.
            false => {
                let redaction = scene.redaction(&message, &scene.ends(), 500);
                assert!(accepted(&scene.receive(&[&redaction])));
            }
        }
        crowd(&scene, &message);
        scene.is_sound();
        assert!(accepted(&scene.receive(&[&message])));
        assert!(scene.is_redacted(&message), "by a moderator: {is_by_moderator}");
        scene.is_sound();
    }
}

#[test]
fn so_does_what_a_purge_of_the_history_has_left() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let (state, content) = (scene.state_ids(), json!({"topic": "mine"}));
    let topic = scene.draft(BOB, "m.room.topic", Some(""), content, &strs(&scene.ends()), 20);
    assert!(accepted(&scene.receive(&[&topic])));
    let redaction = scene.redaction(&topic, &scene.ends(), 21);
    assert!(accepted(&scene.receive(&[&redaction])));
    let last = scene.world.message(ROOM, ALICE, "the last");
    let purge = PurgeHistory { room_id: ROOM.to_owned(), before: PurgeBefore::Event(last) };
    let mut progress = scene.world.engine.write(purge).wait().unwrap();
    while !progress.is_over() {
        progress = scene.world.engine.write(StepPurge::after(ROOM, Some(&progress))).wait().unwrap();
    }
    // The state before the redaction is gone.
    for pdu in [&topic, &redaction] {
        assert_eq!(scene.status(&pdu.event_id), Some(EventStatus::Outlier));
    }
    let given = GivenState { event_id: topic.event_id.clone(), state };
    let again = ReceivePdus { pdus: scene.check(&[&topic]), states: vec![given], ..ReceivePdus::default() };
    assert!(accepted(&scene.write(again)));
    assert!(scene.is_redacted(&topic));
    scene.is_sound();
}

/// A redaction of Bob's whose id he chose, in a room of version 1.
fn chosen(peer: &Peer, (localpart, target): (&str, &str), prev: &str, auth: &[String], depth: u64) -> Pdu {
    let reference = |id: &str| EventReference::from(Arc::<str>::from(id));
    let redaction = EventBuilder {
        room_id: Some(ROOM.into()),
        sender: BOB.into(),
        kind: "m.room.redaction".into(),
        state_key: None,
        content: Default::default(),
        redacts: Some(format!("${target}:there.example").into()),
        prev_events: vec![reference(prev)],
        auth_events: auth.iter().map(|id| reference(id)).collect(),
        depth,
        origin_server_ts: START_MS,
        event_id_localpart: Some(localpart.to_owned()),
    };
    redaction.build(RoomVersion::get("1").unwrap(), "there.example", &peer.key).unwrap()
}

#[test]
fn events_that_redact_themselves_or_each_other_redact_nothing() {
    let scene = Scene { world: World::new(), peer: Peer::new() };
    let world = &scene.world;
    world.engine.write(scene.peer.keys()).wait().unwrap();
    world.room_of_version_1(ROOM, ALICE);
    world.join(ROOM, BOB);
    let auth = scene.auth(BOB, "m.room.redaction", None, false);
    let mut prev = scene.ends().remove(0);
    for (at, names) in [("itself", "itself"), ("one", "other"), ("other", "one")].into_iter().enumerate() {
        let pdu = chosen(&scene.peer, names, &prev, &auth, 20 + at as u64);
        let json = [pdu.json.clone()];
        let version = RoomVersion::get("1").unwrap();
        let mut checks = world.engine.read(&CheckPdus { version, pdus: &json }).unwrap();
        let PduCheck::Ready(checked) = checks.remove(0) else { panic!() };
        assert!(accepted(&scene.write(ReceivePdus { pdus: vec![checked], ..ReceivePdus::default() })));
        prev = pdu.event_id.to_string();
    }
    for name in ["itself", "one", "other"] {
        let event_id = format!("${name}:there.example");
        let is_redacted = world.ask(|reader| {
            let event = reader.event(reader.event_num(&event_id)?.unwrap())?;
            Ok(event.header.redacted_by.is_some())
        });
        assert!(!is_redacted, "{name}");
    }
    scene.is_sound();
}
