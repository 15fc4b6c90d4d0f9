//! The background workers and tasks: two tables with one row each, beside the engine's table of chores. Nothing else in the server
//! runs without a request.
//!
//! Invariant: what falls with a fault of ours is counted and logged, and takes nothing with it that would have to go on.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use metrics::counter;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use warren_engine::housekeeping::{CHORES, Chore};
use warren_engine::view::{RoomsToMerge, StoredFiles};

use crate::context::Context;
use crate::errands;
use crate::federation::out::{complete, devices, early_receipts, ends, fetch, sender, unchecked};
use crate::http::ApiError;
use crate::recovery;

/// How often it is looked for receipts that take effect late: what matters is the look at the start. Each costs a look at all that
/// wait.
const SETTLE_RECEIPTS: Duration = Duration::from_secs(60 * 60);

/// How long a task that has fallen waits before it begins anew: one that always falls must not take a processor, nor fill the
/// log.
const FALL_PAUSE: Duration = Duration::from_secs(10);

/// The engine's chore about presence.
const PRESENCE: &str = "presence";

/// Work that is done again and again.
pub struct Worker {
    pub name: &'static str,
    pub every: Duration,
    /// One round. Must be short: it runs on a request thread.
    pub round: fn(&Arc<Context>),
}

/// All workers, beside the engine's own chores.
pub const WORKERS: &[Worker] = &[
    Worker { name: "certificate", every: Duration::from_secs(10), round: reload_certificate },
    Worker { name: "rate limits", every: Duration::from_secs(60), round: |ctx| ctx.rate_limits.sweep() },
    Worker { name: "authentications", every: Duration::from_secs(60), round: |ctx| ctx.uia.sweep() },
    Worker { name: "failing store", every: recovery::LOOK_EVERY, round: recovery::look },
    Worker { name: "missing events", every: Duration::from_secs(15), round: fetch::take_up_parked },
    Worker { name: "missing members", every: Duration::from_secs(60), round: complete::take_up },
    Worker { name: "unchecked events", every: Duration::from_secs(5), round: unchecked::take_up },
    Worker { name: "receipts that waited", every: SETTLE_RECEIPTS, round: early_receipts::settle_all },
    Worker { name: "unfinished work", every: Duration::from_secs(5), round: errands::take_up },
    Worker { name: "forked rooms", every: Duration::from_secs(5 * 60), round: merge_ends },
    Worker { name: "media sweep", every: Duration::from_secs(24 * 60 * 60), round: sweep_media },
    Worker { name: "metrics", every: Duration::from_secs(5), round: |ctx| ctx.metrics.upkeep() },
];

/// Work under way.
type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Work that goes on by itself until the server stops.
pub struct Task {
    pub name: &'static str,
    pub run: fn(Arc<Context>) -> Running,
}

/// All tasks.
pub const TASKS: &[Task] = &[
    Task { name: "deliveries to other servers", run: |ctx| Box::pin(sender::run(ctx)) },
    Task { name: "device lists of other servers", run: |ctx| Box::pin(devices::run(ctx)) },
];

/// What is under way by itself, or goes on though its client has gone, and ends before the runtime does: a task that is at work while
/// that goes, as with a long look into the database, would find no timers any more when it goes on.
pub struct UnderWay {
    /// Whoever holds a receiver is one of them.
    tasks: watch::Sender<()>,
}

impl Default for UnderWay {
    fn default() -> UnderWay {
        UnderWay { tasks: watch::channel(()).0 }
    }
}

impl UnderWay {
    /// Work that counts as under way until it is done, or dropped.
    pub fn counted<T, F: Future<Output = T>>(&self, work: F) -> impl Future<Output = T> + use<T, F> {
        let counted = self.tasks.subscribe();
        async move {
            let _counted = counted;
            work.await
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(self.counted(work)));
    }

    /// Waits until nothing is under way, but no longer than this. Answers whether nothing is.
    pub async fn over(&self, time_max: Duration) -> bool {
        timeout(time_max, self.tasks.closed()).await.is_ok()
    }
}

/// Starts all workers and tasks; they end with the server.
pub fn start(ctx: &Arc<Context>) {
    for task in TASKS.iter().filter(|_| ctx.config.federation) {
        debug!(name = task.name, "a task starts");
        let work = ctx.clone();
        let begin = move || (task.run)(work.clone());
        ctx.under_way.spawn(keep_up(ctx.shutdown.clone(), task.name, FALL_PAUSE, begin));
    }
    for worker in WORKERS {
        debug!(name = worker.name, "a worker starts");
        let work = ctx.clone();
        let round = move || (worker.round)(&work);
        ctx.under_way.spawn(keep_on(ctx.shutdown.clone(), worker.name, worker.every, round));
    }
    // Who was there before presence was turned off is not taken up again.
    for chore in CHORES.iter().filter(|chore| ctx.config.presence || chore.name != PRESENCE) {
        debug!(name = chore.name, "a chore of the engine's starts");
        let work = ctx.clone();
        let round = move || keep_house(&work, chore);
        ctx.under_way.spawn(keep_on(ctx.shutdown.clone(), chore.name, chore.every, round));
    }
}

