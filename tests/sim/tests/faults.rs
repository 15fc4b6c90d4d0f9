//! The faults of a run take effect. A step for which nothing is there does nothing, so that plans which name all faults prove nothing by that.

use warren_sim::{Plan, Plant, play};

/// Runs in which each fault takes effect at least once; `./x test sim` plays more than three times as many.
const SEEDS: u64 = 300;

/// How the story tells of each.
const FAULTS: [(&str, &str); 18] = [
    ("a transaction is lost", ", lost on the way"),
    ("one is late and given up", ", which is late and given up"),
    ("one is overtaken", ", an old copy: "),
    ("one comes twice", "which it has already"),
    ("its answer is lost", ", the answer is lost"),
    ("other things happen while it is on its way", ", still on its way"),
    ("servers lose each other", ", which cannot get through"),
    ("a question is answered by nobody", " cannot be reached"),
    ("the answer of who lets a user in is lost", "the answer of "),
    ("a template is for what nobody asked for", " lies to "),
    ("a server dies while a user acts", ": the server crashes"),
    ("a disk refuses what a user does", ": the server fails to write"),
    ("a server dies while it delivers", " crashes while it delivers"),
    ("a disk refuses what was delivered", " cannot note what it delivers"),
    ("a server dies while it takes in", "and the server crashes"),
    ("a disk refuses what comes", "which fails: "),
    ("a server dies between", " crashes and starts again"),
    ("a clock jumps back", " s back"),
];

#[test]
fn each_fault_takes_effect() {
    let stories: Vec<Vec<String>> =
        (1..=SEEDS).map(|seed| play(&Plan::new(seed), Plant::Nothing).story).collect();
    for (fault, words) in FAULTS {
        let runs = stories.iter().filter(|story| story.iter().any(|sentence| sentence.contains(words)));
        assert!(runs.count() > 0, "in no run {fault}");
    }
}
