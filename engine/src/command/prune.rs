//! Removes, bit by bit, rows that nobody can ask for any more, so that nothing grows for ever with use.
//!
//! Invariant: what a client is told does not change. A transaction is forgotten when no client sends it again; of equal
//! entries in a stream only the last is kept, which whoever asks from before an earlier one gets all the same.
//! Not here: to-device messages, which go when they are acknowledged; expired media ids, which go when their maker makes
//! another.

mod federation;

use std::{collections::HashSet, hash::Hash, sync::Arc};

use parking_lot::Mutex;

use self::federation::{Strangers, Undelivered};
use crate::{
    command::{Command, Lanes},
    core::{
        deadline::has_come,
        num::{RoomNum, StreamPos, TextNum, UserNum},
    },
    error::Result,
    outbox::UNDELIVERED_KEPT_MS,
    store::{
        Direction, HOUR_MS, Key, Reader, StorageError, Tx, Value, expired, old_marks, schema,
        schema::{MemberChange, Move},
    },
};

/// How long the same transaction id answers with the same event, in milliseconds: a day, as on other servers. Clients
/// send again within minutes, or after a night without network.
const TRANSACTIONS_KEPT_MS: u64 = 24 * HOUR_MS;
/// How long after the beginning of a round through all rows the next one begins, in milliseconds.
const ROUND_MS: u64 = HOUR_MS;
/// How long after the beginning of a look at all keys the next one begins, in milliseconds: it costs a look into each room.
const KEYS_ROUND_MS: u64 = 24 * HOUR_MS;
/// Rows that one step looks at: some milliseconds.
const STEP_ROWS: usize = 2000;
/// Rows of one user or room that are compared with each other: some megabytes. In a longer stream equal entries further
/// apart stay.
const STREAM_ROWS_MAX: usize = 100_000;

/// Makes what a round begins with.
type Begin = fn() -> Stage;

/// What is gone through, each by itself: they take turns, so that what has much to do holds up none of the others. Each has what
/// its round begins with, and how long after that the next may begin, in milliseconds.
const TRACKS: &[(Begin, u64)] = &[
    (|| Stage::Transactions((UserNum(0), TextNum(0), String::new())), ROUND_MS),
    (|| Stage::News((UserNum(0), StreamPos::ZERO)), ROUND_MS),
    (|| Stage::Members((RoomNum(0), StreamPos::ZERO)), ROUND_MS),
    (|| Stage::Messages((TextNum(0), String::new())), ROUND_MS),
    (|| Stage::Counts(TextNum(0)), ROUND_MS),
    (|| Stage::Received((TextNum(0), String::new())), ROUND_MS),
    (|| Stage::Stays((TextNum(0), RoomNum(0), StreamPos::ZERO), Undelivered::default()), ROUND_MS),
    (|| Stage::Keys(Strangers::default()), KEYS_ROUND_MS),
    (|| Stage::Lists(UserNum(0)), ROUND_MS),
    (|| Stage::Receipts((RoomNum(0), UserNum(0), String::new())), ROUND_MS),
    (|| Stage::Invites((RoomNum(0), UserNum(0))), ROUND_MS),
];

/// How far pruning has come; lives as long as the process, which then begins anew.
#[derive(Default)]
pub struct PruneProgress(Mutex<Progress>);

#[derive(Default)]
struct Progress {
    tracks: [Track; TRACKS.len()],
    /// Whose turn it is.
    turn: usize,
}

/// How far one of [`TRACKS`] has come.
#[derive(Default)]
struct Track {
    /// Where its round goes on; `None` between two rounds.
    stage: Option<Stage>,
    /// When the next round may begin, in milliseconds since the epoch.
    next_round_ms: u64,
}

impl Track {
    fn is_due(&self, every_ms: u64, now_ms: u64) -> bool {
        self.stage.is_some() || has_come(self.next_round_ms, every_ms, now_ms)
    }
}

impl Progress {
    /// The next step of whose turn it is, with the index of its track and when that may begin anew; `None` if nothing is due. Should
    /// the step fail, its track begins anew at once.
    fn take(&mut self, now_ms: u64) -> Option<(usize, Stage, u64)> {
        let turns = (self.turn..TRACKS.len()).chain(0..self.turn);
        for (index, (begin, every_ms)) in turns.filter_map(|index| Some((index, TRACKS.get(index)?))) {
            let track = self.tracks.get_mut(index)?;
            if !track.is_due(*every_ms, now_ms) {
                continue;
            }
            self.turn = (index + 1) % TRACKS.len();
            let next_round_ms = std::mem::take(&mut track.next_round_ms);
            return Some(match track.stage.take() {
                Some(stage) => (index, stage, next_round_ms),
                None => (index, begin(), now_ms + every_ms),
            });
        }
        None
    }
}

