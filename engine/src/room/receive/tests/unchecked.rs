//! Events of a state that cannot be checked for want of keys wait, and become part of the room when the keys are here.

use super::*;
use crate::{
    command::{
        KeepUnchecked, PurgeBefore, PurgeHistory, StepPurge, TakeUnchecked, TakenUnchecked, Unchecked,
        UpgradeRoom,
    },
    view::federation::{AwaitedKeys, UncheckedEvents},
};

const THERE: &str = "there.example";
const AWAY: &str = "away.example";
const ERIN: &str = "@erin:here.example";
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A room of Alice's alone, in whose state are Carl's join and a topic of his by what another server told when it was entered by its
/// last event.
struct Told {
    scene: Scene,
    end: String,
    join: Pdu,
    topic: Pdu,
}

impl Told {
    fn new() -> Self {
        let scene = Scene::new();
        scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, CARL: 50}}));
        let leave = scene.member(BOB, BOB, "leave", &strs(&scene.ends()), 20);
        assert!(accepted(&scene.receive(&[&leave])));
        let end = scene.world.message(ROOM, ALICE, "the last before they are known");
        scene.world.deliver(THERE);
        let join = scene.member(CARL, CARL, "join", &[&end], 30);
        Self::by(scene, end, join)
    }

    fn by(scene: Scene, end: String, join: Pdu) -> Self {
        let topic =
            Self::by_carl(&scene, &join, ("m.room.topic", Some("")), json!({"topic": "burrows"}), &end, 31);
        Self { scene, end, join, topic }
    }

    fn by_carl(
        scene: &Scene,
        join: &Pdu,
        (kind, state_key): (&str, Option<&str>),
        content: Value,
        prev: &str,
        depth: u64,
    ) -> Pdu {
        let mut auth = scene.auth(CARL, kind, None, false);
        // It was made when the join was the last that was known of him.
        let standing = scene.state("m.room.member", CARL);
        auth.retain(|event_id| Some(event_id) != standing.as_ref());
        auth.push(join.event_id.to_string());
        let auth = strs(&auth);
        scene.peer.make(Draft { sender: CARL, kind, state_key, content, prev: vec![prev], auth, depth })
    }

    fn message(&self, depth: u64) -> Pdu {
        let content = json!({"msgtype": "m.text", "body": "here I am"});
        Self::by_carl(&self.scene, &self.join, ("m.room.message", None), content, &self.end, depth)
    }

    fn keep(&self, events: &[(&Pdu, &str)], is_anew: bool) {
        self.keep_before(&self.end, events, is_anew);
    }

    fn keep_before(&self, before: &str, events: &[(&Pdu, &str)], is_anew: bool) {
        self.keep_of((before, false), events, is_anew);
    }

    /// Keeps what the state before a join goes without by which the room was entered before, as it is told with its members.
    fn keep_with_members(&self, join: &str, events: &[(&Pdu, &str)]) {
        self.keep_of((join, true), events, true);
    }

    fn keep_of(&self, (before, is_entered): (&str, bool), events: &[(&Pdu, &str)], is_anew: bool) {
        let event = |(pdu, server): &(&Pdu, &str)| Unchecked {
            event_id: pdu.event_id.clone(),
            server: (*server).to_owned(),
            is_state: true,
            json: pdu.json.clone(),
        };
        let events = events.iter().map(event).collect();
        let before = before.into();
        let room_id = ROOM.into();
        let keep = KeepUnchecked { room_id, version: version(), before, events, is_entered, is_anew };
        self.scene.world.engine.write(keep).wait().unwrap();
    }

    fn take(&self, server: &str, pdus: &[&Pdu], refused: &[&Pdu]) -> TakenUnchecked {
        let take = TakeUnchecked {
            room_id: ROOM.into(),
            server: server.into(),
            pdus: self.scene.check(pdus),
            refused: refused.iter().map(|pdu| pdu.event_id.clone()).collect(),
            elsewhere: Vec::new(),
        };
        self.scene.world.engine.write(take).wait().unwrap()
    }

    fn awaited(&self) -> Vec<String> {
        let awaited = self.scene.world.engine.read(&AwaitedKeys).unwrap();
        assert!(awaited.iter().all(|(_, room_id)| room_id == ROOM));
        awaited.into_iter().map(|(server, _)| server).collect()
    }

    fn waiting(&self, server: &str) -> Vec<Arc<str>> {
        let wanted = UncheckedEvents { room_id: ROOM, server, after: "", limit: 100 };
        let waiting = self.scene.world.engine.read(&wanted).unwrap();
        assert_eq!(waiting.version.map(|version| version.id), Some("10"));
        waiting.events.into_iter().map(|(event_id, _)| event_id).collect()
    }

    fn outcome(&self, pdu: &Pdu) -> Outcome {
        self.scene.receive(&[pdu]).outcomes.remove(0).1
    }

    /// State that Carl sets where the room ends here.
    fn set(&self, kind: &str, state_key: &str, content: &Value, depth: u64) -> Pdu {
        let key = (kind, Some(state_key));
        Self::by_carl(&self.scene, &self.join, key, content.clone(), &self.end, depth)
    }

    /// Alice replaces the room. Returns what the new one has at a place of its state, or null.
    fn replaced(&self) -> impl Fn(&str, &str) -> Value {
        let (room_id, user_id, version) = (ROOM.into(), ALICE.into(), "11".into());
        let upgrade = UpgradeRoom { room_id, user_id, version, additional_creators: Vec::new() };
        let replacement = self.scene.world.engine.write(upgrade).wait().unwrap();
        self.scene.is_sound();
        move |kind: &str, state_key: &str| {
            self.scene.world.ask(|reader| {
                let event = RoomCtx::load(reader, &replacement)?.state(reader, kind, state_key)?;
                Ok(event.map_or(Value::Null, |event| event.pdu().unwrap().content.clone().into()))
            })
        }
    }
}

