//! Moderation policy lists: which users, servers and rooms this server recommends nothing of, as the policy server of rooms.
//!
//! Invariant: a list is the current state of a room that this server is in, so that it is as its moderators have it now. What is
//! remembered of one counts as long as its room has the same rules. That a rule was redacted, or has come whole after it was told pruned, is
//! seen within some seconds: nothing tells it from all else that is written anew on this server, and the room's state is the same.
//! Source: client-server API, "Moderation policy lists".

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;

use super::RoomCtx;
use crate::{
    core::{
        event::{JsonObject, Pdu},
        glob::{Glob, Wildcards},
        identifiers::{server_host, server_name},
        limits::{POLICY_ENTITY_BYTES_MAX, POLICY_RULES_MAX},
        num::{EventNum, NodeId, RoomNum},
    },
    store::{Reader, StorageError},
};

/// The types of rules. Lists that are in use have rules of the types from before they were in the specification, too.
const KINDS: [(&str, Subject); 9] = [
    ("m.policy.rule.user", Subject::User),
    ("m.room.rule.user", Subject::User),
    ("org.matrix.mjolnir.rule.user", Subject::User),
    ("m.policy.rule.server", Subject::Server),
    ("m.room.rule.server", Subject::Server),
    ("org.matrix.mjolnir.rule.server", Subject::Server),
    ("m.policy.rule.room", Subject::Room),
    ("m.room.rule.room", Subject::Room),
    ("org.matrix.mjolnir.rule.room", Subject::Room),
];

/// The recommendation that the specification has, and what it was called before.
const BANS: [&str; 2] = ["m.ban", "org.matrix.mjolnir.ban"];

/// Rules that are read from the disk at once.
const READ_AT_ONCE: usize = 1_000;

/// How long the rules of a list are not read again for what else was written anew on this server, in milliseconds. On a large server something is
/// all the time, and the largest lists take a second to read. A rule that was redacted counts so much longer.
const READ_AGAIN_AFTER_MS: u64 = 10_000;

/// What a rule is about.
#[derive(Clone, Copy)]
enum Subject {
    User,
    Server,
    Room,
}

/// Why this server does not recommend an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum PolicyRefusal {
    /// A rule is about its sender.
    #[error("the sender is banned by a moderation policy list that the room's policy server goes by")]
    Sender,
    /// A rule is about its sender's server.
    #[error(
        "the sender's server is banned by a moderation policy list that the room's policy server goes by"
    )]
    SendersServer,
    /// A rule is about the user who is invited, joins or knocks.
    #[error("the user is banned by a moderation policy list that the room's policy server goes by")]
    Member,
    /// A rule is about the server of the user who is invited, joins or knocks.
    #[error("the user's server is banned by a moderation policy list that the room's policy server goes by")]
    MembersServer,
    /// A rule is about the room.
    #[error("the room is banned by a moderation policy list that its policy server goes by")]
    Room,
    /// It names the room's policy server, which is not asked about that.
    #[error("a policy server is not asked about what names the room's policy server (m.room.policy)")]
    NamesPolicyServer,
}

/// What is remembered of lists. There is no more of it than lists that the operator has named.
#[derive(Default)]
pub(crate) struct Memo(Mutex<HashMap<RoomNum, Arc<List>>>);

/// What is remembered of a list.
#[derive(Default)]
struct List {
    remembered: Mutex<Option<Remembered>>,
    /// Held by who reads it.
    reading: Mutex<()>,
}

struct Remembered {
    /// The state that it was read from, or a later one with the same rules.
    state: NodeId,
    /// The events of the rules, for each of [`KINDS`].
    events: Vec<Vec<EventNum>>,
    /// How often events had been written anew when it was read.
    rewrites: u64,
    /// When it was read.
    read_ms: u64,
    rules: Arc<Rules>,
}

impl Remembered {
    /// Whether nothing was written anew since it was read, or it was read lately.
    fn is_fresh(&self, reader: &Reader) -> bool {
        let passed_ms = reader.shared.clock.now_ms().checked_sub(self.read_ms);
        self.rewrites == reader.rewrites() || passed_ms.is_some_and(|passed| passed < READ_AGAIN_AFTER_MS)
    }
}

/// The rules of a list.
#[derive(Default)]
struct Rules {
    users: Entities,
    servers: Entities,
    rooms: Entities,
}

/// What rules are about: a look-up for those that name one, whatever their number.
#[derive(Default)]
struct Entities {
    exact: HashSet<Box<str>>,
    globs: Vec<Glob>,
}

impl Entities {
    fn add(&mut self, entity: &str) {
        if entity.contains(['*', '?']) {
            self.globs.push(Glob::new(entity, Wildcards::StarAndQuestionMark));
        } else {
            self.exact.insert(entity.into());
        }
    }

    fn has(&self, value: &str) -> bool {
        self.exact.contains(value) || self.globs.iter().any(|glob| glob.matches(value))
    }
}

