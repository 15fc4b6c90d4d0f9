//! The servers in a room, counted with every change of a membership, and whether one of them may take part.
//!
//! Invariant: a server is listed exactly while a user of it is joined in the room's current state; while another server
//! is, it has a stay that is open, and the room's head counts it.
//! Not here: what of the history a server may see (`peer`).

use std::{collections::HashMap, sync::Arc};

use super::{Event, RoomCtx};
use crate::{
    core::{
        acl::ServerAcl,
        identifiers::{is_server_name, server_name},
        num::{EventNum, NodeId, RoomNum, StreamPos, TextNum, UserNum},
    },
    device::elsewhere,
    error::{Denied, Result},
    store::{Cache, Direction, Reader, StorageError, Tx, schema, schema::Membership},
    stream::{Outgoing, Touch},
};

/// The type of the state event that is a room's access list.
pub(crate) const KIND_OF_ACCESS_LISTS: &str = "m.room.server_acl";

/// Counts a user whose membership becomes `is` at `pos`.
pub(crate) fn count(
    tx: &mut Tx,
    room: &mut RoomCtx,
    (user, user_id): (UserNum, &str),
    was: Option<Membership>,
    is: Option<Membership>,
    pos: StreamPos,
) -> Result<(), StorageError> {
    // Identifiers are checked at the door: a state key that is no user id belongs to no server.
    let Some(name) = server_name(user_id) else { return Ok(()) };
    let server = tx.intern_text(name)?;
    if !tx.has(&schema::SERVER_USERS, &(room.num, server, user))? {
        tx.put(&schema::SERVER_USERS, &(room.num, server, user), &());
    }
    let (was, is) = (was == Some(Membership::Join), is == Some(Membership::Join));
    if was == is {
        return Ok(());
    }
    let before = tx.get(&schema::ROOM_SERVERS, &(room.num, server))?.unwrap_or_default();
    let is_other = *name != *tx.shared.server_name;
    if is_other && !is {
        stop_following(tx, user, room.num)?;
    }
    match if is { before + 1 } else { before.saturating_sub(1) } {
        0 => {
            tx.delete(&schema::ROOM_SERVERS, &(room.num, server));
            match (is_other, before > 0) {
                (_, false) => {}
                (true, true) => leaves(tx, room, server, pos)?,
                (false, true) => stop_following_all(tx, room.num)?,
            }
        }
        joined => {
            tx.put(&schema::ROOM_SERVERS, &(room.num, server), &joined);
            if is_other && before == 0 && comes(tx, room, server, pos)? {
                tx.touch(Touch::Outgoing(Outgoing::Came { server, room: room.num }));
            }
        }
    }
    Ok(())
}

/// A user of another server goes out of the room: nobody tells of changes of their devices any more, if it was the last.
fn stop_following(tx: &mut Tx, user: UserNum, room: RoomNum) -> Result<(), StorageError> {
    if tx.has(&schema::REMOTE_DEVICE_LISTS, &user)? && !tx.is_neighbour(user, Some(room))? {
        elsewhere::make_stale(tx, user)?;
    }
    Ok(())
}

/// The last user of this server goes out of the room, and with them all others. O(members): it happens once in a stay.
fn stop_following_all(tx: &mut Tx, room: RoomNum) -> Result<(), StorageError> {
    for (user, _) in tx.members(room, Membership::Join)? {
        stop_following(tx, user, room)?;
    }
    Ok(())
}

/// Another server is in the room from `pos` on, if it was not supposed to be before. Answers whether it was not.
fn comes(tx: &mut Tx, room: &mut RoomCtx, server: TextNum, pos: StreamPos) -> Result<bool, StorageError> {
    room.head.other_servers += 1;
    let is_new = open_stay(tx, room.num, server)?.is_none();
    if is_new {
        tx.put(&schema::SERVER_STAYS, &(server, room.num, pos), &StreamPos::MAX);
    }
    Ok(is_new)
}

/// No user of another server is known to be in the room any more, since `pos`.
fn leaves(tx: &mut Tx, room: &mut RoomCtx, server: TextNum, pos: StreamPos) -> Result<(), StorageError> {
    room.head.other_servers = room.head.other_servers.saturating_sub(1);
    if tx.is_supposed(server, room.num)? {
        return Ok(());
    }
    end_stay(tx, room.num, server, pos)
}

fn end_stay(tx: &mut Tx, room: RoomNum, server: TextNum, pos: StreamPos) -> Result<(), StorageError> {
    if let Some(start) = open_stay(tx, room, server)? {
        tx.put(&schema::SERVER_STAYS, &(server, room, start), &pos);
        // It is no longer found by the room, and what made it leave is the last that it is told.
        tx.touch(Touch::Outgoing(Outgoing::Left { server, room }));
    }
    Ok(())
}

