//! A local user replaces a room by one of another version: the new room with all that it takes over, the tombstone, the
//! aliases and the directory's entry are one batch.
//!
//! Specification: client-server API, "Room Upgrades".

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    command::{Command, Lanes},
    core::{
        event::{JsonObject, Pdu},
        identifiers::is_user_id,
        power_levels,
        version::RoomVersion,
    },
    error::{Conflict, Denied, Error, Invalid, Result},
    room::{
        Event, NewEvent, RoomCtx, append, create, membership, presets::one, sending, unchecked, upgrade,
        upgrade::TOMBSTONE,
    },
    store::{Tx, schema::Membership},
};

/// The random part of a room id before room version 12: over 100 bits.
const ROOM_LOCALPART_CHARS: usize = 18;
/// What the tombstone says to clients that do not know what it is.
const TOMBSTONE_TEXT: &str = "This room has been replaced";

/// `POST /rooms/{roomId}/upgrade`.
#[derive(Clone, Debug)]
pub struct UpgradeRoom {
    /// The room to replace.
    pub room_id: String,
    /// Who replaces it: a member who may send its tombstone.
    pub user_id: String,
    /// The new room's version.
    pub version: String,
    /// Users who are to be creators of the new room too; for versions that know such, else ignored.
    pub additional_creators: Vec<String>,
}

impl Command for UpgradeRoom {
    /// The new room's id.
    ///
    /// Errors: [`Conflict::PartialState`] while not all members are known, who may be banned.
    type Output = String;

