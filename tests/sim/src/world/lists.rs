//! Access lists: which servers a room has shut out, that they are let in again when a run comes to rest, and that they tell then what
//! was refused.
//!
//! While a list denies a server, others refuse what it sends and what it asks for; so does the engine, and nothing here does. Two
//! servers of which one shuts the other out are not asked to agree. Lists of a run name whom they deny, and allow all others.

use std::sync::Arc;

use serde_json::Value;
use warren_engine::{
    core::event::JsonObject,
    view::{FrontierEvent, RoomStateEvent},
};

use super::{Breach, SERVER_NAMES, World};
use crate::plan::{Deed, USERS_PER_SERVER, User, What};

/// The type of the event that is a room's access list.
pub(super) const KIND: &str = "m.room.server_acl";
/// What passes between a list that lets a server in and its way there, in milliseconds: more than the hour in which a server tells
/// nobody twice that it has left.
const ON_THE_WAY_MS: i64 = 61 * 60 * 1000;
/// How often it is looked for rooms that shut somebody out: what is told again may be a list that does.
const LOOKS_MAX: usize = 5;

impl World {
    /// A user has set an access list.
    pub(super) fn note_list(&mut self, room: usize, event_id: Option<String>, list: &JsonObject) {
        self.ledger.lists.extend(event_id);
        let shut_out = (0..self.servers.len()).filter(|server| denies(list, *server));
        self.ledger.shut_out.extend(shut_out.map(|server| (room, server)));
    }

    /// The room's access list as a server has it; nothing if it has none, or nobody there is in the room.
    fn list_on(&self, server: usize, room: usize) -> Option<JsonObject> {
        let mut users = (0..USERS_PER_SERVER).map(|number| self.user_id(User { server, number }));
        let member = users.find(|user_id| self.joined(server, user_id).contains(&room))?;
        let view = RoomStateEvent {
            room_id: self.rooms[room].id.clone(),
            user_id: member,
            kind: KIND.to_owned(),
            state_key: String::new(),
            is_whole: false,
        };
        let list = self.servers[server].engine().read(&view).ok()?;
        serde_json::from_slice(&list).ok()
    }

    /// Whether a room, as server `viewer` has it, shuts another one out, or that one itself.
    pub(super) fn shuts_out(&self, viewer: usize, room: usize, server: usize) -> bool {
        self.ledger.shut_out.contains(&(room, server))
            && self.list_on(viewer, room).is_some_and(|list| denies(&list, server))
    }

    /// Whether one of two servers shuts the other out of the room.
    pub(super) fn are_apart(&self, room: usize, one: usize, other: usize) -> bool {
        self.shuts_out(one, room, other) || self.shuts_out(other, room, one)
    }

    /// Whether the event is of a user of a server that the room has shut out: to a server that has left it meanwhile it may be so still.
    pub(super) fn may_be_refused(&self, room: usize, event: &Value) -> bool {
        let name = event["sender"].as_str().and_then(|sender| sender.split(':').nth(1));
        let server = name.and_then(|name| self.index(name));
        server.is_some_and(|server| self.ledger.shut_out.contains(&(room, server)))
    }

    /// Whoever may lets in again whom rooms have shut out.
    pub(super) fn lift_lists(&mut self) -> Result<(), Breach> {
        for _ in 0..LOOKS_MAX {
            let mut is_lifted = false;
            for room in 0..self.rooms.len() {
                for host in 0..self.servers.len() {
                    is_lifted |= self.lift_list(room, host)?;
                }
            }
            if !is_lifted {
                break;
            }
        }
        Ok(())
    }

