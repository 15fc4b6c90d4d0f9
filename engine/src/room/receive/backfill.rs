//! History that another server tells: events before a gap.
//!
//! Invariant: only what the events here lead to, if need be by way of such as are passed by, is taken in, each event after those that it follows, at the positions that
//! were kept free for the gap; the room's members and current state are not touched by it. What waits keeps its place, for what
//! follows it may be taken in first. What the room's policy server has to sign is not taken in before it was asked, and nothing that
//! it leads to, which would stand above it; what is not signed then is kept, so that history goes on behind it, and shown to nobody.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    AtHand, GivenState, Outcome, allowing, are_of_another_room,
    copies::{come_again, fuller, is_of_another_room},
    given_entries, is_second_create, judge_by_auth_events, judge_by_state, known_in_graph, placed_as,
};
use crate::{
    core::{
        checked::{CheckedPdu, Refused},
        event::Pdu,
        num::{EventNum, NodeId, StreamPos},
    },
    error::{Missing, Result},
    room::{
        Event, RoomCtx,
        accept::{Arrival, Past, fill_in, set_aside},
        entrance::{self, Entrance},
        fork::{self, Side},
        gap,
        policy::{Recommendations, WantedSignature},
        state,
    },
    store::{Reader, Tx, schema, schema::EventStatus},
};

/// An event of the past that is somewhere in a gap, though nothing here leads to it: another server told of it when it was
/// asked what there is at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Within {
    /// Its id.
    pub event_id: Arc<str>,
    /// The gap: before the event at this position.
    pub gap: StreamPos,
}

/// An event of the past that is not taken in, since it is not rightly signed or nobody can tell. What it follows lies in the same
/// gap, for its id, by which others name it, is a hash over that: it is as they have seen it, whoever told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedBy {
    /// Its id, which is a hash: not in room versions 1 and 2, where whoever tells an event could make it follow anything.
    pub event_id: Arc<str>,
    /// What it follows.
    pub prev_events: Vec<Arc<str>>,
}

/// Where an event of the past that waits is to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptPlace {
    /// The gap that it is in: before the event at this position.
    pub gap: StreamPos,
    /// Its own position.
    pub pos: StreamPos,
}

/// The places of events that wait, by their ids.
pub type KeptPlaces = BTreeMap<Arc<str>, KeptPlace>;

/// What is known of events of the past, beside the events.
pub(crate) struct Told<'a> {
    /// One of them that nothing here leads to.
    pub within: Option<&'a Within>,
    /// The state before some of them.
    pub states: &'a HashMap<&'a str, &'a GivenState>,
    /// The places of those that have waited.
    pub kept: &'a KeptPlaces,
    /// Those that the room's policy server was asked to sign, and has not.
    pub not_recommended: &'a BTreeSet<Arc<str>>,
}

/// Takes in events of the past, given in an order in which each comes after those that it follows. Adds what those that wait lack,
/// and their places.
pub(crate) fn receive_backfill(
    tx: &mut Tx,
    room: &mut RoomCtx,
    (ordered, passed_by): (&[Arc<CheckedPdu>], &[PassedBy]),
    told: &Told<'_>,
    (missing, waiting): (&mut Missing, &mut KeptPlaces),
) -> Result<Vec<(Arc<str>, Outcome)>> {
    let mut at_hand = AtHand::default();
    let mut outcomes = Vec::with_capacity(ordered.len());
    let ordered = of_this_room(tx, room, ordered, &mut outcomes)?;
    let ordered = &*ordered;
    let recommendations = Recommendations::of(tx, room, told.not_recommended)?;
    let mut places = places(tx, room, (ordered, passed_by), told.kept, &recommendations)?;
    if let Some(within) = told.within {
        places.put_within(tx, room, within, (ordered, &recommendations))?;
    }
    let Places { at: places, held, overlooked, unsigned, wanted } = places;
    missing.signatures.extend(wanted);
    let followers = followers(ordered);
    let mut held_back = Vec::new();
    for checked in ordered {
        let pdu = &checked.pdu;
        let here =
            gap::in_graph(tx, room.num, &pdu.event_id)?.filter(|event| !overlooked.contains(&event.num));
        let outcome = match places.get(&*pdu.event_id) {
            _ if here.is_some() => Outcome::Known,
            None if unsigned.contains(&pdu.event_id) => Outcome::Waiting,
            None if held.contains_key(&pdu.event_id) => {
                held_back.push(pdu);
                continue;
            }
            None => Outcome::Refused(Refused::Unrelated),
            Some(_) if is_second_create(tx, room, pdu)? => Outcome::Refused(Refused::SecondCreate),
            Some(past) => {
                let given = told.states.get(&*pdu.event_id).copied();
                let (at_hand, recommendations) = (&mut at_hand, &recommendations);
                let mut step = Step { tx, room, at_hand, missing, followers: &followers, recommendations };
                let outcome = step.take_in(pdu, *past, given)?;
                if outcome == Outcome::Waiting && !past.is_within {
                    let place = KeptPlace { gap: past.gap, pos: past.pos };
                    waiting.insert(pdu.event_id.clone(), place);
                }
                outcome
            }
        };
        if let Some(known) = here.filter(|_| outcome == Outcome::Known) {
            come_again(tx, room, &known, pdu, &mut at_hand)?;
        }
        outcomes.push((pdu.event_id.clone(), outcome));
    }
    outcomes.extend(hold_back(tx, room, &held, (&held_back, passed_by))?);
    Ok(outcomes)
}

