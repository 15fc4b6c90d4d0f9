//! The power levels of a room: `m.room.power_levels` read once under a room version, then asked many times.
//!
//! Invariant: a value is never changed after it was read, so a caller may keep it for as long as the event that it
//! came from is the room's. Reading never fails: what cannot be read counts as not there, which is how a redacted
//! event is read too; whether an event may be sent is judged by [`PowerLevels::validate`] and `core::auth`.
//! Source: "m.room.power_levels" of the client-server API and "Deprecated event content schemas" of room versions 1 to 9.

mod levels;

use serde_json::Value;

use super::event::{JsonObject, Pdu};
use super::identifiers::split;
use super::version::RoomVersion;

pub use levels::Levels;

/// The level of the creator while a room has no power levels (room versions 1 to 11).
const CREATOR_LEVEL: i64 = 100;

/// The maps of levels beside `users`.
const MAPS: [&str; 2] = ["events", "notifications"];

/// How high a user stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// An ordinary level.
    Finite(i64),
    /// Above every number: the creators of a room of version 12.
    Infinite,
}

impl Level {
    /// Whether this level is enough where `required` is asked for.
    pub fn reaches(self, required: i64) -> bool {
        self >= Level::Finite(required)
    }
}

/// The levels that stand by themselves at the top of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the property of the same name")]
pub enum Field {
    UsersDefault,
    EventsDefault,
    StateDefault,
    Ban,
    Redact,
    Kick,
    Invite,
}

impl Field {
    /// All of them, in the order of the authorisation rules.
    pub const ALL: [Field; 7] = [
        Field::UsersDefault,
        Field::EventsDefault,
        Field::StateDefault,
        Field::Ban,
        Field::Redact,
        Field::Kick,
        Field::Invite,
    ];

    /// The property's name in the content.
    pub const fn name(self) -> &'static str {
        match self {
            Field::UsersDefault => "users_default",
            Field::EventsDefault => "events_default",
            Field::StateDefault => "state_default",
            Field::Ban => "ban",
            Field::Redact => "redact",
            Field::Kick => "kick",
            Field::Invite => "invite",
        }
    }

    /// The level where the property is absent.
    pub const fn default(self) -> i64 {
        match self {
            Field::UsersDefault | Field::EventsDefault | Field::Invite => 0,
            Field::StateDefault | Field::Ban | Field::Redact | Field::Kick => 50,
        }
    }
}

/// What is wrong with the content of an `m.room.power_levels` event; the sender can act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum InvalidPowerLevels {
    /// One of the properties of [`Field`] is not a level.
    Field,
    /// `events` or `notifications` is not an object of levels.
    Map,
    /// `users` is not an object of levels by user id.
    Users,
}

/// The power levels of a room, as one event (or the absence of one) sets them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerLevels {
    fields: [Option<i64>; Field::ALL.len()],
    users: Levels,
    events: Levels,
    notifications: Levels,
    privileged: Vec<Box<str>>,
    present: bool,
}

impl PowerLevels {
    /// The power levels of a room whose create event is `create` and whose `m.room.power_levels` event, if any,
    /// is `event`.
    pub fn new(version: &RoomVersion, create: &Pdu, event: Option<&Pdu>) -> PowerLevels {
        let mut levels = match event {
            Some(event) => PowerLevels::from_content(version, &event.content),
            None => PowerLevels::empty(),
        };
        if version.privileged_creators {
            levels.privileged = creators(version, create).map(Box::from).collect();
        } else if event.is_none() {
            levels.users = Levels::new(creators(version, create).map(|creator| (creator, CREATOR_LEVEL)));
        }
        levels
    }

    /// Reads `content` alone, without what the create event gives to the creators.
    pub fn from_content(version: &RoomVersion, content: &JsonObject) -> PowerLevels {
        PowerLevels {
            fields: Field::ALL
                .map(|field| content.get(field.name()).and_then(|value| read_level(version, value))),
            users: read_levels(version, content.get("users")),
            events: read_levels(version, content.get("events")),
            notifications: read_levels(version, content.get("notifications")),
            privileged: Vec::new(),
            present: true,
        }
    }

