//! Forks in the store: the index of citations changes what is read, never what is resolved.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    command::MergeEnds,
    core::{
        auth::auth_types,
        event::{EventBuilder, EventReference},
    },
    error::Missing,
    fixture::{
        SERVER, World,
        observed::{Counts, Observed},
    },
    room::{
        merging::DUMMY_EVENT,
        policy::Recommendation,
        receive::{AtHand, Standing, receive},
        visibility::Viewer,
    },
    view::RoomsToMerge,
};

const ROOM: &str = "!forked:here.example";
const ALICE: &str = "@alice:here.example";

fn user(index: usize) -> String {
    format!("@user{index}:here.example")
}

/// A public room with so many members, of whom the first two are moderators.
fn furnish(world: &World, members: usize) {
    world.room(ROOM, ALICE, None);
    set_power_levels(world, &json!({ALICE: 100, user(0): 50, user(1): 50}));
    (0..members).for_each(|index| drop(world.join(ROOM, &user(index))));
}

fn set_power_levels(world: &World, users: &Value) {
    world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": users}));
}

/// Gives the room a state event that follows `prev` alone and names as its auth events what the state there has.
fn give(
    world: &World,
    prev: EventNum,
    sender: &str,
    kind: &str,
    state_key: &str,
    content: &Value,
) -> EventNum {
    world.pass_ms(1);
    let given = world.act(|tx| {
        let mut room = RoomCtx::load(tx, ROOM)?;
        let prev = tx.event(prev)?;
        let content = content.as_object().cloned().unwrap_or_default();
        let mut auth_events = Vec::new();
        for (kind, state_key) in auth_types(room.version, kind, sender, Some(state_key), &content) {
            let event = tx.state_event(room.num, prev.header.state_after, kind, state_key)?;
            auth_events.extend(event.map(|event| EventReference::from(event.event_id.clone())));
        }
        let builder = EventBuilder {
            room_id: Some(ROOM.into()),
            sender: sender.into(),
            kind: kind.into(),
            state_key: Some(state_key.into()),
            content,
            redacts: None,
            prev_events: vec![prev.event_id.clone().into()],
            auth_events,
            depth: prev.header.depth + 1,
            origin_server_ts: tx.shared.clock.now_ms(),
            event_id_localpart: None,
        };
        let pdu = Arc::new(builder.build(room.version, SERVER, &tx.shared.key_pair).unwrap());
        let recommendation = Recommendation::BySignature;
        let standing = Standing { given: None, is_hearsay: false, recommendation };
        receive(tx, &mut room, &pdu, standing, &mut AtHand::default(), &mut Missing::default())?;
        room.save(tx);
        Ok(tx.event_num(&pdu.event_id)?.unwrap())
    });
    given.unwrap()
}

fn last(world: &World) -> EventNum {
    world.ask(|reader| Ok(RoomCtx::load(reader, ROOM)?.head.extremities[0].0))
}

/// The same without the index.
struct Unindexed<'a>(Graph<'a>);

impl StateGraph for Unindexed<'_> {
    type Error = StorageError;

    fn facts(&self, num: EventNum) -> Result<Arc<AuthFacts>, StorageError> {
        self.0.facts(num)
    }

    fn key(&self, kind: &str, state_key: &str) -> Result<Option<StateKeyId>, StorageError> {
        self.0.key(kind, state_key)
    }

    fn get(&self, snapshot: NodeId, key: StateKeyId) -> Result<Option<EventNum>, StorageError> {
        self.0.get(snapshot, key)
    }

    fn difference(
        &self,
        before: NodeId,
        after: NodeId,
    ) -> Result<Vec<(StateKeyId, Option<EventNum>, Option<EventNum>)>, StorageError> {
        self.0.difference(before, after)
    }
}

/// Who does what to whom, after which event.
type Act = (prop::sample::Index, usize, usize, u8);

