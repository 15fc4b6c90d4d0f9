//! Connections that this server opens itself: to other servers, later to push gateways, pages to preview and others.
//!
//! Invariant: a name is resolved once, each of its addresses is looked at, and what is connected to is one of those very
//! addresses, so that a name that resolves to something else a moment later gains nothing. Every new connection passes
//! here, those that a redirect leads to among them. Not here: what is asked, and how the other server is found.

mod addresses;
mod dial;
mod names;
mod tls;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use metrics::counter;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use dial::{Dial, Dialer, Timely, Waiting, had_answered, note_answer};
pub use names::Service;

use crate::config::Config;
use dial::Bounds;
use names::Names;

/// Time to resolve a name.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the addresses of one family are waited for when those of the other are there: longer than any that are on their way
/// (RFC 8305, 3, has 50 ms), as some servers of the domain name system never answer for a family.
const SECOND_FAMILY_TIME: Duration = Duration::from_secs(1);

/// Time to look up the services under a name. Few have any, and whoever asks with less patience than most still gets to where
/// the server is without.
const SERVICES_TIME_MAX: Duration = Duration::from_secs(3);

/// How long it is remembered that nobody answers for the services under a name: what is lost on its way is not so for long.
const SILENT_SERVICES_TIME: Duration = Duration::from_secs(60);

/// Time to open a connection to one address; a packet lost twice is sent again after three seconds.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(8);

/// How long one address is waited for before the next is tried beside it (RFC 8305 has 250 ms).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Addresses of a name that are tried at most, of both families if it has them; further ones are not likely to answer either.
const ADDRESSES_MAX: usize = 6;

/// Services of a name that are tried at most.
const SERVICES_MAX: usize = 8;

/// Time for all of opening a connection: looking up the name and the services under it, connecting, TLS.
pub const OPEN_TIME_MAX: Duration = Duration::from_secs(20);

/// How long a connection for a client's question may be open: longer than any question takes. What a join brings comes within five
/// minutes.
const QUESTION_CONNECTION_TIME_MAX: Duration = Duration::from_secs(6 * 60);

/// How long it may be open when nobody waits for an answer any more: enough for whoever reads to take the rest.
const LEFT_CONNECTION_TIME_MAX: Duration = Duration::from_secs(5);

/// What all outgoing requests share.
pub struct Outgoing {
    names: Names,
    tls: rustls::ClientConfig,
    allow_private_addresses: bool,
    /// For addresses that are tried beside others of the same name.
    beside: Arc<Semaphore>,
    /// For connections that clients' questions take.
    questions: Arc<Semaphore>,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The name has no address that is known.
    Unresolved(String),
    /// All of its addresses are ones that this server does not ask.
    Private(String),
    /// None of its addresses could be connected to; the last error.
    Io(io::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Unresolved(name) => write!(out, "{name} cannot be resolved to an address"),
            ConnectError::Private(name) => {
                write!(out, "{name} is at a private address (allow_private_addresses is off)")
            }
            ConnectError::Io(error) => write!(out, "{error}"),
        }
    }
}

impl std::error::Error for ConnectError {}

impl Outgoing {
    /// With so many addresses at once that are tried beside others, by all connections together: whoever has a name may have any
    /// number of addresses that do not answer. And with so many connections at once for what clients have this server ask.
    ///
    /// Errors: a sentence about what of the configuration cannot be used.
    pub fn new(config: &Config, beside_max: usize, questions_max: usize) -> Result<Outgoing, String> {
        Ok(Outgoing {
            names: Names::new(&config.dns_servers)?,
            tls: tls::client_config(&config.trusted_ca_files)?,
            allow_private_addresses: config.allow_private_addresses,
            beside: Arc::new(Semaphore::new(beside_max)),
            questions: Arc::new(Semaphore::new(questions_max)),
        })
    }

