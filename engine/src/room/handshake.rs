//! Joining, knocking and leaving by way of another server: templates given out and filled in, and what is submitted.
//!
//! Invariant: nothing of another server's template is signed but the events that it says ours follows and is allowed by,
//! the depth, and in a join the user who vouches for it; whatever else it says must be what was asked for, or is left out.
//! As a resident, this server adds its signature only to a join that its own user vouches for.
//! Specification: server-server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms".

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Event, RoomCtx, membership,
    restricted_join::{AUTHORISING_USER, Admission, admission, may_vouch},
    room_version,
    servers::server_allowed,
    snapshot::SnapshotState,
};
use crate::{
    core::{
        auth,
        event::{
            EventBuilder, EventReference, Hash, JsonObject, Pdu, decode_base64, depth_max, encode_base64,
            reference_hash_of_json,
        },
        identifiers::{is_user_id, server_name},
        limits::{AUTH_EVENTS_MAX, KEY_BYTES_MAX, OWN_PREV_EVENTS_MAX, PREV_EVENTS_MAX},
        version::{EventIdFormat, RoomVersion},
    },
    error::{Denied, Error, Invalid, Result, What},
    store::{Reader, StorageError, schema::Membership},
};

/// The random part of an event id in room versions 1 and 2: over 100 bits.
pub(crate) const EVENT_LOCALPART_CHARS: usize = 18;

/// A change of a user's own membership for which their server needs another's help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Coming in.
    Join,
    /// Asking to come in.
    Knock,
    /// Going, declining an invite, or taking a knock back.
    Leave,
}

impl Handshake {
    /// What the membership becomes.
    pub fn membership(self) -> Membership {
        match self {
            Self::Join => Membership::Join,
            Self::Knock => Membership::Knock,
            Self::Leave => Membership::Leave,
        }
    }
}

/// The content that a membership event of another server's user needs, with who vouches for a join.
///
/// Errors: [`Denied::UnableToAuthoriseJoin`], [`Denied::UnableToGrantJoin`].
pub(crate) fn content(
    reader: &Reader,
    room: &RoomCtx,
    user_id: &str,
    handshake: Handshake,
) -> Result<JsonObject> {
    let mut content = JsonObject::new();
    content.insert("membership".to_owned(), handshake.membership().name().into());
    if handshake == Handshake::Join {
        match admission(reader, room, user_id)? {
            Admission::By(user) => drop(content.insert(AUTHORISING_USER.to_owned(), user.into())),
            Admission::NobodyMayVouch => return Err(Denied::UnableToGrantJoin.into()),
            Admission::CannotBeTold => return Err(Denied::UnableToAuthoriseJoin.into()),
            // The room's rules say no to a join for which nobody vouches.
            Admission::NotNeeded | Admission::Refused => {}
        }
    }
    Ok(content)
}

/// A membership event that `sender` could send now about `target`, without hashes and signatures.
///
/// Errors: [`Denied::Rule`] when the room's rules would refuse it.
pub(crate) fn template(
    reader: &Reader,
    room: &RoomCtx,
    (sender, target): (&str, &str),
    content: JsonObject,
) -> Result<JsonObject> {
    let mut ends = room.head.extremities.clone();
    ends.truncate(OWN_PREV_EVENTS_MAX);
    let nums: Vec<_> = ends.iter().map(|(num, _)| *num).collect();
    let prev_events = reader.events(&nums)?;
    let mut auth_events = Vec::new();
    let kind = "m.room.member";
    for (kind, state_key) in auth::auth_types(room.version, kind, sender, Some(target), &content) {
        auth_events.extend(room.state(reader, kind, state_key)?);
    }
    let ids = |events: &[Arc<Event>]| events.iter().map(|event| event.event_id.clone()).collect();
    let pdu = Pdu {
        event_id: "$template".into(),
        room_id: room.id.clone(),
        sender: sender.into(),
        kind: kind.into(),
        state_key: Some(target.into()),
        content,
        prev_events: ids(&prev_events),
        auth_events: ids(&auth_events),
        depth: (room.head.depth + 1).min(depth_max(room.version)),
        origin_server_ts: reader.shared.clock.now_ms(),
        redacts: None,
        json: Bytes::new(),
    };
    let state = SnapshotState { reader, room: room.num, snapshot: room.head.state, instead: &[] };
    auth::check(room.version, &pdu, &state)
        .map_err(|denied| Denied::Rule { rule: denied.rule, reason: denied.reason })?;
    let template = json!({
        "auth_events": references(room.version, &auth_events)?,
        "content": pdu.content,
        "depth": pdu.depth,
        "origin": &*reader.shared.server_name,
        "origin_server_ts": pdu.origin_server_ts,
        "prev_events": references(room.version, &prev_events)?,
        "room_id": &*pdu.room_id,
        "sender": sender,
        "state_key": target,
        "type": kind,
    });
    Ok(template.as_object().cloned().unwrap_or_default())
}

