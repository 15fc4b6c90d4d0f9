//! Unread notifications: how many events in a room notify a user behind what they have read.
//!
//! Nothing is written for members when an event is sent. Counts are made when they are asked for, by evaluating the events
//! that have come since the last time: what was counted is remembered, and forgotten at no harm. Invariant: a remembered
//! count holds for the position that stands with it, and read marks only move ahead. What it takes is bounded, however
//! much is unread ([`pile`]); where that is too little to go on from, it is counted anew.
//!
//! Specification: client-server API, "Receiving notifications" and "Threaded read receipts". As there, an event that the
//! user sends marks what came before it (in its thread) as read.

mod candidate;
mod pile;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use candidate::Candidate;
use pile::{Pile, Uncertain};

use crate::{
    account::push_rules,
    core::{
        num::{EventNum, RoomNum, StreamPos, UserNum},
        push_rules::{CompiledRules, UserContext},
    },
    error::Result,
    room::{
        Event,
        ignored::IgnoredUsers,
        receipts::{MAIN_THREAD, ReceiptKind, UNTHREADED},
        tail,
    },
    store::{
        Cache, Direction, Positioned, Reader, schema,
        schema::{EventStatus, Membership, UserRoom},
    },
};

/// How many events are looked back at when nothing is remembered. Beyond some hundreds nobody counts; this takes a room
/// at most some tens of milliseconds, once after a start.
const LOOK_BACK_EVENTS_MAX: usize = 4_000;
/// How many changes of their own membership event (names, avatars) are followed back to when the user joined.
const MEMBERSHIP_CHANGES_MAX: usize = 100;
/// Bytes for counts: some ten thousand rooms of users who sync.
const COUNTS_BYTES_MAX: usize = 8 << 20;
/// What the count of one user in one room costs, however much is unread in the main timeline.
const COUNT_BYTES: usize = 768;
/// What a thread costs beside its name and notifications: its entry and the sum of what is older, or the position of a receipt.
const THREAD_BYTES: usize = 192;
/// In how many threads of a room notifications are held: as with events, beyond some hundreds nobody counts. The longest silent
/// one goes when there is one more.
const THREADS_MAX: usize = 500;
/// A count that costs more is not remembered: it would take the place of those of hundreds of others.
const REMEMBERED_BYTES_MAX: usize = COUNTS_BYTES_MAX / 8;
/// Bytes for events prepared for rules.
const CANDIDATES_BYTES_MAX: usize = 4 << 20;

/// The main timeline, among threads.
const MAIN: &str = "";

/// What is unread for a user in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Notifications in the main timeline.
    pub notification_count: u64,
    /// Those of them that are highlighted.
    pub highlight_count: u64,
    /// Notifications and highlights by the thread root's event id, where there are any.
    pub threads: BTreeMap<String, (u64, u64)>,
}

impl Unread {
    /// Notifications and highlights of the whole room, for clients that do not tell threads apart.
    pub fn total(&self) -> (u64, u64) {
        let main = (self.notification_count, self.highlight_count);
        self.threads.values().fold(main, |sum, thread| (sum.0 + thread.0, sum.1 + thread.1))
    }
}

/// What is remembered between reads.
pub(crate) struct Memo {
    counts: Cache<(UserNum, RoomNum), Count>,
    /// By the length, too, which is another once an event is written anew.
    candidates: Cache<(EventNum, u64), Candidate>,
}

impl Default for Memo {
    fn default() -> Self {
        Self { counts: Cache::new(COUNTS_BYTES_MAX), candidates: Cache::new(CANDIDATES_BYTES_MAX) }
    }
}

/// What a user has not read in a room, as of a position.
#[derive(Clone)]
struct Count {
    as_of: StreamPos,
    /// The user's membership event, from which the name is.
    member: EventNum,
    display_name: Option<Arc<str>>,
    user_id: Arc<str>,
    rules: Arc<CompiledRules>,
    /// Whose messages the user is not shown.
    ignored: Arc<IgnoredUsers>,
    /// Up to where all is read.
    read: StreamPos,
    /// Up to where a thread (or the main timeline) is read.
    threads_read: BTreeMap<Box<str>, StreamPos>,
    /// What notifies in the main timeline.
    main: Pile,
    /// What notifies in threads, by their roots.
    threads: BTreeMap<Box<str>, Pile>,
}

/// Counts what is unread for `user` in `room`; nothing for who is not joined.
///
/// O(1) where nothing is new, else O(new events); without a remembered count, at most [`LOOK_BACK_EVENTS_MAX`] events.
pub(crate) fn counts(
    reader: &Reader,
    user: UserNum,
    room: RoomNum,
    ignored: Arc<IgnoredUsers>,
) -> Result<Unread> {
    let memo = &reader.shared.memo.unread;
    let watch = &reader.shared.watch;
    let known = memo.counts.get(&(user, room));
    let known =
        known.filter(|count| count.as_of <= reader.pos && !watch.marks.may_have_withdrawn(room, count.as_of));
    let mut count = match known {
        Some(count) if watch.is_current(user, count.as_of) => {
            if watch.room_news(room).is_none_or(|news| news <= count.as_of) {
                return Ok(count.sum());
            }
            // Somebody on the list may have become known since, with the first event that is new here.
            Count { ignored, ..(*count).clone() }
        }
        known => match refresh(reader, user, room, known.as_deref(), ignored)? {
            Some(count) => count,
            None => return Ok(Unread::default()),
        },
    };
    count.bring_up_to_date(reader, user, room)?;
    let (sum, bytes) = (count.sum(), count.bytes());
    match bytes <= REMEMBERED_BYTES_MAX {
        true => memo.counts.replace((user, room), Arc::new(count), bytes),
        false => memo.counts.forget(&(user, room)),
    }
    Ok(sum)
}

