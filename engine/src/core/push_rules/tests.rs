//! Push rules against the cases of the specification and, on random rulesets and events, against ruma's evaluation.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use ruma_common::power_levels::NotificationPowerLevels;
use ruma_common::push::{Action, PushConditionPowerLevelsCtx, PushConditionRoomCtx, Ruleset};
use ruma_common::room_version_rules::{AuthorizationRules, RoomPowerLevelsRules};
use ruma_common::serde::Raw;
use ruma_common::{OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};

use super::{
    BODY_PATTERNS_MAX, CONDITIONS_MAX, CompiledRules, EventFeatures, PATTERN_BYTES_MAX,
    QUESTION_MARK_PATTERNS_MAX, RULES_MAX, RoomContext, RulesError, UserContext, evaluate,
};
use crate::core::event::{JsonObject, Pdu};

const ALICE: &str = "@alice:example.org";
const BOB: &str = "@bob:example.org";
const ROOM: &str = "!room:example.org";

/// An event from its JSON for clients.
fn pdu(json: &Value) -> Pdu {
    let text = |name: &str| json.get(name).and_then(Value::as_str).map(Into::into);
    Pdu {
        event_id: "$event".into(),
        room_id: ROOM.into(),
        sender: text("sender").unwrap_or_else(|| BOB.into()),
        kind: text("type").unwrap_or_else(|| "m.room.message".into()),
        state_key: text("state_key"),
        content: json.get("content").and_then(Value::as_object).cloned().unwrap_or_else(JsonObject::new),
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 1,
        origin_server_ts: 1_432_735_824_653,
        redacts: text("redacts"),
        json: Default::default(),
    }
}

/// What one user's rules decide: (rule, notify, highlight, sound).
type Decision = (Option<String>, bool, bool, Option<String>);

fn decide(ruleset: &Ruleset, event: &Value, member_count: u64, display_name: &str, level: i32) -> Decision {
    let event = pdu(event);
    let features = EventFeatures::new(Arc::new(event));
    let rules = CompiledRules::compile(ruleset, ALICE).unwrap();
    let room = RoomContext { member_count, sender_may_notify: &|key| key == "room" && level >= 50 };
    let user = UserContext { user_id: ALICE, display_name: Some(display_name) };
    let outcome = evaluate(&rules, &features, &room, &user);
    let sound = outcome.rule.and_then(|(_, actions)| actions.sound.as_deref().map(str::to_owned));
    (outcome.rule.map(|(rule_id, _)| rule_id.to_owned()), outcome.notify, outcome.highlight, sound)
}

fn oracle(ruleset: &Ruleset, event: &Value, member_count: u64, display_name: &str, level: i32) -> Decision {
    let user: OwnedUserId = UserId::parse(ALICE).unwrap();
    let count = u32::try_from(member_count).unwrap().into();
    let room = RoomId::parse(ROOM).unwrap();
    let levels = BTreeMap::from([(UserId::parse(BOB).unwrap(), level.into())]);
    let rules = RoomPowerLevelsRules::new(&AuthorizationRules::V1, None);
    let levels =
        PushConditionPowerLevelsCtx::new(levels, level.into(), NotificationPowerLevels::new(), rules);
    let context =
        PushConditionRoomCtx::new(room, count, user, display_name.to_owned()).with_power_levels(levels);
    let raw = Raw::<Value>::from_json_string(event.to_string()).unwrap();
    let found = match pin!(ruleset.get_match(&raw, &context)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(found) => found,
        Poll::Pending => panic!("nothing here waits"),
    };
    let actions = found.map(|rule| rule.actions()).unwrap_or_default();
    (
        found.map(|rule| rule.rule_id().to_owned()),
        actions.iter().any(Action::should_notify),
        actions.iter().any(Action::is_highlight),
        actions.iter().find_map(Action::sound).map(|sound| sound.as_str().to_owned()),
    )
}

fn default_rules() -> Ruleset {
    Ruleset::server_default(<&UserId>::try_from(ALICE).unwrap())
}

fn by_default(event: Value, member_count: u64) -> Decision {
    let decision = decide(&default_rules(), &event, member_count, "Alice", 0);
    let mut whole = json!({"sender": BOB, "room_id": ROOM, "event_id": "$event", "type": "m.room.message"});
    whole.as_object_mut().unwrap().extend(event.as_object().unwrap().clone());
    assert_eq!(decision, oracle(&default_rules(), &whole, member_count, "Alice", 0));
    decision
}

