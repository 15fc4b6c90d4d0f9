//! What is done by way of another server waits until that has taken what it was not told yet, where the one has to follow the other.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use crate::context::Context;

/// Waits until there is nothing that a server is untold of. Answers whether that came to be in time.
pub async fn until_told(ctx: &Context, time_max: Duration, is_untold: impl Fn() -> bool) -> bool {
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
