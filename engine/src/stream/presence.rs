//! Who is there, as far as it follows from what devices say and do now: only in memory. After a restart those are for a while who
//! were there before.
//!
//! Invariant: a user has one position, that of the last change of what the others are shown; saying the same again changes
//! nothing but how long it holds. Not here: status messages, which are stored.
//! Specification: client-server API, "Presence".

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::{
    core::{
        deadline::{has_come, is_ahead},
        num::{StreamPos, UserNum},
    },
    store::schema::PresenceState,
};

/// What a device said holds for this long after the end of the sync that said it, in milliseconds: the time that a client
/// needs to come back over a bad network, and what other servers give it.
pub(crate) const OFFLINE_AFTER_MS: u64 = 30_000;
/// How long what another server says of its user holds, in milliseconds: half an hour, as there. Those that repeat what has not
/// changed do it within that time.
pub(crate) const ELSEWHERE_HOLD_MS: u64 = 30 * 60 * 1000;
/// Who is online but did nothing for this long is shown as unavailable, in milliseconds; the specification's example.
const IDLE_AFTER_MS: u64 = 300_000;
/// Who stays as present as they are is told of again to other servers when nothing was told of them for this long, in
/// milliseconds: these keep what they are told for half an hour, which leaves ten minutes for all whose time comes at once.
const REPEAT_AFTER_MS: u64 = 20 * 60 * 1000;
/// Of how many users that is told at once: it is looked for them every two seconds, so that all who are remembered have had
/// their turn after eight minutes, and no server is told of more than it has room for.
const REPEATED_MAX: usize = 200;
/// In the place of a device: the server of a user of another server, which knows by itself when its user is idle.
pub(crate) const ELSEWHERE: u64 = u64::MAX;
/// In the place of a device: what is left of a user's devices after a restart, until they say something.
pub(crate) const BEFORE_RESTART: u64 = 0;
/// How many users are remembered before those who are offline are forgotten: some 200 bytes each. Whose client has not
/// been told by then goes on showing what it was told last.
const PRESENT_USERS_MAX: usize = 50_000;

/// How present one device says that its user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// A hash of the device's id: two devices that share one would be one device here, no more.
    pub device: u64,
    /// What it says.
    pub state: PresenceState,
    /// When it says so, in milliseconds since the epoch.
    pub said_ms: u64,
    /// When it stops to count unless it is said again, in milliseconds since the epoch.
    pub until_ms: u64,
}

impl Claim {
    /// Whether it still counts. If the clock was set back since it was said, there is no telling for how long.
    fn holds(&self, now_ms: u64) -> bool {
        self.until_ms > now_ms && !is_ahead(self.said_ms, now_ms)
    }
}

/// What may change how present a user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceChange {
    /// A device syncs.
    Synced(Claim),
    /// The user sets it, perhaps with another message: news in any case.
    Said(Claim),
    /// Their server says it, if they are a user of another one: news in any case.
    Told(Claim, Activity),
    /// The user did something that people do: sent, read, typed.
    Acted,
    /// Time passed.
    Passed,
    /// Other servers are told again how it is. For clients nothing has changed.
    Repeated,
    /// The user was there before a restart, unless something is known since. Nobody is told.
    Restored(Claim),
    /// It is not stored any longer that the user, who went, is there. Nobody is told.
    Forgotten,
}

impl PresenceChange {
    /// What is said by it, if it is somebody's word.
    pub fn said(&self) -> Option<Claim> {
        match self {
            Self::Synced(claim) | Self::Said(claim) | Self::Told(claim, _) => Some(*claim),
            Self::Acted | Self::Passed | Self::Repeated | Self::Restored(_) | Self::Forgotten => None,
        }
    }
}

/// What another server says of how active its user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// When they last did something, in milliseconds since the epoch.
    pub last_active_ms: u64,
    /// Whether they are doing something.
    pub currently_active: bool,
}

/// How present a user is shown to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub state: PresenceState,
    /// When the user last did something, in milliseconds since the epoch.
    pub last_active_ms: u64,
    /// Whether the user is doing something, as their server says; of our users that follows from the rest.
    pub currently_active: Option<bool>,
    /// Since when it is shown.
    pub pos: StreamPos,
}

