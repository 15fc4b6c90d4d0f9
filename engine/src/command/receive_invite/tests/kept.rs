//! Invites that this server signs while it is in the room, and whose events do not come.

use super::*;
use crate::{
    command::{ChangeMembership, Deactivate, MembershipAction, Prune, PruneProgress, ShowSignedInvite},
    store::schema,
    view::{
        OverdueInvite, OverdueInvites,
        federation::{Way, WayIntoRoom},
    },
};

/// A server whose user carol is in the room, and that has signed an invite for alice which has not come with the room's events.
fn here_with_carol() -> World {
    signed_by_carols_server().0
}

/// The same, with the invite.
fn signed_by_carols_server() -> (World, Arc<Pdu>) {
    let here = here();
    here.room(ROOM, BOB, None);
    here.join(ROOM, CAROL);
    let (there, _) = there();
    for n in 0..9 {
        there.message(ROOM, BOB, &n.to_string());
    }
    let invite_id = there.member(ROOM, BOB, ALICE, "invite").unwrap();
    let sent = event(&there, &invite_id);
    here.engine.write(invite(sent.clone())).wait().unwrap();
    assert!(shown_invite(&here).is_none());
    (here, sent)
}

/// Lets so much time pass, and shows the invites that should have come by then. Answers how many these are.
fn pass_and_show(here: &World, ms: u64) -> usize {
    here.pass_ms(ms);
    let overdue = here.engine.read(&OverdueInvites::default()).unwrap().invites;
    let count = overdue.len();
    for OverdueInvite { room_id, user_id, .. } in overdue {
        here.engine.write(ShowSignedInvite { room_id, user_id }).wait().unwrap();
    }
    count
}

fn way(here: &World) -> Way {
    here.engine.read(&WayIntoRoom { room_id: ROOM, user_id: ALICE, named: &[] }).unwrap()
}

fn shown_invite(here: &World) -> Option<Value> {
    let (body, _) = sync(here, None);
    body["rooms"].get("invite").and_then(|rooms| rooms.get(ROOM)).cloned()
}

#[test]
fn an_invite_is_shown_when_the_rooms_events_come_no_more() {
    let here = here_with_carol();
    let since = sync(&here, None).1;
    here.leave(ROOM, CAROL);
    let (body, _) = sync(&here, Some(since));
    let shown = &body["rooms"]["invite"][ROOM]["invite_state"]["events"];
    assert!(shown.as_array().unwrap().iter().any(|event| event["content"]["name"] == "A room"), "{body}");
    assert_eq!(open(&here).unwrap().servers, [THERE]);
    is_clean(&here);
    here.engine.write(leave()).wait().unwrap();
    assert!(shown_invite(&here).is_none());
    is_clean(&here);
}

#[test]
fn what_the_room_told_of_who_was_invited_before_or_since_counts() {
    let (here, (there, _)) = (here(), there());
    here.room(ROOM, BOB, None);
    here.join(ROOM, CAROL);
    // The invite has come with the room's events before the last time that it is asked to be signed.
    let invite_id = here.member(ROOM, BOB, ALICE, "invite").unwrap();
    here.engine.write(invite(event(&here, &invite_id))).wait().unwrap();
    here.leave(ROOM, ALICE);
    here.leave(ROOM, CAROL);
    assert!(shown_invite(&here).is_none());
    // It is signed, and ended before the last user leaves.
    here.join(ROOM, CAROL);
    let early = there.member(ROOM, BOB, ALICE, "invite").unwrap();
    here.engine.write(invite(event(&there, &early))).wait().unwrap();
    here.member(ROOM, BOB, ALICE, "ban").unwrap();
    here.leave(ROOM, CAROL);
    assert!(shown_invite(&here).is_none());
    is_clean(&here);
}