/// What comes next, from where, and what is known by then.
enum Stage {
    Transactions((UserNum, TextNum, String)),
    News((UserNum, StreamPos)),
    Members((RoomNum, StreamPos)),
    Messages((TextNum, String)),
    Counts(TextNum),
    Received((TextNum, String)),
    Stays((TextNum, RoomNum, StreamPos), Undelivered),
    Outgoing((RoomNum, StreamPos), Undelivered),
    Keys(Strangers),
    Lists(UserNum),
    Receipts((RoomNum, UserNum, String)),
    Invites((RoomNum, UserNum)),
}

impl Stage {
    /// Does one step. Answers what comes next, `None` if the round is over.
    fn step(self, tx: &mut Tx, now_ms: u64) -> Result<Option<Self>> {
        Ok(match self {
            Self::Transactions(from) => {
                if from.0 == UserNum(0) {
                    mark(tx, now_ms)?;
                }
                transactions(tx, now_ms, &from)?.map(Self::Transactions)
            }
            Self::News(from) => {
                superseded(tx, &schema::USER_STREAM, from, UserNum(u64::MAX), Some)?.map(Self::News)
            }
            // Whether they came or went, what is told is where they are now; where a stay ended, the last entry says (`room::stay`),
            // also if they were invited since.
            Self::Members(from) => {
                let subject = |change: MemberChange| Some((change.user, change.to == Move::Asked));
                superseded(tx, &schema::MEMBER_STREAM, from, RoomNum(u64::MAX), subject)?.map(Self::Members)
            }
            Self::Messages(from) => federation::messages(tx, now_ms, &from)?.map(Self::Messages),
            Self::Counts(from) => federation::message_counts(tx, now_ms, from)?.map(Self::Counts),
            Self::Received(from) => federation::transactions(tx, now_ms, &from)?.map(Self::Received),
            Self::Stays(from, mut undelivered) => {
                if from.0 == TextNum(0) {
                    undelivered.expired = expired(tx, now_ms, TRANSACTIONS_KEPT_MS)?;
                    undelivered.given_up = expired(tx, now_ms, UNDELIVERED_KEPT_MS)?;
                }
                Some(match federation::stays(tx, now_ms, &mut undelivered, from)? {
                    Some(from) => Self::Stays(from, undelivered),
                    None => Self::Outgoing((RoomNum(0), StreamPos::ZERO), undelivered),
                })
            }
            Self::Outgoing(from, undelivered) => {
                federation::outgoing(tx, &undelivered, from)?.map(|from| Self::Outgoing(from, undelivered))
            }
            Self::Keys(strangers) => strangers.step(tx, now_ms)?.map(Self::Keys),
            Self::Lists(from) => federation::device_lists(tx, from)?.map(Self::Lists),
            Self::Receipts(from) => federation::early_receipts(tx, now_ms, &from)?.map(Self::Receipts),
            Self::Invites(from) => federation::signed_invites(tx, now_ms, &from)?.map(Self::Invites),
        })
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
        let now_ms = tx.shared.clock.now_ms();
        let taken = self.progress.0.lock().take(now_ms);
        let Some((index, stage, next_round_ms)) = taken else { return Ok(()) };
        let stage = stage.step(tx, now_ms)?;
        if let Some(track) = self.progress.0.lock().tracks.get_mut(index) {
            *track = Track { stage, next_round_ms };
        }
        Ok(())
    }
}

/// Notes at which position the hour begins, and forgets the marks that are too old to tell anything.
fn mark(tx: &mut Tx, now_ms: u64) -> Result<(), StorageError> {
    let pos = tx.shared.published_pos();
    tx.put(&schema::TIME_MARKS, &(now_ms / HOUR_MS), &pos);
    let old = old_marks(tx, now_ms, UNDELIVERED_KEPT_MS, STEP_ROWS)?;
    for (hour, _) in old.iter().skip(1) {
        tx.delete(&schema::TIME_MARKS, hour);
    }
    Ok(())
}

