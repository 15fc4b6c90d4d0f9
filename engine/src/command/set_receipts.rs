//! A user has read up to an event. Specification: client-server API, "Receipts" and "Fully read markers".

use std::sync::Arc;

use serde_json::json;

use crate::{
    account::{account_data, presence},
    command::{Command, Lanes},
    core::num::{RoomNum, UserNum},
    error::{Denied, Error, Invalid, Result},
    room::{
        Event,
        receipts::{self, MAIN_THREAD, ReceiptKind, UNTHREADED, is_related, thread_root},
        visibility::Viewer,
    },
    store::{Reader, Tx},
    stream::{Outgoing, Touch},
};

/// The type of the account data that holds the read marker.
const FULLY_READ: &str = "m.fully_read";

/// `POST /rooms/{roomId}/receipt/…` and `/read_markers`: event ids for what is to be moved.
#[derive(Clone, Debug, Default)]
pub struct SetReceipts {
    /// The room's id.
    pub room_id: String,
    /// Who has read.
    pub user: String,
    /// `m.read`.
    pub read: Option<String>,
    /// `m.read.private`.
    pub read_private: Option<String>,
    /// `m.fully_read`.
    pub fully_read: Option<String>,
    /// The thread that the receipts are for: `main` or the id of its root; else for the whole room.
    pub thread_id: Option<String>,
}

impl Command for SetReceipts {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (room, user, read, read_private, fully_read) = {
            let (mut viewer, _) = Viewer::enter(tx, &self.room_id, &self.user)?;
            if !viewer.is_joined() {
                return Err(Denied::NotInRoom.into());
            }
            let mut event = |event_id: &Option<String>| {
                event_id.as_ref().map(|event_id| viewer.event(event_id)).transpose()
            };
            let events = (event(&self.read)?, event(&self.read_private)?, event(&self.fully_read)?);
            (viewer.room, viewer.user, events.0, events.1, events.2)
        };
        let now_ms = tx.shared.clock.now_ms();
        for (kind, event) in [(ReceiptKind::Read, read), (ReceiptKind::ReadPrivate, read_private)] {
            let Some(event) = event else { continue };
            let thread = self.thread(tx, &event)?;
            let is_news = receipts::set(tx, room, user, kind, thread, &event, now_ms)?;
            // That who wrote an event has read it needs no saying.
            let is_told = is_news && kind == ReceiptKind::Read && event.header.sender != user;
            if is_told && tx.count_other_servers(room)? > 0 {
                let thread = tx.intern_text(thread)?;
                tx.touch(Touch::Outgoing(Outgoing::Receipt { user, room, thread }));
            }
        }
        if let Some(event) = fully_read {
            if self.thread_id.is_some() {
                return Err(invalid_thread("m.fully_read is not for a thread"));
            }
            set_fully_read(tx, room, user, &event)?;
        }
        presence::acted(tx, user);
        Ok(())
    }
}

impl SetReceipts {
    /// The thread, if the event belongs to it.
    fn thread(&self, reader: &Reader, event: &Arc<Event>) -> Result<&str> {
        let Some(thread_id) = self.thread_id.as_deref() else { return Ok(UNTHREADED) };
        let root = thread_root(reader, event)?;
        let belongs = match thread_id {
            "" => return Err(invalid_thread("thread_id must not be empty")),
            MAIN_THREAD => root.is_none(),
            // A root may be read as the first event of its thread, and with it what relates to it otherwise.
            thread_id => match root {
                Some(root) => *root == *thread_id || *event.event_id == *thread_id,
                None => *event.event_id == *thread_id || is_related(reader, event, thread_id)?,
            },
        };
        if belongs { Ok(thread_id) } else { Err(invalid_thread("the event is not in this thread")) }
    }
}

fn invalid_thread(why: &str) -> Error {
    Invalid::Parameter { what: "thread_id", why: why.to_owned() }.into()
}

