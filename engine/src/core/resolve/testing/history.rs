//! Random room histories: forks, power struggles, bans, kicks, joins, invites, rejoins, changing join rules.
//!
//! Every choice is taken from a string of bytes, so that a property test can shrink a history and a fuzzer grow one. Each
//! event is sent by somebody whom the state that their server sees lets do it; a few are such that the room rejects.

use std::sync::Arc;

use serde_json::{Value, json};

use super::room::{Room, State, pdu};
use crate::core::auth::{self, AuthState};
use crate::core::event::{JsonObject, Pdu};
use crate::core::num::{EventNum, NodeId};
use crate::core::version::RoomVersion;

/// The users of a history; the first one creates the room.
const USERS: [&str; 6] = [
    "@alice:a.example",
    "@bob:b.example",
    "@carol:a.example",
    "@dave:b.example",
    "@erin:c.example",
    "@frank:c.example",
];

/// Most events of a history after the room's first.
const EVENTS_MAX: usize = 60;

/// How many sets of states are picked at the end of a history besides those that its events merged.
const PICKS: usize = 6;

/// The first snapshot with join rules.
const COMPLETE: usize = 4;

/// Multiplied with an event's index for its number, so that numbers are not in the order of sending: coprime to 2^16.
const NUM_STEP: u64 = 0x9e37;

/// A room with a random history.
#[derive(Debug)]
pub struct History {
    /// The room.
    pub room: Room,
    /// Sets of snapshots to resolve: those that events of the history had before them, and some at random.
    pub merges: Vec<Vec<NodeId>>,
}

/// Choices out of a string of bytes; zero when it is used up.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % count.max(1)
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        list.get(self.below(list.len())).copied()
    }

    fn user(&mut self) -> &'static str {
        USERS[self.below(USERS.len())]
    }

    fn is_done(&self) -> bool {
        self.0.as_slice().is_empty()
    }
}

/// A state of a room, for the rules.
struct In<'a>(&'a Room, &'a State);

impl AuthState for In<'_> {
    fn get(&self, kind: &str, state_key: &str) -> Option<Arc<Pdu>> {
        self.0.find(self.1, kind, state_key).map(|facts| facts.pdu().clone())
    }
}

/// What a user wants to send.
struct Wish {
    kind: &'static str,
    sender: &'static str,
    state_key: String,
    content: Value,
}

impl History {
    /// The history that `choices` tell.
    pub fn new(version: &'static RoomVersion, choices: &[u8]) -> History {
        let mut choices = Choices(choices.iter());
        let mut history = History { room: Room::new(version), merges: Vec::new() };
        let mut tips = history.begin(&mut choices);
        for _ in 0..EVENTS_MAX {
            if choices.is_done() {
                break;
            }
            history.step(&mut choices, &mut tips);
        }
        let tips = tips.iter().map(|tip| tip.1).collect();
        history.merges.push(tips);
        for _ in 0..PICKS {
            let size = 2 + choices.below(3);
            let pick = (0..size).map(|_| history.some_snapshot(&mut choices));
            let pick = pick.collect();
            history.merges.push(pick);
        }
        history
    }

    /// The first events of the room, up to the members that are there from the beginning.
    fn begin(&mut self, choices: &mut Choices<'_>) -> Vec<(EventNum, NodeId)> {
        let alice = USERS[0];
        let version = self.room.version;
        let mut create = json!({"room_version": version.id});
        if version.creator_in_content {
            create["creator"] = alice.into();
        }
        if version.privileged_creators && choices.below(2) == 1 {
            create["additional_creators"] = json!([USERS[2]]);
        }
        let mut users = json!({USERS[1]: 50, USERS[2]: 50});
        if version.privileged_creators {
            users = json!({USERS[1]: 50});
        } else {
            users[alice] = 100.into();
        }
        let wish = |kind, sender, state_key: &str, content| Wish {
            kind,
            sender,
            state_key: state_key.to_owned(),
            content,
        };
        let join = || json!({"membership": "join"});
        let mut first = vec![
            wish("m.room.create", alice, "", create),
            wish("m.room.member", alice, alice, join()),
            wish("m.room.power_levels", alice, "", levels(&users, 50)),
            wish("m.room.join_rules", alice, "", json!({"join_rule": "public"})),
        ];
        let members = 1 + choices.below(USERS.len() - 1);
        first.extend(USERS[1..=members].iter().map(|user| wish("m.room.member", user, user, join())));
        let mut tip = None;
        for wish in first {
            let snapshot = tip.map_or(NodeId::default(), |(_, snapshot)| snapshot);
            let prev: Vec<EventNum> = tip.iter().map(|tip: &(EventNum, NodeId)| tip.0).collect();
            let own = self.pdu(choices, &wish, &prev, &self.room.state(snapshot).clone());
            if let Some(own) = own {
                let num = self.add(own, false);
                tip = Some((num, self.room.set(snapshot, &[num])));
            }
        }
        tip.into_iter().collect()
    }

