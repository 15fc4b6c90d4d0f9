//! What every handler gets: the engine, the configuration, and the few things that live as long as the process.

use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Shared by all requests behind one `Arc`.
pub struct Context {
    pub config: Config,
    /// Cancelled when the server is told to stop. Whoever waits long (`/sync`) also awaits
    /// `ctx.shutdown.cancelled()` and then answers at once with what it has.
    pub shutdown: CancellationToken,
}
