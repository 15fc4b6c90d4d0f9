//! What a policy server is to sign of an intake, and what it has signed.

use std::sync::Arc;

use super::{Intake, Question};
use crate::{
    core::{checked::CheckedPdu, event::JsonObject},
    room::policy::{PolicyServer, UnsignedEvent, WantedSignature},
};

impl Intake {
    /// Takes the signatures out that are to be asked for next, for who asks for several of them side by side. What comes of each is told by
    /// [`Intake::answered`].
    pub fn other_signatures(&mut self) -> Vec<WantedSignature> {
        let mut others = Vec::new();
        self.questions.retain(|question| match question {
            Question::PolicySignature(wanted) => {
                others.push(wanted.clone());
                false
            }
            _ => true,
        });
        others
    }

    /// Whether a policy server's answer has the signature that is wanted of it.
    pub fn is_signed(&self, wanted: &WantedSignature, answer: &JsonObject) -> bool {
        let event = self.live.get(&wanted.event_id);
        event.is_some_and(|event| wanted.policy.sign_checked(self.version, event, answer).is_ok())
    }

    /// An event at hand that a policy server has signed, by which it can be seen whether it signs.
    pub fn signed_by(&self, policy: &PolicyServer) -> Option<UnsignedEvent> {
        let is_probe =
            |checked: &&Arc<CheckedPdu>| policy.shows_by(self.version, checked.pdu()).unwrap_or_default();
        let found = self.live.values().find(is_probe)?;
        Some(UnsignedEvent::new(self.version, found.pdu().clone(), policy.clone()))
    }

    /// Of the events that a policy server is to be asked about later, the last one and the next.
    pub fn to_be_signed_later(&self) -> Vec<UnsignedEvent> {
        let wanted = self.missing.signatures.iter();
        let mut later =
            wanted.filter(|wanted| !self.asked.contains(&Question::PolicySignature((*wanted).clone())));
        let ends = [later.next_back(), later.next()];
        let event = |wanted: &WantedSignature| {
            let checked = self.live.get(&wanted.event_id)?;
            Some(UnsignedEvent::new(self.version, checked.pdu().clone(), wanted.policy.clone()))
        };
        ends.into_iter().flatten().filter_map(event).collect()
    }

    /// Whether events wait for a policy server that was to sign them, as far as it was told by the last write.
    pub fn lacks_signatures(&self) -> bool {
        !self.missing.signatures.is_empty()
    }

    /// Whether a policy server has not answered about an event of the past, so that it is asked about no other.
    pub fn is_policy_server_silent(&self) -> bool {
        self.is_policy_server_silent
    }

    /// Keeps the signature with the event. One that does not hold is none.
    pub(super) fn policy_answered(&mut self, wanted: &WantedSignature, answer: Option<JsonObject>) {
        let Some(event) = self.live.get_mut(&wanted.event_id) else { return };
        let has_answer = answer.is_some();
        let signed = answer.and_then(|answer| wanted.policy.sign_checked(self.version, event, &answer).ok());
        match signed {
            Some(signed) => *event = signed,
            // It signs with another key than the room says: nothing is said of the event, which would be hidden for good.
            None if has_answer && self.backfill => return self.policy_server_is_silent(),
            None => drop(self.not_recommended.insert(wanted.event_id.clone())),
        }
        self.is_new = true;
    }

    pub(super) fn policy_server_is_silent(&mut self) {
        self.is_policy_server_silent = true;
        self.other_signatures();
    }
}
