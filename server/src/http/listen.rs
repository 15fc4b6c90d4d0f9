//! Listeners: sockets, TLS, HTTP/1.1 and 2, and stopping without cutting anybody off.

use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use metrics::counter;
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::admission::{Admission, Admitted};
use super::idle::{Used, Uses, Watched};
use super::limits::{
    ACCEPT_PAUSE, BACKLOG_MAX, DRAIN_TIME_MAX, HANDSHAKE_TIME_MAX, HEAD_BYTES_MAX, HEAD_TIME_MAX,
    SEND_BUFFER_BYTES_MAX, STREAMS_PER_CONNECTION_MAX, UNSENT_BYTES_MAX,
};
use super::peer::Peer;
use super::serve::Server;
use super::tls::Certificate;
use crate::config::{Address, Apis, Listener};

/// A socket that is bound but not accepted from yet, so that a port in use is reported before anything starts.
pub struct Bound {
    socket: Socket,
    apis: Apis,
    address: Address,
}

enum Socket {
    Tcp(TcpListener, Option<TlsAcceptor>),
    Unix(UnixListener),
}

/// Who may connect to a socket file is whoever may write to it: proxies have users of their own.
const SOCKET_MODE: u32 = 0o666;

/// Binds a row of `listen`, within a runtime. Errors: a sentence naming the address and what is wrong with it.
pub fn bind(listener: &Listener, certificate: Option<&Arc<Certificate>>) -> Result<Bound, String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("cannot listen on {}: something else is listening there", listener.address)
        }
        _ => format!("cannot listen on {}: {error}", listener.address),
    };
    let socket = match &listener.address {
        Address::Http(address) => Socket::Tcp(bind_tcp(*address).map_err(failed)?, None),
        Address::Https(address) => {
            let certificate =
                certificate.ok_or_else(|| format!("{} needs a certificate", listener.address))?;
            let acceptor = TlsAcceptor::from(certificate.server_config()?);
            Socket::Tcp(bind_tcp(*address).map_err(failed)?, Some(acceptor))
        }
        Address::Unix(path) => {
            remove_stale_socket(path).map_err(failed)?;
            let bound = UnixListener::bind(path).map_err(failed)?;
            std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
            Socket::Unix(bound)
        }
    };
    let address = match (&listener.address, &socket) {
        // Port 0 asks for any free port: say which it was.
        (Address::Http(_), Socket::Tcp(socket, _)) => Address::Http(socket.local_addr().map_err(failed)?),
        (Address::Https(_), Socket::Tcp(socket, _)) => Address::Https(socket.local_addr().map_err(failed)?),
        (address, _) => address.clone(),
    };
    Ok(Bound { socket, apis: listener.apis, address })
}

/// Says where nobody is reached by IPv4, which `[::]` does not mean: other servers and earlier versions of this one have it so.
pub fn warn_of_ipv6_alone(listeners: &[Listener]) {
    let addresses = || {
        listeners.iter().filter_map(|listener| match listener.address {
            Address::Http(address) | Address::Https(address) => Some(address),
            Address::Unix(_) => None,
        })
    };
    for all in addresses().filter(|address| address.is_ipv6() && address.ip().is_unspecified()) {
        if !addresses().any(|other| other.is_ipv4() && other.port() == all.port()) {
            warn!(
                "{all} is all of IPv6 and nothing of IPv4: list 0.0.0.0:{} as well to be reached by both",
                all.port()
            );
        }
    }
}

/// Exactly that address: `[::]` is all of IPv6, and not of IPv4 as well, which is listed as `0.0.0.0` if it is meant.
fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A server that starts again need not wait until the system forgets the connections of the last one.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG_MAX)?;
    TcpListener::from_std(socket.into())
}

/// A socket file that nobody answers at is left over from a crash.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
                Err(_) => std::fs::remove_file(path),
            }
        }
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is not a socket")),
        Err(_) => Ok(()),
    }
}

