//! What users may be shown of a room's past: the promises of reading back.
//!
//! What is shown was sent, comes once, and has the words that it was sent with, unless it was redacted by somebody who may. Of what
//! was taken in together, causes come first, and what is read in stands before what follows it. Who reads again is shown what they were
//! shown before, in the same order. At rest, who reads back to the start is shown what servers that have been there all along would
//! show them, as far as the ends of the room here lead to it, and nothing that those would hide.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;
use warren_engine::{
    Outcome,
    view::{
        RoomStateEvent,
        federation::{EventsNotInGraph, IsAccepted, UnknownEvents},
    },
};

use super::{Breach, SERVER_NAMES, World, page::Reading};
use crate::plan::User;

/// Events that are asked for at once.
const ASKED_AT_ONCE: usize = 10;

/// What was shown before.
struct Shown {
    /// The latest first.
    event_ids: Vec<String>,
    /// What is to be there for ever, for who is in the room.
    lasting: Vec<String>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Past {
    /// What came as history, or may have, by server.
    read_in: BTreeSet<(usize, Arc<str>)>,
    /// With which intake, if that is known.
    intakes: BTreeMap<(usize, Arc<str>), usize>,
    /// How many intakes there were.
    count: usize,
    /// What events follow, as it was told.
    prev_events: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    /// With which content events were sent.
    said: BTreeMap<String, Value>,
    /// Events that somebody has redacted who may, or has tried to.
    redacted: BTreeSet<String>,
    /// What users were shown last, by room.
    shown: BTreeMap<(usize, User), Shown>,
}

impl Past {
    /// What a server was told of the past, which was `new` to it as far as it says, and what came of it.
    pub fn note_read_in(
        &mut self,
        server: usize,
        new: Vec<Arc<str>>,
        follows: impl Iterator<Item = (Arc<str>, Vec<Arc<str>>)>,
        outcomes: &BTreeMap<Arc<str>, Outcome>,
    ) {
        self.count += 1;
        self.prev_events.extend(follows);
        // It may have been written before something failed.
        self.read_in.extend(new.into_iter().map(|event_id| (server, event_id)));
        for (event_id, _) in outcomes.iter().filter(|(_, outcome)| **outcome == Outcome::Accepted) {
            self.read_in.insert((server, event_id.clone()));
            self.intakes.insert((server, event_id.clone()), self.count);
        }
    }

    /// A user was told that their event was sent.
    pub fn note_said(&mut self, event_id: &str, content: Value) {
        self.said.insert(event_id.to_owned(), content);
    }

    /// What has come to a server as history, or may have: clients are not told of that.
    pub fn read_in_by(&self, server: usize) -> BTreeSet<&str> {
        let own = self.read_in.iter().filter(|(reader, _)| *reader == server);
        own.map(|(_, event_id)| &**event_id).collect()
    }

    /// Whether an event has to stand behind one that it follows: what comes live stands where it comes.
    fn is_bound(&self, server: usize, event_id: &str, prev: &str) -> bool {
        let key = |event_id: &str| -> (usize, Arc<str>) { (server, Arc::from(event_id)) };
        let Some(of_prev) = self.intakes.get(&key(prev)) else { return false };
        match self.intakes.get(&key(event_id)) {
            Some(intake) => intake == of_prev,
            None => !self.read_in.contains(&key(event_id)),
        }
    }
}

impl World {
    /// A user asks for an event to be redacted.
    pub(super) fn note_redaction(&mut self, user: User, room: usize, target: &str) {
        if self.may_redact(user, room, target) {
            self.past.redacted.insert(target.to_owned());
        }
    }

    /// Whether the user may redact the event: users of its sender's server may, and who has the power.
    fn may_redact(&self, user: User, room: usize, target: &str) -> bool {
        let sent = self.acknowledged.iter().find(|event| event.event_id == target);
        if sent.is_some_and(|event| event.user.server == user.server) {
            return true;
        }
        let user_id = self.user_id(user);
        let state = |kind: &str, is_whole: bool| -> Value {
            let view = RoomStateEvent {
                room_id: self.rooms[room].id.clone(),
                user_id: user_id.clone(),
                kind: kind.to_owned(),
                state_key: String::new(),
                is_whole,
            };
            let state = self.servers[user.server].engine().read(&view).unwrap_or_default();
            serde_json::from_slice(&state).unwrap_or_default()
        };
        let levels = state("m.room.power_levels", false);
        let own = levels["users"][user_id.as_str()].as_i64().or(levels["users_default"].as_i64());
        let has_power = own.unwrap_or_default() >= levels["redact"].as_i64().unwrap_or(50);
        // In the newest versions who made the room has all power.
        has_power || state("m.room.create", true)["sender"] == user_id.as_str()
    }

