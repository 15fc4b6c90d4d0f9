//! History visibility: what one user may see of one room.
//!
//! Invariant: nobody is shown an event that was soft-failed or rejected, one that is newer than the reader, one that says
//! nothing (`merging`) or redacts nothing (`redactions`), or one that the room's history visibility hides from them; after leaving, nothing later than the
//! leave, or, where that has no place in the timeline here, than what they were told last as members (`stay`). Nor is anybody
//! shown more than the redacted form of what they could not see until its sender asked to be forgotten.
//! The rules are `core::visibility`; here they are fed from the state trees. Consecutive events share their snapshot, so
//! a page costs a handful of look-ups.
//! Specification: client-server API, "Room History Visibility"; `POST /_matrix/client/v3/account/deactivate`, `erase`.

use std::{collections::HashMap, sync::Arc};

use super::{
    Event,
    ignored::{self, IgnoredUsers},
    stay::{self, StayEnd},
};
use crate::{
    core::{
        num::{NodeId, RoomNum, StateKeyId, StreamPos, UserNum},
        visibility::{AtEvent, HistoryVisibility, Presence, may_see},
    },
    error::{Denied, Error, Result, What},
    store::{
        NumberHash, Positioned, Reader, StorageError, schema,
        schema::{EventHeader, EventStatus, Membership, UserRoom},
    },
};

/// How many of a user's own membership events are walked back to the last time that they were in a room. From one that is not
/// a join only invites, knocks and bans can lie between, and back to an erasure the user's changes of name and picture; a
/// user for whom it takes more sees nothing of the history by having joined.
const MEMBERSHIPS_WALKED_MAX: usize = 100;

/// What a snapshot says about a user.
#[derive(Clone, Copy, Debug)]
struct AtSnapshot {
    visibility: HistoryVisibility,
    membership: Option<Membership>,
}

/// A user who looks at a room.
pub(crate) struct Viewer<'r> {
    reader: &'r Reader,
    pub room: RoomNum,
    pub user: UserNum,
    standing: Option<Positioned<UserRoom>>,
    /// What lies before this was followed by a time in which the user was joined.
    joined_until: StreamPos,
    /// How the user's last time in the room ended.
    left: Option<Left>,
    member_key: Option<StateKeyId>,
    visibility_key: Option<StateKeyId>,
    snapshots: HashMap<NodeId, AtSnapshot, NumberHash>,
    /// Before which position the user could see the room's history until somebody who is to be forgotten asked for that.
    seen_before: HashMap<UserNum, StreamPos, NumberHash>,
    ignored: Arc<IgnoredUsers>,
    /// A state whose events are shown whatever the history visibility says.
    shown_state: Option<NodeId>,
}

/// The last time that a user was in a room, up to some position.
enum Stay {
    /// They are in the room then.
    Lasts,
    /// This membership event ended it.
    Ended(Arc<Event>),
}

/// How the last time in a room ended of a user who is not in it.
#[derive(Clone, Debug)]
pub(crate) struct Left {
    /// Nothing later is for them.
    pub until: StreamPos,
    /// The room's state that is theirs: after the leave, or when they were last known to be there.
    pub state: NodeId,
    /// The membership event that ended it, if that has a place in the timeline here. There may be later ones: a ban, an invite.
    pub with: Option<Arc<Event>>,
}

impl Left {
    fn with(leave: Arc<Event>) -> Self {
        Self { until: leave.pos(), state: leave.header.state_after, with: Some(leave) }
    }

    /// What lies before this was followed by a time in which the user was joined.
    fn joined_until(&self) -> StreamPos {
        match self.with {
            Some(_) => self.until,
            None => StreamPos(self.until.0.saturating_add(1)),
        }
    }
}

/// Why a user may look into a room at all, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// In the room.
    Joined,
    /// Was in the room; nothing after this position is for them.
    Left(StreamPos),
    /// Never was in the room, but everybody may read it.
    Peek,
}

impl Access {
    /// The last position that can be visible.
    pub fn last(self, reader: &Reader) -> StreamPos {
        match self {
            Self::Joined | Self::Peek => reader.pos,
            Self::Left(pos) => pos.min(reader.pos),
        }
    }
}

impl<'r> Viewer<'r> {
    /// The user `user` in front of `room`. At most two reads for who is in the room.
    pub fn new(reader: &'r Reader, room: RoomNum, user: UserNum) -> Result<Self, StorageError> {
        Self::ignoring(reader, room, user, ignored::by(reader, user)?)
    }

