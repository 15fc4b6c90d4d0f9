//! `profile.yaml`: what users show of themselves.

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_engine::account::profile::{AVATAR_URL, DISPLAY_NAME, is_shown_in_rooms};
use warren_engine::command::{LeaveProfileUnshown, SetProfileField, ShowProfile};
use warren_engine::core::identifiers;
use warren_engine::view::{Profile, ProfileField, RoomsOf, UnshownProfilesIn};
use warren_engine::{Error, Membership};

use super::membership::is_local;
use crate::context::Context;
use crate::errands::{self, Errand, Turn};
use crate::federation::out::{policy, queries};
use crate::http::limits::{AVATAR_URL_BYTES_MAX, DISPLAY_NAME_BYTES_MAX, PROFILE_KEY_BYTES_MAX};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};
use crate::worker;

endpoints! {
    GET    "/_matrix/client/v3/profile/{userId}"           ["r0", "api/v1", "v1"]                                Optional Read  Nothing get_profile;
    GET    "/_matrix/client/v3/profile/{userId}/{keyName}" ["r0", "api/v1", "v1", "unstable/uk.tcpip.msc4133"] Optional Read  Nothing get_field;
    PUT    "/_matrix/client/v3/profile/{userId}/{keyName}" ["r0", "api/v1", "v1", "unstable/uk.tcpip.msc4133"] Guest    Write Json    put_field;
    DELETE "/_matrix/client/v3/profile/{userId}/{keyName}" ["r0", "v1", "unstable/uk.tcpip.msc4133"]           Guest    Write Json    delete_field;
}

async fn get_profile(call: Call) -> Outcome {
    let user_id = user_id(&call)?;
    if !is_local(&call.ctx, &user_id) {
        return Ok(fields_answer(queries::profile(&call.ctx, &call.asker(), &user_id, None).await?));
    }
    Ok(fields_answer(call.ctx.engine.read(&Profile(&user_id))?))
}

/// An object of profile fields, whose values are JSON.
pub fn fields_answer(fields: impl IntoIterator<Item = (String, Bytes)>) -> Answer {
    let mut chunks = vec![Bytes::from_static(b"{")];
    for (index, (name, value)) in fields.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        chunks.push(format!("{comma}{}:", Value::from(name)).into());
        chunks.push(value);
    }
    chunks.push(Bytes::from_static(b"}"));
    Answer::json_chunks(chunks)
}

async fn get_field(call: Call) -> Outcome {
    let name = field_name(&call)?;
    let user_id = user_id(&call)?;
    if !is_local(&call.ctx, &user_id) {
        let found = queries::profile(&call.ctx, &call.asker(), &user_id, Some(&name)).await?;
        return match found.is_empty() {
            true => Err(ApiError::not_found("The user shows no such field")),
            false => Ok(fields_answer(found)),
        };
    }
    let value = call.ctx.engine.read(&ProfileField { user_id: &user_id, name: &name })?;
    Ok(fields_answer([(name, value)]))
}

/// The user whom the path names, of whichever server. Errors: 400 for what is no user id, before anybody is asked.
fn user_id(call: &Call) -> Result<String, ApiError> {
    let user_id = call.path("userId")?;
    match identifiers::is_user_id(&user_id) {
        true => Ok(user_id.into_owned()),
        false => Err(ApiError::invalid_param("A user id looks like @name:server")),
    }
}

async fn put_field(call: Call) -> Outcome {
    let user_id = call.own_user("userId")?.to_string();
    call.refuse_suspended()?;
    let name = field_name(&call)?;
    refuse_guests(&call, &name)?;
    call.json_content()?;
    let mut body: BTreeMap<String, &RawValue> = call.json()?;
    let value = body.remove(&name).ok_or_else(|| ApiError::missing_param(format!("{name} is missing")))?;
    let value = match name.as_str() {
        DISPLAY_NAME => shown_text(&name, value, DISPLAY_NAME_BYTES_MAX)?,
        AVATAR_URL => {
            let url = shown_text(&name, value, AVATAR_URL_BYTES_MAX)?;
            if url.as_ref().is_some_and(|url| !url.starts_with(b"\"mxc://")) {
                return Err(ApiError::invalid_param("avatar_url must be an mxc:// address"));
            }
            url
        }
        _ => Some(Bytes::copy_from_slice(value.get().as_bytes())),
    };
    set(call, user_id, name, value).await
}

