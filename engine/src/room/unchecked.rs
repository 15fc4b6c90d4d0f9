//! Events of a room's state that cannot be checked when the room is entered, since the keys of the servers that signed them cannot be
//! had: a server of a member is away, and nobody has told its keys.
//!
//! Invariant: nothing of them is believed, and nothing of them is lost: they are kept with what is allowed by them until the keys are
//! here, and are adopted into the room's state then as what another server tells of it ([`super::receive::adopt_state`]). Until then
//! nothing is rejected for want of a membership that one of them tells of. Who cannot wait so long asks for [`credible_state`].

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::Value;

use super::{Event, RoomCtx, accept::Arrival, gap, members, restricted_join::AUTHORISING_USER, state};
use crate::{
    core::{
        event::Pdu,
        identifiers::server_name,
        num::{EventNum, NodeId, RoomNum, StateKeyId, TextNum},
        power_levels::{Field, PowerLevels},
    },
    store::{
        Direction, Reader, StorageError, Tx, schema,
        schema::{EventStatus, Membership, UncheckedEvent, UncheckedMember},
    },
};

const MEMBER: &str = "m.room.member";

/// Of whose membership an event of the state tells, if it does.
pub(crate) fn member_of(event: &UncheckedEvent) -> Option<String> {
    #[derive(Deserialize)]
    struct Member {
        #[serde(rename = "type")]
        kind: String,
        state_key: String,
    }
    let member = serde_json::from_slice::<Member>(&event.json).ok().filter(|_| event.is_state)?;
    (member.kind == MEMBER).then_some(member.state_key)
}

/// What is known of the memberships that an event needs in the state before it, where that denies it.
pub(super) enum MembersBefore {
    /// What the state says.
    AsTold,
    /// Nothing yet: an event that waits tells of one.
    Unchecked,
    /// The state lacks one, since what tells of it was adopted into the room's state only behind what the event follows; with it the
    /// state is this.
    Adopted(NodeId),
}

/// Looks whether the state before an event lacks its sender, or who vouches for them, because what tells of that user could not be
/// checked when the room was entered. `is_told` if that state is another server's word. O(1).
pub(super) fn members_before(
    tx: &mut Tx,
    room: &RoomCtx,
    arrival: &Arrival,
    is_told: bool,
) -> Result<MembersBefore, StorageError> {
    let pdu = arrival.pdu.clone();
    let vouching = pdu.content.get(AUTHORISING_USER).and_then(Value::as_str);
    let vouching = vouching.filter(|_| room.version.restricted && &*pdu.kind == MEMBER);
    let (mut snapshot, mut has_adopted) = (arrival.state_before, false);
    for user_id in std::iter::once(&*pdu.sender).chain(vouching) {
        if tx.state_event(room.num, snapshot, MEMBER, user_id)?.is_some() {
            continue;
        }
        if tx.has(&schema::UNCHECKED_MEMBERS, &(room.num, user_id.to_owned()))? {
            return Ok(MembersBefore::Unchecked);
        }
        if !is_told && let Some((key, num)) = adopted_member(tx, room, arrival, user_id)? {
            snapshot = state::set(tx, room.num, snapshot, key, num)?;
            has_adopted = true;
        }
    }
    Ok(if has_adopted { MembersBefore::Adopted(snapshot) } else { MembersBefore::AsTold })
}

/// The membership of a user that the event names, if it was adopted into the room's state: it came as no event of the graph, and
/// stands there, or allows what stands there since.
fn adopted_member(
    reader: &Reader,
    room: &RoomCtx,
    arrival: &Arrival,
    user_id: &str,
) -> Result<Option<(StateKeyId, EventNum)>, StorageError> {
    let Some(standing) = reader.state_event(room.num, room.head.state, MEMBER, user_id)? else {
        return Ok(None);
    };
    let Some(key) = standing.state_key_id() else { return Ok(None) };
    let is_named = |event: &&Arc<Event>| {
        event.header.status == EventStatus::Outlier && event.state_key_id() == Some(key)
    };
    let named = arrival.auth.iter().find(is_named);
    let counts = |num: EventNum| standing.num == num || standing.header.auth.contains(&num);
    match named.filter(|event| counts(event.num)) {
        Some(event) if has_told_states(reader, room.num)? => Ok(Some((key, event.num))),
        _ => Ok(None),
    }
}

