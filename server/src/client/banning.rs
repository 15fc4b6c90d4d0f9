//! `banning.yaml`: shutting users out of a room, and letting them in again.

use warren_engine::command::MembershipAction;

use super::membership::change_of_other;
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/rooms/{roomId}/ban"   ["r0"] Required Write Json ban;
    POST "/_matrix/client/v3/rooms/{roomId}/unban" ["r0"] Required Write Json unban;
}

async fn ban(call: Call) -> Outcome {
    call.refuse_suspended()?;
    change_of_other(&call, MembershipAction::Ban).await?;
    Ok(Answer::empty())
}

async fn unban(call: Call) -> Outcome {
    call.refuse_suspended()?;
    change_of_other(&call, MembershipAction::Unban).await?;
    Ok(Answer::empty())
}
