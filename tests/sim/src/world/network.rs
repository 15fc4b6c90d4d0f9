//! The network: who can reach whom, which copies of transactions are still on their way, and what one server asks of another.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use warren_engine::{
    Error, View,
    command::{StoreServerKeys, Transaction},
    core::checked::MissingKey,
    intake::{Answer, Question},
    remote::{KeyStanding, ServerKey},
    view::{
        Frontier, RoomFrontier, StandingOfKey,
        federation::{EventAuth, EventIds, EventsById, MissingEvents, Pdus, ServersInRoom, StateAt},
    },
};

use super::{Breach, SERVER_NAMES, Server, Stopped, World};

/// For how long a server's key counts when it is asked for it: longer than any run.
const KEY_VALID_MS: u64 = 7 * 24 * 3_600_000;
/// Events asked for at once when some are missing.
const MISSING_EVENTS_LIMIT: usize = 20;

/// What is between the servers.
#[derive(Default)]
pub(super) struct Network {
    /// Copies of transactions that the network still has, by sender and receiver.
    pub copies: BTreeMap<(usize, usize), VecDeque<Transaction>>,
    /// The servers on one side of a partition; none if there is no partition.
    side: Option<u8>,
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

    /// The ids of the last events that a server knows.
    fn extremities(&self, server: usize, room: usize) -> Vec<String> {
        let frontier = self.frontier(server, room).ok().flatten();
        let extremities = frontier.into_iter().flat_map(|frontier| frontier.extremities);
        extremities.map(|event| event.event_id.to_string()).collect()
    }

    fn min_depth(&self, server: usize, room: usize) -> u64 {
        self.frontier(server, room).ok().flatten().map_or(0, |frontier| frontier.min_depth)
    }

    pub(super) fn frontier(&self, server: usize, room: usize) -> Result<Option<RoomFrontier>, Breach> {
        let view = Frontier { room_id: self.rooms[room].id.clone() };
        self.servers[server].engine().read(&view).map_err(|error| Breach::new("frontier", error))
    }

    /// How the story calls an event: by its number if a user was told its id.
    pub(super) fn event_name(&self, event_id: &str) -> String {
        match self.acknowledged.iter().position(|event| event.event_id == event_id) {
            Some(index) => format!("event {}", index + 1),
            None => event_id.to_owned(),
        }
    }

    /// Asks one of the servers after the other until one knows, as server `asker`.
    pub(super) fn ask(
        &self,
        asker: usize,
        servers: &[String],
        room_id: &str,
        question: &Question,
    ) -> Result<Answer, Stopped> {
        if let Question::Keys { keys } = question {
            self.ask_for_keys(asker, keys)?;
            return Ok(Answer::Keys);
        }
        let Some(room) = self.rooms.iter().position(|room| room.id == room_id) else {
            return Ok(Answer::Nothing);
        };
        for asked in question.asked_of(servers).iter().filter_map(|server| self.index(server)) {
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

    /// The server of that name.
    pub(super) fn index(&self, server: &str) -> Option<usize> {
        self.servers.iter().position(|known| known.name == server)
    }

    /// A server that gets a request needs the key of who sends it.
    pub(super) fn ask_for_key_of(&self, asker: usize, sender: usize) -> Result<(), Stopped> {
        let key_id = self.servers[sender].engine().key_pair().key_id().to_owned();
        let server_name = SERVER_NAMES[sender];
        let standing = StandingOfKey { server_name, key_id: &key_id };
        match self.servers[asker].engine().read(&standing).map_err(Stopped::Failed)? {
            KeyStanding::Known(_) => Ok(()),
            _ => self.ask_for_keys(asker, &[MissingKey { server_name: server_name.to_owned(), key_id }]),
        }
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
            Question::AuthChain { event_id } => {
                let view = EventAuth { room_id, event_id: event_id.to_string(), server };
                read(peer, &view).and_then(|auth_chain| {
                    let mut pdus = Vec::new();
                    let mut from = Some(0);
                    while let Some(at) = from {
                        let piece = read(peer, &Pdus { list: &auth_chain, from: at })?;
                        pdus.extend(piece.items);
                        from = piece.next;
                    }
                    Some(Answer::Events(pdus))
                })
            }
            Question::State { event_id } | Question::OtherState { event_id, .. } => {
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
