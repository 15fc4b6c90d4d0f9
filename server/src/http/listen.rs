//! Listeners: sockets, TLS, HTTP/1.1 and 2, and stopping without cutting anybody off.

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use socket2::{Domain, Protocol, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::admission::{Admission, Admitted};
use super::limits::{
    ACCEPT_PAUSE, BACKLOG_MAX, DRAIN_TIME_MAX, HANDSHAKE_TIME_MAX, HEAD_BYTES_MAX, HEAD_TIME_MAX,
    SEND_BUFFER_BYTES_MAX, STREAMS_PER_CONNECTION_MAX,
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
    let graceful = Arc::new(GracefulShutdown::new());
    let mut accepting = tokio::task::JoinSet::new();
    let mut socket_files = Vec::new();
    for bound in sockets {
        info!(address = %bound.address, "listening");
        if let Address::Unix(path) = &bound.address {
            socket_files.push(path.clone());
        }
        let connections =
            Connections { server: server.clone(), apis: bound.apis, builder: Arc::new(builder()) };
        let (admission, graceful, shutdown) = (admission.clone(), graceful.clone(), shutdown.clone());
        accepting.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = accept(bound.socket, connections, &admission, graceful) => {}
            }
        });
    }
    while accepting.join_next().await.is_some() {}
    for path in socket_files {
        let removed = std::fs::remove_file(&path);
        debug!(?removed, path = %path.display(), "removed the socket");
    }
    let Some(graceful) = Arc::into_inner(graceful) else { return };
    let open = graceful.count();
    if tokio::time::timeout(DRAIN_TIME_MAX, graceful.shutdown()).await.is_err() {
        warn!(connections = open, "not all requests finished in time");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // hyper's own limit of 100 headers stays: setting one costs an allocation per request. Most answers are small, or spliced
    // from many small pieces, which are sooner copied together than written as they lie.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .writev(false);
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
}

async fn accept(
    socket: Socket,
    connections: Connections,
    admission: &Admission,
    graceful: Arc<GracefulShutdown>,
) {
    // Whoever is not accepted waits in the system's queue, and takes no descriptor of this process there.
    while let Ok(place) = admission.place().await {
        let accepted = match &socket {
            Socket::Tcp(listener, tls) => listener.accept().await.map(|(stream, address)| {
                // Answers are written whole; waiting for more to send would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "TCP_NODELAY");
                }
                let (connections, watcher) = (connections.clone(), graceful.watcher());
                let admitted = admission.admit(place);
                match tls.clone() {
                    None => drop(tokio::spawn(connections.serve(stream, Some(address), watcher, admitted))),
                    Some(tls) => drop(tokio::spawn(async move {
                        match tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await {
                            Ok(Ok(stream)) => {
                                connections.serve(stream, Some(address), watcher, admitted).await;
                            }
                            Ok(Err(error)) => debug!(%address, %error, "TLS handshake failed"),
                            Err(_) => debug!(%address, "TLS handshake took too long"),
                        }
                    })),
                }
            }),
            Socket::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                let admitted = admission.admit(place);
                drop(tokio::spawn(connections.clone().serve(stream, None, graceful.watcher(), admitted)));
            }),
        };
        if let Err(error) = accepted {
            warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

impl Connections {
    /// Serves a connection until it ends, and its place with it.
    async fn serve<S>(self, stream: S, address: Option<SocketAddr>, watcher: Watcher, _admitted: Admitted)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = Peer { address: address.map(|address| address.ip()), apis: self.apis };
        let service = service_fn(|request| self.server.clone().serve(peer, request));
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            debug!(?address, %error, "connection ended");
        }
    }
}
