//! Invites that are declined by way of another server, whatever that one says.

use super::*;
use crate::{
    core::version::EventIdFormat,
    view::federation::{Handshake, SignTemplate, SignedEvent},
};

fn version(id: &str) -> &'static RoomVersion {
    RoomVersion::get(id).unwrap()
}

/// A server where alice has an invite to a room of that version.
fn invited(version: &'static RoomVersion) -> World {
    let (here, there) = (here(), World::named(THERE));
    let event = EventBuilder {
        room_id: Some(ROOM.into()),
        sender: BOB.into(),
        kind: "m.room.member".into(),
        state_key: Some(ALICE.into()),
        content: object(br#"{"membership":"invite"}"#),
        redacts: None,
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 5,
        origin_server_ts: 1,
        event_id_localpart: Some("invite".into()),
    };
    let event = event.build(version, THERE, there.engine.key_pair()).unwrap();
    let command = ReceiveInvite { version, ..invite(Arc::new(event)) };
    here.engine.write(command).wait().unwrap();
    here
}

/// Signs a template for leaving that says it is of a room of this version, with events as such rooms have them.
fn sign(here: &World, room_version: Option<&str>) -> crate::Result<SignedEvent> {
    let reference = match version(room_version.unwrap_or("1")).event_ids {
        EventIdFormat::Own => json!(["$a:there.example", {"sha256": "A".repeat(43)}]),
        EventIdFormat::HashStandard | EventIdFormat::HashUrlSafe => json!("$a"),
    };
    let template = json!({
        "type": "m.room.member", "room_id": ROOM, "sender": ALICE, "state_key": ALICE, "depth": 9,
        "content": {"membership": "leave"}, "prev_events": [reference], "auth_events": [reference],
    });
    here.engine.read(&SignTemplate {
        room_id: ROOM,
        user_id: ALICE,
        handshake: Handshake::Leave,
        resident: THERE,
        room_version,
        template: template.as_object().unwrap(),
        reason: None,
    })
}

/// The leave that alice is shown once she has declined.
fn declined(here: &World, event: Option<Bytes>) -> Value {
    let (_, since) = sync(here, None);
    here.engine.write(LeaveOutOfBand { event, ..leave() }).wait().unwrap();
    assert!(open(here).is_err());
    is_clean(here);
    let (body, _) = sync(here, Some(since));
    assert!(body["rooms"].get("invite").is_none_or(|rooms| rooms.get(ROOM).is_none()));
    body["rooms"]["leave"][ROOM]["timeline"]["events"][0].clone()
}

#[test]
fn an_invite_is_declined_with_the_event_that_the_other_server_let_in() {
    let as_it_is_told = [
        ("10", Some("10")),
        ("11", Some("11")),
        ("1", Some("1")),
        ("1", Some("2")),
        ("1", None),
        ("2", None),
    ];
    for (of_invite, of_template) in as_it_is_told {
        let here = invited(version(of_invite));
        let signed = sign(&here, of_template).unwrap();
        let shown = declined(&here, Some(signed.json));
        assert_eq!(shown["event_id"], *signed.event_id, "{of_invite} {of_template:?}");
    }
}

#[test]
fn a_leave_of_another_form_than_the_invite_is_not_signed() {
    let otherwise = [
        ("11", Some("1")),
        ("11", None),
        ("11", Some("10")),
        ("3", Some("4")),
        ("1", Some("11")),
        ("2", Some("3")),
    ];
    for (of_invite, of_template) in otherwise {
        let here = invited(version(of_invite));
        let refused = sign(&here, of_template);
        let is_refused = matches!(refused, Err(Error::Invalid(Invalid::Template("room_version"))));
        assert!(is_refused, "{of_invite} {of_template:?}");
        // The user is rid of it all the same.
        assert_eq!(declined(&here, None)["content"]["membership"], "leave");
    }
}

#[test]
fn what_is_no_leave_of_the_users_ends_an_invite_as_if_there_were_none() {
    let of_another_form = sign(&here(), Some("1")).unwrap().json;
    let (there, invite_id) = there();
    let no_leave = event(&there, &invite_id).json.clone();
    let of_another_user = event(&there, &there.leave(ROOM, BOB)).json.clone();
    for let_in in [of_another_form, no_leave, of_another_user, Bytes::from_static(b"[]")] {
        let here = invited(version("10"));
        let shown = declined(&here, Some(let_in));
        assert_eq!((&shown["sender"], &shown["state_key"]), (&json!(ALICE), &json!(ALICE)));
        assert_eq!(
            (&shown["content"]["membership"], &shown["content"]["reason"]),
            (&json!("leave"), &json!("no"))
        );
    }
}
