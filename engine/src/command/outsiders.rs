//! Events that a server sends which has no user in the room: those who were banned, have left, or never were there.
//!
//! What is denied of others is kept, since what follows it has to be judged. Of these nobody follows anything, and they would store as
//! much as they like for ever. Invariant: of what such a server sends, and tells about it, only what the room takes is stored, and what
//! that follows, is allowed by or is judged by. So it is tried first, and taken back. What somebody in the room follows later, as one
//! does whose server had not heard of a ban, is missing then, comes by way of them, and is kept.
//! Not here: a room of which the members are not known yet, or a server that is supposed to be there: as if it were.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    command::{ReceivePdus, Received},
    core::{checked::CheckedPdu, limits::OUTSIDER_OUTLIERS_BYTES_MAX},
    error::Result,
    room::{RoomCtx, receive::Outcome, servers},
    store::{Reader, Tx},
};

/// Takes events in, which may be such a server's. The transaction has nothing in it yet.
pub(super) fn take_in(command: &ReceivePdus, tx: &mut Tx) -> Result<Received> {
    let is_outside = match &command.sent_by {
        Some(server) => is_outside(tx, &command.room_id, server)?,
        None => false,
    };
    let mut tried = command.take_in(tx)?;
    if !is_outside {
        return Ok(tried);
    }
    let unkept = unkept(command, &tried.outcomes);
    if unkept.is_empty() {
        return Ok(tried);
    }
    tx.take_back();
    if tried.outcomes.iter().all(|(_, outcome)| *outcome != Outcome::Accepted) {
        let outcomes = std::mem::take(&mut tried.outcomes).into_iter();
        let outcomes = outcomes.map(|(event_id, outcome)| match unkept.get(&event_id) {
            Some(instead) => (event_id, instead.clone()),
            None => (event_id, outcome),
        });
        return Ok(Received { outcomes: outcomes.collect(), missing: tried.missing, ..Received::default() });
    }
    let is_kept = |checked: &&Arc<CheckedPdu>| !unkept.contains_key(&checked.pdu().event_id);
    let pdus = command.pdus.iter().filter(is_kept).cloned().collect();
    let mut received = ReceivePdus { pdus, ..command.clone() }.take_in(tx)?;
    received.outcomes.extend(unkept);
    // What is held, and does not come along this time, is not missing.
    received.missing = tried.missing;
    Ok(received)
}

fn is_outside(reader: &Reader, room_id: &str, server: &str) -> Result<bool> {
    let room = RoomCtx::load(reader, room_id)?;
    if room.head.partial_state || *server == *reader.shared.server_name {
        return Ok(false);
    }
    match reader.text_num(server)? {
        Some(server) => Ok(!servers::is_in_or_supposed(reader, server, room.num)?),
        None => Ok(true),
    }
}

/// The events of which nothing is kept, and what is told of them instead: that they wait, as long as something that follows them does, or
/// what they would be.
fn unkept(command: &ReceivePdus, outcomes: &[(Arc<str>, Outcome)]) -> HashMap<Arc<str>, Outcome> {
    let live: HashMap<&str, &Arc<CheckedPdu>> =
        command.pdus.iter().map(|checked| (&*checked.pdu().event_id, checked)).collect();
    let with = |wanted: Outcome| {
        let ids = outcomes.iter().filter(move |(_, outcome)| *outcome == wanted);
        ids.map(|(event_id, _)| &**event_id).collect::<Vec<&str>>()
    };
    let accepted = with(Outcome::Accepted);
    let (takes_something, needed) = (!accepted.is_empty(), named_by(&live, accepted));
    let awaited = named_by(&live, with(Outcome::Waiting));
    let bytes: usize = command.outliers.iter().map(|checked| checked.pdu().json.len()).sum();
    let mut unkept = HashMap::new();
    for (event_id, outcome) in outcomes {
        let is_live = live.contains_key(&**event_id);
        let is_needed = if is_live { needed.contains(&**event_id) } else { takes_something };
        let is_written = match outcome {
            Outcome::SoftFailed(_) | Outcome::NotRecommended | Outcome::Rejected(_) => true,
            Outcome::Stored => !is_live,
            _ => false,
        };
        if is_needed || !is_written {
            continue;
        }
        let is_held = match is_live {
            true => awaited.contains(&**event_id),
            false => bytes <= OUTSIDER_OUTLIERS_BYTES_MAX,
        };
        let instead = if is_held { Outcome::Waiting } else { Outcome::Unkept(Box::new(outcome.clone())) };
        unkept.insert(event_id.clone(), instead);
    }
    unkept
}

/// The events among `live` that some of them follow or are allowed by, be it by way of others. O(events and references).
fn named_by<'a>(live: &HashMap<&'a str, &'a Arc<CheckedPdu>>, mut next: Vec<&'a str>) -> HashSet<&'a str> {
    let mut named = HashSet::new();
    while let Some(event_id) = next.pop() {
        let Some(pdu) = live.get(event_id).map(|checked| checked.pdu()) else { continue };
        for event_id in pdu.prev_events.iter().chain(&pdu.auth_events) {
            if let Some((event_id, _)) = live.get_key_value(&**event_id)
                && named.insert(*event_id)
            {
                next.push(*event_id);
            }
        }
    }
    named
}
