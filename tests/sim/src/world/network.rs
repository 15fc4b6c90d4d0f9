//! The network: transactions under way between servers, who can reach whom, and what one server asks of another.
//!
//! A transaction that was lost is sent again in the end, as servers do until it is taken; until then the receiver may ask
//! for what it lacks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use std::sync::Arc;

use bytes::Bytes;
use warren_engine::{
    Error, View,
    command::StoreServerKeys,
    core::checked::MissingKey,
    intake::{Answer, Question},
    remote::ServerKey,
    view::{
        Frontier, FrontierEvent, RoomFrontier,
        federation::{EventIds, EventsById, MissingEvents, ServersInRoom, StateAt},
    },
};

use super::{Breach, SERVER_NAMES, Server, Stopped, World};
use crate::plan::{Fate, Trouble};

/// For how long a server's key counts when it is asked for it: longer than any run.
const KEY_VALID_MS: u64 = 7 * 24 * 3_600_000;
/// Events asked for at once when some are missing.
const MISSING_EVENTS_LIMIT: usize = 20;

/// Events of one room that one server sends another.
#[derive(Clone)]
pub(super) struct Transaction {
    /// The room's index.
    pub room: usize,
    /// Each with its id.
    pub pdus: Vec<(Arc<str>, Bytes)>,
}

/// What is between the servers.
#[derive(Default)]
pub(super) struct Network {
    /// Transactions under way, by sender and receiver.
    queues: BTreeMap<(usize, usize), VecDeque<Transaction>>,
    /// All that was ever sent, in order.
    pub sent: BTreeMap<(usize, usize), Vec<Transaction>>,
    /// The servers on one side of a partition; none if there is no partition.
    side: Option<u8>,
    /// What each server has sent on: (server, event).
    told: BTreeSet<(usize, Arc<str>)>,
    /// The servers that each server last knew in a room: (server, room).
    present: BTreeMap<(usize, usize), BTreeSet<usize>>,
}

impl Network {
    /// Cuts the servers of `mask` off from the others.
    pub fn cut(&mut self, mask: u8) {
        self.side = Some(mask);
    }

    /// Ends a partition.
    pub fn heal(&mut self) {
        self.side = None;
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        self.side.is_none_or(|mask| (mask >> from) & 1 == (mask >> to) & 1)
    }

    fn send(&mut self, from: usize, to: usize, transaction: Transaction) {
        self.sent.entry((from, to)).or_default().push(transaction.clone());
        self.queues.entry((from, to)).or_default().push_back(transaction);
    }
}

