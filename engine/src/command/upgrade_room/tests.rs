//! From every version to every version, and what is refused.

use serde_json::{Value, json};

use super::UpgradeRoom;
use crate::{
    account::account_data,
    command::{
        CarrySettings, ChangeMembership, CreateRoom, InitialState, ListRoom, MembershipAction, MoveNames,
        SendEvent, SetAlias,
    },
    core::version::ROOM_VERSIONS,
    error::{Denied, Error, Invalid, Result},
    fixture::World,
    room::{Preset, RoomCtx},
    store::{schema, schema::Membership},
    view::ReplacedRoom,
};

const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:here.example";
const CAROL: &str = "@carol:here.example";

fn object(value: Value) -> crate::core::event::JsonObject {
    value.as_object().cloned().unwrap()
}

/// A room of Alice's with an alias, in which Bob is a moderator and Carol is banned.
fn room(world: &World, version: &str) -> String {
    let mut request = CreateRoom::new(ALICE, version);
    request.preset = Preset::PublicChat;
    request.name = Some("The burrow".into());
    request.alias_localpart = Some(format!("burrow-{version}"));
    let encryption = json!({"algorithm": "m.megolm.v1.aes-sha2"});
    request.initial_state = vec![InitialState {
        kind: "m.room.encryption".into(),
        state_key: String::new(),
        content: object(encryption),
    }];
    let room_id = world.engine.write(request).wait().unwrap();
    world.join(&room_id, BOB);
    world.member(&room_id, ALICE, CAROL, "ban").unwrap();
    let mut levels = state(world, &room_id, "m.room.power_levels", "");
    levels["users"][BOB] = 50.into();
    world.state(&room_id, ALICE, "m.room.power_levels", "", levels);
    room_id
}

fn state(world: &World, room_id: &str, kind: &str, state_key: &str) -> Value {
    world.ask(|reader| {
        let event = RoomCtx::load(reader, room_id)?.state(reader, kind, state_key)?;
        Ok(event.map_or(Value::Null, |event| Value::Object(event.pdu().unwrap().content.clone())))
    })
}

fn upgrade(world: &World, user: &str, room_id: &str, version: &str, additional: &[&str]) -> Result<String> {
    let upgrade = UpgradeRoom {
        room_id: room_id.into(),
        user_id: user.into(),
        version: version.into(),
        additional_creators: additional.iter().map(|user| user.to_string()).collect(),
    };
    world.engine.write(upgrade).wait()
}

#[test]
fn every_version_to_every_version() {
    for old in ROOM_VERSIONS {
        for new in ROOM_VERSIONS {
            let world = World::new();
            let room_id = room(&world, old.id);
            let list =
                ListRoom { room_id: room_id.clone(), user_id: ALICE.into(), is_admin: true, is_listed: true };
            world.engine.write(list).wait().unwrap();
            let replacement = upgrade(&world, ALICE, &room_id, new.id, &[]).unwrap();
            let context = format!("{} to {}", old.id, new.id);
            let create = state(&world, &replacement, "m.room.create", "");
            assert_eq!(create["room_version"], new.id, "{context}");
            assert_eq!(create["predecessor"]["room_id"], room_id, "{context}");
            assert_eq!(create["predecessor"]["event_id"].is_string(), new.id != "12", "{context}");
            let tombstone = state(&world, &room_id, "m.room.tombstone", "");
            assert_eq!(tombstone["replacement_room"], replacement, "{context}");
            for kind in ["m.room.name", "m.room.encryption", "m.room.join_rules", "m.room.history_visibility"]
            {
                assert_eq!(
                    state(&world, &replacement, kind, ""),
                    state(&world, &room_id, kind, ""),
                    "{kind}"
                );
            }
            let users = &state(&world, &replacement, "m.room.power_levels", "")["users"];
            let alice = if new.id == "12" { Value::Null } else { json!(100) };
            assert_eq!((&users[ALICE], &users[BOB]), (&alice, &json!(50)), "{context}");
            assert_eq!(state(&world, &replacement, "m.room.member", CAROL)["membership"], "ban", "{context}");
            let alias = format!("#burrow-{}:here.example", old.id);
            assert_eq!(world.ask(|reader| Ok(reader.alias(&alias)?.unwrap().room_id)), replacement);
            assert_eq!(state(&world, &replacement, "m.room.canonical_alias", ""), json!({ "alias": alias }));
            assert_eq!(state(&world, &room_id, "m.room.canonical_alias", ""), json!({}), "{context}");
            let old_levels = state(&world, &room_id, "m.room.power_levels", "");
            assert_eq!((&old_levels["events_default"], &old_levels["invite"]), (&json!(50), &json!(50)));
            let listed = |room_id: &str| {
                world.ask(|reader| {
                    let num = reader.room_num(room_id)?.unwrap();
                    Ok(reader.has(&crate::store::schema::PUBLIC_ROOMS, &num)?)
                })
            };
            assert_eq!((listed(&room_id), listed(&replacement)), (false, true), "{context}");
            world.join(&replacement, BOB);
        }
    }
}