/// Moves the read marker, if that is forwards.
fn set_fully_read(tx: &mut Tx, room: RoomNum, user: UserNum, event: &Event) -> Result<()> {
    if let Some(content) = account_data::get(tx, user, Some(room), FULLY_READ)?
        && let Ok(content) = serde_json::from_slice::<serde_json::Value>(&content)
        && let Some(before) = content.get("event_id").and_then(serde_json::Value::as_str)
        && let Some(before) = tx.event_num(before)?
        && tx.event(before)?.pos() >= event.pos()
    {
        return Ok(());
    }
    let content = json!({ "event_id": &*event.event_id }).to_string();
    Ok(account_data::set(tx, user, Some(room), FULLY_READ, &content.into())?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{core::num::StreamPos, fixture::World, stream};

    const ROOM: &str = "!room:here.example";
    const ALICE: &str = "@alice:here.example";
    const BOB: &str = "@bob:here.example";

    fn world() -> World {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        world.join(ROOM, BOB);
        world
    }

    fn receipts(user: &str) -> SetReceipts {
        SetReceipts { room_id: ROOM.into(), user: user.into(), ..SetReceipts::default() }
    }

    fn read(world: &World, user: &str, event_id: &str, thread_id: Option<&str>) -> Result<()> {
        let thread_id = thread_id.map(str::to_owned);
        let set = SetReceipts { read: Some(event_id.into()), thread_id, ..receipts(user) };
        world.engine.write(set).wait()
    }

    /// The contents of the events by which `user` is told of receipts since a position.
    fn contents(world: &World, user: &str, since: StreamPos) -> Vec<Value> {
        let contents = world.ask(|reader| {
            let (room, user) = (reader.room_num(ROOM)?.unwrap(), reader.user_num(user)?.unwrap());
            Ok(receipts::since(reader, room, user, since)?)
        });
        contents.iter().map(|content| serde_json::from_slice(content).unwrap()).collect()
    }

    /// The same where there is one at most.
    fn told(world: &World, user: &str, since: StreamPos) -> Value {
        let mut contents = contents(world, user, since);
        assert!(contents.len() <= 1, "{contents:?}");
        contents.pop().unwrap_or_default()
    }

    #[test]
    fn receipts_move_forwards_and_are_told_once() {
        let world = world();
        let (first, second) = (world.message(ROOM, ALICE, "1"), world.message(ROOM, ALICE, "2"));
        read(&world, BOB, &first, None).unwrap();
        let before = world.engine.position();
        let ts = world.engine.now_ms();
        assert_eq!(told(&world, ALICE, StreamPos::ZERO), json!({&first: {"m.read": {BOB: {"ts": ts}}}}));
        read(&world, BOB, &second, None).unwrap();
        let moved = json!({&second: {"m.read": {BOB: {"ts": ts}}}});
        assert_eq!(told(&world, ALICE, before), moved);
        // Back is no news, and the same again neither.
        let after = world.engine.position();
        read(&world, BOB, &first, None).unwrap();
        read(&world, BOB, &second, None).unwrap();
        assert_eq!(told(&world, ALICE, after), Value::Null);
        assert_eq!(told(&world, ALICE, StreamPos::ZERO), moved);
    }

    #[test]
    fn private_receipts_are_told_to_their_user_only() {
        let world = world();
        let event_id = world.message(ROOM, ALICE, "1");
        let set = SetReceipts { read_private: Some(event_id.clone()), ..receipts(BOB) };
        world.engine.write(set).wait().unwrap();
        assert_eq!(told(&world, ALICE, StreamPos::ZERO), Value::Null);
        assert!(told(&world, BOB, StreamPos::ZERO)[&event_id]["m.read.private"][BOB].is_object());
    }

    #[test]
    fn private_receipts_wake_their_user_only() {
        let world = world();
        let event_id = world.message(ROOM, ALICE, "1");
        let has_news = |user: &str, since| {
            world.ask(|reader| {
                let user = reader.user_num(user)?.unwrap();
                stream::activate(reader, user)?;
                Ok(reader.shared.watch.has_news(user, since))
            })
        };
        for user in [ALICE, BOB] {
            has_news(user, StreamPos::ZERO);
        }
        let before = world.engine.position();
        let private = SetReceipts { read_private: Some(event_id.clone()), ..receipts(BOB) };
        world.engine.write(private).wait().unwrap();
        assert_eq!((has_news(ALICE, before), has_news(BOB, before)), (Some(false), Some(true)));
        read(&world, BOB, &event_id, None).unwrap();
        assert_eq!(has_news(ALICE, before), Some(true));
    }

    #[test]
    fn threads_have_receipts_of_their_own() {
        let world = world();
        let root = world.message(ROOM, ALICE, "root");
        let inside = world.relate(ROOM, ALICE, "m.thread", &root, json!({}));
        let reaction = world.relate(ROOM, ALICE, "m.annotation", &inside, json!({}));
        read(&world, BOB, &reaction, Some(&root)).unwrap();
        read(&world, BOB, &root, Some("main")).unwrap();
        let told = told(&world, ALICE, StreamPos::ZERO);
        assert_eq!(told[&reaction]["m.read"][BOB]["thread_id"], root);
        assert_eq!(told[&root]["m.read"][BOB]["thread_id"], "main");
        for (event_id, thread) in [(&inside, "main"), (&inside, ""), (&inside, "$other"), (&inside, &*inside)]
        {
            let is_root_itself = thread == inside;
            assert_eq!(read(&world, BOB, event_id, Some(thread)).is_ok(), is_root_itself, "{thread}");
        }
        let marker = SetReceipts { fully_read: Some(root), thread_id: Some("main".into()), ..receipts(BOB) };
        assert!(world.engine.write(marker).wait().is_err());
    }

    #[test]
    fn a_thread_is_read_whether_its_root_is_here_or_not() {
        let world = world();
        let inside = world.relate(ROOM, ALICE, "m.thread", "$before", json!({}));
        let reaction = world.relate(ROOM, ALICE, "m.annotation", &inside, json!({}));
        for (event_id, thread) in [(&inside, "main"), (&inside, "$other"), (&reaction, "main")] {
            assert!(read(&world, BOB, event_id, Some(thread)).is_err(), "{thread}");
        }
        for event_id in [&inside, &reaction] {
            read(&world, BOB, event_id, Some("$before")).unwrap();
            let told = told(&world, ALICE, StreamPos::ZERO);
            assert_eq!(told[event_id]["m.read"][BOB]["thread_id"], "$before");
        }
    }

    /// Specification: what relates to a root otherwise is in the main timeline, and a receipt may be for a thread that its event
    /// is related to.
    #[test]
    fn what_relates_to_a_root_is_read_with_the_main_timeline_or_the_thread() {
        let world = world();
        let root = world.message(ROOM, ALICE, "root");
        let inside = world.relate(ROOM, ALICE, "m.thread", &root, json!({}));
        let reference = world.relate(ROOM, ALICE, "m.reference", &root, json!({}));
        let reaction = world.relate(ROOM, ALICE, "m.annotation", &reference, json!({}));
        for event_id in [&reference, &reaction] {
            for thread in ["main", &*root] {
                read(&world, BOB, event_id, Some(thread)).unwrap();
            }
            assert!(read(&world, BOB, event_id, Some(&inside)).is_err());
        }
    }

    #[test]
    fn receipts_of_several_threads_at_one_event_are_all_told() {
        let world = world();
        let (first, second) = (world.message(ROOM, ALICE, "1"), world.message(ROOM, ALICE, "2"));
        let ts = world.engine.now_ms();
        read(&world, ALICE, &first, Some("main")).unwrap();
        let before = world.engine.position();
        read(&world, BOB, &second, None).unwrap();
        // One content has a place for all that is told.
        let unthreaded = json!({&second: {"m.read": {BOB: {"ts": ts}}}});
        let of_alice = json!({"ts": ts, "thread_id": "main"});
        let both = json!({&first: {"m.read": {ALICE: of_alice}}, &second: unthreaded[&second]});
        assert_eq!(told(&world, ALICE, StreamPos::ZERO), both);
        let between = world.engine.position();
        read(&world, BOB, &second, Some("main")).unwrap();
        let of_bob = json!({"ts": ts, "thread_id": "main"});
        assert_eq!(told(&world, ALICE, between), json!({&second: {"m.read": {BOB: of_bob}}}));
        // It has none for two of one user, so there is one for each thread.
        let sorted = |since| {
            let mut contents = contents(&world, ALICE, since);
            contents.sort_by_key(|content| content.to_string().contains("main"));
            contents
        };
        let threaded = json!({&second: {"m.read": {BOB: of_bob}}});
        assert_eq!(sorted(before), [unthreaded.clone(), threaded]);
        let threaded = json!({&first: {"m.read": {ALICE: of_alice}}, &second: {"m.read": {BOB: of_bob}}});
        assert_eq!(sorted(StreamPos::ZERO), [unthreaded, threaded]);
        // What is told to nobody else has a place of its own.
        let private = SetReceipts { read_private: Some(second.clone()), ..receipts(BOB) };
        world.engine.write(private).wait().unwrap();
        assert_eq!(contents(&world, BOB, between).len(), 1);
        assert_eq!(contents(&world, BOB, before).len(), 2);
    }

    #[test]
    fn the_marker_moves_forwards() {
        let world = world();
        let (first, second) = (world.message(ROOM, ALICE, "1"), world.message(ROOM, ALICE, "2"));
        let marker = || {
            world.ask(|reader| {
                let (room, user) = (reader.room_num(ROOM)?, reader.user_num(BOB)?.unwrap());
                let content = account_data::get(reader, user, room, FULLY_READ)?.unwrap();
                Ok(serde_json::from_slice::<Value>(&content).unwrap()["event_id"].clone())
            })
        };
        for (event_id, expected) in [(&first, &first), (&second, &second), (&first, &second)] {
            let set = SetReceipts { fully_read: Some(event_id.clone()), ..receipts(BOB) };
            world.engine.write(set).wait().unwrap();
            assert_eq!(marker(), **expected);
        }
    }

    #[test]
    fn what_is_refused() {
        let world = world();
        let event_id = world.message(ROOM, ALICE, "1");
        assert!(read(&world, BOB, "$none", None).is_err());
        assert!(read(&world, "@carol:here.example", &event_id, None).is_err());
        world.leave(ROOM, BOB);
        assert!(read(&world, BOB, &event_id, None).is_err());
    }
}
