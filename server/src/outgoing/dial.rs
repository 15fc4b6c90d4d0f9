//! What the HTTP client calls to open a connection, and what is remembered of one.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tower_service::Service;

use super::{ConnectError, OPEN_TIME_MAX, Outgoing, count_refused};

/// How long a host may take for what has been offered to it at once: as long as a transaction may take. Whoever reads nothing could keep
/// a connection from being closed for ever, as there is something to be written before.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(90);

/// Who is connected to for a request's URI: host and port of one kind of request.
pub trait Dial: Clone + Send + Sync + 'static {
    /// Opens the connection.
    fn dial(
        &self,
        outgoing: &Outgoing,
        uri: &Uri,
    ) -> impl Future<Output = Result<TcpStream, ConnectError>> + Send;
}

/// What bounds the connections of one kind of request.
#[derive(Clone)]
pub struct Bounds {
    /// Of which each takes one until it is closed.
    pub places: Arc<Semaphore>,
    /// How long one may be open, whatever comes on it.
    pub time_max: Duration,
    /// And when nobody waits for anything on it any more.
    pub end_time_max: Duration,
}

impl Bounds {
    /// Waits for a place.
    async fn hold(self) -> Option<Held> {
        // The semaphore is never closed.
        let place = self.places.acquire_owned().await.ok()?;
        let left = Left(Arc::new(Notify::new()));
        let is_left = Some(Box::pin(left.0.clone().notified_owned()));
        let end = Box::pin(sleep(self.time_max));
        Some(Held { _place: place, end, end_time_max: self.end_time_max, left, is_left })
    }
}

/// [`Dial`] as the connector that the HTTP client wants.
#[derive(Clone)]
pub struct Dialer<D> {
    outgoing: Arc<Outgoing>,
    dial: D,
    bounds: Option<Bounds>,
    unread_time_max: Duration,
}

