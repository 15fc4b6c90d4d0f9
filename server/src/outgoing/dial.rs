//! What the HTTP client calls to open a connection, and what is remembered of one.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::{ConnectError, OPEN_TIME_MAX, Outgoing};

/// Who is connected to for a request's URI: host and port of one kind of request.
pub trait Dial: Clone + Send + Sync + 'static {
    /// Opens the connection.
    fn dial(
        &self,
        outgoing: &Outgoing,
        uri: &Uri,
    ) -> impl Future<Output = Result<TcpStream, ConnectError>> + Send;
}

/// [`Dial`] as the connector that the HTTP client wants.
#[derive(Clone)]
pub struct Dialer<D> {
    outgoing: Arc<Outgoing>,
    dial: D,
}

impl<D: Dial> Dialer<D> {
    pub(super) fn new(outgoing: Arc<Outgoing>, dial: D) -> Dialer<D> {
        Dialer { outgoing, dial }
    }
}

impl<D: Dial> Service<Uri> for Dialer<D> {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _task: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Dialer { outgoing, dial } = self.clone();
        Box::pin(async move { dial.dial(&outgoing, &uri).await.map(Stream::new) })
    }
}

/// Whether a connection has brought an answer. Every answer on it has this among its extensions.
#[derive(Clone, Default)]
struct HasAnswered(Arc<AtomicBool>);

/// Notes that an answer has come on a connection.
pub fn note_answer(answered: &http::Response<hyper::body::Incoming>) {
    if let Some(HasAnswered(has_answered)) = answered.extensions().get::<HasAnswered>() {
        has_answered.store(true, Ordering::Relaxed);
    }
}

/// Whether the connection that an error is of had brought answers before.
pub fn had_answered(error: &legacy::Error) -> bool {
    let mut extensions = Extensions::new();
    if let Some(connection) = error.connect_info() {
        connection.get_extras(&mut extensions);
    }
    extensions
        .get::<HasAnswered>()
        .is_some_and(|HasAnswered(has_answered)| has_answered.load(Ordering::Relaxed))
}

/// A connection that is told from others.
pub struct Stream {
    tcp: TokioIo<TcpStream>,
    has_answered: HasAnswered,
}

impl Stream {
    fn new(tcp: TcpStream) -> Stream {
        Stream { tcp: TokioIo::new(tcp), has_answered: HasAnswered::default() }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.tcp.connected().extra(self.has_answered.clone())
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(task, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(task)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(task, pieces)
    }
}

/// A connector that gives up after [`OPEN_TIME_MAX`], TLS included.
#[derive(Clone)]
pub struct Timely<C>(pub(super) C);

impl<C> Service<Uri> for Timely<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = C::Response;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(task).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let opening = self.0.call(uri);
        Box::pin(async move {
            match tokio::time::timeout(OPEN_TIME_MAX, opening).await {
                Ok(opened) => opened.map_err(Into::into),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}
