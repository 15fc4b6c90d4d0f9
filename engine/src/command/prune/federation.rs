//! What is kept because of other servers: what they have sent lately, and what is to be sent to them.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
};

use super::{HOUR_MS, STEP_ROWS};
use crate::{
    core::num::{RoomNum, StreamPos, TextNum, UserNum},
    device::elsewhere,
    error::Result,
    outbox,
    store::{
        Direction, Key, StorageError, Tx, Value, expired, schema,
        schema::{Keyspace, StoredPublishedKeys},
    },
};

/// How long a message to devices is known to have come, in milliseconds: a week, as on other servers. A server that sends it
/// again after that has not been reached by any answer for as long.
const MESSAGES_KEPT_MS: u64 = 7 * 24 * HOUR_MS;
/// How long a server's transaction is known to have come, in milliseconds: the longest pause before it is sent again. Later,
/// its events and messages are known by themselves.
const TRANSACTIONS_KEPT_MS: u64 = 24 * HOUR_MS;

/// How long a receipt waits for its event, in milliseconds: as long as the event may wait for what it lacks.
const EARLY_RECEIPTS_KEPT_MS: u64 = 24 * HOUR_MS;

/// How long an invite that was signed waits for its event, in milliseconds: a server that has not sent it in a week has most
/// likely had it refused.
const SIGNED_INVITES_KEPT_MS: u64 = 7 * 24 * HOUR_MS;

/// How long the keys of a server that never was in a room here are kept after they were last fetched, in milliseconds. They count
/// for a week at most; a server that has not been heard from for another one is asked again when it is.
const KEYS_KEPT_MS: u64 = 14 * 24 * HOUR_MS;
/// Servers whose keys one step looks at. What each published may have 32 KiB.
pub(super) const KEYS_STEP_ROWS: usize = 200;
/// Servers that are looked for in the rooms at once, and of which the last step reads the keys again.
const SILENT_AT_ONCE: usize = 200;
/// Device lists that one step looks at; for each it may take a look at its user's rooms, and at their devices.
const LISTS_AT_ONCE: usize = 200;

/// How long a stay that has ended is kept after that at least, in milliseconds: some hours, in which a server that has been told of
/// the end fetches what led to it, be it slow at that, or not let in at once.
const ENDED_STAYS_KEPT_MS: u64 = 6 * HOUR_MS;

type FromServer = (TextNum, String);

/// Forgets messages to devices that came long ago. Answers where to go on.
pub(super) fn messages(
    tx: &mut Tx,
    now_ms: u64,
    from: &FromServer,
) -> Result<Option<FromServer>, StorageError> {
    let old_ms = now_ms.saturating_sub(MESSAGES_KEPT_MS);
    forget(tx, &schema::RECEIVED_MESSAGES, from, &TextNum(u32::MAX), |received_ms| *received_ms < old_ms)
}

/// Forgets since when the messages of servers are counted of whom none has come for as long. Answers where to go on.
pub(super) fn message_counts(
    tx: &mut Tx,
    now_ms: u64,
    from: TextNum,
) -> Result<Option<TextNum>, StorageError> {
    let old_ms = now_ms.saturating_sub(MESSAGES_KEPT_MS);
    forget(tx, &schema::RECEIVED_COUNTS, &from, &TextNum(u32::MAX), |row| row.since_ms < old_ms)
}

/// Forgets transactions that came long ago. Answers where to go on.
pub(super) fn transactions(
    tx: &mut Tx,
    now_ms: u64,
    from: &FromServer,
) -> Result<Option<FromServer>, StorageError> {
    let old_ms = now_ms.saturating_sub(TRANSACTIONS_KEPT_MS);
    forget(tx, &schema::RECEIVED_TRANSACTIONS, from, &TextNum(u32::MAX), |row| row.received_ms < old_ms)
}

/// Forgets receipts whose events have not come. Answers where to go on.
pub(super) fn early_receipts(
    tx: &mut Tx,
    now_ms: u64,
    from: &(RoomNum, UserNum, String),
) -> Result<Option<(RoomNum, UserNum, String)>, StorageError> {
    let old_ms = now_ms.saturating_sub(EARLY_RECEIPTS_KEPT_MS);
    forget(tx, &schema::EARLY_RECEIPTS, from, &RoomNum(u64::MAX), |row| row.since_ms < old_ms)
}

/// Forgets invites whose events have not come. Answers where to go on.
pub(super) fn signed_invites(
    tx: &mut Tx,
    now_ms: u64,
    from: &(RoomNum, UserNum),
) -> Result<Option<(RoomNum, UserNum)>, StorageError> {
    let old_ms = now_ms.saturating_sub(SIGNED_INVITES_KEPT_MS);
    forget(tx, &schema::SIGNED_INVITES, from, &RoomNum(u64::MAX), |row| row.since_ms < old_ms)
}

