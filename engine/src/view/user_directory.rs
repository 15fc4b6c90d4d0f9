//! The user directory, and the presence of single users.
//!
//! Invariant: a user is found only by who shares a room with them, or if they are in a room that everybody may join or
//! read.
//! Specification: client-server API, "User Directory" and `GET /presence/{userId}/status`.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::{
    account::{presence, profile, users},
    core::num::{EventNum, RoomNum, UserNum},
    error::{Denied, Error, Result, What},
    room::{RoomCtx, members::is_local, world_readable},
    store::{
        Direction, InternedKind, Reader, StorageError, schema,
        schema::{Membership, PresenceState},
    },
    view::View,
};

/// How many users are found when the client does not say.
pub const USERS_LIMIT_DEFAULT: u64 = 10;
/// How many users are found at most.
const USERS_LIMIT_MAX: u64 = 100;
/// How many accounts one search looks at, beside those that it finds by their ids: at some microseconds each.
const ACCOUNTS_MAX: usize = 50_000;
/// How many ids that begin with the term one search looks at, of users of whichever server: far more than are shown.
const NAMES_MAX: usize = 1_000;
/// How many members of the asker's rooms one search looks at for users of other servers, and how many of open rooms.
const MEMBERS_MAX: usize = 10_000;
/// Of how many rooms in which the asker is not one search looks whether they are open: at some tens of microseconds each.
const ROOMS_MAX: usize = 1_000;

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
        if term.is_empty() {
            return Ok(json!({ "results": [], "limited": false }));
        }
        let mut rooms =
            Rooms { of_asker: reader.joined_rooms(asker)?.into_iter().collect(), open: HashMap::new() };
        let mut found = local_users(reader, asker, &term, &mut rooms)?;
        found.extend(remote_users(reader, &term, &mut rooms)?);
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
    let room = match RoomCtx::load(reader, &reader.room_id(room)?) {
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
    let mut found = Vec::new();
    for user in accounts(reader, term, ACCOUNTS_MAX)? {
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

/// The accounts to look at: those whose ids begin with the term, however late they were made, and so many of the oldest.
fn accounts(reader: &Reader, term: &str, most: usize) -> Result<Vec<UserNum>, StorageError> {
    let mut accounts = Vec::new();
    let mut by_id = HashSet::new();
    for user in local_ids(reader, term)? {
        let account = users::account(reader, user)?;
        if account.is_some_and(|account| !account.is_deactivated) && by_id.insert(user) {
            accounts.push(user);
        }
    }
    let most = accounts.len() + most;
    reader.scan(&schema::ACCOUNTS, &(), Direction::Forward, |user: UserNum, account| {
        if !account.is_deactivated && !by_id.contains(&user) {
            accounts.push(user);
        }
        accounts.len() < most
    })?;
    Ok(accounts)
}

/// Users of this server whose ids begin with the term, among them one whose very id or localpart it is.
fn local_ids(reader: &Reader, term: &str) -> Result<Vec<UserNum>, StorageError> {
    let beginning = format!("@{}", term.trim_start_matches('@'));
    let with_server = format!("{beginning}:{}", reader.shared.server_name);
    let mut found = Vec::new();
    for user_id in [&beginning, &with_server] {
        found.extend(reader.user_num(user_id)?);
    }
    let mut names = 0;
    let start = (InternedKind::User as u8, beginning);
    reader.scan(&schema::NAME_NUMS, &start, Direction::Forward, |(_, user_id): (u8, String), num| {
        if is_local(reader, &user_id) {
            found.push(UserNum(num));
        }
        names += 1;
        names < NAMES_MAX
    })?;
    Ok(found)
}

/// Users of other servers, by the names that they have in the rooms in which they are looked for.
struct Remote<'a> {
    reader: &'a Reader,
    term: &'a str,
    looked_at: HashSet<UserNum>,
    found: Vec<Found>,
}

impl Remote<'_> {
    /// Looks at the members of rooms in turn, until so many have been looked at.
    fn look_in(&mut self, rooms: Vec<RoomNum>, most: usize) -> Result<(), StorageError> {
        let mut left = most;
        for room in rooms {
            for (user, event) in self.reader.members(room, Membership::Join)? {
                let Some(less) = left.checked_sub(1) else { return Ok(()) };
                left = less;
                if self.looked_at.contains(&user) {
                    continue;
                }
                let user_id = self.reader.user_id(user)?;
                if !is_local(self.reader, &user_id) && self.looked_at.insert(user) {
                    self.look_at(&user_id, event)?;
                }
            }
        }
        Ok(())
    }

    fn look_at(&mut self, user_id: &str, event: EventNum) -> Result<(), StorageError> {
        let pdu = self.reader.event(event)?.pdu()?;
        let text = |name: &str| pdu.content.get(name).and_then(Value::as_str).map(str::to_owned);
        let display_name = text("displayname");
        if let Some(rank) = rank(self.term, user_id, display_name.as_deref()) {
            let avatar_url = text("avatar_url");
            self.found.push(Found { rank, user_id: user_id.to_owned(), display_name, avatar_url });
        }
        Ok(())
    }
}