/// Brings what is known of the user up to date: membership, name, rules and receipts. `None` for who is not joined.
fn refresh(
    reader: &Reader,
    user: UserNum,
    room: RoomNum,
    known: Option<&Count>,
    ignored: Arc<IgnoredUsers>,
) -> Result<Option<Count>> {
    let row = reader.user_room(user, room)?.filter(|row| row.value.membership == Membership::Join);
    let Some(row) = row else { return Ok(None) };
    let rules = push_rules::compiled(reader, user)?;
    // With others to ignore, what was counted is worth nothing.
    let mut count = match known.filter(|known| known.ignored == ignored) {
        Some(known) => Count { rules, ignored, ..known.clone() },
        None => Count {
            as_of: StreamPos(i64::MIN),
            member: EventNum(0),
            display_name: None,
            user_id: reader.user_id(user)?,
            rules,
            ignored,
            read: StreamPos(i64::MIN),
            threads_read: BTreeMap::new(),
            main: Pile::default(),
            threads: BTreeMap::new(),
        },
    };
    if count.member != row.value.event {
        let member = reader.event(row.value.event)?;
        let name = member.pdu()?.content.get("displayname").and_then(|name| name.as_str()).map(Arc::from);
        count.display_name = name;
        count.member = member.num;
    }
    count.add_receipts(reader, user, room)?;
    count.read = count.read.max(joined_since(reader, user, &row, count.read)?);
    // What has been purged is not unread.
    if let Some(start) = reader.get(&schema::HISTORY_STARTS, &room)? {
        count.read = count.read.max(StreamPos(start.0.saturating_sub(1)));
    }
    Ok(Some(count))
}

/// The position at which the user joined, unless that is before `floor`: their membership event may be a later change of
/// their name.
fn joined_since(
    reader: &Reader,
    user: UserNum,
    row: &Positioned<UserRoom>,
    floor: StreamPos,
) -> Result<StreamPos> {
    let mut event = reader.event(row.value.event)?;
    for _ in 0..MEMBERSHIP_CHANGES_MAX {
        if event.pos() <= floor {
            break;
        }
        let before = reader.member_event(event.header.room, event.header.state_before, user)?;
        match before {
            Some(before) if before.pdu()?.membership() == Some(Membership::Join.name()) => event = before,
            _ => break,
        }
    }
    // Who came before the timeline begins here may have read none of it.
    Ok(if event.header.status == EventStatus::Accepted { event.pos() } else { StreamPos(i64::MIN) })
}

impl Count {
    fn sum(&self) -> Unread {
        let (notification_count, highlight_count) = self.main.counts();
        let threads = self.threads.iter().map(|(root, pile)| (root.to_string(), pile.counts())).collect();
        Unread { notification_count, highlight_count, threads }
    }

    /// What it takes in memory.
    fn bytes(&self) -> usize {
        let unread = self.threads.iter().map(|(root, pile)| THREAD_BYTES + root.len() + pile.bytes());
        let read = self.threads_read.keys().map(|root| THREAD_BYTES + root.len());
        COUNT_BYTES + unread.chain(read).sum::<usize>()
    }

    /// Drops what has been read, and adds what has come since the count was made.
    fn bring_up_to_date(&mut self, reader: &Reader, user: UserNum, room: RoomNum) -> Result<()> {
        let exact = match self.drop_read() {
            Ok(()) => self.add_new(reader, user, room)?,
            Err(Uncertain) => Err(Uncertain),
        };
        if exact.is_err() {
            // Anew from what is read on: then nothing is dropped that was counted before.
            self.as_of = StreamPos(i64::MIN);
            self.main = Pile::default();
            self.threads.clear();
            let counted = self.add_new(reader, user, room)?;
            debug_assert_eq!(counted, Ok(()));
        }
        Ok(())
    }

    /// Up to where a thread is read.
    fn read_in(&self, thread: &str) -> StreamPos {
        self.threads_read.get(thread).map_or(self.read, |pos| self.read.max(*pos))
    }

    fn clear(&mut self, thread: &str) {
        if thread == MAIN {
            self.main = Pile::default();
        } else {
            self.threads.remove(thread);
        }
    }

    fn drop_read(&mut self) -> Result<(), Uncertain> {
        let read = self.read_in(MAIN);
        self.main.drop_read(read)?;
        let mut threads = std::mem::take(&mut self.threads);
        let mut exact = Ok(());
        threads.retain(|thread, pile| {
            exact = exact.and(pile.drop_read(self.read_in(thread)));
            !pile.is_empty()
        });
        self.threads = threads;
        exact
    }

