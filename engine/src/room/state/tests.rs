//! The state tree against a `BTreeMap`, its costs counted, and damaged nodes.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::node::{ENTRIES_MAX, Node, NodeError};
use super::scan::{Difference, check, diff, entries, range, reachable};
use super::tree::{self, EMPTY, NodeRead, NodeStore, TreeError};

/// Nodes as bytes, so that every test also reads back what was encoded.
#[derive(Default)]
struct Nodes {
    bytes: HashMap<u64, Vec<u8>>,
    last: u64,
    loads: Cell<usize>,
    stored: usize,
    stored_bytes: usize,
}

#[derive(Debug, PartialEq, thiserror::Error)]
enum NodesError {
    #[error("{0}")]
    Tree(#[from] TreeError),
    #[error("{0}")]
    Node(#[from] NodeError),
    #[error("no node {0}")]
    Missing(u64),
}

impl NodeRead for Nodes {
    type Error = NodesError;

    fn load(&self, id: u64) -> Result<Arc<Node>, NodesError> {
        self.loads.set(self.loads.get() + 1);
        let bytes = self.bytes.get(&id).ok_or(NodesError::Missing(id))?;
        Ok(Arc::new(Node::decode(bytes)?))
    }
}

impl NodeStore for Nodes {
    fn store(&mut self, node: Node) -> Result<u64, NodesError> {
        let bytes = node.encode();
        self.stored += 1;
        self.stored_bytes += bytes.len();
        self.last += 1;
        self.bytes.insert(self.last, bytes);
        Ok(self.last)
    }
}

impl Nodes {
    fn reset_counts(&mut self) {
        self.loads.set(0);
        self.stored = 0;
        self.stored_bytes = 0;
    }

    fn list(&self, root: u64) -> Vec<(u64, u64)> {
        entries(self, root).collect::<Result<_, _>>().unwrap()
    }

    fn diff(&self, before: u64, after: u64) -> Vec<Difference> {
        diff(self, before, after).collect::<Result<_, _>>().unwrap()
    }
}

fn naive_diff(before: &BTreeMap<u64, u64>, after: &BTreeMap<u64, u64>) -> Vec<Difference> {
    let keys: std::collections::BTreeSet<u64> = before.keys().chain(after.keys()).copied().collect();
    keys.into_iter()
        .map(|key| Difference { key, before: before.get(&key).copied(), after: after.get(&key).copied() })
        .filter(|difference| difference.before != difference.after)
        .collect()
}

/// A room of 100,000 members: 60 state keys of other types, then the members' keys, dense.
fn large_room() -> (Nodes, u64, BTreeMap<u64, u64>) {
    let keys = (0..60u64).map(|n| n << 32).chain((0..100_000u64).map(|n| (7 << 32) + 1 + n));
    let map: BTreeMap<u64, u64> =
        keys.map(|key| (key, 1_000_000 + key.wrapping_mul(0x9e37) % 100_000)).collect();
    let mut nodes = Nodes::default();
    let root = tree::build(&mut nodes, map.iter().map(|(&key, &value)| (key, value))).unwrap();
    nodes.reset_counts();
    (nodes, root, map)
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(u64, Option<u64>)>),
    /// Goes on from an earlier snapshot.
    Fork(prop::sample::Index),
    /// Replaces the tree by a bulk build of the same entries.
    Rebuild,
    /// Removes a range of keys.
    RemoveRange(u64, u64),
}

fn key() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..600u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![3 => (0..50u64).prop_map(Some), 1 => Just(None)];
    let few = prop::collection::vec((key(), value.clone()), 1..4);
    let many = prop::collection::vec((key(), value), 100..400);
    prop_oneof![
        6 => few.prop_map(Step::Apply),
        3 => many.prop_map(Step::Apply),
        2 => any::<prop::sample::Index>().prop_map(Step::Fork),
        1 => Just(Step::Rebuild),
        1 => (0..600u64, 0..600u64).prop_map(|(a, b)| Step::RemoveRange(a.min(b), a.max(b))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_map(steps in prop::collection::vec(step(), 1..24), probe in key(), other in key()) {
        let mut nodes = Nodes::default();
        let mut snapshots = vec![(EMPTY, BTreeMap::new())];
        for step in steps {
            let (root, map) = snapshots.last().unwrap().clone();
            let (root, map) = match step {
                Step::Apply(changes) => {
                    let mut map = map;
                    for &(key, value) in &changes {
                        match value {
                            Some(value) => map.insert(key, value),
                            None => map.remove(&key),
                        };
                    }
                    (tree::apply(&mut nodes, root, changes).unwrap(), map)
                }
                Step::Fork(index) => index.get(&snapshots).clone(),
                Step::Rebuild => {
                    (tree::build(&mut nodes, map.iter().map(|(&key, &value)| (key, value))).unwrap(), map)
                }
                Step::RemoveRange(start, end) => {
                    let mut map = map;
                    map.retain(|key, _| !(start..=end).contains(key));
                    (tree::apply(&mut nodes, root, (start..=end).map(|key| (key, None))).unwrap(), map)
                }
            };
            prop_assert_eq!(check(&nodes, root).unwrap(), map.len() as u64);
            snapshots.push((root, map));
        }
        let (low, high) = (probe.min(other), probe.max(other));
        for (root, map) in &snapshots {
            let list: Vec<_> = map.iter().map(|(&key, &value)| (key, value)).collect();
            prop_assert_eq!(nodes.list(*root), list);
            prop_assert_eq!(tree::get(&nodes, *root, probe).unwrap(), map.get(&probe).copied());
            let keys = [other, 3, probe, 299, 3];
            let values: Vec<_> = keys.iter().map(|key| map.get(key).copied()).collect();
            prop_assert_eq!(tree::get_many(&nodes, *root, &keys).unwrap(), values);
            let ranged: Vec<_> = range(&nodes, *root, low..=high).collect::<Result<_, _>>().unwrap();
            let expected: Vec<_> = map.range(low..=high).map(|(&key, &value)| (key, value)).collect();
            prop_assert_eq!(ranged, expected);
        }
        for (a, map_a) in &snapshots {
            for (b, map_b) in &snapshots {
                prop_assert_eq!(nodes.diff(*a, *b), naive_diff(map_a, map_b));
            }
        }
    }

    #[test]
    fn nodes_survive_encoding(
        level in 0..16u8,
        map in prop::collection::btree_map(any::<u64>(), 1..=u64::MAX, 1..=ENTRIES_MAX),
        dense in any::<bool>(),
    ) {
        let shrink = |number: u64| if dense { number >> 40 } else { number };
        let map: BTreeMap<u64, u64> = map.into_iter().map(|(key, value)| (shrink(key), shrink(value).max(1))).collect();
        let node = Node::new(level, map.into_iter().collect());
        let bytes = node.encode();
        prop_assert_eq!(&Node::decode(&bytes).unwrap(), &node);
        for length in 0..bytes.len() {
            prop_assert!(Node::decode(&bytes[..length]).is_err());
        }
    }

    /// Whatever is read either is refused or is the one encoding of a node.
    #[test]
    fn damaged_bytes_are_refused_or_canonical(
        map in prop::collection::btree_map(any::<u64>(), any::<u64>(), 1..=ENTRIES_MAX),
        level in 0..16u8,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = Node::new(level, map.into_iter().collect()).encode();
        for (index, byte) in damage {
            *index.get_mut(&mut bytes) = byte;
        }
        for bytes in [bytes, noise] {
            if let Ok(node) = Node::decode(&bytes) {
                prop_assert_eq!(node.encode(), bytes);
            }
        }
    }
}

#[test]
fn the_state_of_a_new_room_is_one_node() {
    let mut nodes = Nodes::default();
    let root = tree::insert_many(&mut nodes, EMPTY, (0..10).map(|n| (n << 32, n + 1))).unwrap();
    assert_eq!(nodes.stored, 1);
    assert_eq!(nodes.list(root).len(), 10);
}

#[test]
fn setting_what_is_set_writes_nothing() {
    let (mut nodes, root, map) = large_room();
    let (&key, &value) = map.iter().nth(50_000).unwrap();
    assert_eq!(tree::insert(&mut nodes, root, key, value), Ok(root));
    assert_eq!(tree::remove(&mut nodes, root, u64::MAX), Ok(root));
    assert_eq!(tree::insert_many(&mut nodes, root, map.iter().step_by(999).map(|(&k, &v)| (k, v))), Ok(root));
    assert_eq!(nodes.stored, 0);
}

#[test]
fn removing_all_leaves_the_empty_tree() {
    let (mut nodes, root, map) = large_room();
    let root = tree::apply(&mut nodes, root, map.keys().map(|&key| (key, None))).unwrap();
    assert_eq!(root, EMPTY);
    assert_eq!(nodes.stored, 0);
}

#[test]
fn removing_most_lowers_the_tree() {
    let (mut nodes, root, map) = large_room();
    let kept: Vec<u64> = map.keys().copied().step_by(5_000).collect();
    let changes = map.keys().filter(|key| !kept.contains(key)).map(|&key| (key, None));
    let root = tree::apply(&mut nodes, root, changes).unwrap();
    assert_eq!(nodes.list(root).iter().map(|entry| entry.0).collect::<Vec<_>>(), kept);
    assert_eq!(nodes.load(root).unwrap().level(), 0);
    assert_eq!(nodes.stored, 1);
}

#[test]
fn a_lookup_in_a_large_room_loads_three_nodes() {
    let (mut nodes, root, map) = large_room();
    let (&key, &value) = map.iter().nth(77_777).unwrap();
    assert_eq!(tree::get(&nodes, root, key), Ok(Some(value)));
    assert_eq!(nodes.loads.get(), 3);
    nodes.reset_counts();
    assert_eq!(tree::get_many(&nodes, root, &[key, key + 1, key]).unwrap()[2], Some(value));
    assert!(nodes.loads.get() <= 5, "{}", nodes.loads.get());
}

#[test]
fn a_state_event_in_a_large_room_writes_little() {
    let (mut nodes, root, map) = large_room();
    for (key, stored_max) in [(*map.keys().nth(31_337).unwrap(), 3), ((7 << 32) + 500_000, 4), (u64::MAX, 5)]
    {
        nodes.reset_counts();
        tree::insert(&mut nodes, root, key, 2_000_000).unwrap();
        assert!(nodes.stored <= stored_max, "{} nodes", nodes.stored);
        assert!(nodes.stored_bytes <= 2_048, "{} bytes", nodes.stored_bytes);
    }
}

#[test]
fn no_state_event_writes_more_than_4_kib() {
    // Keys and values spread over all 64 bits are what the encoding likes least, a tree grown in random order is filled worst.
    let mut nodes = Nodes::default();
    let mut random = 1u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random ^ (random >> 31)
    };
    let mut root = EMPTY;
    for _ in 0..1_000 {
        root = tree::insert_many(&mut nodes, root, (0..100).map(|_| (next(), next()))).unwrap();
    }
    for _ in 0..1_000 {
        nodes.reset_counts();
        root = tree::insert(&mut nodes, root, next(), next()).unwrap();
        assert!(nodes.stored_bytes <= 4_096, "{} bytes in {} nodes", nodes.stored_bytes, nodes.stored);
    }
}

#[test]
fn a_bulk_build_is_compact() {
    let (nodes, root, map) = large_room();
    assert_eq!(nodes.list(root).len(), map.len());
    assert!(nodes.bytes.len() <= map.len() / 40, "{} nodes", nodes.bytes.len());
    let bytes: usize = nodes.bytes.values().map(Vec::len).sum();
    assert!(bytes <= map.len() * 5, "{bytes} bytes");
}

#[test]
fn a_difference_of_ten_changes_loads_little() {
    let (mut nodes, root, map) = large_room();
    let mut changed = root;
    let mut changed_map = map.clone();
    for n in 0..10u64 {
        // Replaced, added (splitting full nodes) and removed, one snapshot after the other.
        let key = (7 << 32) + if n % 3 == 1 { 200_000 + n * 31 } else { n * 9_973 + 1 };
        let value = (n % 3 != 2).then_some(3_000_000 + n);
        match value {
            Some(value) => changed_map.insert(key, value),
            None => changed_map.remove(&key),
        };
        changed = tree::apply(&mut nodes, changed, [(key, value)]).unwrap();
    }
    nodes.reset_counts();
    let differences = nodes.diff(root, changed);
    assert_eq!(differences.len(), 10);
    assert_eq!(differences, naive_diff(&map, &changed_map));
    assert!(nodes.loads.get() < 100, "{} nodes loaded", nodes.loads.get());
}

#[test]
fn a_difference_of_trees_of_different_heights_loads_little() {
    // Just below the size where the root splits, and just above.
    let mut nodes = Nodes::default();
    let count = (ENTRIES_MAX * ENTRIES_MAX) as u64;
    let low = tree::build(&mut nodes, (0..count).map(|n| (n * 2, n))).unwrap();
    let high = tree::insert(&mut nodes, low, 1_001, 9).unwrap();
    assert_ne!(nodes.load(low).unwrap().level(), nodes.load(high).unwrap().level());
    nodes.reset_counts();
    assert_eq!(nodes.diff(low, high), [Difference { key: 1_001, before: None, after: Some(9) }]);
    assert_eq!(nodes.diff(high, low), [Difference { key: 1_001, before: Some(9), after: None }]);
    assert!(nodes.loads.get() <= 2 * 7, "{} nodes loaded", nodes.loads.get());
}

#[test]
fn one_type_is_listed_without_loading_the_rest() {
    let (nodes, root, map) = large_room();
    let few: Vec<_> = range(&nodes, root, 9 << 32..=(9 << 32) + 10).collect::<Result<_, _>>().unwrap();
    assert_eq!(few, [(9 << 32, map[&(9 << 32)])]);
    assert!(nodes.loads.get() <= 3, "{} nodes loaded", nodes.loads.get());
    let members = range(&nodes, root, (7 << 32) + 1..=(8 << 32) - 1).map(Result::unwrap);
    assert_eq!(members.count(), 100_000);
}

#[test]
fn mark_and_sweep_keeps_what_roots_reach() {
    let (mut nodes, first, _) = large_room();
    let second = tree::insert(&mut nodes, first, 3 << 32, 5).unwrap();
    let third = tree::insert(&mut nodes, second, 4 << 32, 6).unwrap();
    let expected = (nodes.list(second), nodes.list(third));
    let mut marked = HashSet::new();
    for root in [second, third] {
        reachable(&nodes, root, &mut marked).unwrap();
    }
    let before = nodes.bytes.len();
    nodes.bytes.retain(|id, _| marked.contains(id));
    // Only the path that the first root does not share.
    assert_eq!(before - nodes.bytes.len(), 3);
    assert_eq!((nodes.list(second), nodes.list(third)), expected);
    assert!(nodes.load(first).is_err());
}

#[test]
fn unsorted_entries_are_refused() {
    let mut nodes = Nodes::default();
    let error = tree::build(&mut nodes, [(1, 1), (1, 2)]).unwrap_err();
    assert_eq!(error, NodesError::Tree(TreeError::NotAscending));
}

#[test]
fn a_node_below_itself_is_an_error() {
    let mut nodes = Nodes::default();
    let root = nodes.store(Node::new(1, vec![(0, 1), (9, 1)])).unwrap();
    assert_eq!(root, 1);
    let error = NodesError::Tree(TreeError::Level { id: 1, level: 1, expected: 0 });
    assert_eq!(tree::get(&nodes, root, 5), Err(error));
    assert!(tree::get_many(&nodes, root, &[5]).is_err());
    assert!(tree::insert(&mut nodes, root, 5, 5).is_err());
    assert!(check(&nodes, root).is_err());
    assert_eq!(entries(&nodes, root).take(3).filter(Result::is_err).count(), 1);
    assert_eq!(diff(&nodes, EMPTY, root).take(3).filter(Result::is_err).count(), 1);
}

#[test]
fn a_missing_node_is_an_error_once() {
    let (mut nodes, root, _) = large_room();
    nodes.bytes.remove(&10);
    let found: Vec<_> = entries(&nodes, root).skip_while(Result::is_ok).collect();
    assert_eq!(found, [Err(NodesError::Missing(10))]);
}

#[test]
fn each_kind_of_damage_is_named() {
    let decode = |bytes: &[u8]| Node::decode(bytes).unwrap_err();
    assert_eq!(decode(&[]), NodeError::Truncated);
    assert_eq!(decode(&[0x20, 1, 0, 0, 0]), NodeError::UnknownEncoding);
    assert_eq!(decode(&[0x10, 0, 0]), NodeError::EntryCount);
    assert_eq!(decode(&[0x10, 49]), NodeError::EntryCount);
    assert_eq!(decode(&[0x10, 1, 0x80, 0, 0, 0]), NodeError::Number);
    assert_eq!(decode(&[0x10, 1, 0, 5, 1]), NodeError::NotCanonical);
    assert_eq!(decode(&[0x11, 1, 0, 0, 0]), NodeError::EmptyChild);
    assert_eq!(decode(&[0x10, 1, 0, 0, 0, 0]), NodeError::TrailingBytes);
    // u64::MAX, then a key after it.
    let mut bytes = vec![0x10, 2];
    bytes.extend([0xff; 9]);
    bytes.extend([1, 0, 0, 0, 0]);
    assert_eq!(decode(&bytes), NodeError::Number);
}
