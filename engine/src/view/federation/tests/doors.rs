//! The ways into rooms, what spaces show to other servers, and events that wait at the door.

use super::*;
use crate::{
    Conflict, SpaceRoom,
    command::{ChangeMembership, MembershipAction, ParkPdus, ReleasePdus},
    core::event::EventBuilder,
    room::RoomCtx,
    store::{
        schema,
        schema::{ParkedPdu, PartialJoin},
    },
    view::Frontier,
    view::federation::{
        IncomingRoom, ParkedOrigins, ParkedPdus, ParkedRooms, PeerHierarchy, UnknownEvents, WaitingPdu, Way,
        WayIntoRoom,
    },
};

const SPACE: &str = "!space:here.example";

fn way(world: &World, user_id: &str) -> Way {
    ask(world, &WayIntoRoom { room_id: ROOM, user_id, named: &[] })
}

#[test]
fn who_can_let_a_user_in() {
    let world = world("shared");
    let here = |servers: &[&str]| Way {
        is_here: true,
        servers: servers.iter().map(ToString::to_string).collect(),
        ..Way::default()
    };
    assert_eq!(way(&world, ALICE), here(&[]));
    world.join(ROOM, DAVE);
    world.join(ROOM, BOB);
    world.join(ROOM, CAROL);
    assert_eq!(way(&world, ALICE), here(&[THERE, THIRD]));
    // Where nobody of this server is left, others have to help; where nobody is left at all, nobody can.
    world.leave(ROOM, ALICE);
    assert!(!way(&world, ALICE).is_here);
    for user in [BOB, CAROL, DAVE] {
        world.leave(ROOM, user);
    }
    assert_eq!(way(&world, ALICE), here(&[]));
    // Of a room that is not known, those are asked that are named, and the server that it is called after.
    let named = [THIRD, "here.example", THERE, THIRD].map(str::to_owned);
    let unheard = WayIntoRoom { room_id: "!unheard:fourth.example", user_id: ALICE, named: &named };
    let servers = [THIRD, THERE, "fourth.example"].map(str::to_owned).to_vec();
    let elsewhere = ask(&world, &unheard);
    assert!(elsewhere.needs_help());
    assert_eq!(elsewhere, Way { servers, ..Way::default() });
}

/// Not every server is asked, and those with the most members may be of no help.
#[test]
fn who_may_vouch_for_a_join_is_asked_first() {
    let world = world("shared");
    world.room(SPACE, ALICE, None);
    let erin = "@erin:here.example";
    for user in [BOB, CAROL, DAVE] {
        world.join(ROOM, user);
    }
    let restrict = |room_id: &str| {
        let allow = json!([{"type": "m.room_membership", "room_id": room_id}]);
        world.state(ROOM, ALICE, "m.room.join_rules", "", json!({"join_rule": "restricted", "allow": allow}));
    };
    restrict("!unheard:there.example");
    let asked = || {
        let way = way(&world, erin);
        assert!(way.is_here && way.needs_vouching);
        way.servers
    };
    assert_eq!(asked(), [THERE, THIRD], "every member may");
    restrict(SPACE);
    let refused = way(&world, erin);
    assert!(!refused.needs_vouching, "in none of the rooms, all of which are known here");
    world.join(SPACE, erin);
    let gone = "@gone:there.example";
    let levels = json!({"users": {DAVE: 60, gone: 100, BOB: 59, ALICE: 50}, "invite": 60});
    world.state(ROOM, ALICE, "m.room.power_levels", "", levels);
    assert_eq!(asked(), [THIRD, THERE]);
}

/// Who may be banned is let in by a server that knows; who is in the room needs nobody.
#[test]
fn while_members_are_not_known_others_let_users_in() {
    let world = world("shared");
    world
        .act(|tx| {
            let mut room = RoomCtx::load(tx, ROOM)?;
            room.head.partial_state = true;
            room.save(tx);
            let row = PartialJoin { event_id: "$join".into(), servers: vec![THERE.into()] };
            tx.put(&schema::PARTIAL_JOINS, &room.num, &row);
            Ok(())
        })
        .unwrap();
    let outside = way(&world, "@erin:here.example");
    assert!(outside.is_here && outside.needs_help() && outside.needs_help_to_knock());
    assert_eq!(outside.servers, [THERE]);
    // Whom the user names is not believed for that: who is banned would name an accomplice.
    let named = ["evil.example", THERE, THIRD].map(str::to_owned);
    let erin = WayIntoRoom { room_id: ROOM, user_id: "@erin:here.example", named: &named };
    assert_eq!(ask(&world, &erin).servers, [THERE]);
    let accomplices = WayIntoRoom { named: &named[..1], ..erin };
    assert_eq!(ask(&world, &accomplices).servers, [THERE]);
    let inside = way(&world, ALICE);
    assert!(!inside.needs_help() && !inside.needs_help_to_knock());
    use MembershipAction as Action;
    let erin = "@erin:here.example";
    let changes = [
        (erin, Action::Join),
        (erin, Action::Knock),
        (ALICE, Action::Invite),
        (ALICE, Action::Kick),
        (ALICE, Action::Unban),
    ];
    for (sender, action) in changes {
        let (sender, target) = (sender.to_owned(), erin.to_owned());
        let (room_id, reason, is_guest) = (ROOM.to_owned(), None, false);
        let change = ChangeMembership { room_id, sender, target, action, reason, is_guest };
        let refused = world.engine.write(change).wait();
        assert!(matches!(refused, Err(Error::Conflict(Conflict::PartialState))), "{action:?}: {refused:?}");
    }
}

