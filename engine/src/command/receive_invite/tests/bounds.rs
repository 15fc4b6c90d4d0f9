//! What a server that invites without end leaves behind: little, and nothing once the user or an administrator wants it gone.

use super::*;
use crate::{
    command::{PurgeRoom, ShowSignedInvite, StepPurge},
    housekeeping::{CHORES, Housekeeping},
    room::{
        out_of_band::{OPEN_INVITES_MAX, OPEN_INVITES_OF_SENDER_MAX},
        signed_invites::SHOWN_AT_ONCE_MAX,
    },
    store::{Direction, schema, schema::Keyspace},
};

/// An invite to another room, whose content is as large as it may be.
fn to_another_room(number: usize) -> ReceiveInvite {
    to_room_of(number, BOB)
}

/// The same by one of so many users that each has as many open as one may.
fn by_many(number: usize) -> ReceiveInvite {
    to_room_of(number, &user_of(number))
}

fn user_of(number: usize) -> String {
    format!("@user{}:there.example", number / OPEN_INVITES_OF_SENDER_MAX)
}

fn to_room_of(number: usize, creator: &str) -> ReceiveInvite {
    let there = World::named(THERE);
    let room_id = format!("!{number}:there.example");
    there.room(&room_id, creator, None);
    let content = json!({"membership": "invite", "displayname": "Alice", "org.example": "x".repeat(56_000)});
    let sent = there.try_send(&room_id, creator, "m.room.member", Some(ALICE), &content, None);
    let event = event(&there, &sent.unwrap());
    ReceiveInvite { room_id, ..invite(event) }
}

fn bytes_of<K: crate::store::Key, V: crate::store::Value>(world: &World, keyspace: &Keyspace<K, V>) -> usize {
    world.ask(|reader| {
        let mut bytes = 0;
        let rows = keyspace.raw();
        reader.scan(&rows, &(), Direction::Forward, |_: crate::store::RestOfKey, row| {
            bytes += row.len();
            true
        })?;
        Ok(bytes)
    })
}

#[test]
fn of_a_large_invite_is_kept_what_clients_show_and_it_is_declined_as_any() {
    let here = here();
    here.engine.write(to_another_room(1)).wait().unwrap();
    assert!(bytes_of(&here, &schema::OUT_OF_BAND) + bytes_of(&here, &schema::USER_ROOMS) < 4_000);
    let (body, since) = sync(&here, None);
    let shown = &body["rooms"]["invite"]["!1:there.example"]["invite_state"]["events"];
    let own = shown.as_array().unwrap().last().unwrap();
    assert_eq!(own["content"], json!({"membership": "invite", "displayname": "Alice"}));
    assert_eq!((&own["state_key"], &own["sender"]), (&json!(ALICE), &json!(BOB)));
    let leave = LeaveOutOfBand { room_id: "!1:there.example".into(), ..leave() };
    here.engine.write(leave).wait().unwrap();
    let left = sync(&here, Some(since)).0["rooms"]["leave"]["!1:there.example"].take();
    assert_eq!(left["timeline"]["events"][0]["content"]["reason"], "no");
    is_clean(&here);
}

/// Where redaction leaves what a server puts: in hashes that nobody knows, in members of the first versions, in signatures of
/// third parties.
#[test]
fn nothing_large_is_kept_wherever_it_stands_in_an_invite() {
    let padding = || json!("x".repeat(18_000));
    for version in ["10", "11"] {
        let (here, there) = (here(), World::named(THERE));
        there.room(ROOM, BOB, None);
        let invite_id = there.member(ROOM, BOB, ALICE, "invite").unwrap();
        let mut large = object(&event(&there, &invite_id).json);
        large["hashes"]["padding"] = padding();
        large.insert("prev_state".to_owned(), padding());
        large["content"]["third_party_invite"] = json!({"signed": {"padding": padding()}});
        let version = RoomVersion::get(version).unwrap();
        let large = Arc::new(Pdu::from_object(version, large).unwrap());
        assert!(large.json.len() > 54_000);
        here.engine.write(ReceiveInvite { version, ..invite(large) }).wait().unwrap();
        assert!(bytes_of(&here, &schema::OUT_OF_BAND) + bytes_of(&here, &schema::USER_ROOMS) < 4_000);
        let shown = sync(&here, None).0["rooms"]["invite"][ROOM]["invite_state"]["events"].take();
        assert_eq!(shown.as_array().unwrap().last().unwrap()["content"], json!({"membership": "invite"}));
        here.engine.write(leave()).wait().unwrap();
        assert!(open(&here).is_err());
        is_clean(&here);
    }
}

