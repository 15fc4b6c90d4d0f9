//! What a family of measures gets: the server, how much to ask of it, and where its figures go.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::histogram::Summary;
use crate::load::{Bounds, Outcome, Worker, closed};
use crate::matrix::Homeserver;
use crate::peers::{Peer, Running};
use crate::{machine, process};

/// A load is warmed up for this part of its time.
const WARM_UP_PART: u32 = 8;
/// A server is taken for quiet that has used next to no processor time for this long: whoever is still at work, or whose
/// clients are about to ask again, does more in less.
pub const QUIET: Duration = Duration::from_millis(5);
/// So much of that a server's own clocks may take.
const QUIET_CPU_MAX: Duration = Duration::from_micros(50);
/// … and is waited for no longer than this.
const QUIET_SECONDS_MAX: u64 = 10;
/// Without a process to look at, so long per waiting client is left to the server, within the limit above.
const QUIET_PER_WAITING: Duration = Duration::from_millis(10);

/// How much is asked. Shapes (members, rooms, senders) never change; only how often something is repeated does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// As the bars say.
    Full,
    /// Fewer events and repetitions, for servers that would take hours.
    Reduced,
    /// Reduced, but for the load on which figures of memory and disk depend.
    Patient,
}

/// One figure taken.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// The measure's name.
    pub measure: &'static str,
    /// In the measure's unit.
    pub value: f64,
    /// The latencies behind it, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latencies: Option<Summary>,
    /// Processor time of server and generator meanwhile, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// p50 of a 4 KiB append with `fdatasync` just before and after, in milliseconds: a disk's speed changes in a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub append_sync_ms: Option<f64>,
    /// Events of the load before it, where the figure depends on them: figures after different loads are not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// What a reader should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Processor time while a load ran.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// How long the load ran.
    pub elapsed_s: f64,
    /// The server's, where its process is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_s: Option<f64>,
    /// The generator's own.
    pub generator_cpu_s: f64,
}

/// A server's process and folder on this machine.
#[derive(Debug, Clone)]
pub struct Local {
    /// Its process.
    pub pid: u32,
    /// All that it stores, where known.
    pub data: Option<PathBuf>,
}

/// See the module.
pub struct Context {
    /// The server.
    pub homeserver: Homeserver,
    /// A folder on the disk that the server uses, as far as is known.
    pub disk: PathBuf,
    /// How much is asked.
    pub effort: Effort,
    /// How long one load lasts.
    pub time: Duration,
    /// Steps per second of the open loop; by default half of what the closed loop reached.
    pub rate: Option<f64>,
    /// Its process, where it runs on this machine.
    pub local: Option<Local>,
    /// The server itself, where the generator started it.
    pub running: Option<Running>,
    /// What was taken so far.
    pub figures: Vec<Figure>,
    /// The most memory seen resident, in bytes.
    pub memory_peak: u64,
}

/// What a family gets that measures the engine in this process.
pub struct InProcess<'a> {
    /// A folder on the disk to be measured.
    pub disk: &'a Path,
    /// The names of the wanted measures; all when empty.
    pub wanted: &'a BTreeSet<String>,
    /// What was taken so far.
    pub figures: Vec<Figure>,
}

/// What a family gets that starts servers itself.
pub struct Several<'a> {
    /// A folder on the disk to be measured.
    pub disk: PathBuf,
    /// Warren.
    pub warren: &'a Peer,
    /// Synapse, where Warren is compared with it.
    pub synapse: Option<&'a Peer>,
    /// What was taken of Warren so far.
    pub figures: Vec<Figure>,
    /// What was taken of Synapse in the same places.
    pub of_synapse: Vec<Figure>,
}

/// A load that has run, warmed up before.
pub struct Timed<W> {
    /// For the next load.
    pub workers: Vec<W>,
    /// What it did.
    pub outcome: Outcome,
    /// What that cost.
    pub cost: Cost,
}

/// A running count of processor time.
pub struct Meter {
    begun: Instant,
    server: Option<Duration>,
    own: Duration,
}

impl Figure {
    /// A bare figure.
    pub fn new(measure: &'static str, value: f64) -> Figure {
        Figure { measure, value, latencies: None, cost: None, append_sync_ms: None, events: None, note: None }
    }

    /// The median of latencies, in milliseconds.
    pub fn median(measure: &'static str, outcome: &Outcome) -> Figure {
        let summary = outcome.latencies.summary();
        Figure { latencies: Some(summary), ..Figure::new(measure, summary.p50_ms) }
    }

    /// Steps per second.
    pub fn rate(measure: &'static str, outcome: &Outcome) -> Figure {
        Figure { latencies: Some(outcome.latencies.summary()), ..Figure::new(measure, outcome.rate()) }
    }

    /// The same with what it cost.
    pub fn costing(self, cost: Cost) -> Figure {
        Figure { cost: Some(cost), ..self }
    }

    /// The same with the disk's speed before and after.
    pub fn on_disk(self, before_ms: f64, after_ms: f64) -> Figure {
        Figure { append_sync_ms: Some(f64::midpoint(before_ms, after_ms)), ..self }
    }

