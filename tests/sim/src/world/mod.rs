//! The world of one run: servers, the network between them, what users did, and what was acknowledged to them.

mod act;
mod approach;
mod carry;
mod devices;
mod fetch;
mod join;
mod ledger;
mod lists;
mod network;
mod page;
mod past;
mod rest;
mod server;
mod take_in;

use std::{collections::BTreeSet, fmt};

pub use server::{DEVICE, SERVER_NAMES, Server, Stopped, USER_NAMES};

use warren_engine::view::{JoinedRooms, federation::PartialRooms};

use crate::{
    client::{StateMap, current_state},
    plan::{Lapse, Plan, Step, User},
};

/// Milliseconds that pass with each step, for everybody.
const STEP_MS: i64 = 1_000;

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which promise; shrinking keeps to it.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

impl Breach {
    /// A breach of `rule`.
    pub fn new(rule: &'static str, what: impl ToString) -> Self {
        Self { rule, what: what.to_string() }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// A fault that must not be, put in to prove that it would be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// None.
    #[default]
    Nothing,
    /// Disks lose the last commit in a crash, though it was said to be durable.
    ForgetfulDisk,
    /// Senders take for delivered what was lost on its way.
    TrustfulSender,
    /// Servers answer for events that lack something, and forget them.
    CarelessReceiver,
    /// Messages to devices that come again are taken for new ones.
    ChangedIds,
    /// Servers take for whole what they are told of devices, whatever others have told meanwhile.
    HastyFollower,
    /// Servers pass over that users of theirs are turned away from rooms that they are not in.
    DeafGuest,
    /// Servers that a room lets in again do not tell again what was refused.
    MuteGuest,
    /// Servers take in nothing of the past that they are told.
    LazyReader,
    /// Servers tell what was said in the past without the words, to those who may see it as well.
    StingyTeller,
}

/// A room that was made.
pub struct Room {
    /// Its id.
    pub id: String,
}

/// An event that was acknowledged to the client that sent it.
pub struct Acknowledged {
    /// Who sent it.
    pub user: User,
    /// The index of its room.
    pub room: usize,
    /// Its id.
    pub event_id: String,
}

/// A run under way.
pub struct World {
    plan: Plan,
    plant: Plant,
    /// The servers.
    pub servers: Vec<Server>,
    /// The rooms, in the order in which they were made.
    pub rooms: Vec<Room>,
    /// What was acknowledged, in order.
    pub acknowledged: Vec<Acknowledged>,
    /// What has happened, a sentence each.
    pub story: Vec<String>,
    /// For the transaction ids and texts of messages.
    messages: usize,
    last_message: Option<act::Message>,
    network: network::Network,
    ledger: ledger::Ledger,
    past: past::Past,
    /// What becomes of a later request between servers, after so many that are answered.
    lapse: Option<(u8, Lapse)>,
    /// How many events servers have learnt of from others.
    learned: usize,
}

impl World {
    /// A world before its first step.
    pub fn new(plan: &Plan, plant: Plant) -> Result<Self, Breach> {
        let forgets = plant == Plant::ForgetfulDisk;
        let servers = (0..plan.servers).map(|index| Server::new(plan, index, forgets));
        Ok(Self {
            servers: servers.collect::<Result<_, _>>()?,
            plan: plan.clone(),
            plant,
            rooms: Vec::new(),
            acknowledged: Vec::new(),
            story: Vec::new(),
            messages: 0,
            last_message: None,
            network: network::Network::default(),
            ledger: ledger::Ledger::default(),
            past: past::Past::default(),
            lapse: None,
            learned: 0,
        })
    }

