//! What becomes of one event in a purge: removed with every row that is its own, or left as an outlier.

use crate::{
    core::{
        num::{NodeId, StreamPos},
        visibility::{AtEvent, HistoryVisibility, Presence, may_see},
    },
    error::Result,
    room::{
        Event,
        accept::rewrite_header,
        early_events,
        relations::{self, RelationClass},
    },
    store::{
        Direction, StorageError, Tx, schema,
        schema::{EventHeader, EventStatus, UserNews},
    },
    stream::Touch,
};

/// Relations to one event beyond this are removed as a range: cheap to write, but dearer for every later read of the
/// family than a few rows are.
const RELATIONS_ONE_BY_ONE_MAX: usize = 64;

/// The type of what says who may see the history.
const VISIBILITY: &str = "m.room.history_visibility";

/// The types of the events by which others are judged. Specification: server-server API, "Auth events selection".
const JUDGED_BY: [&str; 5] = [
    "m.room.create",
    "m.room.member",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.third_party_invite",
];

/// Removes the rows of the event itself.
pub(super) fn remove(tx: &mut Tx, event: &Event) -> Result<(), StorageError> {
    let event_id = event.event_id.to_string();
    if tx.event_num(&event_id)? == Some(event.num) {
        tx.delete(&schema::EVENT_NUMS, &event_id);
    }
    tx.delete(&schema::EVENT_HEADERS, &event.num);
    tx.delete(&schema::EVENT_BODIES, &event.num);
    leave_timeline(tx, event)?;
    tx.delete(&schema::OFF_TIMELINE, &(event.header.room, event.num));
    forget_told_state(tx, event)
}

fn leave_timeline(tx: &mut Tx, event: &Event) -> Result<(), StorageError> {
    if event.header.status == EventStatus::Accepted {
        tx.delete(&schema::TIMELINE, &(event.header.room, event.pos()));
        if tx.has(&schema::OUTGOING_EVENTS, &(event.header.room, event.pos()))? {
            tx.delete(&schema::OUTGOING_EVENTS, &(event.header.room, event.pos()));
        }
        if event.header.partial_state {
            tx.delete(&schema::PARTIAL_STATES, &(event.header.room, event.pos()));
        }
        tx.touch(Touch::History(event.header.room));
    }
    Ok(())
}

/// Removes what users have because of the event: the answer to the client's transaction, the news of a membership.
pub(super) fn remove_of_users(tx: &mut Tx, event: &Event, room_id: &str) -> Result<()> {
    let header = &event.header;
    let pdu = event.pdu()?;
    if let Some((device, id)) = &header.transaction {
        let endpoint = pdu.redacts.as_deref().unwrap_or(&pdu.kind);
        let key = (header.sender, *device, format!("{room_id}/{endpoint}/{id}"));
        tx.delete(&schema::TRANSACTIONS, &key);
    }
    let member = pdu.state_key.as_deref().filter(|_| &*pdu.kind == "m.room.member");
    if let Some(user) = member.map(|user_id| tx.user_num(user_id)).transpose()?.flatten() {
        let key = (user, event.pos());
        if tx.get(&schema::USER_STREAM, &key)? == Some(UserNews::Membership(header.room)) {
            tx.delete(&schema::USER_STREAM, &key);
        }
    }
    Ok(())
}

/// Removes the relations of the event, both ways, and the thread that it is the root of.
pub(super) fn remove_relations(tx: &mut Tx, event: &Event) -> Result<()> {
    relations::remove(tx, event)?;
    let room = event.header.room;
    for class in RelationClass::ALL {
        let prefix = (room, class as u8, event.num);
        let mut positions: Vec<StreamPos> = Vec::new();
        tx.scan(&schema::RELATIONS, &prefix, Direction::Forward, |(_, _, _, pos), _| {
            positions.push(pos);
            positions.len() <= RELATIONS_ONE_BY_ONE_MAX
        })?;
        if positions.len() > RELATIONS_ONE_BY_ONE_MAX {
            tx.delete_prefix(&schema::RELATIONS, &prefix);
        } else {
            for pos in positions {
                tx.delete(&schema::RELATIONS, &(room, class as u8, event.num, pos));
            }
        }
    }
    Ok(relations::end_thread(tx, room, event.num)?)
}

