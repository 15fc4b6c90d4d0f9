//! The order in which events are taken in or judged again: each after those that it refers to.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
};

use super::PassedBy;
use crate::{
    core::{checked::CheckedPdu, num::EventNum},
    room::Event,
};

/// The events, each once and after those among them that it follows or is allowed by; and those that refer to each other in
/// a circle, which no honest server makes. O(events and references).
pub fn in_order(pdus: &[Arc<CheckedPdu>]) -> (Vec<Arc<CheckedPdu>>, Vec<Arc<CheckedPdu>>) {
    let referred = |checked: &Arc<CheckedPdu>| {
        let pdu = &checked.pdu;
        pdu.prev_events.iter().chain(&pdu.auth_events).cloned().collect()
    };
    ordered(pdus, |checked| checked.pdu.event_id.clone(), referred)
}

/// As [`in_order`]; each also after those that it follows by way of events that are passed by.
pub(crate) fn in_order_past(
    pdus: &[Arc<CheckedPdu>],
    passed_by: &[PassedBy],
) -> (Vec<Arc<CheckedPdu>>, Vec<Arc<CheckedPdu>>) {
    let items: Vec<Item<'_>> =
        pdus.iter().map(Item::Checked).chain(passed_by.iter().map(Item::PassedBy)).collect();
    let (sorted, circular) = ordered(&items, Item::event_id, Item::referred);
    let checked = |items: Vec<Item<'_>>| items.into_iter().filter_map(Item::checked).cloned().collect();
    (checked(sorted), checked(circular))
}

/// An event of the past.
#[derive(Clone, Copy)]
enum Item<'a> {
    Checked(&'a Arc<CheckedPdu>),
    PassedBy(&'a PassedBy),
}

impl<'a> Item<'a> {
    fn event_id(&self) -> Arc<str> {
        match self {
            Item::Checked(checked) => checked.pdu.event_id.clone(),
            Item::PassedBy(passed) => passed.event_id.clone(),
        }
    }

    fn referred(&self) -> Vec<Arc<str>> {
        match self {
            Item::Checked(checked) => {
                checked.pdu.prev_events.iter().chain(&checked.pdu.auth_events).cloned().collect()
            }
            Item::PassedBy(passed) => passed.prev_events.clone(),
        }
    }

    fn checked(self) -> Option<&'a Arc<CheckedPdu>> {
        match self {
            Item::Checked(checked) => Some(checked),
            Item::PassedBy(_) => None,
        }
    }
}

/// The events, each after those among them that it follows and, if that can be, after those that allow it.
pub(super) fn after_what_they_name(events: &[Arc<Event>]) -> Vec<Arc<Event>> {
    let name = |event: &Arc<Event>| event.num;
    let prev_and_auth = |event: &Arc<Event>| -> Vec<EventNum> {
        event.header.prev.iter().chain(&event.header.auth).copied().collect()
    };
    let (sorted, circular) = ordered(events, name, prev_and_auth);
    if circular.is_empty() {
        return sorted;
    }
    // Where servers choose the ids of events, an event can follow one that it allows. What follows what cannot be a circle: an
    // event has edges to what was part of the graph before it.
    ordered(events, name, |event| event.header.prev.clone()).0
}

/// The items, each once and after those among them that it refers to; and those that refer to each other in a circle.
fn ordered<T: Clone, K: Eq + Hash>(
    items: &[T],
    name: impl Fn(&T) -> K,
    referred: impl Fn(&T) -> Vec<K>,
) -> (Vec<T>, Vec<T>) {
    let mut index: HashMap<K, usize> = HashMap::with_capacity(items.len());
    let mut distinct: Vec<&T> = Vec::with_capacity(items.len());
    for item in items {
        index.entry(name(item)).or_insert_with(|| {
            distinct.push(item);
            distinct.len() - 1
        });
    }
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); distinct.len()];
    let mut waits_for: Vec<usize> = vec![0; distinct.len()];
    for (at, item) in distinct.iter().enumerate() {
        for name in referred(item) {
            if let Some(&before) = index.get(&name)
                && let (Some(of), Some(count)) = (followers.get_mut(before), waits_for.get_mut(at))
            {
                of.push(at);
                *count += 1;
            }
        }
    }
    // Those that are free go in the order in which they came, so that equal input is taken in alike.
    let mut free: BTreeSet<usize> =
        waits_for.iter().enumerate().filter(|(_, count)| **count == 0).map(|(at, _)| at).collect();
    let mut sorted = Vec::with_capacity(distinct.len());
    while let Some(at) = free.pop_first() {
        sorted.extend(distinct.get(at).map(|item| T::clone(item)));
        for follower in followers.get(at).into_iter().flatten() {
            if let Some(count) = waits_for.get_mut(*follower) {
                *count -= 1;
                if *count == 0 {
                    free.insert(*follower);
                }
            }
        }
    }
    let left = waits_for.iter().enumerate().filter(|(_, count)| **count > 0);
    let circular = left.filter_map(|(at, _)| distinct.get(at).map(|item| T::clone(item))).collect();
    (sorted, circular)
}