/// The events without those of another room, which are refused: they lead to nothing in this one.
fn of_this_room(
    reader: &Reader,
    room: &RoomCtx,
    ordered: &[Arc<CheckedPdu>],
    outcomes: &mut Vec<(Arc<str>, Outcome)>,
) -> Result<Vec<Arc<CheckedPdu>>> {
    let mut at_hand = AtHand::default();
    at_hand.look_for(reader, ordered.iter().map(|checked| &checked.pdu.event_id))?;
    let mut of_room = Vec::with_capacity(ordered.len());
    for checked in ordered {
        let pdu = &checked.pdu;
        let known = at_hand.find(reader, &pdu.event_id)?;
        match is_of_another_room(room, pdu, known.as_ref()) {
            true => outcomes.push((pdu.event_id.clone(), Outcome::Refused(Refused::OtherRoom))),
            false => of_room.push(checked.clone()),
        }
    }
    Ok(of_room)
}

/// Notes events as missing before the entrances that they are held for, and what is passed by and leads to them. If nothing that is
/// here leads to any of them, they are unrelated.
fn hold_back(
    tx: &mut Tx,
    room: &RoomCtx,
    held: &Held,
    (events, passed_by): (&[&Arc<Pdu>], &[PassedBy]),
) -> Result<Vec<(Arc<str>, Outcome)>> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut is_noted = false;
    for pdu in events {
        if let Some(entrance) = held.get(&pdu.event_id) {
            let depth = pdu.depth.saturating_add(1);
            is_noted |= gap::move_down(tx, room.num, &pdu.event_id, entrance.pos, depth)?;
        }
    }
    for passed in passed_by {
        if let Some(entrance) = held.get(&passed.event_id) {
            is_noted |= gap::move_down(tx, room.num, &passed.event_id, entrance.pos, entrance.depth)?;
        }
    }
    let outcome = || if is_noted { Outcome::Past } else { Outcome::Refused(Refused::Unrelated) };
    Ok(events.iter().map(|pdu| (pdu.event_id.clone(), outcome())).collect())
}

/// The events that follow each event, of those that came together.
fn followers(ordered: &[Arc<CheckedPdu>]) -> HashMap<&str, Vec<&Arc<Pdu>>> {
    let mut followers: HashMap<&str, Vec<&Arc<Pdu>>> = HashMap::new();
    for checked in ordered {
        for prev in &checked.pdu.prev_events {
            followers.entry(prev).or_default().push(&checked.pdu);
        }
    }
    followers
}

/// The entrances that events are held for, by their ids.
type Held = HashMap<Arc<str>, Entrance>;

/// Where events of the past are to stand.
#[derive(Default)]
struct Places {
    at: HashMap<Arc<str>, Past>,
    /// Those that an entrance of this server may follow by way of what is missing before it, though only a later gap leads to them so
    /// far, and what is passed by and leads to them. They come with what is missing there, so that each stands after what it follows.
    held: Held,
    /// Those that are here and were soft-failed, though they are history.
    overlooked: HashSet<EventNum>,
    /// Those that wait for the policy server's signature, and those that they lead to.
    unsigned: HashSet<Arc<str>>,
    /// The signatures that these wait for, the latest first: so a page is filled from where it is read.
    wanted: Vec<WantedSignature>,
}

