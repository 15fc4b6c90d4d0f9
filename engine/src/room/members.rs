//! Membership rows, both ways: a room's users by membership, a user's rooms. Written with the membership event.

use std::sync::Arc;

use super::{
    Event, RoomCtx, answered, early_receipts, entrants, out_of_band, servers, signed_invites,
    stripped_state::stripped_state,
};
use crate::{
    core::{
        identifiers,
        num::{EventNum, RoomNum, StateKeyId, StreamPos, TextNum, UserNum},
    },
    device::{elsewhere, lists},
    error::Result,
    store::{
        Direction, Positioned, Reader, StorageError, Tx, schema,
        schema::{MemberChange, Membership, Move, UserNews, UserRoom},
    },
    stream::Touch,
};

/// Brings the rows into agreement with a membership event that has become current state.
pub(crate) fn apply(tx: &mut Tx, room: &mut RoomCtx, event: &Arc<Event>, pos: StreamPos) -> Result<()> {
    let pdu = event.pdu()?;
    let (Some(user_id), Some(membership)) =
        (pdu.state_key.as_deref(), pdu.membership().and_then(Membership::from_name))
    else {
        return Ok(());
    };
    let user = tx.intern_user(user_id)?;
    let is_local = is_local(tx, user_id);
    // Each invite or knock shows something else: who invites, why, and what of the room.
    let is_shown = is_local && matches!(membership, Membership::Invite | Membership::Knock);
    if is_shown && answered::keep(tx, room, (user, user_id), event, membership, pos)? {
        return signed_invites::forget(tx, user, room.num, &pdu, false);
    }
    let before = tx.get(&schema::USER_ROOMS, &(user, room.num))?.map(|row| row.value);
    let was = before.as_ref().map(|row| row.membership);
    let counted = out_of_band::settle(tx, user, room.num, was)?;
    if let Some(counted) = counted {
        tx.delete(&schema::MEMBERS, &(room.num, counted as u8, user));
    }
    tx.put(&schema::MEMBERS, &(room.num, membership as u8, user), &event.num);
    count(room, counted, Some(membership));
    servers::count(tx, room, (user, user_id), counted, Some(membership), pos)?;
    let row = UserRoom {
        membership,
        event: event.num,
        // Leaving does not undo forgetting; coming back does.
        forgotten: matches!(membership, Membership::Leave | Membership::Ban)
            && before.as_ref().is_some_and(|row| row.forgotten),
        ever_joined: membership == Membership::Join || before.as_ref().is_some_and(|row| row.ever_joined),
        // Only users of this server ask for it.
        stripped_state: match is_shown {
            true => Some(stripped_state(tx, room, event)?),
            false => None,
        },
    };
    tx.put(&schema::USER_ROOMS, &(user, room.num), &Positioned { pos, value: row });
    // What was answered before the room hears of it is told by the room in its turn.
    let is_answer = counted.is_some_and(|counted| counted != membership);
    if was != Some(membership) || is_shown || is_answer {
        tx.put(&schema::USER_STREAM, &(user, pos), &UserNews::Membership(room.num));
    }
    let joined = membership == Membership::Join;
    let to = moved((was, counted), membership);
    if let Some(to) = to {
        tx.put(&schema::MEMBER_STREAM, &(room.num, pos), &MemberChange { user, to });
    }
    if was != Some(membership) || to.is_some() {
        tx.touch(Touch::Membership { user, room: room.num, joined });
    }
    if was != Some(membership) {
        if was == Some(Membership::Join) {
            early_receipts::forget(tx, room.num, user)?;
        }
        if joined && is_local && (room.head.other_servers > 0 || room.head.partial_state) {
            let servers = met_in(tx, room.num)?;
            lists::came_into_room(tx, user, room.num, servers)?;
        }
    } else if !is_local && before.is_some_and(|before| may_have_been_out(&before, event)) {
        came_back_unseen(tx, room.num, user, pos)?;
    }
    tx.touch(Touch::User(user));
    if is_local {
        let was_joined = counted == Some(Membership::Join);
        signed_invites::forget(tx, user, room.num, &pdu, was_joined)?;
        if was_joined && membership != Membership::Join {
            signed_invites::show_if_left(tx, room)?;
        }
    }
    Ok(())
}

