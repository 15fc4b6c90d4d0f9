//! The receive path: arbitrary graphs of events of other servers, in any order, with everything that can be wrong with them.

use std::sync::Arc;

use bytes::Bytes;
use warren_engine::check::Check;
use warren_engine::command::{
    CompleteState, EnterRoom, ReceivePdus, Received, StoreOutliers, StoreServerKeys,
};
use warren_engine::core::checked::{CheckedPdu, PduCheck};
use warren_engine::remote::ServerKey;
use warren_engine::store::schema::EventStatus;
use warren_engine::store::{Direction, Family, Memory, Read};
use warren_engine::view::CheckPdus;
use warren_engine::view::testing::{RoomShape, Shape};
use warren_engine::{Engine, GivenState, Outcome};

use crate::choices::Choices;
use crate::graph::{Graph, Made, SERVERS, key};
use crate::server::{NOW_MS, memory_engine};

/// Most deliveries that a hostile server makes at the end.
const TRICKS_MAX: usize = 8;

/// The first byte picks the room version, the others are the choices of a graph and of how it arrives.
pub fn receive(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let version = choices.version();
    let graph = Graph::new(version, &mut choices);
    let is_partial = choices.rarely(4);
    let one = Server::new(&graph, is_partial);
    one.deliver(&in_given_order(&graph), 1 + choices.below(8));
    one.is_sound();
    one.bears_the_same_again(&graph);
    if !is_partial {
        // The order in which events come decides nothing but what soft-fails, and what that keeps from the room.
        let other = Server::new(&graph, false);
        other.deliver(&shuffled(&graph, &mut choices), 1 + choices.below(8));
        other.is_sound();
        compare(&one.shape(), &other.shape());
    }
    for _ in 0..choices.below(TRICKS_MAX) {
        one.suffer(&graph, &mut choices);
        one.is_sound();
    }
    if is_partial {
        one.complete(&graph, &mut choices);
        one.is_sound();
    }
    one.bears_the_same_again(&graph);
}

/// What comes at first, each event after what it names.
fn in_given_order(graph: &Graph) -> Vec<Bytes> {
    graph.events.iter().filter(|made| !made.is_withheld).map(|made| made.json.clone()).collect()
}

/// The same in another order, some of it twice.
fn shuffled(graph: &Graph, choices: &mut Choices<'_>) -> Vec<Bytes> {
    let mut shuffled: Vec<Bytes> = Vec::new();
    for json in in_given_order(graph) {
        let place = choices.below(shuffled.len() + 1);
        shuffled.insert(shuffled.len() - place, json.clone());
        if choices.rarely(8) {
            shuffled.push(json);
        }
    }
    shuffled.reverse();
    shuffled
}

/// Two servers to which the same came in another order.
fn compare(one: &Shape, other: &Shape) {
    assert!(one.events.keys().eq(other.events.keys()), "not the same events are part of the graph");
    let mut soft_failed = false;
    for (event_id, (status, before)) in &one.events {
        let (other_status, other_before) = &other.events[event_id];
        assert_eq!(before, other_before, "the state before {event_id} depends on the order");
        let is_rejected = |status: &EventStatus| *status == EventStatus::Rejected;
        assert_eq!(is_rejected(status), is_rejected(other_status), "whether {event_id} is rejected does");
        soft_failed |= *status == EventStatus::SoftFailed || *other_status == EventStatus::SoftFailed;
    }
    if !soft_failed {
        assert_eq!(
            (&one.ends, &one.state),
            (&other.ends, &other.state),
            "the room's state depends on the order"
        );
    }
}

/// A server that has entered the room.
struct Server {
    engine: Engine,
    memory: Arc<Memory>,
    room_id: String,
    version: &'static warren_engine::core::version::RoomVersion,
}

impl Server {
    fn new(graph: &Graph, is_partial: bool) -> Self {
        let (engine, memory) = memory_engine();
        for server in &SERVERS[..2] {
            let key = ServerKey {
                key_id: "ed25519:1".into(),
                public_key: key(server).public_key().to_vec(),
                valid_until_ts: NOW_MS * 2,
                is_old: false,
            };
            let keys = StoreServerKeys { server_name: (*server).to_owned(), keys: vec![key] };
            engine.write(keys).wait().expect("keys can be stored");
        }
        let server = Self { engine, memory, room_id: graph.room_id.to_string(), version: graph.version };
        let told: Vec<&Made> = graph.first.iter().filter(|made| !is_partial || !is_left_out(made)).collect();
        server.store(told.iter().map(|made| made.json.clone()).collect());
        let join = server.check(std::slice::from_ref(&graph.entry.json)).pop().expect("it is signed");
        let enter = EnterRoom {
            room_id: server.room_id.clone(),
            version: graph.version,
            join,
            untold: Vec::new(),
            state: told.iter().map(|made| made.pdu.event_id.clone()).collect(),
            partial: is_partial.then(Vec::new),
        };
        let (outcome, missing) = server.engine.write(enter).wait().expect("it can be entered");
        assert_eq!(outcome, Outcome::Accepted, "{missing:?}");
        server
    }

