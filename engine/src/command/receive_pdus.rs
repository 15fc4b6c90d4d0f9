//! Events of other servers are taken in.
//!
//! Nothing here dials out: what it takes to go on is told as missing, and giving the same again with it does no harm.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    command::{Command, Lanes, Unchecked, carry_settings, outsiders, prune, unchecked_events},
    core::{
        checked::{CheckedPdu, Refused},
        event::Pdu,
        identifiers::server_name,
        num::{EventNum, RoomNum, StreamPos, TextNum},
        version::RoomVersion,
    },
    device::lists,
    error::{Error, Missing, Result, What},
    room::{
        RoomCtx, answered, entrance, membership, merging, outgoing,
        policy::Recommendation,
        receive::{
            self, AtHand, GivenState, KeptPlaces, Outcome, PassedBy, Standing, Told, Within, in_order,
            in_order_past, receive_backfill, receive_outlier,
        },
        servers, third_party_invites,
    },
    store::{
        Tx, schema,
        schema::{Membership, PartialJoin},
    },
    stream::{Outgoing, Touch},
};

/// How far the clock of a server may be ahead, in milliseconds, that tells when one of its users came into a room. A clock that is
/// wrong by more is noticed by its users.
const CLOCK_AHEAD_MS_MAX: u64 = 60 * 60 * 1000;

/// Of how many of this server's users in a room a server learns that is found to be there. Each is written of for each such server;
/// of the others it learns when it asks for their keys.
const MEMBERS_TOLD_MAX: usize = 1_000;

/// What became of events that were given.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Received {
    /// Of each event, outliers first, each after those that it refers to.
    pub outcomes: Vec<(Arc<str>, Outcome)>,
    /// What the waiting ones wait for, and was not given with them.
    pub missing: Missing,
    /// Of events of the past that wait, the places that are kept for them.
    pub places: KeptPlaces,
    /// The servers whose keys more waits for than before ([`crate::view::federation::AwaitedKeys`]).
    pub awaited: BTreeSet<String>,
    /// Whether the room has so many ends by now that they are to be brought together at once
    /// ([`crate::command::MergeEnds`]).
    pub has_many_ends: bool,
    /// Whether guests of this server have to leave the room, and its policy server has to sign that before
    /// ([`crate::command::RemoveGuests`]).
    pub has_guests_to_remove: bool,
}

/// Events of a room that this server is in.
#[derive(Clone, Debug, Default)]
pub struct ReceivePdus {
    /// The room's id.
    pub room_id: String,
    /// The events, in any order.
    pub pdus: Vec<Arc<CheckedPdu>>,
    /// Events that are only to be known: of auth chains, and of `states`.
    pub outliers: Vec<Arc<CheckedPdu>>,
    /// The state before some of the events, as another server tells it, for where events before them are missing.
    pub states: Vec<GivenState>,
    /// The events whose state was told by others than their senders' servers: a verdict by it alone is not kept.
    pub hearsay: BTreeSet<Arc<str>>,
    /// Events that nobody sent: another server told them as what lies between what is here and what was sent. Those of them that are
    /// history are not taken in.
    pub told: BTreeSet<Arc<str>>,
    /// Events that the room's policy server was asked to sign, and did not.
    pub not_recommended: BTreeSet<Arc<str>>,
    /// What the states go without, since it cannot be checked yet, and the event before which it was told: it is kept where that event
    /// has its place in the graph.
    pub unchecked: Vec<(Arc<str>, Unchecked)>,
    /// Whether the events are of the room's past: they are placed in its gaps, and clients are not told.
    pub backfill: bool,
    /// Of these, one that nothing here leads to.
    pub within: Option<Within>,
    /// Events of the past that are not to be taken in, and that others among these may follow.
    pub passed_by: Vec<PassedBy>,
    /// Where those are to stand that have waited, as it was told of them ([`Received::places`]).
    pub places: KeptPlaces,
    /// Whether they are invites of our users by an address ([`crate::view::federation::MakeInvite::third_party_signed`]), of which
    /// none comes in that has been overtaken: by another, or by whatever else became of its users.
    pub are_by_address: bool,
    /// The server that sent the events, or what led to them, of its own accord. Of those that have no user in the room little is kept
    /// that is denied.
    pub sent_by: Option<String>,
}

