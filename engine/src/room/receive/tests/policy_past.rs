//! History in rooms with a policy server: there.example, which is asked about each event before it is taken in.

use super::{
    entered::Entered,
    history::{answer as told, end, ids, messages},
    left_behind::missing_before,
    overtaken::pdu_of,
    policy::{POLICY_KEY_ID, answer, event_json, signed, use_policy_server},
    *,
};
use crate::{
    UnsignedEvent,
    command::{PurgeBefore, PurgeHistory, StepPurge},
    room::receive::Within,
    view::{EventContext, OneEvent},
};

/// Events of the past that a policy server is asked about at a time.
const AT_ONCE: usize = 16;

/// A room that has come to use the policy server behind a gap.
struct Guarded {
    scene: Scene,
    key: KeyPair,
    /// What was there before what is missing.
    before: Vec<String>,
    /// What is missing, and the last, which is behind the gap.
    sent: Vec<Pdu>,
    /// The event that names the policy server, behind all of it.
    naming: String,
}

fn key(seed: u8) -> KeyPair {
    KeyPair::from_seed("policy_server", &[seed; 32]).unwrap()
}

fn page(pdus: &[&Pdu]) -> Intake {
    Intake::of_history(ROOM.into(), version(), pdus.iter().map(|pdu| pdu.json.clone()).collect())
}

fn strings(pdus: &[&Pdu]) -> Vec<String> {
    pdus.iter().map(|pdu| pdu.event_id.to_string()).collect()
}

impl Guarded {
    fn new(scene: Scene, sent: impl FnOnce(&Scene) -> Vec<Pdu>) -> Self {
        let before = scene.timeline();
        let sent = sent(&scene);
        let naming = use_policy_server(&scene, "there.example", &key(9));
        Self { scene, key: key(9), before, sent, naming }
    }

    /// So many messages are missing.
    fn lacking(count: u64) -> Self {
        Self::new(Scene::new(), |scene| {
            let mut sent: Vec<Pdu> = Vec::new();
            for depth in 20..20 + count {
                let prev = sent.last().map_or_else(|| scene.ends(), |last| vec![last.event_id.to_string()]);
                sent.push(scene.message(BOB, &strs(&prev), depth));
            }
            let last = behind_gap(scene, &sent[sent.len() - 1]);
            sent.push(last);
            sent
        })
    }

    /// Takes in a page for which the policy server signs what is not `refused`. Answers with what it was asked about, in order.
    fn read(&self, pdus: &[&Pdu], refused: &[&Pdu]) -> Vec<String> {
        let mut asked = Vec::new();
        let intake = self.scene.drive(page(pdus), |question| match question {
            Question::PolicySignature(wanted) => {
                asked.push(wanted.event_id.to_string());
                let pdu = pdus.iter().find(|pdu| pdu.event_id == wanted.event_id).unwrap();
                let is_refused = refused.iter().any(|refused| refused.event_id == pdu.event_id);
                Answer::PolicySignature((!is_refused).then(|| answer(&pdu.json, &self.key)))
            }
            other => panic!("{other:?}"),
        });
        assert!(!intake.lacks_signatures() && !intake.is_policy_server_silent());
        asked
    }

    /// What is shown of all that was sent, in its order.
    fn shows(&self, sent: &[&Pdu]) {
        let mut whole = self.before.clone();
        whole.extend(strings(sent));
        whole.push(self.naming.clone());
        assert_eq!(self.scene.timeline(), whole);
        self.scene.is_sound();
    }

    fn is_signed(&self, pdu: &Pdu) -> bool {
        event_json(&self.scene, &pdu.event_id)["signatures"]["there.example"][POLICY_KEY_ID].is_string()
    }
}

#[test]
fn history_with_the_signature_is_not_asked_about() {
    let guarded = Guarded::lacking(3);
    let [one, two, three, four] = &guarded.sent[..] else { panic!() };
    let page = [one, two, three].map(|pdu| signed(pdu, &guarded.key));
    assert_eq!(guarded.read(&page.iter().collect::<Vec<_>>(), &[]), [""; 0]);
    guarded.shows(&[one, two, three, four]);
}

