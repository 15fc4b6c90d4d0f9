//! What the HTTP client calls to open a connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
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
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _task: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Dialer { outgoing, dial } = self.clone();
        Box::pin(async move { dial.dial(&outgoing, &uri).await.map(TokioIo::new) })
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
