//! A local user creates a room: all its first events, alias, directory entry and invitations in one batch.
//!
//! Specification: client-server API, `POST /createRoom`.

use crate::{
    account::invite_permission::check_invitable,
    command::{Command, Lanes},
    core::{event::JsonObject, version::RoomVersion},
    error::{Error, Invalid, Result},
    room::{
        NewEvent, Preset, RoomCtx, alias, append, create, membership,
        presets::{self, one},
        sending,
    },
    store::{Tx, schema, schema::Membership},
};

/// What the room is to be.
#[derive(Clone, Debug)]
pub struct CreateRoom {
    /// Who creates it.
    pub creator: String,
    /// The room version's id.
    pub version: String,
    /// Default states.
    pub preset: Preset,
    /// Whether it is listed in the directory.
    pub is_listed: bool,
    /// More for `m.room.create`; `creator` and `room_version` are overwritten.
    pub creation_content: JsonObject,
    /// State events, which win over the preset's.
    pub initial_state: Vec<InitialState>,
    /// What is to replace members of the default power levels.
    pub power_level_content_override: JsonObject,
    /// `m.room.name`.
    pub name: Option<String>,
    /// `m.room.topic`, as plain text.
    pub topic: Option<String>,
    /// The localpart of an alias to make.
    pub alias_localpart: Option<String>,
    /// Who is invited. Users of other servers get the power that the preset gives to who is invited; their servers have to
    /// sign their invites, which follow ([`crate::view::federation::MakeInvite`]).
    pub invite: Vec<String>,
    /// Whether the invitations are to a direct chat.
    pub is_direct: bool,
}

impl CreateRoom {
    /// A private room of that version with nothing in it but its creator.
    pub fn new(creator: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            creator: creator.into(),
            version: version.into(),
            preset: Preset::PrivateChat,
            is_listed: false,
            creation_content: JsonObject::new(),
            initial_state: Vec::new(),
            power_level_content_override: JsonObject::new(),
            name: None,
            topic: None,
            alias_localpart: None,
            invite: Vec::new(),
            is_direct: false,
        }
    }
}

/// One state event of `initial_state`.
#[derive(Clone, Debug)]
pub struct InitialState {
    /// Its type.
    pub kind: String,
    /// Its state key.
    pub state_key: String,
    /// Its content.
    pub content: JsonObject,
}

impl Command for CreateRoom {
    /// The room's id.
    type Output = String;

    fn lanes(&self) -> Lanes {
        // The room is nobody else's before it is there. The creator's lane keeps the ids of version 12 apart, which
        // are made of nothing but the create event.
        let lanes = Lanes::default().user(&self.creator);
        match &self.alias_localpart {
            Some(localpart) => lanes.name(localpart),
            None => lanes,
        }
    }

    fn run(&self, tx: &mut Tx) -> Result<String> {
        let version = RoomVersion::get(&self.version)
            .ok_or_else(|| Error::from(Invalid::RoomVersion(self.version.clone())))?;
        for user_id in &self.invite {
            membership::check_user_id("invite", user_id)?;
        }
        let mut work = Work::begin(self, tx, version).map_err(bad_state)?;
        work.enter(tx).map_err(bad_state)?;
        if let Some(localpart) = &self.alias_localpart {
            work.add_alias(tx, localpart)?;
        }
        work.set_state(tx).map_err(bad_state)?;
        work.invite(tx).map_err(bad_state)?;
        if self.is_listed {
            tx.put(&schema::PUBLIC_ROOMS, &work.room.num, &());
        }
        work.room.save(tx);
        Ok(work.room.id.to_string())
    }
}

/// What the room's own rules refuse was asked for by the request, so that it is the request that is wrong.
fn bad_state(error: Error) -> Error {
    match error {
        Error::Denied(denied @ crate::error::Denied::Rule { .. }) => {
            Invalid::RoomState(denied.to_string()).into()
        }
        Error::Invalid(invalid @ (Invalid::Content { .. } | Invalid::DeniesThisServer)) => {
            Invalid::RoomState(invalid.to_string()).into()
        }
        other => other,
    }
}

/// A room in the making.
struct Work<'a> {
    request: &'a CreateRoom,
    now_ms: u64,
    room: RoomCtx,
}

impl<'a> Work<'a> {
    /// The create event.
    fn begin(request: &'a CreateRoom, tx: &mut Tx, version: &'static RoomVersion) -> Result<Self> {
        let now_ms = tx.shared.clock.now_ms();
        let content = create_content(request, version);
        let (room, event) = create(tx, version, new_event(request, now_ms, "m.room.create", "", content))?;
        Ok(Self { request, now_ms: event.header.origin_server_ts, room })
    }

    fn send(&mut self, tx: &mut Tx, kind: &str, state_key: &str, content: JsonObject) -> Result<()> {
        append(tx, &mut self.room, new_event(self.request, self.now_ms, kind, state_key, content))?;
        Ok(())
    }

