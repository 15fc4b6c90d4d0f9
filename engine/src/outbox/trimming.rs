//! What a server that cannot be reached is to be told of users' devices: the last of each user alone, so that its queue does not
//! grow with every login while it is away.
//!
//! Invariant: each row of the queue is looked at once, from `OUTGOING_LISTS` on, which also has the last row of each user up
//! to there. Whoever misses a change before the one that is left asks for the whole list, for that one follows what the
//! server was never told. What is in flight is left alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    core::num::{StreamPos, TextNum, UserNum},
    room::company::Company,
    store::{Direction, StorageError, Tx, schema, schema::OutgoingEdu},
};

/// How many rows one failure looks at: a fraction of a second. More come only if others change more devices in a day.
const ROWS_MAX: usize = 50_000;
/// How many users one failure looks at who may have gone out of the server's rooms.
const USERS_MAX: usize = 1_000;

/// What a row of `OUTGOING_LISTS` is about. Behind a user: their last row that tells of a device, or of cross-signing keys.
const DEVICES: u8 = 0;
const SIGNING_KEYS: u8 = 1;
/// Behind the user zero: up to where the queue was looked at, and (as a position) at which user the next look begins.
const LOOKED_AT: u8 = 0;
const NEXT_USER: u8 = 1;

/// Removes from the queue of a server that has failed what later rows make superfluous, and what is no business of the server
/// any more. The lane of the server's name must be held.
pub(crate) fn trim(tx: &mut Tx, server: TextNum, in_flight: &[StreamPos]) -> Result<(), StorageError> {
    let looked_at = (server, UserNum(0), LOOKED_AT);
    let from = tx.get(&schema::OUTGOING_LISTS, &looked_at)?.unwrap_or_default();
    let (mut last, mut seen) = (from, 0);
    let mut found: BTreeMap<(UserNum, u8), Vec<StreamPos>> = BTreeMap::new();
    let (start, end) = ((server, StreamPos(from.0.saturating_add(1))), (server, StreamPos::MAX));
    tx.scan_between(&schema::OUTGOING_EDUS, &start, &end, Direction::Forward, |(_, pos), row| {
        let subject = match row.value {
            OutgoingEdu::Direct(_) | OutgoingEdu::Event(_) => None,
            OutgoingEdu::DeviceList(user, _) => Some((user, DEVICES)),
            OutgoingEdu::SigningKeys(user) => Some((user, SIGNING_KEYS)),
        };
        if let Some(subject) = subject {
            found.entry(subject).or_default().push(pos);
        }
        last = pos;
        seen += 1;
        seen < ROWS_MAX
    })?;
    for ((user, kind), mut positions) in found {
        let place = (server, user, kind);
        let newest = positions.pop();
        positions.extend(tx.get(&schema::OUTGOING_LISTS, &place)?);
        remove(tx, server, &positions, in_flight);
        if let Some(newest) = newest {
            tx.put(&schema::OUTGOING_LISTS, &place, &newest);
        }
    }
    tx.put(&schema::OUTGOING_LISTS, &looked_at, &last);
    leave_out_strangers(tx, server, in_flight)
}

/// Nothing is left in the queue, so that there is nothing to remove from it. Not before, or a server that comes and goes would
/// have all of it looked at again with each failure; what is known of rows that are gone does no harm.
pub(crate) fn forget(tx: &mut Tx, server: TextNum) -> Result<(), StorageError> {
    if tx.has(&schema::OUTGOING_LISTS, &(server, UserNum(0), LOOKED_AT))? {
        tx.delete_prefix(&schema::OUTGOING_LISTS, &server);
    }
    Ok(())
}

/// Removes what is left of users who share no room with the server any more. Who comes to share one again is told of anew.
fn leave_out_strangers(tx: &mut Tx, server: TextNum, in_flight: &[StreamPos]) -> Result<(), StorageError> {
    let place = (server, UserNum(0), NEXT_USER);
    let from = tx.get(&schema::OUTGOING_LISTS, &place)?.map_or(1, |user| user.0.cast_unsigned());
    let (start, end) = ((server, UserNum(from)), TextNum(server.0.saturating_add(1)));
    let (mut rows, mut users, mut next) = (Vec::new(), BTreeSet::new(), 1);
    tx.scan_between(&schema::OUTGOING_LISTS, &start, &end, Direction::Forward, |(_, user, kind), pos| {
        if users.len() == USERS_MAX && !users.contains(&user) {
            next = user.0.cast_signed();
            return false;
        }
        users.insert(user);
        rows.push((user, kind, pos));
        true
    })?;
    tx.put(&schema::OUTGOING_LISTS, &place, &StreamPos(next));
    let mut strangers = BTreeSet::new();
    let mut company = Company::new(tx, server);
    for user in users {
        if !company.has(user, None)? {
            strangers.insert(user);
        }
    }
    for (user, kind, pos) in rows.into_iter().filter(|(user, ..)| strangers.contains(user)) {
        remove(tx, server, &[pos], in_flight);
        tx.delete(&schema::OUTGOING_LISTS, &(server, user, kind));
    }
    Ok(())
}

fn remove(tx: &mut Tx, server: TextNum, positions: &[StreamPos], in_flight: &[StreamPos]) {
    for pos in positions.iter().filter(|pos| !in_flight.contains(pos)) {
        tx.delete(&schema::OUTGOING_EDUS, &(server, *pos));
    }
}
