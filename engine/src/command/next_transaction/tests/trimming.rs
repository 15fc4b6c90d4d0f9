//! What is left of the queue of a server that cannot be reached.

use serde_json::json;

use super::{
    edus::{federated, message, send, told},
    *,
};
use crate::{
    account::NewSession,
    check::Check,
    command::LogIn,
    core::num::UserNum,
    device::tests::{Signer, register, upload_device},
};

#[test]
fn a_dead_servers_queue_keeps_only_the_last_of_each_user() {
    let world = federated();
    for seed in 1..6 {
        upload_device(&world, ALICE, "A", Signer::new(seed).device(ALICE, "A")).unwrap();
    }
    fail(&world);
    let told = told(&world);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1["keys"]["keys"]["ed25519:A"], Signer::new(5).public());
}

#[test]
fn the_queue_of_a_server_that_is_not_dealt_with_keeps_only_the_last_of_each_user() {
    let world = federated();
    for seed in 1..6 {
        upload_device(&world, ALICE, "A", Signer::new(seed).device(ALICE, "A")).unwrap();
        assert_eq!(due(&world), [THERE.into()]);
        let due_ms = shelve(&world);
        assert!(due(&world).is_empty(), "it is looked at once a day");
        world.pass_ms(due_ms - world.engine.now_ms());
    }
    let told = told(&world);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1["keys"]["keys"]["ed25519:A"], Signer::new(5).public());
}

#[test]
fn a_dead_servers_queue_does_not_grow_with_logins_and_tells_of_the_change_when_it_is_back() {
    let world = federated();
    let carol = register(&world, "carol", &[]);
    world.join(ROOM, &carol);
    let _ = deliver_all(&world);
    let known = world
        .ask(|reader| Ok(reader.get(&schema::DEVICE_LIST_POSITIONS, &reader.user_num(ALICE)?.unwrap())?));
    let log_in = |user_id: &str, count: usize| {
        for _ in 0..count {
            let session = NewSession::default();
            let log_in = LogIn { user_id: user_id.to_owned(), proven_hash: None, session };
            world.engine.write(log_in).wait().unwrap();
        }
    };
    let fail = || fail(&world);
    let waiting = || {
        world.ask(|reader| {
            let mut found = 0;
            let server = reader.text_num(THERE)?.unwrap();
            reader.scan(&schema::OUTGOING_EDUS, &server, Direction::Forward, |_, _| {
                found += 1;
                true
            })?;
            Ok(found)
        })
    };
    for _ in 0..3 {
        log_in(ALICE, 20);
        log_in(&carol, 20);
        fail();
        assert_eq!(waiting(), 2);
    }
    // Who has gone out of the room is no business of the server.
    world.leave(ROOM, &carol);
    fail();
    assert_eq!(waiting(), 1);
    let told = told(&world);
    let [(kind, update)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((kind.as_str(), &update["user_id"]), ("m.device_list_update", &json!(ALICE)));
    let before = update["prev_id"][0].as_i64();
    assert!(before.is_some() && before != known.map(|known| known.0), "it asks for the whole list");
    // All over again.
    log_in(ALICE, 20);
    fail();
    assert_eq!(waiting(), 1);
    let report = world.engine.read(&Check { progress: &|_, _| {} }).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

/// A server that comes and goes is not to have all of a long queue looked at again whenever it has gone.
#[test]
fn a_queue_that_was_looked_at_is_not_looked_at_again_until_it_is_empty() {
    let world = federated();
    for number in 0..150 {
        send(&world, vec![message(BOB, "B", &json!({}))], &number.to_string());
    }
    due(&world);
    let first = ask(&world, THERE, None).transaction.unwrap();
    fail(&world);
    let is_known = || {
        world.ask(|reader| {
            let server = reader.text_num(THERE)?.unwrap();
            let mut found = false;
            reader.scan(
                &schema::OUTGOING_LISTS,
                &server,
                Direction::Forward,
                |_: (TextNum, UserNum, u8), _| {
                    found = true;
                    false
                },
            )?;
            Ok(found)
        })
    };
    assert!(is_known());
    let second = ask(&world, THERE, Some(&first.id)).transaction.unwrap();
    assert!(!second.edus.is_empty() && is_known());
    assert_eq!(ask(&world, THERE, Some(&second.id)).transaction, None);
    assert!(!is_known());
}

#[test]
fn what_is_in_flight_is_left_when_a_dead_servers_queue_is_trimmed() {
    let world = federated();
    upload_device(&world, ALICE, "A", Signer::new(1).device(ALICE, "A")).unwrap();
    due(&world);
    let first = ask(&world, THERE, None).transaction.unwrap();
    for seed in 2..6 {
        upload_device(&world, ALICE, "A", Signer::new(seed).device(ALICE, "A")).unwrap();
        fail(&world);
    }
    let again = ask(&world, THERE, None).transaction.unwrap();
    assert_eq!((again.id, again.edus.len()), (first.id.clone(), first.edus.len()));
    due(&world);
    let second = ask(&world, THERE, Some(&first.id)).transaction.unwrap();
    assert_eq!(second.edus.len(), 1, "the last of those that came behind it");
}
