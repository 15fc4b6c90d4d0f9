//! Profiles, and the rooms that are told of them.

use super::*;
use crate::{
    command::{LeaveProfileUnshown, ShowProfile},
    view::{Profile, UnshownProfiles, UnshownProfilesIn},
};

#[test]
fn a_profile_is_shown_in_the_rooms() {
    let world = World::new();
    bilbo(&world);
    let set = |name: &str, value: Option<&str>| {
        let value = value.map(|value| json!(value).to_string().into());
        run(&world, SetProfileField { user_id: BILBO.into(), name: name.into(), value })
    };
    world.room(ROOM, BILBO, None);
    assert!(set(profile::DISPLAY_NAME, Some("Bilbo")).unwrap());
    assert!(!set(profile::DISPLAY_NAME, Some("Bilbo")).unwrap(), "nothing has changed");
    let shown = || {
        world.ask(|reader| {
            let room = crate::room::RoomCtx::load(reader, ROOM)?;
            let event = room.state(reader, "m.room.member", BILBO)?.unwrap();
            Ok(serde_json::to_value(&event.pdu()?.content).unwrap())
        })
    };
    let show = || run(&world, ShowProfile { room_id: ROOM.into(), user_id: BILBO.into() }).unwrap();
    show();
    assert_eq!(shown(), json!({ "membership": "join", "displayname": "Bilbo" }));
    let before = world.engine.position();
    show();
    assert_eq!(world.engine.position(), before, "the same again makes no event");
    set(profile::DISPLAY_NAME, None).unwrap();
    show();
    assert_eq!(shown(), json!({ "membership": "join" }));
    let large = "x".repeat(64 * 1024);
    let refused = set("org.example.text", Some(&large));
    assert!(matches!(refused, Err(Error::Invalid(Invalid::ProfileTooLarge))));
}

#[test]
fn rooms_are_marked_until_they_are_told_of_a_profile() {
    let world = World::new();
    bilbo(&world);
    let (rooms, user_id) = ([ROOM, "!second:here.example", "!third:here.example"], || BILBO.to_owned());
    for room_id in rooms {
        world.room(room_id, BILBO, None);
    }
    let set = |name: &str, value: &str| {
        let value = Some(json!(value).to_string().into());
        run(&world, SetProfileField { user_id: user_id(), name: name.into(), value }).unwrap()
    };
    let marked = || {
        let unshown = world.engine.read(&UnshownProfiles).unwrap();
        for room_id in rooms {
            let users: &[&str] =
                if unshown.iter().any(|unshown| unshown == room_id) { &[BILBO] } else { &[] };
            assert_eq!(world.engine.read(&UnshownProfilesIn(room_id)).unwrap(), users);
        }
        unshown
    };
    set("org.example.text", "seen in no room");
    assert!(marked().is_empty());
    set(profile::DISPLAY_NAME, "Bilbo");
    assert_eq!(marked(), rooms);
    let show =
        |room_id: &str| run(&world, ShowProfile { room_id: room_id.into(), user_id: user_id() }).unwrap();
    show(ROOM);
    assert_eq!(marked(), rooms[1..]);
    // There is nothing to be told of who has left.
    world.leave(rooms[1], BILBO);
    show(rooms[1]);
    assert_eq!(marked(), rooms[2..]);
    let now = || world.engine.read(&Profile(BILBO)).unwrap();
    let leave = |unshown| {
        run(&world, LeaveProfileUnshown { room_id: rooms[2].into(), user_id: user_id(), unshown }).unwrap()
    };
    // The mark of a newer change stays; what is seen in no room makes no difference.
    let older = now();
    set(profile::DISPLAY_NAME, "Bilbo Baggins");
    assert!(!leave(older));
    assert!(marked().contains(&rooms[2].to_owned()));
    show(ROOM);
    let unshown = now();
    set("org.example.text", "seen in no room, again");
    assert!(leave(unshown));
    assert!(marked().is_empty());
    // What a room shows already is no event, and ends its mark.
    set(profile::DISPLAY_NAME, "Frodo");
    set(profile::DISPLAY_NAME, "Bilbo Baggins");
    let before = world.engine.position();
    show(ROOM);
    assert_eq!((world.engine.position(), marked()), (before, vec![rooms[2].to_owned()]));
}

#[test]
fn a_profile_is_not_shown_where_the_user_has_left() {
    let world = World::new();
    bilbo(&world);
    world.room(ROOM, "@other:here.example", None);
    world.join(ROOM, BILBO);
    world.leave(ROOM, BILBO);
    let before = world.engine.position();
    run(&world, ShowProfile { room_id: ROOM.into(), user_id: BILBO.into() }).unwrap();
    assert_eq!(world.engine.position(), before);
}
