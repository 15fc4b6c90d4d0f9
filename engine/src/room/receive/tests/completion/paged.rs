//! History that is read while members are missing: its state lacks them as well, until they come.

use std::collections::HashSet;

use super::*;
use crate::view::federation::StateAt;

/// What Alice is given when she reads back beyond the last event, and loads members lazily: the events, and the users of whom she is told.
fn read_back(scene: &Scene) -> [Vec<String>; 2] {
    let filter = RoomEventFilter::parse(br#"{"lazy_load_members": true}"#).unwrap();
    let page = |from: Option<StreamToken>| -> Value {
        let (room_id, user, filter) = (ROOM.to_owned(), ALICE.to_owned(), filter.clone());
        let (device, to, limit, forwards) = (None, None, Some(1), false);
        let view = Messages { room_id, user, device, from, to, forwards, limit, filter };
        serde_json::from_slice(&scene.world.engine.read(&view).unwrap()).unwrap()
    };
    let last = page(None);
    let before = page(Some(StreamToken::decode(last["end"].as_str().unwrap()).unwrap()));
    [ids(&before["chunk"]), users(&before["state"])]
        .map(|found| found.into_iter().map(str::to_owned).collect())
}

/// The ids of the state before an event, sorted.
fn state_before(scene: &Scene, pdu: &Pdu) -> Vec<Arc<str>> {
    let mut state = scene.world.ask(|reader| {
        let event = reader.event(reader.event_num(&pdu.event_id)?.unwrap())?;
        let entries = reader.state_entries(event.header.room, event.header.state_before)?.into_iter();
        entries.map(|(_, num)| Ok(reader.event(num)?.event_id.clone())).collect::<crate::Result<Vec<_>>>()
    });
    state.sort_unstable();
    state
}

/// Whether a server that asks is told the state before an event.
fn is_state_told(scene: &Scene, pdu: &Pdu) -> bool {
    let (event_id, server) = (pdu.event_id.to_string(), "there.example".to_owned());
    scene.world.engine.read(&StateAt { room_id: ROOM.to_owned(), event_id, server }).is_ok()
}

#[test]
fn history_before_the_join_has_its_senders_and_in_the_end_all_members() {
    let resident = Scene::new();
    let said = resident.message(BOB, &strs(&resident.ends()), 20);
    assert!(accepted(&resident.receive(&[&said])));
    let entry = Entry::new(resident);
    let Entry { newcomer, state, .. } = &entry;
    // Known from outside of the graph, as what allows the message.
    entry.store_members();
    let pdus = newcomer.check(&[&said]);
    let received = newcomer.write(ReceivePdus { pdus, backfill: true, ..ReceivePdus::default() });
    assert!(accepted(&received), "{received:?}");
    newcomer.is_sound();
    let read = [vec![said.event_id.to_string()], vec![BOB.to_owned()]];
    assert_eq!(read_back(newcomer), read);
    assert!(!is_state_told(newcomer, &said), "it is not known yet");
    entry.complete();
    newcomer.is_sound();
    assert_eq!(read_back(newcomer), read);
    assert!(is_state_told(newcomer, &said));
    let mut whole: Vec<Arc<str>> = state.iter().map(|pdu| pdu.event_id.clone()).collect();
    whole.sort_unstable();
    assert_eq!(state_before(newcomer, &said), whole);
}

#[test]
fn what_was_filled_into_a_gap_behind_the_join_has_all_members_once_they_are_here() {
    let entry = Entry::new(Scene::new());
    let Entry { resident, newcomer, join, state } = &entry;
    entry.store_members();
    let missing = resident.message(BOB, &[&join.event_id], 30);
    let behind = resident.message(BOB, &[&missing.event_id], 31);
    let whole: Vec<Arc<str>> = state.iter().chain([join]).map(|pdu| pdu.event_id.clone()).collect();
    let states = vec![GivenState { event_id: behind.event_id.clone(), state: whole.clone() }];
    let pdus = newcomer.check(&[&behind]);
    assert!(accepted(&newcomer.write(ReceivePdus { pdus, states, ..ReceivePdus::default() })));
    fill_gap(newcomer, &behind, &missing);
    assert!(!is_state_told(newcomer, &missing), "it is not known yet");
    entry.complete();
    newcomer.is_sound();
    // The join lacked members, so that it stayed an end.
    assert_eq!(newcomer.ends(), [join, &behind].map(|pdu| pdu.event_id.to_string()));
    for pdu in [&missing, &behind] {
        assert!(is_state_told(newcomer, pdu));
        let mut whole = whole.clone();
        whole.sort_unstable();
        assert_eq!(state_before(newcomer, pdu), whole);
    }
}

#[test]
fn history_of_who_turns_out_to_be_banned_is_withdrawn_and_nobody_is_told_that_it_was_there() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, state } = &banned.entry;
    let content = json!({"msgtype": "m.text", "body": "of who is banned"});
    let missing = banned.carls("m.room.message", None, content, &[&join.event_id], 30);
    let behind = resident.message(BOB, &[&missing.event_id], 31);
    let whole: Vec<Arc<str>> = state.iter().chain([join]).map(|pdu| pdu.event_id.clone()).collect();
    let states = vec![GivenState { event_id: behind.event_id.clone(), state: whole }];
    let pdus = newcomer.check(&[&behind]);
    assert!(accepted(&newcomer.write(ReceivePdus { pdus, states, ..ReceivePdus::default() })));
    let (since, _) = sync(newcomer, None);
    fill_gap(newcomer, &behind, &missing);
    assert!(newcomer.timeline().contains(&missing.event_id.to_string()));
    banned.entry.complete();
    newcomer.is_sound();
    assert_eq!(newcomer.status(&missing.event_id), Some(EventStatus::Rejected));
    assert!(!newcomer.timeline().contains(&missing.event_id.to_string()));
    assert_eq!(newcomer.ends(), [join, &behind].map(|pdu| pdu.event_id.to_string()));
    assert!(ids(&sync(newcomer, Some(since)).1["timeline"]["events"]).is_empty());
}

