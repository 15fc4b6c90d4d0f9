//! Servers that talk to each other, over TLS under the run's own authority.

pub mod idle;
pub mod inbound;
pub mod large_pairs;
mod origin;
pub mod pairs;
pub mod remote_room;

use std::time::Duration;

use crate::context::Several;
use crate::error::Result;
use crate::peers::{Federation, Peer, Running};
use crate::process;

/// Below a server's data, where Warren's store is.
const STORE: &str = "store";

/// What a join leaves to be done afterwards is not to disturb the next: a server has been quiet for so long before.
const QUIET_BEFORE_JOIN: Duration = Duration::from_millis(400);
/// How often it is looked whether a server is quiet.
const QUIET_LOOKS_MAX: usize = 60;
/// A server is taken for quiet that uses no more than this part of a processor: that much its own clocks take.
const BUSY_PART: u32 = 20;

/// Starts a server on an empty folder.
fn start(ctx: &Several<'_>, peer: &Peer, folder: &str, federation: &Federation) -> Result<Running> {
    peer.start_reachable(&ctx.folder(folder)?, Some(federation.clone()))
}

/// Waits until a server has nothing left to do: until it has used hardly any processor time for `pause`, or for the last of
/// so many looks. Whether it is.
async fn quiet(running: &Running, pause: Duration) -> Result<bool> {
    let mut before = process::cpu(running.pid())?;
    for _ in 0..QUIET_LOOKS_MAX {
        tokio::time::sleep(pause).await;
        let now = process::cpu(running.pid())?;
        if now.saturating_sub(before) <= pause / BUSY_PART {
            return Ok(true);
        }
        before = now;
    }
    Ok(false)
}

/// Waits until neither of two servers has anything left to do, before one joins a room of the other.
async fn both_quiet(joiner: &Running, resident: &Running) -> Result<()> {
    quiet(joiner, QUIET_BEFORE_JOIN).await?;
    quiet(resident, QUIET_BEFORE_JOIN).await.map(drop)
}