struct Present {
    claims: Vec<Claim>,
    shown: Shown,
    /// When others were last told, in milliseconds since the epoch.
    told_ms: u64,
}

impl Present {
    /// Whether the user is one of another server.
    fn is_elsewhere(&self) -> bool {
        self.claims.iter().any(|claim| claim.device == ELSEWHERE)
    }

    /// Whether the user is one of this server, and there.
    fn is_here(&self) -> bool {
        self.shown.state != PresenceState::Offline && !self.is_elsewhere()
    }

    /// The most present of what the devices say.
    fn state(&self, now_ms: u64) -> PresenceState {
        let live = self.claims.iter().filter(|claim| claim.holds(now_ms)).map(|claim| claim.state);
        let is_elsewhere = self.is_elsewhere();
        match live.max().unwrap_or(PresenceState::Offline) {
            PresenceState::Online
                if !is_elsewhere
                    && has_come(self.shown.last_active_ms + IDLE_AFTER_MS, IDLE_AFTER_MS, now_ms) =>
            {
                PresenceState::Unavailable
            }
            state => state,
        }
    }

    /// Takes a device's word in the place of its last one. Answers whether it says so only now.
    fn take(&mut self, claim: Claim, now_ms: u64) -> bool {
        self.claims.retain(|known| known.holds(now_ms) && known.device != BEFORE_RESTART);
        let before = self.claims.iter().position(|known| known.device == claim.device);
        let before = before.map(|index| self.claims.swap_remove(index));
        if claim.state != PresenceState::Offline {
            let until_ms = before.map_or(claim.until_ms, |before| before.until_ms.max(claim.until_ms));
            self.claims.push(Claim { until_ms, ..claim });
        }
        before.is_none_or(|before| before.state != claim.state)
    }
}

/// Those who are, or lately were, there.
#[derive(Default)]
pub(crate) struct Presences {
    users: DashMap<UserNum, Present>,
    /// What was said last by those who come, from when that is decided until it is published. What is refused meanwhile by the
    /// disk stays, and counts for no longer than it would have held.
    coming: DashMap<UserNum, Claim>,
    /// Users who went, and of whom it may still be stored that they are there.
    gone: Mutex<BTreeSet<UserNum>>,
    /// The number below which users of before the restart have been looked at.
    restored: AtomicU64,
}

impl Presences {
    /// From which number on users of before the restart are still to be looked at; `None` if all have been.
    pub fn restored_up_to(&self) -> Option<UserNum> {
        let number = self.restored.load(Ordering::Relaxed);
        (number < u64::MAX).then_some(UserNum(number))
    }

    /// Users of before the restart have been looked at up to this one; `None` if there are no more.
    pub fn note_restored(&self, last: Option<UserNum>) {
        let number = last.map_or(u64::MAX, |last| last.0.saturating_add(1));
        self.restored.fetch_max(number, Ordering::Relaxed);
    }

    fn restore(&self, user: UserNum, claim: Claim, now_ms: u64) {
        let shown = Shown {
            state: claim.state,
            last_active_ms: now_ms,
            currently_active: None,
            pos: StreamPos::ZERO,
        };
        self.users.entry(user).or_insert_with(|| Present { claims: vec![claim], shown, told_ms: now_ms });
        self.note_restored(Some(user));
    }

    /// Notes that a user comes. To be called by who has the user's lane, so that it is known to all who have it later.
    pub fn note_coming(&self, user: UserNum, claim: Claim) {
        self.coming.insert(user, claim);
    }

    /// Users who went, and of whom it may still be stored that they are there; some of them, if there are many.
    pub fn gone(&self, count_max: usize) -> Vec<UserNum> {
        self.gone.lock().iter().take(count_max).copied().collect()
    }

    /// Whether nothing needs to be stored of the user's being there. To be asked by who has the user's lane.
    pub fn may_be_forgotten(&self, user: UserNum, now_ms: u64) -> bool {
        self.coming.remove_if(&user, |_, said| !said.holds(now_ms));
        // In this order: whoever is no longer coming by now is shown already.
        if self.coming.contains_key(&user) {
            return false;
        }
        // Held meanwhile: who goes from here on is one of them again. Who is gone stays one of them until that is on the disk.
        let mut gone = self.gone.lock();
        let is_there = self.get(user).is_some_and(|shown| shown.state != PresenceState::Offline);
        if is_there {
            gone.remove(&user);
        }
        !is_there
    }