/// Users of other servers who are in the asker's rooms, or in rooms that are open to all.
fn remote_users(reader: &Reader, term: &str, rooms: &mut Rooms) -> Result<Vec<Found>> {
    let mut remote = Remote { reader, term, looked_at: HashSet::new(), found: Vec::new() };
    remote.look_in(smallest_first(reader, rooms.of_asker.iter().copied().collect())?, MEMBERS_MAX)?;
    remote.look_in(open_rooms(reader, rooms)?, MEMBERS_MAX)?;
    Ok(remote.found)
}

/// The rooms in a fixed order, in which those who are known best come first.
fn smallest_first(reader: &Reader, rooms: Vec<RoomNum>) -> Result<Vec<RoomNum>, StorageError> {
    let heads = reader.get_many(&schema::ROOM_HEADS, rooms.iter().copied())?;
    let sized = rooms.into_iter().zip(heads).filter_map(|(room, head)| Some((head?.joined, room)));
    let mut sized: Vec<(u64, RoomNum)> = sized.collect();
    sized.sort_unstable();
    Ok(sized.into_iter().map(|(_, room)| room).collect())
}

/// Rooms that are open to all, in which the asker is not, but this server and another; the smallest first. O(rooms).
fn open_rooms(reader: &Reader, rooms: &mut Rooms) -> Result<Vec<RoomNum>> {
    let mut sized = Vec::new();
    reader.scan(&schema::ROOM_HEADS, &(), Direction::Forward, |room: RoomNum, head| {
        if head.other_servers > 0 && !rooms.of_asker.contains(&room) {
            sized.push((head.joined, room));
        }
        true
    })?;
    // The largest are the likeliest to be open: few conversations between two are.
    sized.sort_unstable();
    let mut open = Vec::new();
    for (_, room) in sized.into_iter().rev().take(ROOMS_MAX) {
        // What has become of a room since this server left it is not known.
        if reader.is_server_in_room(&reader.shared.server_name, room)?
            && rooms.make_visible(reader, &[room])?
        {
            open.push(room);
        }
    }
    open.reverse();
    Ok(open)
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

    /// Errors: [`What::User`] not found, also for a user of another server of whom nothing was told; [`Denied::NotInRoom`] for
    /// who shares no room with the user.
    fn read(&self, reader: &Reader) -> Result<Value> {
        let user = reader.user_num(&self.user)?.ok_or(Error::NotFound(What::User))?;
        if self.asker != self.user {
            let asker = reader.user_num(&self.asker)?.ok_or(Error::NotFound(What::User))?;
            let rooms: HashSet<RoomNum> = reader.joined_rooms(asker)?.into_iter().collect();
            if !reader.joined_rooms(user)?.iter().any(|room| rooms.contains(room)) {
                return Err(Denied::NotInRoom.into());
            }
        }
        if users::account(reader, user)?.is_none() && !presence::is_known(reader, user)? {
            return Err(Error::NotFound(What::User));
        }
        Ok(presence::content(reader, user)?)
    }
}

/// Whether the user is shown to be as present as a device that syncs says, and goes on being so: then there is nothing to
/// write. Costs a look-up in memory.
pub struct IsPresent<'a> {
    /// The user.
    pub user: UserNum,
    /// The device, if the sync is one's.
    pub device: Option<&'a str>,
    /// How present the device says that its user is.
    pub state: PresenceState,
    /// How long the sync may last, in milliseconds.
    pub hold_ms: u64,
}

