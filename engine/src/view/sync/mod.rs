//! `GET /sync`: everything that is new for a device after a position, as one JSON body spliced from stored bytes.
//!
//! Invariant: the answer tells exactly what is at or before the reader's position and after `since`; so the next call,
//! from the position it returns, misses nothing and repeats nothing. Costs: nothing new → comparisons of integers;
//! news in k rooms → O(k + events sent).
//! Specification: client-server API, "Syncing", `GET /_matrix/client/v3/sync`.

mod device;
mod ephemeral;
mod own;
mod partial;
mod room;
mod shared;
mod state;
mod summary;
#[cfg(test)]
mod tests;

use std::{
    cell::OnceCell,
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

pub(crate) use device::DeviceFacts;
pub(crate) use shared::Section;
pub(crate) use state::at as state_at;
pub(super) use state::membership_at;

use crate::{
    account::{account_data, invite_permission::blocks_invites},
    core::{
        filter::Filter,
        json::splice::{object_member, string_member},
        num::{RoomNum, StreamPos, TextNum, UserNum},
    },
    device::to_device,
    error::{Error, Result, What},
    room::{
        ignored::{self, IgnoredUsers},
        visibility::Viewer,
    },
    store::{
        Direction, Positioned, Reader, schema,
        schema::{Membership, UserNews, UserRoom},
    },
    stream::{self, Standing},
    view::{View, token::SyncToken},
};

/// One sync request.
pub struct Sync {
    /// The user.
    pub user_id: String,
    /// The device; `None` for an application service without one.
    pub device_id: Option<String>,
    /// What the client has: everything up to here. `None` for an initial sync.
    pub since: Option<SyncToken>,
    /// What it wants to see.
    pub filter: Arc<Filter>,
    /// Whether all state is to be sent, also what it has.
    pub full_state: bool,
    /// The name under which state is to be given as of the end of the timeline, instead of its start under `state`.
    pub state_after: Option<&'static str>,
    /// Whether an answer that says nothing new is not given but waited on: then its body is left empty.
    pub waits: bool,
}

/// What a sync says.
#[non_exhaustive]
pub struct SyncAnswer {
    /// The JSON body; empty if there is nothing new and the request [waits](Sync::waits).
    pub body: Vec<u8>,
    /// What the client has when it has read it.
    pub token: SyncToken,
    /// Whether it says nothing new, so that a long poll should wait on.
    pub is_empty: bool,
    /// Whether to-device messages lie in the queue that the device has received, as its token says: they are to be
    /// removed with [`DeleteToDevice`](crate::command::DeleteToDevice).
    pub has_received: bool,
    /// Whether its token is of a database that was lost: what others start sessions with may have been given out there, and is to
    /// be renewed with [`RenewKeyStock`](crate::command::RenewKeyStock).
    pub begins_anew: bool,
}

/// The request with its names translated, and the news that concern it.
struct Request<'a> {
    reader: &'a Reader,
    user: UserNum,
    device: Option<TextNum>,
    since: Option<StreamPos>,
    /// The to-device messages that it has.
    to_device_since: StreamPos,
    sync: &'a Sync,
    /// Whether something of the user's own may have changed after `since`: account data, memberships, keys, messages to
    /// their devices.
    has_own_news: bool,
    /// The rooms that list the user: those that they are joined to, and if there are no own news, have been since `since`.
    listed_rooms: Vec<RoomNum>,
    /// The user's own entries after `since`; empty for an initial sync.
    news: Vec<(StreamPos, UserNews)>,
    /// What is known of the device.
    facts: Arc<DeviceFacts>,
    /// The account data of rooms, once an initial sync has asked for it.
    set_in_rooms: OnceCell<HashMap<RoomNum, Vec<account_data::Entry>>>,
    /// Whom the user ignores, once it has been read.
    ignored: OnceCell<Arc<IgnoredUsers>>,
}

/// The rooms to write about, and those that matter for what stands outside of them, whatever the filter leaves out.
#[derive(Default)]
struct Rooms {
    joined: Vec<RoomNum>,
    invited: Vec<RoomNum>,
    knocked: Vec<RoomNum>,
    left: Vec<(RoomNum, Positioned<UserRoom>)>,
    /// Forgotten, and nothing is kept of them: this server never was there.
    gone: Vec<RoomNum>,
    /// Joined after `since`, or left out until then for want of members, also if it is filtered out; so the rest.
    newly_joined: Vec<RoomNum>,
    /// Those, and rooms that the user has left and come back into.
    entered: Vec<RoomNum>,
    /// No longer joined since `since`.
    newly_left: Vec<RoomNum>,
    /// Joined before `since`, and there is something new.
    with_news: Vec<RoomNum>,
}

