//! Invites to rooms, and knocks at rooms, that this server is not in, as the users see them who get and answer them.

mod bounds;
mod declined;
mod forgotten;
mod kept;
mod left;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::{
    command::{ForgetRoom, LeaveOutOfBand, NoteKnock, Register, SetAccountData, StoreServerKeys},
    core::{
        event::{EventBuilder, EventReference},
        filter::Filter,
        version::ROOM_VERSIONS,
    },
    fixture::World,
    reception::{Body, Reception},
    remote::ServerKey,
    view::{Sync, SyncToken, federation::OutOfBandMembership},
};

const ROOM: &str = "!room:there.example";
const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:there.example";
const CAROL: &str = "@carol:here.example";
const THERE: &str = "there.example";

fn here() -> World {
    let here = World::new();
    here.engine.write(Register { localpart: "alice".into(), ..Register::default() }).wait().unwrap();
    here
}

/// The server of the room, where bob invites alice.
fn there() -> (World, String) {
    let there = World::named(THERE);
    there.room(ROOM, BOB, None);
    there.state(ROOM, BOB, "m.room.name", "", json!({"name": "A room"}));
    let invite = there.member(ROOM, BOB, ALICE, "invite").unwrap();
    (there, invite)
}

fn event(world: &World, event_id: &str) -> Arc<Pdu> {
    world.ask(|reader| Ok(reader.event(reader.event_num(event_id)?.unwrap())?.pdu()?))
}

fn object(json: &[u8]) -> JsonObject {
    serde_json::from_slice(json).unwrap()
}

fn room_state() -> Vec<JsonObject> {
    let stripped = json!([
        {"type": "m.room.create", "state_key": "", "sender": BOB, "content": {"room_version": "10"}},
        {"type": "m.room.name", "state_key": "", "sender": BOB, "content": {"name": "A room"}, "signatures": {}},
        {"type": "m.room.name", "sender": BOB, "content": {"name": "not state"}},
        {"type": 5},
    ]);
    stripped.as_array().unwrap().iter().map(|entry| entry.as_object().cloned().unwrap()).collect()
}

fn invite(event: Arc<Pdu>) -> ReceiveInvite {
    ReceiveInvite {
        room_id: ROOM.into(),
        event_id: event.event_id.to_string(),
        version: RoomVersion::get("10").unwrap(),
        event,
        room_state: room_state(),
        server: THERE.into(),
    }
}

fn sync(world: &World, since: Option<SyncToken>) -> (Value, SyncToken) {
    let answer = world
        .engine
        .read(&Sync {
            user_id: ALICE.into(),
            device_id: None,
            since,
            filter: Arc::new(Filter::default()),
            full_state: false,
            state_after: None,
            waits: false,
        })
        .unwrap();
    (serde_json::from_slice(&answer.body).unwrap(), answer.token)
}

fn open(world: &World) -> crate::Result<crate::view::federation::OpenMembership> {
    world.engine.read(&OutOfBandMembership { room_id: ROOM.into(), user_id: ALICE.into() })
}

fn leave() -> LeaveOutOfBand {
    LeaveOutOfBand { room_id: ROOM.into(), user_id: ALICE.into(), event: None, reason: Some("no".into()) }
}

fn is_clean(world: &World) {
    let report = world.engine.read(&crate::check::Check { progress: &|_, _| {} }).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn an_invite_is_signed_and_shown() {
    let (here, (there, invite_id)) = (here(), there());
    let (_, since) = sync(&here, None);
    let sent = event(&there, &invite_id);
    let signed = here.engine.write(invite(sent.clone())).wait().unwrap();
    assert!(signed.is_news);
    let key = here.engine.key_pair();
    let version = RoomVersion::get("10").unwrap();
    let pdu = Pdu::parse(version, &signed.event).unwrap();
    assert_eq!(pdu.event_id, sent.event_id);
    pdu.verify_signature(version, "here.example", key.key_id(), key.public_key()).unwrap();
    let key = there.engine.key_pair();
    pdu.verify_signature(version, THERE, key.key_id(), key.public_key()).unwrap();
    for since in [None, Some(since)] {
        let (body, _) = sync(&here, since);
        let shown = body["rooms"]["invite"][ROOM]["invite_state"]["events"].as_array().unwrap();
        let kinds: Vec<_> = shown.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["m.room.create", "m.room.name", "m.room.member"]);
        assert_eq!(shown[2]["state_key"], ALICE);
        for event in shown {
            let names: Vec<_> = event.as_object().unwrap().keys().collect();
            assert_eq!(names, ["content", "sender", "state_key", "type"]);
        }
    }
    let open = open(&here).unwrap();
    assert_eq!((open.membership, open.version.id), (Membership::Invite, "10"));
    assert_eq!((open.event_id, open.servers), (invite_id, vec![THERE.to_owned()]));
    is_clean(&here);
}

