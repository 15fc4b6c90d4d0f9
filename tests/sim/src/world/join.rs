//! A user joins a room that their server is not in: by way of a server that is.
//!
//! The resident gives a template, our server signs the event, the resident lets it in and answers with the state before it,
//! without the members, and our server enters the room. Each part can be the last one that happens. The members are asked
//! for later.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use warren_engine::{
    Error, GivenState, Outcome,
    command::{AcceptMembership, AcceptedMembership, CompleteState, EnterRoom, StoreOutliers},
    core::{
        checked::{CheckedPdu, PduCheck},
        version::{ROOM_VERSIONS, RoomVersion},
    },
    in_order,
    room::handshake::Handshake,
    view::{
        CheckPdus,
        federation::{
            EventIds, IncomingRoom, JoinState, MakeMembership, PartialRoom, PduList, Pdus, SignTemplate,
            SignedEvent, StateAt,
        },
    },
};

use super::{Breach, SERVER_NAMES, Server, Stopped, World};
use crate::plan::User;

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
    /// Joins by way of the first server in the room that helps.
    pub(super) fn join_remotely(&mut self, user: User, room: usize) -> Result<(), Failed> {
        let mut refused = "nobody who is in the room can be reached".to_owned();
        for resident in 0..self.servers.len() {
            let is_there = self.servers_in_room(resident, room).contains(&resident);
            if resident == user.server || !is_there || !self.reaches(user.server, resident) {
                continue;
            }
            match self.join_by(user, room, resident) {
                Err(Failed::Refused(why)) => refused = why,
                done => return done,
            }
        }
        Err(Failed::Refused(refused))
    }

    fn join_by(&mut self, user: User, room: usize, resident: usize) -> Result<(), Failed> {
        let event = self.signed_join(user, room, resident)?;
        self.let_in(user.server, room, resident, &event)?;
        let (version, room_id) = (event.version, self.rooms[room].id.clone());
        let told = self.state_of(user.server, room, resident, &event)?;
        self.store(user.server, room, version, told.pdus)?;
        let mut join = self.check_with_keys(user.server, version, vec![event.json])?;
        let Some(join) = join.pop() else {
            return Err(Failed::Breach(Breach::new(
                "join",
                "the server's own event does not pass its checks",
            )));
        };
        let enter = EnterRoom { room_id, version, join, state: told.state, partial: Some(told.servers) };
        match self.servers[user.server].write(enter)? {
            (Outcome::Accepted | Outcome::Known, _) => Ok(()),
            (outcome, missing) => {
                let what = format!("{} cannot enter: {outcome:?}, {missing:?}", SERVER_NAMES[user.server]);
                Err(Failed::Breach(Breach::new("join", what)))
            }
        }
    }

    /// The join, made from the resident's template.
    fn signed_join(&self, user: User, room: usize, resident: usize) -> Result<SignedEvent, Failed> {
        let (room_id, user_id) = (self.rooms[room].id.clone(), self.user_id(user));
        let make = MakeMembership {
            room_id: room_id.clone(),
            user_id: user_id.clone(),
            handshake: Handshake::Join,
            versions: ROOM_VERSIONS.iter().map(|version| version.id.to_owned()).collect(),
            server: self.servers[user.server].name.to_owned(),
        };
        let template = self.servers[resident].engine().read(&make)?;
        let sign = SignTemplate {
            room_id: &room_id,
            user_id: &user_id,
            handshake: Handshake::Join,
            resident: self.servers[resident].name,
            room_version: Some(template.room_version),
            template: &template.event,
            reason: None,
        };
        Ok(self.servers[user.server].engine().read(&sign)?)
    }

    /// The resident takes the join in, and tells the others.
    fn let_in(
        &mut self,
        joiner: usize,
        room: usize,
        resident: usize,
        event: &SignedEvent,
    ) -> Result<(), Failed> {
        let mut join = self.check_with_keys(resident, event.version, vec![event.json.clone()])?;
        let Some(join) = join.pop() else {
            return Err(Failed::Refused("the join is not believed".to_owned()));
        };
        let before = self.servers_in_room(resident, room);
        let accept = AcceptMembership {
            room_id: self.rooms[room].id.clone(),
            event_id: event.event_id.to_string(),
            handshake: Handshake::Join,
            event: join,
            server: SERVER_NAMES[joiner].to_owned(),
        };
        match self.servers[resident].write(accept) {
            Ok(AcceptedMembership::Accepted { .. }) => {}
            Ok(AcceptedMembership::Waiting(missing)) => {
                return Err(Failed::Breach(Breach::new("join", format!("the resident lacks {missing:?}"))));
            }
            // Only the joining server has faults while it joins.
            Err(Stopped::Crashed) => return Err(Failed::Refused("the resident crashed".to_owned())),
            Err(Stopped::Failed(error)) => return Err(Failed::Refused(error.to_string())),
        }
        // It is passed on to all but the server that joins.
        self.note_event((resident, joiner), room, event.event_id.clone(), before, BTreeSet::new());
        Ok(())
    }

    /// What `send_join` answers, without the members.
    fn state_of(
        &self,
        joiner: usize,
        room: usize,
        resident: usize,
        event: &SignedEvent,
    ) -> Result<Told, Failed> {
        let resident = &self.servers[resident];
        let view = JoinState {
            room_id: self.rooms[room].id.clone(),
            event_id: event.event_id.to_string(),
            server: SERVER_NAMES[joiner].to_owned(),
            omit_members: true,
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
    fn check_with_keys(
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