#[test]
fn a_room_takes_events_of_those_whom_its_access_list_admits() {
    let world = world("shared");
    let read = |server: &str| world.engine.read(&IncomingRoom { room_id: ROOM, server });
    assert_eq!(read(THERE).unwrap().id, "10");
    let acl = json!({"allow": ["*"], "deny": ["THERE.example"], "allow_ip_literals": true});
    world.state(ROOM, ALICE, "m.room.server_acl", "", acl);
    assert!(matches!(read("there.example:8448"), Err(Error::Denied(Denied::ServerAcl))));
    assert!(read(THIRD).is_ok());
    // Who shuts everybody out does not keep this server from telling others so.
    world.state(ROOM, ALICE, "m.room.server_acl", "", json!({"allow": []}));
    assert!(matches!(read(THIRD), Err(Error::Denied(Denied::ServerAcl))));
    assert!(read("here.example").is_ok());
    world.state(ROOM, ALICE, "m.room.server_acl", "", json!({"allow": ["*"]}));
    world.leave(ROOM, ALICE);
    assert!(matches!(read(THIRD), Err(Error::NotFound(What::Room))));
}

#[test]
fn a_space_shows_the_rooms_that_users_of_the_server_could_come_into() {
    let world = World::new();
    world.space(SPACE, ALICE);
    let view = |suggested_only| PeerHierarchy { room_id: SPACE.into(), suggested_only, server: THERE.into() };
    world.state(SPACE, ALICE, "m.room.join_rules", "", json!({"join_rule": "invite"}));
    assert!(matches!(world.engine.read(&view(false)), Err(Error::NotFound(What::Room))));
    world.member(SPACE, ALICE, BOB, "invite").unwrap();
    let rooms = [
        ("!open:here.example", "public"),
        ("!shut:here.example", "invite"),
        ("!of:here.example", "restricted"),
    ];
    for (room, rule) in rooms {
        world.room(room, ALICE, Some("shared"));
        let allow = json!([{"type": "m.room_membership", "room_id": SPACE}]);
        world.state(room, ALICE, "m.room.join_rules", "", json!({"join_rule": rule, "allow": allow}));
        let child = json!({"via": ["here.example"], "suggested": rule == "public"});
        world.state(SPACE, ALICE, "m.space.child", room, child);
    }
    world.state(SPACE, ALICE, "m.space.child", "!taken-out:here.example", json!({}));
    world.state(SPACE, ALICE, "m.space.child", "!unheard:there.example", json!({"via": ["there.example"]}));
    let shown = ask(&world, &view(false));
    let ids =
        |rooms: &[SpaceRoom]| rooms.iter().map(|room| room.summary.room_id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&shown.children), ["!open:here.example"]);
    assert_eq!(sorted(shown.inaccessible_children), ["!of:here.example", "!shut:here.example"]);
    assert_eq!(shown.room.children_state.as_ref().map(Vec::len), Some(4));
    // A member of the space may join what is for members.
    world.join(SPACE, BOB);
    let shown = ask(&world, &view(false));
    assert_eq!(sorted(ids(&shown.children)), ["!of:here.example", "!open:here.example"]);
    let of_space = shown.children.iter().find(|room| &*room.summary.room_id == "!of:here.example").unwrap();
    assert_eq!(of_space.allowed_room_ids, [SPACE]);
    assert_eq!(ids(&ask(&world, &view(true)).children), ["!open:here.example"]);
}

/// Messages of bob that follow what is not here.
fn strangers(world: &World, count: usize) -> Vec<Bytes> {
    let there = World::named(THERE);
    let frontier = ask(world, &Frontier { room_id: ROOM.into() }).unwrap();
    let event = |number: usize| {
        let builder = EventBuilder {
            room_id: Some(ROOM.into()),
            sender: BOB.into(),
            kind: "m.room.message".into(),
            state_key: None,
            content: json!({"body": format!("{number}")}).as_object().cloned().unwrap(),
            redacts: None,
            prev_events: vec![Arc::<str>::from("$missing").into()],
            auth_events: Vec::new(),
            depth: 50,
            origin_server_ts: START_MS,
            event_id_localpart: None,
        };
        builder.build(frontier.version, THERE, there.engine.key_pair()).unwrap().json
    };
    (0..count).map(event).collect()
}