/// How events of the room version refer to others: by ids, or in versions 1 and 2 by ids with hashes.
fn references(version: &RoomVersion, events: &[Arc<Event>]) -> Result<Value, StorageError> {
    let mut references = Vec::with_capacity(events.len());
    for event in events {
        let event_id = Value::from(&*event.event_id);
        if version.event_ids != EventIdFormat::Own {
            references.push(event_id);
            continue;
        }
        let corrupt = |_| StorageError::Corrupt(format!("event {} is not JSON", event.event_id));
        let hash = reference_hash_of_json(version, &event.json).map_err(corrupt)?;
        references.push(json!([event_id, {"sha256": encode_base64(&hash)}]));
    }
    Ok(references.into())
}

/// What this server asked another one for.
pub(crate) struct Asked<'a> {
    pub room_id: &'a str,
    /// A user of this server.
    pub user_id: &'a str,
    pub handshake: Handshake,
    /// The server that was asked.
    pub resident: &'a str,
}

/// The event that a template is for, signed by this server. `content` is what our user says; the user who vouches for a join
/// is added from the template.
///
/// Errors: [`Invalid::Template`] when it is for anything else than what was asked, or for a leave of another room version than
/// what it ends; [`Invalid::RoomVersion`].
pub(crate) fn sign_template(
    reader: &Reader,
    asked: &Asked<'_>,
    room_version: Option<&str>,
    template: &JsonObject,
    mut content: JsonObject,
) -> Result<(&'static RoomVersion, Pdu)> {
    // Specification: "If not provided, the room version is assumed to be either "1" or "2"", whose events are alike.
    let id = room_version.unwrap_or("1");
    if !RoomVersion::is_id(id) {
        return Err(Invalid::Template("room_version").into());
    }
    let version = RoomVersion::get(id).ok_or_else(|| Invalid::RoomVersion(id.to_owned()))?;
    check_template(asked, template)?;
    check_known(reader, asked, version)?;
    content.remove(AUTHORISING_USER);
    if let Some(user) = vouching_user(asked, version, template)? {
        content.insert(AUTHORISING_USER.to_owned(), user.into());
    }
    let pdu = fill_in(reader, version, template, asked.room_id, (asked.user_id, asked.user_id), content)?;
    Ok((version, pdu))
}

/// An event about a membership of `target`, hashed and signed: of the template it has the references and the depth.
fn fill_in(
    reader: &Reader,
    version: &RoomVersion,
    template: &JsonObject,
    room_id: &str,
    (sender, target): (&str, &str),
    content: JsonObject,
) -> Result<Pdu> {
    let own_ids = version.event_ids == EventIdFormat::Own;
    let prev_events = read_references(version, template, ("prev_events", PREV_EVENTS_MAX))?;
    if prev_events.is_empty() {
        return Err(Invalid::Template("prev_events").into());
    }
    let builder = EventBuilder {
        room_id: Some(room_id.into()),
        sender: sender.into(),
        kind: "m.room.member".into(),
        state_key: Some(target.into()),
        content,
        redacts: None,
        prev_events,
        auth_events: read_references(version, template, ("auth_events", AUTH_EVENTS_MAX))?,
        depth: template.get("depth").and_then(Value::as_u64).ok_or(Invalid::Template("depth"))?,
        origin_server_ts: match RoomCtx::find(reader, room_id)? {
            Some(room) => membership::sent_ms(reader, &room, target)?,
            None => reader.shared.clock.now_ms(),
        },
        event_id_localpart: own_ids.then(|| reader.random_text(EVENT_LOCALPART_CHARS)),
    };
    let shared = &reader.shared;
    Ok(builder.build(version, &shared.server_name, &shared.key_pair).map_err(Invalid::Event)?)
}

