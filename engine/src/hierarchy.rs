//! A walk through a space and the spaces in it, for a user of this server: depth first, each room once.
//!
//! Invariant: a room is shown only if its user may see it, whoever told of it; of rooms that this server is in, only this
//! server tells. It asks nobody itself: whoever drives it asks the servers that it names, and says what they told. It can
//! be kept between two pages; what it has listed by then stays listed, while who may see a room, and what, is told when it is shown.
//! Specification: client-server API, `GET /rooms/{roomId}/hierarchy`.

mod told;

use std::{collections::HashSet, sync::Arc};

use crate::{
    engine::Engine,
    error::{Error, Result},
    room::{SpaceChild, SpaceRoom},
    view::{
        IsShownElsewhere, KnownRoom, RoomOfSpace,
        federation::{IncomingRoom, WayIntoRoom},
    },
};

pub use told::ToldSpace;

/// How deep a walk goes at most: far deeper than anybody nests spaces.
pub const DEPTH_MAX: usize = 50;

/// Rooms of one walk, those that are hidden from the user included: more than the largest communities have. Each takes some
/// hundred bytes between two pages.
const ROOMS_MAX: usize = 5_000;

/// What a walk may hold between two pages before it forgets what was told beside spaces, to ask anew: four times what the
/// rooms of the largest spaces take.
const PAUSED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a room takes besides its names.
const PLACE_BYTES: usize = 150;

/// Servers by which the first room may be found.
const VIA_MAX: usize = 10;

/// Rooms that other servers are asked for at once.
pub const QUESTIONS_MAX: usize = 10;

/// How far a walk looks ahead for them.
const LOOK_AHEAD_MAX: usize = 100;

/// A walk. A clone of it goes on from the same place.
#[derive(Clone)]
pub struct Walk {
    user_id: String,
    suggested_only: bool,
    depth_max: usize,
    /// What is to be looked at, the next one last.
    ahead: Vec<Place>,
    /// The rooms that were shown, or will not be.
    seen: HashSet<Arc<str>>,
}

/// A room where a space lists it.
#[derive(Clone)]
struct Place {
    room_id: Arc<str>,
    via: Arc<[String]>,
    depth: usize,
    /// What a server said of it that told of the space.
    beside: Option<Arc<SpaceRoom>>,
    /// What the servers said that were asked for it; nothing in it if none helps.
    told: Option<Option<Arc<ToldSpace>>>,
    /// It is to be shown next.
    found: Option<Arc<SpaceRoom>>,
}

/// What servers are to be asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The room.
    pub room_id: Arc<str>,
    /// The servers that may know it.
    pub via: Arc<[String]>,
    /// Whether only the suggested of its rooms are wanted.
    pub suggested_only: bool,
}

/// How it goes on.
#[derive(Debug)]
pub enum Next {
    /// The next room can be taken.
    Room,
    /// Ask about these rooms, side by side, and say what came of each. The first is needed now, the others soon.
    Ask(Vec<Question>),
    /// There are no more.
    Over,
}

impl Walk {
    /// A walk from a room on, which is the first that is shown, if it may be. This server need not be in it.
    ///
    /// Errors: those of the store.
    pub fn new(
        engine: &Engine,
        room_id: &str,
        user_id: &str,
        suggested_only: bool,
        depth_max: usize,
    ) -> Result<Self> {
        let mut via = engine.read(&WayIntoRoom { room_id, user_id, named: &[] })?.servers;
        via.truncate(VIA_MAX);
        let root = Place {
            room_id: room_id.into(),
            via: via.into(),
            depth: 0,
            beside: None,
            told: None,
            found: None,
        };
        let (user_id, depth_max) = (user_id.to_owned(), depth_max.min(DEPTH_MAX));
        Ok(Self { user_id, suggested_only, depth_max, ahead: vec![root], seen: HashSet::new() })
    }

    /// Ends a page: what was told can be long, and is asked for anew. What spaces list is kept, and so is what was told
    /// beside them, if it is not too much.
    pub fn end_page(&mut self) {
        for place in &mut self.ahead {
            place.told = place.told.take().filter(Option::is_none);
            place.found = None;
        }
        if self.size() > PAUSED_BYTES_MAX {
            self.ahead.iter_mut().for_each(|place| place.beside = None);
        }
    }

    /// About how many bytes it takes between two pages.
    pub fn size(&self) -> usize {
        let seen = self.seen.iter().map(|room_id| PLACE_BYTES + room_id.len());
        seen.chain(self.ahead.iter().map(Place::size)).sum()
    }

