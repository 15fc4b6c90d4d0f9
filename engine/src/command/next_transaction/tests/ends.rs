//! Whether a server has been sent what ended its stay in a room.

use super::*;
use crate::view::federation::IsUntoldOfEnd;

#[test]
fn a_server_is_untold_of_what_turned_its_user_out_until_it_has_that() {
    let world = world();
    let is_untold = |server: &str| world.engine.read(&IsUntoldOfEnd { room_id: ROOM, server }).unwrap();
    world.message(ROOM, ALICE, "before");
    assert!(!is_untold(THERE), "it is in the room");
    for how in ["leave", "ban"] {
        world.member(ROOM, ALICE, BOB, how).unwrap();
        world.message(ROOM, ALICE, "after");
        assert!(is_untold(THERE), "{how}");
        due(&world);
        let next = ask(&world, THERE, None).transaction.unwrap();
        assert!(is_untold(THERE), "{how}: it has not taken that yet");
        assert_eq!(ask(&world, THERE, Some(&next.id)).transaction, None);
        assert!(!is_untold(THERE), "{how}");
        if how == "ban" {
            world.member(ROOM, ALICE, BOB, "leave").unwrap();
        }
        world.join(ROOM, BOB);
    }
    // What its users do it knows.
    world.message(ROOM, ALICE, "before");
    world.leave(ROOM, BOB);
    assert!(!is_untold(THERE));
    // An invite that is taken back.
    world.member(ROOM, ALICE, DAVE, "invite").unwrap();
    assert!(!is_untold(THIRD));
    world.member(ROOM, ALICE, DAVE, "leave").unwrap();
    assert!(is_untold(THIRD) && !is_untold("fourth.example"));
}
