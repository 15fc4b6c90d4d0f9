//! Wake-ups, and the in-memory table of who has news since when.
//!
//! Users that sync are *active*: each of their rooms lists them, so that a touched room finds those to wake without any
//! read from the store, and a sync with nothing new is answered by comparing integers.
//!
//! Invariant: a room lists a user while the user's own list has the room. Both change with the user's place held; a room's
//! place is taken inside of it, and never the other way around.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

use dashmap::{DashMap, Entry};

use super::{
    Touch,
    early_presence::EarlyPresences,
    marks::Marks,
    presence::{PresenceChange, Presences},
};
use crate::{
    core::{
        deadline::has_come,
        num::{RoomNum, StreamPos, UserNum},
    },
    store::{NumberHash, schema::PresenceState},
};

mod wait;

pub use wait::{Wait, Woken};

/// How many users may be active at once before those who do not wait are forgotten (they are active again at their next
/// sync): some 200 bytes each, plus eight for each of their rooms.
const ACTIVE_USERS_MAX: usize = 50_000;

/// Rooms in which more users than this are active make nobody a peer: in a crowd nobody watches who is there, and each
/// change would wake them all.
const PRESENCE_ROOM_USERS_MAX: usize = 200;
/// How many users are told of one change of presence, and of how many one sync tells.
const PRESENCE_PEERS_MAX: usize = 500;

/// How many users whom nobody knew may be named as typing in a room whose members are not all known, since the server was
/// started: as many as receipts may wait there.
const STRANGERS_MAX: u32 = 1_000;

/// How long a typing notice holds at most, in milliseconds: clients renew it every few seconds.
pub(crate) const TYPING_MS_MAX: u64 = 120_000;

/// Who types in a room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Typing {
    /// When the set last changed.
    pub pos: StreamPos,
    /// Users, each with the time in milliseconds since the epoch at which it ends.
    pub users: HashMap<UserNum, u64>,
    /// How many of those who ever typed there were known by nothing else.
    strangers: u32,
}

impl Typing {
    /// Those who still type.
    pub fn users_at(&self, now_ms: u64) -> impl Iterator<Item = UserNum> {
        self.users.iter().filter(move |(_, until_ms)| !is_over(**until_ms, now_ms)).map(|(user, _)| *user)
    }

    /// Those whose time is over.
    fn over(&self, now_ms: u64) -> impl Iterator<Item = UserNum> {
        self.users.iter().filter(move |(_, until_ms)| is_over(**until_ms, now_ms)).map(|(user, _)| *user)
    }
}

fn is_over(until_ms: u64, now_ms: u64) -> bool {
    has_come(until_ms, TYPING_MS_MAX, now_ms)
}

#[derive(Default)]
struct ActiveUser {
    news: StreamPos,
    /// The part of the news that is of the user alone.
    own_news: StreamPos,
    /// The last position at which the presence of a peer changed.
    presence_news: StreamPos,
    /// The last position at which the user came into a room.
    came: StreamPos,
    rooms: Vec<RoomNum>,
    wakers: Vec<(u64, Waker)>,
}

/// How an active user stands, all at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// The last position at which something of the user's own changed, their memberships among it, or may have.
    pub own_news: StreamPos,
    /// The rooms that list the user: those that they are joined to, unless `own_news` is later than what is asked about.
    pub rooms: Vec<RoomNum>,
}

/// Who waits for what.
#[derive(Default)]
pub(crate) struct Watch {
    users: DashMap<UserNum, ActiveUser, NumberHash>,
    rooms: DashMap<RoomNum, Vec<UserNum>, NumberHash>,
    room_news: DashMap<RoomNum, StreamPos, NumberHash>,
    typing: DashMap<RoomNum, Typing, NumberHash>,
    /// The last position of before: who typed then is not known any more.
    opened_at: StreamPos,
    /// Where rare things have to be looked for.
    pub marks: Marks,
    /// Who is there.
    pub presences: Presences,
    /// Who is said to be there, and shares no room with this server yet.
    pub early_presences: EarlyPresences,
    next_waiter: AtomicU64,
    /// Whether the engine is gone.
    is_closed: AtomicBool,
}

