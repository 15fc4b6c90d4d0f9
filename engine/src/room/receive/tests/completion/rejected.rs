//! What was rejected by a state that lacked members, and is allowed by the whole one.

use std::collections::BTreeSet;

use super::*;
use crate::{
    core::event::encode_base64, device::elsewhere, room::receive::complete::REJECTED_JUDGED_MAX,
    store::schema::RemoteDeviceList,
};

const ERIN: &str = "@erin:there.example";

impl Banned {
    /// A membership event, at a depth that is no other's.
    fn member(
        &self,
        (sender, target): (&str, &str),
        membership: &str,
        auth: Vec<&str>,
        prev: &str,
        depth: u64,
    ) -> Pdu {
        let (kind, content) = ("m.room.member", json!({"membership": membership}));
        let (state_key, prev) = (Some(target), vec![prev]);
        self.entry.resident.peer.make(Draft { sender, kind, state_key, content, prev, auth, depth })
    }

    /// Carl, who is not in the room, turns Bob out of it.
    fn turn_out(&self, membership: &str, prev: &str, depth: u64) -> Pdu {
        let bob = self.entry.resident.state("m.room.member", BOB).unwrap();
        let [create, levels, carl] = &self.auth;
        self.member((CARL, BOB), membership, vec![create, levels, carl, &bob], prev, depth)
    }
}

fn statuses(scene: &Scene, pdus: &[&Pdu]) -> Vec<EventStatus> {
    pdus.iter().map(|pdu| scene.status(&pdu.event_id).unwrap()).collect()
}

#[test]
fn what_a_wrong_state_refused_is_taken_in_with_everything_that_it_writes() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, .. } = &banned.entry;
    let [create, levels, _] = banned.auth.clone();
    let bob = resident.state("m.room.member", BOB).unwrap();
    let one = resident.message(BOB, &[&join.event_id], 30);
    let kick = banned.turn_out("leave", &one.event_id, 31);
    let topic = json!({"topic": "Bob's"});
    let topic = resident.draft(BOB, "m.room.topic", Some(""), topic, &[&kick.event_id], 32);
    let relates_to = json!({"rel_type": "m.thread", "event_id": one.event_id});
    let reply = json!({"msgtype": "m.text", "body": "in the thread", "m.relates_to": relates_to});
    let reply = resident.draft(BOB, "m.room.message", None, reply, &[&topic.event_id], 33);
    let redaction = banned.redaction(BOB, &one, &reply, &[create.clone(), levels.clone(), bob.clone()]);
    let last = resident.peer.make(Draft {
        sender: DORA,
        kind: "m.room.message",
        state_key: None,
        content: json!({"msgtype": "m.text", "body": "the last word"}),
        prev: vec![&redaction.event_id],
        auth: vec![&create, &levels, &join.event_id],
        depth: 35,
    });
    newcomer.receive(&[&one, &kick, &topic, &reply, &redaction, &last]);
    let all = [&one, &kick, &topic, &reply, &redaction, &last];
    let (accepted, rejected) = (EventStatus::Accepted, EventStatus::Rejected);
    assert_eq!(statuses(newcomer, &all), [accepted, accepted, rejected, rejected, rejected, accepted]);
    assert!(!newcomer.is_joined(BOB));
    let (since, _) = sync(newcomer, None);
    newcomer.is_sound();

    banned.entry.complete();
    assert_eq!(statuses(newcomer, &all), [accepted, rejected, accepted, accepted, accepted, accepted]);
    // Clients are told of them as of what comes now, though others follow them that came before.
    let told = [&topic, &reply, &redaction].map(|pdu| pdu.event_id.to_string());
    let mut timeline = [join, &one, &last].map(|pdu| pdu.event_id.to_string()).to_vec();
    timeline.extend(told.clone());
    assert!(newcomer.timeline().ends_with(&timeline), "{:?}", newcomer.timeline());
    assert_eq!(newcomer.ends(), [last.event_id.to_string()]);
    assert_eq!(newcomer.state("m.room.topic", ""), Some(topic.event_id.to_string()));
    assert!(newcomer.is_joined(BOB));
    let has_body = newcomer.world.ask(|reader| {
        let event = reader.event(reader.event_num(&one.event_id)?.unwrap())?;
        Ok(event.pdu()?.content.contains_key("body"))
    });
    assert!(!has_body, "it was redacted");
    newcomer.is_sound();
    let (_, room) = sync(newcomer, Some(since));
    assert_eq!(ids(&room["timeline"]["events"]), told);
    assert!(ids(&room["state"]["events"]).contains(&bob.as_str()), "{room}");
    // And the room goes on from there.
    let next = newcomer.world.message(ROOM, ALICE, "and on");
    assert_eq!(newcomer.ends(), [next]);
    newcomer.is_sound();
}