    /// The same as taken after a load of so many events.
    pub fn after(self, events: u64) -> Figure {
        Figure { events: Some(events), ..self }
    }

    /// The same with a remark.
    pub fn noting(self, note: impl Into<String>) -> Figure {
        Figure { note: Some(note.into()), ..self }
    }
}

impl Context {
    /// Keeps a figure.
    pub fn take(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// The larger number, or the smaller one for slow servers.
    pub fn number<T>(&self, full: T, reduced: T) -> T {
        match self.effort {
            Effort::Full => full,
            Effort::Reduced | Effort::Patient => reduced,
        }
    }

    /// Bounds of the usual time.
    pub fn bounds(&self, count: u64) -> Bounds {
        Bounds { count, time: self.time }
    }

    /// Runs a closed loop for the usual time after a warm-up.
    pub async fn timed<W: Worker>(&self, workers: Vec<W>, count: u64) -> Result<Timed<W>> {
        let warm_up = Bounds { count: count / 4, time: self.time / WARM_UP_PART };
        let (workers, _) = closed(workers, warm_up).await?;
        let meter = self.meter()?;
        let (workers, outcome) = closed(workers, self.bounds(count)).await?;
        let cost = meter.stop(self)?;
        if outcome.done == 0 {
            return Err(Error::Implausible("not one request was done in the time given".to_owned()));
        }
        Ok(Timed { workers, outcome, cost })
    }

    /// Begins to count processor time.
    pub fn meter(&self) -> Result<Meter> {
        Ok(Meter { begun: Instant::now(), server: self.server_cpu()?, own: process::own_cpu()? })
    }

    /// The server's process and data, for measures that look at them.
    pub fn local_data(&self) -> Result<(u32, &Path)> {
        let local = self.local.as_ref();
        local
            .and_then(|local| Some((local.pid, local.data.as_deref()?)))
            .ok_or(Error::Needs("the server's process and data folder (--pid, --data-dir)"))
    }

    /// Waits until the server has dealt with what came before, and all of `waiting` clients wait.
    pub async fn quiet(&self, waiting: u32) -> Result<()> {
        let limit = Duration::from_secs(QUIET_SECONDS_MAX);
        let Some(mut before) = self.server_cpu()? else {
            tokio::time::sleep((QUIET + QUIET_PER_WAITING * waiting).min(limit)).await;
            return Ok(());
        };
        let begun = Instant::now();
        while begun.elapsed() < limit {
            tokio::time::sleep(QUIET).await;
            let now = self.server_cpu()?.unwrap_or_default();
            if now.saturating_sub(before) <= QUIET_CPU_MAX {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// p50 of a 4 KiB append with `fdatasync`, in milliseconds, now; with the pause that lies between what is measured.
    pub fn append_sync(&self, pause: Duration) -> Result<f64> {
        machine::append_sync(&self.disk, pause)
    }

    /// Notes the most memory that the server has used so far.
    pub fn note_memory(&mut self) {
        let peak = self.local.as_ref().and_then(|local| process::resident_peak(local.pid).ok());
        self.memory_peak = self.memory_peak.max(peak.unwrap_or(0));
    }

    /// Ends the server and starts it again on the same data; gives the time until it answered.
    pub fn restart(&mut self) -> Result<Duration> {
        self.note_memory();
        let running = self.running.take().ok_or(Error::Needs("a server that the generator starts itself"))?;
        let running = running.restart()?;
        let started_in = running.started_in();
        self.homeserver = running.homeserver()?;
        self.local = Some(Local { pid: running.pid(), data: Some(running.data()) });
        self.running = Some(running);
        Ok(started_in)
    }

    fn server_cpu(&self) -> Result<Option<Duration>> {
        self.local.as_ref().map(|local| process::cpu(local.pid)).transpose()
    }
}

impl InProcess<'_> {
    /// Whether a measure is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.contains(name)
    }

    /// Keeps a figure.
    pub fn take(&mut self, figure: Figure) {
        self.figures.push(figure);
    }
}

impl Several<'_> {
    /// Keeps a figure of Warren.
    pub fn take(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Keeps a figure of one of the servers.
    pub fn take_of(&mut self, peer: &Peer, figure: Figure) {
        match peer {
            Peer::Warren(_) => self.figures.push(figure),
            Peer::Synapse(_) => self.of_synapse.push(figure),
        }
    }

    /// A new folder for a server.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.disk.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(Error::system(format!("empty {}", folder.display())))?;
        }
        std::fs::create_dir_all(&folder).map_err(Error::system(format!("create {}", folder.display())))?;
        Ok(folder)
    }
}

impl Meter {
    /// What was used since.
    pub fn stop(&self, ctx: &Context) -> Result<Cost> {
        let server = self.server.zip(ctx.server_cpu()?).map(|(before, now)| now.saturating_sub(before));
        Ok(Cost {
            elapsed_s: self.begun.elapsed().as_secs_f64(),
            server_cpu_s: server.map(|server| server.as_secs_f64()),
            generator_cpu_s: process::own_cpu()?.saturating_sub(self.own).as_secs_f64(),
        })
    }
}