impl Watch {
    /// Nobody waits yet; `opened_at` is the last position in the store.
    pub fn new(opened_at: StreamPos) -> Self {
        Self { marks: Marks::new(opened_at), opened_at, ..Self::default() }
    }

    /// Whether the user's rooms list them.
    pub fn is_active(&self, user: UserNum) -> bool {
        self.users.contains_key(&user)
    }

    /// How the user stands; `None` for one who is not active.
    pub fn standing(&self, user: UserNum) -> Option<Standing> {
        let active = self.users.get(&user)?;
        Some(Standing { own_news: active.own_news, rooms: active.rooms.clone() })
    }

    /// Whether nothing of the user's own has changed since a reader at `pos` looked at it.
    pub fn is_current(&self, user: UserNum, pos: StreamPos) -> bool {
        self.own_news(user).is_some_and(|news| news <= pos)
    }

    /// Lists the user in their joined rooms. `positions`, the last one published and the last one given out, must be read
    /// after `rooms` was: what came between is then taken as news.
    pub fn activate(
        &self,
        user: UserNum,
        rooms: Vec<RoomNum>,
        positions: impl FnOnce() -> (StreamPos, StreamPos),
    ) {
        if self.users.len() >= ACTIVE_USERS_MAX {
            self.forget_idle();
        }
        let mut entry = self.users.entry(user).or_default();
        for room in &rooms {
            let mut active = self.rooms.entry(*room).or_default();
            if !active.contains(&user) {
                active.push(user);
            }
        }
        entry.rooms = rooms;
        let (published, given_out) = positions();
        entry.news = entry.news.max(published);
        // A change of a membership that was noted before the user was listed is published only after this.
        entry.own_news = entry.own_news.max(given_out);
        entry.presence_news = entry.presence_news.max(published);
    }

    fn forget_idle(&self) {
        self.unlist_idle(self.take_idle());
    }

    /// Takes those who wait for nothing out of the active users, with their rooms.
    fn take_idle(&self) -> HashMap<UserNum, Vec<RoomNum>> {
        let mut idle = HashMap::new();
        self.users.retain(|user, active| {
            let keep = !active.wakers.is_empty();
            if !keep {
                idle.insert(*user, std::mem::take(&mut active.rooms));
            }
            keep
        });
        idle
    }

    fn unlist_idle(&self, idle: HashMap<UserNum, Vec<RoomNum>>) {
        for (user, rooms) in idle {
            // Held, so that whoever becomes active again does so before this or after.
            let place = self.users.entry(user);
            for room in rooms {
                let is_listed = match &place {
                    Entry::Occupied(active) => active.get().rooms.contains(&room),
                    Entry::Vacant(_) => false,
                };
                if !is_listed {
                    self.unlist(user, room);
                }
            }
        }
    }

    fn unlist(&self, user: UserNum, room: RoomNum) {
        if let Some(mut active) = self.rooms.get_mut(&room) {
            active.retain(|listed| *listed != user);
        }
        self.rooms.remove_if(&room, |_, active| active.is_empty());
    }

    /// The last position at which the room had news, if it is known.
    pub fn room_news(&self, room: RoomNum) -> Option<StreamPos> {
        self.room_news.get(&room).map(|pos| *pos)
    }

    /// Notes what the store says is the room's last position.
    pub fn note_room_news(&self, room: RoomNum, pos: StreamPos) {
        let mut known = self.room_news.entry(room).or_default();
        *known = (*known).max(pos);
    }

    /// Whether an active user may have something new after `since`.
    pub fn has_news(&self, user: UserNum, since: StreamPos) -> Option<bool> {
        self.users.get(&user).map(|active| active.news > since)
    }

