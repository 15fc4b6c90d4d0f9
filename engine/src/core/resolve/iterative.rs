//! The iterative auth checks: events in their order, each judged by the state that those before it have made.
//!
//! The state is what was decided here, over the shared entries of the snapshots (version 2) or over nothing (version
//! 2.1). What it lacks comes from the event's own auth events. Rejected events authorise nothing, neither as entries of
//! the state nor as auth events: "rejected auth events are deliberately excluded from use in the iterative auth checks".

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::conflict::Conflicts;
use super::events::{Events, Place};
use super::facts::{Brief, Role};
use super::hash::NumMap;
use super::{Change, ResolveError, StateGraph};
use crate::core::auth::{self, AuthState, Stated};
use crate::core::event::Pdu;
use crate::core::membership::Membership;
use crate::core::num::{NodeId, StateKeyId};
use crate::core::power_levels::{InvalidPowerLevels, Level, PowerLevels, creators};
use crate::core::version::RoomVersion;

/// A state that is being resolved.
pub(super) struct Resolving<'g, G: StateGraph> {
    pub version: &'static RoomVersion,
    pub events: Events<'g, G>,
    /// Whose entries stand where nothing was decided.
    base: Option<NodeId>,
    entries: NumMap<StateKeyId, Option<Place>>,
    applied: Vec<StateKeyId>,
    /// The room's create event, which events of room version 12 do not name.
    create: Option<Place>,
    creator: Option<Creator>,
    keys: Keys,
}

/// The room's first creator, with whom the user of every join is compared.
struct Creator {
    name: Arc<str>,
    /// The entry of their membership.
    key: Option<StateKeyId>,
}

/// The entries that every check asks for.
struct Keys {
    create: Option<StateKeyId>,
    power_levels: Option<StateKeyId>,
    join_rules: Option<StateKeyId>,
}

impl<'g, G: StateGraph> Resolving<'g, G> {
    /// A state without the conflicted entries: the shared ones if `with_shared`, else none.
    pub fn new(
        version: &'static RoomVersion,
        graph: &'g G,
        conflicts: &Conflicts,
        with_shared: bool,
    ) -> Result<Self, ResolveError<G::Error>> {
        let keys = Keys {
            create: graph.key("m.room.create", "")?,
            power_levels: graph.key("m.room.power_levels", "")?,
            join_rules: graph.key("m.room.join_rules", "")?,
        };
        let mut entries = NumMap::with_capacity_and_hasher(conflicts.len() + 16, Default::default());
        entries.extend(conflicts.rows().map(|(key, _)| (key, None)));
        let mut events = Events::new(graph, 2 * conflicts.len() + 16);
        let create = match keys.create {
            Some(key) => graph.get(conflicts.base, key)?,
            None => None,
        };
        let create = create.map(|event| events.place(event)).transpose()?;
        let creator = match create {
            Some(create) => {
                let name: Option<Arc<str>> = creators(version, events.pdu(create)).next().map(Arc::from);
                let with_key =
                    |name: Arc<str>| graph.key("m.room.member", &name).map(|key| Creator { name, key });
                name.map(with_key).transpose()?
            }
            None => None,
        };
        let base = with_shared.then_some(conflicts.base);
        Ok(Resolving { version, events, base, entries, applied: Vec::new(), create, creator, keys })
    }

    /// The entry of the state.
    pub fn entry(&mut self, key: StateKeyId) -> Result<Option<Place>, ResolveError<G::Error>> {
        match self.entries.entry(key) {
            Entry::Occupied(entry) => Ok(*entry.get()),
            Entry::Vacant(entry) => {
                let Some(base) = self.base else { return Ok(None) };
                let event = self.events.graph.get(base, key)?;
                let place = event.map(|event| self.events.place(event)).transpose()?;
                Ok(*entry.insert(place))
            }
        }
    }

    /// The state's `m.room.power_levels`.
    pub fn power_levels_entry(&mut self) -> Result<Option<Place>, ResolveError<G::Error>> {
        self.keys.power_levels.map_or(Ok(None), |key| self.entry(key))
    }

    /// Sets an entry to its event.
    pub fn set(&mut self, key: StateKeyId, place: Place) {
        if self.entries.insert(key, Some(place)) != Some(Some(place)) {
            self.applied.push(key);
        }
    }

    /// Takes an entry away again.
    pub fn clear(&mut self, key: StateKeyId) {
        self.entries.insert(key, None);
    }

    /// Applies each of `events` that the state so far allows.
    pub fn apply(&mut self, events: &[Place]) -> Result<(), ResolveError<G::Error>> {
        for &place in events {
            self.events.load_auth(place)?;
            // An event that is not state can be nobody's entry.
            let Some(key) = self.events.brief(place).key else { continue };
            if self.allows(place)? {
                self.set(key, place);
            }
        }
        Ok(())
    }

