//! Places for answers that tell a room's state or an event's auth chain, which may be a hundred thousand events.
//!
//! Such an answer is read piece by piece while it is sent, so that what it takes is held for as long as its connection is
//! slow. Invariant: a server has only so many of them at once, from before anything is looked up for one until it is written or its
//! connection has ended; so that whoever takes none keeps no other server from its own.

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::limits::{
    ROOM_ANSWER_RETRY_AFTER_MS, ROOM_ANSWER_WAIT_MAX, ROOM_ANSWERS_FOR_EACH, ROOM_ANSWERS_IN_LINE_FOR_EACH,
};
use super::places::{Place, Places};
use crate::http::{ApiError, Call};

/// The places of all servers, by their names. There is no limit for all together: with it, some names would keep out all others.
pub struct RoomAnswers {
    line: Places<String>,
    places: Places<String>,
}

impl Default for RoomAnswers {
    fn default() -> RoomAnswers {
        RoomAnswers {
            line: Places::new(Semaphore::MAX_PERMITS, ROOM_ANSWERS_IN_LINE_FOR_EACH),
            places: Places::new(Semaphore::MAX_PERMITS, ROOM_ANSWERS_FOR_EACH),
        }
    }
}

impl RoomAnswers {
    /// A place for the answer to a request of a server, in its turn.
    ///
    /// Errors: 429 if none becomes free in time, or too many wait already.
    pub async fn place(&self, call: &Call) -> Result<Place, ApiError> {
        let server = call.origin()?.as_str();
        self.take(server).await.ok_or_else(|| ApiError::limit_exceeded(ROOM_ANSWER_RETRY_AFTER_MS))
    }

    async fn take(&self, server: &str) -> Option<Place> {
        let _in_line = self.line.try_take(Some(server.to_owned()))?;
        timeout(ROOM_ANSWER_WAIT_MAX, self.places.take(Some(server.to_owned()))).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_has_all_its_places_waits_its_turn_and_keeps_nobody_from_theirs() {
        let answers = RoomAnswers::default();
        let mut held = Vec::new();
        for _ in 0..ROOM_ANSWERS_FOR_EACH {
            held.push(answers.take("a.example").await.expect("it is free"));
        }
        assert!(
            timeout(Duration::from_millis(20), answers.take("a.example")).await.is_err(),
            "all are taken"
        );
        assert!(answers.take("b.example").await.is_some());
        let (next, ()) = tokio::join!(answers.take("a.example"), async { drop(held.pop()) });
        assert!(next.is_some(), "one became free");
    }

    #[tokio::test]
    async fn not_all_may_wait() {
        let answers = RoomAnswers::default();
        let in_line = |_| answers.line.try_take(Some("a.example".to_owned()));
        let line: Vec<_> = (0..ROOM_ANSWERS_IN_LINE_FOR_EACH).map(in_line).collect();
        assert!(line.iter().all(Option::is_some) && answers.take("a.example").await.is_none());
        assert!(answers.take("b.example").await.is_some());
        drop(line);
        assert!(answers.take("a.example").await.is_some());
    }
}
