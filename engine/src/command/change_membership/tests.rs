//! The table of membership transitions, restricted rooms, guests; and that rows and state agree whatever happens.

use proptest::prelude::*;
use serde_json::json;

use super::{ChangeMembership, MembershipAction};
use crate::{
    command::{CreateRoom, Deactivate, ForgetRoom, InitialState, Register, SendEvent},
    core::event::JsonObject,
    error::{Denied, Error, Result},
    fixture::World,
    room::{Preset, RoomCtx},
    store::{
        Reader, schema,
        schema::Membership::{self, Ban, Invite, Join, Knock, Leave},
    },
};

const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:here.example";
const CAROL: &str = "@carol:here.example";

fn initial(kind: &str, content: serde_json::Value) -> InitialState {
    let content = content.as_object().cloned().unwrap_or_default();
    InitialState { kind: kind.to_owned(), state_key: String::new(), content }
}

/// A room of alice's with that join rule.
fn room(world: &World, join_rule: serde_json::Value) -> String {
    let mut request = CreateRoom::new(ALICE, "12");
    request.initial_state = vec![initial("m.room.join_rules", join_rule)];
    world.engine.write(request).wait().unwrap()
}

fn change_as(
    world: &World,
    room_id: &str,
    sender: &str,
    target: &str,
    action: MembershipAction,
    is_guest: bool,
) -> Result<()> {
    let change = ChangeMembership {
        room_id: room_id.to_owned(),
        sender: sender.to_owned(),
        target: target.to_owned(),
        action,
        reason: None,
        is_guest,
    };
    world.engine.write(change).wait()
}

fn change(world: &World, room_id: &str, sender: &str, target: &str, action: MembershipAction) -> Result<()> {
    change_as(world, room_id, sender, target, action, false)
}

fn membership(world: &World, room_id: &str, user: &str) -> Option<Membership> {
    world.ask(|reader| {
        let room = RoomCtx::load(reader, room_id)?;
        match reader.user_num(user)? {
            Some(user) => Ok(reader.membership(user, room.num)?),
            None => Ok(None),
        }
    })
}

/// Brings bob to a membership of a room whose rule is `knock`.
fn bring(world: &World, room_id: &str, to: Option<Membership>) {
    use MembershipAction as Action;
    let steps: &[(&str, Action)] = match to {
        None => &[],
        Some(Invite) => &[(ALICE, Action::Invite)],
        Some(Join) => &[(ALICE, Action::Invite), (BOB, Action::Join)],
        Some(Knock) => &[(BOB, Action::Knock)],
        Some(Leave) => &[(ALICE, Action::Invite), (BOB, Action::Leave)],
        Some(Ban) => &[(ALICE, Action::Ban)],
    };
    for (sender, action) in steps {
        change(world, room_id, sender, BOB, *action).unwrap();
    }
    assert_eq!(membership(world, room_id, BOB), to);
}

#[test]
fn who_is_deactivated_meanwhile_comes_in_no_more() {
    let world = World::new();
    world.engine.write(Register { localpart: "bob".to_owned(), ..Register::default() }).wait().unwrap();
    let room_id = room(&world, json!({"join_rule": "public"}));
    world.engine.write(Deactivate { user_id: BOB.to_owned(), erase: false }).wait().unwrap();
    let refused = change(&world, &room_id, BOB, BOB, MembershipAction::Join);
    assert!(matches!(refused, Err(Error::Denied(Denied::Deactivated))));
    assert_eq!(membership(&world, &room_id, BOB), None);
}

/// Where the room is forked, state resolution takes the later membership: it must not undo that somebody left.
#[test]
fn who_leaves_after_the_clock_was_set_back_leaves_after_they_came() {
    for by_state in [false, true] {
        leave_after_the_clock_was_set_back(by_state);
    }
}