    /// Whether the state, with the auth events of the event at `place` that were loaded, allows it. Version 1 loads none,
    /// so that there the state alone decides.
    pub fn allows(&mut self, place: Place) -> Result<bool, ResolveError<G::Error>> {
        let version = self.version;
        let facts = self.events.facts(place).clone();
        let judge = Judge { place, state: RefCell::new(self), failed: RefCell::new(None) };
        let verdict = auth::check(version, facts.pdu(), &judge);
        match judge.failed.into_inner() {
            Some(error) => Err(error),
            None => Ok(verdict.is_ok()),
        }
    }

    /// What authorises the event at `place` as (`kind`, `state_key`).
    fn authorising(
        &mut self,
        place: Place,
        kind: &str,
        state_key: &str,
    ) -> Result<Option<Place>, ResolveError<G::Error>> {
        match kind {
            "m.room.create" => self.authorising_single(place, Role::Create, self.keys.create),
            "m.room.power_levels" => {
                self.authorising_single(place, Role::PowerLevels, self.keys.power_levels)
            }
            "m.room.join_rules" => self.authorising_single(place, Role::JoinRules, self.keys.join_rules),
            "m.room.member" => self.authorising_named(place, Role::Member, kind, state_key),
            _ => self.authorising_named(place, Role::ThirdPartyInvite, kind, state_key),
        }
    }

    /// [`Resolving::authorising`] for a type of which rooms have one entry.
    fn authorising_single(
        &mut self,
        place: Place,
        role: Role,
        key: Option<StateKeyId>,
    ) -> Result<Option<Place>, ResolveError<G::Error>> {
        let found = self.authorising_entry(place, key, |brief| brief.role == role)?;
        Ok(found.or(self.create.filter(|_| self.version.room_id_is_create_hash && role == Role::Create)))
    }

    /// [`Resolving::authorising`] for a type of which rooms have many entries.
    fn authorising_named(
        &mut self,
        place: Place,
        role: Role,
        kind: &str,
        state_key: &str,
    ) -> Result<Option<Place>, ResolveError<G::Error>> {
        let key = self.named_key(place, role, kind, state_key)?;
        self.authorising_entry(place, key, |brief| brief.key == key)
    }

    /// The entry (`kind`, `state_key`), which mostly is one of the auth events of the event at `place`.
    fn named_key(
        &self,
        place: Place,
        role: Role,
        kind: &str,
        state_key: &str,
    ) -> Result<Option<StateKeyId>, ResolveError<G::Error>> {
        let is_it = |auth: &&Place| {
            self.events.brief(**auth).role == role
                && self.events.pdu(**auth).state_key.as_deref() == Some(state_key)
        };
        Ok(match self.events.auth(place).iter().find(is_it) {
            Some(own) => self.events.brief(*own).key,
            None => self.events.graph.key(kind, state_key)?,
        })
    }

    /// The state's entry `key`, or else that among the auth events of the event at `place` which `is_it` knows.
    fn authorising_entry(
        &mut self,
        place: Place,
        key: Option<StateKeyId>,
        is_it: impl Fn(&Brief) -> bool,
    ) -> Result<Option<Place>, ResolveError<G::Error>> {
        let Some(key) = key else { return Ok(None) };
        if let Some(found) = self.entry(key)?
            && !self.events.brief(found).rejected
        {
            return Ok(Some(found));
        }
        let own = self.events.auth(place).iter().find(|auth| is_it(&self.events.brief(**auth))).copied();
        Ok(own.filter(|&own| !self.events.brief(own).rejected))
    }

    /// The membership event that authorises the sender of the event at `place`.
    fn sender(&mut self, place: Place) -> Result<Option<Place>, ResolveError<G::Error>> {
        let brief = self.events.brief(place);
        let key = if brief.role == Role::Member && brief.stated.is_about_sender {
            brief.key
        } else {
            let facts = self.events.facts(place);
            facts.sender(|| self.named_key(place, Role::Member, "m.room.member", &facts.pdu().sender))?
        };
        self.authorising_entry(place, key, |brief| brief.key == key)
    }

    /// The membership event that the state had before the one at `place`.
    fn target(&mut self, place: Place) -> Result<Option<Place>, ResolveError<G::Error>> {
        let key = self.events.brief(place).key;
        self.authorising_entry(place, key, |brief| brief.key == key)
    }

    /// The power levels by which the event at `place` is judged.
    fn power_levels(&mut self, place: Place) -> Result<Option<Arc<PowerLevels>>, ResolveError<G::Error>> {
        let create = self.authorising_single(place, Role::Create, self.keys.create)?;
        let Some(create) = create else { return Ok(None) };
        let event = self.authorising_single(place, Role::PowerLevels, self.keys.power_levels)?;
        let facts = self.events.facts(event.unwrap_or(create));
        Ok(Some(facts.power_levels(self.version, self.events.pdu(create)).clone()))
    }

