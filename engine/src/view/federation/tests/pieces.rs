//! Long lists come in pieces, which are bounded by their events and by what these have.

use std::collections::BTreeSet;

use super::*;

/// What a piece may have at most: that with which it is long enough, and what is read at once beyond.
const BYTES_MAX: usize = 512 * 1024;

/// What one event has of a text, of which there may be 64 KiB.
const TEXT_BYTES: usize = 60_000;

fn with_tags(count: usize, content: &Value) -> (World, Vec<String>, PduList) {
    let world = world("shared");
    world.join(ROOM, BOB);
    let tag = |n: usize| world.state(ROOM, ALICE, "org.example.tag", &n.to_string(), content.clone());
    let tags = (0..count).map(tag).collect();
    let last = world.message(ROOM, ALICE, "last");
    let answer = ask(&world, &state_at(&last, THERE));
    (world, tags, answer.state)
}

/// All pieces of a list.
fn pieces(world: &World, list: &PduList) -> Vec<Vec<Bytes>> {
    let (mut pieces, mut from) = (Vec::new(), Some(0));
    while let Some(start) = from {
        let piece = ask(world, &Pdus { list, from: start });
        pieces.push(piece.items);
        from = piece.next;
    }
    pieces
}

/// Their events by type and state key.
fn keys(pieces: &[Vec<Bytes>]) -> Vec<(String, String)> {
    let key = |pdu: &Bytes| {
        let pdu: Value = serde_json::from_slice(pdu).unwrap();
        let text = |name: &str| pdu[name].as_str().unwrap().to_owned();
        (text("type"), text("state_key"))
    };
    pieces.iter().flatten().map(key).collect()
}

#[test]
fn long_answers_come_in_pieces() {
    let (world, tags, state) = with_tags(1_203, &json!({}));
    let found = ids(&world, &state);
    assert_eq!(found.len(), state.len());
    assert!(tags.iter().all(|tag| found.contains(tag)));
    assert!(pieces(&world, &state).len() > 1);
    assert_eq!(ask(&world, &Pdus { list: &state, from: state.len() + 7 }).items, Vec::<Bytes>::new());
}

#[test]
fn a_piece_has_few_events_that_are_large_and_every_event_is_told_once() {
    let (world, tags, state) = with_tags(40, &json!({"text": "~".repeat(TEXT_BYTES)}));
    let pieces = pieces(&world, &state);
    for piece in &pieces {
        let bytes: usize = piece.iter().map(Bytes::len).sum();
        assert!(!piece.is_empty() && bytes <= BYTES_MAX, "{bytes}");
    }
    // Nor do they come one by one.
    assert!(pieces.len() < tags.len() / 2, "{}", pieces.len());
    let told = keys(&pieces);
    assert_eq!(told.len(), state.len());
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len());
    for n in 0..tags.len() {
        assert!(told.contains(&("org.example.tag".to_owned(), n.to_string())), "{n}");
    }
    // The same goes for the ids alone.
    let found = ids(&world, &state);
    assert_eq!((found.len(), found.iter().collect::<BTreeSet<_>>().len()), (state.len(), state.len()));
    assert!(tags.iter().all(|tag| found.contains(tag)));
}
