//! A room that is entered again by way of a server that was not told yet of what users did here before they left it.

use super::*;

/// Bob's server has left the room, and banned somebody before; it goes on there without having heard of either.
fn left_untold() -> (World, World) {
    let (here, there) = worlds();
    here.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    for user in [BOB, CAROL] {
        come(&here, &there, user, false);
    }
    pass(&there, &here);
    there.member(ROOM, BOB, CAROL, "ban").unwrap();
    there.leave(ROOM, BOB);
    here.message(ROOM, ALICE, "where is Bob?");
    (here, there)
}

fn come(here: &World, there: &World, user: &str, omit_members: bool) {
    let event = make(here, there, Handshake::Join, user).unwrap();
    let (join, _) = accepted(here, Handshake::Join, &event);
    enter(here, there, &event, join, omit_members);
}

fn untold(there: &World) -> Vec<Arc<str>> {
    there.engine.read(&UntoldEnds { room_id: ROOM, server: "here.example" }).unwrap()
}

fn memberships(world: &World) -> [Option<Membership>; 3] {
    [BOB, CAROL, ERIN].map(|user| membership(world, user))
}

#[test]
fn what_is_delivered_while_the_room_is_stored_is_no_less_an_end_of_it() {
    let (here, there) = left_untold();
    let event = make(&here, &there, Handshake::Join, ERIN).unwrap();
    let (join, _) = accepted(&here, Handshake::Join, &event);
    let untold_before = untold(&there);
    assert_eq!(untold_before.len(), 1);
    let state = store(&here, &there, &event, &answer(&here, &event, false));
    pass(&there, &here);
    assert!(untold(&there).is_empty());
    let command = EnterRoom {
        room_id: ROOM.into(),
        version: event.version,
        join: check(&there, event.version, &[join]).remove(0),
        untold: untold_before,
        state,
        partial: None,
    };
    assert_eq!(there.engine.write(command).wait().unwrap().0, Outcome::Accepted);
    let known = [Some(Membership::Leave), Some(Membership::Ban), Some(Membership::Join)];
    assert_eq!(memberships(&there), known);
    assert_eq!(memberships(&here), known);
    is_clean(&here);
    is_clean(&there);
}

#[test]
fn an_end_whose_own_state_lacks_members_does_not_take_them_from_the_room() {
    let (here, there) = worlds();
    // Nobody but who is needed is told of.
    here.state(ROOM, ALICE, "m.room.name", "", json!({"name": "big"}));
    here.join(ROOM, "@frank:here.example");
    come(&here, &there, BOB, true);
    there.leave(ROOM, BOB);
    here.message(ROOM, ALICE, "where is Bob?");
    let is_untold = there.engine.read(&IsUntold { room_id: ROOM, server: "here.example" }).unwrap();
    assert!(is_untold, "it is waited for");
    assert!(untold(&there).is_empty());
    // Members come behind, as ever.
    come(&here, &there, ERIN, true);
    assert_eq!(memberships(&there), [Some(Membership::Leave), None, Some(Membership::Join)]);
    let rooms = there.engine.read(&PartialRooms).unwrap();
    assert!(rooms.iter().any(|room| !room.is_past));
    is_clean(&there);
}
