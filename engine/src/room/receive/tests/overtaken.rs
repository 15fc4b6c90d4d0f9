//! What comes when this server is back in a room, from one that had not heard that it was gone: its entrance follows that, so that it
//! is no news.

use super::*;
use crate::{
    Error,
    command::AcceptMembership,
    core::limits::SET_ASIDE_MAX,
    error::Denied,
    room::{graph::auth_chain, handshake::Handshake},
};

pub(super) const FRED: &str = "@fred:here.example";

/// A room on one engine, and another that came into it by a join of Fred's, and has left it. Both engines sign as the same server, so
/// that its key is known on either side.
struct Gone {
    resident: Scene,
    newcomer: Scene,
    first_join: Pdu,
    leave: String,
}

pub(super) fn pdu_of(scene: &Scene, event_id: &str) -> Pdu {
    scene.world.ask(|reader| {
        let event = reader.event(reader.event_num(event_id)?.unwrap())?;
        Ok(Pdu::clone(&*event.pdu()?))
    })
}

/// Fred comes in by way of the resident, which tells its state and what allows that.
pub(super) fn enter(resident: &Scene, newcomer: &Scene) -> Pdu {
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

    /// Does something as if nothing were missing before the newcomer's entrance.
    fn without_gap<T>(&self, join: &Pdu, act: impl FnOnce() -> T) -> T {
        let world = &self.newcomer.world;
        let key = world.ask(|reader| {
            let room = reader.room_num(ROOM)?.unwrap();
            let join = reader.event_num(&join.event_id)?.unwrap();
            Ok((room, reader.event(join)?.pos()))
        });
        let free = world.ask(|reader| Ok(reader.get(&schema::GAPS, &key)?)).unwrap();
        let close = world.act(|tx| {
            tx.delete(&schema::GAPS, &key);
            Ok(())
        });
        close.unwrap();
        let done = act();
        let open = world.act(|tx| {
            tx.put(&schema::GAPS, &key, &free);
            Ok(())
        });
        open.unwrap();
        done
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

/// What was said elsewhere while Fred was not there, of which Bob's message comes late: he has left since, and Fred is back.
struct Late {
    gone: Gone,
    /// Of Bob's, behind the first join.
    message: Pdu,
    /// Another, which nothing follows.
    stray: Pdu,
    /// What follows the message, up to the join.
    rest: [Pdu; 3],
    join: Pdu,
}

impl Late {
    fn new() -> Self {
        let gone = Gone::new();
        let Gone { resident, newcomer, first_join, .. } = &gone;
        let text = |depth| resident.message(BOB, &[&first_join.event_id], first_join.depth + depth);
        let (message, stray) = (text(1), text(2));
        assert!(accepted(&resident.receive(&[&message])));
        let after = gone.say("after");
        let bob_left = resident.member(BOB, BOB, "leave", &[&after.event_id], after.depth + 1);
        assert!(accepted(&resident.receive(&[&bob_left])));
        let fred_left = pdu_of(resident, &resident.world.leave(ROOM, FRED));
        let join = enter(resident, newcomer);
        assert!(newcomer.is_joined(FRED) && !newcomer.is_joined(BOB));
        Self { gone, message, stray, rest: [after, bob_left, fred_left], join }
    }

    /// The newcomer takes in all that it missed.
    fn fill(&self) {
        let mut page = vec![&self.message];
        page.extend(&self.rest);
        self.gone.fill(&page);
    }

    /// All of it, with what the newcomer had before and the join.
    fn whole(&self) -> Vec<String> {
        let mut whole = vec![self.gone.first_join.event_id.to_string(), self.gone.leave.clone()];
        whole.extend(ids(&[&self.message]));
        whole.extend(self.rest.iter().chain([&self.join]).map(|pdu| pdu.event_id.to_string()));
        whole
    }
}

#[test]
fn what_somebody_said_who_has_left_since_is_history_though_nothing_shows_that_yet() {
    let late = Late::new();
    let newcomer = &late.gone.newcomer;
    let before = newcomer.timeline();
    assert_eq!(late.gone.send(&[&late.message]), [Outcome::Past]);
    assert_eq!((newcomer.timeline(), newcomer.ends()), (before, ids(&[&late.join])));
    assert_eq!(newcomer.status(&late.message.event_id), None);
    late.fill();
    assert_eq!(newcomer.timeline(), late.whole());
    assert_eq!(newcomer.ends(), ids(&[&late.join]));
    newcomer.is_sound();
    // Where nothing is missing, the entrance follows nothing else.
    let outcomes = late.gone.send(&[&late.stray]);
    assert!(matches!(&outcomes[..], [Outcome::SoftFailed(_)]), "{outcomes:?}");
    assert_eq!(newcomer.timeline(), late.whole());
    newcomer.is_sound();
}

#[test]
fn what_nothing_leads_to_is_shown_to_nobody() {
    let late = Late::new();
    assert_eq!(late.gone.send(&[&late.stray]), [Outcome::Past]);
    late.fill();
    assert_eq!(late.gone.newcomer.timeline(), late.whole());
}

/// Rooms may have it soft-failed from when that was not looked at.
#[test]
fn history_that_was_soft_failed_behind_the_entrance_is_filled_in() {
    let late = Late::new();
    let newcomer = &late.gone.newcomer;
    let send = || late.gone.send(&[&late.message, &late.stray]);
    let outcomes = late.gone.without_gap(&late.join, send);
    assert!(matches!(&outcomes[..], [Outcome::SoftFailed(_), Outcome::SoftFailed(_)]), "{outcomes:?}");
    newcomer.is_sound();
    late.fill();
    assert_eq!(newcomer.timeline(), late.whole());
    assert_eq!(newcomer.status(&late.message.event_id), Some(EventStatus::Accepted));
    assert_eq!(newcomer.status(&late.stray.event_id), Some(EventStatus::SoftFailed));
    assert_eq!(newcomer.ends(), ids(&[&late.join]));
    assert!(!newcomer.is_joined(BOB));
    newcomer.is_sound();
}

/// Bob leaves when Fred is back, and goes on from before that, with the depths of long ago; Carl, who is still there, follows it.
#[test]
fn what_is_said_after_leaving_is_no_history_whatever_depth_it_claims() {
    let gone = Gone::new();
    let Gone { resident, newcomer, .. } = &gone;
    let carl = resident.member(CARL, CARL, "join", &strs(&resident.ends()), 20);
    assert!(accepted(&resident.receive(&[&carl])));
    resident.world.leave(ROOM, FRED);
    let join = enter(resident, newcomer);
    let left = resident.member(BOB, BOB, "leave", &[&join.event_id], join.depth + 1);
    assert_eq!(gone.send(&[&left]), [Outcome::Accepted]);
    let evading = resident.message(BOB, &[&join.event_id], 1);
    let again = resident.message(BOB, &[&evading.event_id], 2);
    for pdu in [&evading, &again] {
        let outcomes = gone.send(&[pdu]);
        assert!(matches!(&outcomes[..], [Outcome::SoftFailed(_)]), "{outcomes:?}");
    }
    let leading = resident.message(CARL, &[&again.event_id], 3);
    let last = resident.message(CARL, &[&leading.event_id], join.depth + 3);
    let states = vec![GivenState { event_id: last.event_id.clone(), state: newcomer.state_ids() }];
    let pdus = resident.check(&[&last]);
    assert!(accepted(&newcomer.write(ReceivePdus { pdus, states, ..ReceivePdus::default() })));
    // The first page shows that it is led to, from behind the entrance; the second as what is missing before that.
    for _ in 0..2 {
        let pdus = resident.check(&[&evading, &again, &leading]);
        newcomer.write(ReceivePdus { pdus, backfill: true, ..ReceivePdus::default() });
    }
    assert_eq!(newcomer.status(&leading.event_id), Some(EventStatus::Accepted));
    for pdu in [&evading, &again] {
        assert!(!newcomer.timeline().contains(&pdu.event_id.to_string()));
        assert_eq!(newcomer.status(&pdu.event_id), Some(EventStatus::SoftFailed));
    }
}

/// Bob says three things, each after the one before, and leaves; Fred is back behind that. With the join.
fn chain() -> (Gone, [Pdu; 3], Pdu) {
    let gone = Gone::new();
    let Gone { resident, first_join, .. } = &gone;
    let text = |prev: &Pdu| resident.message(BOB, &[&prev.event_id], prev.depth + 1);
    let one = text(first_join);
    let two = text(&one);
    let three = text(&two);
    assert!(accepted(&resident.receive(&[&one, &two, &three])));
    let carl = resident.member(CARL, CARL, "join", &[&three.event_id], three.depth + 1);
    let bob_left = resident.member(BOB, BOB, "leave", &[&carl.event_id], carl.depth + 1);
    assert!(accepted(&resident.receive(&[&carl, &bob_left])));
    resident.world.leave(ROOM, FRED);
    let join = enter(resident, &gone.newcomer);
    (gone, [one, two, three], join)
}

#[test]
fn of_a_chain_that_is_history_no_states_are_asked_for() {
    let (gone, [one, two, three], join) = chain();
    let pdus = gone.resident.check(&[&one, &two, &three]);
    let received = gone.newcomer.write(ReceivePdus { pdus, ..ReceivePdus::default() });
    let past = |pdu: &Pdu| (pdu.event_id.clone(), Outcome::Past);
    assert_eq!(received.outcomes, [past(&one), past(&two), past(&three)]);
    assert!(received.missing.is_nothing(), "{:?}", received.missing);
    assert_eq!(gone.newcomer.ends(), ids(&[&join]));
    gone.newcomer.is_sound();
}

#[test]
fn nor_are_they_where_each_of_it_comes_by_itself() {
    let (gone, [one, two, three], join) = chain();
    for (sent, before) in [(&one, vec![]), (&two, vec![&one]), (&three, vec![&one, &two])] {
        let intake = gone.newcomer.intake(sent, |question| match question {
            Question::MissingEvents { .. } => {
                Answer::Events(before.iter().map(|pdu| pdu.json.clone()).collect())
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(intake.outcomes.get(&sent.event_id), Some(&Outcome::Past));
    }
    assert_eq!(gone.newcomer.ends(), ids(&[&join]));
}

/// It is none itself, and takes one state, whatever stands before it.
#[test]
fn what_a_member_says_after_such_a_chain_is_news() {
    let (gone, [one, two, three], join) = chain();
    let Gone { resident, newcomer, .. } = &gone;
    let follow = resident.message(CARL, &[&three.event_id, &join.event_id], join.depth + 1);
    let all = [&one, &two, &three, &follow];
    let received = newcomer.write(ReceivePdus { pdus: resident.check(&all), ..ReceivePdus::default() });
    assert_eq!(received.outcomes.last(), Some(&(follow.event_id.clone(), Outcome::Waiting)));
    assert_eq!(received.missing.state, std::slice::from_ref(&follow.event_id));
    let states = vec![GivenState { event_id: follow.event_id.clone(), state: newcomer.state_ids() }];
    let pdus = resident.check(&all);
    let received = newcomer.write(ReceivePdus { pdus, states, ..ReceivePdus::default() });
    assert_eq!(received.outcomes.last(), Some(&(follow.event_id.clone(), Outcome::Accepted)));
    assert_eq!(newcomer.timeline().last(), Some(&follow.event_id.to_string()));
    newcomer.is_sound();
}

/// What a member said is taken for news, as nothing shows that it is history, and somebody who has left since said more.
#[test]
fn history_that_follows_what_a_member_said_is_filled_in() {
    let gone = Gone::new();
    let Gone { resident, newcomer, first_join, .. } = &gone;
    let one = gone.say("one");
    let two = resident.message(BOB, &[&one.event_id], one.depth + 1);
    let bob_left = resident.member(BOB, BOB, "leave", &[&two.event_id], two.depth + 1);
    assert!(accepted(&resident.receive(&[&two, &bob_left])));
    let fred_left = pdu_of(resident, &resident.world.leave(ROOM, FRED));
    let join = enter(resident, newcomer);
    let outcomes = gone.send(&[&one, &two]);
    assert!(matches!(&outcomes[..], [Outcome::Accepted, Outcome::SoftFailed(_)]), "{outcomes:?}");
    gone.fill(&[&two, &bob_left, &fred_left]);
    let mut whole = vec![first_join.event_id.to_string(), gone.leave.clone()];
    whole.extend(ids(&[&two, &bob_left, &fred_left, &join, &one]));
    assert_eq!(newcomer.timeline(), whole);
    assert_eq!(newcomer.ends(), ids(&[&join]));
    newcomer.is_sound();
}

#[test]
fn whoever_is_shut_out_makes_no_history_by_many_events_either() {
    let gone = Gone::new();
    let Gone { resident, newcomer, .. } = &gone;
    resident.world.leave(ROOM, FRED);
    let join = enter(resident, newcomer);
    let left = resident.member(BOB, BOB, "leave", &[&join.event_id], join.depth + 1);
    assert_eq!(gone.send(&[&left]), [Outcome::Accepted]);
    let mut chain: Vec<Pdu> = Vec::new();
    for _ in 0..SET_ASIDE_MAX + 2 {
        let prev = chain.last().unwrap_or(&join).event_id.clone();
        chain.push(resident.message(BOB, &[&prev], 1));
    }
    let outcomes = gone.send(&chain.iter().collect::<Vec<_>>());
    assert_eq!(outcomes.len(), chain.len());
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::SoftFailed(_))), "{outcomes:?}");
}

/// The state before it was told, and is not the one after what comes before it.
#[test]
fn what_was_soft_failed_keeps_the_state_that_was_told_when_it_is_filled_in() {
    let gone = Gone::new();
    let Gone { resident, newcomer, first_join, .. } = &gone;
    let state = resident.state_ids();
    let topic = resident.world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "news"}));
    let topic = pdu_of(resident, &topic);
    let message = resident.message(BOB, &[&topic.event_id], topic.depth + 1);
    let bob_left = resident.member(BOB, BOB, "leave", &[&message.event_id], message.depth + 1);
    assert!(accepted(&resident.receive(&[&message, &bob_left])));
    let fred_left = pdu_of(resident, &resident.world.leave(ROOM, FRED));
    let join = enter(resident, newcomer);
    let states = vec![GivenState { event_id: message.event_id.clone(), state }];
    let command = ReceivePdus { pdus: resident.check(&[&message]), states, ..ReceivePdus::default() };
    gone.without_gap(&join, || newcomer.write(command));
    assert_eq!(newcomer.status(&message.event_id), Some(EventStatus::SoftFailed));
    newcomer.is_sound();
    gone.fill(&[&topic, &message, &bob_left, &fred_left]);
    let mut whole = vec![first_join.event_id.to_string(), gone.leave.clone()];
    whole.extend(ids(&[&topic, &message, &bob_left, &fred_left, &join]));
    assert_eq!(newcomer.timeline(), whole);
    newcomer.is_sound();
}

#[test]
fn a_join_of_somebody_who_is_banned_by_now_is_refused_by_the_rule_though_it_may_be_history() {
    let gone = Gone::new();
    let Gone { resident, newcomer, first_join, .. } = &gone;
    let carl = resident.member(CARL, CARL, "join", &[&first_join.event_id], first_join.depth + 1);
    resident.world.member(ROOM, ALICE, CARL, "ban").unwrap();
    resident.world.leave(ROOM, FRED);
    enter(resident, newcomer);
    assert_eq!(gone.send(&[&carl]), [Outcome::Past]);
    let command = AcceptMembership {
        room_id: ROOM.into(),
        event_id: carl.event_id.to_string(),
        handshake: Handshake::Join,
        event: resident.check(&[&carl]).remove(0),
        server: "there.example".into(),
    };
    let refused = newcomer.world.engine.write(command).wait().unwrap_err();
    assert!(matches!(refused, Error::Denied(Denied::Rule { .. })), "{refused:?}");
}
