//! Presence: what users say about being there, told to those on this server who share a room with them.
//!
//! Invariant: a peer's stream has at most one entry about a user, at the position of the user's row.
//! Not here: guessing presence from what a user does; a sync says it with `set_presence`.
//! Specification: client-server API, "Presence".

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    core::num::UserNum,
    error::Result,
    store::{
        Positioned, Reader, StorageError, Tx, schema,
        schema::{Membership, Presence, PresenceState, UserNews},
    },
    stream::Touch,
};

/// How many users are told of a change at most; each costs a row or two.
const PEERS_MAX: usize = 500;
/// Rooms with more members than this make nobody a peer: in a crowd nobody watches who is there.
const ROOM_MEMBERS_MAX: u64 = 200;
/// The same state said again within this time is no news, in milliseconds.
const REPEAT_MS: u64 = 60_000;

/// The user's presence, if they ever had one.
pub fn get(reader: &Reader, user: UserNum) -> Result<Option<Presence>, StorageError> {
    Ok(reader.get(&schema::PRESENCE, &user)?.map(|row| row.value))
}

/// The content of the user's `m.presence` event; offline for who never said anything.
pub fn content(reader: &Reader, user: UserNum) -> Result<Value, StorageError> {
    let Some(presence) = get(reader, user)? else { return Ok(json!({ "presence": "offline" })) };
    let now_ms = reader.shared.clock.now_ms();
    let mut content = json!({
        "presence": presence.state.name(),
        "last_active_ago": now_ms.saturating_sub(presence.last_active_ms),
        "currently_active": presence.state == PresenceState::Online,
    });
    if let Some(status_msg) = presence.status_msg.filter(|message| !message.is_empty()) {
        content["status_msg"] = status_msg.into();
    }
    Ok(content)
}

/// The user's `m.presence` event as `/sync` has it.
pub fn event(reader: &Reader, user: UserNum) -> Result<Value, StorageError> {
    let sender = reader.user_id(user)?;
    Ok(json!({ "type": "m.presence", "sender": &*sender, "content": content(reader, user)? }))
}

/// Sets the user's presence and tells those who share a room. A missing message keeps the one before.
pub(crate) fn set(
    tx: &mut Tx,
    user: UserNum,
    state: PresenceState,
    status_msg: Option<String>,
) -> Result<()> {
    let before = tx.get(&schema::PRESENCE, &user)?;
    let last_active_ms = tx.shared.clock.now_ms();
    let status_msg = status_msg.or_else(|| before.as_ref().and_then(|row| row.value.status_msg.clone()));
    if let Some(before) = &before {
        let is_same = before.value.state == state && before.value.status_msg == status_msg;
        if is_same && last_active_ms < before.value.last_active_ms + REPEAT_MS {
            return Ok(());
        }
    }
    // One position for all: each peer has a stream of their own.
    let pos = tx.next_position();
    for peer in peers(tx, user)? {
        if let Some(before) = &before {
            tx.delete(&schema::USER_STREAM, &(peer, before.pos));
        }
        tx.put(&schema::USER_STREAM, &(peer, pos), &UserNews::Presence(user));
        tx.touch(Touch::User(peer));
    }
    let value = Presence { state, status_msg, last_active_ms };
    tx.put(&schema::PRESENCE, &user, &Positioned { pos, value });
    Ok(())
}

/// The user and those of this server who share a room with them, as far as they are told.
fn peers(reader: &Reader, user: UserNum) -> Result<BTreeSet<UserNum>, StorageError> {
    let mut peers = BTreeSet::from([user]);
    for room in reader.joined_rooms(user)? {
        let Some(head) = reader.get(&schema::ROOM_HEADS, &room)? else { continue };
        if head.joined > ROOM_MEMBERS_MAX {
            continue;
        }
        for (member, _) in reader.members(room, Membership::Join)? {
            if peers.len() < PEERS_MAX && reader.has(&schema::ACCOUNTS, &member)? {
                peers.insert(member);
            }
        }
    }
    Ok(peers)
}
