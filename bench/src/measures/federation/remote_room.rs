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
use crate::peers::Federation;
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
    let mut sessions = joiner.homeserver()?.sessions("joiner", 1).await?;
    let mut session = sessions.pop().ok_or(Error::Needs("an account"))?;
    let before = process::resident(joiner.pid())? as f64;
    let begun = Instant::now();
    session.join_by(&room_id, &resident.name()).await?;
    let joined = begun.elapsed();
    session.send(&EncodedRoom::new(&room_id), text_message("first")).await?;
    let sent = begun.elapsed();
    let note = format!("joined in {:.2} s", joined.as_secs_f64());
    ctx.take(Figure::new("federation-join-send", sent.as_secs_f64()).noting(note));
    all_members(&mut session, &room_id).await?;
    ctx.take(Figure::new("federation-join-full", begun.elapsed().as_secs_f64()));
    let peak = process::resident_peak(joiner.pid())? as f64;
    let note = format!("{:.0} MiB before", before / MEBIBYTE);
    ctx.take(Figure::new("federation-join-memory", (peak - before) / MEBIBYTE).noting(note));
    joiner.stop()?;
    resident.stop()
}

/// Makes the room in the store of a server that does not run: its id.
fn make_room(store: &Path, name: &str) -> Result<String> {
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

/// Asks for the members until all are there.
async fn all_members(session: &mut Session, room_id: &str) -> Result<()> {
    let path = format!("/_matrix/client/v3/rooms/{}/joined_members", EncodedRoom::new(room_id).as_str());
    let begun = Instant::now();
    let mut found = 0;
    while begun.elapsed() < FULL_MAX {
        let members = session.request(Method::GET, &path, Bytes::new()).await?;
        found = scan::count(&members, b"\"@");
        if found > MEMBERS as u64 {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Error::Implausible(format!("{found} members are known after {} s", FULL_MAX.as_secs())))
}