    /// The same with the users whom they ignore, for who looks at many rooms at once.
    pub fn ignoring(
        reader: &'r Reader,
        room: RoomNum,
        user: UserNum,
        ignored: Arc<IgnoredUsers>,
    ) -> Result<Self, StorageError> {
        let user_id = reader.user_id(user)?;
        let key = |kind: &str, state_key: &str| -> Result<Option<StateKeyId>, StorageError> {
            let (kind, state_key) = (reader.text_num(kind)?, reader.text_num(state_key)?);
            Ok(kind.zip(state_key).map(|(kind, state_key)| StateKeyId::new(kind, state_key)))
        };
        let mut viewer = Self {
            reader,
            room,
            user,
            standing: reader.user_room(user, room)?,
            joined_until: StreamPos(i64::MIN),
            left: None,
            member_key: key("m.room.member", &user_id)?,
            visibility_key: key("m.room.history_visibility", "")?,
            snapshots: HashMap::default(),
            seen_before: HashMap::default(),
            ignored,
            shown_state: None,
        };
        if viewer.is_joined() {
            viewer.joined_until = StreamPos::MAX;
        } else if let Some(left) = viewer.last_left()? {
            viewer.joined_until = left.joined_until();
            viewer.left = Some(left);
        }
        Ok(viewer)
    }

    /// The user with this id in front of the room with this id, if they may look into it at all.
    ///
    /// Errors: [`Denied::NotInRoom`], also for a room that is not known here.
    pub fn enter(reader: &'r Reader, room_id: &str, user_id: &str) -> Result<(Self, Access)> {
        let room = reader.room_num(room_id)?.ok_or(Denied::NotInRoom)?;
        let user = reader.user_num(user_id)?.ok_or(Denied::NotInRoom)?;
        let mut viewer = Self::new(reader, room, user)?;
        let access = viewer.access()?;
        Ok((viewer, access))
    }

    /// The event with this id, if it is in the room and the user may see it.
    ///
    /// Errors: [`What::Event`] not found.
    pub fn event(&mut self, event_id: &str) -> Result<Arc<Event>> {
        let num = self.reader.event_num(event_id)?.ok_or(Error::NotFound(What::Event))?;
        let event = self.reader.event(num)?;
        if self.may_see(&event)? { Ok(event) } else { Err(Error::NotFound(What::Event)) }
    }

    /// The snapshot that is the room's state for this user: the current one, or that of when they left.
    ///
    /// Errors: [`Denied::NotInRoom`] for a room that has no state here.
    pub fn snapshot(&self, access: Access) -> Result<NodeId> {
        if let (Access::Left(_), Some(left)) = (access, &self.left) {
            return Ok(left.state);
        }
        let head = self.reader.get(&schema::ROOM_HEADS, &self.room)?.ok_or(Denied::NotInRoom)?;
        Ok(head.state)
    }

    /// How the user's last time in the room ended, if they are not in it and were once.
    pub fn left(&self) -> Option<&Left> {
        self.left.as_ref()
    }

    /// The last position at which the user, who is not in the room now, was told of it as a member, if they were and that can be
    /// told. That they were allowed to be there is not said: a join may have come to nothing.
    pub fn told_until(&self) -> Result<Option<StreamPos>, StorageError> {
        match &self.left {
            Some(left) => Ok(Some(left.until)),
            None => Ok(self.end_behind(StreamPos(i64::MIN))?.map(|end| end.until)),
        }
    }

    /// Whether the user ignores anybody.
    pub fn ignores_anyone(&self) -> bool {
        !self.ignored.is_empty()
    }

    /// From now on the events of a state, or of none, are shown whatever the history visibility says: to who may ask for that
    /// state anyway.
    pub fn show_state(&mut self, state: Option<NodeId>) {
        self.shown_state = state;
    }

    /// Whether the user is in the room now.
    pub fn is_joined(&self) -> bool {
        self.standing.as_ref().is_some_and(|row| row.value.membership == Membership::Join)
    }

    /// Whether the user may look into the room at all.
    ///
    /// Errors: [`Denied::NotInRoom`].
    pub fn access(&mut self) -> Result<Access> {
        if self.is_joined() {
            return Ok(Access::Joined);
        }
        let head = self.reader.get(&schema::ROOM_HEADS, &self.room)?.ok_or(Denied::NotInRoom)?;
        if self.at(head.state)?.visibility == HistoryVisibility::WorldReadable {
            return Ok(Access::Peek);
        }
        let is_forgotten = self.standing.as_ref().is_none_or(|row| row.value.forgotten);
        match &self.left {
            Some(left) if !is_forgotten => Ok(Access::Left(left.until)),
            _ => Err(Denied::NotInRoom.into()),
        }
    }

    /// Whether the user may see the event, and not only its redacted form.
    pub fn may_see_whole(&mut self, event: &Event) -> Result<bool, StorageError> {
        Ok(self.may_see(event)? && !self.is_forgotten(event)?)
    }