    /// Opens a connection to a host, which is a name or an address without brackets, if it is not at a private address.
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        self.connect_to(host, port, self.allow_private_addresses).await
    }

    /// Opens a connection to a host that the operator has named, wherever it is.
    pub async fn connect_trusted(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        self.connect_to(host, port, true).await
    }

    async fn connect_to(&self, host: &str, port: u16, private: bool) -> Result<TcpStream, ConnectError> {
        let mut found = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.names.addresses(host).await,
        };
        if found.is_empty() {
            return Err(ConnectError::Unresolved(host.to_owned()));
        }
        found.retain(|address| private || addresses::is_public(*address));
        if found.is_empty() {
            count_refused("private_address");
            return Err(ConnectError::Private(host.to_owned()));
        }
        let found = found.into_iter().take(ADDRESSES_MAX).map(|address| SocketAddr::new(address, port));
        let stream = first_to_answer(found.collect(), &self.beside).await.map_err(ConnectError::Io)?;
        // Requests are written whole; waiting for more to send would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        Ok(stream)
    }

    /// The services of a name, in the order in which they are to be tried; empty if it has none or they are not known.
    pub async fn services(&self, name: &str) -> Vec<Service> {
        self.names.services(name).await
    }

    /// A connector of TLS over what `dial` opens: HTTP/2 or 1.1, the certificate being for the host of the request's URI.
    pub fn connector<D: Dial>(self: &Arc<Self>, dial: D) -> Timely<HttpsConnector<Dialer<D>>> {
        self.connector_over(Dialer::new(self.clone(), dial, None))
    }

    /// The same for what clients have this server ask. Each such connection has a place until it is closed, and who gets none within
    /// [`OPEN_TIME_MAX`] is told that nobody answers.
    pub fn connector_for_questions<D: Dial>(self: &Arc<Self>, dial: D) -> Timely<HttpsConnector<Dialer<D>>> {
        let bounds = Bounds {
            places: self.questions.clone(),
            time_max: QUESTION_CONNECTION_TIME_MAX,
            end_time_max: LEFT_CONNECTION_TIME_MAX,
        };
        self.connector_over(Dialer::new(self.clone(), dial, Some(bounds)))
    }

    fn connector_over<D: Dial>(&self, dialer: Dialer<D>) -> Timely<HttpsConnector<Dialer<D>>> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(dialer);
        Timely(connector)
    }
}

/// Counts a connection that this server will not make, whoever would answer.
fn count_refused(reason: &'static str) {
    counter!("warren_connections_refused_total", "reason" => reason).increment(1);
}

/// Connects to all addresses, each a little later than the one before, and takes the first that answers. Without a place `beside`
/// them the next waits until those that are tried have failed.
async fn first_to_answer(addresses: Vec<SocketAddr>, beside: &Arc<Semaphore>) -> io::Result<TcpStream> {
    let mut left = addresses.into_iter();
    let mut trying = tokio::task::JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if trying.is_empty() {
            let Some(address) = left.next() else { return Err(last) };
            drop(trying.spawn(connect_in_time(address, None)));
        } else if !left.as_slice().is_empty()
            && let Ok(place) = beside.clone().try_acquire_owned()
            && let Some(address) = left.next()
        {
            drop(trying.spawn(connect_in_time(address, Some(place))));
        }
        let tried = match left.as_slice().is_empty() {
            true => trying.join_next().await,
            false => match tokio::time::timeout(NEXT_ADDRESS_AFTER, trying.join_next()).await {
                Ok(tried) => tried,
                Err(_) => continue,
            },
        };
        match tried {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => last = error,
            Some(Err(error)) => last = io::Error::other(error),
            None => {}
        }
    }
}

async fn connect_in_time(address: SocketAddr, _place: Option<OwnedSemaphorePermit>) -> io::Result<TcpStream> {
    match tokio::time::timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;

    use super::*;

    /// Long enough for a connection on this host, or for the next address to be tried.
    const WAIT: Duration = NEXT_ADDRESS_AFTER.saturating_mul(4);

    #[tokio::test]
    async fn addresses_are_tried_beside_others_while_there_are_places() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let silent = TcpSocket::new_v4().expect("a socket");
        silent.bind(any).expect("a port is free");
        let silent = silent.listen(0).expect("it is bound");
        let silent_at = silent.local_addr().expect("it is bound");
        // Nobody takes these, and no more are answered then.
        let mut waiting = Vec::new();
        while let Ok(connected) = timeout(WAIT, TcpStream::connect(silent_at)).await {
            waiting.push(connected.expect("it is listened to"));
        }
        let good = TcpListener::bind(any).await.expect("a port is free");
        let good_at = good.local_addr().expect("it is bound");
        let beside = Arc::new(Semaphore::new(1));
        let first = async || timeout(WAIT, first_to_answer(vec![silent_at, good_at], &beside)).await;
        let found = first().await.expect("the second answers").expect("it is connected to");
        assert_eq!(found.peer_addr().expect("it is connected"), good_at);
        let taken = beside.try_acquire().expect("the place is free again");
        assert!(first().await.is_err(), "there is no place beside the first");
        drop(taken);
        assert!(first().await.is_ok());
    }
}
