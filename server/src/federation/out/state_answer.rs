//! An answer with a room's state in it is read, as far as there is memory for it.
//!
//! Invariant: an answer that others may have to wait for comes at a pace, or ends.

use std::time::Duration;

use bytes::BytesMut;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::RemoteError;
use super::ask::read_answer;
use super::client::Answer;
use super::elements::Elements;
use super::state_memory::Share;
use crate::federation::limits::{STATE_ELEMENT_BYTES, STATE_PACE_BYTES, STATE_PACE_TIME};
use crate::federation::refusals;

/// An answer with a state in it.
pub struct StateAnswer {
    body: BytesMut,
    share: Share,
}

impl StateAnswer {
    /// Tells `watch` how many bytes have come.
    ///
    /// Errors: those of [`Answer::next`] and [`Share::grow`]; `Timeout` if it comes too slowly.
    pub async fn read(
        answer: Answer,
        share: Share,
        watch: impl Fn(usize),
    ) -> Result<StateAnswer, RemoteError> {
        StateAnswer::read_at(Pace::new(STATE_PACE_TIME, STATE_PACE_BYTES), answer, share, watch).await
    }

    async fn read_at(
        mut pace: Pace,
        mut answer: Answer,
        mut share: Share,
        watch: impl Fn(usize),
    ) -> Result<StateAnswer, RemoteError> {
        let (mut body, mut elements) = (BytesMut::new(), Elements::default());
        loop {
            let asked = Instant::now();
            let piece = match share.is_counted() {
                true => timeout(pace.left, answer.next()).await.map_err(|_| too_slow())??,
                false => answer.next().await?,
            };
            let Some(piece) = piece else { return Ok(StateAnswer { body, share }) };
            if share.is_counted() {
                pace.came(piece.len(), asked.elapsed());
            }
            let bytes = piece.len() + elements.count(&piece) * STATE_ELEMENT_BYTES;
            share.grow(bytes).await?;
            body.extend_from_slice(&piece);
            watch(body.len());
        }
    }

    /// What it says, and its share of the memory, to be kept for as long as what was read.
    ///
    /// Errors: those of [`read_answer`].
    pub fn parse<T: DeserializeOwned>(self) -> Result<(T, Share), RemoteError> {
        self.parse_by(|body| read_answer(body))
    }

    /// The same, by way of `read`. Other requests go to other threads meanwhile.
    pub fn parse_by<T>(
        self,
        read: impl FnOnce(&[u8]) -> Result<T, RemoteError>,
    ) -> Result<(T, Share), RemoteError> {
        tokio::task::block_in_place(|| Ok((read(&self.body)?, self.share)))
    }
}

/// An answer that holds what others wait for is given up, which is counted.
fn too_slow() -> RemoteError {
    refusals::answer("too_slow");
    RemoteError::Timeout
}

/// How fast an answer has to come: so many bytes in each such time. The time that it waits for memory does not count.
struct Pace {
    time: Duration,
    bytes: usize,
    left: Duration,
    lacking: usize,
}

impl Pace {
    fn new(time: Duration, bytes: usize) -> Pace {
        Pace { time, bytes, left: time, lacking: bytes }
    }

    /// So many bytes have come, after such a time.
    fn came(&mut self, bytes: usize, took: Duration) {
        self.left = self.left.saturating_sub(took);
        self.lacking = self.lacking.saturating_sub(bytes);
        if self.lacking == 0 {
            *self = Pace::new(self.time, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Empty;
    use hyper::client::conn::http1::handshake;
    use hyper_util::rt::TokioIo;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use serde_json::value::RawValue;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::state_memory::StateMemory;
    use super::*;
    use crate::federation::limits::{STATE_BYTES_FREE, STATE_TIME_MAX};

    /// Long enough for what is written at once, and nothing that a test waits long for.
    const SOON: Duration = Duration::from_millis(200);

    /// Reads an answer of which another server writes the first `written` bytes, and then nothing.
    async fn read(share: Share, body: &[u8], written: usize) -> Result<StateAnswer, RemoteError> {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let (mut sender, connection) = handshake(TokioIo::new(ours)).await.unwrap();
        let reading = async {
            let answered = sender.send_request(http::Request::new(Empty::<Bytes>::new())).await.unwrap();
            let end = Instant::now() + STATE_TIME_MAX;
            let answer = Answer::of(answered, usize::MAX, end).await.unwrap();
            StateAnswer::read_at(Pace::new(SOON, STATE_PACE_BYTES), answer, share, |_| {}).await
        };
        let writing = async {
            // What comes before it was asked for is no answer.
            theirs.read_exact(&mut [0; 1]).await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            theirs.write_all(head.as_bytes()).await.unwrap();
            theirs.write_all(&body[..written]).await.unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            read = reading => read,
            _ = connection => panic!("the connection is over"),
            () = writing => panic!("it writes on"),
        }
    }

    /// A state of so many events, each with as many bytes as a member's.
    fn state(events: usize) -> Vec<u8> {
        let event = format!(
            r#"{{"type":"m.room.member","content":{{"membership":"join"}},"padding":"{}"}}"#,
            "x".repeat(500)
        );
        format!(r#"{{"pdus":[{}]}}"#, vec![event; events].join(",")).into_bytes()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_that_holds_what_others_wait_for_comes_at_a_pace() {
        #[derive(serde::Deserialize)]
        struct Told {
            pdus: Vec<Box<RawValue>>,
        }
        let memory = StateMemory::new(0);
        let body = state(5_000);
        let whole = read(memory.share("a.test"), &body, body.len()).await.unwrap();
        let (told, _share) = whole.parse::<Told>().unwrap();
        assert_eq!(told.pdus.len(), 5_000);
        let stalled = read(memory.share("a.test"), &body, STATE_BYTES_FREE * 2).await;
        assert!(matches!(stalled, Err(RemoteError::Timeout)));
        // Nobody waits for what one that is small takes.
        let small = read(memory.share("a.test"), &body, STATE_BYTES_FREE / 2);
        assert!(timeout(SOON * 3, small).await.is_err(), "it is still waited for");
    }

    #[test]
    fn single_bytes_are_no_pace() {
        let (second, mut pace) = (Duration::from_secs(1), Pace::new(Duration::from_secs(20), 64));
        for _ in 0..19 {
            pace.came(3, second);
        }
        assert_eq!(pace.left, second);
        pace.came(7, Duration::ZERO);
        assert_eq!(pace.left, 20 * second, "there were enough of them");
    }

    #[tokio::test]
    async fn elements_count_for_what_they_take() {
        let memory = StateMemory::new(0);
        let tiny = format!(r#"{{"pdus":[{}1]}}"#, "1,".repeat(1_500_000));
        let refused = read(memory.share("a.test"), tiny.as_bytes(), tiny.len()).await;
        assert!(
            matches!(refused, Err(RemoteError::BadAnswer(_))),
            "three megabytes that become a hundred times as much"
        );
        let body = state(5_000);
        assert!(read(memory.share("a.test"), &body, body.len()).await.is_ok());
    }

    #[test]
    fn what_is_not_read_to_its_end_is_counted_with_the_reason() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        metrics::with_local_recorder(&recorder, || {
            runtime.block_on(async {
                let body = state(5_000);
                let memory = StateMemory::new(0);
                assert!(read(memory.share("a.test"), &body, STATE_BYTES_FREE * 2).await.is_err());
            });
        });
        let page = recorder.handle().render();
        assert!(
            page.contains(r#"warren_federation_refusals_total{what="answer",reason="too_slow"} 1"#),
            "{page}"
        );
    }
}