fn named(rule_id: &str, notify: bool, highlight: bool, sound: Option<&str>) -> Decision {
    (Some(rule_id.to_owned()), notify, highlight, sound.map(str::to_owned))
}

/// Each default rule of "Predefined Rules", with its actions.
#[test]
fn the_default_rules() {
    let message = json!({"content": {"msgtype": "m.text", "body": "hello"}});
    assert_eq!(by_default(message.clone(), 3), named(".m.rule.message", true, false, None));
    assert_eq!(by_default(message, 2), named(".m.rule.room_one_to_one", true, false, Some("default")));
    let notice = json!({"content": {"msgtype": "m.notice", "body": "hello"}});
    assert_eq!(by_default(notice, 2), named(".m.rule.suppress_notices", false, false, None));
    let invite = json!({"type": "m.room.member", "state_key": ALICE, "content": {"membership": "invite"}});
    assert_eq!(by_default(invite, 9), named(".m.rule.invite_for_me", true, false, Some("default")));
    let other = json!({"type": "m.room.member", "state_key": BOB, "content": {"membership": "invite"}});
    assert_eq!(by_default(other, 9), named(".m.rule.member_event", false, false, None));
    let mention = json!({"content": {"body": "hi", "m.mentions": {"user_ids": ["@c:x", ALICE]}}});
    assert_eq!(by_default(mention, 9), named(".m.rule.is_user_mention", true, true, Some("default")));
    let tombstone = json!({"type": "m.room.tombstone", "state_key": ""});
    assert_eq!(by_default(tombstone, 9), named(".m.rule.tombstone", true, true, None));
    let reaction = json!({"type": "m.reaction"});
    assert_eq!(by_default(reaction, 9), named(".m.rule.reaction", false, false, None));
    let acl = json!({"type": "m.room.server_acl", "state_key": ""});
    assert_eq!(by_default(acl, 9), named(".m.rule.room.server_acl", false, false, None));
    let edit = json!({"content": {"body": "* a", "m.relates_to": {"rel_type": "m.replace"}}});
    assert_eq!(by_default(edit, 9), named(".m.rule.suppress_edits", false, false, None));
    let call = json!({"type": "m.call.invite"});
    assert_eq!(by_default(call, 9), named(".m.rule.call", true, false, Some("ring")));
    let encrypted = json!({"type": "m.room.encrypted"});
    assert_eq!(by_default(encrypted.clone(), 9), named(".m.rule.encrypted", true, false, None));
    let direct = named(".m.rule.encrypted_room_one_to_one", true, false, Some("default"));
    assert_eq!(by_default(encrypted, 2), direct);
    let topic = json!({"type": "m.room.topic", "state_key": "", "content": {"topic": "t"}});
    assert_eq!(by_default(topic, 2), (None, false, false, None));
    let own = json!({"sender": ALICE, "content": {"msgtype": "m.text", "body": "hello"}});
    assert_eq!(by_default(own, 2), (None, false, false, None));
}

#[test]
fn a_room_mention_needs_the_power_level() {
    let event = json!({"content": {"body": "all", "m.mentions": {"room": true}}});
    assert_eq!(
        decide(&default_rules(), &event, 9, "", 50),
        named(".m.rule.is_room_mention", true, true, None)
    );
    assert_eq!(decide(&default_rules(), &event, 9, "", 49), named(".m.rule.message", true, false, None));
}

#[test]
fn the_master_rule_silences_all() {
    let mut ruleset = default_rules();
    ruleset.set_enabled(ruma_common::push::RuleKind::Override, ".m.rule.master", true).unwrap();
    let event = json!({"content": {"body": "hi"}});
    assert_eq!(decide(&ruleset, &event, 2, "", 0), named(".m.rule.master", false, false, None));
    let event = pdu(&event);
    let features = EventFeatures::new(Arc::new(event));
    let room = RoomContext { member_count: 2, sender_may_notify: &|_| true };
    assert!(CompiledRules::compile(&ruleset, ALICE).unwrap().for_event(&features, &room).is_silent());
}

/// Whether a ruleset with one override rule of these conditions matches.
fn holds(conditions: Value, event: Value) -> bool {
    let rule =
        json!({"rule_id": "r", "default": false, "enabled": true, "actions": [], "conditions": conditions});
    let ruleset: Ruleset = serde_json::from_value(json!({"override": [rule]})).unwrap();
    decide(&ruleset, &event, 10, "Alice Liddell", 0).0.is_some()
}

