//! Members that were left out of a join are fetched behind it, and again after a restart until all are here.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use warren_engine::GivenState;
use warren_engine::command::CompleteState;
use warren_engine::view::federation::{IncomingRoom, PartialRoom, PartialRooms};

use super::fetch::{follow_up, settle_receipts, whole_state};
use super::join::store;
use crate::context::Context;
use crate::http::ApiError;
use crate::worker;

/// The first pause after all servers were asked in vain, which doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(30 * 60);

/// Servers that are asked in one round.
const SERVERS_ASKED_MAX: usize = 10;

/// The rooms whose members are being fetched.
#[derive(Default)]
pub struct Completions {
    rooms: Mutex<HashSet<String>>,
    /// Wakes who waits for one of them.
    ended: Notify,
}

impl Completions {
    /// Waits while the members of a room are being fetched.
    pub async fn ended(&self, room_id: &str) {
        loop {
            let mut ended = pin!(self.ended.notified());
            // From here on nothing is missed.
            ended.as_mut().enable();
            if !self.rooms.lock().contains(room_id) {
                return;
            }
            ended.await;
        }
    }
}

/// Takes up all rooms that lack members.
pub fn take_up(ctx: &Arc<Context>) {
    match ctx.engine.read(&PartialRooms) {
        Ok(rooms) => rooms.into_iter().for_each(|room| begin(ctx, room)),
        Err(error) => tracing::warn!(%error, "it cannot be told which rooms lack members"),
    }
}

/// Begins to fetch the members of a room that was just entered without them.
pub fn start(ctx: &Arc<Context>, room_id: &str) {
    match ctx.engine.read(&PartialRooms) {
        Ok(rooms) => {
            rooms.into_iter().filter(|room| room.room_id == room_id).for_each(|room| begin(ctx, room));
        }
        Err(error) => tracing::warn!(%error, room_id, "it cannot be told whether a room lacks members"),
    }
}

fn begin(ctx: &Arc<Context>, room: PartialRoom) {
    if !ctx.federation.completions.rooms.lock().insert(room.room_id.clone()) {
        return;
    }
    let work = ctx.clone();
    worker::run(ctx, async move {
        complete(&work, &room).await;
        work.federation.completions.rooms.lock().remove(&room.room_id);
        work.federation.completions.ended.notify_waiters();
        follow_up(&work, &room.room_id);
    });
}

/// Asks until the room is whole, or this server is in it no more.
async fn complete(ctx: &Arc<Context>, room: &PartialRoom) {
    let begun = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        for server in room.servers.iter().take(SERVERS_ASKED_MAX) {
            match complete_by(ctx, room, server).await {
                Ok(members) => {
                    let seconds = begun.elapsed().as_secs_f64();
                    tracing::info!(room_id = room.room_id, server, members, seconds, "a room is whole");
                    return;
                }
                Err(error) => {
                    tracing::info!(room_id = room.room_id, server, error = %error.error, "a server does not tell a room's members");
                }
            }
        }
        let is_left = ctx
            .engine
            .read(&IncomingRoom { room_id: &room.room_id, server: ctx.engine.server_name() })
            .is_err();
        if is_left {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Makes the room whole by what one server tells. Answers with how many events its state has.
async fn complete_by(ctx: &Arc<Context>, room: &PartialRoom, server: &str) -> Result<usize, ApiError> {
    let own_name = ctx.engine.server_name();
    let version = ctx.engine.read(&IncomingRoom { room_id: &room.room_id, server: own_name })?;
    let (whole, _memory) = whole_state(ctx, server, &room.room_id, &room.join_event_id).await?;
    tracing::info!(
        room_id = room.room_id,
        server,
        events = whole.pdus.len(),
        "a room's members have come and are checked"
    );
    let state = store(ctx, &room.room_id, version, None, (whole.pdus, whole.auth_chain)).await?;
    let count = state.len();
    let given = GivenState { event_id: room.join_event_id.as_str().into(), state };
    let missing = ctx.engine.write(CompleteState { room_id: room.room_id.clone(), state: given }).await?;
    match missing.is_nothing() {
        true => {
            settle_receipts(ctx, &room.room_id).await?;
            Ok(count)
        }
        false => Err(ApiError::unknown(format!("events of the state are missing: {missing:?}"))),
    }
}
