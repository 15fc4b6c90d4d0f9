//! For what the events wait that an intake leaves waiting, as far as that is known: for who has to tell of it.

use std::{collections::BTreeMap, sync::Arc};

use super::{Intake, Role};
use crate::core::event::Pdu;

/// What it takes to judge an event, and is not here: the first of it, if there is more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum Lack {
    /// A key of that server, which has signed it.
    #[error("a signing key of {0} is not here")]
    Key(String),
    /// The signature of the room's policy server.
    #[error("the room's policy server was not asked for its signature yet")]
    Signature,
    /// An event that allows it.
    #[error("{0}, which allows it, is not here")]
    Allowing(Arc<str>),
    /// An event that it follows.
    #[error("{0}, which it follows, is not here")]
    Previous(Arc<str>),
    /// An event that it follows, or that allows it, and that waits itself.
    #[error("{0}, which it follows or which allows it, waits itself")]
    Other(Arc<str>),
    /// Something of the state before it.
    #[error("the state before it is not known")]
    State,
}

impl Intake {
    /// The events that were to be part of the room and cannot be judged yet, and what they lack.
    pub fn lacks(&self) -> BTreeMap<Arc<str>, Lack> {
        let keyless = self.keyless.iter().filter(|keyless| keyless.role != Role::Outlier);
        let keyless = keyless.filter_map(|keyless| {
            let pdu = Pdu::parse_history(self.version, &keyless.json).ok()?;
            Some((pdu.event_id, Lack::Key(keyless.server.clone())))
        });
        let live =
            self.live.iter().map(|(event_id, checked)| (event_id.clone(), self.lack_of(checked.pdu())));
        // Of an event that came twice one copy may have been checked.
        keyless.chain(live).collect()
    }

    fn lack_of(&self, pdu: &Pdu) -> Lack {
        let missing = &self.missing;
        if missing.signatures.iter().any(|wanted| wanted.event_id == pdu.event_id) {
            return Lack::Signature;
        }
        if let Some(allowing) = pdu.auth_events.iter().find(|id| missing.auth_events.contains(id)) {
            return Lack::Allowing(allowing.clone());
        }
        if let Some(previous) = pdu.prev_events.iter().find(|id| missing.prev_events.contains(id)) {
            return Lack::Previous(previous.clone());
        }
        let mut named = pdu.prev_events.iter().chain(&pdu.auth_events);
        named.find(|id| self.live.contains_key(*id)).map_or(Lack::State, |other| Lack::Other(other.clone()))
    }
}
