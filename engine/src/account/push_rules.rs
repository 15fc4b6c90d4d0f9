//! A user's push rules: stored once they differ from the server's defaults, compiled once for as long as they stay.
//!
//! Invariant: what is stored, as the account data `m.push_rules`, compiles. Users who never changed their rules share one
//! compiled set and have no row.
//! Not here: what rules mean (`core::push_rules`).

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ruma_common::{
    OwnedRoomId, OwnedUserId, UserId,
    push::{AnyPushRuleRef, ConditionalPushRule, PatternedPushRule, Ruleset, SimplePushRule},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};

use crate::{
    account::account_data,
    core::{num::UserNum, push_rules::CompiledRules},
    error::{Invalid, Result},
    store::{Cache, Reader, StorageError, Tx},
};

/// The type of the account data that shows a user their push rules.
pub const ACCOUNT_DATA_TYPE: &str = "m.push_rules";

/// How many bytes compiled rules may take together: rules of their own for some thousand active users.
const COMPILED_BYTES_MAX: usize = 8 << 20;
/// The most bytes of a user's rules: room for as many rules as there may be with an id, a pattern and a sound each.
const RULESET_BYTES_MAX: usize = 512 << 10;
/// What one user's entry costs besides the rules; those who share the default rules cost only this.
const ENTRY_BYTES: usize = 128;
/// What compiled rules cost for each byte of their JSON, about.
const COMPILED_BYTES_PER_BYTE: usize = 2;

/// The content of `m.push_rules`, whose rules are read one by one: what one of them nests deeply is nested deeper here.
#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    global: Kinds<'a>,
}

/// The rules of each kind.
#[derive(Deserialize)]
struct Kinds<'a> {
    #[serde(borrow, default, rename = "override")]
    override_: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    content: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    room: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    sender: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    underride: Vec<&'a RawValue>,
}

/// Compiled rules by user.
pub(crate) struct Memo {
    users: Cache<UserNum, Known>,
    default: OnceLock<Arc<CompiledRules>>,
}

struct Known {
    source: Option<Bytes>,
    rules: Arc<CompiledRules>,
}

impl Default for Memo {
    fn default() -> Self {
        Self { users: Cache::new(COMPILED_BYTES_MAX), default: OnceLock::new() }
    }
}

fn parse_user_id(user_id: &str) -> Result<&UserId, StorageError> {
    user_id.try_into().map_err(|_| StorageError::Corrupt(format!("{user_id} is not a user id")))
}

fn corrupt(user_id: &str, error: impl std::fmt::Display) -> StorageError {
    StorageError::Corrupt(format!("the push rules of {user_id} cannot be read: {error}"))
}

fn parse(source: &Bytes, user_id: &str) -> Result<Ruleset, StorageError> {
    let content: Content<'_> = serde_json::from_slice(source).map_err(|error| corrupt(user_id, error))?;
    let kinds = content.global;
    let mut ruleset = Ruleset::new();
    ruleset.override_.extend(readable::<ConditionalPushRule>(kinds.override_, user_id));
    ruleset.content.extend(readable::<PatternedPushRule>(kinds.content, user_id));
    ruleset.room.extend(readable::<SimplePushRule<OwnedRoomId>>(kinds.room, user_id));
    ruleset.sender.extend(readable::<SimplePushRule<OwnedUserId>>(kinds.sender, user_id));
    ruleset.underride.extend(readable::<ConditionalPushRule>(kinds.underride, user_id));
    // The defaults may be others than when the row was written.
    ruleset.update_with_server_default(Ruleset::server_default(parse_user_id(user_id)?));
    Ok(ruleset)
}

/// The rules that can be read. Of another, whoever stored it, the log tells: the user is not to lose all for it.
fn readable<T: DeserializeOwned>(rules: Vec<&RawValue>, user_id: &str) -> impl Iterator<Item = T> {
    rules.into_iter().filter_map(move |rule| {
        let read = serde_json::from_str(rule.get());
        read.inspect_err(|error| tracing::warn!(user_id, %error, "a push rule is passed over")).ok()
    })
}

