//! What a server is sent that could not be reached for long, and for how long that is known.

use serde_json::json;

use super::*;
use crate::{
    command::{Prune, PruneProgress, ResetDestination, SetTyping},
    fixture::put,
    room::outgoing,
    view::federation::{DestinationOf, EventsById},
};

/// Steps of a round, and some more.
const STAGES: usize = 16;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Time passes, and rows that are of no use go.
fn pass(world: &World, ms: u64) {
    const STEP_MS: u64 = 3 * HOUR_MS;
    let progress = Arc::new(PruneProgress::default());
    for step in 0..=ms / STEP_MS {
        world.pass_ms(if step == 0 { ms % STEP_MS } else { STEP_MS });
        for _ in 0..STAGES {
            world.engine.write(Prune { progress: progress.clone() }).wait().unwrap();
        }
    }
}

fn said_in(transaction: &Transaction) -> Vec<String> {
    transaction.pdus.iter().map(said).collect()
}

/// Something is on its way to the server when it can no longer be reached.
fn goes_silent(world: &World) -> Transaction {
    world.message(ROOM, ALICE, "first");
    due(world);
    let first = ask(world, THERE, None).transaction.unwrap();
    is_silent_for(world, 0);
    first
}

/// It is back, and is sent what it has missed.
fn comes_back(world: &World, first: &Transaction) -> Vec<String> {
    due(world);
    let (mut told, mut acknowledged) = (Vec::new(), first.id.clone());
    while let Some(next) = ask(world, THERE, Some(&acknowledged)).transaction {
        told.extend(said_in(&next));
        acknowledged = next.id;
    }
    told
}

/// The server cannot be reached from now until `ms` later, and is tried once in between.
fn is_silent_for(world: &World, ms: u64) {
    fail(world);
    world.engine.read(&LeaveDestination { destination: THERE, due_ms: 0, was_prompt: None }).unwrap();
    world.pass_ms(ms);
}

#[test]
fn who_was_silent_for_long_is_sent_what_was_last_in_each_room() {
    for (silent_ms, expected) in [(HOUR_MS / 2, 12), (HOUR_MS * 2, 4)] {
        let world = world();
        world.room(OTHER_ROOM, ALICE, None);
        world.join(OTHER_ROOM, BOB);
        world.message(ROOM, ALICE, "first");
        due(&world);
        let first = ask(&world, THERE, None).transaction.unwrap();
        is_silent_for(&world, silent_ms);
        for number in 0..5 {
            world.message(ROOM, ALICE, &number.to_string());
            world.message(OTHER_ROOM, ALICE, &number.to_string());
        }
        due(&world);
        let mut told: Vec<String> = first.pdus.iter().map(said).collect();
        let next = ask(&world, THERE, Some(&first.id)).transaction.unwrap();
        told.extend(next.pdus.iter().map(said));
        // What comes while it catches up comes after that, and all of it.
        world.message(ROOM, ALICE, "last");
        due(&world);
        let last = ask(&world, THERE, Some(&next.id)).transaction.unwrap();
        told.extend(last.pdus.iter().map(said));
        assert_eq!(told.len(), expected, "{told:?}");
        assert_eq!((&*told[0], told.last().unwrap().as_str()), ("first", "last"));
        assert_eq!(&told[told.len() - 3..told.len() - 1], ["4", "4"]);
    }
}

#[test]
fn who_was_not_dealt_with_for_long_catches_up_and_never_was_failing() {
    let world = world();
    due(&world);
    shelve(&world);
    let many: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    many.iter().for_each(|body| drop(world.message(ROOM, ALICE, body)));
    for _ in 0..2 {
        world.pass_ms(DAY_MS);
        assert_eq!(due(&world), [THERE.into()]);
        shelve(&world);
        let status = world.engine.read(&DestinationOf(THERE)).unwrap();
        assert_eq!((status.failures, status.failing_since_ms, status.retry_ms), (0, 0, 0));
    }
    world.pass_ms(DAY_MS);
    due(&world);
    let first = ask(&world, THERE, None).transaction.unwrap();
    assert_eq!(said_in(&first), many[..EVENTS_MAX]);
    // When it has taken something it is told where the room ends, and fetches what is before.
    assert_eq!(comes_back(&world, &first), many[99..]);
    world.message(ROOM, ALICE, "and on");
    world.message(ROOM, ALICE, "and on");
    assert_eq!(comes_back(&world, &first), ["and on", "and on"]);
}

