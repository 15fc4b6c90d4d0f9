//! What servers say of the keys of their users, entry by entry.
//!
//! Invariant: what is malformed, or was not asked for, is left out and counted, so that one server's fault costs nobody what is
//! said of others. Of users whose devices are followed nothing comes this way: they are answered for from what is kept here.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use warren_engine::core::json::splice::raw_member;
use warren_engine::core::json::{members, string_value};
use warren_engine::device::cross_signing::CrossSigningUsage;
use warren_engine::device::told;

use super::RemoteError;
use super::ask::canonical_answer;
use super::queries::OfUsers;
use crate::federation::refusals;

/// What an answer says of the users who were asked for, in those of its parts that are wanted. `users` has what was asked of
/// each: of one-time keys the devices, by their ids.
///
/// Errors: `BadAnswer` if it cannot be read at all.
pub fn read(
    answer: &[u8],
    parts: &'static [&'static str],
    users: &Map<String, Value>,
) -> Result<Vec<(&'static str, OfUsers)>, RemoteError> {
    let answer = canonical_answer(answer)?;
    let (mut found, mut left_out) = (Vec::new(), 0);
    for member in members(&answer) {
        let member = member.map_err(|error| RemoteError::bad_answer("unreadable", error.to_string()))?;
        let Some(part) = parts.iter().find(|part| part.as_bytes() == member.key) else { continue };
        let mut of_users = OfUsers::new();
        for (user_id, said) in entries(member.value) {
            let wanted = users.get(&user_id);
            let kept = wanted.and_then(|wanted| of_user(part, &user_id, wanted, said, &mut left_out));
            match kept {
                Some(kept) => drop(of_users.insert(user_id, kept)),
                None => left_out += 1,
            }
        }
        found.push((*part, of_users));
    }
    refusals::entries(left_out);
    Ok(found)
}

/// What is said of a user, as far as it is passed on. `left_out` grows by what is not.
fn of_user(
    part: &str,
    user_id: &str,
    wanted: &Value,
    said: &[u8],
    left_out: &mut u64,
) -> Option<Box<RawValue>> {
    let kept = match part {
        "device_keys" => {
            kept_entries(said, left_out, |device_id, keys, _| told::device(user_id, device_id, keys))
        }
        "master_keys" => told::cross_signing_key(CrossSigningUsage::Master, user_id, said),
        "self_signing_keys" => told::cross_signing_key(CrossSigningUsage::SelfSigning, user_id, said),
        "one_time_keys" => kept_entries(said, left_out, |device_id, keys, left_out| {
            wanted.get(device_id)?;
            kept_entries(keys, left_out, |name, key, _| told::one_time_key(name, key))
        }),
        _ => None,
    };
    serde_json::from_slice(&kept?).ok()
}

/// The object with those of its entries of which `keep` makes something; the others are counted. Nothing if it is none.
fn kept_entries(
    object: &[u8],
    left_out: &mut u64,
    mut keep: impl FnMut(&str, &[u8], &mut u64) -> Option<Bytes>,
) -> Option<Bytes> {
    if !object.starts_with(b"{") {
        return None;
    }
    let mut out = b"{".to_vec();
    for (name, value) in entries(object) {
        match keep(&name, value, left_out) {
            Some(kept) => raw_member(&mut out, &name, &kept),
            None => *left_out += 1,
        }
    }
    out.push(b'}');
    Some(out.into())
}