fn leave_after_the_clock_was_set_back(by_state: bool) {
    let world = World::new();
    let room_id = room(&world, json!({"join_rule": "public"}));
    let sent_ms = || {
        world.ask(|reader| {
            let member = RoomCtx::load(reader, &room_id)?.state(reader, "m.room.member", BOB)?.unwrap();
            Ok(member.pdu()?.origin_server_ts)
        })
    };
    world.pass_ms(60_000);
    change(&world, &room_id, BOB, BOB, MembershipAction::Join).unwrap();
    let joined_ms = sent_ms();
    world.set_back_ms(60_000);
    if by_state {
        let content = json!({"membership": "leave"}).as_object().cloned().unwrap();
        let message = SendEvent::message(&room_id, BOB, content);
        let (kind, state_key) = ("m.room.member".to_owned(), Some(BOB.to_owned()));
        world.engine.write(SendEvent { kind, state_key, ..message }).wait().unwrap();
    } else {
        change(&world, &room_id, BOB, BOB, MembershipAction::Leave).unwrap();
    }
    let left_ms = sent_ms();
    assert!(left_ms > joined_ms, "{left_ms} {joined_ms}");
    world.pass_ms(120_000);
    change(&world, &room_id, BOB, BOB, MembershipAction::Join).unwrap();
    assert_eq!(sent_ms(), world.engine.now_ms());
}

/// The table of the specification's `m.room.member`, by who acts: what becomes of bob, or that it is refused.
#[test]
fn transitions() {
    use MembershipAction as Action;
    type Row = (Option<Membership>, [Option<Membership>; 7]);
    let actions = [
        (BOB, Action::Join),
        (BOB, Action::Knock),
        (BOB, Action::Leave),
        (ALICE, Action::Invite),
        (ALICE, Action::Kick),
        (ALICE, Action::Ban),
        (ALICE, Action::Unban),
    ];
    #[rustfmt::skip]
    let table: [Row; 6] = [
        // from            join        knock        leave        invite        kick         ban        unban
        (None,         [None,       Some(Knock), None,        Some(Invite), None,        Some(Ban), None]),
        (Some(Invite), [Some(Join), None,        Some(Leave), Some(Invite), Some(Leave), Some(Ban), None]),
        (Some(Join),   [Some(Join), None,        Some(Leave), None,         Some(Leave), Some(Ban), None]),
        (Some(Knock),  [None,       Some(Knock), Some(Leave), Some(Invite), Some(Leave), Some(Ban), None]),
        (Some(Leave),  [None,       Some(Knock), Some(Leave), Some(Invite), None,        Some(Ban), None]),
        (Some(Ban),    [None,       None,        None,        None,         None,        Some(Ban), Some(Leave)]),
    ];
    for (from, row) in table {
        for ((sender, action), to) in actions.into_iter().zip(row) {
            let world = World::new();
            let room_id = room(&world, json!({"join_rule": "knock"}));
            bring(&world, &room_id, from);
            let result = change(&world, &room_id, sender, BOB, action);
            assert_eq!(result.is_ok(), to.is_some(), "{from:?} {action:?}: {result:?}");
            assert_eq!(membership(&world, &room_id, BOB), to.or(from), "{from:?} {action:?}");
            world.ask(|reader| agree(reader, &room_id));
        }
    }
}

#[test]
fn a_knock_is_made_again_when_it_says_something_new() {
    let world = World::new();
    let room_id = room(&world, json!({"join_rule": "knock"}));
    let knock = |reason: &str| {
        let knock = ChangeMembership {
            room_id: room_id.clone(),
            sender: BOB.to_owned(),
            target: BOB.to_owned(),
            action: MembershipAction::Knock,
            reason: Some(reason.to_owned()),
            is_guest: false,
        };
        world.engine.write(knock).wait()
    };
    knock("let me in").unwrap();
    let position = world.engine.position();
    knock("let me in").unwrap();
    assert_eq!(world.engine.position(), position, "there is nothing new");
    knock("I brought carrots").unwrap();
    assert_eq!(member_content(&world, &room_id, BOB)["reason"], "I brought carrots");
    // Where it is not allowed any more, the last one stands.
    world.state(&room_id, ALICE, "m.room.join_rules", "", json!({"join_rule": "invite"}));
    knock("I brought carrots").unwrap();
    let error = knock("and cabbage").unwrap_err();
    assert!(matches!(error, Error::Denied(Denied::Rule { .. })), "{error}");
    assert_eq!(member_content(&world, &room_id, BOB)["reason"], "I brought carrots");
    world.ask(|reader| agree(reader, &room_id));
}

