//! Redactions: applying one that may be applied to the event that it names.
//!
//! Invariant: from room version 3 on, clients are told of a redaction only if it takes something here, or would: they empty whatever
//! the redactions that they are given name, and do not look at powers. Other servers get all of them, and judge for themselves.
//! History that the rules allow takes effect even where the room's policy server refuses it: it is shown to nobody, but what it took is gone
//! elsewhere, and would be fetched from who has not heard of it.
//! Specification: "Handling redactions" of each room version.

use std::{collections::HashSet, sync::Arc};

use super::{Event, RoomCtx, early_events, event::encode_body, relations, snapshot::power_levels};
use crate::{
    core::{
        auth::may_redact, event::Pdu, identifiers::server_name, limits::EARLY_REDACTIONS_MAX, num::EventNum,
    },
    error::Result,
    store::{Positioned, Reader, StorageError, Tx, schema, schema::EventStatus},
    stream::Touch,
};

/// If the event is a redaction, applies it to its target or has it wait for that, as soon as it is known for certain to be allowed: what
/// it takes cannot be given back.
pub(super) fn take_effect(tx: &mut Tx, room: &RoomCtx, event: &Arc<Event>) -> Result<()> {
    let header = &event.header;
    if header.partial_state || !header.takes_effect() || event.pdu()?.redacts.is_none() {
        return Ok(());
    }
    if header.status != EventStatus::Accepted {
        // Nobody is shown it, but its target may be in the timeline.
        tx.touch(Touch::History(room.num));
    }
    apply(tx, room, event)
}

/// If the event is a redaction, applies it to its target, when that is there and the sender may.
fn apply(tx: &mut Tx, room: &RoomCtx, redaction: &Arc<Event>) -> Result<()> {
    let pdu = redaction.pdu()?;
    if &*pdu.kind != "m.room.redaction" {
        return Ok(());
    }
    let Some(target_id) = pdu.redacts.as_deref() else { return Ok(()) };
    match tx.event_num(target_id)? {
        Some(target) => {
            let target = tx.event(target)?;
            apply_to(tx, room, redaction, &target)
        }
        None => let_wait(tx, room, redaction, target_id),
    }
}

/// Lets a redaction wait for its target. Where as many wait as may, it takes the place of one that is of no use beside the others.
fn let_wait(tx: &mut Tx, room: &RoomCtx, redaction: &Event, target_id: &str) -> Result<()> {
    let keyspace = &schema::EARLY_REDACTIONS;
    let waiting = tx.get(keyspace, &(room.num, target_id.to_owned()))?.unwrap_or_default();
    if waiting.len() >= EARLY_REDACTIONS_MAX {
        let Some(useless) = useless_beside(tx, &waiting, redaction)? else { return Ok(()) };
        early_events::forget(tx, keyspace, room.num, target_id, useless)?;
    }
    early_events::keep(tx, keyspace, room.num, target_id, redaction.num, EARLY_REDACTIONS_MAX)
}

/// The newest of those that wait which takes nothing that the others and `redaction` do not take; nothing if it is `redaction` itself
/// that is of no use. Whose sender may redact whatever it is takes the target in any case; what others send takes it only if that is of
/// their server, so that one of each server is enough: no server crowds out who has powers, nor another server. O(those that wait).
fn useless_beside(reader: &Reader, waiting: &[EventNum], redaction: &Event) -> Result<Option<EventNum>> {
    let takes_all = may_be_applied(reader, redaction, UNKNOWN_SENDER)?;
    let waiting = reader.events(waiting)?;
    let own = server_of(reader, redaction)?;
    let mut servers = Vec::with_capacity(waiting.len());
    for other in &waiting {
        servers.push(server_of(reader, other)?);
    }
    if !takes_all && servers.contains(&own) {
        return Ok(None);
    }
    let (mut met, mut weak, mut repeated) = (HashSet::new(), None, None);
    for (other, server) in waiting.iter().zip(servers) {
        let is_first = met.insert(server);
        if !may_be_applied(reader, other, UNKNOWN_SENDER)? {
            weak = Some(other.num);
            repeated = if is_first { repeated } else { weak };
        }
    }
    Ok(repeated.or(weak.filter(|_| takes_all)))
}

fn server_of(reader: &Reader, event: &Event) -> Result<Option<String>, StorageError> {
    Ok(server_name(&reader.user_id(event.header.sender)?).map(str::to_owned))
}

/// Applies the redactions that came before this event, if there are any.
pub(crate) fn apply_early(tx: &mut Tx, room: &RoomCtx, event: &Arc<Event>) -> Result<()> {
    for redaction in early_events::take(tx, &schema::EARLY_REDACTIONS, room.num, &event.event_id)? {
        let (redaction, target) = (tx.event(redaction)?, tx.event(event.num)?);
        apply_to(tx, room, &redaction, &target)?;
    }
    Ok(())
}