/// Plays the acts, each where it is chosen to be; the states after those that became part of the room.
fn play(world: &World, acts: &[Act]) -> Vec<NodeId> {
    let mut events = vec![last(world)];
    for (number, (prev, sender, target, what)) in acts.iter().enumerate() {
        let sender = if *sender == 0 { ALICE.to_owned() } else { user(*sender - 1) };
        let target = user(*target);
        let member = |membership: &str| {
            let content = json!({"membership": membership, "displayname": number.to_string()});
            ("m.room.member", if membership == "join" { sender.as_str() } else { target.as_str() }, content)
        };
        let (kind, state_key, content) = match what {
            0 | 1 => member("join"),
            2 => member("leave"),
            3 => member("ban"),
            4 => ("m.room.topic", "", json!({"topic": number})),
            5 => (
                "m.room.join_rules",
                "",
                json!({"join_rule": if number % 2 == 0 { "invite" } else { "public" }}),
            ),
            _ => (
                "m.room.power_levels",
                "",
                json!({"users": {ALICE: 100, user(0): 50, target.clone(): 50 + number % 3}}),
            ),
        };
        events.push(give(world, *prev.get(&events), &sender, kind, state_key, &content));
    }
    world.ask(|reader| {
        let mut states = Vec::new();
        for event in reader.events(&events)? {
            if event.header.status == EventStatus::Accepted {
                states.push(event.header.state_after);
            }
        }
        Ok(states)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_index_of_citations_does_not_decide(
        acts in prop::collection::vec((any::<prop::sample::Index>(), 0..5_usize, 0..4_usize, 0..8_u8), 5..40),
    ) {
        let world = World::new();
        furnish(&world, 4);
        let states = play(&world, &acts);
        world.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            for pair in states.iter().enumerate().flat_map(|(at, one)| states[at + 1..].iter().map(|other| [*one, *other])) {
                let indexed = resolved(reader, room.version, room.num, &pair)?;
                let unindexed = resolve(room.version, &Unindexed(Graph { reader, room: room.num }), &pair);
                assert_eq!(Some(indexed), unindexed.ok());
            }
            Ok(())
        });
        let report = world.engine.read(&crate::check::Check { progress: &|_, _| {} }).unwrap();
        prop_assert!(report.is_clean(), "{:?}", report.findings);
    }
}

fn ends(world: &World) -> usize {
    world.ask(|reader| Ok(RoomCtx::load(reader, ROOM)?.head.extremities.len()))
}

/// Forks the room into so many ends.
fn fork_into(world: &World, ends: usize) {
    let base = last(world);
    for number in 0..ends {
        give(world, base, &user(0), "m.room.topic", "", &json!({"topic": number}));
    }
}

#[test]
fn a_room_of_many_ends_is_merged_by_events_that_clients_are_not_shown() {
    let world = World::new();
    furnish(&world, 2);
    let merge = || world.engine.write(MergeEnds { room_id: ROOM.into() }).wait().unwrap();
    fork_into(&world, 10);
    assert_eq!((ends(&world), merge()), (10, 0));
    assert!(world.engine.read(&RoomsToMerge).unwrap().is_empty());
    fork_into(&world, 16);
    assert_eq!(world.engine.read(&RoomsToMerge).unwrap(), [ROOM]);
    let before = world.ask(|reader| Ok(RoomCtx::load(reader, ROOM)?.head.state));
    // Each follows ten and is an end itself.
    assert_eq!((ends(&world), merge(), ends(&world)), (25, 2, 7));
    assert!(world.engine.read(&RoomsToMerge).unwrap().is_empty());
    world.ask(|reader| {
        let room = RoomCtx::load(reader, ROOM)?;
        assert!(reader.state_difference(room.num, before, room.head.state)?.is_empty());
        let mut viewer = Viewer::new(reader, room.num, reader.user_num(&user(1))?.unwrap())?;
        let mut seen = Vec::new();
        for (num, _) in &room.head.extremities {
            let event = reader.event(*num)?;
            assert_eq!(viewer.may_see(&event)?, event.header.state_key.is_some());
            seen.push(reader.text(event.header.kind)?);
        }
        assert!(seen.iter().any(|kind| **kind == *DUMMY_EVENT));
        Ok(())
    });
    world.message(ROOM, &user(1), "together");
    assert_eq!(ends(&world), 1);
}