/// The ids of the events that a server is sent, and the types of what else.
pub(super) fn sent_to(world: &World, server: &str) -> (Vec<String>, usize) {
    let transactions = world.deliver(server);
    let pdus = transactions.iter().flat_map(|transaction| &transaction.pdus);
    let ids = pdus.map(|pdu| Pdu::parse(version(), pdu).unwrap().event_id.to_string()).collect();
    (ids, transactions.iter().map(|transaction| transaction.edus.len()).sum())
}

#[test]
fn what_waits_for_keys_is_part_of_the_room_once_they_are_here() {
    let told = Told::new();
    told.keep(&[(&told.join, THERE), (&told.topic, THERE)], true);
    assert_eq!(told.awaited(), [THERE]);
    let mut expected = vec![told.join.event_id.clone(), told.topic.event_id.clone()];
    expected.sort();
    assert_eq!(told.waiting(THERE), expected);
    assert!(!told.scene.is_joined(CARL), "nobody can tell yet");
    let message = told.message(40);
    // What allows it is known from elsewhere; whether he was in the room then is not.
    told.scene.receive_outliers(&[&told.join]);
    assert_eq!(told.outcome(&message), Outcome::Waiting, "it is not rejected for want of his membership");
    // It does not follow what the state is adopted under.
    let last = told.scene.world.message(ROOM, ALICE, "meanwhile");
    told.scene.is_sound();
    assert_eq!(sent_to(&told.scene.world, THERE).0, [""; 0]);
    let taken = told.take(THERE, &[&told.topic, &told.join], &[]);
    let TakenUnchecked::Settled { count: 2, adopted, .. } = taken else { panic!("{taken:?}") };
    assert_eq!(adopted.changed, 2);
    assert!(told.scene.is_joined(CARL));
    assert_eq!(told.scene.state("m.room.topic", ""), Some(told.topic.event_id.to_string()));
    assert_eq!(told.awaited(), [""; 0]);
    told.scene.is_sound();
    // His server has not been told of what was said while it was not known to be there.
    assert_eq!(sent_to(&told.scene.world, THERE).0, [last.as_str()]);
    assert_eq!(told.outcome(&message), Outcome::Accepted);
    told.scene.is_sound();
    let prev = message.event_id.to_string();
    let content = json!({"msgtype": "m.text", "body": "and here"});
    let next = Told::by_carl(&told.scene, &told.join, ("m.room.message", None), content, &prev, 41);
    assert_eq!(told.outcome(&next), Outcome::Accepted, "nor what follows that");
    told.scene.is_sound();
    // Nor when another membership stands in the place of the one that was adopted.
    let content = json!({"membership": "join", "displayname": "Carl"});
    let renamed =
        Told::by_carl(&told.scene, &told.join, ("m.room.member", Some(CARL)), content, &next.event_id, 42);
    assert_eq!(told.outcome(&renamed), Outcome::Accepted);
    let content = json!({"msgtype": "m.text", "body": "and on another end"});
    let late = Told::by_carl(&told.scene, &told.join, ("m.room.message", None), content, &told.end, 43);
    assert_eq!(told.outcome(&late), Outcome::Accepted);
    told.scene.is_sound();
}

