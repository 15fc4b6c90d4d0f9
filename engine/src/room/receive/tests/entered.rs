//! The history of a room that was entered by way of another server, which stands below zero.

use super::{
    history::{answer, end, messages},
    *,
};
use crate::{account::account_data, check, store::Memory};

const DORA: &str = "@dora:there.example";

/// A room on one engine, and another that came into it by a join of Dora's. Both engines sign as the same server, so that its
/// key is known on either side.
pub(super) struct Entered {
    pub resident: Scene,
    pub newcomer: Scene,
}

impl Entered {
    /// Enters by a join, with the resident's state of now.
    pub fn by(resident: Scene, join: &Pdu, newcomer: World) -> Self {
        let newcomer = Scene { world: newcomer, peer: Peer::new() };
        newcomer.world.engine.write(newcomer.peer.keys()).wait().unwrap();
        let state: Vec<Pdu> = resident.world.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            let entries = reader.state_entries(room.num, room.head.state)?;
            entries.into_iter().map(|(_, num)| Ok(Pdu::clone(&*reader.event(num)?.pdu()?))).collect()
        });
        let (room_id, state): (String, Vec<&Pdu>) = (ROOM.into(), state.iter().collect());
        let outliers = StoreOutliers { room_id, version: version(), pdus: resident.check(&state) };
        assert!(newcomer.world.engine.write(outliers).wait().unwrap().missing.is_nothing());
        let entered = Self { resident, newcomer };
        entered.enter(join);
        entered
    }

    /// Enters by a join, with the resident's state of now, the events of which are here.
    fn enter(&self, join: &Pdu) {
        let enter = EnterRoom {
            room_id: ROOM.into(),
            version: version(),
            join: self.resident.check(&[join]).remove(0),
            untold: Vec::new(),
            state: self.resident.state_ids(),
            partial: None,
        };
        assert_eq!(self.newcomer.world.engine.write(enter).wait().unwrap().0, Outcome::Accepted);
    }

    /// The newcomer takes in a page of history, of which it may be told the state before any event.
    fn page(&self, pdus: &[&Pdu]) -> Vec<(Arc<str>, Outcome)> {
        let state = self.resident.state_ids();
        let given = |pdu: &&Pdu| GivenState { event_id: pdu.event_id.clone(), state: state.clone() };
        let (states, pdus) = (pdus.iter().map(given).collect(), self.resident.check(pdus));
        self.newcomer.write(ReceivePdus { pdus, states, backfill: true, ..ReceivePdus::default() }).outcomes
    }

    /// The newcomer is sent an event, and told the state before it.
    fn send(&self, pdu: &Pdu) {
        let states = vec![GivenState { event_id: pdu.event_id.clone(), state: self.newcomer.state_ids() }];
        let pdus = self.resident.check(&[pdu]);
        let received = self.newcomer.write(ReceivePdus { pdus, states, ..ReceivePdus::default() });
        assert!(accepted(&received), "{received:?}");
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

/// Who lets a server in says how deep the join is.
#[test]
fn history_that_is_deeper_than_the_join_is_sound() {
    let resident = Scene::new();
    let said = say(&resident, 3, 20);
    let join = resident.member(DORA, DORA, "join", &[&said[2].event_id], 1);
    let entered = Entered::by(resident, &join, World::new());
    entered.fill(&said.iter().collect::<Vec<_>>());
    assert_eq!(entered.newcomer.timeline(), ids(&[&said[0], &said[1], &said[2], &join]));
    entered.newcomer.is_sound();
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
        let repaired = check::repair(&|| Ok(World::on(backend.clone()).engine), &|_, _| ()).unwrap();
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

/// Somebody says something that the server by way of which Dora comes does not hear of until she is there.
struct Forked {
    entered: Entered,
    /// Before the fork.
    said: Vec<Pdu>,
    /// What was not heard of, and what the join follows.
    fork: Pdu,
    other: Pdu,
    join: Pdu,
}

impl Forked {
    fn new() -> Self {
        let resident = Scene::new();
        let said = say(&resident, 3, 20);
        let text = |body: &str| {
            resident.draft(BOB, "m.room.message", None, json!({"body": body}), &[&said[2].event_id], 23)
        };
        let (fork, other) = (text("fork"), text("other"));
        let join = resident.member(DORA, DORA, "join", &[&other.event_id], 24);
        let entered = Entered::by(resident, &join, World::new());
        Self { entered, said, fork, other, join }
    }

    /// What follows an event that is missing, and the join.
    fn heal(&self, missing: &Pdu) -> Pdu {
        let healed = self.entered.resident.message(BOB, &[&missing.event_id, &self.join.event_id], 25);
        self.entered.send(&healed);
        assert_eq!(self.entered.missing_before(&healed), ids(&[missing]));
        healed
    }

    fn before_fork(&self) -> Vec<&Pdu> {
        self.said.iter().collect()
    }
}

/// A page that comes of what is missing behind the join leads to what the join follows as well.
#[test]
fn history_that_a_later_gap_leads_to_comes_before_the_join_with_what_the_join_follows() {
    let forked = Forked::new();
    let Forked { entered, fork, other, join, .. } = &forked;
    let healed = forked.heal(fork);
    let mut page = forked.before_fork();
    page.push(fork);
    let outcomes = entered.page(&page);
    assert!(outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Past), "{outcomes:?}");
    assert_eq!(outcomes.len(), page.len());
    entered.newcomer.is_sound();
    assert_eq!(entered.newcomer.timeline(), ids(&[join, &healed]));
    // There is one gap now, in which both are missing.
    assert_eq!(entered.missing_before(&healed), [""; 0]);
    let (mut missing, mut both) = (entered.missing_before(join), ids(&[fork, other]));
    missing.sort_unstable();
    both.sort_unstable();
    assert_eq!(missing, both);
    page.push(other);
    entered.fill(&page);
    entered.newcomer.is_sound();
    let timeline = entered.newcomer.timeline();
    assert_eq!(timeline[..3], ids(&forked.before_fork()));
    assert_eq!(timeline[5..], ids(&[join, &healed]));
}

#[test]
fn where_a_page_shows_what_the_join_follows_all_else_stays_behind_it() {
    let forked = Forked::new();
    let Forked { entered, fork, other, join, .. } = &forked;
    let healed = forked.heal(fork);
    let mut page = forked.before_fork();
    page.extend([fork, other]);
    entered.fill(&page);
    let mut whole = forked.before_fork();
    whole.extend([other, join, fork, &healed]);
    assert_eq!(entered.newcomer.timeline(), ids(&whole));
    assert_eq!(entered.missing_before(&healed), [""; 0]);
    entered.newcomer.is_sound();
}

#[test]
fn what_an_earlier_gap_turns_out_to_lead_to_is_missing_there() {
    let forked = Forked::new();
    let Forked { entered, said, other, join, .. } = &forked;
    let healed = forked.heal(&said[2]);
    entered.fill(&[other]);
    assert_eq!(entered.missing_before(&healed), [""; 0]);
    assert_eq!(entered.missing_before(join), ids(&[&said[2]]));
    entered.newcomer.is_sound();
    entered.fill(&forked.before_fork());
    let mut whole = forked.before_fork();
    whole.extend([other, join, &healed]);
    assert_eq!(entered.newcomer.timeline(), ids(&whole));
    entered.newcomer.is_sound();
}

/// Below what was read there is no place for it that is behind what it follows.
#[test]
fn what_follows_history_that_was_read_stays_behind_the_join() {
    let forked = Forked::new();
    let Forked { entered, said, fork, other, join } = &forked;
    entered.fill(&[&said[1], &said[2], other]);
    let late = entered.resident.message(BOB, &[&fork.event_id], 24);
    entered.send(&late);
    assert_eq!(entered.missing_before(&late), ids(&[fork]));
    entered.fill(&[fork]);
    entered.newcomer.is_sound();
    let here = [&said[1], &said[2], other, join, fork, &late];
    assert_eq!(entered.newcomer.timeline(), ids(&here));
    entered.fill(&[&said[0]]);
    let mut whole = vec![&said[0]];
    whole.extend(here);
    assert_eq!(entered.newcomer.timeline(), ids(&whole));
    entered.newcomer.is_sound();
}

/// Where an event claimed the greatest depth there is, all that follows is as deep, the join as well.
#[test]
fn what_was_missed_in_a_room_of_the_greatest_depth_stays_behind_the_join() {
    const DEPTH_MAX: u64 = (1 << 53) - 1;
    let resident = Scene::new();
    let deepest = resident.message(BOB, &strs(&resident.ends()), DEPTH_MAX);
    let join = resident.member(DORA, DORA, "join", &[&deepest.event_id], DEPTH_MAX);
    let entered = Entered::by(resident, &join, World::new());
    let mut missed = vec![entered.resident.message(BOB, &[&join.event_id], DEPTH_MAX)];
    for at in 0..4 {
        missed.push(entered.resident.message(BOB, &[&missed[at].event_id], DEPTH_MAX));
    }
    entered.send(&missed[4]);
    entered.fill(&[&missed[2], &missed[3]]);
    entered.fill(&[&missed[0], &missed[1]]);
    let whole: Vec<&Pdu> = std::iter::once(&join).chain(&missed).collect();
    assert_eq!(entered.newcomer.timeline(), ids(&whole));
    entered.newcomer.is_sound();
}

#[test]
fn a_lie_about_a_depth_takes_nothing_that_was_missed_below_the_join() {
    let (entered, _, join) = entered_on(World::new());
    let one = entered.resident.message(BOB, &[&join.event_id], 27);
    let two = entered.resident.message(BOB, &[&one.event_id], 28);
    let lie = entered.resident.message(BOB, &[&two.event_id], 1);
    let last = entered.resident.message(BOB, &[&lie.event_id], 30);
    entered.send(&last);
    entered.fill(&[&two, &lie]);
    entered.fill(&[&one]);
    assert_eq!(entered.newcomer.timeline(), ids(&[&join, &one, &two, &lie, &last]));
    entered.newcomer.is_sound();
}

/// Who makes up what comes before an event hides nothing of what was said before the join.
#[test]
fn what_is_said_to_be_missing_before_a_late_event_is_not_looked_for_below_the_join() {
    let (entered, said, join) = entered_on(World::new());
    let made_up: Vec<String> = (0..20).map(|number| format!("$zzz{number}")).collect();
    let late = entered.resident.message(BOB, &strs(&made_up), join.depth);
    entered.send(&late);
    assert_eq!(entered.missing_before(&join), ids(&[&said[5]]));
    assert_eq!(entered.missing_before(&late).len(), made_up.len());
}

/// Dora ignores Bob, who said more before she came than is filled in at once, and Carl, whom she sees, spoke before that.
#[test]
fn a_page_of_what_may_not_be_seen_is_not_the_last_as_long_as_something_is_missing() {
    let resident = Scene::new();
    let carl = resident.member(CARL, CARL, "join", &strs(&resident.ends()), 20);
    assert!(accepted(&resident.receive(&[&carl])));
    let seen = resident.message(CARL, &[&carl.event_id], 21);
    let one = resident.message(BOB, &[&seen.event_id], 22);
    let two = resident.message(BOB, &[&one.event_id], 23);
    let join = resident.member(DORA, DORA, "join", &[&two.event_id], 24);
    let entered = Entered::by(resident, &join, World::new());
    let ignored = json!({"ignored_users": {BOB: {}}}).to_string().into();
    let ignore = entered.newcomer.world.act(|tx| {
        let dora = tx.intern_user(DORA)?;
        Ok(account_data::set(tx, dora, None, "m.ignored_user_list", &ignored)?)
    });
    ignore.unwrap();
    let page = |from: Option<StreamToken>| {
        let view = Messages { user: DORA.into(), ..messages(from, false) };
        let page = answer(&entered.newcomer, &view);
        let found: Vec<String> = history::ids(&page["chunk"]).into_iter().map(str::to_owned).collect();
        (found, end(&page))
    };
    let (found, at_join) = page(None);
    assert_eq!(found, ids(&[&join]));
    entered.fill(&[&two]);
    let (found, at_two) = page(at_join);
    assert_eq!(found, [""; 0]);
    // From there it goes on, further down each time, to where nobody knows more.
    assert!(at_two.is_some() && at_two < at_join, "{at_two:?}");
    assert_eq!(page(at_two), (Vec::new(), None));
    entered.fill(&[&seen, &one]);
    let (found, at_seen) = page(at_two);
    assert_eq!(found, ids(&[&seen]));
    assert!(at_seen.is_some() && at_seen < at_two, "{at_seen:?}");
    assert_eq!(page(at_seen), (Vec::new(), None));
}

/// The newcomer leaves, and comes back. Meanwhile somebody has gone on from before the first join.
#[test]
fn what_leads_to_before_an_earlier_stay_comes_before_that() {
    let (entered, said, join) = entered_on(World::new());
    let resident = &entered.resident;
    let stay = resident.message(BOB, &[&join.event_id], 27);
    entered.send(&stay);
    let mut auth = resident.auth(DORA, "m.room.member", Some(DORA), false);
    auth.push(join.event_id.to_string());
    let leave = resident.peer.make(Draft {
        sender: DORA,
        kind: "m.room.member",
        state_key: Some(DORA),
        content: json!({"membership": "leave"}),
        prev: vec![&stay.event_id],
        auth: strs(&auth),
        depth: 28,
    });
    entered.send(&leave);
    let late = json!({"body": "late"});
    let late = resident.draft(BOB, "m.room.message", None, late, &[&said[2].event_id], 23);
    let away = resident.message(BOB, &[&leave.event_id], 29);
    let merge = resident.message(BOB, &[&away.event_id, &late.event_id], 30);
    let again = resident.member(DORA, DORA, "join", &[&merge.event_id], 31);
    entered.enter(&again);

    entered.fill(&[&away, &merge]);
    assert_eq!(entered.missing_before(&again), ids(&[&late]));
    entered.newcomer.is_sound();
    let outcomes = entered.page(&[&said[0], &said[1], &said[2], &late]);
    assert!(outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Past), "{outcomes:?}");
    assert_eq!(entered.missing_before(&again), [""; 0]);
    let (mut missing, mut both) = (entered.missing_before(&join), ids(&[&said[5], &late]));
    missing.sort_unstable();
    both.sort_unstable();
    assert_eq!(missing, both);
    entered.newcomer.is_sound();

    let mut page: Vec<&Pdu> = said.iter().collect();
    page.push(&late);
    entered.fill(&page);
    let timeline = entered.newcomer.timeline();
    assert_eq!(timeline[..3], ids(&page[..3]));
    assert_eq!(timeline[7..], ids(&[&join, &stay, &leave, &away, &merge, &again]));
    entered.newcomer.is_sound();
}
