//! Who is taken when, and what is kept for whom.

use super::*;

const ROOM: RoomNum = RoomNum(1);
const NOW_MS: u64 = 1_000;

/// Something is for each of the servers.
fn waiting(servers: std::ops::Range<u32>) -> Waiting {
    let waiting = Waiting::default();
    servers.for_each(|server| waiting.add_room(TextNum(server), ROOM, StreamPos(1)));
    waiting
}

fn take(waiting: &Waiting, limit: usize, laggards_max: usize) -> (Vec<u32>, Option<u64>) {
    let (taken, next_ms) = waiting.take_due(NOW_MS, limit, laggards_max);
    (taken.into_iter().map(|server| server.0).collect(), next_ms)
}

#[test]
fn who_fails_or_is_slow_leaves_room_for_the_others() {
    let waiting = waiting(0..10);
    assert_eq!(take(&waiting, 10, 10).0.len(), 10);
    // Six were slow or failed, those with the smaller numbers last.
    for server in 0..6 {
        waiting.leave(TextNum(server), NOW_MS - u64::from(server), Some(false), NOW_MS);
    }
    (6..10).for_each(|server| waiting.leave(TextNum(server), 0, Some(true), NOW_MS));
    // Those that are left out come when one is left, and not by waiting.
    assert_eq!(take(&waiting, 10, 2), (vec![4, 5, 6, 7, 8, 9], None));
    assert_eq!(take(&waiting, 10, 2), (vec![], None));
    // It was not sent anything: that says nothing.
    waiting.leave(TextNum(5), NOW_MS, None, NOW_MS);
    assert_eq!(take(&waiting, 10, 2), (vec![3], None));
    // One that is prompt again counts for a while: it may be so once in a while, and take everybody's places in between.
    waiting.leave(TextNum(4), NOW_MS, Some(true), NOW_MS);
    assert_eq!(take(&waiting, 10, 2), (vec![2], None));
    waiting.leave(TextNum(3), NOW_MS, Some(true), NOW_MS + LAGGARD_MS);
    assert_eq!(take(&waiting, 10, 2), (vec![1, 3], None));
}

#[test]
fn of_those_that_are_slow_now_few_keep_their_places() {
    let waiting = waiting(0..10);
    waiting.load([(TextNum(9), Pause { due_ms: NOW_MS, ..Pause::default() })], NOW_MS);
    assert_eq!(take(&waiting, 8, 3).0.len(), 8);
    let is_slow = |server| waiting.is_slow(TextNum(server), 3, NOW_MS);
    assert_eq!([0, 1, 2, 0, 3, 4].map(is_slow), [true, true, true, true, false, false]);
    // Their places are for those that may be prompt, and they wait for their turn among their like.
    for server in [3, 4] {
        waiting.leave(TextNum(server), NOW_MS, Some(false), NOW_MS);
    }
    assert_eq!(take(&waiting, 8, 3), (vec![8], None));
    waiting.leave(TextNum(0), NOW_MS, Some(false), NOW_MS);
    assert_eq!(take(&waiting, 8, 3), (vec![9], None));
}

#[test]
fn what_is_held_waits_for_its_time_or_for_something_else() {
    let (waiting, user) = (Waiting::default(), UserNum(1));
    let receipt = Ephemeral::Receipt(ROOM, user, TextNum(9));
    (0..4).for_each(|server| waiting.add_ephemeral(TextNum(server), receipt, NOW_MS, 400));
    // No multiple of the times at which it is looked.
    assert_eq!(take(&waiting, 10, 10), (vec![], Some(1_500)));
    waiting.add_ephemeral(TextNum(0), receipt, NOW_MS + 200, 400);
    waiting.add_room(TextNum(1), ROOM, StreamPos(1));
    waiting.add_ephemeral(TextNum(2), Ephemeral::Presence(user, ROOM), NOW_MS, 0);
    assert_eq!(take(&waiting, 10, 10), (vec![1, 2], Some(1_500)));
    assert_eq!(waiting.take_ephemeral(TextNum(1), 10), [receipt]);
    assert_eq!(waiting.take_ephemeral(TextNum(2), 10), [receipt, Ephemeral::Presence(user, ROOM)]);
    // Somebody else is at one of the others, which fails.
    waiting.add_queued(TextNum(3), StreamPos(1));
    assert_eq!(take(&waiting, 10, 10).0, [3]);
    waiting.leave(TextNum(3), 9_000, Some(false), NOW_MS);
    assert_eq!(waiting.take_due(1_500, 10, 10), (vec![TextNum(0)], Some(9_000)));
    assert_eq!(waiting.take_ephemeral(TextNum(0), 10), [receipt]);
    assert_eq!(waiting.take_ephemeral(TextNum(0), 10), [], "it has taken that");
    waiting.leave(TextNum(0), 0, Some(true), 1_500);
    assert_eq!(waiting.take_due(8_000, 10, 10), (vec![], Some(9_000)), "nothing is sent twice");
}