fn forget<K: Key + Clone, V: Value, E: Key>(
    tx: &mut Tx,
    keyspace: &Keyspace<K, V>,
    from: &K,
    until: &E,
    is_old: impl Fn(&V) -> bool,
) -> Result<Option<K>, StorageError> {
    step(tx, keyspace, from, until, |tx, rows, _| {
        for (key, _) in rows.iter().filter(|(_, row)| is_old(row)) {
            tx.delete(keyspace, key);
        }
        Ok(())
    })
}

/// What of the events that went out somebody has not been sent yet.
#[derive(Default)]
pub(super) struct Undelivered {
    /// By the room.
    rooms: HashMap<RoomNum, InRoom>,
    /// Up to here they are old, as it was when the round began: of what is later it does not say what is wanted. `None` if none
    /// are.
    pub expired: Option<StreamPos>,
    /// Up to here they are so old that nobody gets them any more, likewise.
    pub given_up: Option<StreamPos>,
}

struct InRoom {
    /// All from here on.
    from: StreamPos,
    /// Where servers left that do not know it yet.
    ends: BTreeSet<StreamPos>,
}

impl Undelivered {
    /// A server that was in the room up to `end` has not been sent what went out from `from` on.
    fn note(&mut self, room: RoomNum, from: StreamPos, end: StreamPos) {
        let known = self.rooms.entry(room).or_insert_with(|| InRoom { from, ends: BTreeSet::new() });
        known.from = known.from.min(from);
        if end < StreamPos::MAX {
            known.ends.insert(end);
        }
    }

    fn has(&self, room: RoomNum, pos: StreamPos) -> bool {
        self.rooms.get(&room).is_some_and(|known| known.from <= pos)
    }

    /// Whether what went out at `pos`, and before `next`, is the last that somebody is to be sent.
    fn has_last(&self, room: RoomNum, pos: StreamPos, next: StreamPos) -> bool {
        self.rooms.get(&room).is_some_and(|known| known.ends.range(pos..next).next().is_some())
    }
}

/// Forgets which old events went out, if all have been sent them, and very old ones in any case: but for the last of each room,
/// and of each stay of a server that does not know yet that it is over. Answers where to go on.
pub(super) fn outgoing(
    tx: &mut Tx,
    undelivered: &Undelivered,
    from: (RoomNum, StreamPos),
) -> Result<Option<(RoomNum, StreamPos)>, StorageError> {
    let Some(expired) = undelivered.expired else { return Ok(None) };
    step(tx, &schema::OUTGOING_EVENTS, &from, &RoomNum(u64::MAX), |tx, rows, next| {
        let keys = || rows.iter().map(|(key, _)| *key);
        for ((room, pos), (next_room, next_pos)) in keys().zip(keys().skip(1).chain(next.copied())) {
            let is_last = next_room != room || undelivered.has_last(room, pos, next_pos);
            let is_given_up = undelivered.given_up.is_some_and(|given_up| pos <= given_up);
            let is_wanted = undelivered.has(room, pos) && !is_given_up;
            if pos <= expired && !is_last && !is_wanted {
                tx.delete(&schema::OUTGOING_EVENTS, &(room, pos));
            }
        }
        Ok(())
    })
}

/// Forgets when servers were in rooms that they have left, once they have been sent everything of that time and have had time to
/// fetch what they lack of it, and notes what servers have not been sent. Answers where to go on.
pub(super) fn stays(
    tx: &mut Tx,
    now_ms: u64,
    undelivered: &mut Undelivered,
    from: (TextNum, RoomNum, StreamPos),
) -> Result<Option<(TextNum, RoomNum, StreamPos)>, StorageError> {
    let old = expired(tx, now_ms, ENDED_STAYS_KEPT_MS)?;
    step(tx, &schema::SERVER_STAYS, &from, &TextNum(u32::MAX), |tx, rows, _| {
        let mut last = None;
        for ((server, room, start), end) in rows {
            let (delivered_to, missed_from) = match last {
                Some((known, places)) if known == *server => places,
                _ => {
                    let row = outbox::destination(tx, *server)?;
                    (row.delivered_to, row.missed_from())
                }
            };
            last = Some((*server, (delivered_to, missed_from)));
            if *end > delivered_to {
                let after = StreamPos(missed_from.0.saturating_add(1));
                undelivered.note(*room, after.max(*start), *end);
            } else if old.is_some_and(|old| *end <= old) {
                tx.delete(&schema::SERVER_STAYS, &(*server, *room, *start));
            }
        }
        Ok(())
    })
}

/// Forgets the keys of servers that never were in a room here, so that whoever makes up servers does not fill the disk. Those of
/// the others have signed what is here. First so many servers are found that have been silent for long; then the rooms are gone
/// through, once for all of these.
#[derive(Default)]
pub(super) struct Strangers {
    /// Those of whom no user has been found in a room yet.
    silent: BTreeSet<TextNum>,
    /// Which server comes next.
    next: TextNum,
    /// Whether these are all.
    are_all: bool,
    /// The room and server from which on it is looked for them; `None` while they are being found.
    at: Option<(RoomNum, TextNum)>,
}