#[test]
fn nobody_without_power_acts_on_others() {
    let world = World::new();
    let room_id = room(&world, json!({"join_rule": "public"}));
    for user in [BOB, CAROL] {
        change(&world, &room_id, user, user, MembershipAction::Join).unwrap();
    }
    for action in [MembershipAction::Kick, MembershipAction::Ban] {
        let error = change(&world, &room_id, BOB, CAROL, action).unwrap_err();
        assert!(matches!(error, Error::Denied(Denied::Rule { .. })), "{error}");
        let error = change(&world, &room_id, "@mallory:here.example", CAROL, action).unwrap_err();
        assert!(matches!(error, Error::Denied(Denied::NotInRoom)), "{error}");
    }
}

#[test]
fn unknown_rooms_and_other_servers_cannot_be_reached() {
    let world = World::new();
    let error = change(&world, "!far:away.example", BOB, BOB, MembershipAction::Join).unwrap_err();
    assert!(matches!(error, Error::Denied(Denied::Unreachable)), "{error}");
    let room_id = room(&world, json!({"join_rule": "invite"}));
    let error = change(&world, &room_id, ALICE, "@eve:away.example", MembershipAction::Invite).unwrap_err();
    assert!(matches!(error, Error::Denied(Denied::OtherServer)), "{error}");
}

#[test]
fn restricted_rooms_admit_members_of_the_allowed_room() {
    for (version, join_rule) in [("8", "restricted"), ("10", "knock_restricted"), ("12", "restricted")] {
        let world = World::new();
        let space = room(&world, json!({"join_rule": "public"}));
        let allow = json!([{"type": "m.room_membership", "room_id": space}]);
        let mut request = CreateRoom::new(ALICE, version);
        let rule = json!({"join_rule": join_rule, "allow": allow});
        request.initial_state = vec![initial("m.room.join_rules", rule)];
        let room_id = world.engine.write(request).wait().unwrap();
        assert!(change(&world, &room_id, BOB, BOB, MembershipAction::Join).is_err());
        change(&world, &space, BOB, BOB, MembershipAction::Join).unwrap();
        change(&world, &room_id, BOB, BOB, MembershipAction::Join).unwrap();
        let content = member_content(&world, &room_id, BOB);
        assert_eq!(content["join_authorised_via_users_server"], ALICE);
    }
}

fn member_content(world: &World, room_id: &str, user: &str) -> JsonObject {
    world.ask(|reader| {
        let room = RoomCtx::load(reader, room_id)?;
        Ok(room.state(reader, "m.room.member", user)?.unwrap().pdu()?.content.clone())
    })
}

#[test]
fn guests_come_where_they_may_and_go_when_they_may_not() {
    let world = World::new();
    let mut request = CreateRoom::new(ALICE, "12");
    request.preset = Preset::PublicChat;
    let closed = world.engine.write(request.clone()).wait().unwrap();
    let error = change_as(&world, &closed, BOB, BOB, MembershipAction::Join, true).unwrap_err();
    assert!(matches!(error, Error::Denied(Denied::GuestAccess)), "{error}");
    let guest = Register { localpart: "bob".to_owned(), is_guest: true, ..Register::default() };
    world.engine.write(guest).wait().unwrap();
    request.initial_state = vec![initial("m.room.guest_access", json!({"guest_access": "can_join"}))];
    let open = world.engine.write(request).wait().unwrap();
    change_as(&world, &open, BOB, BOB, MembershipAction::Join, true).unwrap();
    change(&world, &open, CAROL, CAROL, MembershipAction::Join).unwrap();
    let forbid = crate::command::SendEvent {
        room_id: open.clone(),
        sender: ALICE.to_owned(),
        is_guest: false,
        kind: "m.room.guest_access".to_owned(),
        state_key: Some(String::new()),
        content: json!({"guest_access": "forbidden"}).as_object().cloned().unwrap(),
        redacts: None,
        transaction: None,
        origin_server_ts: None,
    };
    world.engine.write(forbid).wait().unwrap();
    assert_eq!(membership(&world, &open, BOB), Some(Leave));
    assert_eq!(membership(&world, &open, CAROL), Some(Join));
    world.ask(|reader| agree(reader, &open));
}

