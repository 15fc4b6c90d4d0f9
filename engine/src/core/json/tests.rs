//! Tests of canonical JSON: vectors, and properties against `serde_json`.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

const STRICT: Limits = Limits { bytes_max: 1 << 20, strictness: Strictness::Strict };
const LENIENT: Limits = Limits { bytes_max: 1 << 20, strictness: Strictness::Lenient };

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_else(|| panic!("{key} of {case}"))
}

#[test]
fn vectors_give_the_exact_canonical_text() {
    let spec: Value =
        serde_json::from_str(include_str!("../../../vectors/canonical-json/spec.json")).unwrap();
    let extra: Value =
        serde_json::from_str(include_str!("../../../vectors/canonical-json/extra.json")).unwrap();
    for case in spec["cases"].as_array().unwrap().iter().chain(extra["cases"].as_array().unwrap()) {
        let value = parse(text(case, "input").as_bytes(), LENIENT).unwrap();
        assert_eq!(String::from_utf8(canonical(&value)).unwrap(), text(case, "canonical"), "{case}");
        if case["name"] != "spec-10" {
            assert_eq!(parse(text(case, "input").as_bytes(), STRICT).unwrap(), value);
        }
    }
    for case in extra["invalid_in_room_version_6_and_later"].as_array().unwrap() {
        assert!(parse(text(case, "input").as_bytes(), STRICT).is_err(), "{case}");
    }
}

#[test]
fn an_error_says_where_if_there_is_a_text() {
    let said = |error: JsonError| error.to_string();
    let wrong = check(&json!({"a": [1.5]}), Strictness::Strict, 0).unwrap_err();
    assert_eq!(said(wrong), "canonical JSON has no fractions and exponents");
    assert_eq!(
        said(parse(b"[1.5]", STRICT).unwrap_err()),
        "canonical JSON has no fractions and exponents at byte 1"
    );
}

#[test]
fn maps_are_sorted_by_code_point() {
    // Fails if serde_json's `preserve_order` gets switched on anywhere in the build.
    let mut map = Map::new();
    for key in ["b", "a", "\u{1f600}", "\u{ff5e}"] {
        map.insert(key.to_owned(), Value::Null);
    }
    assert_eq!(map.keys().collect::<Vec<_>>(), ["a", "b", "\u{ff5e}", "\u{1f600}"]);
}

#[test]
fn older_rooms_keep_their_numbers() {
    let cases = [
        ("1.0", "1.0"),
        ("-0", "0"),
        ("-0.0", "-0.0"),
        ("1.50", "1.5"),
        ("1e3", "1000"),
        ("1.0e3", "1000.0"),
        ("1e+16", "1e+16"),
        ("0.00001", "1e-05"),
        ("0.0001", "0.0001"),
        ("1.25e-7", "1.25e-07"),
        ("123456789012345680.0", "1.2345678901234568e+17"),
        ("9007199254740993", "9007199254740993"),
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
    ];
    for (input, expected) in cases {
        let value = parse(input.as_bytes(), LENIENT).unwrap();
        assert_eq!(String::from_utf8(canonical(&value)).unwrap(), expected, "{input}");
    }
    for input in ["1e999", "18446744073709551616", "-9223372036854775809"] {
        assert!(
            matches!(parse(input.as_bytes(), LENIENT), Err(JsonError::IntegerRange { at: 0 })),
            "{input}"
        );
    }
}

#[test]
fn limits_hold() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(nested(NESTING_MAX).as_bytes(), STRICT).is_ok());
    assert_eq!(
        parse(nested(NESTING_MAX + 1).as_bytes(), STRICT),
        Err(JsonError::TooDeep { at: NESTING_MAX })
    );
    let small = Limits { bytes_max: 3, ..STRICT };
    assert!(parse(b"[1]", small).is_ok());
    assert_eq!(parse(b"[11]", small), Err(JsonError::TooLarge { bytes: 4, bytes_max: 3 }));
    assert_eq!(parse_object(b"[]", STRICT), Err(JsonError::NotObject));
    let deep = parse(nested(NESTING_MAX).as_bytes(), STRICT).unwrap();
    assert_eq!(check(&deep, Strictness::Strict, 1), Err(JsonError::TooDeep { at: 0 }));
    assert_eq!(check(&json!([1.5]), Strictness::Strict, 0), Err(JsonError::NotInteger { at: 0 }));
    assert_eq!(check(&json!(1u64 << 53), Strictness::Strict, 0), Err(JsonError::IntegerRange { at: 0 }));
    assert_eq!(check(&json!([1.5, 1u64 << 53]), Strictness::Lenient, 0), Ok(()));
}

