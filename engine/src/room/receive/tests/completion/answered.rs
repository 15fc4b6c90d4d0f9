//! Invites that were declined while this server was not in the room, and of which the room's state still tells when it comes in.

use super::*;
use crate::command::{ForgetRoom, LeaveOutOfBand, ReceiveInvite, Register};

const FRED: &str = "@fred:here.example";

/// A room to which Bob has invited Fred, who has declined where nobody of the room has heard it, and the invite.
fn declined() -> (Entry, Pdu) {
    let resident = Scene::new();
    let invite = resident.member(BOB, FRED, "invite", &strs(&resident.ends()), 20);
    assert!(accepted(&resident.receive(&[&invite])));
    let join = resident.member(DORA, DORA, "join", &strs(&resident.ends()), DORAS_DEPTH);
    let state = state_of(&resident);
    let newcomer = decliner(&invite);
    (Entry { resident, newcomer, join, state }, invite)
}

/// A server that is not in the room, and whose Fred has declined the invite.
fn decliner(invite: &Pdu) -> Scene {
    let newcomer = Scene { world: World::new(), peer: Peer::new() };
    let engine = &newcomer.world.engine;
    engine.write(newcomer.peer.keys()).wait().unwrap();
    engine.write(Register { localpart: "fred".into(), ..Register::default() }).wait().unwrap();
    engine.write(told_by_its_server(invite)).wait().unwrap();
    let reason = Some("busy".to_owned());
    let leave = LeaveOutOfBand { room_id: ROOM.into(), user_id: FRED.into(), event: None, reason };
    engine.write(leave).wait().unwrap();
    newcomer
}

/// An invite as the server of who invites tells it to this one alone.
fn told_by_its_server(invite: &Pdu) -> ReceiveInvite {
    ReceiveInvite {
        room_id: ROOM.into(),
        event_id: invite.event_id.to_string(),
        version: version(),
        event: Arc::new(invite.clone()),
        room_state: Vec::new(),
        server: "there.example".into(),
    }
}

fn enter_whole(entry: &Entry, join: &Pdu, state: &[Pdu]) {
    assert!(entry.store(&state.iter().collect::<Vec<_>>()).missing.is_nothing());
    let enter = EnterRoom {
        room_id: ROOM.into(),
        version: version(),
        join: entry.resident.check(&[join]).remove(0),
        untold: Vec::new(),
        state: state.iter().map(|pdu| pdu.event_id.clone()).collect(),
        partial: None,
    };
    assert_eq!(entry.newcomer.world.engine.write(enter).wait().unwrap().0, Outcome::Accepted);
}

/// Whether Fred's client is told of an invite.
fn is_invited(scene: &Scene, since: Option<SyncToken>) -> (bool, SyncToken) {
    let (rooms, token) = rooms_told(scene, since);
    (rooms.get("invite").is_some_and(|rooms| rooms.get(ROOM).is_some()), token)
}

/// What Fred's client is told of rooms.
fn rooms_told(scene: &Scene, since: Option<SyncToken>) -> (Value, SyncToken) {
    let sync = Sync {
        user_id: FRED.into(),
        device_id: None,
        since,
        filter: Arc::default(),
        full_state: false,
        state_after: None,
        waits: false,
    };
    let answer = scene.world.engine.read(&sync).unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    (body["rooms"].clone(), answer.token)
}

/// What the room's state says of Fred.
fn standing(scene: &Scene) -> Option<Pdu> {
    let event_id = scene.state("m.room.member", FRED)?;
    Some(scene.world.ask(|reader| {
        let num = reader.event_num(&event_id)?.unwrap();
        Ok(Pdu::clone(&*reader.event(num)?.pdu()?))
    }))
}

/// Fred is shown nothing, and the room hears his answer.
fn is_told(entry: &Entry, since: SyncToken) {
    let Entry { resident, newcomer, join, .. } = entry;
    assert!(!is_invited(newcomer, Some(since)).0 && !is_invited(newcomer, None).0);
    let leave = standing(newcomer).unwrap();
    assert_eq!((leave.membership(), &*leave.sender), (Some("leave"), FRED));
    assert_eq!(leave.content["reason"], "busy");
    assert!(accepted(&resident.receive(&[join, &leave])));
    assert_eq!(standing(resident).unwrap().event_id, leave.event_id);
    newcomer.is_sound();
}

#[test]
fn a_declined_invite_of_which_the_room_tells_is_not_shown_again_and_the_room_hears_of_it() {
    let (entry, _) = declined();
    let since = is_invited(&entry.newcomer, None).1;
    enter_whole(&entry, &entry.join, &entry.state);
    is_told(&entry, since);
    // Asked again, he is shown it.
    let Entry { resident, newcomer, .. } = &entry;
    let again = resident.member(BOB, FRED, "invite", &strs(&resident.ends()), 30);
    assert!(accepted(&newcomer.receive(&[&again])));
    assert!(is_invited(newcomer, Some(since)).0 && is_invited(newcomer, None).0);
    newcomer.is_sound();
}