#[test]
fn only_a_room_that_was_left_is_forgotten() {
    let world = World::new();
    let room_id = room(&world, json!({"join_rule": "public"}));
    let forget = || {
        let forget = ForgetRoom { room_id: room_id.clone(), user_id: BOB.to_owned() };
        world.engine.write(forget).wait()
    };
    // Who was never there has nothing to forget.
    forget().unwrap();
    change(&world, &room_id, BOB, BOB, MembershipAction::Join).unwrap();
    assert!(forget().is_err());
    change(&world, &room_id, BOB, BOB, MembershipAction::Leave).unwrap();
    forget().unwrap();
    forget().unwrap();
}

/// The membership rows both ways, the head's counts and the state tree say the same.
fn agree(reader: &Reader, room_id: &str) -> Result<()> {
    let room = RoomCtx::load(reader, room_id)?;
    let kind = reader.text_num("m.room.member")?.unwrap();
    let mut expected = Vec::new();
    for (key, num) in reader.state_of_kind(room.num, room.head.state, kind)? {
        let user = reader.user_num(&reader.text(key.state_key())?)?.unwrap();
        let membership = Membership::from_name(reader.event(num)?.pdu()?.membership().unwrap()).unwrap();
        let row = reader.user_room(user, room.num)?.unwrap().value;
        assert_eq!((row.membership, row.event), (membership, num));
        assert_eq!(row.stripped_state.is_some(), matches!(membership, Invite | Knock));
        expected.push((membership as u8, user, num));
    }
    let mut rows = Vec::new();
    let forward = crate::store::Direction::Forward;
    reader.scan(&schema::MEMBERS, &room.num, forward, |(_, membership, user), num| {
        rows.push((membership, user, num));
        true
    })?;
    expected.sort_unstable();
    rows.sort_unstable();
    assert_eq!(rows, expected);
    let count = |which| rows.iter().filter(|(membership, ..)| *membership == which as u8).count() as u64;
    assert_eq!((room.head.joined, room.head.invited), (count(Join), count(Invite)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rows_agree_with_the_state(
        version in 1..=12u8,
        steps in proptest::collection::vec((0..4usize, 0..4usize, 0..7usize, any::<bool>()), 1..40),
    ) {
        use MembershipAction as Action;
        let users = [ALICE, BOB, CAROL, "@dave:here.example"];
        let actions =
            [Action::Join, Action::Knock, Action::Leave, Action::Invite, Action::Kick, Action::Ban, Action::Unban];
        let world = World::new();
        let mut request = CreateRoom::new(ALICE, version.to_string());
        request.preset = Preset::PublicChat;
        let room_id = world.engine.write(request).wait().unwrap();
        for (sender, target, action, forgets) in steps {
            let action = actions[action];
            let own = matches!(action, Action::Join | Action::Knock | Action::Leave);
            let (sender, target) = (users[sender], users[if own { sender } else { target }]);
            let _ = change(&world, &room_id, sender, target, action);
            if forgets {
                let forget = ForgetRoom { room_id: room_id.clone(), user_id: sender.to_owned() };
                let _ = world.engine.write(forget).wait();
            }
            world.ask(|reader| agree(reader, &room_id));
        }
    }
}