    /// How the user is shown, if anything is known.
    pub fn get(&self, user: UserNum) -> Option<Shown> {
        self.users.get(&user).map(|present| present.shown)
    }

    /// Lets what a device says hold longer. False if that is news, which has to be written as such.
    pub fn renew(&self, user: UserNum, claim: Claim, now_ms: u64) -> bool {
        let Some(mut present) = self.users.get_mut(&user) else {
            return claim.state == PresenceState::Offline;
        };
        if present.state(now_ms) != present.shown.state {
            return false;
        }
        let same = |known: &&mut Claim| {
            known.device == claim.device && known.state == claim.state && known.holds(now_ms)
        };
        match present.claims.iter_mut().find(same) {
            Some(known) => {
                known.until_ms = known.until_ms.max(claim.until_ms);
                known.said_ms = claim.said_ms;
                true
            }
            None => false,
        }
    }

    /// As [`Presences::renew`], of what another server says of its user.
    pub fn renew_told(&self, user: UserNum, claim: Claim, activity: Activity, now_ms: u64) -> bool {
        let is_same = |shown: Shown| shown.currently_active == Some(activity.currently_active);
        let is_known = claim.state == PresenceState::Offline || self.get(user).is_some_and(is_same);
        if !is_known || !self.renew(user, claim, now_ms) {
            return false;
        }
        if let Some(mut present) = self.users.get_mut(&user) {
            present.shown.last_active_ms = activity.last_active_ms;
        }
        true
    }

    /// Applies a change at `pos`. Answers whether the others are to be told.
    pub fn change(&self, user: UserNum, change: PresenceChange, now_ms: u64, pos: StreamPos) -> bool {
        let is_news = self.apply(user, change, now_ms, pos);
        if is_news && self.get(user).is_some_and(|shown| shown.state == PresenceState::Offline) {
            self.gone.lock().insert(user);
        }
        if let Some(said) = change.said() {
            self.coming.remove_if(&user, |_, coming| *coming == said);
        }
        is_news
    }

    fn apply(&self, user: UserNum, change: PresenceChange, now_ms: u64, pos: StreamPos) -> bool {
        if let PresenceChange::Restored(claim) = change {
            self.restore(user, claim, now_ms);
            return false;
        }
        if change == PresenceChange::Forgotten {
            self.gone.lock().remove(&user);
            return false;
        }
        let mut present = match change {
            PresenceChange::Synced(_) | PresenceChange::Said(_) | PresenceChange::Told(..) => {
                if self.users.len() >= PRESENT_USERS_MAX {
                    self.users.retain(|_, present| present.shown.state != PresenceState::Offline);
                }
                let state = PresenceState::Offline;
                let shown = Shown { state, last_active_ms: 0, currently_active: None, pos };
                self.users.entry(user).or_insert(Present { claims: Vec::new(), shown, told_ms: now_ms })
            }
            PresenceChange::Acted
            | PresenceChange::Passed
            | PresenceChange::Repeated
            | PresenceChange::Restored(_)
            | PresenceChange::Forgotten => match self.users.get_mut(&user) {
                Some(present) => present,
                None => return false,
            },
        };
        let is_active = match change {
            PresenceChange::Synced(claim) => {
                present.take(claim, now_ms) && claim.state == PresenceState::Online
            }
            PresenceChange::Said(claim) => {
                present.take(claim, now_ms);
                claim.state == PresenceState::Online
            }
            PresenceChange::Told(claim, activity) => {
                present.take(claim, now_ms);
                present.shown.last_active_ms = activity.last_active_ms;
                present.shown.currently_active = Some(activity.currently_active);
                false
            }
            PresenceChange::Acted => true,
            PresenceChange::Passed | PresenceChange::Restored(_) | PresenceChange::Forgotten => false,
            PresenceChange::Repeated => {
                present.told_ms = now_ms;
                return false;
            }
        };
        if is_active {
            present.shown.last_active_ms = now_ms;
        }
        let state = present.state(now_ms);
        let is_said = matches!(change, PresenceChange::Said(_) | PresenceChange::Told(..));
        let is_news = state != present.shown.state || is_said;
        if is_news {
            present.shown.state = state;
            present.shown.pos = pos;
            present.told_ms = now_ms;
        }
        is_news
    }