impl Command for ReceivePdus {
    /// Errors: [`What::Room`] not found, if this server never was in the room; for invites by an address [`crate::Denied::NotInRoom`],
    /// [`crate::Denied::TargetInRoom`] and [`crate::Conflict::AlreadyInvited`].
    type Output = Received;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id).event_ids(self.pdus.iter().chain(&self.outliers))
    }

    fn run(&self, tx: &mut Tx) -> Result<Received> {
        if self.are_by_address {
            self.check_are_wanted(tx)?;
        }
        let received = self.take_in(tx)?;
        self.tell_come(tx)?;
        Ok(received)
    }
}

impl ReceivePdus {
    /// Takes the events in, as the command does. A server that comes in by this one alone misses no change of devices, and is told of
    /// none.
    pub(super) fn take_in(&self, tx: &mut Tx) -> Result<Received> {
        let mut room = RoomCtx::load(tx, &self.room_id)?;
        let is_outside = outsiders::is_outside(tx, &room, self.sent_by.as_deref())?;
        if is_outside && tx.shared.outsiders.has_no_place(room.num, tx.shared.clock.now_ms()) {
            return Ok(outsiders::refuse(self));
        }
        let state = room.head.state;
        // What a redaction takes cannot be read afterwards.
        let redacts = self.pdus.iter().any(|checked| checked.pdu().redacts.is_some());
        let mut allowed_guests = redacts && membership::allows_guests(tx, &room)?;
        let mut received = Received::default();
        let mut at_hand = AtHand::default();
        take_outliers(tx, &mut room, &self.outliers, &mut at_hand, &mut received)?;
        // Those that were refused are no help, and are told as missing to whatever needs them.
        let waiting = received.outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Waiting);
        let outliers: HashSet<Arc<str>> = waiting.map(|(event_id, _)| event_id.clone()).collect();
        let states: HashMap<&str, &GivenState> =
            self.states.iter().map(|given| (&*given.event_id, given)).collect();
        let (ordered, circular) = match self.passed_by.is_empty() {
            true => in_order(&self.pdus),
            false => in_order_past(&self.pdus, &self.passed_by),
        };
        if self.backfill {
            let outcomes = {
                let told = Told {
                    within: self.within.as_ref(),
                    states: &states,
                    kept: &self.places,
                    not_recommended: &self.not_recommended,
                };
                let waiting = (&mut received.missing, &mut received.places);
                receive_backfill(tx, &mut room, (&ordered, &self.passed_by), &told, waiting)?
            };
            received.outcomes.extend(outcomes);
        } else {
            self.take_live(tx, &mut room, (&ordered, &states), &mut at_hand, &mut received)?;
            received.awaited =
                unchecked_events::keep_back(tx, room.num, &self.unchecked, &received.outcomes)?;
        }
        refuse(&mut received, &circular);
        let given: HashSet<&str> = ordered.iter().map(|checked| &*checked.pdu().event_id).collect();
        received.missing.settle(|event_id| given.contains(event_id), |event_id| outliers.contains(event_id));
        allowed_guests |= room.head.state != state && membership::allowed_guests(tx, room.num, state)?;
        outgoing::tell_again(tx, &room, state)?;
        received.has_guests_to_remove = membership::follow_guest_access(tx, &mut room, allowed_guests)?;
        received.has_many_ends = merging::has_many_ends(&room);
        if is_outside {
            outsiders::count(tx, room.num, self, &received.outcomes);
        }
        room.save(tx);
        Ok(received)
    }

    fn check_are_wanted(&self, tx: &Tx) -> Result<()> {
        let room = RoomCtx::load(tx, &self.room_id)?;
        self.pdus.iter().try_for_each(|checked| {
            let pdu = checked.pdu();
            let target = pdu.state_key.as_deref().unwrap_or_default();
            third_party_invites::check_is_wanted(tx, &room, (&pdu.sender, target))
        })
    }

    /// Servers that came in by way of others may have done so long ago, and not been told what became of devices that they have asked
    /// for since. Where none has come in, nothing is read; in a crowd they learn of that when they ask for keys.
    fn tell_come(&self, tx: &mut Tx) -> Result<()> {
        let come: BTreeSet<TextNum> = tx.touches.iter().filter_map(came).collect();
        if come.is_empty() {
            return Ok(());
        }
        let room = RoomCtx::load(tx, &self.room_id)?.num;
        let mut found = Vec::with_capacity(come.len());
        for server in come {
            if tx.has(&schema::ROOM_SERVERS, &(room, server))? {
                found.push(server);
            }
        }
        let own = tx.text_num(&tx.shared.server_name)?;
        let joined = own.map(|own| tx.get(&schema::ROOM_SERVERS, &(room, own))).transpose()?.flatten();
        if joined.unwrap_or_default() > MEMBERS_TOLD_MAX as u64 {
            return Ok(());
        }
        let mut told = Vec::with_capacity(found.len());
        for server in found {
            let came_ms = self.first_join_ms(&tx.text(server)?).saturating_sub(CLOCK_AHEAD_MS_MAX);
            // Whatever it claims, of what changed while it was there before it was told then.
            let since =
                prune::position_before(tx, came_ms)?.max(servers::end_of_stay_before(tx, room, server)?);
            told.push((server, since));
        }
        tell_of_members(tx, room, &told)
    }

    /// When the first of the joins among the events of a server's users was made, as it says itself; zero if there is none.
    fn first_join_ms(&self, server: &str) -> u64 {
        let pdus = self.pdus.iter().chain(&self.outliers).map(|checked| checked.pdu());
        let joins = pdus.filter(|pdu| {
            &*pdu.kind == "m.room.member"
                && pdu.membership() == Some(Membership::Join.name())
                && pdu.state_key.as_deref().and_then(server_name) == Some(server)
        });
        joins.map(|pdu| pdu.origin_server_ts).min().unwrap_or_default()
    }

    fn take_live(
        &self,
        tx: &mut Tx,
        room: &mut RoomCtx,
        (ordered, states): (&[Arc<CheckedPdu>], &HashMap<&str, &GivenState>),
        at_hand: &mut AtHand,
        received: &mut Received,
    ) -> Result<()> {
        let mut past = entrance::history_among(tx, room, ordered, &self.told)?;
        for pdu in ordered.iter().map(|checked| checked.pdu()) {
            if past.contains(&pdu.event_id) || receive::continues_past(tx, room, pdu, &past)? {
                past.insert(pdu.event_id.clone());
                received.outcomes.push((pdu.event_id.clone(), Outcome::Past));
                continue;
            }
            let recommendation = match self.not_recommended.contains(&pdu.event_id) {
                true => Recommendation::Missing,
                false => Recommendation::BySignature,
            };
            let given = states.get(&*pdu.event_id).copied();
            let standing =
                Standing { given, is_hearsay: self.hearsay.contains(&pdu.event_id), recommendation };
            let missing = &mut received.missing;
            let outcome = receive::receive(tx, room, pdu, standing, at_hand, missing)?;
            if outcome == Outcome::Accepted {
                expect_settings(tx, room.num, pdu)?;
            } else if outcome == Outcome::Past {
                past.insert(pdu.event_id.clone());
            }
            received.outcomes.push((pdu.event_id.clone(), outcome));
        }
        // They may have answered it long ago, and the room is to hear that.
        for pdu in ordered.iter().map(|checked| checked.pdu()) {
            if let Some(user_id) = &pdu.state_key
                && &*pdu.kind == "m.room.member"
                && matches!(pdu.membership(), Some("invite" | "knock"))
                && let Some(user) = tx.user_num(user_id)?
            {
                answered::send_of(tx, room, user)?;
            }
        }
        Ok(())
    }
}