    /// The last position at which something of the user's own changed (or may have): account data, push rules, receipts,
    /// memberships. `None` for a user who is not active.
    pub fn own_news(&self, user: UserNum) -> Option<StreamPos> {
        self.users.get(&user).map(|active| active.own_news)
    }

    /// Who types in the room, if that has changed after `since`, or may have because the server was started since then.
    pub fn typing_since(&self, room: RoomNum, since: StreamPos) -> Option<Typing> {
        let is_doubtful = StreamPos::ZERO < since && since < self.opened_at;
        let typing = self.typing.get(&room).filter(|typing| typing.pos > since || is_doubtful);
        typing.map(|typing| typing.clone()).or_else(|| is_doubtful.then(Typing::default))
    }

    /// Turns what was touched into news; `pos` is the last position of the batch. Who waits for it is added to `wakers`, to be
    /// woken when it is published. Answers of whose presence other servers are to be told.
    pub fn note(&self, pos: StreamPos, touches: &[Touch], wakers: &mut Vec<Waker>) -> Vec<UserNum> {
        let mut present = Vec::new();
        for touch in touches {
            match *touch {
                Touch::Room(room) => {
                    self.note_room_news(room, pos);
                    self.note_for_room(room, pos, wakers);
                }
                Touch::History(room) => self.marks.note_history(room, pos),
                Touch::Withdrawn(room) => self.marks.note_withdrawn(room, pos),
                Touch::Partial(room) => self.marks.note_partial(room, pos),
                Touch::Receipt(room) => self.marks.note_receipt(room, pos),
                Touch::Peers(room) => self.note_for_room(room, pos, wakers),
                Touch::InRoom { user, room } => {
                    // Who syncs for another reason looks into the room in vain; who waits sleeps on.
                    self.note_room_news(room, pos);
                    self.note_own(user, pos, wakers);
                }
                // No client is told of these; they are brought to whom they concern where the batch is published.
                Touch::Sessions(_) | Touch::Erased(_) | Touch::Outgoing(_) | Touch::ToldAgain { .. } => {}
                Touch::Membership { user, room, joined } => {
                    if !joined {
                        self.change_typing(user, room, 0, pos);
                    }
                    self.marks.note_member(room, pos);
                    self.change_membership(user, room, joined, pos);
                    if joined && self.presences.tell_again(user, pos) {
                        self.note_presence(user, pos, wakers);
                        present.push(user);
                    }
                }
                Touch::User(user) => self.note_own(user, pos, wakers),
                Touch::Presence { user, change, now_ms } => {
                    let is_news = self.presences.change(user, change, now_ms, pos);
                    if is_news {
                        self.note_presence(user, pos, wakers);
                    }
                    if is_news || change == PresenceChange::Repeated {
                        present.push(user);
                    }
                }
                Touch::Typing { user, room, until_ms } => {
                    if self.change_typing(user, room, until_ms, pos) {
                        self.note_room_news(room, pos);
                        self.note_for_room(room, pos, wakers);
                    }
                }
            }
        }
        present
    }

    /// Lists an active user in a room that they are joined to.
    pub fn list(&self, user: UserNum, room: RoomNum) {
        self.change_membership(user, room, true, StreamPos::ZERO);
    }

    /// Takes a user off the list of a room that they were out of at `pos`, unless they came into one since: a leave that is
    /// published while its user is being listed in their rooms does not take them off.
    pub fn unlist_left(&self, user: UserNum, room: RoomNum, pos: StreamPos) {
        let Some(mut active) = self.users.get_mut(&user) else { return };
        if active.came <= pos && active.rooms.contains(&room) {
            active.rooms.retain(|known| *known != room);
            self.unlist(user, room);
        }
    }

