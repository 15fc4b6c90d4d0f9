//! Device lists: who has to be told that a user's devices or keys changed, and whom a user follows no longer.
//!
//! Invariant: a change is a row in the news of each local user who shares a room with the changed user at that moment,
//! and of the user. Who comes to share a room later learns of it from `MEMBER_STREAM`, read at sync: joining and leaving
//! write one row, however many members a room has.
//! Specification: "Tracking the device list for a user" and the end-to-end encryption extensions to `/sync`.

use std::collections::{BTreeSet, HashSet};

use crate::{
    core::{
        identifiers,
        num::{RoomNum, StreamPos, UserNum},
    },
    error::Result,
    store::{
        Direction, Reader, Tx, schema,
        schema::{Membership, UserNews},
    },
    stream::Touch,
};

/// Tells all who follow `user` that their devices or keys changed. O(members of the user's rooms).
pub fn changed(tx: &mut Tx, user: UserNum) -> Result<()> {
    let mut told = local_peers(tx, user)?;
    told.insert(user);
    let pos = tx.next_position();
    for peer in told {
        tx.put(&schema::USER_STREAM, &(peer, pos), &UserNews::DeviceList(user));
        tx.touch(Touch::User(peer));
    }
    Ok(())
}

/// Tells only `user` that what they see of the keys of `of` changed.
pub fn changed_for(tx: &mut Tx, user: UserNum, of: UserNum) {
    let pos = tx.next_position();
    tx.put(&schema::USER_STREAM, &(user, pos), &UserNews::DeviceList(of));
    tx.touch(Touch::User(user));
}

/// The users of this server who share a room with `user`.
fn local_peers(reader: &Reader, user: UserNum) -> Result<BTreeSet<UserNum>> {
    let mut peers = BTreeSet::new();
    for room in reader.joined_rooms(user)? {
        peers.extend(reader.members(room, Membership::Join)?.into_iter().map(|(member, _)| member));
    }
    let mut local = BTreeSet::new();
    for peer in peers {
        if identifiers::server_name(&reader.user_id(peer)?) == Some(&*reader.shared.server_name) {
            local.insert(peer);
        }
    }
    Ok(local)
}

/// The rooms in which something that concerns device lists may have happened between two positions.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoomChanges<'a> {
    /// Rooms that the user came into.
    pub joined: &'a [RoomNum],
    /// Rooms that the user went out of.
    pub left: &'a [RoomNum],
    /// Rooms that the user was in all the time and that have news.
    pub with_news: &'a [RoomNum],
}

/// What `/sync` calls `device_lists`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceLists {
    /// Users whose devices or keys changed, or who share a room with the user from now on.
    pub changed: BTreeSet<UserNum>,
    /// Users who share no room with the user any more.
    pub left: BTreeSet<UserNum>,
}

/// What happened to the lists that `user` follows after `from`, up to and with `to`.
///
/// Cost: the user's news and the membership changes in between, the members of rooms joined or left, and for each user
/// who may have gone out of sight their rooms.
pub fn between(
    reader: &Reader,
    user: UserNum,
    from: StreamPos,
    to: StreamPos,
    rooms: RoomChanges<'_>,
) -> Result<DeviceLists> {
    let mut changed = BTreeSet::new();
    let mut gone = BTreeSet::new();
    let (start, end) = (StreamPos(from.0.saturating_add(1)), StreamPos(to.0.saturating_add(1)));
    reader.scan_between(
        &schema::USER_STREAM,
        &(user, start),
        &(user, end),
        Direction::Forward,
        |(_, _), news| {
            match news {
                UserNews::DeviceList(other) => drop(changed.insert(other)),
                UserNews::DeviceListLeft(other) => drop(gone.insert(other)),
                _ => {}
            }
            true
        },
    )?;
    let own_change = changed.contains(&user);
    for room in rooms.with_news.iter().chain(rooms.joined).chain(rooms.left) {
        let (start, end) = ((*room, start), (*room, end));
        reader.scan_between(&schema::MEMBER_STREAM, &start, &end, Direction::Forward, |(_, _), change| {
            if change.joined {
                changed.insert(change.user)
            } else {
                gone.insert(change.user)
            };
            true
        })?;
    }
    for room in rooms.joined {
        changed.extend(reader.members(*room, Membership::Join)?.into_iter().map(|(member, _)| member));
    }
    for room in rooms.left {
        gone.extend(reader.members(*room, Membership::Join)?.into_iter().map(|(member, _)| member));
    }
    // The user's own joining and leaving is no change of their devices.
    gone.remove(&user);
    if !own_change {
        changed.remove(&user);
    }
    // Somebody who came into a room that the user went out of is followed only if they share another one.
    let doubtful: BTreeSet<UserNum> =
        if rooms.left.is_empty() { gone.clone() } else { gone.union(&changed).copied().collect() };
    let left = out_of_sight(reader, user, doubtful)?;
    changed.retain(|other| !left.contains(other));
    Ok(DeviceLists { changed, left: left.intersection(&gone).copied().collect() })
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
