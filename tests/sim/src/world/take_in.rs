//! A server takes in what another sends: the part of a federation worker, driven by one thread.

use std::{collections::BTreeMap, fmt, sync::Arc};

use warren_engine::{
    Error, Outcome,
    intake::{Answer, Intake, Next},
    view::{CheckPdus, Frontier},
};

use super::{Breach, Stopped, World, network::Transaction};

/// What became of a transaction.
pub(super) struct Taken {
    /// Whether the sender is told that it was taken.
    pub is_done: bool,
    words: String,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

fn taken(is_done: bool, words: &str) -> Taken {
    Taken { is_done, words: words.to_owned() }
}

impl World {
    /// Takes in a transaction; of the questions that it leads to, `answers` are answered.
    pub(super) fn take_in(
        &mut self,
        from: usize,
        to: usize,
        transaction: &Transaction,
        answers: usize,
    ) -> Result<Taken, Breach> {
        let room_id = self.rooms[transaction.room].id.clone();
        let frontier = self.servers[to].engine().read(&Frontier { room_id: room_id.clone() });
        let frontier = frontier.map_err(|error| Breach::new("frontier", error))?;
        let is_in_room = self.servers_in_room(to, transaction.room).contains(&to);
        let Some(frontier) = frontier.filter(|_| is_in_room) else {
            return Ok(taken(true, "for a room that it is not in"));
        };
        let pdus = transaction.pdus.iter().map(|(_, json)| json.clone()).collect();
        let mut intake = Intake::new(room_id, frontier.version, pdus);
        let mut left = answers;
        loop {
            let step = self.step(from, to, transaction.room, &mut intake, &mut left);
            match step {
                Ok(true) => {}
                Ok(false) => break,
                Err(Stopped::Crashed) => return Ok(taken(false, "and the server crashes")),
                Err(Stopped::Failed(Error::Storage(_))) => return Ok(taken(false, "and it fails to write")),
                Err(Stopped::Failed(error)) => return Ok(taken(true, &format!("refused: {error}"))),
            }
        }
        self.judge(to, transaction, &intake.outcomes)?;
        Ok(taken(true, &self.words(transaction, &intake.outcomes)))
    }

    /// What became of the events of a transaction, and of those that had to be fetched for them.
    fn words(&self, transaction: &Transaction, outcomes: &BTreeMap<Arc<str>, Outcome>) -> String {
        let outcome = |event_id: &Arc<str>| match outcomes.get(event_id) {
            None => "waiting".to_owned(),
            Some(Outcome::SoftFailed(denied)) => format!("soft-failed ({})", denied.reason),
            Some(Outcome::Rejected(denied)) => format!("rejected ({})", denied.reason),
            Some(outcome) => format!("{outcome:?}").to_lowercase(),
        };
        let mut words: Vec<String> = transaction.pdus.iter().map(|(event_id, _)| outcome(event_id)).collect();
        let sent = |event_id: &Arc<str>| transaction.pdus.iter().any(|(known, _)| known == event_id);
        for event_id in outcomes.keys().filter(|event_id| !sent(event_id)) {
            words.push(format!("with it {} {}", self.event_name(event_id), outcome(event_id)));
        }
        words.join(", ")
    }

    /// One step of an intake; returns whether there is another.
    fn step(
        &self,
        from: usize,
        to: usize,
        room: usize,
        intake: &mut Intake,
        answers: &mut usize,
    ) -> Result<bool, Stopped> {
        let server = &self.servers[to];
        match intake.next_step() {
            Next::Check(pdus) => {
                let view = CheckPdus { version: intake.version(), pdus: &pdus };
                intake.checked(server.engine().read(&view).map_err(Stopped::Failed)?);
            }
            Next::Write(receive) => intake.received(server.write(receive)?),
            Next::Ask(question) => {
                let answer = match answers.checked_sub(1) {
                    None => Answer::Nothing,
                    Some(rest) => {
                        *answers = rest;
                        self.ask(to, from, room, &question)?
                    }
                };
                intake.answered(question, answer);
            }
            Next::Done => return Ok(false),
        }
        Ok(true)
    }

    /// What an honest server sent must not be rejected or refused.
    fn judge(
        &mut self,
        to: usize,
        transaction: &Transaction,
        outcomes: &BTreeMap<Arc<str>, Outcome>,
    ) -> Result<(), Breach> {
        for (event_id, outcome) in outcomes {
            self.learned += usize::from(*outcome != Outcome::Known);
            let why = match outcome {
                Outcome::Rejected(denied) => denied.to_string(),
                Outcome::Refused(refused) => refused.to_string(),
                Outcome::SoftFailed(_) => {
                    self.soft_failed.insert((to, event_id.clone()));
                    continue;
                }
                _ => continue,
            };
            let what = format!(
                "{} in room {} is refused by {}: {why}",
                self.event_name(event_id),
                transaction.room + 1,
                self.servers[to].name
            );
            return Err(Breach::new("rejected", what));
        }
        Ok(())
    }
}
