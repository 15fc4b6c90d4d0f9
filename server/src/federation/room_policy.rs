//! `room_policy.yaml`: this server as the policy server of rooms.
//!
//! Specification: server-server API, "Policy Servers". What it goes by is moderation policy lists (`policy_lists`): users, servers and
//! rooms, and nothing of what is said.

use http::StatusCode;
use metrics::counter;
use warren_engine::core::checked::PduCheck;
use warren_engine::core::event::JsonObject;
use warren_engine::core::version::RoomVersion;
use warren_engine::view::federation::{
    AbsentPolicyLists, Opinion, PolicyOpinion, PolicyRefusal, ProtectedRoom,
};
use warren_engine::view::{CheckHistory, CheckPdus};
use warren_engine::{Error, Invalid};

use crate::context::Context;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/policy/v1/sign" [] Server Federation Json ask_policy_server_to_sign;
}

async fn ask_policy_server_to_sign(call: Call) -> Outcome {
    if call.ctx.engine.policy_key().is_none() {
        return Err(ApiError::unrecognized("This server is no policy server"));
    }
    call.json_object()?;
    let room = ProtectedRoom { event: call.body(), server: call.origin()?.as_str() };
    let version = call.ctx.engine.read(&room).map_err(unfit)?;
    check(&call, version)?;
    Answer::json(&opinion(&call.ctx, call.body())?)
}

/// Whether those have signed the event who have to, as far as their keys are here: that of who asks is. No other server is asked for its
/// keys, so that none that is gone keeps one waiting that is not. Without their signatures this server's is worth nothing.
///
/// Errors: 400 `M_BAD_JSON`.
fn check(call: &Call, version: &'static RoomVersion) -> Result<(), ApiError> {
    let check = CheckPdus { version, pdus: std::slice::from_ref(call.body()) };
    // History is asked about as well, and may name more events than those of today.
    match call.ctx.engine.read(&CheckHistory(check))?.first() {
        Some(PduCheck::Refused { error, .. }) => Err(bad_event(error)),
        _ => Ok(()),
    }
}

/// What this server says of an event as the policy server of its room, which it is known to be: its signature, as it is answered.
///
/// Errors: 400 `M_FORBIDDEN` if it does not recommend the event; 400 `M_BAD_JSON` for one that is malformed; 404 for a room that is not here.
pub fn opinion(ctx: &Context, event: &[u8]) -> Result<JsonObject, ApiError> {
    // A list that has changed is read anew, of which the largest are long, or waited for.
    let opinion = tokio::task::block_in_place(|| ctx.engine.read(&PolicyOpinion { event }));
    match opinion.map_err(unfit)? {
        Opinion::Recommended(signatures) => {
            note("recommended", "");
            Ok(signatures)
        }
        Opinion::Refused(refusal) => {
            let reason = reason(refusal);
            note("refused", reason);
            let refused = ApiError::forbidden(refusal.to_string());
            Err(refused.with_status(StatusCode::BAD_REQUEST).because(reason))
        }
    }
}

fn note(outcome: &'static str, reason: &'static str) {
    counter!("warren_policy_opinions_total", "outcome" => outcome, "reason" => reason).increment(1);
}

fn reason(refusal: PolicyRefusal) -> &'static str {
    match refusal {
        PolicyRefusal::Sender => "sender",
        PolicyRefusal::SendersServer => "senders_server",
        PolicyRefusal::Member => "member",
        PolicyRefusal::MembersServer => "members_server",
        PolicyRefusal::Room => "room",
        PolicyRefusal::NamesPolicyServer => "names_policy_server",
    }
}

/// An event for which this server has no opinion. Specification: what is malformed is `M_BAD_JSON`, also where it is too large.
fn unfit(error: Error) -> ApiError {
    match error {
        Error::Invalid(Invalid::Event(error)) => bad_event(&error),
        Error::NotFound(_) => ApiError::not_found("This server is not the policy server of that room"),
        error => error.into(),
    }
}

fn bad_event(error: &dyn std::error::Error) -> ApiError {
    ApiError::bad_json(error.to_string()).because("bad_event")
}

/// Tells the operator which lists say nothing.
pub fn warn_of_absent_lists(ctx: &Context) {
    if ctx.engine.policy_key().is_none() {
        return;
    }
    match ctx.engine.read(&AbsentPolicyLists) {
        Ok(absent) => {
            for room_id in absent {
                tracing::warn!(
                    room_id,
                    "no user of this server is in this room of policy_lists: its rules do not count"
                );
            }
        }
        Err(error) => tracing::error!(%error, "the moderation policy lists cannot be read"),
    }
}