    fn lanes(&self) -> Lanes {
        // The user's lane keeps the ids of version 12 apart, as when a room is created.
        Lanes::default().room(&self.room_id).user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<String> {
        let asked = (&*self.room_id, &*self.user_id);
        let (old, user, version) = upgrade::check_may_upgrade(tx, asked, &self.version)?;
        if old.head.partial_state {
            return Err(Conflict::PartialState.into());
        }
        let additional: &[String] = if version.privileged_creators { &self.additional_creators } else { &[] };
        for user_id in additional {
            membership::check_user_id("additional_creators", user_id)?;
        }
        let heritage = Heritage::read(tx, &old, version)?;
        let (mut old, mut new) = self.replace(tx, old, version, additional)?;
        self.furnish(tx, &old, &mut new, &heritage, additional)?;
        let aliases = upgrade::move_names(tx, old.num, &new)?;
        move_main_alias(tx, &self.user_id, (&mut old, &mut new), &aliases)?;
        if let Some(content) =
            heritage.levels.as_ref().and_then(|levels| upgrade::closed(old.version, levels))
        {
            if_allowed(send(tx, &mut old, &self.user_id, "m.room.power_levels", "", content))?;
        }
        old.save(tx);
        new.save(tx);
        upgrade::carry_settings(tx, user, &new)?;
        Ok(new.id.to_string())
    }
}

/// What the new room takes from the old one, as far as it is not the membership of anybody there.
struct Heritage {
    create: Arc<Event>,
    levels: Option<JsonObject>,
    /// State events by type, state key and content, in the order in which they are set.
    state: Vec<(String, String, JsonObject)>,
    /// Who is banned, with the reason.
    banned: BTreeMap<String, Option<Value>>,
}

impl Heritage {
    fn read(tx: &Tx, old: &RoomCtx, version: &RoomVersion) -> Result<Self> {
        let create = old.state(tx, "m.room.create", "")?.ok_or(Denied::NotInRoom)?;
        let levels = old.state(tx, "m.room.power_levels", "")?;
        let (mut state, mut waiting) = (Vec::new(), waiting_state(tx, old)?);
        for kind in upgrade::TRANSFERRED {
            let standing = old.state(tx, kind, "")?.map(|event| event.pdu()).transpose()?;
            let found = standing.map(|pdu| pdu.content.clone()).or_else(|| waiting.remove(*kind));
            let Some(mut content) = found else { continue };
            match *kind {
                "m.room.join_rules" => content = upgrade::join_rules(version, &content),
                // A room without its list would be open to whom the old one shuts out, and one with it to everybody but us.
                "m.room.server_acl" => sending::check_access_list(tx, &content)?,
                _ => {}
            }
            state.push(((*kind).to_owned(), String::new(), content));
        }
        if let (Some("m.space"), Some(kind)) =
            (create.pdu()?.content.get("type").and_then(Value::as_str), tx.text_num(upgrade::SPACE_CHILD)?)
        {
            for (_, num) in tx.state_of_kind(old.num, old.head.state, kind)? {
                let pdu = tx.event(num)?.pdu()?;
                // A child without servers to join by has been taken out of the space.
                if pdu.content.contains_key("via") {
                    let room_id = pdu.state_key.as_deref().unwrap_or_default().to_owned();
                    state.push((upgrade::SPACE_CHILD.to_owned(), room_id, pdu.content.clone()));
                }
            }
        }
        let levels = levels.map(|event| event.pdu()).transpose()?.map(|pdu| pdu.content.clone());
        Ok(Self { create, levels, state, banned: banned(tx, old)? })
    }
}

/// Who is banned, with the reason; also by a ban that waits for the keys of its sender's server. Nobody can tell yet whether it is one. But the
/// new room would never hear of it, and who was banned would come in, while whoever is banned there for nothing can be let in again by an
/// administrator. Its reason would be told in the name of who upgrades. An unban that waits so is not followed: it might be made up,
/// and would open the new room to who is banned.
fn banned(tx: &Tx, old: &RoomCtx) -> Result<BTreeMap<String, Option<Value>>> {
    let waiting = unchecked::credible_state(tx, old, |pdu| {
        let is_ban = &*pdu.kind == "m.room.member" && pdu.membership() == Some(Membership::Ban.name());
        pdu.state_key.as_deref().filter(|user_id| is_ban && is_user_id(user_id)).map(str::to_owned)
    })?;
    let mut banned: BTreeMap<String, Option<Value>> =
        waiting.into_iter().map(|user_id| (user_id, None)).collect();
    for (user, num) in tx.members(old.num, Membership::Ban)? {
        let pdu = tx.event(num)?.pdu()?;
        let reason = pdu.content.get("reason").filter(|reason| reason.is_string()).cloned();
        banned.insert(tx.user_id(user)?.to_string(), reason);
    }
    Ok(banned)
}

/// The contents, by type, of state that waits for the keys of its sender's server and is transferred where nothing stands in its place:
/// of several the deepest. A list that shuts this server out is not: anybody could keep the room from being replaced by what cannot be checked.
fn waiting_state(tx: &Tx, old: &RoomCtx) -> Result<HashMap<String, JsonObject>> {
    let mut found = unchecked::credible_state(tx, old, |pdu| {
        let is_wanted = pdu.state_key.as_deref() == Some("") && upgrade::closes(&pdu.kind, &pdu.content);
        is_wanted.then(|| (pdu.depth, pdu.kind.to_string(), pdu.content.clone()))
    })?;
    found.sort_by_key(|(depth, ..)| *depth);
    let lets_in = |kind: &str, content: &JsonObject| {
        kind != "m.room.server_acl" || sending::check_access_list(tx, content).is_ok()
    };
    let found = found.into_iter().filter(|(_, kind, content)| lets_in(kind, content));
    Ok(found.map(|(_, kind, content)| (kind, content)).collect())
}

/// What an upgrade is begun with, and goes on with when the old room's policy server has signed the tombstone, which names the
/// new room: that has to be the same one then.
struct Begun {
    /// The new room's id, where it is not made from its create event.
    room_id: String,
    /// The time of the create event and of the tombstone.
    origin_server_ts: u64,
}

impl Begun {
    fn of(tx: &Tx, old: &RoomCtx) -> Self {
        let is_tombstone = |pdu: &&Arc<Pdu>| pdu.room_id == old.id && pdu.is_state(TOMBSTONE, "");
        let tombstone = tx.signed.iter().find(is_tombstone);
        let named = tombstone.and_then(|pdu| pdu.content.get("replacement_room")?.as_str());
        Self {
            room_id: named.map_or_else(
                || format!("!{}:{}", tx.random_text(ROOM_LOCALPART_CHARS), tx.shared.server_name),
                str::to_owned,
            ),
            origin_server_ts: tombstone.map_or_else(|| tx.shared.clock.now_ms(), |pdu| pdu.origin_server_ts),
        }
    }
}

impl UpgradeRoom {
    /// The new room with nothing but its create event, and the old one's tombstone.
    fn replace(
        &self,
        tx: &mut Tx,
        mut old: RoomCtx,
        version: &'static RoomVersion,
        additional: &[String],
    ) -> Result<(RoomCtx, RoomCtx)> {
        let tombstone = |room_id: &str| {
            let content = json!({ "body": TOMBSTONE_TEXT, "replacement_room": room_id });
            content.as_object().cloned().unwrap_or_default()
        };
        let mut content = self.create_content(tx, &old, version, additional)?;
        let begun = Begun::of(tx, &old);
        if version.room_id_is_create_hash {
            // The room's id is made from this event, so that it cannot name the tombstone, which names the room.
            let mut event = new_event(tx, &self.user_id, "m.room.create", "", content);
            event.origin_server_ts = begun.origin_server_ts;
            let new = create(tx, version, event)?.0;
            self.send_tombstone(tx, &mut old, tombstone(&new.id), begun.origin_server_ts)?;
            return Ok((old, new));
        }
        let room_id = begun.room_id;
        let last = self.send_tombstone(tx, &mut old, tombstone(&room_id), begun.origin_server_ts)?;
        if let Some(Value::Object(predecessor)) = content.get_mut("predecessor") {
            predecessor.insert("event_id".to_owned(), (&*last.event_id).into());
        }
        let mut new = RoomCtx::create(tx, &room_id, version)?;
        send(tx, &mut new, &self.user_id, "m.room.create", "", content)?;
        Ok((old, new))
    }