#[test]
fn the_same_where_the_room_was_forgotten_meanwhile() {
    let (entry, _) = declined();
    let forget = ForgetRoom { room_id: ROOM.into(), user_id: FRED.into() };
    entry.newcomer.world.engine.write(forget).wait().unwrap();
    let since = is_invited(&entry.newcomer, None).1;
    enter_whole(&entry, &entry.join, &entry.state);
    is_told(&entry, since);
}

#[test]
fn the_same_where_the_members_come_later() {
    let (entry, _) = declined();
    let since = is_invited(&entry.newcomer, None).1;
    entry.enter(&entry.join, &entry.state);
    assert!(!is_invited(&entry.newcomer, Some(since)).0);
    entry.store_members();
    entry.complete();
    is_told(&entry, since);
}

#[test]
fn the_same_where_the_invite_comes_when_the_room_has_been_entered() {
    let resident = Scene::new();
    let join = resident.member(DORA, DORA, "join", &strs(&resident.ends()), 20);
    let state = state_of(&resident);
    assert!(accepted(&resident.receive(&[&join])));
    let invite = resident.member(BOB, FRED, "invite", &strs(&resident.ends()), DORAS_DEPTH);
    assert!(accepted(&resident.receive(&[&invite])));
    let entry = Entry { resident, newcomer: decliner(&invite), join, state };
    let since = is_invited(&entry.newcomer, None).1;
    enter_whole(&entry, &entry.join, &entry.state);
    let Entry { resident, newcomer, .. } = &entry;
    assert!(accepted(&newcomer.receive(&[&invite])));
    assert!(!is_invited(newcomer, Some(since)).0 && !is_invited(newcomer, None).0);
    let leave = standing(newcomer).unwrap();
    assert_eq!((leave.membership(), &*leave.sender), (Some("leave"), FRED));
    assert!(accepted(&resident.receive(&[&leave])));
    assert_eq!(standing(resident).unwrap().event_id, leave.event_id);
    newcomer.is_sound();
}

#[test]
fn an_invite_that_nobody_has_declined_is_shown() {
    let (mut entry, invite) = declined();
    let since = is_invited(&entry.newcomer, None).1;
    let resident = &entry.resident;
    resident.world.member(ROOM, ALICE, FRED, "leave").unwrap();
    let taken_back = standing(resident).unwrap();
    let again = resident.member(BOB, FRED, "invite", &strs(&resident.ends()), 30);
    assert!(accepted(&resident.receive(&[&again])) && again.event_id != invite.event_id);
    entry.join = resident.member(DORA, DORA, "join", &strs(&resident.ends()), 31);
    entry.state = state_of(resident);
    let with_chain: Vec<&Pdu> = entry.state.iter().chain([&invite, &taken_back]).collect();
    assert!(entry.store(&with_chain).missing.is_nothing());
    enter_whole(&entry, &entry.join, &entry.state);
    assert!(is_invited(&entry.newcomer, Some(since)).0);
    assert_eq!(standing(&entry.newcomer).unwrap().event_id, again.event_id);
    entry.newcomer.is_sound();
}

/// Fred has left, and nobody of this server is in the room when it hears of the invite. Alice comes back: the room still says that he
/// has left, which is his leave if that is the later one, and otherwise only what is known where she comes in.
#[test]
fn an_invite_from_before_the_users_own_leave_ends_when_this_server_comes_back() {
    for (ms_of_invite, is_over) in [(90, true), (2000, false)] {
        let scene = Scene::new();
        let engine = &scene.world.engine;
        engine.write(Register { localpart: "fred".into(), ..Register::default() }).wait().unwrap();
        let invite = scene.member(BOB, FRED, "invite", &strs(&scene.ends()), ms_of_invite);
        scene.world.join(ROOM, FRED);
        scene.world.pass_ms(1000);
        scene.world.leave(ROOM, FRED);
        let (state, ends) = (scene.state_ids(), scene.ends());
        scene.world.leave(ROOM, ALICE);
        engine.write(told_by_its_server(&invite)).wait().unwrap();
        let (is_shown, since) = is_invited(&scene, None);
        assert!(is_shown);
        let missed = scene.message(BOB, &strs(&ends), 94);
        let join = scene.member(DORA, DORA, "join", &[&missed.event_id], 95);
        let enter = EnterRoom {
            room_id: ROOM.into(),
            version: version(),
            join: scene.check(&[&join]).remove(0),
            untold: Vec::new(),
            state,
            partial: None,
        };
        assert_eq!(engine.write(enter).wait().unwrap().0, Outcome::Accepted);
        assert_eq!(is_invited(&scene, None).0, !is_over);
        let left = rooms_told(&scene, Some(since)).0["leave"].get(ROOM).is_some();
        assert_eq!(left, is_over);
        scene.is_sound();
    }
}