#[test]
fn the_same_invite_again_is_no_news() {
    let (here, (there, invite_id)) = (here(), there());
    let sent = event(&there, &invite_id);
    let first = here.engine.write(invite(sent.clone())).wait().unwrap();
    let (_, since) = sync(&here, None);
    let again = here.engine.write(invite(sent)).wait().unwrap();
    assert_eq!(again, ReceivedInvite { is_news: false, ..first });
    let (body, _) = sync(&here, Some(since));
    assert!(body["rooms"]["invite"].get(ROOM).is_none());
}

#[test]
fn nothing_but_invites_from_the_asking_server_for_our_users_is_signed() {
    let (here, (there, invite_id)) = (here(), there());
    let sent = event(&there, &invite_id);
    let good = || invite(sent.clone());
    let refused = |command: ReceiveInvite| here.engine.write(command).wait().unwrap_err();
    let invalid =
        |command| matches!(refused(command), Error::Invalid(Invalid::Parameter { what: "event", .. }));
    assert!(invalid(ReceiveInvite { room_id: "!other:there.example".into(), ..good() }));
    assert!(invalid(ReceiveInvite { event_id: "$other".into(), ..good() }));
    assert!(invalid(ReceiveInvite { server: "evil.example".into(), ..good() }));
    let carol = "@carol:there.example";
    for other in [
        there.join(ROOM, carol),
        there.leave(ROOM, carol),
        there.message(ROOM, BOB, "hello"),
        there.state(ROOM, BOB, "m.room.power_levels", "", json!({"users": {BOB: 100}})),
        there.member(ROOM, BOB, ALICE, "ban").unwrap(),
    ] {
        assert!(invalid(invite(event(&there, &other))));
    }
    let elsewhere = there.member(ROOM, BOB, "@dave:third.example", "invite").unwrap();
    assert!(matches!(refused(invite(event(&there, &elsewhere))), Error::Denied(Denied::OtherServer)));
    let nobody = there.member(ROOM, BOB, "@nobody:here.example", "invite").unwrap();
    assert!(matches!(refused(invite(event(&there, &nobody))), Error::NotFound(What::User)));
    assert!(open(&here).is_err());
}

#[test]
fn an_invite_is_declined_without_the_other_server() {
    let (here, (there, invite_id)) = (here(), there());
    assert!(matches!(here.engine.write(leave()).wait(), Err(Error::NotFound(What::Room))));
    here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
    let (_, since) = sync(&here, None);
    here.engine.write(leave()).wait().unwrap();
    let (body, since) = sync(&here, Some(since));
    let shown = &body["rooms"]["leave"][ROOM]["timeline"]["events"];
    assert_eq!(shown[0]["content"]["membership"], "leave");
    assert_eq!(shown[0]["content"]["reason"], "no");
    assert_eq!((&shown[0]["sender"], &shown[0]["state_key"]), (&json!(ALICE), &json!(ALICE)));
    assert!(body["rooms"].get("invite").is_none_or(|rooms| rooms.get(ROOM).is_none()));
    assert!(open(&here).is_err());
    assert!(matches!(here.engine.write(leave()).wait(), Err(Error::NotFound(What::Room))));
    is_clean(&here);
    // Being asked again is news.
    let again = there.leave(ROOM, ALICE);
    assert_ne!(again, invite_id);
    let again = there.member(ROOM, BOB, ALICE, "invite").unwrap();
    here.engine.write(invite(event(&there, &again))).wait().unwrap();
    let (body, _) = sync(&here, Some(since));
    assert!(body["rooms"]["invite"][ROOM].is_object());
}

