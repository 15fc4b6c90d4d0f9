//! Invites and knocks that came with a room's own events, and are ended once this server is in the room no longer.

use super::*;

/// A leave of alice's by bob, as his server says, which names what it ends.
fn turning_away(there: &World, ended: &str) -> Pdu {
    let ended = EventReference::from(Arc::<str>::from(ended));
    let builder = EventBuilder {
        room_id: Some(ROOM.into()),
        sender: BOB.into(),
        kind: "m.room.member".into(),
        state_key: Some(ALICE.into()),
        content: object(br#"{"membership":"leave"}"#),
        redacts: None,
        prev_events: vec![ended.clone()],
        auth_events: vec![ended],
        depth: 20,
        origin_server_ts: 1,
        event_id_localpart: None,
    };
    builder.build(RoomVersion::get("10").unwrap(), THERE, there.engine.key_pair()).unwrap()
}

#[test]
fn who_was_invited_or_knocked_while_this_server_was_in_the_room_is_told_that_they_are_turned_away() {
    for membership in ["invite", "knock"] {
        let (here, there) = (here(), World::named(THERE));
        know(&here, &there);
        here.room(ROOM, BOB, None);
        here.state(ROOM, BOB, "m.room.join_rules", "", json!({"join_rule": "knock"}));
        here.member(ROOM, BOB, CAROL, "invite").unwrap();
        here.join(ROOM, CAROL);
        let sender = if membership == "invite" { BOB } else { ALICE };
        let open_id = here.member(ROOM, sender, ALICE, membership).unwrap();
        here.leave(ROOM, CAROL);
        let since = sync(&here, None).1;
        let is_shown = |since: Option<SyncToken>| {
            let (body, _) = sync(&here, since);
            body["rooms"].get(membership).is_some_and(|rooms| rooms.get(ROOM).is_some())
        };
        // What ends something else says nothing of it.
        receive(&here, THERE, &turning_away(&there, "$other"));
        assert!(is_shown(None), "{membership}");
        let turned_away = turning_away(&there, &open_id);
        assert_eq!(receive(&here, THERE, &turned_away), json!({ &*turned_away.event_id: {} }));
        assert!(!is_shown(None) && !is_shown(Some(since)), "{membership}");
        let (body, _) = sync(&here, Some(since));
        let shown = &body["rooms"]["leave"][ROOM]["timeline"]["events"][0];
        assert_eq!((&shown["event_id"], &shown["sender"]), (&json!(&*turned_away.event_id), &json!(BOB)));
        is_clean(&here);
        // The room's own events count again once this server is back.
        here.member(ROOM, BOB, CAROL, "invite").unwrap();
        here.join(ROOM, CAROL);
        assert!(!is_shown(None), "{membership}");
        here.leave(ROOM, ALICE);
        assert!(!is_shown(None), "{membership}");
        here.member(ROOM, BOB, ALICE, "invite").unwrap();
        assert!(sync(&here, None).0["rooms"]["invite"][ROOM].is_object(), "{membership}");
        is_clean(&here);
    }
}

/// What they had known before they left says nothing of what they may do now.
#[test]
fn a_server_that_had_left_the_room_before_turns_nobody_away() {
    let (here, there) = (here(), World::named(THERE));
    know(&here, &there);
    here.room(ROOM, BOB, None);
    here.member(ROOM, BOB, CAROL, "invite").unwrap();
    here.join(ROOM, CAROL);
    let open_id = here.member(ROOM, BOB, ALICE, "invite").unwrap();
    here.leave(ROOM, BOB);
    here.leave(ROOM, CAROL);
    receive(&here, THERE, &turning_away(&there, &open_id));
    assert!(sync(&here, None).0["rooms"]["invite"][ROOM].is_object());
    is_clean(&here);
}