#[test]
fn whom_a_wrong_ban_kept_in_the_room_is_turned_out_and_followed_no_more() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, .. } = &banned.entry;
    let [create, levels, _] = &banned.auth;
    let bob = resident.state("m.room.member", BOB).unwrap();
    let rules = resident.state("m.room.join_rules", "").unwrap();
    let erin = banned.member((ERIN, ERIN), "join", vec![create, levels, &rules], &join.event_id, 30);
    let ban = banned.turn_out("ban", &erin.event_id, 31);
    let auth: Vec<&str> = vec![create, levels, &bob, &erin.event_id];
    let kick = banned.member((BOB, ERIN), "leave", auth, &ban.event_id, 32);
    newcomer.receive(&[&erin, &ban, &kick]);
    let (accepted, rejected) = (EventStatus::Accepted, EventStatus::Rejected);
    assert_eq!(statuses(newcomer, &[&erin, &ban, &kick]), [accepted, accepted, rejected]);
    newcomer
        .world
        .act(|tx| {
            let user = tx.intern_user(ERIN)?;
            let list = RemoteDeviceList { stream_id: 5, ..RemoteDeviceList::default() };
            tx.put(&schema::REMOTE_DEVICE_LISTS, &user, &list);
            Ok(())
        })
        .unwrap();
    let is_followed =
        || newcomer.world.ask(|reader| Ok(elsewhere::is_followed(reader, reader.user_num(ERIN)?.unwrap())?));
    assert!(newcomer.is_joined(ERIN) && is_followed());

    banned.entry.complete();
    assert_eq!(statuses(newcomer, &[&erin, &ban, &kick]), [accepted, rejected, accepted]);
    assert!(newcomer.is_joined(BOB) && !newcomer.is_joined(ERIN) && !is_followed());
    assert_eq!(newcomer.ends(), [kick.event_id.to_string()]);
    newcomer.is_sound();
}

#[test]
fn what_names_an_event_is_judged_after_it_wherever_the_two_stand() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, .. } = &banned.entry;
    let [create, levels, _] = &banned.auth;
    let bob = resident.state("m.room.member", BOB).unwrap();
    let rules = resident.state("m.room.join_rules", "").unwrap();
    let kick = banned.turn_out("leave", &join.event_id, 30);
    let auth: Vec<&str> = vec![create, levels, &bob, &rules];
    let invite = banned.member((BOB, ERIN), "invite", auth, &kick.event_id, 31);
    let auth: Vec<&str> = vec![create, levels, &rules, &invite.event_id];
    let erin = banned.member((ERIN, ERIN), "join", auth, &join.event_id, 32);
    // The invite is known before the join that it allows, and comes into the graph behind it.
    newcomer.receive_outliers(&[&invite]);
    newcomer.receive(&[&erin]);
    newcomer.receive(&[&kick, &invite]);
    let (accepted, rejected) = (EventStatus::Accepted, EventStatus::Rejected);
    assert_eq!(statuses(newcomer, &[&erin, &kick, &invite]), [accepted, accepted, rejected]);
    banned.entry.complete();
    assert_eq!(statuses(newcomer, &[&erin, &kick, &invite]), [accepted, rejected, accepted]);
    newcomer.is_sound();
}