/// Applies the redactions that came before this event to what is known of it by now, which is not its place in the timeline: until
/// it gets one they go on waiting.
pub(crate) fn apply_waiting(tx: &mut Tx, room: &RoomCtx, event: Arc<Event>) -> Result<Arc<Event>> {
    let key = (room.num, event.event_id.to_string());
    let Some(waiting) = tx.get(&schema::EARLY_REDACTIONS, &key)? else { return Ok(event) };
    for redaction in waiting {
        let (redaction, target) = (tx.event(redaction)?, tx.event(event.num)?);
        apply_to(tx, room, &redaction, &target)?;
    }
    Ok(tx.event(event.num)?)
}

/// Whether a redaction that came before this event will be applied to it, whatever there is of that.
pub(crate) fn is_awaited(reader: &Reader, room: &RoomCtx, event_id: &str, sender: &str) -> Result<bool> {
    let key = (room.num, event_id.to_owned());
    for redaction in reader.get(&schema::EARLY_REDACTIONS, &key)?.unwrap_or_default() {
        if may_be_applied(reader, &*reader.event(redaction)?, sender)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether no redaction takes anything from the target, or not this one. On a create event all of a room stands: its version, which
/// who comes in is told by it, was never redacted on other servers either. Where servers choose the ids of events, an event can name
/// itself, and two can name each other: none of them counts.
pub(crate) fn is_spared(redaction: &Pdu, target: &Pdu) -> bool {
    let is_circular =
        redaction.event_id == target.event_id || target.redacts.as_deref() == Some(&*redaction.event_id);
    is_circular || &*target.kind == "m.room.create"
}

fn apply_to(tx: &mut Tx, room: &RoomCtx, redaction: &Arc<Event>, target: &Arc<Event>) -> Result<()> {
    if target.header.room != room.num || target.header.redacted_by.is_some() {
        return Ok(());
    }
    let target_sender = tx.user_id(target.header.sender)?;
    if may_be_applied(tx, redaction, &target_sender)? && !is_spared(&*redaction.pdu()?, &*target.pdu()?) {
        erase(tx, target, redaction.num)?;
    }
    Ok(())
}

/// The levels that count are those at the redaction, so that all servers decide alike.
fn may_be_applied(reader: &Reader, redaction: &Event, target_sender: &str) -> Result<bool, StorageError> {
    let (room, state) = (redaction.header.room, redaction.header.state_before);
    let levels = power_levels(|kind| reader.state_event(room, state, kind, ""))?;
    let (version, pdu) = (redaction.version()?, redaction.pdu()?);
    Ok(levels.is_some_and(|levels| may_redact(version, &pdu, target_sender, &levels)))
}

/// Who sent what is not here: nobody is of the same server.
const UNKNOWN_SENDER: &str = "";

/// Whether clients are told of a redaction of room version 3 or later: it was applied, or would have been if another had not come
/// before it. Of what is not here, or not any more, that is certain only if the sender may redact whatever it is: such are told at once,
/// since nobody who has read on would be told of them later.
///
/// One that lacks members takes nothing yet, but counts for clients as long as it stands, like what else lacks them: once it is
/// applied, they are not told of it anew.
pub(super) fn is_told(reader: &Reader, redaction: &Event) -> Result<bool, StorageError> {
    let pdu = redaction.pdu()?;
    let Some(target_id) = pdu.redacts.as_deref() else {
        // One that is redacted itself may have lost the name of its target, so that it takes nothing from anybody any more.
        return Ok(redaction.header.redacted_by.is_some());
    };
    let Some(target) = reader.event_num(target_id)? else {
        return may_be_applied(reader, redaction, UNKNOWN_SENDER);
    };
    let target = reader.event(target)?;
    if target.header.room != redaction.header.room {
        return Ok(false);
    }
    match target.header.redacted_by {
        Some(by) if by == redaction.num => Ok(true),
        _ => {
            let sender = reader.user_id(target.header.sender)?;
            Ok(may_be_applied(reader, redaction, &sender)? && !is_spared(&pdu, &*target.pdu()?))
        }
    }
}

/// Replaces the target's content by what redaction leaves of it. Whether it may be is the caller's to know.
pub(super) fn erase(tx: &mut Tx, target: &Arc<Event>, redaction: EventNum) -> Result<()> {
    relations::remove(tx, target)?;
    let json = target.redacted_json()?;
    let mut header = target.header.clone();
    header.redacted_by = Some(redaction);
    tx.put(&schema::EVENT_BODIES, &target.num, &encode_body(&target.event_id, &json));
    let pos = tx.position_of(target);
    tx.put(&schema::EVENT_HEADERS, &target.num, &Positioned { pos, value: header.clone() });
    let erased = Arc::new(Event::new(target.num, target.event_id.clone(), header, json));
    tx.made_event(&erased, pos);
    tx.write_event(&erased, true);
    Ok(())
}