impl Rules {
    fn add(&mut self, subject: Subject, entity: &str) {
        match subject {
            Subject::User => self.users.add(entity),
            // Without regard to case, as access lists have it.
            Subject::Server => self.servers.add(&entity.to_lowercase()),
            Subject::Room => self.rooms.add(entity),
        }
    }

    /// Whether a rule is about the user's server, by its name with the port or without.
    fn has_server_of(&self, user_id: &str) -> bool {
        let Some(name) = server_name(user_id).map(str::to_lowercase) else { return false };
        self.servers.has(&name) || server_host(&name).is_some_and(|host| self.servers.has(host))
    }

    fn refusal(&self, pdu: &Pdu, comes_in: Option<&str>) -> Option<PolicyRefusal> {
        if self.users.has(&pdu.sender) {
            return Some(PolicyRefusal::Sender);
        }
        if self.has_server_of(&pdu.sender) {
            return Some(PolicyRefusal::SendersServer);
        }
        if comes_in.is_some_and(|member| self.users.has(member)) {
            return Some(PolicyRefusal::Member);
        }
        if comes_in.is_some_and(|member| self.has_server_of(member)) {
            return Some(PolicyRefusal::MembersServer);
        }
        self.rooms.has(&pdu.room_id).then_some(PolicyRefusal::Room)
    }
}

/// Why the lists have this server not recommend an event, if they do. Whoever is banned may go, and be turned out. O(patterns) for each
/// list; O(rules) for one whose room's state is another since, or that is to be read again.
pub(crate) fn refusal(reader: &Reader, pdu: &Pdu) -> Result<Option<PolicyRefusal>, StorageError> {
    let member = pdu.state_key.as_deref().filter(|_| &*pdu.kind == "m.room.member");
    let membership = member.and(pdu.membership());
    if membership == Some("leave") && member == Some(&*pdu.sender) {
        return Ok(None);
    }
    let comes_in = member.filter(|_| matches!(membership, Some("invite" | "join" | "knock")));
    for room_id in &reader.shared.policy_lists {
        let Some(room) = list(reader, room_id)? else { continue };
        let refusal = rules(reader, &room)?.refusal(pdu, comes_in);
        if refusal.is_some() {
            return Ok(refusal);
        }
    }
    Ok(None)
}

/// The lists that say nothing, as this server is not in their rooms.
pub(crate) fn absent(reader: &Reader) -> Result<Vec<String>, StorageError> {
    let mut absent = Vec::new();
    for room_id in &reader.shared.policy_lists {
        if list(reader, room_id)?.is_none() {
            absent.push(room_id.clone());
        }
    }
    Ok(absent)
}

/// The room of a list. One that this server has left would be as it was then, for ever.
fn list(reader: &Reader, room_id: &str) -> Result<Option<RoomCtx>, StorageError> {
    let Some(room) = RoomCtx::find(reader, room_id)? else { return Ok(None) };
    Ok(reader.is_server_in_room(&reader.shared.server_name, room.num)?.then_some(room))
}

/// The rules of a list. One reads it at a time; others go by what is remembered meanwhile, or wait if that is nothing.
fn rules(reader: &Reader, room: &RoomCtx) -> Result<Arc<Rules>, StorageError> {
    let list = reader.shared.memo.policy_lists.0.lock().entry(room.num).or_default().clone();
    if let Some(rules) = list.as_of(reader, room) {
        return Ok(rules);
    }
    let _reading = match list.reading.try_lock() {
        Some(reading) => reading,
        None => match list.last() {
            Some(rules) => return Ok(rules),
            None => list.reading.lock(),
        },
    };
    match list.as_of(reader, room) {
        // Another has read it meanwhile.
        Some(rules) => Ok(rules),
        None => list.look(reader, room),
    }
}

impl List {
    fn last(&self) -> Option<Arc<Rules>> {
        self.remembered.lock().as_ref().map(|remembered| remembered.rules.clone())
    }

    /// What is remembered, if it is that of the room's state and may be gone by.
    fn as_of(&self, reader: &Reader, room: &RoomCtx) -> Option<Arc<Rules>> {
        let remembered = self.remembered.lock();
        let current = remembered.as_ref().filter(|remembered| remembered.state == room.head.state);
        current.filter(|remembered| remembered.is_fresh(reader)).map(|remembered| remembered.rules.clone())
    }

    /// Reads which rules there are and, unless what is remembered is of the same, what they say.
    fn look(&self, reader: &Reader, room: &RoomCtx) -> Result<Arc<Rules>, StorageError> {
        let events = events(reader, room)?;
        if let Some(remembered) = self.remembered.lock().as_mut()
            && remembered.events == events
            && remembered.is_fresh(reader)
        {
            remembered.state = room.head.state;
            return Ok(remembered.rules.clone());
        }
        let rules = Arc::new(read(reader, &events)?);
        *self.remembered.lock() = Some(Remembered {
            state: room.head.state,
            events,
            rewrites: reader.rewrites(),
            read_ms: reader.shared.clock.now_ms(),
            rules: rules.clone(),
        });
        Ok(rules)
    }
}