#[test]
fn who_is_tried_when_an_administrator_wants_it_catches_up_all_the_same() {
    let world = world();
    let first = goes_silent(&world);
    let status = || world.engine.read(&DestinationOf(THERE)).unwrap();
    let since_ms = status().failing_since_ms;
    let many: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    many.iter().for_each(|body| drop(world.message(ROOM, ALICE, body)));
    pass(&world, 2 * HOUR_MS);
    for _ in 0..2 {
        fail(&world);
        // It was failing since the first time, also after an administrator had it tried in vain.
        assert_eq!(status().failing_since_ms, since_ms);
        let reset = ResetDestination { destination: THERE.into() };
        assert!(world.engine.write(reset).wait().unwrap());
        let shown = status();
        assert_eq!(
            (shown.failures, shown.failing_since_ms, shown.failed_ms, shown.retry_ms),
            (0, 0, 0, 0),
            "it is shown as one that never failed"
        );
    }
    fail(&world);
    assert_eq!(status().failures, 1, "the pauses begin anew");
    let reset = ResetDestination { destination: THERE.into() };
    assert!(world.engine.write(reset).wait().unwrap());
    // It is told where the room ends, and fetches what is before.
    assert_eq!(comes_back(&world, &first), many[99..]);
    // That is over.
    ["and on", "and so on"].iter().for_each(|body| drop(world.message(ROOM, ALICE, body)));
    assert_eq!(comes_back(&world, &first), ["and on", "and so on"]);
}

/// Somebody's typing fails, and is stale when the server might be tried again.
fn fails_with_what_is_soon_stale(world: &World) {
    let typing = SetTyping { room_id: ROOM.into(), user: ALICE.into(), typing: true, timeout_ms: None };
    world.engine.write(typing).wait().unwrap();
    assert_eq!(due(world), [THERE.into()]);
    let NextUp { transaction, delivered_to, .. } = ask(world, THERE, None);
    assert!(transaction.is_none());
    let edus = EphemeralEdus { destination: THERE, delivered_to, is_all: true, limit: EDUS_MAX };
    assert_eq!(world.engine.read(&edus).unwrap().len(), 1);
    leave_until(world, fail(world));
}

#[test]
fn who_is_well_and_has_nothing_left_for_it_is_failing_no_more() {
    for is_reset in [false, true] {
        let world = world();
        assert_eq!(deliver_all(&world), [sent(THERE, &[])]);
        fails_with_what_is_soon_stale(&world);
        world.pass_ms(27_000);
        assert!(due(&world).is_empty(), "nothing is left by which it would be tried");
        let failures = || world.engine.read(&DestinationOf(THERE)).unwrap().failures;
        assert_eq!(failures(), 1);
        match is_reset {
            true => {
                assert!(world.engine.write(ResetDestination { destination: THERE.into() }).wait().unwrap())
            }
            false => hear_as_served(&world),
        }
        assert_eq!(failures(), 0, "{is_reset}");
        // What it misses later is not to count from then.
        assert_eq!(deliver_all(&world), [sent(THERE, &[])]);
        let row = world.ask(|reader| Ok(outbox::destination(reader, reader.text_num(THERE)?.unwrap())?));
        assert_eq!(row.failing_since_ms, 0);
        assert!(!world.engine.read(&MayBeBack(THERE)).unwrap(), "that is noted once");
        world.message(ROOM, ALICE, "and on");
        assert_eq!(deliver_all(&world), [sent(THERE, &["and on"])]);
    }
}

#[test]
fn who_missed_nothing_while_it_was_not_dealt_with_is_sent_all_that_comes_later() {
    let world = world();
    due(&world);
    shelve(&world);
    world.pass_ms(DAY_MS);
    let since_ms = || {
        world
            .ask(|reader| Ok(outbox::destination(reader, reader.text_num(THERE)?.unwrap())?.failing_since_ms))
    };
    assert!(since_ms() > 0);
    assert_eq!(ask(&world, THERE, None).transaction, None);
    assert_eq!(since_ms(), 0);
}

