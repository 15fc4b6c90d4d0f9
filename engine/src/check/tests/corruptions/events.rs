//! Names, bodies, ids, headers, edges and the timeline, broken.

use bytes::Bytes;

use super::{
    Case, Mended, NO_EVENT, NO_ROOM, Reported, Settled, change_body, change_header, change_state_header,
    message, run,
};
use crate::{
    core::num::{EventNum, RoomNum, StreamPos, UserNum},
    store::{schema, schema::EventStatus},
};

const NAMES: &[Case] = &[
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
];

#[test]
fn names() {
    run(NAMES);
}

const BODIES: &[Case] = &[
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
            let redaction = raw.find(&schema::EVENT_HEADERS, |_, header| header.value.redacted_by.is_some());
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
];

#[test]
fn bodies() {
    run(BODIES);
}

const IDS_HEADERS_AND_EDGES: &[Case] = &[
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
            let (num, _) = raw.find(&schema::EVENT_HEADERS, |_, header| header.value.redacted_by.is_some());
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
];

#[test]
fn ids_headers_and_edges() {
    run(IDS_HEADERS_AND_EDGES);
}

const TIMELINE: &[Case] = &[
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
];

#[test]
fn timeline() {
    run(TIMELINE);
}
