//! Events that wait in a room, and a round of asking for what they lack.
//!
//! Invariant: an event that was acknowledged is let go only when it has been judged, when it has waited for a day, or when
//! this server is in the room no more. It does nothing itself: whoever drives it goes the steps of the intake, asks the
//! servers that it names, and ends the round however far it got.

use serde::Deserialize;

use crate::{
    command::ReleasePdus,
    engine::Engine,
    error::{Error, Result},
    intake::Intake,
    room::receive::Outcome,
    view::federation::{AwaitedServers, IncomingRoom, ParkedPdus, ServersInRoom, WaitingPdu},
};

/// Servers that are asked the same question, one after the other.
const SERVERS_ASKED_MAX: usize = 5;

/// How long an event may wait. Who sends later ones leads to it again.
const PARKED_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// How long an event waits for the keys of others' events in a state that was told, which a join does not at all: the room is
/// silent for so long. They are asked for at once and a quarter of a minute later, and servers that can be reached are by then. Who
/// drives the rounds begins one when that is over ([`Ended::goes_without_keys_ms`]).
const KEYS_AWAITED_MS: u64 = 60 * 1000;

/// What there is to be done in a room.
pub enum Begun {
    /// Nothing waits there.
    Nothing,
    /// This server has left the room: write this.
    Left(ReleasePdus),
    /// Drive this, then end it.
    Round(Box<Round>),
}

/// When an event was made, as its server says, in milliseconds since the epoch; zero if that cannot be read.
fn sent_ms(json: &[u8]) -> u64 {
    #[derive(Deserialize)]
    struct Sent {
        origin_server_ts: u64,
    }
    serde_json::from_slice::<Sent>(json).map_or(0, |sent| sent.origin_server_ts)
}

/// One attempt to judge what waits in a room of what one server sent: the troubles of one hold up no other.
pub struct Round {
    room_id: String,
    origin: String,
    waiting: Vec<WaitingPdu>,
    goes_without_keys: bool,
    /// The servers to be asked, one after the other until one knows.
    pub servers: Vec<String>,
    /// What is to be taken in.
    pub intake: Intake,
}

impl Round {
    /// Looks what of a server waits in a room.
    ///
    /// Errors: those of the store.
    pub fn begin(engine: &Engine, room_id: &str, origin: &str) -> Result<Begun> {
        let mut waiting = engine.read(&ParkedPdus { room_id, origin })?;
        if waiting.is_empty() {
            return Ok(Begun::Nothing);
        }
        let room_id = room_id.to_owned();
        let version = match engine.read(&IncomingRoom { room_id: &room_id, server: engine.server_name() }) {
            Ok(version) => version,
            Err(Error::NotFound(_) | Error::Denied(_)) => {
                let event_ids = waiting.into_iter().map(|pdu| pdu.event_id).collect();
                return Ok(Begun::Left(ReleasePdus { room_id, origin: origin.to_owned(), event_ids }));
            }
            Err(error) => return Err(error),
        };
        let servers = servers_to_ask(engine, &room_id, std::iter::once(origin))?;
        // In the order in which they were sent, as far as their server tells.
        waiting.sort_by_cached_key(|pdu| (pdu.since_ms, sent_ms(&pdu.json)));
        let pdus = waiting.iter().map(|pdu| pdu.json.clone()).collect();
        let mut intake = Intake::sent_by(origin, room_id.clone(), version, pdus);
        let oldest = engine.now_ms().saturating_sub(KEYS_AWAITED_MS);
        let goes_without_keys = waiting.iter().any(|pdu| pdu.since_ms < oldest);
        if goes_without_keys {
            intake.go_without_keys();
        }
        intake.go_without_members_of(engine.read(&AwaitedServers { room_id: &room_id })?);
        let origin = origin.to_owned();
        Ok(Begun::Round(Box::new(Self { room_id, origin, waiting, goes_without_keys, servers, intake })))
    }

