//! Drives workers against a server and times what they do, in one of two ways.
//!
//! *Closed loop*: every worker begins its next step when the last one ended. Gives the throughput; its latencies are
//! those of a saturated server, and while the server stalls no request is counted, which flatters it.
//! *Open loop*: steps begin by a schedule that does not ask how the server fares, and a latency counts from the moment
//! its step was *meant* to begin. A stall is thereby seen by every step that it delayed (no coordinated omission).
//!
//! Both are bounded in number and in time. The first failure of any worker ends the load and is its result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::histogram::Histogram;
use crate::matrix::finished;

/// One simulated user, or one connection of one.
pub trait Worker: Send + 'static {
    /// Does the thing that is measured, once.
    fn step(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Where a load ends: at whichever comes first.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Steps of all workers together.
    pub count: u64,
    /// From the first step's beginning; steps under way are finished and counted.
    pub time: Duration,
}

/// What a load did.
#[derive(Debug)]
pub struct Outcome {
    /// Steps done.
    pub done: u64,
    /// From the first step's beginning to the last one's end.
    pub elapsed: Duration,
    /// Of every step.
    pub latencies: Histogram,
}

impl Outcome {
    /// Steps per second.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }
}

/// Runs the workers in a closed loop and gives them back for the next load.
pub async fn closed<W: Worker>(workers: Vec<W>, bounds: Bounds) -> Result<(Vec<W>, Outcome)> {
    let started = Instant::now();
    let taken = Arc::new(AtomicU64::new(0));
    run(workers, started, move |mut worker, failed| {
        let taken = Arc::clone(&taken);
        async move {
            let mut latencies = Histogram::default();
            while started.elapsed() < bounds.time
                && !failed.load(Ordering::Relaxed)
                && taken.fetch_add(1, Ordering::Relaxed) < bounds.count
            {
                let begun = Instant::now();
                worker.step().await?;
                latencies.record(begun.elapsed());
            }
            Ok((worker, latencies))
        }
    })
    .await
}

/// Runs the workers in an open loop at `rate` steps per second; see the module.
///
/// A thread of its own keeps the schedule, for the runtime's timers are only exact to a millisecond.
pub async fn open<W: Worker>(workers: Vec<W>, rate: f64, bounds: Bounds) -> Result<(Vec<W>, Outcome)> {
    let total = bounds.count.min((rate * bounds.time.as_secs_f64()) as u64);
    let due = Arc::new(Semaphore::new(0));
    let started = Instant::now();
    let pacer = {
        let due = Arc::clone(&due);
        std::thread::spawn(move || pace(&due, started, rate, total))
    };
    let taken = Arc::new(AtomicU64::new(0));
    let schedule = Arc::clone(&due);
    let ended = run(workers, started, move |mut worker, failed| {
        let (due, taken) = (Arc::clone(&schedule), Arc::clone(&taken));
        async move {
            let mut latencies = Histogram::default();
            while let Ok(permit) = due.acquire().await {
                permit.forget();
                let number = taken.fetch_add(1, Ordering::Relaxed);
                if number >= total || failed.load(Ordering::Relaxed) {
                    break;
                }
                let intended = intended(started, rate, number);
                worker.step().await?;
                latencies.record(intended.elapsed());
            }
            // Lets the next worker see the end, too.
            due.add_permits(1);
            Ok((worker, latencies))
        }
    })
    .await;
    due.close();
    if pacer.join().is_err() {
        return Err(Error::Implausible("the pacing thread panicked".to_owned()));
    }
    ended
}

/// Releases one permit at each intended beginning.
fn pace(due: &Semaphore, started: Instant, rate: f64, total: u64) {
    for number in 0..total {
        if due.is_closed() {
            return;
        }
        let wait = intended(started, rate, number).saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        due.add_permits(1);
    }
    due.add_permits(1);
}

fn intended(started: Instant, rate: f64, number: u64) -> Instant {
    started + Duration::from_secs_f64(number as f64 / rate)
}

/// Spawns one task per worker and gathers what they did.
async fn run<W, F, R>(workers: Vec<W>, started: Instant, task: F) -> Result<(Vec<W>, Outcome)>
where
    W: Worker,
    F: Fn(W, Arc<AtomicBool>) -> R,
    R: Future<Output = Result<(W, Histogram)>> + Send + 'static,
{
    let failed = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for worker in workers {
        tasks.spawn(task(worker, Arc::clone(&failed)));
    }
    let mut workers = Vec::with_capacity(tasks.len());
    let mut latencies = Histogram::default();
    while let Some(joined) = tasks.join_next().await {
        match finished(joined) {
            Ok((worker, own)) => {
                latencies.merge(&own);
                workers.push(worker);
            }
            Err(error) => {
                failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
    }
    Ok((workers, Outcome { done: latencies.count(), elapsed: started.elapsed(), latencies }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers at once, but for one step that stalls.
    struct Stalling {
        steps: u64,
        stalls_at: u64,
        stall: Duration,
    }

    impl Worker for Stalling {
        async fn step(&mut self) -> Result<()> {
            self.steps += 1;
            if self.steps == self.stalls_at {
                tokio::time::sleep(self.stall).await;
            }
            Ok(())
        }
    }

    struct Failing;

    impl Worker for Failing {
        async fn step(&mut self) -> Result<()> {
            Err(Error::Needs("nothing"))
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    fn stalling(stalls_at: u64) -> Vec<Stalling> {
        vec![Stalling { steps: 0, stalls_at, stall: Duration::from_millis(100) }]
    }

    #[tokio::test]
    async fn a_closed_loop_ends_at_its_count() {
        let workers: Vec<Stalling> = (0..7).flat_map(|_| stalling(0)).collect();
        let (workers, outcome) = closed(workers, Bounds { count: 1_000, time: LONG }).await.expect("runs");
        assert_eq!((workers.len(), outcome.done), (7, 1_000));
        assert_eq!(workers.iter().map(|worker| worker.steps).sum::<u64>(), 1_000);
    }

    #[tokio::test]
    async fn a_closed_loop_ends_at_its_time() {
        let bounds = Bounds { count: u64::MAX, time: Duration::from_millis(20) };
        let (_, outcome) = closed(stalling(0), bounds).await.expect("runs");
        assert!(outcome.elapsed >= bounds.time && outcome.done > 0);
    }

    #[tokio::test]
    async fn a_stall_shows_in_the_open_loop_and_hides_in_the_closed_one() {
        let bounds = Bounds { count: 200, time: LONG };
        let (_, hidden) = closed(stalling(50), bounds).await.expect("runs");
        let (_, seen) = open(stalling(50), 1_000.0, bounds).await.expect("runs");
        assert_eq!((hidden.done, seen.done), (200, 200));
        let long = Duration::from_millis(20);
        assert!(hidden.latencies.percentile(0.99) < long);
        // Steps 50 to 150 of 200 were meant to begin while the server stalled.
        assert!(seen.latencies.percentile(0.70) > long, "{:?}", seen.latencies.summary());
    }

    #[tokio::test]
    async fn the_first_failure_is_the_result() {
        let bounds = Bounds { count: 10, time: LONG };
        assert!(matches!(closed(vec![Failing, Failing], bounds).await, Err(Error::Needs(_))));
        assert!(matches!(open(vec![Failing, Failing], 1_000.0, bounds).await, Err(Error::Needs(_))));
    }
}
