//! Servers that talk to each other, over TLS under the run's own authority.

pub mod idle;
pub mod inbound;
pub mod pairs;
pub mod remote_room;

use crate::context::Several;
use crate::error::Result;
use crate::peers::{Federation, Peer, Running};

/// Below a server's data, where Warren's store is.
const STORE: &str = "store";

/// Starts a server on an empty folder.
fn start(ctx: &Several<'_>, peer: &Peer, folder: &str, federation: &Federation) -> Result<Running> {
    peer.start_reachable(&ctx.folder(folder)?, Some(federation.clone()))
}
