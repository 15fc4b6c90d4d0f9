//! What relates to an event may come before it, as where history is read page by page: it counts once the event is there.

use std::collections::BTreeMap;

use super::*;
use crate::{
    command::{PurgeBefore, PurgeHistory, SetReceipts, StepPurge},
    core::{limits::REL_TYPE_BYTES_MAX, num::RoomNum},
    room::{ignored, unread},
    store::Direction,
    view::{RelatedEvents, Threads, View},
};

impl Scene {
    /// A message of Bob's that relates to another event.
    fn relating(&self, rel_type: &str, target: &str, prev: &str, depth: u64) -> Pdu {
        let relation = json!({"rel_type": rel_type, "event_id": target});
        let content = json!({"body": "* new", "m.new_content": {"body": "new"}, "m.relates_to": relation});
        self.draft(BOB, "m.room.message", None, content, &[prev], depth)
    }

    /// Fills in history.
    fn fill_in(&self, pdus: &[&Pdu]) {
        let backfill = ReceivePdus { pdus: self.check(pdus), backfill: true, ..ReceivePdus::default() };
        let received = self.write(backfill);
        assert!(accepted(&received), "{received:?}");
        self.is_sound();
    }

    fn page<V: View<Output = Vec<u8>>>(&self, view: &V) -> Value {
        serde_json::from_slice(&self.world.engine.read(view).unwrap()).unwrap()
    }

    /// What relates to an event, read one by one.
    fn related(&self, target: &str, forwards: bool) -> Vec<String> {
        let (mut found, mut from) = (Vec::new(), None);
        loop {
            let page = self.page(&RelatedEvents {
                room_id: ROOM.into(),
                event_id: target.into(),
                user: ALICE.into(),
                device: None,
                rel_type: None,
                kind: None,
                from,
                to: None,
                forwards,
                limit: Some(1),
                recurse: false,
            });
            found.extend(ids(&page["chunk"]));
            match page["next_batch"].as_str() {
                Some(next) => from = Some(StreamToken::decode(next).unwrap()),
                None => return found,
            }
        }
    }

    /// The roots of the room's threads.
    fn threads(&self) -> Value {
        let (room_id, user, device) = (ROOM.to_owned(), ALICE.to_owned(), None);
        let view = Threads { room_id, user, device, participated: false, limit: None, from: None };
        self.page(&view)["chunk"].take()
    }

    /// The ids of the events that others wait for, and how many do.
    fn awaited(&self) -> Vec<(String, usize)> {
        self.world.ask(|reader| {
            let mut found = Vec::new();
            let visit = |(_, target): (RoomNum, String), waiting: Vec<EventNum>| {
                found.push((target, waiting.len()));
                true
            };
            reader.scan(&schema::EARLY_RELATIONS, &(), Direction::Forward, visit)?;
            Ok(found)
        })
    }
}

