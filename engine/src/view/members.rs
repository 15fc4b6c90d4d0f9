//! `/members` and `/joined_members`: who is in a room, and whether it is worth while to wait until more is known of that.
//!
//! Specification: client-server API, `GET /rooms/{roomId}/members`, `GET /rooms/{roomId}/joined_members`.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    core::{
        event::ClientFormat,
        identifiers::is_user_id,
        json::{members, write_string},
        num::{EventNum, NodeId, RoomNum, StateKeyId, StreamPos},
    },
    error::{Denied, Result},
    room::{
        Event,
        visibility::{Access, Viewer},
    },
    store::{
        Direction, Reader, StorageError, schema,
        schema::{EventStatus, Membership},
    },
    stream,
    view::{
        StreamToken, View,
        render::Renderer,
        sync::state_at,
        timeline::{self, Stretch},
    },
};

/// The member events of a room.
pub struct Members {
    /// The room's id.
    pub room_id: String,
    /// Who asks.
    pub user: String,
    /// At which point; else now, or when the asker left.
    pub at: Option<StreamToken>,
    /// Only this membership …
    pub membership: Option<Membership>,
    /// … or any but this one.
    pub not_membership: Option<Membership>,
}

impl View for Members {
    /// The response's JSON.
    type Output = Vec<u8>;

    fn read(&self, reader: &Reader) -> Result<Vec<u8>> {
        let (mut viewer, access) = Viewer::enter(reader, &self.room_id, &self.user)?;
        let entries = match self.at {
            None => entries_in(reader, viewer.room, viewer.snapshot(access)?)?,
            Some(at) => {
                let mut pos = at.0.min(access.last(reader));
                if access != Access::Left(pos) {
                    pos = shown_as_of(reader, &mut viewer, pos)?.ok_or(Denied::HiddenState)?;
                }
                entries_at(reader, viewer.room, pos)?
            }
        };
        let nums: Vec<EventNum> = entries.into_iter().map(|(_, num)| num).collect();
        let mut chosen = Vec::new();
        for event in reader.events(&nums)? {
            if self.wants(&event)? {
                chosen.push(event);
            }
        }
        let mut out = Vec::with_capacity(16 + 512 * chosen.len());
        out.extend_from_slice(b"{\"chunk\":[");
        Renderer::with_viewer(reader, viewer.room, ClientFormat::Room, Some(viewer), None)?
            .write_state(&mut out, &chosen)?;
        out.extend_from_slice(b"]}");
        Ok(out)
    }
}

impl Members {
    /// "The two parameters create an 'or' condition".
    fn wants(&self, event: &Event) -> Result<bool, StorageError> {
        if self.membership.is_none() && self.not_membership.is_none() {
            return Ok(true);
        }
        let membership = event.pdu()?.membership().and_then(Membership::from_name);
        let is = self.membership.is_some() && membership == self.membership;
        let is_not = self.not_membership.is_some() && membership != self.not_membership;
        Ok(is || is_not)
    }
}

/// As of which position the viewer is told the memberships as of `pos`, if these are for them: by the room's current state then, or by
/// what it was after the next event, for a sync that begins with how a user came in, or with how what is sent came to be shown,
/// tells what was there before. Who has left may know what they left, but not what came of the room after that by no event.
fn shown_as_of(
    reader: &Reader,
    viewer: &mut Viewer<'_>,
    pos: StreamPos,
) -> Result<Option<StreamPos>, StorageError> {
    let room = viewer.room;
    if is_shown_at(reader, viewer, pos)? {
        return Ok(Some(pos));
    }
    let behind = Stretch { after: pos, up_to: reader.pos, direction: Direction::Forward, limit: 1 };
    if let Some((next, _)) = timeline::rows(reader, room, behind, 1)?.first()
        && is_shown_at(reader, viewer, *next)?
    {
        return Ok(Some(pos));
    }
    let Some(last) = timeline::last_at(reader, room, pos)? else { return Ok(None) };
    let last = reader.event(last)?;
    let before = StreamPos(last.pos().0.saturating_sub(1));
    let is_theirs = viewer.is_own_membership(&last) && is_shown_at(reader, viewer, before)?;
    Ok(is_theirs.then(|| last.pos()))
}

/// Whether the room's current state as of `pos` is for the viewer, by itself.
fn is_shown_at(reader: &Reader, viewer: &mut Viewer<'_>, pos: StreamPos) -> Result<bool, StorageError> {
    let then = state_at(reader, viewer.room, pos)?;
    viewer.may_see_state(pos, then)
}

/// The memberships in a snapshot.
fn entries_in(
    reader: &Reader,
    room: RoomNum,
    snapshot: NodeId,
) -> Result<Vec<(StateKeyId, EventNum)>, StorageError> {
    match reader.text_num("m.room.member")? {
        Some(kind) => reader.state_of_kind(room, snapshot, kind),
        None => Ok(Vec::new()),
    }
}

/// The memberships in a room as of `pos`. Where members were missing then that have become known since, they are among them:
/// the state after the last event has them, and beside it stands what was in the room by way of other events.
fn entries_at(
    reader: &Reader,
    room: RoomNum,
    pos: StreamPos,
) -> Result<Vec<(StateKeyId, EventNum)>, StorageError> {
    let told = entries_in(reader, room, state_at(reader, room, pos)?)?;
    let last = match lacked_members(reader, room, pos)? {
        true => timeline::last_at(reader, room, pos)?,
        false => None,
    };
    let Some(last) = last else { return Ok(told) };
    let whole = entries_in(reader, room, reader.event(last)?.header.state_after)?;
    let mut known: BTreeMap<StateKeyId, EventNum> = whole.into_iter().collect();
    let beside: Vec<(StateKeyId, EventNum)> =
        told.into_iter().filter(|(key, num)| known.get(key) != Some(num)).collect();
    let nums: Vec<EventNum> = beside.iter().map(|(_, num)| *num).collect();
    for ((key, num), event) in beside.into_iter().zip(reader.events(&nums)?) {
        // What was withdrawn does not count, nor does what another server told before it told the whole state.
        if event.header.status == EventStatus::Accepted {
            known.insert(key, num);
        }
    }
    Ok(known.into_iter().collect())
}

