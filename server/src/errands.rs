//! What was begun in many steps and has a durable mark in the engine until it is done: rooms of closed accounts are left, rooms are
//! told of new profiles, guests leave rooms that are closed to them, settings follow into rooms. It is taken up again after a start and, with longer and longer
//! pauses, where it could not be done.
//!
//! Invariant: one is at an errand at a time. The marks alone say what is to be done; what is remembered here is who is at it, and
//! what rests.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tracing::warn;
use warren_engine::view::{Deactivations, RoomsWithGuestsToRemove, UncarriedSettings, UnshownProfiles};
use warren_engine::{Engine, Error};

use crate::client::{account_deactivation, profile};
use crate::context::Context;
use crate::federation::out::{guests, join};
use crate::http::ApiError;
use crate::worker;

/// The pauses between attempts: what may be over in a moment, and servers that are gone for hours.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
];
/// After how many attempts what a room refuses to be told is given up: a day of them, as for events that wait.
const ATTEMPTS_MAX: usize = 50;
/// Errands that somebody is at, at once: most wait for a policy server, ten seconds if it is silent, and those of other rooms are
/// not to wait for that one.
const AT_ONCE_MAX: usize = 16;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Errand {
    /// A user's closed account leaves its rooms.
    Departure(String),
    /// A room is told of its users' profiles.
    Profiles(String),
    /// Guests leave a room.
    Guests(String),
    /// Users who came into a room are given what they set for the one that it replaces.
    Settings(String),
}

impl Errand {
    fn name(&self) -> &'static str {
        match self {
            Errand::Departure(_) => "rooms of a closed account",
            Errand::Profiles(_) => "new profiles in a room",
            Errand::Guests(_) => "removal of guests",
            Errand::Settings(_) => "settings that follow into a room",
        }
    }
}

enum Stage {
    Busy,
    Resting(Rest),
}

/// The next attempt is made then, after so many in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    until: Instant,
    attempts: usize,
}

impl Rest {
    fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }
}

/// Who is at what, and what rests.
pub struct Errands {
    stages: Mutex<HashMap<Errand, Stage>>,
    places: Semaphore,
}

impl Default for Errands {
    fn default() -> Errands {
        Errands { stages: Mutex::default(), places: Semaphore::new(AT_ONCE_MAX) }
    }
}

impl Errands {
    /// Begins with an errand; answers how it rested. `None` if somebody is at it, or if it rests, for which what `is_news` does not
    /// wait.
    fn begin(&self, errand: &Errand, is_news: bool, now: Instant) -> Option<Rest> {
        let mut stages = self.stages.lock();
        let rested = match stages.get(errand) {
            Some(Stage::Busy) => return None,
            Some(Stage::Resting(rest)) if !is_news && !rest.is_over(now) => return None,
            Some(Stage::Resting(rest)) => *rest,
            None => Rest { until: now, attempts: 0 },
        };
        stages.insert(errand.clone(), Stage::Busy);
        Some(rested)
    }

    /// Ends with an errand. One that was begun with before its pause was over rests for as long as it would have at least, and that
    /// is no attempt of those after which it is given up: whoever makes news is not to use up those of others.
    fn end(&self, errand: &Errand, is_done: bool, rested: Rest, (began, now): (Instant, Instant)) {
        if is_done {
            self.stages.lock().remove(errand);
            return;
        }
        let rest = match rested.is_over(began) {
            true => {
                let pause = PAUSES.get(rested.attempts).or(PAUSES.last()).copied().unwrap_or_default();
                Rest { until: now + pause, attempts: rested.attempts + 1 }
            }
            false => rested,
        };
        self.stages.lock().insert(errand.clone(), Stage::Resting(rest));
    }

    /// As if nobody had begun with it.
    fn give_back(&self, errand: &Errand, rested: Rest) {
        let mut stages = self.stages.lock();
        match rested.attempts {
            0 => stages.remove(errand),
            _ => stages.insert(errand.clone(), Stage::Resting(rested)),
        };
    }

    /// Forgets what rests and has no mark any more.
    fn forget_all_but(&self, marked: &[Errand]) {
        let marked: HashSet<&Errand> = marked.iter().collect();
        self.stages.lock().retain(|errand, stage| matches!(stage, Stage::Busy) || marked.contains(errand));
    }
}

/// That somebody is at an errand, until it is dropped: then it rests, unless it is done.
pub struct Turn {
    ctx: Arc<Context>,
    errand: Errand,
    rested: Rest,
    began: Instant,
    end: End,
}

/// What becomes of an errand that nobody is at any more.
enum End {
    Rests,
    Done,
    GivenBack,
}

impl Turn {
    /// `None` if somebody is at it, or if it rests, for which what `is_news` does not wait.
    pub fn take(ctx: &Arc<Context>, errand: Errand, is_news: bool) -> Option<Turn> {
        let began = Instant::now();
        let rested = ctx.errands.begin(&errand, is_news, began)?;
        Some(Turn { ctx: ctx.clone(), errand, rested, began, end: End::Rests })
    }

    /// Nothing of it is left.
    pub fn done(mut self) {
        self.end = End::Done;
    }

    /// Nothing was to be done: it is as before.
    pub fn give_back(mut self) {
        self.end = End::GivenBack;
    }

    /// Whether it is not to be tried again if it fails.
    fn is_last(&self) -> bool {
        self.rested.is_over(self.began) && self.rested.attempts + 1 >= ATTEMPTS_MAX
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let is_done = match self.end {
            End::Rests => false,
            End::Done => true,
            End::GivenBack => return self.ctx.errands.give_back(&self.errand, self.rested),
        };
        self.ctx.errands.end(&self.errand, is_done, self.rested, (self.began, Instant::now()));
    }
}