#[test]
fn who_is_vouched_for_by_a_member_that_was_adopted_is_let_in() {
    const DORA: &str = "@dora:there.example";
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100}}));
    let allow = json!([{"type": "m.room_membership", "room_id": "!other:there.example"}]);
    let rules = json!({"join_rule": "restricted", "allow": allow});
    scene.world.state(ROOM, ALICE, "m.room.join_rules", "", rules);
    let end = scene.world.message(ROOM, ALICE, "the last before they are known");
    let vouched_for = |scene: &Scene, user: &str, (voucher, membership): (&str, &str), depth: u64| {
        let keys = ["m.room.create", "m.room.power_levels", "m.room.join_rules"];
        let standing: Vec<String> = keys.iter().filter_map(|kind| scene.state(kind, "")).collect();
        let mut auth = strs(&standing);
        auth.push(membership);
        let content = json!({"membership": "join", "join_authorised_via_users_server": voucher});
        let (kind, state_key, prev) = ("m.room.member", Some(user), vec![end.as_str()]);
        scene.peer.make(Draft { sender: user, kind, state_key, content, prev, auth, depth })
    };
    let bob = scene.state("m.room.member", BOB).unwrap();
    let carl = vouched_for(&scene, CARL, (BOB, &bob), 30);
    let dora = vouched_for(&scene, DORA, (CARL, &carl.event_id), 31);
    let told = Told::by(scene, end.clone(), carl);
    told.keep(&[(&told.join, THERE)], true);
    // Carl's join is adopted under this, which Dora's does not follow.
    told.scene.world.message(ROOM, ALICE, "meanwhile");
    let taken = told.take(THERE, &[&told.join], &[]);
    assert!(matches!(taken, TakenUnchecked::Settled { count: 1, .. }), "{taken:?}");
    assert!(told.scene.is_joined(CARL));
    assert_eq!(told.outcome(&dora), Outcome::Accepted);
    assert!(told.scene.is_joined(DORA));
    told.scene.is_sound();
}

/// A moderator turns out a member whose join cannot be checked, and goes on speaking.
#[test]
fn what_a_later_state_goes_without_is_adopted_with_what_waited_before() {
    what_a_later_state_goes_without(false);
    what_a_later_state_goes_without(true);
}