    /// Whether the user may see what a state event, which they see, took the place of.
    pub fn may_see_replaced(&mut self, event: &Event, before: &Event) -> Result<bool, StorageError> {
        if self.may_see(before)? {
            return Ok(true);
        }
        // What was told with a join is in no timeline. Who was in the room had it in the state, and one's own membership is
        // known to all who have one.
        let header = &before.header;
        let entry = header.state_key.map(|state_key| StateKeyId::new(header.kind, state_key));
        let is_told = header.status == EventStatus::Outlier && header.room == self.room;
        Ok(is_told
            && (entry == self.member_key
                || self.at(event.header.state_before)?.membership == Some(Membership::Join)))
    }

    /// What the user is shown in place of an event that they may see, if they are not shown it whole: its redacted form.
    pub fn redacted(&mut self, event: &Event) -> Result<Option<Event>, StorageError> {
        match self.is_forgotten(event)? {
            true => Ok(Some(event.redacted()?)),
            false => Ok(None),
        }
    }

    /// Whether the event's sender asked for what they sent to be forgotten, and the user could not see the event until then.
    fn is_forgotten(&mut self, event: &Event) -> Result<bool, StorageError> {
        let header = &event.header;
        let Some(erased) = self.reader.shared.erasures.of(header.sender) else { return Ok(false) };
        // The room's state is the same for all.
        if header.state_key.is_some() || self.at(header.state_before)?.membership == Some(Membership::Join) {
            return Ok(false);
        }
        let seen_before = match self.seen_before.get(&header.sender) {
            Some(known) => *known,
            None => {
                let found = match self.last_stay(erased)? {
                    Some(Stay::Lasts) => erased,
                    Some(Stay::Ended(leave)) => leave.pos(),
                    None => StreamPos(i64::MIN),
                };
                // Their time in the room may have been over before what ended it came.
                let found = found.min(self.joined_until);
                self.seen_before.insert(header.sender, found);
                found
            }
        };
        Ok(event.pos() >= seen_before)
    }

    /// Whether the user may see the event, be it no more than its redacted form.
    pub fn may_see(&mut self, event: &Event) -> Result<bool, StorageError> {
        let header = &event.header;
        let shown = header.room == self.room
            && header.status == EventStatus::Accepted
            && event.pos() <= self.reader.pos;
        // State events of ignored users are shown: the room must not look different.
        let is_ignored = header.state_key.is_none() && self.ignored.contains(header.sender);
        if !shown || is_ignored || event.is_withheld(self.reader)? {
            return Ok(false);
        }
        let joined_later = event.pos() < self.joined_until;
        let entry = header.state_key.map(|state_key| StateKeyId::new(header.kind, state_key));
        let is_visibility = entry.is_some() && entry == self.visibility_key;
        let is_member = entry.is_some() && entry == self.member_key;
        let before = self.before(header, is_visibility || is_member)?;
        let visibility = if is_visibility {
            AtEvent::changed(before.visibility, HistoryVisibility::from_content(Some(&event.pdu()?.content)))
        } else {
            AtEvent::unchanged(before.visibility)
        };
        let presence = presence(before.membership);
        let presence = if is_member {
            AtEvent::changed(presence, Presence::from_membership(event.pdu()?.membership()))
        } else {
            AtEvent::unchanged(presence)
        };
        if may_see(visibility, presence, joined_later) {
            return Ok(true);
        }
        let Some((state, entry)) = self.shown_state.zip(entry) else { return Ok(false) };
        Ok(self.reader.state_num_at(self.room, state, entry)? == Some(event.num))
    }

    /// Whether the room's current state as it was at a position, `snapshot`, is for the user: by the rules for what was sent then.
    pub fn may_see_state(&mut self, pos: StreamPos, snapshot: NodeId) -> Result<bool, StorageError> {
        let then = self.at(snapshot)?;
        let presence = AtEvent::unchanged(presence(then.membership));
        Ok(may_see(AtEvent::unchanged(then.visibility), presence, pos < self.joined_until))
    }

    /// Whether the event is one of the user's own memberships.
    pub fn is_own_membership(&self, event: &Event) -> bool {
        self.member_key.is_some() && event.state_key_id() == self.member_key
    }

    /// The user's membership in a snapshot; `leave` if there is none.
    pub fn membership_at(&mut self, snapshot: NodeId) -> Result<Membership, StorageError> {
        Ok(self.at(snapshot)?.membership.unwrap_or(Membership::Leave))
    }