    /// Whether something has waited for so long that nothing is waited for any more which what tells of it may as well go without.
    pub fn goes_without_keys(&self) -> bool {
        self.goes_without_keys
    }

    /// What is to be let go.
    pub fn end(self, now_ms: u64) -> Ended {
        let oldest = now_ms.saturating_sub(PARKED_MS_MAX);
        let (mut event_ids, mut given_up) = (Vec::new(), 0);
        let has_got_on = self.intake.outcomes.values().any(has_come);
        let mut waits_since: Option<u64> = None;
        for pdu in self.waiting {
            let is_settled = self.intake.outcomes.get(pdu.event_id.as_str()).is_some_and(is_settled);
            if is_settled || pdu.since_ms < oldest {
                given_up += u64::from(!is_settled);
                event_ids.push(pdu.event_id);
            } else {
                waits_since = Some(waits_since.unwrap_or(pdu.since_ms).min(pdu.since_ms));
            }
        }
        let (room_id, origin) = (self.room_id, self.origin);
        let release = (!event_ids.is_empty()).then_some(ReleasePdus { room_id, origin, event_ids });
        let patient_since = waits_since.filter(|_| !self.goes_without_keys);
        let goes_without_keys_ms =
            patient_since.map(|since_ms| since_ms.saturating_add(KEYS_AWAITED_MS + 1).saturating_sub(now_ms));
        Ended { release, given_up, is_done: waits_since.is_none(), has_got_on, goes_without_keys_ms }
    }
}

/// How a round ended.
pub struct Ended {
    /// Events that wait no longer: to be written.
    pub release: Option<ReleasePdus>,
    /// How many of these were never judged.
    pub given_up: u64,
    /// Whether nothing waits any more.
    pub is_done: bool,
    /// Whether events came into the room, of which each does so once: what waits still need not wait for longer to be tried again.
    pub has_got_on: bool,
    /// In how many milliseconds a round goes without the keys of others' events in states, if this one waited for them.
    pub goes_without_keys_ms: Option<u64>,
}

fn is_settled(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Waiting | Outcome::Stored)
}

fn has_come(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Accepted | Outcome::NotRecommended)
}

