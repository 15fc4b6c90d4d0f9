//! Device lists: who has to be told that a user's devices or keys changed, and whom a user follows no longer.
//!
//! Invariant: a change is a row in the news of each local user who shares a room with the changed user at that moment,
//! and of the user. Who comes to share a room later learns of it from `MEMBER_STREAM`, read at sync: joining and leaving
//! write one row, however many members a room has. So does an invite or a knock: who is in the room may encrypt for its user, too.
//! Specification: "Tracking the device list for a user" and the end-to-end encryption extensions to `/sync`.

use std::collections::{BTreeSet, HashSet};

use super::device_keys;
use crate::{
    core::{
        identifiers,
        num::{RoomNum, StreamPos, TextNum, UserNum},
    },
    error::Result,
    outbox,
    room::servers,
    store::{
        Direction, Reader, StorageError, Tx, schema,
        schema::{MemberChange, Membership, Move, OutgoingEdu, UserNews},
    },
    stream::Touch,
};

/// For up to so many servers each is asked of whether it is in a room, which is less than all that are in a usual room.
const STRANGERS_ASKED_OF_MAX: usize = 10;

/// What changed of a user of this server, for other servers to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListChange {
    /// A device, its keys, its name, or signatures on its keys.
    Device(TextNum),
    /// The cross-signing keys.
    SigningKeys,
}

/// Tells all who follow `user`, one of this server, that their devices or keys changed. O(members of the user's rooms).
pub fn changed(tx: &mut Tx, user: UserNum, changes: impl IntoIterator<Item = ListChange>) -> Result<()> {
    let rooms = tx.joined_rooms(user)?;
    let mut told = local_peers(tx, &rooms)?;
    told.insert(user);
    tell(tx, user, told);
    let servers = other_servers(tx, &rooms)?;
    for change in changes {
        let edu = match change {
            ListChange::Device(device) => OutgoingEdu::DeviceList(user, device),
            ListChange::SigningKeys => OutgoingEdu::SigningKeys(user),
        };
        outbox::send_device_change(tx, user, &edu, servers.iter().copied())?;
    }
    Ok(())
}

/// Tells the other servers in the rooms of `user`, one of this server, of a device without keys: that it is new, is called
/// otherwise, or is gone. Costs no position where there are none. O(the user's rooms).
///
/// Specification: server-server API, "Device Management".
pub fn changed_without_keys(tx: &mut Tx, user: UserNum, device: TextNum) -> Result<()> {
    let rooms = tx.joined_rooms(user)?;
    let servers = other_servers(tx, &rooms)?;
    if servers.is_empty() {
        return Ok(());
    }
    Ok(outbox::send_device_change(tx, user, &OutgoingEdu::DeviceList(user, device), servers)?)
}

/// A user of this server comes into a room that `servers` are in: those who share no other room with the user learn that
/// there are devices. They have missed all changes of them so far, and one notice makes them ask for all; so one is sent,
/// however many devices there are. O(the user's rooms) for a few servers, else O(servers of the user's rooms).
///
/// Specification: server-server API, "Device Management".
pub fn came_into_room(
    tx: &mut Tx,
    user: UserNum,
    room: RoomNum,
    servers: impl IntoIterator<Item = TextNum>,
) -> Result<()> {
    let mut strangers: BTreeSet<TextNum> = servers.into_iter().collect();
    if strangers.is_empty() {
        return Ok(());
    }
    let Some(device) = a_device(tx, user)? else { return Ok(()) };
    for other in tx.joined_rooms(user)?.into_iter().filter(|other| *other != room) {
        if strangers.len() <= STRANGERS_ASKED_OF_MAX {
            let mut left = BTreeSet::new();
            for server in strangers {
                if !servers::is_in_or_supposed(tx, server, other)? {
                    left.insert(server);
                }
            }
            strangers = left;
        } else {
            for server in tx.other_servers(other)? {
                strangers.remove(&server);
            }
        }
        if strangers.is_empty() {
            return Ok(());
        }
    }
    Ok(outbox::send_device_list(tx, user, device, strangers)?)
}

/// A device of a user of this server, one with keys if there is such a one.
fn a_device(tx: &mut Tx, user: UserNum) -> Result<Option<TextNum>> {
    if let Some((device, _)) = device_keys::all(tx, user)?.into_iter().next() {
        return Ok(Some(device));
    }
    let mut first = None;
    tx.scan(&schema::DEVICES, &user, Direction::Forward, |(_, device_id): (UserNum, String), _| {
        first = Some(device_id);
        false
    })?;
    Ok(first.map(|device_id| tx.intern_text(&device_id)).transpose()?)
}