#[test]
fn what_is_taken_in_after_all_comes_with_the_gap_before_it() {
    let resident = Scene::new();
    let pdu = |event_id: &str| {
        resident
            .world
            .ask(|reader| Ok(Pdu::clone(&*reader.event(reader.event_num(event_id)?.unwrap())?.pdu()?)))
    };
    let first = pdu(&resident.state("m.room.member", BOB).unwrap());
    let left = resident.member(BOB, BOB, "leave", &strs(&resident.ends()), 15);
    assert!(accepted(&resident.receive(&[&left])));
    let back = resident.member(BOB, BOB, "join", &strs(&resident.ends()), 16);
    assert!(accepted(&resident.receive(&[&back])));
    let entry = Entry::new(resident);
    let Entry { resident, newcomer, join, state } = &entry;
    assert!(entry.store(&[&first, &left]).missing.is_nothing());
    entry.store_members();
    // A server that does not know yet that Bob is back tells the state.
    let told = state.iter().filter(|pdu| pdu.event_id != back.event_id).chain([&left]);
    let told = told.map(|pdu| pdu.event_id.clone()).collect();
    let missing = resident.message(BOB, &[&join.event_id], 31);
    let behind = resident.message(BOB, &[&join.event_id, &missing.event_id], 32);
    let received = newcomer.write(ReceivePdus {
        pdus: newcomer.check(&[&behind]),
        states: vec![GivenState { event_id: behind.event_id.clone(), state: told }],
        ..ReceivePdus::default()
    });
    assert!(matches!(received.outcomes[..], [(_, Outcome::Rejected(_))]), "{received:?}");
    newcomer.is_sound();
    entry.complete();
    assert_eq!(newcomer.status(&behind.event_id), Some(EventStatus::Accepted));
    fill_gap(newcomer, &behind, &missing);
}

#[test]
fn what_a_policy_server_has_not_seen_is_shown_to_nobody() {
    let key = KeyPair::from_seed("policy_server", &[9; 32]).unwrap();
    let public_keys = json!({"ed25519": encode_base64(key.public_key())});
    let banned = Banned::with(|resident| {
        let content = json!({"via": "there.example", "public_keys": public_keys});
        resident.world.state(ROOM, ALICE, "m.room.policy", "", content);
    });
    let Entry { resident, newcomer, join, .. } = &banned.entry;
    let kick = banned.turn_out("leave", &join.event_id, 30);
    let message = resident.message(BOB, &[&kick.event_id], 31);
    newcomer.write(ReceivePdus {
        pdus: newcomer.check(&[&kick, &message]),
        not_recommended: BTreeSet::from([kick.event_id.clone()]),
        ..ReceivePdus::default()
    });
    let (soft_failed, rejected) = (EventStatus::SoftFailed, EventStatus::Rejected);
    assert_eq!(statuses(newcomer, &[&kick, &message]), [soft_failed, rejected]);
    newcomer.is_sound();
    banned.entry.complete();
    assert_eq!(statuses(newcomer, &[&kick, &message]), [rejected, soft_failed]);
    assert_eq!(newcomer.ends(), [join.event_id.to_string()]);
    newcomer.is_sound();
}

#[test]
fn of_a_multitude_of_rejected_events_the_first_are_judged_again() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, .. } = &banned.entry;
    let mut messages = vec![banned.turn_out("leave", &join.event_id, 30)];
    for depth in 31..=31 + REJECTED_JUDGED_MAX as u64 {
        let prev = messages.last().unwrap().event_id.clone();
        messages.push(resident.message(BOB, &[&prev], depth));
    }
    newcomer.receive(&messages.iter().collect::<Vec<_>>());
    let status = |at: usize| newcomer.status(&messages[at].event_id).unwrap();
    assert!((1..messages.len()).all(|at| status(at) == EventStatus::Rejected));
    banned.entry.complete();
    assert!((1..=REJECTED_JUDGED_MAX).all(|at| status(at) == EventStatus::Accepted));
    assert_eq!(status(REJECTED_JUDGED_MAX + 1), EventStatus::Rejected);
    assert_eq!(newcomer.ends(), [messages[REJECTED_JUDGED_MAX].event_id.to_string()]);
    newcomer.is_sound();
}

