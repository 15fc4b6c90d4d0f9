//! Where the stays of this server in a room begin: what was said before the present one is history, and clients are not told of
//! it as of something new.
//!
//! Invariant: what the graph shows comes before what events claim. What is in a gap that is noted, or behind it, is history;
//! what follows an event of this stay is none. Only where nothing leads to either, depths decide.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::{Event, RoomCtx, gap, members};
use crate::{
    core::{
        checked::CheckedPdu,
        event::Pdu,
        limits::SET_ASIDE_MAX,
        num::{EventNum, RoomNum, StateKeyId, StreamPos},
    },
    store::{Direction, Reader, StorageError, Tx, schema, schema::EventStatus},
};

/// How many changes of a user's membership are gone through, back from the entrance. What another server is late with is among the last.
const CHANGES_LOOKED_AT_MAX: usize = 100;

/// The first event of a stay that is still here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entrance {
    /// Where it stands.
    pub pos: StreamPos,
    /// Its depth. Whatever follows it is deeper, unless its server lies; where a depth is the greatest there is, as deep.
    pub depth: u64,
}

/// What events may follow that are of a stay.
#[derive(Clone, Copy)]
struct Stay<'a> {
    room: &'a RoomCtx,
    entrance: Entrance,
    /// Whether what is shown behind the entrance, and is no deeper, is looked through: it may have come late, so that the entrance is
    /// what follows it. Else it is of the stay.
    looks_through_late: bool,
}

impl Stay<'_> {
    /// Whether an event that is shown is looked through.
    fn looks_through(&self, event: &Event) -> bool {
        self.looks_through_late
            && event.pos() > self.entrance.pos
            && event.header.depth <= self.entrance.depth
    }

    /// Whether another that is shown is part of it, or where the room ends.
    fn has(&self, event: &Event) -> bool {
        event.pos() >= self.entrance.pos
            || self.room.head.extremities.iter().any(|(end, _)| *end == event.num)
    }
}

/// Notes that this server has come back to a room, by the event at `pos`.
pub(crate) fn note(tx: &mut Tx, room: RoomNum, pos: StreamPos) {
    tx.put(&schema::ENTRANCES, &room, &pos);
}

/// Where this server's stay in the room begins, or what a purge has left of it; nothing if nothing of the room is here.
pub(crate) fn of(reader: &Reader, room: RoomNum) -> Result<Option<Entrance>, StorageError> {
    let came_back = reader.get(&schema::ENTRANCES, &room)?;
    let purged = reader.get(&schema::HISTORY_STARTS, &room)?;
    // History that was fetched of a room that was entered once stands below zero.
    let from = came_back.into_iter().chain(purged).max().unwrap_or(StreamPos(1));
    let (start, end) = ((room, from), RoomNum(room.0 + 1));
    let mut first = None;
    let visit = |(_, pos): (RoomNum, StreamPos), num: EventNum| {
        first = Some((pos, num));
        false
    };
    reader.scan_between(&schema::TIMELINE, &start, &end, Direction::Forward, visit)?;
    let Some((pos, num)) = first else { return Ok(None) };
    Ok(Some(Entrance { pos, depth: reader.event(num)?.header.depth }))
}

/// Where this server's stays begin, as far as something is missing before that and that gap is before `before`: the first one first,
/// each with the highest position that is free before it.
pub(crate) fn open(
    reader: &Reader,
    room: RoomNum,
    before: StreamPos,
) -> Result<Vec<(Entrance, StreamPos)>, StorageError> {
    let Some(present) = of(reader, room)? else { return Ok(Vec::new()) };
    let mut gaps: Vec<(StreamPos, StreamPos)> = Vec::new();
    let end = before.min(StreamPos(present.pos.0.saturating_add(1)));
    let visit = |(_, pos): (RoomNum, StreamPos), free: StreamPos| {
        gaps.push((pos, free));
        true
    };
    let (start, end) = ((room, StreamPos(i64::MIN)), (room, end));
    reader.scan_between(&schema::GAPS, &start, &end, Direction::Forward, visit)?;
    let mut open = Vec::with_capacity(gaps.len());
    for (pos, free) in gaps {
        if pos == present.pos {
            open.push((present, free));
        } else if let Some(num) = reader.get(&schema::TIMELINE, &(room, pos))? {
            let event = reader.event(num)?;
            // What is missing before the first of them is below zero.
            let is_first = pos > StreamPos::ZERO && free < StreamPos::ZERO;
            if is_first || is_own_join(reader, &event)? {
                open.push((Entrance { pos, depth: event.header.depth }, free));
            }
        }
    }
    Ok(open)
}

