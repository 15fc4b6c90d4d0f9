//! Taking in events of other servers, on an engine in this process: what it costs in a small and in a huge room, and how
//! fast a huge room is entered.
//!
//! All rooms are on one engine, and what is compared takes turns event by event. In each room as many members are active,
//! spread over all of it; so it is the room's size that differs, and not what was used lately.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use warren_bench::statistics::{median, median_by};
use warren_bench::timing::{in_turns, timed};
use warren_engine::View;
use warren_engine::core::checked::CheckedPdu;
use warren_engine::core::event::Pdu;
use warren_engine::core::num::{NodeId, RoomNum};
use warren_engine::store::Reader;

use self::host::Entered;
pub use self::host::{Entry, Host, Writes};
use self::room::{Place, Sent};
pub use self::room::{Room, version};
use crate::context::{Figure, InProcess};
use crate::error::{Error, Result};

mod host;
mod room;

/// Members of the rooms.
const SMALL: usize = 100;
const LARGE: usize = 1_000;
const HUGE: usize = 100_000;
/// How often the huge room is entered, each time on an empty disk.
const ENTRIES: usize = 3;
/// Events of a kind that are measured one by one in each room.
const EVENTS: usize = 1_000;
/// Those before them that warm up.
const WARM_UP: usize = 100;
/// Members who are active in a room.
const ACTIVE: usize = 50;
/// Forks that are measured in each room, and those before them that warm up.
const FORKS: usize = 60;
const FORKS_WARM_UP: usize = 5;
/// Events on each side of a fork.
const SIDE: usize = 5;
/// Changes between two states that are compared, and the members who change: as many as have a node of the state's tree to
/// themselves, of at most 48 entries, also in the large room.
const CHANGES: usize = 10;
const CHANGING: usize = 20;
const KIBIBYTE: f64 = 1024.0;

/// Forks are measured for no longer than this.
const FORKS_TIME_MAX: Duration = Duration::from_secs(15);

/// An error of the engine's, which no measure provokes.
pub fn engine_error(error: impl std::fmt::Display) -> Error {
    Error::Implausible(error.to_string())
}

/// Takes the measures.
pub fn run(ctx: &mut InProcess<'_>) -> Result<()> {
    let folder = ctx.disk.join("engine");
    let [mut small, mut large, mut huge] = enter(ctx, &folder)?;
    let host = Host::open(&folder, Writes::AtOnce, &huge)?;
    host.settle();
    if ctx.wants("receive-message-ratio") {
        messages(ctx, &host, [&mut huge, &mut small])?;
    }
    if ctx.wants("receive-state-ratio") || ctx.wants("state-event-bytes") {
        state_events(ctx, &host, [&mut huge, &mut small])?;
    }
    if ctx.wants("state-difference-ratio") {
        differences(ctx, &host, [&mut huge, &mut large])?;
    }
    if ctx.wants("resolve-fork-ratio") {
        forks(ctx, &host, [&mut huge, &mut large])?;
    }
    Ok(())
}

/// A room, and what a server that enters it is given.
fn made(name: &str, members: usize) -> Result<(Room, Entry)> {
    let (mut room, state) = Room::new(name, members)?;
    let mut place = room.end();
    let join = room.join(&mut place, members, "")?;
    room.extend(place);
    let entry = Entry::new(room.id.clone(), state, join);
    Ok((room, entry))
}

