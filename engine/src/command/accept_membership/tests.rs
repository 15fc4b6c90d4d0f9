//! Whole handshakes between two servers: one in the room, and one whose user comes, asks, or goes.

mod devices;
mod entered_again;
mod left_unheard;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::{
    Error, Membership, What,
    command::{EnterRoom, StoreOutliers, StoreServerKeys},
    core::{
        checked::PduCheck,
        event::{JsonObject, Pdu},
        identifiers::server_name,
        version::{ROOM_VERSIONS, RoomVersion},
    },
    fixture::World,
    remote::ServerKey,
    view::{
        CheckPdus,
        federation::{
            CountersignJoin, IsUntold, JoinAnswer, JoinState, MakeMembership, PartialRooms, PduList, Pdus,
            ServersInRoom, SignTemplate, SignedEvent, StateAt, UntoldEnds,
        },
    },
};

const ROOM: &str = "!room:here.example";
const SPACE: &str = "!space:here.example";
const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:there.example";
const CAROL: &str = "@carol:there.example";
const ERIN: &str = "@erin:there.example";
const DAVE: &str = "@dave:third.example";
const THERE: &str = "there.example";

fn know(world: &World, other: &World) {
    let key = other.engine.key_pair();
    let keys = vec![ServerKey {
        key_id: key.key_id().to_owned(),
        public_key: key.public_key().to_vec(),
        valid_until_ts: u64::MAX,
        is_old: false,
    }];
    let server_name = other.engine.server_name().to_owned();
    assert!(world.engine.write(StoreServerKeys { server_name, keys }).wait().unwrap().is_empty());
}

/// A server with a room, and one without; they know each other's keys.
fn worlds() -> (World, World) {
    let (here, there) = (World::new(), World::named(THERE));
    know(&here, &there);
    know(&there, &here);
    here.room(ROOM, ALICE, Some("shared"));
    (here, there)
}

fn make(here: &World, there: &World, handshake: Handshake, user: &str) -> crate::Result<SignedEvent> {
    let made = here.engine.read(&MakeMembership {
        room_id: ROOM.into(),
        user_id: user.into(),
        handshake,
        versions: ROOM_VERSIONS.iter().map(|version| version.id.to_owned()).collect(),
        server: there.engine.server_name().to_owned(),
    })?;
    there.engine.read(&SignTemplate {
        room_id: ROOM,
        user_id: user,
        handshake,
        resident: "here.example",
        room_version: Some(made.room_version),
        template: &made.event,
        reason: None,
    })
}

