//! Choices out of a string of bytes, so that a fuzzer can grow what is made of them.

use serde_json::{Map, Value, json};
use warren_engine::core::event::JsonObject;
use warren_engine::core::version::{ROOM_VERSIONS, RoomVersion};

/// The users of all rooms; the first one creates them.
pub const USERS: [&str; 6] = [
    "@alice:there.example",
    "@bob:there.example",
    "@carol:other.example",
    "@dave:other.example",
    "@erin:far.example",
    "@frank:there.example",
];

/// Texts that mean something somewhere.
const TEXTS: [&str; 24] = [
    "",
    "join",
    "invite",
    "leave",
    "ban",
    "knock",
    "public",
    "restricted",
    "knock_restricted",
    "private",
    "@alice:there.example",
    "@bob:there.example",
    "@carol:other.example",
    "@nobody",
    "there.example",
    "50",
    " 7 ",
    "-1",
    "1e2",
    "token",
    "m.room.message",
    "m.room.power_levels",
    "12",
    "users",
];

const NUMBERS: [i64; 12] =
    [0, 1, -1, 49, 50, 51, 100, 101, (1 << 53) - 1, -((1 << 53) - 1), i64::MAX, i64::MIN];

/// See the module. What is used up answers zero, and never the rare thing.
pub struct Choices<'a>(std::slice::Iter<'a, u8>);

impl<'a> Choices<'a> {
    /// The choices that the bytes tell.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.iter())
    }

    /// A number below `count`, which is at most 256.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % count.max(1)
    }

    /// One of a list that is not empty.
    pub fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// True once in `count` times.
    pub fn rarely(&mut self, count: usize) -> bool {
        self.below(count) + 1 == count
    }

    /// A room version.
    pub fn version(&mut self) -> &'static RoomVersion {
        self.of(&ROOM_VERSIONS)
    }

    /// Whether all is used up.
    pub fn is_done(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    /// Any JSON, not deep.
    pub fn value(&mut self, nesting: usize) -> Value {
        match self.below(if nesting == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => self.rarely(2).into(),
            2 => 1.5.into(),
            3 => self.of(&NUMBERS).into(),
            4 | 5 => self.of(&TEXTS).into(),
            6 => (0..self.below(4)).map(|_| self.value(nesting - 1)).collect(),
            _ => (0..self.below(4)).map(|_| (self.of(&TEXTS).to_owned(), self.value(nesting - 1))).collect(),
        }
    }

    /// Something that could be a power level.
    fn level(&mut self) -> Value {
        if self.rarely(8) { self.value(1) } else { self.of(&[0, 0, 25, 50, 50, 99, 100, 101, -1]).into() }
    }

    fn levels(&mut self, names: &[&str]) -> Value {
        (0..self.below(4)).map(|_| (self.of(names).to_owned(), self.level())).collect()
    }

    /// A content for an event of this type, sensible as a rule.
    pub fn content(&mut self, version: &RoomVersion, kind: &str) -> JsonObject {
        let mut content = match kind {
            "m.room.create" => json!({"creator": USERS[0], "room_version": version.id}),
            "m.room.member" => {
                let memberships = ["join", "join", "leave", "ban", "invite", "knock"];
                let mut content = json!({"membership": self.of(&memberships)});
                if self.rarely(4) {
                    content["join_authorised_via_users_server"] = self.of(&USERS).into();
                }
                if self.rarely(8) {
                    let signed =
                        json!({"mxid": self.of(&USERS), "token": "token", "signatures": self.value(2)});
                    content["third_party_invite"] = json!({"display_name": "x", "signed": signed});
                }
                content
            }
            "m.room.power_levels" => {
                let mut content = json!({"users": self.levels(&USERS), "events": self.levels(&TEXTS)});
                for field in
                    ["ban", "invite", "kick", "redact", "events_default", "state_default", "users_default"]
                {
                    if self.rarely(3) {
                        content[field] = self.level();
                    }
                }
                if self.rarely(4) {
                    content["notifications"] = self.levels(&["room", "other"]);
                }
                content
            }
            "m.room.join_rules" => {
                let rules =
                    ["public", "public", "invite", "knock", "restricted", "knock_restricted", "private"];
                json!({"join_rule": self.of(&rules), "allow": []})
            }
            "m.room.third_party_invite" => json!({"public_key": "AAAA", "public_keys": self.value(2)}),
            _ => json!({"body": self.of(&TEXTS)}),
        };
        if self.rarely(8) {
            content[self.of(&TEXTS)] = self.value(2);
        }
        if self.rarely(16)
            && let Some(field) = content.as_object().and_then(|fields| fields.keys().next()).cloned()
        {
            content[field] = self.value(2);
        }
        if self.rarely(16) {
            content = self.value(2);
        }
        match content {
            Value::Object(content) => content,
            _ => Map::new(),
        }
    }
}
