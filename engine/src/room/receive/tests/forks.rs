//! History in which the room's graph forks: each event stands behind those that it follows, whichever can be judged first.

use super::*;

fn text(scene: &Scene, body: &str, prev: &[&Pdu], depth: u64) -> Pdu {
    let prev: Vec<String> = prev.iter().map(|pdu| pdu.event_id.to_string()).collect();
    scene.draft(BOB, "m.room.message", None, json!({"body": body}), &strs(&prev), depth)
}

/// Takes in a page of history. The state is told before any event but `untold`.
fn fill(scene: &Scene, page: &[&Pdu], untold: Option<&Pdu>) -> Intake {
    let page = page.iter().map(|pdu| pdu.json.clone()).collect();
    scene.drive(Intake::of_history(ROOM.to_owned(), version(), page), |question| match question {
        Question::State { event_id } if untold.is_none_or(|untold| untold.event_id != *event_id) => {
            Answer::State { state: scene.state_ids(), auth_chain: Vec::new(), pdus: Vec::new() }
        }
        _ => Answer::Nothing,
    })
}

/// Each of the events that are here stands behind those that it follows.
fn is_in_order(scene: &Scene, pdus: &[&Pdu]) {
    let timeline = scene.timeline();
    let place = |event_id: &str| timeline.iter().position(|id| **id == *event_id);
    for pdu in pdus {
        if let Some(at) = place(&pdu.event_id) {
            let last = pdu.prev_events.iter().filter_map(|prev| place(prev)).max();
            assert!(last < Some(at), "{} is before what it follows: {timeline:?}", pdu.event_id);
        }
    }
    scene.is_sound();
}

/// Three branches, two of which end in one event and the third in a later one. The first page ends with one of the first two.
struct Branches {
    scene: Scene,
    before: Vec<String>,
    base: Pdu,
    branches: [Pdu; 3],
    /// What follows the first two, one that follows that, and what follows this and the third; the last one is here.
    after: [Pdu; 4],
}

impl Branches {
    fn new() -> Self {
        let scene = Scene::new();
        let before = scene.timeline();
        let base = scene.message(BOB, &strs(&scene.ends()), 20);
        let branches = ["p", "q", "r"].map(|body| text(&scene, body, &[&base], 21));
        let [p, q, r] = &branches;
        let merge = text(&scene, "merge", &[p, q], 22);
        let between = text(&scene, "between", &[&merge], 23);
        let second = text(&scene, "second merge", &[&between, r], 24);
        let last = behind_gap(&scene, &second);
        let after = [merge, between, second, last];
        Self { scene, before, base, branches, after }
    }

    fn all(&self) -> Vec<&Pdu> {
        [&self.base].into_iter().chain(&self.branches).chain(&self.after).collect()
    }

    /// All of it is here, each event behind those that it follows.
    fn is_whole(&self) {
        let mut whole = self.before.clone();
        whole.extend(self.all().iter().map(|pdu| pdu.event_id.to_string()));
        whole.sort_unstable();
        let mut timeline = self.scene.timeline();
        timeline.sort_unstable();
        assert_eq!(timeline, whole);
        is_in_order(&self.scene, &self.all());
    }
}

/// Each of those that wait for a state is written apart, what they follow first.
#[test]
fn what_follows_one_that_waited_stands_behind_it() {
    let room = Branches::new();
    let ([p, q, r], [merge, between, second, _]) = (&room.branches, &room.after);
    let intake = fill(&room.scene, &[second, between, merge, p], None);
    for pdu in [p, merge, between, second] {
        assert_eq!(intake.outcomes.get(&pdu.event_id), Some(&Outcome::Accepted));
    }
    is_in_order(&room.scene, &room.all());
    fill(&room.scene, &[r, q, &room.base], None);
    room.is_whole();
}

#[test]
fn what_follows_one_that_waits_in_vain_stands_behind_it_when_it_comes() {
    let room = Branches::new();
    let ([p, q, r], [merge, between, second, _]) = (&room.branches, &room.after);
    let intake = fill(&room.scene, &[second, between, merge, p], Some(p));
    assert_eq!(intake.outcomes.get(&p.event_id), None);
    for pdu in [merge, between, second] {
        assert_eq!(intake.outcomes.get(&pdu.event_id), Some(&Outcome::Accepted));
    }
    is_in_order(&room.scene, &room.all());
    fill(&room.scene, &[p, r, q, &room.base], None);
    room.is_whole();
}