#[test]
fn who_is_in_the_room_is_not_shown_an_invite_to_it_when_they_leave() {
    let (here, (there, early)) = (here(), there());
    here.room(ROOM, BOB, None);
    for n in 0..9 {
        there.message(ROOM, BOB, &n.to_string());
    }
    let late = there.member(ROOM, BOB, ALICE, "invite").unwrap();
    for (invite_id, signed_first) in [(late, true), (early, false)] {
        here.join(ROOM, CAROL);
        if signed_first {
            here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
        }
        here.join(ROOM, ALICE);
        if !signed_first {
            here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
        }
        here.leave(ROOM, CAROL);
        here.leave(ROOM, ALICE);
        assert!(shown_invite(&here).is_none(), "signed first: {signed_first}");
        is_clean(&here);
    }
}

#[test]
fn an_invite_that_overtakes_what_turned_the_user_out_is_shown_when_that_comes() {
    for (how, is_renamed) in [("leave", false), ("ban", false), ("leave", true), ("ban", true)] {
        let (here, (there, _)) = (here(), there());
        here.room(ROOM, BOB, None);
        here.join(ROOM, ALICE);
        for n in 0..9 {
            there.message(ROOM, BOB, &n.to_string());
        }
        let invite_id = there.member(ROOM, BOB, ALICE, "invite").unwrap();
        here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
        assert!(shown_invite(&here).is_none(), "{how}");
        if is_renamed {
            let content = json!({"membership": "join", "displayname": "Alice"});
            here.state(ROOM, ALICE, "m.room.member", ALICE, content);
        }
        let since = sync(&here, None).1;
        here.member(ROOM, BOB, ALICE, how).unwrap();
        let (body, _) = sync(&here, Some(since));
        assert!(body["rooms"]["invite"][ROOM]["invite_state"].is_object(), "{how}, {is_renamed}: {body}");
        assert_eq!(open(&here).unwrap().servers, [THERE]);
        is_clean(&here);
    }
}

/// She was turned out before she was invited, which this server has not heard of: her leave stands on another end of the graph, and
/// less deep. Of it and the invite the room lets the later one count.
#[test]
fn an_invite_that_overtakes_what_turned_the_user_out_is_shown_to_who_leaves_first_alone() {
    for (invited_after_ms, is_shown) in [(0, false), (5000, true)] {
        let (here, (there, _)) = (here(), there());
        here.room(ROOM, BOB, None);
        here.join(ROOM, ALICE);
        for n in 0..9 {
            there.message(ROOM, BOB, &n.to_string());
        }
        there.pass_ms(invited_after_ms);
        let invite_id = there.member(ROOM, BOB, ALICE, "invite").unwrap();
        here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
        here.pass_ms(1000);
        let since = sync(&here, None).1;
        let leave_id = here.leave(ROOM, ALICE);
        assert!(event(&here, &leave_id).depth < event(&there, &invite_id).depth);
        assert_eq!(shown_invite(&here).is_some(), is_shown);
        let (body, _) = sync(&here, Some(since));
        let section = if is_shown { "invite" } else { "leave" };
        assert!(body["rooms"][section][ROOM].is_object(), "{body}");
        is_clean(&here);
    }
}

#[test]
fn what_is_older_than_an_invite_does_not_end_it() {
    let here = here_with_carol();
    let ban = here.member(ROOM, BOB, ALICE, "ban").unwrap();
    assert!(event(&here, &ban).depth < 10);
    here.leave(ROOM, CAROL);
    assert!(shown_invite(&here).is_some());
    is_clean(&here);
}

#[test]
fn an_invite_that_never_came_is_forgotten_after_a_week() {
    let here = here_with_carol();
    let prune = || {
        let progress = Arc::new(PruneProgress::default());
        for _ in 0..20 {
            here.engine.write(Prune { progress: progress.clone() }).wait().unwrap();
        }
    };
    let kept = || {
        here.ask(|reader| {
            let (room, user) = (reader.room_num(ROOM)?.unwrap(), reader.user_num(ALICE)?.unwrap());
            Ok(reader.has(&schema::SIGNED_INVITES, &(room, user))?)
        })
    };
    here.pass_ms(6 * 24 * 60 * 60 * 1000);
    prune();
    assert!(kept());
    here.pass_ms(2 * 24 * 60 * 60 * 1000);
    prune();
    assert!(!kept());
    here.leave(ROOM, CAROL);
    assert!(shown_invite(&here).is_none());
}

