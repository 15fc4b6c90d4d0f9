//! `space_hierarchy.yaml`: a space, the rooms in it, and those in the spaces in it.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use warren_engine::SpaceRoom;
use warren_engine::hierarchy::{DEPTH_MAX, Walk};

use crate::federation::out::hierarchy;
use crate::http::limits::{
    HIERARCHY_TOKEN_TIME, HIERARCHY_WALKS_BYTES_MAX, HIERARCHY_WALKS_BYTES_OF_USER_MAX,
};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v1/rooms/{roomId}/hierarchy" ["unstable/org.matrix.msc2946"] Required Read Nothing get_space_hierarchy;
}

#[derive(Serialize)]
struct Rooms<'a> {
    rooms: &'a [Arc<SpaceRoom>],
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

/// How many rooms a page has where the request does not say, and at most: other servers give no more either.
const LIMIT_MAX: u64 = 50;

/// What must not change from page to page.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    user_id: String,
    room_id: String,
    suggested_only: bool,
    max_depth: u64,
}

/// A walk that can be gone on with.
struct Kept {
    token: String,
    until: Instant,
    asked: Asked,
    walk: Walk,
    /// The bytes that the walk takes.
    size: usize,
}

/// Walks that wait for their next page. A token stays good after it was used, for who asks again because an answer was lost.
#[derive(Default)]
pub struct Walks(Mutex<VecDeque<Kept>>);

impl Walks {
    /// Keeps a walk under a token, and forgets the oldest ones when they are too many: of the same user first.
    fn keep(&self, token: String, asked: Asked, walk: Walk) {
        let mut kept = self.0.lock();
        let now = Instant::now();
        kept.retain(|other| other.until > now);
        let size = walk.size();
        let is_of_user = |other: &Kept| other.asked.user_id == asked.user_id;
        forget(&mut kept, size, HIERARCHY_WALKS_BYTES_OF_USER_MAX, is_of_user);
        forget(&mut kept, size, HIERARCHY_WALKS_BYTES_MAX, |_| true);
        kept.push_back(Kept { token, until: now + HIERARCHY_TOKEN_TIME, asked, walk, size });
    }

    /// Errors: 400 for a token that is not known any more, or was given for another request.
    fn take_up(&self, token: &str, asked: &Asked) -> Result<Walk, ApiError> {
        let kept = self.0.lock();
        let now = Instant::now();
        let found = kept
            .iter()
            .find(|kept| kept.token == token && kept.asked.user_id == asked.user_id && kept.until > now);
        let found = found.ok_or_else(|| {
            ApiError::invalid_param("The token `from` is not known; it may be too old, so begin again")
        })?;
        if found.asked != *asked {
            return Err(ApiError::invalid_param(
                "The room, suggested_only and max_depth cannot change from page to page",
            ));
        }
        Ok(found.walk.clone())
    }
}

/// Forgets the oldest of some walks until one more of this size has room among them.
fn forget(kept: &mut VecDeque<Kept>, size: usize, size_max: usize, is_one: impl Fn(&Kept) -> bool) {
    let sum: usize = kept.iter().filter(|kept| is_one(kept)).map(|kept| kept.size).sum();
    let mut excess = (sum + size).saturating_sub(size_max);
    kept.retain(|kept| {
        let goes = excess > 0 && is_one(kept);
        if goes {
            excess = excess.saturating_sub(kept.size);
        }
        !goes
    });
}

async fn get_space_hierarchy(call: Call) -> Outcome {
    let limit = call.query_u64("limit")?.unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
    if limit == 0 {
        return Err(ApiError::invalid_param("Query parameter limit must be greater than zero"));
    }
    let depth_max = DEPTH_MAX as u64;
    let asked = Asked {
        user_id: call.user()?.to_string(),
        room_id: call.path("roomId")?.into_owned(),
        suggested_only: call.query_bool("suggested_only", false)?,
        max_depth: call.query_u64("max_depth")?.unwrap_or(depth_max).min(depth_max),
    };
    let from = call.query("from")?;
    let walks = &call.ctx.space_walks;
    let mut walk = match &from {
        Some(token) => walks.take_up(token, &asked)?,
        None => {
            let Asked { user_id, room_id, suggested_only, max_depth } = &asked;
            Walk::new(&call.ctx.engine, room_id, user_id, *suggested_only, *max_depth as usize)?
        }
    };
    let page = hierarchy::page(&call.ctx, &asked.user_id, &mut walk, limit as usize).await?;
    if from.is_none() && page.is_last && page.rooms.is_empty() {
        return Err(ApiError::forbidden("You cannot see this room, or nobody who is in it can be reached"));
    }
    let next_batch = (!page.is_last).then(|| call.ctx.random_text());
    if let Some(token) = &next_batch {
        walks.keep(token.clone(), asked, walk);
    }
    Answer::json(&Rooms { rooms: &page.rooms, next_batch })
}
