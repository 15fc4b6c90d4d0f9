//! Another server in front of a room: what it may be given of it.
//!
//! Invariant: every read on behalf of a peer goes through [`Peer::enter`] or [`Peer::look_back`], which bind the room and the
//! server, and takes events from it, which binds them to the room. A peer is served only while it has a joined user in the room
//! and the access list lets it take part; by the latter also for some time after the last was turned out, which it may have to
//! fetch, with what was before that: as if it asked just then, and for nothing that came since. It gets state and auth events
//! whole, as it must judge by them; what the history visibility hides from all its users it gets redacted, which keeps the graph
//! whole and tells nothing. It keeps what it gets, so that what it may yet turn out to be allowed to see whole it does not get for
//! now; rejected events it does not get at all.
//! Specification: server-server API, "Retrieving events", "Soft failure"; client-server API, "Room History Visibility".

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::{Event, RoomCtx, servers, servers::server_allowed};
use crate::{
    core::{
        identifiers::server_name,
        num::{NodeId, StateKeyId, UserNum},
        visibility::{AtEvent, HistoryVisibility, Presence, may_see},
    },
    error::{Denied, Error, Result, What},
    outbox::UNDELIVERED_KEPT_MS,
    store::{
        Reader, StorageError, expired, schema,
        schema::{EventHeader, EventStatus, Membership},
    },
};

/// How many memberships one request looks up to find users of the server who were there at the times of its events. What is left
/// when that is used up the peer does not get, but if it asks for it by itself. Where it does not suffice for a single event, for
/// a server with very many users of which none was there, the peer gets the redacted event.
const MEMBERSHIPS_LOOKED_UP_MAX: usize = 10_000;

/// How a peer may have an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Whole,
    Redacted,
    /// It cannot be told by what is known now.
    Unknown,
}

/// What users of the peer were at some time.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// The most that one is known to have been.
    most: Presence,
    /// Whether others may have been more.
    may_be_more: bool,
}

/// A server that asks about a room.
pub(crate) struct Peer<'r> {
    reader: &'r Reader,
    pub room: RoomCtx,
    server: &'r str,
    /// With what the last user of the server went out, if none is in the room.
    farewell: Option<Arc<Event>>,
    visibility_key: Option<StateKeyId>,
    /// The membership events of the server's users; looked up when they are first needed, the last that helped first.
    members: Option<Vec<StateKeyId>>,
    looked_up: usize,
    visibilities: HashMap<NodeId, HistoryVisibility>,
    standings: HashMap<NodeId, Standing>,
    erased: HashMap<UserNum, bool>,
}

impl<'r> Peer<'r> {
    /// The server in front of the room with this id.
    ///
    /// Errors: [`Denied::NotInRoom`] when no user of the server is joined, also for a room that is not known here;
    /// [`Denied::ServerAcl`].
    pub fn enter(reader: &'r Reader, room_id: &str, server: &'r str) -> Result<Self> {
        let room = RoomCtx::find(reader, room_id)?.ok_or(Denied::NotInRoom)?;
        match reader.is_server_in_room(server, room.num)? {
            true => Self::before(reader, room, server, None),
            false => Err(Denied::NotInRoom.into()),
        }
    }

    /// The same, or the server as it stood before the room when its last user went out, as long as it is known when that was: it may
    /// not have heard of that, or lack what was before.
    ///
    /// Errors: as [`Peer::enter`].
    pub fn look_back(reader: &'r Reader, room_id: &str, server: &'r str) -> Result<Self> {
        let room = RoomCtx::find(reader, room_id)?.ok_or(Denied::NotInRoom)?;
        if reader.is_server_in_room(server, room.num)? {
            return Self::before(reader, room, server, None);
        }
        let farewell = farewell(reader, &room, server)?.ok_or(Denied::NotInRoom)?;
        Self::before(reader, room, server, Some(farewell))
    }

    fn before(
        reader: &'r Reader,
        room: RoomCtx,
        server: &'r str,
        farewell: Option<Arc<Event>>,
    ) -> Result<Self> {
        server_allowed(reader, &room, server)?;
        let visibility = (reader.text_num("m.room.history_visibility")?, reader.text_num("")?);
        Ok(Self {
            reader,
            room,
            server,
            farewell,
            visibility_key: visibility.0.zip(visibility.1).map(|(kind, key)| StateKeyId::new(kind, key)),
            members: None,
            looked_up: 0,
            visibilities: HashMap::new(),
            standings: HashMap::new(),
            erased: HashMap::new(),
        })
    }

