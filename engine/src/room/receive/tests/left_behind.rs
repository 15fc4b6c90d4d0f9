//! Events of servers that are gone, whose keys nobody has, and such as are wrongly signed: they are missing, and nothing else is.

use super::*;
use crate::{
    command::ParkPdus,
    fetching::{Begun, Round},
};

const GONE: &str = "@zoe:gone.example";
const THERE: &str = "there.example";

/// The event as it is told, with a signature of this server that is none. Its id is the same.
fn signed_by(server: &str, pdu: &Pdu) -> Bytes {
    let mut json: Value = serde_json::from_slice(&pdu.json).unwrap();
    json["signatures"] = json!({server: {KEY_ID: "A".repeat(86)}});
    Bytes::from(json.to_string())
}

/// Plays an intake to its end. Of all that it asks, a server tells the state before events, with `told` of it.
fn play(scene: &Scene, intake: &mut Intake, state: &[Arc<str>], told: &[Bytes]) {
    loop {
        match intake.next_step() {
            Next::Check(pdus) => {
                let view = CheckHistory(CheckPdus { version: version(), pdus: &pdus });
                intake.checked(scene.world.engine.read(&view).unwrap());
            }
            Next::Write(receive) => intake.received(scene.world.engine.write(*receive).wait().unwrap()),
            Next::Ask(question) => {
                let answer = match &question {
                    Question::Keys { .. } => Answer::Keys,
                    Question::State { .. } => {
                        Answer::State { state: state.to_vec(), auth_chain: Vec::new(), pdus: told.to_vec() }
                    }
                    _ => Answer::Nothing,
                };
                intake.answered(question, answer);
            }
            Next::Done => return,
        }
    }
}

/// Takes in a page of history.
pub(super) fn fill(scene: &Scene, page: Vec<Bytes>) -> Intake {
    let mut intake = Intake::of_history(ROOM.to_owned(), version(), page);
    play(scene, &mut intake, &scene.state_ids(), &[]);
    intake
}

/// What is missing before the event.
pub(super) fn missing_before(scene: &Scene, event: &Pdu) -> Vec<String> {
    scene.world.ask(|reader| {
        let num = reader.event_num(&event.event_id)?.unwrap();
        let pos = reader.event(num)?.pos();
        Ok(gap::missing_before(reader, reader.room_num(ROOM)?.unwrap(), pos)?)
    })
}

#[test]
fn of_a_page_of_history_only_what_cannot_be_checked_is_missing() {
    for (sender, server) in [(GONE, "gone.example"), (BOB, THERE)] {
        let scene = Scene::new();
        let mut whole = scene.timeline();
        let one = scene.message(BOB, &strs(&scene.ends()), 20);
        let two = scene.message(BOB, &[&one.event_id], 21);
        let bad = scene.message(sender, &[&two.event_id], 22);
        let four = scene.message(BOB, &[&bad.event_id], 23);
        let last = behind_gap(&scene, &four);
        let page = [four.json.clone(), signed_by(server, &bad), two.json.clone(), one.json.clone()];
        let intake = fill(&scene, page.to_vec());
        whole.extend([&one, &two, &four, &last].map(|pdu| pdu.event_id.to_string()));
        assert_eq!(scene.timeline(), whole, "{sender}");
        assert_eq!(scene.ends(), [last.event_id.to_string()]);
        assert_eq!(scene.status(&bad.event_id), None, "nothing of it is kept");
        assert_eq!(missing_before(&scene, &last), [bad.event_id.to_string()]);
        let left: Vec<Arc<str>> = intake.left_behind().into_keys().collect();
        assert_eq!(left, std::slice::from_ref(&bad.event_id));
        scene.is_sound();
    }
}

/// What a page is full of that cannot be checked leads on to the next.
#[test]
fn pages_of_nothing_but_such_events_are_passed_together() {
    let scene = Scene::new();
    let mut whole = scene.timeline();
    let one = scene.message(BOB, &strs(&scene.ends()), 20);
    let two = scene.message(GONE, &[&one.event_id], 21);
    let three = scene.message(GONE, &[&two.event_id], 22);
    let last = behind_gap(&scene, &three);
    let first_page = [&three, &two].map(|pdu| signed_by("gone.example", pdu)).to_vec();
    let left = fill(&scene, first_page.clone()).left_behind();
    assert_eq!(left.get(&two.event_id), Some(&vec![one.event_id.clone()]));
    assert_eq!(left.get(&three.event_id), Some(&vec![two.event_id.clone()]));
    assert_eq!(scene.status(&one.event_id), None);
    fill(&scene, [first_page, vec![one.json.clone()]].concat());
    whole.extend([&one, &last].map(|pdu| pdu.event_id.to_string()));
    assert_eq!(scene.timeline(), whole);
    scene.is_sound();
}

/// An event that nothing leads to is none of the past, whoever claims to follow it.
#[test]
fn a_bad_event_that_nothing_leads_to_leads_nowhere() {
    let scene = Scene::new();
    let before = scene.timeline();
    let [_, _, _, four] = with_gap(&scene);
    let stray = scene.message(BOB, &strs(&scene.ends()), 18);
    let bad = scene.message(GONE, &[&stray.event_id], 19);
    let intake = fill(&scene, vec![signed_by("gone.example", &bad), stray.json.clone()]);
    assert_eq!(intake.outcomes.get(&stray.event_id), Some(&Outcome::Refused(Refused::Unrelated)));
    let whole: Vec<String> = before.into_iter().chain([four.event_id.to_string()]).collect();
    assert_eq!(scene.timeline(), whole);
}

/// As when a server comes back after an outage, and what happened meanwhile is not told.
#[test]
fn a_room_does_not_wait_for_long_for_the_keys_of_a_server_that_is_gone() {
    let scene = Scene::new();
    let join = scene.member(GONE, GONE, "join", &["$unknown"], 30);
    let last = scene.message(BOB, &["$unknown"], 31);
    let park = ParkPdus { room_id: ROOM.into(), origin: THERE.into(), pdus: vec![last.json.clone()] };
    assert_eq!(scene.world.engine.write(park).wait().unwrap().kept, std::slice::from_ref(&last.event_id));
    let mut state = scene.state_ids();
    state.push(join.event_id.clone());
    let told = [signed_by("gone.example", &join)];
    for (passed_ms, status) in [(0, None), (2 * 60 * 1000, Some(EventStatus::Accepted))] {
        scene.world.pass_ms(passed_ms);
        let begun = Round::begin(&scene.world.engine, ROOM, THERE).unwrap();
        let Begun::Round(mut round) = begun else { panic!("it waits") };
        play(&scene, &mut round.intake, &state, &told);
        assert_eq!(scene.status(&last.event_id), status);
        assert_eq!(round.end(scene.world.engine.now_ms()).is_done, status.is_some());
    }
    assert!(!scene.is_joined(GONE) && scene.is_joined(BOB));
    scene.is_sound();
}