async fn delete_field(call: Call) -> Outcome {
    let user_id = call.own_user("userId")?.to_string();
    call.refuse_suspended()?;
    let name = field_name(&call)?;
    refuse_guests(&call, &name)?;
    set(call, user_id, name, None).await
}

/// Refuses guests all fields but one. Specification: "Guest Access", "Client behaviour".
fn refuse_guests(call: &Call, name: &str) -> Result<(), ApiError> {
    match call.session()?.is_guest && name != DISPLAY_NAME {
        true => Err(ApiError::forbidden("Guests may change nothing of their profile but their display name")),
        false => Ok(()),
    }
}

/// The rooms are told also of what is set again: those that show it already lose nothing.
async fn set(call: Call, user_id: String, name: String, value: Option<Bytes>) -> Outcome {
    let in_rooms = is_shown_in_rooms(&name);
    let ctx = call.ctx.clone();
    let field = SetProfileField { user_id: user_id.clone(), name, value };
    worker::finish(&call.ctx, async move {
        // Before the rooms are marked, so that nobody begins with them beside this.
        let turns = if in_rooms { turns(&ctx, &user_id)? } else { Vec::new() };
        if let Err(error) = ctx.engine.write(field).await {
            turns.into_iter().filter_map(|(_, turn)| turn).for_each(Turn::give_back);
            return Err(error);
        }
        show_in_rooms(&ctx, &user_id, turns).await;
        Ok::<(), Error>(())
    })
    .await?;
    Ok(Answer::empty())
}

/// The rooms that the user is in, each with the turn at telling it of profiles unless somebody has that.
fn turns(ctx: &Arc<Context>, user_id: &str) -> Result<Vec<(String, Option<Turn>)>, Error> {
    let room_ids = ctx.engine.read(&RoomsOf { user_id, memberships: &[Membership::Join] })?;
    let with_turn = |room_id: String| {
        let turn = Turn::take(ctx, Errand::Profiles(room_id.clone()), true);
        (room_id, turn)
    };
    Ok(room_ids.into_iter().map(with_turn).collect())
}

/// Tells the user's rooms of the profile, one after the other: each is a write of its own. One that cannot be told now is told
/// later; where somebody has the turn, they may be at another user's profile. What the room does not show of others, and how
/// often that was tried, stays as it was.
async fn show_in_rooms(ctx: &Context, user_id: &str, turns: Vec<(String, Option<Turn>)>) {
    for (room_id, turn) in turns {
        if show(ctx, &room_id, user_id, false).await
            && let Some(turn) = turn
        {
            match ctx.engine.read(&UnshownProfilesIn(&room_id)) {
                Ok(unshown) if unshown.is_empty() => turn.done(),
                _ => turn.give_back(),
            }
        }
    }
}

/// Tells a room of all profiles that it is still to be told of. Answers whether that is done; at the first that has to wait the
/// others do, too.
pub async fn show_in_room(ctx: &Context, room_id: &str, is_last: bool) -> bool {
    let user_ids = match ctx.engine.read(&UnshownProfilesIn(room_id)) {
        Ok(user_ids) => user_ids,
        Err(error) => {
            tracing::warn!(room_id, %error, "it cannot be told which profiles a room does not show");
            return false;
        }
    };
    for user_id in user_ids {
        if !show(ctx, room_id, &user_id, is_last).await {
            return false;
        }
    }
    true
}

