//! Which servers are to be sent something now: news is handed on to those whom it concerns, in memory alone.
//!
//! Invariant: what is handed on is what the reader sees, so that whoever is looked at afterwards has it in the store.

use std::{collections::HashMap, sync::Arc};

use crate::{
    core::num::{RoomNum, StreamPos, TextNum, UserNum},
    error::{Error, Result},
    outbox::{Ephemeral, FIRST_WAIT_MS, delivery},
    room::members::is_local,
    store::{Reader, StorageError},
    stream::Outgoing,
    view::View,
};

/// Where more other servers than this are in a room, nobody there is told how present its members are: each change would be
/// a request to every one of them.
const PRESENCE_SERVERS_MAX: u64 = 100;

/// In a room with no more other servers than this they are told at once what somebody has read. Each receipt is a request to
/// every one of them, and there are as many receipts as messages and members; so in larger rooms they are held for a while.
const RECEIPT_SERVERS_MAX: usize = 10;

/// For how long at least, in milliseconds for each server of the room, and twice that at most: some seventy requests a second for
/// a room in which somebody reads all the time.
const RECEIPT_HELD_MS: u64 = 10;

/// And however many servers there are: twice this is half a minute, as on other servers.
const RECEIPT_HELD_MS_MAX: u64 = 15_000;

/// Of how many users of this server another one is told that comes into a room. In a crowd nobody watches who is there, and
/// these make two transactions.
const INTRODUCED_MAX: usize = 200;

/// The servers that are to be sent something now. Who gets them is at them until [`LeaveDestination`].
pub struct DueDestinations {
    /// How many at most.
    pub limit: usize,
    /// How many may be under way at most, with those that already are, of servers that were not prompt
    /// ([`LeaveDestination::was_prompt`]) in the last minutes, or are not ([`IsSlow`]).
    pub laggards_max: usize,
}

/// See [`DueDestinations`].
#[derive(Clone, Debug, Default)]
pub struct Due {
    /// The servers' names.
    pub destinations: Vec<Arc<str>>,
    /// When others will be due, in milliseconds since the epoch; now, if the limit left some out, and at the first look.
    pub next_ms: Option<u64>,
}

impl View for DueDestinations {
    type Output = Due;

    fn read(&self, reader: &Reader) -> Result<Due> {
        let outbox = &reader.shared.outbox;
        if !outbox.listen() {
            // What came up to here is looked for in the store, and all that is handed on comes behind it.
            outbox.dispatched(reader.pos);
            return Ok(Due { destinations: Vec::new(), next_ms: Some(reader.shared.clock.now_ms()) });
        }
        if !outbox.is_loaded() {
            let now_ms = reader.shared.clock.now_ms();
            outbox.load(delivery::known_servers(reader, now_ms)?, now_ms);
        }
        hand_on_news(reader)?;
        let now_ms = reader.shared.clock.now_ms();
        let (servers, next_ms) = outbox.take_due(now_ms, self.limit, self.laggards_max);
        Ok(visited(reader, &servers, next_ms, now_ms))
    }
}

/// Hands on the news that the reader sees. What cannot be, and all behind it, is there at the next look; but what never can be keeps
/// nothing waiting, for that is all that other servers are sent.
fn hand_on_news(reader: &Reader) -> Result<()> {
    let outbox = &reader.shared.outbox;
    let mut audiences = Audiences { reader, of_rooms: HashMap::new() };
    let mut news = outbox.take_news(reader.pos).into_iter();
    while let Some((pos, piece)) = news.next() {
        match audiences.hand_on(pos, piece) {
            Ok(()) => {}
            Err(Error::Storage(error @ StorageError::Corrupt(_))) => {
                tracing::warn!(%error, "what other servers were to be told cannot be read, and is passed over");
            }
            Err(error) => {
                outbox.put_back_news(std::iter::once((pos, piece)).chain(news));
                return Err(error);
            }
        }
    }
    outbox.dispatched(reader.pos);
    Ok(())
}

/// The servers, which were taken, by their names. One whose name cannot be read keeps no other waiting: it is left at once, for as
/// long as after a first failure, for nobody would come to it.
fn visited(reader: &Reader, servers: &[TextNum], next_ms: Option<u64>, now_ms: u64) -> Due {
    let outbox = &reader.shared.outbox;
    let mut due = Due { destinations: Vec::with_capacity(servers.len()), next_ms };
    let mut failed = None;
    for server in servers.iter().copied() {
        match reader.text(server) {
            Ok(name) => {
                outbox.visited_as(name.clone(), server);
                due.destinations.push(name);
            }
            Err(error) => {
                let due_ms = now_ms + FIRST_WAIT_MS;
                outbox.leave(server, due_ms, None, now_ms);
                due.next_ms = Some(due.next_ms.map_or(due_ms, |next_ms| next_ms.min(due_ms)));
                failed = Some(error);
            }
        }
    }
    if let Some(error) = failed {
        tracing::warn!(%error, "servers that are to be sent something cannot be named");
    }
    due
}

/// The other servers in rooms, each looked up once.
struct Audiences<'r> {
    reader: &'r Reader,
    of_rooms: HashMap<RoomNum, Vec<TextNum>>,
}

