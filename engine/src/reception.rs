//! A transaction of another server on its way in: which rooms its events are for, what waits, and what is answered.
//!
//! Invariant: the answer is noted after everything in the transaction is stored, so that the same transaction, if it comes
//! again, is either answered alike or taken in again, which does no harm. It does nothing itself: whoever drives it takes in
//! the rooms, side by side, then writes the rest, and the answer last.
//! Specification: server-server API, "Transactions".

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    command::{NoteTransaction, NoteTurnedAway, ParkPdus, Parked, ReceiveEdus, RemindOfLeave, TakenEdus},
    core::{
        checked::{CheckedPdu, PduCheck},
        event::Pdu,
        identifiers::server_name,
        json::{Limits, Strictness, parse_around},
    },
    engine::Engine,
    error::{Denied, Error, Result},
    intake::Intake,
    room::receive::Outcome,
    view::{
        CheckPdus,
        federation::{AnsweredTransaction, EndableMembership, IncomingRoom, IsToBeReminded},
    },
};

/// Specification: "List of persistent updates to rooms. Must not include more than 50 PDUs."
pub const PDUS_MAX: usize = 50;
/// Specification: "Must not include more than 100 EDUs."
pub const EDUS_MAX: usize = 100;
/// How many objects an EDU has around what a user of the sender has put into it, at most: itself, its content, the messages to
/// devices and those to one user's.
const LEVELS_AROUND: usize = 4;

/// The body of a transaction. Some servers write null for a list that is empty.
#[derive(Deserialize)]
pub struct Body<'a> {
    #[serde(borrow)]
    pdus: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    edus: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct OfRoom {
    room_id: String,
}

#[derive(Deserialize)]
struct OfUser {
    state_key: String,
    sender: String,
}

/// A transaction that is taken in.
pub struct Reception {
    origin: String,
    transaction_id: String,
    rooms: BTreeMap<String, Vec<Bytes>>,
    edus: Vec<Value>,
    results: Map<String, Value>,
    dropped: Dropped,
}

