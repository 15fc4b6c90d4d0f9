//! Warren and Synapse join a large room of another server: when a client can send, when the joiner knows all members, and how
//! much memory that takes.
//!
//! The room is made in the store of a Warren. Synapse cannot be given so many members of its own in tolerable time; but a server
//! that has joined a room and knows all of it lets others in as well. So a Synapse joins, and then others by way of that Synapse.

use std::time::Duration;

use super::remote_room::{Arrival, make_room};
use super::{STORE, both_quiet, start};
use crate::certificates::Certificates;
use crate::context::{Figure, Several};
use crate::error::Result;
use crate::peers::{Federation, Peer, Running};

/// When it is given up that a server knows all members: a join that takes longer is of no use to who waits for it.
const FULL_MAX: Duration = Duration::from_secs(15 * 60);

/// A server that lets others in.
struct Resident<'a> {
    peer: &'a Peer,
    running: Running,
}

/// Takes the measures.
pub async fn run(ctx: &mut Several<'_>) -> Result<()> {
    let (warren, certificates) = (ctx.warren, Certificates::make(&ctx.disk)?);
    let there = Federation::new(&certificates)?;
    let folder = ctx.folder("resident")?;
    let room_id = make_room(&folder.join("data").join(STORE), &there.name())?;
    let running = warren.start_reachable(&folder, Some(there))?;
    let mut first = Resident { peer: warren, running };
    // Who has joined stays: whoever joins after it must be able to ask for the key that its events are signed with.
    let mut joined = vec![join(ctx, warren, &first, &room_id, &certificates).await?];
    if let Some(synapse) = ctx.synapse {
        let running = join(ctx, synapse, &first, &room_id, &certificates).await?;
        let second = Resident { peer: synapse, running };
        for joiner in [warren, synapse] {
            joined.push(join(ctx, joiner, &second, &room_id, &certificates).await?);
        }
        joined.push(second.running);
    }
    for mut running in joined {
        running.stop()?;
    }
    first.running.stop()
}

/// A fresh server joins by way of another: the server, which knows all members then.
async fn join(
    ctx: &mut Several<'_>,
    joiner: &Peer,
    resident: &Resident<'_>,
    room_id: &str,
    certificates: &Certificates,
) -> Result<Running> {
    let folder = format!("{}-by-{}", joiner.name(), resident.peer.name());
    let running = start(ctx, joiner, &folder, &Federation::new(certificates)?)?;
    both_quiet(&running, &resident.running).await?;
    let mut arrival = Arrival::new(&running, room_id, &resident.running.name()).await?;
    let full = arrival.full(FULL_MAX).await?;
    let memory = arrival.memory(&running)?;
    take(ctx, [joiner, resident.peer], [arrival.sent, full, memory]);
    Ok(running)
}

/// Keeps what was taken of a joiner by way of a resident, for both.
fn take(ctx: &mut Several<'_>, [joiner, resident]: [&Peer; 2], [sent, full, memory]: [f64; 3]) {
    let as_joiner = match resident {
        Peer::Warren(_) => {
            ["remote-large-send-warren", "remote-large-full-warren", "remote-large-memory-warren"]
        }
        Peer::Synapse(_) => {
            ["remote-large-send-synapse", "remote-large-full-synapse", "remote-large-memory-synapse"]
        }
    };
    let as_resident = match joiner {
        Peer::Warren(_) => ["resident-large-send-warren", "resident-large-full-warren"],
        Peer::Synapse(_) => ["resident-large-send-synapse", "resident-large-full-synapse"],
    };
    for (name, value) in as_joiner.into_iter().zip([sent, full, memory]) {
        ctx.take_of(joiner, Figure::new(name, value));
    }
    for (name, value) in as_resident.into_iter().zip([sent, full]) {
        ctx.take_of(resident, Figure::new(name, value));
    }
}