    /// Whether the user is one of this server, and there.
    pub fn is_here(&self, user: UserNum) -> bool {
        self.users.get(&user).is_some_and(|present| present.is_here())
    }

    /// Whether another server has said something of its user that holds at least as long as this, and so was said later.
    pub fn is_told_since(&self, user: UserNum, claim: Claim) -> bool {
        let is_later = |known: &Claim| known.device == ELSEWHERE && known.until_ms >= claim.until_ms;
        self.users.get(&user).is_some_and(|present| present.claims.iter().any(is_later))
    }

    /// Users of this server who are there, of whom other servers have to be told again; some of them, if there are many.
    pub fn unrepeated(&self, now_ms: u64) -> Vec<UserNum> {
        let is_due = |present: &Present| {
            present.is_here() && has_come(present.told_ms + REPEAT_AFTER_MS, REPEAT_AFTER_MS, now_ms)
        };
        let due = self.users.iter().filter(|present| is_due(present));
        let mut users: Vec<UserNum> = due.map(|present| *present.key()).collect();
        users.sort_unstable();
        users.truncate(REPEATED_MAX);
        users
    }

    /// Tells of a user who is there once more at `pos`: there are people who have not been told. False for who is not.
    pub fn tell_again(&self, user: UserNum, pos: StreamPos) -> bool {
        let Some(mut present) = self.users.get_mut(&user) else { return false };
        let is_there = present.shown.state != PresenceState::Offline;
        if is_there {
            present.shown.pos = pos;
        }
        is_there
    }