#[test]
fn history_without_it_is_asked_about_and_keeps_it() {
    let guarded = Guarded::lacking(3);
    let [one, two, three, four] = &guarded.sent[..] else { panic!() };
    let told = signed(two, &guarded.key);
    assert_eq!(guarded.read(&[one, &told, three], &[]), strings(&[three, one]), "the latest first");
    guarded.shows(&[one, two, three, four]);
    assert!([one, two, three].iter().all(|pdu| guarded.is_signed(pdu)));
}

#[test]
fn what_is_refused_is_shown_to_nobody_and_history_goes_on_behind_it() {
    let guarded = Guarded::lacking(4);
    let [one, two, three, four, five] = &guarded.sent[..] else { panic!() };
    let ends = guarded.scene.ends();
    // It is the last of a page.
    assert_eq!(guarded.read(&[three, four], &[three]), strings(&[four, three]));
    assert_eq!(missing_before(&guarded.scene, five), strings(&[two]));
    guarded.scene.is_sound();
    assert_eq!(guarded.read(&[one, two], &[one]), strings(&[two, one]));
    guarded.shows(&[two, four, five]);
    for refused in [one, three] {
        assert_eq!(guarded.scene.status(&refused.event_id), Some(EventStatus::SoftFailed));
        let (room_id, event_id) = (ROOM.to_owned(), refused.event_id.to_string());
        let event = OneEvent { room_id, event_id, user: ALICE.into(), device: None };
        let context = EventContext { event, limit: Some(4), filter: RoomEventFilter::default() };
        assert!(guarded.scene.world.engine.read(&context).is_err());
    }
    let shown = told(&guarded.scene, &messages(None, false));
    let shown = ids(&shown["chunk"]);
    assert!(shown.contains(&&*two.event_id) && !shown.contains(&&*three.event_id), "{shown:?}");
    assert_eq!(missing_before(&guarded.scene, five), [""; 0]);
    assert_eq!(guarded.scene.ends(), ends);
    // It is known, and not asked about again.
    assert_eq!(guarded.read(&[one, two, three], &[]), [""; 0]);
    guarded.shows(&[two, four, five]);
}

#[test]
fn what_is_part_of_the_rooms_state_stays_that() {
    let renamed = |scene: &Scene, prev: &str| {
        let content = json!({"membership": "join", "displayname": "Robert"});
        scene.draft(BOB, "m.room.member", Some(BOB), content, &[prev], 21)
    };
    let guarded = Guarded::new(Scene::new(), |scene| {
        let one = scene.message(BOB, &strs(&scene.ends()), 20);
        let two = renamed(scene, &one.event_id);
        let three = scene.message(BOB, &[&two.event_id], 22);
        scene.receive_outliers(&[&two]);
        let former = scene.state("m.room.member", BOB).unwrap();
        let mut state = scene.state_ids();
        state.retain(|event_id| **event_id != *former);
        state.push(two.event_id.clone());
        let four = scene.message(BOB, &[&three.event_id], 23);
        let states = vec![GivenState { event_id: four.event_id.clone(), state }];
        let pdus = scene.check(&[&four]);
        assert!(accepted(&scene.write(ReceivePdus { pdus, states, ..ReceivePdus::default() })));
        vec![one, two, three, four]
    });
    let [one, two, three, four] = &guarded.sent[..] else { panic!() };
    let state = guarded.scene.state_ids();
    assert!(state.contains(&two.event_id));
    assert_eq!(guarded.read(&[one, two, three], &[two]), strings(&[three, two, one]));
    assert_eq!(guarded.scene.status(&two.event_id), Some(EventStatus::SoftFailed));
    assert_eq!(guarded.scene.state_ids(), state);
    assert!(guarded.scene.is_joined(BOB));
    guarded.shows(&[one, three, four]);
}

/// Messages of Bob's and, last of what is missing, his redaction of the first.
fn redacting() -> Guarded {
    Guarded::new(Scene::new(), |scene| {
        let one = scene.message(BOB, &strs(&scene.ends()), 20);
        let two = scene.message(BOB, &[&one.event_id], 21);
        let redaction = scene.redaction(&one, &strings(&[&two]), 22);
        let last = behind_gap(scene, &redaction);
        vec![one, two, redaction, last]
    })
}