/// The events of a list's rules, for each of [`KINDS`]: as many as count. O(rules), and none of the events is read.
fn events(reader: &Reader, room: &RoomCtx) -> Result<Vec<Vec<EventNum>>, StorageError> {
    let (mut events, mut left) = (Vec::with_capacity(KINDS.len()), POLICY_RULES_MAX);
    for (kind, _) in KINDS {
        let entries = match reader.text_num(kind)? {
            Some(kind) => reader.state_of_kind(room.num, room.head.state, kind)?,
            None => Vec::new(),
        };
        let nums: Vec<EventNum> = entries.into_iter().map(|(_, num)| num).take(left).collect();
        left -= nums.len();
        events.push(nums);
    }
    Ok(events)
}

fn read(reader: &Reader, events: &[Vec<EventNum>]) -> Result<Rules, StorageError> {
    let mut rules = Rules::default();
    for ((_, subject), nums) in KINDS.into_iter().zip(events) {
        for nums in nums.chunks(READ_AT_ONCE) {
            for event in reader.events(nums)? {
                if let Some(entity) = banned_by(&event.pdu()?.content) {
                    rules.add(subject, entity);
                }
            }
        }
    }
    Ok(rules)
}

/// Whom a rule bans. One that was taken back has no content.
fn banned_by(content: &JsonObject) -> Option<&str> {
    let recommendation = content.get("recommendation")?.as_str()?;
    let entity = content.get("entity")?.as_str()?;
    (BANS.contains(&recommendation) && entity.len() <= POLICY_ENTITY_BYTES_MAX).then_some(entity)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{fixture::World, store::Memory};

    const LIST: &str = "!list:here.example";
    const OTHER_ROOM: &str = "!other:here.example";
    const ALICE: &str = "@alice:here.example";
    const EVE: &str = "@eve:here.example";

    fn world() -> World {
        let world = World::of_policies(&[LIST], Arc::new(Memory::default()));
        for room_id in [LIST, OTHER_ROOM] {
            world.room(room_id, ALICE, None);
        }
        world
    }

    fn ban(world: &World, entity: &str) -> String {
        let content = json!({"entity": entity, "recommendation": "m.ban"});
        world.state(LIST, ALICE, "m.policy.rule.user", &format!("rule:{entity}"), content)
    }

    fn read_rules(world: &World) -> Arc<Rules> {
        world.ask(|reader| Ok(rules(reader, &RoomCtx::load(reader, LIST)?)?))
    }

    fn bans(world: &World, user_id: &str) -> bool {
        read_rules(world).users.has(user_id)
    }

    #[test]
    fn a_list_is_not_read_again_for_what_is_no_rule_of_it() {
        let world = world();
        ban(&world, EVE);
        let first = read_rules(&world);
        world.join(LIST, "@bob:here.example");
        world.message(LIST, ALICE, "who is next?");
        let said = world.message(OTHER_ROOM, ALICE, "nothing");
        assert!(Arc::ptr_eq(&read_rules(&world), &first));
        world.redact(OTHER_ROOM, ALICE, &said);
        assert!(Arc::ptr_eq(&read_rules(&world), &first));
        // Something was written anew.
        world.pass_ms(READ_AGAIN_AFTER_MS);
        let second = read_rules(&world);
        assert!(!Arc::ptr_eq(&second, &first));
        // Nothing was since.
        world.pass_ms(READ_AGAIN_AFTER_MS * 10);
        assert!(Arc::ptr_eq(&read_rules(&world), &second));
    }

    #[test]
    fn a_rule_counts_at_once_and_one_that_is_redacted_some_seconds_more() {
        let world = world();
        let rule = ban(&world, EVE);
        assert!(bans(&world, EVE) && !bans(&world, ALICE));
        ban(&world, ALICE);
        assert!(bans(&world, ALICE));
        world.redact(LIST, ALICE, &rule);
        world.pass_ms(READ_AGAIN_AFTER_MS / 2);
        assert!(bans(&world, EVE));
        world.pass_ms(READ_AGAIN_AFTER_MS / 2);
        assert!(!bans(&world, EVE) && bans(&world, ALICE));
        let rule = ban(&world, EVE);
        assert!(bans(&world, EVE));
        world.redact(LIST, ALICE, &rule);
        // The clock was wrong.
        world.set_back_ms(READ_AGAIN_AFTER_MS);
        assert!(!bans(&world, EVE));
    }

    #[test]
    fn while_a_list_is_read_others_go_by_what_is_remembered() {
        let world = world();
        let first = read_rules(&world);
        ban(&world, EVE);
        let list = world.ask(|reader| {
            let room = RoomCtx::load(reader, LIST)?;
            Ok(reader.shared.memo.policy_lists.0.lock()[&room.num].clone())
        });
        let reading = list.reading.lock();
        assert!(Arc::ptr_eq(&read_rules(&world), &first));
        drop(reading);
        assert!(bans(&world, EVE));
    }
}
