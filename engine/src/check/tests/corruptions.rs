//! Deliberate corruptions: each is found where it is expected; where repair mends it, the store is clean afterwards and
//! everybody reads what they read before.

mod events;
mod people;
mod rooms;

use bytes::Bytes;

use super::{
    check, findings,
    furnished::{Raw, furnished, open, reads},
    repair,
};
use crate::{
    core::num::{EventNum, RoomNum},
    room::decode_body,
    store::{
        Positioned, schema,
        schema::{EventHeader, RoomHead},
    },
};

/// What repair makes of a corruption.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Everything is as it was.
    Mended,
    /// The store agrees with itself again, but not everything is read as before: what was lost is known nowhere else.
    Settled,
    /// It stays, and is reported.
    Reported,
}
use Then::{Mended, Reported, Settled};

/// A corruption: what it is, how it is made, and where what is found.
type Case = (&'static str, fn(&Raw<'_>), &'static str, &'static str, Then);

/// A room that is not there.
const NO_ROOM: RoomNum = RoomNum(700);
/// An event that is not there.
const NO_EVENT: EventNum = EventNum(4_000);

fn run(cases: &[Case]) {
    let mut failures = Vec::new();
    for (name, harm, place, problem, then) in cases {
        let (backend, room_id) = furnished();
        let before = reads(&backend, &room_id);
        harm(&Raw(&backend));
        let report = check(&backend);
        let found =
            report.findings.iter().any(|found| found.place == *place && found.problem.contains(problem));
        if !found {
            failures.push(format!("{name}: {place}: {problem}: not among {:#?}", findings(&report)));
            continue;
        }
        let repaired = repair(&|| Ok(open(&backend)), &|_, _| {}).unwrap();
        let after = check(&backend);
        match then {
            Mended | Settled if !after.is_clean() => {
                failures.push(format!("{name}: not mended: {:#?}\n{:?}", findings(&after), repaired.mended));
            }
            Mended if reads(&backend, &room_id) != before => {
                failures.push(format!("{name}: clean, but something else is read: {:?}", repaired.mended));
            }
            Reported if after.is_clean() => failures.push(format!("{name}: mended against expectation")),
            Reported if after.mends > 0 => failures.push(format!("{name}: there is more to mend")),
            _ => {}
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// The text in the first message of the room.
const GREETING: &[u8] = br#""body":"hi""#;

fn message(raw: &Raw<'_>) -> (EventNum, Bytes) {
    raw.find(&schema::EVENT_BODIES, |_, body| body.windows(GREETING.len()).any(|part| part == GREETING))
}

/// Replaces a text in the body of a message.
fn change_body(raw: &Raw<'_>, from: &str, to: &str) {
    let (num, body) = message(raw);
    let (_, json) = decode_body(&body).unwrap();
    let head = body.len() - json.len();
    let json = std::str::from_utf8(&json).unwrap().replacen(from, to, 1);
    raw.put(&schema::EVENT_BODIES, &num, &[&body[..head], json.as_bytes()].concat().into());
}

/// Changes the header of the message, an event in the middle of the room's history.
fn change_header(raw: &Raw<'_>, change: impl FnOnce(&mut Positioned<EventHeader>)) {
    let (num, _) = message(raw);
    let (_, mut header) = raw.find(&schema::EVENT_HEADERS, |at, _| *at == num);
    change(&mut header);
    raw.put(&schema::EVENT_HEADERS, &num, &header);
}

/// The header of a state event in the middle of the room's history: Carol's joining.
fn change_state_header(raw: &Raw<'_>, change: impl FnOnce(&mut Positioned<EventHeader>)) {
    let ((_, _), num) = raw.find(&schema::TIMELINE, |_, num| num.0 > message(raw).0.0 - 2);
    let (_, mut header) = raw.find(&schema::EVENT_HEADERS, |at, _| *at == num);
    assert!(header.value.state_key.is_some());
    change(&mut header);
    raw.put(&schema::EVENT_HEADERS, &num, &header);
}

fn change_head(raw: &Raw<'_>, change: impl FnOnce(&mut RoomHead)) {
    raw.change_first(&schema::ROOM_HEADS, change);
}