/// The server that has its first user in a room, if that is what is noted.
fn came(touch: &Touch) -> Option<TextNum> {
    match touch {
        Touch::Outgoing(Outgoing::Came { server, .. }) => Some(*server),
        _ => None,
    }
}

/// Whoever comes in is given their settings if they are a user of this server, whom another server has let in. Of joins alone it is
/// looked whose they are: two rows.
fn expect_settings(tx: &mut Tx, room: RoomNum, pdu: &Pdu) -> Result<()> {
    match &pdu.state_key {
        Some(user_id)
            if &*pdu.kind == "m.room.member" && pdu.membership() == Some(Membership::Join.name()) =>
        {
            carry_settings::expect(tx, room, user_id)
        }
        _ => Ok(()),
    }
}

/// Events that are only to be known, of a room that this server may be about to enter.
#[derive(Clone, Debug)]
pub struct StoreOutliers {
    /// The room's id.
    pub room_id: String,
    /// Its version.
    pub version: &'static RoomVersion,
    /// The events, in any order. Some hundreds at once make a batch of good size.
    pub pdus: Vec<Arc<CheckedPdu>>,
}

impl Command for StoreOutliers {
    type Output = Received;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id).event_ids(&self.pdus)
    }

    fn run(&self, tx: &mut Tx) -> Result<Received> {
        let mut room = room_to_enter(tx, &self.room_id, self.version)?;
        let mut received = Received::default();
        let mut at_hand = AtHand::default();
        take_outliers(tx, &mut room, &self.pdus, &mut at_hand, &mut received)?;
        receive::prepare(tx, &room, &received.outcomes, &mut at_hand)?;
        received.missing.settle(|_| false, |_| false);
        Ok(received)
    }
}

