//! Rooms that are forked into many ends are brought together: now and then those that have more than an event follows, and at
//! once those that somebody forks without end, so that what each event costs there stays bounded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use warren_engine::command::MergeEnds;

use super::policy;
use crate::context::Context;
use crate::worker;

/// How long a room in which nobody here may send is not brought together at once: to find that out, an event is made and signed
/// for each who might. As often the worker tries it anyway.
const IN_VAIN: Duration = Duration::from_secs(5 * 60);

/// Rooms that this is remembered of, some hundred bytes each.
const IN_VAIN_MAX: usize = 10_000;

/// The rooms that are being brought together because they have many ends, and those that could not be.
#[derive(Default)]
pub struct Merges(Mutex<Rooms>);

#[derive(Default)]
struct Rooms {
    busy: HashSet<String>,
    in_vain: HashMap<String, Instant>,
}

impl Merges {
    /// Whether the caller is to bring the room together, and then to tell what came of it ([`Merges::end`]).
    fn begin(&self, room_id: &str, now: Instant) -> bool {
        let mut rooms = self.0.lock();
        let was_in_vain = rooms.in_vain.get(room_id).is_some_and(|until| *until > now);
        !was_in_vain && rooms.busy.insert(room_id.to_owned())
    }

    /// A room was brought together by so many events; by none, if nobody here may send one, or a fault of ours was in the way.
    fn end(&self, room_id: &str, sent: usize, now: Instant) {
        let mut rooms = self.0.lock();
        rooms.busy.remove(room_id);
        if sent > 0 {
            rooms.in_vain.remove(room_id);
            return;
        }
        if rooms.in_vain.len() >= IN_VAIN_MAX {
            rooms.in_vain.retain(|_, until| *until > now);
            if rooms.in_vain.len() >= IN_VAIN_MAX {
                rooms.in_vain.clear();
            }
        }
        rooms.in_vain.insert(room_id.to_owned(), now + IN_VAIN);
    }
}

/// That a room is being brought together, until it is dropped; and by how many events.
struct Turn<'a> {
    merges: &'a Merges,
    room_id: &'a str,
    sent: usize,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.merges.end(self.room_id, self.sent, Instant::now());
    }
}

/// Begins to bring the ends of a room together, unless that is under way or was in vain a short time ago.
pub fn begin_to_merge(ctx: &Arc<Context>, room_id: &str) {
    if !ctx.federation.merges.begin(room_id, Instant::now()) {
        return;
    }
    let (work, room_id) = (ctx.clone(), room_id.to_owned());
    worker::run(ctx, "merging of a room's ends", async move {
        let mut turn = Turn { merges: &work.federation.merges, room_id: &room_id, sent: 0 };
        turn.sent = merge(&work, &room_id).await;
    });
}

/// Brings the ends of a room together, as far as somebody here may. Answers by how many events.
pub async fn merge(ctx: &Context, room_id: &str) -> usize {
    match policy::write(ctx, MergeEnds { room_id: room_id.to_owned() }).await {
        Ok(sent) => sent,
        Err(error) => {
            tracing::debug!(room_id, error = %error.error, "the ends of a room are not brought together");
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: &str = "!room:here.example";

    #[test]
    fn a_room_in_which_nobody_may_send_is_left_alone_for_a_while() {
        let (merges, now) = (Merges::default(), Instant::now());
        assert!(merges.begin(ROOM, now));
        assert!(!merges.begin(ROOM, now), "one is under way");
        merges.end(ROOM, 12, now);
        assert!(merges.begin(ROOM, now));
        merges.end(ROOM, 0, now);
        assert!(!merges.begin(ROOM, now));
        assert!(merges.begin("!other:here.example", now));
        assert!(merges.begin(ROOM, now + IN_VAIN));
        // Somebody may by now.
        merges.end(ROOM, 1, now + IN_VAIN);
        assert!(merges.begin(ROOM, now + IN_VAIN));
    }

    #[test]
    fn a_room_can_be_brought_together_again_when_that_has_fallen() {
        let (merges, now) = (Merges::default(), Instant::now());
        assert!(merges.begin(ROOM, now));
        let fallen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = Turn { merges: &merges, room_id: ROOM, sent: 0 };
            panic!("a fault of ours");
        }));
        assert!(fallen.is_err());
        assert!(!merges.begin(ROOM, now), "not at once");
        assert!(merges.begin(ROOM, Instant::now() + IN_VAIN));
    }

    #[test]
    fn rooms_that_are_left_alone_take_little_memory() {
        let (merges, now) = (Merges::default(), Instant::now());
        for number in 0..2 * IN_VAIN_MAX {
            let room_id = format!("!{number}:here.example");
            assert!(merges.begin(&room_id, now));
            merges.end(&room_id, 0, now);
            assert!(merges.0.lock().in_vain.len() <= IN_VAIN_MAX);
        }
        assert!(merges.0.lock().busy.is_empty());
    }
}