/// Enters the rooms as a server does, as often as it takes for a median; they are in `folder` then. The huge one comes
/// last, so that the others lie as deep in the store as most of it.
fn enter(ctx: &mut InProcess<'_>, folder: &Path) -> Result<[Room; 3]> {
    let (small, small_entry) = made("small", SMALL)?;
    let (large, large_entry) = made("large", LARGE)?;
    let (huge, entry) = made("huge", HUGE)?;
    let is_measured = ctx.wants("enter-100000");
    let mut taken = Vec::new();
    for _ in 0..if is_measured { ENTRIES } else { 1 } {
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(Error::system("empty the engine's folder"))?;
        }
        let host = Host::open(folder, Writes::Durable, &huge)?;
        host.enter(&small_entry)?;
        host.enter(&large_entry)?;
        taken.push(host.enter(&entry)?);
    }
    let seconds = |taken: &Entered| (taken.parsing + taken.storing).as_secs_f64();
    if let Some(taken) = median_by(taken, seconds).filter(|_| is_measured) {
        let (parsing, storing) = (taken.parsing.as_secs_f64(), taken.storing.as_secs_f64());
        let verifying = taken.verifying.as_secs_f64();
        let note = format!(
            "parsed and hashed in {parsing:.2} s, judged and stored in {storing:.2} s; with signatures parsed in \
             {verifying:.2} s"
        );
        ctx.take(Figure::new("enter-100000", entry.state.len() as f64 / seconds(&taken)).noting(note));
    }
    Ok([small, large, huge])
}

/// Events that follow each other at a room's end.
struct Events {
    room_id: Arc<str>,
    pdus: Vec<Arc<CheckedPdu>>,
}

impl Events {
    fn new(
        host: &Host,
        room: &mut Room,
        count: usize,
        make: impl Fn(&Room, &mut Place, usize) -> Result<Pdu>,
    ) -> Result<Events> {
        let mut place = room.end();
        let pdus = (0..count).map(|index| make(room, &mut place, index)).collect::<Result<Vec<_>>>()?;
        room.extend(place);
        let json: Vec<Bytes> = pdus.into_iter().map(|pdu| pdu.json).collect();
        Ok(Events { room_id: room.id.clone(), pdus: host.check(&json)? })
    }
}

/// What accepting an event took: the median time in seconds, and the mean of the bytes written.
struct Accepted {
    seconds: f64,
    bytes: f64,
}

/// Accepts events of two rooms one by one, in turns; each room is the first as often as the second.
fn accept_in_turns(host: &Host, rooms: [&Events; 2]) -> Result<[Accepted; 2]> {
    let mut taken = rooms.map(|events| (events, Vec::new(), 0));
    for index in 0..WARM_UP + EVENTS {
        for (events, times, bytes) in &mut taken {
            let Some(pdu) = events.pdus.get(index) else { continue };
            let before = host.figure("bytes_written");
            let time = host.receive(&events.room_id, std::slice::from_ref(pdu))?;
            if index >= WARM_UP {
                times.push(time.as_secs_f64());
                *bytes += host.figure("bytes_written") - before;
            }
        }
        taken.reverse();
    }
    // An even number of turns has left them in their order.
    Ok(taken.map(|(_, times, bytes)| Accepted {
        bytes: bytes as f64 / times.len() as f64,
        seconds: median(times).unwrap_or(f64::NAN),
    }))
}

/// A ratio of two times, with both in its note.
fn ratio(name: &'static str, [one, other]: [f64; 2], other_room: usize) -> Figure {
    let note = format!("{:.1} µs, {:.1} µs in the room of {other_room}", one * 1e6, other * 1e6);
    Figure::new(name, one / other).noting(note)
}

fn messages(ctx: &mut InProcess<'_>, host: &Host, [huge, small]: [&mut Room; 2]) -> Result<()> {
    let message = |room: &Room, place: &mut Place, index: usize| {
        let sender = room.member(room.spread(index, ACTIVE));
        let content = json!({"msgtype": "m.text", "body": format!("The message with the number {index}.")});
        room.add(place, Sent { sender: &sender, kind: "m.room.message", state_key: None, content })
    };
    let huge = Events::new(host, huge, WARM_UP + EVENTS, message)?;
    let small = Events::new(host, small, WARM_UP + EVENTS, message)?;
    let [huge, small] = accept_in_turns(host, [&huge, &small])?;
    ctx.take(ratio("receive-message-ratio", [huge.seconds, small.seconds], SMALL));
    Ok(())
}

