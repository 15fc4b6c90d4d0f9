//! The order in which events that come together are taken in: each after those that it refers to.

use std::{collections::HashMap, sync::Arc};

use crate::core::checked::CheckedPdu;

/// The events, each once and after those among them that it follows or is allowed by; and those that refer to each other in
/// a circle, which no honest server makes. O(events and references).
pub fn in_order(pdus: &[Arc<CheckedPdu>]) -> (Vec<Arc<CheckedPdu>>, Vec<Arc<CheckedPdu>>) {
    let mut index: HashMap<&str, usize> = HashMap::with_capacity(pdus.len());
    let mut distinct: Vec<&Arc<CheckedPdu>> = Vec::with_capacity(pdus.len());
    for checked in pdus {
        index.entry(&checked.pdu.event_id).or_insert_with(|| {
            distinct.push(checked);
            distinct.len() - 1
        });
    }
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); distinct.len()];
    let mut waits_for: Vec<usize> = vec![0; distinct.len()];
    for (at, checked) in distinct.iter().enumerate() {
        for event_id in checked.pdu.prev_events.iter().chain(&checked.pdu.auth_events) {
            if let Some(&before) = index.get(&**event_id)
                && let (Some(of), Some(count)) = (followers.get_mut(before), waits_for.get_mut(at))
            {
                of.push(at);
                *count += 1;
            }
        }
    }
    // Those that are free go in the order in which they came, so that equal input is taken in alike.
    let mut free: std::collections::BTreeSet<usize> =
        waits_for.iter().enumerate().filter(|(_, count)| **count == 0).map(|(at, _)| at).collect();
    let mut ordered = Vec::with_capacity(distinct.len());
    while let Some(at) = free.pop_first() {
        ordered.extend(distinct.get(at).map(|checked| Arc::clone(checked)));
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
    let circular = left.filter_map(|(at, _)| distinct.get(at).map(|checked| Arc::clone(checked))).collect();
    (ordered, circular)
}
