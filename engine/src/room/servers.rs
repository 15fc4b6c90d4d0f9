//! The servers in a room, counted with every change of a membership, and whether one of them may take part.
//!
//! Invariant: a server is listed exactly while a user of it is joined in the room's current state.
//! Not here: what of the history a server may see (`peer`).

use std::{collections::HashMap, sync::Arc};

use super::RoomCtx;
use crate::{
    core::{
        acl::ServerAcl,
        identifiers::server_name,
        num::{RoomNum, TextNum, UserNum},
    },
    error::{Denied, Result},
    store::{Direction, Reader, StorageError, Tx, schema, schema::Membership},
};

/// Counts a user whose membership becomes `is`.
pub(crate) fn count(
    tx: &mut Tx,
    room: RoomNum,
    (user, user_id): (UserNum, &str),
    was: Option<Membership>,
    is: Option<Membership>,
) -> Result<(), StorageError> {
    // Identifiers are checked at the door: a state key that is no user id belongs to no server.
    let Some(server) = server_name(user_id) else { return Ok(()) };
    let server = tx.intern_text(server)?;
    if !tx.has(&schema::SERVER_USERS, &(room, server, user))? {
        tx.put(&schema::SERVER_USERS, &(room, server, user), &());
    }
    let (was, is) = (was == Some(Membership::Join), is == Some(Membership::Join));
    if was == is {
        return Ok(());
    }
    let joined = tx.get(&schema::ROOM_SERVERS, &(room, server))?.unwrap_or_default();
    match if is { joined + 1 } else { joined.saturating_sub(1) } {
        0 => tx.delete(&schema::ROOM_SERVERS, &(room, server)),
        joined => tx.put(&schema::ROOM_SERVERS, &(room, server), &joined),
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
        if membership == Membership::Join {
            *self.0.entry(server).or_default() += 1;
        }
        Ok(())
    }

    /// Writes the sums.
    pub fn write(self, tx: &mut Tx, room: RoomNum) -> Result<(), StorageError> {
        for (server, joined) in self.0 {
            let before = tx.get(&schema::ROOM_SERVERS, &(room, server))?.unwrap_or_default();
            tx.put(&schema::ROOM_SERVERS, &(room, server), &(before + joined));
        }
        Ok(())
    }
}

/// Whether the room's access list lets `server` take part.
///
/// Errors: [`Denied::ServerAcl`]. Specification: server-server API, "Server Access Control Lists (ACLs)".
pub(crate) fn server_allowed(reader: &Reader, room: &RoomCtx, server: &str) -> Result<()> {
    let Some(event) = room.state(reader, "m.room.server_acl", "")? else { return Ok(()) };
    match ServerAcl::from_content(&event.pdu()?.content).allows(server) {
        true => Ok(()),
        false => Err(Denied::ServerAcl.into()),
    }
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
