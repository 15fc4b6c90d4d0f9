//! What comes when this server is back in a room, from one that had not heard that it was gone: its entrance follows that, so that it
//! is no news.

use super::*;
use crate::room::graph::auth_chain;

const FRED: &str = "@fred:here.example";

/// A room on one engine, and another that came into it by a join of Fred's, and has left it. Both engines sign as the same server, so
/// that its key is known on either side.
struct Gone {
    resident: Scene,
    newcomer: Scene,
    first_join: Pdu,
    leave: String,
}

fn pdu_of(scene: &Scene, event_id: &str) -> Pdu {
    scene.world.ask(|reader| {
        let event = reader.event(reader.event_num(event_id)?.unwrap())?;
        Ok(Pdu::clone(&*event.pdu()?))
    })
}

/// Fred comes in by way of the resident, which tells its state and what allows that.
fn enter(resident: &Scene, newcomer: &Scene) -> Pdu {
    let state = resident.state_ids();
    let told: Vec<Pdu> = resident.world.ask(|reader| {
        let room = RoomCtx::load(reader, ROOM)?;
        let entries = reader.state_entries(room.num, room.head.state)?;
        let nums: Vec<EventNum> = entries.into_iter().map(|(_, num)| num).collect();
        let mut all = auth_chain(reader, room.num, nums.clone())?;
        all.extend(&nums);
        all.sort_unstable();
        all.dedup();
        reader.events(&all)?.iter().map(|event| Ok(Pdu::clone(&*event.pdu()?))).collect()
    });
    let join = pdu_of(resident, &resident.world.join(ROOM, FRED));
    let pdus = resident.check(&told.iter().collect::<Vec<_>>());
    let outliers = StoreOutliers { room_id: ROOM.into(), version: version(), pdus };
    assert!(newcomer.world.engine.write(outliers).wait().unwrap().missing.is_nothing());
    let enter = EnterRoom {
        room_id: ROOM.into(),
        version: version(),
        join: resident.check(&[&join]).remove(0),
        untold: Vec::new(),
        state,
        partial: None,
    };
    assert_eq!(newcomer.world.engine.write(enter).wait().unwrap().0, Outcome::Accepted);
    join
}

impl Gone {
    fn new() -> Self {
        let resident = Scene::new();
        let levels = json!({"users": {ALICE: 100, BOB: 100}});
        resident.world.state(ROOM, ALICE, "m.room.power_levels", "", levels);
        let newcomer = Scene { world: World::new(), peer: Peer::new() };
        newcomer.world.engine.write(newcomer.peer.keys()).wait().unwrap();
        let first_join = enter(&resident, &newcomer);
        let leave = newcomer.world.leave(ROOM, FRED);
        Self { resident, newcomer, first_join, leave }
    }

    fn member(&self, membership: &str) -> Pdu {
        pdu_of(&self.resident, &self.resident.world.member(ROOM, ALICE, FRED, membership).unwrap())
    }

    fn say(&self, body: &str) -> Pdu {
        pdu_of(&self.resident, &self.resident.world.message(ROOM, ALICE, body))
    }

    /// The newcomer is sent events.
    fn send(&self, pdus: &[&Pdu]) -> Vec<Outcome> {
        let pdus = self.resident.check(pdus);
        let received = self.newcomer.write(ReceivePdus { pdus, ..ReceivePdus::default() });
        received.outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// The newcomer takes in a page of history.
    fn fill(&self, pdus: &[&Pdu]) {
        let pdus = self.resident.check(pdus);
        let received = self.newcomer.write(ReceivePdus { pdus, backfill: true, ..ReceivePdus::default() });
        assert!(accepted(&received), "{received:?}");
    }
}

/// The resident says something, bans Fred, lets him come again, and says something more; then he is back. With the join.
fn back() -> (Gone, [Pdu; 4], Pdu) {
    let gone = Gone::new();
    let said = [gone.say("one"), gone.member("ban"), gone.member("leave"), gone.say("two")];
    let join = enter(&gone.resident, &gone.newcomer);
    (gone, said, join)
}

fn ids(pdus: &[&Pdu]) -> Vec<String> {
    pdus.iter().map(|pdu| pdu.event_id.to_string()).collect()
}

#[test]
fn a_ban_that_the_entrance_follows_comes_before_it_with_what_it_follows() {
    let (gone, [one, ban, unban, two], join) = back();
    let newcomer = &gone.newcomer;
    let before = newcomer.timeline();
    assert_eq!(gone.send(&[&one, &ban, &unban]), [Outcome::Past, Outcome::Past, Outcome::Past]);
    assert_eq!((newcomer.timeline(), newcomer.ends()), (before, ids(&[&join])));
    assert!(newcomer.is_joined(FRED));
    // Whoever pages back finds it.
    gone.fill(&[&one, &ban, &unban, &two]);
    let mut whole = vec![gone.first_join.event_id.to_string(), gone.leave.clone()];
    whole.extend(ids(&[&one, &ban, &unban, &two, &join]));
    assert_eq!(newcomer.timeline(), whole);
    newcomer.is_sound();
}

#[test]
fn it_does_so_where_each_comes_by_itself() {
    let (gone, [one, ban, unban, two], join) = back();
    let newcomer = &gone.newcomer;
    // Nothing shows yet that the entrance follows it.
    assert_eq!(gone.send(&[&one]), [Outcome::Accepted]);
    for membership in [&ban, &unban] {
        assert_eq!(gone.send(&[membership]), [Outcome::Past]);
    }
    assert!(newcomer.is_joined(FRED));
    gone.fill(&[&ban, &unban, &two]);
    assert_eq!(newcomer.ends(), ids(&[&join]), "what was said here follows no end that the join follows");
    assert!(newcomer.is_joined(FRED));
    newcomer.is_sound();
}

#[test]
fn what_is_missing_before_the_entrance_is_no_news_though_it_is_sent() {
    let (gone, [one, ban, unban, two], join) = back();
    let newcomer = &gone.newcomer;
    let before = newcomer.timeline();
    assert_eq!(gone.send(&[&two]), [Outcome::Past]);
    assert_eq!((newcomer.timeline(), newcomer.ends()), (before, ids(&[&join])));
    gone.fill(&[&one, &ban, &unban, &two]);
    assert_eq!(newcomer.timeline().last(), Some(&join.event_id.to_string()));
    // What follows the join is news.
    let live = gone.say("live");
    assert_eq!(gone.send(&[&live]), [Outcome::Accepted]);
    newcomer.is_sound();
}

/// Depths say nothing of that: who let him in had not heard of it.
#[test]
fn a_ban_that_the_entrance_does_not_follow_counts() {
    let gone = Gone::new();
    let Gone { resident, newcomer, first_join, .. } = &gone;
    let ban = resident.member(BOB, FRED, "ban", &[&first_join.event_id], first_join.depth + 1);
    resident.world.leave(ROOM, FRED);
    gone.say("two");
    let join = enter(resident, newcomer);
    assert!(ban.depth < join.depth && newcomer.is_joined(FRED));
    assert_eq!(gone.send(&[&ban]), [Outcome::Accepted]);
    assert_eq!(newcomer.state("m.room.member", FRED), Some(ban.event_id.to_string()));
    assert!(!newcomer.is_joined(FRED));
    newcomer.is_sound();
}
