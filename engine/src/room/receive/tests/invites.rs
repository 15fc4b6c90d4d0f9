//! Invites that this server signs while it is in the room, as the room judges them.

use serde_json::json;

use super::*;
use crate::{
    command::{ReceiveInvite, Register, ShowSignedInvite},
    view::{KeyChanges, federation::OutOfBandMembership},
};

const ERIN: &str = "@erin:here.example";

/// Bob's invite of Erin, which this server has signed, in a room in which `may_invite` is the level for that.
fn signed(scene: &Scene, may_invite: i64) -> Pdu {
    let register = Register { localpart: "erin".into(), ..Register::default() };
    scene.world.engine.write(register).wait().unwrap();
    let levels = json!({"users": {ALICE: 100}, "invite": may_invite});
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", levels);
    let invite = scene.member(BOB, ERIN, "invite", &strs(&scene.ends()), 90);
    let receive = ReceiveInvite {
        room_id: ROOM.into(),
        event_id: invite.event_id.to_string(),
        version: version(),
        event: Arc::new(invite.clone()),
        room_state: Vec::new(),
        server: "there.example".into(),
    };
    scene.world.engine.write(receive).wait().unwrap();
    invite
}

#[test]
fn an_invite_that_the_room_has_refused_is_not_shown_when_the_last_user_leaves() {
    for may_invite in [0, 50] {
        let scene = Scene::new();
        let invite = signed(&scene, may_invite);
        let is_allowed = may_invite == 0;
        assert_eq!(accepted(&scene.receive(&[&invite])), is_allowed);
        scene.world.leave(ROOM, ALICE);
        let membership = scene.world.ask(|reader| {
            let (user, room) = (reader.user_num(ERIN)?.unwrap(), reader.room_num(ROOM)?.unwrap());
            Ok(reader.membership(user, room)?)
        });
        assert_eq!(membership, is_allowed.then_some(Membership::Invite));
        let outside = OutOfBandMembership { room_id: ROOM.into(), user_id: ERIN.into() };
        assert!(scene.world.engine.read(&outside).is_err());
        scene.is_sound();
    }
}

/// They may encrypt for her only then.
#[test]
fn those_in_a_room_learn_of_who_was_shown_an_invite_when_the_room_tells_of_it() {
    let scene = Scene::new();
    let invite = signed(&scene, 0);
    let changed = |from| {
        let changes = KeyChanges { user_id: ALICE.into(), from, to: StreamPos::MAX };
        scene.world.engine.read(&changes).unwrap().changed
    };
    let from = scene.world.engine.position();
    scene.world.pass_ms(10_000);
    let show = ShowSignedInvite { room_id: ROOM.into(), user_id: ERIN.into() };
    scene.world.engine.write(show).wait().unwrap();
    let outside = OutOfBandMembership { room_id: ROOM.into(), user_id: ERIN.into() };
    assert!(scene.world.engine.read(&outside).is_ok());
    assert_eq!(changed(from), [""; 0]);
    assert!(accepted(&scene.receive(&[&invite])));
    assert_eq!(changed(from), [ERIN]);
    scene.is_sound();
}
