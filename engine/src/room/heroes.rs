//! Whom a room is called after that has no name.
//!
//! Specification: client-server API, "Calculating the display name for a room".

use crate::{
    core::num::{NodeId, RoomNum, UserNum},
    store::{Direction, Reader, StorageError, schema, schema::Membership},
};

/// How many users a room is called after (specification: `m.heroes`).
const HEROES_MAX: usize = 5;

/// Up to five others of the room, joined before invited before gone; `None` when the room has a name of its own.
pub(crate) fn heroes(
    reader: &Reader,
    room: RoomNum,
    current: NodeId,
    except: UserNum,
) -> Result<Option<Vec<UserNum>>, StorageError> {
    for kind in ["m.room.name", "m.room.canonical_alias"] {
        if let Some(event) = reader.state_event(room, current, kind, "")? {
            let key = if kind == "m.room.name" { "name" } else { "alias" };
            if event
                .pdu()?
                .content
                .get(key)
                .and_then(|name| name.as_str())
                .is_some_and(|name| !name.is_empty())
            {
                return Ok(None);
            }
        }
    }
    let mut heroes = first_members(reader, room, except, &[Membership::Join, Membership::Invite])?;
    if heroes.is_empty() {
        heroes = first_members(reader, room, except, &[Membership::Leave, Membership::Ban])?;
    }
    Ok(Some(heroes))
}

fn first_members(
    reader: &Reader,
    room: RoomNum,
    except: UserNum,
    memberships: &[Membership],
) -> Result<Vec<UserNum>, StorageError> {
    let mut users = Vec::new();
    for membership in memberships {
        let prefix = (room, *membership as u8);
        reader.scan(&schema::MEMBERS, &prefix, Direction::Forward, |(_, _, user), _| {
            if user != except {
                users.push(user);
            }
            users.len() < HEROES_MAX
        })?;
    }
    users.truncate(HEROES_MAX);
    Ok(users)
}
