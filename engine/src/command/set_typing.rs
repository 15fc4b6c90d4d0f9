//! A user starts or stops typing. Nothing is written: who types is known in memory only.
//!
//! Specification: client-server API, "Typing Notifications".

use crate::{
    account::presence,
    command::{Command, Lanes},
    error::{Denied, Result},
    room::visibility::Viewer,
    store::Tx,
    stream::{Outgoing, TYPING_MS_MAX, Touch},
};

/// How long it holds when the client does not say.
const TYPING_MS_DEFAULT: u64 = 30_000;

/// `PUT /rooms/{roomId}/typing/{userId}`.
pub struct SetTyping {
    /// The room's id.
    pub room_id: String,
    /// Who types.
    pub user: String,
    /// Whether they do.
    pub typing: bool,
    /// For how long, in milliseconds.
    pub timeout_ms: Option<u64>,
}

impl Command for SetTyping {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (room, user) = {
            let (viewer, _) = Viewer::enter(tx, &self.room_id, &self.user)?;
            if !viewer.is_joined() {
                return Err(Denied::NotInRoom.into());
            }
            (viewer.room, viewer.user)
        };
        let timeout_ms = self.timeout_ms.unwrap_or(TYPING_MS_DEFAULT).min(TYPING_MS_MAX);
        let until_ms = if self.typing { tx.shared.clock.now_ms() + timeout_ms } else { 0 };
        tx.next_position();
        tx.touch(Touch::Typing { user, room, until_ms });
        if tx.count_other_servers(room)? > 0 {
            // Renewals, too: elsewhere a notice holds no longer than here.
            tx.touch(Touch::Outgoing(Outgoing::Typing { user, room, typing: self.typing }));
        }
        presence::acted(tx, user);
        Ok(())
    }
}

/// Ends the notices whose time is over, so that who waits is told. To be run every second or so.
pub struct EndTyping;

impl Command for EndTyping {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let now_ms = tx.shared.clock.now_ms();
        for (user, room) in tx.shared.watch.typing_over(now_ms) {
            tx.next_position();
            tx.touch(Touch::Typing { user, room, until_ms: 0 });
            if tx.count_other_servers(room)? > 0 {
                tx.touch(Touch::Outgoing(Outgoing::Typing { user, room, typing: false }));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::{core::num::StreamPos, fixture::World, room::typing, store::Memory};

    const ROOM: &str = "!room:here.example";
    const ALICE: &str = "@alice:here.example";

    fn told(world: &World, since: StreamPos) -> Option<Value> {
        world.ask(|reader| {
            let content = typing::since(reader, reader.room_num(ROOM)?.unwrap(), since)?;
            Ok(content.map(|content| serde_json::from_slice(&content).unwrap()))
        })
    }

    fn set(world: &World, typing: bool) {
        let set = SetTyping { room_id: ROOM.into(), user: ALICE.into(), typing, timeout_ms: Some(1000) };
        world.engine.write(set).wait().unwrap();
    }

    #[test]
    fn a_notice_begins_is_renewed_and_ends() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        assert_eq!(told(&world, StreamPos::ZERO), None);
        let before = world.engine.position();
        set(&world, true);
        let typing = Some(json!({"user_ids": [ALICE]}));
        assert_eq!(told(&world, before), typing);
        assert_eq!(told(&world, StreamPos::ZERO), typing);
        let begun = world.engine.position();
        world.pass_ms(900);
        set(&world, true);
        assert_eq!(told(&world, begun), None, "a renewal is no news");
        world.pass_ms(900);
        world.engine.write(EndTyping).wait().unwrap();
        assert_eq!(told(&world, before), typing, "it has been renewed");
        world.pass_ms(100);
        world.engine.write(EndTyping).wait().unwrap();
        assert_eq!(told(&world, begun), Some(json!({"user_ids": []})));
        assert_eq!(told(&world, StreamPos::ZERO), None);
    }

    #[test]
    fn it_is_over_when_the_clock_was_set_back() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        world.pass_ms(10 * TYPING_MS_MAX);
        set(&world, true);
        let begun = world.engine.position();
        world.set_back_ms(10 * TYPING_MS_MAX);
        assert_eq!(told(&world, StreamPos(begun.0 - 1)), Some(json!({"user_ids": []})));
        world.engine.write(EndTyping).wait().unwrap();
        assert_eq!(told(&world, begun), Some(json!({"user_ids": []})));
    }

    #[test]
    fn who_typed_before_a_restart_does_no_more() {
        let backend = Arc::new(Memory::default());
        let before = World::on(backend.clone());
        before.room(ROOM, ALICE, None);
        set(&before, true);
        let told_before = before.engine.position();
        drop(before);
        let world = World::on(backend);
        let opened_at = world.engine.position();
        assert!(told_before < opened_at);
        assert_eq!(told(&world, told_before), Some(json!({"user_ids": []})));
        assert_eq!((told(&world, opened_at), told(&world, StreamPos::ZERO)), (None, None));
        set(&world, true);
        assert_eq!(told(&world, told_before), Some(json!({"user_ids": [ALICE]})));
    }

    #[test]
    fn stopping_and_leaving_end_it() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        set(&world, true);
        set(&world, false);
        assert_eq!(told(&world, StreamPos::ZERO), None);
        set(&world, true);
        world.leave(ROOM, ALICE);
        assert_eq!(told(&world, StreamPos::ZERO), None);
        let late = SetTyping { room_id: ROOM.into(), user: ALICE.into(), typing: true, timeout_ms: None };
        assert!(world.engine.write(late).wait().is_err());
    }
}