fn event_match(key: &str, pattern: &str, content: Value) -> bool {
    holds(json!([{"kind": "event_match", "key": key, "pattern": pattern}]), json!({"content": content}))
}

/// The examples of `event_match`.
#[test]
fn event_match_as_in_the_specification() {
    for (topic, expected) in [
        (json!("Lunch plans"), true),
        (json!("LUNCH"), true),
        (json!(" lunch"), false),
        (json!("lunc"), false),
        (json!(null), false),
        (json!("lunch\nplans"), true),
    ] {
        assert_eq!(event_match("content.topic", "lunc?*", json!({"topic": topic})), expected, "{topic}");
    }
    assert!(!event_match("content.topic", "*", json!({})));
    for (body, expected) in [
        ("An example event.", true),
        ("exple", true),
        ("An exciting triple-whammy", true),
        ("An exciting\ntriple-whammy", true),
        ("xexample", false),
        ("examples", false),
        ("ex_ample", true),
        ("_exple", false),
    ] {
        assert_eq!(event_match("content.body", "ex*ple", json!({"body": body})), expected, "{body}");
    }
    assert!(event_match("content.body", "??", json!({"body": "so it is"})));
    assert!(!event_match("content.body", "??", json!({"body": "yes"})));
    assert!(event_match("content.body", "CAKE", json!({"body": "Let them eat cake!"})));
}

/// The examples of `event_property_is` and `event_property_contains`, and of escaped paths.
#[test]
fn property_conditions_as_in_the_specification() {
    let is = |key: &str, value: Value, content: Value| {
        holds(
            json!([{"kind": "event_property_is", "key": key, "value": value}]),
            json!({ "content": content }),
        )
    };
    assert!(is(r"content.m\.federate", json!(true), json!({"m.federate": true})));
    assert!(!is(r"content.m\.federate", json!(true), json!({"m.federate": "true"})));
    assert!(!is(r"content.m\.federate", json!(true), json!({"m.federate": 1})));
    assert!(!is("content.m.federate", json!(true), json!({"m.federate": true})));
    assert!(is("content.m.federate", json!(null), json!({"m": {"federate": null}})));
    assert!(is(r"content.m\\foo", json!(-3), json!({"m\\foo": -3})));
    assert!(is(r"content.\x", json!("a"), json!({"\\x": "a"})));
    assert!(is("type", json!("m.room.message"), json!({})));
    assert!(!is("type", json!("M.room.message"), json!({})));
    let contains = |value: Value, list: Value| {
        let condition =
            json!([{"kind": "event_property_contains", "key": "content.alt_aliases", "value": value}]);
        holds(condition, json!({"content": {"alt_aliases": list}}))
    };
    assert!(contains(json!("#myroom:example.com"), json!(["#somewhere:example.org", "#myroom:example.com"])));
    assert!(!contains(json!(":example.com"), json!(["#myroom:example.com"])));
    assert!(!contains(json!("a"), json!("a")));
    assert!(contains(json!(1), json!([{}, [1], 1])));
    assert!(!contains(json!(1), json!([{}, [1]])));
}

#[test]
fn unknown_conditions_never_match() {
    assert!(holds(json!([]), json!({})));
    assert!(!holds(json!([{"kind": "org.example.phase_of_moon"}]), json!({})));
    assert!(!holds(json!([{"kind": "room_member_count", "is": "10"}, {"kind": "x", "y": 1}]), json!({})));
}

#[test]
fn member_counts() {
    for (is, expected) in
        [("10", true), ("==10", true), ("<10", false), ("<=10", true), (">9", true), (">=11", false)]
    {
        assert_eq!(holds(json!([{"kind": "room_member_count", "is": is}]), json!({})), expected, "{is}");
    }
}

#[test]
fn a_display_name_is_words_not_a_pattern() {
    let conditions = json!([{"kind": "contains_display_name"}]);
    let contains = |body: &str| holds(conditions.clone(), json!({"content": {"body": body}}));
    assert!(contains("hi alice liddell!"));
    assert!(!contains("malice liddell"));
    let rule = json!({"rule_id": "r", "default": false, "enabled": true, "actions": [], "conditions": conditions.clone()});
    let ruleset: Ruleset = serde_json::from_value(json!({"override": [rule]})).unwrap();
    assert!(decide(&ruleset, &json!({"content": {"body": "a * b"}}), 1, "*", 0).0.is_some());
    assert!(decide(&ruleset, &json!({"content": {"body": "a b"}}), 1, "*", 0).0.is_none());
    assert!(decide(&ruleset, &json!({"content": {"body": ""}}), 1, "", 0).0.is_none());
}