    /// What the rules ask of every such event, whatever the room has: since version 10 that each value is a level, before
    /// that only the values of `users`; and that each key of `users` looks like a user id. Properties that are absent are
    /// fine. An unreadable level that a version lets through counts as not stated.
    ///
    /// Of the keys no more is asked than other servers ask, a sigil and a colon: an entry for a server name that cannot be
    /// harms nobody, and to reject what all others take would part this server from the room for good.
    ///
    /// # Errors
    /// Says which part is wrong; authorisation rules 9.1 to 9.3 of room version 10 and their like.
    pub fn validate(version: &RoomVersion, content: &JsonObject) -> Result<(), InvalidPowerLevels> {
        if version.integer_power_levels {
            PowerLevels::validate_all(version, content)?;
        }
        let Some(users) = content.get("users") else { return Ok(()) };
        let is_entry = |(user, level): (&String, &Value)| {
            split(user, '@').is_some() && read_level(version, level).is_some()
        };
        match users.as_object() {
            Some(users) if users.iter().all(is_entry) => Ok(()),
            _ => Err(InvalidPowerLevels::Users),
        }
    }

    /// What the rules ask besides where the room has power levels already: those that are compared with them can be. Before
    /// version 10 no rule says so by itself, but rules 10.3 to 10.5 (9.3 to 9.5 since version 6) cannot be applied to what is
    /// no level; before version 6 they do not look at `notifications`.
    ///
    /// # Errors
    /// As [`PowerLevels::validate`].
    pub fn validate_change(version: &RoomVersion, content: &JsonObject) -> Result<(), InvalidPowerLevels> {
        if version.integer_power_levels {
            // They have been looked at.
            return Ok(());
        }
        let maps: &[&str] = if version.guard_notification_levels { &MAPS } else { &["events"] };
        validate_levels(version, content, maps)
    }

    /// Whether every level beside those of `users` is one in the forms that `version` knows, as is asked of the users of this
    /// server whatever the version.
    ///
    /// # Errors
    /// As [`PowerLevels::validate`].
    pub fn validate_all(version: &RoomVersion, content: &JsonObject) -> Result<(), InvalidPowerLevels> {
        validate_levels(version, content, &MAPS)
    }

    /// The level of `user`.
    pub fn user_level(&self, user: &str) -> Level {
        if self.privileged.iter().any(|creator| **creator == *user) {
            return Level::Infinite;
        }
        Level::Finite(self.users.get(user).unwrap_or_else(|| self.level(Field::UsersDefault)))
    }

    /// The level needed to send an event of type `kind`. Membership and redactions of others' events have levels
    /// of their own besides; see [`PowerLevels::level`].
    pub fn required(&self, kind: &str, is_state: bool) -> i64 {
        let default = if is_state { Field::StateDefault } else { Field::EventsDefault };
        self.events.get(kind).unwrap_or_else(|| self.level(default))
    }

    /// The level that `field` asks for, its default if the event does not say.
    pub fn level(&self, field: Field) -> i64 {
        self.stated(field).unwrap_or(field.default())
    }

    /// The level needed to trigger the notification `key` (`room` for `@room`); 50 unless stated.
    pub fn notification(&self, key: &str) -> i64 {
        const DEFAULT: i64 = 50;
        self.notifications.get(key).unwrap_or(DEFAULT)
    }

    /// The level of `field` if the event states it.
    pub fn stated(&self, field: Field) -> Option<i64> {
        self.fields.get(field as usize).copied().flatten()
    }

    /// The levels of `users`, as stated; without an event, the creator's.
    pub fn users(&self) -> &Levels {
        &self.users
    }

    /// The levels of `events`, as stated.
    pub fn events(&self) -> &Levels {
        &self.events
    }

    /// The levels of `notifications`, as stated.
    pub fn notifications(&self) -> &Levels {
        &self.notifications
    }

    /// Whether the room has an `m.room.power_levels` event, as opposed to the defaults.
    pub fn is_present(&self) -> bool {
        self.present
    }