impl Places {
    /// Gives one that nothing here leads to its place, unless it has to be signed first.
    fn put_within(
        &mut self,
        tx: &Tx,
        room: &RoomCtx,
        Within { event_id, gap }: &Within,
        (ordered, recommendations): (&[Arc<CheckedPdu>], &Recommendations<'_>),
    ) -> Result<()> {
        if self.at.contains_key(event_id) || self.unsigned.contains(event_id) {
            return Ok(());
        }
        let Some(pos) = gap::position_within(tx, room.num, *gap)? else { return Ok(()) };
        self.held.remove(event_id);
        let new = match gap::in_graph(tx, room.num, event_id)? {
            Some(_) => None,
            None => ordered.iter().map(|checked| &checked.pdu).find(|pdu| pdu.event_id == *event_id),
        };
        match new.map(|pdu| recommendations.wanted(pdu)).transpose()?.flatten() {
            Some(wanted) => {
                self.unsigned.insert(event_id.clone());
                self.wanted.push(wanted);
            }
            None => {
                self.at.insert(event_id.clone(), Past { gap: *gap, pos, is_within: true });
            }
        }
        Ok(())
    }

    /// Has those wait that the policy server is to be asked about, and those that they lead to, of new events that are given the latest
    /// first: what is taken in stands below all that was before. What is held comes with another gap.
    fn await_signatures(
        &mut self,
        new: &[(&Arc<Pdu>, StreamPos)],
        gaps: &Gaps<'_>,
        recommendations: &Recommendations<'_>,
    ) -> Result<()> {
        let mut behind: HashSet<&str> = HashSet::new();
        for (pdu, _) in new.iter().filter(|(pdu, _)| !self.held.contains_key(&pdu.event_id)) {
            let wanted = recommendations.wanted(pdu)?;
            if wanted.is_some() || behind.contains(&*pdu.event_id) {
                behind.extend(gaps.followed(&pdu.prev_events).into_iter().map(|prev| &**prev));
                self.unsigned.insert(pdu.event_id.clone());
            }
            self.wanted.extend(wanted);
        }
        Ok(())
    }
}

/// The gap that each event is in, which those that follow it lead to, and its position there, newest on top.
fn places(
    tx: &Tx,
    room: &RoomCtx,
    (ordered, passed_by): (&[Arc<CheckedPdu>], &[PassedBy]),
    kept: &KeptPlaces,
    recommendations: &Recommendations<'_>,
) -> Result<Places> {
    let mut gaps = Gaps::new(tx, room, passed_by)?;
    let entrance = entrance::of(tx, room.num)?;
    let mut new: Vec<(&Arc<Pdu>, StreamPos)> = Vec::with_capacity(ordered.len());
    let mut overlooked = HashSet::new();
    for checked in ordered.iter().rev() {
        let pdu = &checked.pdu;
        let noted = gap::of(tx, room.num, &pdu.event_id)?;
        let known = gaps.known.get(&pdu.event_id).copied();
        // Causes come first: what leads to it from an earlier gap decides. To what is deeper than the entrance none leads truly from
        // before that.
        let is_of_stay = entrance.is_some_and(|entrance| pdu.depth > entrance.depth);
        let found = if is_of_stay && noted > known { noted } else { known.into_iter().chain(noted).min() };
        let Some(gap) = found else { continue };
        if let Some(here) = gap::in_graph(tx, room.num, &pdu.event_id)? {
            // What the policy server has refused as history stays that.
            let is_refused = here.header.is_filled_in && recommendations.lacks(pdu)?;
            if is_refused || !entrance::was_overlooked(tx, room, &here, gap)? {
                // What was missing before one that is not shown is where that would be.
                if here.header.status != EventStatus::Accepted {
                    gaps.lead_to(&pdu.prev_events, gap);
                }
                continue;
            }
            overlooked.insert(here.num);
        }
        gaps.known.insert(pdu.event_id.clone(), gap);
        gaps.lead_to(&pdu.prev_events, gap);
        new.push((pdu, gap));
    }
    let mut places = Places { held: held(tx, room, &new, &gaps)?, overlooked, ..Places::default() };
    places.await_signatures(&new, &gaps, recommendations)?;
    let mut by_gap: Vec<(StreamPos, Vec<Arc<str>>)> = Vec::new();
    for (pdu, gap) in new {
        if places.held.contains_key(&pdu.event_id) || places.unsigned.contains(&pdu.event_id) {
            continue;
        }
        match by_gap.iter_mut().find(|(known, _)| *known == gap) {
            Some((_, events)) => events.push(pdu.event_id.clone()),
            None => by_gap.push((gap, vec![pdu.event_id.clone()])),
        }
    }
    for (gap, events) in by_gap {
        let found = positions(tx, room, gap, events, kept)?;
        let past = |(event_id, pos)| (event_id, Past { gap, pos, is_within: false });
        places.at.extend(found.into_iter().map(past));
    }
    Ok(places)
}

/// The positions of events of a gap, given the latest first. Those that have waited stand where they were to stand: what follows
/// them may be there by now, and what they follow. Others come below them.
fn positions(
    tx: &Tx,
    room: &RoomCtx,
    gap: StreamPos,
    events: Vec<Arc<str>>,
    kept: &KeptPlaces,
) -> Result<Vec<(Arc<str>, StreamPos)>> {
    let (mut found, mut new) = (Vec::with_capacity(events.len()), Vec::new());
    for event_id in events {
        match kept.get(&event_id).filter(|place| place.gap == gap) {
            Some(place) if !tx.has(&schema::TIMELINE, &(room.num, place.pos))? => {
                found.push((event_id, place.pos));
            }
            _ => new.push(event_id),
        }
    }
    let lowest = found.iter().map(|(_, pos)| *pos).min();
    if !new.is_empty()
        && let Some(top) = gap::free_positions(tx, room.num, gap, lowest, new.len())?
    {
        let below = |at: usize| StreamPos(top.0.saturating_sub(at as i64));
        found.extend(new.into_iter().enumerate().map(|(at, event_id)| (event_id, below(at))));
    }
    Ok(found)
}

/// Which of new events, the latest first with the gaps that lead to them, may be missing before an entrance as well: of several, they
/// are held for the first.
fn held(tx: &Tx, room: &RoomCtx, new: &[(&Arc<Pdu>, StreamPos)], gaps: &Gaps<'_>) -> Result<Held> {
    let mut held = Held::new();
    let Some(latest) = new.iter().map(|(_, gap)| *gap).max() else { return Ok(held) };
    for (entrance, free) in entrance::open(tx, room.num, latest)?.into_iter().rev() {
        if let Some(deepest) = gap::depth_of_missing(tx, room.num, entrance.pos)? {
            hold((tx, room), (entrance, free, deepest), new, gaps, &mut held)?;
        }
    }
    for (event_id, prev_events) in &gaps.passed_by {
        let followed = gaps.followed(prev_events).into_iter().filter_map(|prev| held.get(prev));
        if let Some(last) = followed.max_by_key(|entrance| entrance.pos).copied() {
            held.insert(Arc::from(*event_id), last);
        }
    }
    Ok(held)
}

/// Holds events for an entrance, before which events up to a depth lack something: those that are less deep than what is followed by
/// such, unless they follow what stands behind what is free there, or will. What they follow is held with them.
fn hold(
    (tx, room): (&Tx, &RoomCtx),
    (entrance, free, deepest): (Entrance, StreamPos, u64),
    new: &[(&Arc<Pdu>, StreamPos)],
    gaps: &Gaps<'_>,
    held: &mut Held,
) -> Result<()> {
    let mut behind: HashSet<&str> = HashSet::new();
    for (pdu, gap) in new.iter().rev() {
        // A lie about the depth of what follows them takes nothing of the stay along.
        let mut is_behind = *gap <= entrance.pos || pdu.depth >= deepest.min(entrance.depth);
        for prev in gaps.followed(&pdu.prev_events) {
            is_behind |= behind.contains(&**prev)
                || gap::in_graph(tx, room.num, prev)?.is_some_and(|event| stands_behind(&event, free));
        }
        if is_behind {
            behind.insert(&pdu.event_id);
        }
    }
    for (pdu, _) in new.iter().filter(|(pdu, _)| !behind.contains(&*pdu.event_id)) {
        held.extend(gaps.followed(&pdu.prev_events).into_iter().map(|prev| (prev.clone(), entrance)));
        held.insert(pdu.event_id.clone(), entrance);
    }
    Ok(())
}

/// The gaps that events are in, as far as others lead to them.
struct Gaps<'a> {
    known: HashMap<Arc<str>, StreamPos>,
    /// What follows what is passed by leads on to what that follows.
    passed_by: HashMap<&'a str, &'a [Arc<str>]>,
}

