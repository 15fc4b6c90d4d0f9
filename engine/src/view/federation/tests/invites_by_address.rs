//! Invites by an address: what an identity server has signed stands in the room, and can be shown as often as anybody likes.

use super::*;
use crate::{
    Conflict,
    command::{ReceivePdus, Received},
    core::{
        checked::PduCheck,
        event::{JsonObject, encode_base64, sign_json},
    },
    view::CheckPdus,
};

const ERIN: &str = "@erin:here.example";

/// Alice invites an address, and it turns out to be erin's: the invite that is asked for then.
fn prove(world: &World, token: &str) -> MakeInvite {
    let key = world.engine.key_pair();
    let invitation = json!({
        "display_name": "e...@example.org",
        "key_validity_url": "https://identity.example/valid",
        "public_key": encode_base64(key.public_key()),
    });
    world.state(ROOM, ALICE, "m.room.third_party_invite", token, invitation);
    let signed = json!({"mxid": ERIN, "sender": ALICE, "token": token});
    let mut signed = signed.as_object().cloned().unwrap();
    sign_json(&mut signed, "identity.example", key);
    MakeInvite {
        room_id: ROOM.into(),
        sender: ALICE.into(),
        target: ERIN.into(),
        content: JsonObject::new(),
        third_party_signed: Some(signed.into()),
    }
}

fn take(world: &World, invite: &Invite) -> crate::Result<Received> {
    let pdus = std::slice::from_ref(&invite.event.json);
    let checks = world.engine.read(&CheckPdus { version: invite.event.version, pdus }).unwrap();
    let pdus = checks.into_iter().map(|check| match check {
        PduCheck::Ready(pdu) => pdu,
        other => panic!("{other:?}"),
    });
    let pdus = pdus.collect();
    let receive = ReceivePdus { room_id: ROOM.into(), pdus, are_by_address: true, ..ReceivePdus::default() };
    world.engine.write(receive).wait()
}

fn is_invited_already<T>(result: crate::Result<T>) -> bool {
    matches!(result, Err(Error::Conflict(Conflict::AlreadyInvited)))
}

fn is_in_room<T>(result: crate::Result<T>) -> bool {
    matches!(result, Err(Error::Denied(Denied::TargetInRoom)))
}

fn membership(world: &World) -> String {
    world.ask(|reader| {
        let event = RoomCtx::load(reader, ROOM)?.state(reader, "m.room.member", ERIN)?.unwrap();
        Ok(event.pdu()?.membership().unwrap().to_owned())
    })
}

#[test]
fn who_waits_or_is_in_the_room_is_not_invited_again() {
    let world = world("shared");
    let proof = prove(&world, "token");
    take(&world, &ask(&world, &proof)).unwrap();
    assert_eq!(membership(&world), "invite");
    assert!(is_invited_already(world.engine.read(&proof)));
    // Two proofs of one user would else be shown by turns.
    let other = prove(&world, "other");
    assert!(is_invited_already(world.engine.read(&other)));
    world.join(ROOM, ERIN);
    for proof in [&proof, &other] {
        assert!(is_in_room(world.engine.read(proof)));
    }
    world.member(ROOM, ALICE, ERIN, "ban").unwrap();
    assert!(matches!(world.engine.read(&proof), Err(Error::Denied(Denied::Rule { .. }))));
    // Who shows no proof is told nothing but that.
    world.member(ROOM, ALICE, ERIN, "leave").unwrap();
    world.join(ROOM, ERIN);
    let unproven = MakeInvite { third_party_signed: Some(json!({"mxid": ERIN, "token": "token"})), ..proof };
    assert!(matches!(world.engine.read(&unproven), Err(Error::Denied(Denied::Rule { .. }))));
}

#[test]
fn what_has_overtaken_an_invite_keeps_it_out() {
    let world = world("shared");
    let proofs = [prove(&world, "token"), prove(&world, "other")];
    let [first, second] = proofs.each_ref().map(|proof| ask(&world, proof));
    take(&world, &first).unwrap();
    assert!(is_invited_already(take(&world, &second)));
    world.join(ROOM, ERIN);
    assert!(is_in_room(take(&world, &second)));
    assert_eq!(membership(&world), "join");
}

#[test]
fn nobody_is_invited_in_the_name_of_who_has_left() {
    let world = world("shared");
    let proof = prove(&world, "token");
    let made = ask(&world, &proof);
    world.join(ROOM, "@frank:here.example");
    world.leave(ROOM, ALICE);
    assert!(world.engine.read(&proof).is_err_and(|error| is_not_in_room(&error)));
    assert!(take(&world, &made).is_err_and(|error| is_not_in_room(&error)));
}
