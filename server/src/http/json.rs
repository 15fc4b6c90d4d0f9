//! Request bodies as JSON, with errors that say which member is wrong.
//!
//! Broken JSON and bad UTF-8 are `M_NOT_JSON`, JSON of the wrong shape is `M_BAD_JSON`.

use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use warren_engine::core::json::NESTING_MAX;

use super::ApiError;

/// Reads a JSON object as `T`. Members that `T` does not know are ignored, as the specification asks.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    let text = object_text(body)?;
    serde_json::from_str(text).map_err(|error| describe(text, &error))
}

/// Reads null as if the member were absent, for `deserialize_with` beside `default`: clients whose languages know no absent
/// members write it so.
pub fn null_is_absent<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The text of a body that is one well-formed JSON object, unread otherwise.
pub fn object(body: &[u8]) -> Result<&str, ApiError> {
    let text = object_text(body)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| not_json(&error))?;
    Ok(text)
}

/// The text of a body that is one JSON object which whoever is shown it can read, unread otherwise.
pub fn content(body: &[u8]) -> Result<&str, ApiError> {
    let text = object_text(body)?;
    check_readable(text).map_err(|error| describe(text, &error))?;
    Ok(text)
}

/// Whether readers of JSON may be shown a text: those of other clients would stumble, over all that comes with it. It is nested
/// no deeper than an event, its numbers are finite, its strings Unicode. Nobody signs it, so numbers may have fractions.
pub fn is_readable(text: &str) -> bool {
    check_readable(text).is_ok()
}

fn check_readable(text: &str) -> serde_json::Result<()> {
    let mut reader = serde_json::Deserializer::from_str(text);
    Readable { levels_left: NESTING_MAX }.deserialize(&mut reader)?;
    reader.end()
}

/// Reads JSON without making values of it.
#[derive(Clone, Copy)]
struct Readable {
    levels_left: usize,
}