/// Whether the event lets in one of this server's users. A server that is in a room has a gap before such an event only where another
/// one let the user in; what is missing there came before the join as well. Of what is no such member nothing is parsed.
fn is_own_join(reader: &Reader, event: &Event) -> Result<bool, StorageError> {
    let Some(state_key) = event.header.state_key else { return Ok(false) };
    if &*reader.text(event.header.kind)? != "m.room.member"
        || !members::is_local(reader, &reader.text(state_key)?)
    {
        return Ok(false);
    }
    Ok(event.pdu()?.membership() == Some("join"))
}

/// The gap that what is missing before history of this depth is in, which is itself in `gap`: that before the first entrance which
/// is deeper than the event, and where that is no deeper than all that lacks something, so that history stays below the join. Where
/// the gap is filled up to less depth, what it follows may stand behind what is missing there.
pub(crate) fn gap_before(
    reader: &Reader,
    room: RoomNum,
    depth: u64,
    gap: StreamPos,
) -> Result<StreamPos, StorageError> {
    for (entrance, _) in open(reader, room, gap)? {
        // In a room of the greatest depth there is, all are as deep.
        if depth < entrance.depth
            && gap::depth_of_missing(reader, room, entrance.pos)?.is_some_and(|deepest| depth <= deepest)
        {
            return Ok(entrance.pos);
        }
    }
    Ok(gap)
}

/// Those of the events, each after what it follows, that are history: of the `told`, which nobody has sent, but another server has
/// answered when it was asked what lies between; and of all of them what the graph shows that the entrance follows.
pub(crate) fn history_among(
    reader: &Reader,
    room: &RoomCtx,
    ordered: &[Arc<CheckedPdu>],
    told: &BTreeSet<Arc<str>>,
) -> Result<HashSet<Arc<str>>, StorageError> {
    let mut history = before_entrance(reader, room, ordered)?;
    if told.is_empty() && history.is_empty() {
        return Ok(history);
    }
    let mut behind: HashSet<&str> = HashSet::new();
    for pdu in ordered.iter().rev().map(|checked| &checked.pdu).filter(|pdu| told.contains(&pdu.event_id)) {
        let key = (room.num, pdu.event_id.to_string());
        if behind.contains(&*pdu.event_id)
            || pdu.prev_events.is_empty()
            || reader.has(&schema::BACKWARD_EXTREMITIES, &key)?
        {
            behind.extend(pdu.prev_events.iter().map(|event_id| &**event_id));
            history.insert(pdu.event_id.clone());
        }
    }
    by_depth(reader, room, (ordered, told), &mut history)?;
    // What is here is here.
    let mut known = Vec::new();
    for event_id in &history {
        if gap::in_graph(reader, room.num, event_id)?.is_some() {
            known.push(event_id.clone());
        }
    }
    for event_id in known {
        history.remove(&event_id);
    }
    Ok(history)
}

/// Adds those that are not as deep as the entrance, and follow nothing of the stay.
fn by_depth(
    reader: &Reader,
    room: &RoomCtx,
    (ordered, told): (&[Arc<CheckedPdu>], &BTreeSet<Arc<str>>),
    history: &mut HashSet<Arc<str>>,
) -> Result<(), StorageError> {
    let Some(entrance) = of(reader, room.num)? else { return Ok(()) };
    let stay = Stay { room, entrance, looks_through_late: false };
    let mut of_stay: HashSet<&str> = HashSet::new();
    for pdu in ordered.iter().map(|checked| &checked.pdu) {
        if follows_stay(reader, stay, pdu, &of_stay)? {
            of_stay.insert(&pdu.event_id);
        } else if told.contains(&pdu.event_id) && pdu.depth < entrance.depth {
            history.insert(pdu.event_id.clone());
        }
    }
    Ok(())
}