fn what_a_later_state_goes_without(is_known: bool) {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let end = scene.world.message(ROOM, ALICE, "the last before he is known");
    let join = scene.member(CARL, CARL, "join", &[&end], 30);
    let by_bob = |(kind, state_key): (&str, Option<&str>), content: Value, prev: &str, depth: u64| {
        let mut auth = scene.auth(BOB, kind, state_key, false);
        auth.extend(state_key.map(|_| join.event_id.to_string()));
        let auth = strs(&auth);
        scene.peer.make(Draft { sender: BOB, kind, state_key, content, prev: vec![prev], auth, depth })
    };
    let kick = by_bob(("m.room.member", Some(CARL)), json!({"membership": "leave"}), &end, 31);
    let content = json!({"msgtype": "m.text", "body": "that is that"});
    let next = by_bob(("m.room.message", None), content, &kick.event_id, 32);
    let told = Told::by(scene, end, join);
    told.keep(&[(&told.join, AWAY)], true);
    assert_eq!(told.outcome(&kick), Outcome::Waiting);
    let kept = Unchecked {
        event_id: kick.event_id.clone(),
        server: AWAY.into(),
        is_state: true,
        json: kick.json.clone(),
    };
    let receive = |states: Vec<GivenState>| {
        let (pdus, unchecked) = (told.scene.check(&[&next]), vec![(next.event_id.clone(), kept.clone())]);
        told.scene.write(ReceivePdus { pdus, states, unchecked, ..ReceivePdus::default() })
    };
    assert_eq!(receive(Vec::new()).outcomes[0].1, Outcome::Waiting);
    assert_eq!(told.waiting(AWAY), std::slice::from_ref(&told.join.event_id), "nothing goes without it yet");
    let given = GivenState { event_id: next.event_id.clone(), state: told.scene.state_ids() };
    // Somebody else has had it checked meanwhile, but not the room's state.
    if is_known {
        told.scene.receive_outliers(&[&told.join, &kick]);
    }
    let received = receive(vec![given]);
    assert!(accepted(&received));
    assert_eq!(received.awaited.into_iter().collect::<Vec<_>>(), [AWAY]);
    let mut expected = vec![told.join.event_id.clone(), kick.event_id.clone()];
    expected.sort();
    assert_eq!(told.waiting(AWAY), expected);
    told.scene.is_sound();
    let taken = told.take(AWAY, &[&kick, &told.join], &[]);
    assert!(matches!(taken, TakenUnchecked::Settled { count: 2, .. }), "{taken:?}");
    assert_eq!(told.scene.state("m.room.member", CARL), Some(kick.event_id.to_string()));
    assert!(!told.scene.is_joined(CARL));
    assert_eq!(told.awaited(), [""; 0]);
    told.scene.is_sound();
}

/// More states than are resolved at once. The latest come first: who was turned out by one is never in the room by an earlier one.
#[test]
fn what_many_states_go_without_is_adopted_by_several_commands() {
    const STATES: usize = 20;
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let end = scene.world.message(ROOM, ALICE, "the last before they are known");
    let join = scene.member(CARL, CARL, "join", &[&end], 30);
    let mut auth = scene.auth(BOB, "m.room.member", Some(CARL), false);
    auth.push(join.event_id.to_string());
    let kick = scene.peer.make(Draft {
        sender: BOB,
        kind: "m.room.member",
        state_key: Some(CARL),
        content: json!({"membership": "leave"}),
        prev: vec![end.as_str()],
        auth: strs(&auth),
        depth: 31,
    });
    let users: Vec<String> = (0..STATES).map(|number| format!("@member{number}:there.example")).collect();
    let joins: Vec<Pdu> = users.iter().map(|user| scene.member(user, user, "join", &[&end], 30)).collect();
    let told = Told::by(scene, end, join);
    let said = |number: usize| told.scene.world.message(ROOM, ALICE, &format!("message {number}"));
    let befores: Vec<String> = (0..STATES).map(said).collect();
    for (before, join) in befores.iter().zip(&joins) {
        told.keep_before(before, &[(join, THERE)], false);
    }
    told.keep_before(&befores[0], &[(&told.join, THERE)], false);
    told.keep_before(&befores[STATES - 1], &[(&kick, THERE)], false);
    let mut left: Vec<&Pdu> = joins.iter().chain([&told.join, &kick]).collect();
    let mut commands = 0;
    while !left.is_empty() {
        let taken = told.take(THERE, &left, &[]);
        let TakenUnchecked::Settled { count: 1.., mut further, .. } = taken else { panic!("{taken:?}") };
        commands += 1;
        left.retain(|pdu| further.contains(&pdu.event_id));
        further.sort();
        assert_eq!(further, told.waiting(THERE), "it is told what the next command takes");
        let earlier = joins.iter().filter(|join| further.contains(&join.event_id)).count();
        for (number, user) in users.iter().enumerate() {
            assert_eq!(told.scene.is_joined(user), number >= earlier, "{number} after {commands}");
        }
        assert!(!told.scene.is_joined(CARL), "after {commands}");
        told.scene.is_sound();
    }
    assert!(commands > 1, "{commands}");
    assert!(users.iter().all(|user| told.scene.is_joined(user)));
    assert_eq!(told.scene.state("m.room.member", CARL), Some(kick.event_id.to_string()));
    assert_eq!(told.awaited(), [""; 0]);
}