impl Readable {
    /// One level deeper.
    fn inner<E: de::Error>(self) -> Result<Readable, E> {
        match self.levels_left.checked_sub(1) {
            Some(levels_left) => Ok(Readable { levels_left }),
            None => Err(E::custom(format_args!("it is nested more than {NESTING_MAX} levels deep"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Readable {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.inner::<A::Error>()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.inner::<A::Error>()?;
        while members.next_key::<IgnoredAny>()?.is_some() {
            members.next_value_seed(inner)?;
        }
        Ok(())
    }
}

/// Checks the encoding and that the first character opens an object; an array would else pass for a struct.
fn object_text(body: &[u8]) -> Result<&str, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::not_json("The body is not valid UTF-8"))?;
    if text.trim_start().starts_with('{') {
        return Ok(text);
    }
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| not_json(&error))?;
    Err(ApiError::bad_json("The body must be a JSON object"))
}

fn not_json(error: &serde_json::Error) -> ApiError {
    ApiError::not_json(format!("The body is not JSON: {error}"))
}

fn describe(text: &str, error: &serde_json::Error) -> ApiError {
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return not_json(&error);
    }
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    // What lacks a member is told of at its end, after the last that it has.
    let is_whole = message.starts_with("missing field");
    match member_at(text, error.line(), error.column(), is_whole) {
        Some(member) => ApiError::bad_json(format!("{member}: {message}")),
        None => ApiError::bad_json(format!("The body has the wrong shape: {message}")),
    }
}

/// The dotted path of the member whose value is being read at a line and column of well-formed JSON; if `is_whole`, that of
/// the object that ends there.
fn member_at(text: &str, line: usize, column: usize, is_whole: bool) -> Option<String> {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let end = (start + column).min(text.len());
    let bytes = text.as_bytes().get(..end)?;
    let mut open: Vec<Option<String>> = Vec::new();
    let (mut at, mut last_string) = (0, None);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let from = at + 1;
                at = from;
                while let Some(&inner) = bytes.get(at).filter(|&&inner| inner != b'"') {
                    at += if inner == b'\\' { 2 } else { 1 };
                }
                last_string = text.get(from..at.min(bytes.len())).map(str::to_owned);
            }
            b':' => {
                if let Some(member) = open.last_mut() {
                    *member = last_string.take();
                }
            }
            b',' if at + 1 < end => {
                if let Some(member) = open.last_mut() {
                    *member = None;
                }
            }
            b'{' | b'[' => open.push(None),
            b'}' | b']' if at + 1 < end => {
                open.pop();
            }
            _ => {}
        }
        at += 1;
    }
    if is_whole {
        open.pop();
    }
    let path: Vec<String> = open.into_iter().flatten().collect();
    (!path.is_empty()).then(|| path.join("."))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Login {
        #[serde(rename = "type")]
        _kind: String,
        #[serde(default, rename = "identifier")]
        _identifier: BTreeMap<String, String>,
    }

    fn refusal(body: &[u8]) -> (&'static str, String) {
        let error = parse::<Login>(body).expect_err("must be refused");
        (error.errcode, error.error.into_owned())
    }

    #[test]
    fn tells_broken_from_wrong() {
        assert_eq!(refusal(b"{").0, "M_NOT_JSON");
        assert_eq!(refusal(b"").0, "M_NOT_JSON");
        assert_eq!(refusal(b"{\"type\":\"\xff\"}").0, "M_NOT_JSON");
        assert_eq!(refusal(b"{\"type\": 1, \"x\": }").0, "M_NOT_JSON");
        assert_eq!(refusal(b"[\"m.login.password\", {}]").0, "M_BAD_JSON");
        assert_eq!(refusal(b"{\"type\": 1}").0, "M_BAD_JSON");
        assert!(parse::<Login>(b" {\"type\":\"a\",\"more\":[1]}\n").is_ok());
    }

    #[test]
    fn what_is_shown_to_others_can_be_read() {
        let nested =
            |levels: usize| format!(r#"{{"a":{}1{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
        let good = ["{}", r#"{"a": [1.5, -0, 1e300, 18446744073709551616, null, true, "\ud83d\udc07"]}"#];
        for text in good.map(str::to_owned).into_iter().chain([nested(NESTING_MAX)]) {
            assert_eq!(content(text.as_bytes()).expect("readable"), text);
        }
        let refused = |text: &str| {
            let error = content(text.as_bytes()).expect_err("must be refused");
            (error.errcode, error.error.into_owned())
        };
        for deep in [NESTING_MAX + 1, 20_000] {
            let (errcode, said) = refused(&nested(deep));
            assert!(errcode == "M_BAD_JSON" && said.contains("100 levels"), "{errcode} {said}");
        }
        for (text, member) in [(r#"{"a": {"b": 1e400}}"#, "a.b: "), (r#"{"a": "\ud83d"}"#, "a: ")] {
            let (errcode, said) = refused(text);
            assert!(errcode == "M_BAD_JSON" && said.starts_with(member), "{errcode} {said}");
        }
        for text in ["{", r#"{"a": }"#, "{} {}", "[1"] {
            assert_eq!(refused(text).0, "M_NOT_JSON", "{text}");
        }
        assert_eq!(refused("[]").0, "M_BAD_JSON");
        assert!(is_readable("5") && !is_readable("-1e999"));
    }

    #[test]
    fn null_counts_as_absent_and_nothing_else_does() {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default, deserialize_with = "null_is_absent")]
            names: Vec<String>,
        }
        let names = |body: &[u8]| parse::<Body>(body).map(|body| body.names).map_err(|error| error.errcode);
        assert_eq!(names(b"{}"), Ok(Vec::new()));
        assert_eq!(names(br#"{"names": null}"#), Ok(Vec::new()));
        assert_eq!(names(br#"{"names": ["a"]}"#), Ok(vec!["a".to_owned()]));
        for wrong in [r#"{"names": 5}"#, r#"{"names": [null]}"#, r#"{"names": ""}"#] {
            assert_eq!(names(wrong.as_bytes()), Err("M_BAD_JSON"), "{wrong}");
        }
    }

    #[test]
    fn names_the_member() {
        assert!(refusal(b"{}").1.contains("`type`"));
        assert!(refusal(b"{\"a\": [1, {}],\n \"type\": 1}").1.starts_with("type: "));
        let nested = refusal(br#"{"type": "a", "identifier": {"user": "x", "age": 7}}"#).1;
        assert!(nested.starts_with("identifier.age: "), "{nested}");
    }

    #[test]
    fn names_the_object_that_lacks_a_member() {
        #[derive(Debug, Deserialize)]
        struct Outer {
            #[serde(rename = "inner")]
            _inner: Login,
        }
        let lacks = refusal(br#"{"limit": 5}"#).1;
        assert_eq!(lacks, "The body has the wrong shape: missing field `type`");
        for body in [r#"{"inner": {"limit": [5]}, "z": {}}"#, r#"{"z": 1, "inner": {"limit": {"a": 5}}}"#] {
            let error = parse::<Outer>(body.as_bytes()).expect_err("must be refused");
            assert_eq!(error.error, "inner: missing field `type`", "{body}");
        }
    }
}