    /// A user of a server lets in again whom the room, as that server has it, shuts out. Answers whether one may.
    fn lift_list(&mut self, room: usize, host: usize) -> Result<bool, Breach> {
        let mut guests: Vec<usize> = (0..self.servers.len()).collect();
        guests.retain(|guest| self.shuts_out(host, room, *guest));
        // Whom the room has shut out nobody would hear.
        if guests.is_empty() || guests.contains(&host) {
            return Ok(false);
        }
        let there = self.servers_in_room(host, room);
        guests.retain(|guest| there.contains(guest));
        let Some(list) = self.let_all_in(room, host)? else { return Ok(false) };
        self.servers.iter().for_each(|server| server.move_clock(ON_THE_WAY_MS));
        self.deliver_all()?;
        self.check_deliveries()?;
        for guest in guests {
            self.check_told_again(room, (guest, host), &list)?;
        }
        Ok(true)
    }

    /// The event by which a user of the server does so.
    fn let_all_in(&mut self, room: usize, host: usize) -> Result<Option<String>, Breach> {
        for number in 0..USERS_PER_SERVER {
            let before = self.acknowledged.len();
            let deed = Deed::In { room: room as u8, what: What::LetIn };
            self.act(User { server: host, number }, deed, None)?;
            if let Some(made) = self.acknowledged.get(before) {
                return Ok(Some(made.event_id.clone()));
            }
        }
        Ok(None)
    }

    /// What users of server `guest` did last in a room, as far as nothing follows it there, `host` has, which has let it in again by
    /// `list`: also that they have left. It is told that has the list; or if nobody there is in the room any more, on being sent that.
    fn check_told_again(&self, room: usize, (guest, host): (usize, usize), list: &str) -> Result<(), Breach> {
        let ends = self.frontier(guest, room)?.into_iter().flat_map(|frontier| frontier.extremities);
        let own = format!(":{}", SERVER_NAMES[guest]);
        let is_owed = |end: &FrontierEvent| {
            end.sender.ends_with(&own) && self.ledger.is_for(guest, host, &end.event_id)
        };
        let ends: Vec<FrontierEvent> = ends.filter(is_owed).collect();
        let there = self.servers_in_room(guest, room);
        let is_told = match there.contains(&guest) {
            true => there.contains(&host) && self.has_list(guest, room, list)?,
            false => ends.iter().any(|end| is_leave(&end.json)),
        };
        // Who lacks something does not know what the room's list is, and who has heard of another one by now may refuse it.
        if !is_told || self.lacks_some(guest, room) || self.shuts_out(host, room, guest) {
            return Ok(());
        }
        for end in ends {
            // What was said before the host came in again is history to it, which it does not keep.
            let is_past = self.ledger.past.contains(&(host, end.event_id.clone()));
            let is_here = self.is_here(host, room, &end.event_id);
            if !is_past && !is_here.map_err(|error| Breach::new("told again", error))? {
                return Err(self.untold(guest, host, &end.event_id));
            }
        }
        Ok(())
    }

    fn untold(&self, guest: usize, host: usize, event_id: &Arc<str>) -> Breach {
        let (event, guest, host) = (self.event_name(event_id), SERVER_NAMES[guest], SERVER_NAMES[host]);
        Breach::new("told again", format!("{host} has let {guest} in again, and is not told {event}"))
    }

    /// Whether the event is the room's access list on a server.
    fn has_list(&self, server: usize, room: usize, event_id: &str) -> Result<bool, Breach> {
        let key = (KIND.to_owned(), String::new());
        let state = self.state_on(server, room)?.unwrap_or_default();
        Ok(state.get(&key).is_some_and(|list| *list == event_id))
    }
}

/// Whether a list denies a server.
fn denies(list: &JsonObject, server: usize) -> bool {
    let names = |part: &str, name: &str| {
        let names = list.get(part).and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|known| known.as_str() == Some(name)))
    };
    names("deny", SERVER_NAMES[server]) || !names("allow", "*")
}

fn is_leave(json: &[u8]) -> bool {
    let event: Value = serde_json::from_slice(json).unwrap_or_default();
    event["type"] == "m.room.member" && event["content"]["membership"] == "leave"
}