/// A position that had been given out by `ts_ms`, in milliseconds since the epoch, and not long before; `None` if that is longer ago
/// than is known.
pub(super) fn position_before(reader: &Reader, ts_ms: u64) -> Result<Option<StreamPos>, StorageError> {
    // An hour's mark is set somewhere within it.
    expired(reader, ts_ms, HOUR_MS)
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

    /// Whether there is anything to be done.
    fn is_due(world: &World, progress: &PruneProgress) -> bool {
        let now_ms = world.engine.now_ms();
        let progress = progress.0.lock();
        progress.tracks.iter().zip(TRACKS).any(|(track, (_, every_ms))| track.is_due(*every_ms, now_ms))
    }

    /// Steps until nothing is due.
    fn go_on(world: &World, progress: &Arc<PruneProgress>) {
        while is_due(world, progress) {
            world.engine.write(Prune { progress: progress.clone() }).wait().unwrap();
        }
    }

    fn prune(world: &World) {
        go_on(world, &Arc::default());
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
    fn what_a_server_is_to_be_sent_that_came_while_a_round_went_on_is_not_forgotten_in_it() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        let progress = Arc::new(PruneProgress::default());
        // A step of each: who has not been sent what is known then.
        for _ in TRACKS {
            world.engine.write(Prune { progress: progress.clone() }).wait().unwrap();
        }
        world.join(ROOM, "@bob:there.example");
        send(&world, "1");
        send(&world, "2");
        // So that it is known how old that is.
        for _ in 0..30 {
            world.pass_ms(HOUR_MS);
            prune(&world);
        }
        go_on(&world, &progress);
        let told = world.deliver("there.example");
        assert_eq!(told.iter().map(|transaction| transaction.pdus.len()).sum::<usize>(), 2);
    }

    #[test]
    fn rounds_go_on_when_the_clock_is_set_back() {
        let world = World::new();
        let progress = Arc::new(PruneProgress::default());
        let begun = || {
            let progress = progress.0.lock();
            progress.tracks.iter().map(|track| track.next_round_ms).collect::<Vec<_>>()
        };
        world.pass_ms(100 * HOUR_MS);
        go_on(&world, &progress);
        let before = begun();
        world.set_back_ms(100 * HOUR_MS);
        assert!(is_due(&world, &progress));
        go_on(&world, &progress);
        let after = begun();
        assert!(before.iter().zip(&after).all(|(before, after)| after < before), "{before:?} {after:?}");
        world.pass_ms(ROUND_MS);
        assert!(is_due(&world, &progress));
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
    fn where_a_stay_ended_is_kept_though_its_user_was_invited_since() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        for _ in 0..2 {
            world.join(ROOM, BOB);
            world.leave(ROOM, BOB);
            world.member(ROOM, ALICE, BOB, "invite").unwrap();
        }
        prune(&world);
        let moves: Vec<Move> = world.ask(|reader| {
            let mut moves = Vec::new();
            let all = |_: (RoomNum, StreamPos), change: MemberChange| {
                moves.push(change.to);
                true
            };
            reader.scan(&schema::MEMBER_STREAM, &(), Direction::Forward, all)?;
            Ok(moves)
        });
        assert_eq!(moves, [Move::In, Move::Out, Move::Asked]);
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
            let (server_name, fetched_ts) = (server.to_owned(), world.engine.now_ms());
            let store = StorePublishedKeys { server_name, keys: vec![key], json, fetched_ts };
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

    #[test]
    fn nothing_waits_for_what_has_much_to_do() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        send(&world, "old");
        let strangers = 5 * federation::KEYS_STEP_ROWS;
        for number in 0..strangers {
            let (server_name, json) = (format!("{number}.example"), Bytes::from_static(b"{}"));
            let (keys, fetched_ts) = (Vec::new(), world.engine.now_ms());
            let store = StorePublishedKeys { server_name, keys, json, fetched_ts };
            world.engine.write(store).wait().unwrap();
        }
        let progress = Arc::new(PruneProgress::default());
        go_on(&world, &progress);
        let kept = || {
            world.ask(|reader| {
                Ok((count(reader, &schema::PUBLISHED_KEYS), count(reader, &schema::TRANSACTIONS)))
            })
        };
        assert_eq!(kept(), (strangers, 1));
        world.pass_ms(15 * 24 * HOUR_MS);
        for _ in TRACKS {
            world.engine.write(Prune { progress: progress.clone() }).wait().unwrap();
        }
        assert_eq!(kept(), (strangers, 0));
        go_on(&world, &progress);
        assert_eq!(kept(), (0, 0));
    }

    #[test]
    fn looking_for_strangers_costs_a_look_into_each_room_however_many_they_are() {
        const ROOMS: usize = 50;
        let world = World::new();
        for number in 0..ROOMS {
            world.room(&format!("!{number}:here.example"), ALICE, None);
        }
        let publish = |server: &str| {
            let (server_name, json) = (server.to_owned(), Bytes::from_static(b"{}"));
            let (keys, fetched_ts) = (Vec::new(), world.engine.now_ms());
            let store = StorePublishedKeys { server_name, keys, json, fetched_ts };
            world.engine.write(store).wait().unwrap();
        };
        // One whose user was invited once, and never came.
        world.member("!7:here.example", ALICE, "@bob:invited.example", "invite").unwrap();
        publish("invited.example");
        (0..150).for_each(|number| publish(&format!("{number}.example")));
        world.pass_ms(15 * 24 * HOUR_MS);
        let progress = Arc::new(PruneProgress::default());
        let mut steps = 0;
        while is_due(&world, &progress) {
            world.engine.write(Prune { progress: progress.clone() }).wait().unwrap();
            steps += 1;
        }
        // One for each track, the second half of the stays, and the rooms.
        assert_eq!(steps, TRACKS.len() + 2);
        assert_eq!(world.ask(|reader| Ok(count(reader, &schema::PUBLISHED_KEYS))), 1);
        assert!(world.engine.read(&PublishedKeysOf("invited.example")).unwrap().is_some());
    }
}
