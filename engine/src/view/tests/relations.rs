//! Pages of what relates to an event through others, where there is much of it.

use super::*;

/// More than one page looks at.
const REPLIES: usize = 2_050;

/// A thread of so many replies, with a reaction to the last and then one to the first: all of it from the oldest on.
fn long_thread(world: &World) -> (String, Vec<String>) {
    let root = world.message(ROOM, ALICE, "root");
    let relate = |kind: &str, target: &str| world.relate(ROOM, ALICE, kind, target, json!({}));
    let mut below: Vec<String> = (0..REPLIES).map(|_| relate("m.thread", &root)).collect();
    below.push(relate("m.annotation", &below[REPLIES - 1]));
    below.push(relate("m.annotation", &below[0]));
    (root, below)
}

fn pages(world: &World, mut view: RelatedEvents) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let page = read(world, &view);
        found.extend(ids(&page["chunk"]));
        match token(&page["next_batch"]) {
            Some(next) => view.from = Some(next),
            None => return found,
        }
    }
}

#[test]
fn a_long_thread_is_read_from_either_end() {
    let world = world();
    let (root, below) = long_thread(&world);
    let deep = || RelatedEvents { recurse: true, limit: Some(1_000), ..related(&root) };
    let latest = read(&world, &RelatedEvents { limit: Some(1), ..deep() });
    assert_eq!(ids(&latest["chunk"]), below[below.len() - 1..]);
    assert_eq!(pages(&world, RelatedEvents { forwards: true, ..deep() }), below);
    let newest_first: Vec<String> = below.iter().rev().cloned().collect();
    assert_eq!(pages(&world, deep()), newest_first);
    // From a place near the end there is the rest, and nothing before it.
    let near_the_end = read(&world, &RelatedEvents { limit: Some(3), ..deep() });
    let from = token(&near_the_end["next_batch"]);
    assert!(from.is_some());
    let rest = RelatedEvents { forwards: true, from, ..deep() };
    assert_eq!(ids(&read(&world, &rest)["chunk"]), below[below.len() - 3..]);
}
