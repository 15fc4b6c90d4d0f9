//! How a run comes to rest: everything is delivered and fetched, with all the pauses that this takes, until nothing moves.

use super::{Breach, World};
use crate::plan::{Deed, Fate, USERS_PER_SERVER, User, What};

/// Rounds of deliveries, fetches and pauses until nothing is under way. Each server has a few failures behind it.
const DELIVERY_ROUNDS_MAX: usize = 200;
/// Rounds in which servers tell each other the last events that they know, until nobody learns anything. What is missing is
/// asked for in each, so that it takes few.
const TELLING_ROUNDS_MAX: usize = 10;
/// Rounds in which a user of each server says something in each room, so that all ends of it come together.
const LAST_WORDS_ROUNDS_MAX: usize = 3;
/// Transactions that one delivery takes in a round.
const TRANSACTIONS_MAX: usize = 50;

impl World {
    /// Everything is delivered; servers that rooms have shut out are let in again, where somebody may; then everybody tells
    /// everybody the last events that they know, until nobody learns anything new; and if what they hold differs, as it may where
    /// an event came too late for some, goes on to speak.
    pub(super) fn come_to_rest(&mut self) -> Result<(), Breach> {
        if self.servers.len() == 1 {
            return Ok(());
        }
        self.deliver_all()?;
        self.check_deliveries()?;
        // Whatever the network still has comes now, to no effect.
        for ((from, to), copies) in std::mem::take(&mut self.network.copies) {
            for copy in copies {
                self.receive(from, to, &copy)?;
            }
        }
        self.lift_lists()?;
        for _ in 0..TELLING_ROUNDS_MAX {
            let before = self.learned;
            for server in 0..self.servers.len() {
                self.tell_ends(server)?;
            }
            self.deliver_all()?;
            if self.learned == before {
                return self.come_together();
            }
        }
        Err(Breach::new(
            "rest",
            format!("after {TELLING_ROUNDS_MAX} rounds the servers still learn from each other"),
        ))
    }

    /// State is resolved over the ends of a room, which differ where one server has soft-failed what another accepted. The
    /// next message joins them.
    fn come_together(&mut self) -> Result<(), Breach> {
        for _ in 0..LAST_WORDS_ROUNDS_MAX {
            if self.check_states().is_ok() {
                return Ok(());
            }
            for server in 0..self.servers.len() {
                for room in 0..self.rooms.len() {
                    for number in 0..USERS_PER_SERVER {
                        let deed = Deed::In { room: room as u8, what: What::Say };
                        self.act(User { server, number }, deed, None)?;
                    }
                }
                self.deliver_all()?;
            }
            self.check_deliveries()?;
        }
        Ok(())
    }

    /// Delivers and fetches until nothing moves; pauses are waited for.
    pub(super) fn deliver_all(&mut self) -> Result<(), Breach> {
        for _ in 0..DELIVERY_ROUNDS_MAX {
            let (mut moved, mut pause_ms) = (false, None);
            for from in 0..self.servers.len() {
                let next_ms = self.take_up(from)?;
                let now_ms = self.servers[from].engine().now_ms();
                pause_ms = pause_ms.max(next_ms.map(|next_ms| next_ms.saturating_sub(now_ms)));
                for to in 0..self.servers.len() {
                    moved |= self.deliver_to(from, to)?;
                }
            }
            let before = self.learned;
            for server in 0..self.servers.len() {
                self.fetch(server, usize::MAX)?;
                moved |= self.follow(server, usize::MAX, false)?;
            }
            match pause_ms {
                _ if moved || self.learned > before => {}
                Some(ms) => self.servers.iter().for_each(|server| server.move_clock(ms as i64 + 1)),
                None => return Ok(()),
            }
        }
        Err(Breach::new(
            "rest",
            format!("after {DELIVERY_ROUNDS_MAX} rounds there is still something to be sent"),
        ))
    }

    /// Brings a server all that is under way to it. Answers whether that was anything.
    fn deliver_to(&mut self, from: usize, to: usize) -> Result<bool, Breach> {
        for count in 0..TRANSACTIONS_MAX {
            if self.next_transaction(from, to)?.is_none() {
                return Ok(count > 0);
            }
            self.carry((from, to), 0, Fate::Arrives)?;
        }
        Err(Breach::new("rest", "one delivery does not come to its end"))
    }

    /// Tells the last events of each room, whoever sent them, to all who are in it.
    fn tell_ends(&mut self, from: usize) -> Result<(), Breach> {
        for room in 0..self.rooms.len() {
            let mut others = self.servers_in_room(from, room);
            if !others.remove(&from) {
                continue;
            }
            let Some(frontier) = self.frontier(from, room)? else { continue };
            let ends = frontier.extremities.into_iter().map(|event| (event.event_id, event.json)).collect();
            let transaction = self.transaction_of(ends);
            for to in others {
                let before = self.learned;
                let received = self.receive(from, to, &transaction)?;
                if self.learned > before {
                    self.tell_of(from, to, &transaction, &format!("at last: {received}"));
                }
            }
        }
        Ok(())
    }
}