    /// Judges what a user was shown.
    pub(super) fn judge_reading(&mut self, user: User, room: usize, reading: &Reading) -> Result<(), Breach> {
        let user_id = self.user_id(user);
        let mut seen = BTreeSet::new();
        for event in &reading.events {
            self.check_shown(&user_id, event)?;
            if !seen.insert(id_of(event)) {
                let what = format!("{user_id} reads {} twice", self.event_name(id_of(event)));
                return Err(Breach::new("once", what));
            }
        }
        let event_ids: Vec<String> = reading.events.iter().map(|event| id_of(event).to_owned()).collect();
        self.check_causes(user, &event_ids)?;
        let is_in = self.joined(user.server, &user_id).contains(&room);
        let is_sure = is_in && !self.is_undone(room);
        if let Some(earlier) = self.past.shown.get(&(room, user)) {
            if let Some((one, other)) = in_other_order(&earlier.event_ids, &event_ids) {
                let (one, other) = (self.event_name(one), self.event_name(other));
                let what = format!("{user_id} reads {one} and {other} in another order than before");
                return Err(Breach::new("history order", what));
            }
            let is_gone = |event_id: &&String| !event_ids.contains(event_id);
            let gone = earlier.lasting.iter().find(is_gone).filter(|_| is_sure && reading.is_whole);
            if let Some(gone) = gone {
                let what = format!("{user_id} was shown {}, and is not any more", self.event_name(gone));
                return Err(Breach::new("history", what));
            }
        }
        // What came while members were missing is judged again, and may be taken back.
        let lasts = is_sure && !self.lacks_members(user.server, room)?;
        let lasting = reading.events.iter().filter(|event| lasts && !is_redaction(event));
        let lasting = lasting.map(|event| id_of(event).to_owned()).collect();
        self.past.shown.insert((room, user), Shown { event_ids, lasting });
        Ok(())
    }

    /// What is shown was sent, and as it is shown.
    fn check_shown(&self, user_id: &str, event: &Value) -> Result<(), Breach> {
        let event_id = id_of(event);
        let home = event["sender"].as_str().and_then(|sender| Some(sender.split_once(':')?.1));
        let home = home.and_then(|home| self.index(home));
        // A membership may be one that another server has let in, and whose own never heard of that.
        if let Some(home) = home
            && event["type"] != "m.room.member"
        {
            let event_ids: [Arc<str>; 1] = [Arc::from(event_id)];
            let unknown = self.servers[home].engine().read(&UnknownEvents { event_ids: &event_ids });
            if !unknown.map_err(|error| Breach::new("shown", error))?.is_empty() {
                let what = format!("{user_id} is shown {event_id}, which nobody has sent");
                return Err(Breach::new("shown", what));
            }
        }
        let said = self.past.said.get(event_id).filter(|said| **said != event["content"]);
        if said.is_some() && !is_redaction(event) && !self.past.redacted.contains(event_id) {
            let (name, shown) = (self.event_name(event_id), &event["content"]);
            let what = format!("{user_id} is shown {name} with {shown}, and nobody who may has redacted it");
            return Err(Breach::new("content", what));
        }
        Ok(())
    }

    /// What was read in stands before what follows it.
    fn check_causes(&self, user: User, event_ids: &[String]) -> Result<(), Breach> {
        let places: BTreeMap<&str, usize> =
            event_ids.iter().enumerate().map(|(place, event_id)| (event_id.as_str(), place)).collect();
        for (event_id, place) in &places {
            let told = self.past.prev_events.get(*event_id).into_iter().flatten();
            for prev in told.chain(self.ledger.prev_events(event_id)) {
                // The latest comes first.
                let is_behind = places.get(&**prev).is_some_and(|of_prev| of_prev < place);
                if is_behind && self.past.is_bound(user.server, event_id, prev) {
                    let (event, prev) = (self.event_name(event_id), self.event_name(prev));
                    let what =
                        format!("{} reads {event} before {prev}, which it follows", self.user_id(user));
                    return Err(Breach::new("history order", what));
                }
            }
        }
        Ok(())
    }