/// Tells the users of this server who follow `user`, one of another server, that their devices or keys changed. Answers how many
/// these are.
pub fn changed_elsewhere(tx: &mut Tx, user: UserNum) -> Result<usize> {
    let rooms = tx.joined_rooms(user)?;
    let told = local_peers(tx, &rooms)?;
    let count = told.len();
    tell(tx, user, told);
    Ok(count)
}

fn tell(tx: &mut Tx, user: UserNum, told: BTreeSet<UserNum>) {
    let pos = tx.next_position();
    for peer in told {
        tx.put(&schema::USER_STREAM, &(peer, pos), &UserNews::DeviceList(user));
        tx.touch(Touch::User(peer));
    }
}

/// Tells only `user`, who has signed a key of `of`, that what they see of their keys changed.
pub fn changed_for(tx: &mut Tx, user: UserNum, of: UserNum) {
    let pos = tx.next_position();
    tx.put(&schema::USER_STREAM, &(user, pos), &UserNews::KeySigned(of));
    tx.touch(Touch::User(user));
}

/// The users of this server who are in one of the rooms.
fn local_peers(reader: &Reader, rooms: &[RoomNum]) -> Result<BTreeSet<UserNum>> {
    let mut peers = BTreeSet::new();
    for room in rooms {
        peers.extend(reader.members(*room, Membership::Join)?.into_iter().map(|(member, _)| member));
    }
    let mut local = BTreeSet::new();
    for peer in peers {
        if identifiers::server_name(&reader.user_id(peer)?) == Some(&*reader.shared.server_name) {
            local.insert(peer);
        }
    }
    Ok(local)
}

/// The other servers that are in one of the rooms.
fn other_servers(reader: &Reader, rooms: &[RoomNum]) -> Result<BTreeSet<TextNum>> {
    let mut servers = BTreeSet::new();
    for room in rooms {
        servers.extend(reader.other_servers(*room)?);
    }
    Ok(servers)
}

/// The rooms in which something that concerns device lists may have happened between two positions.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoomChanges<'a> {
    /// Rooms that the user came into, be it again.
    pub joined: &'a [RoomNum],
    /// Rooms that the user was in and went out of.
    pub left: &'a [RoomNum],
    /// Rooms that the user was in all the time and that have news.
    pub with_news: &'a [RoomNum],
}

/// What `/sync` calls `device_lists`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceLists {
    /// Users whose devices or keys changed, or who share a room with the user from now on, or are invited into one or knock.
    pub changed: BTreeSet<UserNum>,
    /// Users who share no room with the user any more.
    pub left: BTreeSet<UserNum>,
}

/// What happened to the lists that `user` follows after `from`, up to and with `to`.
///
/// Cost: the user's news and the membership changes in between, the members of rooms joined or left, and who is invited into
/// those joined, and where a user may have gone out of sight, the rooms of both.
pub fn between(
    reader: &Reader,
    user: UserNum,
    from: StreamPos,
    to: StreamPos,
    rooms: RoomChanges<'_>,
) -> Result<DeviceLists> {
    let (start, end) = (StreamPos(from.0.saturating_add(1)), StreamPos(to.0.saturating_add(1)));
    let OwnNews { mut changed, signed, mut gone, has_moved } = own_news(reader, user, start, end)?;
    let own_change = changed.contains(&user);
    // They were told of while they shared a room with the user, which they do no longer if the user has gone out of it. Where
    // the others have, it is seen below.
    let told = if has_moved { changed.clone() } else { BTreeSet::new() };
    let mut asked = BTreeSet::new();
    for room in rooms.with_news.iter().chain(rooms.joined).chain(rooms.left) {
        for change in moves(reader, *room, start, end)? {
            match change.to {
                Move::In => drop(changed.insert(change.user)),
                Move::Out => drop(gone.insert(change.user)),
                Move::Asked => drop(asked.insert((*room, change.user))),
            }
        }
    }
    let mut asked = still_asked(reader, asked, rooms.left)?;
    for room in rooms.joined {
        changed.extend(with_membership(reader, *room, Membership::Join)?);
        asked.extend(with_membership(reader, *room, Membership::Invite)?);
        asked.extend(with_membership(reader, *room, Membership::Knock)?);
    }
    for room in rooms.left {
        gone.extend(with_membership(reader, *room, Membership::Join)?);
    }
    // The user's own joining and leaving is no change of their devices.
    gone.remove(&user);
    asked.remove(&user);
    if !own_change {
        changed.remove(&user);
    }
    // Somebody who came into a room that the user went out of is followed only if they share another one.
    let doubtful: BTreeSet<UserNum> =
        gone.union(if rooms.left.is_empty() { &told } else { &changed }).copied().collect();
    let mut left = out_of_sight(reader, user, doubtful)?;
    changed.retain(|other| !left.contains(other));
    left.retain(|other| gone.contains(other) && !asked.contains(other));
    // Neither need share a room with the user.
    changed.extend(asked);
    changed.extend(signed);
    Ok(DeviceLists { changed, left })
}

