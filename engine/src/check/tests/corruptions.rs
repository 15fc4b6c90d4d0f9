//! Deliberate corruptions: each is found where it is expected; where repair mends it, the store is clean afterwards and
//! everybody reads what they read before.

use bytes::Bytes;

use super::{
    check, findings,
    furnished::{Raw, furnished, open, reads},
    repair,
};
use crate::{
    core::num::{EventNum, NodeId, RoomNum, StreamPos, UserNum},
    open::{FACT_RESERVED, Reserved},
    room::decode_body,
    store::{
        Positioned, ValueWriter, schema,
        schema::{EventHeader, EventStatus, Membership, RoomHead, UserNews},
        write_record,
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

#[test]
fn names() {
    run(&[
        (
            "a number's name is gone",
            |raw| raw.delete_first(&schema::NAME_TEXTS),
            "NAME_NUMS",
            "does not lead back",
            Mended,
        ),
        (
            "a name's number is gone",
            |raw| raw.delete_first(&schema::NAME_NUMS),
            "NAME_TEXTS",
            "does not lead back",
            Mended,
        ),
        (
            "both rows of a sender's name are gone",
            |raw| {
                let ((kind, num), name) = raw.find(&schema::NAME_TEXTS, |_, name| name == "@alice:a.example");
                raw.delete(&schema::NAME_TEXTS, &(kind, num));
                raw.delete(&schema::NAME_NUMS, &(kind, name));
            },
            "EVENT_HEADERS",
            "has no name",
            Mended,
        ),
        (
            "a number has another name",
            |raw| {
                let (key, _) = raw.find(&schema::NAME_TEXTS, |_, name| name == "@alice:a.example");
                raw.put(&schema::NAME_TEXTS, &key, &"@alicf:a.example".to_owned());
            },
            "NAME_NUMS",
            "does not lead back",
            Mended,
        ),
        (
            "a name leads to another's number",
            |raw| raw.put(&schema::NAME_NUMS, &(1, "@ghost:a.example".to_owned()), &1),
            "NAME_NUMS",
            "does not lead back",
            Mended,
        ),
        (
            "a number with a name that is not indexed",
            |raw| raw.put(&schema::NAME_TEXTS, &(1, 500), &"@ghost:a.example".to_owned()),
            "NAME_TEXTS",
            "does not lead back",
            Mended,
        ),
    ]);
}

#[test]
fn bodies() {
    run(&[
        (
            "a byte of the content is another",
            |raw| change_body(raw, "\"hi\"", "\"ho\""),
            "EVENT_HEADERS",
            "the content hash is wrong",
            Reported,
        ),
        (
            "the type is another",
            |raw| change_body(raw, "m.room.message", "m.room.massage"),
            "EVENT_HEADERS",
            "this server's signature",
            Reported,
        ),
        (
            "the reference hash is another",
            |raw| change_body(raw, "m.room.message", "m.room.massage"),
            "EVENT_HEADERS",
            "the id is not that of",
            Reported,
        ),
        (
            "the JSON is not canonical",
            |raw| change_body(raw, "{\"", "{ \""),
            "EVENT_HEADERS",
            "canonical",
            Reported,
        ),
        (
            "a field is gone",
            |raw| change_body(raw, "\"depth\":", "\"height\":"),
            "EVENT_HEADERS",
            "the body is not an event",
            Reported,
        ),
        (
            "the body is gone",
            |raw| raw.delete(&schema::EVENT_BODIES, &message(raw).0),
            "EVENT_HEADERS",
            "no body",
            Reported,
        ),
        (
            "the body is cut short",
            |raw| {
                let (num, body) = message(raw);
                raw.put(&schema::EVENT_BODIES, &num, &body.slice(..1));
            },
            "EVENT_HEADERS",
            "cannot be read",
            Reported,
        ),
        (
            "a redacted event has its content again",
            |raw| {
                // What is said of the message without its having happened stands for what was not erased.
                let redaction =
                    raw.find(&schema::EVENT_HEADERS, |_, header| header.value.redacted_by.is_some());
                let by = redaction.1.value.redacted_by;
                change_header(raw, |header| header.value.redacted_by = by);
            },
            "EVENT_HEADERS",
            "the redaction is not there or is of another event",
            Mended,
        ),
        (
            "a redacted event is not marked",
            |raw| {
                let (num, mut header) =
                    raw.find(&schema::EVENT_HEADERS, |_, header| header.value.redacted_by.is_some());
                header.value.redacted_by = None;
                raw.put(&schema::EVENT_HEADERS, &num, &header);
            },
            "EVENT_HEADERS",
            "the content hash is wrong",
            Mended,
        ),
    ]);
}

#[test]
fn ids_headers_and_edges() {
    run(&[
        (
            "an id is not indexed",
            |raw| raw.delete_first(&schema::EVENT_NUMS),
            "EVENT_BODIES",
            "does not lead to it",
            Mended,
        ),
        (
            "an id leads to another event",
            |raw| {
                let other = message(raw).0;
                raw.change_first(&schema::EVENT_NUMS, |num| {
                    *num = EventNum(if *num == other { 1 } else { other.0 })
                });
            },
            "EVENT_NUMS",
            "to another event or to none",
            Mended,
        ),
        (
            "an id leads nowhere",
            |raw| raw.put(&schema::EVENT_NUMS, &"$ghost".to_owned(), &NO_EVENT),
            "EVENT_NUMS",
            "to another event or to none",
            Mended,
        ),
        (
            "a header is gone",
            |raw| raw.delete(&schema::EVENT_HEADERS, &message(raw).0),
            "EVENT_BODIES",
            "no header",
            Mended,
        ),
        (
            "the header of a redacted event is gone",
            |raw| {
                let (num, _) =
                    raw.find(&schema::EVENT_HEADERS, |_, header| header.value.redacted_by.is_some());
                raw.delete(&schema::EVENT_HEADERS, &num);
            },
            "TIMELINE",
            "no header",
            Mended,
        ),
        (
            "the depth is another",
            |raw| change_header(raw, |header| header.value.depth += 1),
            "EVENT_HEADERS",
            "differ in the depth",
            Mended,
        ),
        (
            "the time is another",
            |raw| change_header(raw, |header| header.value.origin_server_ts += 1),
            "EVENT_HEADERS",
            "differ in the time",
            Mended,
        ),
        (
            "the sender is another",
            |raw| change_header(raw, |header| header.value.sender = UserNum(2)),
            "EVENT_HEADERS",
            "differ in the sender",
            Mended,
        ),
        (
            "the sender is nobody",
            |raw| change_header(raw, |header| header.value.sender = UserNum(99)),
            "EVENT_HEADERS",
            "differ in the sender",
            Mended,
        ),
        (
            "the type is another",
            |raw| change_header(raw, |header| header.value.kind.0 += 1),
            "EVENT_HEADERS",
            "differ in the type",
            Mended,
        ),
        (
            "a state event that has no state key",
            |raw| change_state_header(raw, |header| header.value.state_key = None),
            "EVENT_HEADERS",
            "differ in the state key",
            Mended,
        ),
        (
            "the room is another",
            |raw| change_header(raw, |header| header.value.room = NO_ROOM),
            "EVENT_HEADERS",
            "differ in the room",
            Mended,
        ),
        (
            "a previous event is another",
            |raw| change_header(raw, |header| header.value.prev = vec![EventNum(header.value.prev[0].0 - 1)]),
            "EVENT_HEADERS",
            "a previous event is not one that the body names",
            Mended,
        ),
        (
            "the event follows itself",
            |raw| {
                let (num, _) = message(raw);
                change_header(raw, |header| header.value.prev = vec![num]);
            },
            "EVENT_HEADERS",
            "a previous event is not one that the body names",
            Mended,
        ),
        (
            "a previous event is missing",
            |raw| change_header(raw, |header| header.value.prev.clear()),
            "EVENT_HEADERS",
            "lacks a previous event",
            Mended,
        ),
        (
            "an auth event is not there",
            |raw| change_header(raw, |header| header.value.auth[0] = NO_EVENT),
            "EVENT_HEADERS",
            "an auth event is not there",
            Mended,
        ),
    ]);
}

#[test]
fn timeline() {
    run(&[
        (
            "a hole",
            |raw| {
                let (num, _) = message(raw);
                let (key, _) = raw.find(&schema::TIMELINE, |_, at| *at == num);
                raw.delete(&schema::TIMELINE, &key);
            },
            "EVENT_HEADERS",
            "not in the timeline",
            Mended,
        ),
        (
            "an event stands in it twice",
            |raw| raw.put(&schema::TIMELINE, &(RoomNum(1), StreamPos(900)), &message(raw).0),
            "TIMELINE",
            "stands elsewhere",
            Mended,
        ),
        (
            "a row leads nowhere",
            |raw| raw.put(&schema::TIMELINE, &(RoomNum(1), StreamPos(900)), &NO_EVENT),
            "TIMELINE",
            "no header",
            Mended,
        ),
        (
            "a row of another room",
            |raw| raw.put(&schema::TIMELINE, &(NO_ROOM, StreamPos(900)), &message(raw).0),
            "TIMELINE",
            "of another room",
            Mended,
        ),
        (
            "a row was moved",
            |raw| {
                let (num, _) = message(raw);
                let (key, _) = raw.find(&schema::TIMELINE, |_, at| *at == num);
                raw.delete(&schema::TIMELINE, &key);
                raw.put(&schema::TIMELINE, &(key.0, StreamPos(900)), &num);
            },
            "TIMELINE",
            "stands elsewhere",
            Mended,
        ),
        (
            "a header says another position",
            |raw| change_header(raw, |header| header.pos = StreamPos(900)),
            "EVENT_HEADERS",
            "not in the timeline",
            Mended,
        ),
        (
            "a row cannot be read",
            |raw| {
                let (num, _) = message(raw);
                let (key, _) = raw.find(&schema::TIMELINE, |_, at| *at == num);
                raw.put_bytes(&schema::TIMELINE, &key, Bytes::from_static(b"?"));
            },
            "TIMELINE",
            "cannot be read",
            Mended,
        ),
        (
            "what was refused stands in it",
            |raw| change_header(raw, |header| header.value.status = EventStatus::Rejected),
            "TIMELINE",
            "not part of the room",
            // Better not shown than shown without having been allowed.
            Settled,
        ),
    ]);
}

#[test]
fn snapshots() {
    run(&[
        (
            "the current state's root is gone",
            |raw| {
                let (room, head) = raw.first(&schema::ROOM_HEADS);
                raw.delete(&schema::STATE_NODES, &(room, head.state));
            },
            "ROOM_HEADS",
            "the current state is not whole",
            Mended,
        ),
        (
            "a node of long ago is gone",
            |raw| raw.delete_first(&schema::STATE_NODES),
            "EVENT_HEADERS",
            "is not whole",
            Mended,
        ),
        (
            "a node cannot be read",
            |raw| {
                let (room, head) = raw.first(&schema::ROOM_HEADS);
                raw.put(&schema::STATE_NODES, &(room, head.state), &Bytes::from_static(b"?"));
            },
            "ROOM_HEADS",
            "the current state is not whole",
            Mended,
        ),
        (
            "a byte of a node is another",
            |raw| {
                let (key, node) = raw.rows(&schema::STATE_NODES).remove(3);
                let mut node = node.to_vec();
                *node.last_mut().unwrap() ^= 1;
                raw.put(&schema::STATE_NODES, &key, &node.into());
            },
            "EVENT_HEADERS",
            "the state after the event is not the state before it with the event in it",
            Mended,
        ),
        (
            "the state after a state event lacks it",
            |raw| change_state_header(raw, |header| header.value.state_after = header.value.state_before),
            "EVENT_HEADERS",
            "the state after the event is not the state before it with the event in it",
            Mended,
        ),
        (
            "the state before a message is another's",
            |raw| change_header(raw, |header| header.value.state_before = NodeId(2)),
            "EVENT_HEADERS",
            "not the one after the event before it",
            Mended,
        ),
        (
            "the state before a message is nowhere",
            |raw| change_header(raw, |header| header.value.state_before = NodeId(90_000)),
            "EVENT_HEADERS",
            "the state before the event is not whole",
            Mended,
        ),
    ]);
}

#[test]
fn rooms_and_members() {
    run(&[
        (
            "joined members are counted wrong",
            |raw| change_head(raw, |head| head.joined += 1),
            "ROOM_HEADS",
            "joined members are counted wrong",
            Mended,
        ),
        (
            "invited users are counted wrong",
            |raw| change_head(raw, |head| head.invited = 0),
            "ROOM_HEADS",
            "invited users are counted wrong",
            Mended,
        ),
        (
            "the current state is empty",
            |raw| change_head(raw, |head| head.state = NodeId(0)),
            "ROOM_HEADS",
            "not the one after the last event",
            Mended,
        ),
        (
            "the current state is an older one",
            |raw| {
                let (_, header) = raw.find(&schema::EVENT_HEADERS, |_, header| header.value.depth == 5);
                change_head(raw, |head| head.state = header.value.state_after);
            },
            "ROOM_HEADS",
            "not the one after the last event",
            Mended,
        ),
        (
            "no last event",
            |raw| change_head(raw, |head| head.extremities.clear()),
            "ROOM_HEADS",
            "the last events are not",
            Mended,
        ),
        (
            "another last event",
            |raw| {
                let (num, body) = message(raw);
                let id = decode_body(&body).unwrap().0.to_string();
                change_head(raw, |head| head.extremities.push((num, id)));
            },
            "ROOM_HEADS",
            "the last events are not",
            Mended,
        ),
        (
            "the last event under another id",
            |raw| change_head(raw, |head| head.extremities[0].1.push('x')),
            "ROOM_HEADS",
            "the last events are not",
            Mended,
        ),
        (
            "the room is not as deep as its events",
            |raw| change_head(raw, |head| head.depth = 1),
            "ROOM_HEADS",
            "deeper than the room",
            Mended,
        ),
        (
            "the room's version is another",
            |raw| change_head(raw, |head| head.version -= 1),
            "ROOM_HEADS",
            "another version",
            Mended,
        ),
        (
            "the room's head is gone",
            |raw| raw.delete_first(&schema::ROOM_HEADS),
            "ROOM_HEADS",
            "no head",
            Mended,
        ),
        (
            "a member is gone",
            |raw| raw.delete_first(&schema::MEMBERS),
            "USER_ROOMS",
            "says something else",
            Mended,
        ),
        (
            "a member of the wrong kind",
            |raw| raw.move_first(&schema::MEMBERS, |key| key.1 = Membership::Ban as u8),
            "MEMBERS",
            "says something else",
            Mended,
        ),
        (
            "a member by another event",
            |raw| raw.change_first(&schema::MEMBERS, |event| event.0 += 1),
            "MEMBERS",
            "says something else",
            Mended,
        ),
        (
            "a member who never was",
            |raw| raw.put(&schema::MEMBERS, &(RoomNum(1), Membership::Ban as u8, UserNum(77)), &EventNum(3)),
            "ROOM_HEADS",
            "in the rows but not in the state",
            Mended,
        ),
        (
            "a user's room is gone",
            |raw| raw.delete_first(&schema::USER_ROOMS),
            "ROOM_HEADS",
            "lacks or contradicts the state",
            Mended,
        ),
        (
            "an invited user's room is gone, and with it what the invite showed",
            |raw| {
                let (key, _) =
                    raw.find(&schema::USER_ROOMS, |_, row| row.value.membership == Membership::Invite);
                raw.delete(&schema::USER_ROOMS, &key);
            },
            "ROOM_HEADS",
            "lacks or contradicts the state",
            Mended,
        ),
        (
            "a user's room with another membership",
            |raw| raw.change_first(&schema::USER_ROOMS, |row| row.value.membership = Membership::Knock),
            "USER_ROOMS",
            "says something else",
            Mended,
        ),
        (
            "a user's room at another position",
            |raw| raw.change_first(&schema::USER_ROOMS, |row| row.pos = StreamPos(901)),
            "ROOM_HEADS",
            "lacks or contradicts the state",
            Mended,
        ),
        (
            "a listed room that is not there",
            |raw| raw.put(&schema::PUBLIC_ROOMS, &NO_ROOM, &()),
            "PUBLIC_ROOMS",
            "not there",
            Mended,
        ),
    ]);
}

#[test]
fn relations_and_threads() {
    run(&[
        (
            "a relation is not indexed",
            |raw| raw.delete_first(&schema::RELATIONS),
            "EVENT_HEADERS",
            "relation is not in the index",
            Mended,
        ),
        (
            "a relation to another event",
            |raw| raw.move_first(&schema::RELATIONS, |key| key.2 = NO_EVENT),
            "RELATIONS",
            "no event says so",
            Mended,
        ),
        (
            "a relation by another sender",
            |raw| raw.change_first(&schema::RELATIONS, |relation| relation.sender = UserNum(2)),
            "RELATIONS",
            "no event says so",
            Mended,
        ),
        (
            "a thread's row is gone",
            |raw| raw.delete_first(&schema::THREADS),
            "RELATIONS",
            "the thread has no row",
            Mended,
        ),
        (
            "a thread is counted wrong",
            |raw| raw.change_first(&schema::THREADS, |thread| thread.value.count += 1),
            "THREADS",
            "counted wrong",
            Mended,
        ),
        (
            "a thread's latest event is another",
            |raw| raw.change_first(&schema::THREADS, |thread| thread.value.latest = EventNum(3)),
            "THREADS",
            "the latest event is another",
            Mended,
        ),
        (
            "a thread without events",
            |raw| {
                let (_, row) = raw.first(&schema::THREADS);
                raw.put(&schema::THREADS, &(RoomNum(1), EventNum(3)), &row);
            },
            "THREADS",
            "no events",
            Mended,
        ),
        (
            "a thread stands elsewhere in the stream",
            |raw| raw.move_first(&schema::THREAD_STREAM, |key| key.1.0 += 1),
            "THREAD_STREAM",
            "does not stand here",
            Mended,
        ),
        (
            "somebody is not listed in a thread",
            |raw| raw.delete_first(&schema::THREAD_USERS),
            "RELATIONS",
            "not listed among those",
            Mended,
        ),
        (
            "somebody is listed in a thread who is not in it",
            |raw| raw.move_first(&schema::THREAD_USERS, |key| key.2 = UserNum(2)),
            "THREAD_USERS",
            "has sent nothing",
            Mended,
        ),
        (
            "a redaction waits for an event that it does not name",
            |raw| {
                let redaction =
                    raw.find(&schema::EVENT_HEADERS, |_, header| header.value.redacted_by.is_some());
                let by = redaction.1.value.redacted_by.unwrap();
                raw.put(&schema::EARLY_REDACTIONS, &(RoomNum(1), "$ghost".to_owned()), &vec![by]);
            },
            "EARLY_REDACTIONS",
            "of another event",
            Mended,
        ),
    ]);
}

#[test]
fn receipts_and_aliases() {
    run(&[
        (
            "a receipt for another position",
            |raw| raw.change_first(&schema::RECEIPTS, |receipt| receipt.value.event_pos = StreamPos(1)),
            "RECEIPTS",
            "at another position",
            Mended,
        ),
        (
            "a receipt is not in the stream",
            |raw| raw.delete_first(&schema::RECEIPT_STREAM),
            "RECEIPTS",
            "not in the room's stream",
            Mended,
        ),
        (
            "a receipt stands in the stream twice",
            |raw| {
                let (_, value) = raw.first(&schema::RECEIPT_STREAM);
                raw.put(&schema::RECEIPT_STREAM, &(RoomNum(1), StreamPos(900)), &value);
            },
            "RECEIPT_STREAM",
            "does not stand here",
            Mended,
        ),
        (
            "a receipt for an event that is not there",
            |raw| {
                let ((room, _, kind, thread), receipt) = raw.first(&schema::RECEIPTS);
                let value = schema::Receipt { event: NO_EVENT, ..receipt.value };
                let row = Positioned { pos: StreamPos(900), value };
                raw.put(&schema::RECEIPTS, &(room, UserNum(1), kind, thread), &row);
            },
            "RECEIPTS",
            "the event is not in the room",
            Mended,
        ),
        (
            "a room does not list its alias",
            |raw| raw.delete_first(&schema::ROOM_ALIASES),
            "ALIASES",
            "does not list the alias",
            Mended,
        ),
        (
            "a room lists nobody's alias",
            |raw| raw.put(&schema::ROOM_ALIASES, &(RoomNum(1), "#ghost:a.example".to_owned()), &()),
            "ROOM_ALIASES",
            "another room's or nobody's",
            Mended,
        ),
        (
            "an alias of a room that has no number",
            |raw| {
                let (_, mut alias) = raw.first(&schema::ALIASES);
                alias.room_id = "!ghost:a.example".to_owned();
                raw.put(&schema::ALIASES, &"#ghost:a.example".to_owned(), &alias);
            },
            "ALIASES",
            "does not list the alias",
            Mended,
        ),
    ]);
}

#[test]
fn streams() {
    run(&[
        (
            "a change of membership is not told",
            |raw| {
                let is_it = |_: &_, news: &UserNews| matches!(news, UserNews::Membership(_));
                let (key, _) = raw.find(&schema::USER_STREAM, is_it);
                raw.delete(&schema::USER_STREAM, &key);
            },
            "EVENT_HEADERS",
            "not in the user's stream",
            Mended,
        ),
        (
            "a change of membership of a room that is not there",
            |raw| {
                raw.put(&schema::USER_STREAM, &(UserNum(1), StreamPos(900)), &UserNews::Membership(NO_ROOM));
            },
            "USER_STREAM",
            "what is not there",
            Mended,
        ),
        (
            "account data is not told",
            |raw| {
                let is_it = |_: &_, news: &UserNews| matches!(news, UserNews::AccountData(_));
                let (key, _) = raw.find(&schema::USER_STREAM, is_it);
                raw.delete(&schema::USER_STREAM, &key);
            },
            "ACCOUNT_DATA",
            "not in the user's stream",
            Mended,
        ),
        (
            "account data is told twice",
            |raw| {
                let is_it = |_: &_, news: &UserNews| matches!(news, UserNews::RoomAccountData(..));
                let ((user, _), news) = raw.find(&schema::USER_STREAM, is_it);
                raw.put(&schema::USER_STREAM, &(user, StreamPos(900)), &news);
            },
            "USER_STREAM",
            "what is not there",
            Mended,
        ),
        (
            "a status message of nobody",
            |raw| {
                let (_, said) = raw.find(&schema::STATUS_MESSAGES, |_: &_, _: &_| true);
                raw.put(&schema::STATUS_MESSAGES, &UserNum(77), &said);
            },
            "STATUS_MESSAGES",
            "has no name",
            Reported,
        ),
        (
            "a new member is not told of",
            |raw| raw.delete_first(&schema::MEMBER_STREAM),
            "EVENT_HEADERS",
            "not in the room's stream of members",
            Mended,
        ),
        (
            "a new member is told of as gone",
            |raw| raw.change_first(&schema::MEMBER_STREAM, |change| change.joined = !change.joined),
            "MEMBER_STREAM",
            "says something else",
            Mended,
        ),
        (
            "account data is not JSON",
            |raw| raw.change_first(&schema::ACCOUNT_DATA, |data| data.value = Bytes::from_static(b"?")),
            "ACCOUNT_DATA",
            "not JSON",
            Reported,
        ),
    ]);
}

#[test]
fn accounts_and_devices() {
    run(&[
        (
            "an access token is gone",
            |raw| raw.delete_first(&schema::ACCESS_TOKENS),
            "DEVICES",
            "access token does not lead",
            Mended,
        ),
        (
            "an access token of another's device",
            |raw| raw.change_first(&schema::ACCESS_TOKENS, |token| token.user.0 = token.user.0 % 2 + 1),
            "ACCESS_TOKENS",
            "not its device's",
            Mended,
        ),
        (
            "a refresh token is gone",
            |raw| raw.delete_first(&schema::REFRESH_TOKENS),
            "DEVICES",
            "refresh token does not lead",
            Mended,
        ),
        (
            "a token of no device",
            |raw| {
                let (_, token) = raw.first(&schema::REFRESH_TOKENS);
                raw.put(&schema::REFRESH_TOKENS, &[7; 32], &token);
            },
            "REFRESH_TOKENS",
            "not its device's",
            Mended,
        ),
        (
            "a sighting of no device",
            |raw| raw.move_first(&schema::DEVICE_SIGHTINGS, |key| key.1 = "GHOST".to_owned()),
            "DEVICE_SIGHTINGS",
            "not there",
            Mended,
        ),
        (
            "an account is gone",
            |raw| raw.delete_first(&schema::ACCOUNTS),
            "DEVICES",
            "of no account",
            Reported,
        ),
        (
            "one-time keys are counted wrong",
            |raw| raw.change_first(&schema::KEY_STOCKS, |stock| stock.one_time.clear()),
            "KEY_STOCKS",
            "counted wrong",
            Mended,
        ),
        (
            "one-time keys are not counted",
            |raw| raw.delete_first(&schema::KEY_STOCKS),
            "ONE_TIME_KEYS",
            "not counted",
            Mended,
        ),
        (
            "a fallback key is counted as used",
            |raw| raw.change_first(&schema::KEY_STOCKS, |stock| stock.unused_fallback.clear()),
            "KEY_STOCKS",
            "counted wrong",
            Mended,
        ),
        (
            "messages to a device are counted wrong",
            |raw| raw.change_first(&schema::TO_DEVICE_COUNTS, |count| *count += 1),
            "TO_DEVICE_COUNTS",
            "counted wrong",
            Mended,
        ),
        (
            "messages to a device are not counted",
            |raw| raw.delete_first(&schema::TO_DEVICE_COUNTS),
            "TO_DEVICE",
            "not counted",
            Mended,
        ),
        (
            "a backup's sessions are counted wrong",
            |raw| raw.change_first(&schema::KEY_BACKUPS, |backup| backup.count = 9),
            "KEY_BACKUPS",
            "counted wrong",
            Mended,
        ),
        (
            "a backup is gone",
            |raw| raw.delete_first(&schema::KEY_BACKUPS),
            "BACKED_UP_KEYS",
            "in no backup",
            Reported,
        ),
        (
            "a pending media id is not among its maker's",
            |raw| raw.delete_first(&schema::PENDING_MEDIA),
            "MEDIA",
            "not among its maker's",
            Mended,
        ),
        (
            "a media id is pending that is not there",
            |raw| raw.delete_first(&schema::MEDIA),
            "PENDING_MEDIA",
            "not pending",
            Mended,
        ),
    ]);
}

#[test]
fn marks() {
    fn lower(raw: &Raw<'_>, lower: impl FnOnce(&mut Reserved)) {
        let (key, stored) = raw.find(&schema::FACTS, |name, _| name == FACT_RESERVED);
        let mut reserved: Reserved = crate::store::read_record(&stored).unwrap();
        lower(&mut reserved);
        let mut out = ValueWriter::default();
        write_record(&reserved, &mut out);
        raw.put(&schema::FACTS, &key, &out.bytes.into());
    }
    // What is read depends on the mark: a position above it is not told of yet.
    run(&[
        (
            "nodes are in use above their mark",
            |raw| lower(raw, |reserved| reserved.nodes = 2),
            "FACTS",
            "above the reserved marks",
            Mended,
        ),
        (
            "events are in use above their mark",
            |raw| lower(raw, |reserved| reserved.events = 2),
            "FACTS",
            "above the reserved marks",
            Mended,
        ),
        (
            "positions are in use above their mark",
            |raw| lower(raw, |reserved| reserved.pos = 3),
            "FACTS",
            "above the reserved marks",
            Mended,
        ),
        (
            "the marks are gone",
            |raw| raw.delete(&schema::FACTS, &FACT_RESERVED.to_owned()),
            "FACTS",
            "above the reserved marks",
            Mended,
        ),
    ]);
}
