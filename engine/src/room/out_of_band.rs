//! Memberships of local users in rooms that this server is not in, or in which it has not heard of them: invites and knocks, and what ends
//! them.
//!
//! Invariant: such a membership is in `USER_ROOMS`, where clients are told of it as of any other, and in `OUT_OF_BAND`; the
//! room's own rows stay as its state has them. When the state says something of the user, that counts again (`settle`).

use std::sync::Arc;

use serde_json::Value;

use super::{RoomCtx, ignored, purge::remove_account_data, room_version, version_index};
use crate::{
    core::{
        event::{ClientFormat, EventError, JsonObject, Pdu, StoredEvent, is_stripped, write_client_event},
        json::{
            splice::{item, member, string_member},
            write_object,
        },
        num::{EventNum, RoomNum, UserNum},
        version::RoomVersion,
    },
    error::{Denied, Error, Invalid, Result, What},
    store::{
        Direction, Positioned, Reader, StorageError, Tx, schema,
        schema::{Membership, OutOfBand, UserNews, UserRoom},
    },
    stream::Touch,
};

/// How many events of a room's state another server may show with an invite: some seven are usual.
const ROOM_STATE_EVENTS_MAX: usize = 50;

/// What is kept of them, in bytes: many times what names, topics and pictures need. Together with the membership event of
/// at most 64 KiB it fits into one row of every store. What does not fit is left out.
const STRIPPED_STATE_BYTES_MAX: usize = 24 << 10;

/// Membership events up to this size, in bytes, are kept and shown as they are: with a name, a picture and a reason they have a
/// kilobyte. Of a larger one what clients show of it is kept.
const EVENT_BYTES_MAX: usize = 8 << 10;

/// What clients show of a membership event, and how large a part may be that is left of a large one, in bytes of JSON.
const SHOWN_PARTS: [&str; 5] = ["membership", "displayname", "avatar_url", "is_direct", "reason"];
const SHOWN_PART_BYTES_MAX: usize = 1 << 10;

/// What is kept of a large membership event. None but the content may have more than 255 bytes.
const KEPT_MEMBERS: [&str; 7] =
    ["content", "depth", "origin_server_ts", "room_id", "sender", "state_key", "type"];

/// Of how many forgotten rooms a user's answer is kept that nobody has heard, some kilobyte each: as many as one server may have
/// invites wait. Of more the room may ask anew.
pub(crate) const FORGOTTEN_ANSWERS_MAX: usize = 100;

/// How many invites from one server to rooms that this one is not in may wait for a user's answer: more than anybody looks
/// through. Each takes some kilobytes, here and in the user's first sync. Those of whom the user ignores are not counted: they are
/// not shown, so that nobody would ever answer them.
pub(crate) const OPEN_INVITES_MAX: usize = 100;

/// How many of them may be by the same user: a community's rooms at once. One user of a large server is not to keep all others from
/// inviting, and of one who is ignored no more is kept.
pub(crate) const OPEN_INVITES_OF_SENDER_MAX: usize = 20;

/// What is learnt of a local user's membership.
pub(crate) struct Notice<'a> {
    pub version: &'static RoomVersion,
    pub pdu: &'a Pdu,
    pub membership: Membership,
    /// A JSON array of what the user may know of the room.
    pub stripped_state: Option<Vec<u8>>,
    /// The servers that may help to answer it.
    pub servers: Vec<String>,
}

/// Whether this server takes part in the room, so that the room itself tells who is in it.
pub(crate) fn takes_part(reader: &Reader, room_id: &str) -> Result<bool, StorageError> {
    match RoomCtx::find(reader, room_id)? {
        Some(room) => reader.is_server_in_room(&reader.shared.server_name, room.num),
        None => Ok(false),
    }
}

