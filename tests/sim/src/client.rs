//! A client that syncs, and believes nothing but what it is sent.
//!
//! It keeps what it was sent: each room's timeline in order, and its state with every `state_after` applied. After each
//! sync its state must be the server's. Half of the clients take only a few events at a time and fill gaps by paging back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;
use warren_engine::{
    Engine,
    core::filter::{Filter, RoomEventFilter},
    view::{JoinedRooms, Messages, RoomState, StreamToken, Sync, SyncToken, federation::PartialRooms},
};

use crate::{
    keyring::Keyring,
    world::{Breach, DEVICE},
};

/// Events that a client takes at once, if it takes all there are.
const WIDE: u32 = 1_000;
/// Events that a client takes at once, if it is to have gaps.
const NARROW: u32 = 3;

/// State by (type, state key), as event ids.
pub type StateMap = BTreeMap<(String, String), String>;

/// A user's client.
pub struct Client {
    /// The user.
    pub user_id: String,
    /// What it knows of rooms, by id.
    pub rooms: BTreeMap<String, ClientRoom>,
    /// What it knows of others' devices.
    pub keyring: Keyring,
    is_wide: bool,
    /// Whether its server may lack events, so that there are gaps also for who takes all there are.
    may_have_gaps: bool,
    filter: Arc<Filter>,
    since: Option<SyncToken>,
}

/// What a client knows of a room.
#[derive(Default)]
pub struct ClientRoom {
    /// Whether its user is in the room.
    pub is_joined: bool,
    /// The events since the user came in, as far as it was sent them.
    pub timeline: Vec<String>,
    /// The room's state.
    pub state: StateMap,
    /// Tokens and how many events of the timeline came before each.
    tokens: Vec<(SyncToken, usize)>,
}

impl Client {
    /// The client of a user.
    pub fn new(user_id: String, number: usize, may_have_gaps: bool) -> Self {
        let is_wide = number.is_multiple_of(2);
        let limit = if is_wide { WIDE } else { NARROW };
        let filter = format!(r#"{{"room":{{"timeline":{{"limit":{limit}}}}}}}"#);
        let filter = Arc::new(Filter::parse(filter.as_bytes()).expect("the filter is right"));
        let (rooms, keyring) = (BTreeMap::new(), Keyring::default());
        Self { user_id, rooms, keyring, is_wide, may_have_gaps, filter, since: None }
    }

    /// Syncs once, and compares. Answers how many new events it was sent, and all that it saw for the first time in this
    /// answer as (room, event).
    pub fn sync(&mut self, engine: &Engine) -> Result<Vec<(String, String)>, Breach> {
        let (body, token) = self.ask(engine, self.since)?;
        let mut seen = Vec::new();
        self.keyring.take(&body["device_lists"]);
        for (room_id, room) in members(&body["rooms"]["join"]) {
            let is_new = !self.rooms.get(room_id).is_some_and(|known| known.is_joined);
            if is_new {
                let fresh = ClientRoom { is_joined: true, ..ClientRoom::default() };
                self.rooms.insert(room_id.to_owned(), fresh);
            }
            self.take(engine, room_id, room, (true, is_new), &mut seen)?;
        }
        for (room_id, room) in members(&body["rooms"]["leave"]) {
            let was_joined = self.rooms.get(room_id).is_some_and(|known| known.is_joined);
            if was_joined {
                self.take(engine, room_id, room, (false, false), &mut seen)?;
            } else {
                seen.extend(event_ids(room).map(|event_id| (room_id.to_owned(), event_id.to_owned())));
            }
            self.rooms.entry(room_id.to_owned()).or_default().is_joined = false;
        }
        // Who has left, and is invited again, is only told of that.
        for kind in ["invite", "knock"] {
            for (room_id, _) in members(&body["rooms"][kind]) {
                self.rooms.entry(room_id.to_owned()).or_default().is_joined = false;
            }
        }
        // It loads no members lazily, so that it is given such a room anew once that is whole.
        for room_id in left_out(engine).map_err(|error| self.breach("sync", error))? {
            if let Some(room) = self.rooms.get_mut(&room_id) {
                room.is_joined = false;
            }
        }
        self.since = Some(token);
        for room in self.rooms.values_mut().filter(|room| room.is_joined) {
            room.tokens.push((token, room.timeline.len()));
        }
        self.compare(engine)?;
        Ok(seen)
    }

    /// The numbers of the messages that wait for the user's device, in order.
    pub fn messages(&self, engine: &Engine) -> Result<Vec<usize>, Breach> {
        let (body, _) = self.ask_as(engine, Some(DEVICE.to_owned()), None)?;
        let events = list(&body["to_device"]["events"]);
        Ok(events.filter_map(|event| Some(event["content"]["number"].as_u64()? as usize)).collect())
    }

    /// As what the user is shown a room that they are not in: invited to it, or knocking.
    pub fn shown_outside(&self, engine: &Engine, room_id: &str) -> Result<Option<&'static str>, Breach> {
        let (body, _) = self.ask(engine, None)?;
        let shown = |kind: &&str| body["rooms"][kind].get(room_id).is_some();
        Ok(["invite", "knock"].into_iter().find(shown))
    }

