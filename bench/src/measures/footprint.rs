//! Memory and disk: of a fresh server, after a load, and after twice that load and a restart.

use std::path::Path;
use std::time::{Duration, Instant};

use super::sends::{Sender, senders_with_rooms};
use crate::context::{Context, Effort, Figure};
use crate::error::{Error, Result};
use crate::load::{Bounds, closed};
use crate::process;

/// Events of the load after which memory and disk are looked at.
const EVENTS: u64 = 50_000;
/// The same for slow peers; their figures carry the number.
const EVENTS_REDUCED: u64 = 2_000;
/// Text messages for which the disk has a bar.
const MESSAGES: u64 = 100_000;
/// A fresh server is looked at when it has had this long to settle.
const SETTLE: Duration = Duration::from_secs(2);
/// The disk is taken for settled when it has not changed for this long …
const DISK_QUIET: Duration = Duration::from_secs(3);
/// … and is waited for no longer than this.
const DISK_QUIET_MAX: Duration = Duration::from_secs(60);
/// No load here takes longer: the slowest peer does 25 events a second.
const LOAD_TIME_MAX: Duration = Duration::from_secs(2_000);

const MEGABYTE: f64 = 1e6;
const MEBIBYTE: f64 = 1_048_576.0;

/// Takes the measures of memory and disk, but for the peak, which all families share.
pub async fn run(ctx: &mut Context) -> Result<()> {
    tokio::time::sleep(SETTLE).await;
    let (pid, data) = ctx.local_data()?;
    let (memory, disk) = (process::resident(pid)?, process::disk(data)?);
    ctx.take(Figure::new("memory-idle", memory as f64 / MEGABYTE));
    ctx.take(Figure::new("disk-empty", disk as f64 / MEGABYTE));

    let events = if ctx.effort == Effort::Reduced { EVENTS_REDUCED } else { EVENTS };
    let senders = senders_with_rooms(ctx).await?;
    let senders = send(senders, events).await?;
    let (pid, data) = ctx.local_data()?;
    let disk = settled_disk(data).await?;
    let memory = process::resident(pid)?;
    ctx.take(Figure::new("memory-loaded", memory as f64 / MEGABYTE).after(events));
    ctx.take(Figure::new("disk-loaded", disk as f64 / MEGABYTE).after(events));

    if ctx.effort == Effort::Full && ctx.running.is_some() {
        send(senders, MESSAGES.saturating_sub(events)).await?;
        ctx.restart()?;
        let (_, data) = ctx.local_data()?;
        let disk = settled_disk(data).await?;
        ctx.take(Figure::new("disk-100000", disk as f64 / MEBIBYTE));
    }
    Ok(())
}

/// Sends exactly so many messages, as fast as the server takes them.
pub async fn send(senders: Vec<Sender>, events: u64) -> Result<Vec<Sender>> {
    let (senders, outcome) = closed(senders, Bounds { count: events, time: LOAD_TIME_MAX }).await?;
    match outcome.done == events {
        true => Ok(senders),
        false => {
            Err(Error::Implausible(format!("only {} of {events} events were sent in time", outcome.done)))
        }
    }
}

async fn settled_disk(data: &Path) -> Result<u64> {
    let begun = Instant::now();
    let mut before = process::disk(data)?;
    loop {
        tokio::time::sleep(DISK_QUIET).await;
        let now = process::disk(data)?;
        if now == before || begun.elapsed() > DISK_QUIET_MAX {
            return Ok(now);
        }
        before = now;
    }
}