impl View for IsPresent<'_> {
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        let claim = presence::claim(reader, self.device, self.state, self.hold_ms);
        let now_ms = reader.shared.clock.now_ms();
        Ok(reader.shared.watch.presences.renew(self.user, claim, now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::{EndPresence, ReceiveEdus, SetPresence, ShowPresence},
        fixture::World,
        store::schema::Account,
    };

    const ALICE: &str = "@alice:here.example";
    const BOB: &str = "@bob:here.example";
    const CAROL: &str = "@carol:here.example";

    fn world() -> World {
        let world = World::new();
        for (user, name) in [(ALICE, "Alice"), (BOB, "Robert Tables"), (CAROL, "Ćarol")] {
            world
                .act(|tx| {
                    let user = tx.intern_user(user)?;
                    users::put(tx, user, &Account::default());
                    profile::set_text(tx, user, profile::DISPLAY_NAME, name);
                    Ok(())
                })
                .unwrap();
        }
        world.room("!both:here.example", ALICE, None);
        world.join("!both:here.example", BOB);
        let closed = json!({ "join_rule": "invite" });
        world.state("!both:here.example", ALICE, "m.room.join_rules", "", closed);
        world
    }

    fn found(world: &World, asker: &str, term: &str) -> Vec<String> {
        let search = SearchUsers { user: asker.into(), term: term.into(), limit: None };
        let results = world.engine.read(&search).unwrap();
        let results = results["results"].as_array().unwrap().iter();
        results.map(|user| user["user_id"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn who_shares_a_room_is_found_by_id_and_name() {
        let world = world();
        for term in ["bob", "@bob:here.example", "ROBERT", "tab rob", "obert"] {
            assert_eq!(found(&world, ALICE, term), [BOB], "{term}");
        }
        assert!(found(&world, ALICE, "").is_empty());
        assert!(found(&world, ALICE, "carol").is_empty());
        assert!(found(&world, CAROL, "bob").is_empty());
        assert_eq!(found(&world, ALICE, "here.example"), [ALICE, BOB]);
    }

    #[test]
    fn who_is_in_an_open_room_is_found_by_all() {
        let world = world();
        world.room("!open:here.example", CAROL, None);
        assert_eq!(found(&world, ALICE, "ćarol"), [CAROL]);
        let search = SearchUsers { user: ALICE.into(), term: "here.example".into(), limit: Some(1) };
        let results = world.engine.read(&search).unwrap();
        assert_eq!(results["limited"], true);
        assert_eq!(results["results"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn remote_users_in_open_rooms_are_found_by_all() {
        let world = world();
        let dave = "@dave:there.example";
        world.room("!open:here.example", CAROL, None);
        world.join("!open:here.example", dave);
        assert_eq!(found(&world, ALICE, "dave"), [dave]);
        let (join_rule, open) = (json!({ "join_rule": "invite" }), "!open:here.example");
        world.state(open, CAROL, "m.room.join_rules", "", join_rule);
        assert!(found(&world, ALICE, "dave").is_empty());
        assert_eq!(found(&world, CAROL, "dave"), [dave]);
        let readable = json!({ "history_visibility": "world_readable" });
        world.state(open, CAROL, "m.room.history_visibility", "", readable);
        assert_eq!(found(&world, ALICE, "dave"), [dave]);
        // Nobody here is told any more who is there.
        world.leave(open, CAROL);
        assert!(found(&world, ALICE, "dave").is_empty());
    }

    #[test]
    fn the_rooms_that_are_looked_in_come_in_a_fixed_order() {
        let world = world();
        world.room("!one:here.example", ALICE, None);
        world.room("!three:here.example", ALICE, None);
        world.join("!three:here.example", BOB);
        world.join("!three:here.example", CAROL);
        let nums = |ids: &[&str]| {
            world.ask(|reader| {
                Ok(ids.iter().filter_map(|id| reader.room_num(id).unwrap()).collect::<Vec<_>>())
            })
        };
        let sorted = nums(&["!one:here.example", "!both:here.example", "!three:here.example"]);
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let given: Vec<RoomNum> = order.iter().map(|place| sorted[*place]).collect();
            assert_eq!(world.ask(|reader| Ok(smallest_first(reader, given.clone())?)), sorted);
        }
    }

    #[test]
    fn an_account_is_found_by_its_id_however_many_are_older() {
        let world = world();
        let looked_at = |term: &str| {
            world.ask(|reader| {
                let users = accounts(reader, term, 1)?;
                Ok(users
                    .into_iter()
                    .map(|user| reader.user_id(user).unwrap().to_string())
                    .collect::<Vec<_>>())
            })
        };
        for term in ["car", "carol", "@carol", "@carol:here.example"] {
            assert_eq!(looked_at(term), [CAROL, ALICE], "{term}");
        }
        assert_eq!(looked_at("alice"), [ALICE, BOB]);
        assert_eq!(looked_at("robert"), [ALICE]);
    }

    fn set(world: &World, state: PresenceState) {
        let set = SetPresence { user: ALICE.into(), device: None, state, status_msg: "here".into() };
        world.engine.write(set).wait().unwrap();
    }

    fn of_alice(world: &World, asker: &str) -> Result<Value> {
        world.engine.read(&PresenceOf { asker: asker.into(), user: ALICE.into() })
    }

    fn alice_is(state: &str) -> Vec<(String, String)> {
        vec![(ALICE.to_owned(), state.to_owned())]
    }

    #[test]
    fn presence_is_told_to_those_who_share_a_room() {
        let world = world();
        let (_, token) = world.presences_told_to(BOB, None);
        set(&world, PresenceState::Online);
        set(&world, PresenceState::Unavailable);
        world.pass_ms(5);
        let presence = of_alice(&world, BOB).unwrap();
        assert_eq!(presence["presence"], "unavailable");
        assert_eq!((&presence["status_msg"], &presence["last_active_ago"]), (&json!("here"), &json!(5)));
        assert!(of_alice(&world, CAROL).is_err());
        let (told, token) = world.presences_told_to(BOB, Some(token));
        assert_eq!(told, alice_is("unavailable"), "the later takes the place of the earlier");
        assert_eq!(world.presences_told_to(BOB, Some(token)).0, []);
        assert_eq!(world.presences_told_to(BOB, None).0, alice_is("unavailable"));
    }

    #[test]
    fn of_users_of_other_servers_it_is_what_was_told() {
        let world = world();
        let dave = "@dave:there.example";
        let of_dave = |asker: &str| world.engine.read(&PresenceOf { asker: asker.into(), user: dave.into() });
        let tell = |presence: &str| {
            let update = json!({ "user_id": dave, "presence": presence, "status_msg": "digging" });
            let edu = json!({ "edu_type": "m.presence", "content": { "push": [update] } });
            world.engine.write(ReceiveEdus::new("there.example", [&edu])).wait().unwrap();
        };
        assert!(matches!(of_dave(ALICE), Err(Error::NotFound(What::User))));
        world.member("!both:here.example", ALICE, dave, "invite").unwrap();
        world.join("!both:here.example", dave);
        assert!(matches!(of_dave(ALICE), Err(Error::NotFound(What::User))), "nothing was told");
        for presence in ["unavailable", "offline"] {
            tell(presence);
            let told = of_dave(ALICE).unwrap();
            assert_eq!((&told["presence"], &told["status_msg"]), (&json!(presence), &json!("digging")));
        }
        assert!(matches!(of_dave(CAROL), Err(Error::Denied(Denied::NotInRoom))));
    }

    #[test]
    fn syncing_makes_present_and_ceasing_to_makes_absent() {
        let world = world();
        let alice = world.ask(|reader| Ok(reader.user_num(ALICE)?.unwrap()));
        let (state, hold_ms) = (PresenceState::Online, 1000);
        let is_present =
            || world.engine.read(&IsPresent { user: alice, device: Some("A"), state, hold_ms }).unwrap();
        let (_, token) = world.presences_told_to(BOB, None);
        assert!(!is_present());
        let show = ShowPresence { user_id: ALICE.into(), device: Some("A".into()), state, hold_ms };
        world.engine.write(show).wait().unwrap();
        let position = world.engine.position();
        assert!(is_present());
        let (told, token) = world.presences_told_to(BOB, Some(token));
        assert_eq!(told, alice_is("online"));
        world.pass_ms(30_999);
        assert!(is_present(), "the sync and the time to come back are not over");
        world.engine.write(EndPresence).wait().unwrap();
        assert_eq!(world.engine.position(), position, "nothing has changed, nothing is written");
        world.pass_ms(31_000);
        world.engine.write(EndPresence).wait().unwrap();
        assert_eq!(world.presences_told_to(BOB, Some(token)).0, alice_is("offline"));
        assert_eq!(of_alice(&world, BOB).unwrap()["presence"], "offline");
    }

    #[test]
    fn who_comes_into_a_room_is_seen_and_sees() {
        let world = world();
        world.leave("!both:here.example", BOB);
        let (_, token) = world.presences_told_to(BOB, None);
        set(&world, PresenceState::Online);
        let (told, token) = world.presences_told_to(BOB, Some(token));
        assert_eq!(told, []);
        world.member("!both:here.example", ALICE, BOB, "invite").unwrap();
        world.join("!both:here.example", BOB);
        assert_eq!(world.presences_told_to(BOB, Some(token)).0, alice_is("online"));
    }
}
