//! Filters against the text of the specification, their limits, and their errors.

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    EventFields, EventFormat, FILTER_BYTES_MAX, Filter, FilterError, LIMIT_MAX, LIST_ENTRIES_MAX,
    PATTERNS_MAX, RoomEventFilter,
};

fn filter(json: Value) -> Result<Filter, FilterError> {
    Filter::parse(json.to_string().as_bytes())
}

fn room_event_filter(json: Value) -> RoomEventFilter {
    RoomEventFilter::parse(json.to_string().as_bytes()).unwrap()
}

fn matches(filter: &RoomEventFilter, kind: &str, sender: &str, room_id: &str) -> bool {
    filter.matches(kind, sender, room_id, || unreachable!("no filter here asks for a url"))
}

#[test]
fn an_empty_filter_is_everything() {
    for empty in [json!({}), json!({"room": {}}), json!({"room": null, "presence": {}, "unknown": 1})] {
        let filter = filter(empty).unwrap();
        assert_eq!(filter, Filter::default());
        assert!(filter.presence.is_everything() && filter.account_data.is_everything());
        assert!(filter.room.includes_every_room() && filter.event_fields.is_everything());
        for part in [filter.room.timeline, filter.room.state, filter.room.ephemeral, filter.room.account_data]
        {
            assert!(part.is_everything() && !part.is_nothing());
            assert!(matches(&part, "m.room.message", "@a:x", "!r:x"));
        }
    }
}

