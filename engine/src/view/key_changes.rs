//! Whose devices or keys changed between two tokens, and who has gone out of sight.

use std::collections::BTreeSet;

use super::{View, sync::membership_at};
use crate::{
    core::num::{StreamPos, UserNum},
    device::lists::{self, DeviceLists, RoomChanges},
    error::{Error, Result, What},
    store::{
        Direction, Reader, schema,
        schema::{Membership, UserNews},
    },
};

/// `GET /keys/changes`.
pub struct KeyChanges {
    /// Who asks.
    pub user_id: String,
    /// The position of the earlier token.
    pub from: StreamPos,
    /// The position of the later token.
    pub to: StreamPos,
}

/// Ids of users.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ChangedUsers {
    /// Whose devices or keys changed, or who share a room with the asker since then.
    pub changed: Vec<String>,
    /// Who share no room with the asker any more.
    pub left: Vec<String>,
}

impl View for KeyChanges {
    type Output = ChangedUsers;

    fn read(&self, reader: &Reader) -> Result<ChangedUsers> {
        let user = reader.user_num(&self.user_id)?.ok_or(Error::NotFound(What::User))?;
        if !reader.knows(self.from) {
            return ChangedUsers::read(reader, lists::all(reader, user)?);
        }
        let to = self.to.min(reader.pos);
        let mut touched = BTreeSet::new();
        let (start, end) =
            ((user, StreamPos(self.from.0.saturating_add(1))), (user, StreamPos(to.0.saturating_add(1))));
        reader.scan_between(
            &schema::USER_STREAM,
            &start,
            &end,
            Direction::Forward,
            |_: (UserNum, StreamPos), news| {
                if let UserNews::Membership(room) = news {
                    touched.insert(room);
                }
                true
            },
        )?;
        let rooms = reader.user_rooms(user)?;
        let in_room = |joined: bool, changed: bool| -> Vec<_> {
            let wanted = rooms.iter().filter(|(room, row)| {
                (row.value.membership == Membership::Join) == joined && touched.contains(room) == changed
            });
            wanted.map(|(room, _)| *room).collect()
        };
        let (joined, mut left, stayed) = (in_room(true, true), in_room(false, true), in_room(true, false));
        // Who was only invited is told nothing of the members.
        let mut was_joined = Vec::with_capacity(left.len());
        for room in &left {
            was_joined.push(membership_at(reader, user, *room, self.from)? == Some(Membership::Join));
        }
        let mut was_joined = was_joined.into_iter();
        left.retain(|_| was_joined.next().unwrap_or_default());
        let changes = RoomChanges { joined: &joined, left: &left, with_news: &stayed };
        ChangedUsers::read(reader, lists::between(reader, user, self.from, to, changes)?)
    }
}

impl ChangedUsers {
    fn read(reader: &Reader, found: DeviceLists) -> Result<Self> {
        let ids = |users: BTreeSet<UserNum>| {
            users.into_iter().map(|user| Ok(reader.user_id(user)?.to_string())).collect::<Result<Vec<_>>>()
        };
        Ok(Self { changed: ids(found.changed)?, left: ids(found.left)? })
    }
}
