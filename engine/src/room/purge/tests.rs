//! Purges of random rooms, interrupted anywhere: what is left is whole, and the rest is gone.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{REMOVED_PER_STEP, whole::OF_ROOMS};
use crate::{
    account::account_data,
    check::Check,
    command::{
        PurgeBefore, PurgeHistory, PurgeRoom, ReceivePdus, SetAlias, SetReceipts, StepPurge, StoreServerKeys,
    },
    core::{
        checked::PduCheck,
        event::{EventBuilder, EventReference, KeyPair},
        filter::{Filter, RoomEventFilter},
        num::{EventNum, RoomNum, StreamPos},
        version::RoomVersion,
    },
    error::{Conflict, Error, Result, What},
    fixture::{START_MS, World},
    remote::ServerKey,
    room::{Freed, PurgeProgress, RoomCtx, receive::Outcome, servers},
    store::{
        Backend, Direction, Family, Faults, Memory, Read, Reader, Rocks, schema,
        schema::{EventStatus, PartialJoin},
    },
    view::{CheckPdus, Messages, Purges, StreamToken, Sync, SyncToken},
};

const ROOM: &str = "!purged:here.example";
const OTHER: &str = "!other:here.example";
const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:there.example";
const CARL: &str = "@carl:here.example";

/// Something that happens in the room; numbers choose among the events that are there.
#[derive(Clone, Debug)]
enum Act {
    Message,
    Relate(&'static str, prop::sample::Index),
    Redact(prop::sample::Index),
    Topic,
    Carl,
    Receipt(prop::sample::Index),
    /// An event of the other server that follows an earlier one; far enough back it makes a fork that stays.
    Fork(prop::sample::Index),
}

fn acts(most: usize) -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => Just(Act::Message),
        3 => (prop::sample::select(vec!["m.thread", "m.annotation", "m.replace", "m.reference"]), any::<prop::sample::Index>())
            .prop_map(|(rel_type, target)| Act::Relate(rel_type, target)),
        1 => any::<prop::sample::Index>().prop_map(Act::Redact),
        2 => Just(Act::Topic),
        1 => Just(Act::Carl),
        1 => any::<prop::sample::Index>().prop_map(Act::Receipt),
        2 => any::<prop::sample::Index>().prop_map(Act::Fork),
    ];
    proptest::collection::vec(act, 1..most)
}

/// A room and those who are in it.
struct Scene {
    world: World,
    key: KeyPair,
    sent: u64,
}

/// An event of the timeline.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    pos: StreamPos,
    num: EventNum,
    event_id: String,
    is_state: bool,
    depth: u64,
}

fn room_num(reader: &Reader) -> RoomNum {
    reader.room_num(ROOM).unwrap().unwrap()
}

impl Scene {
    /// A world with another room than the one that is to be purged.
    fn without_room(backend: Arc<dyn Backend>) -> Self {
        let scene = Self::open(backend, 0);
        let key = ServerKey {
            key_id: "ed25519:1".into(),
            public_key: scene.key.public_key().to_vec(),
            valid_until_ts: START_MS * 2,
            is_old: false,
        };
        let keys = StoreServerKeys { server_name: "there.example".into(), keys: vec![key] };
        scene.world.engine.write(keys).wait().unwrap();
        scene.world.room(OTHER, ALICE, None);
        scene.world.message(OTHER, ALICE, "elsewhere");
        scene
    }

    fn new(backend: Arc<dyn Backend>) -> Self {
        let scene = Self::without_room(backend);
        scene.enter();
        scene
    }

    /// Makes the room, with Alice and Bob in it.
    fn enter(&self) {
        self.world.room(ROOM, ALICE, Some("shared"));
        let prev = self.timeline().last().cloned().unwrap();
        self.receive(&prev, "m.room.member", Some(BOB), &json!({"membership": "join"}));
    }

    fn open(backend: Arc<dyn Backend>, sent: u64) -> Self {
        let key = KeyPair::from_seed("1", &[7; 32]).unwrap();
        let world = World::on(backend);
        // Its time goes on where the one before ended.
        world.pass_ms(sent * 10);
        Self { world, key, sent }
    }

    fn timeline(&self) -> Vec<Line> {
        self.world.ask(|reader| {
            let mut rows = Vec::new();
            reader.scan(&schema::TIMELINE, &room_num(reader), Direction::Forward, |key, num| {
                let (_, pos): (RoomNum, StreamPos) = key;
                rows.push((pos, num));
                true
            })?;
            let line = |(pos, num)| -> Result<Line> {
                let event = reader.event(num)?;
                let (is_state, depth) = (event.header.state_key.is_some(), event.header.depth);
                Ok(Line { pos, num, event_id: event.event_id.to_string(), is_state, depth })
            };
            rows.into_iter().map(line).collect()
        })
    }