#[test]
fn events_wait_until_they_are_released_and_no_server_takes_all_the_room() {
    let world = world("shared");
    let park = |origin: &str, pdus: Vec<Bytes>| {
        let park = ParkPdus { room_id: ROOM.into(), origin: origin.into(), pdus };
        world.engine.write(park).wait().unwrap()
    };
    assert_eq!(ask(&world, &ParkedRooms), [""; 0]);
    let pdus = strangers(&world, 300);
    let parked = park(THERE, pdus.clone());
    assert_eq!((parked.kept.len(), parked.refused.len()), (250, 50));
    // The same again takes no place; another server has its own.
    assert_eq!(park(THERE, pdus[..10].to_vec()).kept.len(), 10);
    assert_eq!(park(THIRD, pdus[290..].to_vec()).kept.len(), 10);
    assert_eq!(ask(&world, &ParkedRooms), [ROOM]);
    let origins = ask(&world, &ParkedOrigins { room_id: ROOM });
    assert_eq!(origins.iter().map(String::as_str).collect::<Vec<_>>(), [THERE, THIRD]);
    let of = |origin| ask(&world, &ParkedPdus { room_id: ROOM, origin });
    assert_eq!((of(THERE).len(), of(THIRD).len()), (250, 10));
    for (origin, left) in [(THERE, vec![ROOM]), (THIRD, Vec::new())] {
        let waiting: Vec<WaitingPdu> = of(origin);
        assert!(waiting.iter().all(|pdu| pdus.contains(&pdu.json)));
        release(&world, origin, waiting.into_iter().map(|pdu| pdu.event_id).collect());
        assert_eq!(ask(&world, &ParkedRooms), left);
    }
}

fn release(world: &World, origin: &str, event_ids: Vec<String>) {
    let release = ReleasePdus { room_id: ROOM.into(), origin: origin.into(), event_ids };
    world.engine.write(release).wait().unwrap();
}

/// Nobody has looked yet at what waits: of two copies of an event one may be a forgery.
#[test]
fn what_one_server_sends_takes_no_place_of_what_another_does() {
    let world = world("shared");
    let genuine = strangers(&world, 1).remove(0);
    let mut forged: Value = serde_json::from_slice(&genuine).unwrap();
    forged["signatures"] = json!({THERE: {"ed25519:unheard": "AAAA"}});
    let forged = Bytes::from(forged.to_string());
    for (origin, json) in [(THIRD, &forged), (THERE, &genuine)] {
        let park = ParkPdus { room_id: ROOM.into(), origin: origin.into(), pdus: vec![json.clone()] };
        assert_eq!(world.engine.write(park).wait().unwrap().kept.len(), 1, "{origin}");
    }
    let of = |origin| ask(&world, &ParkedPdus { room_id: ROOM, origin });
    let (by_third, by_there) = (of(THIRD).remove(0), of(THERE).remove(0));
    assert_eq!((&by_third.json, &by_there.json), (&forged, &genuine));
    assert_eq!(by_third.event_id, by_there.event_id);
    release(&world, THERE, vec![by_there.event_id]);
    assert_eq!((of(THIRD).len(), of(THERE).len()), (1, 0));
    release(&world, THIRD, vec![by_third.event_id]);
    assert_eq!(ask(&world, &ParkedRooms), [""; 0]);
}

/// Databases have rows whose keys name no server.
#[test]
fn what_was_parked_when_all_copies_had_one_place_is_found_and_released() {
    let world = world("shared");
    let json = strangers(&world, 1).remove(0).to_vec();
    let event_id = "$parked before".to_owned();
    let row = ParkedPdu { origin: THERE.into(), since_ms: START_MS, json };
    world
        .act(|tx| {
            let room = tx.room_num(ROOM)?.unwrap();
            tx.put(&schema::PARKED_PDUS, &(room, event_id.clone()), &row);
            Ok(())
        })
        .unwrap();
    let waiting = ask(&world, &ParkedPdus { room_id: ROOM, origin: THERE });
    assert_eq!(
        waiting.into_iter().map(|pdu| pdu.event_id).collect::<Vec<_>>(),
        std::slice::from_ref(&event_id)
    );
    release(&world, THIRD, vec![event_id.clone()]);
    assert_eq!(ask(&world, &ParkedRooms), [ROOM]);
    release(&world, THERE, vec![event_id]);
    assert_eq!(ask(&world, &ParkedRooms), [""; 0]);
}

#[test]
fn what_is_not_here_is_told_once() {
    let world = world("shared");
    let known: Arc<str> = world.message(ROOM, ALICE, "here").into();
    let (one, other): (Arc<str>, Arc<str>) = ("$one".into(), "$other".into());
    let event_ids = [one.clone(), known, other.clone(), one.clone()];
    assert_eq!(ask(&world, &UnknownEvents { event_ids: &event_ids }), [one, other]);
}
