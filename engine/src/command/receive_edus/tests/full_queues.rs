//! Whoever sends too much to a device has what they send dropped, and nobody else.

use super::*;

#[test]
fn a_server_that_fills_a_queue_pays_for_it_alone() {
    let world = world();
    world.join(ROOM, "@flood:third.example");
    let flood = |messages: std::ops::Range<u32>| {
        let edus = messages.map(|number| {
            let content = json!({
                "sender": "@flood:third.example", "type": "m.t", "message_id": number.to_string(),
                "messages": {ALICE: {"A": {}}},
            });
            json!({"edu_type": "m.direct_to_device", "content": content})
        });
        take(&world, "third.example", &edus.collect::<Vec<_>>()).dropped
    };
    let half = to_device::QUEUE_MESSAGES_MAX / 2;
    for begin in (0..half).step_by(100) {
        assert_eq!(flood(begin..begin + 100), BTreeMap::new());
    }
    assert_eq!(flood(half..half + 100), BTreeMap::from([("queue_full", 100)]));
    // What was not taken is not remembered, either.
    assert_eq!(flood(half..half + 1), BTreeMap::from([("queue_full", 1)]));
    let content = json!({"sender": BOB, "type": "m.t", "message_id": "1", "messages": {ALICE: {"A": {}}}});
    let edu = json!({"edu_type": "m.direct_to_device", "content": content});
    assert_eq!(take(&world, THERE, &[edu]).dropped, BTreeMap::new());
    let last = world.ask(|reader| {
        let (user, device) = (reader.user_num(ALICE)?.unwrap(), reader.text_num("A")?.unwrap());
        let all = to_device::since(reader, user, device, StreamPos::ZERO, reader.pos, usize::MAX)?.0;
        Ok(serde_json::from_slice::<Value>(all.last().unwrap()).unwrap()["sender"].clone())
    });
    assert_eq!(last, BOB);
}

#[test]
fn a_message_that_made_room_for_another_does_not_come_again() {
    const FLOODING: [&str; 2] = ["third.example", "fourth.example"];
    let world = world();
    let direct = |server: &str, number: u32| {
        let content = json!({
            "sender": format!("@flood:{server}"), "type": "m.t", "message_id": number.to_string(),
            "messages": {ALICE: {"A": {}}},
        });
        json!({"edu_type": "m.direct_to_device", "content": content})
    };
    // Each fills half of the queue.
    for server in FLOODING {
        world.join(ROOM, &format!("@flood:{server}"));
        for begin in (0..to_device::QUEUE_MESSAGES_MAX / 2).step_by(100) {
            let edus: Vec<Value> = (begin..begin + 100).map(|number| direct(server, number)).collect();
            assert_eq!(take(&world, server, &edus).dropped, BTreeMap::new());
        }
    }
    // The oldest of one of them makes room.
    let dropped = take(&world, THERE, &[direct(THERE, 0)]).dropped;
    assert_eq!(dropped, BTreeMap::from([("queue_full", 1)]));
    let waiting = || {
        world.ask(|reader| {
            let (user, device) = (reader.user_num(ALICE)?.unwrap(), reader.text_num("A")?.unwrap());
            Ok(to_device::since(reader, user, device, StreamPos::ZERO, reader.pos, usize::MAX)?.0)
        })
    };
    let before = waiting();
    for server in FLOODING {
        let dropped = take(&world, server, &[direct(server, 0)]).dropped;
        assert_eq!(dropped, BTreeMap::from([("repeated", 1)]), "{server}");
    }
    assert!(waiting() == before);
}
