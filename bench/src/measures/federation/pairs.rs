//! Warren and Synapse, each as the one that joins and as the one that has the room: joins, sends, and what comes over from
//! the other side. There are two servers of each kind, so that each kind also meets itself.

use std::time::{Duration, Instant};

use warren_bench::statistics::median;

use super::{both_quiet, start};
use crate::certificates::Certificates;
use crate::context::{Figure, Several};
use crate::error::{Error, Result};
use crate::matrix::{Account, EncodedRoom, Session, join_all, text_message};
use crate::peers::{Federation, Peer, Running};
use crate::scan;

/// Members of a room before the join: as many as Synapse can be given in tolerable time.
const MEMBERS: usize = 200;
/// Rooms that are joined by each server, one after the other, and messages each way in the last.
const ROOMS: usize = 3;
const MESSAGES: usize = 20;
/// Between two messages, so that who was answered waits again.
const PAUSE: Duration = Duration::from_millis(100);

/// A server, and what is on it.
struct Place<'a> {
    peer: &'a Peer,
    running: Running,
    members: Vec<Account>,
}

/// Milliseconds of one pair of servers.
#[derive(Default)]
struct Times {
    join: Vec<f64>,
    /// Sends of the joiner and of the resident, until they are answered.
    sends: [Vec<f64>; 2],
    /// From those to the waiting sync on the other side.
    deliveries: [Vec<f64>; 2],
}

/// Takes the measures.
pub async fn run(ctx: &mut Several<'_>) -> Result<()> {
    let certificates = Certificates::make(&ctx.disk)?;
    let mut residents = Vec::new();
    let mut joiners = Vec::new();
    for peer in [Some(ctx.warren), ctx.synapse].into_iter().flatten() {
        for (places, role, members) in [(&mut residents, "resident", MEMBERS), (&mut joiners, "joiner", 1)] {
            let folder = format!("{role}-{}", peer.name());
            let running = start(ctx, peer, &folder, &Federation::new(&certificates)?)?;
            let members = running.homeserver()?.register("member", members).await?;
            places.push(Place { peer, running, members });
        }
    }
    for resident in &residents {
        for joiner in &joiners {
            let times = pair(joiner, resident).await?;
            take(ctx, [joiner.peer, resident.peer], times);
        }
    }
    for mut place in residents.into_iter().chain(joiners) {
        place.running.stop()?;
    }
    Ok(())
}

/// A server joins rooms of another, and both send in the last.
async fn pair(joiner: &Place<'_>, resident: &Place<'_>) -> Result<Times> {
    let mut times = Times::default();
    let [mut here, mut there] = [session(joiner)?, session(resident)?];
    let via = resident.running.name();
    // Keys and connections are there then.
    let first = there.create_room_of("11").await?;
    here.join_by(&first, &via).await?;
    let mut last = first;
    for _ in 0..ROOMS {
        let room_id = there.create_room_of("11").await?;
        let others = resident.members.get(1..).unwrap_or_default();
        join_all(&resident.running.homeserver()?, others, &room_id).await?;
        both_quiet(&joiner.running, &resident.running).await?;
        let begun = Instant::now();
        here.join_by(&room_id, &via).await?;
        times.join.push(milliseconds(begun));
        last = room_id;
    }
    let room = EncodedRoom::new(&last);
    both_quiet(&joiner.running, &resident.running).await?;
    let [mut waits_here, mut waits_there] = [session(joiner)?, session(resident)?];
    for number in 0..=MESSAGES {
        let ways = [(&mut here, &mut waits_there), (&mut there, &mut waits_here)];
        for (way, (sender, waiting)) in ways.into_iter().enumerate() {
            let mark = format!("crossing-{way}-{number}.");
            let [sent, seen] = cross(sender, waiting, &room, &mark).await?;
            // The first may still wait for what a join brings along.
            if number > 0
                && let (Some(sends), Some(deliveries)) =
                    (times.sends.get_mut(way), times.deliveries.get_mut(way))
            {
                sends.push(sent);
                deliveries.push(seen);
            }
        }
    }
    Ok(times)
}

/// One message: when it was answered, and when it came to who waits.
async fn cross(
    sender: &mut Session,
    waiting: &mut Session,
    room: &EncodedRoom,
    mark: &str,
) -> Result<[f64; 2]> {
    tokio::time::sleep(PAUSE).await;
    let since = waiting.position().await?;
    let wait = async {
        let mut since = since;
        loop {
            let (news, next) = waiting.wait(&since).await?;
            if scan::find(&news, mark.as_bytes()).is_some() {
                return Ok::<_, Error>(Instant::now());
            }
            since = next;
        }
    };
    let send = async {
        // Who waits has asked by then.
        tokio::time::sleep(PAUSE).await;
        let begun = Instant::now();
        sender.send(room, text_message(mark)).await?;
        Ok::<_, Error>((begun, milliseconds(begun)))
    };
    let (seen, sent) = tokio::join!(wait, send);
    let (begun, answered) = sent?;
    Ok([answered, seen?.duration_since(begun).as_secs_f64() * 1e3])
}

fn session(place: &Place<'_>) -> Result<Session> {
    let account = place.members.first().cloned().ok_or(Error::Needs("an account"))?;
    Ok(place.running.homeserver()?.session(account))
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

/// Keeps what was taken of a pair, for both.
fn take(ctx: &mut Several<'_>, [joiner, resident]: [&Peer; 2], times: Times) {
    let [sent_here, sent_there] = times.sends;
    let [seen_there, seen_here] = times.deliveries;
    let is_warren = |peer: &Peer| matches!(peer, Peer::Warren(_));
    let as_joiner = match is_warren(resident) {
        true => ["remote-join-warren", "remote-send-warren", "remote-receive-warren"],
        false => ["remote-join-synapse", "remote-send-synapse", "remote-receive-synapse"],
    };
    let as_resident = match is_warren(joiner) {
        true => ["resident-join-warren", "resident-send-warren", "resident-receive-warren"],
        false => ["resident-join-synapse", "resident-send-synapse", "resident-receive-synapse"],
    };
    let of_joiner = as_joiner.into_iter().zip([times.join.clone(), sent_here, seen_here]);
    let of_resident = as_resident.into_iter().zip([times.join, sent_there, seen_there]);
    let figure =
        |(name, times): (&'static str, Vec<f64>)| Figure::new(name, median(times).unwrap_or(f64::NAN));
    for (peer, figures) in [(joiner, of_joiner), (resident, of_resident)] {
        for named in figures {
            ctx.take_of(peer, figure(named));
        }
    }
}