#[test]
fn who_is_ignored_is_not_heard_of() {
    let (here, (there, invite_id)) = (here(), there());
    let ignore = |whom: Value| {
        let content = json!({"ignored_users": whom}).to_string().into();
        let kind = "m.ignored_user_list".to_owned();
        let set = SetAccountData { user_id: ALICE.into(), room_id: None, kind, content };
        here.engine.write(set).wait().unwrap();
    };
    ignore(json!({BOB: {}}));
    let (_, since) = sync(&here, None);
    here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
    for since in [None, Some(since)] {
        assert_eq!(sync(&here, since).0["rooms"]["invite"].get(ROOM), None);
    }
    // It was there all the time.
    assert!(open(&here).is_ok());
    ignore(json!({}));
    assert!(sync(&here, None).0["rooms"]["invite"][ROOM].is_object());
}

#[test]
fn a_knock_is_shown_and_taken_back() {
    let (here, (there, _)) = (here(), there());
    there.leave(ROOM, ALICE);
    there.state(ROOM, BOB, "m.room.join_rules", "", json!({"join_rule": "knock"}));
    let knock = there.member(ROOM, ALICE, ALICE, "knock").unwrap();
    let note = NoteKnock {
        room_id: ROOM.into(),
        user_id: ALICE.into(),
        version: RoomVersion::get("10").unwrap(),
        event: event(&there, &knock).json.clone(),
        room_state: room_state(),
        server: THERE.into(),
    };
    here.engine.write(note).wait().unwrap();
    let (body, since) = sync(&here, None);
    let shown = &body["rooms"]["knock"][ROOM]["knock_state"]["events"];
    assert_eq!(shown.as_array().unwrap().last().unwrap()["content"]["membership"], "knock");
    assert_eq!(open(&here).unwrap().membership, Membership::Knock);
    // The knock is answered: the invite takes its place.
    let answered = there.member(ROOM, BOB, ALICE, "invite").unwrap();
    here.engine.write(invite(event(&there, &answered))).wait().unwrap();
    let (body, _) = sync(&here, Some(since));
    assert!(body["rooms"]["invite"][ROOM].is_object());
    here.engine.write(leave()).wait().unwrap();
    is_clean(&here);
}

#[test]
fn a_room_that_this_server_was_in_keeps_its_rows() {
    let here = here();
    // The room was left by all of this server's users; then bob, elsewhere, asks alice to come back.
    here.room(ROOM, BOB, None);
    here.join(ROOM, ALICE);
    let last = here.message(ROOM, BOB, "for alice");
    here.leave(ROOM, ALICE);
    here.message(ROOM, BOB, "not for alice");
    let (there, invite_id) = there();
    here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
    let (body, since) = sync(&here, None);
    assert!(body["rooms"]["invite"][ROOM].is_object());
    is_clean(&here);
    // An invite does not show what was sent since she left.
    let seen = |event_id: &str| {
        let view = crate::view::OneEvent {
            room_id: ROOM.into(),
            user: ALICE.into(),
            device: None,
            event_id: event_id.into(),
        };
        here.engine.read(&view).is_ok()
    };
    assert!(seen(&last));
    here.engine.write(leave()).wait().unwrap();
    let (body, since) = sync(&here, Some(since));
    assert_eq!(body["rooms"]["leave"][ROOM]["timeline"]["events"].as_array().unwrap().len(), 1);
    is_clean(&here);
    // The room's own news count again.
    here.join(ROOM, ALICE);
    let (body, _) = sync(&here, Some(since));
    assert!(body["rooms"]["join"][ROOM].is_object());
    is_clean(&here);
}

#[test]
fn a_server_in_the_room_signs_and_waits_for_the_rooms_own_news() {
    let here = here();
    here.room(ROOM, BOB, None);
    here.join(ROOM, CAROL);
    let (there, invite_id) = there();
    let signed = here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
    assert!(object(&signed.event)["signatures"].get("here.example").is_some());
    assert!(!signed.is_news);
    assert!(open(&here).is_err());
    // Whom the room's access list shuts out invites nobody to it.
    here.state(ROOM, BOB, "m.room.server_acl", "", json!({"allow": ["*"], "deny": [THERE]}));
    let refused = here.engine.write(invite(event(&there, &invite_id))).wait().unwrap_err();
    assert!(matches!(refused, Error::Denied(Denied::ServerAcl)));
    is_clean(&here);
}

