//! Two servers and one room: this engine, and a peer that makes events by hand.

mod adoption;
mod bad_events;
mod between;
mod chains;
mod chosen_ids;
mod completion;
mod entered;
mod forks;
mod guests;
mod history;
mod hostile;
mod idle_redactions;
mod invites;
mod left_behind;
mod let_in_again;
mod moderators;
mod outsiders;
mod overtaken;
mod own_users;
mod places;
mod policy;
mod policy_past;
mod pruned;
mod redacted;
mod related;
mod removed;
mod set_aside;
mod turned_out;
mod unchecked;
mod withheld;
mod within;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{GivenState, Outcome};
use crate::{
    Membership,
    check::Check,
    command::{CompleteState, EnterRoom, ReceivePdus, Received, StoreOutliers, StoreServerKeys},
    core::{
        auth::Reason,
        checked::{CheckedPdu, MissingKey, PduCheck, Refused},
        event::{EventBuilder, EventReference, JsonObject, KeyPair, Pdu, hash_and_sign_event},
        filter::RoomEventFilter,
        limits::PREV_EVENTS_MAX,
        num::{EventNum, StreamPos},
        version::RoomVersion,
    },
    fixture::{START_MS, World},
    intake::{Answer, Intake, Next, Question},
    remote::ServerKey,
    room::{RoomCtx, gap},
    store::{schema, schema::EventStatus},
    view::{CheckHistory, CheckPdus, HistoryGap, Messages, StreamToken, federation::EventsById},
};

const ROOM: &str = "!room:here.example";
const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:there.example";
const CARL: &str = "@carl:there.example";
const KEY_ID: &str = "ed25519:1";

fn version() -> &'static RoomVersion {
    RoomVersion::get("10").unwrap()
}

/// A server that makes events by hand.
struct Peer {
    key: KeyPair,
}

/// What an event of the peer is made of.
struct Draft<'a> {
    sender: &'a str,
    kind: &'a str,
    state_key: Option<&'a str>,
    content: Value,
    prev: Vec<&'a str>,
    auth: Vec<&'a str>,
    depth: u64,
}

impl Peer {
    fn new() -> Self {
        Self { key: KeyPair::from_seed("1", &[7; 32]).unwrap() }
    }

    fn keys(&self) -> StoreServerKeys {
        let key = ServerKey {
            key_id: KEY_ID.into(),
            public_key: self.key.public_key().to_vec(),
            valid_until_ts: START_MS * 2,
            is_old: false,
        };
        StoreServerKeys { server_name: "there.example".into(), keys: vec![key] }
    }

    fn make(&self, draft: Draft<'_>) -> Pdu {
        let references = |ids: &[&str]| {
            ids.iter().map(|id| EventReference::from(Arc::<str>::from(*id))).collect::<Vec<_>>()
        };
        let builder = EventBuilder {
            room_id: Some(ROOM.into()),
            sender: draft.sender.into(),
            kind: draft.kind.into(),
            state_key: draft.state_key.map(Arc::from),
            content: draft.content.as_object().cloned().unwrap(),
            redacts: None,
            prev_events: references(&draft.prev),
            auth_events: references(&draft.auth),
            depth: draft.depth,
            // Depths go further than times do.
            origin_server_ts: START_MS + draft.depth % 1_000_000,
            event_id_localpart: None,
        };
        builder.build(version(), "there.example", &self.key).unwrap()
    }
}

/// This engine with a room in which Alice, of here, and Bob, of there, are.
struct Scene {
    world: World,
    peer: Peer,
}

impl Scene {
    fn new() -> Self {
        Self::on(World::new())
    }

    fn on(world: World) -> Self {
        let scene = Self { world, peer: Peer::new() };
        scene.world.engine.write(scene.peer.keys()).wait().unwrap();
        scene.world.room(ROOM, ALICE, None);
        let prev = scene.ends();
        let prev: Vec<&str> = prev.iter().map(String::as_str).collect();
        let join = scene.member(BOB, BOB, "join", &prev, 10);
        assert_eq!(scene.receive(&[&join]).outcomes, [(join.event_id.clone(), Outcome::Accepted)]);
        scene
    }

