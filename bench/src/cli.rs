//! The command line.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::client::Address;
use crate::context::{Effort, Local};
use crate::error::{Error, Result};
use crate::machine;
use crate::matrix::{Homeserver, Registration};
use crate::measures::{MEASURES, Measure, find};
use crate::peers::Peer;
use crate::report::{Report, text};
use crate::run::{self, Plan};

/// Load generator for Matrix homeservers.
#[derive(Parser)]
#[command(name = "warren-bench", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a homeserver that runs already
    Run(RunArguments),
    /// Start Warren and Synapse on fresh folders, one after the other, and compare them
    Compare(CompareArguments),
    /// Hold Warren against its bars: name, figure, bar and verdict per line, separated by tabs
    Bars(BarsArguments),
    /// List the measures
    List,
}

#[derive(Args)]
struct PlanArguments {
    /// Take only these measures; all when none is given
    #[arg(value_name = "NAME")]
    measures: Vec<String>,
    /// How long one load lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 8)]
    seconds: u64,
    /// How often each measure is taken; figures are medians
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Steps per second of the open loop; half of the closed loop's throughput when not given
    #[arg(long)]
    rate: Option<f64>,
    /// Where all figures are written as JSON; target/bench/<command>.json below the working folder when not given
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the picture is written; target/bench/<command>.html below the working folder when not given
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Folder for the servers' data, on the disk to be measured; emptied afterwards
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

#[derive(Args)]
struct RunArguments {
    /// Where the homeserver is, e.g. http://127.0.0.1:8008
    #[arg(long, value_name = "URL")]
    base_url: String,
    /// Register by this shared secret; by m.login.dummy when not given
    #[arg(long, value_name = "SECRET")]
    shared_secret: Option<String>,
    /// The server's process, to count its processor time and memory
    #[arg(long)]
    pid: Option<u32>,
    /// The folder with the server's data, to count its disk
    #[arg(long, value_name = "DIR", requires = "pid")]
    data_dir: Option<PathBuf>,
    /// Ask less of a slow server: same shapes, fewer events and repetitions
    #[arg(long)]
    reduced: bool,
    #[command(flatten)]
    plan: PlanArguments,
}

#[derive(Args)]
struct CompareArguments {
    /// Warren's binary; the one beside this program when not given
    #[arg(long, value_name = "FILE", env = "WARREN_BINARY")]
    warren: Option<PathBuf>,
    /// Give Synapse the whole load before its memory and disk are looked at: takes half an hour longer
    #[arg(long)]
    patient: bool,
    #[command(flatten)]
    plan: PlanArguments,
}

#[derive(Args)]
struct BarsArguments {
    /// Leave out the ratios to Synapse
    #[arg(long)]
    no_synapse: bool,
    #[command(flatten)]
    compare: CompareArguments,
}

/// Does what the command line says.
pub async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => run(arguments).await.map(|()| true),
        Command::Compare(arguments) => compare(&arguments).await.map(|()| true),
        Command::Bars(arguments) => bars(&arguments).await,
        Command::List => list().map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("warren-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn list() -> Result<()> {
    let row = |measure: &Measure| format!("{}\t{}\t{}\n", measure.name, measure.unit, measure.title);
    print(&MEASURES.iter().map(row).collect::<String>())
}

/// Prints; a reader who went away is no failure, for the files are still to be written.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::system("print")(error)),
        _ => Ok(()),
    }
}

async fn run(arguments: RunArguments) -> Result<()> {
    let plan = plan(&arguments.plan)?;
    let work = WorkFolder::make(&arguments.plan)?;
    let registration = arguments.shared_secret.map_or(Registration::Open, Registration::SharedSecret);
    let homeserver = Homeserver { address: Address::parse(&arguments.base_url)?, registration };
    let effort = if arguments.reduced { Effort::Reduced } else { Effort::Full };
    let local = arguments.pid.map(|pid| Local { pid, data: arguments.data_dir });
    let machine = machine::measure(&work.0).await?;
    let taken = run::running(&plan, homeserver, effort, local, &work.0).await;
    let report = Report::new(machine, vec![taken]);
    print(&text::table(&report))?;
    write(&report, &arguments.plan, "run")
}

