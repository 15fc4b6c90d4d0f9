//! What is missing before events that clients are not shown is missing before what follows these.

use super::{
    left_behind::{fill, missing_before},
    *,
};

/// Events of which none is here: two of Carl's between others of Bob's, the first two of which follow the room's end.
struct Between {
    scene: Scene,
    /// The state before all of them.
    state: Vec<Arc<str>>,
    innocent: Pdu,
    bad: [Pdu; 2],
    after: Pdu,
}

impl Between {
    /// Carl's are messages, and he is banned here meanwhile; or they are names of the room, which he may not give.
    fn new(status: EventStatus) -> Self {
        Self::of(status, |scene| scene.message(BOB, &strs(&scene.ends()), 21))
    }

    fn of(status: EventStatus, innocent: impl Fn(&Scene) -> Pdu) -> Self {
        let scene = Scene::new();
        assert!(accepted(&scene.receive(&[&scene.member(CARL, CARL, "join", &strs(&scene.ends()), 20)])));
        let state = scene.state_ids();
        let innocent = innocent(&scene);
        let by_carl = |prev: &Pdu, depth: u64| match status {
            EventStatus::SoftFailed => scene.message(CARL, &[&prev.event_id], depth),
            _ => {
                let content = json!({"name": format!("at depth {depth}")});
                scene.draft(CARL, "m.room.name", Some(""), content, &[&prev.event_id], depth)
            }
        };
        let first = by_carl(&innocent, 22);
        let second = by_carl(&first, 23);
        let after = scene.message(BOB, &[&second.event_id], 24);
        if status == EventStatus::SoftFailed {
            scene.world.member(ROOM, ALICE, CARL, "ban").unwrap();
        }
        Self { scene, state, innocent, bad: [first, second], after }
    }

    /// Takes an event in that comes live, with the state before it.
    fn take(&self, pdu: &Pdu) {
        let states = vec![GivenState { event_id: pdu.event_id.clone(), state: self.state.clone() }];
        let pdus = self.scene.check(&[pdu]);
        self.scene.write(ReceivePdus { pdus, states, ..ReceivePdus::default() });
    }

    fn take_bad(&self, status: EventStatus) {
        for bad in &self.bad {
            self.take(bad);
            assert_eq!(self.scene.status(&bad.event_id), Some(status));
        }
    }

    /// What is shown of these is in its order, and nothing is missing any more.
    fn is_whole(&self, shown: &[&Pdu]) {
        let timeline = self.scene.timeline();
        let expected: Vec<String> = shown.iter().map(|pdu| pdu.event_id.to_string()).collect();
        assert!(timeline.ends_with(&expected), "{timeline:?}");
        assert_eq!(missing_before(&self.scene, shown[shown.len() - 1]), [""; 0]);
        self.scene.is_sound();
    }
}

const STATUSES: [EventStatus; 2] = [EventStatus::SoftFailed, EventStatus::Rejected];

#[test]
fn what_is_missing_before_them_is_missing_before_what_follows_later() {
    for status in STATUSES {
        let between = Between::new(status);
        between.take_bad(status);
        assert!(accepted(&between.scene.receive(&[&between.after])));
        assert_eq!(missing_before(&between.scene, &between.after), [&*between.innocent.event_id]);
        between.scene.is_sound();
        fill(&between.scene, vec![between.innocent.json.clone()]);
        between.is_whole(&[&between.innocent, &between.after]);
    }
}

#[test]
fn what_is_missing_before_them_is_missing_before_what_came_earlier() {
    for status in STATUSES {
        let between = Between::new(status);
        let [first, second] = &between.bad;
        between.take(&between.after);
        assert_eq!(missing_before(&between.scene, &between.after), [&*second.event_id]);
        between.take(second);
        assert_eq!(missing_before(&between.scene, &between.after), [&*first.event_id]);
        between.take(first);
        assert_eq!(missing_before(&between.scene, &between.after), [&*between.innocent.event_id]);
        between.scene.is_sound();
        fill(&between.scene, vec![between.innocent.json.clone()]);
        between.is_whole(&[&between.innocent, &between.after]);
    }
}

#[test]
fn a_page_of_history_goes_on_behind_them() {
    for status in STATUSES {
        let between = Between::new(status);
        between.take_bad(status);
        let last = between.scene.message(BOB, &[&between.after.event_id], 25);
        between.take(&last);
        let page = [&between.after, &between.bad[1], &between.bad[0], &between.innocent];
        fill(&between.scene, page.map(|pdu| pdu.json.clone()).to_vec());
        between.is_whole(&[&between.innocent, &between.after, &last]);
    }
}

/// The state that was told with one of them lacks it, and what follows stands on that.
#[test]
fn what_they_alone_follow_counts_when_it_comes() {
    for status in STATUSES {
        let between = Between::of(status, |scene| {
            let content = json!({"membership": "join", "displayname": "Bob"});
            scene.draft(BOB, "m.room.member", Some(BOB), content, &strs(&scene.ends()), 21)
        });
        between.take_bad(status);
        assert!(accepted(&between.scene.receive(&[&between.after])));
        assert!(accepted(&between.scene.receive(&[&between.innocent])));
        let standing = between.scene.state("m.room.member", BOB);
        assert_eq!(standing.as_deref(), Some(&*between.innocent.event_id));
        assert_eq!(missing_before(&between.scene, &between.after), [""; 0]);
        between.scene.is_sound();
    }
}

/// Its server makes up what it follows, in a diamond of any height.
#[test]
fn what_somebody_makes_up_is_missing_so_far_and_no_further() {
    let between = Between::new(EventStatus::SoftFailed);
    let mut tops = vec![between.innocent.event_id.clone()];
    for depth in 30..40 {
        let mut next = Vec::new();
        for side in 0..2 {
            let made_up: Vec<String> =
                (0..18).map(|number| format!("$made-up-{depth}-{side}-{number}")).collect();
            let prev: Vec<&str> =
                tops.iter().map(|id| &**id).chain(made_up.iter().map(String::as_str)).collect();
            // As one that was made before he was banned.
            let auth = between.bad[0].auth_events.iter().map(|id| &**id).collect();
            let content = json!({"msgtype": "m.text", "body": format!("{depth} {side}")});
            let (sender, kind, state_key) = (CARL, "m.room.message", None);
            let bad = between.scene.peer.make(Draft { sender, kind, state_key, content, prev, auth, depth });
            between.take(&bad);
            assert_eq!(between.scene.status(&bad.event_id), Some(EventStatus::SoftFailed));
            next.push(bad.event_id);
        }
        tops = next;
    }
    let prev: Vec<&str> = tops.iter().map(|id| &**id).collect();
    let last = between.scene.message(BOB, &prev, 40);
    assert!(accepted(&between.scene.receive(&[&last])));
    let missing = missing_before(&between.scene, &last).len();
    assert!((100..120).contains(&missing), "{missing}");
    between.scene.is_sound();
}
