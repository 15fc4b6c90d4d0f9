//! Invites that are declined, and whose rooms are forgotten then.

use super::*;
use crate::{
    core::{
        event::KeyPair,
        num::{RoomNum, UserNum},
    },
    fixture::observed::Observed,
    room::out_of_band::FORGOTTEN_ANSWERS_MAX,
    store::{Direction, schema},
};

fn forget(here: &World, room_id: &str) {
    let forget = ForgetRoom { room_id: room_id.to_owned(), user_id: ALICE.into() };
    here.engine.write(forget).wait().unwrap();
}

/// The rooms of which something is kept that this server never was in.
fn kept(here: &World) -> usize {
    here.ask(|reader| {
        let mut count = 0;
        reader.scan(&schema::OUT_OF_BAND, &(), Direction::Forward, |_: (UserNum, RoomNum), _| {
            count += 1;
            true
        })?;
        Ok(count)
    })
}

#[test]
fn a_declined_invite_that_is_forgotten_leaves_other_devices() {
    for is_heard in [false, true] {
        let (here, (there, invite_id)) = (here(), there());
        let (_, before) = sync(&here, None);
        here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
        let (_, since) = sync(&here, None);
        let let_in = is_heard.then(|| event(&there, &there.leave(ROOM, ALICE)).json.clone());
        here.engine.write(LeaveOutOfBand { event: let_in, ..leave() }).wait().unwrap();
        forget(&here, ROOM);
        for since in [before, since] {
            let left = &sync(&here, Some(since)).0["rooms"]["leave"][ROOM];
            assert_eq!(left["timeline"]["limited"], false, "{left}");
            let events = left["timeline"]["events"].as_array().unwrap();
            // What the room has heard is kept no more.
            assert_eq!(events.len(), usize::from(!is_heard), "{left}");
            assert!(events.iter().all(|event| event["content"]["membership"] == "leave"), "{left}");
        }
        assert_eq!(kept(&here), usize::from(!is_heard));
        // Whoever syncs anew, or looks at rooms that they have left, is shown nothing.
        let (body, since) = sync(&here, None);
        assert!(!body["rooms"].to_string().contains(ROOM), "{body}");
        forget(&here, ROOM);
        assert!(!sync(&here, Some(since)).0["rooms"].to_string().contains(ROOM));
        is_clean(&here);
    }
}

#[test]
fn being_asked_again_is_news_though_the_room_was_forgotten() {
    let (here, (there, invite_id)) = (here(), there());
    here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
    here.engine.write(leave()).wait().unwrap();
    forget(&here, ROOM);
    there.leave(ROOM, ALICE);
    let again = there.member(ROOM, BOB, ALICE, "invite").unwrap();
    let (_, since) = sync(&here, None);
    here.engine.write(invite(event(&there, &again))).wait().unwrap();
    for since in [Some(since), None] {
        assert!(sync(&here, since).0["rooms"]["invite"][ROOM].is_object());
    }
    is_clean(&here);
}

fn invite_to(number: usize, key: &KeyPair) -> ReceiveInvite {
    let room_id = format!("!{number}:there.example");
    let event = EventBuilder {
        room_id: Some(room_id.as_str().into()),
        sender: BOB.into(),
        kind: "m.room.member".into(),
        state_key: Some(ALICE.into()),
        content: object(br#"{"membership":"invite"}"#),
        redacts: None,
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 5,
        origin_server_ts: 1,
        event_id_localpart: None,
    };
    let event = event.build(RoomVersion::get("10").unwrap(), THERE, key).unwrap();
    ReceiveInvite { room_id, ..invite(Arc::new(event)) }
}

#[test]
fn a_server_that_invites_without_end_and_is_not_there_to_hear_answers_leaves_little_behind() {
    let (here, there) = (here(), World::named(THERE));
    for number in 0..=FORGOTTEN_ANSWERS_MAX {
        let invite = invite_to(number, there.engine.key_pair());
        let room_id = invite.room_id.clone();
        here.engine.write(invite).wait().unwrap();
        here.engine.write(LeaveOutOfBand { room_id: room_id.clone(), ..leave() }).wait().unwrap();
        assert_eq!(kept(&here), number + 1);
        forget(&here, &room_id);
    }
    assert_eq!(kept(&here), FORGOTTEN_ANSWERS_MAX);
    is_clean(&here);
}

#[test]
fn what_else_is_known_of_a_user_makes_it_no_longer_to_forget_one_more() {
    /// Invites that are open besides.
    const OPEN: usize = 15;
    let (store, there) = (Observed::counting(), World::named(THERE));
    let here = World::on(store.clone());
    here.engine.write(Register { localpart: "alice".into(), ..Register::default() }).wait().unwrap();
    let take = |number: usize| {
        let invite = invite_to(number, there.engine.key_pair());
        let room_id = invite.room_id.clone();
        here.engine.write(invite).wait().unwrap();
        room_id
    };
    let forget_one = |number: usize| {
        let room_id = take(number);
        here.engine.write(LeaveOutOfBand { room_id: room_id.clone(), ..leave() }).wait().unwrap();
        let before = store.observer.rows_read();
        forget(&here, &room_id);
        store.observer.rows_read() - before
    };
    for number in 0..FORGOTTEN_ANSWERS_MAX {
        forget_one(number);
    }
    let alone = forget_one(FORGOTTEN_ANSWERS_MAX);
    let first = FORGOTTEN_ANSWERS_MAX + 1;
    for number in first..first + OPEN {
        take(number);
    }
    let among_others = forget_one(first + OPEN);
    assert!(among_others < alone + OPEN / 2, "{among_others} rows, not {alone}");
    assert_eq!(kept(&here), FORGOTTEN_ANSWERS_MAX + OPEN);
}
