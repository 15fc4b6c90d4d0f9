//! Places for answers that tell a room's state or an event's auth chain, which may be a hundred thousand events.
//!
//! Such an answer is read piece by piece while it is sent, so that what it takes is held for as long as its connection is
//! slow. Invariant: a server has only so many of them at once, from before anything is looked up for one until it is written or its
//! connection has ended; so that whoever takes none keeps no other server from its own.

use std::net::IpAddr;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::limits::{
    JOIN_ANSWER_WAIT_MAX, JOINS_IN_LINE_FOR_EACH, ROOM_ANSWER_RETRY_AFTER_MS, ROOM_ANSWER_WAIT_MAX,
    ROOM_ANSWERS_FOR_ADDRESS, ROOM_ANSWERS_FOR_EACH, ROOM_ANSWERS_IN_LINE_FOR_EACH,
};
use super::places::{Place, Places};
use crate::http::peer::owner;
use crate::http::{ApiError, Call};

/// The places of all servers, by their names and addresses. There is no limit for all together: with it, some would keep out all others.
pub struct RoomAnswers {
    line: Places<String>,
    line_of_joins: Places<String>,
    places: Places<String>,
    of_addresses: Places<IpAddr>,
}

/// A place; ends when it is dropped.
pub struct RoomPlace {
    _of_server: Place,
    _of_address: Place,
}

impl Default for RoomAnswers {
    fn default() -> RoomAnswers {
        RoomAnswers {
            line: Places::new(Semaphore::MAX_PERMITS, ROOM_ANSWERS_IN_LINE_FOR_EACH),
            line_of_joins: Places::new(Semaphore::MAX_PERMITS, JOINS_IN_LINE_FOR_EACH),
            places: Places::new(Semaphore::MAX_PERMITS, ROOM_ANSWERS_FOR_EACH),
            of_addresses: Places::new(Semaphore::MAX_PERMITS, ROOM_ANSWERS_FOR_ADDRESS),
        }
    }
}

impl RoomAnswers {
    /// A place in the line of those who come in, for one that is taken later, by [`RoomAnswers::after_join`].
    ///
    /// Errors: 429 if too many wait already.
    pub fn before_join(&self, call: &Call) -> Result<Place, ApiError> {
        self.line_of_joins.try_take(Some(call.origin()?.to_string())).ok_or_else(refused)
    }

    /// A place for the answer to a server that was let in, in its turn.
    ///
    /// Errors: 429 if none becomes free for long. It is let in all the same, and told when it asks again.
    pub async fn after_join(&self, call: &Call) -> Result<RoomPlace, ApiError> {
        let taking = self.take(call.origin()?.as_str(), call.client);
        timeout(JOIN_ANSWER_WAIT_MAX, taking).await.map_err(|_| refused())
    }

    /// A place for the answer to a request of a server, in its turn.
    ///
    /// Errors: 429 if none becomes free in the time for which a server waits, or too many wait already.
    pub async fn place(&self, call: &Call) -> Result<RoomPlace, ApiError> {
        let server = call.origin()?.as_str();
        let _in_line = self.line.try_take(Some(server.to_owned())).ok_or_else(refused)?;
        timeout(ROOM_ANSWER_WAIT_MAX, self.take(server, call.client)).await.map_err(|_| refused())
    }

    async fn take(&self, server: &str, address: Option<IpAddr>) -> RoomPlace {
        let of_server = self.places.take(Some(server.to_owned())).await;
        RoomPlace { _of_server: of_server, _of_address: self.of_addresses.take(address.map(owner)).await }
    }
}

fn refused() -> ApiError {
    ApiError::limit_exceeded(ROOM_ANSWER_RETRY_AFTER_MS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn who_has_all_its_places_waits_its_turn_and_keeps_nobody_from_theirs() {
        let answers = RoomAnswers::default();
        let mut held = Vec::new();
        for _ in 0..ROOM_ANSWERS_FOR_EACH {
            held.push(answers.take("a.example", None).await);
        }
        assert!(timeout(SOON, answers.take("a.example", None)).await.is_err(), "all are taken");
        assert!(timeout(SOON, answers.take("b.example", None)).await.is_ok());
        let (next, ()) =
            tokio::join!(timeout(Duration::from_secs(10), answers.take("a.example", None)), async {
                drop(held.pop());
            });
        assert!(next.is_ok(), "one became free");
    }

    #[tokio::test]
    async fn many_names_of_one_address_have_no_more_than_that_may() {
        let (answers, network) = (RoomAnswers::default(), "2001:db8::");
        let address = |number: usize| format!("{network}{number:x}").parse().ok();
        let mut held = Vec::new();
        for number in 0..ROOM_ANSWERS_FOR_ADDRESS {
            held.push(answers.take(&format!("s{number}.example"), address(number)).await);
        }
        assert!(timeout(SOON, answers.take("another.example", address(0xffff))).await.is_err());
        assert!(
            timeout(SOON, answers.take("another.example", Some(IpAddr::from([192, 0, 2, 2])))).await.is_ok()
        );
    }

    #[tokio::test]
    async fn not_all_may_wait() {
        let answers = RoomAnswers::default();
        let in_line = |_| answers.line.try_take(Some("a.example".to_owned()));
        let line: Vec<_> = (0..ROOM_ANSWERS_IN_LINE_FOR_EACH).map(in_line).collect();
        assert!(line.iter().all(Option::is_some) && in_line(0).is_none());
        assert!(answers.line.try_take(Some("b.example".to_owned())).is_some());
        drop(line);
        assert!(in_line(0).is_some());
    }
}
