//! Clients keep things about their user: account data, tags, filters.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    account::{account_data, filters, users},
    command::{Command, Lanes},
    core::{filter::Filter, num::RoomNum},
    error::{Error, Invalid, Result, What},
    room::ignored::{self, IGNORED_USER_LIST},
    store::Tx,
};

/// The account data in which a room's tags are.
const TAGS: &str = "m.tag";
/// Bytes of all tags of one room; the specification limits a tag to 255 bytes, and few people have 200 of them.
const TAGS_BYTES_MAX: usize = 64 * 1024;

fn room_num(tx: &Tx, room_id: &str) -> Result<RoomNum> {
    tx.room_num(room_id)?.ok_or(Error::NotFound(What::Room))
}

/// Sets account data of one type.
///
/// Errors: [`What::User`] not found, [`What::Room`] not found; [`Invalid::Parameter`] if users are to ignore themselves.
pub struct SetAccountData {
    /// The user's id.
    pub user_id: String,
    /// The room that it is about; `None` for everywhere.
    pub room_id: Option<String>,
    /// The type.
    pub kind: String,
    /// The content: a JSON object.
    pub content: Bytes,
}

impl Command for SetAccountData {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (user, _) = users::active(tx, &self.user_id)?;
        if self.room_id.is_none() && self.kind == IGNORED_USER_LIST {
            ignored::check(&self.user_id, &self.content)?;
        }
        let room = self.room_id.as_deref().map(|room_id| room_num(tx, room_id)).transpose()?;
        Ok(account_data::set(tx, user, room, &self.kind, &self.content)?)
    }
}

/// Puts a tag on a room, or takes it off.
///
/// Errors: [`What::User`] not found, [`What::Room`] not found; [`Invalid::Parameter`] if there are too many.
pub struct SetTag {
    /// The user's id.
    pub user_id: String,
    /// The room.
    pub room_id: String,
    /// The tag.
    pub tag: String,
    /// What is kept with it: a JSON object; `None` takes the tag off.
    pub content: Option<Map<String, Value>>,
}

impl Command for SetTag {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (user, _) = users::active(tx, &self.user_id)?;
        let room = room_num(tx, &self.room_id)?;
        let stored = account_data::get(tx, user, Some(room), TAGS)?;
        let mut tags = tags_in(stored.as_ref());
        let changed = match &self.content {
            Some(content) => {
                let content = Value::Object(content.clone());
                tags.insert(self.tag.clone(), content.clone()) != Some(content)
            }
            None => tags.remove(&self.tag).is_some(),
        };
        if !changed {
            return Ok(());
        }
        let content = serde_json::json!({ "tags": tags }).to_string();
        if self.content.is_some() && content.len() > TAGS_BYTES_MAX {
            let why = format!("the tags of a room may have {TAGS_BYTES_MAX} bytes in all");
            return Err(Invalid::Parameter { what: "tag", why }.into());
        }
        Ok(account_data::set(tx, user, Some(room), TAGS, &content.into())?)
    }
}

/// The tags in the content of `m.tag`. A client may have set the content as account data, to anything. Each is read by itself, as
/// what it nests deeply is nested deeper in there.
fn tags_in(content: Option<&Bytes>) -> Map<String, Value> {
    let tags = content.and_then(|content| serde_json::from_slice::<Tags<'_>>(content).ok());
    let tags =
        tags.and_then(|content| serde_json::from_str::<BTreeMap<String, &RawValue>>(content.tags.get()).ok());
    let read =
        |(tag, content): (String, &RawValue)| Some((tag, serde_json::from_str::<Value>(content.get()).ok()?));
    tags.into_iter().flatten().filter_map(read).collect()
}

/// The content of `m.tag`.
#[derive(Deserialize)]
struct Tags<'a> {
    #[serde(borrow)]
    tags: &'a RawValue,
}

/// Stores a filter.
///
/// Errors: [`Invalid::Filter`], [`What::User`] not found.
pub struct StoreFilter {
    /// The user's id.
    pub user_id: String,
    /// The filter: a JSON object.
    pub json: Bytes,
}

impl Command for StoreFilter {
    /// The filter's id.
    type Output = String;

    fn lanes(&self) -> Lanes {
        // The same filter always gets the same row.
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<String> {
        let (user, _) = users::active(tx, &self.user_id)?;
        Filter::parse(&self.json).map_err(Invalid::Filter)?;
        Ok(filters::put(tx, user, &self.json))
    }
}