/// This server enters a room by way of another server: a join that that one has accepted.
#[derive(Clone, Debug)]
pub struct EnterRoom {
    /// The room's id.
    pub room_id: String,
    /// Its version.
    pub version: &'static RoomVersion,
    /// The join.
    pub join: Arc<CheckedPdu>,
    /// The ids of the ends that the server by way of which it enters had not been told of when it let the user in.
    pub untold: Vec<Arc<str>>,
    /// The ids of the state before the join; the events were stored as outliers, with those that allow them.
    pub state: Vec<Arc<str>>,
    /// If members were left out of the state, the servers that were in the room before.
    pub partial: Option<Vec<String>>,
}

impl Command for EnterRoom {
    /// What became of the join, and what is missing if it waits.
    type Output = (Outcome, Missing);

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id).event_ids([&self.join])
    }

    fn run(&self, tx: &mut Tx) -> Result<(Outcome, Missing)> {
        let mut room = room_to_enter(tx, &self.room_id, self.version)?;
        let mut missing = Missing::default();
        let join = self.join.pdu();
        let partial = self.partial.is_some();
        // An earlier join whose members have not come, with a position before this one's.
        let earlier = tx.get(&schema::PARTIAL_JOINS, &room.num)?.map(|row| (tx.next_position(), row));
        let outcome =
            receive::enter(tx, &mut room, join, (&self.untold, &self.state), partial, &mut missing)?;
        missing.settle(|_| false, |_| false);
        if outcome == Outcome::Accepted {
            room.save(tx);
            self.note_members(tx, &room, earlier)?;
            if let Some(user_id) = &join.state_key {
                carry_settings::expect(tx, room.num, user_id)?;
            }
            answered::send(tx, &mut room)?;
        }
        Ok((outcome, missing))
    }
}

impl EnterRoom {
    /// Notes whether the room lacks members from now on, which the state of an `earlier` join may have done until now.
    fn note_members(
        &self,
        tx: &mut Tx,
        room: &RoomCtx,
        earlier: Option<(StreamPos, PartialJoin)>,
    ) -> Result<()> {
        let join = self.join.pdu();
        let Some(num) = tx.event_num(&join.event_id)? else { return Ok(()) };
        let entered = tx.event(num)?;
        // Where nothing was missed the join is an event like any other, whatever was told.
        if !entered.lacks_prev_events()? {
            return Ok(());
        }
        let others = self.partial.as_deref().filter(|_| entered.header.partial_state);
        if earlier.is_some() || others.is_some() {
            tx.touch(Touch::Partial(room.num));
        }
        if let Some((pos, earlier)) = earlier {
            let until = tx.position_of(&entered);
            end_stretch(tx, room.num, &earlier.event_id, until)?;
            if others.is_none() {
                tx.delete(&schema::PARTIAL_JOINS, &room.num);
            }
            tx.put(&schema::EARLIER_JOINS, &(room.num, earlier.event_id), &());
            // Whom nobody takes to be in the room any more is not told of this join.
            let gone =
                earlier.servers.into_iter().filter(|server| !others.unwrap_or_default().contains(server));
            servers::settle_supposed(tx, room.num, &gone.collect::<Vec<_>>(), pos)?;
        }
        let Some(others) = others else { return Ok(()) };
        let row = PartialJoin { event_id: join.event_id.to_string(), servers: others.to_vec() };
        tx.put(&schema::PARTIAL_JOINS, &room.num, &row);
        servers::suppose(tx, room.num, others)?;
        tell_supposed(tx, room, join, others)
    }
}

