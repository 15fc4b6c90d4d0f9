//! What every handler gets: the engine, the configuration, and the few things that live as long as the process.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::http::ApiError;
use crate::http::rate::RateLimits;
use crate::http::session::Session;
use crate::http::tls::Certificate;
use crate::metrics::Metrics;
use crate::password::Passwords;

/// Shared by all requests behind one `Arc`.
pub struct Context {
    pub config: Config,
    pub metrics: Metrics,
    pub rate_limits: RateLimits,
    pub passwords: Passwords,
    /// The certificate of the https listeners, if there are any.
    pub certificate: Option<Arc<Certificate>>,
    /// Cancelled when the server is told to stop. Whoever waits long (`/sync`) also awaits
    /// `ctx.shutdown.cancelled()` and then answers at once with what it has.
    pub shutdown: CancellationToken,
    /// When the server started.
    pub started: Instant,
}

impl Context {
    /// Errors: a sentence about what of the configuration cannot be used: a certificate, the metrics.
    pub fn new(config: Config) -> Result<Context, String> {
        Ok(Context {
            metrics: Metrics::install(config.metrics_listen.is_some())?,
            rate_limits: RateLimits::new(config.rate_limits),
            passwords: Passwords::new(&config)?,
            certificate: config.tls.as_ref().map(Certificate::load).transpose()?.map(Arc::new),
            shutdown: CancellationToken::new(),
            started: Instant::now(),
            config,
        })
    }

    /// The session that an access token stands for.
    ///
    /// Errors: 401 if there is none.
    pub async fn session(&self, _token: &str) -> Result<Arc<Session>, ApiError> {
        Err(ApiError::unknown_token("This access token is not known"))
    }

    /// The registration token of the first start, while nobody has an account.
    pub fn first_token(&self) -> Option<String> {
        None
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}