fn ids(events: &Value) -> Vec<String> {
    events.as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_came_before_the_event_that_it_relates_to_counts_once_that_is_there() {
    let scene = Scene::new();
    let root = scene.message(BOB, &strs(&scene.ends()), 20);
    let other = scene.message(BOB, &[&root.event_id], 21);
    let between = scene.message(BOB, &[&other.event_id], 22);
    let first = scene.relating("m.thread", &root.event_id, &between.event_id, 23);
    let edit = scene.relating("m.replace", &root.event_id, &first.event_id, 24);
    let reference = scene.relating("m.reference", &other.event_id, &edit.event_id, 25);
    let second = scene.relating("m.thread", &root.event_id, &reference.event_id, 26);
    let last = behind_gap(&scene, &second);
    // Later pages first.
    scene.fill_in(&[&second]);
    scene.fill_in(&[&first, &edit, &reference]);
    assert_eq!(scene.threads(), json!([]));
    let awaited: usize = scene.awaited().into_iter().map(|(_, waiting)| waiting).sum();
    assert_eq!(awaited, 4);
    scene.fill_in(&[&other, &between]);
    assert_eq!(scene.related(&other.event_id, true), [&*reference.event_id]);
    scene.fill_in(&[&root]);
    assert!(scene.awaited().is_empty());

    let oldest_first = [&first, &edit, &second].map(|pdu| pdu.event_id.to_string());
    assert_eq!(scene.related(&root.event_id, true), oldest_first);
    let mut newest_first = scene.related(&root.event_id, false);
    newest_first.reverse();
    assert_eq!(newest_first, oldest_first);
    let threads = scene.threads();
    assert_eq!(ids(&threads), [&*root.event_id]);
    let bundled = &threads[0]["unsigned"]["m.relations"];
    assert_eq!(bundled["m.replace"]["event_id"], *edit.event_id);
    assert_eq!(bundled["m.thread"]["latest_event"]["event_id"], *second.event_id);
    assert_eq!(bundled["m.thread"]["count"], 2);

    // The thread goes on where the room does.
    let third = scene.relating("m.thread", &root.event_id, &last.event_id, 28);
    assert!(accepted(&scene.receive(&[&third])));
    let threads = scene.threads();
    let thread = &threads[0]["unsigned"]["m.relations"]["m.thread"];
    assert_eq!(thread["latest_event"]["event_id"], *third.event_id);
    assert_eq!(thread["count"], 3);
    scene.is_sound();
}

#[test]
fn what_is_redacted_or_purged_waits_no_longer() {
    let scene = Scene::new();
    let wait = |target| scene.world.relate(ROOM, ALICE, "m.annotation", target, json!({}));
    let redacted = wait("$missing");
    wait("$missing");
    wait("$other");
    assert_eq!(scene.awaited(), [("$missing".to_owned(), 2), ("$other".to_owned(), 1)]);
    scene.world.redact(ROOM, ALICE, &redacted);
    assert_eq!(scene.awaited(), [("$missing".to_owned(), 1), ("$other".to_owned(), 1)]);
    scene.is_sound();
    let kept = wait("$other");
    let purge = PurgeHistory { room_id: ROOM.to_owned(), before: PurgeBefore::Event(kept) };
    let mut progress = scene.world.engine.write(purge).wait().unwrap();
    while !progress.is_over() {
        progress = scene.world.engine.write(StepPurge::after(ROOM, Some(&progress))).wait().unwrap();
    }
    assert_eq!(scene.awaited(), [("$other".to_owned(), 1)]);
    scene.is_sound();
}

#[test]
fn a_type_that_is_too_long_makes_no_relation() {
    let scene = Scene::new();
    let root = scene.world.message(ROOM, ALICE, "root");
    let longest = "x".repeat(REL_TYPE_BYTES_MAX);
    let (relating, too_long) =
        (scene.world.relate(ROOM, ALICE, &longest, &root, json!({})), format!("{longest}x"));
    scene.world.relate(ROOM, ALICE, &too_long, &root, json!({}));
    scene.world.relate(ROOM, ALICE, &too_long, "$missing", json!({}));
    scene.world.relate(ROOM, ALICE, "m.reference", &format!("${longest}"), json!({}));
    assert_eq!((scene.related(&root, true), scene.awaited()), (vec![relating], vec![]));
    assert!(scene.world.ask(|reader| Ok(reader.text_num(&too_long)?)).is_none());
    scene.is_sound();
}

#[test]
fn an_event_is_in_the_same_thread_before_and_after_its_root_comes() {
    let scene = Scene::new();
    let root = scene.message(BOB, &strs(&scene.ends()), 20);
    let reply = scene.relating("m.thread", &root.event_id, &root.event_id, 21);
    let given = GivenState { event_id: reply.event_id.clone(), state: scene.state_ids() };
    let pdus = scene.check(&[&reply]);
    assert!(accepted(&scene.write(ReceivePdus { pdus, states: vec![given], ..ReceivePdus::default() })));
    let unread = || {
        scene.world.ask(|reader| {
            let (room, user) = (reader.room_num(ROOM)?.unwrap(), reader.user_num(ALICE)?.unwrap());
            Ok(unread::counts(reader, user, room, ignored::by(reader, user)?)?.threads)
        })
    };
    let in_thread = BTreeMap::from([(root.event_id.to_string(), (1, 0))]);
    assert_eq!(unread(), in_thread);
    scene.fill_in(&[&root]);
    assert_eq!(unread(), in_thread);
    let read = SetReceipts {
        room_id: ROOM.to_owned(),
        user: ALICE.to_owned(),
        read: Some(reply.event_id.to_string()),
        thread_id: Some(root.event_id.to_string()),
        ..SetReceipts::default()
    };
    scene.world.engine.write(read).wait().unwrap();
    assert!(unread().is_empty());
}