/// Notes a membership, and tells the user.
pub(crate) fn note(tx: &mut Tx, user: UserNum, room: RoomNum, notice: Notice<'_>) -> Result<()> {
    let before = tx.user_room(user, room)?.map(|row| row.value);
    let earlier = tx.get(&schema::OUT_OF_BAND, &(user, room))?;
    let in_room = match earlier {
        Some(earlier) => earlier.in_room,
        None => before.as_ref().map(|row| row.membership),
    };
    let row = OutOfBand {
        in_room,
        event_id: notice.pdu.event_id.to_string(),
        version: version_index(notice.version),
        json: kept_json(notice.pdu)?,
        servers: notice.servers,
    };
    tx.put(&schema::OUT_OF_BAND, &(user, room), &row);
    let row = UserRoom {
        membership: notice.membership,
        // The room's own event of the user, which tells how long they were there; there may be none.
        event: before.as_ref().map_or(EventNum(0), |row| row.event),
        forgotten: false,
        ever_joined: before.is_some_and(|row| row.ever_joined),
        stripped_state: notice.stripped_state,
    };
    let pos = tx.next_position();
    tx.put(&schema::USER_ROOMS, &(user, room), &Positioned { pos, value: row });
    tx.put(&schema::USER_STREAM, &(user, pos), &UserNews::Membership(room));
    tx.touch(Touch::User(user));
    Ok(())
}

/// Removes what is kept of a user's membership in a room that this server never was in, and what they set for it. Answers
/// whether nothing is left: an answer that nobody has heard yet is, for the room may still tell of what it answers.
pub(crate) fn forget(tx: &mut Tx, user: UserNum, room: RoomNum) -> Result<bool, StorageError> {
    let Some(known) = tx.out_of_band(user, room)?.filter(|known| known.in_room.is_none()) else {
        return Ok(false);
    };
    if tx.has(&schema::ROOM_HEADS, &room)? {
        return Ok(false);
    }
    remove_account_data(tx, room, user)?;
    if is_unheard(&known)? && !has_all_forgotten_answers(tx, user, room)? {
        return Ok(false);
    }
    tx.delete(&schema::OUT_OF_BAND, &(user, room));
    tx.delete(&schema::USER_ROOMS, &(user, room));
    Ok(true)
}

/// Whether a row keeps the user's own answer to what they were shown, which no server was there to take: it follows that alone, and
/// nothing else allows it.
fn is_unheard(row: &OutOfBand) -> Result<bool, StorageError> {
    let version = room_version(row.version)?;
    let kept = Pdu::from_stored(version, row.event_id.as_str().into(), row.json.clone().into()).ok();
    Ok(kept.is_some_and(|pdu| {
        pdu.membership() == Some(Membership::Leave.name())
            && pdu.state_key.as_deref() == Some(&*pdu.sender)
            && pdu.prev_events.len() == 1
            && pdu.prev_events == pdu.auth_events
    }))
}

/// Whether an answer is kept of as many other rooms that this server never was in as may be, though the user has forgotten them. What
/// other servers said of the user is looked at until that is known.
fn has_all_forgotten_answers(tx: &Tx, user: UserNum, room: RoomNum) -> Result<bool, StorageError> {
    let (mut count, mut from) = (0, RoomNum(0));
    let end = UserNum(user.0.saturating_add(1));
    loop {
        let mut rooms = Vec::new();
        tx.scan_between(
            &schema::OUT_OF_BAND,
            &(user, from),
            &end,
            Direction::Forward,
            |(_, other): (UserNum, RoomNum), row| {
                from = RoomNum(other.0.saturating_add(1));
                if row.in_room.is_none() && other != room {
                    rooms.push(other);
                }
                rooms.len() < FORGOTTEN_ANSWERS_MAX
            },
        )?;
        for other in &rooms {
            count += usize::from(tx.user_room(user, *other)?.is_some_and(|row| row.value.forgotten));
        }
        if count >= FORGOTTEN_ANSWERS_MAX || rooms.len() < FORGOTTEN_ANSWERS_MAX {
            return Ok(count >= FORGOTTEN_ANSWERS_MAX);
        }
    }
}