    /// Whether somebody was in the room again who had left it, of which everything is undone: what was shown of it as well.
    fn is_undone(&self, room: usize) -> bool {
        self.ledger.revived.iter().any(|(revived, _)| *revived == room)
    }

    /// At rest: everybody who is in a room reads it to its start, and is shown what they may see.
    pub(super) fn check_history(&mut self) -> Result<(), Breach> {
        for room in 0..self.rooms.len() {
            for user in self.plan.users() {
                let user_id = self.user_id(user);
                let is_in = self.joined(user.server, &user_id).contains(&room);
                if !is_in || self.lacks_some(user.server, room) {
                    continue;
                }
                let read = self.read_back(user, room, (usize::MAX, usize::MAX))?;
                let reading = read.map_err(|why| Breach::new("history", format!("{user_id}: {why}")))?;
                if !reading.is_whole {
                    let what = format!("{user_id} does not come to the start of room {}", room + 1);
                    return Err(Breach::new("history", what));
                }
                if !self.is_undone(room) {
                    self.compare_with_others(user, room, &reading)?;
                }
            }
        }
        for server in &self.servers {
            server.check()?;
        }
        self.check_states()
    }

    /// What a user has read is what each other server would show them that takes theirs to be in the room, and them.
    fn compare_with_others(&self, user: User, room: usize, reading: &Reading) -> Result<(), Breach> {
        let user_id = self.user_id(user);
        for other in self.servers_in_room(user.server, room) {
            let is_mutual = other != user.server && self.servers_in_room(other, room).contains(&user.server);
            let knows = is_mutual && self.joined(other, &user_id).contains(&room);
            if knows && !self.lacks_some(other, room) && !self.are_apart(room, user.server, other) {
                self.compare_with(user, room, other, reading)?;
            }
        }
        Ok(())
    }

    fn compare_with(&self, user: User, room: usize, other: usize, reading: &Reading) -> Result<(), Breach> {
        let (user_id, name) = (self.user_id(user), SERVER_NAMES[other]);
        let shown: BTreeMap<&str, &Value> =
            reading.events.iter().map(|event| (id_of(event), event)).collect();
        let by_other = self.shown_by(other, user, room)?;
        let by_other: BTreeMap<&str, &Value> = by_other.iter().map(|event| (id_of(event), event)).collect();
        let led_to = self.led_to(user.server, other, room)?;
        // Whether a redaction is told depends on what it redacts, and on what is known of that. Of what none of its own users may see a server
        // has been told no words.
        for (event_id, event) in by_other.iter().filter(|(_, event)| !is_redaction(event)) {
            let event_name = || self.event_name(event_id);
            match shown.get(event_id) {
                Some(own)
                    if own["content"] != event["content"]
                        && is_by_user_of(event, name)
                        && !self.past.redacted.contains(*event_id) =>
                {
                    let what = format!("{user_id} is shown {} in other words than by {name}", event_name());
                    return Err(Breach::new("content", what));
                }
                Some(_) => {}
                None if !led_to.contains(*event_id) || self.is_set_aside(user.server, event_id)? => {}
                None => {
                    let what =
                        format!("{user_id} reads back, and {}, which {name} has, is not there", event_name());
                    return Err(Breach::new("history", what));
                }
            }
        }
        for (event_id, _) in shown.iter().filter(|(_, event)| !is_redaction(event)) {
            if !by_other.contains_key(event_id) && self.is_accepted(other, event_id)? {
                let what = format!("{user_id} is shown {}, which {name} hides", self.event_name(event_id));
                return Err(Breach::new("visible", what));
            }
        }
        Ok(())
    }