/// Begins a task anew whenever it falls. It ends by itself only when the server does.
async fn keep_up(
    shutdown: CancellationToken,
    name: &'static str,
    pause: Duration,
    begin: impl Fn() -> Running,
) {
    while guarded(name, begin()).await.is_none() {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Does one round after the other. After one that falls the next comes when it is due.
async fn keep_on(shutdown: CancellationToken, name: &'static str, every: Duration, round: impl Fn()) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {
                guarded(name, async { round() }).await;
            }
        }
    }
}

/// Does work. When it falls with a fault of ours, all that it holds is dropped and there is no answer; the fall is counted, and
/// logged under the work's name. Who called goes on.
pub async fn guarded<T>(name: &str, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    std::future::poll_fn(|task| {
        // It is never polled again after a panic, so nothing can see a broken invariant of it.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(task))) {
            Ok(polled) => polled.map(Some),
            Err(fault) => {
                fell(name, words(&*fault));
                Poll::Ready(None)
            }
        }
    })
    .await
}

/// What a task of its own came to; nothing if it fell, which is counted and logged, or was ended.
pub fn ended<T>(name: &str, ended: Result<T, JoinError>) -> Option<T> {
    ended
        .inspect_err(|error| {
            if error.is_panic() {
                fell(name, error)
            }
        })
        .ok()
}

fn fell(name: &str, fault: impl Display) {
    counter!("warren_tasks_fallen_total").increment(1);
    tracing::error!(name, %fault, "a task fell");
}

/// What a panic says; all of ours say something.
fn words(fault: &(dyn Any + Send)) -> &str {
    let text = fault.downcast_ref::<&str>().copied();
    text.or_else(|| fault.downcast_ref::<String>().map(String::as_str)).unwrap_or_default()
}

fn keep_house(ctx: &Context, chore: &Chore) {
    if let Err(error) = ctx.housekeeping.run(&ctx.engine, chore) {
        warn!(chore = chore.name, %error, "a chore of the engine's could not be done");
    }
}

/// What is said in the rooms meanwhile does the same, so there is no hurry.
fn merge_ends(ctx: &Arc<Context>) {
    let rooms = match tokio::task::block_in_place(|| ctx.engine.read(&RoomsToMerge)) {
        Ok(rooms) => rooms,
        Err(error) => return warn!(%error, "it cannot be told which rooms have forked"),
    };
    let work = ctx.clone();
    run(ctx, "merging of forked rooms", async move {
        for room_id in rooms {
            ends::merge(&work, &room_id).await;
        }
    });
}

/// The first time when the server starts. Other requests go to other threads meanwhile.
fn sweep_media(ctx: &Arc<Context>) {
    tokio::task::block_in_place(|| match ctx.engine.read(&StoredFiles) {
        Ok(files) => ctx.media.sweep(files),
        Err(error) => warn!(%error, "it cannot be told which media are in use; none are swept"),
    });
}

/// Takes up a certificate that has changed.
pub fn reload_certificate(ctx: &Arc<Context>) {
    match ctx.certificate.as_ref().map(|certificate| certificate.reload()) {
        Some(Ok(true)) => info!("the certificate has changed and is in use"),
        Some(Err(error)) => warn!(%error, "the changed certificate cannot be used; the old one stays"),
        Some(Ok(false)) | None => {}
    }
}

/// Runs work that nobody waits for; it ends with the server at the latest. A mark that says that it is being done is to be
/// one that goes when it is dropped: so it does when the work falls.
pub fn run(ctx: &Context, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    let shutdown = ctx.shutdown.clone();
    ctx.under_way.spawn(async move {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            _ = guarded(name, work) => {}
        }
    });
}

/// Runs work side by side, and answers in its order; what fell with a fault of ours is missing. All of it ends when nobody
/// waits for it any more, and counts as under way until then.
pub async fn side_by_side<T: Send + 'static>(
    ctx: &Context,
    work: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    answers(ctx, work).await.into_iter().flatten().collect()
}

/// Runs work side by side of which nothing may be missing, and answers in its order. All of it ends when nobody waits for it
/// any more, and counts as under way until then.
///
/// Errors: 500 if something fell with a fault of ours; the rest was done all the same.
pub async fn all_side_by_side<T: Send + 'static>(
    ctx: &Context,
    work: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Result<Vec<T>, ApiError> {
    let answers: Option<Vec<T>> = answers(ctx, work).await.into_iter().collect();
    answers.ok_or_else(|| ApiError::internal("a task fell"))
}