/// It can fetch nothing of the room any more, so that it is sent all of it, in pieces.
#[test]
fn who_was_turned_out_while_silent_is_sent_all_up_to_that() {
    let many: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    for (silent_ms, kept) in
        [(2 * HOUR_MS, true), (27 * HOUR_MS, true), (13 * DAY_MS, true), (20 * DAY_MS, false)]
    {
        let world = world();
        world.room(OTHER_ROOM, ALICE, None);
        world.join(OTHER_ROOM, BOB);
        let first = goes_silent(&world);
        many.iter().for_each(|body| drop(world.message(ROOM, ALICE, body)));
        world.member(ROOM, ALICE, BOB, "leave").unwrap();
        for body in ["after", "long after"] {
            world.message(ROOM, ALICE, body);
            world.message(OTHER_ROOM, ALICE, body);
        }
        pass(&world, silent_ms);
        let mut expected = if kept { many.clone() } else { Vec::new() };
        // That it is out it is told however late it is.
        expected.extend(["leave", "long after"].map(str::to_owned));
        assert_eq!(comes_back(&world, &first), expected, "after {silent_ms} ms");
    }
}

/// Whether the server that could not be reached gets the event when it asks.
fn is_given(world: &World, event_id: &str) -> bool {
    let event_ids = vec![event_id.to_owned()];
    let asked = EventsById { room_id: None, event_ids, server: THERE.into() };
    world.engine.read(&asked).unwrap().remove(0).is_ok()
}

#[test]
fn who_has_taken_that_it_was_turned_out_has_hours_to_fetch_what_led_to_that() {
    let world = world();
    let early = world.message(ROOM, ALICE, "early");
    world.member(ROOM, ALICE, BOB, "leave").unwrap();
    due(&world);
    assert_eq!(deliver(&world, THERE).len(), 1);
    pass(&world, 2 * HOUR_MS);
    assert!(is_given(&world, &early));
    pass(&world, 12 * HOUR_MS);
    assert!(!is_given(&world, &early));
}

#[test]
fn who_never_takes_that_it_was_turned_out_is_given_what_led_to_that_for_two_weeks() {
    let world = world();
    let first = goes_silent(&world);
    let early = world.message(ROOM, ALICE, "early");
    world.member(ROOM, ALICE, BOB, "ban").unwrap();
    pass(&world, 13 * DAY_MS);
    assert!(is_given(&world, &early));
    pass(&world, 2 * DAY_MS);
    assert!(!is_given(&world, &early));
    // That it is out it is told all the same.
    assert_eq!(comes_back(&world, &first).last().map(String::as_str), Some("ban"));
}

/// Nobody asks this server for what it said there, and others may have been silent as well.
#[test]
fn of_a_room_that_this_server_has_left_who_was_silent_is_sent_all_that_was_said() {
    let many: Vec<String> = (0..70).map(|number| number.to_string()).collect();
    for rejoins in [false, true] {
        let world = world();
        world.room(OTHER_ROOM, ALICE, None);
        world.join(OTHER_ROOM, BOB);
        let first = goes_silent(&world);
        many.iter().for_each(|body| drop(world.message(ROOM, ALICE, body)));
        world.leave(ROOM, ALICE);
        if rejoins {
            world.join(ROOM, ALICE);
        }
        for body in ["not that", "there"] {
            world.message(OTHER_ROOM, ALICE, body);
        }
        pass(&world, 2 * HOUR_MS);
        let mut expected = if rejoins { Vec::new() } else { many.clone() };
        expected.extend([if rejoins { "join" } else { "leave" }, "there"].map(str::to_owned));
        assert_eq!(comes_back(&world, &first), expected, "{rejoins}");
    }
}