async fn compare(arguments: &CompareArguments) -> Result<()> {
    let peers = [Peer::warren(arguments.warren.as_deref())?, Peer::synapse()?];
    let mut plan = Plan { patient: arguments.patient, ..plan(&arguments.plan)? };
    if plan.wanted.is_empty() {
        // What only one of them can take compares nothing.
        let of_both = MEASURES.iter().filter(|measure| measure.family.for_slow_peers());
        plan.wanted = of_both.map(|measure| measure.name.to_owned()).collect();
    }
    let report = measured(&plan, &arguments.plan, &peers).await?;
    print(&text::table(&report))?;
    write(&report, &arguments.plan, "compare")
}

/// Whether every bar is reached.
async fn bars(arguments: &BarsArguments) -> Result<bool> {
    let plan = Plan { patient: arguments.compare.patient, ..plan(&arguments.compare.plan)? };
    let mut peers = vec![Peer::warren(arguments.compare.warren.as_deref())?];
    let of_both = MEASURES.iter().any(|measure| measure.family.for_slow_peers() && plan.wants(measure));
    if of_both && !arguments.no_synapse {
        peers.push(Peer::synapse()?);
    }
    let report = measured(&plan, &arguments.compare.plan, &peers).await?;
    let lines = text::bars(&report);
    for line in &lines {
        print(&format!("{line}\n"))?;
    }
    write(&report, &arguments.compare.plan, "bars")?;
    Ok(lines.iter().all(|line| line.reached))
}

async fn measured(plan: &Plan, arguments: &PlanArguments, peers: &[Peer]) -> Result<Report> {
    let work = WorkFolder::make(arguments)?;
    let machine = machine::measure(&work.0).await?;
    let mut servers = Vec::new();
    for peer in peers {
        servers.push(run::fresh(plan, peer, &work.0).await);
    }
    run::together(plan, peers, &work.0, &mut servers).await;
    Ok(Report::new(machine, servers))
}

fn plan(arguments: &PlanArguments) -> Result<Plan> {
    for name in &arguments.measures {
        if find(name).is_none() {
            return Err(Error::Implausible(format!(
                "there is no measure {name:?}; `warren-bench list` names them"
            )));
        }
    }
    Ok(Plan {
        wanted: arguments.measures.iter().cloned().collect::<BTreeSet<_>>(),
        time: Duration::from_secs(arguments.seconds.max(1)),
        rounds: arguments.rounds.max(1),
        rate: arguments.rate.filter(|rate| *rate > 0.0),
        patient: false,
    })
}

/// Where reports go that no place was named for: what is built is not kept, and neither are they.
const REPORTS: &str = "target/bench";

fn write(report: &Report, arguments: &PlanArguments, command: &str) -> Result<()> {
    let place = |named: &Option<PathBuf>, kind: &str| -> Result<PathBuf> {
        if let Some(path) = named {
            return Ok(path.clone());
        }
        std::fs::create_dir_all(REPORTS).map_err(Error::system(format!("create {REPORTS}")))?;
        Ok(Path::new(REPORTS).join(format!("{command}.{kind}")))
    };
    let (json, html) = (place(&arguments.json, "json")?, place(&arguments.html, "html")?);
    report.write_json(&json)?;
    report.write_html(&html)?;
    eprintln!("All figures are in {}, a picture of them in {}.", json.display(), html.display());
    Ok(())
}

/// A folder of this run alone; removed with all that is in it when the run ends.
struct WorkFolder(PathBuf);

impl WorkFolder {
    fn make(arguments: &PlanArguments) -> Result<WorkFolder> {
        let parent = match &arguments.work_dir {
            Some(folder) => folder.clone(),
            None => crate::peers::cache_folder()?.join("bench"),
        };
        let folder = parent.join(format!("run-{}", std::process::id()));
        let failed = || Error::system(format!("create {}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(failed())?;
        folder.canonicalize().map(WorkFolder).map_err(failed())
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