fn check(world: &World, version: &'static RoomVersion, pdus: &[Bytes]) -> Vec<Arc<CheckedPdu>> {
    let checks = world.engine.read(&CheckPdus { version, pdus }).unwrap();
    checks
        .into_iter()
        .map(|check| match check {
            PduCheck::Ready(pdu) => pdu,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn accept(here: &World, handshake: Handshake, event: &SignedEvent) -> crate::Result<AcceptedMembership> {
    let sender = Pdu::parse(event.version, &event.json).unwrap().sender;
    let server = server_name(&sender).unwrap();
    let json = match handshake {
        Handshake::Join => here.engine.read(&CountersignJoin {
            room_id: ROOM,
            event_id: &event.event_id,
            pdu: &event.json,
            server,
        })?,
        Handshake::Knock | Handshake::Leave => event.json.clone(),
    };
    let event_id = event.event_id.to_string();
    let event = check(here, event.version, &[json]).remove(0);
    let server = server.to_owned();
    let command = AcceptMembership { room_id: ROOM.into(), event_id, handshake, event, server };
    here.engine.write(command).wait()
}

fn accepted(here: &World, handshake: Handshake, event: &SignedEvent) -> (Bytes, Vec<Bytes>) {
    match accept(here, handshake, event).unwrap() {
        AcceptedMembership::Accepted { event, room_state } => (event, room_state),
        AcceptedMembership::Waiting(missing) => panic!("{missing:?}"),
    }
}

fn pdus(world: &World, list: &PduList) -> Vec<Bytes> {
    let (mut pdus, mut from) = (Vec::new(), Some(0));
    while let Some(start) = from {
        let piece = world.engine.read(&Pdus { list, from: start }).unwrap();
        pdus.extend(piece.items);
        from = piece.next;
    }
    pdus
}

fn answer(here: &World, event: &SignedEvent, omit_members: bool) -> JoinAnswer {
    let (room_id, event_id) = (ROOM.into(), event.event_id.to_string());
    here.engine.read(&JoinState { room_id, event_id, server: THERE.into(), omit_members }).unwrap()
}

fn types(pdus: &[Bytes]) -> Vec<(String, String)> {
    let mut types: Vec<_> = pdus
        .iter()
        .map(|pdu| {
            let pdu: Value = serde_json::from_slice(pdu).unwrap();
            let text = |name: &str| pdu[name].as_str().unwrap().to_owned();
            (text("type"), text("state_key"))
        })
        .collect();
    types.sort();
    types
}

/// The joining server takes in what it was answered with.
fn enter(here: &World, there: &World, event: &SignedEvent, join: Bytes, omit_members: bool) {
    enter_by(here, there, event, join, &answer(here, event, omit_members));
}

/// The same by an answer that may have been changed.
fn enter_by(here: &World, there: &World, event: &SignedEvent, join: Bytes, answer: &JoinAnswer) {
    let servers: Vec<String> = answer.servers_in_room.iter().map(ToString::to_string).collect();
    let untold = there.engine.read(&UntoldEnds { room_id: ROOM, server: "here.example" }).unwrap();
    let state = store(here, there, event, answer);
    let command = EnterRoom {
        room_id: ROOM.into(),
        version: event.version,
        join: check(there, event.version, &[join]).remove(0),
        untold,
        state,
        partial: answer.members_omitted.then_some(servers),
    };
    let (outcome, missing) = there.engine.write(command).wait().unwrap();
    assert_eq!(outcome, Outcome::Accepted, "{missing:?}");
}

/// The joining server stores the state that it was answered with. The ids of the state.
fn store(here: &World, there: &World, event: &SignedEvent, answer: &JoinAnswer) -> Vec<Arc<str>> {
    let (state, chain) = (pdus(here, &answer.state), pdus(here, &answer.auth_chain));
    let state = check(there, event.version, &state);
    let mut outliers = check(there, event.version, &chain);
    outliers.extend(state.iter().cloned());
    let store = StoreOutliers { room_id: ROOM.into(), version: event.version, pdus: outliers };
    let stored = there.engine.write(store).wait().unwrap();
    assert!(stored.missing.is_nothing(), "{:?}", stored.missing);
    state.iter().map(|pdu| pdu.pdu().event_id.clone()).collect()
}

fn servers(world: &World) -> Vec<(String, u64)> {
    let servers = world.engine.read(&ServersInRoom { room_id: ROOM.into() }).unwrap();
    let mut servers: Vec<_> = servers.into_iter().map(|(name, joined)| (name.to_string(), joined)).collect();
    servers.sort();
    servers
}

fn is_clean(world: &World) {
    let report = world.engine.read(&crate::check::Check { progress: &|_, _| {} }).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn a_join_from_asking_to_being_in_the_room() {
    let (here, there) = worlds();
    here.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "talk"}));
    let last = here.message(ROOM, ALICE, "before");
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    let (join, _) = accepted(&here, Handshake::Join, &event);
    assert_eq!(join, event.json);
    assert_eq!(servers(&here), [("here.example".to_owned(), 1), (THERE.to_owned(), 1)]);
    // Submitted again, as when the answer was lost: the same answer.
    assert_eq!(accepted(&here, Handshake::Join, &event).0, join);
    let told = answer(&here, &event, false);
    assert!(!told.members_omitted);
    assert_eq!(told.servers_in_room, [Arc::from("here.example")]);
    assert_eq!(answer(&here, &event, false), told);
    enter(&here, &there, &event, join, false);
    assert_eq!(servers(&there), servers(&here));
    is_clean(&here);
    // The state is what `/state` says, too, and the joined server may ask for it now.
    let at = StateAt { room_id: ROOM.into(), event_id: event.event_id.to_string(), server: THERE.into() };
    assert_eq!(here.engine.read(&at).unwrap().state, told.state);
    let view = StateAt { event_id: last, ..at };
    assert!(here.engine.read(&view).is_ok());
}

#[test]
fn members_are_left_out_for_a_server_that_can_do_without() {
    let (here, there) = worlds();
    for n in 0..20 {
        here.join(ROOM, &format!("@user{n}:here.example"));
    }
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    let (join, _) = accepted(&here, Handshake::Join, &event);
    let whole = answer(&here, &event, false);
    let members = |answer: &JoinAnswer| {
        types(&pdus(&here, &answer.state)).into_iter().filter(|(kind, _)| kind == "m.room.member").count()
    };
    assert_eq!(members(&whole), 21);
    let told = answer(&here, &event, true);
    assert!(told.members_omitted);
    // Without a name, five are needed to call the room after.
    assert_eq!(members(&told), 5);
    assert_eq!(told.servers_in_room, [Arc::from("here.example")]);
    // Nothing is told twice, and what allows the rest is there.
    let state = pdus(&here, &told.state);
    let chain = pdus(&here, &told.auth_chain);
    assert!(chain.iter().all(|pdu| !state.contains(pdu)));
    enter(&here, &there, &event, join, true);
    // With a name none is.
    here.state(ROOM, ALICE, "m.room.name", "", json!({"name": "big"}));
    here.leave(ROOM, BOB);
    let again = make(&here, &there, Handshake::Join, CAROL).unwrap();
    accepted(&here, Handshake::Join, &again);
    assert_eq!(members(&answer(&here, &again, true)), 0);
}

#[test]
fn the_joining_users_invite_is_among_what_is_not_left_out() {
    let (here, there) = worlds();
    here.state(ROOM, ALICE, "m.room.name", "", json!({"name": "named"}));
    here.state(ROOM, ALICE, "m.room.join_rules", "", json!({"join_rule": "invite"}));
    here.member(ROOM, ALICE, BOB, "invite").unwrap();
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    let (join, _) = accepted(&here, Handshake::Join, &event);
    let told = answer(&here, &event, true);
    let members: Vec<_> = types(&pdus(&here, &told.state))
        .into_iter()
        .filter(|(kind, _)| kind == "m.room.member")
        .map(|(_, user)| user)
        .collect();
    assert_eq!(members, [BOB]);
    enter(&here, &there, &event, join, true);
}

#[test]
fn a_room_of_which_nothing_was_missed_lacks_no_members() {
    let (here, there) = worlds();
    for n in 0..20 {
        here.join(ROOM, &format!("@user{n}:here.example"));
    }
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    let (join, _) = accepted(&here, Handshake::Join, &event);
    enter(&here, &there, &event, join, false);
    // The other server does not know yet that Bob has left, and lets him in behind his own join.
    there.leave(ROOM, BOB);
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    let (join, _) = accepted(&here, Handshake::Join, &event);
    assert!(answer(&here, &event, true).members_omitted);
    enter(&here, &there, &event, join, true);
    assert!(there.engine.read(&PartialRooms).unwrap().is_empty());
    is_clean(&there);
}

#[test]
fn who_comes_back_takes_those_to_be_there_that_it_is_told_last() {
    let (here, there) = worlds();
    for n in 0..20 {
        here.join(ROOM, &format!("@user{n}:here.example"));
    }
    here.join(ROOM, DAVE);
    let enter_by = |user: &str| {
        let event = make(&here, &there, Handshake::Join, user).unwrap();
        let (join, _) = accepted(&here, Handshake::Join, &event);
        enter(&here, &there, &event, join, true);
    };
    enter_by(BOB);
    assert!(servers(&there).contains(&("third.example".to_owned(), 1)), "it is told without its members");
    // Before the members are there, all go, and one of another server goes unseen.
    there.leave(ROOM, BOB);
    here.leave(ROOM, DAVE);
    enter_by(CAROL);
    assert!(servers(&there).iter().all(|(server, _)| server != "third.example"));
    is_clean(&there);
}

/// What `there` has for `here` arrives.
fn pass(there: &World, here: &World) {
    let version = RoomVersion::get("10").unwrap();
    for transaction in there.deliver("here.example") {
        let pdus = check(here, version, &transaction.pdus);
        let receive = ReceivePdus { room_id: ROOM.into(), pdus, ..ReceivePdus::default() };
        assert!(here.engine.write(receive).wait().unwrap().missing.is_nothing());
    }
}

fn membership(world: &World, user: &str) -> Option<Membership> {
    world.ask(|reader| {
        let Some(user) = reader.user_num(user)? else { return Ok(None) };
        Ok(reader.membership(user, RoomCtx::load(reader, ROOM)?.num)?)
    })
}

#[test]
fn what_was_not_told_yet_is_merged_where_a_room_is_entered_again() {
    let (here, there) = worlds();
    let levels = json!({"users": {ALICE: 100, BOB: 50}});
    here.state(ROOM, ALICE, "m.room.power_levels", "", levels);
    let come = |user: &str| {
        let event = make(&here, &there, Handshake::Join, user).unwrap();
        let (join, _) = accepted(&here, Handshake::Join, &event);
        enter(&here, &there, &event, join, false);
    };
    come(BOB);
    come(CAROL);
    pass(&there, &here);
    let is_untold = || there.engine.read(&IsUntold { room_id: ROOM, server: "here.example" }).unwrap();
    assert!(!is_untold());
    // The server does not hear of what its users do last, and goes on by itself.
    there.member(ROOM, BOB, CAROL, "ban").unwrap();
    there.state(ROOM, BOB, "m.room.topic", "", json!({"topic": "the last word"}));
    there.leave(ROOM, BOB);
    here.message(ROOM, ALICE, "where is Bob?");
    assert!(is_untold());
    come(ERIN);
    let memberships = |world: &World| [BOB, CAROL, ERIN].map(|user| membership(world, user));
    let known = [Some(Membership::Leave), Some(Membership::Ban), Some(Membership::Join)];
    assert_eq!(memberships(&there), known);
    // All of it comes there, and the state is the same.
    pass(&there, &here);
    assert!(!is_untold());
    assert_eq!(memberships(&here), known);
    let state = |world: &World| {
        world.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            let entries = reader.state_entries(room.num, room.head.state)?;
            let ids = entries.into_iter().map(|(_, num)| Ok(reader.event(num)?.event_id.to_string()));
            ids.collect::<crate::Result<BTreeSet<_>>>()
        })
    };
    assert_eq!(state(&here), state(&there));
    is_clean(&here);
    is_clean(&there);
}

