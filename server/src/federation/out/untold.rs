//! What is done by way of another server waits until that has taken what it was not told yet, where the one has to follow the other.

use std::pin::pin;
use std::time::Duration;

use ruma_common::ServerName;
use tokio::time::timeout;

use super::sender::heard_from;
use crate::context::Context;

/// Tries the server at once, and waits until there is nothing that it is untold of. Answers whether that came to be in time.
pub async fn until_told(
    ctx: &Context,
    server: &str,
    time_max: Duration,
    is_untold: impl Fn() -> bool,
) -> bool {
    let Ok(name) = ServerName::parse(server) else { return false };
    if let Err(error) = heard_from(ctx, &name).await {
        tracing::warn!(server, %error, "it cannot be noted that a server may be back");
    }
    let told = async {
        loop {
            let mut taken = pin!(ctx.federation.taken.notified());
            taken.as_mut().enable();
            // From here on nothing is missed.
            if !is_untold() {
                return;
            }
            taken.await;
        }
    };
    tokio::select! {
        outcome = timeout(time_max, told) => outcome.is_ok(),
        () = ctx.shutdown.cancelled() => false,
    }
}
