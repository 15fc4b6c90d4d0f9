//! A store with everything in it is clean; whatever is then broken by hand is found, and mended where it can be.

mod corruptions;
mod furnished;
mod rebuilding;

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;

use super::{Check, Report, plan, repair};
use crate::{
    core::num::{NodeId, StreamPos, TextNum},
    store::{
        Memory, schema,
        schema::{MemberChange, Move},
    },
    view::{Sync, SyncToken},
};
use furnished::{ALICE, DAVE, Raw, furnish, furnished, open, people};

fn check(backend: &Arc<Memory>) -> Report {
    open(backend).read(&Check { progress: &|_, _| {} }).unwrap()
}

fn findings(report: &Report) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn rooms_of_every_version_are_clean() {
    let backend = Arc::new(Memory::default());
    let engine = open(&backend);
    people(&engine);
    for version in ["1", "3", "6", "10", "11", "12"] {
        furnish(&engine, version);
    }
    drop(engine);
    let report = check(&backend);
    assert_eq!(findings(&report), [""; 0]);
    assert_eq!(report.mends, 0);
}

/// Whoever adds a keyspace says what its rows follow from, and how they are checked.
#[test]
fn every_keyspace_is_checked_once() {
    let tables: Vec<&str> = schema::table().iter().map(|row| row.name).collect();
    let mut passes: Vec<&str> = plan().iter().map(|pass| pass.place()).collect();
    let unchecked: Vec<&&str> = tables.iter().filter(|name| !passes.contains(name)).collect();
    assert!(unchecked.is_empty(), "no pass in check/ goes over {unchecked:?}");
    passes.sort_unstable();
    let distinct: BTreeSet<&str> = passes.iter().copied().collect();
    assert_eq!(passes.len(), distinct.len(), "two passes go over one keyspace: {passes:?}");
}

#[test]
fn the_furnished_store_has_rows_of_nearly_everything() {
    let (backend, _) = furnished();
    let report = check(&backend);
    assert_eq!(findings(&report), [""; 0]);
    let empty: Vec<_> =
        report.counts.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    // What takes other servers, purges, cross-signing or administrators to come about.
    let expected = [
        "BACKWARD_EXTREMITIES",
        "CROSS_SIGNING_KEYS",
        "DESTINATIONS",
        "DEVICE_KEYS",
        "DEVICE_LIST_POSITIONS",
        "EARLIER_JOINS",
        "EARLY_RECEIPTS",
        "EARLY_REDACTIONS",
        "ENTRANCES",
        "GAPS",
        "GUESTS_TO_REMOVE",
        "HIDDEN_OUTLIERS",
        "HISTORY_STARTS",
        "KEY_SIGNATURES",
        "OFF_TIMELINE",
        "OUTGOING_EDUS",
        "OUTGOING_EVENTS",
        "OUTGOING_LISTS",
        "OUT_OF_BAND",
        "PARKED_PDUS",
        "PARTIAL_JOINS",
        "PARTIAL_STATES",
        "PARTIAL_STRETCHES",
        "PASSING_TOKENS",
        "PUBLISHED_KEYS",
        "PURGES",
        "QUEUE_RANKS",
        "QUEUE_SENDERS",
        "QUEUE_SHARES",
        "RECEIVED_COUNTS",
        "RECEIVED_MESSAGES",
        "RECEIVED_TRANSACTIONS",
        "REGISTRATION_TOKENS",
        "REMOTE_DEVICE_LISTS",
        "REMOTE_DEVICE_NAMES",
        "REMOTE_MEDIA",
        "SERVER_KEYS",
        "SERVER_STAYS",
        "SIGNED_INVITES",
        "STATE_CHANGES",
        "STRANGER_SHARES",
        "TIME_MARKS",
        "TOLD_STATES",
        "TRANSACTIONS",
        "UNCARRIED_SETTINGS",
        "UNCHECKED_EVENTS",
        "UNCHECKED_MEMBERS",
        "UNSHOWN_PROFILES",
    ];
    assert_eq!(empty, expected);
}

#[test]
fn a_sound_store_is_not_written_to() {
    let (backend, _) = furnished();
    let before = Raw(&backend).everything();
    let repaired = repair(&|| Ok(open(&backend)), &|_, _| {}).unwrap();
    assert!(repaired.before.is_clean() && repaired.after.is_clean());
    assert!(repaired.mended.is_empty());
    assert!(before == Raw(&backend).everything(), "something was written");
}

