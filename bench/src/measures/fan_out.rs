//! One event for a thousand other servers, on an engine in this process: until it is durable with what says whom it is for,
//! and each of them is noted as one that something waits for.

use std::time::Instant;

use serde_json::json;
use warren_bench::statistics::median;
use warren_engine::command::{Register, SendEvent};
use warren_engine::view::federation::DueDestinations;

use super::receive::{Entry, Host, Room, Writes, engine_error};
use crate::context::{Figure, InProcess};
use crate::error::{Error, Result};

/// The other servers in the room.
const DESTINATIONS: usize = 1_000;
/// Events that are measured, and those before them that warm up.
const EVENTS: usize = 50;
const WARM_UP: usize = 5;

/// Takes the measures.
pub fn run(ctx: &mut InProcess<'_>) -> Result<()> {
    let (mut room, state) = Room::across("fan-out", DESTINATIONS, DESTINATIONS)?;
    let host = Host::open(&ctx.disk.join("fan-out"), Writes::Durable, &room)?;
    let sender = enter(&host, &mut room, state)?;
    // Nobody is taken: whom it is for is to be noted, and not sent.
    let look = || host.engine().read(&DueDestinations { limit: 0, laggards_max: 0 }).map_err(engine_error);
    look()?;
    look()?;
    let (mut times, mut durable, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..WARM_UP + EVENTS {
        let content = json!({"msgtype": "m.text", "body": format!("The message with the number {number}.")});
        let event = SendEvent {
            room_id: room.id.to_string(),
            sender: sender.clone(),
            is_guest: false,
            kind: "m.room.message".to_owned(),
            state_key: None,
            content: content.as_object().cloned().unwrap_or_default(),
            redacts: None,
            transaction: None,
            origin_server_ts: None,
        };
        let before = host.figure("commits");
        let begun = Instant::now();
        host.engine().write(event).wait().map_err(engine_error)?;
        let at_disk = begun.elapsed();
        look()?;
        let taken = begun.elapsed();
        if number >= WARM_UP {
            times.push(taken.as_secs_f64() * 1e3);
            durable.push(at_disk.as_secs_f64() * 1e3);
            commits.push((host.figure("commits") - before) as f64);
        }
    }
    let waiting = host.figure("destinations_waiting");
    if waiting != DESTINATIONS as u64 {
        return Err(Error::Implausible(format!("{waiting} destinations are noted")));
    }
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let note =
        format!("durable in {:.2} ms; {:.2} ms at most", median(durable).unwrap_or(f64::NAN), most(&times));
    ctx.take(Figure::new("fan-out-commits", most(&commits)));
    ctx.take(Figure::new("fan-out-1000", median(times).unwrap_or(f64::NAN)).noting(note));
    Ok(())
}

/// A local user enters the room: who.
pub fn enter(host: &Host, room: &mut Room, state: Vec<warren_engine::core::event::Pdu>) -> Result<String> {
    let engine = host.engine();
    let register = Register { localpart: "sender".to_owned(), ..Register::default() };
    let sender = engine.write(register).wait().map_err(engine_error)?.user_id;
    let mut place = room.end();
    let join = room.join_from(&mut place, &sender, engine.key_pair())?;
    room.extend(place);
    host.enter(&Entry::new(room.id.clone(), state, join))?;
    Ok(sender)
}