/// The last user of this server may have been turned out, of which nothing has come.
#[test]
fn an_invite_whose_event_does_not_come_is_shown_once_and_answered_by_way_of_who_invites() {
    let (here, sent) = signed_by_carols_server();
    let since = sync(&here, None).1;
    assert_eq!(pass_and_show(&here, 9_000), 0);
    assert_eq!(pass_and_show(&here, 1_000), 1);
    let (body, since) = sync(&here, Some(since));
    assert!(body["rooms"]["invite"][ROOM]["invite_state"].is_object(), "{body}");
    assert_eq!(open(&here).unwrap().servers, [THERE]);
    let behind = way(&here);
    assert!(behind.is_here && behind.is_only_behind() && behind.needs_help(), "{behind:?}");
    assert_eq!(behind.servers[0], THERE);
    is_clean(&here);
    // The same again is no other invite, neither while it is open nor when it has been answered.
    let again = || here.engine.write(invite(sent.clone())).wait().unwrap();
    assert!(!again().is_news);
    assert_eq!(pass_and_show(&here, 60_000), 0);
    here.engine.write(leave()).wait().unwrap();
    again();
    assert_eq!(pass_and_show(&here, 60_000), 0);
    let (body, _) = sync(&here, Some(since));
    assert!(body["rooms"]["leave"][ROOM].is_object() && shown_invite(&here).is_none(), "{body}");
    assert!(!way(&here).may_be_behind);
    is_clean(&here);
}

#[test]
fn what_the_room_tells_of_an_invite_that_was_shown_without_it_counts() {
    let here = here_with_carol();
    assert_eq!(pass_and_show(&here, 10_000), 1);
    here.member(ROOM, BOB, ALICE, "invite").unwrap();
    assert!(shown_invite(&here).is_some());
    assert!(open(&here).is_err() && !way(&here).may_be_behind);
    here.leave(ROOM, ALICE);
    assert!(shown_invite(&here).is_none());
    assert_eq!(pass_and_show(&here, 60_000), 0);
    is_clean(&here);
}

/// Whoever knows the room's id could otherwise show users that they are not in it.
#[test]
fn who_is_in_the_room_is_shown_no_invite_and_comes_in_again_by_way_of_who_invites() {
    let (here, (there, invite_id)) = (here(), there());
    here.room(ROOM, BOB, None);
    here.join(ROOM, ALICE);
    assert!(!way(&here).needs_help());
    here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
    assert_eq!(pass_and_show(&here, 10_000), 0);
    here.engine.write(ShowSignedInvite { room_id: ROOM.into(), user_id: ALICE.into() }).wait().unwrap();
    assert!(shown_invite(&here).is_none() && sync(&here, None).0["rooms"]["join"][ROOM].is_object());
    assert!(way(&here).may_be_behind && way(&here).needs_help());
    is_clean(&here);
    // Whoever is not in the room for all that is known is not asked.
    here.leave(ROOM, BOB);
    assert!(!way(&here).may_be_behind);
}

/// Any server can invite, and never answer.
#[test]
fn nobody_is_asked_because_of_an_invite_of_a_server_that_is_not_in_the_room() {
    let (third, dave) = ("third.example", "@dave:third.example");
    let (here, elsewhere) = (here(), World::named(third));
    here.room(ROOM, BOB, None);
    here.join(ROOM, CAROL);
    elsewhere.room(ROOM, BOB, None);
    elsewhere.join(ROOM, dave);
    let invite_id = elsewhere.member(ROOM, dave, ALICE, "invite").unwrap();
    let sent = ReceiveInvite { server: third.into(), ..invite(event(&elsewhere, &invite_id)) };
    here.engine.write(sent).wait().unwrap();
    assert!(!way(&here).needs_help());
    assert_eq!(pass_and_show(&here, 10_000), 1);
    let way = way(&here);
    assert!(shown_invite(&here).is_some() && !way.may_be_behind && !way.needs_help(), "{way:?}");
}

fn change(here: &World, sender: &str, action: MembershipAction) -> crate::Result<()> {
    let (room_id, sender, target) = (ROOM.into(), sender.into(), ALICE.into());
    let change = ChangeMembership { room_id, sender, target, action, reason: None, is_guest: false };
    here.engine.write(change).wait()
}

