//! One HTTP/1.1 keep-alive connection to the server under load. A simulated user owns one, as a real client does, so
//! that requests of different users never wait for each other inside the generator.
//!
//! Clients speak plain HTTP: what is measured is the homeserver, not TLS. Only what comes from other servers comes over TLS.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::certificates::Trust;

use crate::error::{Error, Result};

/// A server that has not answered after this long is taken for hung. Longer than any long poll asked for.
const ANSWER_SECONDS_MAX: u64 = 180;
/// So much of an unexpected answer is shown.
const SHOWN_BODY_BYTES_MAX: usize = 200;

/// Where the server is: the host and port of its base URL.
#[derive(Debug, Clone)]
pub struct Address {
    authority: String,
}

impl Address {
    /// Takes `http://HOST[:PORT]`, with or without a slash at the end.
    pub fn parse(url: &str) -> Result<Address> {
        let wrong = |reason: &str| Error::BaseUrl { url: url.to_owned(), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("only plain http is driven, so that TLS is not what is measured"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it may have no path"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        let port = authority.port_u16().unwrap_or(80);
        Ok(Address { authority: format!("{}:{port}", authority.host()) })
    }

    /// `HOST:PORT`.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

/// One connection; it connects on first use, and again when the server closed it while idle.
pub struct Connection {
    address: Address,
    authorization: Option<http::HeaderValue>,
    trust: Option<Trust>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// An answer, read whole.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

impl Connection {
    /// A connection that will speak for the owner of `access_token`, or for nobody.
    pub fn new(address: &Address, access_token: Option<&str>) -> Connection {
        let authorization = access_token.and_then(|token| format!("Bearer {token}").parse().ok());
        Connection { address: address.clone(), authorization, trust: None, sender: None }
    }

    /// A connection over TLS, to a server whose certificate is trusted.
    pub fn secure(authority: &str, trust: Trust) -> Connection {
        let address = Address { authority: authority.to_owned() };
        Connection { trust: Some(trust), ..Connection::new(&address, None) }
    }

    /// Whatever is sent from now on has this `Authorization` header.
    pub fn authorize(&mut self, header: &str) {
        self.authorization = header.parse().ok();
    }

    /// Sends a request and reads the whole answer, whatever its status.
    pub async fn answer(&mut self, method: Method, path: &str, body: Bytes) -> Result<Answer> {
        let exchange = self.exchange(method, path, body);
        match tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS_MAX), exchange).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout { path: path.to_owned(), seconds: ANSWER_SECONDS_MAX }),
        }
    }

    /// Sends a request; an answer without success is an error.
    pub async fn request(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let answer = self.answer(method, path, body).await?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        let shown = answer.body.get(..SHOWN_BODY_BYTES_MAX).unwrap_or(&answer.body);
        Err(Error::Refused {
            path: path.to_owned(),
            status: answer.status,
            body: String::from_utf8_lossy(shown).into_owned(),
        })
    }

    async fn exchange(&mut self, method: Method, path: &str, body: Bytes) -> Result<Answer> {
        let failed = |source| Error::Http { path: path.to_owned(), source };
        let mut request =
            Request::builder().method(method).uri(path).header(header::HOST, self.address.authority());
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| Error::BaseUrl { url: path.to_owned(), reason: error.to_string() })?;
        let mut sender = self.ready(path).await?;
        let answer = sender.send_request(request).await.map_err(failed)?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(failed)?.to_bytes();
        self.sender = Some(sender);
        Ok(Answer { status: head.status, body })
    }

    /// The open connection, or a new one. It is put back only after a whole exchange.
    async fn ready(&mut self, path: &str) -> Result<SendRequest<Full<Bytes>>> {
        if let Some(mut sender) = self.sender.take()
            && !sender.is_closed()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let stream = TcpStream::connect(self.address.authority())
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| Error::Connect { authority: self.address.authority().to_owned(), source })?;
        match &self.trust {
            None => opened(stream, path).await,
            Some(trust) => {
                let authority = self.address.authority();
                let secured = trust.connect(authority, stream).await;
                let stream =
                    secured.map_err(|source| Error::Connect { authority: authority.to_owned(), source })?;
                opened(stream, path).await
            }
        }
    }
}

/// HTTP over a stream.
async fn opened<S>(stream: S, path: &str) -> Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, driver) = handshake(TokioIo::new(stream))
        .await
        .map_err(|source| Error::Http { path: path.to_owned(), source })?;
    // The driver ends with the connection; how it ended is seen by the request in flight.
    tokio::spawn(driver);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_checked() {
        for (url, authority) in [
            ("http://localhost:8008", "localhost:8008"),
            ("http://h/", "h:80"),
            ("http://[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(Address::parse(url).expect(url).authority(), authority);
        }
        for url in ["localhost:8008", "https://h", "http://h/path", "http://h?x", "", "http://"] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
    }
}
