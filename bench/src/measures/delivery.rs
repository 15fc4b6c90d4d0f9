//! From the beginning of a send to the end of the sync answers that bring it, with clients that wait in a long poll.
//!
//! A round begins when the server is quiet, so that all wait. Its time counts from before the send's request.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::context::{Context, Figure, QUIET};
use crate::error::{Error, Result};
use crate::histogram::{Histogram, milliseconds};
use crate::matrix::{Account, EncodedRoom, Session, join_all, text_message};
use crate::scan;

/// Stands in each round's message before the round's number.
const MARK: &str = "delivery-";
/// Rounds are bounded by this number and by the load's time.
const ROUNDS_MAX: u64 = 300;
/// The same for slow peers.
const ROUNDS_REDUCED: u64 = 30;
/// An answer that has not come after this long will not.
const ANSWER_SECONDS_MAX: u64 = 60;

/// When a client that was answered asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskAgain {
    /// At once, as clients do; the cost of asking is part of the round's.
    AtOnce,
    /// When all have been answered; a round's cost is that of the answers alone.
    Together,
}

/// What the rounds gave.
pub struct Rounds {
    /// Until the last of the waiting was answered.
    pub latencies: Histogram,
    /// The server's processor time from send to last answer, all rounds together.
    pub answering: Option<Duration>,
    /// The server's processor time with asking again, per delivery.
    pub per_delivery: Option<Duration>,
}

/// A sender, and members of its room who wait.
pub struct Audience {
    sender: Session,
    room: EncodedRoom,
    waiting: u32,
    ask_again: AskAgain,
    answers: mpsc::UnboundedReceiver<Result<(u64, Instant)>>,
    ended_rounds: watch::Sender<u64>,
    // Ends the waiting clients with the audience.
    _clients: JoinSet<()>,
}

/// One waiting sync, then a hundred, each in a room of their own.
pub async fn run(ctx: &mut Context) -> Result<()> {
    for (measure, waiting) in [("deliver-one", 1), ("deliver-100", 100)] {
        let accounts = ctx.homeserver.register("reader", waiting).await?;
        let mut sender =
            ctx.homeserver.sessions("writer", 1).await?.pop().ok_or(Error::Needs("an account"))?;
        let room = sender.create_room(true).await?;
        join_all(&ctx.homeserver, &accounts, &room).await?;
        let mut audience = Audience::gather(ctx, sender, &room, accounts, AskAgain::AtOnce).await?;
        let before = ctx.append_sync(QUIET)?;
        let rounds = audience.rounds(ctx, ctx.number(ROUNDS_MAX, ROUNDS_REDUCED)).await?;
        let summary = rounds.latencies.summary();
        let figure = Figure { latencies: Some(summary), ..Figure::new(measure, summary.p50_ms) };
        ctx.take(figure.on_disk(before, ctx.append_sync(QUIET)?));
        if let (Some(cpu), "deliver-100") = (rounds.per_delivery, measure) {
            ctx.take(Figure::new("deliver-cpu", milliseconds(cpu)));
        }
    }
    Ok(())
}

impl Audience {
    /// Lets the accounts, members of the room already, begin to wait.
    pub async fn gather(
        ctx: &Context,
        sender: Session,
        room: &str,
        accounts: Vec<Account>,
        ask_again: AskAgain,
    ) -> Result<Audience> {
        let (report, answers) = mpsc::unbounded_channel();
        let ended_rounds = watch::Sender::new(0);
        let mut clients = JoinSet::new();
        let waiting = accounts.len() as u32;
        for account in accounts {
            let mut session = ctx.homeserver.session(account);
            let since = session.position().await?;
            let round = (ask_again == AskAgain::Together).then(|| ended_rounds.subscribe());
            clients.spawn(wait_for_rounds(session, since, report.clone(), round));
        }
        let room = EncodedRoom::new(room);
        Ok(Audience { sender, room, waiting, ask_again, answers, ended_rounds, _clients: clients })
    }

    /// Sends once per round, and gathers the answers. The first round warms up and is not counted.
    pub async fn rounds(&mut self, ctx: &Context, rounds_max: u64) -> Result<Rounds> {
        ctx.quiet(self.waiting).await?;
        self.round(1).await?;
        self.ended_rounds.send_replace(1);
        let mut rounds = Rounds { latencies: Histogram::default(), answering: None, per_delivery: None };
        let whole = ctx.meter()?;
        let begun = Instant::now();
        for number in 2..rounds_max + 2 {
            ctx.quiet(self.waiting).await?;
            if begun.elapsed() > ctx.time && rounds.latencies.count() > 0 {
                break;
            }
            let meter = ctx.meter()?;
            rounds.latencies.record(self.round(number).await?);
            if self.ask_again == AskAgain::Together {
                let used = meter.stop(ctx)?.server_cpu_s.map(Duration::from_secs_f64);
                rounds.answering = used.map(|used| used + rounds.answering.unwrap_or_default());
            }
            self.ended_rounds.send_replace(number);
        }
        ctx.quiet(self.waiting).await?;
        let deliveries = rounds.latencies.count() as f64 * f64::from(self.waiting);
        let used = whole.stop(ctx)?.server_cpu_s;
        rounds.per_delivery = used.map(|used| Duration::from_secs_f64(used / deliveries));
        Ok(rounds)
    }

    /// One send and all its deliveries: the time until the last.
    async fn round(&mut self, number: u64) -> Result<Duration> {
        let body = text_message(&format!("{MARK}{number}"));
        let begun = Instant::now();
        self.sender.send(&self.room, body).await?;
        let mut last = begun;
        let mut missing = self.waiting;
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        while missing > 0 {
            let answer = tokio::time::timeout(limit, self.answers.recv()).await;
            let Ok(Some(answer)) = answer else {
                return Err(Error::Implausible(format!("{missing} of {} were not answered", self.waiting)));
            };
            let (round, at) = answer?;
            if round == number {
                last = last.max(at);
                missing -= 1;
            }
        }
        Ok(last.duration_since(begun))
    }
}

/// A waiting client: reports each round's message once, and when its answer was complete.
async fn wait_for_rounds(
    mut session: Session,
    mut since: String,
    report: mpsc::UnboundedSender<Result<(u64, Instant)>>,
    mut ended_rounds: Option<watch::Receiver<u64>>,
) {
    loop {
        let answer = session.wait(&since).await;
        let at = Instant::now();
        let (body, next) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // The audience may be gone by now, and then nobody minds.
                let _ = report.send(Err(error));
                return;
            }
        };
        since = next;
        let Some(round) = round_in(&body) else { continue };
        if report.send(Ok((round, at))).is_err() {
            return;
        }
        if let Some(ended_rounds) = &mut ended_rounds
            && ended_rounds.wait_for(|ended| *ended >= round).await.is_err()
        {
            return;
        }
    }
}

/// The round whose message an answer holds.
fn round_in(body: &[u8]) -> Option<u64> {
    let at = scan::find(body, MARK.as_bytes())?;
    let digits = body.get(at + MARK.len()..)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_read_from_its_message() {
        assert_eq!(round_in(&text_message("delivery-17")), Some(17));
        assert_eq!(round_in(&text_message("sent")), None);
        assert_eq!(round_in(b"delivery-"), None);
        assert_eq!(round_in(b"delivery-x "), None);
    }
}
