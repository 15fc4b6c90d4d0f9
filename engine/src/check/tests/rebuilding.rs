//! What follows from the rest is made anew when all of it is gone: each keyspace by itself, and all of them at once.

use super::{
    check, findings,
    furnished::{furnished, open, reads},
    repair,
};
use crate::store::{
    Backend, Change, Direction, Durability, Memory, Read,
    schema::{self, ORIGINS, Origin},
};

/// What another server said, or a fork, cannot be told from the store of one server alone.
fn derived() -> Vec<schema::KeyspaceRow> {
    let is_derived = |name: &str| {
        ORIGINS.iter().any(|(of, origin)| *of == name && matches!(origin, Origin::From(_)))
            // Each is made from the other; without both there are no names.
            && name != "NAME_TEXTS"
    };
    schema::table().into_iter().filter(|row| is_derived(row.name)).collect()
}

/// Removes all rows of a keyspace; returns whether there were any.
fn wipe(backend: &Memory, row: &schema::KeyspaceRow) -> bool {
    let mut changes = Vec::new();
    let (start, end) = ([row.id], [row.id + 1]);
    backend
        .scan(row.family, &start, Some(&end), Direction::Forward, &mut |key, _| {
            changes.push(Change::Delete(row.family, key.into()));
            true
        })
        .unwrap();
    backend.commit(&changes, Durability::Commit).unwrap();
    !changes.is_empty()
}

#[test]
fn each_keyspace_that_follows_from_others_is_made_anew() {
    for row in derived() {
        let (backend, room_id) = furnished();
        let before = reads(&backend, &room_id);
        if !wipe(&backend, &row) {
            continue;
        }
        assert!(!check(&backend).is_clean(), "that {} are gone was not found", row.name);
        repair(&|| Ok(open(&backend)), &|_, _| {}).unwrap();
        assert_eq!(findings(&check(&backend)), [""; 0], "without {}", row.name);
        assert_eq!(reads(&backend, &room_id), before, "without {}", row.name);
    }
}

#[test]
fn all_that_follows_from_the_rest_is_made_anew_at_once() {
    let (backend, room_id) = furnished();
    let before = reads(&backend, &room_id);
    let wiped = derived().iter().filter(|row| wipe(&backend, row)).count();
    assert!(wiped > 15, "only {wiped} keyspaces had rows");
    repair(&|| Ok(open(&backend)), &|_, _| {}).unwrap();
    assert_eq!(findings(&check(&backend)), [""; 0]);
    assert_eq!(reads(&backend, &room_id), before);
}