#[test]
fn invites_of_before_they_were_told_of_are_not_missed() {
    let (backend, _) = furnished();
    let raw = Raw(&backend);
    let is_asked = |_: &_, change: &MemberChange| change.to == Move::Asked;
    let (invite, _) = raw.find(&schema::MEMBER_STREAM, is_asked);
    raw.delete(&schema::MEMBER_STREAM, &invite);
    let report = check(&backend);
    assert_eq!((findings(&report), report.mends), (Vec::new(), 0));
}

/// A stay that had ended hid the one before it from what should have ended that, and let another one begin.
#[test]
fn stays_that_were_hidden_end_when_the_server_left() {
    let (backend, _) = furnished();
    let raw = Raw(&backend);
    let ((room, there), _) = raw.first(&schema::ROOM_SERVERS);
    let gone = TextNum(there.0 + 1);
    let (first, last) = (StreamPos(2), StreamPos(5));
    let stays = [
        (gone, first, StreamPos::MAX),
        (gone, StreamPos(4), StreamPos(4)),
        (gone, last, StreamPos(7)),
        (there, first, StreamPos::MAX),
        (there, last, StreamPos::MAX),
    ];
    for (server, start, end) in stays {
        raw.put(&schema::SERVER_STAYS, &(server, room, start), &end);
    }
    let found = findings(&check(&backend)).join("\n");
    assert!(found.contains("the server is in the room no longer"), "{found}");
    assert!(found.contains("the server is in the room by an earlier stay"), "{found}");
    let repaired = repair(&|| Ok(open(&backend)), &|_, _| {}).unwrap();
    assert_eq!(findings(&repaired.after), [""; 0]);
    let end = |server: TextNum, start: StreamPos| {
        raw.find(&schema::SERVER_STAYS, |key, _| *key == (server, room, start)).1
    };
    assert_eq!((end(gone, first), end(gone, last)), (StreamPos(7), StreamPos(7)));
    assert_eq!(end(there, first), StreamPos::MAX);
    let left = raw.rows(&schema::SERVER_STAYS);
    assert!(left.iter().all(|(key, _)| *key != (there, room, last)), "{left:?}");
}

fn alices(since: Option<SyncToken>) -> Sync {
    Sync {
        user_id: ALICE.to_owned(),
        device_id: Some("PHONE".to_owned()),
        since,
        filter: Arc::default(),
        full_state: false,
        state_after: None,
        waits: false,
    }
}

/// By a fault of before, the room's current state was another than what its last event makes, and clients were told so.
#[test]
fn a_current_state_that_is_put_right_is_told() {
    let (backend, room_id) = furnished();
    let raw = Raw(&backend);
    let (_, early) = raw.find(&schema::EVENT_HEADERS, |_, header| header.value.depth == 5);
    let (_, head) = raw.first(&schema::ROOM_HEADS);
    let (num, mut last) = raw.find(&schema::EVENT_HEADERS, |_, header| header.value.depth == head.depth);
    last.value.room_state = early.value.state_after;
    raw.put(&schema::EVENT_HEADERS, &num, &last);
    raw.change_first(&schema::ROOM_HEADS, |head| head.state = early.value.state_after);
    let before = open(&backend).read(&alices(None)).unwrap().token;
    let repaired = repair(&|| Ok(open(&backend)), &|_, _| {}).unwrap();
    assert_eq!(findings(&repaired.after), [""; 0]);
    let told = open(&backend).read(&alices(Some(before))).unwrap();
    let answer: Value = serde_json::from_slice(&told.body).unwrap();
    let state = answer["rooms"]["join"][&room_id]["state"]["events"].as_array().unwrap();
    let entry = |kind: &str, state_key: &str| {
        let is_it = |event: &&Value| event["type"] == kind && event["state_key"] == state_key;
        state.iter().find(is_it).map(|event| event["content"].clone()).unwrap_or_default()
    };
    assert_eq!(entry("m.room.member", DAVE)["membership"], "ban", "{state:?}");
    assert_eq!(entry("m.room.topic", "")["topic"], "holes", "{state:?}");
    // It is told once.
    let after = open(&backend).read(&alices(Some(told.token))).unwrap();
    let answer: Value = serde_json::from_slice(&after.body).unwrap();
    assert_eq!(answer["rooms"]["join"][&room_id], Value::Null);
}

#[test]
fn a_head_that_is_mended_without_news_tells_nobody() {
    let (backend, _) = furnished();
    let raw = Raw(&backend);
    raw.change_first(&schema::ROOM_HEADS, |head| head.state = NodeId(0));
    let repaired = repair(&|| Ok(open(&backend)), &|_, _| {}).unwrap();
    assert!(!repaired.before.is_clean() && repaired.after.is_clean());
    assert!(raw.rows(&schema::STATE_CHANGES).is_empty());
}