    /// Goes on to the next room that the user is shown.
    ///
    /// Errors: those of the store.
    pub fn advance(&mut self, engine: &Engine) -> Result<Next> {
        loop {
            let Some(place) = self.ahead.last() else { return Ok(Next::Over) };
            if place.found.is_some() {
                return Ok(Next::Room);
            }
            if self.seen.contains(&place.room_id) {
                self.ahead.pop();
                continue;
            }
            let (room_id, user_id) = (&*place.room_id, &*self.user_id);
            let view = RoomOfSpace { room_id, user_id, suggested_only: self.suggested_only };
            let found = match engine.read(&view)? {
                KnownRoom::Shown(room) => Some(room),
                KnownRoom::Hidden => None,
                KnownRoom::Elsewhere if self.is_to_be_asked_for(place) => {
                    return Ok(Next::Ask(self.questions(engine)?));
                }
                KnownRoom::Elsewhere => match place.told_room() {
                    Some(room) => engine.read(&IsShownElsewhere { room: &room, user_id })?.then_some(room),
                    None => {
                        // Another space may list it with servers that do help.
                        self.ahead.pop();
                        continue;
                    }
                },
            };
            match (found, self.ahead.last_mut()) {
                (Some(room), Some(place)) => place.found = Some(room),
                _ => self.pass_over(),
            }
        }
    }

    /// Takes the room that [`Walk::advance`] has come to.
    pub fn take(&mut self) -> Option<Arc<SpaceRoom>> {
        let place = self.ahead.pop_if(|place| place.found.is_some())?;
        let room = place.found?;
        self.seen.insert(place.room_id);
        if place.depth < self.depth_max {
            let told = place.told.flatten();
            let left = ROOMS_MAX.saturating_sub(self.ahead.len() + self.seen.len());
            let children = room.children_state.iter().flatten();
            let new = children.filter(|child| !self.seen.contains(&child.room_id)).take(left);
            let places: Vec<Place> =
                new.map(|child| Place::of(child, place.depth + 1, told.as_deref())).collect();
            self.ahead.extend(places.into_iter().rev());
        }
        Some(room)
    }

    /// Notes what was told of a room; nothing if no server helped.
    pub fn told(&mut self, question: &Question, told: Option<&Arc<ToldSpace>>) {
        for place in &mut self.ahead {
            if place.room_id == question.room_id && place.via == question.via && place.told.is_none() {
                place.told = Some(told.cloned());
            }
        }
    }

    fn pass_over(&mut self) {
        if let Some(place) = self.ahead.pop() {
            self.seen.insert(place.room_id);
        }
    }

    /// Of a room that lists nothing that is wanted, it is enough what was told beside the space.
    fn is_to_be_asked_for(&self, place: &Place) -> bool {
        let is_enough = |room: &Arc<SpaceRoom>| !room.is_space() || place.depth == self.depth_max;
        place.told.is_none() && !place.beside.as_ref().is_some_and(is_enough)
    }

    /// The room that is next, and others soon after it.
    fn questions(&self, engine: &Engine) -> Result<Vec<Question>> {
        let mut questions: Vec<Question> = Vec::new();
        for place in self.ahead.iter().rev().take(LOOK_AHEAD_MAX) {
            let is_asked = questions.iter().any(|question| question.room_id == place.room_id);
            if is_asked || self.seen.contains(&place.room_id) || !self.is_to_be_asked_for(place) {
                continue;
            }
            let server = engine.server_name();
            match engine.read(&IncomingRoom { room_id: &place.room_id, server }) {
                Ok(_) => continue,
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
            questions.push(Question {
                room_id: place.room_id.clone(),
                via: place.via.clone(),
                suggested_only: self.suggested_only,
            });
            if questions.len() == QUESTIONS_MAX {
                break;
            }
        }
        Ok(questions)
    }
}

impl Place {
    fn of(child: &SpaceChild, depth: usize, told: Option<&ToldSpace>) -> Self {
        // "Rooms which the requesting server doesn't have a viable way to peek/join … should not be re-requested."
        let is_inaccessible = told.is_some_and(|told| told.inaccessible.contains(&child.room_id));
        Self {
            room_id: child.room_id.clone(),
            via: child.via.clone(),
            depth,
            beside: told.and_then(|told| told.children.get(&child.room_id).cloned()),
            told: is_inaccessible.then_some(None),
            found: None,
        }
    }

    fn size(&self) -> usize {
        let via: usize = self.via.iter().map(|server| size_of::<String>() + server.len()).sum();
        PLACE_BYTES + self.room_id.len() + via + self.beside.as_ref().map_or(0, |room| room.size())
    }

    /// What other servers said of it.
    fn told_room(&self) -> Option<Arc<SpaceRoom>> {
        let told = self.told.iter().flatten().next();
        told.map(|told| told.room.clone()).or_else(|| self.beside.clone())
    }
}

#[cfg(test)]
mod tests;
