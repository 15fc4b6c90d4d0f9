//! A client joins a large room that is on another Warren: when it can send, when the joiner knows all members, and how much
//! memory that takes.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use warren_engine::Preset;
use warren_engine::command::{ChangeMembership, CreateRoom, MembershipAction, Register};

use super::{STORE, start};
use crate::certificates::Certificates;
use crate::context::{Figure, Several};
use crate::error::{Error, Result};
use crate::matrix::{EncodedRoom, Session, text_message};
use crate::measures::receive::{Host, Writes, engine_error, version};
use crate::peers::{Federation, Running};
use crate::process;
use crate::scan;

/// Members of the room before the join.
const MEMBERS: usize = 20_000;
/// How long between two looks at the members.
const LOOK: Duration = Duration::from_millis(200);
/// When that is given up.
const FULL_MAX: Duration = Duration::from_secs(120);
const MEBIBYTE: f64 = 1_048_576.0;

/// Takes the measures.
pub async fn run(ctx: &mut Several<'_>) -> Result<()> {
    let certificates = Certificates::make(&ctx.disk)?;
    let (there, here) = (Federation::new(&certificates)?, Federation::new(&certificates)?);
    let folder = ctx.folder("resident")?;
    let room_id = make_room(&folder.join("data").join(STORE), &there.name())?;
    let mut resident = ctx.warren.start_reachable(&folder, Some(there))?;
    let mut joiner = start(ctx, ctx.warren, "joiner", &here)?;
    let mut arrival = Arrival::new(&joiner, &room_id, &resident.name()).await?;
    let note = format!("joined in {:.2} s", arrival.joined);
    ctx.take(Figure::new("federation-join-send", arrival.sent).noting(note));
    ctx.take(Figure::new("federation-join-full", arrival.full(FULL_MAX).await?));
    let note = format!("{:.0} MiB before", arrival.before / MEBIBYTE);
    ctx.take(Figure::new("federation-join-memory", arrival.memory(&joiner)?).noting(note));
    joiner.stop()?;
    resident.stop()
}

/// Makes the room in the store of a server that does not run: its id.
pub fn make_room(store: &Path, name: &str) -> Result<String> {
    let host = Host::named(name, store, Writes::AtOnce)?;
    let engine = host.engine();
    let register = Register { localpart: "creator".to_owned(), ..Register::default() };
    let creator = engine.write(register).wait().map_err(engine_error)?.user_id;
    let mut create = CreateRoom::new(creator, version()?.id);
    create.preset = Preset::PublicChat;
    let room_id = engine.write(create).wait().map_err(engine_error)?;
    for number in 1..MEMBERS {
        let register = Register {
            localpart: format!("member-{number}"),
            display_name: Some(format!("Member {number}")),
            ..Register::default()
        };
        let member = engine.write(register).wait().map_err(engine_error)?.user_id;
        let join = ChangeMembership {
            room_id: room_id.clone(),
            sender: member.clone(),
            target: member,
            action: MembershipAction::Join,
            reason: None,
            is_guest: false,
        };
        engine.write(join).wait().map_err(engine_error)?;
    }
    host.settle();
    Ok(room_id)
}

/// A client on its way into the room. Times are seconds since it asked to join.
pub struct Arrival {
    session: Session,
    room_id: String,
    begun: Instant,
    /// Bytes that its server had resident before.
    before: f64,
    joined: f64,
    pub sent: f64,
}

impl Arrival {
    /// Joins by way of a server, and sends.
    pub async fn new(joiner: &Running, room_id: &str, via: &str) -> Result<Arrival> {
        let mut sessions = joiner.homeserver()?.sessions("joiner", 1).await?;
        let mut session = sessions.pop().ok_or(Error::Needs("an account"))?;
        let before = process::resident(joiner.pid())? as f64;
        let begun = Instant::now();
        session.join_by(room_id, via).await?;
        let joined = begun.elapsed().as_secs_f64();
        session.send(&EncodedRoom::new(room_id), text_message("first")).await?;
        let sent = begun.elapsed().as_secs_f64();
        Ok(Arrival { session, room_id: room_id.to_owned(), begun, before, joined, sent })
    }

    /// Asks for the members until all are there: when that is. A server that has let the client wait for long may send it away
    /// meanwhile, or not answer at all.
    pub async fn full(&mut self, time_max: Duration) -> Result<f64> {
        let room = EncodedRoom::new(&self.room_id);
        let path = format!("/_matrix/client/v3/rooms/{}/joined_members", room.as_str());
        let mut found = 0;
        while self.begun.elapsed() < time_max {
            match self.session.request(Method::GET, &path, Bytes::new()).await {
                Ok(members) => found = scan::count(&members, b"\"@"),
                Err(Error::Refused { .. } | Error::Timeout { .. }) => {}
                Err(error) => return Err(error),
            }
            if found > MEMBERS as u64 {
                return Ok(self.begun.elapsed().as_secs_f64());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Error::Implausible(format!("{found} members are known after {} s", time_max.as_secs())))
    }

    /// Mebibytes that its server has had resident at most, over those before.
    pub fn memory(&self, joiner: &Running) -> Result<f64> {
        Ok((process::resident_peak(joiner.pid())? as f64 - self.before) / MEBIBYTE)
    }
}