/// Whoever has an event refused that names the join, and a state told for it, would otherwise have the room begin anew from that.
#[test]
fn a_state_that_is_told_for_refused_history_does_not_lead_past_the_join() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, .. } = &banned.entry;
    let unheard = resident.message(BOB, &[&join.event_id], 30);
    // Its author has no power over Alice.
    let [create, levels, carl] = &banned.auth;
    let alice = resident.state("m.room.member", ALICE).unwrap();
    let refused = resident.peer.make(Draft {
        sender: CARL,
        kind: "m.room.member",
        state_key: Some(ALICE),
        content: json!({"membership": "ban"}),
        prev: vec![&join.event_id, &unheard.event_id],
        auth: vec![create, levels, carl, &alice],
        depth: 31,
    });
    let behind = resident.message(BOB, &[&refused.event_id], 32);
    let bob = banned.entry.state.iter().find(|pdu| pdu.state_key.as_deref() == Some(BOB)).unwrap();
    let told = |pdu: &Pdu, leaving_out: &str| {
        let mut state = newcomer.state_ids();
        state.push(bob.event_id.clone());
        state.retain(|event_id| **event_id != *leaving_out);
        vec![GivenState { event_id: pdu.event_id.clone(), state }]
    };
    let states = told(&behind, "");
    let pdus = newcomer.check(&[&behind]);
    assert!(accepted(&newcomer.write(ReceivePdus { pdus, states, ..ReceivePdus::default() })));
    let states = told(&refused, &banned.topic);
    let pdus = newcomer.check(&[&refused]);
    newcomer.write(ReceivePdus { pdus, states, backfill: true, ..ReceivePdus::default() });
    assert_eq!(newcomer.status(&refused.event_id), Some(EventStatus::Rejected));
    let last = resident.message(BOB, &[&refused.event_id], 33);
    assert!(accepted(&newcomer.receive(&[&last])));
    newcomer.is_sound();
    assert!(!is_state_told(newcomer, &last), "it lacks members");
    banned.entry.complete();
    newcomer.is_sound();
    let whole: HashSet<Arc<str>> = state_before(newcomer, &last).into_iter().collect();
    for pdu in banned.entry.state.iter().chain([join]) {
        assert!(whole.contains(&pdu.event_id), "{} {:?}", pdu.kind, pdu.state_key);
    }
}