/// One of so many members takes another name: the state event that huge rooms have most of.
fn renamed(room: &Room, place: &mut Place, index: usize, active: usize) -> Result<Pdu> {
    room.join(place, room.spread(index, active), &format!(" {index}"))
}

fn state_events(ctx: &mut InProcess<'_>, host: &Host, [huge, small]: [&mut Room; 2]) -> Result<()> {
    let renamed = |room: &Room, place: &mut Place, index| renamed(room, place, index, ACTIVE);
    let huge = Events::new(host, huge, WARM_UP + EVENTS, renamed)?;
    let small = Events::new(host, small, WARM_UP + EVENTS, renamed)?;
    let [huge, small] = accept_in_turns(host, [&huge, &small])?;
    if ctx.wants("receive-state-ratio") {
        ctx.take(ratio("receive-state-ratio", [huge.seconds, small.seconds], SMALL));
    }
    if ctx.wants("state-event-bytes") {
        let note = format!("{:.2} KiB in the room of {SMALL}", small.bytes / KIBIBYTE);
        ctx.take(Figure::new("state-event-bytes", huge.bytes / KIBIBYTE).noting(note));
    }
    Ok(())
}

/// Pairs of states of a room that are so many changes apart.
struct Pairs {
    room: RoomNum,
    states: Vec<NodeId>,
    next: usize,
}

impl Pairs {
    fn new(host: &Host, room: &mut Room) -> Result<Pairs> {
        let renamed = |room: &Room, place: &mut Place, index| renamed(room, place, index, CHANGING);
        let events = Events::new(host, room, 2 * CHANGING, renamed)?;
        host.receive(&events.room_id, &events.pdus)?;
        let ids = events.pdus.iter().map(|checked| checked.pdu().event_id.clone());
        let states = ids.map(|event_id| host.engine().read(&StateAfter(&event_id)).map_err(engine_error));
        let states = states.collect::<Result<Vec<_>>>()?;
        let room = states.first().map(|(room, _)| *room).ok_or(Error::Needs("events"))?;
        let pairs = Pairs { room, states: states.into_iter().map(|(_, state)| state).collect(), next: 0 };
        if host.engine().read(&pairs).map_err(engine_error)? == CHANGES {
            return Ok(pairs);
        }
        Err(Error::Implausible(format!("two states are not {CHANGES} changes apart")))
    }
}

impl View for Pairs {
    /// How many changes the next pair is apart.
    type Output = usize;

    fn read(&self, reader: &Reader) -> warren_engine::Result<usize> {
        let pair = self.states.get(self.next).zip(self.states.get(self.next + CHANGES));
        let Some((before, after)) = pair else { return Ok(0) };
        Ok(reader.state_difference(self.room, *before, *after)?.len())
    }
}

/// The state after an event, and its room.
struct StateAfter<'a>(&'a str);

impl View for StateAfter<'_> {
    type Output = (RoomNum, NodeId);

    fn read(&self, reader: &Reader) -> warren_engine::Result<(RoomNum, NodeId)> {
        let num = reader.event_num(self.0)?.unwrap_or_default();
        let header = &reader.event(num)?.header;
        Ok((header.room, header.state_after))
    }
}

fn differences(ctx: &mut InProcess<'_>, host: &Host, [huge, large]: [&mut Room; 2]) -> Result<()> {
    let take = |pairs: &mut Pairs| {
        pairs.next = (pairs.next + 1) % (pairs.states.len() - CHANGES);
        timed(|| host.engine().read(&*pairs))
    };
    let (mut huge, mut large) = (Pairs::new(host, huge)?, Pairs::new(host, large)?);
    let times = in_turns([&mut || take(&mut huge), &mut || take(&mut large)]);
    ctx.take(ratio("state-difference-ratio", times, LARGE));
    Ok(())
}