/// Whether the event follows one of the stay, of those here or of these, or where the room ends here.
fn follows_stay(
    reader: &Reader,
    stay: Stay<'_>,
    pdu: &Pdu,
    of_stay: &HashSet<&str>,
) -> Result<bool, StorageError> {
    for event_id in &pdu.prev_events {
        if of_stay.contains(&**event_id) {
            return Ok(true);
        }
        let Some(known) = gap::in_graph(reader, stay.room.num, event_id)? else { continue };
        if leads_to_stay(reader, stay, known)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether an event is of the stay, or follows one that is by way of such as are not shown: else whoever is shut out had a fork of two
/// events taken for history by what they claim. One behind so many of these that they are not all looked through counts as such.
fn leads_to_stay(reader: &Reader, stay: Stay<'_>, known: Arc<Event>) -> Result<bool, StorageError> {
    let mut to_look_at = vec![known];
    let mut looked_through = 0;
    while let Some(event) = to_look_at.pop() {
        match event.header.status {
            EventStatus::Outlier => {}
            EventStatus::Accepted if !stay.looks_through(&event) && stay.has(&event) => return Ok(true),
            EventStatus::Accepted if !stay.looks_through(&event) => {}
            EventStatus::Accepted | EventStatus::SoftFailed | EventStatus::Rejected => {
                if looked_through == SET_ASIDE_MAX {
                    return Ok(true);
                }
                looked_through += 1;
                for num in &event.header.prev {
                    to_look_at.push(reader.event(*num)?);
                }
            }
        }
    }
    Ok(false)
}

/// Whether an event that the room as it is now denies may be missing before the entrance, which would make it history: something is
/// missing there, and the event is no deeper than the entrance and follows nothing of the stay. Of one that is not, at most what it
/// follows is read. A membership of a user of this server is history only where the state before the entrance has it.
pub(crate) fn may_be_missing(reader: &Reader, room: &RoomCtx, pdu: &Pdu) -> Result<bool, StorageError> {
    if is_of_own_user(reader, pdu) {
        return Ok(false);
    }
    let Some(entrance) = of(reader, room.num)?.filter(|entrance| pdu.depth <= entrance.depth) else {
        return Ok(false);
    };
    let stay = Stay { room, entrance, looks_through_late: false };
    Ok(reader.has(&schema::GAPS, &(room.num, entrance.pos))?
        && !follows_stay(reader, stay, pdu, &HashSet::new())?)
}

/// Whether an event that is here, and in `gap` as what is filled in shows, was soft-failed though it is history: the gap is that before an
/// entrance, behind which the event came. What had been soft-failed before stays that, and so does what follows an event of the stay, which
/// one that came late is not.
pub(crate) fn was_overlooked(
    reader: &Reader,
    room: &RoomCtx,
    event: &Event,
    gap: StreamPos,
) -> Result<bool, StorageError> {
    if event.header.status != EventStatus::SoftFailed || event.header.partial_state {
        return Ok(false);
    }
    let first = reader.get(&schema::TIMELINE, &(room.num, gap))?;
    if first.is_none_or(|first| event.num < first) {
        return Ok(false);
    }
    let mut open = open(reader, room.num, StreamPos::MAX)?.into_iter();
    let entrance = open.find_map(|(entrance, _)| (entrance.pos == gap).then_some(entrance));
    let Some(entrance) = entrance.filter(|entrance| event.header.depth <= entrance.depth) else {
        return Ok(false);
    };
    let stay = Stay { room, entrance, looks_through_late: true };
    Ok(!follows_stay(reader, stay, &*event.pdu()?, &HashSet::new())?)
}

/// Those of the events, sent or told, that the graph shows the entrance to follow, and what these follow in their turn. They are sent when
/// this server is back already, by one that had not heard that it was gone; what they did is part of the state that it came in with.
/// Of an event that follows another than the room's only end, one row is read.
fn before_entrance(
    reader: &Reader,
    room: &RoomCtx,
    ordered: &[Arc<CheckedPdu>],
) -> Result<HashSet<Arc<str>>, StorageError> {
    let mut history = HashSet::new();
    let mut behind: HashSet<&str> = HashSet::new();
    let news = after_only_end(room, ordered);
    for pdu in ordered.iter().rev().map(|checked| &checked.pdu) {
        let event_id: &str = &pdu.event_id;
        if !news.contains(event_id) && (behind.contains(event_id) || is_before_entrance(reader, room, pdu)?) {
            behind.extend(pdu.prev_events.iter().map(|event_id| &**event_id));
            history.insert(pdu.event_id.clone());
        }
    }
    Ok(history)
}

/// Those that follow the room's only end, or another of them that does: they are of the stay, as that is.
fn after_only_end<'a>(room: &RoomCtx, ordered: &'a [Arc<CheckedPdu>]) -> HashSet<&'a str> {
    let mut found: HashSet<&'a str> = HashSet::new();
    let [(_, end)] = room.head.extremities.as_slice() else { return found };
    for pdu in ordered.iter().map(|checked| &checked.pdu) {
        if pdu.prev_events.iter().any(|prev| **prev == **end || found.contains(&**prev)) {
            found.insert(&pdu.event_id);
        }
    }
    found
}

