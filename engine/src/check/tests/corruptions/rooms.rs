//! Snapshots, heads, members, relations, receipts and aliases, broken.

use bytes::Bytes;

use super::{
    Case, Mended, NO_EVENT, NO_ROOM, Reported, change_head, change_header, change_state_header, message, run,
};
use crate::{
    core::num::{EventNum, NodeId, RoomNum, StateKeyId, StreamPos, TextNum, UserNum},
    room::decode_body,
    store::{Positioned, schema, schema::Membership},
};

const SNAPSHOTS: &[Case] = &[
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
];

#[test]
fn snapshots() {
    run(SNAPSHOTS);
}

const ROOMS_AND_MEMBERS: &[Case] = &[
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
    ("the room's head is gone", |raw| raw.delete_first(&schema::ROOM_HEADS), "ROOM_HEADS", "no head", Mended),
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
            let (key, _) = raw.find(&schema::USER_ROOMS, |_, row| row.value.membership == Membership::Invite);
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
        "the members of a server are counted wrong",
        |raw| raw.change_first(&schema::ROOM_SERVERS, |count| *count += 1),
        "ROOM_HEADS",
        "are counted wrong",
        Mended,
    ),
    (
        "a server is listed that has no members",
        |raw| raw.put(&schema::ROOM_SERVERS, &(RoomNum(1), TextNum(1)), &1),
        "ROOM_HEADS",
        "without joined members",
        Mended,
    ),
    (
        "a user is not listed with their server",
        |raw| raw.delete_first(&schema::SERVER_USERS),
        "ROOM_HEADS",
        "not listed with their server",
        Mended,
    ),
    (
        "a user is listed with another server",
        |raw| raw.put(&schema::SERVER_USERS, &(RoomNum(1), TextNum(1), UserNum(1)), &()),
        "SERVER_USERS",
        "of another server",
        Mended,
    ),
    (
        "an auth depth is another",
        |raw| change_header(raw, |header| header.value.auth_depth = 1),
        "EVENT_HEADERS",
        "the auth depth is not",
        Mended,
    ),
    (
        "the room's state after an event is nowhere",
        |raw| change_header(raw, |header| header.value.room_state = NodeId(90_000)),
        "EVENT_HEADERS",
        "the room's state after the event is not whole",
        Mended,
    ),
    (
        "a backward extremity that nothing follows",
        |raw| {
            let value = schema::BackwardExtremity { follower: message(raw).0, depth: 1 };
            let row = Positioned { pos: StreamPos(900), value };
            raw.put(&schema::BACKWARD_EXTREMITIES, &(RoomNum(1), "$ghost".to_owned()), &row);
        },
        "BACKWARD_EXTREMITIES",
        "nothing follows it",
        Mended,
    ),
    (
        "a gap in which nothing is missing",
        |raw| raw.put(&schema::GAPS, &(RoomNum(1), StreamPos(900)), &StreamPos(899)),
        "GAPS",
        "nothing is missing",
        Mended,
    ),
    (
        "a state known in part that is whole",
        |raw| raw.put(&schema::PARTIAL_STATES, &(RoomNum(1), StreamPos(900)), &message(raw).0),
        "PARTIAL_STATES",
        "not known in part",
        Mended,
    ),
    (
        "the current state is said to lack members",
        |raw| change_head(raw, |head| head.partial_state = true),
        "ROOM_HEADS",
        "whether the current state lacks members",
        Mended,
    ),
    (
        "an event of the timeline is listed as outside of it",
        |raw| raw.put(&schema::OFF_TIMELINE, &(RoomNum(1), message(raw).0), &()),
        "OFF_TIMELINE",
        "in its timeline",
        Mended,
    ),
    (
        "a citation is gone",
        |raw| raw.delete_first(&schema::CITATIONS),
        "EVENT_HEADERS",
        "not among those that cite",
        Mended,
    ),
    (
        "a citation by a message",
        |raw| raw.put(&schema::CITATIONS, &(RoomNum(1), message(raw).0, message(raw).0), &StateKeyId(1)),
        "CITATIONS",
        "no state event of this entry",
        Mended,
    ),
    (
        "a citation by another entry of the state",
        |raw| raw.change_first(&schema::CITATIONS, |key| key.0 += 1),
        "CITATIONS",
        "no state event of this entry",
        Mended,
    ),
    (
        "a history begins in a room that is not there",
        |raw| raw.put(&schema::HISTORY_STARTS, &NO_ROOM, &StreamPos(1)),
        "HISTORY_STARTS",
        "not there",
        Mended,
    ),
    (
        "this server came back to a room that is not there",
        |raw| raw.put(&schema::ENTRANCES, &NO_ROOM, &StreamPos(1)),
        "ENTRANCES",
        "not there",
        Mended,
    ),
    (
        "a change of state to what is nowhere",
        |raw| raw.put(&schema::STATE_CHANGES, &(RoomNum(1), StreamPos(900)), &NodeId(90_000)),
        "STATE_CHANGES",
        "not whole",
        Reported,
    ),
    (
        "members became known before they were missing",
        |raw| raw.put(&schema::PARTIAL_STRETCHES, &(RoomNum(1), StreamPos(900)), &StreamPos(899)),
        "PARTIAL_STRETCHES",
        "ends before it begins",
        Mended,
    ),
    (
        "a listed room that is not there",
        |raw| raw.put(&schema::PUBLIC_ROOMS, &NO_ROOM, &()),
        "PUBLIC_ROOMS",
        "not there",
        Mended,
    ),
];