fn has_told_states(reader: &Reader, room: RoomNum) -> Result<bool, StorageError> {
    let mut has = false;
    reader.scan(&schema::TOLD_STATES, &room, Direction::Forward, |_: (RoomNum, EventNum), ()| {
        has = true;
        false
    })?;
    Ok(has)
}

/// Notes of an event that was taken in whether its state has a membership that does not follow from what it follows.
pub(super) fn note_adopted(tx: &mut Tx, event: &Event, stands_on_adopted: bool) {
    if stands_on_adopted {
        tx.put(&schema::TOLD_STATES, &(event.header.room, event.num), &());
    }
}

/// The event with whose state the one is compared that the events are part of which waited: that before which they were told, or, where
/// a purge has taken that, one of the room's last.
pub(crate) fn compared_with(
    reader: &Reader,
    room: &RoomCtx,
    before: &str,
) -> Result<Option<Arc<str>>, StorageError> {
    if gap::in_graph(reader, room.num, before)?.is_some() {
        return Ok(Some(before.into()));
    }
    Ok(room.head.extremities.first().map(|(_, event_id)| event_id.as_str().into()))
}

/// Keeps an event until the keys of a server are here.
pub(crate) fn keep(tx: &mut Tx, room: RoomNum, server: TextNum, event_id: &str, event: &UncheckedEvent) {
    tx.put(&schema::UNCHECKED_EVENTS, &(room, server, event_id.to_owned()), event);
    if let Some(user_id) = member_of(event) {
        let member = UncheckedMember { server, event_id: event_id.to_owned() };
        tx.put(&schema::UNCHECKED_MEMBERS, &(room, user_id), &member);
    }
}

/// Whether an event waits for the keys of a server.
pub(crate) fn waits(
    reader: &Reader,
    room: RoomNum,
    server: &str,
    event_id: &str,
) -> Result<bool, StorageError> {
    let Some(server) = reader.text_num(server)? else { return Ok(false) };
    reader.has(&schema::UNCHECKED_EVENTS, &(room, server, event_id.to_owned()))
}

/// Whether an event waits for the keys of a server as part of a state; or to allow one, if that is all that is asked for.
pub(crate) fn waits_as(
    reader: &Reader,
    (room, server): (RoomNum, TextNum),
    event_id: &str,
    is_state: bool,
) -> Result<bool, StorageError> {
    let row = reader.get(&schema::UNCHECKED_EVENTS, &(room, server, event_id.to_owned()))?;
    Ok(row.is_some_and(|row| row.is_state || !is_state))
}

/// Whether an event has its place in the room's graph.
pub(crate) fn is_placed(reader: &Reader, room: RoomNum, event_id: &str) -> Result<bool, StorageError> {
    Ok(gap::in_graph(reader, room, event_id)?.is_some())
}

/// Lets an event go. Answers the user of whom it is noted that it tells.
pub(crate) fn let_go(
    tx: &mut Tx,
    room: RoomNum,
    server: TextNum,
    event_id: &str,
    event: &UncheckedEvent,
) -> Result<Option<String>, StorageError> {
    tx.delete(&schema::UNCHECKED_EVENTS, &(room, server, event_id.to_owned()));
    let Some(user_id) = member_of(event) else { return Ok(None) };
    let key = (room, user_id);
    if tx.get(&schema::UNCHECKED_MEMBERS, &key)?.is_none_or(|member| member.event_id != event_id) {
        return Ok(None);
    }
    tx.delete(&schema::UNCHECKED_MEMBERS, &key);
    Ok(Some(key.1))
}

