//! Where a room ends once something of it was withdrawn.

use super::*;

#[test]
fn what_nothing_but_a_withdrawn_event_followed_is_an_end_again() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, state } = &banned.entry;
    let one = resident.message(BOB, &[&join.event_id], 30);
    let other = resident.message(BOB, &[&join.event_id], 31);
    let content = json!({"msgtype": "m.text", "body": "in between"});
    let between = banned.carls("m.room.message", None, content, &[&one.event_id], 32);
    let last = resident.message(BOB, &[&other.event_id, &between.event_id], 33);
    assert!(accepted(&newcomer.receive(&[&one, &other])));
    // The last one comes before what it follows, with a state that lacks the ban, too.
    let state = state.iter().filter(|pdu| pdu.state_key.as_deref() != Some(CARL));
    let state = state.map(|pdu| pdu.event_id.clone()).collect();
    let received = newcomer.write(ReceivePdus {
        pdus: newcomer.check(&[&last]),
        states: vec![GivenState { event_id: last.event_id.clone(), state }],
        ..ReceivePdus::default()
    });
    assert!(accepted(&received), "{received:?}");
    assert!(accepted(&newcomer.receive(&[&between])));
    // Whose state lacks members stays an end until they are known.
    assert_eq!(newcomer.ends(), [&last, &between].map(|pdu| pdu.event_id.to_string()));
    newcomer.is_sound();
    banned.entry.complete();
    assert_eq!(newcomer.status(&between.event_id), Some(EventStatus::Rejected));
    assert_eq!(newcomer.ends(), [&one, &last].map(|pdu| pdu.event_id.to_string()));
    newcomer.is_sound();
}

/// What another server had not been told of when the room was entered by way of it is to be merged still.
#[test]
fn an_end_that_was_kept_stays_one_where_something_of_an_earlier_stay_is_withdrawn() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, .. } = &banned.entry;
    assert!(accepted(&resident.receive(&[join])));
    let content = json!({"msgtype": "m.text", "body": "in the first stay"});
    let withdrawn = banned.carls("m.room.message", None, content, &[&join.event_id], 30);
    assert!(accepted(&newcomer.receive(&[&withdrawn])));
    come_by_erin(&banned.entry, Vec::new());
    let untold: Arc<str> = newcomer.world.message(ROOM, ALICE, "in the second").as_str().into();
    resident.world.leave(ROOM, ERIN);
    let last = come_by_erin(&banned.entry, vec![untold.clone()]);
    let ends = [untold.to_string(), last.event_id.to_string()];
    assert_eq!(newcomer.ends(), ends);
    banned.entry.complete();
    assert_eq!(newcomer.status(&withdrawn.event_id), Some(EventStatus::Rejected));
    assert_eq!(newcomer.ends(), ends);
    newcomer.is_sound();
}

/// The newcomer enters anew, with all members, by a join of Erin's that follows what it has not heard.
fn come_by_erin(entry: &Entry, untold: Vec<Arc<str>>) -> Pdu {
    let Entry { resident, newcomer, .. } = entry;
    resident.world.message(ROOM, ALICE, "unheard");
    let state = state_of(resident);
    let join_id = resident.world.join(ROOM, ERIN);
    let join = resident.world.ask(|reader| {
        let event = reader.event(reader.event_num(&join_id)?.unwrap())?;
        Ok(Pdu::clone(&*event.pdu()?))
    });
    assert!(entry.store(&state.iter().collect::<Vec<_>>()).missing.is_nothing());
    let enter = EnterRoom {
        room_id: ROOM.into(),
        version: version(),
        join: resident.check(&[&join]).remove(0),
        untold,
        state: state.iter().map(|pdu| pdu.event_id.clone()).collect(),
        partial: None,
    };
    assert_eq!(newcomer.world.engine.write(enter).wait().unwrap().0, Outcome::Accepted);
    join
}

/// Nobody has told it of what was said before it was known to be there.
#[test]
fn a_server_that_is_found_to_be_there_is_told_where_the_room_ends() {
    const THERE: &str = "there.example";
    for is_said in [true, false] {
        let resident = Scene::new();
        let state = state_of(&resident);
        let join_id = resident.world.join(ROOM, ERIN);
        let join = state_of(&resident).into_iter().find(|pdu| *pdu.event_id == *join_id).unwrap();
        let newcomer = Scene { world: World::new(), peer: Peer::new() };
        newcomer.world.engine.write(newcomer.peer.keys()).wait().unwrap();
        let entry = Entry { resident, newcomer, join, state };
        let Entry { newcomer, join, state, .. } = &entry;
        entry.store_members();
        let is_told = |pdu: &&Pdu| pdu.state_key.as_deref() != Some(BOB);
        let enter = EnterRoom {
            room_id: ROOM.into(),
            version: version(),
            join: entry.resident.check(&[join]).remove(0),
            untold: Vec::new(),
            state: state.iter().filter(is_told).map(|pdu| pdu.event_id.clone()).collect(),
            partial: Some(vec!["other.example".to_owned()]),
        };
        assert_eq!(newcomer.world.engine.write(enter).wait().unwrap().0, Outcome::Accepted);
        let said = is_said.then(|| newcomer.world.message(ROOM, ALICE, "meanwhile"));
        assert_eq!(super::super::unchecked::sent_to(&newcomer.world, THERE).0, [""; 0]);
        entry.complete();
        assert!(newcomer.is_joined(BOB));
        let sent = super::super::unchecked::sent_to(&newcomer.world, THERE).0;
        assert_eq!(sent, said.into_iter().collect::<Vec<_>>());
        newcomer.is_sound();
    }
}

/// What is told behind a gap has nobody in it but who tells it. What lies between says nothing of them, and follows the join.
#[test]
fn who_is_left_out_of_a_state_that_is_made_up_before_the_members_come_is_in_the_room_when_they_have() {
    for backfill in [false, true] {
        let resident = Scene::new();
        let carl = resident.member(CARL, CARL, "join", &strs(&resident.ends()), 20);
        assert!(accepted(&resident.receive(&[&carl])));
        let entry = Entry::new(resident);
        entry.store_members();
        let Entry { resident, newcomer, join, state } = &entry;
        let held_back = resident.message(BOB, &[&join.event_id], 30);
        let sent = resident.message(BOB, &[&held_back.event_id], 31);
        let bob = state.iter().find(|pdu| pdu.state_key.as_deref() == Some(BOB)).unwrap();
        let mut told = newcomer.state_ids();
        told.push(bob.event_id.clone());
        let states = vec![GivenState { event_id: sent.event_id.clone(), state: told }];
        let pdus = resident.check(&[&sent]);
        assert!(accepted(&newcomer.write(ReceivePdus { pdus, states, ..ReceivePdus::default() })));
        let pdus = resident.check(&[&held_back]);
        assert!(accepted(&newcomer.write(ReceivePdus { pdus, backfill, ..ReceivePdus::default() })));
        newcomer.is_sound();
        entry.complete();
        assert!(newcomer.is_joined(CARL), "told as history: {backfill}");
        newcomer.is_sound();
    }
}