/// The stretch that began with an earlier join, whose members are not known yet, ends where the room is entered anew.
fn end_stretch(tx: &mut Tx, room: RoomNum, join_id: &str, until: StreamPos) -> Result<()> {
    if let Some(num) = tx.event_num(join_id)? {
        let start = tx.event(num)?.pos();
        tx.put(&schema::PARTIAL_STRETCHES, &(room, start), &until);
    }
    Ok(())
}

/// Servers of which no member is known yet are told of the devices of who joins; the others are as a member joins.
fn tell_supposed(tx: &mut Tx, room: &RoomCtx, join: &Pdu, others: &[String]) -> Result<()> {
    let Some(user) = join.state_key.as_deref().map(|user_id| tx.user_num(user_id)).transpose()?.flatten()
    else {
        return Ok(());
    };
    let mut supposed = Vec::new();
    for name in others.iter().filter(|name| ***name != *tx.shared.server_name) {
        if let Some(server) = tx.text_num(name)?
            && !tx.has(&schema::ROOM_SERVERS, &(room.num, server))?
        {
            supposed.push(server);
        }
    }
    lists::came_into_room(tx, user, room.num, supposed)
}

/// The state before a join that left members out becomes whole.
#[derive(Clone, Debug)]
pub struct CompleteState {
    /// The room's id.
    pub room_id: String,
    /// The join, and the whole state before it.
    pub state: GivenState,
}

impl Command for CompleteState {
    /// What is missing to do it; nothing once it is done.
    type Output = Missing;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<Missing> {
        let mut room = RoomCtx::load(tx, &self.room_id)?;
        let (state, allowed_guests) = (room.head.state, membership::allows_guests(tx, &room)?);
        let mut known: HashSet<TextNum> = tx.counted_servers(room.num)?.into_iter().collect();
        let mut missing = Missing::default();
        receive::complete_state(tx, &mut room, &self.state, &mut missing)?;
        missing.settle(|_| false, |_| false);
        if missing.is_nothing() {
            for name in tx.get(&schema::PARTIAL_JOINS, &room.num)?.into_iter().flat_map(|row| row.servers) {
                known.extend(tx.text_num(&name)?);
            }
            let join = tx.event_num(&self.state.event_id)?;
            tell_found(tx, &room, &known, join)?;
            self.is_done(tx, &room)?;
            outgoing::tell_again(tx, &room, state)?;
            membership::follow_guest_access(tx, &mut room, allowed_guests)?;
            answered::send(tx, &mut room)?;
        }
        Ok(missing)
    }
}

/// Servers that are found to be in the room are told where it ends, unless that is by the `join` which their members were missing
/// at, and of the devices of this server's users, as when these come in: they have heard nothing of it. `known` are those that were
/// known or supposed to be there. Found ones are few, so that this is O(servers, and this server's users in the room with their
/// rooms).
pub(super) fn tell_found(
    tx: &mut Tx,
    room: &RoomCtx,
    known: &HashSet<TextNum>,
    join: Option<EventNum>,
) -> Result<()> {
    let mut found = tx.counted_servers(room.num)?;
    found.retain(|server| !known.contains(server));
    for server in &found {
        let name = tx.text(*server)?;
        outgoing::tell_ends(tx, room, &name, join)?;
    }
    let found: Vec<(TextNum, Option<StreamPos>)> = found.into_iter().map(|server| (server, None)).collect();
    tell_of_members(tx, room.num, &found)
}

