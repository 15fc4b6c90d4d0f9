//! What becomes of a local user's membership in a room that this server is not in: a knock was let in elsewhere, an invite
//! is declined, a knock taken back.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    command::{Command, Lanes},
    core::{
        checked::CheckedPdu,
        event::{EventBuilder, EventReference, JsonObject, Pdu, reference_hash_of_json},
        identifiers::server_name,
        num::{RoomNum, UserNum},
        version::{EventIdFormat, RoomVersion},
    },
    error::{Error, Invalid, Result, What},
    room::{
        RoomCtx,
        handshake::EVENT_LOCALPART_CHARS,
        membership,
        out_of_band::{Notice, note, stripped_state, takes_part, well_formed},
        room_version, servers,
    },
    store::{StorageError, Tx, schema::Membership, schema::OutOfBand},
};

/// A knock of a local user that another server has let in.
pub struct NoteKnock {
    /// The room's id.
    pub room_id: String,
    /// Our user.
    pub user_id: String,
    /// The room's version.
    pub version: &'static RoomVersion,
    /// The event, as we signed it.
    pub event: Bytes,
    /// `knock_room_state` of the other server's answer. Where they are whole events, their signatures are for the caller to check.
    pub room_state: Vec<JsonObject>,
    /// The server that let it in.
    pub server: String,
}

impl Command for NoteKnock {
    /// Errors: [`What::User`] not found; [`Invalid::Event`] when the event is none.
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let user = tx.user_num(&self.user_id)?.ok_or(Error::NotFound(What::User))?;
        // The room's own events tell what became of it, if this server has come into the room meanwhile.
        if takes_part(tx, &self.room_id)? {
            return Ok(());
        }
        let pdu = Pdu::parse(self.version, &self.event).map_err(Invalid::Event)?;
        let room_state = well_formed(self.version, &self.room_id, self.room_state.clone());
        let room = tx.intern_room(&self.room_id)?;
        let notice = Notice {
            version: self.version,
            pdu: &pdu,
            membership: Membership::Knock,
            stripped_state: Some(stripped_state(&pdu, &room_state)?),
            servers: vec![self.server.clone()],
        };
        note(tx, user, room, notice)
    }
}

/// A local user is turned away from a room that this server is not in, or no longer: an invite is taken back, a knock refused.
///
/// That is believed of whoever knows the event that it ends, which is only shown to who is in the room. Of one that came with the
/// room's own events every server knows that ever was there: that is believed of those which still were when this one left.
#[derive(Clone)]
pub struct NoteTurnedAway {
    /// The room's id.
    pub room_id: String,
    /// The event, checked; the server that sends it is that of its sender.
    pub event: Arc<CheckedPdu>,
}

impl Command for NoteTurnedAway {
    /// Whether the user is told.
    type Output = bool;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<bool> {
        let pdu = self.event.pdu();
        let membership = pdu.membership().and_then(Membership::from_name);
        let (Some(user_id), Some(membership @ (Membership::Leave | Membership::Ban))) =
            (pdu.state_key.as_deref(), membership)
        else {
            return Ok(false);
        };
        if *pdu.room_id != *self.room_id || &*pdu.kind != "m.room.member" || takes_part(tx, &self.room_id)? {
            return Ok(false);
        }
        let (user, room, known) = match tx.endable_out_of_band(user_id, &self.room_id) {
            Err(Error::NotFound(_)) => return Ok(false),
            endable => endable?,
        };
        if !pdu.auth_events.iter().any(|event_id| **event_id == *known.event_id)
            || !may_turn_away(tx, (user, room), pdu)?
        {
            return Ok(false);
        }
        let (version, servers) = (room_version(known.version)?, known.servers);
        note(tx, user, room, Notice { version, pdu, membership, stripped_state: None, servers })?;
        Ok(true)
    }
}