/// Since when the server is in the room, if it is. A stay that has ended may have begun since. O(stays that are kept).
fn open_stay(reader: &Reader, room: RoomNum, server: TextNum) -> Result<Option<StreamPos>, StorageError> {
    let mut open = None;
    reader.scan(
        &schema::SERVER_STAYS,
        &(server, room),
        Direction::Backward,
        |(_, _, start): (TextNum, RoomNum, StreamPos), end| {
            open = (end == StreamPos::MAX).then_some(start);
            open.is_none()
        },
    )?;
    Ok(open)
}

/// When the last stay of another server in the room ended, as far as that is kept. Where one of its users was only turned away, it
/// had none for longer than that event. O(stays that are kept).
pub(super) fn last_end(
    reader: &Reader,
    room: RoomNum,
    server: &str,
) -> Result<Option<StreamPos>, StorageError> {
    let Some(server) = reader.text_num(server)? else { return Ok(None) };
    let last = find_end(reader, (room, server), |_| true)?;
    Ok(last.filter(|end| *end < StreamPos::MAX))
}

/// When the stay of another server in the room ended that was before the present one, as far as that is kept. O(stays that are kept).
pub(crate) fn end_of_stay_before(
    reader: &Reader,
    room: RoomNum,
    server: TextNum,
) -> Result<Option<StreamPos>, StorageError> {
    find_end(reader, (room, server), |end| end < StreamPos::MAX)
}

/// Where the last stay of some length ends whose end is such a one.
fn find_end(
    reader: &Reader,
    (room, server): (RoomNum, TextNum),
    is_such: impl Fn(StreamPos) -> bool,
) -> Result<Option<StreamPos>, StorageError> {
    let mut found = None;
    reader.scan(
        &schema::SERVER_STAYS,
        &(server, room),
        Direction::Backward,
        |(_, _, start): (TextNum, RoomNum, StreamPos), end| {
            found = (start < end && is_such(end)).then_some(end);
            found.is_none()
        },
    )?;
    Ok(found)
}

/// Whether the server is in the room, as far as its members are known, or may be.
pub(crate) fn is_in_or_supposed(
    reader: &Reader,
    server: TextNum,
    room: RoomNum,
) -> Result<bool, StorageError> {
    Ok(reader.has(&schema::ROOM_SERVERS, &(room, server))? || reader.is_supposed(server, room)?)
}

/// Lets other servers be in a room of which the members are not known yet: from now on they are sent what is said there.
pub(crate) fn suppose(tx: &mut Tx, room: RoomNum, servers: &[String]) -> Result<(), StorageError> {
    let pos = tx.next_position();
    for name in servers.iter().filter(|name| is_server_name(name)) {
        if **name == *tx.shared.server_name {
            continue;
        }
        let server = tx.intern_text(name)?;
        if open_stay(tx, room, server)?.is_none() {
            tx.put(&schema::SERVER_STAYS, &(server, room, pos), &StreamPos::MAX);
        }
    }
    Ok(())
}

/// Servers that were supposed to be in the room and have no member there are not: `pos` is the last that they are told.
pub(crate) fn settle_supposed(
    tx: &mut Tx,
    room: RoomNum,
    servers: &[String],
    pos: StreamPos,
) -> Result<(), StorageError> {
    for name in servers {
        let Some(server) = tx.text_num(name)? else { continue };
        if !tx.has(&schema::ROOM_SERVERS, &(room, server))? {
            end_stay(tx, room, server, pos)?;
        }
    }
    Ok(())
}

/// The users of a room that is entered, counted all at once.
#[derive(Default)]
pub(crate) struct Tally(HashMap<TextNum, u64>);

impl Tally {
    /// Counts a user who had no membership in the room's rows.
    pub fn add(
        &mut self,
        tx: &mut Tx,
        room: RoomNum,
        (user, user_id): (UserNum, &str),
        membership: Membership,
    ) -> Result<(), StorageError> {
        let Some(server) = server_name(user_id) else { return Ok(()) };
        let server = tx.intern_text(server)?;
        tx.put(&schema::SERVER_USERS, &(room, server, user), &());
        self.count(server, membership);
        Ok(())
    }

    /// Counts a user of the server whose row is there.
    pub fn count(&mut self, server: TextNum, membership: Membership) {
        if membership == Membership::Join {
            *self.0.entry(server).or_default() += 1;
        }
    }