/// The entries of an object in canonical JSON, their names' escapes undone. There are none in what is no object.
fn entries(object: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    members(object).flatten().filter_map(|member| {
        let name = string_value(&[b"\"", member.key, b"\""].concat()).map(Cow::into_owned)?;
        Some((name, member.value))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const QUERY: &[&str] = &["device_keys", "master_keys"];
    const CLAIM: &[&str] = &["one_time_keys"];

    /// What of an answer is passed on, and how many of its entries are not.
    fn passed_on(
        answer: &Value,
        parts: &'static [&'static str],
        users: &Value,
    ) -> Result<(Value, u64), RemoteError> {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let users = users.as_object().unwrap();
        let found =
            metrics::with_local_recorder(&recorder, || read(answer.to_string().as_bytes(), parts, users))?;
        let found = found.into_iter().map(|(part, users)| (part.to_owned(), json!(users)));
        let name = r#"warren_federation_refusals_total{what="answer",reason="unfit_entry"} "#;
        let page = recorder.handle().render();
        let count = page.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |n| n.parse().unwrap());
        Ok((Value::Object(found.collect()), count))
    }

    fn device(user_id: &str, device_id: &str) -> Value {
        json!({"user_id": user_id, "device_id": device_id, "algorithms": [], "keys": {}, "signatures": {}})
    }

    #[test]
    fn only_of_those_who_were_asked_for() {
        let users = json!({"@a:b": [], "@\"c\":b": []});
        let answer = json!({
            "device_keys": {"@a:b": {"A": device("@a:b", "A")}, "@\"c\":b": {}, "@d:b": {"D": device("@d:b", "D")}},
            "master_keys": [], "other": {"@a:b": {}},
        });
        let expected = json!({
            "device_keys": {"@a:b": {"A": device("@a:b", "A")}, "@\"c\":b": {}}, "master_keys": {},
        });
        assert_eq!(passed_on(&answer, QUERY, &users).unwrap(), (expected, 1));
        for body in ["", "[]", "{", r#"{"device_keys":{"@a:b":[}}"#] {
            assert!(read(body.as_bytes(), QUERY, users.as_object().unwrap()).is_err(), "{body}");
        }
    }

    #[test]
    fn what_is_malformed_of_one_leaves_what_is_said_of_others() {
        let users = json!({"@a:b": [], "@c:b": []});
        let good = device("@c:b", "C");
        let mut twice = device("@a:b", "A");
        twice["device_id"] = json!("B");
        for (said, left, count) in [
            (Value::Null, None, 1),
            (json!([]), None, 1),
            (json!(5), None, 1),
            (json!({"A": 5, "B": null, "": {}}), Some(json!({})), 3),
            (
                json!({"A": device("@a:b", "A"), "B": device("@c:b", "B")}),
                Some(json!({"A": device("@a:b", "A")})),
                1,
            ),
            (json!({"A": twice}), Some(json!({})), 1),
        ] {
            let answer =
                json!({"device_keys": {"@a:b": said, "@c:b": {"C": good}}, "master_keys": {"@a:b": null}});
            let mut expected = json!({"device_keys": {"@c:b": {"C": good}}, "master_keys": {}});
            if let Some(left) = left {
                expected["device_keys"]["@a:b"] = left;
            }
            assert_eq!(passed_on(&answer, QUERY, &users).unwrap(), (expected, count + 1), "{answer}");
        }
    }

    #[test]
    fn what_no_key_may_have_in_it_costs_no_other_user_theirs() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let said = |answer: &str, parts, users: &Value| {
            let found = read(answer.as_bytes(), parts, users.as_object().unwrap()).unwrap();
            let found = found.into_iter().map(|(part, users)| (part.to_owned(), json!(users)));
            Value::Object(found.collect())
        };
        let (good, key) = (device("@c:b", "C"), json!({"key": "k", "signatures": {}}));
        for odd in [nested(110), nested(20_000), "1".to_owned() + &"0".repeat(30), "1.5".to_owned()] {
            let with =
                |object: &Value| format!(r#"{{"x":{odd},{}"#, object.to_string().trim_start_matches('{'));
            let of_a = format!(r#"{{"A":{},"B":{}}}"#, with(&device("@a:b", "A")), device("@a:b", "B"));
            let answer = format!(
                r#"{{"device_keys":{{"@a:b":{of_a},"@c:b":{{"C":{good}}}}},"master_keys":{{"@a:b":{odd}}},"x":{odd}}}"#
            );
            let left = json!({
                "device_keys": {"@a:b": {"B": device("@a:b", "B")}, "@c:b": {"C": good}}, "master_keys": {},
            });
            assert_eq!(said(&answer, QUERY, &json!({"@a:b": [], "@c:b": []})), left);
            let of_a = format!(r#"{{"signed_curve25519:1":{},"signed_curve25519:2":{key}}}"#, with(&key));
            let answer = format!(r#"{{"one_time_keys":{{"@a:b":{{"A":{of_a}}},"@c:b":{{"C":{odd}}}}}}}"#);
            let left = json!({"one_time_keys": {"@a:b": {"A": {"signed_curve25519:2": key}}, "@c:b": {}}});
            let wanted = json!({"@a:b": {"A": "signed_curve25519"}, "@c:b": {"C": "signed_curve25519"}});
            assert_eq!(said(&answer, CLAIM, &wanted), left);
        }
    }

    #[test]
    fn keys_are_given_of_devices_that_were_asked_for() {
        let users = json!({"@a:b": {"A": "signed_curve25519"}});
        let key = json!({"key": "k", "signatures": {}});
        let good = json!({"signed_curve25519:1": key});
        for (said, left, count) in [
            (json!({"A": good}), Some(json!({"A": good})), 0),
            (json!({"A": good, "B": good}), Some(json!({"A": good})), 1),
            (
                json!({"A": {"signed_curve25519:1": key, "2": key, "signed_curve25519:3": null, "signed_curve25519:4": 5}}),
                Some(json!({"A": good})),
                3,
            ),
            (json!({"A": {"signed_curve25519:1": {"key": 5}}}), Some(json!({"A": {}})), 1),
            (json!({"A": null}), Some(json!({})), 1),
            (json!([]), None, 1),
        ] {
            let mut expected = json!({"one_time_keys": {}});
            if let Some(left) = left {
                expected["one_time_keys"]["@a:b"] = left;
            }
            let answer = json!({"one_time_keys": {"@a:b": said}});
            assert_eq!(passed_on(&answer, CLAIM, &users).unwrap(), (expected, count), "{answer}");
        }
    }
}
