//! Slow references: the definitions word by word, over whole maps and whole auth chains. They share nothing with the fast
//! way but the authorisation rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::room::{Room, State};
use crate::core::auth::{self, AuthState};
use crate::core::event::Pdu;
use crate::core::num::{EventNum, StateKeyId};

/// The auth chain of an event.
fn auth_chain(room: &Room, event: EventNum) -> BTreeSet<EventNum> {
    let mut chain = BTreeSet::new();
    let mut pending = vec![event];
    while let Some(event) = pending.pop() {
        for auth in room.event(event).into_iter().flat_map(|facts| facts.auth()) {
            if chain.insert(*auth) {
                pending.push(*auth);
            }
        }
    }
    chain
}

/// The full auth chain of a state.
fn full_chain(room: &Room, state: &State) -> BTreeSet<EventNum> {
    state.values().flat_map(|event| auth_chain(room, *event)).collect()
}

/// The auth difference of `states`: the union of their full auth chains without their intersection. What all states share is in
/// all chains; that their other events are in theirs, too, changes nothing of the full conflicted set, which has them anyway.
pub fn auth_difference(room: &Room, states: &[&State]) -> BTreeSet<EventNum> {
    let is_shared = |key, event| states.iter().all(|state| state.get(key) == Some(event));
    let first = states.iter().take(1).flat_map(|state| state.iter());
    let shared: Vec<EventNum> =
        first.filter(|(key, event)| is_shared(*key, *event)).map(|(_, event)| *event).collect();
    let chains: Vec<BTreeSet<EventNum>> = states
        .iter()
        .map(|state| full_chain(room, state).into_iter().chain(shared.iter().copied()).collect())
        .collect();
    let union: BTreeSet<EventNum> = chains.iter().flatten().copied().collect();
    union.into_iter().filter(|event| !chains.iter().all(|chain| chain.contains(event))).collect()
}

/// The conflicted state subgraph of the events `conflicted`: these, and all that is in the auth chain of one of them and
/// has one of them in its own.
pub fn subgraph(room: &Room, conflicted: &BTreeSet<EventNum>) -> BTreeSet<EventNum> {
    let below: BTreeSet<EventNum> = conflicted.iter().flat_map(|event| auth_chain(room, *event)).collect();
    let leads = |event: &EventNum| auth_chain(room, *event).iter().any(|below| conflicted.contains(below));
    below.into_iter().filter(leads).chain(conflicted.iter().copied()).collect()
}

/// A room state *R*, for the rules.
struct R<'a>(&'a Room, &'a State);

impl AuthState for R<'_> {
    fn get(&self, kind: &str, state_key: &str) -> Option<Arc<Pdu>> {
        let facts = self.0.find(self.1, kind, state_key).filter(|facts| !facts.rejected());
        facts.map(|facts| facts.pdu().clone())
    }
}

/// The resolution of `states` as the text of room version 1 defines it.
pub fn resolve_v1(room: &Room, states: &[&State]) -> State {
    let mut all: BTreeMap<StateKeyId, BTreeSet<EventNum>> = BTreeMap::new();
    for (key, event) in states.iter().flat_map(|state| state.iter()) {
        all.entry(*key).or_default().insert(*event);
    }
    // "Start by setting R to the union of the states to be resolved, excluding any conflicting events."
    let single = all.iter().filter(|(_, events)| events.len() == 1);
    let mut r: State = single.flat_map(|(key, events)| events.iter().map(|event| (*key, *event))).collect();
    let conflicts: Vec<(StateKeyId, Vec<Arc<Pdu>>)> = all
        .iter()
        .filter(|(_, events)| events.len() > 1)
        .map(|(key, events)| {
            let mut list: Vec<Arc<Pdu>> =
                events.iter().filter_map(|event| Some(room.event(*event)?.pdu().clone())).collect();
            // "Sort the list by ascending depth then descending sha1(event_id)."
            list.sort_by_key(|pdu| (pdu.depth, std::cmp::Reverse(sha1(&pdu.event_id))));
            (*key, list)
        })
        .collect();
    let is_allowed = |pdu: &Pdu, r: &State| auth::check(room.version, pdu, &R(room, r)).is_ok();
    let num = |pdu: &Pdu| room.num(&pdu.event_id).unwrap_or_default();
    let types = ["m.room.power_levels", "m.room.join_rules", "m.room.member"];
    for kind in types {
        let before = r.clone();
        for (key, list) in conflicts.iter().filter(|(_, list)| list.iter().all(|pdu| *pdu.kind == *kind)) {
            // "Add the first event in the list to R. For each subsequent event […] if it would not be allowed, stop."
            let mut own = before.clone();
            for (index, pdu) in list.iter().enumerate() {
                if index > 0 && !is_allowed(pdu, &own) {
                    break;
                }
                own.insert(*key, num(pdu));
            }
            r.extend(own.get(key).map(|event| (*key, *event)));
        }
    }
    let before = r.clone();
    for (key, list) in
        conflicts.iter().filter(|(_, list)| list.iter().all(|pdu| !types.contains(&&*pdu.kind)))
    {
        // "Pick the event with the highest depth and lowest sha1(event_id) that passes authentication in R."
        let picked = list.iter().rev().find(|pdu| is_allowed(pdu, &before));
        r.extend(picked.map(|pdu| (*key, num(pdu))));
    }
    r
}

fn sha1(text: &str) -> Vec<u8> {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref().to_vec()
}
