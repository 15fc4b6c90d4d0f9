//! The answer to `PUT /send_join`: the room's state before the join, whole or without most of its members.
//!
//! Specification: server-server API, `PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`.

use std::{collections::HashSet, sync::Arc};

use super::PduList;
use crate::{
    core::num::{EventNum, StateKeyId, UserNum},
    error::{Error, Result, What},
    room::{Event, graph::auth_chain, heroes::heroes, peer::Peer},
    store::{Reader, schema::EventStatus},
    view::View,
};

/// The state before a join that this server has let in. O(state + auth chain), without reading the events themselves.
pub struct JoinState {
    /// The room's id.
    pub room_id: String,
    /// The join's id.
    pub event_id: String,
    /// The server that joins.
    pub server: String,
    /// Whether it can do without most membership events and without doubled ones.
    pub omit_members: bool,
}

/// What a server that joins needs to know of the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinAnswer {
    /// The state before the join.
    pub state: PduList,
    /// The auth chain of the join and of the state.
    pub auth_chain: PduList,
    /// Whether members were left out of the state.
    pub members_omitted: bool,
    /// The servers that had joined members before the join.
    pub servers_in_room: Vec<Arc<str>>,
}

impl View for JoinState {
    /// Errors: [`crate::Denied::NotInRoom`], [`crate::Denied::ServerAcl`]; [`What::Event`] not found for anything but a join
    /// of that server; [`What::State`] not found where the state before it is not known.
    type Output = JoinAnswer;

    fn read(&self, reader: &Reader) -> Result<JoinAnswer> {
        let peer = Peer::enter(reader, &self.room_id, &self.server)?;
        let join = peer.event(&self.event_id)?;
        if !peer.is_own_join(&join)? {
            return Err(Error::NotFound(What::Event));
        }
        if join.header.status != EventStatus::Accepted || join.header.partial_state {
            return Err(Error::NotFound(What::State));
        }
        let state = match self.omit_members {
            true => state_without_members(reader, &join)?,
            false => {
                let entries = reader.state_entries(peer.room.num, join.header.state_before)?;
                entries.into_iter().map(|(_, num)| num).collect()
            }
        };
        let tips = state.iter().copied().chain([join.num]).collect();
        let mut auth_chain = auth_chain(reader, peer.room.num, tips)?;
        if self.omit_members {
            let doubled: HashSet<EventNum> = state.iter().copied().collect();
            auth_chain.retain(|num| !doubled.contains(num));
        }
        let servers = reader.servers_in_room(peer.room.num)?;
        // The server's first user is there only by this join.
        let was_there = |(server, joined): &(Arc<str>, u64)| **server != *self.server || *joined > 1;
        Ok(JoinAnswer {
            state: PduList::new(state),
            auth_chain: PduList::new(auth_chain),
            members_omitted: self.omit_members,
            servers_in_room: servers.into_iter().filter(was_there).map(|(server, _)| server).collect(),
        })
    }
}

/// The state with those members only who are needed at once: whom a room without a name is called after, and the user
/// who joins.
fn state_without_members(reader: &Reader, join: &Event) -> Result<Vec<EventNum>> {
    let (room, snapshot) = (join.header.room, join.header.state_before);
    let Some(kind) = reader.text_num("m.room.member")? else { return Ok(Vec::new()) };
    let others = reader.state_entries_except(room, snapshot, kind)?;
    let mut state: Vec<EventNum> = others.into_iter().map(|(_, num)| num).collect();
    let mut members = HashSet::new();
    let joining: UserNum = join.header.sender;
    for user in heroes(reader, room, snapshot, joining)?.unwrap_or_default().into_iter().chain([joining]) {
        let Some(user) = reader.text_num(&reader.user_id(user)?)? else { continue };
        members.extend(reader.state_num_at(room, snapshot, StateKeyId::new(kind, user))?);
    }
    state.extend(members);
    Ok(state)
}