    fn change_membership(&self, user: UserNum, room: RoomNum, joined: bool, pos: StreamPos) {
        let Some(mut active) = self.users.get_mut(&user) else { return };
        // Together with the list, for who looks at both at once.
        active.own_news = active.own_news.max(pos);
        if joined {
            active.came = active.came.max(pos);
        }
        let listed = active.rooms.contains(&room);
        if joined && !listed {
            active.rooms.push(room);
            self.rooms.entry(room).or_default().push(user);
        } else if !joined && listed {
            active.rooms.retain(|known| *known != room);
            self.unlist(user, room);
        }
    }

    /// Whether who types is another set of users now. A notice that is only renewed is no news.
    fn change_typing(&self, user: UserNum, room: RoomNum, until_ms: u64, pos: StreamPos) -> bool {
        if until_ms == 0 {
            let Some(mut typing) = self.typing.get_mut(&room) else { return false };
            let is_changed = typing.users.remove(&user).is_some();
            if is_changed {
                typing.pos = pos;
            }
            return is_changed;
        }
        let mut typing = self.typing.entry(room).or_default();
        let is_changed = typing.users.insert(user, until_ms).is_none();
        if is_changed {
            typing.pos = pos;
        }
        is_changed
    }

    /// Whether somebody whom nobody knew may be named as typing in the room; counts them.
    pub fn admits_stranger(&self, room: RoomNum) -> bool {
        let mut typing = self.typing.entry(room).or_default();
        let may = typing.strangers < STRANGERS_MAX;
        typing.strangers += u32::from(may);
        may
    }

    /// Who typed, and where, until a time that is over.
    pub fn typing_over(&self, now_ms: u64) -> Vec<(UserNum, RoomNum)> {
        let mut over = Vec::new();
        for room in &self.typing {
            over.extend(room.over(now_ms).map(|user| (user, *room.key())));
        }
        over
    }

    /// The active users who are in a room with the user, crowds left out, and the user.
    fn peers(&self, user: UserNum) -> BTreeSet<UserNum> {
        let mut peers = BTreeSet::from([user]);
        for room in self.standing(user).map(|standing| standing.rooms).unwrap_or_default() {
            self.add_peers(room, &mut peers);
        }
        peers
    }

    fn add_peers(&self, room: RoomNum, peers: &mut BTreeSet<UserNum>) {
        let Some(active) = self.rooms.get(&room) else { return };
        if active.len() <= PRESENCE_ROOM_USERS_MAX && peers.len() < PRESENCE_PEERS_MAX {
            peers.extend(active.iter().copied());
        }
    }

    /// Users of this server who are there and in the room, at most `limit`.
    pub fn here_in(&self, room: RoomNum, limit: usize) -> Vec<UserNum> {
        // Copied, so that no two shards are ever locked at once.
        let active = self.rooms.get(&room).map(|users| users.clone()).unwrap_or_default();
        active.into_iter().filter(|user| self.presences.is_here(*user)).take(limit).collect()
    }

    fn note_presence(&self, user: UserNum, pos: StreamPos, wakers: &mut Vec<Waker>) {
        for peer in self.peers(user) {
            if let Some(mut active) = self.users.get_mut(&peer) {
                active.presence_news = active.presence_news.max(pos);
            }
            self.note_for_user(peer, pos, wakers);
        }
    }

    /// Those of whom the user is to be told how present they are: whose presence changed after `since` (`None`: who is
    /// there) and up to `until`, and who is there in the rooms that the user has just come into.
    pub fn presence_news(
        &self,
        user: UserNum,
        since: Option<StreamPos>,
        until: StreamPos,
        entered: &[RoomNum],
    ) -> Vec<UserNum> {
        let changed = self.users.get(&user).map_or(StreamPos::ZERO, |active| active.presence_news);
        let mut met = BTreeSet::new();
        for room in entered {
            self.add_peers(*room, &mut met);
        }
        let peers =
            if since.is_none_or(|since| changed > since) { self.peers(user) } else { BTreeSet::new() };
        let is_told = |peer: &UserNum| {
            let Some(shown) = self.presences.get(*peer).filter(|shown| shown.pos <= until) else {
                return false;
            };
            let is_there = shown.state != PresenceState::Offline;
            match since {
                Some(since) => shown.pos > since || (is_there && met.contains(peer)),
                None => is_there,
            }
        };
        peers.union(&met).copied().filter(is_told).take(PRESENCE_PEERS_MAX).collect()
    }

