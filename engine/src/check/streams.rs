//! Streams: what users are told at a position agrees with what it is about.

use super::pass::{Pass, Row, readable};
use crate::{
    core::{
        event::Pdu,
        num::{EventNum, RoomNum, StateKeyId, StreamPos, UserNum},
    },
    room::room_version,
    store::{
        Direction, Key, Positioned, StorageError, Value, schema,
        schema::{EventHeader, EventStatus, MemberChange, Membership, Move, UserNews},
    },
};

/// Stands for "no room" in the keys of account data.
const EVERYWHERE: RoomNum = RoomNum(0);

pub(super) fn passes() -> Vec<Pass> {
    vec![
        Pass::over(&schema::ACCOUNT_DATA, |row, (user, room, kind), data| {
            row.expect_user(user)?;
            row.expect_json(&data.value);
            let news = match room {
                EVERYWHERE => UserNews::AccountData(kind),
                room => UserNews::RoomAccountData(room, kind),
            };
            let problem = "the account data is not in the user's stream";
            if row.expect_row(&schema::USER_STREAM, &(user, data.pos), &news, problem)? {
                row.seen.uses_position(data.pos);
            }
            Ok(())
        }),
        Pass::over(&schema::STATUS_MESSAGES, |row, user, _| row.expect_user(user).map(drop)),
        Pass::over(&schema::PRESENT_USERS, |row, user, ()| row.expect_user(user).map(drop)),
        Pass::over(&schema::USER_STREAM, |row, (user, pos), news| user_news(row, user, pos, &news)),
        Pass::over(&schema::MEMBER_STREAM, |row, (room, pos), change| {
            row.expect_user(change.user)?;
            if let Some((is, was)) = change_at(row, room, pos, change.user)? {
                let (agrees, to) = agrees_with(is, was, change.to);
                if !row.expect(agrees, "the membership event says something else") {
                    row.put(&schema::MEMBER_STREAM, &(room, pos), &MemberChange { to, ..change });
                }
            }
            Ok(())
        }),
    ]
}

fn user_news(row: &mut Row<'_>, user: UserNum, pos: StreamPos, news: &UserNews) -> Result<(), StorageError> {
    row.expect_user(user)?;
    let data_pos = |row: &Row<'_>, room, kind: &String| {
        let data = readable(row.reader().get(&schema::ACCOUNT_DATA, &(user, room, kind.clone())));
        data.map(|data| data.map(|data| data.pos))
    };
    let agrees = match news {
        UserNews::Membership(room) => row.room_id(*room)?.is_some(),
        UserNews::AccountData(kind) => data_pos(row, EVERYWHERE, kind)? == Some(pos),
        UserNews::RoomAccountData(room, kind) => data_pos(row, *room, kind)? == Some(pos),
        UserNews::DeviceList(of) | UserNews::DeviceListLeft(of) | UserNews::KeySigned(of) => {
            row.expect_user(*of)?
        }
    };
    if row.expect(agrees, "it tells of what is not there") {
        row.seen.uses_position(pos);
    } else {
        row.delete(&schema::USER_STREAM, &(user, pos));
    }
    Ok(())
}

/// Whether an event that makes `is` of `was` may have been told as a move, and as which it is told if not.
fn agrees_with(is: Option<Membership>, was: Option<Membership>, told: Move) -> (bool, Move) {
    match is {
        Some(Membership::Join) => (told == Move::In, Move::In),
        // Where the graph was forked, an invite may have taken the place of a join which it does not follow.
        Some(Membership::Invite | Membership::Knock) => {
            (told != Move::In, Move::between(was, is).unwrap_or(Move::Asked))
        }
        _ => (told == Move::Out, Move::Out),
    }
}

/// A membership after and before.
type Change = (Option<Membership>, Option<Membership>);

/// What the membership event of `user` that stands at a position changed: the membership after it, and before it.
fn change_at(
    row: &mut Row<'_>,
    room: RoomNum,
    pos: StreamPos,
    user: UserNum,
) -> Result<Option<Change>, StorageError> {
    let Some(num) = readable(row.reader().get(&schema::TIMELINE, &(room, pos)))? else { return Ok(None) };
    let Some((header, pdu)) = read(row, num)? else { return Ok(None) };
    if &*pdu.kind != "m.room.member" {
        return Ok(None);
    }
    let Some(about) = pdu.state_key.as_deref() else { return Ok(None) };
    if row.user_num(about)? != Some(user) {
        return Ok(None);
    }
    change_by(row, &header, &pdu)
}