    /// Writes the sums; all of them are in the room from `pos` on.
    pub fn write(self, tx: &mut Tx, room: &mut RoomCtx, pos: StreamPos) -> Result<(), StorageError> {
        let own = tx.text_num(&tx.shared.server_name)?;
        for (server, joined) in self.0 {
            let before = tx.get(&schema::ROOM_SERVERS, &(room.num, server))?.unwrap_or_default();
            tx.put(&schema::ROOM_SERVERS, &(room.num, server), &(before + joined));
            if before == 0 && Some(server) != own {
                // Of this server's users only who enters is there, of whom it is told by that.
                comes(tx, room, server, pos)?;
            }
        }
        Ok(())
    }
}

/// What is remembered of access lists: whether the one of an event, whose JSON is so long, lets a server take part. An event that is
/// written anew because it is redacted is shorter, unless it says the same still.
pub(crate) type AccessDecisions = Cache<(EventNum, u64, TextNum), bool>;

/// What one of these weighs.
const DECISION_WEIGHT: usize = 100;

/// Whether the room's access list lets `server` take part. A list may be as long as an event, and is asked for each part of a
/// transaction: what it says of a server is remembered.
///
/// Errors: [`Denied::ServerAcl`]. Specification: server-server API, "Server Access Control Lists (ACLs)".
pub(crate) fn server_allowed(reader: &Reader, room: &RoomCtx, server: &str) -> Result<()> {
    let Some(event) = room.state(reader, KIND_OF_ACCESS_LISTS, "")? else { return Ok(()) };
    let decisions = &reader.shared.access_decisions;
    // Who has no number is in no room with this server, as a rule, and asks for little.
    let server_num = reader.text_num(server)?;
    let key = server_num.map(|server_num| (event.num, event.json.len() as u64, server_num));
    let known = key.and_then(|key| decisions.get(&key));
    let is_allowed = match &known {
        Some(known) => **known,
        None => list_of(&event)?.allows(server),
    };
    if let (Some(key), None) = (key, known) {
        decisions.insert(key, Arc::new(is_allowed), DECISION_WEIGHT);
    }
    if is_allowed { Ok(()) } else { Err(Denied::ServerAcl.into()) }
}

/// The room's access list, if it has one. It may be as long as an event, and is read anew each time.
pub(crate) fn access_list(reader: &Reader, room: &RoomCtx) -> Result<Option<ServerAcl>> {
    room.state(reader, KIND_OF_ACCESS_LISTS, "")?.map(|event| list_of(&event)).transpose()
}

/// Whether the room's access list lets this server take part, and another one did not that it takes the place of: the room's when
/// `before` was its state, or the one that it followed itself. A user of this server may have changed the list meanwhile, which the
/// others did not take.
pub(super) fn is_let_in_again(reader: &Reader, room: &RoomCtx, before: NodeId) -> Result<bool> {
    if room.head.state == before {
        return Ok(false);
    }
    let list = |state: NodeId| reader.state_event(room.num, state, KIND_OF_ACCESS_LISTS, "");
    let (was, is) = (list(before)?, list(room.head.state)?);
    if was.as_ref().map(|event| event.num) == is.as_ref().map(|event| event.num)
        || shuts_out(reader, is.as_deref())?
    {
        return Ok(false);
    }
    let followed = match &is {
        Some(event) => list(event.header.state_before)?,
        None => None,
    };
    Ok(shuts_out(reader, was.as_deref())? || shuts_out(reader, followed.as_deref())?)
}

/// Whether the room's access list keeps this server from taking part.
pub(super) fn is_shut_out(reader: &Reader, room: &RoomCtx) -> Result<bool> {
    shuts_out(reader, room.state(reader, KIND_OF_ACCESS_LISTS, "")?.as_deref())
}

/// Whether an access list, if there is one, shuts this server out.
fn shuts_out(reader: &Reader, list: Option<&Event>) -> Result<bool> {
    match list {
        Some(event) => Ok(!list_of(event)?.allows(&reader.shared.server_name)),
        None => Ok(false),
    }
}

fn list_of(event: &Event) -> Result<ServerAcl> {
    Ok(ServerAcl::from_content(&event.pdu()?.content))
}