    fn empty() -> PowerLevels {
        PowerLevels {
            fields: [None; Field::ALL.len()],
            users: Levels::default(),
            events: Levels::default(),
            notifications: Levels::default(),
            privileged: Vec::new(),
            present: false,
        }
    }
}

/// The creators of a room: `content.creator` of the create event up to room version 10, its sender in version 11,
/// and with the sender all of `additional_creators` from version 12 on.
pub fn creators<'a>(version: &RoomVersion, create: &'a Pdu) -> impl Iterator<Item = &'a str> {
    let named = if version.creator_in_content { text(create.content.get("creator")) } else { None };
    let additional = match create.content.get("additional_creators") {
        Some(Value::Array(additional)) if version.privileged_creators => additional.as_slice(),
        _ => &[],
    };
    std::iter::once(named.unwrap_or(&create.sender)).chain(additional.iter().filter_map(Value::as_str))
}

fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

/// Whether what stands by itself, and in these maps, are levels.
fn validate_levels(
    version: &RoomVersion,
    content: &JsonObject,
    maps: &[&str],
) -> Result<(), InvalidPowerLevels> {
    let is_level = |value: &Value| read_level(version, value).is_some();
    if !Field::ALL.iter().filter_map(|field| content.get(field.name())).all(is_level) {
        return Err(InvalidPowerLevels::Field);
    }
    let are_levels = |map: &Value| map.as_object().is_some_and(|map| map.values().all(is_level));
    match maps.iter().filter_map(|name| content.get(*name)).all(are_levels) {
        true => Ok(()),
        false => Err(InvalidPowerLevels::Map),
    }
}

fn read_levels(version: &RoomVersion, value: Option<&Value>) -> Levels {
    let Some(Value::Object(entries)) = value else { return Levels::default() };
    Levels::new(entries.iter().filter_map(|(key, value)| Some((key.as_str(), read_level(version, value)?))))
}

/// One level: an integer; before room version 10 also a string that is one; and where events are not held to
/// canonical JSON (before version 6) a float, cut off at the decimal point.
fn read_level(version: &RoomVersion, value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(level) => Some(level),
            None if version.strict_canonical_json => None,
            None => number.as_f64().filter(|level| level.is_finite()).map(|level| level.trunc() as i64),
        },
        Value::String(text) if !version.integer_power_levels => read_text(text),
        _ => None,
    }
}

