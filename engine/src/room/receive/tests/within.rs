//! Events somewhere in a gap, which another server told of: nothing here leads to them.

use super::{left_behind::missing_before, *};
use crate::{
    command::{PurgeBefore, PurgeHistory, StepPurge},
    room::receive::Within,
    view::{ClosestEvent, EventByTimestamp},
};

/// A room in whose timeline messages are missing before the last one, as many as are asked for.
struct Gapped {
    scene: Scene,
    before: Vec<String>,
    /// The messages that are missing and the last one, by their order.
    sent: Vec<Pdu>,
    state: Vec<Arc<str>>,
}

impl Gapped {
    fn new(missing: u64) -> Self {
        Self::of(|scene| {
            let mut sent: Vec<Pdu> = Vec::new();
            for depth in 20..=20 + missing {
                let prev = sent.last().map_or_else(|| scene.ends(), |last| vec![last.event_id.to_string()]);
                sent.push(scene.message(BOB, &strs(&prev), depth));
            }
            sent
        })
    }

    fn of(sent: impl FnOnce(&Scene) -> Vec<Pdu>) -> Self {
        let scene = Scene::new();
        let before = scene.timeline();
        let sent = sent(&scene);
        let state = scene.world.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            let entries = reader.state_entries(room.num, room.head.state)?.into_iter();
            entries.map(|(_, num)| Ok(reader.event(num)?.event_id.clone())).collect::<crate::Result<Vec<_>>>()
        });
        let gapped = Self { scene, before, sent, state };
        let last = gapped.sent.last().unwrap();
        let received = gapped.scene.write(ReceivePdus {
            pdus: gapped.scene.check(&[last]),
            states: vec![gapped.given(last)],
            ..ReceivePdus::default()
        });
        assert!(accepted(&received), "{received:?}");
        gapped
    }

    fn given(&self, pdu: &Pdu) -> GivenState {
        GivenState { event_id: pdu.event_id.clone(), state: self.state.clone() }
    }

    fn closest(&self, depth: u64, forwards: bool) -> ClosestEvent {
        let ts = START_MS + depth;
        let view = EventByTimestamp { room_id: ROOM.into(), user: ALICE.into(), ts, forwards };
        self.scene.world.engine.read(&view).unwrap()
    }

    /// Takes in an event that is to stand in the gap at a depth's time.
    fn take_in(&self, pdu: &Pdu, depth: u64) -> Outcome {
        let gap = self.closest(depth, false).gap.unwrap();
        let mut received = self.scene.write(ReceivePdus {
            pdus: self.scene.check(&[pdu]),
            states: vec![self.given(pdu)],
            backfill: true,
            within: Some(Within { event_id: pdu.event_id.clone(), gap }),
            ..ReceivePdus::default()
        });
        received.outcomes.remove(0).1
    }

    fn backfill(&self, pdus: &[&Pdu]) {
        let received = self.scene.write(ReceivePdus {
            pdus: self.scene.check(pdus),
            backfill: true,
            ..ReceivePdus::default()
        });
        assert!(accepted(&received), "{received:?}");
    }

    fn timeline(&self) -> Vec<String> {
        self.scene.timeline().split_off(self.before.len())
    }
}

fn ids(pdus: &[&Pdu]) -> Vec<String> {
    pdus.iter().map(|pdu| pdu.event_id.to_string()).collect()
}

#[test]
fn an_event_within_a_gap_parts_it_in_two_that_are_filled_in_order() {
    let gapped = Gapped::new(9);
    let sent: Vec<&Pdu> = gapped.sent.iter().collect();
    let id = |index: usize| Some(sent[index].event_id.to_string());
    let found = |depth, forwards| gapped.closest(depth, forwards).event.map(|(event_id, _)| event_id);
    assert!(gapped.closest(24, true).gap.is_some() && gapped.closest(24, false).gap.is_some());
    assert_eq!(found(24, true), id(9));
    // Nothing is missing before what is known, nor behind it.
    assert_eq!((gapped.closest(0, true).gap, gapped.closest(29, true).gap.is_some()), (None, true));
    assert_eq!(gapped.closest(30, true), ClosestEvent { event: None, gap: None });

    let ends = gapped.scene.ends();
    assert_eq!(gapped.take_in(sent[5], 24), Outcome::Accepted);
    gapped.scene.is_sound();
    assert_eq!(gapped.timeline(), ids(&[sent[5], sent[9]]));
    assert_eq!((found(24, true), found(26, false)), (id(5), id(5)));
    // A second and a third, on either side.
    assert_eq!(gapped.take_in(sent[7], 27), Outcome::Accepted);
    assert_eq!(gapped.take_in(sent[2], 22), Outcome::Accepted);
    gapped.scene.is_sound();
    assert_eq!(gapped.timeline(), ids(&[sent[2], sent[5], sent[7], sent[9]]));
    assert_eq!(gapped.scene.ends(), ends, "the room ends where it did");

    gapped.backfill(&[sent[8]]);
    gapped.scene.is_sound();
    assert_eq!(gapped.closest(28, true).gap, None, "it is filled up to the event within");
    gapped.backfill(&[sent[6]]);
    gapped.backfill(&[sent[3], sent[4]]);
    gapped.scene.is_sound();
    gapped.backfill(&[sent[0], sent[1]]);
    assert_eq!(gapped.timeline(), ids(&sent));
    assert_eq!(gapped.scene.ends(), ids(&[sent[9]]));
    assert_eq!(gapped.closest(24, true).gap, None);
    gapped.scene.is_sound();
}