fn forks(ctx: &mut InProcess<'_>, host: &Host, mut rooms: [&mut Room; 2]) -> Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    let begun = Instant::now();
    for number in 0..FORKS_WARM_UP + FORKS {
        if number > 2 * FORKS_WARM_UP && begun.elapsed() > FORKS_TIME_MAX {
            break;
        }
        for (room, times) in rooms.iter_mut().zip(&mut times) {
            let taken = fork(host, room, number)?;
            if number >= FORKS_WARM_UP {
                times.push(taken.as_secs_f64());
            }
        }
    }
    let times = times.map(|times| median(times).unwrap_or(f64::NAN));
    ctx.take(ratio("resolve-fork-ratio", times, LARGE));
    Ok(())
}

/// Forks a room and joins the fork again. Each event of the second side has the fork resolved; how long it took to accept
/// the last, with which the sides differ in all their events.
fn fork(host: &Host, room: &mut Room, number: usize) -> Result<Duration> {
    let mut sides = [room.end(), room.end()];
    let mut pdus = Vec::new();
    for (side, place) in sides.iter_mut().enumerate() {
        for index in 0..SIDE {
            pdus.push(conflicting(room, place, [side, number, index])?);
        }
    }
    let mut merged = Room::merge(sides.into()).ok_or(Error::Needs("sides"))?;
    let sender = room.member(0);
    let content = json!({"msgtype": "m.text", "body": "All is one again."});
    pdus.push(
        room.add(&mut merged, Sent { sender: &sender, kind: "m.room.message", state_key: None, content })?,
    );
    let json: Vec<Bytes> = pdus.iter().map(|pdu| pdu.json.clone()).collect();
    let checked = host.check(&json)?;
    let (before, rest) = checked.split_at(2 * SIDE - 1);
    let (last, end) = rest.split_at(1);
    host.receive(&room.id, before)?;
    let taken = host.receive(&room.id, last)?;
    host.receive(&room.id, end)?;
    let end = end.first().ok_or(Error::Needs("an end"))?.pdu().event_id.clone();
    for key in merged.changed() {
        let entry = StateEntry { after: &end, kind: &key.0, state_key: &key.1 };
        if let Some(event_id) = host.engine().read(&entry).map_err(engine_error)? {
            room.set_state(key, event_id);
        }
    }
    room.move_end(merged);
    Ok(taken)
}

/// An event of one side of a fork. Both sides change the same entries, and each builds on power levels of its own.
fn conflicting(room: &Room, place: &mut Place, [side, number, index]: [usize; 3]) -> Result<Pdu> {
    let (creator, moderator) = (room.member(0), room.member(1 + side));
    let target = room.member(room.ordinary(index));
    let (sender, kind, state_key, content) = match index {
        0 => (creator, "m.room.power_levels", "", room.power_levels((2 * number + side) as u64 % 40)),
        1 => (moderator, "m.room.member", &*target, json!({"membership": "ban"})),
        2 => (moderator, "m.room.member", &*target, json!({"membership": "leave"})),
        3 => (moderator, "m.room.topic", "", json!({"topic": format!("{number} {side}")})),
        _ => return room.join(place, room.ordinary(index), &format!(" {number} {side}")),
    };
    room.add(place, Sent { sender: &sender, kind, state_key: Some(state_key), content })
}

/// The id of the event that the state after another has under a key.
struct StateEntry<'a> {
    after: &'a str,
    kind: &'a str,
    state_key: &'a str,
}

impl View for StateEntry<'_> {
    type Output = Option<Arc<str>>;

    fn read(&self, reader: &Reader) -> warren_engine::Result<Option<Arc<str>>> {
        let (room, state) = StateAfter(self.after).read(reader)?;
        let event = reader.state_event(room, state, self.kind, self.state_key)?;
        Ok(event.map(|event| event.event_id.clone()))
    }
}
