//! Places for answers that tell a room's state or an event's auth chain, which may be a hundred thousand events.
//!
//! Such an answer is read piece by piece while it is sent, so that what it takes is held for as long as its connection is
//! slow. Invariant: a server has only so many of them at once, from before anything is looked up for one until it is written or its
//! connection has ended; so that whoever takes none keeps no other server from its own.

use std::net::IpAddr;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::limits::{
    JOIN_ANSWER_WAIT_MAX, JOINS_IN_LINE_FOR_ADDRESS, JOINS_IN_LINE_FOR_EACH, ROOM_ANSWER_RETRY_AFTER_MS,
    ROOM_ANSWER_WAIT_MAX, ROOM_ANSWERS_FIRST_FOR_ADDRESS, ROOM_ANSWERS_FOR_ADDRESS, ROOM_ANSWERS_FOR_EACH,
    ROOM_ANSWERS_IN_LINE_FOR_ADDRESS, ROOM_ANSWERS_IN_LINE_FOR_EACH,
};
use super::places::{Place, Places};
use crate::http::peer::owner;
use crate::http::{ApiError, Call};

/// The places of all servers, and the lines before them.
pub struct RoomAnswers {
    line: Shared,
    line_of_joins: Shared,
    places: Shared,
}

/// Places of servers, by their names and addresses. There is no limit for all together: with it, some would keep out all others.
struct Shared {
    of_servers: Places<String>,
    /// One of each server, which counts among these of its address alone.
    firsts: Places<String>,
    firsts_of_addresses: Places<IpAddr>,
    /// All others.
    of_addresses: Places<IpAddr>,
}

/// A place; ends when it is dropped.
pub struct RoomPlace {
    _of_server: Place,
    _first: Option<Place>,
    _of_address: Place,
}

impl Default for RoomAnswers {
    fn default() -> RoomAnswers {
        RoomAnswers {
            line: Shared::new(ROOM_ANSWERS_IN_LINE_FOR_EACH, ROOM_ANSWERS_IN_LINE_FOR_ADDRESS),
            line_of_joins: Shared::new(JOINS_IN_LINE_FOR_EACH, JOINS_IN_LINE_FOR_ADDRESS),
            places: Shared::new(ROOM_ANSWERS_FOR_EACH, ROOM_ANSWERS_FOR_ADDRESS),
        }
    }
}

impl RoomAnswers {
    /// A place in the line of those who come in, for one that is taken later, by [`RoomAnswers::after_join`].
    ///
    /// Errors: 429 if too many wait already.
    pub fn before_join(&self, call: &Call) -> Result<RoomPlace, ApiError> {
        self.line_of_joins.try_take(call.origin()?.as_str(), call.client).ok_or_else(refused)
    }

    /// A place for the answer to a server that was let in, in its turn.
    ///
    /// Errors: 429 if none becomes free for long. It is let in all the same, and told when it asks again.
    pub async fn after_join(&self, call: &Call) -> Result<RoomPlace, ApiError> {
        let taking = self.places.take(call.origin()?.as_str(), call.client);
        timeout(JOIN_ANSWER_WAIT_MAX, taking).await.map_err(|_| refused())
    }

    /// A place for the answer to a request of a server, in its turn.
    ///
    /// Errors: 429 if none becomes free in the time for which a server waits, or too many wait already.
    pub async fn place(&self, call: &Call) -> Result<RoomPlace, ApiError> {
        let server = call.origin()?.as_str();
        let _in_line = self.line.try_take(server, call.client).ok_or_else(refused)?;
        timeout(ROOM_ANSWER_WAIT_MAX, self.places.take(server, call.client)).await.map_err(|_| refused())
    }
}

impl Shared {
    /// So many for each server, and so many for each address beside one of each server.
    fn new(of_each_max: usize, of_address_max: usize) -> Shared {
        Shared {
            of_servers: Places::new(Semaphore::MAX_PERMITS, of_each_max),
            firsts: Places::new(Semaphore::MAX_PERMITS, 1),
            firsts_of_addresses: Places::new(Semaphore::MAX_PERMITS, ROOM_ANSWERS_FIRST_FOR_ADDRESS),
            of_addresses: Places::new(Semaphore::MAX_PERMITS, of_address_max),
        }
    }

    /// Waits for a place. Whichever is free sooner: the server's first, or another of its address.
    async fn take(&self, server: &str, address: Option<IpAddr>) -> RoomPlace {
        let (server, address) = (server.to_owned(), address.map(owner));
        let of_server = self.of_servers.take(Some(server.clone())).await;
        let taking_first = async {
            let first = self.firsts.take(Some(server)).await;
            (first, self.firsts_of_addresses.take(address).await)
        };
        tokio::select! {
            biased;
            (first, of_address) = taking_first => {
                RoomPlace { _of_server: of_server, _first: Some(first), _of_address: of_address }
            }
            of_address = self.of_addresses.take(address) => {
                RoomPlace { _of_server: of_server, _first: None, _of_address: of_address }
            }
        }
    }