#[test]
fn an_event_that_follows_later_ones_is_not_put_before_them() {
    let gapped = Gapped::new(3);
    let last = gapped.sent.last().unwrap();
    let later = gapped.scene.message(BOB, &[&last.event_id], 22);
    assert_eq!(gapped.take_in(&later, 22), Outcome::Refused(Refused::Unrelated));
    assert_eq!(gapped.timeline(), ids(&[last]));
}

#[test]
fn a_gap_is_parted_only_as_long_as_there_is_room_to_fill_it() {
    let gapped = Gapped::new(40);
    let mut outcomes = Vec::new();
    for pdu in gapped.sent.iter().take(39) {
        // Each goes into what is left above the one before.
        outcomes.push(gapped.take_in(pdu, pdu.depth));
    }
    let taken_in = outcomes.iter().filter(|outcome| **outcome == Outcome::Accepted).count();
    assert!((4..30).contains(&taken_in), "{outcomes:?}");
    assert!(
        outcomes[taken_in..].iter().all(|outcome| *outcome == Outcome::Refused(Refused::Unrelated)),
        "{outcomes:?}"
    );
    gapped.scene.is_sound();
    let rest: Vec<&Pdu> = gapped.sent[taken_in..40].iter().collect();
    gapped.backfill(&rest);
    assert_eq!(gapped.timeline(), ids(&gapped.sent.iter().collect::<Vec<_>>()));
    gapped.scene.is_sound();
}

#[test]
fn an_event_that_is_not_allowed_leaves_the_gap_as_it_is() {
    let gapped = Gapped::new(3);
    let prev = gapped.sent[0].event_id.clone();
    let topic = json!({"topic": "mine"});
    let denied = gapped.scene.draft(BOB, "m.room.topic", Some(""), topic, &[&prev], 21);
    assert!(matches!(gapped.take_in(&denied, 21), Outcome::Rejected(_)));
    assert_eq!(gapped.timeline(), ids(&[&gapped.sent[3]]));
    gapped.scene.is_sound();
    gapped.backfill(&[&gapped.sent[0], &gapped.sent[1], &gapped.sent[2]]);
    assert_eq!(gapped.timeline(), ids(&gapped.sent.iter().collect::<Vec<_>>()));
    gapped.scene.is_sound();
}

/// What is before such an event is noted once something that follows it comes: a purge of what was before the gap has not removed that.
#[test]
fn what_is_before_an_event_that_is_not_allowed_is_missing_behind_a_purge_as_well() {
    let gapped = Gapped::of(|scene| {
        let one = scene.message(BOB, &strs(&scene.ends()), 20);
        let topic = json!({"topic": "mine"});
        let denied = scene.draft(BOB, "m.room.topic", Some(""), topic, &[&one.event_id], 21);
        let three = scene.message(BOB, &[&denied.event_id], 22);
        let last = scene.message(BOB, &[&three.event_id], 23);
        vec![one, denied, three, last]
    });
    let scene = &gapped.scene;
    let [one, denied, three, last] = &gapped.sent[..] else { panic!() };
    let before = PurgeBefore::Event(gapped.before.last().unwrap().clone());
    let purge = PurgeHistory { room_id: ROOM.to_owned(), before };
    let mut progress = scene.world.engine.write(purge).wait().unwrap();
    while !progress.is_over() {
        progress = scene.world.engine.write(StepPurge::after(ROOM, Some(&progress))).wait().unwrap();
    }
    assert!(matches!(gapped.take_in(denied, 21), Outcome::Rejected(_)));
    gapped.backfill(&[three]);
    assert_eq!(missing_before(scene, last), [one.event_id.to_string()]);
    scene.is_sound();
    gapped.backfill(&[one]);
    assert_eq!(missing_before(scene, last), [""; 0]);
    assert!(scene.timeline().ends_with(&ids(&[one, three, last])));
    scene.is_sound();
}
