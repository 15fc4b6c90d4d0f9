//! What is checked of an event that a local user sends, beyond the room's authorisation rules.

use serde_json::Value;

use super::{
    Event, RoomCtx, alias,
    relations::{RelationClass, relation_of},
};
use crate::{
    core::{acl::ServerAcl, event::JsonObject, identifiers::is_event_id, power_levels::Field},
    error::{Conflict, Denied, Error, Invalid, Result, What},
    store::{Direction, Reader, schema},
};

/// Every alias that `m.room.canonical_alias` names anew must exist and point to this room. `elsewhere` are those of other
/// servers that do.
///
/// Specification: client-server API, `PUT /rooms/{roomId}/state/{eventType}/{stateKey}`.
pub(crate) fn check_aliases(
    reader: &Reader,
    room: &RoomCtx,
    state_key: &str,
    content: &JsonObject,
    elsewhere: &[String],
) -> Result<()> {
    for name in aliases_named_anew(reader, room, state_key, content)? {
        let is_here = || Ok::<_, Error>(reader.alias(name)?.is_some_and(|found| found.room_id == *room.id));
        if !elsewhere.iter().any(|known| known == name) && !is_here()? {
            return Err(Invalid::AliasTarget(name.to_owned()).into());
        }
    }
    Ok(())
}

/// The aliases that an `m.room.canonical_alias` names and the current one does not.
///
/// Errors: [`Invalid`] for what is no alias.
pub(crate) fn aliases_named_anew<'c>(
    reader: &Reader,
    room: &RoomCtx,
    state_key: &str,
    content: &'c JsonObject,
) -> Result<Vec<&'c str>> {
    let wrong = |what, why: &str| Invalid::Parameter { what, why: why.to_owned() };
    if !content.get("alias").is_none_or(|alias| alias.is_string() || alias.is_null()) {
        return Err(wrong("alias", "it must be a string").into());
    }
    let is_list =
        |others: &Value| others.as_array().is_some_and(|others| others.iter().all(Value::is_string));
    if !content.get("alt_aliases").is_none_or(|others| others.is_null() || is_list(others)) {
        return Err(wrong("alt_aliases", "it must be a list of strings").into());
    }
    let current = room.state(reader, "m.room.canonical_alias", state_key)?;
    let current = current.map(|event| event.pdu()).transpose()?;
    let is_known =
        |name: &str| current.iter().any(|current| named_aliases(&current.content).any(|known| known == name));
    let named: Vec<&str> = named_aliases(content).filter(|name| !is_known(name)).collect();
    named.iter().try_for_each(|name| alias::check(name))?;
    Ok(named)
}

/// An empty alias, like none, takes the canonical alias away.
fn named_aliases(content: &JsonObject) -> impl Iterator<Item = &str> {
    let others = content.get("alt_aliases").and_then(Value::as_array).into_iter().flatten();
    let others = others.filter_map(Value::as_str);
    let alias = content.get("alias").and_then(Value::as_str).filter(|alias| !alias.is_empty());
    alias.into_iter().chain(others)
}

/// A room's access list must let this server in: nobody else would take in what is said here, nor how that is mended.
pub(crate) fn check_access_list(reader: &Reader, content: &JsonObject) -> Result<()> {
    match ServerAcl::from_content(content).allows(&reader.shared.server_name) {
        true => Ok(()),
        false => Err(Invalid::DeniesThisServer.into()),
    }
}

/// What nobody here may redact, as on other servers: an access list that says nothing any more lets no server take part, and on
/// its create event all of a room stands.
const UNREDACTABLE: [&str; 2] = ["m.room.create", "m.room.server_acl"];

/// Only one's own events may be redacted, and those of others with the power to: also what is not here, but may be elsewhere.
///
/// Specification: client-server API, `PUT /rooms/{roomId}/redact/{eventId}/{txnId}`. The room's rules alone would let any
/// user of this server redact events of its other users.
pub(crate) fn check_redaction(reader: &Reader, room: &RoomCtx, sender: &str, redacts: &str) -> Result<()> {
    let not_found = || Error::NotFound(What::Event);
    let levels = room.power_levels(reader)?;
    let has_power =
        levels.is_some_and(|levels| levels.user_level(sender).reaches(levels.level(Field::Redact)));
    let Some(target) = reader.event_num(redacts)? else {
        return if has_power && is_event_id(redacts) { Ok(()) } else { Err(not_found()) };
    };
    let target = reader.event(target)?;
    if target.header.room != room.num {
        return Err(not_found());
    }
    if UNREDACTABLE.contains(&&*reader.text(target.header.kind)?) {
        return Err(Denied::Unredactable.into());
    }
    match has_power || *reader.user_id(target.header.sender)? == *sender {
        true => Ok(()),
        false => Err(Denied::PowerLevel.into()),
    }
}

/// What an event relates to must be able to bear it: it is in the same room, nobody annotates an event twice with the same
/// key, and no thread begins at an event that is itself in a thread.
///
/// Specification: client-server API, "Threading" (server behaviour) and "Avoiding duplicate annotations".
pub(crate) fn check_relation(
    reader: &Reader,
    room: &RoomCtx,
    sender: &str,
    kind: &str,
    content: &JsonObject,
) -> Result<()> {
    let Some((rel_type, target)) = relation_of(content) else { return Ok(()) };
    let target = reader.event_num(target)?.map(|target| reader.event(target)).transpose()?;
    if target.as_ref().is_some_and(|target| target.header.room != room.num) {
        let why = "the event that is related to is in another room".to_owned();
        return Err(Invalid::Parameter { what: "m.relates_to", why }.into());
    }
    match rel_type {
        "m.annotation" => check_annotation(reader, room, sender, kind, content),
        "m.thread" => target.map_or(Ok(()), |root| check_thread_root(&root)),
        _ => Ok(()),
    }
}

fn check_thread_root(root: &Event) -> Result<()> {
    match relation_of(&root.pdu()?.content) {
        Some(_) => Err(Invalid::ThreadRoot.into()),
        None => Ok(()),
    }
}

/// Nobody annotates an event twice with the same key.
///
/// Specification: client-server API, "Avoiding duplicate annotations".
fn check_annotation(
    reader: &Reader,
    room: &RoomCtx,
    sender: &str,
    kind: &str,
    content: &JsonObject,
) -> Result<()> {
    let Some(("m.annotation", target)) = relation_of(content) else { return Ok(()) };
    let key = annotation_key(content);
    let (Some(target), Some(sender), Some(kind), Some(rel_type)) = (
        reader.event_num(target)?,
        reader.user_num(sender)?,
        reader.text_num(kind)?,
        reader.text_num("m.annotation")?,
    ) else {
        return Ok(());
    };
    let mut own = Vec::new();
    let class = RelationClass::of("m.annotation") as u8;
    reader.scan(&schema::RELATIONS, &(room.num, class, target), Direction::Forward, |_, relation| {
        if relation.sender == sender && relation.kind == kind && relation.rel_type == rel_type {
            own.push(relation.event);
        }
        true
    })?;
    for event in reader.events(&own)? {
        if event.header.redacted_by.is_none() && annotation_key(&event.pdu()?.content) == key {
            return Err(Conflict::DuplicateAnnotation.into());
        }
    }
    Ok(())
}

fn annotation_key(content: &JsonObject) -> Option<&str> {
    content.get("m.relates_to")?.get("key")?.as_str()
}
