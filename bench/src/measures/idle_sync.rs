//! A sync that finds nothing new, of a user in ten rooms and of one in ten thousand.
//!
//! What it costs the engine is what it takes longer than a request that only checks the token. The three requests take
//! turns on connections of the same kind, so that whatever else the machine does falls on all alike.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;

use super::initial_sync::user_with_rooms;
use crate::context::{Context, Figure};
use crate::error::Result;
use crate::histogram::{Histogram, milliseconds};
use crate::matrix::sync_path;

/// Rooms of the user with few.
const FEW: u64 = 10;
/// Rooms of the user with many.
const MANY: u64 = 10_000;
/// Turns that warm up.
const WARM_UP: u64 = 200;
/// Turns that count.
const TURNS_MAX: u64 = 5_000;
/// A difference below this cannot be told from noise.
const RESOLUTION: Duration = Duration::from_micros(2);

/// Takes the measures of idle syncs.
pub async fn run(ctx: &mut Context) -> Result<()> {
    let mut few = user_with_rooms(ctx, FEW, 0).await?;
    let mut many = user_with_rooms(ctx, MANY, 0).await?;
    let mut nothing = ctx.homeserver.session(few.account.clone());
    ctx.quiet(0).await?;
    let few_path = sync_path(&few.position().await?, 0);
    let many_path = sync_path(&many.position().await?, 0);
    let turns = [
        (&mut nothing, "/_matrix/client/v3/account/whoami"),
        (&mut few, few_path.as_str()),
        (&mut many, many_path.as_str()),
    ];
    let mut turns = turns.map(|(session, path)| (session, path, Histogram::default()));
    let begun = Instant::now();
    for turn in 0..WARM_UP + TURNS_MAX {
        if begun.elapsed() > ctx.time * 4 {
            break;
        }
        for (session, path, latencies) in &mut turns {
            let asked = Instant::now();
            session.request(Method::GET, path, Bytes::new()).await?;
            if turn >= WARM_UP {
                latencies.record(asked.elapsed());
            }
        }
    }
    let [nothing, few, many] = turns.map(|(_, _, latencies)| latencies);
    let base = nothing.percentile(0.5);
    let above = |latencies: &Histogram| latencies.percentile(0.5).saturating_sub(base).max(RESOLUTION);
    let (few_cost, many_cost) = (above(&few), above(&many));
    let note = format!(
        "p50 {:.3} ms with {MANY} rooms, {:.3} ms with {FEW}, {:.3} ms for whoami",
        milliseconds(many.percentile(0.5)),
        milliseconds(few.percentile(0.5)),
        milliseconds(base),
    );
    let figure = Figure::new("idle-sync", milliseconds(many_cost)).noting(note);
    ctx.take(Figure { latencies: Some(many.summary()), ..figure });
    ctx.take(Figure::new("idle-sync-ratio", many_cost.as_secs_f64() / few_cost.as_secs_f64()));
    Ok(())
}