    /// A place, if there is one at once.
    fn try_take(&self, server: &str, address: Option<IpAddr>) -> Option<RoomPlace> {
        let (server, address) = (server.to_owned(), address.map(owner));
        let of_server = self.of_servers.try_take(Some(server.clone()))?;
        if let Some(first) = self.firsts.try_take(Some(server))
            && let Some(of_address) = self.firsts_of_addresses.try_take(address)
        {
            return Some(RoomPlace { _of_server: of_server, _first: Some(first), _of_address: of_address });
        }
        let of_address = self.of_addresses.try_take(address)?;
        Some(RoomPlace { _of_server: of_server, _first: None, _of_address: of_address })
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

    /// Addresses of one owner.
    fn address(number: usize) -> Option<IpAddr> {
        format!("2001:db8::{number:x}").parse().ok()
    }

    fn name(number: usize) -> String {
        format!("s{number}.example")
    }

    #[tokio::test]
    async fn who_has_all_its_places_waits_its_turn_and_keeps_nobody_from_theirs() {
        let places = RoomAnswers::default().places;
        let mut held = Vec::new();
        for _ in 0..ROOM_ANSWERS_FOR_EACH {
            held.push(places.take("a.example", None).await);
        }
        assert!(timeout(SOON, places.take("a.example", None)).await.is_err(), "all are taken");
        assert!(timeout(SOON, places.take("b.example", None)).await.is_ok());
        let (next, ()) =
            tokio::join!(timeout(Duration::from_secs(10), places.take("a.example", None)), async {
                drop(held.pop());
            });
        assert!(next.is_ok(), "one became free");
    }

    #[tokio::test]
    async fn many_names_of_one_address_have_no_more_than_that_may() {
        let places = RoomAnswers::default().places;
        let mut held = Vec::new();
        for number in 0..ROOM_ANSWERS_FIRST_FOR_ADDRESS + ROOM_ANSWERS_FOR_ADDRESS {
            held.push(places.take(&name(number), address(number)).await);
        }
        assert!(timeout(SOON, places.take("another.example", address(0xffff))).await.is_err());
        let elsewhere = Some(IpAddr::from([192, 0, 2, 2]));
        assert!(timeout(SOON, places.take("another.example", elsewhere)).await.is_ok());
    }

    #[tokio::test]
    async fn names_that_take_all_they_may_leave_neighbours_their_first() {
        let places = RoomAnswers::default().places;
        let mut held = Vec::new();
        // The first of each is beside those of the address.
        let names = ROOM_ANSWERS_FOR_ADDRESS.div_ceil(ROOM_ANSWERS_FOR_EACH - 1);
        for number in 0..names * ROOM_ANSWERS_FOR_EACH {
            let server = name(number % names);
            held.extend(timeout(SOON, places.take(&server, address(number))).await.ok());
        }
        assert_eq!(held.len(), names + ROOM_ANSWERS_FOR_ADDRESS);
        let another = || timeout(SOON, places.take("another.example", address(0xffff)));
        let first = another().await;
        assert!(first.is_ok());
        assert!(another().await.is_err(), "the address has no more");
        drop(first);
        let first = another().await;
        assert!(first.is_ok(), "it was free again");
        drop(held.pop());
        assert!(another().await.is_ok(), "one of the address is free");
    }

    #[tokio::test]
    async fn not_all_may_wait() {
        for (line, each) in [
            (RoomAnswers::default().line, ROOM_ANSWERS_IN_LINE_FOR_EACH),
            (RoomAnswers::default().line_of_joins, JOINS_IN_LINE_FOR_EACH),
        ] {
            let in_line = |_| line.try_take("a.example", None);
            let waiting: Vec<_> = (0..each).map(in_line).collect();
            assert!(waiting.iter().all(Option::is_some) && in_line(0).is_none());
            assert!(line.try_take("b.example", None).is_some());
            drop(waiting);
            assert!(in_line(0).is_some());
        }
    }

    #[tokio::test]
    async fn names_of_one_address_hold_no_more_of_a_line_than_that_may() {
        let line = RoomAnswers::default().line_of_joins;
        let names = 100;
        let waiting: Vec<_> = (0..names * JOINS_IN_LINE_FOR_EACH)
            .filter_map(|number| line.try_take(&name(number % names), address(number)))
            .collect();
        assert_eq!(waiting.len(), names + JOINS_IN_LINE_FOR_ADDRESS);
        assert!(line.try_take("another.example", address(0xffff)).is_some(), "its first");
        assert!(line.try_take(&name(0), Some(IpAddr::from([192, 0, 2, 2]))).is_some());
    }
}
