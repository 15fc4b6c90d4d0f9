//! What servers publish of their keys that have nothing to do with this one: others have asked it about them, as a notary.
//!
//! Invariant: it takes no more than so many bytes, the oldest of which go first, and nothing of it is on the disk. Whoever asks
//! makes up names as they like, and has keys for all of them.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use ruma_common::{OwnedServerName, ServerName};
use warren_engine::view::PublishedKeys;

/// What a server takes beside what it published, about: its name twice, and its places.
const ENTRY_BYTES: usize = 512;

/// See the module.
pub struct QueriedKeys {
    bytes_max: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// With a number that grows with each that comes.
    by_name: HashMap<OwnedServerName, (u64, PublishedKeys)>,
    by_age: BTreeMap<u64, OwnedServerName>,
    next: u64,
    bytes: usize,
}

impl QueriedKeys {
    pub fn new(bytes_max: usize) -> QueriedKeys {
        QueriedKeys { bytes_max, known: Mutex::default() }
    }

    pub fn get(&self, server_name: &ServerName) -> Option<PublishedKeys> {
        self.known.lock().by_name.get(server_name).map(|(_, keys)| keys.clone())
    }

    /// These are no longer here; those that came after them are.
    pub fn remove(&self, server_name: &ServerName, keys: &PublishedKeys) {
        let mut known = self.known.lock();
        if known.by_name.get(server_name).is_some_and(|(_, newest)| newest == keys) {
            known.remove(server_name);
        }
    }

    pub fn put(&self, server_name: &ServerName, keys: PublishedKeys) {
        let mut known = self.known.lock();
        known.remove(server_name);
        let age = known.next;
        known.next += 1;
        known.bytes += bytes_of(&keys);
        known.by_age.insert(age, server_name.to_owned());
        known.by_name.insert(server_name.to_owned(), (age, keys));
        while known.bytes > self.bytes_max {
            let Some((_, oldest)) = known.by_age.pop_first() else { break };
            known.remove(&oldest);
        }
    }
}

impl Known {
    fn remove(&mut self, server_name: &ServerName) -> Option<PublishedKeys> {
        let (age, keys) = self.by_name.remove(server_name)?;
        self.by_age.remove(&age);
        self.bytes -= bytes_of(&keys);
        Some(keys)
    }
}

fn bytes_of(keys: &PublishedKeys) -> usize {
    keys.json.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> OwnedServerName {
        ServerName::parse(format!("{number}.example")).expect("a name")
    }

    fn keys(bytes: usize, fetched_ts: u64) -> PublishedKeys {
        PublishedKeys { json: vec![b' '; bytes].into(), fetched_ts }
    }

    #[test]
    fn the_oldest_go_first() {
        let queried = QueriedKeys::new(10 * (1000 + ENTRY_BYTES));
        let known =
            |end: usize| (0..end).filter(|number| queried.get(&name(*number)).is_some()).collect::<Vec<_>>();
        (0..10).for_each(|number| queried.put(&name(number), keys(1000, 0)));
        assert_eq!(known(10), (0..10).collect::<Vec<_>>());
        // What is told anew is no longer old.
        queried.put(&name(0), keys(1000, 7));
        assert_eq!(queried.get(&name(0)).map(|keys| keys.fetched_ts), Some(7));
        queried.put(&name(10), keys(1000, 0));
        assert_eq!(known(11), [0, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        queried.remove(&name(0), &keys(1000, 0));
        assert!(queried.get(&name(0)).is_some(), "newer ones have come");
        queried.remove(&name(0), &keys(1000, 7));
        assert!(queried.get(&name(0)).is_none());
        (11..10_000).for_each(|number| queried.put(&name(number), keys(1000, 0)));
        assert_eq!(known(10_000), (9_990..10_000).collect::<Vec<_>>());
        queried.put(&name(3), keys(1_000_000, 0));
        assert!(known(10_000).is_empty());
        let known = queried.known.lock();
        assert_eq!((known.bytes, known.by_age.len()), (0, 0));
    }
}