    fn state(&self, kind: &str, state_key: &str) -> Option<String> {
        self.world.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            Ok(room.state(reader, kind, state_key)?.map(|event| event.event_id.to_string()))
        })
    }

    /// The ids of the current state.
    fn state_ids(&self) -> Vec<Arc<str>> {
        self.world.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            let entries = reader.state_entries(room.num, room.head.state)?;
            entries.into_iter().map(|(_, num)| Ok(reader.event(num)?.event_id.clone())).collect()
        })
    }

    fn ends(&self) -> Vec<String> {
        self.world.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            Ok(room.head.extremities.iter().map(|(_, event_id)| event_id.clone()).collect())
        })
    }

    fn status(&self, event_id: &str) -> Option<EventStatus> {
        self.world.ask(|reader| match reader.event_num(event_id)? {
            None => Ok(None),
            Some(num) => Ok(Some(reader.event(num)?.header.status)),
        })
    }

    /// The ids in the timeline, oldest first.
    fn timeline(&self) -> Vec<String> {
        self.world.ask(|reader| {
            let room = reader.room_num(ROOM)?.unwrap();
            let mut nums: Vec<EventNum> = Vec::new();
            reader.scan(
                &schema::TIMELINE,
                &room,
                crate::store::Direction::Forward,
                |(_, _): (crate::core::num::RoomNum, crate::core::num::StreamPos), num| {
                    nums.push(num);
                    true
                },
            )?;
            Ok(reader.events(&nums)?.iter().map(|event| event.event_id.to_string()).collect())
        })
    }

    fn is_joined(&self, user_id: &str) -> bool {
        self.world.ask(|reader| {
            let (Some(user), Some(room)) = (reader.user_num(user_id)?, reader.room_num(ROOM)?) else {
                return Ok(false);
            };
            Ok(reader.membership(user, room)? == Some(Membership::Join))
        })
    }

    /// The auth events that the current state has for an event.
    fn auth(&self, sender: &str, kind: &str, target: Option<&str>, lets_in: bool) -> Vec<String> {
        let mut pairs = vec![("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", sender)];
        if kind == "m.room.member" {
            if lets_in {
                pairs.push(("m.room.join_rules", ""));
            }
            pairs.extend(target.filter(|target| *target != sender).map(|target| ("m.room.member", target)));
        }
        pairs.into_iter().filter_map(|(kind, key)| self.state(kind, key)).collect()
    }

    fn draft(
        &self,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        prev: &[&str],
        depth: u64,
    ) -> Pdu {
        let lets_in = matches!(content["membership"].as_str(), Some("join" | "invite"));
        let auth = self.auth(sender, kind, state_key, lets_in);
        let auth = auth.iter().map(String::as_str).collect();
        self.peer.make(Draft { sender, kind, state_key, content, prev: prev.to_vec(), auth, depth })
    }

    fn message(&self, sender: &str, prev: &[&str], depth: u64) -> Pdu {
        let content = json!({"msgtype": "m.text", "body": format!("at depth {depth}")});
        self.draft(sender, "m.room.message", None, content, prev, depth)
    }

    fn member(&self, sender: &str, target: &str, membership: &str, prev: &[&str], depth: u64) -> Pdu {
        self.draft(sender, "m.room.member", Some(target), json!({"membership": membership}), prev, depth)
    }

    fn check(&self, pdus: &[&Pdu]) -> Vec<Arc<CheckedPdu>> {
        let json: Vec<Bytes> = pdus.iter().map(|pdu| pdu.json.clone()).collect();
        let checks = self.world.engine.read(&CheckPdus { version: version(), pdus: &json }).unwrap();
        let ready = |check| match check {
            PduCheck::Ready(checked) => checked,
            other => panic!("{other:?}"),
        };
        checks.into_iter().map(ready).collect()
    }

    fn receive(&self, pdus: &[&Pdu]) -> Received {
        self.write(ReceivePdus { pdus: self.check(pdus), ..ReceivePdus::default() })
    }

    /// Drives an intake of an event until it asks no more.
    fn intake(&self, sent: &Pdu, answer: impl FnMut(&Question) -> Answer) -> Intake {
        self.drive(Intake::new(ROOM.into(), version(), vec![sent.json.clone()]), answer)
    }

    /// Drives an intake until it asks no more.
    fn drive(&self, mut intake: Intake, mut answer: impl FnMut(&Question) -> Answer) -> Intake {
        loop {
            match intake.next_step() {
                Next::Check(pdus) => {
                    let view = CheckPdus { version: version(), pdus: &pdus };
                    intake.checked(self.world.engine.read(&view).unwrap());
                }
                Next::Write(receive) => intake.received(self.world.engine.write(*receive).wait().unwrap()),
                Next::Ask(question) => {
                    let answer = answer(&question);
                    intake.answered(question, answer);
                }
                Next::Done => return intake,
            }
        }
    }

    /// Receives events that are only to be known.
    fn receive_outliers(&self, pdus: &[&Pdu]) -> Received {
        self.write(ReceivePdus { outliers: self.check(pdus), ..ReceivePdus::default() })
    }

    fn is_sound(&self) {
        let report = self.world.engine.read(&Check { progress: &|_, _| () }).unwrap();
        assert_eq!(report.findings, []);
    }

    fn write(&self, command: ReceivePdus) -> Received {
        self.world.engine.write(ReceivePdus { room_id: ROOM.into(), ..command }).wait().unwrap()
    }
}

