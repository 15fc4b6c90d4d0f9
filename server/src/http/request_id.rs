//! The number of the request that is being answered, so that whatever is logged on the way can name it.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    static CURRENT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The request for which this thread works right now; `None` when it is the server's own work.
pub fn current() -> Option<u64> {
    CURRENT.get()
}

/// Work for one request. What it starts as tasks of their own is not its any more.
pub struct OfRequest<F> {
    pub id: u64,
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
struct Restored(Option<u64>);

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
            let before = current();
            tokio::task::yield_now().await;
            (before, current())
        };
        let (one, two) = (pin!(work()), pin!(work()));
        let (one, two, own) =
            tokio::join!(OfRequest { id: 1, work: one }, OfRequest { id: 2, work: two }, work());
        assert_eq!((one, two, own), ((Some(1), Some(1)), (Some(2), Some(2)), (None, None)));
    }
}
