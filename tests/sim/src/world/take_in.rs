//! A server takes in what another sends: what its endpoint for transactions does, driven by one thread.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::{Value, json};
use warren_engine::{
    Outcome,
    command::{Parked, Transaction},
    intake::{Answer, Intake, Next},
    reception::{Body, Reception, RoomReception},
    view::{CheckHistory, CheckPdus},
};

use super::{Breach, Plant, SERVER_NAMES, Stopped, World};

/// What became of a transaction.
pub(super) enum Received {
    /// It was answered.
    Answered(String),
    /// It was not, and the server goes on.
    Failed(String),
    /// The server died.
    Died,
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(words) => f.write_str(words),
            Self::Failed(why) => write!(f, "which fails: {why}"),
            Self::Died => f.write_str("and the server crashes"),
        }
    }
}

/// Of whom to ask what is missing, and how often it is answered.
pub(super) struct Asking<'a> {
    pub servers: &'a [String],
    pub answers: usize,
}

impl World {
    /// Takes in a transaction, and starts the server again if it died of it.
    pub(super) fn receive(
        &mut self,
        from: usize,
        to: usize,
        transaction: &Transaction,
    ) -> Result<Received, Breach> {
        let mut outcomes = BTreeMap::new();
        let answered = self.answer(from, to, transaction, &mut outcomes);
        self.judge(to, &outcomes)?;
        let received = match answered {
            Ok(words) => Received::Answered(words),
            Err(Stopped::Crashed) => Received::Died,
            Err(Stopped::Failed(error)) => Received::Failed(error.to_string()),
        };
        if self.servers[to].disk.has_crashed() {
            self.servers[to].restart()?;
        }
        Ok(received)
    }

    fn answer(
        &mut self,
        from: usize,
        to: usize,
        transaction: &Transaction,
        outcomes: &mut BTreeMap<Arc<str>, Outcome>,
    ) -> Result<String, Stopped> {
        self.ask_for_key_of(to, from)?;
        self.hear(to, from)?;
        let (mut body, mut id) = (transaction.body(SERVER_NAMES[from]).to_vec(), transaction.id.clone());
        if self.plant == Plant::ChangedIds {
            self.messages += 1;
            id = self.messages.to_string();
            let text = String::from_utf8_lossy(&body)
                .replace("\"message_id\":\"", &format!("\"message_id\":\"{id}"));
            body = text.into_bytes();
        }
        let body: Body<'_> = serde_json::from_slice(&body).expect("a transaction is JSON");
        let reception = Reception::new(SERVER_NAMES[from].to_owned(), id, &body);
        let mut reception = reception.expect("a transaction has no more parts than it may have");
        let engine = self.servers[to].engine();
        if reception.answered(&engine).map_err(Stopped::Failed)?.is_some() {
            return Ok("which it has already".to_owned());
        }
        for mut room in reception.rooms() {
            self.take_in_room(to, &mut room, outcomes)?;
            reception.took_in(room);
        }
        let mut next = reception.edus();
        while let Some(edus) = next {
            let taken = self.servers[to].write(edus.clone())?;
            next = edus.rest(&taken);
        }
        let note = reception.answer(None);
        let answer: Value = serde_json::from_slice(&note.answer).expect("an answer is JSON");
        self.servers[to].write(note)?;
        self.note_answer(to, transaction, &answer["pdus"]);
        self.let_history_go(to, outcomes);
        let is_nowhere = answer["pdus"] == json!({}) && !transaction.pdus.is_empty();
        Ok(match is_nowhere {
            true => "for a room that it is not in".to_owned(),
            false => words(&self.event_ids(transaction), outcomes, &answer["pdus"]),
        })
    }

    /// What was said before a server came in it does not keep.
    fn let_history_go(&mut self, to: usize, outcomes: &BTreeMap<Arc<str>, Outcome>) {
        let history = outcomes.iter().filter(|(_, outcome)| **outcome == Outcome::Past);
        for room in 0..self.rooms.len() {
            self.ledger.let_history_go(to, room, history.clone().map(|(event_id, _)| &**event_id));
        }
    }

