//! Receipts of other servers' users that come before what they are for: while their event is fetched, while a room's members are
//! not known yet, or while the join waits by which their user comes into the room.
//!
//! Invariant: of a user and thread one receipt waits at most: the last that came before its event, until one that comes after
//! its event moves the receipt. What need not wait is not seen at once: who writes what a receipt may wait for, or lets one
//! wait, looks afterwards for those that wait in vain by then (`due`), so that whoever is last finds both.
//! Specification: server-server API, "Receipts".

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use serde::Deserialize;

pub(crate) use super::receipts::UNTHREADED;
use super::{
    Event, RoomCtx,
    receipts::{self, MAIN_THREAD, ReceiptKind, thread_root},
    servers,
};
use crate::{
    core::{
        acl::ServerAcl,
        identifiers::server_name,
        num::{RoomNum, UserNum},
    },
    error::Result,
    store::{
        Direction, Reader, StorageError, Tx, schema,
        schema::{EarlyReceipt, EventStatus, Membership, ParkedPdu},
    },
};

/// Receipts of one user that wait in a room: who reads in several threads has one for each.
const EARLY_PER_USER_MAX: usize = 10;
/// Receipts of one server's users that wait in a room. A room that lacks an event of a busy hour waits for some dozens.
const EARLY_PER_SERVER_MAX: usize = 250;
/// Receipts that wait in a room, some 150 bytes each. All are looked at when an event comes.
const EARLY_PER_ROOM_MAX: usize = 1_000;

/// The largest join that is read while it waits, in bytes: one is some two thousand, and all that waits in a room may be looked
/// through with each transaction.
const JOIN_BYTES_MAX: usize = 8 << 10;

type Key = (RoomNum, UserNum, String);

/// Where a receipt stands.
pub(crate) enum Standing {
    /// Its event is here and, unless the event says that it is in the thread, the thread's root.
    Here(Arc<Event>),
    /// The event, or the root of the thread, may come yet.
    Early,
    /// The event will not be part of the room.
    Never,
}

/// Where a receipt for an event and a thread stands.
pub(crate) fn standing(reader: &Reader, room: RoomNum, event_id: &str, thread: &str) -> Result<Standing> {
    let Some(num) = reader.event_num(event_id)? else { return Ok(Standing::Early) };
    let event = reader.event(num)?;
    match event.header.status {
        _ if event.header.room != room => return Ok(Standing::Never),
        EventStatus::Accepted => {}
        EventStatus::Outlier => return Ok(Standing::Early),
        EventStatus::SoftFailed | EventStatus::Rejected => return Ok(Standing::Never),
    }
    if thread == UNTHREADED || thread == MAIN_THREAD {
        return Ok(Standing::Here(event));
    }
    // A thread's root is an event of the room, or what one of its events says is, so that nobody can make up threads without end.
    if thread_root(reader, &event)?.as_deref() == Some(thread) {
        return Ok(Standing::Here(event));
    }
    Ok(match reader.event_num(thread)? {
        None => Standing::Early,
        Some(root) if reader.event(root)?.header.room == room => Standing::Here(event),
        Some(_) => Standing::Never,
    })
}

/// Whose joins wait in a room for what comes before them (`PARKED_PDUS`): of a user who is not in it yet. It is read when it is first
/// asked for.
#[derive(Default)]
struct Comers(Option<BTreeSet<String>>);

impl Comers {
    /// Whether the user may be in the room soon. O(what waits there), once.
    fn has(&mut self, reader: &Reader, room: RoomNum, user_id: &str) -> Result<bool, StorageError> {
        if let Some(users) = &self.0 {
            return Ok(users.contains(user_id));
        }
        let mut users = BTreeSet::new();
        reader.scan(&schema::PARKED_PDUS, &room, Direction::Forward, |_: (RoomNum, String), row| {
            users.extend(comer(&row));
            true
        })?;
        let has = users.contains(user_id);
        self.0 = Some(users);
        Ok(has)
    }
}