/// How many parts of a transaction are not taken in, by their reasons; those that a room has judged are not counted.
#[derive(Default)]
pub struct Dropped {
    /// Events.
    pub pdus: Vec<(&'static str, u64)>,
    /// Other parts.
    pub edus: Vec<(&'static str, u64)>,
}

impl Reception {
    /// `origin` is the server that has signed the request. `None` for more parts than [`PDUS_MAX`] and [`EDUS_MAX`].
    pub fn new(origin: String, transaction_id: String, body: &Body<'_>) -> Option<Self> {
        let pdus = body.pdus.as_deref().unwrap_or_default();
        let edus = body.edus.as_deref().unwrap_or_default();
        if pdus.len() > PDUS_MAX || edus.len() > EDUS_MAX {
            return None;
        }
        let mut dropped = Dropped::default();
        let mut rooms: BTreeMap<String, Vec<Bytes>> = BTreeMap::new();
        for pdu in pdus {
            // What names no room has no version by which its id could be told, and so no place in the answer.
            match serde_json::from_str(pdu.get()) {
                Ok(OfRoom { room_id }) => {
                    rooms.entry(room_id).or_default().push(Bytes::copy_from_slice(pdu.get().as_bytes()));
                }
                Err(_) => dropped.pdus.push(("format", 1)),
            }
        }
        // What is malformed is passed over: one bad part must not keep the others away.
        let readable: Vec<Value> = edus.iter().filter_map(|edu| read_edu(edu.get())).collect();
        dropped.edus.push(("format", (edus.len() - readable.len()) as u64));
        Some(Self { origin, transaction_id, rooms, edus: readable, results: Map::new(), dropped })
    }

    /// The server that has signed the request, and the transaction's id.
    pub fn id(&self) -> (&str, &str) {
        (&self.origin, &self.transaction_id)
    }

    /// The answer, if the transaction was answered before: then nothing more is to be done.
    pub fn answered(&self, engine: &Engine) -> Result<Option<Bytes>> {
        let (origin, transaction_id) = (&*self.origin, &*self.transaction_id);
        engine.read(&AnsweredTransaction { origin, transaction_id })
    }

    /// The events, by rooms, which may be taken in side by side. Each is to be told by [`Reception::took_in`].
    pub fn rooms(&mut self) -> Vec<RoomReception> {
        let rooms = std::mem::take(&mut self.rooms);
        let of_room = |(room_id, pdus)| RoomReception::new(self.origin.clone(), room_id, pdus);
        rooms.into_iter().map(of_room).collect()
    }

    /// The events of a room are in, or wait there.
    pub fn took_in(&mut self, room: RoomReception) {
        self.results.extend(room.results);
        self.dropped.pdus.extend(room.dropped);
    }

    /// Leaves out what is told outside of rooms of one kind, for `reason`.
    pub fn leave_out(&mut self, kind: &str, reason: &'static str) {
        let before = self.edus.len();
        self.edus.retain(|edu| edu.get("edu_type").and_then(Value::as_str) != Some(kind));
        self.dropped.edus.push((reason, (before - self.edus.len()) as u64));
    }

    /// What is told outside of rooms, to be written behind the events, of which some may be what it is about. What is left of it
    /// then is to be written by itself ([`ReceiveEdus::rest`]).
    pub fn edus(&mut self) -> Option<ReceiveEdus> {
        let received = ReceiveEdus::new(&self.origin, &self.edus);
        self.dropped.edus.push(("not_understood", received.not_understood()));
        self.dropped.edus.push(("too_many_entries", received.left_out()));
        (!received.is_empty()).then_some(received)
    }

    /// What is told outside of rooms, or a part of it, is written.
    pub fn took_in_edus(&mut self, taken: TakenEdus) {
        self.dropped.edus.extend(taken.dropped);
    }

    /// What was not taken in, once all else is.
    pub fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    /// The answer, to be written last, and then given. `over` is an older transaction of the server, which it will not send
    /// again.
    pub fn answer(self, over: Option<String>) -> NoteTransaction {
        let answer = json!({ "pdus": self.results }).to_string().into_bytes();
        NoteTransaction { origin: self.origin, transaction_id: self.transaction_id, answer, over }
    }
}

/// A transaction's events of one room.
#[derive(Clone)]
pub struct RoomReception {
    origin: String,
    room_id: String,
    pdus: Vec<Bytes>,
    results: Map<String, Value>,
    dropped: Vec<(&'static str, u64)>,
    turned_away: Vec<NoteTurnedAway>,
    reminder: Option<RemindOfLeave>,
}

impl RoomReception {
    fn new(origin: String, room_id: String, pdus: Vec<Bytes>) -> Self {
        let (results, dropped, turned_away) = (Map::new(), Vec::new(), Vec::new());
        Self { origin, room_id, pdus, results, dropped, turned_away, reminder: None }
    }

    /// The room's id, and the server that sent the events.
    pub fn place(&self) -> (&str, &str) {
        (&self.room_id, &self.origin)
    }

    /// How many bytes the events that are still to be taken in have.
    pub fn bytes(&self) -> usize {
        self.pdus.iter().map(Bytes::len).sum()
    }

    /// The events that are still to be taken in, to be taken in another time. They are no part of the answer, like those of any
    /// room whose version is not known.
    pub fn later(&mut self) -> RoomReception {
        Self::new(self.origin.clone(), self.room_id.clone(), std::mem::take(&mut self.pdus))
    }

    /// Why events were not taken in, and how many; those that the room has judged are not counted.
    pub fn dropped(&self) -> &[(&'static str, u64)] {
        &self.dropped
    }

    /// What is to be taken in, as far as it can be judged by what is here; `None` if the room takes nothing from this
    /// server, or this one is not in it ([`RoomReception::turned_away`], [`RoomReception::reminder`]).
    ///
    /// Errors: those of the store.
    pub fn begin(&mut self, engine: &Engine) -> Result<Option<Intake>> {
        match engine.read(&IncomingRoom { room_id: &self.room_id, server: &self.origin }) {
            Ok(version) => {
                let pdus = std::mem::take(&mut self.pdus);
                Ok(Some(Intake::sent_by(&self.origin, self.room_id.clone(), version, pdus)))
            }
            Err(Error::NotFound(_)) => self.outside(engine).map(|()| None),
            Err(Error::Denied(Denied::ServerAcl)) => self.shut_out(engine).map(|()| None),
            Err(error) => Err(error),
        }
    }

    /// Of a room that this server is not in, only that a user of this server is turned away is taken in: without the room's
    /// version it cannot be told what the other events are called.
    fn outside(&mut self, engine: &Engine) -> Result<()> {
        let mut unknown = Vec::new();
        for pdu in std::mem::take(&mut self.pdus) {
            match self.turns_away(engine, &pdu)? {
                Some(event) => {
                    self.results.insert(event.pdu().event_id.to_string(), json!({}));
                    self.turned_away.push(NoteTurnedAway { room_id: self.room_id.clone(), event });
                }
                None => unknown.push(pdu),
            }
        }
        self.dropped.push(("unknown_room", unknown.len() as u64));
        let (room_id, server) = (&*self.room_id, &*self.origin);
        if !unknown.is_empty() && engine.read(&IsToBeReminded { room_id, server, pdus: &unknown })? {
            self.reminder = Some(RemindOfLeave { room_id: room_id.to_owned(), server: server.to_owned() });
        }
        Ok(())
    }

    /// The event, checked, if it is about a user of this server who was invited or has knocked, and is the server's to send.
    fn turns_away(&self, engine: &Engine, pdu: &Bytes) -> Result<Option<Arc<CheckedPdu>>> {
        let Ok(OfUser { state_key, sender }) = serde_json::from_slice(pdu) else { return Ok(None) };
        if server_name(&sender) != Some(&*self.origin) {
            return Ok(None);
        }
        let endable = EndableMembership { room_id: self.room_id.clone(), user_id: state_key };
        let version = match engine.read(&endable) {
            Ok(version) => version,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The key is there, as a rule: the server has signed this very request.
        let checks = engine.read(&CheckPdus { version, pdus: std::slice::from_ref(pdu) })?;
        Ok(checks.into_iter().find_map(|check| match check {
            PduCheck::Ready(event) => Some(event),
            PduCheck::Refused { .. } | PduCheck::MissingKeys(_) => None,
        }))
    }

    /// Users of this server who are turned away from the room, which it is not in: each is to be written.
    pub fn turned_away(&mut self) -> Vec<NoteTurnedAway> {
        std::mem::take(&mut self.turned_away)
    }

    /// Where the server goes on as if this one were in the room still, what tells it that it has left: to be written.
    pub fn reminder(&mut self) -> Option<RemindOfLeave> {
        self.reminder.take()
    }

    /// Each event of a server that the room does not let take part is refused. Specification: "Server Access Control Lists
    /// (ACLs)".
    fn shut_out(&mut self, engine: &Engine) -> Result<()> {
        self.dropped.push(("server_acl", self.pdus.len() as u64));
        let version = engine.read(&IncomingRoom { room_id: &self.room_id, server: engine.server_name() })?;
        for pdu in self.pdus.iter().filter_map(|pdu| Pdu::parse(version, pdu).ok()) {
            self.results.insert(pdu.event_id.to_string(), refusal(&Denied::ServerAcl.to_string()));
        }
        Ok(())
    }

    /// What could be judged is; what could not is to be written, and told by [`RoomReception::parked`].
    pub fn judged(&mut self, intake: &Intake) -> Option<ParkPdus> {
        for (event_id, outcome) in &intake.outcomes {
            self.results.insert(event_id.to_string(), result_of(outcome));
        }
        let pdus = intake.waiting();
        let is_all = pdus.is_empty();
        (!is_all).then(|| ParkPdus { room_id: self.room_id.clone(), origin: self.origin.clone(), pdus })
    }

    /// What waits is stored; it is to be fetched for ([`crate::fetching::Round`]).
    pub fn parked(&mut self, parked: Parked) {
        let kept = parked.kept.into_iter().map(|event_id| (event_id.to_string(), json!({})));
        self.results.extend(kept);
        self.dropped.push(("too_many_waiting", parked.refused.len() as u64));
        let why = || refusal("too many events wait in this room");
        self.results.extend(parked.refused.into_iter().map(|event_id| (event_id.to_string(), why())));
    }
}

/// A part outside of rooms, if it is nested no more deeply, and has no other numbers, than this server takes from its own users.
fn read_edu(text: &str) -> Option<Value> {
    let limits = Limits { bytes_max: text.len(), strictness: Strictness::Lenient };
    parse_around(text.as_bytes(), limits, LEVELS_AROUND).ok()
}

/// What is answered about an event that was judged. That it is not shown is no matter of its server's.
fn result_of(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Rejected(denied) => refusal(&denied.to_string()),
        Outcome::Refused(refused) => refusal(&refused.to_string()),
        _ => json!({}),
    }
}

fn refusal(why: &str) -> Value {
    json!({ "error": why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::num::StreamPos,
        device::{tests::register, to_device},
        fixture::World,
    };

    const ROOM: &str = "!room:here.example";
    const ALICE: &str = "@alice:here.example";

    /// What is answered to a transaction with one event for the room, that nothing here leads to.
    fn answer(world: &World, origin: &str) -> Value {
        let pdu = json!({
            "room_id": ROOM, "sender": "@bob:there.example", "type": "m.room.message", "depth": 1, "content": {},
            "auth_events": [], "prev_events": [], "hashes": {"sha256": ""}, "signatures": {}, "origin_server_ts": 1
        });
        let body = json!({ "pdus": [pdu] }).to_string();
        let body: Body<'_> = serde_json::from_str(&body).unwrap();
        let mut reception = Reception::new(origin.to_owned(), "1".to_owned(), &body).unwrap();
        for mut room in reception.rooms() {
            assert!(room.begin(&world.engine).unwrap().is_none());
            reception.took_in(room);
        }
        serde_json::from_slice::<Value>(&reception.answer(None).answer).unwrap()["pdus"].clone()
    }

    #[test]
    fn a_list_that_is_not_there_is_empty() {
        let world = World::new();
        let receive = |body: Value| {
            let body = body.to_string();
            let body: Body<'_> = serde_json::from_str(&body).ok()?;
            Reception::new("there.example".to_owned(), "1".to_owned(), &body)
        };
        let typing = json!([{"edu_type": "m.typing", "content": {}}]);
        for (body, has_edus) in [
            (json!({"pdus": null, "edus": null}), false),
            (json!({"pdus": [], "edus": null}), false),
            (json!({}), false),
            (json!({"pdus": null, "edus": typing}), true),
        ] {
            let mut reception = receive(body.clone()).unwrap();
            assert!(reception.rooms().is_empty());
            assert_eq!(reception.edus.len(), usize::from(has_edus), "{body}");
            assert!(reception.answered(&world.engine).unwrap().is_none());
        }
        for wrong in
            [json!({"pdus": {}}), json!({"edus": "x"}), json!({"edus": vec![json!({}); EDUS_MAX + 1]})]
        {
            assert!(receive(wrong).is_none());
        }
    }

    #[test]
    fn a_part_that_cannot_be_read_costs_no_other() {
        let world = World::new();
        register(&world, "alice", &["A"]);
        // A message may have in it what a local user's may: its content is one of a hundred levels.
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let odd = [
            ("deeper", nested(100)),
            ("deepest", nested(20_000)),
            ("huge", "1".to_owned() + &"0".repeat(30)),
        ];
        let good = [("deep", nested(99)), ("plain", "1.5".to_owned())];
        let edus: Vec<String> = odd
            .iter()
            .chain(&good)
            .map(|(id, value)| {
                format!(
                    r#"{{"edu_type":"m.direct_to_device","content":{{"sender":"@bob:there.example","type":"{id}",
                    "message_id":"{id}","messages":{{"{ALICE}":{{"A":{{"x":{value}}}}}}}}}}}"#
                )
            })
            .collect();
        let body = format!(r#"{{"pdus":[{}],"edus":[{}]}}"#, nested(20_000), edus.join(","));
        let body: Body<'_> = serde_json::from_str(&body).unwrap();
        let mut reception = Reception::new("there.example".to_owned(), "1".to_owned(), &body).unwrap();
        assert!(reception.rooms().is_empty());
        let edus = reception.edus().unwrap();
        let taken = world.engine.write(edus).wait().unwrap();
        assert!(taken.dropped.is_empty(), "{taken:?}");
        reception.took_in_edus(taken);
        let of_reason = |reasons: &[(&str, u64)], wanted: &str| -> u64 {
            reasons.iter().filter(|(reason, _)| *reason == wanted).map(|(_, count)| count).sum()
        };
        assert_eq!(of_reason(&reception.dropped().edus, "format"), 3);
        assert_eq!(of_reason(&reception.dropped().pdus, "format"), 1);
        let waiting = world.ask(|reader| {
            let user = reader.user_num(ALICE)?.unwrap();
            let device = reader.text_num("A")?.unwrap();
            Ok(to_device::since(reader, user, device, StreamPos::ZERO, reader.pos, 10)?.0)
        });
        let kinds =
            waiting.iter().map(|message| serde_json::from_slice::<Value>(message).unwrap()["type"].clone());
        assert_eq!(kinds.collect::<Vec<_>>(), good.map(|(id, _)| Value::from(id)));
    }

    #[test]
    fn a_room_that_shuts_out_whom_it_will_keeps_no_other_room_waiting() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        world.state(ROOM, ALICE, "m.room.server_acl", "", json!({"deny": ["there.example"], "allow": ["*"]}));
        let refused = answer(&world, "there.example");
        let results: Vec<&Value> = refused.as_object().unwrap().values().collect();
        assert_eq!(results, [&refusal(&Denied::ServerAcl.to_string())]);
        // Nobody may take part any more, not even this server, which knows what the events are called all the same.
        world.state(ROOM, ALICE, "m.room.server_acl", "", json!({"deny": ["*"], "allow": []}));
        assert_eq!(answer(&world, "there.example"), refused);
    }
}
