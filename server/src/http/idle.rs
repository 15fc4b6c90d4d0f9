//! What a connection is used for, so that one that nobody uses ends, whatever it is silent in: before its first byte, within
//! the preface of HTTP/2, within a head, between requests, or when it is to take an answer.
//!
//! Invariant: a request that waits for its answer is a use of the connection, however long it takes. From when the answer is there on,
//! what is written counts, whatever else is waited for: who takes nothing of one answer keeps it from being forgotten.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What is written at once and is no longer than this is no sign that an answer is on its way: frames that answer a ping, settings
/// or a window of HTTP/2 have 17, 9 and 13 bytes, and a peer that asks for nothing else uses nothing. Of an answer there is more to
/// write at once unless it is over.
const SIGN_OF_LIFE_BYTES_MAX: usize = 64;

/// The requests of one connection.
#[derive(Clone)]
pub struct Uses(Arc<Mutex<Requests>>);

struct Requests {
    /// Those that wait for their answers.
    waiting: usize,
    /// Those whose answers have not been handed over to their last pieces, which may be long before the peer has them.
    answered: usize,
    /// When one of them was answered or ended, something of an answer was last written, or the connection began.
    last_use: Instant,
}

impl Default for Uses {
    fn default() -> Uses {
        Uses(Arc::new(Mutex::new(Requests { waiting: 0, answered: 0, last_use: Instant::now() })))
    }
}

impl Uses {
    /// A request has come; it is over when this is dropped.
    pub fn begin(&self) -> Using {
        self.0.lock().waiting += 1;
        Using { uses: self.clone(), is_answered: false }
    }

    /// So many bytes have been written.
    fn note_written(&self, bytes: usize) {
        if bytes > SIGN_OF_LIFE_BYTES_MAX {
            self.0.lock().last_use = Instant::now();
        }
    }

    /// Waits until for so long nothing of an answer has been written, and either there was one to be written or no request waited.
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

    /// Whether there is an answer that has not been taken to its last piece.
    pub fn is_answering(&self) -> bool {
        self.0.lock().answered > 0
    }

    fn idle_since(&self) -> Option<Instant> {
        let requests = self.0.lock();
        (requests.waiting == 0 || requests.answered > 0).then_some(requests.last_use)
    }
}

/// A request that waits for its answer, or is being answered.
pub struct Using {
    uses: Uses,
    is_answered: bool,
}

impl Using {
    /// The answer is there.
    fn answered(mut self) -> Using {
        let mut requests = self.uses.0.lock();
        requests.waiting -= 1;
        requests.answered += 1;
        requests.last_use = Instant::now();
        drop(requests);
        self.is_answered = true;
        self
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        let mut requests = self.uses.0.lock();
        match self.is_answered {
            true => requests.answered -= 1,
            false => requests.waiting -= 1,
        }
        requests.last_use = Instant::now();
    }
}

/// A connection's stream, of which it is noted when it takes something of an answer.
///
/// What is read says nothing: of a head that comes in single bytes no answer follows.
pub struct Watched<S> {
    stream: S,
    uses: Uses,
}

impl<S> Watched<S> {
    pub fn new(stream: S, uses: Uses) -> Watched<S> {
        Watched { stream, uses }
    }

    fn written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.uses.note_written(*bytes);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(task, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, task: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(task, bytes);
        this.written(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(task, pieces);
        this.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(task)
    }
}

/// The body of an answer, until its last piece is handed over.
pub struct Used<B> {
    body: B,
    _using: Using,
}

impl<B> Used<B> {
    pub fn new(body: B, using: Using) -> Used<B> {
        Used { body, _using: using.answered() }
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
    use tokio::io::AsyncWriteExt;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn who_uses_a_connection_is_not_idle() {
        let (uses, limit) = (Uses::default(), Duration::from_millis(20));
        let using = uses.begin();
        assert!(timeout(5 * limit, uses.idle_for(limit)).await.is_err(), "a request waits");
        drop(using);
        assert!(timeout(Duration::ZERO, uses.idle_for(limit)).await.is_err(), "it was until now");
        assert!(timeout(Duration::from_secs(10), uses.idle_for(limit)).await.is_ok());
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_no_use_whatever_else_is_waited_for() {
        let (uses, limit) = (Uses::default(), Duration::from_millis(20));
        let waiting = uses.begin();
        let answer = Used::new((), uses.begin());
        assert!(timeout(Duration::ZERO, uses.idle_for(limit)).await.is_err(), "it has just come");
        assert!(timeout(Duration::from_secs(10), uses.idle_for(limit)).await.is_ok());
        uses.note_written(SIGN_OF_LIFE_BYTES_MAX + 1);
        assert!(timeout(Duration::ZERO, uses.idle_for(limit)).await.is_err(), "something is taken of it");
        assert!(uses.is_answering());
        drop(answer);
        assert!(!uses.is_answering());
        assert!(timeout(5 * limit, uses.idle_for(limit)).await.is_err(), "the other one waits");
        drop(waiting);
        assert!(timeout(Duration::from_secs(10), uses.idle_for(limit)).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_written_of_an_answer_is_a_use_and_a_pong_is_none() {
        let uses = Uses::default();
        let (_peer, stream) = tokio::io::duplex(1024);
        let mut stream = Watched::new(stream, uses.clone());
        for (bytes, is_use) in [(17, false), (SIGN_OF_LIFE_BYTES_MAX + 1, true)] {
            let before = uses.idle_since();
            stream.write_all(&vec![0; bytes]).await.expect("there is room");
            assert_eq!(uses.idle_since() > before, is_use, "{bytes}");
        }
    }
}
