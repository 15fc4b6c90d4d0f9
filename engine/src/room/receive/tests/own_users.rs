//! Events of this server's own users that come from others: of who was let in elsewhere, and of what was said before this server came.

use super::{
    overtaken::{FRED, enter, pdu_of},
    *,
};

const GINA: &str = "@gina:here.example";

/// A room on one engine, and another that has come into it by a join of Fred's. Both engines sign as the same server, so that its key
/// is known on either side.
struct Entered {
    resident: Scene,
    newcomer: Scene,
    join: Pdu,
}

impl Entered {
    fn new() -> Self {
        let resident = Scene::new();
        let levels = json!({"users": {ALICE: 100, BOB: 100}});
        resident.world.state(ROOM, ALICE, "m.room.power_levels", "", levels);
        let newcomer = Scene { world: World::new(), peer: Peer::new() };
        newcomer.world.engine.write(newcomer.peer.keys()).wait().unwrap();
        let join = enter(&resident, &newcomer);
        Self { resident, newcomer, join }
    }

    /// The newcomer takes an event in, and is told the state before it.
    fn take(&self, pdu: &Pdu, state: &[Arc<str>], backfill: bool) {
        let states = vec![GivenState { event_id: pdu.event_id.clone(), state: state.to_vec() }];
        let pdus = self.resident.check(&[pdu]);
        let received = self.newcomer.write(ReceivePdus { pdus, states, backfill, ..ReceivePdus::default() });
        assert!(accepted(&received), "{received:?}");
    }
}

/// Carl comes in. The newcomer hears of him by what somebody says behind that, and by the join of Gina, who is let in elsewhere.
#[test]
fn who_was_let_in_elsewhere_follows_what_an_earlier_gap_is_there_for() {
    let entered = Entered::new();
    let Entered { resident, newcomer, join } = &entered;
    let before = resident.state_ids();
    let prev: Vec<&str> = join.prev_events.iter().map(|event_id| &**event_id).collect();
    let carl = resident.member(CARL, CARL, "join", &prev, 40);
    assert!(accepted(&resident.receive(&[&carl])));
    let state = resident.state_ids();
    let said = resident.message(BOB, &[&carl.event_id], 41);
    let gina = pdu_of(resident, &resident.world.join(ROOM, GINA));
    assert_eq!(gina.prev_events.len(), 2);

    let outliers = resident.check(&[&carl]);
    newcomer.write(ReceivePdus { outliers, ..ReceivePdus::default() });
    entered.take(&said, &state, false);
    entered.take(&gina, &state, false);
    newcomer.is_sound();
    let ends = [&said, &gina].map(|pdu| pdu.event_id.to_string());
    assert_eq!(newcomer.ends(), ends);
    entered.take(&carl, &before, true);
    newcomer.is_sound();
    assert_eq!(newcomer.ends(), ends);
    assert!([CARL, FRED, GINA].iter().all(|user_id| newcomer.is_joined(user_id)));
    let own = newcomer.world.message(ROOM, GINA, "all here");
    assert_eq!(newcomer.ends(), [own]);
    newcomer.is_sound();
}

/// What was part of the state that was told has been here since the room was entered, if outside of its graph.
#[test]
fn history_of_own_users_follows_what_the_next_page_brings() {
    let entered = Entered::new();
    let Entered { resident, newcomer, join } = &entered;
    let state = newcomer.state_ids();
    let mut whole = vec![join.event_id.to_string()];
    for event_id in resident.timeline().iter().rev().skip(1) {
        let before: Vec<Arc<str>> = state.iter().filter(|other| ***other != **event_id).cloned().collect();
        entered.take(&pdu_of(resident, event_id), &before, true);
        newcomer.is_sound();
        whole.insert(0, event_id.clone());
        assert_eq!(newcomer.timeline(), whole);
    }
}
