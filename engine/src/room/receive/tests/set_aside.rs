//! What is missing before events that clients are not shown is missing before what follows these.

use super::{
    left_behind::{fill, missing_before},
    *,
};
use crate::{
    check,
    error::Result,
    store::{Memory, Positioned, Tx, schema::BackwardExtremity},
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
        Self::of(Scene::new(), status, |scene| scene.message(BOB, &strs(&scene.ends()), 21))
    }

    fn of(scene: Scene, status: EventStatus, innocent: impl Fn(&Scene) -> Pdu) -> Self {
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

/// They come with what they follow, and what follows them was there before: nothing that is shown follows that.
#[test]
fn what_they_alone_follow_is_at_no_end_of_the_room() {
    let between = Between::new(EventStatus::Rejected);
    between.take(&between.after);
    let page = [&between.bad[1], &between.bad[0], &between.innocent];
    fill(&between.scene, page.map(|pdu| pdu.json.clone()).to_vec());
    assert!(between.bad.iter().all(|bad| between.scene.status(&bad.event_id) == Some(EventStatus::Rejected)));
    assert_eq!(between.scene.ends(), [between.after.event_id.to_string()]);
    between.is_whole(&[&between.innocent, &between.after]);
}

/// The state that was told with one of them lacks it, and what follows stands on that.
#[test]
fn what_they_alone_follow_counts_when_it_comes() {
    for status in STATUSES {
        let between = Between::of(Scene::new(), status, |scene| {
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

/// Lets a world of before what is missing behind such events was noted be in the store: the last of these is accepted, and nothing leads to the
/// first. If `is_apart`, many positions before the last one are taken elsewhere.
fn unnoted(store: &Arc<Memory>, status: EventStatus, is_apart: bool) -> Between {
    let scene = Scene::on(World::on(store.clone()));
    let between = Between::of(scene, status, |scene| scene.message(BOB, &strs(&scene.ends()), 21));
    between.take_bad(status);
    // What is noted elsewhere is not noted again.
    let note = |tx: &mut Tx, is_noted: bool| -> Result<()> {
        let key = (tx.room_num(ROOM)?.unwrap(), between.innocent.event_id.to_string());
        let follower = tx.event_num(&between.bad[0].event_id)?.unwrap();
        let value = BackwardExtremity { follower, depth: between.bad[0].depth };
        match is_noted {
            true => tx.put(&schema::BACKWARD_EXTREMITIES, &key, &Positioned { pos: StreamPos(1), value }),
            false => tx.delete(&schema::BACKWARD_EXTREMITIES, &key),
        }
        if is_noted && is_apart {
            tx.keep_positions_free(1 << 17);
        }
        Ok(())
    };
    between.scene.world.act(|tx| note(tx, true)).unwrap();
    assert!(accepted(&between.scene.receive(&[&between.after])));
    between.scene.world.act(|tx| note(tx, false)).unwrap();
    between
}

/// What is missing where a page of the room's history runs into a gap.
fn missing_in_history(scene: &Scene) -> Option<Vec<String>> {
    let view = HistoryGap { room_id: ROOM, from: None, to: None, forwards: false, limit: 100 };
    scene.world.engine.read(&view).unwrap().map(|gap| gap.missing)
}

#[test]
fn what_was_not_noted_in_earlier_times_is_found_by_a_check_and_asked_for_once_repaired() {
    for (status, is_apart) in STATUSES.into_iter().flat_map(|status| [(status, false), (status, true)]) {
        let store = Arc::new(Memory::default());
        let Between { scene, state, innocent, bad, after } = unnoted(&store, status, is_apart);
        assert_eq!(missing_in_history(&scene), None);
        drop(scene);
        let repaired = check::repair(&|| Ok(World::on(store.clone()).engine), &|_, _| ()).unwrap();
        let problem = format!("{} is missing before the event, and not noted", innocent.event_id);
        let found: Vec<&String> = repaired.before.findings.iter().map(|found| &found.problem).collect();
        assert_eq!(found, [&problem]);
        assert_eq!(repaired.after.findings, []);
        let scene = Scene { world: World::on(store), peer: Peer::new() };
        assert_eq!(missing_in_history(&scene), Some(vec![innocent.event_id.to_string()]));
        fill(&scene, vec![innocent.json.clone()]);
        assert_eq!(missing_in_history(&scene), None);
        let timeline = scene.timeline();
        match is_apart {
            true => {
                let between = Between { scene, state, innocent, bad, after };
                between.is_whole(&[&between.innocent, &between.after]);
            }
            // There is no place between; below all is one.
            false => {
                assert_eq!(timeline.first().map(String::as_str), Some(&*innocent.event_id));
                assert_eq!(timeline.last().map(String::as_str), Some(&*after.event_id));
                scene.is_sound();
            }
        }
    }
}