/// Ids are compared as they are, not as patterns and not without regard to case.
#[test]
fn room_and_sender_rules_mean_one_id() {
    let simple = |id: &str| json!({"rule_id": id, "default": false, "enabled": true, "actions": ["notify"]});
    let ruleset =
        |kind: &str, id: &str| serde_json::from_value::<Ruleset>(json!({kind: [simple(id)]})).unwrap();
    let matches = |ruleset: Ruleset| decide(&ruleset, &json!({}), 3, "", 0).1;
    assert!(matches(ruleset("room", ROOM)));
    assert!(!matches(ruleset("room", "!ROOM:example.org")));
    assert!(!matches(ruleset("room", "!*:example.org")));
    assert!(matches(ruleset("sender", BOB)));
    assert!(!matches(ruleset("sender", "@b?b:example.org")));
}

#[test]
fn historical_actions_are_ignored_and_tweaks_passed_on() {
    let rule = json!({"rule_id": "r", "default": false, "enabled": true, "conditions": [], "actions":
        ["dont_notify", "coalesce", "notify", {"set_tweak": "sound", "value": "a.wav"}, {"set_tweak": "highlight"},
        {"set_tweak": "org.example.light", "value": {"color": "red"}}]});
    let ruleset: Ruleset = serde_json::from_value(json!({"override": [rule]})).unwrap();
    let rules = CompiledRules::compile(&ruleset, ALICE).unwrap();
    let event = pdu(&json!({}));
    let features = EventFeatures::new(Arc::new(event));
    let room = RoomContext { member_count: 1, sender_may_notify: &|_| false };
    let outcome = evaluate(&rules, &features, &room, &UserContext { user_id: ALICE, display_name: None });
    let (_, actions) = outcome.rule.unwrap();
    assert!(outcome.notify && outcome.highlight);
    let tweaks = json!({"sound": "a.wav", "highlight": true, "org.example.light": {"color": "red"}});
    assert_eq!(Value::Object(actions.tweaks.clone()), tweaks);
    let json: Value = serde_json::from_str(&actions.json).unwrap();
    assert_eq!(
        json,
        json!(["notify", {"set_tweak": "sound", "value": "a.wav"}, {"set_tweak": "highlight"},
            {"set_tweak": "org.example.light", "value": {"color": "red"}}])
    );
}

#[test]
fn users_with_default_rules_share_them() {
    let shared = Arc::new(CompiledRules::compile(&default_rules(), ALICE).unwrap());
    let bob = Ruleset::server_default(<&UserId>::try_from(BOB).unwrap());
    let compiled = CompiledRules::compile_shared(&bob, BOB, &shared).unwrap();
    assert!(Arc::ptr_eq(&compiled, &shared));
    let mut changed = bob;
    changed.set_enabled(ruma_common::push::RuleKind::Override, ".m.rule.reaction", false).unwrap();
    assert!(!Arc::ptr_eq(&CompiledRules::compile_shared(&changed, BOB, &shared).unwrap(), &shared));

    // One preparation serves all, and still tells users apart.
    let event =
        pdu(&json!({"sender": "@carol:x", "content": {"body": "a", "m.mentions": {"user_ids": [BOB]}}}));
    let features = EventFeatures::new(Arc::new(event));
    let prepared =
        shared.for_event(&features, &RoomContext { member_count: 9, sender_may_notify: &|_| false });
    assert_eq!(prepared.selection.places.len(), 2);
    let highlight = |user_id| prepared.evaluate(&UserContext { user_id, display_name: None }).highlight;
    assert!(highlight(BOB) && !highlight(ALICE));
    assert!(!prepared.evaluate(&UserContext { user_id: "@carol:x", display_name: None }).notify);

    // Nothing but one rule is left to look at for an ordinary message.
    let event = pdu(&json!({"content": {"body": "a"}}));
    let features = EventFeatures::new(Arc::new(event));
    let prepared =
        shared.for_event(&features, &RoomContext { member_count: 9, sender_may_notify: &|_| false });
    assert_eq!(prepared.selection.places.len(), 1);
}