#[test]
fn who_is_invited_stays_so_where_a_room_is_entered_again_without_its_members() {
    let (here, there) = worlds();
    let come = |user: &str, omit_members: bool| {
        let event = make(&here, &there, Handshake::Join, user).unwrap();
        let (join, _) = accepted(&here, Handshake::Join, &event);
        enter(&here, &there, &event, join, omit_members);
    };
    come(BOB, false);
    there.member(ROOM, BOB, CAROL, "invite").unwrap();
    there.leave(ROOM, BOB);
    pass(&there, &here);
    here.message(ROOM, ALICE, "where is Bob?");
    come(ERIN, true);
    assert!(!there.engine.read(&PartialRooms).unwrap().is_empty());
    assert_eq!(membership(&there, CAROL), Some(Membership::Invite));
    there.leave(ROOM, CAROL);
    assert_eq!(membership(&there, CAROL), Some(Membership::Leave));
    is_clean(&there);
}

#[test]
fn a_restricted_join_carries_both_signatures() {
    let (here, there) = worlds();
    here.room(SPACE, ALICE, None);
    let allow = json!([{"type": "m.room_membership", "room_id": SPACE}]);
    here.state(ROOM, ALICE, "m.room.join_rules", "", json!({"join_rule": "restricted", "allow": allow}));
    here.join(SPACE, BOB);
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    // Without our signature the event does not pass the door.
    let checks = here
        .engine
        .read(&CheckPdus { version: event.version, pdus: std::slice::from_ref(&event.json) })
        .unwrap();
    assert!(matches!(checks[..], [PduCheck::Refused { .. }]));
    let (join, _) = accepted(&here, Handshake::Join, &event);
    let pdu = Pdu::parse(event.version, &join).unwrap();
    let mut signed_by: Vec<_> = pdu.signatures().unwrap().into_iter().map(|one| one.server).collect();
    signed_by.sort();
    assert_eq!(signed_by, ["here.example", THERE]);
    enter(&here, &there, &event, join, false);
}

