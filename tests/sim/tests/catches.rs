//! The simulator can fail: faults that must not be are put in, found, and told as short stories. And it can be trusted:
//! what a seed does, it does again.

use warren_sim::{Plan, Plant, play, run};

/// Seeds that are tried until a planted fault shows; each seed is a run like those that are to find real ones.
const SEEDS: u64 = 300;
/// A story is short when a person sees at once what is wrong.
const SHORT: usize = 8;

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