fn strs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

fn accepted(received: &Received) -> bool {
    received.outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Accepted)
}

#[test]
fn events_in_any_order_are_taken_in_once_and_in_theirs() {
    let scene = Scene::new();
    let ends = scene.ends();
    let first = scene.message(BOB, &strs(&ends), 20);
    let second = scene.message(BOB, &[&first.event_id], 21);
    let third = scene.message(BOB, &[&second.event_id], 22);
    assert!(accepted(&scene.receive(&[&third, &first, &second, &third])));
    assert!(scene.timeline().ends_with(&[&first, &second, &third].map(|pdu| pdu.event_id.to_string())));
    assert_eq!(scene.ends(), [third.event_id.to_string()]);
    let again = scene.receive(&[&second]);
    assert_eq!(again.outcomes, [(second.event_id.clone(), Outcome::Known)]);
    // What is sent here follows it.
    let own = scene.world.message(ROOM, ALICE, "and on");
    assert_eq!(scene.ends(), [own]);
}

#[test]
fn what_is_missing_is_told_and_leaves_nothing_until_it_is_there() {
    let scene = Scene::new();
    let ends = scene.ends();
    let first = scene.message(BOB, &strs(&ends), 20);
    let second = scene.message(BOB, &[&first.event_id], 21);
    let received = scene.receive(&[&second]);
    assert_eq!(received.outcomes, [(second.event_id.clone(), Outcome::Waiting)]);
    assert_eq!(received.missing.prev_events, std::slice::from_ref(&first.event_id));
    assert_eq!(received.missing.state, std::slice::from_ref(&second.event_id));
    assert_eq!((scene.status(&second.event_id), scene.ends()), (None, ends));
    assert!(accepted(&scene.receive(&[&first, &second])));
}

#[test]
fn forks_are_resolved_and_healed_by_what_follows_both() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let ends = scene.ends();
    let topic =
        |depth| scene.draft(BOB, "m.room.topic", Some(""), json!({"topic": depth}), &strs(&ends), depth);
    let (one, other) = (topic(20), topic(21));
    assert!(accepted(&scene.receive(&[&one])));
    assert_eq!(scene.state("m.room.topic", ""), Some(one.event_id.to_string()));
    assert!(accepted(&scene.receive(&[&other])));
    assert_eq!(scene.ends().len(), 2);
    // Of two that are equally allowed, the later one stands.
    assert_eq!(scene.state("m.room.topic", ""), Some(other.event_id.to_string()));
    let own = scene.world.message(ROOM, ALICE, "together");
    assert_eq!(scene.ends(), [own]);
    assert_eq!(scene.state("m.room.topic", ""), Some(other.event_id.to_string()));
}

#[test]
fn a_fork_that_evades_a_ban_is_soft_failed() {
    let scene = Scene::new();
    let before_the_ban = scene.ends();
    let evading = scene.message(BOB, &strs(&before_the_ban), 30);
    scene.world.member(ROOM, ALICE, BOB, "ban").unwrap();
    assert!(!scene.is_joined(BOB));
    let ends = scene.ends();
    let received = scene.receive(&[&evading]);
    assert!(matches!(&received.outcomes[..], [(_, Outcome::SoftFailed(denied))] if denied.rule == "5"));
    assert_eq!(scene.status(&evading.event_id), Some(EventStatus::SoftFailed));
    assert!(!scene.timeline().contains(&evading.event_id.to_string()));
    assert_eq!(scene.ends(), ends);
}

