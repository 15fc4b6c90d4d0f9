//! The directory of rooms: the largest first, in pages, searched.
//!
//! Specification: client-server API, "Published room directory".

use serde_json::Value;

use crate::{
    core::num::RoomNum,
    error::{Error, Invalid, Result, What},
    room::{RoomCtx, RoomSummary, summary},
    store::{Direction, Reader, schema},
    view::View,
};

/// The most rooms on a page: an entry is about 500 bytes as a rule.
pub const PUBLIC_ROOMS_MAX: usize = 500;

/// The most bytes of a page's rooms as JSON, unless one alone has more. Names and topics may be as large as events, and other servers
/// read a megabyte of what is around them, too.
const PUBLIC_ROOMS_BYTES_MAX: usize = 700 * 1024;

/// `GET` and `POST /publicRooms`.
#[derive(Clone, Debug, Default)]
pub struct PublicRooms {
    /// How many rooms, at most [`PUBLIC_ROOMS_MAX`]. Large ones are fewer.
    pub limit: usize,
    /// A token of an earlier page.
    pub since: Option<String>,
    /// What name, topic or alias must contain, in any case.
    pub search_term: Option<String>,
    /// Which types of rooms; `None` among them for rooms without one. All where nothing is given.
    pub room_types: Option<Vec<Option<String>>>,
    /// Whether another server asks: it is not shown rooms that only users of this server can join.
    pub is_for_server: bool,
}

/// One page of the directory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PublicRoomsPage {
    /// The rooms.
    pub rooms: Vec<RoomSummary>,
    /// Where the next page begins, if there is one.
    pub next_batch: Option<String>,
    /// Where the page before ends, if there is one.
    pub prev_batch: Option<String>,
    /// How many rooms are in the directory.
    pub total: usize,
}

/// A room's place in the directory: by members, then by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    joined: std::cmp::Reverse<u64>,
    room: RoomNum,
}

/// A token: the next page begins behind a place, or the page before ends in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Behind(Place),
    Before(Place),
}

impl Since {
    fn parse(token: &str) -> Option<Self> {
        let (direction, rest) = token.split_at_checked(1)?;
        let (joined, room) = rest.split_once('_')?;
        let place =
            Place { joined: std::cmp::Reverse(joined.parse().ok()?), room: RoomNum(room.parse().ok()?) };
        match direction {
            "n" => Some(Self::Behind(place)),
            "p" => Some(Self::Before(place)),
            _ => None,
        }
    }

    fn write(self) -> String {
        let (direction, place) = match self {
            Self::Behind(place) => ('n', place),
            Self::Before(place) => ('p', place),
        };
        format!("{direction}{}_{}", place.joined.0, place.room.0)
    }
}

impl View for PublicRooms {
    type Output = PublicRoomsPage;

    fn read(&self, reader: &Reader) -> Result<PublicRoomsPage> {
        let since = match &self.since {
            None => None,
            Some(token) => Some(Since::parse(token).ok_or(Invalid::Token)?),
        };
        let mut places = places(reader)?;
        let total = places.len();
        let limit = self.limit.clamp(1, PUBLIC_ROOMS_MAX);
        // Going back, the page is read from its end.
        let is_back = matches!(since, Some(Since::Before(_)));
        match since {
            Some(Since::Behind(place)) => places.retain(|other| *other > place),
            Some(Since::Before(place)) => {
                places.retain(|other| *other < place);
                places.reverse();
            }
            None => {}
        }
        let mut page = Vec::new();
        let (mut has_more, mut bytes) = (false, 0);
        for place in places {
            let Some(room) = self.matching(reader, place.room)? else { continue };
            bytes += serde_json::to_vec(&room).map_or(0, |json| json.len());
            if page.len() == limit || (bytes > PUBLIC_ROOMS_BYTES_MAX && !page.is_empty()) {
                has_more = true;
                break;
            }
            page.push((place, room));
        }
        if is_back {
            page.reverse();
        }
        let (first, last) = (page.first().map(|(place, _)| *place), page.last().map(|(place, _)| *place));
        let has_before = if is_back { has_more } else { since.is_some() };
        let has_behind = if is_back { true } else { has_more };
        Ok(PublicRoomsPage {
            next_batch: last.filter(|_| has_behind).map(|place| Since::Behind(place).write()),
            prev_batch: first.filter(|_| has_before).map(|place| Since::Before(place).write()),
            rooms: page.into_iter().map(|(_, room)| room).collect(),
            total,
        })
    }
}

/// All rooms of the directory in their order. O(rooms in the directory).
fn places(reader: &Reader) -> Result<Vec<Place>> {
    let mut rooms = Vec::new();
    reader.scan(&schema::PUBLIC_ROOMS, &(), Direction::Forward, |room: RoomNum, ()| {
        rooms.push(room);
        true
    })?;
    let heads = reader.get_many(&schema::ROOM_HEADS, rooms.iter().copied())?;
    let mut places: Vec<Place> = rooms
        .into_iter()
        .zip(heads)
        .filter_map(|(room, head)| Some(Place { joined: std::cmp::Reverse(head?.joined), room }))
        .collect();
    places.sort_unstable();
    Ok(places)
}

impl PublicRooms {
    /// The room, if it is among those that are searched for.
    fn matching(&self, reader: &Reader, room: RoomNum) -> Result<Option<RoomSummary>> {
        let Some(room) = RoomCtx::find(reader, &reader.room_id(room)?)? else { return Ok(None) };
        if self.is_for_server && !is_federated(reader, &room)? {
            return Ok(None);
        }
        let summary = summary(reader, &room)?;
        let has_type = self.room_types.as_ref().is_none_or(|types| types.contains(&summary.room_type));
        let is_found = match self.search_term.as_deref().map(str::to_lowercase) {
            None => true,
            Some(term) => [&summary.name, &summary.topic, &summary.canonical_alias]
                .into_iter()
                .flatten()
                .any(|text| text.to_lowercase().contains(&term)),
        };
        Ok((has_type && is_found).then_some(summary))
    }
}

/// Whether users of other servers may join. Specification: `m.federate` of `m.room.create`.
fn is_federated(reader: &Reader, room: &RoomCtx) -> Result<bool> {
    let Some(create) = room.state(reader, "m.room.create", "")? else { return Ok(true) };
    Ok(create.pdu()?.content.get("m.federate") != Some(&Value::Bool(false)))
}

/// `GET /directory/list/room/{roomId}`: whether the room is in the directory.
pub struct IsListed {
    /// The room's id.
    pub room_id: String,
}

impl View for IsListed {
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        let room = RoomCtx::find(reader, &self.room_id)?.ok_or(Error::NotFound(What::Room))?;
        Ok(reader.has(&schema::PUBLIC_ROOMS, &room.num)?)
    }
}

#[cfg(test)]
mod tests;
