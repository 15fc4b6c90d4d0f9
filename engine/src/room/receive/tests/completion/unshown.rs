//! Who does not load members lazily is not shown a room that lacks them.

use super::*;

/// What Alice is told if she loads no members lazily: the next position and her room.
fn sync_eagerly(scene: &Scene, since: Option<SyncToken>) -> (SyncToken, Value) {
    sync_with(scene, since, Filter::default())
}

/// The types of the events of a room's state in an answer.
fn kinds(room: &Value) -> Vec<&str> {
    let events = room["state"]["events"].as_array().into_iter().flatten();
    events.map(|event| event["type"].as_str().unwrap()).collect()
}

/// Whether the room is told as one that the client does not know.
fn is_whole(room: &Value) -> bool {
    kinds(room).contains(&"m.room.create")
}

#[test]
fn a_room_that_lacks_members_is_told_whole_once_they_are_known() {
    let resident = Scene::new();
    let carl = resident.member(CARL, CARL, "join", &strs(&resident.ends()), 20);
    assert!(accepted(&resident.receive(&[&carl])));
    let entry = Entry::new(resident);
    let Entry { resident, newcomer, join, .. } = &entry;
    entry.store_members();
    let (start, room) = sync_eagerly(newcomer, None);
    assert_eq!(room, Value::Null);
    let (lazy, room) = sync(newcomer, None);
    assert!(is_whole(&room));
    let from_carl = resident.message(CARL, &[&join.event_id], 22);
    assert!(accepted(&newcomer.receive(&[&from_carl])));
    let (later, room) = sync_eagerly(newcomer, Some(start));
    assert!(room.is_null() && later.pos > start.pos);

    entry.complete();
    for since in [None, Some(start), Some(later)] {
        let (next, room) = sync_eagerly(newcomer, since);
        assert!(is_whole(&room), "{room}");
        let mut members = users(&room["state"]["events"]);
        members.extend(users(&room["timeline"]["events"]));
        members.sort_unstable();
        assert_eq!(members, [ALICE, BOB, CARL, DORA]);
        assert_eq!(room["summary"]["m.joined_member_count"], 4);
        assert!(ids(&room["timeline"]["events"]).contains(&&*from_carl.event_id));
        // And that once.
        assert_eq!(sync_eagerly(newcomer, Some(next)).1, Value::Null);
    }
    // Who has the room is told what is new in it.
    let (_, room) = sync(newcomer, Some(lazy));
    assert!(!is_whole(&room) && users(&room["state"]["events"]).contains(&CARL), "{room}");
    newcomer.is_sound();
}

#[test]
fn a_room_that_lacked_nobody_is_told_too() {
    let resident = Scene::new();
    let join = resident.member(DORA, DORA, "join", &strs(&resident.ends()), DORAS_DEPTH);
    // Nobody but Alice, whose membership is always told.
    let mut state = state_of(&resident);
    state.retain(|pdu| &*pdu.kind != "m.room.member" || pdu.state_key.as_deref() == Some(ALICE));
    let entry = Entry::with(resident, join, state);
    let (since, room) = sync_eagerly(&entry.newcomer, None);
    assert_eq!(room, Value::Null);
    let has_news = || {
        entry.newcomer.world.ask(|reader| {
            let alice = reader.user_num(ALICE)?.unwrap();
            Ok(reader.shared.watch.has_news(alice, since.pos))
        })
    };
    assert_eq!(has_news(), Some(false));
    entry.complete();
    // Who waits is woken.
    assert_eq!(has_news(), Some(true));
    assert!(is_whole(&sync_eagerly(&entry.newcomer, Some(since)).1));
}

#[test]
fn a_room_that_is_entered_anew_is_told_by_its_last_stay() {
    for lacks_members in [true, false] {
        come_again(lacks_members);
    }
}

/// Erin comes, leaves and comes back before the members of her first stay are known; those of the second are missing or not.
fn come_again(lacks_members: bool) {
    let pdu = |scene: &Scene, event_id: &str| {
        scene.world.ask(|reader| Ok(Pdu::clone(&*reader.event(reader.event_num(event_id)?.unwrap())?.pdu()?)))
    };
    let resident = Scene::new();
    let state = state_of(&resident);
    let join = resident.world.join(ROOM, ERIN);
    let join = pdu(&resident, &join);
    let entry = Entry::with(resident, join, state);
    let Entry { resident, newcomer, .. } = &entry;
    let (first_stay, room) = sync_eagerly(newcomer, None);
    assert_eq!(room, Value::Null);
    let leave = newcomer.world.leave(ROOM, ERIN);
    assert!(accepted(&resident.receive(&[&pdu(newcomer, &leave)])));
    resident.world.message(ROOM, ALICE, "unheard");
    let state = state_of(resident);
    let again = pdu(resident, &resident.world.join(ROOM, ERIN));
    entry.store_members();
    if lacks_members {
        entry.enter(&again, &state);
        let (second_stay, room) = sync_eagerly(newcomer, Some(first_stay));
        assert_eq!(room, Value::Null);
        entry.complete_by(&again, &state);
        assert!(is_whole(&sync_eagerly(newcomer, Some(second_stay)).1));
    } else {
        let enter = EnterRoom {
            room_id: ROOM.into(),
            version: version(),
            join: resident.check(&[&again]).remove(0),
            untold: Vec::new(),
            state: state.iter().map(|pdu| pdu.event_id.clone()).collect(),
            partial: None,
        };
        assert_eq!(newcomer.world.engine.write(enter).wait().unwrap().0, Outcome::Accepted);
    }
    let (next, room) = sync_eagerly(newcomer, Some(first_stay));
    assert!(is_whole(&room), "{room}");
    // What becomes known of the first stay makes it no other room.
    let rooms = newcomer.world.engine.read(&PartialRooms).unwrap();
    assert!(rooms.iter().all(|room| room.is_past) && rooms.len() == 1);
    entry.complete();
    assert!(newcomer.world.engine.read(&PartialRooms).unwrap().is_empty());
    assert!(!is_whole(&sync_eagerly(newcomer, Some(next)).1));
    assert!(is_whole(&sync_eagerly(newcomer, Some(first_stay)).1));
    newcomer.is_sound();
}
