//! Messages to devices.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{kind, register};
use crate::{
    check::Check,
    command::{DeleteToDevice, DeviceMessage, RemoveDevices, SendToDevice, WhichDevices},
    core::num::StreamPos,
    device::to_device,
    error::Result,
    fixture::World,
    outbox::shares::Sender,
    store::schema,
};

fn send(world: &World, to: &[(&str, &str)], content: &str, transaction: &str) -> Result<()> {
    let messages = to.iter().map(|(user_id, device_id)| DeviceMessage {
        user_id: (*user_id).to_owned(),
        device_id: (*device_id).to_owned(),
        content: Bytes::copy_from_slice(content.as_bytes()),
    });
    let command = SendToDevice {
        sender: super::user_id("sender"),
        kind: "m.test".to_owned(),
        messages: messages.collect(),
        transaction: Some(("S".to_owned(), transaction.to_owned())),
    };
    world.engine.write(command).wait()
}

fn read(
    world: &World,
    user: &str,
    device_id: &str,
    after: StreamPos,
    limit: usize,
) -> (Vec<Value>, StreamPos) {
    let (messages, last) = world.ask(|reader| {
        let Some(device) = reader.text_num(device_id)? else { return Ok((Vec::new(), reader.pos)) };
        to_device::since(reader, reader.user_num(user)?.unwrap(), device, after, reader.pos, limit)
    });
    (messages.iter().map(|message| serde_json::from_slice(message).unwrap()).collect(), last)
}

fn all(world: &World, user: &str, device_id: &str) -> Vec<Value> {
    read(world, user, device_id, StreamPos::ZERO, usize::MAX).0
}

fn acknowledge(world: &World, user: &str, up_to: StreamPos) {
    let command = DeleteToDevice { user_id: user.to_owned(), device_id: "D".to_owned(), up_to };
    world.engine.write(command).wait().unwrap();
}

#[test]
fn a_message_reaches_the_devices_that_it_names() {
    let world = World::new();
    register(&world, "sender", &["S"]);
    let (alice, bob) = (register(&world, "alice", &["D", "E"]), register(&world, "bob", &["D"]));
    send(&world, &[(&alice, "*"), (&alice, "D"), (&alice, "X"), ("@nobody:here.example", "*")], "{}", "1")
        .unwrap();
    let event = json!({"content": {}, "sender": super::user_id("sender"), "type": "m.test"});
    for device_id in ["D", "E"] {
        assert_eq!(all(&world, &alice, device_id), std::slice::from_ref(&event));
    }
    assert!(all(&world, &bob, "D").is_empty());
    assert!(all(&world, &alice, "X").is_empty());
}

#[test]
fn what_is_no_message_is_refused_whole() {
    let world = World::new();
    register(&world, "sender", &["S"]);
    let alice = register(&world, "alice", &["D"]);
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
    for content in ["[]", "1", "{", &deep] {
        assert_eq!(kind(send(&world, &[(&alice, "D")], content, "1")), "invalid");
    }
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(to_device::MESSAGE_BYTES_MAX));
    assert_eq!(kind(send(&world, &[(&alice, "D")], &large, "1")), "too large");
    let ids: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let many = register(&world, "many", &ids.iter().map(String::as_str).collect::<Vec<_>>());
    let half = format!("{{\"a\":\"{}\"}}", "x".repeat(to_device::MESSAGE_BYTES_MAX - 100));
    assert_eq!(kind(send(&world, &[(&many, "*")], &half, "1")), "too large");
    assert!(all(&world, &many, "0").is_empty());
    assert_eq!(kind(send(&world, &[(&alice, "D")], "{}", "1")), "ok", "the transaction was not used up");
    assert_eq!(all(&world, &alice, "D").len(), 1);
}

/// Another server, by its number among those that there are.
fn server(world: &World, number: usize) -> String {
    let name = format!("{number}.example");
    world.act(|tx| tx.intern_text(&name).map(drop).map_err(Into::into)).unwrap();
    name
}