    fn send_tombstone(
        &self,
        tx: &mut Tx,
        old: &mut RoomCtx,
        content: JsonObject,
        origin_server_ts: u64,
    ) -> Result<Arc<Event>> {
        let mut tombstone = new_event(tx, &self.user_id, TOMBSTONE, "", content);
        tombstone.origin_server_ts = origin_server_ts;
        append(tx, old, tombstone)
    }

    fn create_content(
        &self,
        tx: &Tx,
        old: &RoomCtx,
        version: &RoomVersion,
        additional: &[String],
    ) -> Result<JsonObject> {
        let create = old.state(tx, "m.room.create", "")?.ok_or(Denied::NotInRoom)?.pdu()?;
        let mut content = one("room_version", version.id);
        content.insert("predecessor".to_owned(), json!({ "room_id": &*old.id }));
        for key in ["type", "m.federate"] {
            if let Some(value) = create.content.get(key) {
                content.insert(key.to_owned(), value.clone());
            }
        }
        if version.creator_in_content {
            content.insert("creator".to_owned(), self.user_id.as_str().into());
        }
        if !additional.is_empty() {
            content.insert("additional_creators".to_owned(), additional.into());
        }
        Ok(content)
    }

    /// Sets in the new room what it takes over.
    fn furnish(
        &self,
        tx: &mut Tx,
        old: &RoomCtx,
        new: &mut RoomCtx,
        heritage: &Heritage,
        additional: &[String],
    ) -> Result<()> {
        let content = membership::content(tx, &self.user_id, Membership::Join, None)?;
        send(tx, new, &self.user_id, "m.room.member", &self.user_id, content)?;
        let mut creators = vec![self.user_id.clone()];
        creators.extend(additional.iter().cloned());
        let create = heritage.create.pdu()?;
        let old_creators: Vec<String> =
            power_levels::creators(old.version, &create).map(str::to_owned).collect();
        let levels = heritage.levels.as_ref().map(|levels| {
            upgrade::power_levels((old.version, new.version), levels, &old_creators, &creators)
        });
        let raised = levels.as_ref().map(|levels| upgrade::raised(new.version, levels, &self.user_id));
        if let Some(raised) = &raised {
            send(tx, new, &self.user_id, "m.room.power_levels", "", raised.clone())?;
        }
        for (kind, state_key, content) in &heritage.state {
            // Content that an older version let pass, such as fractions, and this one does not, stays behind.
            if_valid(send(tx, new, &self.user_id, kind, state_key, content.clone()))?;
        }
        for (user_id, reason) in &heritage.banned {
            let mut content = one("membership", Membership::Ban.name());
            content.extend(reason.clone().map(|reason| ("reason".to_owned(), reason)));
            if_allowed(if_valid(send(tx, new, &self.user_id, "m.room.member", user_id, content)))?;
        }
        match levels {
            Some(levels) if raised.as_ref() != Some(&levels) => {
                send(tx, new, &self.user_id, "m.room.power_levels", "", levels).map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// Has the rooms say which of the aliases, which have been moved, they are called by.
fn move_main_alias(
    tx: &mut Tx,
    user_id: &str,
    (old, new): (&mut RoomCtx, &mut RoomCtx),
    aliases: &[String],
) -> Result<()> {
    let Some(current) = old.state(tx, "m.room.canonical_alias", "")? else { return Ok(()) };
    let is_moved =
        |alias: &Value| alias.as_str().is_some_and(|alias| aliases.iter().any(|moved| moved == alias));
    let (mut rest, mut moved) = (current.pdu()?.content.clone(), JsonObject::new());
    if let Some(alias) = rest.get("alias").filter(|alias| is_moved(alias)).cloned() {
        rest.remove("alias");
        moved.insert("alias".to_owned(), alias);
    }
    if let Some(Value::Array(others)) = rest.get_mut("alt_aliases") {
        let (gone, stay) = std::mem::take(others).into_iter().partition::<Vec<_>, _>(is_moved);
        *others = stay;
        if !gone.is_empty() {
            moved.insert("alt_aliases".to_owned(), gone.into());
        }
    }
    if !moved.is_empty() {
        if_allowed(send(tx, old, user_id, "m.room.canonical_alias", "", rest))?;
        if_allowed(send(tx, new, user_id, "m.room.canonical_alias", "", moved))?;
    }
    Ok(())
}

fn new_event<'e>(
    tx: &Tx,
    sender: &'e str,
    kind: &'e str,
    state_key: &'e str,
    content: JsonObject,
) -> NewEvent<'e> {
    NewEvent {
        sender,
        kind,
        state_key: Some(state_key),
        content,
        redacts: None,
        origin_server_ts: tx.shared.clock.now_ms(),
        transaction: None,
    }
}

fn send(
    tx: &mut Tx,
    room: &mut RoomCtx,
    sender: &str,
    kind: &str,
    state_key: &str,
    content: JsonObject,
) -> Result<Arc<Event>> {
    let new = new_event(tx, sender, kind, state_key, content);
    append(tx, room, new)
}

/// Does without what the room's rules refuse: an event that is refused leaves nothing in the transaction.
fn if_allowed<T>(sent: Result<T>) -> Result<()> {
    match sent {
        Err(Error::Denied(Denied::Rule { .. }) | Error::Invalid(Invalid::Content { .. })) => Ok(()),
        other => other.map(drop),
    }
}

/// Does without what is malformed in the room's version.
fn if_valid<T>(sent: Result<T>) -> Result<()> {
    match sent {
        Err(Error::Invalid(Invalid::Event(_))) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests;