    /// An event of Bob's, made by his server.
    fn receive(&self, prev: &Line, kind: &str, state_key: Option<&str>, content: &Value) {
        let version = RoomVersion::get("10").unwrap();
        let wanted = [
            ("m.room.create", ""),
            ("m.room.power_levels", ""),
            ("m.room.join_rules", ""),
            ("m.room.member", BOB),
        ];
        // A message is not allowed by the join rules.
        let wanted = wanted.iter().filter(|(kind, _)| state_key.is_some() || *kind != "m.room.join_rules");
        let auth_events: Vec<String> = self.world.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            let mut found = Vec::new();
            for (kind, key) in wanted.clone() {
                found.extend(room.state(reader, kind, key)?.map(|event| event.event_id.to_string()));
            }
            Ok(found)
        });
        let reference = |id: &String| EventReference::from(Arc::<str>::from(id.as_str()));
        let builder = EventBuilder {
            room_id: Some(ROOM.into()),
            sender: BOB.into(),
            kind: kind.into(),
            state_key: state_key.map(Arc::from),
            content: content.as_object().cloned().unwrap(),
            redacts: None,
            prev_events: vec![reference(&prev.event_id)],
            auth_events: auth_events.iter().map(reference).collect(),
            depth: prev.depth + 1,
            origin_server_ts: START_MS + self.sent,
            event_id_localpart: None,
        };
        let json: Bytes = builder.build(version, "there.example", &self.key).unwrap().json.clone();
        let checks = self.world.engine.read(&CheckPdus { version, pdus: &[json] }).unwrap();
        let pdus = checks.into_iter().map(|check| match check {
            PduCheck::Ready(checked) => checked,
            other => panic!("{other:?}"),
        });
        let command =
            ReceivePdus { room_id: ROOM.to_owned(), pdus: pdus.collect(), ..ReceivePdus::default() };
        let received = self.world.engine.write(command).wait().unwrap();
        for (_, outcome) in received.outcomes {
            // What follows an event from before Bob came is rejected; what follows one of the purged history waits.
            assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        }
    }

    fn act(&mut self, act: &Act) {
        self.sent += 1;
        self.world.pass_ms(10);
        let lines = self.timeline();
        let pick = |index: &prop::sample::Index| index.get(&lines).clone();
        match act {
            Act::Message => {
                self.world.message(ROOM, ALICE, &format!("number {}", self.sent));
            }
            Act::Relate(rel_type, target) => {
                let content = json!({"msgtype": "m.text", "body": format!("number {}", self.sent)});
                self.world.relate(ROOM, ALICE, rel_type, &pick(target).event_id, content);
            }
            Act::Redact(target) => {
                let target = pick(target);
                if !target.is_state || target.depth > 6 {
                    self.world.redact(ROOM, ALICE, &target.event_id);
                }
            }
            Act::Topic => {
                let topic = json!({"topic": format!("number {}", self.sent)});
                self.world.state(ROOM, ALICE, "m.room.topic", "", topic);
            }
            Act::Carl => {
                let joined =
                    self.world.member(ROOM, CARL, CARL, "join").is_ok() && self.sent.is_multiple_of(2);
                if joined {
                    self.world.leave(ROOM, CARL);
                }
            }
            Act::Receipt(target) => {
                let receipts = SetReceipts {
                    room_id: ROOM.to_owned(),
                    user: ALICE.to_owned(),
                    read: Some(pick(target).event_id),
                    read_private: None,
                    fully_read: None,
                    thread_id: None,
                };
                self.world.engine.write(receipts).wait().unwrap();
            }
            Act::Fork(prev) => {
                let content = json!({"msgtype": "m.text", "body": format!("fork {}", self.sent)});
                self.receive(&pick(prev), "m.room.message", None, &content);
            }
        }
    }

    fn is_clean(&self) {
        let report = self.world.engine.read(&Check { progress: &|_, _| () }).unwrap();
        assert_eq!(report.findings, []);
    }

    /// Reads all that Alice can see of the room: the ids of the events in its history, the latest first.
    fn read_all(&self, since: Option<SyncToken>) -> Vec<String> {
        let engine = &self.world.engine;
        for since in [None, since] {
            let sync = Sync {
                user_id: ALICE.to_owned(),
                device_id: None,
                since,
                filter: Arc::new(Filter::default()),
                full_state: false,
                state_after: None,
                waits: false,
            };
            engine.read(&sync).unwrap();
        }
        let mut seen = Vec::new();
        let mut from = None;
        loop {
            let page = Messages {
                room_id: ROOM.to_owned(),
                user: ALICE.to_owned(),
                device: None,
                from,
                to: None,
                forwards: false,
                limit: Some(7),
                filter: RoomEventFilter::default(),
            };
            let page: Value = serde_json::from_slice(&engine.read(&page).unwrap()).unwrap();
            let events = page["chunk"].as_array().unwrap();
            seen.extend(events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()));
            match page["end"].as_str() {
                Some(end) => from = Some(StreamToken::decode(end).unwrap()),
                None => return seen,
            }
        }
    }

    fn state(&self) -> Vec<String> {
        self.world.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            let entries = reader.state_entries(room.num, room.head.state)?;
            entries.into_iter().map(|(_, num)| Ok(reader.event(num)?.event_id.to_string())).collect()
        })
    }

    fn step(&self, last: Option<&PurgeProgress>, limit: usize) -> Result<PurgeProgress> {
        let mut step = StepPurge::after(ROOM, last);
        step.limit = limit;
        self.world.engine.write(step).wait()
    }

    /// Goes on with the purge to its end, as after a start.
    fn finish(&self) -> Freed {
        let mut last = None;
        loop {
            let progress = self.step(last.as_ref(), REMOVED_PER_STEP).unwrap();
            if let Some(freed) = progress.freed {
                return freed;
            }
            last = Some(progress);
        }
    }
}