#[test]
fn what_is_denied_for_another_reason_is_rejected() {
    let told = Told::new();
    told.keep(&[(&told.join, AWAY)], true);
    told.scene.receive_outliers(&[&told.join]);
    told.scene.world.member(ROOM, ALICE, CARL, "ban").unwrap();
    let end = told.scene.ends().remove(0);
    let content = json!({"msgtype": "m.text", "body": "all the same"});
    let message = Told::by_carl(&told.scene, &told.join, ("m.room.message", None), content, &end, 50);
    assert!(matches!(told.outcome(&message), Outcome::Rejected(_)), "the state tells what he is");
    told.scene.is_sound();
}

#[test]
fn what_waits_outlasts_a_purge_of_the_event_before_which_it_was_told() {
    let mut told = Told::new();
    told.keep(&[(&told.join, THERE)], true);
    told.scene.world.pass_ms(DAY_MS + 1);
    told.end = told.scene.world.message(ROOM, ALICE, "the last");
    let before = PurgeBefore::Event(told.end.clone());
    told.scene.world.engine.write(PurgeHistory { room_id: ROOM.into(), before }).wait().unwrap();
    while !told.scene.world.engine.write(StepPurge::after(ROOM, None)).wait().unwrap().is_over() {}
    let taken = told.take(THERE, &[&told.join], &[]);
    assert!(matches!(taken, TakenUnchecked::Settled { count: 1, .. }), "{taken:?}");
    assert!(told.scene.is_joined(CARL));
    told.scene.is_sound();
}

#[test]
fn what_is_allowed_by_what_waits_for_another_server_waits_for_that() {
    let told = Told::new();
    told.keep(&[(&told.join, AWAY), (&told.topic, THERE)], true);
    let taken = told.take(THERE, &[&told.topic], &[]);
    assert!(matches!(taken, TakenUnchecked::Settled { count: 0, .. }), "{taken:?}");
    assert_eq!(told.awaited(), [AWAY]);
    told.scene.is_sound();
    let taken = told.take(AWAY, &[&told.join, &told.topic], &[]);
    assert!(matches!(taken, TakenUnchecked::Settled { count: 2, .. }), "{taken:?}");
    assert_eq!(told.scene.state("m.room.topic", ""), Some(told.topic.event_id.to_string()));
    told.scene.is_sound();
}

#[test]
fn what_turns_out_to_be_forged_is_let_go() {
    let told = Told::new();
    told.keep(&[(&told.join, THERE), (&told.topic, THERE)], true);
    let taken = told.take(THERE, &[&told.topic], &[&told.join]);
    assert!(matches!(taken, TakenUnchecked::Settled { count: 2, .. }), "{taken:?}");
    assert_eq!((told.awaited(), told.scene.is_joined(CARL)), (Vec::new(), false));
    assert_eq!(told.scene.state("m.room.topic", ""), None);
    told.scene.receive_outliers(&[&told.join]);
    assert!(matches!(told.outcome(&told.message(40)), Outcome::Rejected(_)), "nothing tells of him any more");
    told.scene.is_sound();
}

