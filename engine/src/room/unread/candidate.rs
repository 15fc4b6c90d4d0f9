//! An event prepared for push rules, once for all the users whom it may notify.

use std::sync::{Arc, OnceLock};

use crate::{
    core::{
        event::Pdu,
        power_levels::PowerLevels,
        push_rules::{CompiledRules, EventFeatures, Outcome, RoomContext, Selection, UserContext},
    },
    error::Result,
    room::{Event, receipts::thread_root},
    store::{Reader, schema},
};

/// What a prepared event costs besides copies of its texts.
const CANDIDATE_BYTES: usize = 512;

/// What evaluating an event takes, whoever the user is.
pub(super) struct Candidate {
    /// The event id of the root of the thread that the event is in; empty for the main timeline.
    pub thread: Box<str>,
    pdu: Arc<Pdu>,
    features: EventFeatures,
    joined: u64,
    power_levels: Option<Arc<PowerLevels>>,
    /// Rules that were prepared for it; mostly those that all share.
    prepared: OnceLock<(Arc<CompiledRules>, Selection)>,
}

impl Candidate {
    /// The event, prepared; from memory if it is remembered.
    pub fn of(reader: &Reader, event: &Arc<Event>) -> Result<Arc<Self>> {
        let remembered = &reader.shared.memo.unread.candidates;
        let key = (event.num, event.json.len() as u64);
        if let Some(candidate) = remembered.get(&key) {
            return Ok(candidate);
        }
        let candidate = Arc::new(Self::new(reader, event)?);
        remembered.insert(key, candidate.clone(), CANDIDATE_BYTES + event.json.len());
        Ok(candidate)
    }

    fn new(reader: &Reader, event: &Arc<Event>) -> Result<Self> {
        let room = event.header.room;
        let state = event.header.state_before;
        let pdu = event.pdu()?;
        let power_levels = match reader.state_event(room, state, "m.room.create", "")? {
            None => None,
            Some(create) => {
                let levels = reader.state_event(room, state, "m.room.power_levels", "")?;
                Some(levels.unwrap_or_else(|| create.clone()).power_levels(&create)?)
            }
        };
        Ok(Self {
            thread: thread_root(reader, event)?.unwrap_or_default(),
            features: EventFeatures::new(pdu.clone()),
            pdu,
            joined: reader.get(&schema::ROOM_HEADS, &room)?.map_or(0, |head| head.joined),
            power_levels,
            prepared: OnceLock::new(),
        })
    }

    /// What `rules` decide for `user`.
    pub fn evaluate<'a>(&'a self, rules: &'a Arc<CompiledRules>, user: &UserContext<'_>) -> Outcome<'a> {
        let (prepared, selection) = self.prepared.get_or_init(|| (rules.clone(), self.select(rules)));
        if Arc::ptr_eq(prepared, rules) {
            rules.evaluate(selection, &self.features, user)
        } else {
            rules.evaluate(&self.select(rules), &self.features, user)
        }
    }

    fn select(&self, rules: &CompiledRules) -> Selection {
        let sender_may_notify = |key: &str| {
            let levels = self.power_levels.as_ref();
            levels.is_some_and(|levels| levels.user_level(&self.pdu.sender).reaches(levels.notification(key)))
        };
        let room = RoomContext { member_count: self.joined, sender_may_notify: &sender_may_notify };
        rules.select(&self.features, &room)
    }
}
