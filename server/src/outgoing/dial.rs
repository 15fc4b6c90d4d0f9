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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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
    /// Of which each connection takes one, if they are bounded here.
    places: Option<Arc<Semaphore>>,
}

impl<D: Dial> Dialer<D> {
    pub(super) fn new(outgoing: Arc<Outgoing>, dial: D, places: Option<Arc<Semaphore>>) -> Dialer<D> {
        Dialer { outgoing, dial, places }
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
        let Dialer { outgoing, dial, places } = self.clone();
        Box::pin(async move {
            let place = match places {
                // It is never closed.
                Some(places) => places.acquire_owned().await.ok(),
                None => None,
            };
            dial.dial(&outgoing, &uri).await.map(|tcp| Stream::new(tcp, place))
        })
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
    /// Of the files that may be open, for as long as this one is.
    _place: Option<OwnedSemaphorePermit>,
}

impl Stream {
    fn new(tcp: TcpStream, place: Option<OwnedSemaphorePermit>) -> Stream {
        Stream { tcp: TokioIo::new(tcp), has_answered: HasAnswered::default(), _place: place }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::context::Context;

    /// Connections to a port of this host.
    #[derive(Clone)]
    struct Here(u16);

    impl Dial for Here {
        async fn dial(&self, outgoing: &Outgoing, _uri: &Uri) -> Result<TcpStream, ConnectError> {
            outgoing.connect_trusted("127.0.0.1", self.0).await
        }
    }

    #[tokio::test]
    async fn a_connection_has_its_place_until_it_is_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let ctx = Context::of_tests(folder.path());
        let host = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = host.local_addr().expect("it is bound").port();
        let outgoing = Arc::new(Outgoing::new(&ctx.config, 1, 1).expect("it is valid"));
        let places = Arc::new(Semaphore::new(2));
        let mut dialer = Dialer::new(outgoing.clone(), Here(port), Some(places.clone()));
        let uri = Uri::from_static("https://a.example/");
        let first = dialer.call(uri.clone()).await.expect("it is listened to");
        let second = dialer.call(uri.clone()).await.expect("it is listened to");
        let third = timeout(Duration::from_millis(1), dialer.call(uri.clone())).await;
        assert!(third.is_err(), "both have their places still");
        let mut unbounded = Dialer::new(outgoing.clone(), Here(port), None);
        let more = unbounded.call(uri.clone()).await.expect("it waits for none of these");
        drop(first);
        let third = dialer.call(uri.clone()).await.expect("a place is free again");
        drop((second, third, more));
        // Nor does one keep its place that does not come about.
        drop(host);
        assert!(dialer.call(uri).await.is_err());
        assert_eq!(places.available_permits(), 2);
    }
}
