//! Takes measures of one server: family by family, each on a fresh server where the generator starts it itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::context::{Context, Effort, Figure, InProcess, Local, Several};
use crate::error::{Error, Result};
use crate::matrix::Homeserver;
use crate::measures::{Family, MEASURES, Measure};
use crate::peers::Peer;
use warren_bench::statistics::median_by;

/// The measure of which every family knows a part.
const MEMORY_PEAK: &str = "memory-peak";
const MEBIBYTE: f64 = 1_048_576.0;

/// What is asked of every server of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The names of the wanted measures; all when empty.
    pub wanted: BTreeSet<String>,
    /// How long one load lasts.
    pub time: Duration,
    /// How often each family runs; figures are the medians.
    pub rounds: u32,
    /// Steps per second of the open loop.
    pub rate: Option<f64>,
    /// Whether slow peers get the whole load before their memory and disk are looked at.
    pub patient: bool,
}

/// One server's figures.
#[derive(Debug, Clone, Serialize)]
pub struct Taken {
    /// Its name.
    pub server: String,
    /// Its version, where known.
    pub version: String,
    /// Its figures, in the order of the table.
    pub figures: Vec<Figure>,
    /// Measures without a figure, and why.
    pub failures: Vec<Failure>,
}

/// A measure that could not be taken.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// Its name.
    pub measure: &'static str,
    /// Why.
    pub reason: String,
}

impl Plan {
    /// Whether a measure is wanted.
    pub fn wants(&self, measure: &Measure) -> bool {
        self.wanted.is_empty() || self.wanted.contains(measure.name)
    }

    /// Whether a family is needed. The memory peak is a by-product and needs none of its own.
    fn needs(&self, family: Family) -> bool {
        MEASURES.iter().any(|measure| measure.family == family && self.wants(measure))
    }
}

impl Taken {
    /// The figure of a measure.
    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.measure == name)
    }

    /// Why a measure has none.
    pub fn failure(&self, name: &str) -> Option<&str> {
        self.failures.iter().find(|failure| failure.measure == name).map(|failure| failure.reason.as_str())
    }
}

/// Measures a server that runs already, with whatever it holds.
pub async fn running(
    plan: &Plan,
    homeserver: Homeserver,
    effort: Effort,
    local: Option<Local>,
    work: &Path,
) -> Taken {
    let mut taken = Gathered::default();
    let of_servers =
        |family: &Family| plan.needs(*family) && !family.is_in_process() && !family.starts_servers();
    for family in Family::ALL.into_iter().filter(of_servers) {
        for _ in 0..plan.rounds {
            let mut ctx = context(plan, homeserver.clone(), effort, work);
            ctx.local = local.clone();
            taken.run(plan, family, ctx).await;
        }
    }
    taken.finish(plan, homeserver.address.authority().to_owned(), String::new())
}

/// Measures a server that is started for each family, on an empty folder below `work`.
pub async fn fresh(plan: &Plan, peer: &Peer, work: &Path) -> Taken {
    let effort = match peer {
        Peer::Warren(_) => Effort::Full,
        Peer::Synapse(_) if plan.patient => Effort::Patient,
        Peer::Synapse(_) => Effort::Reduced,
    };
    let mut taken = Gathered::default();
    for family in Family::ALL.into_iter().filter(|family| plan.needs(*family)) {
        if family.is_together() || effort != Effort::Full && !family.for_slow_peers() {
            continue;
        }
        for _ in 0..plan.rounds {
            eprintln!("{}: {family:?}", peer.name());
            if family.is_in_process() {
                taken.run_in_process(plan, family, work);
                continue;
            }
            if family.starts_servers() {
                taken.run_several(plan, family, peer, work).await;
                continue;
            }
            match started(plan, peer, effort, work) {
                Ok(ctx) => taken.run(plan, family, ctx).await,
                Err(error) => taken.fail(plan, family, &error),
            }
        }
    }
    taken.finish(plan, peer.name().to_owned(), peer.version())
}

