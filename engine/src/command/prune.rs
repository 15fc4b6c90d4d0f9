//! Removes, bit by bit, rows that nobody can ask for any more, so that nothing grows for ever with use.
//!
//! Invariant: what a client is told does not change. A transaction is forgotten when no client sends it again; of equal
//! entries in a stream only the last is kept, which whoever asks from before an earlier one gets all the same.
//! Not here: to-device messages, which go when they are acknowledged; expired media ids, which go when their maker makes
//! another.

mod federation;

use std::{collections::HashSet, hash::Hash, sync::Arc};

use parking_lot::Mutex;

use self::federation::Undelivered;
use crate::{
    command::{Command, Lanes},
    core::{
        deadline::has_come,
        num::{RoomNum, StreamPos, TextNum, UserNum},
    },
    error::Result,
    store::{Direction, Key, Reader, StorageError, Tx, Value, schema},
};

/// How long the same transaction id answers with the same event, in milliseconds: a day, as on other servers. Clients
/// send again within minutes, or after a night without network.
const TRANSACTIONS_KEPT_MS: u64 = 24 * HOUR_MS;
/// How long it is known which events went out that some server has not been sent, in milliseconds: two weeks. Who was turned out
/// of a room while it could not be reached gets all of it from there, since nobody gives it anything of the room any more; and
/// servers are seldom away for longer and then come back.
const UNDELIVERED_KEPT_MS: u64 = 14 * 24 * HOUR_MS;
/// How long after the beginning of a round through all rows the next one begins, in milliseconds.
const ROUND_MS: u64 = HOUR_MS;
/// How long after the beginning of a look at all keys the next one begins, in milliseconds: it costs a look into each room for
/// each server that has long been silent.
const KEYS_ROUND_MS: u64 = 24 * HOUR_MS;
/// The distance of the marks by which positions are given a time.
const HOUR_MS: u64 = 60 * 60 * 1000;
/// Rows that one step looks at: some milliseconds.
const STEP_ROWS: usize = 2000;
/// Rows of one user or room that are compared with each other: some megabytes. In a longer stream equal entries further
/// apart stay.
const STREAM_ROWS_MAX: usize = 100_000;

/// How far pruning has come; lives as long as the process, which then begins anew.
#[derive(Default)]
pub struct PruneProgress(Mutex<Progress>);

#[derive(Default)]
struct Progress {
    stage: Stage,
    /// When the next round may begin, in milliseconds since the epoch.
    next_round_ms: u64,
    /// When keys may be looked at again, in milliseconds since the epoch.
    next_keys_ms: u64,
    /// What servers have not been sent, as far as their stays have been looked at in this round.
    undelivered: Undelivered,
}

impl Progress {
    /// Takes it for a step. What is left is for the case that the step fails: what servers have not been sent, which may be
    /// much, is not copied but looked for anew.
    fn take(&mut self) -> Self {
        let undelivered = std::mem::take(&mut self.undelivered);
        let stage = self.stage.clone();
        if let Stage::Stays(..) | Stage::Outgoing(..) = stage {
            self.stage = Stage::Stays(TextNum(0), RoomNum(0), StreamPos::ZERO);
        }
        Self { stage, undelivered, ..*self }
    }
}

/// What comes next, and from where.
#[derive(Clone)]
enum Stage {
    Transactions(UserNum, TextNum, String),
    News(UserNum, StreamPos),
    Members(RoomNum, StreamPos),
    Messages(TextNum, String),
    Received(TextNum, String),
    Stays(TextNum, RoomNum, StreamPos),
    Outgoing(RoomNum, StreamPos),
    Keys(TextNum, RoomNum),
    Lists(UserNum),
    Receipts(RoomNum, UserNum, String),
    Invites(RoomNum, UserNum),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Transactions(UserNum(0), TextNum(0), String::new())
    }
}