impl<'a> Gaps<'a> {
    fn new(tx: &Tx, room: &RoomCtx, passed_by: &'a [PassedBy]) -> Result<Self> {
        let mut gaps = Self { known: HashMap::new(), passed_by: HashMap::new() };
        let mut missing = Vec::new();
        for PassedBy { event_id, prev_events } in passed_by {
            // A bad copy of what is here says nothing.
            if gap::in_graph(tx, room.num, event_id)?.is_none() {
                gaps.passed_by.insert(event_id, prev_events);
                missing.extend(gap::of(tx, room.num, event_id)?.map(|gap| (event_id, gap)));
            }
        }
        for (event_id, gap) in missing {
            gaps.lead_to(std::slice::from_ref(event_id), gap);
        }
        Ok(gaps)
    }

    /// The events are in the gap, unless they are known to be in an earlier one.
    fn lead_to(&mut self, event_ids: &'a [Arc<str>], gap: StreamPos) {
        for event_id in self.followed(event_ids) {
            let known = self.known.entry(event_id.clone()).or_insert(gap);
            *known = gap.min(*known);
        }
    }

    /// The events, and those that they follow by way of such as are passed by.
    fn followed<'b>(&self, event_ids: &'b [Arc<str>]) -> Vec<&'b Arc<str>>
    where
        'a: 'b,
    {
        let mut found: Vec<&'b Arc<str>> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        let mut next: Vec<&'b Arc<str>> = event_ids.iter().collect();
        while let Some(event_id) = next.pop() {
            if seen.insert(event_id) {
                found.push(event_id);
                next.extend(self.passed_by.get(&**event_id).copied().into_iter().flatten());
            }
        }
        found
    }
}

