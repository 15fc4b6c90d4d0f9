//! A body that is read from a file, or what behaves like one, while it is sent.
//!
//! Each piece is read on a blocking thread when the connection asks for it, so that a client that reads slowly holds
//! neither a thread nor more than one piece of memory.

use std::fmt;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::JoinHandle;

/// One piece. Large enough that handing it between threads costs little, small enough for ten thousand downloads.
const PIECE_BYTES: u64 = 64 * 1024;

type Source = Box<dyn Read + Send>;

/// What is still to be sent.
pub struct Reading {
    state: State,
    /// Bytes still to come; fewer in the source are an error.
    left: u64,
}

enum State {
    Idle(Source),
    Busy(JoinHandle<(Source, io::Result<Bytes>)>),
    Ended,
}

impl Reading {
    /// The next `length` bytes of `source`.
    pub fn new(source: Source, length: u64) -> Reading {
        Reading { state: State::Idle(source), left: length }
    }

    /// How many bytes are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next piece; `None` at the end. An error is the last thing that comes.
    pub fn poll_piece(&mut self, task: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            match &mut self.state {
                State::Ended => return Poll::Ready(None),
                State::Idle(_) if self.left == 0 => self.state = State::Ended,
                State::Idle(_) => {
                    if let State::Idle(source) = std::mem::replace(&mut self.state, State::Ended) {
                        let length = self.left.min(PIECE_BYTES);
                        self.state = State::Busy(tokio::task::spawn_blocking(move || read(source, length)));
                    }
                }
                State::Busy(reading) => {
                    let read = ready!(Pin::new(reading).poll(task));
                    self.state = State::Ended;
                    return Poll::Ready(Some(self.take(read.map_err(io::Error::other))));
                }
            }
        }
    }

    fn take(&mut self, read: io::Result<(Source, io::Result<Bytes>)>) -> io::Result<Bytes> {
        let (source, piece) = read?;
        let piece = piece?;
        if piece.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"));
        }
        self.left = self.left.saturating_sub(piece.len() as u64);
        self.state = State::Idle(source);
        Ok(piece)
    }
}

fn read(mut source: Source, length: u64) -> (Source, io::Result<Bytes>) {
    let mut piece = Vec::new();
    let read = source.by_ref().take(length).read_to_end(&mut piece);
    (source, read.map(|_| piece.into()))
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("left", &self.left).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(content: &'static [u8], length: u64) -> io::Result<usize> {
        let mut reading = Reading::new(Box::new(content), length);
        let mut sent = 0;
        while let Some(piece) = std::future::poll_fn(|task| reading.poll_piece(task)).await {
            let piece = piece?;
            assert!(piece.iter().all(|byte| *byte == 7));
            sent += piece.len();
        }
        assert_eq!(reading.left(), 0);
        Ok(sent)
    }

    #[tokio::test]
    async fn sends_just_what_was_promised() {
        const CONTENT: &[u8] = &[7; 200_000];
        assert_eq!(sent(CONTENT, 200_000).await.expect("long enough"), 200_000);
        assert_eq!(sent(CONTENT, 100_001).await.expect("long enough"), 100_001);
        assert_eq!(sent(CONTENT, 0).await.expect("nothing"), 0);
        assert!(sent(CONTENT, 200_001).await.is_err(), "a file that has become shorter breaks off");
    }
}