impl Stage {
    /// Whether a round has not begun yet.
    fn is_beginning(&self) -> bool {
        matches!(self, Self::Transactions(UserNum(0), ..))
    }
}

/// One bounded step. To be run every few seconds.
pub struct Prune {
    /// Where the last step ended.
    pub progress: Arc<PruneProgress>,
}

impl Command for Prune {
    type Output = ();

    fn lanes(&self) -> Lanes {
        // It only removes rows that are of no use to anybody, however often.
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let Progress { stage, next_round_ms, mut next_keys_ms, mut undelivered } =
            self.progress.0.lock().take();
        let now_ms = tx.shared.clock.now_ms();
        let is_beginning = stage.is_beginning();
        if is_beginning && !has_come(next_round_ms, ROUND_MS, now_ms) {
            return Ok(());
        }
        if is_beginning {
            mark(tx, now_ms)?;
            undelivered = Undelivered::default();
        }
        let next_round_ms = if is_beginning { now_ms + ROUND_MS } else { next_round_ms };
        let stage = match stage {
            Stage::Transactions(user, device, id) => {
                let next = transactions(tx, now_ms, &(user, device, id))?;
                next.map_or(Stage::News(UserNum(0), StreamPos::ZERO), |(user, device, id)| {
                    Stage::Transactions(user, device, id)
                })
            }
            Stage::News(user, pos) => {
                let until = UserNum(u64::MAX);
                let next = superseded(tx, &schema::USER_STREAM, (user, pos), until, Some)?;
                next.map_or(Stage::Members(RoomNum(0), StreamPos::ZERO), |(user, pos)| Stage::News(user, pos))
            }
            Stage::Members(room, pos) => {
                let until = RoomNum(u64::MAX);
                let next = superseded(tx, &schema::MEMBER_STREAM, (room, pos), until, |change| {
                    // Whether they came or went, what is told is where they are now.
                    Some(change.user)
                })?;
                next.map_or(Stage::Messages(TextNum(0), String::new()), |(room, pos)| {
                    Stage::Members(room, pos)
                })
            }
            Stage::Messages(server, id) => federation::messages(tx, now_ms, &(server, id))?
                .map_or(Stage::Received(TextNum(0), String::new()), |(server, id)| {
                    Stage::Messages(server, id)
                }),
            Stage::Received(server, id) => federation::transactions(tx, now_ms, &(server, id))?
                .map_or(Stage::Stays(TextNum(0), RoomNum(0), StreamPos::ZERO), |(server, id)| {
                    Stage::Received(server, id)
                }),
            Stage::Stays(server, room, pos) => federation::stays(tx, &mut undelivered, (server, room, pos))?
                .map_or(Stage::Outgoing(RoomNum(0), StreamPos::ZERO), |(server, room, pos)| {
                    Stage::Stays(server, room, pos)
                }),
            Stage::Outgoing(room, pos) => outgoing(tx, now_ms, &undelivered, (room, pos))?
                .map_or(Stage::Keys(TextNum(0), RoomNum(0)), |(room, pos)| Stage::Outgoing(room, pos)),
            Stage::Keys(TextNum(0), _) if !has_come(next_keys_ms, KEYS_ROUND_MS, now_ms) => {
                Stage::Lists(UserNum(0))
            }
            Stage::Keys(server, room) => {
                if server == TextNum(0) {
                    next_keys_ms = now_ms + KEYS_ROUND_MS;
                }
                federation::keys(tx, now_ms, (server, room))?
                    .map_or(Stage::Lists(UserNum(0)), |(server, room)| Stage::Keys(server, room))
            }
            Stage::Lists(user) => federation::device_lists(tx, user)?
                .map_or(Stage::Receipts(RoomNum(0), UserNum(0), String::new()), Stage::Lists),
            Stage::Receipts(room, user, thread) => {
                let next = federation::early_receipts(tx, now_ms, &(room, user, thread))?;
                next.map_or(Stage::Invites(RoomNum(0), UserNum(0)), |(room, user, thread)| {
                    Stage::Receipts(room, user, thread)
                })
            }
            Stage::Invites(room, user) => federation::signed_invites(tx, now_ms, &(room, user))?
                .map_or_else(Stage::default, |(room, user)| Stage::Invites(room, user)),
        };
        *self.progress.0.lock() = Progress { stage, next_round_ms, next_keys_ms, undelivered };
        Ok(())
    }
}