#[test]
fn a_server_has_so_many_invites_wait_for_a_user_and_no_more() {
    let here = here();
    for number in 0..OPEN_INVITES_MAX {
        here.engine.write(by_many(number)).wait().unwrap();
    }
    let more = || here.engine.write(by_many(OPEN_INVITES_MAX)).wait();
    assert!(matches!(more(), Err(Error::Denied(Denied::TooManyInvites))));
    let (_, since) = sync(&here, None);
    // One is answered, and forgotten: nothing is left of it but the answer, which nobody has heard.
    let account_data = || bytes_of(&here, &schema::ACCOUNT_DATA);
    let (room_id, of_account) = ("!0:there.example".to_owned(), account_data());
    let (kind, content) = ("m.tag".to_owned(), json!({"tags": {"m.lowpriority": {}}}).to_string().into());
    let tag = SetAccountData { user_id: ALICE.into(), room_id: Some(room_id.clone()), kind, content };
    here.engine.write(tag).wait().unwrap();
    assert!(account_data() > of_account);
    here.engine.write(LeaveOutOfBand { room_id: room_id.clone(), ..leave() }).wait().unwrap();
    here.engine.write(ForgetRoom { room_id: room_id.clone(), user_id: ALICE.into() }).wait().unwrap();
    let (kept, shown) = here.ask(|reader| {
        let (user, room) = (reader.user_num(ALICE)?.unwrap(), reader.room_num(&room_id)?.unwrap());
        let kept = reader.out_of_band(user, room)?.unwrap().json;
        Ok((kept, reader.user_room(user, room)?.unwrap().value.stripped_state))
    });
    assert!(object(&kept)["content"]["membership"] == "leave" && kept.len() < 1_500);
    assert_eq!(shown, None);
    assert_eq!(account_data(), of_account);
    let rooms = sync(&here, Some(since)).0["rooms"].take();
    assert!(rooms["leave"][&room_id].is_object(), "{rooms}");
    assert_eq!(sync(&here, None).0["rooms"]["invite"].as_object().unwrap().len(), OPEN_INVITES_MAX - 1);
    more().unwrap();
    is_clean(&here);
}

/// On a large server there are many others than who invites without end.
#[test]
fn one_user_keeps_no_others_of_their_server_from_inviting() {
    let here = here();
    let refused = |sent: ReceiveInvite| match here.engine.write(sent).wait() {
        Err(Error::Denied(Denied::TooManyInvites)) => true,
        sent => !sent.unwrap().is_news,
    };
    for number in 0..OPEN_INVITES_OF_SENDER_MAX {
        assert!(!refused(to_another_room(number)));
    }
    assert!(refused(to_another_room(OPEN_INVITES_OF_SENDER_MAX)));
    // All that the server may have open, by users whom alice then ignores.
    let first = OPEN_INVITES_OF_SENDER_MAX;
    for number in first..OPEN_INVITES_MAX {
        assert!(!refused(by_many(number)));
    }
    let more = OPEN_INVITES_MAX;
    assert!(refused(by_many(more)));
    let ignored = json!({"ignored_users": {&user_of(first): {}, BOB: {}}}).to_string().into();
    let kind = "m.ignored_user_list".to_owned();
    let ignore = SetAccountData { user_id: ALICE.into(), room_id: None, kind, content: ignored };
    here.engine.write(ignore).wait().unwrap();
    assert!(!refused(by_many(more)));
    assert!(sync(&here, None).0["rooms"]["invite"][format!("!{more}:there.example")].is_object());
    // Of those no more is kept.
    assert!(refused(to_another_room(more + 1)));
    is_clean(&here);
}

