//! Whether a server has been sent what turned its user out of a room.

use super::*;
use crate::view::federation::IsUntoldOfEnd;

#[test]
fn a_server_is_untold_of_what_turned_its_user_out_until_it_has_that() {
    let world = world();
    let is_untold = |user_id: &str| world.engine.read(&IsUntoldOfEnd { room_id: ROOM, user_id }).unwrap();
    world.message(ROOM, ALICE, "before");
    assert!(!is_untold(BOB), "he is in the room");
    for how in ["leave", "ban"] {
        world.member(ROOM, ALICE, BOB, how).unwrap();
        world.message(ROOM, ALICE, "after");
        assert!(is_untold(BOB), "{how}");
        due(&world);
        let next = ask(&world, THERE, None).transaction.unwrap();
        assert!(is_untold(BOB), "{how}: it has not taken that yet");
        assert_eq!(ask(&world, THERE, Some(&next.id)).transaction, None);
        assert!(!is_untold(BOB), "{how}");
        if how == "ban" {
            world.member(ROOM, ALICE, BOB, "leave").unwrap();
        }
        world.join(ROOM, BOB);
    }
    // What its users do it knows.
    world.message(ROOM, ALICE, "before");
    world.leave(ROOM, BOB);
    assert!(!is_untold(BOB));
    // An invite that is taken back.
    world.member(ROOM, ALICE, DAVE, "invite").unwrap();
    assert!(!is_untold(DAVE));
    world.member(ROOM, ALICE, DAVE, "leave").unwrap();
    assert!(is_untold(DAVE) && !is_untold("@erin:fourth.example"));
}

/// Its stay goes on, or ends by what it knows.
#[test]
fn a_server_is_untold_of_what_turned_one_user_out_whoever_else_of_it_is_there() {
    const CAROL: &str = "@carol:there.example";
    let world = world();
    let is_untold = |user_id: &str| world.engine.read(&IsUntoldOfEnd { room_id: ROOM, user_id }).unwrap();
    world.join(ROOM, CAROL);
    world.member(ROOM, ALICE, BOB, "ban").unwrap();
    assert!(is_untold(BOB) && !is_untold(CAROL));
    world.leave(ROOM, CAROL);
    assert!(is_untold(BOB) && !is_untold(CAROL));
    // That it is over he is told of no more, but the ban comes before an invite all the same.
    world.member(ROOM, ALICE, BOB, "leave").unwrap();
    assert!(is_untold(BOB));
    due(&world);
    assert_eq!(
        deliver(&world, THERE).iter().flat_map(|sent| &sent.pdus).map(said).collect::<Vec<_>>(),
        ["ban"]
    );
    assert!(!is_untold(BOB));
}