/// How many rows each keyspace has.
fn rows(memory: &dyn Read) -> BTreeMap<&'static str, usize> {
    let names: BTreeMap<u8, &'static str> =
        schema::table().into_iter().map(|row| (row.id, row.name)).collect();
    let mut counts = BTreeMap::new();
    for family in Family::ALL {
        let mut count = |key: &[u8], _: &[u8]| {
            *counts.entry(names[&key[0]]).or_default() += 1;
            true
        };
        memory.scan(family, &[], None, Direction::Forward, &mut count).unwrap();
    }
    counts
}

#[test]
fn every_keyspace_of_rooms_is_purged() {
    let of_rooms: Vec<&str> = schema::table()
        .into_iter()
        .filter(|row| row.key == "RoomNum" || row.key.starts_with("(RoomNum,"))
        .map(|row| row.name)
        .collect();
    for name in &of_rooms {
        assert!(OF_ROOMS.contains(name), "{name} is not purged with its room");
    }
    assert_eq!(of_rooms.len(), OF_ROOMS.len());
}

/// The nodes that no snapshot of the room's timeline or head refers to.
fn unused_nodes(scene: &Scene) -> usize {
    scene.world.ask(|reader| {
        let room = RoomCtx::load(reader, ROOM)?;
        let mut marked = std::collections::HashSet::new();
        reader.mark_snapshot(room.num, room.head.state, &mut marked)?;
        for line in scene.timeline() {
            let header = reader.event(line.num)?.header.clone();
            for snapshot in [header.state_before, header.state_after, header.room_state] {
                reader.mark_snapshot(room.num, snapshot, &mut marked)?;
            }
        }
        let mut unused = 0;
        reader.scan(&schema::STATE_NODES, &room.num, Direction::Forward, |key, _| {
            let (_, node): (RoomNum, crate::core::num::NodeId) = key;
            unused += usize::from(!marked.contains(&node.0));
            true
        })?;
        Ok(unused)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn history_goes_and_the_rest_stays(
        before in acts(40),
        meanwhile in acts(12),
        cut in any::<prop::sample::Index>(),
        limit in 1usize..12,
        crashes in proptest::collection::vec(any::<bool>(), 8),
        mut seed in any::<u64>(),
    ) {
        let memory = Arc::new(Memory::new());
        let mut scene = Scene::new(memory.clone());
        let token = SyncToken { pos: scene.world.engine.position(), to_device: StreamPos::ZERO };
        for act in &before {
            scene.act(act);
        }
        let lines = scene.timeline();
        let cut = cut.get(&lines).clone();
        let extremities: Vec<String> = scene.world.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            Ok(room.head.extremities.into_iter().map(|(_, event_id)| event_id).collect())
        });
        let stays = |line: &Line| line.pos >= cut.pos || extremities.contains(&line.event_id);
        // What is at an end of the room stays until something follows it.
        let lasts = |id: &&String| lines.iter().any(|line| line.event_id == **id && line.pos >= cut.pos);
        let kept: Vec<String> =
            lines.iter().rev().filter(|line| stays(line)).map(|line| line.event_id.clone()).collect();
        let state = scene.state();
        let purge =
            PurgeHistory { room_id: ROOM.to_owned(), before: PurgeBefore::Event(cut.event_id.clone()) };
        scene.world.engine.write(purge).wait().unwrap();
        let mut last = None;
        // What is known of nodes in use is in memory: it must stay up for a while in the end.
        let mut crashes = crashes.into_iter().chain(std::iter::repeat(false));
        let mut meanwhile = meanwhile.iter();
        let mut is_quiet = true;
        loop {
            seed = seed.wrapping_add(1);
            memory.set_faults(Faults { seed, refused_one_in: 4, unknown_one_in: 4, late_one_in: 4 });
            let progress = scene.step(last.as_ref(), limit);
            memory.set_faults(Faults::default());
            if crashes.next().unwrap() {
                let sent = scene.sent + 1;
                drop(scene);
                memory.crash();
                scene = Scene::open(memory.clone(), sent);
            }
            scene.is_clean();
            let seen = scene.read_all(Some(token));
            let kept: Vec<&String> = kept.iter().filter(|id| is_quiet || lasts(id)).collect();
            prop_assert_eq!(&seen.iter().filter(|id| kept.contains(id)).collect::<Vec<_>>(), &kept);
            match progress {
                Ok(progress) if progress.is_over() => break,
                Ok(progress) => last = Some(progress),
                // A step that seemed to fail may have been the last.
                Err(_) if scene.world.engine.read(&Purges).unwrap().is_empty() => break,
                Err(_) => {}
            }
            if let Some(act) = meanwhile.next() {
                is_quiet = false;
                scene.act(act);
            }
        }
        for line in lines.iter().filter(|line| !stays(line)) {
            let status = scene.world.ask(|reader| match reader.event_num(&line.event_id)? {
                None => Ok(None),
                Some(num) => Ok(Some(reader.event(num)?.header.status)),
            });
            prop_assert!(!line.is_state || status == Some(EventStatus::Outlier));
        }
        if is_quiet {
            prop_assert_eq!(&scene.state(), &state);
            prop_assert_eq!(&scene.timeline().iter().rev().map(|line| line.event_id.clone()).collect::<Vec<_>>(), &kept);
        }
        let unused = unused_nodes(&scene);
        prop_assert!(!is_quiet || unused == 0, "{} nodes are left", unused);
        // It goes on as a room like any other.
        scene.act(&Act::Topic);
        scene.act(&Act::Message);
        scene.is_clean();
    }

    #[test]
    fn a_room_goes_whole_and_can_be_made_anew(
        acts in acts(40),
        limit in 1usize..12,
        crashes in proptest::collection::vec(any::<bool>(), 8),
    ) {
        let memory = Arc::new(Memory::new());
        let mut scene = Scene::without_room(memory.clone());
        let mut without = rows(&*memory);
        scene.enter();
        for act in &acts {
            scene.act(act);
        }
        furnish(&scene);
        let purge = |force| PurgeRoom { room_id: ROOM.to_owned(), force };
        let refused = scene.world.engine.write(purge(false)).wait();
        prop_assert!(matches!(refused, Err(Error::Conflict(Conflict::LocalMembers))));
        scene.world.engine.write(purge(true)).wait().unwrap();
        let mut last = None;
        // Which aliases it needs to itself a step tells the next one: a server that stopped after each would not get on.
        for is_crash in crashes.into_iter().chain(std::iter::repeat(false)) {
            if is_crash {
                let sent = scene.sent + 1;
                drop(scene);
                memory.crash();
                (scene, last) = (Scene::open(memory.clone(), sent), None);
            }
            scene.is_clean();
            let sync = Sync {
                user_id: ALICE.to_owned(),
                device_id: None,
                since: None,
                filter: Arc::new(Filter::default()),
                full_state: false,
                state_after: None,
                waits: false,
            };
            scene.world.engine.read(&sync).unwrap();
            let send = scene.world.try_send(ROOM, ALICE, "m.room.message", None, &json!({}), None);
            prop_assert!(matches!(send, Err(Error::NotFound(What::Room))));
            let progress = scene.step(last.as_ref(), limit).unwrap();
            if progress.is_over() {
                break;
            }
            last = Some(progress);
        }
        let mut left = rows(&*memory);
        for counts in [&mut without, &mut left] {
            counts.retain(|name, _| !["FACTS", "NAME_NUMS", "NAME_TEXTS"].contains(name));
        }
        prop_assert_eq!(left, without);
        scene.is_clean();
        scene.enter();
        scene.act(&Act::Message);
        scene.is_clean();
        prop_assert_eq!(scene.read_all(None).len(), scene.timeline().len());
    }
}

