//! The inviting side of `PUT /invite`: an event of our user that another server is to sign.
//!
//! Specification: server-server API, "Inviting to a room".

use bytes::Bytes;
use serde_json::Value;

use super::SignedEvent;
use crate::{
    core::event::JsonObject,
    error::{Denied, Result},
    room::{
        RoomCtx, handshake, membership, restricted_join::AUTHORISING_USER, stripped_state::identifying_state,
        third_party_invites,
    },
    store::{Reader, schema::Membership},
    view::View,
};

/// An invite for a user of another server. Signed by that one ([`super::TakeSignature`]) it comes into the room as any event
/// of another server does.
pub struct MakeInvite {
    /// The room's id.
    pub room_id: String,
    /// Our user, who invites.
    pub sender: String,
    /// Who is invited.
    pub target: String,
    /// What the invite says of itself: `reason`, `is_direct` and whatever else who invites wants it to. What the server says,
    /// the membership and the profile of a user it knows, stands above it.
    pub content: JsonObject,
    /// What an identity server has signed, where an invite to an address comes to stand for a user.
    pub third_party_signed: Option<Value>,
}

/// An invite that is not in the room yet.
#[derive(Clone, Debug)]
pub struct Invite {
    /// The event.
    pub event: SignedEvent,
    /// `invite_room_state`: the events that tell what room it is, and who invites.
    pub room_state: Vec<Bytes>,
}

impl View for MakeInvite {
    /// Errors: [`Denied::NotInRoom`] for a room that is not known here; [`Denied::OtherServer`] for a sender who is not ours;
    /// [`Denied::InvitesBlocked`]; [`crate::Conflict::PartialState`] while it is not known whether the target is in the room or
    /// banned from it; [`Denied::Rule`] when the room's rules would refuse it; [`crate::Invalid::Identifier`];
    /// [`crate::Invalid::Event`]. By an address, [`Denied::TargetInRoom`] and [`crate::Conflict::AlreadyInvited`] besides.
    type Output = Invite;

    fn read(&self, reader: &Reader) -> Result<Invite> {
        membership::check_user_id("user_id", &self.target)?;
        membership::check_local(reader, &self.sender)?;
        let room = RoomCtx::find(reader, &self.room_id)?.ok_or(Denied::NotInRoom)?;
        membership::check_invite(reader, &room, &self.target)?;
        let mut content = self.content.clone();
        // It would ask for the signature of one more server, and nobody vouches for an invite.
        content.remove(AUTHORISING_USER);
        content.extend(membership::content(reader, &self.target, Membership::Invite, None)?);
        if let Some(signed) = &self.third_party_signed {
            content.insert("third_party_invite".to_owned(), third_party_invite(reader, &room, signed)?);
        }
        let users = (&*self.sender, &*self.target);
        let pdu = handshake::invite(reader, &room, users, content)?;
        // Who has no proof is told nothing of who is there.
        if self.third_party_signed.is_some() {
            third_party_invites::check_is_wanted(reader, &room, users)?;
        }
        let sender = room.state(reader, "m.room.member", &self.sender)?;
        let room_state = identifying_state(reader, &room)?.into_iter().chain(sender);
        Ok(Invite {
            event: SignedEvent { version: room.version, event_id: pdu.event_id, json: pdu.json },
            room_state: room_state.map(|event| event.json.clone()).collect(),
        })
    }
}

/// What the invite says of the address that was invited: of what another server tells, only what is signed by the identity
/// server; what is shown in place of the address is the room's to say. Whether the signature holds is for the room's rules.
fn third_party_invite(reader: &Reader, room: &RoomCtx, signed: &Value) -> Result<Value> {
    // All of it is signed, also what the specification does not know of.
    let mut kept = signed.as_object().cloned().unwrap_or_default();
    kept.remove("unsigned");
    let mut invite = JsonObject::new();
    invite.insert("signed".to_owned(), kept.into());
    let token = signed.get("token").and_then(Value::as_str).unwrap_or_default();
    if let Some(invitation) = room.state(reader, "m.room.third_party_invite", token)?
        && let Some(display_name) = invitation.pdu()?.content.get("display_name")
    {
        invite.insert("display_name".to_owned(), display_name.clone());
    }
    Ok(invite.into())
}