#[test]
fn what_is_told_anew_takes_the_place_of_what_was_told_before() {
    let told = Told::new();
    let join = told.scene.state("m.room.member", ALICE).unwrap();
    told.keep_before(&join, &[(&told.join, AWAY)], true);
    told.keep_before(&join, &[(&told.topic, THERE)], true);
    told.keep_before(&join, &[(&told.join, THERE)], false);
    assert_eq!((told.awaited(), told.waiting(THERE).len()), (vec![THERE.to_owned()], 2));
    // What the state before a message went without is told by no join.
    told.keep(&[(&told.message(32), AWAY)], false);
    told.keep_before(&join, &[], true);
    assert_eq!(told.awaited(), [AWAY]);
    told.scene.is_sound();
}

/// The members of an earlier stay are asked for behind those of the last one.
#[test]
fn what_is_told_of_an_earlier_join_takes_no_place_of_what_a_later_one_was_told_with() {
    let told = Told::new();
    let earlier = told.scene.state("m.room.member", ALICE).unwrap();
    let later = told.scene.world.join(ROOM, ERIN);
    told.keep_before(&later, &[(&told.join, AWAY)], true);
    told.keep_with_members(&earlier, &[(&told.topic, THERE)]);
    assert_eq!((told.waiting(AWAY).len(), told.waiting(THERE).len()), (1, 1));
    // Told once more, it takes its own place; and what waits as part of the later state goes on doing so.
    told.keep_with_members(&earlier, &[(&told.join, AWAY)]);
    assert_eq!(told.awaited(), [AWAY]);
    told.keep_with_members(&earlier, &[]);
    assert_eq!(told.waiting(AWAY), std::slice::from_ref(&told.join.event_id));
    told.scene.is_sound();
    let taken = told.take(AWAY, &[&told.join], &[]);
    assert!(matches!(taken, TakenUnchecked::Settled { count: 1, .. }), "{taken:?}");
    assert!(told.scene.is_joined(CARL));
    told.scene.is_sound();
}

#[test]
fn of_whom_two_events_tell_it_is_noted_until_neither_waits() {
    let told = Told::new();
    let content = json!({"membership": "join", "displayname": "Carl"});
    let other = Told::by_carl(&told.scene, &told.join, ("m.room.member", Some(CARL)), content, &told.end, 32);
    told.scene.receive_outliers(&[&told.join]);
    told.keep(&[(&told.join, AWAY), (&other, THERE)], true);
    told.scene.is_sound();
    let taken = told.take(THERE, &[], &[&other]);
    assert!(matches!(taken, TakenUnchecked::Settled { count: 1, .. }), "{taken:?}");
    told.scene.is_sound();
    assert_eq!(told.outcome(&told.message(40)), Outcome::Waiting, "the other may still tell of him");
}

#[test]
fn what_waits_in_a_room_that_is_not_entered_is_let_go_by_and_by() {
    let (world, room_id) = (World::new(), "!elsewhere:there.example");
    let event_id: Arc<str> = "$join".into();
    let event = Unchecked {
        event_id: event_id.clone(),
        server: THERE.into(),
        is_state: true,
        json: r#"{"type":"m.room.member","state_key":"@carl:there.example"}"#.into(),
    };
    let (before, events) = (Arc::from("$never-heard-of"), vec![event]);
    let (version, is_entered, is_anew) = (version(), false, true);
    let keep = KeepUnchecked { room_id: room_id.into(), version, before, events, is_entered, is_anew };
    world.engine.write(keep).wait().unwrap();
    let take = TakeUnchecked {
        room_id: room_id.into(),
        server: THERE.into(),
        pdus: Vec::new(),
        refused: vec![event_id],
        elsewhere: Vec::new(),
    };
    let taken = || world.engine.write(take.clone()).wait().unwrap();
    assert_eq!(taken(), TakenUnchecked::NotYet, "it may be about to be entered");
    assert_eq!(world.engine.read(&AwaitedKeys).unwrap(), [(THERE.to_owned(), room_id.to_owned())]);
    world.pass_ms(DAY_MS + 1);
    assert_eq!(taken(), TakenUnchecked::LetGo);
    assert_eq!(world.engine.read(&AwaitedKeys).unwrap(), []);
}