/// Notes at which position the hour begins, and forgets the marks that are too old to tell anything.
fn mark(tx: &mut Tx, now_ms: u64) -> Result<(), StorageError> {
    let pos = tx.shared.published_pos();
    tx.put(&schema::TIME_MARKS, &(now_ms / HOUR_MS), &pos);
    let old = marks(tx, now_ms, UNDELIVERED_KEPT_MS, STEP_ROWS)?;
    for (hour, _) in old.iter().skip(1) {
        tx.delete(&schema::TIME_MARKS, hour);
    }
    Ok(())
}

/// The last position that is known to be so old; `None` if none is.
fn expired(reader: &Reader, now_ms: u64, age_ms: u64) -> Result<Option<StreamPos>, StorageError> {
    Ok(marks(reader, now_ms, age_ms, 1)?.first().map(|(_, pos)| *pos))
}

/// A position that had been given out by `ts_ms`, in milliseconds since the epoch, and not long before; `None` if that is longer ago
/// than is known.
pub(super) fn position_before(reader: &Reader, ts_ms: u64) -> Result<Option<StreamPos>, StorageError> {
    // An hour's mark is set somewhere within it.
    expired(reader, ts_ms, HOUR_MS)
}

/// The marks that are so old, the last ones first.
fn marks(
    reader: &Reader,
    now_ms: u64,
    age_ms: u64,
    limit: usize,
) -> Result<Vec<(u64, StreamPos)>, StorageError> {
    let end = (now_ms.saturating_sub(age_ms) / HOUR_MS).saturating_add(1);
    let mut marks = Vec::new();
    reader.scan_between(&schema::TIME_MARKS, &0u64, &end, Direction::Backward, |hour, pos| {
        marks.push((hour, pos));
        marks.len() < limit
    })?;
    Ok(marks)
}

/// Forgets which events went out long ago. Answers where to go on.
fn outgoing(
    tx: &mut Tx,
    now_ms: u64,
    undelivered: &Undelivered,
    from: (RoomNum, StreamPos),
) -> Result<Option<(RoomNum, StreamPos)>, StorageError> {
    let Some(expired_pos) = expired(tx, now_ms, TRANSACTIONS_KEPT_MS)? else { return Ok(None) };
    let given_up = expired(tx, now_ms, UNDELIVERED_KEPT_MS)?;
    federation::outgoing(tx, (expired_pos, given_up), undelivered, from)
}

/// Removes old transactions among those from `from` on. Answers where to go on.
fn transactions(
    tx: &mut Tx,
    now_ms: u64,
    from: &(UserNum, TextNum, String),
) -> Result<Option<(UserNum, TextNum, String)>, StorageError> {
    let Some(expired) = expired(tx, now_ms, TRANSACTIONS_KEPT_MS)? else { return Ok(None) };
    let (mut old, mut seen, mut next) = (Vec::new(), 0, None);
    tx.scan_between(&schema::TRANSACTIONS, from, &UserNum(u64::MAX), Direction::Forward, |key, row| {
        if seen == STEP_ROWS {
            next = Some(key);
            return false;
        }
        seen += 1;
        if row.pos <= expired {
            old.push(key);
        }
        true
    })?;
    for key in &old {
        tx.delete(&schema::TRANSACTIONS, key);
    }
    Ok(next)
}

