//! The user directory, and the presence of single users.
//!
//! Invariant: a user is found only by who shares a room with them, or if they are in a room that everybody may join or
//! read.
//! Specification: client-server API, "User Directory" and `GET /presence/{userId}/status`.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::{
    account::{presence, profile, users},
    core::num::{RoomNum, UserNum},
    error::{Denied, Error, Result, What},
    room::{RoomCtx, world_readable},
    store::{Direction, Reader, StorageError, schema, schema::Membership},
    view::View,
};

/// How many users are found when the client does not say.
pub const USERS_LIMIT_DEFAULT: u64 = 10;
/// How many users are found at most.
const USERS_LIMIT_MAX: u64 = 100;
/// How many accounts one search looks at: at some microseconds each.
const ACCOUNTS_MAX: usize = 50_000;
/// How many members of the asker's rooms one search looks at for users of other servers.
const MEMBERS_MAX: usize = 10_000;

/// Users by a part of their id or name.
pub struct SearchUsers {
    /// Who asks.
    pub user: String,
    /// What to look for.
    pub term: String,
    /// Most users; more than a hundred means that.
    pub limit: Option<u64>,
}

/// A user who was found, best first.
struct Found {
    /// Zero for the very name, one for its beginning, two for a part.
    rank: u8,
    user_id: String,
    display_name: Option<String>,
    avatar_url: Option<String>,
}

impl View for SearchUsers {
    /// The response's JSON.
    type Output = Value;

    fn read(&self, reader: &Reader) -> Result<Value> {
        let asker = reader.user_num(&self.user)?.ok_or(Error::NotFound(What::User))?;
        let limit = self.limit.unwrap_or(USERS_LIMIT_DEFAULT).min(USERS_LIMIT_MAX) as usize;
        let term = self.term.trim().to_lowercase();
        let mut rooms =
            Rooms { of_asker: reader.joined_rooms(asker)?.into_iter().collect(), open: HashMap::new() };
        let mut found = local_users(reader, asker, &term, &mut rooms)?;
        found.extend(remote_users(reader, &term, &rooms)?);
        found.sort_by(|a, b| {
            let key = |found: &Found| (found.rank, found.display_name.is_none(), found.user_id.clone());
            key(a).cmp(&key(b))
        });
        let limited = found.len() > limit;
        found.truncate(limit);
        let results: Vec<Value> = found.into_iter().map(Found::into_json).collect();
        Ok(json!({ "results": results, "limited": limited }))
    }
}

impl Found {
    fn into_json(self) -> Value {
        let mut user = json!({ "user_id": self.user_id });
        if let Some(display_name) = self.display_name {
            user["display_name"] = display_name.into();
        }
        if let Some(avatar_url) = self.avatar_url {
            user["avatar_url"] = avatar_url.into();
        }
        user
    }
}

fn rank(term: &str, user_id: &str, display_name: Option<&str>) -> Option<u8> {
    if term.is_empty() {
        return None;
    }
    let user_id = user_id.to_lowercase();
    let localpart = user_id.strip_prefix('@').and_then(|id| id.split(':').next()).unwrap_or_default();
    let display_name = display_name.unwrap_or_default().to_lowercase();
    let names = [user_id.as_str(), localpart, display_name.as_str()];
    if names.contains(&term) {
        Some(0)
    } else if names.iter().any(|name| name.starts_with(term)) {
        Some(1)
    } else if term.split_whitespace().all(|word| names.iter().any(|name| name.contains(word))) {
        Some(2)
    } else {
        None
    }
}

/// Which rooms make their members visible.
struct Rooms {
    of_asker: HashSet<RoomNum>,
    open: HashMap<RoomNum, bool>,
}

impl Rooms {
    fn make_visible(&mut self, reader: &Reader, rooms: &[RoomNum]) -> Result<bool> {
        if rooms.iter().any(|room| self.of_asker.contains(room)) {
            return Ok(true);
        }
        for room in rooms {
            let is_open = match self.open.get(room) {
                Some(is_open) => *is_open,
                None => {
                    let is_open = is_open(reader, *room)?;
                    self.open.insert(*room, is_open);
                    is_open
                }
            };
            if is_open {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether everybody may join or read the room.
fn is_open(reader: &Reader, room: RoomNum) -> Result<bool> {
    let room = match RoomCtx::load(reader, &*reader.room_id(room)?) {
        Ok(room) => room,
        Err(Error::NotFound(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    let is_public = match room.state(reader, "m.room.join_rules", "")? {
        Some(event) => event.pdu()?.content.get("join_rule").is_some_and(|rule| rule == "public"),
        None => false,
    };
    Ok(is_public || world_readable(reader, &room)?)
}

fn local_users(reader: &Reader, asker: UserNum, term: &str, rooms: &mut Rooms) -> Result<Vec<Found>> {
    let mut accounts = Vec::new();
    reader.scan(&schema::ACCOUNTS, &(), Direction::Forward, |user, account| {
        if !account.is_deactivated {
            accounts.push(user);
        }
        accounts.len() < ACCOUNTS_MAX
    })?;
    let mut found = Vec::new();
    for user in accounts {
        let user_id = reader.user_id(user)?;
        let display_name = profile::text(reader, user, profile::DISPLAY_NAME)?;
        let Some(rank) = rank(term, &user_id, display_name.as_deref()) else { continue };
        if user == asker || rooms.make_visible(reader, &reader.joined_rooms(user)?)? {
            let avatar_url = profile::text(reader, user, profile::AVATAR_URL)?;
            found.push(Found { rank, user_id: user_id.to_string(), display_name, avatar_url });
        }
    }
    Ok(found)
}

/// Users of other servers who are in the asker's rooms, by the names that they have there.
fn remote_users(reader: &Reader, term: &str, rooms: &Rooms) -> Result<Vec<Found>, StorageError> {
    let local = format!(":{}", reader.shared.server_name);
    let mut looked_at = HashSet::new();
    let mut found = Vec::new();
    for room in &rooms.of_asker {
        for (user, event) in reader.members(*room, Membership::Join)? {
            if looked_at.len() >= MEMBERS_MAX {
                return Ok(found);
            }
            let user_id = reader.user_id(user)?;
            if user_id.ends_with(&local) || !looked_at.insert(user) {
                continue;
            }
            let pdu = reader.event(event)?.pdu()?;
            let text = |name: &str| pdu.content.get(name).and_then(Value::as_str).map(str::to_owned);
            let display_name = text("displayname");
            if let Some(rank) = rank(term, &user_id, display_name.as_deref()) {
                let avatar_url = text("avatar_url");
                found.push(Found { rank, user_id: user_id.to_string(), display_name, avatar_url });
            }
        }
    }
    Ok(found)
}

/// The presence of a user.
pub struct PresenceOf {
    /// Who asks.
    pub asker: String,
    /// About whom.
    pub user: String,
}

impl View for PresenceOf {
    /// The response's JSON.
    type Output = Value;

    /// Errors: [`What::User`] not found, [`Denied::NotYours`] for who shares no room with the user.
    fn read(&self, reader: &Reader) -> Result<Value> {
        let (user, _) = users::find(reader, &self.user)?.ok_or(Error::NotFound(What::User))?;
        if self.asker != self.user {
            let asker = reader.user_num(&self.asker)?.ok_or(Error::NotFound(What::User))?;
            let rooms: HashSet<RoomNum> = reader.joined_rooms(asker)?.into_iter().collect();
            if !reader.joined_rooms(user)?.iter().any(|room| rooms.contains(room)) {
                return Err(Denied::NotInRoom.into());
            }
        }
        Ok(presence::content(reader, user)?)
    }
}