/// Nobody can tell yet whether he banned her, but the new room would never hear of it.
#[test]
fn whom_a_room_shuts_out_by_what_waits_the_one_that_replaces_it_shuts_out() {
    let told = Told::new();
    let (zoe, yan, nobody) = ("@zoe:there.example", "@yan:there.example", "@nobody:there.example");
    let ban = json!({"membership": "ban", "reason": "so it was told"});
    let list = json!({"allow": ["*"], "deny": ["evil.example"]});
    let (algorithm, joined) =
        (json!({"algorithm": "m.megolm.v1.aes-sha2"}), json!({"history_visibility": "joined"}));
    let by_carl = [
        told.set("m.room.member", zoe, &ban, 32),
        told.set("m.room.member", yan, &json!({"membership": "leave"}), 33),
        // She is above him.
        told.set("m.room.member", ALICE, &ban, 34),
        told.set("m.room.server_acl", "", &list, 35),
        told.set("m.room.encryption", "", &algorithm, 36),
        told.set("m.room.history_visibility", "", &joined, 37),
        told.set("m.room.guest_access", "", &json!({"guest_access": "can_join"}), 38),
    ];
    // Who never had any power can be said to be of any server.
    let auth = told.scene.auth(nobody, "m.room.member", Some(BOB), false);
    let made_up = told.scene.peer.make(Draft {
        sender: nobody,
        kind: "m.room.member",
        state_key: Some(BOB),
        content: ban,
        prev: vec![told.end.as_str()],
        auth: strs(&auth),
        depth: 39,
    });
    let waiting = by_carl.iter().chain([&told.join, &told.topic, &made_up]);
    told.keep(&waiting.map(|pdu| (pdu, THERE)).collect::<Vec<_>>(), true);
    // Carl had the power when he did it.
    told.scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100}}));
    let state = told.replaced();
    assert_eq!(state("m.room.member", zoe), json!({"membership": "ban"}));
    assert_eq!(state("m.room.member", ALICE)["membership"], "join");
    assert_eq!(state("m.room.server_acl", ""), list);
    assert_eq!(state("m.room.encryption", ""), algorithm);
    assert_eq!(state("m.room.history_visibility", ""), joined);
    for (kind, state_key) in [
        ("m.room.member", yan),
        ("m.room.member", BOB),
        ("m.room.member", CARL),
        ("m.room.topic", ""),
        ("m.room.guest_access", ""),
    ] {
        assert_eq!(state(kind, state_key), Value::Null, "{kind} {state_key}");
    }
}

#[test]
fn what_waits_replaces_nothing_that_stands_and_keeps_no_room_from_being_replaced() {
    let told = Told::new();
    let shared = json!({"history_visibility": "shared"});
    told.scene.world.state(ROOM, ALICE, "m.room.history_visibility", "", shared.clone());
    told.scene.world.member(ROOM, ALICE, BOB, "ban").unwrap();
    let joined = told.set("m.room.history_visibility", "", &json!({"history_visibility": "joined"}), 32);
    let against_all = told.set("m.room.server_acl", "", &json!({"allow": ["there.example"]}), 33);
    let again = told.set("m.room.member", BOB, &json!({"membership": "ban", "reason": "so it was told"}), 34);
    told.keep(&[(&joined, AWAY), (&against_all, AWAY), (&again, AWAY)], true);
    let state = told.replaced();
    assert_eq!(state("m.room.history_visibility", ""), shared);
    assert_eq!(state("m.room.server_acl", ""), Value::Null);
    assert_eq!(state("m.room.member", BOB), json!({"membership": "ban"}));
}
