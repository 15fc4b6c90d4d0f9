//! `kicking.yaml`: making a user leave a room.

use warren_engine::command::MembershipAction;

use super::membership::change_of_other;
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/rooms/{roomId}/kick" ["r0"] Required Write Json kick;
}

async fn kick(call: Call) -> Outcome {
    call.refuse_suspended()?;
    change_of_other(&call, MembershipAction::Kick).await?;
    Ok(Answer::empty())
}