/// Notes of users of whom events that wait have told what others that wait tell. O(events that wait there).
pub(crate) fn note_members(tx: &mut Tx, room: RoomNum, users: &HashSet<String>) -> Result<(), StorageError> {
    if users.is_empty() {
        return Ok(());
    }
    let mut found = Vec::new();
    each(tx, room, |server, event_id, event| {
        let user_id = member_of(&event).filter(|user_id| users.contains(user_id));
        found.extend(user_id.map(|user_id| (user_id, UncheckedMember { server, event_id })));
    })?;
    for (user_id, member) in found {
        tx.put(&schema::UNCHECKED_MEMBERS, &(room, user_id), &member);
    }
    Ok(())
}

/// Visits all that waits in a room: for whose keys, the event's id, and the event. O(that).
fn each(
    reader: &Reader,
    room: RoomNum,
    mut visit: impl FnMut(TextNum, String, UncheckedEvent),
) -> Result<(), StorageError> {
    reader.scan(
        &schema::UNCHECKED_EVENTS,
        &room,
        Direction::Forward,
        |(_, server, event_id): (RoomNum, TextNum, String), row| {
            visit(server, event_id, row);
            true
        },
    )
}

/// What `take` takes of the state that waits in a room, bans among it, as far as its sender has the power for it, or had it by power
/// levels that it names and that are here: nothing can be made up of users who never had any. Whether they did it only their server's keys
/// can tell. O(events that wait there).
pub(crate) fn credible_state<T>(
    reader: &Reader,
    room: &RoomCtx,
    take: impl Fn(&Pdu) -> Option<T>,
) -> Result<Vec<T>, StorageError> {
    let mut told = Vec::new();
    each(reader, room.num, |_, _, event| {
        if event.is_state {
            told.push(event.json);
        }
    })?;
    let mut taken = Vec::new();
    for json in told {
        let Ok(pdu) = Pdu::parse_history(room.version, &json) else { continue };
        let found = take(&pdu).filter(|_| pdu.room_id == room.id);
        if found.is_some() && had_power(reader, room, &pdu)? {
            taken.extend(found);
        }
    }
    Ok(taken)
}

