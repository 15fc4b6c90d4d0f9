//! The memory that large bodies take, those of other servers all together and those of clients all together.
//!
//! A server's has to be there before its signature can be checked, so that anybody may send one in anybody's name, and a
//! client that has proved itself may send many at once, slowly. Invariant: of those that are larger than ordinary requests
//! only so many are here at once, from where they become large until they are answered, few of them from one address; and of
//! the servers' one at a time is checked, which takes some copies of it.

use std::net::IpAddr;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use super::limits::{LARGE_BODIES_MIN, LARGE_BODIES_PERCENT, LARGE_BODIES_SHARES, LARGE_BODY_WAIT_MAX};
use super::places::{Place, Places};
use crate::http::ApiError;
use crate::http::limits::TRANSACTION_BODY_BYTES_MAX;
use crate::http::peer::owner;

/// Why a large body is refused for which no place becomes free, as it is counted.
pub const BUSY: &str = "busy";

/// The places of large bodies.
pub struct LargeBodies {
    places: Places<IpAddr>,
    checking: Mutex<()>,
}

impl LargeBodies {
    /// As many as the server's whole budget allows.
    pub fn new(memory_budget_bytes: u64) -> LargeBodies {
        let bytes = usize::try_from(memory_budget_bytes * LARGE_BODIES_PERCENT / 100).unwrap_or(usize::MAX);
        let places_max = (bytes / TRANSACTION_BODY_BYTES_MAX).max(LARGE_BODIES_MIN);
        LargeBodies {
            places: Places::new(places_max, places_max / LARGE_BODIES_SHARES),
            checking: Mutex::new(()),
        }
    }

    /// A place for a body from an address that has turned out to be large.
    ///
    /// Errors: 503 if none becomes free for a while.
    pub async fn place(&self, client: Option<IpAddr>) -> Result<Place, ApiError> {
        timeout(LARGE_BODY_WAIT_MAX, self.places.take(client.map(owner))).await.map_err(|_| {
            ApiError::unknown("This server is busy with other large requests; try again in a while")
                .with_status(http::StatusCode::SERVICE_UNAVAILABLE)
                .because(BUSY)
        })
    }

    /// Waits until no other is being checked.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.checking.lock().await
    }
}