#[test]
fn a_room_that_this_server_never_was_in_is_purged() {
    let here = here();
    let purge = |room_id: &str| PurgeRoom { room_id: room_id.to_owned(), force: false };
    for number in 0..3 {
        here.engine.write(to_another_room(number)).wait().unwrap();
    }
    let (_, since) = sync(&here, None);
    let room_id = "!1:there.example";
    let mut progress = here.engine.write(purge(room_id)).wait().unwrap();
    while !progress.is_over() {
        is_clean(&here);
        progress = here.engine.write(StepPurge::after(room_id, Some(&progress))).wait().unwrap();
    }
    is_clean(&here);
    let invites = sync(&here, None).0["rooms"]["invite"].take();
    assert_eq!(
        invites.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["!0:there.example", "!2:there.example"]
    );
    assert!(sync(&here, Some(since)).0["rooms"]["leave"][room_id].is_object());
    assert!(matches!(here.engine.write(purge(room_id)).wait(), Err(Error::NotFound(What::Room))));
    // It can be entered, and be invited to, as if nothing had been.
    here.engine.write(to_another_room(1)).wait().unwrap();
    assert!(sync(&here, None).0["rooms"]["invite"][room_id].is_object());
}

/// Being in a room with users of this server is no way around how many may wait.
#[test]
fn an_invite_whose_event_does_not_come_is_one_of_those_that_may_wait() {
    let (here, (there, invite_id)) = (here(), there());
    here.room(ROOM, BOB, None);
    here.join(ROOM, CAROL);
    for number in 0..OPEN_INVITES_OF_SENDER_MAX {
        here.engine.write(to_another_room(number)).wait().unwrap();
    }
    here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
    here.pass_ms(10_000);
    let show = || {
        let show = ShowSignedInvite { room_id: ROOM.into(), user_id: ALICE.into() };
        here.engine.write(show).wait()
    };
    assert!(matches!(show(), Err(Error::Denied(Denied::TooManyInvites))));
    assert!(open(&here).is_err());
    here.engine.write(LeaveOutOfBand { room_id: "!1:there.example".into(), ..leave() }).wait().unwrap();
    show().unwrap();
    assert!(open(&here).is_ok());
}

/// Nor is that the last of them leaves it.
#[test]
fn an_invite_to_a_room_that_is_left_is_one_of_those_that_may_wait() {
    for is_sent_again in [false, true] {
        let (here, (there, invite_id)) = (here(), there());
        here.room(ROOM, BOB, None);
        here.join(ROOM, CAROL);
        for number in 0..OPEN_INVITES_OF_SENDER_MAX {
            here.engine.write(to_another_room(number)).wait().unwrap();
        }
        let sent = event(&there, &invite_id);
        here.engine.write(invite(sent.clone())).wait().unwrap();
        here.leave(ROOM, CAROL);
        assert!(open(&here).is_err());
        here.pass_ms(10_000);
        let decline = |room_id: &str| {
            here.engine.write(LeaveOutOfBand { room_id: room_id.into(), ..leave() }).wait().unwrap();
        };
        decline("!1:there.example");
        if is_sent_again {
            assert!(here.engine.write(invite(sent)).wait().unwrap().is_news);
            decline(ROOM);
        }
        here.engine.write(ShowSignedInvite { room_id: ROOM.into(), user_id: ALICE.into() }).wait().unwrap();
        assert_eq!(open(&here).is_ok(), !is_sent_again, "what was declined is not shown again");
        is_clean(&here);
    }
}

/// Those that are refused wait for a week.
#[test]
fn invites_that_may_not_be_shown_keep_no_others_from_being_shown() {
    let (here, there) = (here(), World::named(THERE));
    for number in 0..OPEN_INVITES_OF_SENDER_MAX {
        here.engine.write(to_another_room(number)).wait().unwrap();
    }
    let room_of = |number: usize| format!("!kept{number}:there.example");
    for number in 0..=SHOWN_AT_ONCE_MAX {
        let sender = if number == SHOWN_AT_ONCE_MAX { "@other:there.example" } else { BOB };
        let room_id = room_of(number);
        for world in [&here, &there] {
            world.room(&room_id, sender, None);
        }
        here.join(&room_id, CAROL);
        let invite_id = there.member(&room_id, sender, ALICE, "invite").unwrap();
        here.engine.write(ReceiveInvite { room_id, ..invite(event(&there, &invite_id)) }).wait().unwrap();
    }
    here.pass_ms(10_000);
    let chore = CHORES.iter().find(|chore| chore.name == "signed invites").unwrap();
    let house = Housekeeping::default();
    for _ in 0..2 {
        house.run(&here.engine, chore).unwrap();
    }
    let shown = sync(&here, None).0["rooms"]["invite"].take();
    assert!(shown[room_of(SHOWN_AT_ONCE_MAX)].is_object());
    assert!(shown.get(room_of(0)).is_none());
    is_clean(&here);
}