/// Tells servers that are in the room of the devices of this server's users there, as when these come in; each only of those that
/// changed behind a position, if one is given. O(this server's users in the room, and the rooms of those of whom is told).
pub(super) fn tell_of_members(
    tx: &mut Tx,
    room: RoomNum,
    servers: &[(TextNum, Option<StreamPos>)],
) -> Result<()> {
    if servers.is_empty() {
        return Ok(());
    }
    let own_name = tx.shared.server_name.clone();
    let mut members = Vec::new();
    for user in tx.users_of_server(&own_name, room)? {
        if members.len() == MEMBERS_TOLD_MAX {
            break;
        }
        let changed = tx.get(&schema::DEVICE_LIST_POSITIONS, &user)?;
        let has_missed =
            |since: Option<StreamPos>| since.is_none_or(|since| changed.is_some_and(|pos| pos > since));
        let told: Vec<TextNum> =
            servers.iter().filter(|(_, since)| has_missed(*since)).map(|(server, _)| *server).collect();
        if !told.is_empty() && tx.membership(user, room)? == Some(Membership::Join) {
            members.push((user, told));
        }
    }
    for (user, told) in members {
        lists::came_into_room(tx, user, room, told)?;
    }
    Ok(())
}

impl CompleteState {
    /// The join is not to be asked for any more. A later one may lack members all the same.
    fn is_done(&self, tx: &mut Tx, room: &RoomCtx) -> Result<()> {
        let join_id = &*self.state.event_id;
        tx.delete(&schema::EARLIER_JOINS, &(room.num, join_id.to_owned()));
        let Some(partial) = tx.get(&schema::PARTIAL_JOINS, &room.num)?.filter(|row| row.event_id == join_id)
        else {
            return Ok(());
        };
        tx.delete(&schema::PARTIAL_JOINS, &room.num);
        // Also if nobody was missing: whoever loads no members lazily is told of the room only now.
        tx.touch(Touch::Partial(room.num));
        tx.touch(Touch::Room(room.num));
        let pos = tx.next_position();
        Ok(servers::settle_supposed(tx, room.num, &partial.servers, pos)?)
    }
}

/// The room, or one that has no events yet.
///
/// Errors: [`What::Room`] not found, if it is known with another version.
fn room_to_enter(tx: &mut Tx, room_id: &str, version: &'static RoomVersion) -> Result<RoomCtx> {
    match RoomCtx::find(tx, room_id)? {
        Some(room) if room.version.id == version.id => Ok(room),
        Some(_) => Err(Error::NotFound(What::Room)),
        None => Ok(RoomCtx::create(tx, room_id, version)?),
    }
}

pub(super) fn take_outliers(
    tx: &mut Tx,
    room: &mut RoomCtx,
    pdus: &[Arc<CheckedPdu>],
    at_hand: &mut AtHand,
    received: &mut Received,
) -> Result<()> {
    if pdus.is_empty() {
        return Ok(());
    }
    let (ordered, circular) = in_order(pdus);
    look_for(tx, &ordered, at_hand)?;
    for checked in ordered {
        let pdu = checked.pdu();
        let outcome = receive_outlier(tx, room, pdu, at_hand, &mut received.missing)?;
        received.outcomes.push((pdu.event_id.clone(), outcome));
    }
    refuse(received, &circular);
    Ok(())
}

/// Looks for what events will be looked up by, all at once.
fn look_for(tx: &mut Tx, pdus: &[Arc<CheckedPdu>], at_hand: &mut AtHand) -> Result<()> {
    at_hand.look_for(tx, pdus.iter().map(|checked| &checked.pdu().event_id))?;
    let users = pdus.iter().map(|checked| &*checked.pdu().sender);
    let texts = pdus.iter().filter_map(|checked| checked.pdu().state_key.as_deref());
    Ok(tx.look_for_names(users, texts)?)
}

fn refuse(received: &mut Received, circular: &[Arc<CheckedPdu>]) {
    for checked in circular {
        let event_id = checked.pdu().event_id.clone();
        received.outcomes.push((event_id, Outcome::Refused(Refused::Circular)));
    }
}