#[test]
fn creators_are_those_of_the_request() {
    let world = World::new();
    let room_id = room(&world, "11");
    let replacement = upgrade(&world, ALICE, &room_id, "12", &[BOB]).unwrap();
    assert_eq!(state(&world, &replacement, "m.room.create", "")["additional_creators"], json!([BOB]));
    assert_eq!(state(&world, &replacement, "m.room.power_levels", "")["users"], json!({}));
    world.join(&replacement, BOB);
    let again = upgrade(&world, BOB, &replacement, "12", &[]).unwrap();
    assert_eq!(state(&world, &again, "m.room.create", "")["additional_creators"], Value::Null);
    let ignored = upgrade(&world, BOB, &again, "11", &["nobody"]).unwrap();
    assert_eq!(state(&world, &ignored, "m.room.power_levels", "")["users"][BOB], 100);
}

#[test]
fn a_moderator_who_may_transfers_what_they_could_not_set() {
    let world = World::new();
    let room_id = room(&world, "10");
    let mut levels = state(&world, &room_id, "m.room.power_levels", "");
    levels["events"]["m.room.tombstone"] = 50.into();
    world.state(&room_id, ALICE, "m.room.power_levels", "", levels);
    let replacement = upgrade(&world, BOB, &room_id, "11", &[]).unwrap();
    assert!(state(&world, &replacement, "m.room.encryption", "").is_object());
    assert_eq!(state(&world, &replacement, "m.room.power_levels", "")["users"], json!({ALICE: 100, BOB: 50}));
    assert_ne!(state(&world, &room_id, "m.room.power_levels", "")["events_default"], 50, "Bob may not");
}

#[test]
fn a_space_keeps_its_rooms() {
    let world = World::new();
    let mut request = CreateRoom::new(ALICE, "11");
    request.creation_content = object(json!({"type": "m.space", "m.federate": false}));
    let space = world.engine.write(request).wait().unwrap();
    world.state(&space, ALICE, "m.space.child", "!kept:x", json!({"via": ["x"]}));
    world.state(&space, ALICE, "m.space.child", "!gone:x", json!({}));
    let replacement = upgrade(&world, ALICE, &space, "12", &[]).unwrap();
    let create = state(&world, &replacement, "m.room.create", "");
    assert_eq!((&create["type"], &create["m.federate"]), (&json!("m.space"), &json!(false)));
    assert_eq!(state(&world, &replacement, "m.space.child", "!kept:x"), json!({"via": ["x"]}));
    assert_eq!(state(&world, &replacement, "m.space.child", "!gone:x"), Value::Null);
}

fn set(world: &World, user_id: &str, room_id: Option<&str>, kind: &str, content: Value) {
    let set = |tx: &mut crate::store::Tx| {
        let user = tx.user_num(user_id)?.unwrap();
        let room = room_id.map(|room_id| tx.room_num(room_id)).transpose()?.flatten();
        Ok(account_data::set(tx, user, room, kind, &content.to_string().into())?)
    };
    world.act(set).unwrap();
}

/// Makes the room a favourite of the user's.
fn tag(world: &World, user_id: &str, room_id: &str) {
    set(world, user_id, Some(room_id), "m.tag", json!({"tags": {"m.favourite": {}}}));
}

fn has_tags(world: &World, user_id: &str, room_id: &str) -> bool {
    world.ask(|reader| {
        let (user, room) = (reader.user_num(user_id)?.unwrap(), reader.room_num(room_id)?);
        Ok(account_data::get(reader, user, room, "m.tag")?.is_some())
    })
}