/// What the user's own entries tell of lists.
#[derive(Default)]
struct OwnNews {
    /// Whose devices or keys changed while they shared a room with the user.
    changed: BTreeSet<UserNum>,
    /// Of whom the user has signed a key.
    signed: BTreeSet<UserNum>,
    /// Who shares no room with the user any more.
    gone: BTreeSet<UserNum>,
    /// Whether a membership of the user changed.
    has_moved: bool,
}

/// The user's own entries from `start` up to `end`.
fn own_news(
    reader: &Reader,
    user: UserNum,
    start: StreamPos,
    end: StreamPos,
) -> Result<OwnNews, StorageError> {
    let mut found = OwnNews::default();
    let (start, end) = ((user, start), (user, end));
    reader.scan_between(&schema::USER_STREAM, &start, &end, Direction::Forward, |(_, _), news| {
        match news {
            UserNews::DeviceList(other) => drop(found.changed.insert(other)),
            UserNews::KeySigned(other) => drop(found.signed.insert(other)),
            UserNews::DeviceListLeft(other) => drop(found.gone.insert(other)),
            UserNews::Membership(_) => found.has_moved = true,
            UserNews::AccountData(_) | UserNews::RoomAccountData(..) => {}
        }
        true
    })?;
    Ok(found)
}

/// What others did in a room, or was done to them, from `start` up to `end`.
fn moves(
    reader: &Reader,
    room: RoomNum,
    start: StreamPos,
    end: StreamPos,
) -> Result<Vec<MemberChange>, StorageError> {
    let mut found = Vec::new();
    let (start, end) = ((room, start), (room, end));
    reader.scan_between(&schema::MEMBER_STREAM, &start, &end, Direction::Forward, |(_, _), change| {
        found.push(change);
        true
    })?;
    Ok(found)
}

/// Those who were asked into rooms or have asked, and neither came in nor were turned away since, without those of rooms that are
/// `left`.
fn still_asked(
    reader: &Reader,
    asked: BTreeSet<(RoomNum, UserNum)>,
    left: &[RoomNum],
) -> Result<BTreeSet<UserNum>, StorageError> {
    let mut still = BTreeSet::new();
    for (room, other) in asked {
        let is = reader.membership(other, room)?;
        if matches!(is, Some(Membership::Invite | Membership::Knock)) && !left.contains(&room) {
            still.insert(other);
        }
    }
    Ok(still)
}

fn with_membership(
    reader: &Reader,
    room: RoomNum,
    membership: Membership,
) -> Result<impl Iterator<Item = UserNum>, StorageError> {
    Ok(reader.members(room, membership)?.into_iter().map(|(member, _)| member))
}

/// Those of `others` who share no room with `user` now.
fn out_of_sight(reader: &Reader, user: UserNum, mut others: BTreeSet<UserNum>) -> Result<BTreeSet<UserNum>> {
    others.remove(&user);
    if others.is_empty() {
        return Ok(others);
    }
    let rooms: HashSet<RoomNum> = reader.joined_rooms(user)?.into_iter().collect();
    let mut unseen = BTreeSet::new();
    for other in others {
        let mut shares = false;
        reader.scan(&schema::USER_ROOMS, &other, Direction::Forward, |(_, room), row| {
            shares = row.value.membership == Membership::Join && rooms.contains(&room);
            !shares
        })?;
        if !shares {
            unseen.insert(other);
        }
    }
    Ok(unseen)
}

/// What is told to who comes with a position of a database that was lost: what changed since cannot be said, so that all whom
/// `user` may encrypt for are asked for anew. O(members of the user's rooms).
pub fn all(reader: &Reader, user: UserNum) -> Result<DeviceLists> {
    let mut changed = BTreeSet::from([user]);
    for room in reader.joined_rooms(user)? {
        for membership in [Membership::Join, Membership::Invite, Membership::Knock] {
            changed.extend(reader.members(room, membership)?.into_iter().map(|(member, _)| member));
        }
    }
    Ok(DeviceLists { changed, left: BTreeSet::new() })
}