impl View for Sync {
    type Output = SyncAnswer;

    fn read(&self, reader: &Reader) -> Result<SyncAnswer> {
        let user = reader.user_num(&self.user_id)?.ok_or(Error::NotFound(What::User))?;
        let device = self.device_id.as_deref().map(|id| reader.text_num(id)).transpose()?.flatten();
        stream::activate(reader, user)?;
        // A token that is not known is of a time that this database lacks, having been restored from before: who has it begins
        // anew. Those of before a restart are, as positions go on from above all that may have been given out.
        let token = self.since.filter(|since| reader.knows(since.pos) && reader.knows(since.to_device));
        if let Some(since) = token
            && !self.full_state
            && since.to_device >= since.pos
            && reader.shared.watch.has_news(user, since.pos) == Some(false)
        {
            let pos = reader.pos;
            let known = Standing { own_news: StreamPos::ZERO, rooms: Vec::new() };
            let request = Request::new(reader, self, user, device, (Some(pos), pos), known)?;
            return request.nothing(SyncToken { pos, to_device: pos });
        }
        let since = token.map(|since| since.pos);
        let to_device_since = token.map_or(StreamPos::ZERO, |since| since.to_device);
        let standing = match reader.shared.watch.standing(user) {
            Some(standing) => standing,
            // Forgotten again within this moment.
            None => Standing { own_news: StreamPos::MAX, rooms: reader.joined_rooms(user)? },
        };
        let request = Request::new(reader, self, user, device, (since, to_device_since), standing)?;
        if request.begins_anew() {
            reader.shared.may_be_restored.store(true, Ordering::Relaxed);
        }
        request.answer()
    }
}

impl<'a> Request<'a> {
    /// `has` says what the client has: of the stream, and of the to-device messages.
    fn new(
        reader: &'a Reader,
        sync: &'a Sync,
        user: UserNum,
        device: Option<TextNum>,
        has: (Option<StreamPos>, StreamPos),
        standing: Standing,
    ) -> Result<Self> {
        let (since, to_device_since) = has;
        let has_own_news = since.is_none_or(|since| standing.own_news > since);
        let news = match since.filter(|_| has_own_news) {
            Some(since) => own::news(reader, user, since)?,
            None => Vec::new(),
        };
        Ok(Self {
            reader,
            user,
            device,
            since,
            to_device_since,
            sync,
            has_own_news,
            listed_rooms: standing.rooms,
            news,
            facts: device::facts(reader, user, device)?,
            set_in_rooms: OnceCell::new(),
            ignored: OnceCell::new(),
        })
    }

    /// Whom the user ignores, read once for all rooms.
    fn ignored(&self) -> Result<Arc<IgnoredUsers>> {
        if let Some(ignored) = self.ignored.get() {
            return Ok(ignored.clone());
        }
        let ignored = ignored::by(self.reader, self.user)?;
        Ok(self.ignored.get_or_init(|| ignored).clone())
    }