/// Gives the room what events alone do not.
fn furnish(scene: &Scene) {
    let engine = &scene.world.engine;
    for name in ["#one:here.example", "#two:here.example"] {
        let alias = SetAlias { alias: name.to_owned(), room_id: ROOM.to_owned(), user_id: ALICE.to_owned() };
        engine.write(alias).wait().unwrap();
    }
    scene
        .world
        .act(|tx| {
            let room = tx.room_num(ROOM)?.unwrap();
            let alice = tx.user_num(ALICE)?.unwrap();
            account_data::set(tx, alice, Some(room), "org.example", &Bytes::from_static(b"{}"))?;
            tx.put(&schema::PUBLIC_ROOMS, &room, &());
            let supposed = vec!["elsewhere.example".to_owned()];
            servers::suppose(tx, room, &supposed)?;
            let lacking = PartialJoin { event_id: "$join".to_owned(), servers: supposed };
            tx.put(&schema::PARTIAL_JOINS, &room, &lacking);
            Ok(())
        })
        .unwrap();
}

/// Ten thousand events go in steps of bounded size, and the disk gets back what they took.
#[test]
fn a_large_room_goes_in_small_steps_and_frees_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Rocks::open(folder.path(), 16 << 20).unwrap());
    let scene = Scene::new(store.clone());
    let body: String = (0..400).map(|at: u32| char::from(b'a' + (at * at % 25) as u8)).collect();
    for number in 0..10_000 / SENT_AT_ONCE {
        scene
            .world
            .act(|tx| {
                let mut room = RoomCtx::load(tx, ROOM)?;
                for at in 0..SENT_AT_ONCE {
                    let content = json!({"msgtype": "m.text", "body": format!("{number} {at} {body}")});
                    crate::fixture::put(tx, &mut room, ALICE, "m.room.message", None, content, None)?;
                }
                room.save(tx);
                Ok(())
            })
            .unwrap();
    }
    store.flush().unwrap();
    let full = bytes_on_disk(folder.path());
    let lines = scene.timeline();
    let cut = lines.get(lines.len() - 1_000).unwrap().event_id.clone();
    let purge = PurgeHistory { room_id: ROOM.to_owned(), before: PurgeBefore::Event(cut) };
    let begun = scene.world.engine.write(purge).wait().unwrap();
    assert!(begun.estimate > 8_900 && begun.estimate < 10_100, "{begun:?}");
    let (mut last, mut steps) = (begun, 0);
    let freed = loop {
        let progress = scene.step(Some(&last), REMOVED_PER_STEP).unwrap();
        assert!(progress.done - last.done <= REMOVED_PER_STEP as u64 && progress.done <= progress.estimate);
        steps += 1;
        if let Some(freed) = progress.freed {
            break freed;
        }
        last = progress;
    };
    assert!(steps > 9_000 / REMOVED_PER_STEP, "{steps}");
    scene.world.engine.free_disk(&freed).unwrap();
    let cut = bytes_on_disk(folder.path());
    assert!(cut < full / 3, "{cut} of {full} bytes are left of a tenth of the events");
    scene.is_clean();
    assert_eq!(scene.timeline().len(), 1_000);
    scene.world.engine.write(PurgeRoom { room_id: ROOM.to_owned(), force: true }).wait().unwrap();
    scene.world.engine.free_disk(&scene.finish()).unwrap();
    let gone = bytes_on_disk(folder.path());
    assert!(gone < cut / 3, "{gone} of {cut} bytes are left of nothing");
    scene.is_clean();
}

/// How many events the test makes in one batch.
const SENT_AT_ONCE: u32 = 500;

/// What the tables and blobs of a database take. Its logs are not counted: they go by themselves.
fn bytes_on_disk(folder: &std::path::Path) -> u64 {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| {
            let path = entry.path();
            path.extension().is_some_and(|extension| extension == "sst" || extension == "blob")
        })
        .map(|entry| entry.metadata().unwrap().len())
        .sum()
}