    /// Those whose time is over who are still shown as they were.
    pub fn overdue(&self, now_ms: u64) -> Vec<UserNum> {
        let overdue = self.users.iter().filter(|present| present.state(now_ms) != present.shown.state);
        let mut users: Vec<UserNum> = overdue.map(|present| *present.key()).collect();
        users.sort_unstable();
        users
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: UserNum = UserNum(1);

    fn claim(device: u64, state: PresenceState, until_ms: u64) -> PresenceChange {
        PresenceChange::Synced(Claim { device, state, said_ms: 0, until_ms })
    }

    fn state(presences: &Presences) -> PresenceState {
        presences.get(USER).unwrap().state
    }

    #[test]
    fn the_most_present_device_counts_until_its_time_is_over() {
        let presences = Presences::default();
        assert!(presences.change(USER, claim(1, PresenceState::Unavailable, 100), 0, StreamPos(1)));
        assert!(presences.change(USER, claim(2, PresenceState::Online, 50), 0, StreamPos(2)));
        assert_eq!(state(&presences), PresenceState::Online);
        assert!(!presences.change(USER, claim(1, PresenceState::Unavailable, 100), 10, StreamPos(3)));
        assert!(presences.overdue(49).is_empty());
        assert_eq!(presences.overdue(50), [USER]);
        assert!(presences.change(USER, PresenceChange::Passed, 50, StreamPos(4)));
        assert_eq!(state(&presences), PresenceState::Unavailable);
        assert!(presences.change(USER, PresenceChange::Passed, 100, StreamPos(5)));
        assert_eq!(
            (state(&presences), presences.get(USER).unwrap().pos),
            (PresenceState::Offline, StreamPos(5))
        );
    }

    #[test]
    fn a_renewal_is_no_news() {
        let presences = Presences::default();
        let said = |until_ms| Claim { device: 1, state: PresenceState::Online, said_ms: 0, until_ms };
        assert!(!presences.renew(USER, said(50), 0));
        assert!(presences.change(USER, PresenceChange::Synced(said(50)), 0, StreamPos(1)));
        assert!(presences.renew(USER, said(90), 40));
        assert!(presences.overdue(80).is_empty());
        assert!(!presences.renew(USER, said(200), 90), "its time was over");
        assert!(!presences.renew(USER, Claim { state: PresenceState::Unavailable, ..said(200) }, 40));
    }

    #[test]
    fn who_does_nothing_is_idle_until_they_do() {
        let presences = Presences::default();
        let late = IDLE_AFTER_MS * 3;
        presences.change(USER, claim(1, PresenceState::Online, late), 0, StreamPos(1));
        assert!(presences.overdue(IDLE_AFTER_MS - 1).is_empty());
        assert!(presences.change(USER, PresenceChange::Passed, IDLE_AFTER_MS, StreamPos(2)));
        assert_eq!(state(&presences), PresenceState::Unavailable);
        assert!(!presences.change(
            USER,
            claim(1, PresenceState::Online, late),
            IDLE_AFTER_MS + 1,
            StreamPos(3)
        ));
        assert!(presences.change(USER, PresenceChange::Acted, IDLE_AFTER_MS + 2, StreamPos(4)));
        assert_eq!(state(&presences), PresenceState::Online);
    }

    #[test]
    fn who_stays_is_repeated_in_time_and_not_all_at_once() {
        let presences = Presences::default();
        let late = REPEAT_AFTER_MS * 10;
        let users: Vec<UserNum> = (0..2 * REPEATED_MAX as u64).map(UserNum).collect();
        for user in &users {
            presences.change(*user, claim(1, PresenceState::Unavailable, late), 0, StreamPos(1));
        }
        let elsewhere = Claim { device: ELSEWHERE, state: PresenceState::Online, said_ms: 0, until_ms: late };
        let activity = Activity { last_active_ms: 0, currently_active: true };
        let other = UserNum(u64::MAX);
        presences.change(other, PresenceChange::Told(elsewhere, activity), 0, StreamPos(1));
        // Of one something else is told meanwhile, and one goes.
        presences.change(users[0], claim(1, PresenceState::Online, late), 1, StreamPos(2));
        presences.change(users[1], claim(1, PresenceState::Offline, 0), 1, StreamPos(2));
        assert!(presences.unrepeated(REPEAT_AFTER_MS - 1).is_empty());
        for due in users[2..].chunks(REPEATED_MAX) {
            assert_eq!(presences.unrepeated(REPEAT_AFTER_MS), due);
            for user in due {
                assert!(!presences.change(*user, PresenceChange::Repeated, REPEAT_AFTER_MS, StreamPos(3)));
            }
        }
        assert!(presences.unrepeated(REPEAT_AFTER_MS).is_empty());
        assert_eq!(presences.get(users[2]).unwrap().pos, StreamPos(1), "no client is told");
    }

    #[test]
    fn who_was_there_before_the_clock_was_set_back_is_not_there_until_it_catches_up() {
        let presences = Presences::default();
        let ahead_ms = 60_000;
        let said = |said_ms| {
            let claim =
                Claim { device: 1, state: PresenceState::Online, said_ms, until_ms: said_ms + 30_000 };
            PresenceChange::Synced(claim)
        };
        assert!(presences.change(USER, said(ahead_ms), ahead_ms, StreamPos(1)));
        assert!(presences.overdue(ahead_ms).is_empty());
        assert_eq!(presences.overdue(0), [USER]);
        assert!(presences.change(USER, PresenceChange::Passed, 0, StreamPos(2)));
        assert_eq!(state(&presences), PresenceState::Offline);
        assert!(presences.change(USER, said(0), 0, StreamPos(3)));
        assert_eq!(presences.overdue(30_000), [USER], "it holds as long as it would have");
        assert!(presences.change(USER, PresenceChange::Passed, 30_000, StreamPos(4)));
        // Who is to be told again after a while is, when the clock was set back.
        assert!(presences.change(USER, said(REPEAT_AFTER_MS), REPEAT_AFTER_MS, StreamPos(5)));
        assert!(!presences.change(USER, said(0), 0, StreamPos(6)));
        assert_eq!(presences.unrepeated(0), [USER]);
    }

    #[test]
    fn acting_alone_makes_nobody_present() {
        let presences = Presences::default();
        assert!(!presences.change(USER, PresenceChange::Acted, 0, StreamPos(1)));
        assert!(presences.get(USER).is_none());
    }
}
