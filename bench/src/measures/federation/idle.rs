//! What a server holds in memory for others that nothing waits for: the resident memory of one that knows many, when it has
//! looked at them all after its start, over that of one that knows none.

use std::path::Path;
use std::time::Duration;

use super::{STORE, quiet};
use crate::certificates::Certificates;
use crate::context::{Figure, Several};
use crate::error::Result;
use crate::measures::fan_out::enter;
use crate::measures::receive::{Host, Room, Writes};
use crate::peers::Federation;
use crate::process;

/// So many other servers are known that a kibibyte for each is more than what the memory of one server differs by from start
/// to start.
const DESTINATIONS: usize = 50_000;
const KIBIBYTE: f64 = 1024.0;
/// The server has looked at everything when it has been quiet for so long.
const QUIET: Duration = Duration::from_secs(1);

/// Takes `idle-destination`.
pub async fn run(ctx: &mut Several<'_>) -> Result<()> {
    let federation = Federation::new(&Certificates::make(&ctx.disk)?)?;
    let (empty, full) = (ctx.folder("empty")?, ctx.folder("full")?);
    know_many(&full.join("data").join(STORE), &federation.name())?;
    let mut resident = Vec::new();
    for folder in [&empty, &full] {
        let mut running = ctx.warren.start_reachable(folder, Some(federation.clone()))?;
        quiet(&running, QUIET).await?;
        resident.push(process::resident(running.pid())? as f64);
        running.stop()?;
    }
    let (Some(without), Some(with)) = (resident.first(), resident.last()) else { return Ok(()) };
    let kibibytes = (with - without) / KIBIBYTE;
    let note = format!(
        "{:.1} MiB with {DESTINATIONS}, {:.1} MiB without",
        with / KIBIBYTE / KIBIBYTE,
        without / KIBIBYTE / KIBIBYTE
    );
    ctx.take(Figure::new("idle-destination", kibibytes / DESTINATIONS as f64).noting(note));
    Ok(())
}

/// Lets a server enter a room with members of many others.
fn know_many(store: &Path, name: &str) -> Result<()> {
    let (mut room, state) = Room::across("many", DESTINATIONS, DESTINATIONS)?;
    let host = Host::named(name, store, Writes::AtOnce)?;
    for server in room.servers() {
        host.know(server, room.server_key())?;
    }
    enter(&host, &mut room, state)?;
    host.settle();
    Ok(())
}