impl<D: Dial> Dialer<D> {
    pub(super) fn new(outgoing: Arc<Outgoing>, dial: D, bounds: Option<Bounds>) -> Dialer<D> {
        Dialer { outgoing, dial, bounds, unread_time_max: UNREAD_TIME_MAX }
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
        let Dialer { outgoing, dial, bounds, unread_time_max } = self.clone();
        Box::pin(async move {
            let held = match bounds {
                Some(bounds) => bounds.hold().await,
                None => None,
            };
            dial.dial(&outgoing, &uri).await.map(|tcp| Stream::new(tcp, held, unread_time_max))
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

/// Told when nobody waits for anything on a connection any more. Of those that are bounded, each is for one request, and has this among
/// what is known of it.
#[derive(Clone)]
struct Left(Arc<Notify>);

/// Whoever waits for the answer to a request. When it is dropped, the request's connection is to end if it is bounded.
pub struct Waiting(CaptureConnection);

impl Waiting {
    /// For what comes on the connection of a request.
    pub fn on(connection: CaptureConnection) -> Waiting {
        Waiting(connection)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(connection) = &*self.0.connection_metadata() {
            leave(connection);
        }
    }
}

/// Tells a connection, if it is bounded, that nobody waits for anything on it any more.
fn leave(connection: &Connected) {
    let mut extensions = Extensions::new();
    connection.get_extras(&mut extensions);
    if let Some(Left(left)) = extensions.get::<Left>() {
        left.notify_one();
    }
}

/// A connection that is told from others.
pub struct Stream {
    tcp: TokioIo<TcpStream>,
    has_answered: HasAnswered,
    held: Option<Held>,
    unread_time_max: Duration,
    /// When it ends, where the host has not taken all that was offered to it. Only a whole piece puts that off, or one byte a minute
    /// would.
    unread_end: Option<Pin<Box<Sleep>>>,
}

/// What a connection has that is bounded.
struct Held {
    _place: OwnedSemaphorePermit,
    end: Pin<Box<Sleep>>,
    end_time_max: Duration,
    left: Left,
    /// Until it is.
    is_left: Option<Pin<Box<OwnedNotified>>>,
}

impl Held {
    /// Whether its time is over; the task is woken then.
    fn is_over(&mut self, task: &mut Context<'_>) -> bool {
        if self.is_left.as_mut().is_some_and(|is_left| is_left.as_mut().poll(task).is_ready()) {
            self.is_left = None;
            let end = self.end.deadline().min(Instant::now() + self.end_time_max);
            self.end.as_mut().reset(end);
        }
        self.end.as_mut().poll(task).is_ready()
    }
}

impl Stream {
    fn new(tcp: TcpStream, held: Option<Held>, unread_time_max: Duration) -> Stream {
        let (tcp, has_answered) = (TokioIo::new(tcp), HasAnswered::default());
        Stream { tcp, has_answered, held, unread_time_max, unread_end: None }
    }

    /// Errors: `TimedOut` when its time is over; the task is woken then.
    fn in_time(&mut self, task: &mut Context<'_>) -> io::Result<()> {
        let is_over = self.held.as_mut().is_some_and(|held| held.is_over(task));
        let is_unread = self.unread_end.as_mut().is_some_and(|end| end.as_mut().poll(task).is_ready());
        if is_over || is_unread { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// Notes what has come of writing so many bytes.
    fn note_written(
        &mut self,
        task: &mut Context<'_>,
        offered: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(taken)) if taken == offered) {
            self.unread_end = None;
            return written;
        }
        let time_max = self.unread_time_max;
        self.unread_end.get_or_insert_with(|| Box::pin(sleep(time_max)));
        self.in_time(task)?;
        written
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = self.tcp.connected().extra(self.has_answered.clone());
        match &self.held {
            Some(held) => connected.extra(held.left.clone()),
            None => connected,
        }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(task)?;
        Pin::new(&mut self.tcp).poll_read(task, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.in_time(task)?;
        let written = Pin::new(&mut self.tcp).poll_write(task, bytes);
        self.note_written(task, bytes.len(), written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(task)?;
        Pin::new(&mut self.tcp).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(task)?;
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
        self.in_time(task)?;
        let written = Pin::new(&mut self.tcp).poll_write_vectored(task, pieces);
        self.note_written(task, pieces.iter().map(|piece| piece.len()).sum(), written)
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
                Ok(opened) => opened.map_err(|error| counted(error.into())),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

/// Counts that there is no connection because the host cannot show that it is the one that was meant.
fn counted(error: Box<dyn std::error::Error + Send + Sync>) -> Box<dyn std::error::Error + Send + Sync> {
    if is_of_certificate(&*error) {
        count_refused("certificate");
    }
    error
}

/// Whether TLS failed by the other side's certificate.
fn is_of_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return matches!(error, rustls::Error::InvalidCertificate(_));
    }
    // Errors of input and output pass over what they hold when they are asked for their source.
    error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).is_some_and(|held| is_of_certificate(held))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;
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

    fn outgoing() -> Arc<Outgoing> {
        let folder = tempfile::tempdir().expect("a folder");
        let ctx = Context::of_tests(folder.path());
        Arc::new(Outgoing::new(&ctx.config, 1, 1).expect("it is valid"))
    }

    #[tokio::test]
    async fn a_connection_has_its_place_until_it_is_closed() {
        let outgoing = outgoing();
        let host = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = host.local_addr().expect("it is bound").port();
        let places = Arc::new(Semaphore::new(2));
        let (time_max, end_time_max) = (Duration::MAX, Duration::MAX);
        let bounds = Bounds { places: places.clone(), time_max, end_time_max };
        let mut dialer = Dialer::new(outgoing.clone(), Here(port), Some(bounds));
        let uri = Uri::from_static("https://a.example/");
        let first = dialer.call(uri.clone()).await.expect("it is listened to");
        let second = dialer.call(uri.clone()).await.expect("it is listened to");
        let third = timeout(Duration::from_millis(1), dialer.call(uri.clone())).await;
        assert!(third.is_err(), "both have their places still");
        let mut unbounded = Dialer::new(outgoing, Here(port), None);
        let more = unbounded.call(uri.clone()).await.expect("it waits for none of these");
        drop(first);
        let third = dialer.call(uri.clone()).await.expect("a place is free again");
        drop((second, third, more));
        // Nor does one keep its place that does not come about.
        drop(host);
        assert!(dialer.call(uri).await.is_err());
        assert_eq!(places.available_permits(), 2);
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_from_other_faults() {
        let within = |error: rustls::Error| {
            // As the layers of TLS hand it on.
            io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error))
        };
        let unknown = rustls::CertificateError::UnknownIssuer;
        assert!(is_of_certificate(&within(rustls::Error::InvalidCertificate(unknown))));
        assert!(!is_of_certificate(&within(rustls::Error::DecryptError)));
        assert!(!is_of_certificate(&io::Error::from(io::ErrorKind::TimedOut)));
        assert!(!is_of_certificate(&ConnectError::Private("a.example".to_owned())));
    }

    /// How writing without end to one who reads nothing ends.
    async fn write_unread(stream: &mut Stream) -> io::ErrorKind {
        loop {
            if let Err(error) = poll_fn(|task| Pin::new(&mut *stream).poll_write(task, &[0; 4096])).await {
                return error.kind();
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_read_is_not_kept_for_ever() {
        let host = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = host.local_addr().expect("it is bound").port();
        let dialer = Dialer::new(outgoing(), Here(port), None);
        let uri = Uri::from_static("https://a.example/");
        let mut dialer = Dialer { unread_time_max: Duration::from_millis(50), ..dialer };
        let mut unread = dialer.call(uri).await.expect("it is listened to");
        assert_eq!(write_unread(&mut unread).await, io::ErrorKind::TimedOut);
        let closed = poll_fn(|task| Pin::new(&mut unread).poll_shutdown(task)).await;
        assert_eq!(closed.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
    }

    #[tokio::test]
    async fn who_reads_piece_by_piece_gets_all() {
        // More than there is room for on the way.
        const BYTES: usize = 16 << 20;
        let host = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = host.local_addr().expect("it is bound").port();
        let mut dialer = Dialer::new(outgoing(), Here(port), None);
        let mut stream =
            dialer.call(Uri::from_static("https://a.example/")).await.expect("it is listened to");
        let (mut reader, _) = host.accept().await.expect("it is connected to");
        let (bytes, mut was_unread) = (vec![0; BYTES], false);
        let writing = async {
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                let taken = poll_fn(|task| Pin::new(&mut stream).poll_write(task, left)).await;
                left = left.get(taken.expect("it is read")..).unwrap_or_default();
                was_unread |= stream.unread_end.is_some();
            }
        };
        let mut read = vec![0; BYTES];
        let (_, read) = tokio::join!(writing, reader.read_exact(&mut read));
        assert_eq!(read.expect("all is written"), BYTES);
        assert!(was_unread && stream.unread_end.is_none());
    }

    #[tokio::test]
    async fn a_connection_ends_soon_after_nobody_waits_for_anything_on_it() {
        let host = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = host.local_addr().expect("it is bound").port();
        let places = Arc::new(Semaphore::new(1));
        let (time_max, end_time_max) = (Duration::MAX, Duration::from_millis(1));
        let bounds = Bounds { places: places.clone(), time_max, end_time_max };
        let mut dialer = Dialer::new(outgoing(), Here(port), Some(bounds));
        let mut stream =
            dialer.call(Uri::from_static("https://a.example/")).await.expect("it is listened to");
        let connected = stream.connected();
        let waiting = poll_fn(|task| Poll::Ready(stream.in_time(task))).await;
        assert!(waiting.is_ok(), "it is waited for");
        leave(&connected);
        assert_eq!(write_unread(&mut stream).await, io::ErrorKind::TimedOut);
        drop(stream);
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test]
    async fn who_reads_nothing_keeps_no_connection_open_for_ever() {
        let host = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = host.local_addr().expect("it is bound").port();
        let (places, time_max) = (Arc::new(Semaphore::new(1)), Duration::from_millis(50));
        let bounds = Bounds { places, time_max, end_time_max: Duration::MAX };
        let mut dialer = Dialer::new(outgoing(), Here(port), Some(bounds));
        let uri = Uri::from_static("https://a.example/");
        let mut stream = dialer.call(uri).await.expect("it is listened to");
        assert_eq!(write_unread(&mut stream).await, io::ErrorKind::TimedOut);
    }
}
