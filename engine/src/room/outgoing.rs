//! Which events go to other servers: what users of this server do, and what other servers let this one pass on.
//!
//! Invariant: where no other server is in the room, an event that is no state costs a few comparisons. A user of another
//! server who is turned away, or whose invite is taken back, is told by way of their server, also when nobody else of it
//! is in the room: it has a stay as long as that one event.
//! Specification: server-server API, "Transactions"; "Joining Rooms" for those that are passed on.

use std::sync::Arc;

use super::{Event, RoomCtx, merging::DUMMY_EVENT, peer::Peer, servers, servers::is_in_or_supposed, untold};
use crate::{
    core::{
        event::Pdu,
        identifiers::server_name,
        num::{EventNum, NodeId, StreamPos, TextNum},
    },
    error::Result,
    outbox::{self, delivery::OWN_EVENTS_MAX},
    store::{Reader, StorageError, Tx, schema, schema::Membership},
    stream::{Outgoing, Touch},
};

/// Who has to be told of an event, as far as that is to be seen only before it is part of the room.
pub(super) struct Audience {
    had_others: bool,
    /// The server of somebody who is not in the room and is turned away.
    turned_away: Option<TextNum>,
}

impl Audience {
    /// Before the event is taken in.
    pub fn before(tx: &mut Tx, room: &RoomCtx, pdu: &Pdu) -> Result<Self, StorageError> {
        let had_others = has_others(room);
        let turned_away = match pdu.state_key.as_deref() {
            Some(user_id) if &*pdu.kind == "m.room.member" => turned_away(tx, room, pdu, user_id)?,
            _ => None,
        };
        Ok(Self { had_others, turned_away })
    }

    /// Notes an event that was taken in at `pos`, if it is one that this server sends out.
    pub fn tell(self, tx: &mut Tx, room: &RoomCtx, event: &Arc<Event>, pos: StreamPos) -> Result<()> {
        let has_others = self.had_others || has_others(room);
        if !has_others && self.turned_away.is_none() {
            return Ok(());
        }
        let pdu = event.pdu()?;
        // Other servers make dummy events of their own; ours would be a new end for them.
        if server_name(&pdu.sender) != Some(&*tx.shared.server_name) || &*pdu.kind == DUMMY_EVENT {
            return Ok(());
        }
        if let Some(server) = self.turned_away {
            tx.put(&schema::SERVER_STAYS, &(server, room.num, pos), &pos);
            tx.touch(Touch::Outgoing(Outgoing::Left { server, room: room.num }));
        }
        put(tx, room, event, pos);
        Ok(())
    }
}

/// The server of a user of another server who was invited or has knocked, and is turned away while none of its users is, or is
/// supposed to be, in the room: those that are have a stay by that.
fn turned_away(
    tx: &mut Tx,
    room: &RoomCtx,
    pdu: &Pdu,
    user_id: &str,
) -> Result<Option<TextNum>, StorageError> {
    if !matches!(pdu.membership(), Some("leave" | "ban")) {
        return Ok(None);
    }
    let Some(server) = server_name(user_id).filter(|server| **server != *tx.shared.server_name) else {
        return Ok(None);
    };
    let Some(user) = tx.user_num(user_id)? else { return Ok(None) };
    let was = tx.membership(user, room.num)?;
    if !matches!(was, Some(Membership::Invite | Membership::Knock)) {
        return Ok(None);
    }
    let server = tx.intern_text(server)?;
    Ok((!is_in_or_supposed(tx, server, room.num)?).then_some(server))
}

/// Tells a server that has come into the room, by `join` if that is known, of the room's other ends. They are of what was said while
/// it was not known to be there: behind the template that it was given, which its join does not follow, or before it was found. It
/// fetches what is before them. What the history visibility hides from it is not told. O(ends).
pub(crate) fn tell_ends(tx: &mut Tx, room: &RoomCtx, server: &str, join: Option<EventNum>) -> Result<()> {
    let others = room.head.extremities.iter().map(|(num, _)| *num).filter(|num| Some(*num) != join);
    let mut ends: Vec<EventNum> = others.collect();
    // Beside what happened meanwhile, the join may not count.
    if ends.is_empty() || !tx.is_server_in_room(server, room.num)? {
        return Ok(());
    }
    // The newest.
    ends.sort_unstable_by(|one, other| other.cmp(one));
    ends.truncate(OWN_EVENTS_MAX);
    let told = told_of(tx, room, server, &ends)?;
    let server = tx.intern_text(server)?;
    told.into_iter().rev().for_each(|num| outbox::send_event(tx, server, num));
    Ok(())
}

