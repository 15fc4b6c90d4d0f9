//! Moderation policy lists: which users, servers and rooms this server recommends nothing of, as the policy server of rooms.
//!
//! Invariant: a list is the current state of a room that this server is in, so that it is as its moderators have it now. What is
//! remembered of one is as of its state, of the ends of its graph and of how often events were written anew: a rule may be
//! redacted, or come whole after it was told pruned, and the state is the same.
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
pub(crate) struct Memo(Mutex<HashMap<RoomNum, Remembered>>);

struct Remembered {
    as_of: AsOf,
    rules: Arc<Rules>,
}

/// What a list was read from.
#[derive(PartialEq, Eq)]
struct AsOf {
    state: NodeId,
    ends: Vec<(EventNum, String)>,
    rewrites: u64,
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
/// list; O(rules) for one of whose room something came since.
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

fn rules(reader: &Reader, room: &RoomCtx) -> Result<Arc<Rules>, StorageError> {
    let memo = &reader.shared.memo.policy_lists.0;
    let as_of =
        AsOf { state: room.head.state, ends: room.head.extremities.clone(), rewrites: reader.rewrites() };
    if let Some(remembered) = memo.lock().get(&room.num).filter(|remembered| remembered.as_of == as_of) {
        return Ok(remembered.rules.clone());
    }
    let rules = Arc::new(read(reader, room)?);
    memo.lock().insert(room.num, Remembered { as_of, rules: rules.clone() });
    Ok(rules)
}

fn read(reader: &Reader, room: &RoomCtx) -> Result<Rules, StorageError> {
    let (mut rules, mut left) = (Rules::default(), POLICY_RULES_MAX);
    for (kind, subject) in KINDS {
        let Some(kind) = reader.text_num(kind)? else { continue };
        let entries = reader.state_of_kind(room.num, room.head.state, kind)?;
        let nums: Vec<EventNum> = entries.into_iter().map(|(_, num)| num).take(left).collect();
        left -= nums.len();
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