    fn add_receipts(&mut self, reader: &Reader, user: UserNum, room: RoomNum) -> Result<()> {
        let mut receipts = Vec::new();
        reader.scan(&schema::RECEIPTS, &(room, user), Direction::Forward, |(_, _, kind, thread), row| {
            if ReceiptKind::from_number(kind).is_some() && row.pos <= reader.pos {
                receipts.push((thread, row.value.event_pos));
            }
            true
        })?;
        for (thread, pos) in receipts {
            match &*reader.text(thread)? {
                UNTHREADED => self.read = self.read.max(pos),
                MAIN_THREAD => self.mark_read(MAIN, pos),
                root => self.mark_read(root, pos),
            }
        }
        // What is read with all else needs no word of its own.
        let read = self.read;
        self.threads_read.retain(|_, pos| *pos > read);
        Ok(())
    }

    fn mark_read(&mut self, thread: &str, pos: StreamPos) {
        match self.threads_read.get_mut(thread) {
            Some(read) => *read = (*read).max(pos),
            None => {
                self.threads_read.insert(thread.into(), pos);
            }
        }
    }

    /// Evaluates the events that have come since the count was made.
    fn add_new(
        &mut self,
        reader: &Reader,
        user: UserNum,
        room: RoomNum,
    ) -> Result<std::result::Result<(), Uncertain>> {
        let counted_to = self.as_of;
        let nums = tail::events_since(reader, room, counted_to.max(self.read), LOOK_BACK_EVENTS_MAX)?;
        for event in reader.events_left(&nums)? {
            if event.header.status != EventStatus::Accepted || event.pos() > reader.pos {
                continue;
            }
            // By its name, which is in memory: a name that no event bears yet has no number, and is looked for on disk.
            let kind = reader.text(event.header.kind)?;
            if &*kind == "m.room.redaction"
                && let Err(uncertain) = self.forget_redacted(reader, &event, counted_to)?
            {
                return Ok(Err(uncertain));
            }
            // What was filled in is history: it is no news, whenever it is counted. Nor is what nobody is shown.
            let is_news = event.header.redacted_by.is_none() && !event.header.is_filled_in;
            if is_news && !event.is_withheld(reader)? {
                // Changes of a name are made for the user in all rooms at once and say nothing about having read.
                let is_member = &*kind == "m.room.member";
                self.add(reader, &event, event.header.sender == user, is_member)?;
            }
        }
        self.as_of = reader.pos;
        Ok(self.drop_read())
    }

    fn add(&mut self, reader: &Reader, event: &Arc<Event>, is_own: bool, is_member: bool) -> Result<()> {
        if is_own && is_member {
            return Ok(());
        }
        if event.header.state_key.is_none() && self.ignored.contains(event.header.sender) {
            return Ok(());
        }
        let candidate = Candidate::of(reader, event)?;
        if is_own {
            self.mark_read(&candidate.thread, event.pos());
            // All that was counted comes before it.
            self.clear(&candidate.thread);
            return Ok(());
        }
        if event.pos() <= self.read_in(&candidate.thread) {
            return Ok(());
        }
        let user = UserContext { user_id: &self.user_id, display_name: self.display_name.as_deref() };
        let outcome = candidate.evaluate(&self.rules, &user);
        if outcome.notify {
            let highlight = outcome.highlight;
            let pile = match &*candidate.thread {
                MAIN => &mut self.main,
                root => match self.threads.get_mut(root) {
                    Some(pile) => pile,
                    None => {
                        make_room(&mut self.threads);
                        self.threads.entry(root.into()).or_default()
                    }
                },
            };
            pile.push(event.pos(), highlight);
        }
        Ok(())
    }

    /// What is redacted notifies no longer. Events after `counted_to` are known as redacted when they are looked at.
    fn forget_redacted(
        &mut self,
        reader: &Reader,
        redaction: &Event,
        counted_to: StreamPos,
    ) -> Result<std::result::Result<(), Uncertain>> {
        let pdu = redaction.pdu()?;
        let Some(target) = pdu.redacts.as_deref() else { return Ok(Ok(())) };
        let Some(target) = reader.event_num(target)? else { return Ok(Ok(())) };
        let target = reader.event(target)?;
        if target.header.redacted_by != Some(redaction.num) || target.pos() > counted_to {
            return Ok(Ok(()));
        }
        let piles = std::iter::once(&mut self.main).chain(self.threads.values_mut());
        let mut exact = Ok(());
        for pile in piles {
            exact = exact.and(pile.drop_one(target.pos()));
        }
        Ok(exact)
    }
}

/// Makes room for one more thread, if there are as many as may be.
fn make_room(threads: &mut BTreeMap<Box<str>, Pile>) {
    if threads.len() < THREADS_MAX {
        return;
    }
    let silent = threads.iter().min_by_key(|(_, pile)| pile.last()).map(|(root, _)| root.clone());
    if let Some(root) = silent {
        threads.remove(&root);
    }
}