    fn take_in_room(
        &self,
        to: usize,
        room: &mut RoomReception,
        outcomes: &mut BTreeMap<Arc<str>, Outcome>,
    ) -> Result<(), Stopped> {
        let server = &self.servers[to];
        let begun = room.begin(&server.engine()).map_err(Stopped::Failed)?;
        for notice in room.turned_away() {
            if self.plant != Plant::DeafGuest {
                server.write(notice)?;
            }
        }
        if let Some(reminder) = room.reminder() {
            server.write(reminder)?;
        }
        if let Some(mut intake) = begun {
            let taken = self.drive(to, &mut intake, &mut Asking { servers: &[], answers: 0 });
            outcomes.extend(
                intake.outcomes.iter().map(|(event_id, outcome)| (event_id.clone(), outcome.clone())),
            );
            taken?;
            if let Some(park) = room.judged(&intake) {
                let is_forgotten = self.plant == Plant::CarelessReceiver;
                let kept = || park.pdus.iter().filter_map(|pdu| self.event_id(pdu)).collect();
                room.parked(match is_forgotten {
                    true => Parked { kept: kept(), refused: Vec::new() },
                    false => server.write(park)?,
                });
            }
        }
        Ok(())
    }

    /// Takes the steps of an intake.
    pub(super) fn drive(
        &self,
        to: usize,
        intake: &mut Intake,
        asking: &mut Asking<'_>,
    ) -> Result<(), Stopped> {
        let server = &self.servers[to];
        loop {
            match intake.next_step() {
                Next::Check(pdus) => {
                    let view = CheckPdus { version: intake.version(), pdus: &pdus };
                    let checks = match intake.is_history() {
                        true => server.engine().read(&CheckHistory(view)),
                        false => server.engine().read(&view),
                    };
                    intake.checked(checks.map_err(Stopped::Failed)?);
                }
                Next::Write(receive) => intake.received(server.write(*receive)?),
                Next::Ask(question) => {
                    let answer = match asking.answers.checked_sub(1) {
                        None => Answer::Nothing,
                        Some(rest) => {
                            asking.answers = rest;
                            self.ask(to, asking.servers, intake.room_id(), &question)?
                        }
                    };
                    intake.answered(question, answer);
                }
                Next::Done => return Ok(()),
            }
        }
    }

    /// What an honest server sent must not be rejected or refused.
    pub(super) fn judge(&mut self, to: usize, outcomes: &BTreeMap<Arc<str>, Outcome>) -> Result<(), Breach> {
        for (event_id, outcome) in outcomes {
            // Of history nothing is kept until somebody pages back to it.
            self.learned += usize::from(!matches!(outcome, Outcome::Known | Outcome::Past));
            if *outcome == Outcome::Past {
                self.ledger.past.insert((to, event_id.clone()));
            }
            let why = match outcome {
                Outcome::Rejected(denied) => denied.to_string(),
                Outcome::Refused(refused) => refused.to_string(),
                _ => continue,
            };
            let what =
                format!("{} is refused by {}: {why}", self.event_name(event_id), self.servers[to].name);
            return Err(Breach::new("rejected", what));
        }
        Ok(())
    }
}

/// What became of the events.
fn words(event_ids: &[Arc<str>], outcomes: &BTreeMap<Arc<str>, Outcome>, results: &Value) -> String {
    let outcome = |event_id: &Arc<str>| match outcomes.get(event_id) {
        None if results[&**event_id]["error"].is_string() => "refused".to_owned(),
        None => "waiting".to_owned(),
        Some(Outcome::SoftFailed(denied)) => format!("soft-failed ({})", denied.reason),
        Some(Outcome::Rejected(denied)) => format!("rejected ({})", denied.reason),
        Some(outcome) => format!("{outcome:?}").to_lowercase(),
    };
    match event_ids {
        [] => "taken".to_owned(),
        event_ids => event_ids.iter().map(outcome).collect::<Vec<_>>().join(", "),
    }
}