#[test]
fn members_keep_their_settings() {
    let world = World::new();
    let room_id = room(&world, "11");
    let tags = |room_id: &str| has_tags(&world, BOB, room_id);
    tag(&world, BOB, &room_id);
    set(&world, BOB, None, "m.direct", json!({ALICE: [room_id]}));
    let replacement = upgrade(&world, ALICE, &room_id, "12", &[]).unwrap();
    // A room that only says that it replaces another gets nothing.
    let mut claim = CreateRoom::new(BOB, "11");
    claim.creation_content = object(json!({"predecessor": {"room_id": room_id}}));
    let claimed = world.engine.write(claim).wait().unwrap();
    let join = |room_id: &str| {
        let join = ChangeMembership {
            room_id: room_id.into(),
            sender: BOB.into(),
            target: BOB.into(),
            action: MembershipAction::Join,
            reason: None,
            is_guest: false,
        };
        world.engine.write(join).wait().unwrap();
    };
    world.leave(&claimed, BOB);
    assert!(!tags(&claimed) && !tags(&replacement));
    join(&replacement);
    assert!(tags(&replacement));
    let direct = world.ask(|reader| {
        let bob = reader.user_num(BOB)?.unwrap();
        let content = account_data::get(reader, bob, None, "m.direct")?.unwrap();
        Ok(serde_json::from_slice::<Value>(&content).unwrap())
    });
    assert_eq!(direct, json!({ALICE: [room_id, replacement]}));
}

/// As a join is that another server has let in, which is an event like any other here.
#[test]
fn who_came_in_by_way_of_another_server_keeps_their_settings() {
    let world = World::new();
    let room_id = room(&world, "11");
    tag(&world, BOB, &room_id);
    let replacement = upgrade(&world, ALICE, &room_id, "12", &[]).unwrap();
    let carry = |user_id: &str| {
        let carry = CarrySettings { room_id: replacement.clone(), user_id: user_id.into() };
        world.engine.write(carry).wait().unwrap();
    };
    carry(BOB);
    assert!(!has_tags(&world, BOB, &replacement), "not in the room");
    world.join(&replacement, BOB);
    assert!(!has_tags(&world, BOB, &replacement));
    carry(BOB);
    assert!(has_tags(&world, BOB, &replacement));
    // Nobody is surprised by a room that replaces none, nor by users and rooms that are not there.
    carry("@nobody:here.example");
    let position = world.engine.position();
    carry(BOB);
    let elsewhere = CarrySettings { room_id: "!none:x".into(), user_id: BOB.into() };
    world.engine.write(elsewhere).wait().unwrap();
    let old = CarrySettings { room_id: room_id.clone(), user_id: BOB.into() };
    world.engine.write(old).wait().unwrap();
    assert_eq!(world.engine.position(), position, "what is there is not carried again");
}

#[test]
fn who_makes_the_new_room_by_hand_keeps_their_settings() {
    let world = World::new();
    let room_id = room(&world, "11");
    tag(&world, ALICE, &room_id);
    let mut request = CreateRoom::new(ALICE, "11");
    request.creation_content = object(json!({"predecessor": {"room_id": room_id}}));
    let made = world.engine.write(request).wait().unwrap();
    assert!(!has_tags(&world, ALICE, &made), "the old room does not say yet that it is replaced");
    let tombstone = |state_key: Option<&str>| SendEvent {
        kind: "m.room.tombstone".into(),
        state_key: state_key.map(str::to_owned),
        ..SendEvent::message(
            &room_id,
            ALICE,
            object(json!({"body": "We have moved", "replacement_room": made})),
        )
    };
    world.engine.write(tombstone(None)).wait().unwrap();
    assert!(!has_tags(&world, ALICE, &made), "this one is a message");
    world.engine.write(tombstone(Some(""))).wait().unwrap();
    assert!(has_tags(&world, ALICE, &made));
}