/// The event as it is kept, beside its id. What is left of a large one is bounded, whatever its server put where redaction would leave
/// it, and does not have that id any more: it is given to no other server.
fn kept_json(pdu: &Pdu) -> Result<Vec<u8>> {
    if pdu.json.len() <= EVENT_BYTES_MAX {
        return Ok(pdu.json.to_vec());
    }
    let mut kept = shown_parts(pdu)?;
    kept.retain(|name, _| KEPT_MEMBERS.contains(&name.as_str()));
    for name in ["auth_events", "prev_events"] {
        kept.insert(name.to_owned(), Value::Array(Vec::new()));
    }
    let mut out = Vec::new();
    write_object(&mut out, &kept);
    Ok(out)
}

fn object_of(pdu: &Pdu) -> Result<JsonObject> {
    let invalid = |error: serde_json::Error| Invalid::Parameter { what: "event", why: error.to_string() };
    Ok(serde_json::from_slice(&pdu.json).map_err(invalid)?)
}

/// Lets the room's state count again for a user, of whom it says something new. Returns what the room's rows say until now;
/// `shown` is what the user was shown.
pub(super) fn settle(
    tx: &mut Tx,
    user: UserNum,
    room: RoomNum,
    shown: Option<Membership>,
) -> Result<Option<Membership>, StorageError> {
    let Some(row) = tx.get(&schema::OUT_OF_BAND, &(user, room))? else { return Ok(shown) };
    tx.delete(&schema::OUT_OF_BAND, &(user, room));
    Ok(row.in_room)
}

/// The stripped state that is shown with an invite or a knock, as a JSON array: what another server tells of the room, and
/// the membership event itself.
///
/// Errors: [`Invalid::Event`]. Specification: server-server API, "Inviting to a room"; client-server API, "Stripped state".
pub(crate) fn stripped_state(own: &Pdu, room_state: &[JsonObject]) -> Result<Vec<u8>> {
    let mut out = vec![b'['];
    for event in room_state.iter().take(ROOM_STATE_EVENTS_MAX) {
        let start = out.len();
        let is_own = event.get("type").and_then(Value::as_str) == Some("m.room.member")
            && event.get("state_key").and_then(Value::as_str) == own.state_key.as_deref();
        if !is_own {
            write_stripped(&mut out, event);
        }
        if out.len() > STRIPPED_STATE_BYTES_MAX {
            out.truncate(start);
        }
    }
    if own.json.len() > EVENT_BYTES_MAX {
        write_stripped(&mut out, &shown_parts(own)?);
    } else {
        item(&mut out);
        write_client_event(&mut out, StoredEvent::from(own), ClientFormat::Stripped, None)
            .map_err(EventError::from)
            .map_err(Invalid::Event)?;
    }
    out.push(b']');
    Ok(out)
}

/// A large membership event without what clients do not show.
fn shown_parts(own: &Pdu) -> Result<JsonObject> {
    let mut event = object_of(own)?;
    if let Some(Value::Object(content)) = event.get_mut("content") {
        content.retain(|name, value| {
            SHOWN_PARTS.contains(&name.as_str()) && value.to_string().len() <= SHOWN_PART_BYTES_MAX
        });
    }
    Ok(event)
}

/// Appends one event of the array, if it is one.
fn write_stripped(out: &mut Vec<u8>, event: &JsonObject) {
    let text = |name: &str| event.get(name).and_then(Value::as_str);
    let content = event.get("content").and_then(Value::as_object);
    let (Some(content), Some(sender), Some(state_key), Some(kind)) =
        (content, text("sender"), text("state_key"), text("type"))
    else {
        return;
    };
    item(out);
    out.push(b'{');
    member(out, "content");
    write_object(out, content);
    string_member(out, "sender", sender);
    string_member(out, "state_key", state_key);
    string_member(out, "type", kind);
    out.push(b'}');
}

