//! The members of a room that this server is about to enter: their rows are written with their events, so that to enter a
//! room of a hundred thousand members makes no batch of their size.
//!
//! Invariant: a room that has no head has rows of users of other servers alone, at most one membership of each, as
//! `MEMBERS`, `USER_ROOMS` and `SERVER_USERS` tell alike. Nobody reads them, because there is no room yet, and none may
//! ever come to be. Entering keeps those that the state has and removes the others.

use std::collections::HashMap;

use super::{Event, RoomCtx, members, servers::Tally};
use crate::{
    core::{
        identifiers::server_name,
        num::{EventNum, RoomNum, StateKeyId, StreamPos, TextNum, UserNum},
    },
    error::Result,
    store::{
        Direction, NumberHash, Positioned, Reader, StorageError, Tx, schema,
        schema::{Membership, UserRoom},
    },
};

/// Writes the rows of a member of another server, whose event came before the room is entered.
pub(crate) fn prepare(tx: &mut Tx, room: RoomNum, event: &Event, pos: StreamPos) -> Result<()> {
    let pdu = event.pdu()?;
    let (Some(user_id), Some(membership)) = (pdu.state_key.as_deref(), pdu.membership()) else {
        return Ok(());
    };
    let (Some(membership), Some(server)) = (Membership::from_name(membership), server_name(user_id)) else {
        return Ok(());
    };
    if members::is_local(tx, user_id) {
        return Ok(());
    }
    let user = tx.intern_user(user_id)?;
    // Of several events of one user, which the state has is known when the room is entered.
    if tx.has_of_user(&schema::USER_ROOMS, user, &(user, room))? {
        return Ok(());
    }
    let server = tx.intern_text(server)?;
    tx.put(&schema::MEMBERS, &(room, membership as u8, user), &event.num);
    tx.put(&schema::SERVER_USERS, &(room, server, user), &());
    let row = UserRoom::entered(membership, event.num);
    tx.put(&schema::USER_ROOMS, &(user, room), &Positioned { pos, value: row });
    Ok(())
}

/// Counts the members whose rows are there as the state has them, removes the rows of others, and returns the entries that
/// have none yet. O(members).
pub(super) fn take_over(
    tx: &mut Tx,
    room: &mut RoomCtx,
    entries: impl Iterator<Item = (StateKeyId, EventNum)>,
    tally: &mut Tally,
) -> Result<Vec<(StateKeyId, EventNum)>> {
    let mut prepared = prepared(tx, room.num)?;
    let mut left = Vec::new();
    for (key, num) in entries {
        match prepared.remove(&num) {
            Some(row) => {
                members::count(room, None, Some(row.membership));
                members::show_present(tx, row.user, room.num, row.membership);
                tally.count(row.server, row.membership);
            }
            None => left.push((key, num)),
        }
    }
    for row in prepared.into_values() {
        tx.delete(&schema::MEMBERS, &(room.num, row.membership as u8, row.user));
        tx.delete(&schema::SERVER_USERS, &(room.num, row.server, row.user));
        tx.delete(&schema::USER_ROOMS, &(row.user, room.num));
    }
    Ok(left)
}

/// A member whose rows are there.
struct Prepared {
    user: UserNum,
    server: TextNum,
    membership: Membership,
}

/// All of them, by the membership event; but none of this server, whose users see their rows.
fn prepared(reader: &Reader, room: RoomNum) -> Result<HashMap<EventNum, Prepared, NumberHash>, StorageError> {
    let own = reader.text_num(&reader.shared.server_name)?;
    let mut servers: HashMap<UserNum, TextNum, NumberHash> = HashMap::default();
    reader.scan(&schema::SERVER_USERS, &room, Direction::Forward, |key, ()| {
        let (_, server, user): (RoomNum, TextNum, UserNum) = key;
        if Some(server) != own {
            servers.insert(user, server);
        }
        true
    })?;
    let mut prepared = HashMap::default();
    for membership in Membership::ALL {
        for (user, event) in reader.members(room, membership)? {
            if let Some(server) = servers.get(&user) {
                prepared.insert(event, Prepared { user, server: *server, membership });
            }
        }
    }
    Ok(prepared)
}