/// It is gone elsewhere; who has not heard of that would give it whole.
#[test]
fn what_a_refused_redaction_took_before_is_not_brought_back() {
    let guarded = redacting();
    let [one, two, redaction, last] = &guarded.sent[..] else { panic!() };
    let scene = &guarded.scene;
    guarded.read(&[one, two, redaction], &[redaction]);
    assert!(scene.is_redacted(one));
    assert_eq!(scene.status(&redaction.event_id), Some(EventStatus::SoftFailed));
    guarded.shows(&[one, two, last]);
    let shown = told(scene, &messages(None, false));
    let shown = shown["chunk"].as_array().unwrap().iter().find(|event| event["event_id"] == *one.event_id);
    let shown = shown.unwrap();
    assert_eq!((&shown["content"], shown["unsigned"].get("redacted_because")), (&json!({}), None));
    // A purge takes it, and has the redaction wait for it.
    let purge =
        PurgeHistory { room_id: ROOM.to_owned(), before: PurgeBefore::Event(two.event_id.to_string()) };
    let mut progress = scene.world.engine.write(purge).wait().unwrap();
    while !progress.is_over() {
        progress = scene.world.engine.write(StepPurge::after(ROOM, Some(&progress))).wait().unwrap();
    }
    assert!(scene.status(&one.event_id).is_none() && !scene.is_wanted(one));
    scene.is_sound();
}

#[test]
fn a_refused_redaction_waits_for_what_it_takes() {
    let guarded = redacting();
    let [one, two, redaction, last] = &guarded.sent[..] else { panic!() };
    guarded.read(&[two, redaction], &[redaction]);
    guarded.shows(&[two, last]);
    assert!(!guarded.scene.is_wanted(one));
    guarded.read(&[one], &[]);
    assert!(guarded.scene.is_redacted(one));
    guarded.shows(&[one, two, last]);
}

/// Others may have refused it, too, and not have taken what it names.
#[test]
fn a_redaction_of_today_that_is_refused_takes_nothing() {
    let guarded = Guarded::lacking(1);
    let [one, _] = &guarded.sent[..] else { panic!() };
    guarded.read(&[one], &[]);
    let scene = &guarded.scene;
    let redaction = scene.redaction(one, &scene.ends(), 500);
    let pdus = scene.check(&[&redaction]);
    let not_recommended = [redaction.event_id.clone()].into();
    let received = scene.write(ReceivePdus { pdus, not_recommended, ..ReceivePdus::default() });
    assert_eq!(received.outcomes, [(redaction.event_id.clone(), Outcome::NotRecommended)]);
    assert!(!scene.is_redacted(one));
    scene.is_sound();
}

#[test]
fn what_a_silent_policy_server_was_not_asked_about_stays_missing_with_what_it_leads_to() {
    let guarded = Guarded::lacking(3);
    let [one, two, three, four] = &guarded.sent[..] else { panic!() };
    // The last one would stand above the second for good.
    let (first, last) = (signed(three, &guarded.key), signed(one, &guarded.key));
    let mut asked = 0;
    let intake = guarded.scene.drive(page(&[&last, two, &first]), |question| match question {
        Question::PolicySignature(_) => {
            asked += 1;
            Answer::Nothing
        }
        other => panic!("{other:?}"),
    });
    assert!(asked == 1 && intake.lacks_signatures() && intake.is_policy_server_silent());
    guarded.shows(&[three, four]);
    for pdu in [one, two] {
        assert_eq!(guarded.scene.status(&pdu.event_id), None, "nothing of it is kept");
    }
    assert_eq!(missing_before(&guarded.scene, four), strings(&[two]));
    assert_eq!(guarded.read(&[&last, two], &[]), strings(&[two]));
    guarded.shows(&[one, two, three, four]);
}

#[test]
fn a_policy_server_that_does_not_answer_is_asked_no_more_for_the_page() {
    let guarded = Guarded::lacking(AT_ONCE as u64 * 3);
    let pdus: Vec<&Pdu> = guarded.sent.iter().rev().skip(1).collect();
    let mut asked = 0;
    let intake = guarded.scene.drive(page(&pdus), |question| match question {
        Question::PolicySignature(_) => {
            asked += 1;
            Answer::Nothing
        }
        other => panic!("{other:?}"),
    });
    assert_eq!((asked, intake.left_behind().len()), (1, pdus.len()));
    guarded.shows(&[&guarded.sent[guarded.sent.len() - 1]]);
}

