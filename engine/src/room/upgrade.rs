//! What a room of another version takes over from the one that it replaces, and what its members keep.
//!
//! Invariant: what is transferred is what the new version understands; a room never becomes more open by an upgrade.
//! Specification: client-server API, "Room Upgrades".

use ruma_common::push::{NewPushRule, NewSimplePushRule, RuleKind};
use serde_json::{Value, json};

use super::RoomCtx;
use crate::{
    account::{account_data, push_rules},
    core::{
        event::JsonObject,
        num::{RoomNum, UserNum},
        power_levels::{Field, Levels, PowerLevels},
        version::RoomVersion,
    },
    error::{Denied, Error, Invalid, Result},
    store::{Reader, Tx, schema, schema::Membership},
};

/// The type of the event that ends a room.
pub(crate) const TOMBSTONE: &str = "m.room.tombstone";

/// The room and the member who is to replace it, and the version of what replaces it.
///
/// Errors: [`Invalid::RoomVersion`]; [`Denied::NotInRoom`]; [`Denied::PowerLevel`] for who may not send its tombstone.
pub(crate) fn check_may_upgrade(
    reader: &Reader,
    (room_id, user_id): (&str, &str),
    version: &str,
) -> Result<(RoomCtx, UserNum, &'static RoomVersion)> {
    let version =
        RoomVersion::get(version).ok_or_else(|| Error::from(Invalid::RoomVersion(version.to_owned())))?;
    let room = RoomCtx::find(reader, room_id)?.ok_or(Denied::NotInRoom)?;
    let user = reader.user_num(user_id)?.ok_or(Denied::NotInRoom)?;
    if reader.membership(user, room.num)? != Some(Membership::Join) {
        return Err(Denied::NotInRoom.into());
    }
    let levels = room.power_levels(reader)?.ok_or(Denied::NotInRoom)?;
    if !levels.user_level(user_id).reaches(levels.required(TOMBSTONE, true)) {
        return Err(Denied::PowerLevel.into());
    }
    Ok((room, user, version))
}

/// The state that is transferred as it is, in the order in which it is set; power levels go before it, aliases are moved.
pub(crate) const TRANSFERRED: &[&str] = &[
    "m.room.server_acl",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.join_rules",
    "m.room.encryption",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
];

/// What is transferred of a space besides: its rooms.
pub(crate) const SPACE_CHILD: &str = "m.space.child";

/// How clients encrypt in rooms. Specification: client-server API, "`m.megolm.v1.aes-sha2`".
const MEGOLM: &str = "m.megolm.v1.aes-sha2";

/// Whether state that waits for the keys of its sender's server is transferred as well, if nothing stands in its place: what shuts
/// servers out, or keeps to the members what is said. Nobody can tell yet whether it was set, but without it the new room would be more open,
/// and nobody looks after the old one any more; an administrator can change it, but for the encryption, which harms nobody. Not so what
/// would open the room, nor names and topics: these would be told in the name of who upgrades.
pub(crate) fn closes(kind: &str, content: &JsonObject) -> bool {
    let text = |key: &str| content.get(key).and_then(Value::as_str);
    match kind {
        "m.room.server_acl" => true,
        "m.room.encryption" => text("algorithm") == Some(MEGOLM),
        "m.room.history_visibility" => matches!(text("history_visibility"), Some("invited" | "joined")),
        _ => false,
    }
}

/// The level of creators who become ordinary members of the power levels: what a new room gives its creator.
const CREATOR_LEVEL: i64 = 100;

/// What upgrading a room takes at least where creators are above all levels, as in new rooms: else an administrator could
/// take a room from its creators.
const TOMBSTONE_LEVEL_OF_CREATORS: i64 = 150;

/// The greatest integer of canonical JSON; older versions do not refuse greater levels.
const INTEGER_MAX: i64 = (1 << 53) - 1;

/// The least that it takes to send and to invite in a room that has been replaced.
const REPLACED_LEVEL: i64 = 50;