#[test]
fn a_room_in_which_nobody_here_may_send_stays_forked() {
    let world = World::new();
    furnish(&world, 2);
    let levels = json!({"users": {ALICE: 100, user(0): 50}, "events": {DUMMY_EVENT: 100}});
    world.state(ROOM, ALICE, "m.room.power_levels", "", levels);
    world.leave(ROOM, ALICE);
    fork_into(&world, 11);
    assert_eq!(world.engine.write(MergeEnds { room_id: ROOM.into() }).wait().unwrap(), 0);
    assert_eq!(ends(&world), 11);
}

/// How many rows are read while a room of so many members forks in ten events, by an engine that remembers nothing of it.
fn rows_of_a_fork(members: usize) -> usize {
    let backend = Observed::counting();
    furnish(&World::on(backend.clone()), members);
    let world = World::on(backend.clone());
    world.pass_ms(1_000_000);
    let base = last(&world);
    let before = backend.observer.rows_read();
    for side in 0..2 {
        let [moderator, banned, kicked, renamed] = [side, 2, 4, 5].map(user);
        let why = side.to_string();
        let users = json!({ALICE: 100, user(0): 50, user(1): 50, user(3): side});
        let acts = [
            (ALICE, "m.room.power_levels", "", json!({"users": users})),
            (&moderator, "m.room.member", &*banned, json!({"membership": "ban", "reason": why})),
            (&moderator, "m.room.member", &kicked, json!({"membership": "leave", "reason": why})),
            (&moderator, "m.room.topic", "", json!({"topic": why})),
            (&renamed, "m.room.member", &renamed, json!({"membership": "join", "displayname": why})),
        ];
        let mut prev = base;
        for (sender, kind, state_key, content) in acts {
            prev = give(&world, prev, sender, kind, state_key, &content);
        }
    }
    let is_forked = world.ask(|reader| Ok(RoomCtx::load(reader, ROOM)?.head.extremities.len() == 2));
    assert!(is_forked);
    backend.observer.rows_read() - before
}

#[test]
fn a_fork_costs_what_differs_and_not_the_room() {
    let (few, many) = (rows_of_a_fork(50), rows_of_a_fork(2_000));
    // The state's tree is one or two levels deeper.
    assert!(many < few + few / 4, "{few} rows are read in a room of 50, {many} in one of 2,000");
}

/// A room of so many members with two states, of which one has five members more, and the other none of what differs, not
/// even the create event behind it. The engine remembers nothing of them.
fn arrivals(members: usize) -> (Arc<Observed<Counts>>, World, [NodeId; 2]) {
    let backend = Observed::counting();
    let world = World::on(backend.clone());
    furnish(&world, members);
    let base = last(&world);
    for index in 0..5 {
        let newcomer = format!("@newcomer-{index}:here.example");
        let join = json!({"membership": "join"});
        give(&world, last(&world), &newcomer, "m.room.member", &newcomer, &join);
    }
    drop(world);
    let world = World::on(backend.clone());
    let snapshots =
        [base, last(&world)].map(|num| world.ask(|reader| Ok(reader.event(num)?.header.state_after)));
    (backend, world, snapshots)
}

/// How many rows `read` reads, with the room at hand.
fn rows_of<T>(
    (backend, world, _): &(Arc<Observed<Counts>>, World, [NodeId; 2]),
    read: impl Fn(&mut Tx, &RoomCtx) -> Result<T, StorageError>,
) -> usize {
    let counted = world.act(|tx| {
        let room = RoomCtx::load(tx, ROOM)?;
        let before = backend.observer.rows_read();
        read(tx, &room)?;
        Ok(backend.observer.rows_read() - before)
    });
    counted.unwrap()
}

#[test]
fn a_side_without_any_of_what_differs_costs_no_more() {
    let [few, many] = [50, 2_000].map(|members| {
        let scene = arrivals(members);
        rows_of(&scene, |tx, room| {
            // Those who came stay.
            assert_eq!(resolved(tx, room.version, room.num, &scene.2)?.len(), 5);
            Ok(())
        })
    });
    assert!(many < few + few / 4, "{few} rows are read in a room of 50, {many} in one of 2,000");
}

#[test]
fn what_was_resolved_is_remembered() {
    let scene = arrivals(50);
    let rows = || rows_of(&scene, |tx, room| merged(tx, room, scene.2));
    assert!(rows() > 0);
    assert_eq!(rows(), 0);
}