#[test]
fn a_ban_that_comes_late_unmakes_what_was_done_meanwhile() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let join = scene.member(CARL, CARL, "join", &strs(&scene.ends()), 20);
    assert!(accepted(&scene.receive(&[&join])));
    let ends = scene.ends();
    let ban = scene.member(BOB, CARL, "ban", &strs(&ends), 21);
    let name = json!({"membership": "join", "displayname": "Carl"});
    let renamed = scene.draft(CARL, "m.room.member", Some(CARL), name, &strs(&ends), 21);
    assert!(accepted(&scene.receive(&[&renamed])));
    assert!(scene.is_joined(CARL));
    assert!(accepted(&scene.receive(&[&ban])));
    assert_eq!(scene.state("m.room.member", CARL), Some(ban.event_id.to_string()));
    assert!(!scene.is_joined(CARL));
}

#[test]
fn what_the_rules_refuse_is_kept_from_the_room_with_the_rules_number() {
    let scene = Scene::new();
    let ends = scene.ends();
    let topic = scene.draft(BOB, "m.room.topic", Some(""), json!({"topic": "mine"}), &strs(&ends), 20);
    let received = scene.receive(&[&topic]);
    let [(_, Outcome::Rejected(denied))] = &received.outcomes[..] else { panic!("{received:?}") };
    assert_eq!(denied.rule, denied.reason.number(version()));
    assert_eq!((scene.status(&topic.event_id), scene.ends()), (Some(EventStatus::Rejected), ends));
    assert_eq!(scene.state("m.room.topic", ""), None);
    // Who follows it is judged without it, and takes its place at the room's end.
    let after = scene.message(BOB, &[&topic.event_id], 21);
    assert!(accepted(&scene.receive(&[&after])));
    assert_eq!(scene.ends(), [after.event_id.to_string()]);
    // An event that names a rejected one as what allows it is rejected too.
    let own = scene.auth(BOB, "m.room.message", None, false);
    let mut auth: Vec<&str> = strs(&own);
    auth.pop();
    let rejected_join = scene.member(CARL, CARL, "invite", &[&after.event_id], 22);
    let _ = scene.receive(&[&rejected_join]);
    auth.push(&rejected_join.event_id);
    let content = json!({"body": "let in by nobody"});
    let draft = Draft {
        sender: CARL,
        kind: "m.room.message",
        state_key: None,
        content,
        prev: vec![&after.event_id],
        auth,
        depth: 23,
    };
    let received = scene.receive(&[&scene.peer.make(draft)]);
    assert!(
        matches!(&received.outcomes[..], [(_, Outcome::Rejected(denied))] if denied.reason == Reason::AuthEventsRejected),
        "{received:?}"
    );
}

/// The last of four messages comes, and the state before it; the three before it are missing. With them all.
fn with_gap(scene: &Scene) -> [Pdu; 4] {
    let ends = scene.ends();
    let one = scene.message(BOB, &strs(&ends), 20);
    let two = scene.message(BOB, &[&one.event_id], 21);
    let three = scene.message(BOB, &[&two.event_id], 22);
    let four = behind_gap(scene, &three);
    [one, two, three, four]
}

/// An event that follows one that is not here, with the state of now.
fn behind_gap(scene: &Scene, missing: &Pdu) -> Pdu {
    let last = scene.message(BOB, &[&missing.event_id], missing.depth + 1);
    let given = GivenState { event_id: last.event_id.clone(), state: scene.state_ids() };
    let received = scene.write(ReceivePdus {
        pdus: scene.check(&[&last]),
        states: vec![given],
        ..ReceivePdus::default()
    });
    assert!(accepted(&received), "{received:?}");
    last
}