/// The power levels of the new room: `content` is that of the old one's, `old_creators` its creators.
pub(crate) fn power_levels(
    (old, new): (&RoomVersion, &RoomVersion),
    content: &JsonObject,
    old_creators: &[String],
    new_creators: &[String],
) -> JsonObject {
    let levels = PowerLevels::from_content(old, content);
    // What is not a level in the new version (a text, a fraction) is written as what it meant in the old one.
    let mut result = content.clone();
    for field in Field::ALL {
        match levels.stated(field) {
            Some(level) => result.insert(field.name().to_owned(), bounded(level).into()),
            None => result.remove(field.name()),
        };
    }
    for (name, map) in [("events", levels.events()), ("notifications", levels.notifications())] {
        if content.contains_key(name) {
            result.insert(name.to_owned(), object(map).into());
        }
    }
    let mut users = object(levels.users());
    users.retain(|user, _| crate::core::identifiers::is_user_id(user));
    if old.privileged_creators && !new.privileged_creators {
        users.extend(old_creators.iter().map(|user| (user.clone(), CREATOR_LEVEL.into())));
        // What was kept for those above all levels would be for nobody.
        if let Some(level) = result.get_mut("events").and_then(|events| events.get_mut(TOMBSTONE)) {
            *level = level.as_i64().unwrap_or_default().min(CREATOR_LEVEL).into();
        }
    }
    if new.privileged_creators {
        users.retain(|user, _| !new_creators.contains(user));
        let stated = levels.required(TOMBSTONE, true).max(TOMBSTONE_LEVEL_OF_CREATORS);
        if let Value::Object(events) = result.entry("events").or_insert_with(|| json!({})) {
            events.insert(TOMBSTONE.to_owned(), bounded(stated).into());
        }
    }
    result.insert("users".to_owned(), users.into());
    result
}

fn object(levels: &Levels) -> JsonObject {
    levels.iter().map(|(key, level)| (key.to_string(), bounded(level).into())).collect()
}

fn bounded(level: i64) -> i64 {
    level.clamp(-INTEGER_MAX, INTEGER_MAX)
}

/// The levels with which `user` may set all that is transferred; the same if theirs is enough.
pub(crate) fn raised(version: &RoomVersion, content: &JsonObject, user: &str) -> JsonObject {
    let levels = PowerLevels::from_content(version, content);
    let fields = [Field::StateDefault, Field::Ban].map(|field| levels.level(field));
    let needed = levels.events().iter().map(|(_, level)| level).chain(fields).max().unwrap_or(CREATOR_LEVEL);
    let mut content = content.clone();
    if !version.privileged_creators
        && !levels.user_level(user).reaches(needed)
        && let Value::Object(users) = content.entry("users").or_insert_with(|| json!({}))
    {
        users.insert(user.to_owned(), bounded(needed).into());
    }
    content
}

/// The join rule in the nearest form that the new version knows, which is never a more open one.
pub(crate) fn join_rules(new: &RoomVersion, content: &JsonObject) -> JsonObject {
    let rule = content.get("join_rule").and_then(Value::as_str).unwrap_or("invite");
    let known = match rule {
        "knock_restricted" if new.knock_restricted => rule,
        "knock_restricted" if new.restricted => "restricted",
        "knock_restricted" | "knock" if new.knock => "knock",
        "restricted" if new.restricted => rule,
        "knock_restricted" | "knock" | "restricted" => "invite",
        other => other,
    };
    let mut content = content.clone();
    content.insert("join_rule".to_owned(), known.into());
    if !matches!(known, "restricted" | "knock_restricted") {
        content.remove("allow");
    }
    content
}

/// The power levels of the replaced room, raised so that nobody goes on in it; `None` if they are high enough.
pub(crate) fn closed(version: &RoomVersion, content: &JsonObject) -> Option<JsonObject> {
    let levels = PowerLevels::from_content(version, content);
    let least = levels.level(Field::UsersDefault).saturating_add(1).clamp(REPLACED_LEVEL, INTEGER_MAX);
    let mut closed = content.clone();
    for field in [Field::EventsDefault, Field::Invite] {
        if levels.level(field) < least {
            closed.insert(field.name().to_owned(), least.into());
        }
    }
    (closed != *content).then_some(closed)
}

