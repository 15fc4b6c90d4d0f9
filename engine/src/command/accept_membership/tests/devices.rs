//! What servers that are found in a room are told of the devices there.

use super::*;
use crate::{
    GivenState,
    command::{CompleteState, Prune, PruneProgress},
    device::lists::{self, ListChange},
    store::{schema, schema::DeviceRow},
};

const HOUR_MS: u64 = 60 * 60 * 1000;

/// The users of whose devices another server is told.
fn devices_told_to(world: &World, server: &str) -> Vec<String> {
    let edus = world.deliver(server).into_iter().flat_map(|transaction| transaction.edus);
    let edus = edus.map(|edu| serde_json::from_slice::<Value>(&edu).unwrap());
    let updates = edus.filter(|edu| edu["edu_type"] == "m.device_list_update");
    updates.map(|edu| edu["content"]["user_id"].as_str().unwrap().to_owned()).collect()
}

fn add_device(world: &World) {
    world
        .act(|tx| {
            let alice = tx.intern_user(ALICE)?;
            tx.put(&schema::DEVICES, &(alice, "PHONE".to_owned()), &DeviceRow::default());
            let device = tx.intern_text("PHONE")?;
            lists::changed(tx, alice, [ListChange::Device(device)])
        })
        .unwrap();
}

/// The join comes as an event among others, which another server has let in.
fn comes(here: &World, event: &SignedEvent) {
    let pdus = check(here, event.version, std::slice::from_ref(&event.json));
    let receive = ReceivePdus { room_id: ROOM.into(), pdus, ..ReceivePdus::default() };
    let received = here.engine.write(receive).wait().unwrap();
    assert_eq!(received.outcomes, [(event.event_id.clone(), Outcome::Accepted)]);
}

/// It has asked for Alice's devices when its user came in, and nobody here knew to tell it of the next.
#[test]
fn a_server_of_which_is_heard_late_is_told_of_devices_that_changed_since() {
    let (here, there) = worlds();
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    add_device(&here);
    comes(&here, &event);
    assert_eq!(devices_told_to(&here, THERE), [ALICE]);
    // Another of its users comes, and it was told of everything since.
    comes(&here, &make(&here, &there, Handshake::Join, CAROL).unwrap());
    assert!(devices_told_to(&here, THERE).is_empty());
}

/// Whatever time its joins claim to be of, it was told of all that changed while it was there.
#[test]
fn a_server_that_comes_again_is_told_only_of_devices_that_changed_meanwhile() {
    let (here, there) = worlds();
    add_device(&here);
    comes(&here, &make(&here, &there, Handshake::Join, BOB).unwrap());
    assert_eq!(devices_told_to(&here, THERE), [ALICE]);
    let goes = || comes(&here, &make(&here, &there, Handshake::Leave, BOB).unwrap());
    goes();
    comes(&here, &make(&here, &there, Handshake::Join, BOB).unwrap());
    assert!(devices_told_to(&here, THERE).is_empty());
    goes();
    add_device(&here);
    comes(&here, &make(&here, &there, Handshake::Join, BOB).unwrap());
    assert_eq!(devices_told_to(&here, THERE), [ALICE]);
}

#[test]
fn a_server_that_is_let_in_here_is_told_of_no_devices() {
    let (here, there) = worlds();
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    add_device(&here);
    accepted(&here, Handshake::Join, &event);
    assert!(devices_told_to(&here, THERE).is_empty());
}

#[test]
fn a_server_that_came_in_after_devices_had_changed_is_not_told_of_them() {
    let (here, there) = worlds();
    add_device(&here);
    // By then it is noted which positions had been given out.
    here.pass_ms(HOUR_MS);
    here.engine.write(Prune { progress: Arc::new(PruneProgress::default()) }).wait().unwrap();
    here.pass_ms(4 * HOUR_MS);
    there.pass_ms(5 * HOUR_MS);
    comes(&here, &make(&here, &there, Handshake::Join, BOB).unwrap());
    assert!(devices_told_to(&here, THERE).is_empty());
}

#[test]
fn a_server_that_is_found_in_the_room_when_members_are_known_is_told_of_devices() {
    let (here, there) = worlds();
    let third = World::named("third.example");
    know(&here, &third);
    know(&there, &third);
    here.state(ROOM, ALICE, "m.room.name", "", json!({"name": "big"}));
    let dave = make(&here, &third, Handshake::Join, DAVE).unwrap();
    accepted(&here, Handshake::Join, &dave);
    there
        .act(|tx| {
            let bob = tx.intern_user(BOB)?;
            tx.put(&schema::DEVICES, &(bob, "PHONE".to_owned()), &DeviceRow::default());
            Ok(())
        })
        .unwrap();
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    let (join, _) = accepted(&here, Handshake::Join, &event);
    let whole = answer(&here, &event, false);
    // The resident leaves members out, and does not tell of Dave's server.
    let mut told = answer(&here, &event, true);
    assert!(told.members_omitted);
    told.servers_in_room.retain(|server| **server != *"third.example");
    enter_by(&here, &there, &event, join, &told);
    assert_eq!(devices_told_to(&there, "here.example"), [BOB]);
    assert!(devices_told_to(&there, "third.example").is_empty());
    let state = store(&here, &there, &event, &whole);
    let state = GivenState { event_id: event.event_id.clone(), state };
    let complete = CompleteState { room_id: ROOM.into(), state };
    assert!(there.engine.write(complete).wait().unwrap().is_nothing());
    assert_eq!(servers(&there), servers(&here));
    assert_eq!(devices_told_to(&there, "third.example"), [BOB]);
    assert!(devices_told_to(&there, "here.example").is_empty(), "it has been told");
}
