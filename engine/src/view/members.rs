//! `/members` and `/joined_members`: who is in a room.
//!
//! Specification: client-server API, `GET /rooms/{roomId}/members`, `GET /rooms/{roomId}/joined_members`.

use std::sync::Arc;

use crate::{
    core::{
        event::ClientFormat,
        json::{members, write_string},
        num::EventNum,
    },
    error::{Denied, Result},
    room::{Event, visibility::Viewer},
    store::{Reader, StorageError, schema::Membership},
    view::{StreamToken, View, render::Renderer, sync::state_at},
};

/// The member events of a room.
pub struct Members {
    /// The room's id.
    pub room_id: String,
    /// Who asks.
    pub user: String,
    /// At which point; else now, or when the asker left.
    pub at: Option<StreamToken>,
    /// Only this membership …
    pub membership: Option<Membership>,
    /// … or any but this one.
    pub not_membership: Option<Membership>,
}

impl View for Members {
    /// The response's JSON.
    type Output = Vec<u8>;

    fn read(&self, reader: &Reader) -> Result<Vec<u8>> {
        let (viewer, access) = Viewer::enter(reader, &self.room_id, &self.user)?;
        let snapshot = match self.at {
            None => viewer.snapshot(access)?,
            Some(at) => state_at(reader, viewer.room, at.0.min(access.last(reader)))?,
        };
        let mut chosen = Vec::new();
        if let Some(kind) = reader.text_num("m.room.member")? {
            let entries = reader.state_of_kind(viewer.room, snapshot, kind)?;
            let nums: Vec<EventNum> = entries.into_iter().map(|(_, num)| num).collect();
            for event in reader.events(&nums)? {
                if self.wants(&event)? {
                    chosen.push(event);
                }
            }
        }
        let mut out = Vec::with_capacity(16 + 512 * chosen.len());
        out.extend_from_slice(b"{\"chunk\":[");
        Renderer::with_viewer(reader, viewer.room, ClientFormat::Room, Some(viewer), None)?
            .write_state(&mut out, &chosen)?;
        out.extend_from_slice(b"]}");
        Ok(out)
    }
}

impl Members {
    /// "The two parameters create an 'or' condition".
    fn wants(&self, event: &Event) -> Result<bool, StorageError> {
        if self.membership.is_none() && self.not_membership.is_none() {
            return Ok(true);
        }
        let membership = event.pdu()?.membership().and_then(Membership::from_name);
        let is = self.membership.is_some() && membership == self.membership;
        let is_not = self.not_membership.is_some() && membership != self.not_membership;
        Ok(is || is_not)
    }
}

/// The joined members of a room, with the names and pictures that they have there.
pub struct JoinedMembers {
    /// The room's id.
    pub room_id: String,
    /// Who asks.
    pub user: String,
}

impl View for JoinedMembers {
    /// The response's JSON.
    type Output = Vec<u8>;

    fn read(&self, reader: &Reader) -> Result<Vec<u8>> {
        let (viewer, _) = Viewer::enter(reader, &self.room_id, &self.user)?;
        if !viewer.is_joined() {
            return Err(Denied::NotInRoom.into());
        }
        let rows = reader.members(viewer.room, Membership::Join)?;
        let nums: Vec<EventNum> = rows.iter().map(|(_, num)| *num).collect();
        let mut out = Vec::with_capacity(16 + 128 * rows.len());
        out.extend_from_slice(b"{\"joined\":{");
        for (index, ((user, _), event)) in rows.iter().zip(reader.events(&nums)?).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_string(&mut out, &reader.user_id(*user)?);
            out.push(b':');
            write_profile(&mut out, &event);
        }
        out.extend_from_slice(b"}}");
        Ok(out)
    }
}

/// Writes the name and picture that a member event gives, where they are strings.
fn write_profile(out: &mut Vec<u8>, event: &Arc<Event>) {
    let content = members(&event.json).flatten().find(|member| member.key == b"content");
    let content = content.map_or(&b"{}"[..], |member| member.value);
    out.push(b'{');
    let start = out.len();
    for member in members(content).flatten() {
        let name: &[u8] = match member.key {
            b"displayname" => b"\"display_name\":",
            b"avatar_url" => b"\"avatar_url\":",
            _ => continue,
        };
        if member.value.first() != Some(&b'"') {
            continue;
        }
        if out.len() > start {
            out.push(b',');
        }
        out.extend_from_slice(name);
        out.extend_from_slice(member.value);
    }
    out.push(b'}');
}