    fn ask(&self, engine: &Engine, since: Option<SyncToken>) -> Result<(Value, SyncToken), Breach> {
        self.ask_as(engine, None, since)
    }

    fn ask_as(
        &self,
        engine: &Engine,
        device_id: Option<String>,
        since: Option<SyncToken>,
    ) -> Result<(Value, SyncToken), Breach> {
        let sync = Sync {
            user_id: self.user_id.clone(),
            device_id,
            since,
            filter: self.filter.clone(),
            full_state: false,
            state_after: Some("state_after"),
            waits: false,
        };
        let answer = engine.read(&sync).map_err(|error| self.breach("sync", error))?;
        let body = serde_json::from_slice(&answer.body).map_err(|error| self.breach("sync", error))?;
        Ok((body, answer.token))
    }

    /// Takes in one room of an answer.
    fn take(
        &mut self,
        engine: &Engine,
        room_id: &str,
        room: &Value,
        (is_in, is_new): (bool, bool),
        seen: &mut Vec<(String, String)>,
    ) -> Result<(), Breach> {
        let mut events: Vec<String> = event_ids(room).map(str::to_owned).collect();
        if room["timeline"]["limited"] == true && !is_new {
            if self.is_wide && !self.may_have_gaps {
                return Err(self.breach("gap", format!("a gap in {room_id} for who takes all events")));
            }
            match self.fill_gap(engine, room_id, &room["timeline"]["prev_batch"]) {
                Ok(mut earlier) => {
                    earlier.append(&mut events);
                    events = earlier;
                }
                Err(breach) if is_in => return Err(breach),
                // Who has forgotten the room may not look back.
                Err(_) => {}
            }
        }
        let user_id = self.user_id.clone();
        let known = self.rooms.entry(room_id.to_owned()).or_default();
        for event_id in events {
            if known.timeline.contains(&event_id) {
                let what = format!("{user_id} is sent {event_id} twice");
                return Err(Breach::new("once", what));
            }
            seen.push((room_id.to_owned(), event_id.clone()));
            known.timeline.push(event_id);
        }
        for event in list(&room["state_after"]["events"]) {
            let key = (text(&event["type"]), text(&event["state_key"]));
            known.state.insert(key, text(&event["event_id"]));
        }
        Ok(())
    }

    /// The events between what the client has and a limited timeline.
    fn fill_gap(&self, engine: &Engine, room_id: &str, prev_batch: &Value) -> Result<Vec<String>, Breach> {
        let from = StreamToken::decode(prev_batch.as_str().unwrap_or_default());
        let from = from.map_err(|error| self.breach("sync", error))?;
        let to = self.since.map(|since| StreamToken(since.pos));
        let mut events = self.page(engine, room_id, Some(from), to, false)?;
        events.reverse();
        Ok(events)
    }

    fn page(
        &self,
        engine: &Engine,
        room_id: &str,
        from: Option<StreamToken>,
        to: Option<StreamToken>,
        forwards: bool,
    ) -> Result<Vec<String>, Breach> {
        let mut messages = Messages {
            room_id: room_id.to_owned(),
            user: self.user_id.clone(),
            device: None,
            from,
            to,
            forwards,
            limit: Some(WIDE),
            filter: RoomEventFilter::default(),
        };
        let mut found = Vec::new();
        // A page ends at a gap, and the next one begins beyond.
        loop {
            let page = engine.read(&messages).map_err(|error| self.breach("messages", error))?;
            let page: Value =
                serde_json::from_slice(&page).map_err(|error| self.breach("messages", error))?;
            found.extend(list(&page["chunk"]).map(|event| text(&event["event_id"])));
            let Some(end) = page["end"].as_str() else { return Ok(found) };
            let end = StreamToken::decode(end).map_err(|error| self.breach("messages", error))?;
            messages.from = Some(end);
        }
    }

    /// Everything in the room's timeline that the user may see, oldest first; `None` for who may not look into it.
    pub fn whole_timeline(&self, engine: &Engine, room_id: &str) -> Option<Vec<String>> {
        self.page(engine, room_id, None, None, true).ok()
    }