impl World {
    /// Whether a server can reach another.
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        self.network.reaches(from, to)
    }

    /// The servers that a server knows in a room.
    pub(super) fn servers_in_room(&self, server: usize, room: usize) -> BTreeSet<usize> {
        let view = ServersInRoom { room_id: self.rooms[room].id.clone() };
        let names = self.servers[server].engine().read(&view).unwrap_or_default();
        let index = |name: &str| SERVER_NAMES.iter().position(|known| *known == name);
        names.iter().filter_map(|(name, _)| index(name)).collect()
    }

    /// Sends on what a server's users did: to the servers that are in the room, or were before it.
    pub(super) fn send_news(&mut self, server: usize) -> Result<(), Breach> {
        for room in 0..self.rooms.len() {
            let Some(frontier) = self.frontier(server, room)? else { continue };
            let now = self.servers_in_room(server, room);
            let before = self.network.present.insert((server, room), now.clone()).unwrap_or_default();
            let is_own = |sender: &str| sender.ends_with(&format!(":{}", SERVER_NAMES[server]));
            for FrontierEvent { event_id, sender, json } in frontier.extremities {
                if is_own(&sender) && self.network.told.insert((server, event_id.clone())) {
                    let to: BTreeSet<usize> =
                        now.union(&before).copied().filter(|to| *to != server).collect();
                    self.send(server, &to, &Transaction { room, pdus: vec![(event_id, json)] });
                }
            }
        }
        Ok(())
    }

    /// Sends the last events of each room, whoever sent them, to all who are in it.
    pub(super) fn send_frontiers(&mut self, server: usize) -> Result<(), Breach> {
        for room in 0..self.rooms.len() {
            let mut to = self.servers_in_room(server, room);
            if !to.remove(&server) {
                continue;
            }
            let Some(frontier) = self.frontier(server, room)? else { continue };
            let pdus = frontier.extremities.into_iter().map(|event| (event.event_id, event.json)).collect();
            self.send(server, &to, &Transaction { room, pdus });
        }
        Ok(())
    }

    pub(super) fn send(&mut self, from: usize, to: &BTreeSet<usize>, transaction: &Transaction) {
        for to in to {
            self.network.send(from, *to, transaction.clone());
        }
    }

    /// The ids of the last events that a server knows.
    fn extremities(&self, server: usize, room: usize) -> Vec<String> {
        let frontier = self.frontier(server, room).ok().flatten();
        let extremities = frontier.into_iter().flat_map(|frontier| frontier.extremities);
        extremities.map(|event| event.event_id.to_string()).collect()
    }

    fn min_depth(&self, server: usize, room: usize) -> u64 {
        self.frontier(server, room).ok().flatten().map_or(0, |frontier| frontier.min_depth)
    }

    fn frontier(&self, server: usize, room: usize) -> Result<Option<RoomFrontier>, Breach> {
        let view = Frontier { room_id: self.rooms[room].id.clone() };
        self.servers[server].engine().read(&view).map_err(|error| Breach::new("frontier", error))
    }

    /// The network does something to one of the transactions under way.
    pub(super) fn carry(
        &mut self,
        (from, to): (usize, usize),
        pick: u8,
        fate: Fate,
        answers: u8,
        trouble: Option<Trouble>,
    ) -> Result<(), Breach> {
        let reaches = self.network.reaches(from, to);
        let Some(queue) = self.network.queues.get_mut(&(from, to)).filter(|queue| !queue.is_empty()) else {
            return Ok(());
        };
        let index = usize::from(pick) % queue.len();
        let Some(transaction) = queue.get(index).cloned() else { return Ok(()) };
        let way = format!("{} → {}: {}", SERVER_NAMES[from], SERVER_NAMES[to], self.names(&transaction));
        if fate == Fate::IsLost {
            self.network.queues.entry((from, to)).or_default().remove(index);
            self.tell(format!("{way}, lost on the way"));
            return Ok(());
        }
        if !reaches {
            self.tell(format!("{way}, which cannot get through"));
            return Ok(());
        }
        self.servers[to].arm(trouble);
        let taken = self.take_in(from, to, &transaction, usize::from(answers));
        self.servers[to].disk.disarm();
        let taken = taken?;
        self.tell(format!(
            "{way}{}, {taken}",
            if fate == Fate::ArrivesTwice { ", to come again" } else { "" }
        ));
        if self.servers[to].disk.has_crashed() {
            self.servers[to].restart()?;
        } else if fate == Fate::Arrives && taken.is_done {
            self.network.queues.entry((from, to)).or_default().remove(index);
        }
        Ok(())
    }

    /// Delivers everything that was ever sent, once more, without faults.
    pub(super) fn deliver_all(&mut self) -> Result<(), Breach> {
        self.network.queues.clear();
        for ((from, to), transactions) in self.network.sent.clone() {
            for transaction in transactions {
                self.deliver_at_last(from, to, &transaction)?;
            }
        }
        Ok(())
    }

    /// Delivers what is under way until nothing is.
    pub(super) fn deliver_queues(&mut self) -> Result<(), Breach> {
        let queues = std::mem::take(&mut self.network.queues);
        for ((from, to), queue) in queues {
            for transaction in queue {
                self.deliver_at_last(from, to, &transaction)?;
            }
        }
        Ok(())
    }

    fn deliver_at_last(&mut self, from: usize, to: usize, transaction: &Transaction) -> Result<(), Breach> {
        let before = self.learned;
        let taken = self.take_in(from, to, transaction, usize::MAX)?;
        if self.learned > before {
            let (from, to) = (SERVER_NAMES[from], SERVER_NAMES[to]);
            self.tell(format!("at last, {from} → {to}: {}, {taken}", self.names(transaction)));
        }
        Ok(())
    }

    fn names(&self, transaction: &Transaction) -> String {
        let names: Vec<String> =
            transaction.pdus.iter().map(|(event_id, _)| self.event_name(event_id)).collect();
        names.join(", ")
    }

    /// How the story calls an event: by its number if a user was told its id.
    pub(super) fn event_name(&self, event_id: &str) -> String {
        match self.acknowledged.iter().position(|event| event.event_id == event_id) {
            Some(index) => format!("event {}", index + 1),
            None => event_id.to_owned(),
        }
    }

    /// Asks the sender of a transaction, and if that one does not help, the others, as server `asker`.
    pub(super) fn ask(
        &self,
        asker: usize,
        first: usize,
        room: usize,
        question: &Question,
    ) -> Result<Answer, Stopped> {
        if let Question::Keys { keys } = question {
            self.ask_for_keys(asker, keys)?;
            return Ok(Answer::Keys);
        }
        let others = (0..self.servers.len()).filter(|other| *other != first);
        for asked in std::iter::once(first).chain(others) {
            if asked == asker || !self.network.reaches(asker, asked) {
                continue;
            }
            match self.ask_one(asker, asked, room, question) {
                Answer::Nothing => {}
                Answer::Events(pdus) if pdus.is_empty() => {}
                answer => return Ok(answer),
            }
        }
        Ok(Answer::Nothing)
    }

    /// Asks for keys, which can be had also while their server cannot be reached: others keep them.
    pub(super) fn ask_for_keys(&self, asker: usize, keys: &[MissingKey]) -> Result<(), Stopped> {
        for MissingKey { server_name, .. } in keys {
            let Some(peer) = self.servers.iter().find(|server| server.name == server_name) else { continue };
            let engine = peer.engine();
            let key = ServerKey {
                key_id: engine.key_pair().key_id().to_owned(),
                public_key: engine.key_pair().public_key().to_vec(),
                valid_until_ts: engine.now_ms() + KEY_VALID_MS,
                is_old: false,
            };
            let store = StoreServerKeys { server_name: server_name.clone(), keys: vec![key] };
            self.servers[asker].write(store)?;
        }
        Ok(())
    }

    fn ask_one(&self, asker: usize, asked: usize, room: usize, question: &Question) -> Answer {
        let (peer, server) = (&self.servers[asked], SERVER_NAMES[asker].to_owned());
        let room_id = self.rooms[room].id.clone();
        let strings = |ids: &[Arc<str>]| ids.iter().map(|id| id.to_string()).collect();
        let answer = match question {
            Question::Keys { .. } | Question::PolicySignature(_) => None,
            Question::MissingEvents { latest } => read(
                peer,
                &MissingEvents {
                    room_id,
                    earliest_events: self.extremities(asker, room),
                    latest_events: strings(latest),
                    limit: MISSING_EVENTS_LIMIT,
                    min_depth: self.min_depth(asker, room),
                    server,
                },
            )
            .map(Answer::Events),
            Question::Events { event_ids } => {
                let view = EventsById { room_id: Some(room_id), event_ids: strings(event_ids), server };
                read(peer, &view).map(|events| Answer::Events(events.into_iter().flatten().collect()))
            }
            Question::State { event_id } => {
                let view = StateAt { room_id, event_id: event_id.to_string(), server };
                read(peer, &view).and_then(|answer| {
                    let mut ids = Vec::new();
                    let mut from = Some(0);
                    while let Some(at) = from {
                        let piece = read(peer, &EventIds { list: &answer.state, from: at })?;
                        ids.extend(piece.items);
                        from = piece.next;
                    }
                    Some(Answer::State { state: ids, auth_chain: Vec::new(), pdus: Vec::new() })
                })
            }
        };
        answer.unwrap_or(Answer::Nothing)
    }
}

/// What the peer answers; nothing if it refuses.
fn read<V: View>(peer: &Server, view: &V) -> Option<V::Output> {
    match peer.engine().read(view) {
        Ok(answer) => Some(answer),
        Err(Error::Storage(error)) => panic!("{} cannot read: {error}", peer.name),
        Err(_) => None,
    }
}
