//! What is the user's or the device's own in a sync: account data, presence, to-device messages, device lists, key counts.

use bytes::Bytes;

use super::{Request, Rooms};
use crate::{
    account::{account_data, presence, push_rules},
    core::{
        event::JsonObject,
        filter::content_has_url,
        json::splice::{events_member, item, member, object_member, plain_event_item},
        num::{RoomNum, StreamPos, UserNum},
    },
    device::{
        lists::{self, DeviceLists, RoomChanges},
        to_device,
    },
    error::Result,
    store::{Direction, Reader, StorageError, schema, schema::UserNews},
};

/// To-device messages in one answer; the rest follows in the next (as other servers do).
const TO_DEVICE_MESSAGES_MAX: usize = 100;
/// The type of the account data that holds the push rules, which are stored apart.
const PUSH_RULES: &str = "m.push_rules";

/// The user's own entries after `since`. O(result).
pub(super) fn news(
    reader: &Reader,
    user: UserNum,
    since: StreamPos,
) -> Result<Vec<(StreamPos, UserNews)>, StorageError> {
    let mut news = Vec::new();
    let (start, end) = ((user, StreamPos(since.0 + 1)), (user, StreamPos(reader.pos.0.saturating_add(1))));
    reader.scan_between(&schema::USER_STREAM, &start, &end, Direction::Forward, |(_, pos), entry| {
        news.push((pos, entry));
        true
    })?;
    Ok(news)
}

/// Everything outside of `rooms`, as far as there is any.
pub(super) fn write(
    request: &Request<'_>,
    out: &mut Vec<u8>,
    rooms: &Rooms,
    messages: &[Bytes],
) -> Result<()> {
    write_account_data(request, out)?;
    write_presence(request, out, rooms)?;
    write_to_device(out, messages)?;
    write_device_lists(request, out, rooms)
}

fn write_account_data(request: &Request<'_>, out: &mut Vec<u8>) -> Result<()> {
    let filter = &request.sync.filter.account_data;
    if filter.is_nothing() {
        return Ok(());
    }
    let reader = request.reader;
    let mut entries = match request.since {
        None => account_data::global(reader, request.user)?,
        Some(_) if !request.has_news(|news| matches!(news, UserNews::AccountData(_))) => Vec::new(),
        Some(since) => account_data::global_since(reader, request.user, since)?,
    };
    let rules_changed =
        request.has_news(|news| matches!(news, UserNews::AccountData(kind) if kind == PUSH_RULES));
    if request.since.is_none() || rules_changed {
        entries.retain(|(kind, _)| kind != PUSH_RULES);
        entries.push((PUSH_RULES.to_owned(), push_rules::content(reader, request.user)?));
    }
    entries.retain(|(kind, _)| filter.matches(kind, &request.sync.user_id));
    if entries.is_empty() {
        return Ok(());
    }
    events_member(out, "account_data", |out| {
        for (kind, content) in &entries {
            plain_event_item(out, kind, content);
        }
        Ok(())
    })
}

/// The account data of one room.
pub(super) fn write_room_account_data(
    request: &Request<'_>,
    out: &mut Vec<u8>,
    room: RoomNum,
    room_id: &str,
    since: Option<StreamPos>,
) -> Result<()> {
    let filter = &request.sync.filter.room.account_data;
    if filter.is_nothing() {
        return Ok(());
    }
    let reader = request.reader;
    let mut entries = match since {
        None if request.since.is_none() => request.set_in(room)?,
        None => account_data::room(reader, request.user, room)?,
        Some(_)
            if !request.has_news(|news| matches!(news, UserNews::RoomAccountData(at, _) if *at == room)) =>
        {
            return Ok(());
        }
        Some(since) => account_data::room_since(reader, request.user, room, since)?,
    };
    entries.retain(|(kind, content)| {
        let has_url =
            || serde_json::from_slice::<JsonObject>(content).is_ok_and(|content| content_has_url(&content));
        filter.matches(kind, &request.sync.user_id, room_id, has_url)
    });
    if entries.is_empty() {
        return Ok(());
    }
    events_member(out, "account_data", |out| {
        for (kind, content) in &entries {
            plain_event_item(out, kind, content);
        }
        Ok(())
    })
}