    /// Whether the client's rooms and their states are the server's, but for those that lack members.
    fn compare(&self, engine: &Engine) -> Result<(), Breach> {
        let joined = engine.read(&JoinedRooms { user_id: self.user_id.clone() });
        let joined = joined.map_err(|error| self.breach("joined rooms", error))?;
        let left_out = left_out(engine).map_err(|error| self.breach("joined rooms", error))?;
        let mut joined: Vec<&str> = joined.iter().map(|room_id| &**room_id).collect();
        joined.retain(|room_id| !left_out.iter().any(|left_out| left_out == room_id));
        joined.sort_unstable();
        let known = self.rooms.iter().filter(|(_, room)| room.is_joined);
        let known: Vec<&str> = known.map(|(room_id, _)| room_id.as_str()).collect();
        if joined != known {
            let what = format!("the client knows {known:?}, the server {joined:?}");
            return Err(self.breach("joined rooms", what));
        }
        for room_id in joined {
            let current = current_state(engine, room_id, &self.user_id)
                .map_err(|error| self.breach("client state", error))?;
            let known = &self.rooms[room_id].state;
            for (key, event_id) in &current {
                if known.get(key) != Some(event_id) {
                    let what = format!("{key:?} is {event_id}, the client has {:?}", known.get(key));
                    return Err(self.breach("client state", what));
                }
            }
        }
        Ok(())
    }

    /// What must hold when everything has been synced: nothing more comes, the timeline is the end of what paging shows,
    /// and whoever asks again from an earlier token is sent the same. What the server has `read_in` of the past may stand between,
    /// for clients are not told of it.
    pub fn finish(&mut self, engine: &Engine, read_in: &BTreeSet<&str>) -> Result<(), Breach> {
        if !self.sync(engine)?.is_empty() {
            return Err(self.breach("quiet", "something is new after everything was synced"));
        }
        for (room_id, room) in self.rooms.iter().filter(|(_, room)| room.is_joined) {
            let mut whole = self.page(engine, room_id, None, None, true)?;
            whole.retain(|event_id| room.timeline.contains(event_id) || !read_in.contains(&**event_id));
            if !whole.ends_with(&room.timeline) {
                let what = format!("paging shows {whole:?}, syncing {:?}", room.timeline);
                return Err(self.breach("timeline", what));
            }
            // The first token, and one from the middle.
            for (token, count) in
                [room.tokens.first(), room.tokens.get(room.tokens.len() / 2)].into_iter().flatten()
            {
                if self.is_wide {
                    self.replay(engine, room_id, *token, (&room.timeline[*count..], read_in))?;
                }
            }
        }
        Ok(())
    }

    fn replay(
        &self,
        engine: &Engine,
        room_id: &str,
        since: SyncToken,
        (expected, read_in): (&[String], &BTreeSet<&str>),
    ) -> Result<(), Breach> {
        let (body, _) = self.ask(engine, Some(since))?;
        let mut sent: Vec<&str> = event_ids(&body["rooms"]["join"][room_id]).collect();
        sent.retain(|event_id| expected.iter().any(|known| known == event_id) || !read_in.contains(event_id));
        // Behind a gap the same tokens lead to the events after it.
        let is_limited = body["rooms"]["join"][room_id]["timeline"]["limited"] == true;
        let is_same = if is_limited && self.may_have_gaps {
            sent.len() <= expected.len() && expected[expected.len() - sent.len()..] == sent
        } else {
            sent == expected
        };
        if !is_same {
            let what = format!("from {since} again {sent:?} instead of {expected:?}");
            return Err(self.breach("replay", what));
        }
        Ok(())
    }

    fn breach(&self, rule: &'static str, what: impl ToString) -> Breach {
        Breach::new(rule, format!("{}: {}", self.user_id, what.to_string()))
    }
}

/// The rooms that lack members on a server.
fn left_out(engine: &Engine) -> Result<Vec<String>, warren_engine::Error> {
    let lacking = engine.read(&PartialRooms)?.into_iter().filter(|room| !room.is_past);
    Ok(lacking.map(|room| room.room_id).collect())
}

/// The room's state as its server tells a member.
pub fn current_state(engine: &Engine, room_id: &str, user_id: &str) -> Result<StateMap, String> {
    let view = RoomState { room_id: room_id.to_owned(), user_id: user_id.to_owned() };
    let state = engine.read(&view).map_err(|error| error.to_string())?;
    let state: Value = serde_json::from_slice(&state).map_err(|error| error.to_string())?;
    let entry = |event: &Value| ((text(&event["type"]), text(&event["state_key"])), text(&event["event_id"]));
    Ok(list(&state).map(entry).collect())
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn event_ids(room: &Value) -> impl Iterator<Item = &str> {
    list(&room["timeline"]["events"]).filter_map(|event| event["event_id"].as_str())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