/// Accepts on all sockets until `shutdown` is cancelled, then lets open requests finish for [`DRAIN_TIME_MAX`].
pub async fn run(
    server: Arc<Server>,
    sockets: Vec<Bound>,
    admission: Arc<Admission>,
    shutdown: CancellationToken,
) {
    // Whoever holds a receiver is a connection that is open.
    let stop = Arc::new(watch::channel(()).0);
    let mut accepting = tokio::task::JoinSet::new();
    let mut socket_files = Vec::new();
    for bound in sockets {
        info!(address = %bound.address, "listening");
        if let Address::Unix(path) = &bound.address {
            socket_files.push(path.clone());
        }
        let connections = Connections {
            server: server.clone(),
            apis: bound.apis,
            builder: Arc::new(builder()),
            idle_max: HEAD_TIME_MAX,
            drain_max: DRAIN_TIME_MAX,
        };
        let (admission, stop, shutdown) = (admission.clone(), stop.clone(), shutdown.clone());
        accepting.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = accept(bound.socket, connections, &admission, &stop) => {}
            }
        });
    }
    while accepting.join_next().await.is_some() {}
    for path in socket_files {
        let removed = std::fs::remove_file(&path);
        debug!(?removed, path = %path.display(), "removed the socket");
    }
    let open = stop.receiver_count();
    stop.send_replace(());
    if tokio::time::timeout(DRAIN_TIME_MAX, stop.closed()).await.is_err() {
        warn!(connections = open, "not all requests finished in time");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // hyper's own limit of 100 headers stays: setting one costs an allocation per request. Most answers are small, or spliced
    // from many small pieces, which are sooner copied together than written as they lie. hyper's own limit of the time for a head
    // begins while the answer before it is still being written, and would cut that off: who is idle is known here.
    builder.http1().header_read_timeout(None::<Duration>).max_buf_size(HEAD_BYTES_MAX).writev(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_TIME_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX);
    builder
}

#[derive(Clone)]
struct Connections {
    server: Arc<Server>,
    apis: Apis,
    builder: Arc<Builder<TokioExecutor>>,
    /// How long one may be open without a request.
    idle_max: Duration,
    /// How long one that is told to end may take for that, unless it is used.
    drain_max: Duration,
}

async fn accept(socket: Socket, connections: Connections, admission: &Admission, stop: &watch::Sender<()>) {
    // Whoever is not accepted waits in the system's queue, and takes no descriptor of this process there.
    while let Ok(place) = admission.place().await {
        let accepted = match &socket {
            Socket::Tcp(listener, tls) => listener.accept().await.map(|(stream, address)| {
                set_up(&stream);
                let (connections, stopping) = (connections.clone(), stop.subscribe());
                let admitted = admission.admit(place);
                match tls.clone() {
                    None => drop(tokio::spawn(connections.serve(stream, Some(address), stopping, admitted))),
                    Some(tls) => drop(tokio::spawn(async move {
                        if let Some(stream) = shake_hands(&tls, stream, address).await {
                            connections.serve(stream, Some(address), stopping, admitted).await;
                        }
                    })),
                }
            }),
            Socket::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                let admitted = admission.admit(place);
                drop(tokio::spawn(connections.clone().serve(stream, None, stop.subscribe(), admitted)));
            }),
        };
        if let Err(error) = accepted {
            warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

fn set_up(stream: &TcpStream) {
    // Answers are written whole; waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY");
    }
    // Who reads slowly is seen to read.
    if let Err(error) = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX) {
        debug!(%error, "TCP_NOTSENT_LOWAT");
    }
}

/// Opens TLS on a connection. Where that comes to nothing it is counted.
async fn shake_hands(
    tls: &TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    let reason = match tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => {
            debug!(%address, %error, "TLS handshake failed");
            "failed"
        }
        Err(_) => {
            debug!(%address, "TLS handshake took too long");
            "too_slow"
        }
    };
    counter!("warren_handshakes_failed_total", "reason" => reason).increment(1);
    None
}

