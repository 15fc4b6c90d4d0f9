//! The history of a room that was entered by way of another server, which stands below zero.

use super::*;
use crate::{check::repair, store::Memory};

const DORA: &str = "@dora:there.example";

/// A room on one engine, and another that came into it by a join of Dora's. Both engines sign as the same server, so that its
/// key is known on either side.
struct Entered {
    resident: Scene,
    newcomer: Scene,
}

impl Entered {
    /// Enters by a join, with the resident's state of now.
    fn by(resident: Scene, join: &Pdu, newcomer: World) -> Self {
        let newcomer = Scene { world: newcomer, peer: Peer::new() };
        newcomer.world.engine.write(newcomer.peer.keys()).wait().unwrap();
        let state: Vec<Pdu> = resident.world.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            let entries = reader.state_entries(room.num, room.head.state)?;
            entries.into_iter().map(|(_, num)| Ok(Pdu::clone(&*reader.event(num)?.pdu()?))).collect()
        });
        let (room_id, state): (String, Vec<&Pdu>) = (ROOM.into(), state.iter().collect());
        let outliers =
            StoreOutliers { room_id: room_id.clone(), version: version(), pdus: resident.check(&state) };
        assert!(newcomer.world.engine.write(outliers).wait().unwrap().missing.is_nothing());
        let enter = EnterRoom {
            room_id,
            version: version(),
            join: resident.check(&[join]).remove(0),
            resident: "there.example".to_owned(),
            state: state.iter().map(|pdu| pdu.event_id.clone()).collect(),
            partial: None,
        };
        assert_eq!(newcomer.world.engine.write(enter).wait().unwrap().0, Outcome::Accepted);
        Self { resident, newcomer }
    }

    /// The newcomer takes in a page of history.
    fn page(&self, pdus: &[&Pdu]) -> Vec<(Arc<str>, Outcome)> {
        let pdus = self.resident.check(pdus);
        self.newcomer.write(ReceivePdus { pdus, backfill: true, ..ReceivePdus::default() }).outcomes
    }

    fn fill(&self, pdus: &[&Pdu]) {
        let outcomes = self.page(pdus);
        assert!(outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Accepted), "{outcomes:?}");
    }

    /// What is missing before an event.
    fn missing_before(&self, event: &Pdu) -> Vec<String> {
        self.newcomer.world.ask(|reader| {
            let event = reader.event(reader.event_num(&event.event_id)?.unwrap())?;
            Ok(gap::missing_before(reader, event.header.room, event.pos())?)
        })
    }
}

fn ids(pdus: &[&Pdu]) -> Vec<String> {
    pdus.iter().map(|pdu| pdu.event_id.to_string()).collect()
}

/// Messages of Bob's, each after the one before, the first where the room ends.
fn say(scene: &Scene, count: u64, depth: u64) -> Vec<Pdu> {
    let mut said: Vec<Pdu> = Vec::new();
    for depth in depth..depth + count {
        let prev = said.last().map_or_else(|| scene.ends(), |last| vec![last.event_id.to_string()]);
        said.push(scene.message(BOB, &strs(&prev), depth));
    }
    said
}

/// A room with six messages before the join.
fn entered_on(newcomer: World) -> (Entered, Vec<Pdu>, Pdu) {
    let resident = Scene::new();
    let said = say(&resident, 6, 20);
    let join = resident.member(DORA, DORA, "join", &[&said[5].event_id], 26);
    (Entered::by(resident, &join, newcomer), said, join)
}

#[test]
fn history_that_was_read_in_part_is_sound() {
    let (entered, said, join) = entered_on(World::new());
    entered.newcomer.is_sound();
    entered.fill(&[&said[4], &said[5]]);
    entered.newcomer.is_sound();
    entered.fill(&[&said[2], &said[3]]);
    entered.newcomer.is_sound();
    assert_eq!(entered.newcomer.timeline(), ids(&[&said[2], &said[3], &said[4], &said[5], &join]));
}

/// It goes on below what is there, be its place lost or, as repairs used to leave it, just below the join.
#[test]
fn a_join_whose_gap_is_mended_goes_on_with_the_history_below_zero() {
    for (filled_in, is_below_join) in [(0, false), (3, false), (3, true)] {
        let backend = Arc::new(Memory::default());
        let (entered, said, join) = entered_on(World::on(backend.clone()));
        let mut whole: Vec<&Pdu> = said.iter().collect();
        let rest = whole.len() - filled_in;
        entered.fill(&whole[rest..]);
        let spoil = entered.newcomer.world.act(|tx| {
            let (room, event) = (tx.room_num(ROOM)?.unwrap(), tx.event_num(&join.event_id)?.unwrap());
            let pos = tx.event(event)?.pos();
            match is_below_join {
                true => tx.put(&schema::GAPS, &(room, pos), &StreamPos(pos.0 - 1)),
                false => tx.delete(&schema::GAPS, &(room, pos)),
            }
            Ok(())
        });
        spoil.unwrap();
        let Entered { resident, newcomer } = entered;
        drop(newcomer);
        let repaired = repair(&|| Ok(World::on(backend.clone()).engine), &|_, _| ()).unwrap();
        assert!(!repaired.before.is_clean(), "{filled_in} {is_below_join}");
        assert_eq!(repaired.after.findings, []);
        let newcomer = Scene { world: World::on(backend), peer: Peer::new() };
        let entered = Entered { resident, newcomer };
        entered.fill(&whole[..rest]);
        whole.push(&join);
        assert_eq!(entered.newcomer.timeline(), ids(&whole), "{filled_in} {is_below_join}");
        entered.newcomer.is_sound();
    }
}
