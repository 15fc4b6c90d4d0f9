//! Events of a room's state are kept while they cannot be checked, and become part of it once they can ([`crate::room::unchecked`]).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;

use super::receive_pdus::{Received, take_outliers, tell_found};
use crate::{
    command::{Command, Lanes},
    core::{
        checked::CheckedPdu,
        event::Pdu,
        num::{RoomNum, TextNum},
        version::RoomVersion,
    },
    error::Result,
    room::{
        RoomCtx, membership, outgoing,
        receive::{Adopted, AtHand, GivenState, Outcome, adopt_state},
        unchecked::{self, Waiting},
    },
    store::{Reader, StorageError, Tx, schema, schema::UncheckedEvent},
};

/// How long events of a room wait that is not entered after all, in milliseconds: a join takes minutes at most.
const NOT_ENTERED_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// States that are resolved with that of the room in one command: each is read whole.
const STATES_AT_ONCE: usize = 8;
/// Servers whose keys a room may wait for when more is kept: each is asked again and again, a few of all rooms' at once.
const AWAITED_SERVERS_MAX: usize = 1_000;
/// Events of a room that may wait for keys: those of all members of large rooms whose servers are gone for good. The others are left
/// out.
pub const UNCHECKED_EVENTS_MAX: usize = 20_000;
/// What they may take together, in bytes: so much as the same number of members does.
pub const UNCHECKED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// An event that cannot be checked.
#[derive(Clone, Debug)]
pub struct Unchecked {
    /// Its id.
    pub event_id: Arc<str>,
    /// The server whose keys it waits for.
    pub server: String,
    /// Whether it is part of the state; else it allows something that is.
    pub is_state: bool,
    /// The event as JSON.
    pub json: Bytes,
}

/// Keeps events of a state that another server told, which cannot be checked yet.
#[derive(Clone, Debug)]
pub struct KeepUnchecked {
    /// The room's id.
    pub room_id: String,
    /// Its version.
    pub version: &'static RoomVersion,
    /// The event before which the state is.
    pub before: Arc<str>,
    /// The events. Some hundreds at once make a batch of good size.
    pub events: Vec<Unchecked>,
    /// Whether the room was entered by that event, long ago it may be. Else it is about to be, and this is newer than all that was told
    /// with joins before.
    pub is_entered: bool,
    /// Whether they take the place of what was kept before: of the state before the same event, if the room was entered by that. Else of
    /// those that were told with joins; and of all others, unless this server is in the room.
    pub is_anew: bool,
}

impl Command for KeepUnchecked {
    /// Errors: [`crate::Conflict::PurgeRunning`].
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let room = match RoomCtx::find(tx, &self.room_id)? {
            Some(room) => room.num,
            None => RoomCtx::create(tx, &self.room_id, self.version)?.num,
        };
        if self.is_anew {
            self.make_place(tx, room)?;
        }
        let since_ms = tx.shared.clock.now_ms();
        for event in &self.events {
            let Unchecked { event_id, server, is_state, json } = event;
            let server = tx.intern_text(server)?;
            // It waits as part of a later state already.
            if self.is_entered && unchecked::waits_as(tx, (room, server), event_id, *is_state)? {
                continue;
            }
            let (before, json) = (self.before.to_string(), json.to_vec());
            let row = UncheckedEvent { before, is_state: *is_state, since_ms, json };
            unchecked::keep(tx, room, server, event_id, &row);
        }
        Ok(())
    }
}

impl KeepUnchecked {
    /// Lets go what these take the place of.
    fn make_place(&self, tx: &mut Tx, room: RoomNum) -> Result<()> {
        if self.is_entered {
            unchecked::let_state_go(tx, room, &self.before)?;
        } else if tx.is_server_in_room(&tx.shared.server_name, room)? {
            unchecked::let_joins_go(tx, room)?;
        } else {
            unchecked::let_all_go(tx, room)?;
        }
        Ok(())
    }
}