async fn answers<T: Send + 'static>(
    ctx: &Context,
    work: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<Option<T>> {
    let mut tasks = tokio::task::JoinSet::new();
    for (index, work) in work.into_iter().enumerate() {
        tasks.spawn(ctx.under_way.counted(async move { (index, work.await) }));
    }
    let mut answers: Vec<Option<T>> = Vec::new();
    answers.resize_with(tasks.len(), || None);
    while let Some(task) = tasks.join_next().await {
        if let Some((index, answer)) = ended("work side by side", task)
            && let Some(place) = answers.get_mut(index)
        {
            *place = Some(answer);
        }
    }
    answers
}

/// Runs work of many writes to its end, also when the client that asked for it goes away meanwhile. It counts as under way until
/// it is done: the server stops no sooner, within its limit.
///
/// Errors: those of the work; 500 if it was cut off by the end of the server.
pub fn finish<T, E, W>(ctx: &Context, work: W) -> impl Future<Output = Result<T, ApiError>> + use<T, E, W>
where
    T: Send + 'static,
    E: Into<ApiError> + Send + 'static,
    W: Future<Output = Result<T, E>> + Send + 'static,
{
    let work = ctx.under_way.counted(work);
    async move {
        match ended("work of a request", tokio::spawn(work).await) {
            Some(done) => done.map_err(E::into),
            None => Err(cut_off()),
        }
    }
}

/// The same for work that tells what came of it before it is at its end.
///
/// Errors: what the work tells; 500 if it fell before, or was cut off by the end of the server.
pub async fn finish_behind<T, W>(
    ctx: &Context,
    work: impl FnOnce(oneshot::Sender<Result<T, ApiError>>) -> W,
) -> Result<T, ApiError>
where
    W: Future<Output = ()> + Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let work = ctx.under_way.counted(work(tell));
    drop(tokio::spawn(guarded("work of a request", work)));
    told.await.unwrap_or_else(|_| Err(cut_off()))
}

