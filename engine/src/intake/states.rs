//! What the states that other servers tell go without: what can never be part of them, and what cannot be checked.
//!
//! Invariant: what is live goes without nothing that only lacks a key but that it is kept ([`crate::room::unchecked`]), to be part of the
//! room's state once the key is here.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Intake, Keyless, Role};
use crate::{
    command::{UNCHECKED_EVENTS_MAX, Unchecked},
    core::{checked::CheckedPdu, event::Pdu},
    error::Missing,
    room::receive::Outcome,
};

impl Intake {
    /// Leaves out of the states that were told what can never be part of them: of the events that are not here those that were
    /// refused, and of live ones those that nobody has; and what such would have to allow. One bad event in a state is no reason to
    /// refuse what follows it; who tells the state could as well have kept the event to itself. Of the past, what nobody has may be
    /// what hides it. Returns whether something is left out.
    pub(super) fn leave_out_of_states(&mut self, missing: &Missing) -> bool {
        let missing: HashSet<&Arc<str>> = missing.auth_events.iter().collect();
        if self.states.is_empty() || missing.is_empty() {
            return false;
        }
        let refused = self.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Refused(_)));
        let denied = self.denied.iter().filter(|event_id| !self.backfill && missing.contains(*event_id));
        let refused = refused.map(|(event_id, _)| event_id).chain(denied).cloned().collect();
        let refused = self.not_here_without(refused, &missing);
        let keyless = self.keyless_of_states();
        let keyless_ids = keyless.iter().map(|(pdu, _)| pdu.event_id.clone()).collect();
        let unchecked = self.not_here_without(keyless_ids, &missing);
        let hiding = self.hiding(&keyless, &unchecked);
        let mut states = std::mem::take(&mut self.states);
        let mut is_changed = false;
        for given in &mut states {
            let before = given.state.len();
            given.state.retain(|event_id| !refused.contains(event_id));
            if !given.state.iter().any(|event_id| hiding.contains(event_id)) {
                if !self.backfill && given.state.iter().any(|event_id| unchecked.contains(event_id)) {
                    self.keep_back(&given.event_id, &given.state, (&keyless, &unchecked));
                }
                given.state.retain(|event_id| !unchecked.contains(event_id));
            }
            is_changed |= given.state.len() < before;
        }
        self.states = states;
        is_changed
    }

    /// The events that states may go without because they cannot be checked, and whose keys they lack. What is to be part of the room,
    /// and may be of the state, is waited for where it comes live.
    fn keyless_of_states(&self) -> Vec<(Pdu, String)> {
        let of_states = |role: Role| self.backfill || role == Role::Outlier;
        let may_lack = |pdu: &Pdu, server: &String| {
            self.without_keys || &*pdu.kind == "m.room.member" && self.awaited.contains(server)
        };
        let parsed = |Keyless { json, server, .. }: &Keyless| {
            let pdu = Pdu::parse_history(self.version, json).ok()?;
            may_lack(&pdu, server).then(|| (pdu, server.clone()))
        };
        match self.without_keys || !self.awaited.is_empty() {
            true => {
                self.keyless.iter().filter(|keyless| of_states(keyless.role)).filter_map(parsed).collect()
            }
            false => Vec::new(),
        }
    }

    /// These events, and those that need them to be allowed, without those that are here by now, whatever was said of them.
    fn not_here_without(&self, mut next: Vec<Arc<str>>, missing: &HashSet<&Arc<str>>) -> HashSet<Arc<str>> {
        let allowed_by = allowed_by(self.outliers.iter());
        let mut without: HashSet<Arc<str>> = HashSet::new();
        while let Some(event_id) = next.pop() {
            if without.insert(event_id.clone()) {
                next.extend(allowed_by.get(&event_id).into_iter().flatten().copied().cloned());
            }
        }
        without.retain(|event_id| missing.contains(event_id) || self.outliers.contains_key(event_id));
        without
    }

    /// Keeps what the state before an event goes without, each with the server whose keys it, or what allows it, lacks.
    fn keep_back(
        &mut self,
        before: &Arc<str>,
        state: &[Arc<str>],
        (keyless, unchecked): (&[(Pdu, String)], &HashSet<Arc<str>>),
    ) {
        let state: HashSet<&Arc<str>> = state.iter().collect();
        let allowed_by = allowed_by(self.outliers.iter());
        let mut next: Vec<(&Pdu, &str)> =
            keyless.iter().map(|(pdu, server)| (pdu, server.as_str())).collect();
        let mut seen: HashSet<&Arc<str>> = HashSet::new();
        let mut left_out = Vec::new();
        while let Some((pdu, server)) = next.pop() {
            if !unchecked.contains(&pdu.event_id) || !seen.insert(&pdu.event_id) {
                continue;
            }
            let (event_id, json) = (pdu.event_id.clone(), pdu.json.clone());
            let is_state = state.contains(&event_id);
            left_out.push(Unchecked { event_id, server: server.to_owned(), is_state, json });
            let allowed = allowed_by.get(&pdu.event_id).into_iter().flatten();
            next.extend(allowed.filter_map(|id| Some((&**self.outliers.get(*id)?.pdu(), server))));
        }
        let has_room = UNCHECKED_EVENTS_MAX.saturating_sub(self.left_out.len());
        for event in left_out.into_iter().take(has_room) {
            self.left_out.entry((before.clone(), event.event_id.clone())).or_insert(event);
        }
    }

    /// Those of the unchecked events that hide the room's past: a state of the past that goes without one would show it to
    /// all. What is live has it from what it follows.
    fn hiding(&self, keyless: &[(Pdu, String)], unchecked: &HashSet<Arc<str>>) -> HashSet<Arc<str>> {
        if !self.backfill {
            return HashSet::new();
        }
        let allowed = unchecked.iter().filter_map(|event_id| self.outliers.get(event_id));
        let pdus = keyless.iter().map(|(pdu, _)| pdu).chain(allowed.map(|checked| &**checked.pdu()));
        let hiding = pdus.filter(|pdu| pdu.is_state("m.room.history_visibility", ""));
        hiding.map(|pdu| pdu.event_id.clone()).filter(|event_id| unchecked.contains(event_id)).collect()
    }
}

/// Which of the events each event allows.
pub(super) fn allowed_by<'a>(
    events: impl Iterator<Item = (&'a Arc<str>, &'a Arc<CheckedPdu>)>,
) -> HashMap<&'a Arc<str>, Vec<&'a Arc<str>>> {
    let mut allowed_by: HashMap<&Arc<str>, Vec<&Arc<str>>> = HashMap::new();
    for (event_id, checked) in events {
        for allowing in &checked.pdu().auth_events {
            allowed_by.entry(allowing).or_default().push(event_id);
        }
    }
    allowed_by
}