    /// The events that the ends of a room on a server lead to by what another one tells it.
    fn led_to(&self, server: usize, other: usize, room: usize) -> Result<BTreeSet<Arc<str>>, Breach> {
        let Some(frontier) = self.frontier(server, room)? else { return Ok(BTreeSet::new()) };
        let ends: Vec<Arc<str>> = frontier.extremities.into_iter().map(|event| event.event_id).collect();
        let mut told: BTreeMap<Arc<str>, Vec<Arc<str>>> = BTreeMap::new();
        let (mut asked, mut wanted) = (BTreeSet::new(), ends.clone());
        while !wanted.is_empty() {
            asked.extend(wanted.iter().cloned());
            for event_ids in wanted.chunks(ASKED_AT_ONCE) {
                let page = self.told_by(other, server, room, (frontier.version, event_ids));
                told.extend(page.into_iter().map(|(pdu, _)| (pdu.event_id, pdu.prev_events)));
            }
            let before: BTreeSet<&Arc<str>> = told.values().flatten().collect();
            let is_open = |event_id: &&Arc<str>| !told.contains_key(*event_id) && !asked.contains(*event_id);
            wanted = before.into_iter().filter(is_open).cloned().collect();
        }
        let (mut found, mut next) = (BTreeSet::new(), ends);
        while let Some(event_id) = next.pop() {
            let Some(before) = told.get(&event_id) else { continue };
            if found.insert(event_id) {
                next.extend(before.iter().cloned());
            }
        }
        Ok(found)
    }

    /// Whether the event is part of the graph and shown to nobody: soft-failed, or rejected.
    fn is_set_aside(&self, server: usize, event_id: &str) -> Result<bool, Breach> {
        let event_ids: [Arc<str>; 1] = [Arc::from(event_id)];
        let missing = self.servers[server].engine().read(&EventsNotInGraph { event_ids: &event_ids });
        let missing = missing.map_err(|error| Breach::new("history", error))?;
        Ok(missing.is_empty() && !self.is_accepted(server, event_id)?)
    }

    fn is_accepted(&self, server: usize, event_id: &str) -> Result<bool, Breach> {
        let accepted = self.servers[server].engine().read(&IsAccepted { event_id });
        accepted.map_err(|error| Breach::new("history", error))
    }
}

fn id_of(event: &Value) -> &str {
    event["event_id"].as_str().unwrap_or_default()
}

fn is_redaction(event: &Value) -> bool {
    event["type"] == "m.room.redaction"
}

fn is_by_user_of(event: &Value, server_name: &str) -> bool {
    event["sender"]
        .as_str()
        .and_then(|sender| sender.split_once(':'))
        .is_some_and(|(_, name)| name == server_name)
}

/// Two events that both readings have, one behind the other in the first, and not in the second.
fn in_other_order<'a>(earlier: &'a [String], later: &[String]) -> Option<(&'a str, &'a str)> {
    let place = |event_id: &'a String| Some((event_id.as_str(), later.iter().position(|id| id == event_id)?));
    let places: Vec<(&str, usize)> = earlier.iter().filter_map(place).collect();
    let turned = places.windows(2).find(|pair| pair[0].1 > pair[1].1)?;
    Some((turned[0].0, turned[1].0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn read_in(past: &mut Past, server: usize, names: &[&str]) {
        let outcomes: BTreeMap<Arc<str>, Outcome> =
            names.iter().map(|name| (Arc::from(*name), Outcome::Accepted)).collect();
        past.note_read_in(server, Vec::new(), std::iter::empty(), &outcomes);
    }

    #[test]
    fn what_comes_between_is_no_other_order() {
        let earlier = ids(&["d", "c", "a"]);
        assert_eq!(in_other_order(&earlier, &ids(&["e", "d", "c", "b", "a"])), None);
        assert_eq!(in_other_order(&earlier, &ids(&["d", "a"])), None, "what is gone has no order");
        assert_eq!(in_other_order(&earlier, &ids(&["d", "a", "b", "c"])), Some(("c", "a")));
    }

    #[test]
    fn what_is_read_in_is_bound_to_what_follows_it_unless_that_came_before_on_another_page() {
        let mut past = Past::default();
        read_in(&mut past, 0, &["first", "second"]);
        read_in(&mut past, 0, &["third"]);
        assert!(past.is_bound(0, "second", "first"), "they came together");
        assert!(past.is_bound(0, "live", "first"), "what came live stands behind the gap");
        assert!(!past.is_bound(0, "third", "first"), "what comes later stands below what is there");
        assert!(!past.is_bound(0, "first", "live"), "what comes live late stands where it comes");
        assert!(!past.is_bound(1, "second", "first"), "another server has them as they came");
    }
}