/// Tells the other servers again of what users of this one did last in the room, as far as nothing follows it, if the room's access
/// list lets this server in again, which it did not before what came, when `before` was its state: they have refused that, and would
/// hear of it only from what is said here next. Each is told that was sent it when it was told first. What was too soon then is told
/// when anything comes later. O(servers) then.
pub(crate) fn tell_again(tx: &mut Tx, room: &RoomCtx, before: NodeId) -> Result<()> {
    let (shared, now_ms) = (tx.shared.clone(), tx.shared.clock.now_ms());
    let owed = shared.admissions.owed(room.num, now_ms);
    let is_let_in_again = servers::is_let_in_again(tx, room, before)?;
    if !is_let_in_again && (owed.is_none() || servers::is_shut_out(tx, room)?) {
        return Ok(());
    }
    let dummy = tx.text_num(DUMMY_EVENT)?;
    let is_dummy = |event: &Arc<Event>| Some(event.header.kind) == dummy;
    let mut ends = untold::own_ends(tx, room)?;
    // What is said in this very batch has no place yet, and goes out with it. What was said since they are to be told was not refused.
    ends.retain(|event| {
        event.pos() < StreamPos::MAX && (is_let_in_again || Some(event.num) <= owed || is_dummy(event))
    });
    let Some(last) = ends.last().map(|event| event.num) else {
        shared.admissions.settle(room.num);
        return Ok(());
    };
    // Others have this server merge what they said as often as they like: that says nothing.
    let newest = ends.iter().rfind(|&event| !is_dummy(event)).map(|event| event.num);
    if shared.admissions.is_too_soon(room.num, newest, now_ms) {
        shared.admissions.put_off(room.num, last, now_ms);
        return Ok(());
    }
    tx.touch(Touch::ToldAgain { room: room.num, newest, now_ms });
    for server in tx.counted_or_supposed_servers(room.num)? {
        let sent_to = outbox::sent_to(tx, server)?;
        for event in &ends {
            let pos = event.pos();
            let is_still_to_go = pos > sent_to && tx.has(&schema::OUTGOING_EVENTS, &(room.num, pos))?;
            if !is_still_to_go && outbox::is_owed(tx, server, room.num, pos)? {
                outbox::send_event_again(tx, server, event.num)?;
            }
        }
    }
    Ok(())
}

/// Those of the events that the server may see and has not made itself.
fn told_of(reader: &Reader, room: &RoomCtx, server: &str, nums: &[EventNum]) -> Result<Vec<EventNum>> {
    let mut peer = Peer::enter(reader, &room.id, server)?;
    let mut told = Vec::with_capacity(nums.len());
    for event in reader.events(nums)? {
        let is_its_own = server_name(&reader.user_id(event.header.sender)?) == Some(server);
        if !is_its_own && peer.may_see(&event)? {
            told.push(event.num);
        }
    }
    Ok(told)
}

/// Sends an event on that another server has given this one to pass on to the others in the room.
pub(crate) fn pass_on(tx: &mut Tx, room: &RoomCtx, event: &Arc<Event>) {
    if has_others(room) {
        let pos = tx.position_of(event);
        put(tx, room, event, pos);
    }
}

/// Whether other servers are in the room. Where members are not known, there are.
fn has_others(room: &RoomCtx) -> bool {
    room.head.other_servers > 0 || room.head.partial_state
}

fn put(tx: &mut Tx, room: &RoomCtx, event: &Arc<Event>, pos: StreamPos) {
    tx.put(&schema::OUTGOING_EVENTS, &(room.num, pos), &event.num);
    tx.touch(Touch::Outgoing(Outgoing::Event(room.num)));
}