fn write_presence(request: &Request<'_>, out: &mut Vec<u8>, rooms: &Rooms) -> Result<()> {
    if request.sync.filter.presence.is_nothing() {
        return Ok(());
    }
    let reader = request.reader;
    let entered = &rooms.newly_joined;
    let users = reader.shared.watch.presence_news(request.user, request.since, reader.pos, entered);
    let mut events = Vec::new();
    for user in users {
        let sender = reader.user_id(user)?;
        if request.sync.filter.presence.matches("m.presence", &sender) {
            events.push(presence::event(reader, user)?);
        }
    }
    if events.is_empty() {
        return Ok(());
    }
    events_member(out, "presence", |out| {
        for event in &events {
            item(out);
            out.extend_from_slice(event.to_string().as_bytes());
        }
        Ok(())
    })
}

/// The to-device messages of this answer, and the position up to which they are complete.
pub(super) fn to_device_messages(request: &Request<'_>) -> Result<(Vec<Bytes>, StreamPos)> {
    let reader = request.reader;
    match request.device.filter(|_| request.facts.has_messages) {
        None => Ok((Vec::new(), reader.pos)),
        Some(device) => to_device::since(
            reader,
            request.user,
            device,
            request.to_device_since,
            reader.pos,
            TO_DEVICE_MESSAGES_MAX,
        ),
    }
}

fn write_to_device(out: &mut Vec<u8>, messages: &[Bytes]) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    events_member(out, "to_device", |out| {
        for message in messages {
            item(out);
            out.extend_from_slice(message);
        }
        Ok(())
    })
}

fn write_device_lists(request: &Request<'_>, out: &mut Vec<u8>, rooms: &Rooms) -> Result<()> {
    let reader = request.reader;
    let found = device_lists(request, rooms)?;
    if found.changed.is_empty() && found.left.is_empty() {
        return Ok(());
    }
    object_member(out, "device_lists", |out| {
        for (name, users) in [("changed", &found.changed), ("left", &found.left)] {
            member(out, name);
            out.push(b'[');
            for user in users {
                item(out);
                crate::core::json::write_string(out, &reader.user_id(*user)?);
            }
            out.push(b']');
        }
        Ok(())
    })
}

fn device_lists(request: &Request<'_>, rooms: &Rooms) -> Result<DeviceLists> {
    let reader = request.reader;
    let Some(since) = request.since else {
        // An initial sync tells of no changes: the client asks for the devices of everyone it talks to. One that begins anew
        // goes on with those that it knows.
        return match request.begins_anew() {
            true => lists::all(reader, request.user),
            false => Ok(DeviceLists::default()),
        };
    };
    let marks = &reader.shared.watch.marks;
    let nobody_moved = |room: &RoomNum| !marks.may_have_members(*room, since);
    if !request.has_own_news && rooms.with_news.iter().all(nobody_moved) {
        return Ok(DeviceLists::default());
    }
    let changes =
        RoomChanges { joined: &rooms.entered, left: &rooms.newly_left, with_news: &rooms.with_news };
    lists::between(reader, request.user, since, reader.pos, changes)
}

impl Request<'_> {
    /// The account data of a room in an initial sync, which reads that of all rooms at once.
    fn set_in(&self, room: RoomNum) -> Result<Vec<account_data::Entry>> {
        let rooms = match self.set_in_rooms.get() {
            Some(rooms) => rooms,
            None => {
                let rooms = account_data::of_rooms(self.reader, self.user)?;
                self.set_in_rooms.get_or_init(|| rooms)
            }
        };
        Ok(rooms.get(&room).cloned().unwrap_or_default())
    }

    fn has_news(&self, which: impl Fn(&UserNews) -> bool) -> bool {
        self.news.iter().any(|(_, news)| which(news))
    }
}