/// An invite of our user for one of another server, which has to sign it before it comes into the room.
///
/// Errors: [`Denied::Rule`] when the room's rules would refuse it; [`Invalid::Event`].
pub(crate) fn invite(
    reader: &Reader,
    room: &RoomCtx,
    (sender, target): (&str, &str),
    content: JsonObject,
) -> Result<Pdu> {
    let template = template(reader, room, (sender, target), content.clone())?;
    fill_in(reader, room.version, &template, &room.id, (sender, target), content)
}

/// The checks that a server MUST make before it signs. Specification: `GET /make_join/{roomId}/{userId}`.
fn check_template(asked: &Asked<'_>, template: &JsonObject) -> Result<()> {
    let expected = [
        ("type", "m.room.member"),
        ("room_id", asked.room_id),
        ("sender", asked.user_id),
        ("state_key", asked.user_id),
    ];
    for (name, value) in expected {
        if template.get(name).and_then(Value::as_str) != Some(value) {
            return Err(Invalid::Template(name).into());
        }
    }
    let membership = template.get("content").and_then(|content| content.get("membership"));
    if membership.and_then(Value::as_str) != Some(asked.handshake.membership().name()) {
        return Err(Invalid::Template("content.membership").into());
    }
    Ok(())
}

/// A leave ends an invite or a knock that is known here with a version. As one of a version with other events it could not be
/// read beside that.
fn check_known(reader: &Reader, asked: &Asked<'_>, version: &RoomVersion) -> Result<()> {
    if asked.handshake != Handshake::Leave {
        return Ok(());
    }
    let known = match reader.open_out_of_band(asked.user_id, asked.room_id) {
        Err(Error::NotFound(_)) => return Ok(()),
        open => room_version(open?.3.version)?,
    };
    match version.has_events_of(known) {
        true => Ok(()),
        false => Err(Invalid::Template("room_version").into()),
    }
}

/// The resident's user who vouches for the join, if the template names one.
fn vouching_user<'t>(
    asked: &Asked<'_>,
    version: &RoomVersion,
    template: &'t JsonObject,
) -> Result<Option<&'t str>> {
    if asked.handshake != Handshake::Join || !version.restricted {
        return Ok(None);
    }
    let Some(user) = template.get("content").and_then(|content| content.get(AUTHORISING_USER)) else {
        return Ok(None);
    };
    let of_resident = |user: &&str| is_user_id(user) && server_name(user) == Some(asked.resident);
    let user = user.as_str().filter(of_resident);
    user.map(Some).ok_or_else(|| Invalid::Template("content.join_authorised_via_users_server").into())
}