/// What a membership is to the others in the room, of a user who `was` shown another one, or of whom the room's rows `counted` another:
/// an invite may have been shown before the room tells of it.
fn moved((was, counted): (Option<Membership>, Option<Membership>), is: Membership) -> Option<Move> {
    let news = Move::between(counted, Some(is)).filter(|to| *to == Move::Asked);
    Move::between(was, Some(is)).or(news)
}

/// The other servers that a user of this one meets who has come into the room. Which of them may be there, while members are not
/// known, is stored once this server has come in: as its first user does, what is stored of that is of an earlier stay.
fn met_in(reader: &Reader, room: RoomNum) -> Result<Vec<TextNum>, StorageError> {
    let own = reader.text_num(&reader.shared.server_name)?;
    let joined = own.map(|own| reader.get(&schema::ROOM_SERVERS, &(room, own))).transpose()?.flatten();
    match joined.unwrap_or_default() {
        0 | 1 => reader.counted_servers(room),
        _ => reader.counted_or_supposed_servers(room),
    }
}

/// Whether who was in the room by `before`, and is by the event that takes its place, may have been out of it in between: a join
/// of who is in the room names what they are in it by as what allows it.
///
/// Specification: server-server API, "Auth events selection".
fn may_have_been_out(before: &UserRoom, event: &Event) -> bool {
    before.membership == Membership::Join
        && before.event != event.num
        && !event.header.auth.contains(&before.event)
}

/// A user of another server is in the room again, or has only changed how they are shown several times, of which not all is here. If
/// they were out, nobody told of their devices meanwhile: their list is asked for anew, and clients are told of them as of
/// whoever comes in. In another room that they share with this server the same may have been missed.
fn came_back_unseen(tx: &mut Tx, room: RoomNum, user: UserNum, pos: StreamPos) -> Result<(), StorageError> {
    elsewhere::make_stale(tx, user)?;
    tx.put(&schema::MEMBER_STREAM, &(room, pos), &MemberChange { user, to: Move::In });
    tx.touch(Touch::Membership { user, room, joined: true });
    Ok(())
}

/// Whether the user is one of this server.
pub(crate) fn is_local(reader: &Reader, user_id: &str) -> bool {
    identifiers::server_name(user_id) == Some(&*reader.shared.server_name)
}

/// Brings the rows of a room that is entered into agreement with its state, `entries`: those of the members that were not
/// prepared are written. Users of this server see their membership as it stands; they are told by what follows. O(members).
pub(crate) fn fill(tx: &mut Tx, room: &mut RoomCtx, entries: &[(StateKeyId, EventNum)]) -> Result<()> {
    let Some(kind) = tx.text_num("m.room.member")? else { return Ok(()) };
    let pos = tx.next_position();
    let mut servers = servers::Tally::default();
    let members = entries.iter().copied().filter(|(key, _)| key.kind() == kind);
    let left = entrants::take_over(tx, room, members, &mut servers)?;
    for (key, num) in left {
        let user_id = tx.text(key.state_key())?;
        let event = tx.event(num)?;
        if is_local(tx, &user_id) {
            // The room's stream of members has one entry at each position.
            let own = tx.next_position();
            apply(tx, room, &event, own)?;
            continue;
        }
        let Some(membership) = event.pdu()?.membership().and_then(Membership::from_name) else { continue };
        let user = tx.intern_user(&user_id)?;
        tx.put(&schema::MEMBERS, &(room.num, membership as u8, user), &num);
        count(room, None, Some(membership));
        servers.add(tx, room.num, (user, &user_id), membership)?;
        show_present(tx, user, room.num, membership);
        let row = UserRoom::entered(membership, num);
        tx.put(&schema::USER_ROOMS, &(user, room.num), &Positioned { pos, value: row });
    }
    Ok(servers.write(tx, room, pos)?)
}