    /// The event of the room with this id.
    ///
    /// Errors: [`What::Event`] not found, also for events of other rooms and for those that were rejected; for a server that is not in
    /// the room any more [`Denied::NotInRoom`] instead, and for what came since.
    pub fn event(&self, event_id: &str) -> Result<Arc<Event>> {
        let not_found = || match self.has_left() {
            true => Error::from(Denied::NotInRoom),
            false => Error::NotFound(What::Event),
        };
        let event = self.reader.event(self.reader.event_num(event_id)?.ok_or_else(not_found)?)?;
        let is_of_room = event.header.room == self.room.num && event.header.status != EventStatus::Rejected;
        match is_of_room && self.is_of_its_time(&event) {
            true => Ok(event),
            false => Err(not_found()),
        }
    }

    /// Whether no user of the server is in the room any more.
    pub fn has_left(&self) -> bool {
        self.farewell.is_some()
    }

    /// Whether the event was here, and said, before the server's last user was gone, or is what made it so.
    fn is_of_its_time(&self, event: &Event) -> bool {
        // Those that are filled in later are told by whoever is still there. Others than accepted ones have no place in the room.
        self.farewell.as_ref().is_none_or(|last| {
            let is_said_later = match event.header.status {
                EventStatus::Accepted => event.pos() > last.pos(),
                // It may have been fetched before the last was here, which it follows.
                EventStatus::Outlier => event.header.depth > last.header.depth,
                EventStatus::SoftFailed | EventStatus::Rejected => false,
            };
            event.num <= last.num && !is_said_later
        })
    }

    /// Whether the event lets a user of the peer into the room.
    pub fn is_own_join(&self, event: &Event) -> Result<bool, StorageError> {
        Ok(self.own_membership(event)? == Some(Presence::Joined))
    }

    /// The event as the peer may have it: as it is stored, or redacted. Nothing where it cannot be told yet which.
    pub fn pdu(&mut self, event: &Event) -> Result<Option<Bytes>> {
        Ok(match self.sight(event)? {
            Sight::Whole => Some(event.json.clone()),
            Sight::Redacted => Some(event.redacted_json()?),
            Sight::Unknown => None,
        })
    }

    /// Whether the peer may see the event whole, as far as that can be told.
    pub fn may_see(&mut self, event: &Event) -> Result<bool, StorageError> {
        Ok(self.sight(event)? == Sight::Whole)
    }

    /// The peer may see the event whole if one of its users may, or if it is part of the current state, which every server in
    /// the room has been given.
    fn sight(&mut self, event: &Event) -> Result<Sight, StorageError> {
        let header = &event.header;
        if !self.is_of_its_time(event) {
            return Ok(Sight::Unknown);
        }
        if self.is_current_state(event)? {
            return Ok(Sight::Whole);
        }
        if header.room != self.room.num {
            return Ok(Sight::Redacted);
        }
        // An outlier's place in the room is not known, so neither is who was there. What was part of a state is given with it, unless
        // it had a place here, in a time that is hidden.
        if header.status == EventStatus::Outlier {
            let is_given = header.state_key.is_some()
                && !self.reader.has(&schema::HIDDEN_OUTLIERS, &(header.room, event.num))?;
            return Ok(if is_given { Sight::Whole } else { Sight::Redacted });
        }
        let before = self.visibility_at(header.state_before)?;
        let visibility = match self.is_entry(header, self.visibility_key) {
            true => AtEvent::changed(before, HistoryVisibility::from_content(Some(&event.pdu()?.content))),
            false => AtEvent::unchanged(before),
        };
        // Whose sender wanted to be forgotten is for those who were there, and have it.
        let is_erased = header.state_key.is_none() && self.is_erased(header.sender)?;
        // The peer has a joined user now, or had one later: what depends on that alone needs no look at the members then.
        if !is_erased && may_see(visibility, AtEvent::unchanged(Presence::Absent), true) {
            return Ok(Sight::Whole);
        }
        let standing = self.standing_at(header)?;
        let presence = match self.own_membership(event)? {
            Some(set) => AtEvent::changed(standing.most, set),
            None => AtEvent::unchanged(standing.most),
        };
        let is_seen = match is_erased {
            true => standing.most == Presence::Joined,
            false => may_see(visibility, presence, true),
        };
        Ok(match (is_seen, standing.may_be_more) {
            (true, _) => Sight::Whole,
            (false, true) => Sight::Unknown,
            (false, false) => Sight::Redacted,
        })
    }

    fn is_erased(&mut self, sender: UserNum) -> Result<bool, StorageError> {
        if let Some(known) = self.erased.get(&sender) {
            return Ok(*known);
        }
        let account = self.reader.get(&schema::ACCOUNTS, &sender)?;
        let is_erased = account.is_some_and(|account| account.is_erased);
        self.erased.insert(sender, is_erased);
        Ok(is_erased)
    }

    fn is_entry(&self, header: &EventHeader, key: Option<StateKeyId>) -> bool {
        key.is_some() && header.state_key.map(|state_key| StateKeyId::new(header.kind, state_key)) == key
    }

    fn is_current_state(&self, event: &Event) -> Result<bool, StorageError> {
        let header = &event.header;
        let Some(state_key) = header.state_key else { return Ok(false) };
        let key = StateKeyId::new(header.kind, state_key);
        Ok(self.reader.state_num_at(self.room.num, self.room.head.state, key)? == Some(event.num))
    }