impl Audiences<'_> {
    fn of(&mut self, room: RoomNum) -> Result<Vec<TextNum>> {
        if let Some(known) = self.of_rooms.get(&room) {
            return Ok(known.clone());
        }
        let servers = self.reader.other_servers(room)?;
        self.of_rooms.insert(room, servers.clone());
        Ok(servers)
    }

    fn hand_on(&mut self, pos: StreamPos, news: Outgoing) -> Result<()> {
        let outbox = &self.reader.shared.outbox;
        match news {
            Outgoing::Event(room) => {
                for server in self.of(room)? {
                    outbox.add_room(server, room, pos);
                }
            }
            Outgoing::Left { server, room } => outbox.add_room(server, room, pos),
            Outgoing::Came { server, room } => self.introduce(server, room)?,
            Outgoing::Queued(server) => outbox.add_queued(server, pos),
            Outgoing::Typing { user, room, typing } => {
                self.tell(user, room, Ephemeral::Typing(room, user, typing))?;
            }
            Outgoing::Receipt { user, room, thread } => {
                self.tell(user, room, Ephemeral::Receipt(room, user, thread))?;
            }
            Outgoing::Presence(user) => {
                for room in self.reader.joined_rooms(user)? {
                    if (1..=PRESENCE_SERVERS_MAX).contains(&self.reader.count_other_servers(room)?) {
                        self.tell(user, room, Ephemeral::Presence(user, room))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A server that comes into a room is told who is there: else it would be of each only when they change.
    fn introduce(&self, server: TextNum, room: RoomNum) -> Result<()> {
        if self.reader.count_other_servers(room)? > PRESENCE_SERVERS_MAX {
            return Ok(());
        }
        let shared = &self.reader.shared;
        let now_ms = shared.clock.now_ms();
        for user in shared.watch.here_in(room, INTRODUCED_MAX) {
            shared.outbox.add_ephemeral(server, Ephemeral::Presence(user, room), now_ms, 0);
        }
        Ok(())
    }

    /// Only what users of this server do is this server's to tell.
    fn tell(&mut self, user: UserNum, room: RoomNum, ephemeral: Ephemeral) -> Result<()> {
        if !is_local(self.reader, &self.reader.user_id(user)?) {
            return Ok(());
        }
        let now_ms = self.reader.shared.clock.now_ms();
        let servers = self.of(room)?;
        let count = servers.len();
        for (index, server) in servers.into_iter().enumerate() {
            let held_ms = match ephemeral {
                Ephemeral::Receipt(..) => held_ms(index, count),
                Ephemeral::Typing(..) | Ephemeral::Presence(..) => 0,
            };
            self.reader.shared.outbox.add_ephemeral(server, ephemeral, now_ms, held_ms);
        }
        Ok(())
    }
}

/// How long a receipt is held for one of `count` servers in its room: from the first to the last twice as long, so that not all
/// are due at once.
fn held_ms(index: usize, count: usize) -> u64 {
    if count <= RECEIPT_SERVERS_MAX {
        return 0;
    }
    let (index, count) = (index as u64, count as u64);
    let least_ms = count.saturating_mul(RECEIPT_HELD_MS).min(RECEIPT_HELD_MS_MAX);
    least_ms + least_ms * index / count
}

/// Nobody is at a server any more. Reads memory alone of one that [`DueDestinations`] told of, so that it succeeds when the store fails.
pub struct LeaveDestination<'a> {
    /// The server.
    pub destination: &'a str,
    /// When it may be tried again, in milliseconds since the epoch; zero if it was seen that nothing more is for it. Else whether there
    /// is more is looked at in its next turn.
    pub due_ms: u64,
    /// Whether it took promptly what it was sent, and neither failed nor was slow; `None` if it was not sent anything.
    pub was_prompt: Option<bool>,
}

impl View for LeaveDestination<'_> {
    type Output = ();

    fn read(&self, reader: &Reader) -> Result<()> {
        let outbox = &reader.shared.outbox;
        let server = match outbox.end_visit(self.destination) {
            Some(server) => Some(server),
            None => reader.text_num(self.destination)?,
        };
        if let Some(server) = server {
            outbox.leave(server, self.due_ms, self.was_prompt, reader.shared.clock.now_ms());
        }
        Ok(())
    }
}

/// A server takes its time with what it is being sent. Answers whether it is waited for: with it there are no more than
/// [`DueDestinations::laggards_max`] such servers that somebody is at. Else it is to be left, and its place is for others.
pub struct IsSlow<'a> {
    /// The server.
    pub destination: &'a str,
    /// How many are waited for at most.
    pub laggards_max: usize,
}

impl View for IsSlow<'_> {
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        let Some(server) = reader.text_num(self.destination)? else { return Ok(false) };
        Ok(reader.shared.outbox.is_slow(server, self.laggards_max, reader.shared.clock.now_ms()))
    }
}

/// Whether a server is left alone because it could not be reached. Reads memory alone.
pub struct IsBackingOff<'a>(pub &'a str);

impl View for IsBackingOff<'_> {
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        let Some(server) = reader.text_num(self.0)? else { return Ok(false) };
        Ok(reader.shared.outbox.is_backing_off(server, reader.shared.clock.now_ms()))
    }
}

/// A server is heard from: whether that may end the time for which it is left alone because it could not be reached, and not because
/// it asked for that. While it is being tried, that is remembered until the attempt has failed. Reads memory alone.
pub struct MayBeBack<'a>(pub &'a str);

impl View for MayBeBack<'_> {
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        let Some(server) = reader.text_num(self.0)? else { return Ok(false) };
        Ok(reader.shared.outbox.may_be_back(server, reader.shared.clock.now_ms()))
    }
}

/// A server may be tried sooner: after [`crate::command::HeardFromServer`] or [`crate::command::ResetDestination`] said so.
pub struct MakeDue<'a> {
    /// The server.
    pub destination: &'a str,
    /// When, in milliseconds since the epoch.
    pub due_ms: u64,
}

impl View for MakeDue<'_> {
    type Output = ();

    fn read(&self, reader: &Reader) -> Result<()> {
        if let Some(server) = reader.text_num(self.destination)? {
            reader.shared.outbox.make_due(server, self.due_ms);
        }
        Ok(())
    }
}