/// Goes on with all that is marked: after a start, and whenever a pause is over.
pub fn take_up(ctx: &Arc<Context>) {
    match tokio::task::block_in_place(|| marked(&ctx.engine)) {
        Ok(marked) => {
            ctx.errands.forget_all_but(&marked);
            marked.into_iter().for_each(|errand| start(ctx, errand, false));
        }
        Err(error) => warn!(%error, "it cannot be told what was begun and is not done"),
    }
}

fn marked(engine: &Engine) -> Result<Vec<Errand>, Error> {
    let mut errands: Vec<Errand> = engine.read(&Deactivations)?.into_iter().map(Errand::Departure).collect();
    errands.extend(engine.read(&UnshownProfiles)?.into_iter().map(Errand::Profiles));
    errands.extend(engine.read(&UncarriedSettings)?.into_iter().map(Errand::Settings));
    errands.extend(engine.read(&RoomsWithGuestsToRemove)?.into_iter().map(Errand::Guests));
    Ok(errands)
}

/// Begins with what is to be done behind a request; what `is_news` waits for no pause.
pub fn start(ctx: &Arc<Context>, errand: Errand, is_news: bool) {
    let Some(turn) = Turn::take(ctx, errand, is_news) else { return };
    let work = ctx.clone();
    worker::run(ctx, turn.errand.name(), async move {
        let Ok(_place) = work.errands.places.acquire().await else { return };
        let is_done = match &turn.errand {
            Errand::Departure(user_id) => account_deactivation::leave_rooms(&work, user_id).await,
            Errand::Profiles(room_id) => profile::show_in_room(&work, room_id, turn.is_last()).await,
            Errand::Guests(room_id) => guests::remove_all(&work, room_id, turn.is_last()).await,
            Errand::Settings(room_id) => join::carry_all_settings(&work, room_id).await,
        };
        if is_done {
            turn.done();
        }
    });
}

/// Whether what failed may be done later. What is refused is refused for ever.
pub fn may_pass(error: &ApiError) -> bool {
    let is_for_now = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&error.status);
    is_for_now || !error.status.is_client_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_rests_for_longer_and_longer_and_one_is_at_it_at_a_time() {
        let (errands, errand) = (Errands::default(), Errand::Guests("!room:here.test".to_owned()));
        let second = Duration::from_secs(1);
        let mut now = Instant::now();
        for (count, pause) in PAUSES.iter().chain([&PAUSES[4]]).enumerate() {
            let rested = errands.begin(&errand, false, now).expect("its pause is over");
            assert_eq!(rested.attempts, count);
            assert_eq!(errands.begin(&errand, true, now), None, "somebody is at it");
            errands.end(&errand, false, rested, (now, now));
            now += *pause - second;
            assert_eq!(errands.begin(&errand, false, now), None, "it rests for {pause:?}");
            now += second;
        }
        let rested = errands.begin(&errand, false, now).expect("its pause is over");
        errands.end(&errand, true, rested, (now, now));
        let new = Rest { until: now, attempts: 0 };
        assert_eq!(errands.begin(&errand, false, now), Some(new), "what comes again is new");
    }

    #[test]
    fn news_wait_for_no_pause_and_use_up_no_attempt() {
        let (errands, errand) = (Errands::default(), Errand::Profiles("!room:here.test".to_owned()));
        let now = Instant::now();
        let first = errands.begin(&errand, true, now).expect("it is new");
        errands.end(&errand, false, first, (now, now));
        for _ in 0..ATTEMPTS_MAX {
            let rested = errands.begin(&errand, true, now).expect("news wait for no pause");
            assert_eq!(rested.attempts, 1);
            errands.end(&errand, false, rested, (now, now));
            assert_eq!(errands.begin(&errand, false, now), None, "it rests as before");
        }
        let rested = errands.begin(&errand, false, now + PAUSES[0]).expect("no longer than before");
        assert_eq!(rested.attempts, 1);
        errands.give_back(&errand, rested);
        assert_eq!(errands.begin(&errand, false, now + PAUSES[0]), Some(rested));
    }

    #[test]
    fn what_has_no_mark_any_more_is_forgotten_unless_somebody_is_at_it() {
        let (errands, errand) = (Errands::default(), Errand::Profiles("!room:here.test".to_owned()));
        let now = Instant::now();
        let new = Rest { until: now, attempts: 0 };
        assert_eq!(errands.begin(&errand, false, now), Some(new));
        errands.forget_all_but(&[]);
        assert_eq!(errands.begin(&errand, true, now), None);
        errands.end(&errand, false, new, (now, now));
        errands.forget_all_but(std::slice::from_ref(&errand));
        assert_eq!(errands.begin(&errand, false, now), None);
        errands.forget_all_but(&[]);
        assert_eq!(errands.begin(&errand, false, now), Some(new));
    }

    #[tokio::test]
    async fn what_falls_rests_and_what_is_done_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let ctx = Context::of_tests(folder.path());
        let take = |is_news| Turn::take(&ctx, Errand::Departure("@bilbo:here.test".to_owned()), is_news);
        take(false).unwrap().give_back();
        drop(take(false).unwrap());
        assert!(take(false).is_none());
        take(true).unwrap().give_back();
        assert!(take(false).is_none());
        take(true).unwrap().done();
        assert_eq!(take(false).unwrap().rested.attempts, 0);
    }
}