/// It was none of the rooms that are fetched when it was looked where these end.
#[test]
fn of_a_room_to_which_this_server_comes_back_meanwhile_who_catches_up_is_sent_the_rest() {
    let many: Vec<String> = (0..120).map(|number| number.to_string()).collect();
    let world = world();
    let first = goes_silent(&world);
    many.iter().for_each(|body| drop(world.message(ROOM, ALICE, body)));
    world.leave(ROOM, ALICE);
    pass(&world, 2 * HOUR_MS);
    due(&world);
    let second = ask(&world, THERE, Some(&first.id)).transaction.unwrap();
    assert_eq!(said_in(&second), many[..EVENTS_MAX]);
    world.join(ROOM, ALICE);
    let expected = [&many[EVENTS_MAX..], &["leave".to_owned(), "join".to_owned()][..]].concat();
    assert_eq!(comes_back(&world, &second), expected);
}

#[test]
fn who_is_turned_out_after_days_of_silence_is_sent_all_up_to_that() {
    let world = world();
    let first = goes_silent(&world);
    world.message(ROOM, ALICE, "early");
    pass(&world, 2 * DAY_MS);
    world.message(ROOM, ALICE, "late");
    world.member(ROOM, ALICE, BOB, "leave").unwrap();
    world.message(ROOM, ALICE, "after");
    pass(&world, 2 * DAY_MS);
    assert_eq!(comes_back(&world, &first), ["early", "late", "leave"]);
}

#[test]
fn that_somebody_of_its_own_was_let_in_last_hides_nothing() {
    let world = world();
    let first = goes_silent(&world);
    world.message(ROOM, ALICE, "second");
    for number in 0..3 {
        let join = world.join(ROOM, &format!("@second-{number}:there.example"));
        world
            .act(|tx| {
                let room = RoomCtx::load(tx, ROOM)?;
                let num = tx.event_num(&join)?.unwrap();
                let event = tx.event(num)?;
                outgoing::pass_on(tx, &room, &event);
                Ok(())
            })
            .unwrap();
    }
    pass(&world, 2 * HOUR_MS);
    assert_eq!(comes_back(&world, &first), ["second"]);
}

/// Sends messages that all follow the same.
fn fork(world: &World, bodies: &[&str]) {
    world
        .act(|tx| {
            let mut room = RoomCtx::load(tx, ROOM)?;
            let before = room.head.extremities.clone();
            let mut ends = Vec::new();
            for body in bodies {
                room.head.extremities = before.clone();
                put(tx, &mut room, ALICE, "m.room.message", None, json!({"body": body}), None)?;
                ends.append(&mut room.head.extremities);
            }
            room.head.extremities = ends;
            room.save(tx);
            Ok(())
        })
        .unwrap();
}

#[test]
fn where_the_room_is_forked_all_its_ends_are_told() {
    let world = world();
    world.join(ROOM, DAVE);
    let first = goes_silent(&world);
    world.message(ROOM, ALICE, "before");
    fork(&world, &["one", "two", "three"]);
    pass(&world, 2 * HOUR_MS);
    assert_eq!(comes_back(&world, &first), ["one", "two", "three"]);
    // What somebody of a third server says behind them is that server's to tell, and it may be gone.
    let first = goes_silent(&world);
    fork(&world, &["four", "five"]);
    world.message(ROOM, DAVE, "there");
    world.message(ROOM, DAVE, "and there");
    pass(&world, 2 * HOUR_MS);
    assert_eq!(comes_back(&world, &first), ["four", "five"]);
}

#[test]
fn which_events_went_out_is_forgotten_when_all_have_them_or_after_two_weeks() {
    let world = world();
    world.join(ROOM, DAVE);
    world.message(ROOM, ALICE, "1");
    world.message(ROOM, ALICE, "2");
    assert_eq!(due(&world).len(), 2);
    assert_eq!(deliver(&world, THERE).len(), 1);
    pass(&world, 2 * DAY_MS);
    assert_eq!(rows(&world), 2);
    let told: Vec<String> = deliver(&world, THIRD).iter().flat_map(said_in).collect();
    assert_eq!(told, ["1", "2"]);
    pass(&world, HOUR_MS);
    // Who comes back after long is sent the last.
    assert_eq!(rows(&world), 1);
    world.message(ROOM, ALICE, "3");
    world.message(ROOM, ALICE, "4");
    pass(&world, 13 * DAY_MS);
    assert_eq!(rows(&world), 2);
    pass(&world, 2 * DAY_MS);
    assert_eq!(rows(&world), 1);
    assert_eq!(deliver_all(&world), [sent(THERE, &["4"]), sent(THIRD, &["4"])]);
}

