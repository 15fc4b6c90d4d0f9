//! The id of the request that is being answered, so that whatever is logged on the way can name it.
//!
//! Invariant: no two requests have the same, whichever listener they came by and however often the server was started.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::HeaderValue;
use tracing::field::{DisplayValue, display};

thread_local! {
    static CURRENT: Cell<Option<RequestId>> = const { Cell::new(None) };
}

/// The request for which this thread works right now, as a line of the log has it; `None` when it is the server's own work.
pub fn current() -> Option<DisplayValue<RequestId>> {
    CURRENT.get().map(display)
}

/// Which start of the server, and which request since: `68f0a1b2-17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    start: u32,
    number: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:08x}-{}", self.start, self.number)
    }
}

impl From<RequestId> for HeaderValue {
    fn from(id: RequestId) -> HeaderValue {
        // Digits and a dash are always a good value.
        HeaderValue::try_from(id.to_string()).unwrap_or(HeaderValue::from_static("-"))
    }
}

/// Gives out the ids of one start.
pub struct RequestIds {
    start: u32,
    last: AtomicU64,
}

impl RequestIds {
    /// `now_ms` tells the starts apart: its lower half comes again after 49 days, to the millisecond.
    pub fn new(now_ms: u64) -> RequestIds {
        RequestIds { start: now_ms as u32, last: AtomicU64::new(0) }
    }

    pub fn next(&self) -> RequestId {
        RequestId { start: self.start, number: self.last.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

/// Work for one request. What it starts as tasks of their own is not its any more.
pub struct OfRequest<F> {
    pub id: RequestId,
    pub work: F,
}

impl<F: Future + Unpin> Future for OfRequest<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<F::Output> {
        let _before = Restored(CURRENT.replace(Some(self.id)));
        Pin::new(&mut self.work).poll(task)
    }
}

/// Sets back what was current, also when the work panics.
struct Restored(Option<RequestId>);

impl Drop for Restored {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn requests_by_turns_on_one_thread() {
        let work = async || {
            let before = CURRENT.get();
            tokio::task::yield_now().await;
            (before, CURRENT.get())
        };
        let ids = RequestIds::new(0);
        let (first, second) = (ids.next(), ids.next());
        let (one, two) = (pin!(work()), pin!(work()));
        let (one, two, own) =
            tokio::join!(OfRequest { id: first, work: one }, OfRequest { id: second, work: two }, work());
        assert_eq!(one, (Some(first), Some(first)));
        assert_eq!((two, own), ((Some(second), Some(second)), (None, None)));
    }

    #[test]
    fn no_id_is_given_out_twice() {
        let (before, after) = (RequestIds::new(1_700_000_000_000), RequestIds::new(1_700_000_000_001));
        let ids = [before.next(), before.next(), after.next(), after.next()].map(HeaderValue::from);
        let all: std::collections::BTreeSet<&str> = ids.iter().filter_map(|id| id.to_str().ok()).collect();
        assert_eq!(all.len(), ids.len(), "{all:?}");
    }
}