    /// Those that pass what is checked without a room.
    fn check(&self, pdus: &[Bytes]) -> Vec<Arc<CheckedPdu>> {
        let checks = self.engine.read(&CheckPdus { version: self.version, pdus });
        let checks = checks.expect("any bytes can be checked").into_iter();
        checks
            .filter_map(|check| match check {
                PduCheck::Ready(checked) => Some(checked),
                PduCheck::Refused { error, .. } => {
                    assert!(!error.to_string().is_empty());
                    None
                }
                PduCheck::MissingKeys(keys) => {
                    assert!(!keys.is_empty());
                    None
                }
            })
            .collect()
    }

    fn store(&self, pdus: Vec<Bytes>) {
        let pdus = self.check(&pdus);
        let outliers = StoreOutliers { room_id: self.room_id.clone(), version: self.version, pdus };
        self.engine.write(outliers).wait().expect("outliers can be stored");
    }

    fn receive(&self, command: ReceivePdus) -> Received {
        let command = ReceivePdus { room_id: self.room_id.clone(), ..command };
        self.engine.write(command).wait().expect("nothing that comes is an error of the server")
    }

    /// Delivers events in transactions, again and again until nothing comes of it.
    fn deliver(&self, pdus: &[Bytes], at_once: usize) {
        loop {
            let mut is_over = true;
            for pdus in pdus.chunks(at_once) {
                let received = self.receive(ReceivePdus { pdus: self.check(pdus), ..ReceivePdus::default() });
                is_over &= received.outcomes.iter().all(|(_, outcome)| {
                    matches!(outcome, Outcome::Known | Outcome::Waiting | Outcome::Refused(_))
                });
            }
            if is_over {
                return;
            }
        }
    }

    /// Nothing changes when everything comes once more.
    fn bears_the_same_again(&self, graph: &Graph) {
        let before = self.rows();
        let received =
            self.receive(ReceivePdus { pdus: self.check(&in_given_order(graph)), ..ReceivePdus::default() });
        let is_new =
            |outcome: &Outcome| !matches!(outcome, Outcome::Known | Outcome::Waiting | Outcome::Refused(_));
        // What waited may be judged by what came meanwhile.
        if received.outcomes.iter().any(|(_, outcome)| is_new(outcome)) {
            return self.deliver(&in_given_order(graph), graph.events.len().max(1));
        }
        assert!(before == self.rows(), "something was written for events that are known, or wait");
    }

    fn rows(&self) -> Vec<(Family, Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        for family in Family::ALL {
            let scanned = self.memory.scan(family, &[], None, Direction::Forward, &mut |key, value| {
                rows.push((family, key.to_vec(), value.to_vec()));
                true
            });
            scanned.expect("memory can be read");
        }
        rows
    }

    fn shape(&self) -> Shape {
        self.engine.read(&RoomShape { room_id: self.room_id.clone() }).expect("the room is there")
    }

    fn is_sound(&self) {
        let report = self.engine.read(&Check { progress: &|_, _| () }).expect("memory can be read");
        assert!(report.is_clean(), "{:?}", report.findings.first());
    }

    /// Something that a server may do which lies about states and history.
    fn suffer(&self, graph: &Graph, choices: &mut Choices<'_>) {
        let some = |choices: &mut Choices<'_>, most: usize| -> Vec<&Made> {
            (0..choices.below(most)).map(|_| &graph.events[choices.below(graph.events.len())]).collect()
        };
        if graph.events.is_empty() {
            return;
        }
        let json = |made: &[&Made]| made.iter().map(|made| made.json.clone()).collect::<Vec<_>>();
        match choices.below(3) {
            0 => self.store(json(&some(choices, 6))),
            1 => {
                let pdus = self.check(&json(&some(choices, 6)));
                self.receive(ReceivePdus { pdus, backfill: true, ..ReceivePdus::default() });
            }
            _ => {
                let (pdus, outliers) = (some(choices, 6), some(choices, 4));
                let states = pdus.iter().map(|made| GivenState {
                    event_id: made.pdu.event_id.clone(),
                    state: told_state(graph, &some(choices, 4)),
                });
                let states = states.collect();
                let (pdus, outliers) = (self.check(&json(&pdus)), self.check(&json(&outliers)));
                self.receive(ReceivePdus { pdus, outliers, states, ..ReceivePdus::default() });
            }
        }
    }

    /// The state before the entry becomes whole, and perhaps more than that.
    fn complete(&self, graph: &Graph, choices: &mut Choices<'_>) {
        self.store(graph.first.iter().map(|made| made.json.clone()).collect());
        let more: Vec<&Made> = match choices.rarely(2) && !graph.events.is_empty() {
            true => vec![&graph.events[choices.below(graph.events.len())]],
            false => Vec::new(),
        };
        let state = told_state(graph, &more);
        let state = GivenState { event_id: graph.entry.pdu.event_id.clone(), state };
        let complete = CompleteState { room_id: self.room_id.clone(), state };
        self.engine.write(complete).wait().expect("a state can be completed");
    }
}

/// The state before the entry, with more that does not belong there.
fn told_state(graph: &Graph, more: &[&Made]) -> Vec<Arc<str>> {
    graph.first.iter().chain(more.iter().copied()).map(|made| made.pdu.event_id.clone()).collect()
}

/// Members are left out of a partial state, but for who created the room.
fn is_left_out(made: &Made) -> bool {
    &*made.pdu.kind == "m.room.member" && made.pdu.state_key.as_deref() != Some(crate::choices::USERS[0])
}
