//! Of which servers connections are kept open when they have answered: of so many at once.
//!
//! Invariant: whatever is sent to whom, a client of HTTP, which bounds only what it keeps for each server, has no connections of
//! more servers than these. Who asks for a place and gets none uses another client, which keeps none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ruma_common::{OwnedServerName, ServerName};

/// See the module.
#[derive(Clone)]
pub struct KeptServers {
    servers_max: usize,
    /// How long a connection may be there when it was used last.
    idle_time: Duration,
    uses: Arc<Mutex<HashMap<OwnedServerName, Use>>>,
}

struct Use {
    /// Requests that are under way.
    requests: usize,
    /// Until when there may be connections when there are none.
    until: Instant,
}

impl Use {
    fn is_over(&self, now: Instant) -> bool {
        self.requests == 0 && self.until <= now
    }
}

/// That a request to a server may use connections that are kept, until it is dropped.
pub struct Kept {
    servers: KeptServers,
    name: OwnedServerName,
    /// Whether no connection came of it.
    has_none: bool,
}

impl KeptServers {
    pub fn new(servers_max: usize, idle_time: Duration) -> KeptServers {
        KeptServers { servers_max, idle_time, uses: Arc::default() }
    }

    /// A place, by the name that requests are for. O(1), but O(servers) while there are as many as there may be.
    pub fn take(&self, name: &ServerName) -> Option<Kept> {
        let (now, mut uses) = (Instant::now(), self.uses.lock());
        if uses.len() >= self.servers_max && !uses.contains_key(name) {
            uses.retain(|_, known| !known.is_over(now));
            if uses.len() >= self.servers_max {
                return None;
            }
        }
        uses.entry(name.to_owned()).or_insert(Use { requests: 0, until: now }).requests += 1;
        drop(uses);
        Some(self.kept(name))
    }

    /// A place for a server that has one. O(1).
    pub fn again(&self, name: &ServerName) -> Option<Kept> {
        let (now, mut uses) = (Instant::now(), self.uses.lock());
        uses.get_mut(name).filter(|known| !known.is_over(now))?.requests += 1;
        drop(uses);
        Some(self.kept(name))
    }

    fn kept(&self, name: &ServerName) -> Kept {
        Kept { servers: self.clone(), name: name.to_owned(), has_none: false }
    }
}

impl Kept {
    /// There was no connection: the place is free at once, unless others have one.
    pub fn give_back(mut self) {
        self.has_none = true;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(known) = self.servers.uses.lock().get_mut(&self.name) {
            known.requests = known.requests.saturating_sub(1);
            if !self.has_none {
                known.until = Instant::now() + self.servers.idle_time;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> OwnedServerName {
        ServerName::parse(format!("{number}.example")).expect("a name")
    }

    #[test]
    fn there_are_no_more_than_so_many_and_each_for_its_time() {
        const LONG: Duration = Duration::from_secs(3600);
        let servers = KeptServers::new(3, LONG);
        let held: Vec<_> = (0..3).filter_map(|number| servers.take(&name(number))).collect();
        assert_eq!(held.len(), 3);
        assert!(servers.take(&name(3)).is_none());
        assert!(servers.take(&name(1)).is_some(), "whoever is among them has a place");
        drop(held);
        // Their connections are there still.
        assert!(servers.take(&name(3)).is_none() && servers.take(&name(2)).is_some());
        assert_eq!(servers.uses.lock().len(), 3);
    }

    #[test]
    fn who_cannot_be_reached_has_no_place() {
        const LONG: Duration = Duration::from_secs(3600);
        let servers = KeptServers::new(1, LONG);
        assert!(servers.again(&name(0)).is_none(), "it has none yet");
        servers.take(&name(0)).unwrap().give_back();
        assert!(servers.again(&name(0)).is_none(), "it has none any more");
        let held = servers.take(&name(1)).expect("it is free");
        // Another request has a connection, or had one.
        servers.again(&name(1)).unwrap().give_back();
        assert!(servers.take(&name(2)).is_none());
        drop(held);
        servers.again(&name(1)).unwrap().give_back();
        assert!(servers.take(&name(2)).is_none() && servers.again(&name(2)).is_none());
        assert_eq!(servers.uses.lock().len(), 1);
    }

    #[test]
    fn places_are_free_when_connections_are_gone() {
        let servers = KeptServers::new(2, Duration::ZERO);
        let held = servers.take(&name(0));
        for number in 1..100 {
            assert!(servers.take(&name(number)).is_some());
        }
        assert!(servers.uses.lock().contains_key(&name(0)), "it is used still");
        assert!(held.is_some() && servers.uses.lock().len() <= 2);
        assert!(KeptServers::new(0, Duration::ZERO).take(&name(0)).is_none());
    }
}