#[test]
fn of_many_who_fail_each_has_a_share_of_what_is_kept() {
    const SERVERS: u32 = 1_000;
    let waiting = waiting(0..SERVERS);
    take(&waiting, SERVERS as usize, SERVERS as usize);
    (0..SERVERS).for_each(|server| waiting.leave(TextNum(server), 9_000, Some(false), NOW_MS));
    for user in 0..EPHEMERAL_MAX as u64 {
        let receipt = Ephemeral::Receipt(ROOM, UserNum(user), TextNum(9));
        waiting.add_ephemeral(TextNum(0), receipt, NOW_MS, 0);
    }
    assert_eq!(waiting.take_ephemeral(TextNum(0), EPHEMERAL_MAX).len(), 500);
}

#[test]
fn who_failed_before_the_start_is_a_laggard() {
    let waiting = waiting(0..2);
    let failure = Failure { at_ms: NOW_MS, since_ms: NOW_MS, ..Failure::default() };
    let failed = Pause { due_ms: NOW_MS, failure, ..Pause::default() };
    waiting.load([(TextNum(0), Pause::default()), (TextNum(1), failed)], NOW_MS);
    assert_eq!(take(&waiting, 10, 0).0, [0]);
}

#[test]
fn a_pause_from_before_the_clock_was_set_back_is_over() {
    let waiting = waiting(0..2);
    take(&waiting, 2, 2);
    for (server, said_ms) in [(0, NOW_MS - 1), (1, NOW_MS + 1)] {
        waiting.leave(TextNum(server), 1_000 * NOW_MS, Some(false), said_ms);
    }
    let is_backing_off = |server| waiting.is_backing_off(TextNum(server), NOW_MS);
    assert_eq!((is_backing_off(0), is_backing_off(1)), (true, false));
    assert_eq!(take(&waiting, 2, 2), (vec![1], Some(1_000 * NOW_MS)));
}

#[test]
fn who_is_always_due_takes_turns_with_all_others() {
    let waiting = waiting(0..10);
    let mut served = Vec::new();
    for _ in 0..6 {
        let (taken, _) = take(&waiting, 3, 1);
        for server in taken {
            // Something has come for it meanwhile, and the last two are slow.
            waiting.add_room(TextNum(server), ROOM, StreamPos(1));
            let (due_ms, was_prompt) = if server < 8 { (0, true) } else { (NOW_MS, false) };
            waiting.leave(TextNum(server), due_ms, Some(was_prompt), NOW_MS);
            served.push(server);
        }
    }
    let times = |server: u32| served.iter().filter(|one| **one == server).count();
    assert!((0..10).all(|server| (1..=2).contains(&times(server))), "{served:?}");
}

#[test]
fn who_was_sent_things_for_long_waits_for_its_turn_and_is_no_laggard() {
    let waiting = waiting(0..3);
    assert_eq!(take(&waiting, 1, 1).0, [0]);
    // It is not known whether there is more for it.
    waiting.settle(TextNum(0), StreamPos(1), false);
    waiting.leave(TextNum(0), NOW_MS, Some(true), NOW_MS);
    assert_eq!(take(&waiting, 2, 0).0, [1, 2]);
    assert_eq!(take(&waiting, 2, 0), (vec![0], None));
    // Now it is.
    waiting.settle(TextNum(0), StreamPos(1), true);
    waiting.leave(TextNum(0), 0, Some(true), NOW_MS);
    assert_eq!(take(&waiting, 2, 0), (vec![], None));
}

#[test]
fn those_that_are_due_for_longest_come_first() {
    let waiting = waiting(0..4);
    take(&waiting, 4, 4);
    for (server, due_ms) in [(0, 900), (1, 700), (2, 5_000), (3, 800)] {
        waiting.leave(TextNum(server), due_ms, Some(false), 0);
    }
    assert_eq!(take(&waiting, 1, 4), (vec![1], Some(NOW_MS)), "others are due");
    waiting.make_due(TextNum(2), NOW_MS);
    assert_eq!(take(&waiting, 2, 4), (vec![0, 3], Some(NOW_MS)));
    assert_eq!(take(&waiting, 2, 4), (vec![2], None));
}

#[test]
fn what_is_known_of_many_takes_no_memory_when_nothing_waits_for_them() {
    const SERVERS: u32 = 20_000;
    let waiting = waiting(0..SERVERS);
    let places = || waiting.0.lock().servers.capacity();
    assert!(places() >= SERVERS as usize);
    assert_eq!(take(&waiting, SERVERS as usize, 0).0.len(), SERVERS as usize);
    for server in 10..SERVERS {
        waiting.settle(TextNum(server), StreamPos(1), true);
        waiting.leave(TextNum(server), 0, Some(true), NOW_MS);
    }
    assert!(places() <= ROOM_KEPT, "{} places are kept", places());
    // Those that are left are still known.
    (0..10).for_each(|server| waiting.leave(TextNum(server), NOW_MS, None, NOW_MS));
    assert_eq!(take(&waiting, 20, 0), (Vec::from_iter(0..10), None));
}