/// The user whose join it is. Nothing of it has been believed yet: what waits for it is looked at once more when it has been.
fn comer(parked: &ParkedPdu) -> Option<String> {
    #[derive(Deserialize)]
    struct Join {
        #[serde(rename = "type")]
        kind: String,
        state_key: String,
        content: Content,
    }
    #[derive(Deserialize)]
    struct Content {
        membership: String,
    }
    if parked.json.len() > JOIN_BYTES_MAX {
        return None;
    }
    let join: Join = serde_json::from_slice(&parked.json).ok()?;
    (join.kind == "m.room.member" && join.content.membership == "join").then_some(join.state_key)
}

/// Moves the receipt of another server's user, if that is further than where it stands. What waited for the same thread is
/// older then.
pub(crate) fn set(
    tx: &mut Tx,
    room: RoomNum,
    user: UserNum,
    thread: &str,
    event: &Event,
    ts: u64,
) -> Result<()> {
    let key = (room, user, thread.to_owned());
    if receipts::set(tx, room, user, ReceiptKind::Read, thread, event, ts)?
        && tx.has(&schema::EARLY_RECEIPTS, &key)?
    {
        tx.delete(&schema::EARLY_RECEIPTS, &key);
    }
    Ok(())
}

/// A receipt that waits, as far as it matters for how many may.
struct Waiting {
    key: Key,
    since_ms: u64,
    is_of_origin: bool,
}

/// What waits in the rooms that one server's receipts are for: read once for each room.
pub(crate) struct EarlyReceipts<'a> {
    origin: &'a str,
    rooms: BTreeMap<RoomNum, Vec<Waiting>>,
    comers: BTreeMap<RoomNum, Comers>,
}

impl<'a> EarlyReceipts<'a> {
    /// For receipts of this server's users.
    pub(crate) fn of(origin: &'a str) -> Self {
        Self { origin, rooms: BTreeMap::new(), comers: BTreeMap::new() }
    }

    /// The room, if the user's join waits there and the server may take part in it.
    pub(crate) fn room_of_comer(
        &mut self,
        reader: &Reader,
        room_id: &str,
        user_id: &str,
    ) -> Result<Option<RoomNum>> {
        let Some(room) = RoomCtx::find(reader, room_id)? else { return Ok(None) };
        let comers = match self.comers.entry(room.num) {
            Entry::Occupied(known) => known.into_mut(),
            // Who is kept out of the room has nothing read that waits there.
            Entry::Vacant(new) => new.insert(match servers::server_allowed(reader, &room, self.origin) {
                Ok(()) => Comers::default(),
                Err(_) => Comers(Some(BTreeSet::new())),
            }),
        };
        Ok(comers.has(reader, room.num, user_id)?.then_some(room.num))
    }

    /// Lets a receipt wait. Where a user or the server has too many, their oldest goes; where the room has, this one does, and
    /// so does that of a user whom nobody knows where the server has: then the answer is no.
    pub(crate) fn keep(
        &mut self,
        tx: &mut Tx,
        room: RoomNum,
        user_id: &str,
        thread: &str,
        row: &EarlyReceipt,
    ) -> Result<bool> {
        let waiting = match self.rooms.entry(room) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(waiting_in(tx, room, self.origin)?),
        };
        let known = tx.user_num(user_id)?;
        let is_same = |kept: &Waiting| Some(kept.key.1) == known && kept.key.2 == thread;
        let is_of_user = |kept: &Waiting| Some(kept.key.1) == known;
        if let Some(same) = waiting.iter().position(is_same) {
            waiting.remove(same);
        } else if waiting.iter().filter(|kept| is_of_user(kept)).count() >= EARLY_PER_USER_MAX {
            remove_oldest(tx, waiting, is_of_user);
        } else if waiting.iter().filter(|kept| kept.is_of_origin).count() >= EARLY_PER_SERVER_MAX {
            // Names are kept for ever: if those whom nobody knows took each other's places, a server could make up users
            // without end.
            if known.is_none() {
                return Ok(false);
            }
            remove_oldest(tx, waiting, |kept| kept.is_of_origin);
        } else if waiting.len() >= EARLY_PER_ROOM_MAX {
            return Ok(false);
        }
        // Whom nobody knows yet is given a number only now that there is a place for what they say.
        let key = (room, tx.intern_user(user_id)?, thread.to_owned());
        tx.put(&schema::EARLY_RECEIPTS, &key, row);
        waiting.push(Waiting { key, since_ms: row.since_ms, is_of_origin: true });
        Ok(true)
    }
}