/// What is made of a text without values between is what is made with them, where there are such values.
fn rewritten_as_parsed(text: &[u8]) {
    let rewritten = canonical_text(text, LENIENT.bytes_max);
    match parse(text, LENIENT).map(|value| canonical(&value)) {
        Err(JsonError::TooDeep { .. } | JsonError::IntegerRange { .. }) => {
            if let Ok(written) = rewritten {
                assert_eq!(canonical_text(&written, LENIENT.bytes_max), Ok(written.clone()));
            }
        }
        parsed => assert_eq!(rewritten, parsed, "{}", String::from_utf8_lossy(text)),
    }
}

#[test]
fn text_becomes_canonical_without_values() {
    for text in [
        r#" {"b" : [ ] , "a":{ "z":1,"y":[{"d":0,"c":0},{}]}, "" : "\u00e9\/" } "#,
        r#"{"a":1,"b":2,"a":{"c":3},"b":[]}"#,
        r#"{"a":1,"a":1,"a":2}"#,
        // Written, an escape is greater than what comes between it and what it stands for.
        r##"{"[":0,"\"":1,"#":2,"\n":3,"\u0001":4," ":5,"\b":6,"\t":7,"\f":8,"\r":9,"\\":10,"\u001f":11,"":12}"##,
        r#"{"\ud83d\ude00":0,"\uff5e":1,"é":2,"\u00e9":3}"#,
        r#"[1.0,1e3,-0,1.5e-9,{"b":9007199254740993,"a":null,"c":true}]"#,
        r#"{"b":1,"a":2"#,
        r#"{"b":1,"a"}"#,
        r#"{"b":1,}"#,
        r#"[1,]"#,
        "[1] 2",
        "{} x",
        "",
        "\"\\ud800\"",
    ] {
        rewritten_as_parsed(text.as_bytes());
    }
    rewritten_as_parsed("[".repeat(NESTING_MAX + 1).as_bytes());
    rewritten_as_parsed(b"{\"\xff\":1}");
    assert_eq!(canonical_text(b"[11]", 3), Err(JsonError::TooLarge { bytes: 4, bytes_max: 3 }));
}

