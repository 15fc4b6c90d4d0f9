//! Typing notices: who is writing in a room. Only in memory: after a restart nobody is.
//!
//! Invariant: whoever was last told of a room before the restart is told who types there now with whatever else they are told of the
//! room. Nothing is stored by which a room in which nothing happens could be told for that alone: it would be a write for each
//! notice.
//! Specification: client-server API, "Typing Notifications".

use crate::{
    core::{
        json::write_string,
        num::{RoomNum, StreamPos},
    },
    store::{Reader, StorageError},
};

/// The content of the `m.typing` event of `room`, if who types has changed since a position; at the beginning (zero) only
/// if somebody does.
pub(crate) fn since(
    reader: &Reader,
    room: RoomNum,
    since: StreamPos,
) -> Result<Option<Vec<u8>>, StorageError> {
    let Some(typing) = reader.shared.watch.typing_since(room, since) else { return Ok(None) };
    if since == StreamPos::ZERO && typing.users.is_empty() {
        return Ok(None);
    }
    let now_ms = reader.shared.clock.now_ms();
    let mut users: Vec<_> = typing.users_at(now_ms).collect();
    users.sort_unstable();
    let mut out = b"{\"user_ids\":[".to_vec();
    for (index, user) in users.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(&mut out, &reader.user_id(user)?);
    }
    out.extend_from_slice(b"]}");
    Ok(Some(out))
}
