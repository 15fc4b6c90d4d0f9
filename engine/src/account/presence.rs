//! Presence: how present users are, told to those on this server who share a room with them.
//!
//! Invariant: how present somebody is lives in memory (`stream`), and a change of it costs no row; only that they are there at all
//! is a row, by which a restart ends it for those who are told. It is written under the user's lane when they come, and removed
//! under it once it is published that they went and nobody has said since that they come. What they say about it is stored, one
//! row for each user.
//! Specification: client-server API, "Presence".

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use serde_json::{Value, json};

use crate::{
    core::{identifiers::server_name, num::UserNum},
    error::Result,
    store::{
        Direction, Reader, StorageError, Tx, schema,
        schema::{PresenceState, StatusMessage},
    },
    stream::{self, Activity, Claim, PresenceChange, Touch},
};

/// The content of the user's `m.presence` event; offline for who is not known to be there.
pub fn content(reader: &Reader, user: UserNum) -> Result<Value, StorageError> {
    let shown = reader.shared.watch.presences.get(user);
    let status = reader.get(&schema::STATUS_MESSAGES, &user)?;
    let state = shown.map_or(PresenceState::Offline, |shown| shown.state);
    let mut content = json!({ "presence": state.name() });
    let last_active_ms = shown.map(|shown| shown.last_active_ms).filter(|last_active_ms| *last_active_ms > 0);
    if let Some(last_active_ms) = last_active_ms.or(status.as_ref().map(|status| status.said_ms)) {
        content["last_active_ago"] = reader.shared.clock.now_ms().saturating_sub(last_active_ms).into();
    }
    if state != PresenceState::Offline {
        let told = shown.and_then(|shown| shown.currently_active);
        content["currently_active"] = told.unwrap_or(state == PresenceState::Online).into();
    }
    if let Some(status) = status.filter(|status| !status.text.is_empty()) {
        content["status_msg"] = status.text.into();
    }
    Ok(content)
}

/// Whether the user ever was there, as far as it is known, or has said something about it.
pub fn is_known(reader: &Reader, user: UserNum) -> Result<bool, StorageError> {
    let is_shown = reader.shared.watch.presences.get(user).is_some();
    Ok(is_shown || reader.has(&schema::STATUS_MESSAGES, &user)?)
}

/// The user's `m.presence` event as `/sync` has it.
pub fn event(reader: &Reader, user: UserNum) -> Result<Value, StorageError> {
    let sender = reader.user_id(user)?;
    Ok(json!({ "type": "m.presence", "sender": &*sender, "content": content(reader, user)? }))
}

/// What a device says that holds until `hold_ms` from now, and the time on which others are given to come back.
pub(crate) fn claim(reader: &Reader, device: Option<&str>, state: PresenceState, hold_ms: u64) -> Claim {
    let device = BuildHasherDefault::<DefaultHasher>::default().hash_one(device);
    let said_ms = reader.shared.clock.now_ms();
    Claim { device, state, said_ms, until_ms: said_ms + hold_ms + stream::OFFLINE_AFTER_MS }
}

/// What another server says of its user, which holds for a while unless it says something else.
pub(crate) fn claim_elsewhere(reader: &Reader, state: PresenceState) -> Claim {
    let said_ms = reader.shared.clock.now_ms();
    Claim { device: stream::ELSEWHERE, state, said_ms, until_ms: said_ms + stream::ELSEWHERE_HOLD_MS }
}

/// The user says how present they are, and something about it.
pub(crate) fn say(tx: &mut Tx, user: UserNum, claim: Claim, text: String) -> Result<()> {
    let now_ms = tx.shared.clock.now_ms();
    let is_same = keep_text(tx, user, text)?;
    if is_same && tx.shared.watch.presences.renew(user, claim, now_ms) {
        return Ok(());
    }
    touch(tx, user, PresenceChange::Said(claim))
}

/// Another server says how present and active its user is, and what they say about it.
pub(crate) fn tell(tx: &mut Tx, user: UserNum, claim: Claim, activity: Activity, text: String) -> Result<()> {
    let now_ms = tx.shared.clock.now_ms();
    let is_same = keep_text(tx, user, text)?;
    if is_same && tx.shared.watch.presences.renew_told(user, claim, activity, now_ms) {
        return Ok(());
    }
    touch(tx, user, PresenceChange::Told(claim, activity))
}