fn cut_off() -> ApiError {
    ApiError::internal("a task fell, or was cut off")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    /// Does something asynchronous, and answers with how many falls were counted meanwhile.
    fn falls(work: impl Future<Output = ()>) -> usize {
        let recorder = PrometheusBuilder::new().build_recorder();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        metrics::with_local_recorder(&recorder, || runtime.block_on(work));
        let page = recorder.handle().render();
        let line = page.lines().find_map(|line| line.strip_prefix("warren_tasks_fallen_total "));
        line.map_or(0, |count| count.parse().unwrap())
    }

    const QUICK: Duration = Duration::from_millis(1);

    #[test]
    fn a_worker_goes_on_after_a_round_that_falls() {
        let (rounds, shutdown) = (AtomicUsize::new(0), CancellationToken::new());
        let round = || match rounds.fetch_add(1, Ordering::Relaxed) {
            2 => shutdown.cancel(),
            number => panic!("round {number} falls"),
        };
        assert_eq!(falls(keep_on(shutdown.clone(), "a worker", QUICK, round)), 2);
        assert_eq!(rounds.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_task_that_falls_begins_anew() {
        let begun = Arc::new(AtomicUsize::new(0));
        let begin = || -> Running {
            let begun = begun.clone();
            Box::pin(async move {
                tokio::task::yield_now().await;
                assert!(begun.fetch_add(1, Ordering::Relaxed) == 2, "a fault of ours");
            })
        };
        assert_eq!(falls(keep_up(CancellationToken::new(), "a task", QUICK, begin)), 2);
        assert_eq!(begun.load(Ordering::Relaxed), 3);
        // It is not begun anew when the server stops.
        let shutdown = CancellationToken::new();
        let begin = || -> Running {
            shutdown.cancel();
            Box::pin(async { panic!("at the end") })
        };
        assert_eq!(falls(keep_up(shutdown.clone(), "a task", Duration::MAX, begin)), 1);
    }

    #[test]
    fn work_that_nobody_waits_for_is_counted_when_it_falls_and_lets_go_of_its_marks() {
        let folder = tempfile::tempdir().unwrap();
        let (mark, gone) = tokio::sync::oneshot::channel::<()>();
        let fallen = falls(async {
            let ctx = Context::of_tests(folder.path());
            run(&ctx, "work", async move {
                let _mark = mark;
                tokio::task::yield_now().await;
                panic!("a fault of ours");
            });
            assert!(gone.await.is_err(), "the mark is dropped");
        });
        assert_eq!(fallen, 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_end_waits_for_tasks_that_are_at_work() {
        let folder = tempfile::tempdir().unwrap();
        let ctx = Context::of_tests(folder.path());
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (end, may_end) = std::sync::mpsc::channel::<()>();
        run(&ctx, "a long look", async move {
            begun.send(()).unwrap();
            tokio::task::block_in_place(|| may_end.recv().unwrap());
            std::future::pending::<()>().await;
        });
        has_begun.await.unwrap();
        ctx.shutdown.cancel();
        assert!(!ctx.under_way.over(QUICK).await);
        end.send(()).unwrap();
        assert!(ctx.under_way.over(Duration::MAX).await);
    }

    /// Work that says when it has begun, and ends when it is told to.
    fn work_at_will() -> (
        impl Future<Output = Result<(), ApiError>> + Send + 'static,
        oneshot::Receiver<()>,
        oneshot::Sender<()>,
    ) {
        let ((begun, has_begun), (end, may_end)) = (oneshot::channel(), oneshot::channel());
        let work = async move {
            begun.send(()).unwrap();
            may_end.await.map_err(ApiError::internal)
        };
        (work, has_begun, end)
    }

    async fn is_waited_for_until(ctx: &Context, end: oneshot::Sender<()>) {
        assert!(!ctx.under_way.over(QUICK).await);
        end.send(()).unwrap();
        assert!(ctx.under_way.over(Duration::MAX).await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_end_waits_for_the_work_of_requests_whose_clients_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let ctx = Context::of_tests(folder.path());

        let (work, has_begun, end) = work_at_will();
        let request = tokio::spawn(finish(&ctx, work));
        has_begun.await.unwrap();
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        is_waited_for_until(&ctx, end).await;

        let (work, has_begun, end) = work_at_will();
        let behind = |tell: oneshot::Sender<Result<(), ApiError>>| async move {
            tell.send(Ok(())).unwrap();
            work.await.unwrap();
        };
        finish_behind(&ctx, behind).await.unwrap();
        has_begun.await.unwrap();
        is_waited_for_until(&ctx, end).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_end_waits_for_work_side_by_side_that_is_cut_off_in_the_midst_of_a_long_look() {
        let folder = tempfile::tempdir().unwrap();
        let ctx = Context::of_tests(folder.path());
        let (begun, has_begun) = oneshot::channel();
        let (end, may_end) = std::sync::mpsc::channel::<()>();
        let look = async move {
            begun.send(()).unwrap();
            tokio::task::block_in_place(|| may_end.recv().unwrap());
        };
        let asking = ctx.clone();
        let request = tokio::spawn(async move { side_by_side(&asking, [look]).await });
        has_begun.await.unwrap();
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        assert!(!ctx.under_way.over(QUICK).await);
        end.send(()).unwrap();
        assert!(ctx.under_way.over(Duration::MAX).await);
    }

    #[test]
    fn the_chore_about_presence_is_one() {
        assert!(CHORES.iter().any(|chore| chore.name == PRESENCE));
    }

    #[test]
    fn whoever_embeds_the_engine_is_told_of_each_of_its_chores() {
        let text = include_str!("../../docs/embedding.md");
        for chore in CHORES {
            let row = format!("| {} | {} s |", chore.name, chore.every.as_secs());
            assert!(text.lines().any(|line| line.starts_with(&row)), "docs/embedding.md lacks `{row}`");
        }
    }

    #[test]
    fn whoever_embeds_the_engine_is_told_of_all_that_may_be_left_unfinished() {
        let text = include_str!("../../docs/embedding.md");
        let views = include_str!("../../engine/src/view/unfinished.rs").lines();
        let views = views.filter_map(|line| line.strip_prefix("pub struct ")?.strip_suffix(';'));
        let views: Vec<&str> = views.chain(["Deactivations", "RoomsWithEarlyReceipts"]).collect();
        assert!(views.len() > 2, "{views:?}");
        for view in views {
            assert!(
                text.lines().any(|line| line.starts_with("| ") && line.contains(view)),
                "docs/embedding.md lacks {view}"
            );
        }
    }

    #[tokio::test]
    async fn what_fell_is_not_taken_for_done() {
        let folder = tempfile::tempdir().unwrap();
        let ctx = Context::of_tests(folder.path());
        let work = |falls: bool| {
            (0..3).map(move |number| async move {
                assert!(!falls || number != 1, "a fault of ours");
                number
            })
        };
        assert_eq!(all_side_by_side(&ctx, work(false)).await.unwrap(), [0, 1, 2]);
        assert_eq!(all_side_by_side(&ctx, work(true)).await.unwrap_err().status.as_u16(), 500);
        assert_eq!(side_by_side(&ctx, work(true)).await, [0, 2]);
    }
}