/// What follows it is judged by it, and more of it than there are places comes before what came live.
#[test]
fn a_multitude_of_rejected_history_leaves_their_share_to_what_came_live() {
    const CHAINS: usize = 20;
    let banned = Banned::new();
    let Entry { resident, newcomer, join, state } = &banned.entry;
    let [create, levels, _] = &banned.auth;
    let kick = banned.turn_out("leave", &join.event_id, 30);
    assert!(accepted(&newcomer.receive(&[&kick])));
    let (mut history, mut ends, mut depth) = (Vec::new(), Vec::new(), 30);
    for _ in 0..CHAINS {
        let mut prev = kick.event_id.clone();
        for _ in 0..=REJECTED_JUDGED_MAX / CHAINS {
            depth += 1;
            history.push(resident.message(BOB, &[&prev], depth));
            prev = history.last().unwrap().event_id.clone();
        }
        ends.push(prev);
    }
    let ends: Vec<&str> = ends.iter().map(|event_id| &**event_id).collect();
    let behind = resident.peer.make(Draft {
        sender: DORA,
        kind: "m.room.message",
        state_key: None,
        content: json!({"msgtype": "m.text", "body": "behind all that"}),
        prev: ends.clone(),
        auth: vec![create, levels, &join.event_id],
        depth: depth + 1,
    });
    let whole = state.iter().chain([join]).map(|pdu| pdu.event_id.clone()).collect();
    let states = vec![GivenState { event_id: behind.event_id.clone(), state: whole }];
    let pdus = newcomer.check(&[&behind]);
    assert!(accepted(&newcomer.write(ReceivePdus { pdus, states, ..ReceivePdus::default() })));
    let history: Vec<&Pdu> = history.iter().collect();
    let pdus = newcomer.check(&history);
    newcomer.write(ReceivePdus { pdus, backfill: true, ..ReceivePdus::default() });
    let live = resident.message(BOB, &ends, depth + 2);
    newcomer.receive(&[&live]);
    let all_are = |status| statuses(newcomer, &history).iter().all(|is| *is == status);
    assert!(all_are(EventStatus::Rejected));
    assert_eq!(newcomer.status(&live.event_id), Some(EventStatus::Rejected));
    newcomer.is_sound();
    banned.entry.complete();
    assert_eq!(newcomer.status(&live.event_id), Some(EventStatus::Accepted));
    assert!(all_are(EventStatus::SoftFailed), "nobody is told of it as if it were new");
    newcomer.is_sound();
}

#[test]
fn what_was_replaced_meanwhile_is_not_told_as_the_last_of_its_entry() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, .. } = &banned.entry;
    let [create, levels, _] = &banned.auth;
    let kick = banned.turn_out("leave", &join.event_id, 30);
    let old = resident.draft(BOB, "m.room.topic", Some(""), json!({"topic": "old"}), &[&kick.event_id], 31);
    let next = resident.peer.make(Draft {
        sender: DORA,
        kind: "m.room.message",
        state_key: None,
        content: json!({"msgtype": "m.text", "body": "next"}),
        prev: vec![&old.event_id],
        auth: vec![create, levels, &join.event_id],
        depth: 32,
    });
    newcomer.receive(&[&kick, &old, &next]);
    assert_eq!(newcomer.status(&old.event_id), Some(EventStatus::Rejected));
    let new = newcomer.world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "new"}));
    banned.entry.complete();
    assert_eq!(newcomer.status(&old.event_id), Some(EventStatus::SoftFailed));
    assert_eq!(newcomer.state("m.room.topic", ""), Some(new.clone()));
    assert_eq!(newcomer.timeline().last(), Some(&new));
    newcomer.is_sound();
}

#[test]
fn what_is_of_an_earlier_stay_is_no_end_of_the_room() {
    for earlier_first in [true, false] {
        let banned = Banned::new();
        let Entry { resident, newcomer, join, .. } = &banned.entry;
        let kick = banned.turn_out("leave", &join.event_id, 30);
        let message = resident.message(BOB, &[&kick.event_id], 31);
        newcomer.receive(&[&kick, &message]);
        assert_eq!(newcomer.status(&message.event_id), Some(EventStatus::Rejected));
        // The room goes on unheard, and is entered anew.
        assert!(accepted(&resident.receive(&[join])));
        resident.world.message(ROOM, ALICE, "unheard");
        let state = state_of(resident);
        let again = resident.world.join(ROOM, super::ERIN);
        let again = state_of(resident).into_iter().find(|pdu| *pdu.event_id == *again).unwrap();
        banned.entry.enter(&again, &state);
        assert!(banned.entry.store(&state.iter().collect::<Vec<_>>()).missing.is_nothing());
        match earlier_first {
            true => banned.entry.complete(),
            false => banned.entry.complete_by(&again, &state),
        }
        newcomer.is_sound();
        match earlier_first {
            true => banned.entry.complete_by(&again, &state),
            false => banned.entry.complete(),
        }
        assert_ne!(newcomer.status(&message.event_id), Some(EventStatus::Accepted));
        assert_eq!(newcomer.ends(), [again.event_id.to_string()]);
        newcomer.is_sound();
    }
}