/// Further rooms that the server is in.
fn other_rooms(world: &World, count: usize) -> Vec<String> {
    let rooms: Vec<String> = (0..count).map(|number| format!("!other-{number}:here.example")).collect();
    for room in &rooms {
        world.room(room, ALICE, None);
        world.join(room, BOB);
    }
    rooms
}

/// It comes back, and is sent what was last in each of very many rooms. Before all of it is there, it is turned out of one.
#[test]
fn who_is_turned_out_while_it_catches_up_is_sent_all_that_it_missed_there() {
    let early: Vec<String> = (0..70).map(|number| format!("early {number}")).collect();
    let world = world();
    let others = other_rooms(&world, 60);
    world.room(OTHER_ROOM, ALICE, None);
    world.join(OTHER_ROOM, BOB);
    let first = goes_silent(&world);
    early.iter().for_each(|body| drop(world.message(ROOM, ALICE, body)));
    // It was turned out of one already, which is sent in its place.
    world.message(OTHER_ROOM, ALICE, "closed");
    world.member(OTHER_ROOM, ALICE, BOB, "leave").unwrap();
    others.iter().for_each(|room| drop(world.message(room, ALICE, room)));
    world.message(ROOM, ALICE, "late");
    pass(&world, 2 * HOUR_MS);
    due(&world);
    let second = ask(&world, THERE, Some(&first.id)).transaction.unwrap();
    let mut told = said_in(&second);
    assert_eq!(told, [&["closed".to_owned(), "leave".to_owned()][..], &others[..48]].concat());
    world.member(ROOM, ALICE, BOB, "leave").unwrap();
    world.message(ROOM, ALICE, "after");
    due(&world);
    let (mut acknowledged, mut sizes) = (second.id, Vec::new());
    while let Some(next) = ask(&world, THERE, Some(&acknowledged)).transaction {
        sizes.push(next.pdus.len());
        told.extend(said_in(&next));
        acknowledged = next.id;
    }
    let expected = [&early[..], &others[48..], &["late".to_owned(), "leave".to_owned()][..]].concat();
    assert_eq!(told[50..], expected);
    assert!(sizes.iter().all(|size| *size <= EVENTS_MAX), "{sizes:?}");
}

/// It has been told where the room ends, and can fetch nothing from there any more.
#[test]
fn who_is_turned_out_while_all_with_which_it_catches_up_is_under_way_is_sent_all_that_it_missed_there() {
    for fails_again in [false, true] {
        let world = world();
        let first = goes_silent(&world);
        world.message(ROOM, ALICE, "early");
        world.message(ROOM, ALICE, "late");
        pass(&world, 2 * HOUR_MS);
        due(&world);
        let second = ask(&world, THERE, Some(&first.id)).transaction.unwrap();
        assert_eq!(said_in(&second), ["late"]);
        if fails_again {
            is_silent_for(&world, HOUR_MS);
        }
        world.member(ROOM, ALICE, BOB, "leave").unwrap();
        world.message(ROOM, ALICE, "after");
        if fails_again {
            pass(&world, HOUR_MS);
        }
        assert_eq!(comes_back(&world, &second), ["early", "late", "leave"], "{fails_again}");
        // That is over: where it comes in again, it is sent what is said from then on, and once.
        world.join(ROOM, BOB);
        world.message(ROOM, ALICE, "again");
        world.member(ROOM, ALICE, BOB, "leave").unwrap();
        assert_eq!(comes_back(&world, &second), ["again", "leave"], "{fails_again}");
    }
}