/// The servers to ask about a room: first those given, then those with the most members.
///
/// Errors: those of the store; [`crate::What::Room`] not found.
pub fn servers_to_ask<'a>(
    engine: &Engine,
    room_id: &str,
    first: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>> {
    let mut servers: Vec<String> = Vec::new();
    let mut there = engine.read(&ServersInRoom { room_id: room_id.to_owned() })?;
    there.sort_by_key(|(_, joined)| std::cmp::Reverse(*joined));
    let there = there.iter().map(|(server, _)| server.to_string());
    for server in first.map(str::to_owned).chain(there) {
        let is_new = server != engine.server_name() && !servers.contains(&server);
        if is_new && servers.len() < SERVERS_ASKED_MAX {
            servers.push(server);
        }
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        fixture::World,
        intake::Next,
        store::{schema, schema::ParkedPdu},
    };

    const ROOM: &str = "!room:here.example";
    const THERE: &str = "there.example";
    const WAITING: &str = "$waiting";

    fn world() -> World {
        let world = World::new();
        world.room(ROOM, "@alice:here.example", None);
        let row = ParkedPdu { origin: THERE.into(), since_ms: world.engine.now_ms(), json: b"{}".to_vec() };
        world
            .act(|tx| {
                let room = tx.room_num(ROOM)?.unwrap();
                tx.put(&schema::PARKED_PDUS, &(room, WAITING.to_owned()), &row);
                Ok(())
            })
            .unwrap();
        world
    }

    #[test]
    fn what_waits_goes_on_waiting_for_a_day() {
        let world = world();
        for (passed_ms, released) in [(PARKED_MS_MAX, None), (1, Some(vec![WAITING.to_owned()]))] {
            world.pass_ms(passed_ms);
            let begun = Round::begin(&world.engine, ROOM, THERE).unwrap();
            let Begun::Round(round) = begun else { panic!("it waits") };
            assert_eq!(round.servers, [THERE], "who sent it is asked first");
            let ended = round.end(world.engine.now_ms());
            assert_eq!((ended.is_done, ended.given_up), (released.is_some(), u64::from(released.is_some())));
            assert_eq!(ended.release.map(|release| release.event_ids), released);
        }
    }

    #[test]
    fn a_round_has_got_on_if_something_came_that_was_not_here() {
        let world = world();
        for (outcome, has_got_on) in
            [(Outcome::Accepted, true), (Outcome::NotRecommended, true), (Outcome::Known, false)]
        {
            let begun = Round::begin(&world.engine, ROOM, THERE).unwrap();
            let Begun::Round(mut round) = begun else { panic!("it waits") };
            round.intake.outcomes.insert("$before".into(), outcome.clone());
            let ended = round.end(world.engine.now_ms());
            assert_eq!((ended.is_done, ended.has_got_on), (false, has_got_on), "{outcome:?}");
        }
    }

    #[test]
    fn what_waits_is_tried_without_keys_as_soon_as_it_has_waited_long_enough_for_them() {
        let world = world();
        let goes_without_keys_ms = || {
            let begun = Round::begin(&world.engine, ROOM, THERE).unwrap();
            let Begun::Round(round) = begun else { panic!("it waits") };
            round.end(world.engine.now_ms()).goes_without_keys_ms
        };
        let pause_ms = goes_without_keys_ms().unwrap();
        assert!((KEYS_AWAITED_MS..KEYS_AWAITED_MS + 100).contains(&pause_ms), "{pause_ms}");
        world.pass_ms(pause_ms - 1);
        assert_eq!(goes_without_keys_ms(), Some(1));
        world.pass_ms(1);
        assert_eq!(goes_without_keys_ms(), None, "it does by then");
    }

    #[test]
    fn what_waits_is_taken_up_in_the_order_in_which_it_was_sent() {
        let world = World::new();
        world.room(ROOM, "@alice:here.example", None);
        let since_ms = world.engine.now_ms();
        // By their ids they would come in another order; what came before was sent before.
        let parked = [("$d", 0, 9), ("$c", 1, 3), ("$a", 1, 5), ("$b", 1, 7)];
        let json = |sent_ms: u64| json!({"origin_server_ts": sent_ms}).to_string();
        world
            .act(|tx| {
                let room = tx.room_num(ROOM)?.unwrap();
                for (event_id, after_ms, sent_ms) in parked {
                    let since_ms = since_ms + after_ms;
                    let row = ParkedPdu { origin: THERE.into(), since_ms, json: json(sent_ms).into_bytes() };
                    tx.put(&schema::PARKED_PDUS, &(room, event_id.to_owned()), &row);
                }
                Ok(())
            })
            .unwrap();
        let begun = Round::begin(&world.engine, ROOM, THERE).unwrap();
        let Begun::Round(mut round) = begun else { panic!("they wait") };
        let Next::Check(taken_up) = round.intake.next_step() else { panic!("they are to be checked") };
        assert_eq!(taken_up, parked.map(|(_, _, sent_ms)| json(sent_ms)));
    }

    #[test]
    fn what_waits_is_not_let_go_because_the_room_cannot_be_read() {
        let world = world();
        world
            .act(|tx| {
                let room = tx.room_num(ROOM)?.unwrap();
                let mut head = tx.get(&schema::ROOM_HEADS, &room)?.unwrap();
                head.version = u8::MAX;
                tx.put(&schema::ROOM_HEADS, &room, &head);
                Ok(())
            })
            .unwrap();
        assert!(matches!(Round::begin(&world.engine, ROOM, THERE), Err(Error::Storage(_))));
    }
}