impl Reader {
    /// The servers with joined members, and how many each has that are known. O(servers).
    pub fn servers_in_room(&self, room: RoomNum) -> Result<Vec<(Arc<str>, u64)>, StorageError> {
        let mut rows = Vec::new();
        self.scan(
            &schema::ROOM_SERVERS,
            &room,
            Direction::Forward,
            |(_, server): (RoomNum, TextNum), joined| {
                rows.push((server, joined));
                true
            },
        )?;
        let mut servers: Vec<(Arc<str>, u64)> = Vec::with_capacity(rows.len());
        for (server, joined) in rows {
            servers.push((self.text(server)?, joined));
        }
        // While members are not known, their servers are: of each at least one user is there.
        let partial = self.get(&schema::PARTIAL_JOINS, &room)?;
        for server in partial.into_iter().flat_map(|partial| partial.servers) {
            if servers.iter().all(|(known, _)| **known != *server) {
                servers.push((server.into(), 1));
            }
        }
        Ok(servers)
    }

    /// Whether a user of the server is joined. O(1).
    pub fn is_server_in_room(&self, server: &str, room: RoomNum) -> Result<bool, StorageError> {
        match self.text_num(server)? {
            Some(server) => self.has(&schema::ROOM_SERVERS, &(room, server)),
            None => Ok(false),
        }
    }

    /// Whether the user is in a room that this server is in, beside `apart`. O(rooms).
    pub(crate) fn is_neighbour(&self, user: UserNum, apart: Option<RoomNum>) -> Result<bool, StorageError> {
        for room in self.joined_rooms(user)? {
            if Some(room) != apart && self.is_server_in_room(&self.shared.server_name, room)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a user of the server has, or had, a membership in the room. O(1).
    pub fn has_user_of(&self, server: &str, room: RoomNum) -> Result<bool, StorageError> {
        let Some(server) = self.text_num(server)? else { return Ok(false) };
        let mut has = false;
        self.scan(
            &schema::SERVER_USERS,
            &(room, server),
            Direction::Forward,
            |_: (RoomNum, TextNum, UserNum), ()| {
                has = true;
                false
            },
        )?;
        Ok(has)
    }

    /// Whether the server is said to be in a room whose members are not known yet.
    pub(crate) fn is_supposed(&self, server: TextNum, room: RoomNum) -> Result<bool, StorageError> {
        let Some(partial) = self.get(&schema::PARTIAL_JOINS, &room)? else { return Ok(false) };
        let name = self.text(server)?;
        Ok(partial.servers.iter().any(|supposed| **supposed == *name))
    }

    /// The other servers of which users are known to be in the room. O(servers).
    pub(crate) fn counted_servers(&self, room: RoomNum) -> Result<Vec<TextNum>, StorageError> {
        let mut servers = Vec::new();
        let own = self.text_num(&self.shared.server_name)?;
        self.scan(&schema::ROOM_SERVERS, &room, Direction::Forward, |(_, server): (RoomNum, TextNum), _| {
            if Some(server) != own {
                servers.push(server);
            }
            true
        })?;
        Ok(servers)
    }

    /// The other servers in the room, by their numbers; read only where the room's head says that there are some. O(servers).
    pub(crate) fn other_servers(&self, room: RoomNum) -> Result<Vec<TextNum>, StorageError> {
        match self.count_other_servers(room)? {
            0 => Ok(Vec::new()),
            _ => self.counted_or_supposed_servers(room),
        }
    }

    /// The same for who knows better than the room's head, which may be about to change, that there may be some. O(servers).
    pub(crate) fn counted_or_supposed_servers(&self, room: RoomNum) -> Result<Vec<TextNum>, StorageError> {
        let own = self.text_num(&self.shared.server_name)?;
        let mut servers = self.counted_servers(room)?;
        let partial = self.get(&schema::PARTIAL_JOINS, &room)?;
        for name in partial.into_iter().flat_map(|partial| partial.servers) {
            if let Some(server) = self.text_num(&name)?
                && Some(server) != own
                && !servers.contains(&server)
            {
                servers.push(server);
            }
        }
        Ok(servers)
    }

    /// How many other servers are in the room, at least: whose members are not known has one.
    pub(crate) fn count_other_servers(&self, room: RoomNum) -> Result<u64, StorageError> {
        let head = self.get(&schema::ROOM_HEADS, &room)?;
        Ok(head.map_or(0, |head| head.other_servers.max(u64::from(head.partial_state))))
    }

    /// The server's users who have, or had, a membership in the room. O(result).
    pub(crate) fn users_of_server(&self, server: &str, room: RoomNum) -> Result<Vec<UserNum>, StorageError> {
        let mut users = Vec::new();
        let Some(server) = self.text_num(server)? else { return Ok(users) };
        self.scan(&schema::SERVER_USERS, &(room, server), Direction::Forward, |(_, _, user), ()| {
            users.push(user);
            true
        })?;
        Ok(users)
    }
}