#[test]
fn costly_rulesets_are_refused() {
    let content = |count: usize, pattern: &str| {
        let rule = |n| json!({"rule_id": format!("r{n}"), "default": false, "enabled": false, "actions": [], "pattern": pattern});
        serde_json::from_value::<Ruleset>(json!({"content": (0..count).map(rule).collect::<Vec<_>>()}))
            .unwrap()
    };
    let compile = |ruleset: &Ruleset| CompiledRules::compile(ruleset, ALICE);
    assert!(compile(&content(BODY_PATTERNS_MAX, "a*")).is_ok());
    assert!(matches!(compile(&content(BODY_PATTERNS_MAX + 1, "a")), Err(RulesError::TooManyPatterns { .. })));
    let error = compile(&content(QUESTION_MARK_PATTERNS_MAX + 1, "a?")).unwrap_err();
    assert_eq!(error.to_string(), "the push rules have more than 16 patterns with ?");
    assert!(compile(&content(1, &"x".repeat(PATTERN_BYTES_MAX))).is_ok());
    assert!(matches!(compile(&content(1, &"x".repeat(256))), Err(RulesError::TooLong { .. })));
    assert!(matches!(compile(&content(1, &"?".repeat(65))), Err(RulesError::TooLong { limit: 64, .. })));
    let rule = |n| json!({"rule_id": format!("!r{n}:x"), "default": false, "enabled": true, "actions": []});
    let many = json!({"room": (0..=RULES_MAX).map(rule).collect::<Vec<_>>()});
    assert_eq!(compile(&serde_json::from_value(many).unwrap()), Err(RulesError::TooManyRules));
    let conditions = vec![json!({"kind": "room_member_count", "is": "2"}); CONDITIONS_MAX + 1];
    let rule =
        json!({"rule_id": "r", "default": false, "enabled": true, "actions": [], "conditions": conditions});
    let ruleset = serde_json::from_value(json!({"underride": [rule]})).unwrap();
    assert!(matches!(compile(&ruleset), Err(RulesError::TooManyConditions { .. })));
}

// The random cases stay off where ruma departs from the specification: it takes display names and the ids of room and sender
// rules for patterns, of wildcards side by side in patterns for bodies only the first is one, `*` in a body does not span
// lines, and an unknown escape in a path does not stand for itself.

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[abé_A -]{0,6}",
        Just(ALICE.to_owned()),
        Just("m.notice".to_owned()),
        Just("invite".to_owned())
    ]
}

fn pattern() -> impl Strategy<Value = String> {
    let has_neighbors = |pattern: &str| ["**", "*?", "?*", "??"].iter().any(|pair| pattern.contains(pair));
    "[abé_A *?-]{0,5}".prop_filter("ruma differs", move |pattern| !has_neighbors(pattern))
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(Value::from),
        (-2..3i64).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null)
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "type",
        "sender",
        "state_key",
        "room_id",
        "content.body",
        "content.msgtype",
        "content.membership",
        r"content.m\.mentions.user_ids",
        r"content.m\.mentions.room",
        r"content.m\.relates_to.rel_type",
        "content.list",
        "content.x",
        "content.x.y",
        "content",
        "absent",
        "",
    ])
    .prop_map(str::to_owned)
}

fn condition() -> impl Strategy<Value = Value> {
    let pattern = prop_oneof![3 => pattern(), 1 => text(), 1 => Just("m.room.*".to_owned())];
    prop_oneof![
        6 => (path(), pattern).prop_map(|(key, pattern)| json!({"kind": "event_match", "key": key, "pattern": pattern})),
        2 => (path(), scalar()).prop_map(|(key, value)| json!({"kind": "event_property_is", "key": key, "value": value})),
        2 => (path(), scalar())
            .prop_map(|(key, value)| json!({"kind": "event_property_contains", "key": key, "value": value})),
        1 => Just(json!({"kind": "contains_display_name"})),
        2 => ("(|==|<|>|<=|>=)", 0..4u8)
            .prop_map(|(prefix, count)| json!({"kind": "room_member_count", "is": format!("{prefix}{count}")})),
        1 => prop::sample::select(vec!["room", "other"])
            .prop_map(|key| json!({"kind": "sender_notification_permission", "key": key})),
        1 => Just(json!({"kind": "org.example.unknown", "value": 1})),
    ]
}

