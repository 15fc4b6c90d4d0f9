//! Another server in front of a room: what it may be given of it.
//!
//! Invariant: every read on behalf of a peer goes through [`Peer::enter`], which binds the room and the server, and takes
//! events from it, which binds them to the room. A peer is served only while it has a joined user in the room and the
//! access list lets it take part. It gets state and auth events whole, as it must judge by them; what the history
//! visibility hides from all its users it gets redacted, which keeps the graph whole and tells nothing; rejected events
//! it does not get at all.
//! Specification: server-server API, "Retrieving events", "Soft failure"; client-server API, "Room History Visibility".

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::{Event, RoomCtx, servers::server_allowed};
use crate::{
    core::{
        identifiers::server_name,
        num::{NodeId, StateKeyId, UserNum},
        visibility::{AtEvent, HistoryVisibility, Presence, may_see},
    },
    error::{Denied, Error, Result, What},
    store::{
        Reader, StorageError, schema,
        schema::{EventHeader, EventStatus},
    },
};

/// How many memberships one request looks up to find a user of the server who was there at the time. Where it does not
/// suffice, for a server with very many users of which none was, the peer gets the redacted event.
const MEMBERSHIPS_LOOKED_UP_MAX: usize = 10_000;

/// A server that asks about a room.
pub(crate) struct Peer<'r> {
    reader: &'r Reader,
    pub room: RoomCtx,
    server: &'r str,
    visibility_key: Option<StateKeyId>,
    /// The membership events of the server's users; looked up when they are first needed, the last that helped first.
    members: Option<Vec<StateKeyId>>,
    looked_up: usize,
    visibilities: HashMap<NodeId, HistoryVisibility>,
    presences: HashMap<NodeId, Presence>,
    erased: HashMap<UserNum, bool>,
}

impl<'r> Peer<'r> {
    /// The server in front of the room with this id.
    ///
    /// Errors: [`Denied::NotInRoom`] when no user of the server is joined, also for a room that is not known here;
    /// [`Denied::ServerAcl`].
    pub fn enter(reader: &'r Reader, room_id: &str, server: &'r str) -> Result<Self> {
        let room = RoomCtx::find(reader, room_id)?.ok_or(Denied::NotInRoom)?;
        if !reader.is_server_in_room(server, room.num)? {
            return Err(Denied::NotInRoom.into());
        }
        server_allowed(reader, &room, server)?;
        let visibility = (reader.text_num("m.room.history_visibility")?, reader.text_num("")?);
        Ok(Self {
            reader,
            room,
            server,
            visibility_key: visibility.0.zip(visibility.1).map(|(kind, key)| StateKeyId::new(kind, key)),
            members: None,
            looked_up: 0,
            visibilities: HashMap::new(),
            presences: HashMap::new(),
            erased: HashMap::new(),
        })
    }

    /// The event of the room with this id.
    ///
    /// Errors: [`What::Event`] not found, also for events of other rooms and for those that were rejected.
    pub fn event(&self, event_id: &str) -> Result<Arc<Event>> {
        let not_found = || Error::NotFound(What::Event);
        let event = self.reader.event(self.reader.event_num(event_id)?.ok_or_else(not_found)?)?;
        match event.header.room == self.room.num && event.header.status != EventStatus::Rejected {
            true => Ok(event),
            false => Err(not_found()),
        }
    }

    /// Whether the event lets a user of the peer into the room.
    pub fn is_own_join(&self, event: &Event) -> Result<bool, StorageError> {
        Ok(self.own_membership(event)? == Some(Presence::Joined))
    }

    /// The event as the peer may have it: as it is stored, or redacted.
    pub fn pdu(&mut self, event: &Event) -> Result<Bytes> {
        if self.may_see(event)? {
            return Ok(event.json.clone());
        }
        Ok(event.redacted_json()?)
    }

    /// Whether the peer may see the event whole: whether one of its users may, or it is part of the current state, which
    /// every server in the room has been given.
    pub fn may_see(&mut self, event: &Event) -> Result<bool, StorageError> {
        let header = &event.header;
        if self.is_current_state(event)? {
            return Ok(true);
        }
        if header.room != self.room.num {
            return Ok(false);
        }
        // An outlier's place in the room is not known, so neither is who was there. What was part of a state is given with it.
        if header.status == EventStatus::Outlier {
            return Ok(header.state_key.is_some());
        }
        let before = self.visibility_at(header.state_before)?;
        let visibility = match self.is_entry(header, self.visibility_key) {
            true => AtEvent::changed(before, HistoryVisibility::from_content(Some(&event.pdu()?.content))),
            false => AtEvent::unchanged(before),
        };
        // Whose sender wanted to be forgotten is for those who were there, and have it.
        if header.state_key.is_none() && self.is_erased(header.sender)? {
            return Ok(self.presence_at(header.state_before)? == Presence::Joined);
        }
        // The peer has a joined user now: what depends on that alone needs no look at the members then.
        if may_see(visibility, AtEvent::unchanged(Presence::Absent), true) {
            return Ok(true);
        }
        let presence = match self.own_membership(event)? {
            Some(set) => AtEvent::changed(self.presence_at(header.state_before)?, set),
            None => AtEvent::unchanged(self.presence_at(header.state_before)?),
        };
        Ok(may_see(visibility, presence, true))
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

    /// The most that a user of the peer was in a snapshot.
    fn presence_at(&mut self, snapshot: NodeId) -> Result<Presence, StorageError> {
        if let Some(known) = self.presences.get(&snapshot) {
            return Ok(*known);
        }
        let mut members = match self.members.take() {
            Some(members) => members,
            None => self.member_keys()?,
        };
        let mut most = Presence::Absent;
        for index in 0..members.len() {
            if self.looked_up == MEMBERSHIPS_LOOKED_UP_MAX {
                break;
            }
            self.looked_up += 1;
            let Some(key) = members.get(index) else { break };
            let Some(event) = self.state_event(snapshot, *key)? else { continue };
            match Presence::from_membership(event.pdu()?.membership()) {
                Presence::Joined => {
                    most = Presence::Joined;
                    members.swap(0, index);
                    break;
                }
                Presence::Invited => most = Presence::Invited,
                Presence::Absent => {}
            }
        }
        self.members = Some(members);
        self.presences.insert(snapshot, most);
        Ok(most)
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