/// Takes the measures that have servers of both kinds in one run of the family, and adds that to what was taken of each.
pub async fn together(plan: &Plan, peers: &[Peer], work: &Path, servers: &mut [Taken]) {
    let Some((warren, others)) = peers.split_first() else { return };
    let mut taken = [Gathered::default(), Gathered::default()];
    let wanted = Family::ALL.into_iter().filter(|family| family.is_together() && plan.needs(*family));
    for family in wanted {
        for _ in 0..plan.rounds {
            eprintln!("{family:?}");
            let mut ctx = several(warren, others.first(), work);
            let result = family.run_several(&mut ctx).await;
            let failure = result.as_ref().err().map(|error| Err(Error::Implausible(error.to_string())));
            let [ours, theirs] = &mut taken;
            ours.gather(plan, family, ctx.figures, result);
            theirs.gather(plan, family, ctx.of_synapse, failure.unwrap_or(Ok(())));
        }
    }
    for (taken, server) in taken.into_iter().zip(servers) {
        let more = taken.finish(plan, String::new(), String::new());
        server.figures.extend(more.figures);
        server.failures.extend(more.failures);
    }
}

fn several<'a>(warren: &'a Peer, synapse: Option<&'a Peer>, work: &Path) -> Several<'a> {
    Several { disk: work.to_owned(), warren, synapse, figures: Vec::new(), of_synapse: Vec::new() }
}

fn started(plan: &Plan, peer: &Peer, effort: Effort, work: &Path) -> Result<Context> {
    let folder = work.join("server");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(Error::system(format!("empty {}", folder.display())))?;
    }
    let running = peer.start(&folder)?;
    let mut ctx = context(plan, running.homeserver()?, effort, work);
    ctx.local = Some(Local { pid: running.pid(), data: Some(running.data()) });
    ctx.running = Some(running);
    Ok(ctx)
}

fn context(plan: &Plan, homeserver: Homeserver, effort: Effort, work: &Path) -> Context {
    Context {
        homeserver,
        disk: work.to_owned(),
        effort,
        time: plan.time,
        rate: plan.rate,
        local: None,
        running: None,
        figures: Vec::new(),
        memory_peak: 0,
    }
}

/// Figures of all rounds.
#[derive(Default)]
struct Gathered {
    figures: Vec<Figure>,
    failures: Vec<Failure>,
    memory_peak: u64,
}

impl Gathered {
    async fn run(&mut self, plan: &Plan, family: Family, mut ctx: Context) {
        let result = family.run(&mut ctx).await;
        ctx.note_memory();
        self.memory_peak = self.memory_peak.max(ctx.memory_peak);
        self.gather(plan, family, ctx.figures, result);
        // Requests still under way must not meet the next server.
        if let Some(mut running) = ctx.running.take()
            && let Err(error) = running.stop()
        {
            eprintln!("  {error}");
        }
    }

    fn run_in_process(&mut self, plan: &Plan, family: Family, work: &Path) {
        let mut ctx = InProcess { disk: work, wanted: &plan.wanted, figures: Vec::new() };
        let result = family.run_in_process(&mut ctx);
        self.gather(plan, family, ctx.figures, result);
    }

    async fn run_several(&mut self, plan: &Plan, family: Family, warren: &Peer, work: &Path) {
        let mut ctx = several(warren, None, work);
        let result = family.run_several(&mut ctx).await;
        self.gather(plan, family, ctx.figures, result);
    }

    fn gather(&mut self, plan: &Plan, family: Family, figures: Vec<Figure>, result: Result<()>) {
        for figure in figures {
            let note = figure.note.as_deref().unwrap_or_default();
            eprintln!("  {}: {:.3} {note}", figure.measure, figure.value);
            self.figures.push(figure);
        }
        if let Err(error) = result {
            self.fail(plan, family, &error);
        }
    }

    /// Notes why the family's remaining measures have no figure.
    fn fail(&mut self, plan: &Plan, family: Family, error: &Error) {
        eprintln!("  failed: {error}");
        let missing = MEASURES.iter().filter(|measure| measure.family == family && plan.wants(measure));
        for measure in missing.filter(|measure| measure.name != MEMORY_PEAK) {
            let known = self.failures.iter().any(|failure| failure.measure == measure.name);
            if !known && !self.figures.iter().any(|figure| figure.measure == measure.name) {
                self.failures.push(Failure { measure: measure.name, reason: error.to_string() });
            }
        }
    }

    /// The medians, in the table's order.
    fn finish(mut self, plan: &Plan, server: String, version: String) -> Taken {
        if self.memory_peak > 0 {
            self.figures.push(Figure::new(MEMORY_PEAK, self.memory_peak as f64 / MEBIBYTE));
        }
        let figures = MEASURES.iter().filter(|measure| plan.wants(measure)).filter_map(|measure| {
            let of_all_rounds = self.figures.iter().filter(|figure| figure.measure == measure.name).cloned();
            median_by(of_all_rounds.collect(), |figure| figure.value)
        });
        Taken { server, version, figures: figures.collect(), failures: self.failures }
    }
}