#[test]
fn a_text_keeps_what_no_value_holds() {
    let rewrite = |text: &str| String::from_utf8(canonical_text(text.as_bytes(), 1 << 20).unwrap()).unwrap();
    let huge = format!("-{}", "123456789".repeat(30));
    for number in ["18446744073709551616", "-9223372036854775809", "1e999", &huge] {
        assert!(parse(number.as_bytes(), LENIENT).is_err(), "{number}");
        assert_eq!(
            rewrite(&format!(r#"{{"b": {number} , "a": [{number}]}}"#)),
            format!(r#"{{"a":[{number}],"b":{number}}}"#)
        );
    }
    // What else there is in it is still told from what is not JSON.
    for bad in [r#"[18446744073709551616,]"#, "[1e999 1]", "[01]"] {
        assert!(canonical_text(bad.as_bytes(), 1 << 20).is_err(), "{bad}");
    }
}

#[test]
fn a_text_may_be_nested_as_deeply_as_an_event_is_long() {
    for depth in [NESTING_MAX, NESTING_MAX + 1, 10_000, BODY_NESTING_MAX] {
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(canonical_text(text.as_bytes(), text.len()), Ok(text.clone().into_bytes()), "{depth}");
    }
    let deeper = "[".repeat(BODY_NESTING_MAX + 1);
    let refused = canonical_text(deeper.as_bytes(), deeper.len());
    assert_eq!(refused, Err(JsonError::TooDeep { at: BODY_NESTING_MAX }));
}

#[test]
fn members_of_whatever_size_and_depth_are_put_in_order() {
    let nested = |before: &str, between: &str, behind: &str, depth: usize| {
        format!("{}{between}{}", before.repeat(depth), behind.repeat(depth))
    };
    let long = "x".repeat(3_000);
    for depth in [1, 2, 10, 95, 1_000, 20_000] {
        for inner in ["0", r#"{"a":1,"b":2}"#, &format!(r#""{long}""#)] {
            let came = nested(r#"{"b":"#, inner, r#","a":[{}],"b\n":1,"a":{"d":0}}"#, depth);
            let wanted = nested(r#"{"a":{"d":0},"b":"#, inner, r#","b\n":1}"#, depth);
            let written = canonical_text(came.as_bytes(), came.len()).unwrap();
            assert!(written == wanted.as_bytes(), "{depth} {} bytes", inner.len());
            // Of a doubled key the last counts, whatever its size.
            let doubled = format!(r#"{{"b":{came},"a":{came},"b":5}}"#);
            let written = canonical_text(doubled.as_bytes(), doubled.len()).unwrap();
            assert!(written == format!(r#"{{"a":{wanted},"b":5}}"#).as_bytes(), "{depth} doubled");
        }
    }
}

#[test]
fn what_carries_a_value_may_be_nested_more_deeply() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse_around(nested(NESTING_MAX + 4).as_bytes(), LENIENT, 4).is_ok());
    assert!(parse_around(nested(NESTING_MAX + 5).as_bytes(), LENIENT, 4).is_err());
}

#[test]
fn the_last_of_doubled_keys_wins() {
    for limits in [STRICT, LENIENT] {
        assert_eq!(parse(br#"{"a":1,"a":{"b":2,"b":3}}"#, limits).unwrap(), json!({"a": {"b": 3}}));
    }
}

#[test]
fn spans_refuse_what_is_not_a_canonical_object() {
    for bytes in [
        "",
        "{",
        "}",
        "[]",
        "1",
        "{}x",
        "{,}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1"#,
        r#"{"a":1,}"#,
        r#"{"a":1}}"#,
        r#"{"a":"x}"#,
        r#"{"a":[}"#,
        r#"{ "a":1}"#,
        r#"{"a": 1}"#,
        r#"{"a":1"b":2}"#,
        r#"{"a\"#,
    ] {
        assert!(members(bytes.as_bytes()).any(|member| member.is_err()), "{bytes}");
    }
    assert_eq!(members(b"{}").count(), 0);
}

/// Any value that strict canonical JSON can hold.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-INTEGER_MAX..=INTEGER_MAX).prop_map(Value::from),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(any::<String>(), any_value(), 0..8).prop_map(|map| map.into_iter().collect())
}

proptest! {
    #[test]
    fn written_values_read_back_the_same(value in any_value()) {
        let bytes = canonical(&value);
        let again = parse(&bytes, STRICT).unwrap();
        prop_assert_eq!(&again, &value);
        prop_assert_eq!(canonical(&again), bytes.clone());
        prop_assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), value);
    }

    #[test]
    fn members_in_any_order_are_sorted(members in prop::collection::vec((r#"[ -\[\]\x00-\x1f\\"é\u{ff5e}😀]{0,3}"#, any_value()), 0..8)) {
        let mut text = String::from("{");
        for (index, (key, value)) in members.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            text.push_str(&format!("{comma}{}:{value}", json!(key)));
        }
        text.push('}');
        rewritten_as_parsed(text.as_bytes());
    }

    #[test]
    fn floats_read_back_the_same(float in prop::num::f64::NORMAL | prop::num::f64::ZERO) {
        let bytes = canonical(&json!(float));
        let again = parse(&bytes, LENIENT).unwrap();
        prop_assert_eq!(again.as_f64(), Some(float));
        prop_assert_eq!(canonical(&again), bytes);
    }

    #[test]
    fn loosely_written_json_reads_as_serde_reads_it(value in any_value()) {
        let pretty = serde_json::to_vec_pretty(&value).unwrap();
        prop_assert_eq!(parse(&pretty, STRICT).unwrap(), value);
        rewritten_as_parsed(&pretty);
    }

    #[test]
    fn spans_are_the_members(object in any_object()) {
        let mut bytes = Vec::new();
        write_object(&mut bytes, &object);
        let mut seen = Map::new();
        for member in members(&bytes) {
            let member = member.unwrap();
            prop_assert_eq!(&bytes[member.start..member.start + member.value.len()], member.value);
            let quoted = [b"\"", member.key, b"\""].concat();
            let value: Value = serde_json::from_slice(member.value).unwrap();
            let string = string_value(member.value);
            prop_assert_eq!(string.as_deref(), value.as_str());
            seen.insert(string_value(&quoted).unwrap().into_owned(), value);
        }
        prop_assert_eq!(seen, object);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        rewritten_as_parsed(&bytes);
        let _ = members(&bytes).count();
    }

    #[test]
    fn almost_json_never_panics(text in r#"[{}\[\]",:\\u0-9a-f.eE+\- ]{0,40}"#) {
        rewritten_as_parsed(text.as_bytes());
        if let Ok(value) = parse(text.as_bytes(), LENIENT) {
            prop_assert_eq!(parse(&canonical(&value), LENIENT).unwrap(), value);
        }
        let _ = members(text.as_bytes()).count();
    }
}
