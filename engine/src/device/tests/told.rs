//! What is passed on of keys that another server tells of.

use serde_json::{Value, json};

use super::Signer;
use crate::device::{
    cross_signing::CrossSigningUsage,
    told::{TOLD_BYTES_MAX, cross_signing_key, device, one_time_key},
};

const BOB: &str = "@bob:there.example";

/// What is passed on of a device's keys.
fn of_device(device_id: &str, told: &Value) -> Option<Value> {
    let passed_on = device(BOB, device_id, told.to_string().as_bytes())?;
    Some(serde_json::from_slice(&passed_on).unwrap())
}

fn changed(value: &Value, member: &str, to: Value) -> Value {
    let mut changed = value.clone();
    changed[member] = to;
    changed
}

fn without(value: &Value, member: &str) -> Value {
    let mut without = value.clone();
    without.as_object_mut().unwrap().remove(member);
    without
}

#[test]
fn keys_of_devices_are_passed_on_as_those_that_are_kept_here() {
    let keys = Value::from(Signer::new(1).device(BOB, "D"));
    assert_eq!(of_device("D", &keys), Some(keys.clone()));
    assert_eq!(
        of_device("D", &changed(&keys, "signatures", json!({}))),
        Some(changed(&keys, "signatures", json!({})))
    );
    // Of what is not signed the name alone, and no signature by others.
    let mut more = keys.clone();
    more["signatures"]["@eve:there.example"] = json!({"ed25519:E": "x"});
    more["unsigned"] = json!({"device_display_name": "Den", "age": 5});
    let named = changed(&keys, "unsigned", json!({"device_display_name": "Den"}));
    assert_eq!(of_device("D", &more), Some(named));
    for unsigned in [json!(5), json!({}), json!({"device_display_name": 5})] {
        assert_eq!(of_device("D", &changed(&keys, "unsigned", unsigned)), Some(keys.clone()));
    }
}

#[test]
fn keys_of_devices_that_are_none_are_not_passed_on() {
    let keys = Value::from(Signer::new(1).device(BOB, "D"));
    let bad = [
        Value::Null,
        json!([]),
        json!(5),
        json!({}),
        changed(&keys, "user_id", json!("@eve:there.example")),
        changed(&keys, "device_id", json!("E")),
        changed(&keys, "algorithms", json!("m.olm")),
        changed(&keys, "algorithms", json!([5])),
        changed(&keys, "keys", json!([])),
        changed(&keys, "keys", json!({"ed25519:D": 5})),
        changed(&keys, "signatures", json!({BOB: 5})),
        changed(&keys, "signatures", json!({"@eve:there.example": {"ed25519:E": 5}})),
        changed(&keys, "more", json!(1.5)),
        changed(&keys, "unsigned", json!({"padding": "x".repeat(TOLD_BYTES_MAX)})),
        without(&keys, "algorithms"),
        without(&keys, "keys"),
        without(&keys, "signatures"),
    ];
    for told in bad {
        assert_eq!(of_device("D", &told), None, "{told}");
    }
    assert_eq!(of_device("E", &keys), None);
    assert_eq!(of_device("", &changed(&keys, "device_id", json!(""))), None);
}

#[test]
fn cross_signing_keys_are_for_what_they_are_told_for() {
    let (master, device) = (Signer::new(2), Signer::new(1));
    let mut key = master.cross_signing(BOB, "master");
    device.sign(&mut key, BOB, "D");
    let key = Value::from(key);
    let read = |usage, told: &Value| -> Option<Value> {
        let passed_on = cross_signing_key(usage, BOB, told.to_string().as_bytes())?;
        Some(serde_json::from_slice(&passed_on).unwrap())
    };
    let (is_master, is_self_signing) = (CrossSigningUsage::Master, CrossSigningUsage::SelfSigning);
    assert_eq!(read(is_master, &key), Some(key.clone()));
    assert_eq!(read(is_master, &without(&key, "signatures")), Some(without(&key, "signatures")));
    let mut more = key.clone();
    more["signatures"]["@eve:there.example"] = json!({"ed25519:E": "x"});
    more["unsigned"] = json!(5);
    assert_eq!(read(is_master, &more), Some(key.clone()));
    let own = Value::from(master.cross_signing(BOB, "self_signing"));
    assert_eq!(read(is_self_signing, &own), Some(own));
    let bad = [
        Value::Null,
        json!([]),
        json!({}),
        changed(&key, "user_id", json!("@eve:there.example")),
        changed(&key, "usage", json!(["self_signing"])),
        changed(&key, "usage", json!(["master", 5])),
        changed(&key, "usage", json!("master")),
        changed(&key, "keys", json!({})),
        changed(&key, "keys", json!({"ed25519:x": "x"})),
        changed(&key, "signatures", json!([])),
    ];
    for told in bad {
        assert_eq!(read(is_master, &told), None, "{told}");
    }
    assert_eq!(read(is_self_signing, &key), None);
}

#[test]
fn one_time_keys_are_named_and_formed_as_keys_are() {
    let key = json!({"key": "k", "signatures": {BOB: {"ed25519:D": "s"}}});
    let read = |name: &str, told: &Value| one_time_key(name, told.to_string().as_bytes());
    for (name, told) in [
        ("signed_curve25519:A", key.clone()),
        ("signed_curve25519:A", changed(&key, "fallback", json!(true))),
        ("curve25519:A", json!("k")),
    ] {
        assert_eq!(read(name, &told).as_deref(), Some(told.to_string().as_bytes()));
    }
    let bad = [
        ("signed_curve25519", key.clone()),
        (":A", key.clone()),
        ("signed_curve25519:", key.clone()),
        ("signed_curve25519:A", Value::Null),
        ("signed_curve25519:A", json!(5)),
        ("signed_curve25519:A", json!([])),
        ("signed_curve25519:A", json!({"key": 5, "signatures": {}})),
        ("signed_curve25519:A", without(&key, "signatures")),
        ("signed_curve25519:A", changed(&key, "signatures", json!({BOB: 5}))),
        ("signed_curve25519:A", changed(&key, "signatures", json!({BOB: {"ed25519:D": 5}}))),
    ];
    for (name, told) in bad {
        assert_eq!(read(name, &told), None, "{name} {told}");
    }
}
