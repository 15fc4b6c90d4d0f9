//! The simulator can fail: faults that must not be are put in, found, and told as short stories. And it can be trusted:
//! what a seed does, it does again.

use warren_sim::{Deed, Fate, Plan, Plant, Step, User, What, play, run};

/// Seeds that are tried until a planted fault shows; each seed is a run like those that are to find real ones.
const SEEDS: u64 = 300;
/// A story is short when a person sees at once what is wrong.
const SHORT: usize = 8;
/// Whose room it is in plans that are made by hand, and who is in it from the second server.
const HOST: User = User { server: 0, number: 0 };
const GUEST: User = User { server: 1, number: 0 };

/// The first failure that the fault leads to, and that the same runs do not fail without it.
fn caught(plant: Plant) -> warren_sim::Failure {
    let failure = (1..=SEEDS).find_map(|seed| run(seed, plant).err()).expect("the fault is found");
    assert!(play(&failure.plan, Plant::Nothing).breach.is_none(), "it is found where it is not:\n{failure}");
    println!("{failure}");
    *failure
}

#[test]
fn a_disk_that_forgets_is_found_and_told() {
    let failure = caught(Plant::ForgetfulDisk);
    assert!(failure.plan.steps.len() <= SHORT, "not short:\n{failure}");
    assert!(failure.story.iter().any(|sentence| sentence.contains("crashes")), "{failure}");
    // The short plan is the whole truth: it fails again in the same way.
    let again = play(&failure.plan, Plant::ForgetfulDisk);
    assert_eq!((again.story, again.breach), (failure.story, Some(failure.breach)));
}

#[test]
fn a_sender_that_gives_up_what_was_lost_is_found() {
    let failure = caught(Plant::TrustfulSender);
    assert_eq!(failure.breach.rule, "delivery", "{failure}");
    assert!(failure.plan.steps.len() <= SHORT, "not short:\n{failure}");
}

#[test]
fn a_receiver_that_forgets_what_it_has_answered_for_is_found() {
    let failure = caught(Plant::CarelessReceiver);
    assert_eq!(failure.breach.rule, "kept", "{failure}");
}

#[test]
fn messages_that_come_twice_are_found() {
    let failure = caught(Plant::ChangedIds);
    assert_eq!(failure.breach.rule, "messages", "{failure}");
    assert!(failure.plan.steps.len() <= SHORT, "not short:\n{failure}");
}

#[test]
fn devices_that_are_taken_for_whole_too_soon_are_found() {
    let failure = caught(Plant::HastyFollower);
    assert_eq!(failure.breach.rule, "devices", "{failure}");
}

#[test]
fn invites_that_are_taken_back_unseen_are_found() {
    let failure = caught(Plant::DeafGuest);
    assert_eq!(failure.breach.rule, "outside", "{failure}");
    assert!(failure.plan.steps.len() <= SHORT, "not short:\n{failure}");
}

fn acted(user: User, deed: Deed) -> Step {
    Step::Act { user, deed, trouble: None, lapse: None }
}

fn in_room(user: User, what: What) -> Step {
    acted(user, Deed::In { room: 0, what })
}

fn brought(from: usize, to: usize) -> Step {
    Step::Carry { from, to, pick: 0, fate: Fate::Arrives, trouble: None, hits_sender: false }
}

/// The guest, who has some power in the host's room, is shut out with their server, which hears of it; `then` something happens, and
/// what the guest has done is brought to the host.
fn shut_out(then: impl IntoIterator<Item = Step>) -> Plan {
    let mut steps = vec![
        acted(HOST, Deed::Create { public: true }),
        in_room(GUEST, What::Join),
        Step::Fetch { server: GUEST.server, answers: u8::MAX, trouble: None },
        in_room(HOST, What::Power(GUEST, 50)),
        in_room(HOST, What::ShutOut(GUEST.server)),
        brought(HOST.server, GUEST.server),
    ];
    steps.extend(then);
    steps.push(brought(GUEST.server, HOST.server));
    Plan { seed: 1, version: "10", servers: 2, steps }
}

#[test]
fn a_server_that_is_let_in_again_and_does_not_tell_what_was_refused_is_found() {
    let failure = caught(Plant::MuteGuest);
    assert_eq!(failure.breach.rule, "told again", "{failure}");
    assert!(failure.plan.steps.len() <= SHORT, "not short:\n{failure}");
}

#[test]
fn what_was_said_or_that_somebody_left_is_told_again_when_a_server_is_let_in() {
    for last in [What::Say, What::State(0), What::Leave] {
        let plan = shut_out([in_room(GUEST, What::Say), in_room(GUEST, last)]);
        let told = play(&plan, Plant::Nothing);
        assert_eq!(told.breach, None, "{:#?}", told.story);
        let is_refused =
            |sentence: &String| sentence.starts_with("two → one") && sentence.contains("refused");
        assert!(told.story.iter().any(is_refused), "{:#?}", told.story);
        let untold = play(&plan, Plant::MuteGuest);
        let rule = untold.breach.map(|breach| breach.rule);
        assert_eq!(rule, Some("told again"), "{last:?}: {:#?}", untold.story);
    }
}

#[test]
fn servers_of_which_one_stays_shut_out_need_not_agree() {
    let steps = [in_room(HOST, What::Power(HOST, 0)), in_room(GUEST, What::State(0))];
    let played = play(&shut_out(steps), Plant::Nothing);
    assert_eq!(played.breach, None, "{:#?}", played.story);
    let is_in_vain = |sentence: &String| sentence.starts_with("@a:one lets all servers in: refused");
    assert!(played.story.iter().any(is_in_vain), "{:#?}", played.story);
}

#[test]
fn history_that_is_not_read_in_is_found() {
    let failure = caught(Plant::LazyReader);
    assert_eq!(failure.breach.rule, "history", "{failure}");
    assert!(failure.plan.steps.len() <= SHORT, "not short:\n{failure}");
}

#[test]
fn words_of_the_past_that_are_kept_back_are_found() {
    let failure = caught(Plant::StingyTeller);
    assert_eq!(failure.breach.rule, "content", "{failure}");
    assert!(failure.plan.steps.len() <= SHORT, "not short:\n{failure}");
}

#[test]
fn a_seed_does_the_same_again() {
    for seed in 1..=20 {
        let plan = Plan::new(seed);
        let (first, second) = (play(&plan, Plant::Nothing), play(&plan, Plant::Nothing));
        assert!(!first.digest.is_empty(), "seed {seed} fails");
        assert_eq!(first.digest, second.digest, "seed {seed}");
    }
}