/// Points this server's aliases of the old room to the new one, and lists that in its place. Answers with the aliases. The caller holds
/// both rooms' lanes, without which no alias of theirs is made or removed.
pub(crate) fn move_names(tx: &mut Tx, old: RoomNum, new: &RoomCtx) -> Result<Vec<String>> {
    let aliases = tx.room_aliases(old)?;
    for alias in &aliases {
        let Some(mut row) = tx.alias(alias)? else { continue };
        row.room_id = new.id.to_string();
        tx.put(&schema::ALIASES, alias, &row);
        tx.delete(&schema::ROOM_ALIASES, &(old, alias.clone()));
        tx.put(&schema::ROOM_ALIASES, &(new.num, alias.clone()), &());
    }
    if tx.has(&schema::PUBLIC_ROOMS, &old)? {
        tx.delete(&schema::PUBLIC_ROOMS, &old);
        tx.put(&schema::PUBLIC_ROOMS, &new.num, &());
    }
    Ok(aliases)
}

/// Gives a user who comes into a room that replaces another what they set for that one: tags, direct chats, push rules.
/// The old room must say that it was replaced by this one. The caller holds the user's lane.
pub(crate) fn carry_settings(tx: &mut Tx, user: UserNum, room: &RoomCtx) -> Result<()> {
    let Some((old_id, old)) = predecessor(tx, room)? else { return Ok(()) };
    if tx.user_room(user, old)?.is_none_or(|row| !row.value.ever_joined) {
        return Ok(());
    }
    if let Some(tags) = account_data::get(tx, user, Some(old), "m.tag")?
        && account_data::get(tx, user, Some(room.num), "m.tag")?.is_none()
    {
        account_data::set(tx, user, Some(room.num), "m.tag", &tags)?;
    }
    if let Some(direct) = account_data::get(tx, user, None, "m.direct")?
        && let Ok(mut direct) = serde_json::from_slice::<JsonObject>(&direct)
    {
        let mut is_direct = false;
        for rooms in direct.values_mut().filter_map(Value::as_array_mut) {
            if rooms.iter().any(|id| id == &old_id) && !rooms.iter().any(|id| id == &*room.id) {
                rooms.push((&*room.id).into());
                is_direct = true;
            }
        }
        if is_direct {
            let content = Value::Object(direct).to_string();
            account_data::set(tx, user, None, "m.direct", &content.into())?;
        }
    }
    carry_push_rule(tx, user, &old_id, &room.id)
}

/// The same for a user who came in before the old room said so, or by way of another server; nothing unless they are in the room.
pub(crate) fn carry_settings_of_member(tx: &mut Tx, user: UserNum, room_id: &str) -> Result<()> {
    let Some(room) = RoomCtx::find(tx, room_id)? else { return Ok(()) };
    match tx.membership(user, room.num)? {
        Some(Membership::Join) => carry_settings(tx, user, &room),
        _ => Ok(()),
    }
}

/// The room that a room replaces, if that says so, too.
pub(crate) fn predecessor(reader: &Reader, room: &RoomCtx) -> Result<Option<(String, RoomNum)>> {
    let named = |room: &RoomCtx, kind: &str, read: fn(&JsonObject) -> Option<&Value>| -> Result<_> {
        let Some(event) = room.state(reader, kind, "")? else { return Ok(None) };
        Ok(read(&event.pdu()?.content).and_then(Value::as_str).map(str::to_owned))
    };
    let old_id = named(room, "m.room.create", |content| content.get("predecessor")?.get("room_id"))?;
    let Some(old_id) = old_id else { return Ok(None) };
    let Some(old) = RoomCtx::find(reader, &old_id)? else { return Ok(None) };
    let successor = named(&old, TOMBSTONE, |content| content.get("replacement_room"))?;
    Ok((successor.as_deref() == Some(&*room.id)).then_some((old_id, old.num)))
}