    /// The user in front of a room.
    fn viewer(&self, room: RoomNum) -> Result<Viewer<'a>> {
        Ok(Viewer::ignoring(self.reader, room, self.user, self.ignored()?)?)
    }

    fn answer(&self) -> Result<SyncAnswer> {
        // A few messages; what is more makes it grow.
        let mut body = Vec::with_capacity(2048);
        body.push(b'{');
        let (messages, to_device) = own::to_device_messages(self)?;
        let token = SyncToken { pos: self.reader.pos, to_device };
        string_member(&mut body, "next_batch", &token.to_string());
        let bare = body.len();
        let mut rooms = match self.since {
            None => self.all_rooms()?,
            Some(since) => self.rooms_with_news(since)?,
        };
        partial::sort(self, &mut rooms)?;
        self.drop_unwanted(&mut rooms)?;
        self.write_rooms(&mut body, &rooms)?;
        own::write(self, &mut body, &rooms, &messages)?;
        let is_empty = self.since.is_some() && body.len() == bare;
        self.finish(body, token, is_empty)
    }

    /// Takes out the invites that the user does not want to see: of before they said so, or that came with a room's other
    /// events. They stay, and are shown when they are wanted. But those to rooms that the client takes the user to be in are
    /// shown: by nothing else would it learn that they are out.
    fn drop_unwanted(&self, rooms: &mut Rooms) -> Result<()> {
        let Rooms { invited, newly_left, .. } = rooms;
        if invited.is_empty() {
            return Ok(());
        }
        if blocks_invites(self.reader, self.user)? {
            invited.retain(|room| newly_left.contains(room));
            return Ok(());
        }
        let ignored = self.ignored()?;
        for room in std::mem::take(invited) {
            let is_ignored = match self.reader.membership_sender(self.user, room)? {
                Some(inviter) => ignored.contains_id(self.reader, &inviter)?,
                None => false,
            };
            if !is_ignored || newly_left.contains(&room) {
                invited.push(room);
            }
        }
        Ok(())
    }

    /// The answer to who knows everything.
    fn nothing(&self, token: SyncToken) -> Result<SyncAnswer> {
        if self.sync.waits {
            return self.finish(Vec::new(), token, true);
        }
        let mut body = b"{".to_vec();
        string_member(&mut body, "next_batch", &token.to_string());
        self.finish(body, token, true)
    }

    fn finish(&self, mut body: Vec<u8>, token: SyncToken, is_empty: bool) -> Result<SyncAnswer> {
        if is_empty && self.sync.waits {
            body.clear();
        } else {
            self.write_key_counts(&mut body);
            body.push(b'}');
        }
        let (has_received, begins_anew) = (self.has_received()?, self.begins_anew());
        Ok(SyncAnswer { body, token, is_empty, has_received, begins_anew })
    }

    /// Whether the client comes with a token that is not known here.
    fn begins_anew(&self) -> bool {
        self.sync.since.is_some() && self.since.is_none()
    }

    /// In every answer, because clients take their absence for none.
    fn write_key_counts(&self, out: &mut Vec<u8>) {
        if self.sync.device_id.is_some() {
            out.extend_from_slice(&self.facts.key_counts);
        }
    }

    fn has_received(&self) -> Result<bool> {
        match self.device {
            Some(device) if self.facts.has_messages && self.sync.since.is_some() => {
                to_device::has_acknowledged(self.reader, self.user, device, self.to_device_since)
            }
            _ => Ok(false),
        }
    }

    fn includes(&self, room: RoomNum) -> Result<bool> {
        let filter = &self.sync.filter.room;
        Ok(filter.includes_every_room() || filter.includes_room(&self.reader.room_id(room)?))
    }

    fn all_rooms(&self) -> Result<Rooms> {
        let mut rooms = Rooms::default();
        for (room, row) in self.reader.user_rooms(self.user)? {
            if row.value.forgotten || !self.includes(room)? {
                continue;
            }
            match row.value.membership {
                Membership::Join => rooms.joined.push(room),
                Membership::Invite => rooms.invited.push(room),
                Membership::Knock => rooms.knocked.push(room),
                Membership::Leave | Membership::Ban if self.sync.filter.room.include_leave => {
                    rooms.left.push((room, row));
                }
                Membership::Leave | Membership::Ban => {}
            }
        }
        Ok(rooms)
    }

    fn rooms_with_news(&self, since: StreamPos) -> Result<Rooms> {
        let mut rooms = Rooms::default();
        let mut own: Vec<RoomNum> = Vec::new();
        for (_, news) in &self.news {
            match news {
                UserNews::Membership(room) if !own.contains(room) => own.push(*room),
                _ => {}
            }
        }
        for room in &own {
            self.sort_own_change(&mut rooms, *room, since)?;
        }
        let told_elsewhere = |room: &RoomNum| own.contains(room);
        let account_data = self.news.iter().filter_map(|(_, news)| match news {
            UserNews::RoomAccountData(room, _) => Some(*room),
            _ => None,
        });
        let mut candidates: Vec<RoomNum> = account_data.collect();
        for room in self.listed_rooms.iter().copied() {
            let has_news = self.has_room_news(room, since)?;
            if has_news && !rooms.newly_joined.contains(&room) {
                rooms.with_news.push(room);
            }
            if has_news || self.sync.full_state {
                candidates.push(room);
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        for room in candidates.into_iter().filter(|room| !told_elsewhere(room)) {
            if self.includes(room)? && self.is_joined(room)? {
                rooms.joined.push(room);
            }
        }
        Ok(rooms)
    }

    /// Whether the user is in a room that lists them, or that they have news of.
    fn is_joined(&self, room: RoomNum) -> Result<bool> {
        // With news, the list may be ahead of this moment.
        Ok(!self.has_own_news || self.reader.membership(self.user, room)? == Some(Membership::Join))
    }

    /// Where a room belongs in which the user's own membership changed after `since`.
    fn sort_own_change(&self, rooms: &mut Rooms, room: RoomNum, since: StreamPos) -> Result<()> {
        let is_included = self.includes(room)?;
        let Some(row) = self.reader.user_room(self.user, room)? else {
            if is_included {
                rooms.gone.push(room);
            }
            return Ok(());
        };
        let before = membership_at(self.reader, self.user, room, since)?;
        let was_joined = before == Some(Membership::Join);
        if was_joined && row.value.membership != Membership::Join {
            rooms.newly_left.push(room);
        }
        match row.value.membership {
            Membership::Join => {
                // A join published while the user was being listed in their rooms is not in that list.
                self.reader.shared.watch.list(self.user, room);
                rooms.entered.push(room);
                if !was_joined {
                    rooms.newly_joined.push(room);
                }
                if is_included {
                    rooms.joined.push(room);
                }
            }
            Membership::Leave | Membership::Ban => {
                // Nor does a leave published then take the user off it.
                self.reader.shared.watch.unlist_left(self.user, room, self.reader.pos);
                if is_included && (!row.value.forgotten || self.was_shown(room, before)?) {
                    rooms.left.push((room, row));
                }
            }
            Membership::Invite if is_included => rooms.invited.push(room),
            Membership::Knock if is_included => rooms.knocked.push(room),
            Membership::Invite | Membership::Knock => {}
        }
        Ok(())
    }

    /// Whether a room that is forgotten already was shown, so that the user's other devices must still learn that they are out
    /// of it; `before` is what they were in the room.
    fn was_shown(&self, room: RoomNum, before: Option<Membership>) -> Result<bool> {
        let was_open = matches!(before, Some(Membership::Join | Membership::Invite | Membership::Knock));
        // What this server is told from outside of a room begins with an invite or a knock.
        Ok(was_open || self.reader.out_of_band(self.user, room)?.is_some())
    }

    fn has_room_news(&self, room: RoomNum, since: StreamPos) -> Result<bool> {
        let watch = &self.reader.shared.watch;
        let last = match watch.room_news(room) {
            Some(pos) => pos,
            None => {
                let pos = room_news_on_disk(self.reader, room)?;
                watch.note_room_news(room, pos);
                pos
            }
        };
        Ok(last > since)
    }

    fn write_rooms(&self, body: &mut Vec<u8>, rooms: &Rooms) -> Result<()> {
        let start = body.len();
        object_member(body, "rooms", |out| {
            section(out, "join", &rooms.joined, |out, room| room::write_joined(self, out, *room, rooms))?;
            section(out, "invite", &rooms.invited, |out, room| {
                room::write_stripped(self, out, *room, "invite_state")
            })?;
            section(out, "knock", &rooms.knocked, |out, room| {
                room::write_stripped(self, out, *room, "knock_state")
            })?;
            let left = rooms.left.iter().map(|(room, row)| (*room, Some(row)));
            let left: Vec<_> = left.chain(rooms.gone.iter().map(|room| (*room, None))).collect();
            section(out, "leave", &left, |out, (room, row)| match row {
                Some(row) => room::write_left(self, out, *room, row),
                None => room::write_gone(self, out, *room),
            })
        })?;
        if body.ends_with(b"\"rooms\":{}") {
            body.truncate(start);
        }
        Ok(())
    }
}

/// A section of `rooms`; left out when nothing is written in it.
fn section<T>(
    out: &mut Vec<u8>,
    name: &str,
    rooms: &[T],
    mut write: impl FnMut(&mut Vec<u8>, &T) -> Result<()>,
) -> Result<()> {
    if rooms.is_empty() {
        return Ok(());
    }
    let start = out.len();
    let mut is_empty = true;
    object_member(out, name, |out| {
        let first = out.len();
        for room in rooms {
            write(out, room)?;
        }
        is_empty = out.len() == first;
        Ok::<(), Error>(())
    })?;
    if is_empty {
        out.truncate(start);
    }
    Ok(())
}

/// The last position at which something happened in the room, from the store: after a start nobody remembers.
fn room_news_on_disk(reader: &Reader, room: RoomNum) -> Result<StreamPos> {
    let mut last = StreamPos::ZERO;
    reader.scan(&schema::TIMELINE, &room, Direction::Backward, |(_, pos), _| {
        last = last.max(pos);
        false
    })?;
    reader.scan(&schema::RECEIPT_STREAM, &room, Direction::Backward, |(_, pos), _| {
        last = last.max(pos);
        false
    })?;
    // What became of the state by no event that came then.
    reader.scan(&schema::STATE_CHANGES, &room, Direction::Backward, |(_, pos), _| {
        last = last.max(pos);
        false
    })?;
    // That it became whole has no row in any.
    Ok(last.max(reader.shared.watch.marks.partial(room).unwrap_or_default()))
}