/// Keeps what the state before an event goes without, beside what waits in the room already. `outcomes` says which of the events others
/// may follow. Answers whose keys more waits for than before. O(events that wait in the
/// room), where there is something new to be kept.
pub(super) fn keep_back(
    tx: &mut Tx,
    room: RoomNum,
    left_out: &[(Arc<str>, Unchecked)],
    outcomes: &[(Arc<str>, Outcome)],
) -> Result<BTreeSet<String>> {
    let mut awaited = BTreeSet::new();
    if left_out.is_empty() {
        return Ok(awaited);
    }
    let mut placed: HashSet<&Arc<str>> = HashSet::new();
    for (event_id, outcome) in outcomes {
        if may_stand_on(tx, room, event_id, outcome)? {
            placed.insert(event_id);
        }
    }
    let mut new = Vec::new();
    for (before, event) in left_out.iter().filter(|(before, _)| placed.contains(before)) {
        if !unchecked::waits(tx, room, &event.server, &event.event_id)? {
            new.push((before, event));
        }
    }
    if new.is_empty() {
        return Ok(awaited);
    }
    let Waiting { mut ids, mut bytes, mut servers } = unchecked::waiting(tx, room)?;
    let since_ms = tx.shared.clock.now_ms();
    for (before, Unchecked { event_id, server, is_state, json }) in new {
        let has_room = ids.len() < UNCHECKED_EVENTS_MAX
            && bytes + json.len() <= UNCHECKED_BYTES_MAX
            && (servers.len() < AWAITED_SERVERS_MAX || servers.contains(server));
        // Its key may have come since: it is known from outside of the graph then, and adopted soon.
        if has_room && !unchecked::is_placed(tx, room, event_id)? && ids.insert(event_id.clone()) {
            servers.insert(server.clone());
            awaited.insert(server.clone());
            let server = tx.intern_text(server)?;
            let (before, json) = (before.to_string(), json.to_vec());
            bytes += json.len();
            let row = UncheckedEvent { before, is_state: *is_state, since_ms, json };
            unchecked::keep(tx, room, server, event_id, &row);
        }
    }
    Ok(awaited)
}

/// Whether others may follow an event, so that the room comes to stand on the state before it. Of servers that nobody of is in the room
/// anybody could be the sender.
fn may_stand_on(
    reader: &Reader,
    room: RoomNum,
    event_id: &str,
    outcome: &Outcome,
) -> Result<bool, StorageError> {
    match outcome {
        Outcome::Accepted | Outcome::NotRecommended => Ok(true),
        Outcome::SoftFailed(_) => unchecked::is_of_server_in_room(reader, room, event_id),
        _ => Ok(false),
    }
}

/// Takes in events that waited for the keys of a server, and can be checked now.
#[derive(Clone, Debug)]
pub struct TakeUnchecked {
    /// The room's id.
    pub room_id: String,
    /// The server.
    pub server: String,
    /// The events, checked.
    pub pdus: Vec<Arc<CheckedPdu>>,
    /// The ids of those that turned out to be none.
    pub refused: Vec<Arc<str>>,
    /// Those that wait for another server's keys, too, by their ids.
    pub elsewhere: Vec<(Arc<str>, String)>,
}

/// What became of events that waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakenUnchecked {
    /// Those that wait for nothing more are let go, and have been adopted into the room's state.
    Settled {
        /// How many these are.
        count: usize,
        /// What came of it.
        adopted: Adopted,
        /// Those that wait for nothing but the next command, as parts of more states than are adopted at once, by their ids.
        further: Vec<Arc<str>>,
    },
    /// They go on waiting: the room is not entered yet, or members of it are on the way, with which all of its state is told again.
    NotYet,
    /// They are let go, for the room was not entered.
    LetGo,
}

impl Command for TakeUnchecked {
    type Output = TakenUnchecked;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id).event_ids(&self.pdus)
    }

    fn run(&self, tx: &mut Tx) -> Result<TakenUnchecked> {
        let Some(server) = tx.text_num(&self.server)? else { return Ok(TakenUnchecked::NotYet) };
        let Some(mut room) = RoomCtx::find(tx, &self.room_id)? else { return self.not_entered(tx) };
        if !tx.is_server_in_room(&tx.shared.server_name, room.num)? {
            return self.not_entered(tx);
        }
        if room.head.partial_state {
            return Ok(TakenUnchecked::NotYet);
        }
        let mut settled = self.settle(tx, &mut room, server)?;
        let known: HashSet<TextNum> = tx.counted_servers(room.num)?.into_iter().collect();
        let (state, allowed_guests) = (room.head.state, membership::allows_guests(tx, &room)?);
        let mut adopted = Adopted::default();
        let (states, further) = states_of(tx, &room, &mut settled)?;
        let is_told = !states.is_empty();
        for given in states {
            let of_one = adopt_state(tx, &mut room, &given)?;
            adopted.differing += of_one.differing;
            adopted.changed += of_one.changed;
            adopted.left_out.extend(of_one.left_out);
        }
        if is_told {
            tell_found(tx, &room, &known, None)?;
        }
        let mut users = HashSet::new();
        for (event_id, row) in &settled {
            users.extend(unchecked::let_go(tx, room.num, server, event_id, row)?);
        }
        unchecked::note_members(tx, room.num, &users)?;
        outgoing::tell_again(tx, &room, state)?;
        membership::follow_guest_access(tx, &mut room, allowed_guests)?;
        room.save(tx);
        Ok(TakenUnchecked::Settled { count: settled.len(), adopted, further })
    }
}

/// What is let go of events that waited, by their ids.
type Settled = Vec<(Arc<str>, UncheckedEvent)>;