/// Those of the entries that are events of the room, where the version wants nothing else; the others may be stripped.
/// Specification: server-server API, `send_knock`: what is improperly formatted is removed.
pub(crate) fn well_formed(
    version: &RoomVersion,
    room_id: &str,
    room_state: Vec<JsonObject>,
) -> Vec<JsonObject> {
    if !version.room_id_is_create_hash {
        return room_state;
    }
    let is_of_room = |event: &JsonObject| {
        Pdu::from_object(version, event.clone()).is_ok_and(|pdu| *pdu.room_id == *room_id)
    };
    room_state.into_iter().take(ROOM_STATE_EVENTS_MAX).filter(is_of_room).collect()
}

/// In rooms whose id is the hash of their create event, what comes with an invite must tell of that. Whole events must be the
/// room's; stripped ones are shown for what they are worth, as in other rooms: most servers send no others yet.
///
/// Errors: [`Invalid::Parameter`].
pub(crate) fn check_room_state(
    version: &RoomVersion,
    room_id: &str,
    room_state: &[JsonObject],
) -> Result<()> {
    if !version.room_id_is_create_hash {
        return Ok(());
    }
    let invalid = |why: &str| Invalid::Parameter { what: "room_state", why: why.to_owned() };
    let mut has_create = false;
    for event in room_state.iter().take(ROOM_STATE_EVENTS_MAX) {
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        has_create |= text("type") == Some("m.room.create") && text("state_key") == Some("");
        if is_stripped(event) {
            continue;
        }
        let pdu = Pdu::from_object(version, event.clone())
            .map_err(|error| invalid(&format!("an entry is not an event of the room's version: {error}")))?;
        if *pdu.room_id != *room_id {
            return Err(invalid("an entry is of another room").into());
        }
    }
    if has_create { Ok(()) } else { Err(invalid("the m.room.create event is missing").into()) }
}

/// The leave or ban that a row keeps, if it answers this event. Of a large one it is not known what it answers.
pub(super) fn leave_of(row: &OutOfBand, event_id: &str) -> Result<Option<Pdu>, StorageError> {
    let version = room_version(row.version)?;
    let kept = Pdu::from_stored(version, row.event_id.as_str().into(), row.json.clone().into()).ok();
    let answers = |pdu: &Pdu| {
        let is_out = matches!(pdu.membership(), Some("leave" | "ban"));
        is_out && pdu.auth_events.iter().any(|named| **named == *event_id)
    };
    Ok(kept.filter(answers))
}

/// Who made a membership what it is: the sender of its event. Nobody if that cannot be read.
pub(crate) fn sender_of(row: &OutOfBand) -> Option<Arc<str>> {
    let event: Value = serde_json::from_slice(&row.json).unwrap_or_default();
    event.get("sender").and_then(Value::as_str).map(Arc::from)
}

/// Refuses one invite more of a server's user than may wait for the user's answer, beside that to the same room. O(the user's rooms).
///
/// Errors: [`Denied::TooManyInvites`].
pub(crate) fn check_open_invites(
    reader: &Reader,
    (user, room): (UserNum, RoomNum),
    (server, sender): (&str, &str),
) -> Result<()> {
    let ignored = ignored::by(reader, user)?;
    let (mut shown, mut of_sender) = (0, 0);
    for (other, row) in reader.user_rooms(user)? {
        if other == room || row.value.membership != Membership::Invite {
            continue;
        }
        let open = reader.out_of_band(user, other)?;
        let Some(open) = open.filter(|open| open.servers.iter().any(|helper| helper == server)) else {
            continue;
        };
        let inviter = sender_of(&open);
        let inviter = inviter.as_deref().unwrap_or_default();
        of_sender += usize::from(inviter == sender);
        shown += usize::from(!ignored.contains_id(reader, inviter)?);
    }
    let is_shown = !ignored.contains_id(reader, sender)?;
    if of_sender >= OPEN_INVITES_OF_SENDER_MAX || (is_shown && shown >= OPEN_INVITES_MAX) {
        return Err(Denied::TooManyInvites.into());
    }
    Ok(())
}