    /// One event more, on one or several of the tips or on something older.
    fn step(&mut self, choices: &mut Choices<'_>, tips: &mut Vec<(EventNum, NodeId)>) {
        let mut parents: Vec<usize> = (0..1 + choices.below(3)).map(|_| choices.below(tips.len())).collect();
        parents.sort_unstable();
        parents.dedup();
        let prev: Vec<EventNum> = parents.iter().map(|&index| tips[index].0).collect();
        let snapshots: Vec<NodeId> = parents.iter().map(|&index| tips[index].1).collect();
        let before = match snapshots.as_slice() {
            [only] => *only,
            several => {
                self.merges.push(several.to_vec());
                let state = self.room.resolved(several).unwrap_or_default();
                self.room.keep(state)
            }
        };
        let state = self.room.state(before).clone();
        // Once in a while a server sees an older state than it should, or gets to have what the room rejects.
        let mood = choices.below(16);
        let seen =
            if mood < 2 { self.room.state(self.some_snapshot(choices)).clone() } else { state.clone() };
        let wish = self.wish(choices, &seen);
        let Some(own) = self.pdu(choices, &wish, &prev, &seen) else { return };
        if auth::check(self.room.version, &own, &In(&self.room, &seen)).is_err() {
            return;
        }
        let rejected = auth::check(self.room.version, &own, &In(&self.room, &state)).is_err();
        if rejected && mood != 0 {
            return;
        }
        let num = self.add(own, rejected);
        let after = self.room.set(before, &[num]);
        // A fork: what the event follows stays a tip.
        if choices.below(3) != 0 {
            for index in parents.into_iter().rev() {
                tips.remove(index);
            }
        }
        tips.push((num, after));
        // As many forks as a room may well have.
        if tips.len() > 5 {
            tips.remove(0);
        }
    }

    fn some_snapshot(&self, choices: &mut Choices<'_>) -> NodeId {
        let count = self.room.snapshot_count() as usize;
        NodeId((COMPLETE + choices.below(count - COMPLETE)) as u64)
    }

    fn wish(&self, choices: &mut Choices<'_>, state: &State) -> Wish {
        let (sender, target) = (choices.user(), choices.user());
        let member = |state_key: &str, content| Wish {
            kind: "m.room.member",
            sender,
            state_key: state_key.to_owned(),
            content,
        };
        match choices.below(12) {
            0 | 1 => self.power_levels(choices, sender, target, state),
            2 | 3 => member(target, json!({"membership": "ban"})),
            4 => member(target, json!({"membership": "leave"})),
            5 | 6 => {
                let mut content = json!({"membership": "join", "displayname": choices.below(3).to_string()});
                if choices.below(2) == 1 {
                    content["join_authorised_via_users_server"] = target.into();
                }
                member(sender, content)
            }
            7 => member(sender, json!({"membership": "leave"})),
            8 => member(target, json!({"membership": "invite"})),
            9 => member(sender, json!({"membership": "knock"})),
            10 => {
                let rules = ["public", "invite", "knock", "restricted", "knock_restricted", "private"];
                let join_rule = choices.of(&rules);
                let content = json!({"join_rule": join_rule});
                Wish { kind: "m.room.join_rules", sender, state_key: String::new(), content }
            }
            _ => {
                let kind = choices.of(&["m.room.topic", "m.room.name"]).unwrap_or("m.room.topic");
                Wish { kind, sender, state_key: String::new(), content: json!({"x": choices.below(3)}) }
            }
        }
    }