/// Whether members of the room were missing at `pos`, and are not now.
pub(super) fn lacked_members(reader: &Reader, room: RoomNum, pos: StreamPos) -> Result<bool, StorageError> {
    let mut lacked = false;
    let (start, end) = ((room, StreamPos(i64::MIN)), (room, StreamPos(pos.0.saturating_add(1))));
    reader.scan_between(
        &schema::PARTIAL_STRETCHES,
        &start,
        &end,
        Direction::Backward,
        |_: (RoomNum, StreamPos), whole_since| {
            lacked = pos < whole_since;
            false
        },
    )?;
    Ok(lacked)
}

/// Whose memberships are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'a> {
    /// Everybody's.
    Everybody,
    /// Everybody's, as of this point.
    EverybodyAt(StreamToken),
    /// That of the user with this id.
    User(&'a str),
}

/// Whether memberships that are asked for are still to come: the room was joined without them, and others are asked for them.
pub struct AwaitedMembers<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// Who asks.
    pub user: &'a str,
    /// Whose memberships.
    pub whose: Whose<'a>,
}

impl View for AwaitedMembers<'_> {
    /// If they are, the position that was looked at: there may be more after news of the asker that come later, or once the
    /// room is whole. `None` if all is known, if nobody asks for the rest, or if the asker has left: then they see no more
    /// than was known.
    ///
    /// Errors: [`Denied::NotInRoom`].
    type Output = Option<StreamPos>;

    fn read(&self, reader: &Reader) -> Result<Option<StreamPos>> {
        let Some(room) = reader.room_num(self.room_id)? else { return Ok(None) };
        let Some(head) = reader.get(&schema::ROOM_HEADS, &room)? else { return Ok(None) };
        let are_missing = match self.whose {
            Whose::Everybody => head.partial_state,
            Whose::EverybodyAt(at) => are_missing_at(reader, room, at.0)?,
            Whose::User(user_id) => {
                head.partial_state
                    && is_user_id(user_id)
                    && reader.state_num(room, head.state, "m.room.member", user_id)?.is_none()
            }
        };
        if !are_missing || !reader.is_server_in_room(&reader.shared.server_name, room)? {
            return Ok(None);
        }
        let (viewer, access) = Viewer::enter(reader, self.room_id, self.user)?;
        if matches!(access, Access::Left(_)) {
            return Ok(None);
        }
        stream::activate(reader, viewer.user)?;
        Ok(Some(reader.pos))
    }
}

/// Whether members of the room as of `pos` are still to come.
fn are_missing_at(reader: &Reader, room: RoomNum, pos: StreamPos) -> Result<bool, StorageError> {
    let last = timeline::last_at(reader, room, pos)?.map(|last| reader.event(last)).transpose()?;
    if last.is_some_and(|last| last.header.partial_state) {
        return Ok(true);
    }
    // What the last event follows may all be of before the join.
    let Some(partial) = reader.get(&schema::PARTIAL_JOINS, &room)? else { return Ok(false) };
    let join = reader.event_num(&partial.event_id)?.map(|join| reader.event(join)).transpose()?;
    Ok(join.is_some_and(|join| join.pos() <= pos))
}

/// The joined members of a room, with the names and pictures that they have there.
pub struct JoinedMembers {
    /// The room's id.
    pub room_id: String,
    /// Who asks.
    pub user: String,
}

impl View for JoinedMembers {
    /// The response's JSON.
    type Output = Vec<u8>;

    fn read(&self, reader: &Reader) -> Result<Vec<u8>> {
        let (viewer, _) = Viewer::enter(reader, &self.room_id, &self.user)?;
        if !viewer.is_joined() {
            return Err(Denied::NotInRoom.into());
        }
        let rows = reader.members(viewer.room, Membership::Join)?;
        let nums: Vec<EventNum> = rows.iter().map(|(_, num)| *num).collect();
        let mut out = Vec::with_capacity(16 + 128 * rows.len());
        out.extend_from_slice(b"{\"joined\":{");
        for (index, ((user, _), event)) in rows.iter().zip(reader.events(&nums)?).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_string(&mut out, &reader.user_id(*user)?);
            out.push(b':');
            write_profile(&mut out, &event);
        }
        out.extend_from_slice(b"}}");
        Ok(out)
    }
}

/// Writes the name and picture that a member event gives, where they are strings.
fn write_profile(out: &mut Vec<u8>, event: &Arc<Event>) {
    let content = members(&event.json).flatten().find(|member| member.key == b"content");
    let content = content.map_or(&b"{}"[..], |member| member.value);
    out.push(b'{');
    let start = out.len();
    for member in members(content).flatten() {
        let name: &[u8] = match member.key {
            b"displayname" => b"\"display_name\":",
            b"avatar_url" => b"\"avatar_url\":",
            _ => continue,
        };
        if member.value.first() != Some(&b'"') {
            continue;
        }
        if out.len() > start {
            out.push(b',');
        }
        out.extend_from_slice(name);
        out.extend_from_slice(member.value);
    }
    out.push(b'}');
}