impl Reader {
    /// What another server says of the user's membership, if that is what counts.
    pub(crate) fn out_of_band(
        &self,
        user: UserNum,
        room: RoomNum,
    ) -> Result<Option<OutOfBand>, StorageError> {
        self.get(&schema::OUT_OF_BAND, &(user, room))
    }

    /// The user's membership as the room's own rows have it, whatever another server says.
    pub(crate) fn membership_in_room(
        &self,
        user: UserNum,
        room: RoomNum,
    ) -> Result<Option<Membership>, StorageError> {
        match self.out_of_band(user, room)? {
            Some(row) => Ok(row.in_room),
            None => self.membership(user, room),
        }
    }

    /// The same as [`Reader::out_of_band`] by ids, for a membership that the user can answer.
    ///
    /// Errors: [`What::Room`] not found when there is none.
    pub(crate) fn open_out_of_band(
        &self,
        user_id: &str,
        room_id: &str,
    ) -> Result<(UserNum, RoomNum, Membership, OutOfBand)> {
        let not_found = || Error::NotFound(What::Room);
        let (user, room, shown) = self.open_membership(user_id, room_id)?;
        let row = self.out_of_band(user, room)?.ok_or_else(not_found)?;
        Ok((user, room, shown.membership, row))
    }

    /// The same for one that another server can end: also one that came with the room's own events, while this server was in it.
    ///
    /// Errors: [`What::Room`] not found when there is none.
    pub(crate) fn endable_out_of_band(
        &self,
        user_id: &str,
        room_id: &str,
    ) -> Result<(UserNum, RoomNum, OutOfBand)> {
        let not_found = || Error::NotFound(What::Room);
        let (user, room, shown) = self.open_membership(user_id, room_id)?;
        let row = match self.out_of_band(user, room)? {
            Some(row) => row,
            None => self.left_open(room_id, &shown)?.ok_or_else(not_found)?,
        };
        Ok((user, room, row))
    }

    /// An invite or a knock as the user is shown it.
    fn open_membership(&self, user_id: &str, room_id: &str) -> Result<(UserNum, RoomNum, UserRoom)> {
        let not_found = || Error::NotFound(What::Room);
        let user = self.user_num(user_id)?.ok_or_else(not_found)?;
        let room = self.room_num(room_id)?.ok_or_else(not_found)?;
        let shown = self.user_room(user, room)?.ok_or_else(not_found)?.value;
        match shown.membership {
            Membership::Invite | Membership::Knock => Ok((user, room, shown)),
            Membership::Join | Membership::Leave | Membership::Ban => Err(not_found()),
        }
    }

    /// A membership that the room's own rows tell of, as if another server had, if this one is in the room no longer: others do not
    /// send it the room's events any more, but still what is about its users.
    fn left_open(&self, room_id: &str, shown: &UserRoom) -> Result<Option<OutOfBand>> {
        let Some(room) = RoomCtx::find(self, room_id)? else { return Ok(None) };
        if self.is_server_in_room(&self.shared.server_name, room.num)? {
            return Ok(None);
        }
        let event = self.event(shown.event)?;
        Ok(Some(OutOfBand {
            in_room: Some(shown.membership),
            event_id: event.event_id.to_string(),
            version: event.header.version,
            json: event.json.to_vec(),
            servers: Vec::new(),
        }))
    }

    /// Who made the user's membership what they are shown: the sender of its event. Nobody if that event cannot be read.
    pub(crate) fn membership_sender(
        &self,
        user: UserNum,
        room: RoomNum,
    ) -> Result<Option<Arc<str>>, StorageError> {
        if let Some(row) = self.out_of_band(user, room)? {
            return Ok(sender_of(&row));
        }
        let Some(row) = self.user_room(user, room)? else { return Ok(None) };
        Ok(Some(self.user_id(self.event(row.value.event)?.header.sender)?))
    }
}
