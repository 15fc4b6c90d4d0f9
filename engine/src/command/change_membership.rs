//! A local user joins, knocks, leaves, invites, kicks, bans or unbans.
//!
//! Invariant: asking for a membership that is there already makes no event, unless it says something new to those who are to
//! answer it, as a knock or an invite may.
//! Not here: memberships set as plain state events (`send_event`), which the same checks go over.

use crate::{
    account::users,
    command::{Command, Lanes},
    core::event::JsonObject,
    error::{Conflict, Denied, Result},
    room::{RoomCtx, append, membership, upgrade},
    store::{Tx, schema::Membership},
};

/// What a user does to a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipAction {
    /// Comes in.
    Join,
    /// Asks to come in.
    Knock,
    /// Goes, declines an invite or takes a knock back.
    Leave,
    /// Asks another user to come.
    Invite,
    /// Makes another user leave, or takes an invite back.
    Kick,
    /// Shuts another user out.
    Ban,
    /// Lets another user in again.
    Unban,
}

impl MembershipAction {
    /// What the target's membership becomes.
    fn membership(self) -> Membership {
        match self {
            Self::Join => Membership::Join,
            Self::Knock => Membership::Knock,
            Self::Invite => Membership::Invite,
            Self::Leave | Self::Kick | Self::Unban => Membership::Leave,
            Self::Ban => Membership::Ban,
        }
    }
}

/// `POST /join`, `/knock` and `/rooms/{roomId}/…`: join, leave, invite, kick, ban, unban.
#[derive(Clone, Debug)]
pub struct ChangeMembership {
    /// The room's id.
    pub room_id: String,
    /// Who acts.
    pub sender: String,
    /// Whose membership it is: the sender's own for joining, knocking and leaving.
    pub target: String,
    /// What is done.
    pub action: MembershipAction,
    /// Why, for others to read.
    pub reason: Option<String>,
    /// Whether the sender is a guest.
    pub is_guest: bool,
}

impl Command for ChangeMembership {
    type Output = ();

    fn lanes(&self) -> Lanes {
        let lanes = Lanes::default().room(&self.room_id);
        match self.action {
            // Who joins may bring settings along.
            MembershipAction::Join => lanes.user(&self.target),
            _ => lanes,
        }
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        membership::check_user_id("user_id", &self.target)?;
        let Some(mut room) = RoomCtx::find(tx, &self.room_id)? else {
            return Err(match self.action {
                MembershipAction::Join | MembershipAction::Knock => Denied::Unreachable,
                _ => Denied::NotInRoom,
            }
            .into());
        };
        let current = match tx.user_num(&self.target)? {
            // What the user alone is shown may be made up: to others what the room says counts.
            Some(target) if self.sender != self.target => tx.membership_in_room(target, room.num)?,
            Some(target) => tx.membership(target, room.num)?,
            None => None,
        };
        if self.is_there(current) {
            return Ok(());
        }
        // With the target's lane held: whoever is deactivated meanwhile has left all rooms, and comes into no other.
        if self.action == MembershipAction::Join
            && users::find(tx, &self.target)?.is_some_and(|(_, account)| account.is_deactivated)
        {
            return Err(Denied::Deactivated.into());
        }
        self.check(tx, &room, current)?;
        let mut content =
            membership::content(tx, &self.target, self.action.membership(), self.reason.as_deref())?;
        membership::prepare(tx, &room, &self.target, self.is_guest, &mut content)?;
        if self.is_repeated(tx, &room, &content)? {
            return Ok(());
        }
        let origin_server_ts = membership::sent_ms(tx, &room, &self.target)?;
        let new = membership::member_event(&self.sender, &self.target, content, origin_server_ts);
        append(tx, &mut room, new)?;
        room.save(tx);
        if let (MembershipAction::Join, Some(user)) = (self.action, tx.user_num(&self.target)?) {
            upgrade::carry_settings(tx, user, &room)?;
        }
        Ok(())
    }
}

impl ChangeMembership {
    /// Whether there is nothing to do, whatever the content would be.
    fn is_there(&self, current: Option<Membership>) -> bool {
        matches!(
            (self.action, current),
            (MembershipAction::Join, Some(Membership::Join))
                | (MembershipAction::Leave, Some(Membership::Leave))
        )
    }

    /// What the endpoints refuse although the room's rules would allow it: they let a user with the power to kick set
    /// any membership to `leave`.
    fn check(&self, tx: &Tx, room: &RoomCtx, current: Option<Membership>) -> Result<()> {
        use MembershipAction as Action;
        if matches!(self.action, Action::Invite | Action::Kick | Action::Ban | Action::Unban) {
            let sender = tx.user_num(&self.sender)?;
            let is_joined = match sender {
                Some(sender) => tx.membership(sender, room.num)? == Some(Membership::Join),
                None => false,
            };
            if !is_joined {
                return Err(Denied::NotInRoom.into());
            }
        }
        let needs_known = matches!(self.action, Action::Kick | Action::Unban);
        if needs_known && membership::is_unknown(tx, room, &self.target)? {
            return Err(Conflict::PartialState.into());
        }
        match (self.action, current) {
            (Action::Kick, None | Some(Membership::Leave | Membership::Ban)) => {
                Err(Denied::TargetNotInRoom.into())
            }
            (Action::Unban, current) if current != Some(Membership::Ban) => Err(Denied::NotBanned.into()),
            _ => Ok(()),
        }
    }

    /// Whether the sender made the same change before, and it still holds.
    fn is_repeated(&self, tx: &Tx, room: &RoomCtx, content: &JsonObject) -> Result<bool> {
        let Some(current) = room.state(tx, "m.room.member", &self.target)? else { return Ok(false) };
        let pdu = current.pdu()?;
        Ok(*pdu.sender == *self.sender && pdu.content == *content)
    }
}

#[cfg(test)]
mod tests;
