//! What a handler answers with: status, headers and a body that is copied as little as possible.
//!
//! CORS headers, the request id and the date are added afterwards and are not a handler's business.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;

use super::reading::Reading;
use super::{ApiError, Outcome};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// A response before the transport adds its own headers.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: AnswerBody,
}

impl Answer {
    /// 200 with `{}`, the specification's answer of endpoints that have nothing to say.
    pub fn empty() -> Answer {
        Self::json_bytes(Bytes::from_static(b"{}"))
    }

    /// 200 with the value as JSON. Ends most handlers: `Answer::json(&response)`.
    ///
    /// Errors: 500 if the value cannot be written as JSON, a map with non-string keys for instance.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Outcome {
        serde_json::to_vec(value).map(|body| Self::json_bytes(body.into())).map_err(ApiError::internal)
    }

    /// 200 with bytes that are JSON already.
    pub fn json_bytes(body: Bytes) -> Answer {
        Self::bytes(JSON, body)
    }

    /// 200 with JSON spliced from pieces, which are written one after the other without being joined.
    pub fn json_chunks(chunks: Vec<Bytes>) -> Answer {
        Self::of(JSON, AnswerBody::Chunks(chunks.into()))
    }

    /// 200 with JSON in pieces that are made while they are sent; an error breaks the connection off.
    pub fn json_pieces(pieces: Box<dyn Iterator<Item = std::io::Result<Bytes>> + Send + Sync>) -> Answer {
        Self::of(JSON, AnswerBody::Pieces(Pieces(pieces)))
    }

    /// 200 with bytes of any content type.
    pub fn bytes(content_type: HeaderValue, body: Bytes) -> Answer {
        Self::of(content_type, AnswerBody::Full(body))
    }

    /// 200 with a page for people.
    pub fn html(page: String) -> Answer {
        Self::bytes(HTML, page.into())
    }

    /// 200 with bytes that are read from a file while they are sent.
    pub fn reading(content_type: HeaderValue, reading: Reading) -> Answer {
        Self::of(content_type, AnswerBody::Reading(reading))
    }

    /// The same answer under another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Answer {
        self.status = status;
        self
    }

    /// Sets a header, replacing one of the same name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Answer {
        self.headers.insert(name, value);
        self
    }

    /// Sets `Cache-Control`.
    #[must_use]
    pub fn with_cache_control(self, value: &'static str) -> Answer {
        self.with_header(CACHE_CONTROL, HeaderValue::from_static(value))
    }

    fn of(content_type: HeaderValue, body: AnswerBody) -> Answer {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, content_type);
        Answer { status: StatusCode::OK, headers, body }
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Answer {
        let answer = Self::json_bytes(error.body().into()).with_status(error.status);
        match error.retry_after_ms() {
            Some(milliseconds) => answer.with_header(RETRY_AFTER, milliseconds.div_ceil(1000).into()),
            None => answer,
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    Full(Bytes),
    Chunks(VecDeque<Bytes>),
    Pieces(Pieces),
    Reading(Reading),
}

/// A body that is made piece by piece, each within a few milliseconds.
pub struct Pieces(Box<dyn Iterator<Item = std::io::Result<Bytes>> + Send + Sync>);

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pieces")
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match self.get_mut() {
            AnswerBody::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            AnswerBody::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            AnswerBody::Chunks(chunks) => Poll::Ready(chunks.pop_front().map(|chunk| Ok(Frame::data(chunk)))),
            AnswerBody::Pieces(Pieces(pieces)) => {
                Poll::Ready(pieces.next().map(|piece| piece.map(Frame::data)))
            }
            AnswerBody::Reading(reading) => {
                reading.poll_piece(task).map(|next| next.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Full(bytes) => bytes.is_empty(),
            AnswerBody::Chunks(chunks) => chunks.is_empty(),
            // Whether there is more is only known when it is asked for.
            AnswerBody::Pieces(_) => false,
            AnswerBody::Reading(reading) => reading.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            AnswerBody::Chunks(chunks) => {
                SizeHint::with_exact(chunks.iter().map(|chunk| chunk.len() as u64).sum())
            }
            AnswerBody::Pieces(_) => SizeHint::default(),
            AnswerBody::Reading(reading) => SizeHint::with_exact(reading.left()),
        }
    }
}