/// Whether the sender of a state event has the power for it by the room's power levels, or by those that the event names.
fn had_power(reader: &Reader, room: &RoomCtx, pdu: &Pdu) -> Result<bool, StorageError> {
    let Some(create) = room.state(reader, "m.room.create", "")? else { return Ok(false) };
    if room.power_levels(reader)?.is_some_and(|levels| has_power(&levels, pdu)) {
        return Ok(true);
    }
    for event_id in &pdu.auth_events {
        let Some(num) = reader.event_num(event_id)? else { continue };
        let named = reader.event(num)?;
        let counts = matches!(named.header.status, EventStatus::Accepted | EventStatus::Outlier);
        if counts
            && named.header.room == room.num
            && named.pdu()?.is_state("m.room.power_levels", "")
            && has_power(&*named.power_levels(&create)?, pdu)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether power levels let the sender of a state event set it. Of memberships, whoever may set another's is high enough to ban.
fn has_power(levels: &PowerLevels, pdu: &Pdu) -> bool {
    let sender = levels.user_level(&pdu.sender);
    match pdu.state_key.as_deref().filter(|_| &*pdu.kind == MEMBER) {
        Some(target) => sender.reaches(levels.level(Field::Ban)) && levels.user_level(target) < sender,
        None => sender.reaches(levels.required(&pdu.kind, true)),
    }
}

/// Lets those events of a room go that were told with a join. What the states before other events went without goes on waiting.
/// O(events that wait there).
pub(crate) fn let_joins_go(tx: &mut Tx, room: RoomNum) -> Result<(), StorageError> {
    let mut joins: HashMap<String, bool> = HashMap::new();
    let_go_where(tx, room, |reader, before| {
        if let Some(is_join) = joins.get(before) {
            return Ok(*is_join);
        }
        let is_join = is_join(reader, room, before)?;
        joins.insert(before.to_owned(), is_join);
        Ok(is_join)
    })
}

/// Lets those events of a room go that were told of the state before an event: of other states, earlier or later, nothing is said anew.
/// O(events that wait there).
pub(crate) fn let_state_go(tx: &mut Tx, room: RoomNum, event_id: &str) -> Result<(), StorageError> {
    let_go_where(tx, room, |_, before| Ok(before == event_id))
}

/// Lets those events of a room go of which this is true, by the event before which they were told.
fn let_go_where(
    tx: &mut Tx,
    room: RoomNum,
    mut is_it: impl FnMut(&Reader, &str) -> Result<bool, StorageError>,
) -> Result<(), StorageError> {
    let (mut users, mut rows) = (HashSet::new(), Vec::new());
    each(tx, room, |server, event_id, row| rows.push((server, event_id, row)))?;
    for (server, event_id, row) in rows {
        if is_it(tx, &row.before)? {
            users.extend(let_go(tx, room, server, &event_id, &row)?);
        }
    }
    note_members(tx, room, &users)
}

/// Whether an event is a join of a user of this server, or is not here: then it was to become one.
fn is_join(reader: &Reader, room: RoomNum, event_id: &str) -> Result<bool, StorageError> {
    let Some(event) = gap::in_graph(reader, room, event_id)? else { return Ok(true) };
    let pdu = event.pdu()?;
    let is_own = pdu.state_key.as_ref().is_some_and(|user_id| members::is_local(reader, user_id));
    Ok(&*pdu.kind == MEMBER && is_own && pdu.membership() == Some(Membership::Join.name()))
}

/// Lets all events of a room go. O(events that wait there).
pub(crate) fn let_all_go(tx: &mut Tx, room: RoomNum) -> Result<(), StorageError> {
    let mut keys = Vec::new();
    tx.scan(&schema::UNCHECKED_EVENTS, &room, Direction::Forward, |key, _| {
        keys.push(key);
        true
    })?;
    let mut users = Vec::new();
    tx.scan(&schema::UNCHECKED_MEMBERS, &room, Direction::Forward, |key, _| {
        users.push(key);
        true
    })?;
    keys.iter().for_each(|key| tx.delete(&schema::UNCHECKED_EVENTS, key));
    users.iter().for_each(|key| tx.delete(&schema::UNCHECKED_MEMBERS, key));
    Ok(())
}

/// What waits in a room.
#[derive(Default)]
pub(crate) struct Waiting {
    /// The events' ids.
    pub ids: HashSet<Arc<str>>,
    /// How many bytes they take.
    pub bytes: usize,
    /// The servers whose keys they wait for.
    pub servers: HashSet<String>,
}

/// What waits in a room. O(events that wait there).
pub(crate) fn waiting(reader: &Reader, room: RoomNum) -> Result<Waiting, StorageError> {
    let mut waiting = Waiting::default();
    let mut servers: HashSet<TextNum> = HashSet::new();
    each(reader, room, |server, event_id, row| {
        waiting.ids.insert(event_id.into());
        waiting.bytes += row.json.len();
        servers.insert(server);
    })?;
    for server in servers {
        waiting.servers.insert(reader.text(server)?.to_string());
    }
    Ok(waiting)
}

/// Whether an event is of the graph, and its sender's server is in the room.
pub(crate) fn is_of_server_in_room(
    reader: &Reader,
    room: RoomNum,
    event_id: &str,
) -> Result<bool, StorageError> {
    let Some(event) = gap::in_graph(reader, room, event_id)? else { return Ok(false) };
    match server_name(&event.pdu()?.sender) {
        Some(server) => reader.is_server_in_room(server, room),
        None => Ok(false),
    }
}

/// For whose keys the events of a room wait, by their ids. O(events that wait there).
pub(crate) fn waited_for(reader: &Reader, room: RoomNum) -> Result<HashMap<Arc<str>, TextNum>, StorageError> {
    let mut servers = HashMap::new();
    each(reader, room, |server, event_id, _| {
        servers.insert(event_id.into(), server);
    })?;
    Ok(servers)
}

/// When the newest of the events came that wait in a room, in milliseconds since the epoch; zero if there is none. O(events that
/// wait there).
pub(crate) fn newest_ms(reader: &Reader, room: RoomNum) -> Result<u64, StorageError> {
    let mut newest_ms = 0;
    each(reader, room, |_, _, row| newest_ms = newest_ms.max(row.since_ms))?;
    Ok(newest_ms)
}
