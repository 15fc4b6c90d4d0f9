//! Plans made by hand in which a user reads back, with what they are to be shown: as much as who was there all along, or as much less
//! as the room hides from them.

use warren_sim::{Deed, Fate, Fault, Plan, Plant, Step, Trouble, User, What, play};

/// Who makes the room, and is there all along.
const HOST: User = User { server: 0, number: 0 };
/// Who comes later, from another server.
const GUEST: User = User { server: 1, number: 0 };
/// Comes from a third server.
const THIRD: User = User { server: 2, number: 0 };
/// The room.
const ROOM: u8 = 0;

fn act(user: User, what: What) -> Step {
    Step::Act { user, deed: Deed::In { room: ROOM, what }, trouble: None, lapse: None }
}

fn create() -> Step {
    Step::Act { user: HOST, deed: Deed::Create { public: true }, trouble: None, lapse: None }
}

/// The guest joins, and the guest's server asks for the members.
fn come_in() -> [Step; 2] {
    [act(GUEST, What::Join), Step::Fetch { server: GUEST.server, answers: u8::MAX, trouble: None }]
}

fn read_with(user: User, answers: u8, fault: Option<Fault>) -> Step {
    let trouble = fault.map(|fault| Trouble { skipped: 0, fault });
    Step::Page { user, room: ROOM, pages: u8::MAX, answers, trouble }
}

fn read(user: User) -> Step {
    read_with(user, u8::MAX, None)
}

fn carry(from: User, to: User) -> Step {
    let (from, to, fate) = (from.server, to.server, Fate::Arrives);
    Step::Carry { from, to, pick: 0, fate, trouble: None, hits_sender: false }
}

/// What is told of each reading, in order, of a run that keeps all promises.
fn readings(steps: Vec<Step>) -> Vec<String> {
    let played = play(&Plan { seed: 1, version: "11", servers: 3, steps }, Plant::Nothing);
    assert_eq!(played.breach, None, "{:#?}", played.story);
    let read = |sentence: &String| Some(sentence.split_once(" reads back in room 1: ")?.1.to_owned());
    played.story.iter().filter_map(read).collect()
}

/// How many events were read, all there are.
fn count(reading: &str) -> usize {
    let number = reading.strip_suffix(" events, to the start").unwrap_or_else(|| panic!("{reading}"));
    number.parse().unwrap()
}

#[test]
fn a_newcomer_reads_what_was_said_before() {
    let mut steps = vec![create(), act(HOST, What::Say), act(HOST, What::Topic), act(HOST, What::Say)];
    steps.extend(come_in());
    steps.extend([read(HOST), read(GUEST), read(GUEST)]);
    let readings = readings(steps);
    assert_eq!(readings.len(), 3);
    assert!(count(&readings[0]) > 5, "who made the room has more than a page: {readings:?}");
    assert_eq!(readings[1], readings[0]);
    assert_eq!(readings[2], readings[0]);
}

#[test]
fn a_page_ends_at_a_gap_while_others_are_asked_and_goes_beyond_if_nobody_can_be() {
    let mut steps = vec![create(), act(HOST, What::Say)];
    steps.extend(come_in());
    steps.push(read_with(GUEST, 0, None));
    steps.extend([Step::Cut { mask: 1 }, read(GUEST), Step::Heal]);
    steps.extend([read(GUEST), read(HOST)]);
    let readings = readings(steps);
    // There is only the join.
    assert_eq!(readings[..2], ["1 events", "1 events, to the start"]);
    assert_eq!(readings[2], readings[3]);
    assert!(count(&readings[2]) > 1);
}

#[test]
fn what_was_said_in_a_room_that_hides_it_is_not_shown_to_who_comes_later() {
    let mut steps = vec![create(), act(HOST, What::Say), act(HOST, What::Visibility("joined"))];
    steps.extend([act(HOST, What::Say), act(HOST, What::Say)]);
    steps.extend(come_in());
    steps.extend([read(HOST), read(GUEST)]);
    let readings = readings(steps);
    // The two messages, and neither what came before nor the change itself.
    assert_eq!(count(&readings[1]) + 2, count(&readings[0]));
}

#[test]
fn who_comes_back_reads_what_was_said_meanwhile() {
    let mut steps = vec![create(), act(HOST, What::Say)];
    steps.extend(come_in());
    steps.push(act(GUEST, What::Leave));
    steps.push(carry(GUEST, HOST));
    steps.extend([act(HOST, What::Say), act(HOST, What::Say)]);
    steps.extend(come_in());
    steps.extend([read(HOST), read(GUEST)]);
    let readings = readings(steps);
    assert_eq!(readings[1], readings[0]);
}

#[test]
fn who_comes_back_by_way_of_one_that_has_not_heard_of_their_leave_reads_all() {
    let mut steps = vec![create()];
    steps.extend(come_in());
    // What is said of it to the guest's server waits for more.
    steps.extend([act(THIRD, What::Join), carry(HOST, GUEST), act(GUEST, What::Leave)]);
    steps.push(act(HOST, What::Say));
    steps.extend(come_in());
    steps.extend([read(HOST), read(GUEST)]);
    let readings = readings(steps);
    // Their own leave is one more, of which the host has not heard.
    assert_eq!(count(&readings[1]), count(&readings[0]) + 1);
}

#[test]
fn whom_a_room_had_shut_out_reads_what_they_may_see_of_that_time() {
    let mut steps = vec![create(), act(HOST, What::Visibility("invited"))];
    steps.extend([act(HOST, What::ShutOut(GUEST.server)), act(HOST, What::LetIn)]);
    steps.extend(come_in());
    steps.extend([read(HOST), read(GUEST)]);
    assert_eq!(readings(steps).len(), 2);
}

#[test]
fn a_reading_that_breaks_off_leaves_all_to_the_next() {
    for (fault, how) in [
        (Fault::Refused, Some("the server fails to write")),
        // It is seen that it was written.
        (Fault::Doubtful, None),
        (Fault::CrashBefore, Some("the server crashes")),
        (Fault::CrashAfter, Some("the server crashes")),
    ] {
        let mut steps = vec![create(), act(HOST, What::Say), act(HOST, What::Say)];
        steps.extend(come_in());
        steps.extend([read_with(GUEST, u8::MAX, Some(fault)), read(GUEST), read(HOST)]);
        let readings = readings(steps);
        assert_eq!(readings[0], how.unwrap_or(&readings[2]), "{fault:?}");
        assert_eq!(readings[1], readings[2], "{fault:?}");
        assert!(count(&readings[1]) > 1, "{fault:?}");
    }
}

#[test]
fn what_was_redacted_is_read_without_its_words() {
    // The second event that is acknowledged; the judge sees that no other is empty.
    let mut steps = vec![create(), act(HOST, What::Say), act(HOST, What::Say), act(HOST, What::Redact(1))];
    steps.extend(come_in());
    steps.extend([read(HOST), read(GUEST)]);
    let readings = readings(steps);
    assert_eq!(readings[1], readings[0]);
}