    /// Plays one step.
    pub fn play(&mut self, step: &Step) -> Result<(), Breach> {
        for server in &self.servers {
            server.move_clock(STEP_MS);
        }
        match step {
            Step::Act { user, deed, trouble, lapse } => {
                self.lapse = *lapse;
                let acted = self.act(*user, *deed, *trouble);
                self.lapse = None;
                acted
            }
            Step::Sync { user } => self.sync(*user),
            Step::Carry { from, to, pick, fate, trouble, hits_sender } => {
                let struck = if *hits_sender { *from } else { *to };
                self.servers[struck].arm(*trouble);
                let carried = self.carry((*from, *to), *pick, *fate);
                self.servers[struck].disk.disarm();
                carried
            }
            Step::Fetch { server, answers, trouble } => {
                self.servers[*server].arm(*trouble);
                let fetched = self.fetch(*server, usize::from(*answers));
                self.servers[*server].disk.disarm();
                fetched
            }
            Step::Follow { server, answers, waits, trouble } => {
                self.servers[*server].arm(*trouble);
                let followed = self.follow(*server, usize::from(*answers), *waits);
                self.servers[*server].disk.disarm();
                followed.map(drop)
            }
            Step::Page { user, room, pages, answers, trouble } => {
                self.page_back(*user, (*room, *pages), *answers, *trouble)
            }
            Step::Cut { mask } => {
                let side = |apart: u8| {
                    let of_side = (0..self.servers.len()).filter(|server| (mask >> server) & 1 == apart);
                    of_side.map(|server| SERVER_NAMES[server]).collect::<Vec<_>>().join(" and ")
                };
                self.tell(format!("{} and {} lose each other", side(1), side(0)));
                self.network.cut(*mask);
                Ok(())
            }
            Step::Heal => {
                self.tell("everybody reaches everybody again".to_owned());
                self.network.heal();
                Ok(())
            }
            Step::Crash { server } => {
                self.tell(format!("{} crashes and starts again", SERVER_NAMES[*server]));
                self.servers[*server].restart()
            }
            Step::Pass { ms } => {
                self.tell(format!("{} s pass", ms / 1_000));
                self.servers.iter().for_each(|server| server.move_clock(i64::from(*ms)));
                Ok(())
            }
            Step::Skew { server, ms } => {
                let way = if *ms < 0 { "back" } else { "ahead" };
                self.tell(format!(
                    "the clock of {} jumps {} s {way}",
                    SERVER_NAMES[*server],
                    ms.abs() / 1_000
                ));
                self.servers[*server].move_clock(*ms);
                Ok(())
            }
        }
    }

    /// Lets everything come to rest, and judges what is there then.
    pub fn finish(&mut self) -> Result<(), Breach> {
        self.network.heal();
        for server in &self.servers {
            server.disk.disarm();
            server.disk.settle();
            server.restart()?;
        }
        self.come_to_rest()?;
        self.check_states()?;
        self.check_messages()?;
        self.check_outsiders()?;
        self.settle_devices()?;
        self.check_devices()?;
        for (index, server) in self.servers.iter_mut().enumerate() {
            server.check()?;
            let (engine, read_in) = (server.engine(), self.past.read_in_by(index));
            for client in &mut server.clients {
                client.sync(&engine)?;
                client.finish(&engine, &read_in)?;
            }
        }
        self.check_acknowledged()?;
        self.check_history()
    }

    /// All servers in a room hold one state: any two of which each takes the other to be in the room, and neither shuts the other out.
    /// One that was let in by a server that did not know better may be alone with its belief.
    fn check_states(&self) -> Result<(), Breach> {
        for room in 0..self.rooms.len() {
            let mut states: Vec<(usize, BTreeSet<usize>, StateMap)> = Vec::new();
            for server in 0..self.servers.len() {
                let Some(state) = self.state_on(server, room)? else { continue };
                if self.is_stranded(server, room) {
                    continue;
                }
                let peers = self.servers_in_room(server, room);
                for (other, others_peers, expected) in &states {
                    let are_peers = peers.contains(other) && others_peers.contains(&server);
                    if are_peers && !self.are_apart(room, *other, server) {
                        self.compare(room, (*other, expected), (server, &state))?;
                    }
                }
                states.push((server, peers, state));
            }
        }
        Ok(())
    }

    /// Whether the server lacks members or events of the room, and nobody who has them tells it, because to them it is not in
    /// the room: its join came to be refused before it was told them.
    fn is_stranded(&self, server: usize, room: usize) -> bool {
        let admits = |other: usize| {
            let is_whole = !self.lacks_some(other, room);
            other != server && is_whole && self.servers_in_room(other, room).contains(&server)
        };
        self.lacks_some(server, room) && !(0..self.servers.len()).any(admits)
    }