/// White space around, one sign, digits with any number of leading zeroes.
fn read_text(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is wrong with the content by itself, and where the room has power levels already.
    fn faults(id: &str, content: &Value) -> (Result<(), InvalidPowerLevels>, Result<(), InvalidPowerLevels>) {
        let (version, content) = (RoomVersion::get(id).unwrap(), content.as_object().unwrap());
        (PowerLevels::validate(version, content), PowerLevels::validate_change(version, content))
    }

    #[test]
    fn before_version_10_only_users_are_judged_by_themselves_and_what_is_compared_once_there_is_something_to_compare()
     {
        use InvalidPowerLevels::{Field as OfField, Map, Users};
        for (wrong, why) in [
            (json!({"ban": "fifty"}), OfField),
            (json!({"invite": null}), OfField),
            (json!({"events": {"m.x": {}}}), Map),
            (json!({"events": []}), Map),
        ] {
            for id in ["1", "5", "6", "9"] {
                assert_eq!(faults(id, &wrong), (Ok(()), Err(why)), "{wrong} in version {id}");
            }
            for id in ["10", "11", "12"] {
                assert_eq!(faults(id, &wrong), (Err(why), Ok(())), "{wrong} in version {id}");
            }
        }
        let notifications = json!({"notifications": {"room": "loud"}});
        for id in ["1", "5"] {
            assert_eq!(faults(id, &notifications), (Ok(()), Ok(())), "version {id}");
        }
        for id in ["6", "9"] {
            assert_eq!(faults(id, &notifications), (Ok(()), Err(Map)), "version {id}");
        }
        assert_eq!(faults("10", &notifications), (Err(Map), Ok(())));
        for version in super::super::version::ROOM_VERSIONS {
            for wrong in [json!({"users": []}), json!({"users": {"@a:a.example": "high"}})] {
                assert_eq!(faults(version.id, &wrong).0, Err(Users), "{wrong} in version {}", version.id);
            }
        }
        let content = json!({"ban": "fifty", "events": {"m.x": {}, "m.y": "7"}});
        let levels = PowerLevels::from_content(RoomVersion::get("9").unwrap(), content.as_object().unwrap());
        assert_eq!((levels.stated(Field::Ban), levels.level(Field::Ban)), (None, 50), "it is not stated");
        assert_eq!((levels.required("m.x", true), levels.required("m.y", true)), (50, 7));
    }

    /// Synapse's `UserID.from_string`, by which it judges the keys, looks at no more.
    #[test]
    fn a_key_of_users_has_a_sigil_and_a_colon() {
        for version in super::super::version::ROOM_VERSIONS {
            let of = |user: &str| faults(version.id, &json!({"users": {user: 50}})).0;
            for user in ["@typo:my_server.test", "@:", "@a:b:c", "@a b: ", "@a\0:x"] {
                assert_eq!(of(user), Ok(()), "{user:?} in version {}", version.id);
            }
            for user in ["", "@", "typo:a.example", "@typo", "!typo:a.example", "\u{ff20}typo:a.example"] {
                let expected = Err(InvalidPowerLevels::Users);
                assert_eq!(of(user), expected, "{user:?} in version {}", version.id);
            }
        }
    }

    fn read(id: &str, value: Value) -> Option<i64> {
        read_level(RoomVersion::get(id).unwrap(), &value)
    }

    #[test]
    fn levels_as_strings_until_version_9() {
        for text in ["100", "000100", "+100", " 100 ", " 00100 ", " +100 "] {
            assert_eq!(read("1", json!(text)), Some(100), "{text:?}");
            assert_eq!(read("9", json!(text)), Some(100), "{text:?}");
            assert_eq!(read("10", json!(text)), None, "{text:?}");
        }
        assert_eq!(read("9", json!(" -100 ")), Some(-100));
        for text in ["", " ", "+", "--1", "+-1", "1 0", "50.5", "1e2", "0x10", "99999999999999999999"] {
            assert_eq!(read("1", json!(text)), None, "{text:?}");
        }
    }

    #[test]
    fn levels_as_floats_until_version_5() {
        assert_eq!(read("1", json!(5.114698E4)), Some(51146));
        assert_eq!(read("5", json!(50.57)), Some(50));
        assert_eq!(read("5", json!(-50.57)), Some(-50));
        assert_eq!(read("6", json!(50.57)), None);
        for other in [json!(null), json!(true), json!([1]), json!({})] {
            assert_eq!(read("1", other), None);
        }
    }

    #[test]
    fn what_is_not_stated_has_its_default() {
        let version = RoomVersion::get("11").unwrap();
        let levels = PowerLevels::from_content(version, &JsonObject::new());
        let defaults = Field::ALL.map(|field| levels.level(field));
        assert_eq!(defaults, [0, 0, 50, 50, 50, 50, 0]);
        assert_eq!((levels.required("m.x", false), levels.required("m.x", true)), (0, 50));
        assert_eq!(levels.notification("room"), 50);
        assert_eq!(levels.user_level("@a:a.example"), Level::Finite(0));
        assert!(Level::Infinite.reaches(i64::MAX) && Level::Infinite > Level::Finite(i64::MAX));
        let content = json!({"events": {"m.x": 7}, "notifications": {"room": 1}, "users_default": 3});
        let levels = PowerLevels::from_content(version, content.as_object().unwrap());
        assert_eq!((levels.required("m.x", false), levels.required("m.x", true)), (7, 7));
        assert_eq!((levels.notification("room"), levels.notification("other")), (1, 50));
        assert_eq!(levels.user_level("@a:a.example"), Level::Finite(3));
    }
}