impl Connections {
    /// Serves a connection until it ends, and its place with it. It does when the server stops, and when nobody uses it.
    async fn serve<S>(
        self,
        stream: S,
        address: Option<SocketAddr>,
        mut stopping: watch::Receiver<()>,
        _admitted: Admitted,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = Peer { address: address.map(|address| address.ip()), apis: self.apis };
        let uses = Uses::default();
        let service = service_fn(|request| {
            let (server, using) = (self.server.clone(), uses.begin());
            async move {
                let response = server.serve(peer, request).await?;
                Ok::<_, Infallible>(response.map(|body| Used::new(body, using)))
            }
        });
        let stream = TokioIo::new(Watched::new(stream, uses.clone()));
        let mut connection = pin!(self.builder.serve_connection(stream, service));
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            _ = stopping.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = uses.idle_for(self.idle_max) => {
                // Who speaks HTTP/2 is told, so that no request is lost that was sent meanwhile.
                let was_answering = uses.is_answering();
                connection.as_mut().graceful_shutdown();
                let (ended, is_cut_off) = tokio::select! {
                    ended = connection => (ended, false),
                    () = uses.idle_for(self.idle_max + self.drain_max) => (Ok(()), true),
                };
                // Who takes the rest of an answer after all lacks nothing.
                if is_cut_off || !was_answering {
                    let reason = if uses.is_answering() { "unread" } else { "unused" };
                    counter!("warren_connections_ended_total", "reason" => reason).increment(1);
                }
                ended
            }
        };
        if let Err(error) = ended {
            debug!(?address, %error, "connection ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use warren_engine::command::{Register, SetProfileField};

    use super::*;
    use crate::context::Context;

    /// The preface of HTTP/2, and settings that are the usual ones.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    const BILBO: &str = "@bilbo:localhost";
    /// A field of a profile of almost as many bytes as that may have.
    const FIELD_BYTES: usize = 60_000;
    const IDLE_MAX: Duration = Duration::from_secs(1);
    /// So many bytes at a time are taken by who takes an answer slowly.
    const SLOWLY: usize = 512;

    /// What comes back for what is sent, with a pause between the parts, up to the end of the connection, behind which somebody
    /// waits for its place. It is read so many bytes at a time, each time a fiftieth of `idle_max` later, if they are said.
    async fn answer_to(sent: &[&[u8]], idle_max: Duration, at_a_time: Option<usize>) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let ctx = Context::of_tests(folder.path());
        show_much(&ctx).await;
        let server = Arc::new(Server::new(ctx, &crate::tables()).expect("tables"));
        let drain_max = idle_max / 4;
        let connections =
            Connections { server, apis: Apis::ALL, builder: Arc::new(builder()), idle_max, drain_max };
        let (stop, admission) = (watch::channel(()).0, Admission::new(1));
        let admitted = admission.admit(admission.place().await.expect("free"));
        let (mut client, stream) = tokio::io::duplex(at_a_time.unwrap_or(64 * 1024));
        let served = tokio::spawn(connections.serve(stream, None, stop.subscribe(), admitted));
        let told = async {
            for (index, part) in sent.iter().enumerate() {
                if index > 0 {
                    tokio::time::sleep(2 * idle_max).await;
                }
                client.write_all(part).await.expect("it is open");
            }
            let mut told = Vec::new();
            while client.read_buf(&mut told).await.expect("it ends in order") > 0 {
                if at_a_time.is_some() {
                    tokio::time::sleep(idle_max / 50).await;
                }
            }
            assert!(admission.place().await.is_ok());
            String::from_utf8_lossy(&told).into_owned()
        };
        let told = tokio::time::timeout(Duration::from_secs(30), told).await.expect("it ends");
        served.await.expect("no fault");
        told
    }

    /// Somebody has a long answer for who asks for their profile.
    async fn show_much(ctx: &Arc<Context>) {
        let register = Register { localpart: "bilbo".to_owned(), ..Register::default() };
        ctx.engine.write(register).await.expect("nobody has the name");
        let value = format!("\"{}\"", "~".repeat(FIELD_BYTES));
        let name = "org.example.much".to_owned();
        let field = SetProfileField { user_id: BILBO.to_owned(), name, value: Some(value.into()) };
        ctx.engine.write(field).await.expect("there is room for it");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_asks_for_nothing_gives_its_place_back() {
        for silent in [&b""[..], b"P", b"PRI", b"GET / HT", PREFACE] {
            let told = answer_to(&[silent], Duration::from_millis(50), None).await;
            assert!(!told.contains("200 OK"), "{told}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_has_asked_is_answered_however_long_it_takes() {
        let head: &[u8] = b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{";
        let told = answer_to(&[head, b"}"], IDLE_MAX, None).await;
        assert!(told.starts_with("HTTP/1.1 400"), "{told}");
    }

    /// Half of this is with hyper when the last of it is handed over, and takes longer than anybody may be idle.
    #[tokio::test(flavor = "multi_thread")]
    async fn who_takes_an_answer_slowly_gets_all_of_it() {
        let get = format!("GET /_matrix/client/v3/profile/{BILBO} HTTP/1.1\r\nHost: x\r\n\r\n");
        let told = answer_to(&[get.as_bytes()], IDLE_MAX, Some(SLOWLY)).await;
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        assert_eq!(told.matches('~').count(), FIELD_BYTES, "all of the field");
    }
}