#[test]
fn what_is_refused_leaves_nothing() {
    let world = World::new();
    let room_id = room(&world, "11");
    let before = world.engine.position();
    assert!(matches!(upgrade(&world, BOB, &room_id, "12", &[]), Err(Error::Denied(Denied::PowerLevel))));
    assert!(matches!(upgrade(&world, CAROL, &room_id, "12", &[]), Err(Error::Denied(Denied::NotInRoom))));
    let unknown = upgrade(&world, ALICE, &room_id, "burrow", &[]);
    assert!(matches!(unknown, Err(Error::Invalid(Invalid::RoomVersion(_)))));
    let nobody = upgrade(&world, ALICE, &room_id, "12", &["nobody"]);
    assert!(matches!(nobody, Err(Error::Invalid(Invalid::Identifier { .. }))));
    assert!(matches!(upgrade(&world, ALICE, "!none:x", "12", &[]), Err(Error::Denied(Denied::NotInRoom))));
    assert_eq!(world.engine.position(), before);
    assert_eq!(Membership::Ban.name(), state(&world, &room_id, "m.room.member", CAROL)["membership"]);
}

#[test]
fn a_room_that_this_server_is_shut_out_of_is_not_made_anew() {
    let world = World::new();
    let room_id = room(&world, "11");
    let acl = |content: Value| world.state(&room_id, ALICE, "m.room.server_acl", "", content);
    for denying in [json!({"allow": ["*"], "deny": ["here.example"]}), json!({"allow": ["*.there.example"]})]
    {
        acl(denying);
        let before = world.engine.position();
        let refused = upgrade(&world, ALICE, &room_id, "12", &[]);
        assert!(matches!(refused, Err(Error::Invalid(Invalid::DeniesThisServer))));
        assert_eq!(world.engine.position(), before);
    }
    // Who mends the list may go on, and takes it along.
    let others = json!({"allow": ["*"], "deny": ["there.example"]});
    acl(others.clone());
    let replacement = upgrade(&world, ALICE, &room_id, "12", &[]).unwrap();
    assert_eq!(state(&world, &replacement, "m.room.server_acl", ""), others);
}

/// As a room does that another server has replaced, once a user of this one has come into the new room.
#[test]
fn what_this_server_calls_a_room_leads_to_the_one_that_replaces_it() {
    let world = World::new();
    let room_id = room(&world, "11");
    let is_listed = |room_id: &str| {
        world.ask(|reader| {
            let num = reader.room_num(room_id)?.unwrap();
            Ok(reader.has(&schema::PUBLIC_ROOMS, &num)?)
        })
    };
    let list = ListRoom { room_id: room_id.clone(), user_id: ALICE.into(), is_admin: true, is_listed: true };
    world.engine.write(list).wait().unwrap();
    let alias = "#burrow-11:here.example";
    let target = || world.ask(|reader| Ok(reader.alias(alias)?.unwrap().room_id));
    let mut request = CreateRoom::new(ALICE, "11");
    request.creation_content = object(json!({"predecessor": {"room_id": room_id}}));
    let made = world.engine.write(request).wait().unwrap();
    let replaced = || world.engine.read(&ReplacedRoom(&made)).unwrap();
    let follow = || {
        let names = MoveNames { old_room_id: room_id.clone(), room_id: made.clone() };
        world.engine.write(names).wait().unwrap();
    };
    // Anybody can say that their room replaces another.
    assert_eq!(replaced(), None);
    follow();
    assert_eq!((target(), is_listed(&room_id), is_listed(&made)), (room_id.clone(), true, false));
    let tombstone = json!({"body": "We have moved", "replacement_room": made});
    world.state(&room_id, ALICE, "m.room.tombstone", "", tombstone);
    assert_eq!(replaced().as_ref(), Some(&room_id));
    let elsewhere = MoveNames { old_room_id: "!none:x".into(), room_id: made.clone() };
    world.engine.write(elsewhere).wait().unwrap();
    assert_eq!(target(), room_id);
    follow();
    assert_eq!((target(), is_listed(&room_id), is_listed(&made)), (made.clone(), false, true));
    let of_room =
        |room_id: &str| world.ask(|reader| Ok(reader.room_aliases(reader.room_num(room_id)?.unwrap())?));
    assert_eq!((of_room(&room_id), of_room(&made)), (Vec::new(), vec![alias.to_owned()]));
    assert_eq!(replaced(), None, "nothing is left to be moved");
    // Nor where nobody from here is in the new room.
    let late = "#late:here.example";
    let set = SetAlias { alias: late.into(), room_id: room_id.clone(), user_id: ALICE.into() };
    world.engine.write(set).wait().unwrap();
    world.leave(&made, ALICE);
    follow();
    assert_eq!(of_room(&room_id), [late]);
}