/// Whether the room as it was when this server left lets the sender's server take part, if the membership is one that the room told of
/// then. Where this server was not in the room nothing is known of that.
fn may_turn_away(tx: &Tx, (user, room): (UserNum, RoomNum), pdu: &Pdu) -> Result<bool> {
    if tx.out_of_band(user, room)?.is_some() {
        return Ok(true);
    }
    let (Some(server), Some(room)) = (server_name(&pdu.sender), RoomCtx::find(tx, &pdu.room_id)?) else {
        return Ok(false);
    };
    let was_there = match tx.text_num(server)? {
        Some(server) => servers::is_in_or_supposed(tx, server, room.num)?,
        None => false,
    };
    if !was_there {
        return Ok(false);
    }
    match servers::server_allowed(tx, &room, server) {
        Ok(()) => Ok(true),
        Err(Error::Denied(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A local user declines an invite to a room, or takes a knock at one back, that this server is not in.
pub struct LeaveOutOfBand {
    /// The room's id.
    pub room_id: String,
    /// Our user.
    pub user_id: String,
    /// The leave that another server has let in. Where none could be reached, or it cannot be read as a leave of the invite's
    /// or knock's room version, the user is shown one that goes nowhere.
    pub event: Option<Bytes>,
    /// What the user gives as the reason.
    pub reason: Option<String>,
}

impl Command for LeaveOutOfBand {
    /// Errors: [`What::Room`] not found when the user has no such invite or knock; [`Invalid::Event`] when the reason is too
    /// long.
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (user, room, _, known) = tx.open_out_of_band(&self.user_id, &self.room_id)?;
        let version = room_version(known.version)?;
        let pdu = match self.leave_elsewhere(version) {
            Some(leave) => leave,
            None => self.own_leave(tx, version, &known)?,
        };
        let servers = known.servers;
        note(
            tx,
            user,
            room,
            Notice { version, pdu: &pdu, membership: Membership::Leave, stripped_state: None, servers },
        )
    }
}

impl LeaveOutOfBand {
    /// The leave that another server has let in, if it is one.
    fn leave_elsewhere(&self, version: &RoomVersion) -> Option<Pdu> {
        let pdu = Pdu::parse(version, self.event.as_ref()?).ok()?;
        let is_leave = *pdu.room_id == *self.room_id
            && pdu.is_state("m.room.member", &self.user_id)
            && pdu.membership() == Some(Membership::Leave.name());
        is_leave.then_some(pdu)
    }

    /// A leave after the invite or knock, for the user alone.
    fn own_leave(&self, tx: &Tx, version: &'static RoomVersion, known: &OutOfBand) -> Result<Pdu> {
        let corrupt = |_| StorageError::Corrupt(format!("event {} is not JSON", known.event_id));
        let own_ids = version.event_ids == EventIdFormat::Own;
        let hash =
            own_ids.then(|| reference_hash_of_json(version, &known.json)).transpose().map_err(corrupt)?;
        let before = EventReference { event_id: known.event_id.as_str().into(), reference_hash: hash };
        let depth = Pdu::from_stored(version, before.event_id.clone(), known.json.clone().into())
            .map_err(|error| StorageError::Corrupt(format!("event {}: {error}", known.event_id)))?
            .depth;
        let builder = EventBuilder {
            room_id: Some(self.room_id.as_str().into()),
            sender: self.user_id.as_str().into(),
            kind: "m.room.member".into(),
            state_key: Some(self.user_id.as_str().into()),
            content: membership::content(tx, &self.user_id, Membership::Leave, self.reason.as_deref())?,
            redacts: None,
            prev_events: vec![before.clone()],
            auth_events: vec![before],
            depth: depth.saturating_add(1),
            origin_server_ts: tx.shared.clock.now_ms(),
            event_id_localpart: own_ids.then(|| tx.random_text(EVENT_LOCALPART_CHARS)),
        };
        let shared = &tx.shared;
        Ok(builder.build(version, &shared.server_name, &shared.key_pair).map_err(Invalid::Event)?)
    }
}