    /// The state's power levels with one user's level, or that of state events, changed.
    fn power_levels(
        &self,
        choices: &mut Choices<'_>,
        sender: &'static str,
        target: &str,
        state: &State,
    ) -> Wish {
        let current =
            self.room.find(state, "m.room.power_levels", "").map(|facts| facts.pdu().content.clone());
        let current = current.unwrap_or_default();
        let mut users = current.get("users").cloned().unwrap_or_else(|| json!({}));
        let mut state_default = current.get("state_default").and_then(Value::as_i64).unwrap_or(50);
        match choices.below(8) {
            0 => state_default = choices.of(&[0, 25, 50, 75]).unwrap_or(50),
            level => users[target] = [0, 25, 50, 50, 75, 100, 100][level - 1].into(),
        }
        let content = levels(&users, state_default);
        Wish { kind: "m.room.power_levels", sender, state_key: String::new(), content }
    }

    /// The event that a server makes of a wish on the state that it sees.
    fn pdu(&self, choices: &mut Choices<'_>, wish: &Wish, prev: &[EventNum], seen: &State) -> Option<Pdu> {
        let version = self.room.version;
        let index = self.room.events().len() as u64;
        let id = |num: &EventNum| self.room.event(*num).map(|facts| facts.pdu().event_id.to_string());
        let content: &JsonObject = wish.content.as_object()?;
        let types = auth::auth_types(version, wish.kind, wish.sender, Some(&wish.state_key), content);
        let auth_events = types.iter().filter_map(|(kind, key)| self.room.find(seen, kind, key));
        let auth_events: Vec<_> = auth_events.collect();
        // An event that names a rejected one is rejected by its auth events, and gets into no state.
        if auth_events.iter().any(|facts| facts.rejected()) {
            return None;
        }
        // A room without join rules, as resolution can leave one, is `invite` to us and closed to those whom we compare
        // with. So nobody joins it.
        let is_join = wish.content.get("membership").and_then(Value::as_str) == Some("join");
        if is_join && index >= COMPLETE as u64 && self.room.find(seen, "m.room.join_rules", "").is_none() {
            return None;
        }
        let auth_events: Vec<&str> = auth_events.iter().map(|facts| &*facts.pdu().event_id).collect();
        // Ids in no order, and times that are often the same, so that both break ties.
        let spread = index.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        let server = if version.redaction_auth_rule { ":a.example" } else { "" };
        let depth = prev.iter().filter_map(|num| Some(self.room.event(*num)?.pdu().depth)).max();
        let mut event = json!({
            "event_id": format!("${spread:016x}{server}"),
            "type": wish.kind,
            "sender": wish.sender,
            "state_key": wish.state_key,
            "content": wish.content,
            "prev_events": prev.iter().filter_map(id).collect::<Vec<_>>(),
            "auth_events": auth_events,
            "depth": depth.map_or(1, |depth| depth + 1),
            "origin_server_ts": 1_000 + index / 4 + choices.below(4) as u64,
        });
        if !(version.room_id_is_create_hash && wish.kind == "m.room.create") {
            let own = self.room.events().first().filter(|_| version.room_id_is_create_hash);
            event["room_id"] = own.map_or("!room:a.example", |create| &create.pdu().room_id).into();
        }
        pdu(&event)
    }

    fn add(&mut self, pdu: Pdu, rejected: bool) -> EventNum {
        let num = EventNum((self.room.events().len() as u64 + 1).wrapping_mul(NUM_STEP) % (1 << 16));
        self.room.add_as(num, pdu, rejected).num()
    }
}

/// Power levels that state every field, for what is not stated is read differently by others.
fn levels(users: &Value, state_default: i64) -> Value {
    json!({
        "users": users, "users_default": 0, "events": {}, "events_default": 0, "state_default": state_default,
        "ban": 50, "kick": 50, "redact": 50, "invite": 0, "notifications": {"room": 50},
    })
}