/// The ids of all events that another server is sent.
fn sent_to(world: &World, server: &str) -> Vec<String> {
    let version = RoomVersion::get("10").unwrap();
    let id = |pdu: &Bytes| Pdu::parse(version, pdu).unwrap().event_id.to_string();
    world.deliver(server).iter().flat_map(|transaction| &transaction.pdus).map(id).collect()
}

#[test]
fn what_is_said_while_a_server_is_on_its_way_is_told_to_it_alone() {
    let (here, there) = worlds();
    here.join(ROOM, DAVE);
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    let first = here.message(ROOM, ALICE, "meanwhile");
    let last = here.message(ROOM, ALICE, "and on");
    accepted(&here, Handshake::Join, &event);
    // Submitted again, as when the answer was lost.
    accepted(&here, Handshake::Join, &event);
    let after = here.message(ROOM, ALICE, "to all");
    // What comes before the end it fetches.
    assert_eq!(sent_to(&here, THERE), [last.clone(), after.clone()]);
    assert_eq!(sent_to(&here, "third.example"), [first, last, event.event_id.to_string(), after]);
    is_clean(&here);
    // Where others of its users are in the room, it is told of everything already.
    let event = make(&here, &there, Handshake::Join, CAROL).unwrap();
    let said = here.message(ROOM, ALICE, "to those who are there");
    accepted(&here, Handshake::Join, &event);
    assert_eq!(sent_to(&here, THERE), [said]);
}