fn carry_push_rule(tx: &mut Tx, user: UserNum, old_id: &str, new_id: &str) -> Result<()> {
    let mut rules = push_rules::ruleset(tx, user)?;
    let Some(rule) = rules.get(RuleKind::Room, old_id) else { return Ok(()) };
    let actions = rule.actions().to_vec();
    let (Ok(new_id), None) = (new_id.try_into(), rules.get(RuleKind::Room, new_id)) else { return Ok(()) };
    // A rule that cannot be copied is not worth refusing a join for.
    if rules.insert(NewPushRule::Room(NewSimplePushRule::new(new_id, actions)), None, None).is_ok() {
        push_rules::store(tx, user, rules)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(id: &str) -> &'static RoomVersion {
        RoomVersion::get(id).unwrap()
    }

    fn parse(value: Value) -> JsonObject {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn join_rules_never_become_more_open() {
        let rule = |new: &str, rule: &str| {
            let content = parse(json!({"join_rule": rule, "allow": []}));
            let content = join_rules(version(new), &content);
            let is_restricted = content.contains_key("allow");
            (content["join_rule"].as_str().unwrap().to_owned(), is_restricted)
        };
        assert_eq!(rule("12", "knock_restricted"), ("knock_restricted".into(), true));
        assert_eq!(rule("9", "knock_restricted"), ("restricted".into(), true));
        assert_eq!(rule("7", "knock_restricted"), ("knock".into(), false));
        assert_eq!(rule("7", "restricted"), ("invite".into(), false));
        assert_eq!(rule("6", "knock"), ("invite".into(), false));
        assert_eq!(rule("1", "public"), ("public".into(), false));
    }

    #[test]
    fn of_what_waits_only_what_closes_a_room_is_transferred() {
        let closes = |kind: &str, content: Value| closes(&format!("m.room.{kind}"), &parse(content));
        assert!(closes("server_acl", json!({"allow": ["*"]})));
        assert!(closes("encryption", json!({"algorithm": MEGOLM})));
        assert!(!closes("encryption", json!({"algorithm": "rot13"})), "nobody could speak");
        for (visibility, expected) in
            [("joined", true), ("invited", true), ("shared", false), ("world_readable", false)]
        {
            assert_eq!(closes("history_visibility", json!({"history_visibility": visibility})), expected);
        }
        for (kind, content) in [
            ("join_rules", json!({"join_rule": "public"})),
            ("guest_access", json!({"guest_access": "can_join"})),
            ("name", json!({"name": "burrow"})),
        ] {
            assert!(!closes(kind, content), "{kind}");
        }
    }

    #[test]
    fn levels_are_written_as_the_new_version_wants_them() {
        let old =
            parse(json!({"users": {"@a:x": "100", "not a user": 1}, "ban": " 60 ", "events": {"m.x": 2.5}}));
        let new = power_levels((version("5"), version("10")), &old, &[], &[]);
        assert_eq!(new, parse(json!({"users": {"@a:x": 100}, "ban": 60, "events": {"m.x": 2}})));
        assert!(PowerLevels::validate(version("10"), &new).is_ok());
    }

    #[test]
    fn creators_leave_and_enter_the_levels() {
        let (a, b) = ("@a:x".to_owned(), "@b:x".to_owned());
        let old = parse(json!({"users": {"@a:x": 100, "@b:x": 100}}));
        let new = power_levels((version("11"), version("12")), &old, &[], std::slice::from_ref(&a));
        assert_eq!(new, parse(json!({"users": {"@b:x": 100}, "events": {"m.room.tombstone": 150}})));
        let back = power_levels((version("12"), version("11")), &new, &[a, b], &[]);
        let expected = json!({"users": {"@a:x": 100, "@b:x": 100}, "events": {"m.room.tombstone": 100}});
        assert_eq!(back, parse(expected));
    }

    #[test]
    fn who_upgrades_is_raised_only_as_far_as_needed() {
        let low = parse(json!({"users": {"@a:x": 50}, "events": {"m.room.encryption": 100}}));
        assert_eq!(raised(version("11"), &low, "@a:x")["users"], json!({"@a:x": 100}));
        assert_eq!(raised(version("12"), &low, "@a:x"), low);
        let high = parse(json!({"users": {"@a:x": 50}}));
        assert_eq!(raised(version("11"), &high, "@a:x"), high);
    }

    #[test]
    fn a_replaced_room_is_closed() {
        let open = parse(json!({"users_default": 60, "invite": 100}));
        let closed_content = closed(version("11"), &open).unwrap();
        assert_eq!(closed_content, parse(json!({"users_default": 60, "invite": 100, "events_default": 61})));
        assert_eq!(closed(version("11"), &closed_content), None);
    }
}