/// The example of `POST /user/{userId}/filter`.
#[test]
fn the_example_of_the_specification() {
    let filter = filter(json!({
        "room": {
            "state": {"types": ["m.room.*"], "not_rooms": ["!726s6s6q:example.com"]},
            "timeline": {
                "limit": 10,
                "types": ["m.room.message"],
                "not_rooms": ["!726s6s6q:example.com"],
                "not_senders": ["@spam:example.com"]
            },
            "ephemeral": {
                "types": ["m.receipt", "m.typing"],
                "not_rooms": ["!726s6s6q:example.com"],
                "not_senders": ["@spam:example.com"]
            }
        },
        "presence": {"types": ["m.presence"], "not_senders": ["@alice:example.com"]},
        "event_format": "client",
        "event_fields": ["type", "content", "sender"]
    }))
    .unwrap();
    let room = &filter.room;
    assert!(matches(&room.state, "m.room.topic", "@a:x", "!r:x"));
    assert!(!matches(&room.state, "m.space.child", "@a:x", "!r:x"));
    assert!(!matches(&room.state, "m.room.topic", "@a:x", "!726s6s6q:example.com"));
    assert_eq!(room.timeline.event.limit, Some(10));
    assert!(matches(&room.timeline, "m.room.message", "@a:x", "!r:x"));
    assert!(!matches(&room.timeline, "m.room.message", "@spam:example.com", "!r:x"));
    assert!(!matches(&room.timeline, "m.room.message2", "@a:x", "!r:x"));
    assert!(matches(&room.ephemeral, "m.typing", "@a:x", "!r:x"));
    assert!(!filter.presence.matches("m.presence", "@alice:example.com"));
    assert!(filter.presence.matches("m.presence", "@bob:example.com"));
    assert_eq!(filter.event_format, EventFormat::Client);
    let event = br#"{"content":{"body":"a"},"event_id":"$e","sender":"@a:x","type":"m"}"#;
    let kept = filter.event_fields.apply(event).unwrap();
    assert_eq!(kept, br#"{"content":{"body":"a"},"sender":"@a:x","type":"m"}"#.as_slice());
}

/// "A matching … will be excluded even if it is listed in the … filter."
#[test]
fn what_is_excluded_stays_out_even_if_included() {
    let both = room_event_filter(json!({
        "types": ["m.room.*", "m.sticker"], "not_types": ["m.room.message", "m.stick*"],
        "senders": ["@a:x", "@b:x"], "not_senders": ["@b:x"],
        "rooms": ["!a:x", "!b:x"], "not_rooms": ["!b:x"]
    }));
    assert!(matches(&both, "m.room.topic", "@a:x", "!a:x"));
    assert!(!matches(&both, "m.room.message", "@a:x", "!a:x"));
    assert!(!matches(&both, "m.sticker", "@a:x", "!a:x"));
    assert!(!matches(&both, "m.room.topic", "@b:x", "!a:x"));
    assert!(!matches(&both, "m.room.topic", "@c:x", "!a:x"));
    assert!(!matches(&both, "m.room.topic", "@a:x", "!b:x"));
    let rooms = filter(json!({"room": {"rooms": ["!a:x", "!b:x"], "not_rooms": ["!a:x"]}})).unwrap().room;
    assert!(rooms.includes_room("!b:x") && !rooms.includes_room("!a:x") && !rooms.includes_room("!c:x"));
}

#[test]
fn an_empty_list_includes_nothing_and_an_absent_one_everything() {
    for list in ["types", "senders", "rooms"] {
        let none = room_event_filter(json!({ list: [] }));
        assert!(none.is_nothing() && !matches(&none, "m", "@a:x", "!a:x"), "{list}");
    }
    for list in ["not_types", "not_senders", "not_rooms"] {
        assert!(room_event_filter(json!({ list: [] })).is_everything(), "{list}");
    }
    let nothing_left = json!({"types": ["a"], "not_types": ["a"]});
    assert!(room_event_filter(nothing_left).is_nothing());
    assert!(room_event_filter(json!({"not_types": ["*"]})).is_nothing());
    assert!(room_event_filter(json!({"types": ["*", "m.a"]})).is_everything());
}

#[test]
fn only_the_star_is_a_wildcard() {
    let types = room_event_filter(json!({"types": ["a?c", "x*z"]}));
    assert!(matches(&types, "a?c", "@a:x", "!a:x") && !matches(&types, "abc", "@a:x", "!a:x"));
    assert!(matches(&types, "xz", "@a:x", "!a:x") && matches(&types, "x.y.z", "@a:x", "!a:x"));
    assert!(!matches(&types, "x.y.z.", "@a:x", "!a:x"));
}

#[test]
fn a_url_is_asked_for_only_where_it_decides() {
    let with = room_event_filter(json!({"contains_url": true, "types": ["m.image"]}));
    assert!(with.matches("m.image", "@a:x", "!a:x", || true));
    assert!(!with.matches("m.image", "@a:x", "!a:x", || false));
    assert!(!matches(&with, "m.text", "@a:x", "!a:x"));
    let without = room_event_filter(json!({"contains_url": false}));
    assert!(without.matches("m.text", "@a:x", "!a:x", || false));
    assert!(!without.matches("m.image", "@a:x", "!a:x", || true));
    assert!(!without.is_everything());
}

#[test]
fn flags_and_limits() {
    let given = room_event_filter(json!({
        "lazy_load_members": true, "include_redundant_members": true, "unread_thread_notifications": true,
        "related_by_senders": ["@a:x"], "related_by_rel_types": ["m.thread"], "limit": u64::MAX
    }));
    assert!(given.lazy_load_members && given.include_redundant_members && given.unread_thread_notifications);
    assert!(given.needs_relations() && !given.is_everything());
    assert_eq!(given.event.limit, Some(LIMIT_MAX));
    assert!(room_event_filter(json!({"lazy_load_members": true, "limit": 5})).is_everything());
    assert!(filter(json!({"room": {"include_leave": true}})).unwrap().room.include_leave);
}

#[test]
fn errors_say_what_is_wrong() {
    let message = |json: Value| filter(json).unwrap_err().to_string();
    assert_eq!(message(json!([])), "the top level in the filter must be an object");
    assert_eq!(message(json!({"room": []})), "room in the filter must be an object");
    assert_eq!(
        filter(json!({"room": {"timeline": {"limit": 0}}})).unwrap().room.timeline.event.limit,
        Some(0)
    );
    assert_eq!(
        message(json!({"room": {"timeline": {"limit": -1}}})),
        "room.timeline.limit in the filter must be an integer of 0 or more"
    );
    for limit in [json!(-1), json!(1.5), json!("10"), json!(true)] {
        let error = filter(json!({"presence": {"limit": limit}})).unwrap_err();
        assert!(matches!(error, FilterError::WrongType { .. }), "{error}");
    }
    assert_eq!(
        message(json!({"room": {"state": {"types": "m.room.*"}}})),
        "room.state.types in the filter must be a list of strings"
    );
    assert_eq!(
        message(json!({"account_data": {"not_senders": ["@a:x", "bob"]}})),
        "account_data.not_senders in the filter must be a list of user ids, which begin with @"
    );
    assert_eq!(
        message(json!({"room": {"rooms": ["#alias:x"]}})),
        "room.rooms in the filter must be a list of room ids, which begin with !"
    );
    assert_eq!(
        message(json!({"event_format": "matrix"})),
        "event_format in the filter must be \"client\" or \"federation\""
    );
    assert_eq!(
        message(json!({"room": {"state": {"lazy_load_members": 1}}})),
        "room.state.lazy_load_members in the filter must be true or false"
    );
    assert!(matches!(Filter::parse(b"{\"room\":"), Err(FilterError::NotJson(_))));
}

#[test]
fn costly_filters_are_refused() {
    let patterns = |count: usize| json!({"types": vec!["m.*"; count]}).to_string();
    assert!(RoomEventFilter::parse(patterns(PATTERNS_MAX).as_bytes()).is_ok());
    let error = RoomEventFilter::parse(patterns(PATTERNS_MAX + 1).as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "types in the filter has too many types with *: at most 100 are allowed");
    let entries = json!({"not_rooms": vec!["!a:x"; LIST_ENTRIES_MAX + 1]}).to_string();
    assert!(matches!(RoomEventFilter::parse(entries.as_bytes()), Err(FilterError::TooMany { .. })));
    let long = json!({"types": ["x".repeat(256)]}).to_string();
    assert!(matches!(RoomEventFilter::parse(long.as_bytes()), Err(FilterError::Invalid { .. })));
    let bytes = format!("{{\"a\":\"{}\"}}", "x".repeat(FILTER_BYTES_MAX));
    assert_eq!(Filter::parse(bytes.as_bytes()), Err(FilterError::TooLong));
}

#[test]
fn fields_are_kept_byte_for_byte() {
    let event =
        br#"{"content":{"body":"\u0061 ","m.relates_to":{"rel_type":"m.thread","x":1},"n":1.0},"type":"m"}"#;
    let apply = |paths: &[&str]| {
        let fields = EventFields::new(paths.iter().copied());
        String::from_utf8(fields.apply(event).unwrap().into_owned()).unwrap()
    };
    assert_eq!(apply(&[]), "{}");
    assert_eq!(apply(&["type", "absent", "type.deeper"]), r#"{"type":"m"}"#);
    assert_eq!(apply(&["content.body"]), r#"{"content":{"body":"\u0061 "}}"#);
    assert_eq!(apply(&["content.body.deeper"]), r#"{"content":{}}"#);
    assert_eq!(
        apply(&[r"content.m\.relates_to.rel_type", "content.n"]),
        r#"{"content":{"m.relates_to":{"rel_type":"m.thread"},"n":1.0}}"#
    );
    assert_eq!(apply(&["content.m.relates_to"]), r#"{"content":{}}"#);
    assert!(matches!(EventFields::default().apply(event).unwrap(), Cow::Borrowed(_)));
    assert!(EventFields::new(["a"]).apply(b"{").is_err());
    assert!(EventFields::new(["a"]).apply(b"[]").is_err());
}

proptest! {
    #[test]
    fn no_input_panics(json in "[\\[\\]{}\",:a-z_0-9*!@ ]{0,200}", path in "[a.\\\\]{0,80}") {
        let _ = Filter::parse(json.as_bytes());
        let _ = EventFields::new([path.as_str()]).apply(json.as_bytes());
    }
}