#[test]
fn what_a_server_may_not_see_is_not_told_to_it_when_it_comes() {
    let (here, there) = worlds();
    let visibility = json!({"history_visibility": "joined"});
    here.state(ROOM, ALICE, "m.room.history_visibility", "", visibility);
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    here.message(ROOM, ALICE, "not for who is not here yet");
    accepted(&here, Handshake::Join, &event);
    assert!(sent_to(&here, THERE).is_empty());
    // The state is everybody's who is in the room.
    here.leave(ROOM, BOB);
    let event = make(&here, &there, Handshake::Join, CAROL).unwrap();
    let topic = here.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "new"}));
    accepted(&here, Handshake::Join, &event);
    assert_eq!(sent_to(&here, THERE), [topic]);
}

#[test]
fn who_only_knocks_is_told_nothing_of_the_room() {
    let (here, there) = worlds();
    here.state(ROOM, ALICE, "m.room.join_rules", "", json!({"join_rule": "knock"}));
    let event = make(&here, &there, Handshake::Knock, BOB).unwrap();
    here.message(ROOM, ALICE, "meanwhile");
    accepted(&here, Handshake::Knock, &event);
    assert!(sent_to(&here, THERE).is_empty());
}

#[test]
fn a_knock_is_answered_with_what_tells_the_room() {
    let (here, there) = worlds();
    here.state(ROOM, ALICE, "m.room.join_rules", "", json!({"join_rule": "knock"}));
    here.state(ROOM, ALICE, "m.room.name", "", json!({"name": "Knock here"}));
    here.state(ROOM, ALICE, "org.example.secret", "", json!({"secret": true}));
    let event = make(&here, &there, Handshake::Knock, BOB).unwrap();
    let (_, room_state) = accepted(&here, Handshake::Knock, &event);
    let kinds: Vec<_> = types(&room_state).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["m.room.create", "m.room.join_rules", "m.room.name"]);
    // Knocking lets nobody look further in.
    let (room_id, event_id) = (ROOM.to_owned(), event.event_id.to_string());
    let at = StateAt { room_id, event_id, server: THERE.into() };
    assert!(matches!(here.engine.read(&at), Err(Error::Denied(Denied::NotInRoom))));
    // Taken back.
    let leave = make(&here, &there, Handshake::Leave, BOB).unwrap();
    accepted(&here, Handshake::Leave, &leave);
    assert!(make(&here, &there, Handshake::Leave, BOB).is_err());
    is_clean(&here);
}

#[test]
fn an_invite_is_declined_by_the_invited_server() {
    let (here, there) = worlds();
    here.state(ROOM, ALICE, "m.room.join_rules", "", json!({"join_rule": "invite"}));
    here.member(ROOM, ALICE, BOB, "invite").unwrap();
    let leave = make(&here, &there, Handshake::Leave, BOB).unwrap();
    accepted(&here, Handshake::Leave, &leave);
    assert!(make(&here, &there, Handshake::Join, BOB).is_err());
    is_clean(&here);
}

