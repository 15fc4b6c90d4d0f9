//! Copies of one event: whole, or pruned, as a redaction would leave it. A server gives out pruned what the one that asks could not
//! see, and the same event whole as part of a state, or when it was asked by another way.
//!
//! Invariant: what is stored whole stays whole unless it is redacted here, and what is stored pruned is whole once a whole copy has
//! come. Which is which the content hash tells: [`crate::core::checked`] lets none pass by which it does not hold, but for what
//! redaction leaves of it. Events that differ in that are no copies: where servers choose the ids, one may stand for two.

use std::sync::Arc;

use super::{AtHand, Outcome};
use crate::{
    core::event::{Pdu, verify_content_hash_of_json},
    error::Result,
    room::{Event, RoomCtx, accept::rewrite_body},
    store::{StorageError, Tx},
};

/// Whether an event is of another room than this one, or is called like one that is: it is not to take the place of that.
pub(super) fn is_of_another_room(room: &RoomCtx, come: &Pdu, known: Option<&Arc<Event>>) -> bool {
    come.room_id != room.id || known.is_some_and(|known| known.header.room != room.num)
}

/// The copy to go on with of an event that gets another place in the room: the one that has come, unless it is pruned and the known
/// one is whole. The signatures are those that have come, a policy server's among them.
pub(super) fn fuller(known: Option<&Arc<Event>>, come: &Arc<Pdu>) -> Result<Arc<Pdu>, StorageError> {
    match known.filter(|known| known.json != come.json) {
        Some(known)
            if !is_whole(&come.event_id, &come.json)?
                && is_whole(&known.event_id, &known.json)?
                && are_of_one(known, come)? =>
        {
            Ok(with_signatures(&known.pdu()?, come))
        }
        _ => Ok(come.clone()),
    }
}

/// An event has come that keeps its place. If it is pruned so far, and has come whole, it is whole from now on; unless that was the
/// work of a redaction here.
pub(super) fn come_again(
    tx: &mut Tx,
    room: &RoomCtx,
    known: &Arc<Event>,
    come: &Arc<Pdu>,
    at_hand: &mut AtHand,
) -> Result<Outcome> {
    // As a rule they are the same byte by byte: of the many that a state told anew consists of none is hashed.
    if known.json != come.json
        && known.header.redacted_by.is_none()
        && !is_whole(&known.event_id, &known.json)?
        && is_whole(&come.event_id, &come.json)?
        && are_of_one(known, come)?
    {
        let whole = with_signatures(come, &*known.pdu()?);
        at_hand.put(&rewrite_body(tx, room, known, whole)?);
    }
    Ok(Outcome::Known)
}

fn is_whole(event_id: &str, json: &[u8]) -> Result<bool, StorageError> {
    verify_content_hash_of_json(json).map_err(|_| corrupt(event_id))
}

/// Whether two events are the same but for what redaction takes.
fn are_of_one(known: &Event, come: &Pdu) -> Result<bool, StorageError> {
    let (version, stored) = (known.version()?, known.pdu()?);
    let kept = |pdu: &Pdu| pdu.signed_bytes(version).map_err(|_| corrupt(&pdu.event_id));
    Ok(kept(&stored)? == kept(come)?)
}

/// A copy with the signatures of another, if there is room for them.
fn with_signatures(copy: &Arc<Pdu>, other: &Pdu) -> Arc<Pdu> {
    copy.with_signatures_of(other).map_or_else(|_| copy.clone(), Arc::new)
}

fn corrupt(event_id: &str) -> StorageError {
    StorageError::Corrupt(format!("event {event_id} is not JSON"))
}