fn actions() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!([]),
        json!(["notify"]),
        json!(["dont_notify"]),
        json!(["notify", {"set_tweak": "highlight"}]),
        json!(["notify", {"set_tweak": "highlight", "value": false}, {"set_tweak": "sound", "value": "default"}]),
    ])
}

fn ruleset() -> impl Strategy<Value = Ruleset> {
    let rule = |rest: BoxedStrategy<Value>| {
        (any::<prop::sample::Index>(), prop::bool::weighted(0.9), actions(), rest).prop_map(
            |(id, enabled, actions, rest)| {
                let ids = ["a", "b", "c", "d", ".m.rule.contains_display_name", ".m.rule.roomnotif",
                    ".m.rule.contains_user_name"];
                let mut rule = json!({"rule_id": id.get(&ids), "default": false, "enabled": enabled, "actions": actions});
                rule.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
                rule
            },
        )
    };
    let conditional = || {
        let conditions =
            prop::collection::vec(condition(), 0..4).prop_map(|list| json!({"conditions": list}));
        prop::collection::vec(rule(conditions.boxed()), 0..3)
    };
    let content = rule(pattern().prop_map(|pattern| json!({"pattern": pattern})).boxed());
    let room = rule(prop::sample::select(vec![json!({"rule_id": ROOM}), json!({"rule_id": "!o:x"})]).boxed());
    let sender =
        rule(prop::sample::select(vec![json!({"rule_id": BOB}), json!({"rule_id": "@o:x"})]).boxed());
    let list = |strategy| prop::collection::vec(strategy, 0..2);
    (
        conditional(),
        prop::collection::vec(content, 0..3),
        list(room.boxed()),
        list(sender.boxed()),
        conditional(),
        any::<bool>(),
    )
        .prop_map(|(override_, content, room, sender, underride, with_defaults)| {
            let json = json!({"override": override_, "content": content, "room": room, "sender": sender,
                "underride": underride});
            let mut ruleset: Ruleset = serde_json::from_value(json).unwrap();
            if with_defaults {
                let defaults = default_rules();
                ruleset.override_.extend(defaults.override_);
                ruleset.underride.extend(defaults.underride);
            }
            ruleset
        })
}

fn event() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(vec![
        "m.room.message",
        "m.room.member",
        "m.room.encrypted",
        "M.Room.Topic",
        "m.reaction",
    ]);
    let sender = prop::sample::select(vec![ALICE, BOB, BOB, "@carol:example.org"]);
    let state_key = prop::option::of(prop::sample::select(vec!["", ALICE, BOB]));
    let property = prop_oneof![
        3 => "[abé_A Liddel-]{0,12}".prop_map(|body| ("body", json!(body))),
        1 => Just(("body", json!("hi Alice Liddell"))),
        1 => text().prop_map(|text| ("msgtype", json!(text))),
        1 => text().prop_map(|text| ("membership", json!(text))),
        1 => prop::sample::select(vec![json!({}), json!({"room": true}), json!({"user_ids": [ALICE]}),
            json!({"user_ids": [BOB], "room": false})]).prop_map(|mentions| ("m.mentions", mentions)),
        1 => Just(("m.relates_to", json!({"rel_type": "m.replace"}))),
        1 => prop::collection::vec(scalar(), 0..3).prop_map(|list| ("list", json!(list))),
        1 => scalar().prop_map(|value| ("x", value)),
        1 => scalar().prop_map(|value| ("x", json!({"y": value}))),
    ];
    let content = prop::collection::vec(property, 0..5).prop_map(|list| {
        list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<JsonObject>()
    });
    (kind, sender, state_key, content).prop_map(|(kind, sender, state_key, content)| {
        let mut event = json!({"type": kind, "sender": sender, "room_id": ROOM, "event_id": "$event", "content": content});
        if let Some(state_key) = state_key {
            event["state_key"] = json!(state_key);
        }
        event
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn decides_as_ruma_does(
        ruleset in ruleset(),
        event in event(),
        member_count in 0..4u64,
        display_name in prop::sample::select(vec!["Alice Liddell", "a", "é-b", "_A"]),
        level in prop::sample::select(vec![0, 49, 50]),
    ) {
        let ours = decide(&ruleset, &event, member_count, display_name, level);
        prop_assert_eq!(ours, oracle(&ruleset, &event, member_count, display_name, level));
    }
}