#[test]
fn who_is_banned_is_shown_no_invite_and_can_be_let_in_again() {
    let (here, (there, invite_id)) = (here(), there());
    here.room(ROOM, BOB, None);
    here.join(ROOM, CAROL);
    here.state(ROOM, BOB, "m.room.power_levels", "", json!({"users": {BOB: 100, CAROL: 100}}));
    here.member(ROOM, CAROL, ALICE, "ban").unwrap();
    here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
    assert_eq!(pass_and_show(&here, 10_000), 0);
    here.engine.write(ShowSignedInvite { room_id: ROOM.into(), user_id: ALICE.into() }).wait().unwrap();
    assert!(shown_invite(&here).is_none());
    let kicked = change(&here, CAROL, MembershipAction::Kick);
    assert!(matches!(kicked, Err(Error::Denied(Denied::TargetNotInRoom))), "{kicked:?}");
    change(&here, CAROL, MembershipAction::Unban).unwrap();
    let again = change(&here, CAROL, MembershipAction::Unban);
    assert!(matches!(again, Err(Error::Denied(Denied::NotBanned))), "{again:?}");
    is_clean(&here);
}

#[test]
fn an_invite_that_the_room_does_not_have_is_nothing_to_others() {
    let here = here_with_carol();
    assert_eq!(pass_and_show(&here, 10_000), 1);
    let kicked = change(&here, BOB, MembershipAction::Kick);
    assert!(matches!(kicked, Err(Error::Denied(Denied::TargetNotInRoom))), "{kicked:?}");
    assert!(shown_invite(&here).is_some());
    // The room lets the members of another one in: who is one of them is vouched for, invited or not.
    let other = "!other:here.example";
    here.room(other, CAROL, None);
    here.join(other, ALICE);
    here.state(ROOM, BOB, "m.room.power_levels", "", json!({"users": {BOB: 100}, "invite": 0}));
    let allow = json!([{"type": "m.room_membership", "room_id": other}]);
    here.state(ROOM, BOB, "m.room.join_rules", "", json!({"join_rule": "restricted", "allow": allow}));
    change(&here, ALICE, MembershipAction::Join).unwrap();
    assert!(sync(&here, None).0["rooms"]["join"][ROOM].is_object());
    is_clean(&here);
}

fn set_invite_permission(here: &World, action: &str) {
    let content = json!({"default_action": action}).to_string().into();
    let kind = "m.invite_permission_config".to_owned();
    let set = SetAccountData { user_id: ALICE.into(), room_id: None, kind, content };
    here.engine.write(set).wait().unwrap();
}

#[test]
fn who_wants_no_invites_by_now_or_is_gone_is_shown_none() {
    let here = here_with_carol();
    set_invite_permission(&here, "block");
    assert_eq!(pass_and_show(&here, 10_000), 1);
    set_invite_permission(&here, "allow");
    assert_eq!(pass_and_show(&here, 10_000), 0);
    assert!(shown_invite(&here).is_none() && open(&here).is_err());
    is_clean(&here);
    let here = here_with_carol();
    here.engine.write(Deactivate { user_id: ALICE.into(), erase: false }).wait().unwrap();
    assert_eq!(pass_and_show(&here, 10_000), 1);
    assert!(open(&here).is_err());
    assert_eq!(pass_and_show(&here, 10_000), 0);
    is_clean(&here);
}

#[test]
fn who_wants_no_invites_by_now_or_is_gone_is_shown_none_when_the_rooms_events_come_no_more() {
    let here = here_with_carol();
    set_invite_permission(&here, "block");
    here.leave(ROOM, CAROL);
    set_invite_permission(&here, "allow");
    assert!(shown_invite(&here).is_none() && open(&here).is_err());
    assert_eq!(pass_and_show(&here, 10_000), 0);
    is_clean(&here);
    let here = here_with_carol();
    here.engine.write(Deactivate { user_id: ALICE.into(), erase: false }).wait().unwrap();
    here.leave(ROOM, CAROL);
    assert!(open(&here).is_err());
    assert_eq!(pass_and_show(&here, 10_000), 0);
    is_clean(&here);
}
