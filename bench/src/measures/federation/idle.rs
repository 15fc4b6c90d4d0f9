//! What a server holds in memory for others that nothing waits for: the resident memory of one that knows many, when it has
//! looked at them all after its start, over that of one that knows none. They are such as it has to do with: it has their keys,
//! and each has taken what it was sent.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use warren_engine::Engine;
use warren_engine::delivery::{Delivery, Next, Sent};
use warren_engine::view::federation::{DueDestinations, LeaveDestination};

use super::{STORE, quiet};
use crate::certificates::Certificates;
use crate::context::{Figure, Several};
use crate::error::{Error, Result};
use crate::measures::fan_out::enter;
use crate::measures::receive::{Host, Room, Writes, engine_error};
use crate::peers::Federation;
use crate::process;

/// So many other servers are known that a kibibyte for each is more than what the memory of one server differs by from start
/// to start.
const DESTINATIONS: usize = 50_000;
const KIBIBYTE: f64 = 1024.0;
/// The server has looked at everything when it has been quiet for so long.
const QUIET: Duration = Duration::from_secs(1);
/// How long after that it is measured: the server's allocator gives back what the looks took some ten seconds after it was freed.
const GIVEN_BACK: Duration = Duration::from_secs(20);

/// Takes `idle-destination`.
pub async fn run(ctx: &mut Several<'_>) -> Result<()> {
    let federation = Federation::new(&Certificates::make(&ctx.disk)?)?;
    let (empty, full) = (ctx.folder("empty")?, ctx.folder("full")?);
    know_many(&full.join("data").join(STORE), &federation.name())?;
    let mut resident = Vec::new();
    for folder in [&empty, &full] {
        let mut running = ctx.warren.start_reachable(folder, Some(federation.clone()))?;
        if !quiet(&running, QUIET).await? {
            return Err(Error::Implausible("the server never has looked at all that it knows".to_owned()));
        }
        tokio::time::sleep(GIVEN_BACK).await;
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

/// Lets a server enter a room with members of many others, which all take what it has for them.
fn know_many(store: &Path, name: &str) -> Result<()> {
    let (mut room, state) = Room::across("many", DESTINATIONS, DESTINATIONS)?;
    let host = Host::named(name, store, Writes::AtOnce)?;
    for server in room.servers() {
        host.know(server, room.server_key())?;
    }
    enter(&host, &mut room, state)?;
    deliver_all(&host)?;
    host.settle();
    Ok(())
}

/// Delivers what there is for all, as to servers that take it at once.
fn deliver_all(host: &Host) -> Result<()> {
    let look = || {
        let due = DueDestinations { limit: DESTINATIONS, laggards_max: 0 };
        host.engine().read(&due).map_err(engine_error)
    };
    // The first look tells of nobody: it is from then on that somebody delivers.
    look()?;
    let mut sent = 0;
    for destination in look()?.destinations {
        sent += usize::from(deliver(host.engine(), &destination)? > 0);
    }
    let waiting = host.figure("destinations_waiting");
    if sent != DESTINATIONS || waiting > 0 {
        return Err(Error::Implausible(format!(
            "{sent} servers were sent something, and {waiting} are to be"
        )));
    }
    Ok(())
}

/// Delivers what there is for a server, in how many transactions.
fn deliver(engine: &Engine, destination: &Arc<str>) -> Result<usize> {
    let (mut delivery, mut sent) = (Delivery::new(destination.clone()), 0);
    loop {
        match delivery.next_step() {
            Next::Begin(next) => {
                let next = engine.write(next).wait().map_err(engine_error)?;
                delivery.begun(engine, next).map_err(engine_error)?;
            }
            Next::Send(_) => {
                sent += 1;
                delivery.sent(Sent::Done);
            }
            Next::Fail(_) => return Err(Error::Implausible(format!("{destination} took nothing"))),
            Next::Leave(due_ms) => {
                let was_prompt = (sent > 0).then_some(true);
                let leave = LeaveDestination { destination, due_ms, was_prompt };
                engine.read(&leave).map_err(engine_error)?;
                return Ok(sent);
            }
        }
    }
}