struct Step<'a> {
    tx: &'a mut Tx,
    room: &'a mut RoomCtx,
    at_hand: &'a mut AtHand,
    missing: &'a mut Missing,
    followers: &'a HashMap<&'a str, Vec<&'a Arc<Pdu>>>,
    recommendations: &'a Recommendations<'a>,
}

impl Step<'_> {
    fn take_in(&mut self, pdu: &Arc<Pdu>, past: Past, given: Option<&GivenState>) -> Result<Outcome> {
        let named = pdu.prev_events.iter().chain(&pdu.auth_events);
        if are_of_another_room(self.tx, self.room, named, self.at_hand)? {
            return Ok(Outcome::Refused(Refused::OtherRoom));
        }
        let known = self.at_hand.find(self.tx, &pdu.event_id)?;
        let pdu = &fuller(known.as_ref(), pdu)?;
        let allowing = allowing(self.tx, self.room, pdu, self.at_hand, self.missing)?;
        let Some(allowing) = allowing else { return Ok(Outcome::Waiting) };
        let prev = known_in_graph(self.tx, self.room.num, &pdu.prev_events)?;
        if past.is_within && prev.iter().any(|prev| stands_behind(prev, past.pos)) {
            return Ok(Outcome::Refused(Refused::Unrelated));
        }
        let (before, prev) = match known.as_ref().filter(|event| event.header.is_in_graph()) {
            // It was soft-failed, and is judged by what was known then: nothing would lead to it if it waited. That does not follow
            // from what came since.
            Some(overlooked) => {
                (Some((overlooked.header.state_before, false)), overlooked.header.prev.clone())
            }
            None => (self.state_before(pdu, &prev, given)?, prev.iter().map(|event| event.num).collect()),
        };
        let Some((state_before, partial_state)) = before else { return Ok(Outcome::Waiting) };
        let was_rejected = known.as_ref().is_some_and(|event| event.header.status == EventStatus::Rejected);
        let verdict = match judge_by_auth_events(self.room, pdu, &allowing)? {
            Ok(()) => judge_by_state(self.tx, self.room, pdu, state_before, &allowing.auth)?,
            denied => denied,
        };
        let arrival = Arrival {
            pdu: pdu.clone(),
            known_as: known.map(|event| event.num),
            prev,
            auth: allowing.auth,
            state_before,
            partial_state,
            transaction: None,
            is_new: false,
        };
        let outcome = match verdict {
            Err(denied) => Outcome::Rejected(denied),
            // What was refused stays refused.
            Ok(()) if was_rejected => Outcome::Known,
            Ok(()) if self.recommendations.has_refused(pdu)? => Outcome::NotRecommended,
            Ok(()) => Outcome::Accepted,
        };
        let event = match placed_as(&outcome) {
            Some(status) if status != EventStatus::Accepted => {
                set_aside(self.tx, self.room, arrival, status, Some(past))?
            }
            _ => fill_in(self.tx, self.room, arrival, past)?,
        };
        self.at_hand.put(&event);
        Ok(outcome)
    }

    /// The state before the event, and whether it lacks members: from what it follows if all of that is here, else as given, else
    /// from what follows it, which is possible as long as nothing between them changed it.
    ///
    /// What is here of what it follows has its part in it, as where an event comes live: if this one is not shown, what follows it
    /// is taken to follow that, and the room's state to rest on it no more.
    fn state_before(
        &mut self,
        pdu: &Pdu,
        prev: &[Arc<Event>],
        given: Option<&GivenState>,
    ) -> Result<Option<(NodeId, bool)>> {
        let known = || prev.iter().map(|event| Side::after(event));
        let lacks_members = prev.iter().any(|event| event.header.partial_state);
        let distinct: HashSet<&Arc<str>> = pdu.prev_events.iter().collect();
        if prev.len() == distinct.len() {
            return Ok(Some((fork::merged_sides(self.tx, self.room, known())?, lacks_members)));
        }
        let told = match given {
            Some(given) => {
                let entries = given_entries(self.tx, self.room, &given.state, self.at_hand, self.missing)?;
                let Some(entries) = entries else { return Ok(None) };
                Some(Side::whole(state::build(self.tx, self.room.num, entries)?))
            }
            // One that lacks members has to stand alone, for the whole one to take its place.
            None => self.state_from_followers(pdu)?.filter(|side| prev.is_empty() || !side.lacks_members),
        };
        let Some(told) = told else {
            self.missing.state.push(pdu.event_id.clone());
            return Ok(None);
        };
        let before = fork::merged_sides(self.tx, self.room, known().chain([told]))?;
        Ok(Some((before, lacks_members || told.lacks_members)))
    }

    fn state_from_followers(&self, pdu: &Pdu) -> Result<Option<Side>> {
        let mut at: &Pdu = pdu;
        // Each step goes to an event that came together with this one, and none comes twice.
        loop {
            if at.state_key.is_some() {
                return Ok(None);
            }
            let here = gap::follower(self.tx, self.room.num, &at.event_id)?;
            if let Some(follower) = here {
                // The state before one that is not shown is the word of who told it; but one of the past was judged as this one is.
                let is_credible = match follower.header.status {
                    EventStatus::Accepted => true,
                    EventStatus::SoftFailed => follower.header.is_filled_in,
                    EventStatus::Rejected | EventStatus::Outlier => false,
                };
                let alone =
                    is_credible && follower.header.prev.is_empty() && follower.pdu()?.prev_events.len() == 1;
                return Ok(alone.then_some(Side {
                    snapshot: follower.header.state_before,
                    lacks_members: follower.header.partial_state,
                }));
            }
            let next = self.followers.get(&*at.event_id).and_then(|followers| followers.first());
            match next {
                Some(follower) if follower.prev_events.len() == 1 => at = follower,
                _ => return Ok(None),
            }
        }
    }
}

/// Whether the event is in the timeline, and later than `pos`.
fn stands_behind(event: &Event, pos: StreamPos) -> bool {
    event.header.status == EventStatus::Accepted && event.pos() > pos
}