/// What follows the last that was signed would be told its state by what is not taken in.
#[test]
fn the_state_before_what_was_signed_until_then_is_asked_for_once() {
    let mut state = Vec::new();
    let guarded = Guarded::new(Scene::new(), |scene| {
        state = scene.state_ids();
        let mut sent = vec![scene.message(BOB, &strs(&scene.ends()), 20)];
        for depth in 21..25 {
            sent.push(scene.message(BOB, &[&sent[sent.len() - 1].event_id], depth));
        }
        let content = json!({"membership": "join", "displayname": "Robert"});
        sent.push(scene.draft(BOB, "m.room.member", Some(BOB), content, &[&sent[4].event_id], 25));
        sent.push(behind_gap(scene, &sent[5]));
        sent
    });
    let [one, two, three, four, five, renamed, last] = &guarded.sent[..] else { panic!() };
    let pdus = [one, two, three, four, five, renamed];
    let mut asked = Vec::new();
    let intake = guarded.scene.drive(page(&pdus), |question| match question {
        Question::PolicySignature(wanted) if wanted.event_id == two.event_id => Answer::Nothing,
        Question::PolicySignature(wanted) => {
            let pdu = pdus.iter().find(|pdu| pdu.event_id == wanted.event_id).unwrap();
            Answer::PolicySignature(Some(answer(&pdu.json, &guarded.key)))
        }
        Question::State { event_id } => {
            asked.push(event_id.to_string());
            Answer::State { state: state.clone(), auth_chain: Vec::new(), pdus: Vec::new() }
        }
        other => panic!("{other:?}"),
    });
    assert!(intake.is_policy_server_silent());
    assert_eq!(asked, strings(&[three]));
    guarded.shows(&[three, four, five, renamed, last]);
    assert_eq!(missing_before(&guarded.scene, last), strings(&[two]));
}

#[test]
fn what_is_signed_is_taken_in_before_more_is_asked_about() {
    let count = AT_ONCE + 4;
    let guarded = Guarded::lacking(count as u64);
    let all: Vec<&Pdu> = guarded.sent.iter().collect();
    let (missing, last) = all.split_at(count);
    let latest = &missing[count - 1].event_id;
    let mut intake = page(missing);
    let (mut asked, mut turns) = (0, Vec::new());
    loop {
        match intake.next_step() {
            Next::Check(pdus) => {
                let view = CheckPdus { version: version(), pdus: &pdus };
                intake.checked(guarded.scene.world.engine.read(&view).unwrap());
            }
            Next::Write(receive) => {
                intake.received(guarded.scene.world.engine.write(*receive).wait().unwrap());
            }
            Next::Ask(Question::PolicySignature(wanted)) => {
                assert_eq!(guarded.scene.status(latest).is_some(), asked > 0);
                // As who asks side by side does.
                let mut turn = vec![wanted];
                turn.extend(intake.other_signatures());
                asked += turn.len();
                turns.push(turn.len());
                for wanted in turn {
                    let event = intake.event(&wanted.event_id).unwrap().clone();
                    let answer = Answer::PolicySignature(Some(answer(&event, &guarded.key)));
                    intake.answered(Question::PolicySignature(wanted), answer);
                }
            }
            Next::Ask(other) => panic!("{other:?}"),
            Next::Done => break,
        }
    }
    assert_eq!(turns, [AT_ONCE, count - AT_ONCE]);
    guarded.shows(&[missing, last].concat());
}

