//! The memory backend against a plain map, with faults and crashes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Plain = BTreeMap<(Family, Vec<u8>), Bytes>;

fn families() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Events), Just(Family::Rooms)]
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0u8..4, 0..4)
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let put = (families(), keys(), any::<u8>())
        .prop_map(|(family, key, value)| Change::Put(family, key.into(), Bytes::from(vec![value])));
    let delete = (families(), keys()).prop_map(|(family, key)| Change::Delete(family, key.into()));
    let delete_range =
        (families(), keys(), keys()).prop_map(|(family, start, end)| Change::DeleteRange(family, start, end));
    proptest::collection::vec(prop_oneof![5 => put, 2 => delete, 1 => delete_range], 1..6)
}

fn apply(plain: &mut Plain, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(family, key, value) => {
                plain.insert((*family, key.to_vec()), value.clone());
            }
            Change::Delete(family, key) => {
                plain.remove(&(*family, key.to_vec()));
            }
            Change::DeleteRange(family, start, end) => {
                plain.retain(|(found, key), _| found != family || key < start || key >= end);
            }
        }
    }
}

fn rows(read: &dyn Read, start: &[u8], end: Option<&[u8]>, direction: Direction) -> Plain {
    let mut found = Plain::new();
    for family in Family::ALL {
        let mut before: Option<Vec<u8>> = None;
        let mut visit = |key: &[u8], value: &[u8]| {
            let in_order = before.as_ref().is_none_or(|before| match direction {
                Direction::Forward => before.as_slice() < key,
                Direction::Backward => before.as_slice() > key,
            });
            assert!(in_order);
            before = Some(key.to_vec());
            found.insert((family, key.to_vec()), Bytes::copy_from_slice(value));
            true
        };
        read.scan(family, start, end, direction, &mut visit).unwrap();
    }
    found
}

fn all(read: &dyn Read) -> Plain {
    rows(read, &[], None, Direction::Forward)
}

proptest! {
    #[test]
    fn it_is_an_ordered_map_and_snapshots_stay(
        batches in proptest::collection::vec(changes(), 1..20),
        start in keys(),
        end in proptest::option::of(keys()),
    ) {
        let memory = Memory::new();
        let mut plain = Plain::new();
        let mut held = Vec::new();
        for batch in &batches {
            memory.commit(batch, Durability::Commit).unwrap();
            apply(&mut plain, batch);
            held.push((memory.snapshot(), plain.clone()));
        }
        for (snapshot, expected) in &held {
            prop_assert_eq!(&all(&**snapshot), expected);
        }
        plain.retain(|(_, key), _| *key >= start && end.as_ref().is_none_or(|end| key < end));
        for direction in [Direction::Forward, Direction::Backward] {
            prop_assert_eq!(&rows(&memory, &start, end.as_deref(), direction), &plain);
        }
    }

    /// After a crash there is what was there after some commit: none that was durable is lost, none is torn, and only the
    /// last may be one that failed.
    #[test]
    fn a_crash_leaves_a_prefix(
        batches in proptest::collection::vec((changes(), any::<bool>()), 1..30),
        seed in any::<u64>(),
    ) {
        let faults = Faults { seed, refused_one_in: 5, unknown_one_in: 5, late_one_in: 5 };
        let memory = Memory::with_faults(faults);
        let mut possible = vec![Plain::new()];
        let mut late = None;
        for (batch, durable) in &batches {
            let before = all(&memory);
            let mut after = before.clone();
            apply(&mut after, batch);
            let durability = if *durable { Durability::Commit } else { Durability::Relaxed };
            let result = memory.commit(batch, durability);
            let now = all(&memory);
            prop_assert!(now == after || (now == before && result.is_err()));
            if now == before && result.is_err() {
                late.get_or_insert(Vec::new()).push(after);
                continue;
            }
            late = None;
            if *durable {
                possible.clear();
            }
            possible.push(now);
        }
        memory.crash();
        let found = all(&memory);
        prop_assert!(possible.iter().chain(late.iter().flatten()).any(|possible| *possible == found));
    }
}

#[test]
fn what_is_kept_of_the_past_has_a_bound() {
    let memory = Memory::new();
    for number in 0..1_000u32 {
        let put = Change::Put(Family::Meta, number.to_be_bytes().to_vec().into(), Bytes::new());
        memory.commit(&[put], Durability::Relaxed).unwrap();
    }
    assert_eq!(memory.state.read().relaxed.len(), RELAXED_COMMITS_MAX);
    memory.crash();
    assert!(all(&memory).len() >= 1_000 - RELAXED_COMMITS_MAX);
}