    /// The presence that the event gives a user of the peer, if it is a membership event of one.
    fn own_membership(&self, event: &Event) -> Result<Option<Presence>, StorageError> {
        let pdu = event.pdu()?;
        let is_own = &*pdu.kind == "m.room.member"
            && pdu.state_key.as_deref().and_then(server_name) == Some(self.server);
        Ok(is_own.then(|| Presence::from_membership(pdu.membership())))
    }

    fn visibility_at(&mut self, snapshot: NodeId) -> Result<HistoryVisibility, StorageError> {
        if let Some(known) = self.visibilities.get(&snapshot) {
            return Ok(*known);
        }
        let event = match self.visibility_key {
            Some(key) => self.state_event(snapshot, key)?,
            None => None,
        };
        let visibility = match event {
            Some(event) => HistoryVisibility::from_content(Some(&event.pdu()?.content)),
            None => HistoryVisibility::default(),
        };
        self.visibilities.insert(snapshot, visibility);
        Ok(visibility)
    }

    /// What users of the peer were before an event.
    fn standing_at(&mut self, header: &EventHeader) -> Result<Standing, StorageError> {
        let known = self.standings.get(&header.state_before).copied();
        let standing = match known {
            Some(known) => known,
            None => self.look_up(header.state_before)?,
        };
        // Whoever was left out when this server joined may have been there.
        Ok(Standing { may_be_more: standing.may_be_more || header.partial_state, ..standing })
    }

    fn look_up(&mut self, snapshot: NodeId) -> Result<Standing, StorageError> {
        let mut members = match self.members.take() {
            Some(members) => members,
            None => self.member_keys()?,
        };
        let is_first = self.looked_up == 0;
        let mut standing = Standing { most: Presence::Absent, may_be_more: false };
        for index in 0..members.len() {
            if self.looked_up == MEMBERSHIPS_LOOKED_UP_MAX {
                // A request for this event alone would look up no more.
                standing.may_be_more = !is_first;
                break;
            }
            self.looked_up += 1;
            let Some(key) = members.get(index) else { break };
            let Some(event) = self.state_event(snapshot, *key)? else { continue };
            match Presence::from_membership(event.pdu()?.membership()) {
                Presence::Joined => {
                    standing.most = Presence::Joined;
                    members.swap(0, index);
                    break;
                }
                Presence::Invited => standing.most = Presence::Invited,
                Presence::Absent => {}
            }
        }
        self.members = Some(members);
        self.standings.insert(snapshot, standing);
        Ok(standing)
    }

    fn member_keys(&self) -> Result<Vec<StateKeyId>, StorageError> {
        let Some(kind) = self.reader.text_num("m.room.member")? else { return Ok(Vec::new()) };
        let users: Vec<UserNum> = self.reader.users_of_server(self.server, self.room.num)?;
        let mut keys = Vec::with_capacity(users.len());
        for user in users {
            let user_id = self.reader.user_id(user)?;
            keys.extend(self.reader.text_num(&user_id)?.map(|user| StateKeyId::new(kind, user)));
        }
        Ok(keys)
    }

    fn state_event(&self, snapshot: NodeId, key: StateKeyId) -> Result<Option<Arc<Event>>, StorageError> {
        let num = self.reader.state_num_at(self.room.num, snapshot, key)?;
        num.map(|num| self.reader.event(num)).transpose()
    }
}

/// The event with which the last user of a server went out of the room: one of its users was joined before, and that is a membership
/// event of theirs. Where a server was only invited, or taken to be there, or went out by what became of a fork, there is none.
/// A server that never takes that it is out has none after a while, or it could read for ever what was before. O(stays that are
/// kept).
fn farewell(reader: &Reader, room: &RoomCtx, server: &str) -> Result<Option<Arc<Event>>> {
    let Some(end) = servers::last_end(reader, room.num, server)? else { return Ok(None) };
    let given_up = expired(reader, reader.shared.clock.now_ms(), UNDELIVERED_KEPT_MS)?;
    if given_up.is_some_and(|given_up| end <= given_up) {
        return Ok(None);
    }
    let Some(num) = reader.get(&schema::TIMELINE, &(room.num, end))? else { return Ok(None) };
    let event = reader.event(num)?;
    let pdu = event.pdu()?;
    let is_of_its_user =
        &*pdu.kind == "m.room.member" && pdu.state_key.as_deref().and_then(server_name) == Some(server);
    let Some(key) = event.state_key_id().filter(|_| is_of_its_user) else { return Ok(None) };
    let Some(before) = reader.state_num_at(room.num, event.header.state_before, key)? else {
        return Ok(None);
    };
    let was_joined = reader.event(before)?.pdu()?.membership() == Some(Membership::Join.name());
    Ok(was_joined.then_some(event))
}