/// Removes the entries of streams that a later one of the same stream makes superfluous: `subject` says what an entry is
/// about, `None` that it is about nothing any more. Answers where to go on.
fn superseded<O, V, S>(
    tx: &mut Tx,
    keyspace: &schema::Keyspace<(O, StreamPos), V>,
    from: (O, StreamPos),
    until: O,
    subject: impl Fn(V) -> Option<S>,
) -> Result<Option<(O, StreamPos)>, StorageError>
where
    O: Copy + Eq + Hash + Key,
    (O, StreamPos): Key,
    V: Value,
    S: Eq + Hash,
{
    let mut rows: Vec<((O, StreamPos), Option<S>)> = Vec::new();
    let mut next = None;
    tx.scan_between(keyspace, &from, &until, Direction::Forward, |key: (O, StreamPos), value| {
        let is_another = rows.last().is_some_and(|((owner, _), _)| *owner != key.0);
        if rows.len() >= STREAM_ROWS_MAX || (rows.len() >= STEP_ROWS && is_another) {
            next = Some(key);
            return false;
        }
        rows.push((key, subject(value)));
        true
    })?;
    let mut told = HashSet::new();
    for (key, subject) in rows.into_iter().rev() {
        let is_news = subject.is_some_and(|subject| told.insert((key.0, subject)));
        if !is_news {
            tx.delete(keyspace, &key);
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::{
        command::{RotateSigningKey, SendEvent, StorePublishedKeys},
        device::lists,
        fixture::{SERVER, World},
        remote::{KeyStanding, ServerKey},
        view::{PublishedKeysOf, StandingOfKey},
    };

    const ROOM: &str = "!room:here.example";
    const ALICE: &str = "@alice:here.example";
    const BOB: &str = "@bob:here.example";

    fn count<K: Key, V: Value>(reader: &Reader, keyspace: &schema::Keyspace<K, V>) -> usize {
        let mut count = 0;
        reader
            .scan(keyspace, &(), Direction::Forward, |_, _| {
                count += 1;
                true
            })
            .unwrap();
        count
    }

    /// Steps until a round is over.
    fn prune(world: &World) {
        let progress = Arc::new(PruneProgress::default());
        let step = || {
            world.engine.write(Prune { progress: progress.clone() }).wait().unwrap();
            progress.0.lock().stage.is_beginning()
        };
        while !step() {}
        assert!(step(), "the next round comes later");
    }

    fn send(world: &World, id: &str) -> String {
        let content = json!({"body": "1"}).as_object().cloned().unwrap();
        let transaction = Some(("DEVICE".to_owned(), id.to_owned()));
        let send = SendEvent { transaction, ..SendEvent::message(ROOM, ALICE, content) };
        world.engine.write(send).wait().unwrap()
    }

    #[test]
    fn transactions_are_kept_for_a_day() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        let first = send(&world, "old");
        for _ in 0..23 {
            prune(&world);
            world.pass_ms(HOUR_MS);
        }
        let late = send(&world, "late");
        assert_eq!(send(&world, "old"), first);
        for _ in 0..3 {
            prune(&world);
            world.pass_ms(HOUR_MS);
        }
        assert_eq!(world.ask(|reader| Ok(count(reader, &schema::TRANSACTIONS))), 1);
        assert_eq!(send(&world, "late"), late);
        assert_ne!(send(&world, "old"), first);
        for _ in 0..40 {
            world.pass_ms(12 * HOUR_MS);
            prune(&world);
        }
        assert!(world.ask(|reader| Ok(count(reader, &schema::TIME_MARKS))) <= 30, "old marks go too");
    }

    #[test]
    fn rounds_go_on_when_the_clock_is_set_back() {
        let world = World::new();
        let progress = Arc::new(PruneProgress::default());
        let begins = || {
            let is_over = || progress.0.lock().stage.is_beginning();
            world.engine.write(Prune { progress: progress.clone() }).wait().unwrap();
            let begins = !is_over();
            while !is_over() {
                world.engine.write(Prune { progress: progress.clone() }).wait().unwrap();
            }
            begins
        };
        world.pass_ms(100 * HOUR_MS);
        assert!(begins() && !begins());
        let keys_ms = progress.0.lock().next_keys_ms;
        world.set_back_ms(100 * HOUR_MS);
        assert!(begins() && !begins());
        assert!(progress.0.lock().next_keys_ms < keys_ms, "keys have been looked at");
        world.pass_ms(ROUND_MS);
        assert!(begins());
    }

    #[test]
    fn equal_entries_are_told_once_and_to_everybody() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        world.join(ROOM, BOB);
        let told = |since| {
            world.ask(|reader| {
                let (alice, room) = (reader.user_num(ALICE)?.unwrap(), reader.room_num(ROOM)?.unwrap());
                let rooms = lists::RoomChanges { with_news: &[room], ..Default::default() };
                lists::between(reader, alice, since, reader.pos, rooms)
            })
        };
        let mut positions = vec![world.engine.position()];
        for _ in 0..10 {
            world.leave(ROOM, BOB);
            positions.push(world.engine.position());
            world.join(ROOM, BOB);
            world.act(|tx| lists::changed(tx, tx.user_num(BOB)?.unwrap(), [])).unwrap();
            positions.push(world.engine.position());
        }
        let before: Vec<_> = positions.iter().map(|since| told(*since)).collect();
        prune(&world);
        let after: Vec<_> = positions.iter().map(|since| told(*since)).collect();
        assert_eq!(after, before);
        let bob_and_alice = world.ask(|reader| Ok(count(reader, &schema::MEMBER_STREAM)));
        assert_eq!(bob_and_alice, 2);
        // Each one's membership, Bob's devices in both streams.
        assert_eq!(world.ask(|reader| Ok(count(reader, &schema::USER_STREAM))), 4);
    }

    #[test]
    fn keys_of_servers_that_were_never_in_a_room_go_when_they_have_long_been_invalid() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        // One that was there once has signed what is there still.
        world.join(ROOM, "@bob:there.example");
        world.leave(ROOM, "@bob:there.example");
        let servers = ["there.example", "stranger.example", "other.example"];
        let publish = |server: &str| {
            let key = ServerKey {
                key_id: "ed25519:1".to_owned(),
                public_key: vec![7; 32],
                valid_until_ts: world.engine.now_ms() + 7 * 24 * HOUR_MS,
                is_old: false,
            };
            let json = Bytes::from_static(b"{}");
            let store = StorePublishedKeys { server_name: server.to_owned(), keys: vec![key], json };
            world.engine.write(store).wait().unwrap();
        };
        let known = || {
            let is_known = |server: &&str| {
                let view = StandingOfKey { server_name: server, key_id: "ed25519:1" };
                let is_published = world.engine.read(&PublishedKeysOf(server)).unwrap().is_some();
                let is_stored = world.engine.read(&view).unwrap() != KeyStanding::Unknown;
                assert_eq!(is_published, is_stored, "{server}");
                is_stored
            };
            servers.into_iter().filter(is_known).collect::<Vec<_>>()
        };
        servers.into_iter().for_each(&publish);
        prune(&world);
        assert_eq!(known(), servers);
        world.pass_ms(13 * 24 * HOUR_MS);
        publish("other.example");
        prune(&world);
        assert_eq!(known(), servers);
        world.pass_ms(2 * 24 * HOUR_MS);
        prune(&world);
        assert_eq!(known(), ["there.example", "other.example"]);
        // The own ones are not of a stranger, whatever their age.
        world.engine.write(RotateSigningKey).wait().unwrap();
        world.pass_ms(30 * 24 * HOUR_MS);
        prune(&world);
        assert_eq!(known(), ["there.example"]);
        let own = StandingOfKey { server_name: SERVER, key_id: world.engine.key_pair().key_id() };
        assert!(matches!(world.engine.read(&own).unwrap(), KeyStanding::Known(_)));
    }
}