/// The event has no state of its own any more.
fn forget_told_state(tx: &mut Tx, event: &Event) -> Result<(), StorageError> {
    if tx.has(&schema::TOLD_STATES, &(event.header.room, event.num))? {
        tx.delete(&schema::TOLD_STATES, &(event.header.room, event.num));
    }
    Ok(())
}

/// Leaves the event as an outlier: known, but neither in the timeline nor with a state or previous events of its own. What that said
/// of who may see the event is kept.
pub(super) fn leave_as_outlier(tx: &mut Tx, event: &Event) -> Result<(), StorageError> {
    if is_hidden(tx, event)? {
        tx.put(&schema::HIDDEN_OUTLIERS, &(event.header.room, event.num), &());
    }
    leave_timeline(tx, event)?;
    forget_told_state(tx, event)?;
    tx.put(&schema::OFF_TIMELINE, &(event.header.room, event.num), &());
    let header = EventHeader {
        prev: Vec::new(),
        // What was refused stays refused.
        status: match event.header.status {
            EventStatus::Rejected => EventStatus::Rejected,
            _ => EventStatus::Outlier,
        },
        state_before: NodeId::default(),
        state_after: NodeId::default(),
        room_state: NodeId::default(),
        partial_state: false,
        after_gap: false,
        transaction: None,
        is_filled_in: false,
        ..event.header.clone()
    };
    rewrite_header(tx, event, header)
}

/// Whether it is a state event that the history visibility hides from servers that come into the room later. What events are judged
/// by is not hidden: that is given whole with any auth chain, and in some versions redaction takes a part of what counts.
fn is_hidden(tx: &Tx, event: &Event) -> Result<bool, StorageError> {
    let pdu = event.pdu()?;
    if pdu.state_key.is_none() || JUDGED_BY.contains(&&*pdu.kind) {
        return Ok(false);
    }
    let header = &event.header;
    let before = match tx.state_event(header.room, header.state_before, VISIBILITY, "")? {
        Some(before) => HistoryVisibility::from_content(Some(&before.pdu()?.content)),
        None => HistoryVisibility::default(),
    };
    let visibility = match pdu.is_state(VISIBILITY, "") {
        true => AtEvent::changed(before, HistoryVisibility::from_content(Some(&pdu.content))),
        false => AtEvent::unchanged(before),
    };
    Ok(!may_see(visibility, AtEvent::unchanged(Presence::Absent), true))
}

/// Whether the event is a redaction that was applied to an event which is there. What is there of that event is what the
/// redaction left, and it is shown with the redaction. One that was redacted itself may have lost the name of its target
/// and is taken for applied.
pub(super) fn is_applied_redaction(tx: &Tx, event: &Event) -> Result<bool> {
    if event.header.redacted_by.is_some() && &*event.pdu()?.kind == "m.room.redaction" {
        return Ok(true);
    }
    let Some(target) = redacts(event)? else { return Ok(false) };
    let Some(target) = tx.event_num(&target)? else { return Ok(false) };
    Ok(tx.event(target)?.header.redacted_by == Some(event.num))
}

fn redacts(event: &Event) -> Result<Option<String>> {
    let pdu = event.pdu()?;
    Ok(pdu.redacts.as_deref().filter(|_| &*pdu.kind == "m.room.redaction").map(str::to_owned))
}

/// Forgets a redaction that waits for its target.
pub(super) fn remove_early_redaction(tx: &mut Tx, event: &Event) -> Result<()> {
    let Some(target) = redacts(event)? else { return Ok(()) };
    early_events::forget(tx, &schema::EARLY_REDACTIONS, event.header.room, &target, event.num)
}