/// It fails once more when nothing but that is left for it.
#[test]
fn what_is_made_up_for_is_tried_again() {
    let world = world();
    let first = goes_silent(&world);
    world.message(ROOM, ALICE, "early");
    world.message(ROOM, ALICE, "late");
    pass(&world, 2 * HOUR_MS);
    due(&world);
    let second = ask(&world, THERE, Some(&first.id)).transaction.unwrap();
    world.member(ROOM, ALICE, BOB, "leave").unwrap();
    due(&world);
    let mut last = second;
    while let Some(next) = ask(&world, THERE, Some(&last.id)).transaction {
        last = next;
        let retry_ms = fail(&world);
        leave_until(&world, retry_ms);
        world.pass_ms(retry_ms - world.engine.now_ms());
        assert_eq!(due(&world), [Arc::from(THERE)], "{:?}", said_in(&last));
    }
    assert!(said_in(&last).contains(&"leave".to_owned()));
}

fn is_made_up_for(world: &World) -> bool {
    let row = world.ask(|reader| Ok(outbox::destination(reader, reader.text_num(THERE)?.unwrap())?));
    row.making_up.is_some()
}

/// It has left a room by itself when it has taken all with which it caught up, so that nothing is to be sent then.
#[test]
fn who_has_caught_up_is_not_sent_again_what_it_missed() {
    let world = world();
    world.room(OTHER_ROOM, ALICE, None);
    world.join(OTHER_ROOM, BOB);
    let first = goes_silent(&world);
    world.message(ROOM, ALICE, "early");
    world.message(ROOM, ALICE, "late");
    pass(&world, 2 * HOUR_MS);
    due(&world);
    let second = ask(&world, THERE, Some(&first.id)).transaction.unwrap();
    assert_eq!(said_in(&second), ["late"]);
    // Nobody looks at what follows from that before the second is taken.
    world.leave(OTHER_ROOM, BOB);
    assert_eq!(ask(&world, THERE, Some(&second.id)).transaction, None);
    due(&world);
    assert_eq!(ask(&world, THERE, None).transaction, None);
    assert!(!is_made_up_for(&world));
    world.member(ROOM, ALICE, BOB, "leave").unwrap();
    due(&world);
    assert_eq!(said_in(&ask(&world, THERE, None).transaction.unwrap()), ["leave"]);
}

#[test]
fn who_missed_nothing_has_nothing_to_be_made_up_for() {
    let world = world();
    due(&world);
    is_silent_for(&world, 2 * HOUR_MS);
    // It is in none of the rooms with news.
    world.room(OTHER_ROOM, ALICE, None);
    due(&world);
    let took =
        NextTransaction { destination: THERE.into(), acknowledged: None, took_brief: true, begins: true };
    assert_eq!(world.engine.write(took).wait().unwrap().transaction, None);
    assert!(!is_made_up_for(&world));
}

#[test]
fn what_is_made_up_for_ends_where_the_rest_goes_on() {
    let world = world();
    let others = other_rooms(&world, 120);
    let first = goes_silent(&world);
    world.message(ROOM, ALICE, "early");
    others[..60].iter().for_each(|room| drop(world.message(room, ALICE, room)));
    world.message(ROOM, ALICE, "late");
    others[60..].iter().for_each(|room| drop(world.message(room, ALICE, room)));
    pass(&world, 2 * HOUR_MS);
    due(&world);
    let second = ask(&world, THERE, Some(&first.id)).transaction.unwrap();
    assert_eq!(said_in(&second), others[..50]);
    world.member(ROOM, ALICE, BOB, "leave").unwrap();
    let told = comes_back(&world, &second);
    // There are two transactions' worth behind what was made up for.
    let [early, late, leave] = ["early", "late", "leave"].map(str::to_owned);
    let expected = [&[early][..], &others[50..60], &[late], &others[60..], &[leave]].concat();
    assert_eq!(told, expected);
}

#[test]
fn of_many_rows_one_look_leaves_only_the_last() {
    // More than two steps' worth.
    const ROWS: usize = 4_500;
    let world = World::new();
    world.room(ROOM, ALICE, None);
    world
        .act(|tx| {
            let room = tx.room_num(ROOM)?.unwrap();
            for _ in 0..ROWS {
                let pos = tx.next_position();
                tx.put(&schema::OUTGOING_EVENTS, &(room, pos), &EventNum(1));
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(rows(&world), ROWS);
    // They are old enough at the last look only.
    pass(&world, DAY_MS);
    assert_eq!(rows(&world), 1);
}