fn read(row: &Row<'_>, num: EventNum) -> Result<Option<(EventHeader, Pdu)>, StorageError> {
    let (Some(header), Some((id, json))) = (row.header(num)?, row.body(num)?) else { return Ok(None) };
    let pdu = Pdu::from_stored(room_version(header.value.version)?, id, json).ok();
    Ok(pdu.map(|pdu| (header.value, pdu)))
}

/// The membership after and before a membership event; `None` if that cannot be told.
fn change_by(row: &mut Row<'_>, header: &EventHeader, pdu: &Pdu) -> Result<Option<Change>, StorageError> {
    let Some(state_key) = header.state_key else { return Ok(None) };
    if !super::snapshots::is_whole(row, header.room, header.state_before)? {
        return Ok(None);
    }
    let key = StateKeyId::new(header.kind, state_key);
    let before = match row.reader().state_num_at(header.room, header.state_before, key)? {
        None => None,
        Some(before) => match read(row, before)? {
            Some((_, before)) => before.membership().and_then(Membership::from_name),
            None => return Ok(None),
        },
    };
    Ok(Some((pdu.membership().and_then(Membership::from_name), before)))
}

/// Expects what users are told of a membership event that changed a membership where it came.
pub(super) fn expect_of(
    row: &mut Row<'_>,
    header: &Positioned<EventHeader>,
    pdu: &Pdu,
) -> Result<(), StorageError> {
    // Of history that was filled in nobody is told.
    let is_live = header.value.status == EventStatus::Accepted
        && header.pos > StreamPos::ZERO
        && !header.value.is_filled_in;
    // Where the graph is forked, what changed is for state resolution to say.
    let ([_], [prev]) = (pdu.prev_events.as_slice(), header.value.prev.as_slice()) else { return Ok(()) };
    let is_in_line = header.value.room_state == header.value.state_after
        && !header.value.partial_state
        && !header.value.after_gap
        && row.header(*prev)?.is_some_and(|prev| prev.value.room_state == prev.value.state_after);
    if &*pdu.kind != "m.room.member" || !is_live || !is_in_line {
        return Ok(());
    }
    let Some(user) = pdu.state_key.as_deref().map(|about| row.user_num(about)).transpose()?.flatten() else {
        return Ok(());
    };
    let Some((Some(is), was)) = change_by(row, &header.value, pdu)? else { return Ok(()) };
    if was == Some(is) {
        return Ok(());
    }
    let (room, pos) = (header.value.room, header.pos);
    let problem = "the change of membership is not in the user's stream";
    let news = UserNews::Membership(room);
    if !is_told_later(row, &schema::USER_STREAM, user, pos, |later| *later == news)? {
        row.expect_row(&schema::USER_STREAM, &(user, pos), &news, problem)?;
    }
    // That somebody was invited or knocked was not always told.
    let Some(to @ (Move::In | Move::Out)) = Move::between(was, Some(is)) else { return Ok(()) };
    let is_same = |later: &MemberChange| later.user == user && later.to != Move::Asked;
    if !is_told_later(row, &schema::MEMBER_STREAM, room, pos, is_same)? {
        let problem = "the change of membership is not in the room's stream of members";
        let change = MemberChange { user, to };
        row.expect_row(&schema::MEMBER_STREAM, &(room, pos), &change, problem)?;
    }
    Ok(())
}

/// Whether a later entry of the stream is about the same: then pruning may have removed the one at `pos`.
fn is_told_later<O: Copy, V: Value>(
    row: &Row<'_>,
    keyspace: &schema::Keyspace<(O, StreamPos), V>,
    owner: O,
    pos: StreamPos,
    is_same: impl Fn(&V) -> bool,
) -> Result<bool, StorageError>
where
    (O, StreamPos): Key,
{
    let (start, end) = ((owner, StreamPos(pos.0.saturating_add(1))), (owner, StreamPos::MAX));
    let mut found = false;
    row.reader().scan_between(keyspace, &start, &end, Direction::Forward, |_, later| {
        found = is_same(&later);
        !found
    })?;
    Ok(found)
}