fn waiting_in(reader: &Reader, room: RoomNum, origin: &str) -> Result<Vec<Waiting>, StorageError> {
    let mut waiting = Vec::new();
    for (key, row) in rows(reader, &room)? {
        let is_of_origin = server_name(&reader.user_id(key.1)?) == Some(origin);
        waiting.push(Waiting { key, since_ms: row.since_ms, is_of_origin });
    }
    Ok(waiting)
}

fn remove_oldest(tx: &mut Tx, waiting: &mut Vec<Waiting>, is_one: impl Fn(&Waiting) -> bool) {
    let those = waiting.iter().enumerate().filter(|(_, kept)| is_one(kept));
    let Some((oldest, _)) = those.min_by_key(|(_, kept)| kept.since_ms) else { return };
    tx.delete(&schema::EARLY_RECEIPTS, &waiting.remove(oldest).key);
}

fn rows(reader: &Reader, prefix: &impl crate::store::Key) -> Result<Vec<(Key, EarlyReceipt)>, StorageError> {
    let mut rows = Vec::new();
    reader.scan(&schema::EARLY_RECEIPTS, prefix, Direction::Forward, |key: Key, row| {
        rows.push((key, row));
        true
    })?;
    Ok(rows)
}

/// Forgets what waits of a user, who is no longer in the room.
pub(super) fn forget(tx: &mut Tx, room: RoomNum, user: UserNum) -> Result<(), StorageError> {
    for (key, _) in rows(tx, &(room, user))? {
        tx.delete(&schema::EARLY_RECEIPTS, &key);
    }
    Ok(())
}

/// The users of whom something waits in the room that need not wait any longer. O(what waits there).
pub(crate) fn due(reader: &Reader, room: &RoomCtx) -> Result<BTreeSet<UserNum>> {
    let (mut due, mut comers) = (BTreeSet::new(), Comers::default());
    for ((_, user, thread), row) in rows(reader, &room.num)? {
        if due.contains(&user) {
            continue;
        }
        let standing = standing_of(reader, room, user, (thread.as_str(), &row), &mut comers)?;
        if !matches!(standing, Standing::Early) {
            due.insert(user);
        }
    }
    Ok(due)
}

/// Moves the receipts of users that waited for what is here now, and forgets those that wait for nothing.
pub(crate) fn settle(tx: &mut Tx, room: &RoomCtx, users: impl IntoIterator<Item = UserNum>) -> Result<()> {
    let (acl, mut comers) = (servers::access_list(tx, room)?, Comers::default());
    for user in users {
        for (key, row) in rows(tx, &(room.num, user))? {
            let standing = standing_of(tx, room, user, (key.2.as_str(), &row), &mut comers)?;
            if matches!(standing, Standing::Early) {
                continue;
            }
            tx.delete(&schema::EARLY_RECEIPTS, &key);
            if let Standing::Here(event) = standing
                && is_let_in(tx, acl.as_ref(), user)?
            {
                receipts::set(tx, room.num, user, ReceiptKind::Read, &key.2, &event, row.ts)?;
            }
        }
    }
    Ok(())
}

/// Whether the room's access list lets the user's server take part.
fn is_let_in(reader: &Reader, acl: Option<&ServerAcl>, user: UserNum) -> Result<bool> {
    let user_id = reader.user_id(user)?;
    Ok(server_name(&user_id).is_some_and(|server| acl.is_none_or(|acl| acl.allows(server))))
}

/// Where a receipt stands that waited. Who is not known to be in the room may be, as long as its members are not all known, and
/// whose join waits will be, as like as not. The room's access list is not looked at: it is long to read, and many may wait.
fn standing_of(
    reader: &Reader,
    room: &RoomCtx,
    user: UserNum,
    (thread, row): (&str, &EarlyReceipt),
    comers: &mut Comers,
) -> Result<Standing> {
    if reader.membership(user, room.num)? != Some(Membership::Join) {
        let may_be = room.head.partial_state || comers.has(reader, room.num, &reader.user_id(user)?)?;
        return Ok(if may_be { Standing::Early } else { Standing::Never });
    }
    standing(reader, room.num, &row.event_id, thread)
}
