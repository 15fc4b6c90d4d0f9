//! What another server sends: the generator is that server, and sends one transaction after the other, each full of signed
//! events of one room. With Warren alone an event counts when its transaction is answered, which is when it is on disk. Synapse
//! answers before it has looked at most of them; beside it an event counts when a user can see it, on either server.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};

use super::origin::{Frontier, Origin, PDUS, Transaction};
use super::{STORE, start};
use crate::certificates::Certificates;
use crate::context::{Figure, Several};
use crate::error::{Error, Result};
use crate::matrix::{EncodedRoom, Session, encoded};
use crate::measures::receive::{Host, Writes, version};
use crate::peers::{Federation, Running};
use crate::{process, scan};

/// Transactions that are measured, and those before them that warm up.
const TRANSACTIONS: usize = 400;
const WARM_UP: usize = 40;
/// The same for both servers: as many as Synapse takes in tolerable time.
const TRANSACTIONS_TOGETHER: usize = 100;
const WARM_UP_TOGETHER: usize = 5;
/// How long between two looks whether an event is there: Synapse takes many times as long for a transaction, and to look costs it
/// little then.
const LOOK: Duration = Duration::from_millis(50);
/// When that is given up.
const SEEN_MAX: Duration = Duration::from_secs(60);

/// Takes `federation-inbound`.
pub async fn run(ctx: &mut Several<'_>) -> Result<()> {
    let certificates = Certificates::make(&ctx.disk)?;
    let federation = Federation::new(&certificates)?;
    let folder = ctx.folder("server")?;
    let mut origin = Origin::new(federation.name(), certificates.trust()?)?;
    let host = Host::named(&federation.name(), &folder.join("data").join(STORE), Writes::AtOnce)?;
    host.know(origin.name.clone(), origin.server_key())?;
    drop(host);
    let mut running = ctx.warren.start_reachable(&folder, Some(federation))?;
    let (mut reader, mut frontier) = entered(&running, &mut origin).await?;
    let transactions = origin.transactions(&mut frontier, WARM_UP + TRANSACTIONS)?;
    let (warm_up, measured) = transactions.split_at(WARM_UP);
    for transaction in warm_up {
        origin.send(transaction).await?;
    }
    let sending = async {
        for transaction in measured {
            origin.send(transaction).await?;
        }
        Ok::<_, Error>(())
    };
    let (taken, note) = metered(&running, sending).await?;
    seen(&mut reader, &frontier).await?;
    ctx.take(Figure::new("federation-inbound", (measured.len() * PDUS) as f64 / taken).noting(note));
    running.stop()
}

/// Takes `inbound-accepted` of both servers, one after the other. Neither knows the key before.
pub async fn run_together(ctx: &mut Several<'_>) -> Result<()> {
    let certificates = Certificates::make(&ctx.disk)?;
    for peer in [Some(ctx.warren), ctx.synapse].into_iter().flatten() {
        let federation = Federation::new(&certificates)?;
        let mut origin = Origin::new(federation.name(), certificates.trust()?)?;
        let serving = origin.publish(&certificates).await?;
        let mut running = start(ctx, peer, "receiver", &federation)?;
        let figure = accepted(&running, &mut origin).await?;
        ctx.take_of(peer, figure);
        running.stop()?;
        drop(serving);
    }
    Ok(())
}

/// A room on the server, which the origin has joined.
async fn entered(running: &Running, origin: &mut Origin) -> Result<(Session, Frontier)> {
    let mut reader =
        running.homeserver()?.sessions("reader", 1).await?.pop().ok_or(Error::Needs("an account"))?;
    let room_id = reader.create_room_of(version()?.id).await?;
    let frontier = origin.join(&mut reader, room_id).await?;
    Ok((reader, frontier))
}

/// How many seconds something takes, and what of the processors' time the server and the generator use meanwhile.
async fn metered(running: &Running, sending: impl Future<Output = Result<()>>) -> Result<(f64, String)> {
    let (server, own) = (process::cpu(running.pid())?, process::own_cpu()?);
    let begun = Instant::now();
    sending.await?;
    let taken = begun.elapsed().as_secs_f64();
    let note = format!(
        "of {taken:.1} s the server used {:.1} s of the processors, the generator {:.1} s",
        process::cpu(running.pid())?.saturating_sub(server).as_secs_f64(),
        process::own_cpu()?.saturating_sub(own).as_secs_f64(),
    );
    Ok((taken, note))
}

/// Events per second from the first transaction until a user can see the last event of the last.
async fn accepted(running: &Running, origin: &mut Origin) -> Result<Figure> {
    let (mut reader, mut frontier) = entered(running, origin).await?;
    let transactions = origin.transactions(&mut frontier, WARM_UP_TOGETHER + TRANSACTIONS_TOGETHER)?;
    let (warm_up, measured) = transactions.split_at(WARM_UP_TOGETHER);
    for transaction in warm_up {
        deliver(origin, &mut reader, &frontier.room_id, transaction).await?;
    }
    let delivering = async {
        for transaction in measured {
            deliver(origin, &mut reader, &frontier.room_id, transaction).await?;
        }
        Ok::<_, Error>(())
    };
    let (taken, note) = metered(running, delivering).await?;
    seen(&mut reader, &frontier).await?;
    Ok(Figure::new("inbound-accepted", (measured.len() * PDUS) as f64 / taken).noting(note))
}

/// Sends a transaction and waits until its last event is there, so that the next finds nothing waiting: of a hundred events that
/// wait, Synapse forgets all but the last, and asks for them again. Each event follows the one before it and nobody gives out
/// one that was lost, so that where the last is there all are.
async fn deliver(
    origin: &mut Origin,
    reader: &mut Session,
    room_id: &str,
    transaction: &Transaction,
) -> Result<()> {
    origin.send(transaction).await?;
    let room = EncodedRoom::new(room_id);
    let path = format!("/_matrix/client/v3/rooms/{}/event/{}", room.as_str(), encoded(&transaction.last));
    let begun = Instant::now();
    while begun.elapsed() < SEEN_MAX {
        match reader.request(Method::GET, &path, Bytes::new()).await {
            Err(Error::Refused { status: StatusCode::NOT_FOUND, .. }) => tokio::time::sleep(LOOK).await,
            answered => return answered.map(drop),
        }
    }
    Err(Error::Implausible(format!("an event is not there after {} s", SEEN_MAX.as_secs())))
}

/// The last event must be the last that a user of the server sees.
async fn seen(reader: &mut Session, frontier: &Frontier) -> Result<()> {
    let room = EncodedRoom::new(&frontier.room_id);
    let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=1", room.as_str());
    let page = reader.request(Method::GET, &path, Bytes::new()).await?;
    match scan::find(&page, frontier.last.as_bytes()) {
        Some(_) => Ok(()),
        None => Err(Error::Implausible("the last event was not accepted".to_owned())),
    }
}
