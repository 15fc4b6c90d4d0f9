//! `warren-sim`: plays the plans of many seeds on all cores, and tells of those that fail.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Instant, SystemTime},
};

use clap::Parser;
use parking_lot::Mutex;
use warren_sim::{Plan, Plant, play, run};

/// Failures that are shrunk and told; more of them say little more.
const FAILURES_MAX: usize = 5;

/// Plays simulated runs of several servers and checks what the engine promises.
#[derive(Parser)]
struct Arguments {
    /// The first seed; by default one from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// How many run at once; by default one on each core.
    #[arg(long)]
    threads: Option<usize>,
    /// Tell what happens in each run, also when it does not fail.
    #[arg(long)]
    story: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let by_clock = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let seed = arguments.seed.unwrap_or_else(by_clock);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.unwrap_or(cores).max(1);
    // A panic is a finding like others, told with its story.
    std::panic::set_hook(Box::new(|_| {}));
    let (next, failed, begun) = (AtomicU64::new(0), AtomicUsize::new(0), Instant::now());
    let told = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= arguments.runs || failed.load(Ordering::Relaxed) >= FAILURES_MAX {
                        return;
                    }
                    let seed = seed.wrapping_add(index);
                    if arguments.story {
                        tell(seed, &told);
                    }
                    if let Err(failure) = run(seed, Plant::Nothing) {
                        failed.fetch_add(1, Ordering::Relaxed);
                        let _one_at_a_time = told.lock();
                        println!("{failure}\n     again: ./x sim --seed {seed} --runs 1\n");
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    let runs = arguments.runs.min(next.into_inner());
    println!(
        "simulated {runs} runs from seed {seed} in {:.1} s, {failed} failed",
        begun.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(seed: u64, told: &Mutex<u64>) {
    let plan = Plan::new(seed);
    let story = play(&plan, Plant::Nothing).story;
    let _one_at_a_time = told.lock();
    println!("seed {seed}, {} server(s), version {}", plan.servers, plan.version);
    for (index, sentence) in story.iter().enumerate() {
        println!("{:>3}. {sentence}", index + 1);
    }
}