    /// The creator's membership and the power levels.
    fn enter(&mut self, tx: &mut Tx) -> Result<()> {
        let request = self.request;
        let content = membership::content(tx, &request.creator, Membership::Join, None)?;
        self.send(tx, "m.room.member", &request.creator, content)?;
        if let Some(given) = self.initial("m.room.power_levels") {
            return self.send(tx, "m.room.power_levels", "", given.content.clone());
        }
        let trusted: &[String] = match request.preset {
            Preset::TrustedPrivateChat => &request.invite,
            Preset::PrivateChat | Preset::PublicChat => &[],
        };
        let mut levels = presets::power_levels(self.room.version, request.preset, &request.creator, trusted);
        levels.extend(request.power_level_content_override.clone());
        self.send(tx, "m.room.power_levels", "", levels)
    }

    fn add_alias(&mut self, tx: &mut Tx, localpart: &str) -> Result<()> {
        if localpart.contains(':') {
            let why = format!("`{localpart}` has a colon; only the part before it is to be given");
            return Err(Invalid::Identifier { what: "room_alias_name", why }.into());
        }
        let name = format!("#{localpart}:{}", tx.shared.server_name);
        let creator = tx.intern_user(&self.request.creator)?;
        alias::add(tx, &name, &self.room.id, creator)?;
        self.send(tx, "m.room.canonical_alias", "", one("alias", name)).map_err(bad_state)
    }

    /// The initial state that the request gives under an empty state key.
    fn initial(&self, kind: &str) -> Option<&'a InitialState> {
        self.request.initial_state.iter().find(|event| event.kind == kind && event.state_key.is_empty())
    }

    /// The preset's state, the initial state, name and topic; of two for the same entry, only the one that wins.
    fn set_state(&mut self, tx: &mut Tx) -> Result<()> {
        let request = self.request;
        for (kind, content) in request.preset.state() {
            if self.initial(kind).is_none() {
                self.send(tx, kind, "", content)?;
            }
        }
        for InitialState { kind, state_key, content } in &request.initial_state {
            let is_sent_elsewhere = match kind.as_str() {
                "m.room.create" => {
                    return Err(Invalid::RoomState("initial_state has a create event".into()).into());
                }
                "m.room.power_levels" => true,
                "m.room.name" => request.name.is_some(),
                "m.room.topic" => request.topic.is_some(),
                "m.room.server_acl" if state_key.is_empty() => {
                    sending::check_access_list(tx, content)?;
                    false
                }
                "m.room.canonical_alias" => {
                    // Another server cannot have given a name to a room that is not there yet.
                    sending::check_aliases(tx, &self.room, state_key, content, &[])?;
                    false
                }
                _ => false,
            };
            if !(is_sent_elsewhere && state_key.is_empty()) {
                self.send(tx, kind, state_key, content.clone())?;
            }
        }
        if let Some(name) = &request.name {
            self.send(tx, "m.room.name", "", one("name", name.as_str()))?;
        }
        if let Some(topic) = &request.topic {
            self.send(tx, "m.room.topic", "", presets::topic(topic))?;
        }
        Ok(())
    }

    fn invite(&mut self, tx: &mut Tx) -> Result<()> {
        for (index, user_id) in self.request.invite.iter().enumerate() {
            let is_repeated = self.request.invite.iter().take(index).any(|earlier| earlier == user_id);
            let is_remote = membership::check_local(tx, user_id).is_err();
            if *user_id == self.request.creator || is_repeated || is_remote {
                continue;
            }
            check_invitable(tx, user_id)?;
            let mut content = membership::content(tx, user_id, Membership::Invite, None)?;
            if self.request.is_direct {
                content.insert("is_direct".to_owned(), true.into());
            }
            self.send(tx, "m.room.member", user_id, content)?;
        }
        Ok(())
    }
}

fn new_event<'e>(
    request: &'e CreateRoom,
    now_ms: u64,
    kind: &'e str,
    state_key: &'e str,
    content: JsonObject,
) -> NewEvent<'e> {
    NewEvent {
        sender: &request.creator,
        kind,
        state_key: Some(state_key),
        content,
        redacts: None,
        origin_server_ts: now_ms,
        transaction: None,
    }
}

/// The content of the create event.
fn create_content(request: &CreateRoom, version: &RoomVersion) -> JsonObject {
    let mut content = request.creation_content.clone();
    content.insert("room_version".to_owned(), version.id.into());
    match version.creator_in_content {
        true => content.insert("creator".to_owned(), request.creator.as_str().into()),
        false => content.remove("creator"),
    };
    if version.privileged_creators && request.preset == Preset::TrustedPrivateChat {
        let mut creators = match content.remove("additional_creators") {
            None => Vec::new(),
            Some(serde_json::Value::Array(creators)) => creators,
            // Left as it is for the room's rules to refuse.
            Some(other) => vec![other],
        };
        for user_id in request.invite.iter().filter(|user_id| **user_id != request.creator) {
            if !creators.iter().any(|creator| creator == user_id) {
                creators.push(user_id.as_str().into());
            }
        }
        if !creators.is_empty() {
            content.insert("additional_creators".to_owned(), creators.into());
        }
    }
    content
}

#[cfg(test)]
mod tests;
