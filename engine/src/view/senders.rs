//! The member events of those who sent what is shown: a client that loads members lazily is given them with it.
//!
//! Invariant: as long as members of a room are missing, its state does not have those of everybody who speaks. What they send
//! names the membership by which they may, and that is here.
//! Specification: client-server API, "Lazy-loading room members"; server-server API, "Auth events selection".

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    core::num::{EventNum, NodeId, RoomNum, StateKeyId, UserNum},
    room::Event,
    store::{Reader, StorageError},
};

/// The member events of those who sent `events` of a room, as a snapshot has them.
pub(crate) fn members_of_senders<'e>(
    reader: &Reader,
    room: RoomNum,
    snapshot: NodeId,
    events: impl Iterator<Item = &'e Arc<Event>>,
) -> Result<Vec<Arc<Event>>, StorageError> {
    // The last event of each says most of how its sender stands.
    let mut last: BTreeMap<UserNum, &Arc<Event>> = BTreeMap::new();
    for event in events {
        let known = last.entry(event.header.sender).or_insert(event);
        if known.pos() < event.pos() {
            *known = event;
        }
    }
    let mut nums = Vec::with_capacity(last.len());
    for (sender, event) in last {
        match reader.state_num(room, snapshot, "m.room.member", &reader.user_id(sender)?)? {
            Some(num) => nums.push(num),
            None => nums.extend(named_membership(reader, event)?),
        }
    }
    reader.events(&nums)
}

/// The membership that an event names as what lets its sender send it, if the state before the event lacks members. Of other
/// events none is given: there the state has it, or the sender has none.
pub(crate) fn named_membership(reader: &Reader, event: &Event) -> Result<Option<EventNum>, StorageError> {
    if !event.header.partial_state {
        return Ok(None);
    }
    let sender = reader.user_id(event.header.sender)?;
    let (Some(kind), Some(state_key)) = (reader.text_num("m.room.member")?, reader.text_num(&sender)?) else {
        return Ok(None);
    };
    let membership = StateKeyId::new(kind, state_key);
    let mut named = None;
    reader.each_header(&event.header.auth, |num, header| {
        if header.state_key_id() == Some(membership) {
            named = Some(num);
        }
    })?;
    Ok(named)
}