/// Whether the event is missing before the entrance, or is a membership of a user of this server that counted before it. A membership
/// that the state before the entrance knows nothing of is news, however little depth it claims: nobody there had heard of it.
fn is_before_entrance(reader: &Reader, room: &RoomCtx, pdu: &Pdu) -> Result<bool, StorageError> {
    let noted = gap::of(reader, room.num, &pdu.event_id)?;
    let known = own_membership(reader, room, pdu)?;
    if noted.is_none() && known.is_none() {
        return Ok(false);
    }
    let Some(entrance) = of(reader, room.num)? else { return Ok(false) };
    if noted.is_some_and(|gap| gap <= entrance.pos) {
        return Ok(true);
    }
    // Where nothing is missing, nobody would ask for it.
    if let Some(known) = known
        && reader.has(&schema::GAPS, &(room.num, entrance.pos))?
    {
        return has_counted(reader, (room.num, entrance), &known);
    }
    Ok(false)
}

/// Whether the event is a membership of a user of this server.
fn is_of_own_user(reader: &Reader, pdu: &Pdu) -> bool {
    let is_own = |user_id: &Arc<str>| members::is_local(reader, user_id);
    &*pdu.kind == "m.room.member" && pdu.state_key.as_ref().is_some_and(is_own)
}

/// The event, if it is a membership of a user of this server that is known from outside of the graph.
fn own_membership(reader: &Reader, room: &RoomCtx, pdu: &Pdu) -> Result<Option<Arc<Event>>, StorageError> {
    if !is_of_own_user(reader, pdu) {
        return Ok(None);
    }
    let Some(num) = reader.event_num(&pdu.event_id)? else { return Ok(None) };
    let known = reader.event(num)?;
    let is_outside = known.header.status == EventStatus::Outlier && known.header.room == room.num;
    Ok(is_outside.then_some(known))
}

/// Whether a membership was in the state before the entrance, or in what led to that: each is allowed by the one before it.
fn has_counted(
    reader: &Reader,
    (room, entrance): (RoomNum, Entrance),
    known: &Event,
) -> Result<bool, StorageError> {
    let Some(state_key) = known.header.state_key else { return Ok(false) };
    let key = StateKeyId::new(known.header.kind, state_key);
    let Some(first) = reader.get(&schema::TIMELINE, &(room, entrance.pos))? else { return Ok(false) };
    let first = reader.event(first)?;
    let mut next = match reader.state_num_at(room, first.header.state_before, key)? {
        Some(num) => Some(num),
        // A state that lacks members may lack that of who comes in.
        None => allowing_under(reader, &first, key)?,
    };
    for _ in 0..CHANGES_LOOKED_AT_MAX {
        let Some(num) = next else { break };
        if num == known.num {
            return Ok(true);
        }
        let event = reader.event(num)?;
        if event.header.auth_depth <= known.header.auth_depth {
            break;
        }
        next = allowing_under(reader, &event, key)?;
    }
    Ok(false)
}

/// Which of the events that allow one is an entry of the state of this key.
fn allowing_under(reader: &Reader, event: &Event, key: StateKeyId) -> Result<Option<EventNum>, StorageError> {
    for num in &event.header.auth {
        let allowing = reader.event(*num)?;
        if allowing.header.kind == key.kind() && allowing.header.state_key == Some(key.state_key()) {
            return Ok(Some(*num));
        }
    }
    Ok(None)
}
