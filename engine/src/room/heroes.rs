//! Whom a room is called after that has no name.
//!
//! Specification: client-server API, "Calculating the display name for a room".

use crate::{
    core::num::{EventNum, NodeId, RoomNum, UserNum},
    store::{Direction, Reader, StorageError, schema, schema::Membership},
};

/// How many users a room is called after (specification: `m.heroes`).
const HEROES_MAX: usize = 5;

/// How many members of each kind are looked at for who came first. In larger rooms, which have a name as a rule, it is the first
/// of those whom this server has known for longest.
const LOOKED_AT_MAX: usize = 100;

/// The types of the events that give a room a name of its own.
pub(crate) const NAMES: [&str; 2] = ["m.room.name", "m.room.canonical_alias"];

/// Up to five others of the room, those who are in it or invited, in the order in which their membership came; if there are
/// none, those who are gone. `None` when the room has a name of its own.
pub(crate) fn heroes(
    reader: &Reader,
    room: RoomNum,
    current: NodeId,
    except: UserNum,
) -> Result<Option<Vec<UserNum>>, StorageError> {
    for kind in NAMES {
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
    let mut found: Vec<(EventNum, UserNum)> = Vec::new();
    for membership in memberships {
        let prefix = (room, *membership as u8);
        let mut looked_at = 0;
        reader.scan(&schema::MEMBERS, &prefix, Direction::Forward, |(_, _, user), event| {
            if user != except {
                found.push((event, user));
            }
            looked_at += 1;
            looked_at < LOOKED_AT_MAX
        })?;
    }
    // Events are numbered as they come.
    found.sort_unstable();
    Ok(found.into_iter().take(HEROES_MAX).map(|(_, user)| user).collect())
}