impl Strangers {
    /// Answers how it goes on; `None` when all servers have been looked at.
    pub(super) fn step(mut self, tx: &mut Tx, now_ms: u64) -> Result<Option<Self>, StorageError> {
        let old_ms = now_ms.saturating_sub(KEYS_KEPT_MS);
        let Some(at) = self.at else {
            self.find(tx, old_ms)?;
            let is_over = self.are_all && self.silent.is_empty();
            return Ok((!is_over).then_some(self));
        };
        self.at = self.look(tx, at)?;
        if self.at.is_some() && !self.silent.is_empty() {
            return Ok(Some(self));
        }
        for server in self.silent {
            forget_keys(tx, server, old_ms)?;
        }
        Ok((!self.are_all).then(|| Self { next: self.next, ..Self::default() }))
    }

    /// Finds some that have been silent for long.
    fn find(&mut self, tx: &Tx, old_ms: u64) -> Result<(), StorageError> {
        let (mut silent, mut seen, mut next) = (Vec::new(), 0, None);
        tx.scan_between(
            &schema::PUBLISHED_KEYS,
            &self.next,
            &TextNum(u32::MAX),
            Direction::Forward,
            |server, row: StoredPublishedKeys| {
                if seen == KEYS_STEP_ROWS {
                    next = Some(server);
                    return false;
                }
                seen += 1;
                if row.fetched_ts < old_ms {
                    silent.push(server);
                }
                true
            },
        )?;
        for server in silent {
            // Whom something was sent was in a room, and most are.
            if !outbox::is_known(tx, server)? {
                self.silent.insert(server);
            }
        }
        self.are_all = next.is_none();
        self.next = next.unwrap_or(self.next);
        if self.are_all || self.silent.len() >= SILENT_AT_ONCE {
            self.at = Some((RoomNum(0), TextNum(0)));
        }
        Ok(())
    }

    /// Takes out those of whom a user is, or was, in one of the next rooms. A room takes one look more than it has of them, at
    /// most. Answers where to go on.
    fn look(
        &mut self,
        tx: &Tx,
        mut at: (RoomNum, TextNum),
    ) -> Result<Option<(RoomNum, TextNum)>, StorageError> {
        for _ in 0..STEP_ROWS {
            let mut found = None;
            tx.scan_between(
                &schema::SERVER_USERS,
                &at,
                &RoomNum(u64::MAX),
                Direction::Forward,
                |(room, server, _): (RoomNum, TextNum, UserNum), ()| {
                    found = Some((room, server));
                    false
                },
            )?;
            let Some((room, server)) = found else { return Ok(None) };
            self.silent.remove(&server);
            let next = self.silent.range((Bound::Excluded(server), Bound::Unbounded)).next();
            at = next.map_or((RoomNum(room.0.saturating_add(1)), TextNum(0)), |next| (room, *next));
        }
        Ok(Some(at))
    }
}

/// Forgets a server's keys, unless it has been heard from meanwhile.
fn forget_keys(tx: &mut Tx, server: TextNum, old_ms: u64) -> Result<(), StorageError> {
    let published = tx.get(&schema::PUBLISHED_KEYS, &server)?;
    if published.is_some_and(|published| published.fetched_ts < old_ms) && !outbox::is_known(tx, server)? {
        tx.delete(&schema::PUBLISHED_KEYS, &server);
        tx.delete_prefix(&schema::SERVER_KEYS, &server);
    }
    Ok(())
}

/// Forgets the devices of users of other servers who share no room with this one any more: nobody tells of changes of them. A
/// list that says that it is complete may be one of these, too: an answer that is taken in (under the user's lane) while its user
/// leaves the last room (under the room's) passes over the leave. Answers where to go on.
pub(super) fn device_lists(tx: &mut Tx, from: UserNum) -> Result<Option<UserNum>> {
    let (mut users, mut next) = (Vec::new(), None);
    let until = UserNum(u64::MAX);
    tx.scan_between(&schema::REMOTE_DEVICE_LISTS, &from, &until, Direction::Forward, |user, _| {
        if users.len() == LISTS_AT_ONCE {
            next = Some(user);
            return false;
        }
        users.push(user);
        true
    })?;
    for user in users {
        if !tx.is_neighbour(user, None)? {
            elsewhere::drop_list(tx, user)?;
        }
    }
    Ok(next)
}

/// Hands the next rows to `remove`, with the key behind them. Answers where to go on.
fn step<K: Key + Clone, V: Value, E: Key>(
    tx: &mut Tx,
    keyspace: &Keyspace<K, V>,
    from: &K,
    until: &E,
    remove: impl FnOnce(&mut Tx, &[(K, V)], Option<&K>) -> Result<(), StorageError>,
) -> Result<Option<K>, StorageError> {
    let (mut rows, mut next) = (Vec::new(), None);
    tx.scan_between(keyspace, from, until, Direction::Forward, |key: K, row| {
        if rows.len() == STEP_ROWS {
            next = Some(key);
            return false;
        }
        rows.push((key, row));
        true
    })?;
    remove(tx, &rows, next.as_ref())?;
    Ok(next)
}