#[test]
fn a_page_that_passes_over_events_ends_at_a_gap_and_the_next_one_goes_on() {
    let scene = Scene::new();
    let before = scene.timeline();
    let [_, _, _, four] = with_gap(&scene);
    let filter = RoomEventFilter::parse(br#"{"types": ["m.room.message", "m.room.create"]}"#).unwrap();
    let page = |from: Option<StreamToken>, forwards: bool| {
        let (room_id, user, filter) = (ROOM.to_owned(), ALICE.to_owned(), filter.clone());
        let (device, to, limit) = (None, None, Some(100));
        let view = Messages { room_id, user, device, from, to, forwards, limit, filter };
        let page: Value = serde_json::from_slice(&scene.world.engine.read(&view).unwrap()).unwrap();
        let event_id = |event: &Value| event["event_id"].as_str().unwrap().to_owned();
        let ids: Vec<String> = page["chunk"].as_array().unwrap().iter().map(event_id).collect();
        (ids, page["end"].as_str().map(|end| StreamToken::decode(end).unwrap()))
    };
    for (forwards, first, last) in
        [(false, &*four.event_id, &*before[0]), (true, &*before[0], &*four.event_id)]
    {
        let (ids, end) = page(None, forwards);
        assert_eq!(ids, [first], "{forwards}");
        let (ids, _) = page(Some(end.unwrap()), forwards);
        assert_eq!(ids, [last], "{forwards}");
    }
}

#[test]
fn a_gap_is_passed_by_with_a_given_state_and_filled_in_order() {
    let scene = Scene::new();
    let (before, ends) = (scene.timeline(), scene.ends());
    let [one, two, three, four] = with_gap(&scene);
    let pos = scene.world.ask(|reader| Ok(reader.event(reader.event_num(&four.event_id)?.unwrap())?.pos()));
    let missing =
        || scene.world.ask(|reader| Ok(gap::missing_before(reader, reader.room_num(ROOM)?.unwrap(), pos)?));
    assert_eq!(missing(), [three.event_id.to_string()]);
    // A page runs into the gap when it goes beyond the last event before it, from either side.
    let runs_into = |from: Option<StreamPos>, forwards: bool, limit: usize| {
        let (from, to) = (from.map(StreamToken), None);
        let view = HistoryGap { room_id: ROOM, from, to, forwards, limit };
        scene.world.engine.read(&view).unwrap().map(|gap| gap.missing)
    };
    let found = Some(vec![three.event_id.to_string()]);
    assert_eq!(runs_into(None, false, 1), found);
    assert_eq!(runs_into(None, true, before.len() + 1), found);
    assert_eq!(runs_into(None, true, before.len()), None);
    // Also one that begins where the last one came to the gap, but none that begins beyond it.
    assert_eq!(runs_into(Some(StreamPos(pos.0 - 1)), false, 100), found);
    let beyond =
        scene.world.ask(|reader| Ok(reader.event(reader.event_num(before.last().unwrap())?.unwrap())?.pos()));
    assert_eq!(runs_into(Some(beyond), false, 100), None);

    let backfill = |pdus: &[&Pdu]| {
        scene.write(ReceivePdus { pdus: scene.check(pdus), backfill: true, ..ReceivePdus::default() })
    };
    let unrelated = scene.message(BOB, &strs(&ends), 19);
    assert_eq!(
        backfill(&[&unrelated]).outcomes,
        [(unrelated.event_id.clone(), Outcome::Refused(Refused::Unrelated))]
    );
    assert!(accepted(&backfill(&[&two, &three])));
    assert_eq!(missing(), [one.event_id.to_string()]);
    // What was filled in is on the page's side of the gap.
    assert_eq!(runs_into(None, false, 2), None);
    assert_eq!(runs_into(None, false, 3), Some(vec![one.event_id.to_string()]));
    assert!(accepted(&backfill(&[&one])));
    assert!(missing().is_empty());
    assert_eq!(runs_into(None, false, 100), None);
    let mut whole = before;
    whole.extend([&one, &two, &three, &four].map(|pdu| pdu.event_id.to_string()));
    assert_eq!(scene.timeline(), whole);
    // Nothing but the newest is at the room's end any more.
    assert_eq!(scene.ends(), [four.event_id.to_string()]);
}

/// Specification: "the response of backfill MUST NOT be validated on these specific restrictions".
#[test]
fn events_of_the_past_may_name_more_than_those_of_today() {
    let scene = Scene::new();
    let three = scene.message(BOB, &strs(&scene.ends()), 22);
    let mut wide: JsonObject = serde_json::from_slice(&three.json).unwrap();
    let unknown = (0..PREV_EVENTS_MAX).map(|n| format!("${n:a>43}"));
    wide["prev_events"] = scene.ends().into_iter().chain(unknown).collect();
    hash_and_sign_event(version(), &mut wide, "there.example", &scene.peer.key);
    let json = [Bytes::from(serde_json::to_vec(&wide).unwrap())];
    let pdus = CheckPdus { version: version(), pdus: &json };
    let today = scene.world.engine.read(&pdus).unwrap().remove(0);
    assert!(matches!(today, PduCheck::Refused { error: Refused::Format(_), .. }), "{today:?}");
    let past = scene.world.engine.read(&CheckHistory(pdus)).unwrap().remove(0);
    let PduCheck::Ready(wide) = past else { panic!("{past:?}") };
    behind_gap(&scene, wide.pdu());
    let received =
        scene.write(ReceivePdus { pdus: vec![wide.clone()], backfill: true, ..ReceivePdus::default() });
    assert!(accepted(&received), "{received:?}");
    let stored = scene.world.ask(|reader| {
        let num = reader.event_num(&wide.pdu().event_id)?.unwrap();
        Ok(reader.event(num)?.pdu()?.prev_events.len())
    });
    assert_eq!(stored, PREV_EVENTS_MAX + 1);
    scene.is_sound();
}

/// What was part of a state that another server told is given on as it is, or others would have mutilated copies.
#[test]
fn state_that_is_known_from_outside_of_the_graph_is_given_whole() {
    let scene = Scene::new();
    let content = json!({"membership": "join", "displayname": "Bob"});
    let named = scene.draft(BOB, "m.room.member", Some(BOB), content, &["$unknown"], 30);
    let said = scene.message(BOB, &["$unknown"], 31);
    scene.receive_outliers(&[&named, &said]);
    let event_ids = vec![named.event_id.to_string(), said.event_id.to_string()];
    let view = EventsById { room_id: Some(ROOM.into()), event_ids, server: "there.example".into() };
    let given: Vec<Value> = scene
        .world
        .engine
        .read(&view)
        .unwrap()
        .into_iter()
        .map(|event| serde_json::from_slice(&event.unwrap()).unwrap())
        .collect();
    assert_eq!(given[0]["content"]["displayname"], "Bob");
    assert_eq!(given[1]["content"], json!({}));
}

#[test]
fn hashes_and_signatures_decide_before_any_room_does() {
    let scene = Scene::new();
    let good = scene.message(BOB, &strs(&scene.ends()), 20);
    let check = |json: &str| {
        let pdus = [Bytes::from(json.to_owned())];
        scene.world.engine.read(&CheckPdus { version: version(), pdus: &pdus }).unwrap().remove(0)
    };
    let text = std::str::from_utf8(&good.json).unwrap();
    // A changed content redacts the event, whose id and signature do not cover it.
    let PduCheck::Ready(redacted) = check(&text.replace("at depth 20", "something else")) else { panic!() };
    assert_eq!((&redacted.pdu().event_id, redacted.pdu().content.len()), (&good.event_id, 0));
    // A changed sender breaks the signature.
    let changed = check(&text.replace(BOB, CARL));
    assert!(
        matches!(changed, PduCheck::Refused { error: Refused::Signature(server), .. } if server == "there.example")
    );
    let unsigned = check(&text.replace("\"there.example\":{", "\"other.example\":{"));
    assert!(matches!(unsigned, PduCheck::Refused { error: Refused::Unsigned(_), .. }));
    let PduCheck::MissingKeys(keys) = check(&text.replace(KEY_ID, "ed25519:2")) else { panic!() };
    assert_eq!(keys, [MissingKey { server_name: "there.example".into(), key_id: "ed25519:2".into() }]);
    let too_long = text.replace("at depth 20", &"x".repeat(70_000));
    assert!(matches!(check(&too_long), PduCheck::Refused { error: Refused::Format(_), .. }));
}

#[test]
fn a_key_id_never_stands_for_another_key() {
    let scene = Scene::new();
    let mut other = scene.peer.keys();
    other.keys[0].public_key = vec![9; 32];
    assert_eq!(scene.world.engine.write(other).wait().unwrap(), [KEY_ID]);
    let good = scene.message(BOB, &strs(&scene.ends()), 20);
    assert!(accepted(&scene.receive(&[&good])));
}