    /// What the snapshot before an event says. Where the event changes nothing of that, the snapshots before and after it
    /// say the same, so that a page of a timeline is looked up once.
    fn before(&mut self, header: &EventHeader, changes: bool) -> Result<AtSnapshot, StorageError> {
        let after = self.snapshots.get(&header.state_after).filter(|_| !changes).copied();
        let before = match after {
            Some(after) => *self.snapshots.entry(header.state_before).or_insert(after),
            None => self.at(header.state_before)?,
        };
        if !changes {
            self.snapshots.insert(header.state_after, before);
        }
        Ok(before)
    }

    fn at(&mut self, snapshot: NodeId) -> Result<AtSnapshot, StorageError> {
        if let Some(known) = self.snapshots.get(&snapshot) {
            return Ok(*known);
        }
        let visibility = match self.state_event(snapshot, self.visibility_key)? {
            Some(event) => HistoryVisibility::from_content(Some(&event.pdu()?.content)),
            None => HistoryVisibility::default(),
        };
        let membership = match self.state_event(snapshot, self.member_key)? {
            Some(event) => membership_of(&event)?,
            None => None,
        };
        let found = AtSnapshot { visibility, membership };
        self.snapshots.insert(snapshot, found);
        Ok(found)
    }

    fn state_event(
        &self,
        snapshot: NodeId,
        key: Option<StateKeyId>,
    ) -> Result<Option<Arc<Event>>, StorageError> {
        let Some(key) = key else { return Ok(None) };
        let num = self.reader.state_num_at(self.room, snapshot, key)?;
        num.map(|num| self.reader.event(num)).transpose()
    }

    /// How the last time in the room of the user, who is not in it, ended.
    ///
    /// What they may see goes up to the membership event that ended it. If that has no place in the timeline, came when they were out
    /// already, or was there already where they joined by way of another branch of the graph, it goes up to what they were told
    /// last as members: what came with the news that they are out may be later than the leave.
    fn last_left(&self) -> Result<Option<Left>, StorageError> {
        let walked = match self.last_stay(StreamPos::MAX)? {
            // Their join is no part of the room any more.
            Some(Stay::Lasts) => return Ok(None),
            Some(Stay::Ended(leave)) => {
                Some(leave).filter(|leave| leave.header.status == EventStatus::Accepted)
            }
            None => None,
        };
        let is_late = match &walked {
            Some(leave) => stay::is_late(self.reader, self.room, self.user, leave)?,
            None => false,
        };
        let walked = walked.filter(|_| !is_late);
        let is_last =
            |leave: &Arc<Event>| self.standing.as_ref().is_some_and(|row| row.value.event == leave.num);
        if walked.as_ref().is_some_and(is_last) {
            return Ok(walked.map(Left::with));
        }
        let walked_until = walked.as_ref().map_or(StreamPos(i64::MIN), |leave| leave.pos());
        let end = self.end_behind(walked_until)?.filter(|end| walked_until < end.until);
        if let Some(StayEnd { until, state }) = end
            && let Some(join) = self.state_event(state, self.member_key)?
            && join.header.status == EventStatus::Accepted
            && membership_of(&join)? == Some(Membership::Join)
        {
            return Ok(Some(Left { until, state, with: None }));
        }
        Ok(walked.map(Left::with))
    }

    /// Where the room was last taken from the user, who is not in it, if that was behind `after` and is known.
    fn end_behind(&self, after: StreamPos) -> Result<Option<StayEnd>, StorageError> {
        match &self.standing {
            Some(row) if row.value.ever_joined => stay::end(self.reader, self.room, self.user, after),
            _ => Ok(None),
        }
    }

    /// The last time that the user was in the room at or before `at`, if they ever were until then.
    fn last_stay(&self, at: StreamPos) -> Result<Option<Stay>, StorageError> {
        let Some(standing) = self.standing.as_ref().filter(|row| row.value.ever_joined) else {
            return Ok(None);
        };
        let mut event = self.reader.event(standing.value.event)?;
        for _ in 0..MEMBERSHIPS_WALKED_MAX {
            let is_until_then = event.pos() <= at;
            if is_until_then && membership_of(&event)? == Some(Membership::Join) {
                return Ok(Some(Stay::Lasts));
            }
            let Some(previous) = self.state_event(event.header.state_before, self.member_key)? else {
                return Ok(None);
            };
            if is_until_then && membership_of(&previous)? == Some(Membership::Join) {
                return Ok(Some(Stay::Ended(event)));
            }
            event = previous;
        }
        Ok(None)
    }
}

fn membership_of(event: &Event) -> Result<Option<Membership>, StorageError> {
    Ok(event.pdu()?.membership().and_then(Membership::from_name))
}

fn presence(membership: Option<Membership>) -> Presence {
    match membership {
        Some(Membership::Join) => Presence::Joined,
        Some(Membership::Invite) => Presence::Invited,
        Some(Membership::Knock | Membership::Leave | Membership::Ban) | None => Presence::Absent,
    }
}
