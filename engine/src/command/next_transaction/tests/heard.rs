//! A server that could not be reached is heard from: when it is tried again.

use super::*;
use crate::command::SetTyping;

/// Whoever reaches this server and cannot be reached costs no attempt with each of its requests.
#[test]
fn a_sign_of_life_ends_a_pause_at_once_but_not_the_next_one() {
    let world = world();
    world.message(ROOM, ALICE, "1");
    assert_eq!(due(&world).len(), 1);
    ask(&world, THERE, None);
    for _ in 0..3 {
        fail(&world);
    }
    leave_until(&world, fail(&world));
    world.pass_ms(3_000);
    let heard_ms = world.engine.now_ms();
    hear_as_served(&world);
    assert!(!world.engine.read(&MayBeBack(THERE)).unwrap(), "that is noted once");
    assert_eq!(due(&world), [THERE.into()]);
    world.pass_ms(2_000);
    leave_until(&world, fail(&world));
    hear_as_served(&world);
    assert!(!world.engine.read(&MayBeBack(THERE)).unwrap(), "that is noted once");
    let idle = look(&world);
    assert_eq!((idle.destinations.len(), idle.next_ms), (0, Some(heard_ms + 10_000)));
    world.pass_ms(8_000);
    assert_eq!(due(&world), [THERE.into()]);
}

/// That says nothing of what the server takes: it is tried again at once, then every ten seconds, and when it is not heard from the
/// pauses have grown all the same.
#[test]
fn a_sign_of_life_during_an_attempt_counts_after_its_failure() {
    let world = world();
    world.message(ROOM, ALICE, "1");
    let begun_ms = world.engine.now_ms();
    for tried in 0..6 {
        assert_eq!(due(&world).len(), 1);
        ask(&world, THERE, None);
        for _ in 0..3 {
            hear_as_served(&world);
        }
        let due_ms = fail(&world);
        assert_eq!(due_ms, begun_ms + 10_000 * tried);
        leave_until(&world, due_ms);
        hear_as_served(&world);
        if due_ms > world.engine.now_ms() {
            assert_eq!(look(&world).next_ms, Some(due_ms));
        }
        world.pass_ms(due_ms - world.engine.now_ms());
    }
    assert_eq!(due(&world).len(), 1);
    ask(&world, THERE, None);
    assert!(fail(&world) >= world.engine.now_ms() + 250_000, "it has failed six times");
}

/// Whoever types in a room with a server that reaches this one, and cannot be reached, costs no attempt each time.
#[test]
fn a_sign_of_life_is_in_no_hurry_where_nothing_waits() {
    let world = world();
    assert_eq!(due(&world), [THERE.into()], "it is told of the room");
    deliver(&world, THERE);
    for tried in 0..4 {
        let (room_id, user, typing) = (ROOM.into(), ALICE.into(), tried % 2 == 0);
        world.engine.write(SetTyping { room_id, user, typing, timeout_ms: None }).wait().unwrap();
        assert_eq!(due(&world), [THERE.into()], "{tried}");
        let failed_ms = world.engine.now_ms();
        leave_until(&world, fail(&world));
        world.pass_ms(1_000);
        hear_as_served(&world);
        assert!(due(&world).is_empty(), "{tried}");
        world.pass_ms(failed_ms + 10_000 - world.engine.now_ms());
        hear_as_served(&world);
        deliver(&world, THERE);
    }
}

/// While nothing is kept of the attempt but that it has failed.
#[test]
fn a_sign_of_life_between_a_failure_and_its_end_counts_too() {
    let world = world();
    world.message(ROOM, ALICE, "1");
    assert_eq!(due(&world).len(), 1);
    ask(&world, THERE, None);
    for _ in 0..4 {
        fail(&world);
    }
    let due_ms = fail(&world);
    hear_as_served(&world);
    leave_until(&world, due_ms);
    assert_eq!(due(&world), [THERE.into()]);
}
