//! What a policy server was asked to sign, and what it answered.

use std::sync::Arc;

use bytes::Bytes;

use super::{Intake, Question};
use crate::{
    core::event::{JsonObject, Pdu},
    room::policy::{PolicyServer, WantedSignature},
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

    /// An event at hand that a policy server has signed before, as JSON, by which it can be seen whether it signs.
    pub fn signed_before(&self, policy: &PolicyServer) -> Option<(WantedSignature, Bytes)> {
        let signed = |pdu: &Arc<Pdu>| policy.has_signed(self.version, pdu).unwrap_or_default();
        let (event_id, checked) = self.live.iter().find(|(_, checked)| signed(checked.pdu()))?;
        let wanted = WantedSignature { event_id: event_id.clone(), policy: policy.clone() };
        Some((wanted, checked.pdu().json.clone()))
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