#[test]
fn rooms_and_members() {
    run(ROOMS_AND_MEMBERS);
}

const RELATIONS_AND_THREADS: &[Case] = &[
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
        "an event does not wait for what it relates to",
        |raw| raw.delete_first(&schema::EARLY_RELATIONS),
        "EVENT_HEADERS",
        "the event does not wait for it",
        Mended,
    ),
    (
        "an event waits for one that it does not relate to",
        |raw| raw.move_first(&schema::EARLY_RELATIONS, |key| key.1 = "$ghost".to_owned()),
        "EARLY_RELATIONS",
        "does not wait for this one",
        Mended,
    ),
    (
        "a redaction waits for an event that it does not name",
        |raw| {
            let redaction = raw.find(&schema::EVENT_HEADERS, |_, header| header.value.redacted_by.is_some());
            let by = redaction.1.value.redacted_by.unwrap();
            raw.put(&schema::EARLY_REDACTIONS, &(RoomNum(1), "$ghost".to_owned()), &vec![by]);
        },
        "EARLY_REDACTIONS",
        "of another event",
        Mended,
    ),
];

#[test]
fn relations_and_threads() {
    run(RELATIONS_AND_THREADS);
}

const RECEIPTS_AND_ALIASES: &[Case] = &[
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
        "a join that is not there lacks members",
        |raw| raw.put(&schema::EARLIER_JOINS, &(RoomNum(1), "$none".to_owned()), &()),
        "EARLIER_JOINS",
        "the join is not there",
        Mended,
    ),
    (
        "a user is said to wait for keys of whom no event tells",
        |raw| {
            let member = schema::UncheckedMember { server: TextNum(1), event_id: "$none".to_owned() };
            raw.put(&schema::UNCHECKED_MEMBERS, &(RoomNum(1), "@a:b.example".to_owned()), &member);
        },
        "UNCHECKED_MEMBERS",
        "no event that waits tells of the user",
        Mended,
    ),
    (
        "an event that waits for keys tells of a user who is not noted",
        |raw| {
            let json = br#"{"type":"m.room.member","state_key":"@a:b.example"}"#.to_vec();
            let event = schema::UncheckedEvent { before: "$a".to_owned(), is_state: true, since_ms: 0, json };
            raw.put(&schema::UNCHECKED_EVENTS, &(RoomNum(1), TextNum(1), "$b".to_owned()), &event);
        },
        "UNCHECKED_EVENTS",
        "the user of whom it tells is not noted",
        Mended,
    ),
    (
        "a profile is to be shown in a room that is not there",
        |raw| raw.put(&schema::UNSHOWN_PROFILES, &(NO_ROOM, raw.first(&schema::ACCOUNTS).0), &()),
        "UNSHOWN_PROFILES",
        "the room is not there",
        Mended,
    ),
    (
        "settings are to be carried into a room that is not there",
        |raw| raw.put(&schema::UNCARRIED_SETTINGS, &(NO_ROOM, raw.first(&schema::ACCOUNTS).0), &()),
        "UNCARRIED_SETTINGS",
        "the room is not there",
        Mended,
    ),
    (
        "guests are to leave a room that is not there",
        |raw| raw.put(&schema::GUESTS_TO_REMOVE, &NO_ROOM, &()),
        "GUESTS_TO_REMOVE",
        "the room is not there",
        Mended,
    ),
    (
        "an invite waits in a room that is not there",
        |raw| {
            let row = schema::SignedInvite {
                since_ms: 1,
                version: 0,
                json: b"{}".to_vec(),
                stripped_state: b"[]".to_vec(),
                server: "there.example".to_owned(),
            };
            raw.put(&schema::SIGNED_INVITES, &(RoomNum(900), UserNum(1)), &row);
        },
        "SIGNED_INVITES",
        "the room is not there",
        Mended,
    ),
    (
        "a receipt waits in a room that is not there",
        |raw| {
            let row = schema::EarlyReceipt { event_id: "$late".to_owned(), ts: 1, since_ms: 1 };
            raw.put(&schema::EARLY_RECEIPTS, &(RoomNum(900), UserNum(1), String::new()), &row);
        },
        "EARLY_RECEIPTS",
        "the room is not there",
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
];

#[test]
fn receipts_and_aliases() {
    run(RECEIPTS_AND_ALIASES);
}