/// Lets who enters a room see those who are known to be there from other rooms.
pub(super) fn show_present(tx: &Tx, user: UserNum, room: RoomNum, membership: Membership) {
    if membership == Membership::Join {
        tx.shared.watch.list(user, room);
    }
}

/// Ends the membership of a user whose membership event is no longer part of the current state, since `pos`.
pub(crate) fn remove(tx: &mut Tx, room: &mut RoomCtx, state_key: TextNum, pos: StreamPos) -> Result<()> {
    let user_id = tx.text(state_key)?;
    let user = tx.intern_user(&user_id)?;
    let Some(before) = tx.get(&schema::USER_ROOMS, &(user, room.num))? else { return Ok(()) };
    let was = before.value.membership;
    let counted = out_of_band::settle(tx, user, room.num, Some(was))?;
    if let Some(counted) = counted {
        tx.delete(&schema::MEMBERS, &(room.num, counted as u8, user));
    }
    count(room, counted, None);
    servers::count(tx, room, (user, &user_id), counted, None, pos)?;
    let row = UserRoom { membership: Membership::Leave, stripped_state: None, ..before.value };
    tx.put(&schema::USER_ROOMS, &(user, room.num), &Positioned { pos, value: row });
    tx.put(&schema::USER_STREAM, &(user, pos), &UserNews::Membership(room.num));
    if was == Membership::Join {
        tx.put(&schema::MEMBER_STREAM, &(room.num, pos), &MemberChange { user, to: Move::Out });
        early_receipts::forget(tx, room.num, user)?;
    }
    tx.touch(Touch::Membership { user, room: room.num, joined: false });
    tx.touch(Touch::User(user));
    if counted == Some(Membership::Join) && is_local(tx, &user_id) {
        signed_invites::show_if_left(tx, room)?;
    }
    Ok(())
}

pub(super) fn count(room: &mut RoomCtx, was: Option<Membership>, is: Option<Membership>) {
    let counted = |membership: Option<Membership>, which| u64::from(membership == Some(which));
    let head = &mut room.head;
    head.joined = head.joined.saturating_sub(counted(was, Membership::Join)) + counted(is, Membership::Join);
    head.invited =
        head.invited.saturating_sub(counted(was, Membership::Invite)) + counted(is, Membership::Invite);
}

impl Reader {
    /// The room as this user sees it, if they ever had to do with it.
    pub fn user_room(
        &self,
        user: UserNum,
        room: RoomNum,
    ) -> Result<Option<Positioned<UserRoom>>, StorageError> {
        self.get(&schema::USER_ROOMS, &(user, room))
    }

    /// The user's membership now.
    pub fn membership(&self, user: UserNum, room: RoomNum) -> Result<Option<Membership>, StorageError> {
        Ok(self.user_room(user, room)?.map(|row| row.value.membership))
    }

    /// All rooms the user has to do with. O(rooms).
    pub fn user_rooms(&self, user: UserNum) -> Result<Vec<(RoomNum, Positioned<UserRoom>)>, StorageError> {
        let mut rooms = Vec::new();
        self.scan(&schema::USER_ROOMS, &user, Direction::Forward, |(_, room), row| {
            rooms.push((room, row));
            true
        })?;
        Ok(rooms)
    }

    /// The rooms the user is joined to. O(rooms).
    pub fn joined_rooms(&self, user: UserNum) -> Result<Vec<RoomNum>, StorageError> {
        let rooms = self.user_rooms(user)?;
        let joined = rooms.into_iter().filter(|(_, row)| row.value.membership == Membership::Join);
        Ok(joined.map(|(room, _)| room).collect())
    }

    /// The room's users with this membership, and their membership events. O(result).
    pub fn members(
        &self,
        room: RoomNum,
        membership: Membership,
    ) -> Result<Vec<(UserNum, EventNum)>, StorageError> {
        let mut users = Vec::new();
        self.scan(&schema::MEMBERS, &(room, membership as u8), Direction::Forward, |(_, _, user), event| {
            users.push((user, event));
            true
        })?;
        Ok(users)
    }
}
