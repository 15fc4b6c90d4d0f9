//! A server enters a room that a resident has let its user into.
//!
//! The resident answers with the state before the join, if it was told everything without the members, and our server enters the
//! room. Each part can
//! be the last one that happens. The members are asked for later.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use warren_engine::{
    Error, GivenState, Outcome,
    command::{CompleteState, EnterRoom, StoreOutliers},
    core::{
        checked::{CheckedPdu, PduCheck},
        version::RoomVersion,
    },
    in_order,
    view::{
        CheckPdus,
        federation::{
            EventIds, IncomingRoom, JoinState, PartialRoom, PduList, Pdus, SignedEvent, StateAt, UntoldEnds,
        },
    },
};

use super::{Breach, SERVER_NAMES, Server, Stopped, World};

/// Why a join by way of another server came to nothing.
pub(super) enum Failed {
    /// What the user is told.
    Refused(String),
    /// Something stopped on the joining server.
    Stopped(Stopped),
    /// A promise was not kept.
    Breach(Breach),
}

impl From<Stopped> for Failed {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match error {
            Error::Storage(_) => Self::Stopped(Stopped::Failed(error)),
            error => Self::Refused(error.to_string()),
        }
    }
}

impl World {
    /// Enters a room that a resident has let our user into.
    pub(super) fn enter(
        &self,
        server: usize,
        room: usize,
        resident: usize,
        event: &SignedEvent,
    ) -> Result<(), Failed> {
        let (version, room_id) = (event.version, self.rooms[room].id.clone());
        let untold = UntoldEnds { room_id: &room_id, server: SERVER_NAMES[resident] };
        let untold = self.servers[server].engine().read(&untold)?;
        let omit_members = untold.is_empty();
        let told = self.state_of(server, room, resident, event, omit_members)?;
        self.store(server, room, version, told.pdus)?;
        let mut join = self.check_with_keys(server, version, vec![event.json.clone()])?;
        let Some(join) = join.pop() else {
            return Err(Failed::Breach(Breach::new(
                "join",
                "the server's own event does not pass its checks",
            )));
        };
        let enter = EnterRoom {
            room_id,
            version,
            join,
            untold,
            state: told.state,
            partial: omit_members.then_some(told.servers),
        };
        match self.servers[server].write(enter)? {
            (Outcome::Accepted | Outcome::Known, _) => Ok(()),
            (outcome, missing) => {
                let what = format!("{} cannot enter: {outcome:?}, {missing:?}", SERVER_NAMES[server]);
                Err(Failed::Breach(Breach::new("join", what)))
            }
        }
    }

    /// What `send_join` answers.
    fn state_of(
        &self,
        joiner: usize,
        room: usize,
        resident: usize,
        event: &SignedEvent,
        omit_members: bool,
    ) -> Result<Told, Failed> {
        let resident = &self.servers[resident];
        let view = JoinState {
            room_id: self.rooms[room].id.clone(),
            event_id: event.event_id.to_string(),
            server: SERVER_NAMES[joiner].to_owned(),
            omit_members,
        };
        let answer = resident.engine().read(&view)?;
        let others = answer.servers_in_room.iter().map(|server| server.to_string());
        let others = others.filter(|server| *server != resident.name);
        Ok(Told {
            state: read_pieces(|from| read_ids(resident, &answer.state, from))?,
            pdus: read_lists(resident, &[&answer.auth_chain, &answer.state])?,
            servers: std::iter::once(resident.name.to_owned()).chain(others).collect(),
        })
    }

    /// Stores what a server tells of a room's state.
    fn store(
        &self,
        server: usize,
        room: usize,
        version: &'static RoomVersion,
        pdus: Vec<Bytes>,
    ) -> Result<(), Failed> {
        let checked = self.check_with_keys(server, version, pdus)?;
        let (pdus, _) = in_order(&checked);
        let store = StoreOutliers { room_id: self.rooms[room].id.clone(), version, pdus };
        self.servers[server].write(store)?;
        Ok(())
    }

    /// Asks a server for the members that were left out at the join. Answers whether the room is whole then.
    pub(super) fn complete_by(
        &self,
        server: usize,
        partial: &PartialRoom,
        asked: usize,
    ) -> Result<bool, Failed> {
        let Some(room) = self.rooms.iter().position(|room| room.id == partial.room_id) else {
            return Ok(false);
        };
        let peer = &self.servers[asked];
        let view = StateAt {
            room_id: partial.room_id.clone(),
            event_id: partial.join_event_id.clone(),
            server: SERVER_NAMES[server].to_owned(),
        };
        let answer = peer.engine().read(&view)?;
        let own = IncomingRoom { room_id: &partial.room_id, server: SERVER_NAMES[server] };
        let version = self.servers[server].engine().read(&own)?;
        let pdus = read_lists(peer, &[&answer.auth_chain, &answer.state])?;
        self.store(server, room, version, pdus)?;
        let state = read_pieces(|from| read_ids(peer, &answer.state, from))?;
        let state = GivenState { event_id: partial.join_event_id.as_str().into(), state };
        let complete = CompleteState { room_id: partial.room_id.clone(), state };
        Ok(self.servers[server].write(complete)?.is_nothing())
    }

    /// Checks events that `server` was given, fetching the keys for it. What does not pass is left out.
    pub(super) fn check_with_keys(
        &self,
        server: usize,
        version: &'static RoomVersion,
        pdus: Vec<Bytes>,
    ) -> Result<Vec<Arc<CheckedPdu>>, Failed> {
        let mut asked = BTreeSet::new();
        loop {
            let checks = self.servers[server].engine().read(&CheckPdus { version, pdus: &pdus })?;
            let mut ready = Vec::new();
            let mut wanted = BTreeSet::new();
            for check in checks {
                match check {
                    PduCheck::Ready(pdu) => ready.push(pdu),
                    PduCheck::Refused { .. } => {}
                    PduCheck::MissingKeys(keys) => {
                        wanted.extend(keys);
                    }
                }
            }
            wanted.retain(|key| !asked.contains(key));
            if wanted.is_empty() {
                return Ok(ready);
            }
            asked.extend(wanted.iter().cloned());
            // Keys can be had from anybody who has them: servers that are cut off have their notaries.
            self.ask_for_keys(server, &wanted.into_iter().collect::<Vec<_>>())?;
        }
    }
}

/// What a server tells of a room that is joined by way of it.
struct Told {
    /// The ids of the state.
    state: Vec<Arc<str>>,
    /// Its events, and those that allow them.
    pdus: Vec<Bytes>,
    /// The servers in the room.
    servers: Vec<String>,
}

fn read_pieces<T>(
    mut read: impl FnMut(usize) -> Result<(Vec<T>, Option<usize>), Error>,
) -> Result<Vec<T>, Error> {
    let (mut all, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let (items, next) = read(at)?;
        all.extend(items);
        from = next;
    }
    Ok(all)
}

fn read_ids(server: &Server, list: &PduList, from: usize) -> Result<(Vec<Arc<str>>, Option<usize>), Error> {
    let piece = server.engine().read(&EventIds { list, from })?;
    Ok((piece.items, piece.next))
}

fn read_pdus(server: &Server, list: &PduList, from: usize) -> Result<(Vec<Bytes>, Option<usize>), Error> {
    let piece = server.engine().read(&Pdus { list, from })?;
    Ok((piece.items, piece.next))
}

fn read_lists(server: &Server, lists: &[&PduList]) -> Result<Vec<Bytes>, Error> {
    let mut pdus = Vec::new();
    for list in lists {
        pdus.extend(read_pieces(|from| read_pdus(server, list, from))?);
    }
    Ok(pdus)
}
