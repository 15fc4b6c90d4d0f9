//! Streams, accounts, devices, keys and the reserved marks, broken.

use bytes::Bytes;

use super::{Case, Mended, NO_ROOM, Raw, Reported, run};
use crate::{
    core::num::{StreamPos, TextNum, UserNum},
    open::{FACT_RESERVED, Reserved},
    store::{
        Positioned, ValueWriter, schema,
        schema::{Destination, MemberChange, Move, UserNews},
        write_record,
    },
};

const STREAMS: &[Case] = &[
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
        "a new member is not told of",
        |raw| raw.delete_first(&schema::MEMBER_STREAM),
        "EVENT_HEADERS",
        "not in the room's stream of members",
        Mended,
    ),
    (
        "a new member is told of as gone",
        |raw| raw.change_first(&schema::MEMBER_STREAM, |change| change.to = Move::Out),
        "MEMBER_STREAM",
        "says something else",
        Mended,
    ),
    (
        "who is invited is told of as a member",
        |raw| {
            let is_it = |_: &_, change: &MemberChange| change.to == Move::Asked;
            let (key, change) = raw.find(&schema::MEMBER_STREAM, is_it);
            raw.put(&schema::MEMBER_STREAM, &key, &MemberChange { to: Move::In, ..change });
        },
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
];

#[test]
fn streams() {
    run(STREAMS);
}

const ACCOUNTS_AND_DEVICES: &[Case] = &[
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
        "when a user asked to be forgotten is gone",
        |raw| raw.delete_first(&schema::ERASURES),
        "ACCOUNTS",
        "when the user asked to be forgotten",
        Mended,
    ),
    (
        "somebody is to be forgotten who did not ask",
        |raw| raw.move_first(&schema::ERASURES, |user| user.0 = 1),
        "ERASURES",
        "did not ask",
        Reported,
    ),
    (
        "rooms are to be left by somebody whose account is open",
        |raw| raw.move_first(&schema::DEACTIVATIONS, |user| user.0 = 1),
        "DEACTIVATIONS",
        "not closed",
        Mended,
    ),
    ("an account is gone", |raw| raw.delete_first(&schema::ACCOUNTS), "DEVICES", "of no account", Reported),
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
        "strangers have messages in a queue that there is not",
        |raw| {
            let share = Positioned { pos: StreamPos(900), value: 7 };
            raw.put(&schema::STRANGER_SHARES, &(UserNum(1), TextNum(900), TextNum(1)), &share);
        },
        "STRANGER_SHARES",
        "nothing waits",
        Mended,
    ),
    (
        "a message of a long queue is not there",
        |raw| raw.put(&schema::QUEUE_SENDERS, &(UserNum(1), TextNum(1), 0, 1, StreamPos(900)), &()),
        "QUEUE_SENDERS",
        "somebody else's",
        Mended,
    ),
    (
        "a sender of a long queue has none of its messages",
        |raw| raw.put(&schema::QUEUE_SHARES, &(UserNum(1), TextNum(1), 0, 1), &7),
        "QUEUE_SHARES",
        "counted wrong",
        Mended,
    ),
    (
        "a long queue is not counted as a whole",
        |raw| {
            let ((user, device), _) = raw.first(&schema::TO_DEVICE_COUNTS);
            raw.put(&schema::QUEUE_SHARES, &(user, device, 0, 0), &0);
        },
        "QUEUE_SHARES",
        "not all messages",
        Mended,
    ),
    (
        "a sender of a long queue has a rank and no share",
        |raw| raw.put(&schema::QUEUE_RANKS, &(UserNum(1), TextNum(1), 1, 7, 1), &()),
        "QUEUE_RANKS",
        "another rank",
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
];

#[test]
fn accounts_and_devices() {
    run(ACCOUNTS_AND_DEVICES);
}

/// The reserved marks, and where they are.
fn reserved(raw: &Raw<'_>) -> (String, Reserved) {
    let (key, stored) = raw.find(&schema::FACTS, |name, _| name == FACT_RESERVED);
    (key, crate::store::read_record(&stored).unwrap())
}

/// Lowers the reserved marks.
fn lower(raw: &Raw<'_>, lower: impl FnOnce(&mut Reserved)) {
    let (key, mut reserved) = reserved(raw);
    lower(&mut reserved);
    let mut out = ValueWriter::default();
    write_record(&reserved, &mut out);
    raw.put(&schema::FACTS, &key, &out.bytes.into());
}

const MARKS: &[Case] = &[
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
        "a server was told receipts up to above the mark",
        |raw| {
            let receipts_told_to = StreamPos(reserved(raw).1.pos + 1_000_000);
            let row = Destination { receipts_told_to, ..Destination::default() };
            raw.put(&schema::DESTINATIONS, &TextNum(1), &row);
        },
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
];

#[test]
fn marks() {
    run(MARKS);
}
