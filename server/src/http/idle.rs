//! What a connection is used for, so that one that nobody uses ends, whatever it is silent in: before its first byte, within
//! the preface of HTTP/2, or between requests.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The requests of one connection.
#[derive(Clone)]
pub struct Uses(Arc<Mutex<Requests>>);

struct Requests {
    in_flight: usize,
    /// When the last of them ended, or the connection began.
    last_end: Instant,
}

impl Default for Uses {
    fn default() -> Uses {
        Uses(Arc::new(Mutex::new(Requests { in_flight: 0, last_end: Instant::now() })))
    }
}

impl Uses {
    /// A request has come; it is in flight until this is dropped.
    pub fn begin(&self) -> Using {
        self.0.lock().in_flight += 1;
        Using(self.clone())
    }

    /// Waits until no request has been in flight for so long.
    pub async fn idle_for(&self, time: Duration) {
        loop {
            let now = Instant::now();
            let end = self.idle_since().unwrap_or(now) + time;
            if end <= now {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }

    fn idle_since(&self) -> Option<Instant> {
        let requests = self.0.lock();
        (requests.in_flight == 0).then_some(requests.last_end)
    }
}

/// A request that is in flight.
pub struct Using(Uses);

impl Drop for Using {
    fn drop(&mut self) {
        let mut requests = self.0.0.lock();
        requests.in_flight -= 1;
        requests.last_end = Instant::now();
    }
}

/// The body of an answer; until it is sent, its request is in flight.
pub struct Used<B> {
    body: B,
    _using: Using,
}

impl<B> Used<B> {
    pub fn new(body: B, using: Using) -> Used<B> {
        Used { body, _using: using }
    }
}

impl<B: Body + Unpin> Body for Used<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(task)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn who_uses_a_connection_is_not_idle() {
        let (uses, limit) = (Uses::default(), Duration::from_millis(20));
        let using = uses.begin();
        assert!(timeout(5 * limit, uses.idle_for(limit)).await.is_err(), "a request is in flight");
        drop(using);
        assert!(timeout(Duration::ZERO, uses.idle_for(limit)).await.is_err(), "it was until now");
        assert!(timeout(Duration::from_secs(10), uses.idle_for(limit)).await.is_ok());
    }
}