/// The states that they are part of, as far as they tell them: that before the join, and those before later events that went without
/// them. The latest come first; what is of more states than are resolved at once goes on waiting, and is told by its ids.
fn states_of(tx: &Tx, room: &RoomCtx, settled: &mut Settled) -> Result<(Vec<GivenState>, Vec<Arc<str>>)> {
    let in_state = settled.iter().filter(|(_, row)| row.is_state);
    let befores: BTreeSet<String> = in_state.map(|(_, row)| row.before.clone()).collect();
    let mut by_age = Vec::with_capacity(befores.len());
    for before in befores {
        by_age.push((tx.event_num(&before)?, before));
    }
    by_age.sort_unstable();
    let taken: Vec<String> =
        by_age.into_iter().rev().take(STATES_AT_ONCE).map(|(_, before)| before).collect();
    let (now, further): (Settled, Settled) = std::mem::take(settled)
        .into_iter()
        .partition(|(_, row)| !row.is_state || taken.contains(&row.before));
    *settled = now;
    let mut given = Vec::with_capacity(taken.len());
    for before in &taken {
        let of_it = settled.iter().filter(|(_, row)| row.is_state && row.before == *before);
        let state = of_it.map(|(event_id, _)| event_id.clone()).collect();
        let compared = unchecked::compared_with(tx, room, before)?;
        given.extend(compared.map(|event_id| GivenState { event_id, state }));
    }
    Ok((given, further.into_iter().map(|(event_id, _)| event_id).collect()))
}

impl TakeUnchecked {
    /// Keeps what can be kept outside of the graph, and moves what waits for others to where those wait. Answers what waits no more.
    fn settle(&self, tx: &mut Tx, room: &mut RoomCtx, server: TextNum) -> Result<Settled> {
        let mut received = Received::default();
        take_outliers(tx, room, &self.pdus, &mut AtHand::default(), &mut received)?;
        let pdus: HashMap<&str, &Arc<Pdu>> =
            self.pdus.iter().map(|checked| (&*checked.pdu().event_id, checked.pdu())).collect();
        let waits = |(_, outcome): &(_, Outcome)| *outcome == Outcome::Waiting;
        let mut waited_for = match self.elsewhere.is_empty() && !received.outcomes.iter().any(waits) {
            true => HashMap::new(),
            false => unchecked::waited_for(tx, room.num)?,
        };
        let mut settled = Vec::with_capacity(self.pdus.len());
        for (event_id, other) in &self.elsewhere {
            let other = tx.intern_text(other)?;
            self.move_to(tx, room.num, (server, other), event_id)?;
            waited_for.insert(event_id.clone(), other);
        }
        let refused = self.refused.iter().map(|event_id| (event_id.clone(), None));
        let outcomes = received.outcomes.into_iter().map(|(event_id, outcome)| (event_id, Some(outcome)));
        for (event_id, outcome) in refused.chain(outcomes) {
            let named = pdus
                .get(&*event_id)
                .map(|pdu| &pdu.auth_events)
                .filter(|_| outcome == Some(Outcome::Waiting));
            // What allows it may have been refused, or told by nobody: then nobody can tell whether it is allowed.
            match named.into_iter().flatten().find_map(|named| waited_for.get(named)).copied() {
                Some(other) => {
                    self.move_to(tx, room.num, (server, other), &event_id)?;
                    waited_for.insert(event_id, other);
                }
                None => {
                    let key = (room.num, server, event_id.to_string());
                    settled
                        .extend(tx.get(&schema::UNCHECKED_EVENTS, &key)?.map(|row| (event_id.clone(), row)));
                    waited_for.remove(&event_id);
                }
            }
        }
        Ok(settled)
    }

    fn move_to(
        &self,
        tx: &mut Tx,
        room: RoomNum,
        (from, to): (TextNum, TextNum),
        event_id: &Arc<str>,
    ) -> Result<()> {
        let row = tx.get(&schema::UNCHECKED_EVENTS, &(room, from, event_id.to_string()))?;
        if let Some(row) = row.filter(|_| from != to) {
            unchecked::let_go(tx, room, from, event_id, &row)?;
            unchecked::keep(tx, room, to, event_id, &row);
        }
        Ok(())
    }

    /// The room may be about to be entered; or it was not, and nobody asks for them any more.
    fn not_entered(&self, tx: &mut Tx) -> Result<TakenUnchecked> {
        let Some(room) = tx.room_num(&self.room_id)? else { return Ok(TakenUnchecked::LetGo) };
        let old_ms = tx.shared.clock.now_ms().saturating_sub(NOT_ENTERED_MS_MAX);
        if unchecked::newest_ms(tx, room)? > old_ms {
            return Ok(TakenUnchecked::NotYet);
        }
        unchecked::let_all_go(tx, room)?;
        Ok(TakenUnchecked::LetGo)
    }
}