#[test]
fn it_is_seen_by_what_is_at_hand_whether_it_signs() {
    let guarded = Guarded::lacking(AT_ONCE as u64 + 4);
    let all: Vec<&Pdu> = guarded.sent.iter().collect();
    let mut intake = page(&all[..AT_ONCE + 4]);
    let wanted = loop {
        match intake.next_step() {
            Next::Check(pdus) => {
                let view = CheckPdus { version: version(), pdus: &pdus };
                intake.checked(guarded.scene.world.engine.read(&view).unwrap());
            }
            Next::Write(receive) => {
                intake.received(guarded.scene.world.engine.write(*receive).wait().unwrap());
            }
            Next::Ask(Question::PolicySignature(wanted)) => break wanted,
            _ => panic!("it is to be signed"),
        }
    };
    assert_eq!(intake.other_signatures().len(), AT_ONCE - 1);
    let id = |event: &UnsignedEvent| Pdu::parse(version(), event.json()).unwrap().event_id.to_string();
    let later: Vec<String> = intake.to_be_signed_later().iter().map(id).collect();
    assert_eq!(later, strings(&[all[0], all[3]]), "the last, and the next");
    assert!(intake.signed_by(&wanted.policy).is_none());
    let event = intake.event(&wanted.event_id).unwrap().clone();
    let given = answer(&event, &guarded.key);
    let told = Answer::PolicySignature(Some(given.clone()));
    intake.answered(Question::PolicySignature(wanted.clone()), told);
    let probe = intake.signed_by(&wanted.policy).unwrap();
    assert!(probe.signed(&given).is_ok() && probe.signed(&answer(&event, &key(10))).is_err());
}

#[test]
fn the_key_that_the_room_names_now_counts() {
    let mut guarded = Guarded::lacking(2);
    let old = guarded.sent[..2].iter().map(|pdu| signed(pdu, &guarded.key)).collect::<Vec<_>>();
    guarded.key = key(11);
    let naming = use_policy_server(&guarded.scene, "there.example", &guarded.key);
    let [one, two] = &old[..] else { panic!() };
    assert_eq!(guarded.read(&[one, two], &[]), strings(&[two, one]));
    let former = std::mem::replace(&mut guarded.naming, naming);
    let timeline = guarded.scene.timeline();
    let expected = [strings(&[one, two, &guarded.sent[2]]), vec![former, guarded.naming.clone()]].concat();
    assert_eq!(timeline[guarded.before.len()..], expected);
    let kept = event_json(&guarded.scene, &one.event_id);
    let given = answer(&guarded.sent[0].json, &guarded.key);
    assert_eq!(kept["signatures"]["there.example"][POLICY_KEY_ID], given["there.example"][POLICY_KEY_ID]);
    guarded.scene.is_sound();
}

#[test]
fn what_named_a_policy_server_is_not_asked_about() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 100}}));
    let guarded = Guarded::new(scene, |scene| {
        let one = scene.draft(BOB, "m.room.policy", Some(""), json!({}), &strs(&scene.ends()), 20);
        let two = scene.message(BOB, &[&one.event_id], 21);
        let three = behind_gap(scene, &two);
        vec![one, two, three]
    });
    let [one, two, three] = &guarded.sent[..] else { panic!() };
    assert_eq!(guarded.read(&[one, two], &[]), strings(&[two]));
    guarded.shows(&[one, two, three]);
}

#[test]
fn a_room_without_a_policy_server_asks_nobody() {
    let guarded = Guarded::lacking(2);
    guarded.scene.world.state(ROOM, ALICE, "m.room.policy", "", json!({}));
    let [one, two, _] = &guarded.sent[..] else { panic!() };
    assert_eq!(guarded.read(&[one, two], &[]), [""; 0]);
    for pdu in [one, two] {
        assert_eq!(guarded.scene.status(&pdu.event_id), Some(EventStatus::Accepted));
    }
    guarded.scene.is_sound();
}

#[test]
fn what_is_somewhere_in_a_gap_is_asked_about_too() {
    let guarded = Guarded::lacking(3);
    let [one, two, three, four] = &guarded.sent[..] else { panic!() };
    let num = guarded.scene.world.ask(|reader| Ok(reader.event_num(&four.event_id)?.unwrap()));
    let gap = guarded.scene.world.ask(|reader| Ok(reader.event(num)?.pos()));
    for (pdu, signs, outcome) in [(one, false, Outcome::NotRecommended), (two, true, Outcome::Accepted)] {
        let within = Within { event_id: pdu.event_id.clone(), gap };
        let intake = Intake::within_gap(ROOM.into(), version(), pdu.json.clone(), within);
        let mut asked = 0;
        let intake = guarded.scene.drive(intake, |question| match question {
            Question::PolicySignature(wanted) => {
                assert_eq!(wanted.event_id, pdu.event_id);
                asked += 1;
                Answer::PolicySignature(signs.then(|| answer(&pdu.json, &guarded.key)))
            }
            other => panic!("{other:?}"),
        });
        assert_eq!((asked, intake.outcomes.get(&pdu.event_id)), (1, Some(&outcome)));
        guarded.scene.is_sound();
    }
    assert_eq!(guarded.read(&[three], &[]), strings(&[three]));
    guarded.shows(&[two, three, four]);
}

