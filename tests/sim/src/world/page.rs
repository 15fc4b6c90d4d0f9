//! A user reads a room's history backwards, page by page, and their server asks others for what is missing in the gaps that the
//! pages run into.
//!
//! Where a gap is, what is missing there, what of an answer is taken in and where it stands, and what that takes, the engine
//! says. Whom to ask, and for what next, is decided by the server's task (`out/history.rs`); here it is the plain choice: all who are
//! in the room, in one order, for what is missing and then for what that follows, ten events at a time, and what they tell is taken
//! in together. What a server remembers of those that it asked in vain is not played.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use serde_json::{Value, json};
use warren_engine::{
    Error, Outcome,
    core::{checked::Refused, event::Pdu, filter::RoomEventFilter, version::RoomVersion},
    fetching::servers_to_ask,
    intake::Intake,
    view::{
        BeforeGap, HistoryGap, Messages, StreamToken,
        federation::{
            BACKFILL_LIMIT_MAX, Backfill, EventsNotInGraph, IncomingRoom, PartialRoom, PartialRooms,
        },
    },
};

use super::{Breach, Plant, SERVER_NAMES, World, join::Failed, take_in::Asking};
use crate::{
    client::StateMap,
    plan::{Trouble, User},
};

/// Events on a page: few, so that pages begin and end at gaps and in them.
const PAGE_EVENTS: u32 = 5;
/// Events on a page where gaps do not matter.
const WIDE_PAGE_EVENTS: u32 = 100;
/// Pages that nobody reads on from: a room of a run has fewer events.
const PAGES_MAX: usize = 1_000;
/// Rounds of asking for one page, as in `out/history.rs`.
const ROUNDS_MAX: usize = 50;
/// Events that are asked for in one request, as in `out/history.rs`.
const MISSING_MAX: usize = 10;

/// What a user has read.
#[derive(Default)]
pub(super) struct Reading {
    /// The events as the client is given them, the latest first.
    pub events: Vec<Value>,
    /// Whether it goes back to the start of what there is.
    pub is_whole: bool,
}

/// What has become of the gaps that a page runs into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// There are none, or nobody fills them any further.
    Ended,
    /// Others are still asked: the page is to end there.
    Going,
}

/// An event as others tell it.
#[derive(Default)]
struct Told {
    prev_events: Vec<Arc<str>>,
    /// One may tell it whole, and another one without its content.
    copies: Vec<Bytes>,
}

impl World {
    /// A user reads so many pages of a room; so many questions of their server are answered before the network fails.
    pub(super) fn page_back(
        &mut self,
        user: User,
        (pick, pages): (u8, u8),
        answers: u8,
        trouble: Option<Trouble>,
    ) -> Result<(), Breach> {
        let room = usize::from(pick) % self.rooms.len().max(1);
        if room >= self.rooms.len() {
            return Ok(());
        }
        self.servers[user.server].arm(trouble);
        let read = self.read_back(user, room, (usize::from(pages), usize::from(answers)));
        self.servers[user.server].disk.disarm();
        let words = format!("{} reads back in room {}", self.user_id(user), room + 1);
        let how = match read? {
            Ok(Reading { events, is_whole: true }) => format!("{} events, to the start", events.len()),
            Ok(Reading { events, is_whole: false }) => format!("{} events", events.len()),
            Err(why) => why,
        };
        self.tell(format!("{words}: {how}"));
        Ok(())
    }

    /// Reads pages of a room, and judges what is shown; why nothing is, if that is so. Starts the server again if it dies.
    pub(super) fn read_back(
        &mut self,
        user: User,
        room: usize,
        (pages, mut answers): (usize, usize),
    ) -> Result<Result<Reading, String>, Breach> {
        let before = self.present(user.server, room)?;
        let read = self.read_pages(user, room, pages, &mut answers);
        let has_crashed = self.servers[user.server].disk.has_crashed();
        if has_crashed {
            self.servers[user.server].restart()?;
        }
        if self.present(user.server, room)? != before {
            let what = format!("what {} reads of the past changes the room's present", self.user_id(user));
            return Err(Breach::new("present", what));
        }
        match read {
            Ok(reading) => {
                self.judge_reading(user, room, &reading)?;
                Ok(Ok(reading))
            }
            Err(Failed::Refused(why)) => Ok(Err(format!("refused, {why}"))),
            Err(Failed::Stopped(_)) if has_crashed => Ok(Err("the server crashes".to_owned())),
            Err(Failed::Stopped(_)) => Ok(Err("the server fails to write".to_owned())),
            Err(Failed::Breach(breach)) => Err(breach),
        }
    }

    /// The state of a room, for who is in it, and the servers in it.
    fn present(&self, server: usize, room: usize) -> Result<(Option<StateMap>, BTreeSet<usize>), Breach> {
        Ok((self.state_on(server, room)?, self.servers_in_room(server, room)))
    }