    /// The level of an event's sender by the power levels that the event names itself, with the create event of its room:
    /// by these, power events are ordered.
    pub fn own_level(&mut self, place: Place) -> Result<Level, ResolveError<G::Error>> {
        let own_create = self.events.auth_of_role(place, Role::Create)?;
        let Some(create) = own_create.or(self.create) else { return Ok(Level::Finite(0)) };
        let event = self.events.auth_of_role(place, Role::PowerLevels)?.unwrap_or(create);
        let level = || {
            let levels = self.events.facts(event).power_levels(self.version, self.events.pdu(create));
            levels.user_level(&self.events.pdu(place).sender)
        };
        // A create event that it does not name could be another in another state.
        let is_its_own = own_create.is_some() || self.version.room_id_is_create_hash;
        Ok(if is_its_own { self.events.facts(place).own_level(level) } else { level() })
    }

    /// What was decided: each conflicted entry, and each that no snapshot has, where the first snapshot differs.
    pub fn changes(mut self, conflicts: &Conflicts) -> Result<Vec<Change>, ResolveError<G::Error>> {
        let mut changes = Vec::new();
        let num = |events: &Events<'g, G>, place: Place| events.facts(place).num();
        for (key, row) in conflicts.rows() {
            let before = row.first().copied().flatten();
            let after = self.entries.remove(&key).flatten().map(|place| num(&self.events, place));
            if before != after {
                changes.push((key, after));
            }
        }
        // What is left of these is in no conflict. Step 5: a shared entry stays what it is.
        for key in std::mem::take(&mut self.applied) {
            if let Some(Some(place)) = self.entries.remove(&key)
                && self.events.graph.get(conflicts.base, key)?.is_none()
            {
                changes.push((key, Some(num(&self.events, place))));
            }
        }
        Ok(changes)
    }
}

/// The state as the rules ask for it while one event is judged.
struct Judge<'r, 'g, G: StateGraph> {
    place: Place,
    state: RefCell<&'r mut Resolving<'g, G>>,
    /// The first failure of the store; the verdict is void then.
    failed: RefCell<Option<ResolveError<G::Error>>>,
}

impl<'g, G: StateGraph> Judge<'_, 'g, G> {
    fn membership_in(
        &self,
        find: impl FnOnce(&mut Resolving<'g, G>) -> Result<Option<Place>, ResolveError<G::Error>>,
    ) -> Option<Membership> {
        let mut state = self.state.borrow_mut();
        let found = self.note(find(&mut state))?;
        state.events.brief(found).stated.membership
    }

    fn note<T>(&self, found: Result<Option<T>, ResolveError<G::Error>>) -> Option<T> {
        found.unwrap_or_else(|error| {
            self.failed.borrow_mut().get_or_insert(error);
            None
        })
    }
}

impl<G: StateGraph> AuthState for Judge<'_, '_, G> {
    fn get(&self, kind: &str, state_key: &str) -> Option<Arc<Pdu>> {
        let mut state = self.state.borrow_mut();
        let found = self.note(state.authorising(self.place, kind, state_key))?;
        Some(state.events.pdu(found).clone())
    }

    fn membership(&self, user: &str) -> Option<Membership> {
        self.membership_in(|state| state.authorising(self.place, "m.room.member", user))
    }

    fn sender_membership(&self, _: &Pdu) -> Option<Membership> {
        self.membership_in(|state| state.sender(self.place))
    }

    fn target_membership(&self, _: &Pdu) -> Option<Membership> {
        self.membership_in(|state| state.target(self.place))
    }

    fn is_about(&self, event: &Pdu, user: &str) -> bool {
        let state = self.state.borrow();
        let brief = state.events.brief(self.place);
        match state.creator.as_ref().filter(|creator| *creator.name == *user) {
            Some(creator) if brief.role == Role::Member => brief.key == creator.key,
            _ => event.state_key.as_deref() == Some(user),
        }
    }

    fn sender_level(&self, event: &Pdu, power_levels: &PowerLevels) -> Level {
        let mut state = self.state.borrow_mut();
        // Few send what many are told, so their own events are nearer than the name in this one.
        let sender = self.note(state.sender(self.place));
        let name = sender.and_then(|sender| state.events.pdu(sender).state_key.as_deref());
        power_levels.user_level(name.unwrap_or(&event.sender))
    }

    fn stated(&self, _: &Pdu) -> Stated {
        self.state.borrow().events.brief(self.place).stated
    }

    fn power_levels(&self, _: &RoomVersion) -> Option<Arc<PowerLevels>> {
        self.note(self.state.borrow_mut().power_levels(self.place))
    }

    fn stated_levels(&self, version: &RoomVersion, _: &Pdu) -> Result<Arc<PowerLevels>, InvalidPowerLevels> {
        self.state.borrow().events.facts(self.place).stated_levels(version)
    }
}
