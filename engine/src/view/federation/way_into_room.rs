//! Whether a local user's membership of a room is this server's to change, or another server has to help, and which may.

use std::sync::Arc;

use crate::{
    core::{
        identifiers::{is_server_name, server_name},
        num::RoomNum,
    },
    error::Result,
    room::{
        RoomCtx,
        membership::lacks_membership,
        restricted_join::{Admission, admission, vouching_servers},
        signed_invites,
    },
    store::{Reader, schema::Membership},
    view::View,
};

/// A local user at the door of a room.
pub struct WayIntoRoom<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// Our user.
    pub user_id: &'a str,
    /// Servers that somebody says may help.
    pub named: &'a [String],
}

/// Who can help.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Whether this server takes part in the room, or nobody else does any more.
    pub is_here: bool,
    /// Whether it takes part, and only another server's user can vouch for a join.
    pub needs_vouching: bool,
    /// Whether it takes part without knowing all members yet, so that it cannot tell whether the user, who is not in the room, is
    /// banned or invited.
    pub lacks_members: bool,
    /// Whether it takes part, and the user has an invite that has not come with the room's events, from a server that is in the room,
    /// as far as is known: the room may have gone on without this server, and the one that invites tells it where to when it lets the
    /// user in. The invite may be a lie as well: where no server lets the user in, what this one knows counts.
    pub may_be_behind: bool,
    /// Other servers that may help: those that invited the user, or let a knock in, without this server having it from the room;
    /// those named; the one that the room is called after; those that are in the room, as far as is known, with the most
    /// members first. While the room lacks members, none but those that are in it: this server takes their word for it that
    /// the user is not banned, which is not to be had from whom the user names. For a join that somebody has to vouch for those come
    /// before all others who can, where not every member can.
    pub servers: Vec<String>,
}

impl Way {
    /// Whether another server is to let the user in.
    pub fn needs_help(&self) -> bool {
        let is_known = self.is_here && !self.needs_vouching && !self.lacks_members && !self.may_be_behind;
        !is_known && !self.servers.is_empty()
    }

    /// Whether nothing but such an invite is why others are asked: this server can let the user in by what it knows.
    pub fn is_only_behind(&self) -> bool {
        self.may_be_behind && !self.needs_vouching && !self.lacks_members
    }

    /// Whether only another server can let the user knock.
    pub fn needs_help_to_knock(&self) -> bool {
        (!self.is_here || self.lacks_members) && !self.servers.is_empty()
    }
}

impl View for WayIntoRoom<'_> {
    type Output = Way;

    fn read(&self, reader: &Reader) -> Result<Way> {
        let own_name = &*reader.shared.server_name;
        let mut way = Way::default();
        let of_name = server_name(self.room_id).filter(|name| is_server_name(name)).map(str::to_owned);
        let room = RoomCtx::find(reader, self.room_id)?;
        let mut there =
            room.as_ref().map(|room| reader.servers_in_room(room.num)).transpose()?.unwrap_or_default();
        there.sort_by_key(|(_, joined)| std::cmp::Reverse(*joined));
        let (invited_by, is_invite_apart) =
            self.invited_by(reader, room.as_ref().map(|room| room.num), &there)?;
        let takes_part = there.iter().any(|(server, _)| **server == *own_name);
        let others = there.iter().map(|(server, _)| server.to_string()).filter(|server| server != own_name);
        let is_alone = others.clone().next().is_none();
        for server in invited_by.into_iter().chain(self.named.iter().cloned()).chain(of_name).chain(others) {
            if server != own_name && !way.servers.contains(&server) {
                way.servers.push(server);
            }
        }
        let Some(room) = room else { return Ok(way) };
        way.is_here = takes_part || (is_alone && !room.head.extremities.is_empty());
        way.may_be_behind = takes_part && is_invite_apart && !is_alone;
        way.lacks_members = takes_part && lacks_membership(reader, &room, self.user_id)?;
        if way.lacks_members {
            way.servers.retain(|server| there.iter().any(|(known, _)| **known == **server));
        }
        if takes_part && !is_alone {
            let admission = admission(reader, &room, self.user_id)?;
            way.needs_vouching = matches!(admission, Admission::NobodyMayVouch | Admission::CannotBeTold);
        }
        if way.needs_vouching {
            let can = vouching_servers(reader, &room)?;
            way.servers.sort_by_key(|server| !can.contains(server));
        }
        Ok(way)
    }
}

impl WayIntoRoom<'_> {
    /// The servers that invited the user, or let a knock in, as these told it, and whether there is an invite that the room's events
    /// have not told of, which counts only if it comes from a server that is `there`, in the room, as far as is known: any
    /// other could have users wait for it where there is nothing to wait for.
    fn invited_by(
        &self,
        reader: &Reader,
        room: Option<RoomNum>,
        there: &[(Arc<str>, u64)],
    ) -> Result<(Vec<String>, bool)> {
        let is_there = |server: &String| there.iter().any(|(known, _)| **known == **server);
        let (mut servers, mut is_invite) = match reader.open_out_of_band(self.user_id, self.room_id) {
            Ok((_, _, membership, row)) => {
                let is_invite = membership == Membership::Invite && row.servers.iter().any(is_there);
                (row.servers, is_invite)
            }
            Err(_) => (Vec::new(), false),
        };
        if let (Some(room), Some(user)) = (room, reader.user_num(self.user_id)?)
            && let Some(kept) = signed_invites::kept(reader, user, room)?
            && is_there(&kept.server)
        {
            servers.insert(0, kept.server);
            is_invite = true;
        }
        Ok((servers, is_invite))
    }
}