    fn read_pages(
        &mut self,
        user: User,
        room: usize,
        pages: usize,
        answers: &mut usize,
    ) -> Result<Reading, Failed> {
        let mut messages = messages(&self.rooms[room].id, &self.user_id(user), PAGE_EVENTS);
        let mut reading = Reading::default();
        for _ in 0..pages.min(PAGES_MAX) {
            // For who may not look into the room nobody is asked.
            self.servers[user.server].engine().read(&messages)?;
            let filled = self.fill(user.server, room, messages.from, answers)?;
            let engine = self.servers[user.server].engine();
            let page = match filled {
                Filled::Ended => engine.read(&messages)?,
                Filled::Going => engine.read(&BeforeGap(&messages))?,
            };
            let Some(end) = take_page(&page, &mut reading.events).map_err(Failed::Breach)? else {
                reading.is_whole = true;
                break;
            };
            if filled == Filled::Going {
                break;
            }
            messages.from = Some(end);
        }
        Ok(reading)
    }

    /// Everything that a server shows a user of a room by what it has, the latest first.
    pub(super) fn shown_by(&self, server: usize, user: User, room: usize) -> Result<Vec<Value>, Breach> {
        let mut messages = messages(&self.rooms[room].id, &self.user_id(user), WIDE_PAGE_EVENTS);
        let mut events = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = self.servers[server].engine().read(&messages);
            let page = page.map_err(|error| Breach::new("messages", error))?;
            let Some(end) = take_page(&page, &mut events)? else { return Ok(events) };
            messages.from = Some(end);
        }
        let what = format!("{} shows {PAGES_MAX} pages, and there is more", SERVER_NAMES[server]);
        Err(Breach::new("messages", what))
    }

    /// Fills the gaps that a page runs into, as far as others help.
    fn fill(
        &mut self,
        server: usize,
        room: usize,
        from: Option<StreamToken>,
        answers: &mut usize,
    ) -> Result<Filled, Failed> {
        let room_id = self.rooms[room].id.clone();
        let limit = PAGE_EVENTS as usize;
        let page = HistoryGap { room_id: &room_id, from, to: None, forwards: false, limit };
        for _ in 0..ROUNDS_MAX {
            let engine = self.servers[server].engine();
            let Some(gap) = engine.read(&page)? else { return Ok(Filled::Ended) };
            // The state before what is filled in follows from that of the join, which is to be whole.
            if self.partial_joins(server, room)?.iter().any(|partial| !partial.is_past) {
                return Ok(Filled::Going);
            }
            let own = IncomingRoom { room_id: &room_id, server: SERVER_NAMES[server] };
            let Ok(version) = engine.read(&own) else { return Ok(Filled::Ended) };
            let missing = gap.missing.iter().map(|event_id| Arc::from(event_id.as_str())).collect();
            let told = self.told_before(server, room, (version, missing), answers)?;
            if !self.read_in(server, room, version, &told, answers)? {
                return Ok(if *answers == 0 { Filled::Going } else { Filled::Ended });
            }
        }
        Ok(Filled::Going)
    }

    /// Whether the room lacks members on the server, of this stay or an earlier one.
    pub(super) fn lacks_members(&self, server: usize, room: usize) -> Result<bool, Breach> {
        let partial = self.partial_joins(server, room).map_err(|error| Breach::new("partial", error))?;
        Ok(!partial.is_empty())
    }

    fn partial_joins(&self, server: usize, room: usize) -> Result<Vec<PartialRoom>, Error> {
        let mut partial = self.servers[server].engine().read(&PartialRooms)?;
        partial.retain(|partial| partial.room_id == self.rooms[room].id);
        Ok(partial)
    }

    /// What others tell of events and of what is before them.
    fn told_before(
        &self,
        server: usize,
        room: usize,
        (version, mut wanted): (&'static RoomVersion, Vec<Arc<str>>),
        answers: &mut usize,
    ) -> Result<BTreeMap<Arc<str>, Told>, Failed> {
        let engine = self.servers[server].engine();
        let peers = servers_to_ask(&engine, &self.rooms[room].id, std::iter::empty())?;
        let peers: Vec<usize> = peers.iter().filter_map(|peer| self.index(peer)).collect();
        let (mut told, mut asked): (BTreeMap<Arc<str>, Told>, BTreeSet<Arc<str>>) = Default::default();
        while !wanted.is_empty() {
            asked.extend(wanted.iter().cloned());
            for event_ids in wanted.chunks(MISSING_MAX) {
                for peer in peers.iter().filter(|peer| self.reaches(server, **peer)) {
                    let Some(rest) = answers.checked_sub(1) else { return Ok(told) };
                    *answers = rest;
                    for (pdu, json) in self.told_by(*peer, server, room, (version, event_ids)) {
                        let event = told.entry(pdu.event_id).or_default();
                        event.prev_events = pdu.prev_events;
                        if !event.copies.contains(&json) {
                            event.copies.push(json);
                        }
                    }
                }
            }
            let before: BTreeSet<&Arc<str>> = told.values().flat_map(|event| &event.prev_events).collect();
            let is_open = |event_id: &&Arc<str>| !told.contains_key(*event_id) && !asked.contains(*event_id);
            let before: Vec<Arc<str>> = before.into_iter().filter(is_open).cloned().collect();
            wanted = engine.read(&EventsNotInGraph { event_ids: &before })?;
        }
        Ok(told)
    }

    /// What one server tells another of events and of what is before them; nothing if it refuses.
    pub(super) fn told_by(
        &self,
        peer: usize,
        asker: usize,
        room: usize,
        (version, event_ids): (&RoomVersion, &[Arc<str>]),
    ) -> Vec<(Pdu, Bytes)> {
        let view = Backfill {
            room_id: self.rooms[room].id.clone(),
            from: event_ids.iter().map(|event_id| event_id.to_string()).collect(),
            limit: BACKFILL_LIMIT_MAX,
            server: SERVER_NAMES[asker].to_owned(),
        };
        let mut page = self.servers[peer].engine().read(&view).unwrap_or_default();
        if self.plant == Plant::StingyTeller {
            page = page.iter().map(without_words).collect();
        }
        page.into_iter().filter_map(|json| Some((Pdu::parse_history(version, &json).ok()?, json))).collect()
    }

    /// Takes in what others told. Answers whether any of it could be.
    fn read_in(
        &mut self,
        server: usize,
        room: usize,
        version: &'static RoomVersion,
        told: &BTreeMap<Arc<str>, Told>,
        answers: &mut usize,
    ) -> Result<bool, Failed> {
        if told.is_empty() || self.plant == Plant::LazyReader {
            return Ok(false);
        }
        let (engine, room_id) = (self.servers[server].engine(), self.rooms[room].id.clone());
        let servers = servers_to_ask(&engine, &room_id, std::iter::empty())?;
        let event_ids: Vec<Arc<str>> = told.keys().cloned().collect();
        let new = engine.read(&EventsNotInGraph { event_ids: &event_ids })?;
        let pdus = told.values().flat_map(|event| event.copies.iter().cloned()).collect();
        let mut intake = Intake::of_history(room_id, version, pdus);
        let mut asking = Asking { servers: &servers, answers: *answers };
        let driven = self.drive(server, &mut intake, &mut asking);
        *answers = asking.answers;
        let follows = told.iter().map(|(event_id, event)| (event_id.clone(), event.prev_events.clone()));
        self.past.note_read_in(server, new, follows, &intake.outcomes);
        self.judge_history(server, &intake.outcomes).map_err(Failed::Breach)?;
        driven?;
        Ok(intake.outcomes.values().any(|outcome| {
            use Outcome::{Accepted, NotRecommended, Past, Rejected};
            matches!(outcome, Accepted | Rejected(_) | NotRecommended | Past)
        }))
    }

    /// What honest servers tell of the past must not be rejected, nor refused but for that nothing here leads to it.
    fn judge_history(&self, server: usize, outcomes: &BTreeMap<Arc<str>, Outcome>) -> Result<(), Breach> {
        for (event_id, outcome) in outcomes {
            let why = match outcome {
                Outcome::Rejected(denied) => denied.to_string(),
                Outcome::Refused(refused) if *refused != Refused::Unrelated => refused.to_string(),
                _ => continue,
            };
            let (name, own) = (self.event_name(event_id), SERVER_NAMES[server]);
            return Err(Breach::new("rejected", format!("{name} is refused as history by {own}: {why}")));
        }
        Ok(())
    }
}

/// The latest page of a room.
fn messages(room_id: &str, user_id: &str, limit: u32) -> Messages {
    Messages {
        room_id: room_id.to_owned(),
        user: user_id.to_owned(),
        device: None,
        from: None,
        to: None,
        forwards: false,
        limit: Some(limit),
        filter: RoomEventFilter::default(),
    }
}

/// Takes the events of a page. Answers where to go on.
fn take_page(page: &[u8], events: &mut Vec<Value>) -> Result<Option<StreamToken>, Breach> {
    let page: Value = serde_json::from_slice(page).map_err(|error| Breach::new("messages", error))?;
    events.extend(page["chunk"].as_array().into_iter().flatten().cloned());
    let end = page["end"].as_str().map(StreamToken::decode).transpose();
    end.map_err(|error| Breach::new("messages", error))
}

/// A message as who may not see it is told of it.
fn without_words(json: &Bytes) -> Bytes {
    match serde_json::from_slice::<Value>(json) {
        Ok(mut event) if event["type"] == "m.room.message" => {
            event["content"] = json!({});
            event.to_string().into()
        }
        _ => json.clone(),
    }
}