/// Keeps what a user says about how present they are. Answers whether it is what they said before.
fn keep_text(tx: &mut Tx, user: UserNum, text: String) -> Result<bool, StorageError> {
    let before = tx.get(&schema::STATUS_MESSAGES, &user)?;
    let is_same = before.map_or(text.is_empty(), |before| before.text == text);
    if !is_same {
        let said_ms = tx.shared.clock.now_ms();
        tx.put(&schema::STATUS_MESSAGES, &user, &StatusMessage { text, said_ms });
    }
    Ok(is_same)
}

/// Removes what the user has said about how present they are.
pub(crate) fn clear(tx: &mut Tx, user: UserNum) {
    tx.delete(&schema::STATUS_MESSAGES, &user);
}

/// How present a user is may have changed: takes a position for it and notes it. Whoever says that they are there has their lane.
pub(crate) fn touch(tx: &mut Tx, user: UserNum, change: PresenceChange) -> Result<()> {
    // Who is not listed in their rooms could not be found by those who are there.
    stream::activate(tx, user)?;
    tx.next_position();
    let now_ms = tx.shared.clock.now_ms();
    if let Some(said) = change.said().filter(|said| said.state != PresenceState::Offline) {
        tx.shared.watch.presences.note_coming(user, said);
        if !tx.has(&schema::PRESENT_USERS, &user)? {
            tx.put(&schema::PRESENT_USERS, &user, &());
        }
    }
    tx.touch(Touch::Presence { user, change, now_ms });
    Ok(())
}

/// A user went: after a restart nobody needs to be told of it, unless they are back, or about to be.
pub(crate) fn forget(tx: &mut Tx, user: UserNum) {
    let now_ms = tx.shared.clock.now_ms();
    if tx.shared.watch.presences.may_be_forgotten(user, now_ms) {
        // Also where there is no row, which is rare: what writes nothing is told to nobody.
        tx.delete(&schema::PRESENT_USERS, &user);
        tx.touch(Touch::Presence { user, change: PresenceChange::Forgotten, now_ms });
    }
}

/// Takes some of those who were there before a restart to be there still, for a while in which they may come back: who has not by
/// then is told to the others to be gone. Nobody is told anything now.
pub(crate) fn restore(tx: &mut Tx, count_max: usize) -> Result<()> {
    let Some(from) = tx.shared.watch.presences.restored_up_to() else { return Ok(()) };
    let (mut found, mut last) = (Vec::new(), None);
    tx.scan_between(
        &schema::PRESENT_USERS,
        &from,
        &UserNum(u64::MAX),
        Direction::Forward,
        |user: UserNum, ()| {
            found.push(user);
            last = Some(user);
            found.len() < count_max
        },
    )?;
    found.retain(|user| tx.shared.watch.presences.get(*user).is_none());
    if found.is_empty() {
        tx.shared.watch.presences.note_restored(last);
        return Ok(());
    }
    tx.next_position();
    let now_ms = tx.shared.clock.now_ms();
    for user in found {
        stream::activate(tx, user)?;
        let is_ours = server_name(&tx.user_id(user)?) == Some(&*tx.shared.server_name);
        let claim = match is_ours {
            true => Claim {
                device: stream::BEFORE_RESTART,
                state: PresenceState::Online,
                said_ms: now_ms,
                until_ms: now_ms + stream::OFFLINE_AFTER_MS,
            },
            false => claim_elsewhere(tx, PresenceState::Online),
        };
        tx.touch(Touch::Presence { user, change: PresenceChange::Restored(claim), now_ms });
    }
    Ok(())
}

/// Other servers are told again how present the user is, at the position that the batch has for it.
pub(crate) fn repeat(tx: &mut Tx, user: UserNum) {
    let now_ms = tx.shared.clock.now_ms();
    tx.touch(Touch::Presence { user, change: PresenceChange::Repeated, now_ms });
}

/// The user did something that shows that they are there. Costs no position: there is one already of what they did.
pub(crate) fn acted(tx: &mut Tx, user: UserNum) {
    let now_ms = tx.shared.clock.now_ms();
    tx.touch(Touch::Presence { user, change: PresenceChange::Acted, now_ms });
}