/// The join follows two events, and the first page tells what one of them follows.
#[test]
fn what_was_refused_before_the_entrance_is_not_asked_about_again() {
    const DORA: &str = "@dora:there.example";
    let resident = Scene::new();
    let one = resident.message(BOB, &strs(&resident.ends()), 20);
    let two = resident.message(BOB, &[&one.event_id], 21);
    let three = resident.message(BOB, &[&two.event_id], 22);
    assert!(accepted(&resident.receive(&[&one, &two, &three])));
    let side = resident.message(BOB, &[&two.event_id], 23);
    let state = resident.state_ids();
    let naming = use_policy_server(&resident, "there.example", &key(9));
    let naming = pdu_of(&resident, &naming);
    let join = resident.member(DORA, DORA, "join", &[&naming.event_id, &side.event_id], 40);
    let Entered { newcomer, .. } = Entered::by(resident, &join, World::new());
    let read = |pdus: &[&Pdu]| {
        let mut asked = Vec::new();
        newcomer.drive(page(pdus), |question| match question {
            Question::PolicySignature(wanted) => {
                asked.push(wanted.event_id.to_string());
                let pdu = pdus.iter().find(|pdu| pdu.event_id == wanted.event_id).unwrap();
                let is_refused = pdu.event_id == two.event_id;
                Answer::PolicySignature((!is_refused).then(|| answer(&pdu.json, &key(9))))
            }
            Question::State { .. } => {
                Answer::State { state: state.clone(), auth_chain: Vec::new(), pdus: Vec::new() }
            }
            _ => Answer::Nothing,
        });
        asked
    };
    assert_eq!(read(&[&one, &two, &three, &naming]), strings(&[&three, &two, &one]));
    assert_eq!(newcomer.status(&two.event_id), Some(EventStatus::SoftFailed));
    newcomer.is_sound();
    assert_eq!(read(&[&two, &side]), strings(&[&side]));
    assert_eq!(newcomer.status(&two.event_id), Some(EventStatus::SoftFailed));
    let mut shown = newcomer.timeline();
    shown.sort_unstable();
    let mut expected = strings(&[&one, &three, &naming, &side, &join]);
    expected.sort_unstable();
    assert_eq!(shown, expected);
    newcomer.is_sound();
}

/// Nothing is before it, so that a client which reads on comes to the end.
#[test]
fn history_ends_at_a_create_event_that_is_refused() {
    const DORA: &str = "@dora:there.example";
    let resident = Scene::new();
    use_policy_server(&resident, "there.example", &key(9));
    let all: Vec<Pdu> = resident.timeline().iter().map(|event_id| pdu_of(&resident, event_id)).collect();
    let join = resident.member(DORA, DORA, "join", &strs(&resident.ends()), 40);
    let Entered { newcomer, .. } = Entered::by(resident, &join, World::new());
    let [create, rest @ ..] = &all[..] else { panic!() };
    assert_eq!(&*create.kind, "m.room.create");
    let pdus: Vec<&Pdu> = all.iter().collect();
    let intake = newcomer.drive(page(&pdus), |question| match question {
        Question::PolicySignature(wanted) if wanted.event_id == create.event_id => {
            Answer::PolicySignature(None)
        }
        Question::PolicySignature(wanted) => {
            let pdu = pdus.iter().find(|pdu| pdu.event_id == wanted.event_id).unwrap();
            Answer::PolicySignature(Some(answer(&pdu.json, &key(9))))
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(intake.outcomes.get(&create.event_id), Some(&Outcome::NotRecommended));
    assert_eq!(newcomer.status(&create.event_id), Some(EventStatus::SoftFailed));
    let shown = [strings(&rest.iter().collect::<Vec<_>>()), strings(&[&join])].concat();
    assert_eq!(newcomer.timeline(), shown);
    assert_eq!(missing_before(&newcomer, &join), [""; 0]);
    let last = told(&newcomer, &messages(None, false));
    let mut read = ids(&last["chunk"]);
    read.reverse();
    assert_eq!((read, end(&last)), (strs(&shown), None));
    newcomer.is_sound();
}