#[test]
fn what_is_submitted_must_be_what_the_endpoint_is_for() {
    let (here, there) = worlds();
    here.member(ROOM, ALICE, BOB, "invite").unwrap();
    let join = make(&here, &there, Handshake::Join, BOB).unwrap();
    let leave = make(&here, &there, Handshake::Leave, BOB).unwrap();
    let submit = |event: &SignedEvent| AcceptMembership {
        room_id: ROOM.into(),
        event_id: event.event_id.to_string(),
        handshake: Handshake::Join,
        event: check(&here, event.version, std::slice::from_ref(&event.json)).remove(0),
        server: THERE.into(),
    };
    let refused = |command: AcceptMembership| here.engine.write(command).wait().unwrap_err();
    let invalid =
        |command| matches!(refused(command), Error::Invalid(Invalid::Parameter { what: "event", .. }));
    assert!(invalid(submit(&leave)));
    assert!(invalid(AcceptMembership { handshake: Handshake::Leave, ..submit(&join) }));
    assert!(invalid(AcceptMembership { event_id: leave.event_id.to_string(), ..submit(&join) }));
    assert!(invalid(AcceptMembership { server: "third.example".into(), ..submit(&join) }));
    here.room(SPACE, ALICE, None);
    assert!(invalid(AcceptMembership { room_id: SPACE.into(), ..submit(&join) }));
    let unknown = AcceptMembership { room_id: "!unknown:here.example".into(), ..submit(&join) };
    assert!(matches!(refused(unknown), Error::NotFound(What::Room)));
    // Nothing of all that came in.
    assert_eq!(servers(&here), [("here.example".to_owned(), 1)]);
    // A ban that came after the template.
    here.member(ROOM, ALICE, BOB, "ban").unwrap();
    assert!(matches!(refused(submit(&join)), Error::Denied(Denied::Rule { .. })));
    let acl = json!({"allow": ["*"], "deny": [THERE]});
    here.state(ROOM, ALICE, "m.room.server_acl", "", acl);
    assert!(matches!(refused(submit(&join)), Error::Denied(Denied::ServerAcl)));
    is_clean(&here);
}

#[test]
fn a_join_that_follows_what_is_not_here_waits() {
    let (here, there) = worlds();
    let made = make(&here, &there, Handshake::Join, BOB).unwrap();
    let mut template: JsonObject = serde_json::from_slice(&made.json).unwrap();
    template.insert("prev_events".to_owned(), json!(["$elsewhere"]));
    let event = there
        .engine
        .read(&SignTemplate {
            room_id: ROOM,
            user_id: BOB,
            handshake: Handshake::Join,
            resident: "here.example",
            room_version: Some("10"),
            template: &template,
            reason: None,
        })
        .unwrap();
    match accept(&here, Handshake::Join, &event).unwrap() {
        AcceptedMembership::Waiting(missing) => assert_eq!(missing.prev_events, [Arc::from("$elsewhere")]),
        AcceptedMembership::Accepted { .. } => panic!("it follows nothing that is here"),
    }
    assert_eq!(servers(&here), [("here.example".to_owned(), 1)]);
}

#[test]
fn the_state_of_a_join_is_for_the_server_that_joined() {
    let (here, there) = worlds();
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    let ask = |event_id: &str, server: &str| {
        let view = JoinState {
            room_id: ROOM.into(),
            event_id: event_id.into(),
            server: server.into(),
            omit_members: false,
        };
        here.engine.read(&view)
    };
    assert!(matches!(ask(&event.event_id, THERE), Err(Error::Denied(Denied::NotInRoom))));
    accepted(&here, Handshake::Join, &event);
    assert!(ask(&event.event_id, THERE).is_ok());
    assert!(matches!(ask(&event.event_id, "third.example"), Err(Error::Denied(Denied::NotInRoom))));
    let other = here.join(ROOM, "@dave:third.example");
    assert!(matches!(ask(&other, THERE), Err(Error::NotFound(What::Event))));
    let message = here.message(ROOM, BOB, "not a join");
    assert!(matches!(ask(&message, THERE), Err(Error::NotFound(What::Event))));
}