/// A room of version 12, whose id is the hash of its create event.
#[test]
fn rooms_that_are_named_by_their_create_event_must_show_one() {
    let here = here();
    let version = ROOM_VERSIONS.iter().copied().find(|version| version.id == "12").unwrap();
    let key = World::named(THERE);
    let key = key.engine.key_pair();
    let build = |room_id: Option<&str>, kind: &str, state_key: &str, content: Value, prev: Option<&str>| {
        EventBuilder {
            room_id: room_id.map(Arc::from),
            sender: BOB.into(),
            kind: kind.into(),
            state_key: Some(state_key.into()),
            content: content.as_object().cloned().unwrap(),
            redacts: None,
            prev_events: prev.map(|id| EventReference::from(Arc::<str>::from(id))).into_iter().collect(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: 1,
            event_id_localpart: None,
        }
        .build(version, THERE, key)
        .unwrap()
    };
    let create = build(None, "m.room.create", "", json!({"room_version": "12"}), None);
    let other = build(None, "m.room.create", "", json!({"room_version": "12", "type": "m.space"}), None);
    let name =
        build(Some(&create.room_id), "m.room.name", "", json!({"name": "twelve"}), Some(&create.event_id));
    let event = Arc::new(build(
        Some(&create.room_id),
        "m.room.member",
        ALICE,
        json!({"membership": "invite"}),
        Some(&create.event_id),
    ));
    let state = |pdus: &[&Pdu]| pdus.iter().map(|pdu| object(&pdu.json)).collect::<Vec<_>>();
    let invite = |room_state| ReceiveInvite {
        room_id: create.room_id.to_string(),
        event_id: event.event_id.to_string(),
        version,
        event: event.clone(),
        room_state,
        server: THERE.into(),
    };
    let stripped = |kind: &str| {
        let content = json!({"name": "stripped"});
        object(
            json!({"type": kind, "state_key": "", "sender": BOB, "content": content}).to_string().as_bytes(),
        )
    };
    let with =
        |pdus: &[&Pdu], kind: &str| state(pdus).into_iter().chain([stripped(kind)]).collect::<Vec<_>>();
    for wrong in [
        vec![],
        state(&[&name]),
        state(&[&other]),
        state(&[&create, &other]),
        with(&[&name], "m.room.topic"),
        with(&[&other], "m.room.create"),
    ] {
        let refused = here.engine.write(invite(wrong)).wait();
        assert!(matches!(refused, Err(Error::Invalid(Invalid::Parameter { what: "room_state", .. }))));
    }
    // Most servers send stripped events yet, some the create event alone as a whole one.
    for (room_state, called) in [
        (state(&[&create, &name]), "twelve"),
        (with(&[&create], "m.room.name"), "stripped"),
        (with(&[&name], "m.room.create"), "twelve"),
        (vec![stripped("m.room.create"), stripped("m.room.name")], "stripped"),
    ] {
        let here = self::here();
        here.engine.write(invite(room_state)).wait().unwrap();
        let (body, _) = sync(&here, None);
        let shown = body["rooms"]["invite"][&*create.room_id]["invite_state"]["events"].as_array().unwrap();
        let named = shown.iter().find(|event| event["type"] == "m.room.name").unwrap();
        assert_eq!(named["content"]["name"], called);
    }
}

/// A knock is placed whatever comes with it: what may not be shown is left out.
#[test]
fn a_knock_shows_what_is_well_formed_of_the_room() {
    let here = here();
    let there = World::named(THERE);
    let version = ROOM_VERSIONS.iter().copied().find(|version| version.id == "12").unwrap();
    let build = |room_id: Option<&str>, kind: &str, state_key: &str, content: Value| {
        EventBuilder {
            room_id: room_id.map(Arc::from),
            sender: if kind == "m.room.member" { ALICE } else { BOB }.into(),
            kind: kind.into(),
            state_key: Some(state_key.into()),
            content: content.as_object().cloned().unwrap(),
            redacts: None,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: 1,
            event_id_localpart: None,
        }
        .build(version, THERE, there.engine.key_pair())
        .unwrap()
    };
    let create = build(None, "m.room.create", "", json!({"room_version": "12"}));
    let room_id = &*create.room_id;
    let name = build(Some(room_id), "m.room.name", "", json!({"name": "twelve"}));
    let elsewhere = build(Some("!other"), "m.room.topic", "", json!({"topic": "another room's"}));
    let knock = build(Some(room_id), "m.room.member", ALICE, json!({"membership": "knock"}));
    let stripped =
        object(br#"{"type":"m.room.avatar","state_key":"","sender":"@bob:there.example","content":{}}"#);
    let note = NoteKnock {
        room_id: room_id.to_owned(),
        user_id: ALICE.into(),
        version,
        event: knock.json.clone(),
        room_state: vec![object(&name.json), object(&elsewhere.json), stripped],
        server: THERE.into(),
    };
    here.engine.write(note).wait().unwrap();
    let (body, _) = sync(&here, None);
    let shown = body["rooms"]["knock"][room_id]["knock_state"]["events"].as_array().unwrap();
    let kinds: Vec<_> = shown.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["m.room.name", "m.room.member"]);
}

#[test]
fn what_is_shown_with_an_invite_is_bounded() {
    let (here, (there, invite_id)) = (here(), there());
    let large = |n: usize| {
        let content = json!({"name": "x".repeat(9_000), "n": n});
        json!({"type": "m.room.name", "state_key": "", "sender": BOB, "content": content})
            .as_object()
            .cloned()
            .unwrap()
    };
    let many = ReceiveInvite {
        room_state: (0..1_000).map(large).chain(room_state()).collect(),
        ..invite(event(&there, &invite_id))
    };
    here.engine.write(many).wait().unwrap();
    let (body, _) = sync(&here, None);
    let shown = &body["rooms"]["invite"][ROOM]["invite_state"]["events"];
    assert!((18_000..30_000).contains(&shown.to_string().len()));
    assert_eq!(shown.as_array().unwrap().last().unwrap()["type"], "m.room.member");
}

/// Gives `here` an event in a transaction of `origin`. Answers with what is answered.
fn receive(here: &World, origin: &str, pdu: &Pdu) -> Value {
    let pdu: Value = serde_json::from_slice(&pdu.json).unwrap();
    let body = json!({ "pdus": [pdu] }).to_string();
    let body: Body<'_> = serde_json::from_str(&body).unwrap();
    let mut reception = Reception::new(origin.to_owned(), "1".to_owned(), &body).unwrap();
    for mut room in reception.rooms() {
        assert!(room.begin(&here.engine).unwrap().is_none());
        for notice in room.turned_away() {
            here.engine.write(notice).wait().unwrap();
        }
        reception.took_in(room);
    }
    serde_json::from_slice::<Value>(&reception.answer(None).answer).unwrap()["pdus"].clone()
}

fn know(world: &World, other: &World) {
    let key = other.engine.key_pair();
    let (key_id, public_key) = (key.key_id().to_owned(), key.public_key().to_vec());
    let keys = vec![ServerKey { key_id, public_key, valid_until_ts: u64::MAX, is_old: false }];
    let server_name = other.engine.server_name().to_owned();
    world.engine.write(StoreServerKeys { server_name, keys }).wait().unwrap();
}

#[test]
fn who_is_turned_away_is_told() {
    for membership in ["leave", "ban"] {
        let (here, (there, invite_id)) = (here(), there());
        here.engine.write(invite(event(&there, &invite_id))).wait().unwrap();
        let since = sync(&here, None).1;
        let kick_id = there.member(ROOM, BOB, ALICE, membership).unwrap();
        let kick = event(&there, &kick_id);
        // Nothing is believed that is not signed, or comes from another server than its sender's.
        assert_eq!(receive(&here, THERE, &kick), json!({}));
        know(&here, &there);
        assert_eq!(receive(&here, "third.example", &kick), json!({}));
        assert!(open(&here).is_ok());
        assert_eq!(receive(&here, THERE, &kick), json!({ &kick_id: {} }));
        assert!(open(&here).is_err());
        let (body, _) = sync(&here, Some(since));
        let shown = &body["rooms"]["leave"][ROOM]["timeline"]["events"][0];
        assert_eq!((&shown["event_id"], &shown["sender"]), (&json!(kick_id), &json!(BOB)), "{body}");
        is_clean(&here);
    }
}

#[test]
fn only_what_ends_the_invite_ends_it() {
    let (here, (there, invite_id)) = (here(), there());
    know(&here, &there);
    let kick_id = there.member(ROOM, BOB, ALICE, "leave").unwrap();
    let again_id = there.member(ROOM, BOB, ALICE, "invite").unwrap();
    assert_ne!(invite_id, again_id);
    here.engine.write(invite(event(&there, &again_id))).wait().unwrap();
    // It ended the invite before.
    receive(&here, THERE, &event(&there, &kick_id));
    assert_eq!(open(&here).unwrap().event_id, again_id);
    // Other events of a room that this server is not in are nobody's.
    let name_id = there.state(ROOM, BOB, "m.room.name", "", json!({"name": "Another"}));
    assert_eq!(receive(&here, THERE, &event(&there, &name_id)), json!({}));
}
