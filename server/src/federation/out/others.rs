//! How much others are asked because of what one server has sent: what that names may be made up, and costs it nothing.
//!
//! Invariant: whatever a server sends, and for however many rooms, each other one is asked only so much a minute because of it, and
//! not again for events of a room that nobody knew a while ago. The server itself is asked for all of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use parking_lot::Mutex;
use tokio::time::Instant;
use warren_engine::intake::Question;

/// Events that others are asked for by their ids in each such time. Who sends an event knows what allows it; others are asked where
/// that server is gone meanwhile, and tell more at once (`event_auth`, `state`).
const EVENTS_MAX: usize = 20;
/// And other questions: as many as one round leads to.
const QUESTIONS_MAX: usize = 60;
const PERIOD: Duration = Duration::from_secs(60);

/// How long others are not asked again for events that none of them knew. Who sends later ones is asked at once.
const UNKNOWN_TIME: Duration = Duration::from_secs(60 * 60);

/// Events of which that is remembered, some 200 bytes each, and servers because of which others are asked.
const UNKNOWN_MAX: usize = 20_000;
const ORIGINS_MAX: usize = 10_000;

/// Because of whom others were asked how much, and for what in vain.
#[derive(Default)]
pub struct Others {
    asked: Mutex<HashMap<String, Asked>>,
    /// Rooms and events, and until when they are not asked for.
    unknown: Mutex<Unknown>,
}

type Unknown = HashMap<(String, Arc<str>), Instant>;

fn is_unknown(unknown: &Unknown, room_id: &str, event_id: &Arc<str>, now: Instant) -> bool {
    unknown.get(&(room_id.to_owned(), event_id.clone())).is_some_and(|until| *until > now)
}

struct Asked {
    since: Instant,
    events: usize,
    questions: usize,
}

impl Others {
    /// What others may be asked of a question that came up by what `origin` has sent; `None` if they are not to be asked.
    pub fn admit(&self, room_id: &str, origin: &str, question: &Question) -> Option<Question> {
        self.admit_at(room_id, origin, question, Instant::now())
    }

    fn admit_at(&self, room_id: &str, origin: &str, question: &Question, now: Instant) -> Option<Question> {
        let mut all_asked = self.asked.lock();
        if all_asked.len() >= ORIGINS_MAX && !all_asked.contains_key(origin) {
            all_asked.retain(|_, asked| asked.since + PERIOD > now);
            if all_asked.len() >= ORIGINS_MAX {
                all_asked.clear();
            }
        }
        let fresh = || Asked { since: now, events: 0, questions: 0 };
        let asked = all_asked.entry(origin.to_owned()).or_insert_with(fresh);
        if asked.since + PERIOD <= now {
            *asked = fresh();
        }
        let Question::Events { event_ids } = question else {
            let is_admitted = asked.questions < QUESTIONS_MAX;
            asked.questions += usize::from(is_admitted);
            left_out("too_many", usize::from(!is_admitted));
            return is_admitted.then(|| question.clone());
        };
        let mut wanted = self.without_unknown(room_id, event_ids, now);
        left_out("unknown", event_ids.len() - wanted.len());
        let admitted = wanted.len().min(EVENTS_MAX - asked.events);
        left_out("too_many", wanted.len() - admitted);
        wanted.truncate(admitted);
        asked.events += admitted;
        (admitted > 0).then_some(Question::Events { event_ids: wanted })
    }

    fn without_unknown(&self, room_id: &str, event_ids: &[Arc<str>], now: Instant) -> Vec<Arc<str>> {
        let unknown = self.unknown.lock();
        let is_wanted = |event_id: &&Arc<str>| !is_unknown(&unknown, room_id, event_id, now);
        event_ids.iter().filter(is_wanted).cloned().collect()
    }

    /// Those of the events that no others knew a while ago, for which they are not asked again.
    pub fn unknown(&self, room_id: &str, event_ids: &[Arc<str>]) -> Vec<Arc<str>> {
        let (unknown, now) = (self.unknown.lock(), Instant::now());
        event_ids.iter().filter(|event_id| is_unknown(&unknown, room_id, event_id, now)).cloned().collect()
    }

    /// All others that were asked this have answered, and know nothing of it.
    pub fn asked_in_vain(&self, room_id: &str, question: &Question) {
        let Question::Events { event_ids } = question else { return };
        let (mut unknown, now) = (self.unknown.lock(), Instant::now());
        if unknown.len() + event_ids.len() > UNKNOWN_MAX {
            unknown.retain(|_, until| *until > now);
            if unknown.len() + event_ids.len() > UNKNOWN_MAX {
                unknown.clear();
            }
        }
        unknown.extend(event_ids.iter().map(|id| ((room_id.to_owned(), id.clone()), now + UNKNOWN_TIME)));
    }
}

fn left_out(reason: &'static str, count: usize) {
    if count > 0 {
        counter!("warren_federation_questions_left_out_total", "reason" => reason).increment(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: &str = "!a:here.test";
    const THERE: &str = "there.test";

    fn events(ids: impl IntoIterator<Item = usize>) -> Question {
        Question::Events { event_ids: ids.into_iter().map(|id| Arc::from(format!("${id}"))).collect() }
    }

    #[test]
    fn others_are_asked_for_few_events_a_minute_whatever_a_server_sends() {
        let (others, now) = (Others::default(), Instant::now());
        let ask = |origin: &str, ids: std::ops::Range<usize>, at: Instant| {
            others.admit_at(ROOM, origin, &events(ids), at)
        };
        assert_eq!(ask(THERE, 0..15, now), Some(events(0..15)));
        assert_eq!(ask(THERE, 15..65, now), Some(events(15..20)));
        assert_eq!(others.admit_at("!b:here.test", THERE, &events(0..50), now), None, "for another room");
        // That is no other's.
        assert_eq!(ask("other.test", 0..1, now), Some(events(0..1)));
        assert_eq!(ask(THERE, 20..40, now + PERIOD / 2), None);
        assert_eq!(ask(THERE, 20..40, now + PERIOD), Some(events(20..40)));
    }

    #[test]
    fn other_questions_are_as_many_as_one_round_has() {
        let (others, now) = (Others::default(), Instant::now());
        let state = |id: usize| Question::State { event_id: Arc::from(format!("${id}")) };
        let ask = |id: usize, at: Instant| others.admit_at(ROOM, THERE, &state(id), at);
        for id in 0..QUESTIONS_MAX {
            assert_eq!(ask(id, now), Some(state(id)));
        }
        assert_eq!(ask(0, now), None);
        assert_eq!(ask(0, now + PERIOD), Some(state(0)));
    }

    #[test]
    fn what_nobody_knew_is_not_asked_for_again_in_the_room() {
        let (others, now) = (Others::default(), Instant::now());
        others.asked_in_vain(ROOM, &events(0..5));
        let ask = |room_id: &str, at: Instant| others.admit_at(room_id, THERE, &events(0..6), at);
        assert_eq!(ask(ROOM, now + PERIOD), Some(events([5])));
        assert_eq!(ask("!b:here.test", now + PERIOD), Some(events(0..6)));
        assert_eq!(ask(ROOM, now + UNKNOWN_TIME + PERIOD), Some(events(0..6)));
        let Question::Events { event_ids } = events([5, 4]) else { panic!("these are events") };
        assert_eq!(others.unknown(ROOM, &event_ids), event_ids[1..]);
        assert!(others.unknown("!b:here.test", &event_ids).is_empty());
    }
}