/// Tells a room of a profile. False if that has to be tried again. What is refused, and what fails the last time, is left as it
/// is, unless it is another meanwhile.
async fn show(ctx: &Context, room_id: &str, user_id: &str, is_last: bool) -> bool {
    // Of an account that is closed meanwhile there is none.
    let unshown = ctx.engine.read(&Profile(user_id)).unwrap_or_default();
    let (room_id, user_id) = (room_id.to_owned(), user_id.to_owned());
    let show = ShowProfile { room_id: room_id.clone(), user_id: user_id.clone() };
    let Err(error) = policy::write(ctx, show).await else { return true };
    tracing::debug!(room_id, user_id, error = %error.error, "a room does not show a new profile");
    if errands::may_pass(&error) && !is_last {
        return false;
    }
    let left = ctx.engine.write(LeaveProfileUnshown { room_id, user_id, unshown }).await;
    left.inspect_err(|error| tracing::warn!(%error, "it cannot be noted that a room shows an old profile"))
        .unwrap_or(false)
}

/// The name of a field. Specification: appendices, "Common Namespaced Identifier Grammar".
fn field_name(call: &Call) -> Result<String, ApiError> {
    let name = call.path("keyName")?;
    if name.len() > PROFILE_KEY_BYTES_MAX {
        return Err(ApiError::key_too_large(format!(
            "The name of a field may have {PROFILE_KEY_BYTES_MAX} bytes"
        )));
    }
    let is_namespaced = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.contains('.')
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
    match name.as_ref() {
        DISPLAY_NAME | AVATAR_URL => Ok(name.into_owned()),
        _ if is_namespaced => Ok(name.into_owned()),
        _ => Err(ApiError::invalid_param(
            "A field is displayname, avatar_url, or a namespaced name such as org.example.field",
        )),
    }
}

/// A text for people as JSON. Clients of old remove it by setting it to an empty one; null is refused, as the specification
/// allows: it is to be no other way to do that.
fn shown_text(name: &str, value: &RawValue, bytes_max: usize) -> Result<Option<Bytes>, ApiError> {
    let text: String = serde_json::from_str(value.get())
        .map_err(|_| ApiError::bad_json(format!("{name} must be a string")))?;
    if text.len() > bytes_max {
        return Err(ApiError::invalid_param(format!("{name} is longer than {bytes_max} bytes")));
    }
    Ok((!text.is_empty()).then(|| Value::from(text).to_string().into()))
}

#[cfg(test)]
mod tests {
    use warren_engine::Preset;
    use warren_engine::command::{ChangeMembership, CreateRoom, MembershipAction, Register};

    use super::*;

    async fn rename(ctx: &Context, user_id: &str, name: &str) {
        let (user_id, value) = (user_id.to_owned(), Some(Value::from(name).to_string().into()));
        ctx.engine.write(SetProfileField { user_id, name: DISPLAY_NAME.to_owned(), value }).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_shown_changes_nothing_of_when_another_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let ctx = Context::of_tests(folder.path());
        let [alice, bob] = ["alice", "bob"].map(|name| format!("@{name}:{}", ctx.engine.server_name()));
        for localpart in ["alice", "bob"] {
            let register = Register { localpart: localpart.to_owned(), ..Register::default() };
            ctx.engine.write(register).await.unwrap();
        }
        let create = CreateRoom { preset: Preset::PublicChat, ..CreateRoom::new(&alice, "11") };
        let room_id = ctx.engine.write(create).await.unwrap();
        let join = ChangeMembership {
            room_id: room_id.clone(),
            sender: bob.clone(),
            target: bob.clone(),
            action: MembershipAction::Join,
            reason: None,
            is_guest: false,
        };
        ctx.engine.write(join).await.unwrap();
        let begin = || Turn::take(&ctx, Errand::Profiles(room_id.clone()), false);
        // The room could not be told of Bob.
        rename(&ctx, &bob, "Robert").await;
        drop(begin().unwrap());
        rename(&ctx, &alice, "Alicia").await;
        show_in_rooms(&ctx, &alice, turns(&ctx, &alice).unwrap()).await;
        assert_eq!(ctx.engine.read(&UnshownProfilesIn(&room_id)).unwrap(), [bob.as_str()]);
        assert!(begin().is_none(), "it rests as before");
        show_in_rooms(&ctx, &bob, turns(&ctx, &bob).unwrap()).await;
        assert!(ctx.engine.read(&UnshownProfilesIn(&room_id)).unwrap().is_empty());
        assert!(begin().is_some(), "nothing is left that could rest");
    }
}