fn read_references(
    version: &RoomVersion,
    template: &JsonObject,
    (name, references_max): (&'static str, usize),
) -> Result<Vec<EventReference>> {
    let list = template.get(name).and_then(Value::as_array).ok_or(Invalid::Template(name))?;
    // What is too large then is what our own user says.
    if list.len() > references_max {
        return Err(Invalid::Template(name).into());
    }
    let mut references = Vec::new();
    for reference in list {
        let read = match (version.event_ids, reference) {
            (EventIdFormat::Own, Value::Array(pair)) => read_pair(pair),
            (EventIdFormat::HashStandard | EventIdFormat::HashUrlSafe, Value::String(event_id)) => {
                Some(EventReference::from(Arc::<str>::from(event_id.as_str())))
            }
            _ => None,
        };
        let read = read.filter(|reference: &EventReference| reference.event_id.len() <= KEY_BYTES_MAX);
        references.push(read.ok_or(Invalid::Template(name))?);
    }
    Ok(references)
}

fn read_pair(pair: &[Value]) -> Option<EventReference> {
    let [Value::String(event_id), hashes] = pair else { return None };
    let reference_hash = match hashes.as_object()?.get("sha256") {
        Some(hash) => Some(Hash::try_from(decode_base64(hash.as_str()?)?).ok()?),
        None => None,
    };
    Some(EventReference { event_id: event_id.as_str().into(), reference_hash })
}

/// A submitted join with this server's signature, if it names a user of this server as the one who vouches for it; else as
/// it is.
///
/// Errors: [`Denied::UnableToGrantJoin`], [`Denied::UnableToAuthoriseJoin`], [`Denied::JoinConditions`]; [`Invalid::Event`].
pub(crate) fn countersign(reader: &Reader, room: &RoomCtx, pdu: Pdu) -> Result<Pdu> {
    let shared = &reader.shared;
    let user = pdu.content.get(AUTHORISING_USER).and_then(Value::as_str);
    let Some(user) = user.filter(|user| server_name(user) == Some(&*shared.server_name)) else {
        return Ok(pdu);
    };
    if !room.version.restricted {
        return Ok(pdu);
    }
    if !may_vouch(reader, room, user)? {
        return Err(Denied::UnableToGrantJoin.into());
    }
    match admission(reader, room, &pdu.sender)? {
        Admission::NotNeeded | Admission::By(_) => {}
        Admission::NobodyMayVouch => return Err(Denied::UnableToGrantJoin.into()),
        Admission::CannotBeTold => return Err(Denied::UnableToAuthoriseJoin.into()),
        Admission::Refused => return Err(Denied::JoinConditions.into()),
    }
    Ok(pdu.with_signature(room.version, &shared.server_name, &shared.key_pair).map_err(Invalid::Event)?)
}

/// Whether a submitted event is what the endpoint takes: a membership event of the room, about and by a user of the server
/// that submits it.
///
/// Errors: [`Invalid::Parameter`]. Specification: `PUT /send_join`, `/send_knock`, `/send_leave`.
pub(crate) fn check_submitted(
    pdu: &Pdu,
    room_id: &str,
    event_id: &str,
    origin: &str,
    handshake: Handshake,
) -> Result<()> {
    let checks = [
        (&*pdu.kind == "m.room.member", "it is not an m.room.member event"),
        (&*pdu.room_id == room_id, "it is of another room"),
        (&*pdu.event_id == event_id, "it has another id"),
        (pdu.membership() == Some(handshake.membership().name()), "it sets another membership"),
        (server_name(&pdu.sender) == Some(origin), "its sender is not a user of the asking server"),
        (pdu.state_key.as_deref() == Some(&*pdu.sender), "its sender is not whom it is about"),
    ];
    match checks.into_iter().find(|(holds, _)| !holds) {
        Some((_, why)) => Err(Invalid::Parameter { what: "event", why: why.to_owned() }.into()),
        None => Ok(()),
    }
}

/// The room, in which this server can help others: it takes part in it and knows all of its state.
///
/// Errors: [`What::Room`] not found; [`Denied::ServerAcl`]; [`What::State`] not found while its members are still on the way.
pub(crate) fn resident_room(reader: &Reader, room_id: &str, asking: &str) -> Result<RoomCtx> {
    let room = RoomCtx::load(reader, room_id)?;
    if !reader.is_server_in_room(&reader.shared.server_name, room.num)? {
        return Err(Error::NotFound(What::Room));
    }
    server_allowed(reader, &room, asking)?;
    // Who lacks members cannot tell whether one is banned.
    if room.head.partial_state {
        return Err(Error::NotFound(What::State));
    }
    Ok(room)
}

/// Refuses a room version that the other server does not offer.
///
/// Errors: [`Denied::IncompatibleRoomVersion`].
pub(crate) fn check_version(version: &RoomVersion, offered: &[String]) -> Result<()> {
    match offered.iter().any(|offered| offered == version.id) {
        true => Ok(()),
        false => Err(Denied::IncompatibleRoomVersion(version.id).into()),
    }
}