    /// Whether the server lacks members or events of the room.
    fn lacks_some(&self, server: usize, room: usize) -> bool {
        let (engine, room_id) = (self.servers[server].engine(), &self.rooms[room].id);
        let partial = engine.read(&PartialRooms).unwrap_or_default();
        partial.iter().any(|partial| partial.room_id == *room_id)
            || ledger::waiting(&engine, room_id).is_ok_and(|waiting| !waiting.is_empty())
    }

    /// The room's state as a member on the server sees it; nothing if nobody there is in the room.
    fn state_on(&self, server: usize, room: usize) -> Result<Option<StateMap>, Breach> {
        let engine = self.servers[server].engine();
        let room_id = &self.rooms[room].id;
        for client in &self.servers[server].clients {
            let joined = engine.read(&JoinedRooms { user_id: client.user_id.clone() });
            let joined = joined.map_err(|error| Breach::new("joined rooms", error))?;
            if joined.iter().any(|joined| **joined == **room_id) {
                let state = current_state(&engine, room_id, &client.user_id);
                return state.map(Some).map_err(|error| Breach::new("state", error));
            }
        }
        Ok(None)
    }

    fn compare(
        &self,
        room: usize,
        (one, expected): (usize, &StateMap),
        (other, state): (usize, &StateMap),
    ) -> Result<(), Breach> {
        let keys: BTreeSet<_> = expected.keys().chain(state.keys()).collect();
        for key in keys {
            let (left, right) = (expected.get(key), state.get(key));
            if left != right {
                let name =
                    |event: Option<&String>| event.map_or("nothing".into(), |event| self.event_name(event));
                let what = format!(
                    "room {}: {key:?} is {} on {}, {} on {}",
                    room + 1,
                    name(left),
                    SERVER_NAMES[one],
                    name(right),
                    SERVER_NAMES[other]
                );
                return Err(Breach::new("convergence", what));
            }
        }
        Ok(())
    }

    fn sync(&mut self, user: User) -> Result<(), Breach> {
        let server = &mut self.servers[user.server];
        let engine = server.engine();
        let seen = server.clients[user.number].sync(&engine)?;
        self.tell(format!("{} syncs, {} new events", self.user_id(user), seen.len()));
        self.query_devices(user)
    }

    /// What was acknowledged is in its sender's timeline, once, and in the order in which it was sent.
    fn check_acknowledged(&self) -> Result<(), Breach> {
        for (index, room) in self.rooms.iter().enumerate() {
            for user in self.plan.users() {
                if self.ledger.revived.contains(&(index, user)) {
                    continue;
                }
                let server = &self.servers[user.server];
                let sent = self.acknowledged.iter().filter(|event| event.user == user && event.room == index);
                let sent: Vec<&str> = sent.map(|event| event.event_id.as_str()).collect();
                let Some(timeline) = server.clients[user.number].whole_timeline(&server.engine(), &room.id)
                else {
                    continue;
                };
                let found: Vec<&str> =
                    timeline.iter().map(String::as_str).filter(|event_id| sent.contains(event_id)).collect();
                if found != sent {
                    let what = format!("{} sent {sent:?}, and sees {found:?}", self.user_id(user));
                    return Err(Breach::new("acknowledged", what));
                }
            }
        }
        Ok(())
    }

    /// A summary of all that the servers hold, for comparing two plays of one plan.
    pub fn digest(&self) -> String {
        let mut lines = self.story.clone();
        for server in &self.servers {
            let engine = server.engine();
            lines.push(format!("{} {}", server.name, engine.position().0));
            for room in &self.rooms {
                for client in &server.clients {
                    let state = current_state(&engine, &room.id, &client.user_id);
                    lines.push(format!("{} {state:?}", client.user_id));
                }
            }
        }
        lines.join("\n")
    }

    fn tell(&mut self, sentence: String) {
        self.story.push(sentence);
    }

    fn user_id(&self, user: User) -> String {
        format!("@{}:{}", USER_NAMES[user.number], SERVER_NAMES[user.server])
    }
}