/// Puts messages of a user of another server into the queue of Alice's device, as they come from there.
fn flood(world: &World, alice: &str, server: &str, count: u32) {
    let sender = format!("@flood:{server}");
    let event = to_device::event(&sender, "m.test", b"{}").unwrap();
    for begin in (0..count).step_by(1_000) {
        world
            .act(|tx| {
                let queue = (tx.intern_user(alice)?, tx.intern_text("D")?);
                let sender = Sender::Elsewhere(tx.intern_text(server)?);
                for _ in begin..count.min(begin + 1_000) {
                    let pos = tx.next_position();
                    to_device::enqueue(tx, queue, pos, sender, &event)?;
                }
                Ok(())
            })
            .unwrap();
    }
}

/// How many messages of each sender wait for Alice's device.
fn shares(world: &World, alice: &str) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for message in all(world, alice, "D") {
        *shares.entry(message["sender"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    shares
}

fn assert_sound(world: &World) {
    let report = world.engine.read(&Check { progress: &|_, _| {} }).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

#[test]
fn one_sender_fills_half_of_a_queue_until_it_is_read() {
    let half = to_device::QUEUE_MESSAGES_MAX / 2;
    let world = World::new();
    let (sender, alice) = (register(&world, "sender", &["S"]), register(&world, "alice", &["D"]));
    let flooding = server(&world, 1);
    flood(&world, &alice, &flooding, half + 100);
    assert_eq!(all(&world, &alice, "D").len(), half as usize);
    assert_sound(&world);
    let last = world.engine.position();
    for transaction in ["1", "2"] {
        send(&world, &[(&alice, "D")], "{}", transaction).unwrap();
    }
    assert_eq!(shares(&world, &alice)[&sender], 2);
    acknowledge(&world, &alice, last);
    assert_sound(&world);
    flood(&world, &alice, &flooding, 1);
    assert_eq!(all(&world, &alice, "D").len(), 3);
}

#[test]
fn a_full_queue_loses_the_oldest_of_whoever_has_most() {
    let max = to_device::QUEUE_MESSAGES_MAX;
    let world = World::new();
    let (sender, alice) = (register(&world, "sender", &["S"]), register(&world, "alice", &["D"]));
    send(&world, &[(&alice, "D")], "{}", "first").unwrap();
    let [large, small] = [1, 2].map(|number| server(&world, number));
    flood(&world, &alice, &large, max / 2);
    flood(&world, &alice, &small, max / 2 - 1);
    assert_eq!(all(&world, &alice, "D").len(), max as usize);
    let second = || read(&world, &alice, "D", StreamPos::ZERO, 2).1;
    let before = second();
    // Whoever has most pays for it, and whoever else would have as much.
    for transaction in ["second", "third"] {
        send(&world, &[(&alice, "D")], "{}", transaction).unwrap();
    }
    flood(&world, &alice, &small, 100);
    let share = |server: &str| shares(&world, &alice)[&format!("@flood:{server}")] as u32;
    assert_eq!(shares(&world, &alice)[&sender], 3);
    assert_eq!((share(&large), share(&small)), (max / 2 - 2, max / 2 - 1));
    assert!(second() > before, "the oldest went");
    assert_eq!(all(&world, &alice, "D").len(), max as usize);
    assert_sound(&world);
}

#[test]
fn no_number_of_servers_takes_what_is_for_users_of_this_one() {
    let max = to_device::QUEUE_MESSAGES_MAX;
    let world = World::new();
    let (sender, alice) = (register(&world, "sender", &["S"]), register(&world, "alice", &["D"]));
    for number in 0..100 {
        flood(&world, &alice, &server(&world, number), max / 100);
    }
    for number in 0..max / 50 {
        send(&world, &[(&alice, "D")], "{}", &number.to_string()).unwrap();
    }
    // More than any server has, and none of it goes.
    flood(&world, &alice, &server(&world, 100), max / 100);
    assert_eq!(shares(&world, &alice)[&sender], (max / 50) as usize);
    assert_eq!(all(&world, &alice, "D").len(), max as usize);
    assert_sound(&world);
}

#[test]
fn a_queue_from_before_senders_were_counted_is_counted_when_it_is_needed() {
    let max = to_device::QUEUE_MESSAGES_MAX;
    let world = World::new();
    let (sender, alice) = (register(&world, "sender", &["S"]), register(&world, "alice", &["D"]));
    let flooding = server(&world, 1);
    let event = to_device::event(&format!("@flood:{flooding}"), "m.test", b"{}").unwrap();
    world
        .act(|tx| {
            let (user, device) = (tx.intern_user(&alice)?, tx.intern_text("D")?);
            for _ in 0..max {
                let pos = tx.next_position();
                tx.put(&schema::TO_DEVICE, &(user, device, pos), &event);
            }
            tx.put(&schema::TO_DEVICE_COUNTS, &(user, device), &max);
            Ok(())
        })
        .unwrap();
    assert_sound(&world);
    let (_, some) = read(&world, &alice, "D", StreamPos::ZERO, 10);
    acknowledge(&world, &alice, some);
    for number in 0..20 {
        send(&world, &[(&alice, "D")], "{}", &number.to_string()).unwrap();
    }
    let expected = [(format!("@flood:{flooding}"), max as usize - 20), (sender, 20)];
    assert_eq!(shares(&world, &alice), BTreeMap::from(expected));
    assert_sound(&world);
    // Of a device that is gone nothing is left.
    let devices = WhichDevices::All;
    world.engine.write(RemoveDevices { user_id: alice, devices }).wait().unwrap();
    assert_sound(&world);
}

#[test]
fn a_removed_device_loses_its_messages() {
    let world = World::new();
    register(&world, "sender", &["S"]);
    let alice = register(&world, "alice", &["D"]);
    send(&world, &[(&alice, "D")], "{}", "1").unwrap();
    let remove = RemoveDevices { user_id: alice.clone(), devices: WhichDevices::All };
    world.engine.write(remove).wait().unwrap();
    assert!(all(&world, &alice, "D").is_empty());
    register(&world, "alice", &["D"]);
    assert!(all(&world, &alice, "D").is_empty(), "not even for a new device of this id");
}

/// What clients do.
#[derive(Clone, Debug)]
enum Step {
    /// Sends a message under a new transaction.
    Send,
    /// Sends the last message again, as if the answer had been lost.
    Again,
    /// Syncs with the token of the last sync, taking at most so many messages.
    Sync(usize),
    /// Syncs with the token before the last, as if the answer had been lost.
    SyncAgain,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A device whose answers may be lost gets each message once, in the order in which they were sent.
    #[test]
    fn messages_come_once_and_in_order(steps in proptest::collection::vec(
        prop_oneof![
            3 => Just(Step::Send),
            1 => Just(Step::Again),
            2 => (1usize..4).prop_map(Step::Sync),
            1 => Just(Step::SyncAgain),
        ],
        0..60,
    )) {
        let world = World::new();
        register(&world, "sender", &["S"]);
        let alice = register(&world, "alice", &["D"]);
        let (mut sent, mut received) = (0, Vec::new());
        let (mut token, mut unconfirmed) = (StreamPos::ZERO, Vec::new());
        let sync = |token: &mut StreamPos, received: &mut Vec<Value>, unconfirmed: &mut Vec<Value>, limit| {
            // The token confirms what the sync that gave it out has delivered.
            received.append(unconfirmed);
            acknowledge(&world, &alice, *token);
            (*unconfirmed, *token) = read(&world, &alice, "D", *token, limit);
        };
        for step in steps {
            match step {
                Step::Send => {
                    sent += 1;
                    send(&world, &[(&alice, "D")], &format!("{{\"n\":{sent}}}"), &sent.to_string()).unwrap();
                }
                Step::Again if sent > 0 => {
                    send(&world, &[(&alice, "D")], "{\"n\":0}", &sent.to_string()).unwrap();
                }
                Step::Again => {}
                Step::Sync(limit) => sync(&mut token, &mut received, &mut unconfirmed, limit),
                Step::SyncAgain => {
                    // The same question as the one whose answer was lost: nothing of it has been confirmed.
                    let again = read(&world, &alice, "D", token, usize::MAX).0;
                    prop_assert!(again.len() + unconfirmed.len() + received.len() <= sent);
                }
            }
        }
        sync(&mut token, &mut received, &mut unconfirmed, usize::MAX);
        sync(&mut token, &mut received, &mut unconfirmed, usize::MAX);
        let numbers: Vec<_> = received.iter().map(|event| event["content"]["n"].as_u64().unwrap()).collect();
        prop_assert_eq!(numbers, (1..=sent as u64).collect::<Vec<_>>());
        prop_assert!(all(&world, &alice, "D").is_empty(), "what was received is not kept");
    }
}