fn stored(reader: &Reader, user: UserNum) -> Result<Option<Bytes>, StorageError> {
    account_data::get(reader, user, None, ACCOUNT_DATA_TYPE)
}

/// The user's rules, those of the server's defaults included.
pub fn ruleset(reader: &Reader, user: UserNum) -> Result<Ruleset, StorageError> {
    let user_id = reader.user_id(user)?;
    match stored(reader, user)? {
        Some(source) => parse(&source, &user_id),
        None => Ok(Ruleset::server_default(parse_user_id(&user_id)?)),
    }
}

/// The content of the user's `m.push_rules` as JSON: `{"global": {…}}`.
pub fn content(reader: &Reader, user: UserNum) -> Result<Bytes, StorageError> {
    Ok(json!({ "global": ruleset_json(&ruleset(reader, user)?) }).to_string().into())
}

/// A ruleset as clients are shown it: with all five kinds, also those without rules.
pub fn ruleset_json(ruleset: &Ruleset) -> Value {
    json!({
        "override": ruleset.override_,
        "content": ruleset.content,
        "room": ruleset.room,
        "sender": ruleset.sender,
        "underride": ruleset.underride,
    })
}

/// A rule as clients are shown it.
pub fn rule_json(rule: AnyPushRuleRef<'_>) -> Value {
    match rule {
        AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => json!(rule),
        AnyPushRuleRef::Content(rule) => json!(rule),
        AnyPushRuleRef::Room(rule) => json!(rule),
        AnyPushRuleRef::Sender(rule) => json!(rule),
        // What every kind has, for kinds that the specification may get.
        rule => json!({
            "rule_id": rule.rule_id(),
            "default": rule.is_server_default(),
            "enabled": rule.enabled(),
            "actions": rule.actions(),
        }),
    }
}

/// The user's rules, ready to be evaluated.
pub(crate) fn compiled(reader: &Reader, user: UserNum) -> Result<Arc<CompiledRules>, StorageError> {
    let memo = &reader.shared.memo.push_rules;
    let source = stored(reader, user)?;
    if let Some(known) = memo.users.get(&user)
        && known.source == source
    {
        return Ok(known.rules.clone());
    }
    let user_id = reader.user_id(user)?;
    let default = default_rules(memo, &user_id)?;
    let ruleset = match &source {
        Some(source) => parse(source, &user_id)?,
        None => Ruleset::server_default(parse_user_id(&user_id)?),
    };
    let rules = CompiledRules::compile_shared(&ruleset, &user_id, &default)
        .map_err(|error| corrupt(&user_id, error))?;
    let weight = ENTRY_BYTES + COMPILED_BYTES_PER_BYTE * source.as_ref().map_or(0, Bytes::len);
    memo.users.replace(user, Arc::new(Known { source, rules: rules.clone() }), weight);
    Ok(rules)
}

/// The default rules as compiled for whoever asked first; most are equal to them.
fn default_rules(memo: &Memo, user_id: &str) -> Result<Arc<CompiledRules>, StorageError> {
    if let Some(rules) = memo.default.get() {
        return Ok(rules.clone());
    }
    let ruleset = Ruleset::server_default(parse_user_id(user_id)?);
    let rules = CompiledRules::compile(&ruleset, user_id).map_err(|error| corrupt(user_id, error))?;
    Ok(memo.default.get_or_init(|| Arc::new(rules)).clone())
}

/// Stores the user's rules and tells their devices.
///
/// Errors: [`Invalid::PushRules`] for rules over the limits of [`crate::core::push_rules`], [`Invalid::TooLarge`].
pub(crate) fn store(tx: &mut Tx, user: UserNum, ruleset: Ruleset) -> Result<()> {
    let user_id = tx.user_id(user)?;
    CompiledRules::compile(&ruleset, &user_id).map_err(Invalid::PushRules)?;
    let content = json!({ "global": ruleset_json(&ruleset) }).to_string();
    if content.len() > RULESET_BYTES_MAX {
        return Err(Invalid::TooLarge { what: "bytes of push rules", max: RULESET_BYTES_MAX }.into());
    }
    Ok(account_data::set(tx, user, None, ACCOUNT_DATA_TYPE, &content.into())?)
}