    fn note_own(&self, user: UserNum, pos: StreamPos, wakers: &mut Vec<Waker>) {
        if let Some(mut active) = self.users.get_mut(&user) {
            active.own_news = active.own_news.max(pos);
        }
        self.note_for_user(user, pos, wakers);
    }

    fn note_for_room(&self, room: RoomNum, pos: StreamPos, wakers: &mut Vec<Waker>) {
        // Copied, so that no two shards are ever locked at once.
        let active = self.rooms.get(&room).map(|users| users.clone()).unwrap_or_default();
        for user in active {
            self.note_for_user(user, pos, wakers);
        }
    }

    fn note_for_user(&self, user: UserNum, pos: StreamPos, wakers: &mut Vec<Waker>) {
        let Some(mut active) = self.users.get_mut(&user) else { return };
        active.news = active.news.max(pos);
        wakers.extend(active.wakers.drain(..).map(|(_, waker)| waker));
    }

    /// A wait for news of the user after `since`.
    pub fn wait(self: &Arc<Self>, user: UserNum, since: StreamPos) -> Wait {
        let id = self.next_waiter.fetch_add(1, Ordering::Relaxed);
        Wait { watch: self.clone(), user, since, id }
    }

    /// Wakes all who wait: there is no news any more.
    pub fn close(&self) {
        // Before the places are looked at: who takes one afterwards sees it.
        self.is_closed.store(true, Ordering::Release);
        let mut wakers = Vec::new();
        for mut active in self.users.iter_mut() {
            wakers.extend(active.wakers.drain(..).map(|(_, waker)| waker));
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: UserNum = UserNum(1);
    const ROOM: RoomNum = RoomNum(7);

    fn active() -> Watch {
        let watch = Watch::new(StreamPos::ZERO);
        activate(&watch);
        watch
    }

    fn activate(watch: &Watch) {
        watch.activate(USER, vec![ROOM], || (StreamPos(1), StreamPos(1)));
    }

    fn note(watch: &Watch, pos: i64, touch: Touch) {
        watch.note(StreamPos(pos), &[touch], &mut Vec::new());
    }

    fn rooms(watch: &Watch) -> Vec<RoomNum> {
        watch.standing(USER).unwrap().rooms
    }

    #[test]
    fn who_is_active_again_while_the_idle_are_forgotten_has_news() {
        let watch = active();
        let idle = watch.take_idle();
        assert!(!watch.is_active(USER));
        activate(&watch);
        watch.unlist_idle(idle);
        note(&watch, 2, Touch::Room(ROOM));
        assert_eq!(watch.has_news(USER, StreamPos(1)), Some(true));
        // And who stays away is listed nowhere.
        watch.forget_idle();
        assert!(!watch.is_active(USER));
        assert!(watch.rooms.is_empty());
    }

    #[test]
    fn a_user_is_taken_off_the_list_of_a_room_that_they_left_but_not_of_one_that_they_came_into_since() {
        let watch = active();
        watch.unlist_left(USER, ROOM, StreamPos(2));
        assert!(rooms(&watch).is_empty());
        note(&watch, 3, Touch::Room(ROOM));
        assert_eq!(watch.has_news(USER, StreamPos(1)), Some(false));
        note(&watch, 4, Touch::Membership { user: USER, room: ROOM, joined: true });
        watch.unlist_left(USER, ROOM, StreamPos(3));
        assert_eq!(rooms(&watch), [ROOM]);
        note(&watch, 5, Touch::Room(ROOM));
        assert_eq!(watch.has_news(USER, StreamPos(4)), Some(true));
    }
}
