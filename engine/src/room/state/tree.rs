//! The copy-on-write search tree that holds a state snapshot: a map from state key to event, both as integers.
//!
//! Invariant: nodes are never changed; a change writes new nodes along the paths to what changed and shares all others
//! with the tree it started from, so every earlier root stays readable. All leaves are at level 0.
//! The fill of nodes is a matter of cost alone: a tree is right however full its nodes are.
//! Not here: scans and differences (`scan`), the bytes of nodes (`node`), where they are stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::node::{ENTRIES_MAX, ENTRIES_MIN, LEVEL_MAX, Node};

/// The root of the empty tree; no node has this id.
pub const EMPTY: u64 = 0;

/// Where the nodes of a room's trees are read from.
pub trait NodeRead {
    /// What can go wrong in the store or in a damaged tree.
    type Error: From<TreeError>;

    /// The node with this id. That it is missing is an error: trees name only nodes that are stored.
    fn load(&self, id: u64) -> Result<Arc<Node>, Self::Error>;

    /// The nodes with these ids, in their order; for stores that read several at once faster than one by one.
    fn load_many(&self, ids: &[u64]) -> Result<Vec<Arc<Node>>, Self::Error> {
        ids.iter().map(|&id| self.load(id)).collect()
    }
}

/// Where new nodes go.
pub trait NodeStore: NodeRead {
    /// Keeps a new node and gives it an id that is not [`EMPTY`] and was never given before.
    fn store(&mut self, node: Node) -> Result<u64, Self::Error>;
}

/// A tree that cannot be read or built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum TreeError {
    /// A node's child is not one level below it: the storage is damaged.
    #[error("state tree node {id} is at level {level} where level {expected} belongs")]
    Level {
        /// The child's node id.
        id: u64,
        /// The level that it has.
        level: u8,
        /// The level that its parent asks for.
        expected: u8,
    },
    /// Keys do not ascend from node to node: the storage is damaged.
    #[error("state tree node {id} holds keys that belong elsewhere")]
    Order {
        /// The node that holds them.
        id: u64,
    },
    /// The entries given to [`build`] do not ascend strictly: the caller's mistake.
    #[error("entries for a state tree are not in ascending order")]
    NotAscending,
    /// The tree would be higher than [`LEVEL_MAX`], which only a damaged one can be.
    #[error("a state tree is too high")]
    TooHigh,
}

/// The value of `key` in the tree `root`. Loads O(log n) nodes.
pub fn get<S: NodeRead>(store: &S, root: u64, key: u64) -> Result<Option<u64>, S::Error> {
    if root == EMPTY {
        return Ok(None);
    }
    let mut node = store.load(root)?;
    while node.level() > 0 {
        let Some(&(_, child)) = node.entries().get(node.child_index(key)) else { return Ok(None) };
        node = load_at(store, child, node.level() - 1)?;
    }
    Ok(node.value(key))
}

/// The values of `keys`, in their order. Each node is loaded once, each level with one [`NodeRead::load_many`].
pub fn get_many<S: NodeRead>(store: &S, root: u64, keys: &[u64]) -> Result<Vec<Option<u64>>, S::Error> {
    let mut values = vec![None; keys.len()];
    if root == EMPTY || keys.is_empty() {
        return Ok(values);
    }
    // Indexes into `keys` and `values`, which are equally long.
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_unstable_by_key(|&index| keys[index]);
    // One row for each key, ascending: its index in `keys` and the node to look into.
    let mut rows: Vec<(usize, u64)> = order.into_iter().map(|index| (index, root)).collect();
    let mut level = None;
    loop {
        let mut ids: Vec<u64> = rows.iter().map(|row| row.1).collect();
        ids.dedup();
        let nodes = store.load_many(&ids)?;
        let mut found = ids.iter().zip(&nodes);
        let mut current = found.next();
        for (index, id) in &mut rows {
            while current.is_some_and(|(loaded, _)| loaded != id) {
                current = found.next();
            }
            let Some((_, node)) = current else { return Ok(values) };
            check_level(*id, node, *level.get_or_insert(node.level()))?;
            if node.level() == 0 {
                values[*index] = node.value(keys[*index]);
            } else if let Some(&(_, child)) = node.entries().get(node.child_index(keys[*index])) {
                *id = child;
            }
        }
        match level {
            Some(height) if height > 0 => level = Some(height - 1),
            _ => return Ok(values),
        }
    }
}

/// The tree with `key` set to `value`: the same root if it already is. Stores O(log n) nodes.
pub fn insert<S: NodeStore>(store: &mut S, root: u64, key: u64, value: u64) -> Result<u64, S::Error> {
    apply_sorted(store, root, &[(key, Some(value))])
}

/// The tree with all `entries` set; of several values for one key the last counts. Changes share the copies of paths:
/// the state of a new room is a single node.
pub fn insert_many<S: NodeStore>(
    store: &mut S,
    root: u64,
    entries: impl IntoIterator<Item = (u64, u64)>,
) -> Result<u64, S::Error> {
    apply(store, root, entries.into_iter().map(|(key, value)| (key, Some(value))))
}

/// The tree without `key`: the same root if there is none.
pub fn remove<S: NodeStore>(store: &mut S, root: u64, key: u64) -> Result<u64, S::Error> {
    apply_sorted(store, root, &[(key, None)])
}

/// The tree with `changes` made: a value sets, `None` removes; of several changes of one key the last counts.
pub fn apply<S: NodeStore>(
    store: &mut S,
    root: u64,
    changes: impl IntoIterator<Item = (u64, Option<u64>)>,
) -> Result<u64, S::Error> {
    let changes: BTreeMap<u64, Option<u64>> = changes.into_iter().collect();
    apply_sorted(store, root, &changes.into_iter().collect::<Vec<_>>())
}

/// Builds a tree of entries that ascend strictly by key, bottom up, with full nodes: n/48 leaves and 2 % more above.
pub fn build<S: NodeStore>(
    store: &mut S,
    entries: impl IntoIterator<Item = (u64, u64)>,
) -> Result<u64, S::Error> {
    let mut above = build_level(store, 0, entries.into_iter())?;
    let mut level = 0;
    while above.len() > 1 {
        level += 1;
        if level > LEVEL_MAX {
            return Err(TreeError::TooHigh.into());
        }
        above = build_level(store, level, above.into_iter())?;
    }
    Ok(above.first().map_or(EMPTY, |&(_, root)| root))
}

/// Stores one level of a new tree; returns the entries of the level above.
fn build_level<S: NodeStore>(
    store: &mut S,
    level: u8,
    entries: impl Iterator<Item = (u64, u64)>,
) -> Result<Vec<(u64, u64)>, S::Error> {
    let mut above = Vec::new();
    let mut pending: Vec<(u64, u64)> = Vec::with_capacity(2 * ENTRIES_MAX);
    let mut last = None;
    for entry in entries {
        if last.is_some_and(|key| entry.0 <= key) {
            return Err(TreeError::NotAscending.into());
        }
        last = Some(entry.0);
        pending.push(entry);
        // The last two nodes share what is left, so that neither is nearly empty.
        if pending.len() == 2 * ENTRIES_MAX {
            let rest = pending.split_off(ENTRIES_MAX);
            above.push(store_node(store, level, std::mem::replace(&mut pending, rest))?);
        }
    }
    for part in split(pending) {
        above.push(store_node(store, level, part)?);
    }
    Ok(above)
}

/// A node that is being written. Nothing is stored before the whole change is known, so that what is split and then
/// joined again leaves no node behind that no tree uses.
enum Draft {
    Leaf(Vec<(u64, u64)>),
    Inner(Vec<Child>),
}

/// A child of a [`Draft`].
enum Child {
    /// A stored node, as it was: (smallest key, node id).
    Kept((u64, u64)),
    New(Draft),
}

impl Draft {
    fn len(&self) -> usize {
        match self {
            Draft::Leaf(entries) => entries.len(),
            Draft::Inner(children) => children.len(),
        }
    }
}

/// [`apply`] for changes that ascend strictly.
fn apply_sorted<S: NodeStore>(
    store: &mut S,
    root: u64,
    changes: &[(u64, Option<u64>)],
) -> Result<u64, S::Error> {
    if changes.is_empty() {
        return Ok(root);
    }
    let (mut level, drafts) = if root == EMPTY {
        let entries = merge(&[], changes);
        (0, (!entries.is_empty()).then(|| split(entries).into_iter().map(Draft::Leaf).collect()))
    } else {
        let node = store.load(root)?;
        (node.level(), apply_node(store, &node, changes)?)
    };
    let Some(mut drafts) = drafts else { return Ok(root) };
    while drafts.len() > 1 {
        level += 1;
        if level > LEVEL_MAX {
            return Err(TreeError::TooHigh.into());
        }
        let children = drafts.into_iter().map(Child::New).collect();
        drafts = split(children).into_iter().map(Draft::Inner).collect();
    }
    let Some(mut top) = drafts.pop() else { return Ok(EMPTY) };
    // A root with a single child is not needed.
    while let Draft::Inner(children) = &mut top
        && children.len() == 1
        && let Some(only) = children.pop()
    {
        level -= 1;
        match only {
            Child::Kept((_, id)) => return lower_root(store, id, level),
            Child::New(draft) => top = draft,
        }
    }
    Ok(store_draft(store, level, top)?.1)
}

/// The root for a tree whose root would have the only child `id`: that child, or what is below it if it is alone too.
fn lower_root<S: NodeRead>(store: &S, mut id: u64, mut level: u8) -> Result<u64, S::Error> {
    while level > 0 {
        let node = load_at(store, id, level)?;
        let [(_, only)] = *node.entries() else { break };
        (id, level) = (only, level - 1);
    }
    Ok(id)
}

/// What takes the place of `node` after `changes`: `None` if nothing changes, no draft if all is gone.
fn apply_node<S: NodeStore>(
    store: &S,
    node: &Node,
    changes: &[(u64, Option<u64>)],
) -> Result<Option<Vec<Draft>>, S::Error> {
    if node.level() == 0 {
        let entries = merge(node.entries(), changes);
        let is_changed = entries != node.entries();
        return Ok(is_changed.then(|| split(entries).into_iter().map(Draft::Leaf).collect()));
    }
    let level = node.level() - 1;
    let mut children = Vec::with_capacity(node.entries().len() + 1);
    let mut is_changed = false;
    let mut rest = changes;
    for (index, &entry) in node.entries().iter().enumerate() {
        let next = node.entries().get(index + 1);
        let end = next.map_or(rest.len(), |next| rest.partition_point(|change| change.0 < next.0));
        let (here, after) = rest.split_at(end);
        rest = after;
        let drafts = match here {
            [] => None,
            _ => apply_node(store, &*load_at(store, entry.1, level)?, here)?,
        };
        match drafts {
            None => children.push(Child::Kept(entry)),
            Some(drafts) => {
                is_changed = true;
                children.extend(drafts.into_iter().map(Child::New));
            }
        }
    }
    if !is_changed {
        return Ok(None);
    }
    join_small(store, level, &mut children)?;
    Ok(Some(split(children).into_iter().map(Draft::Inner).collect()))
}

/// Joins each new child that has too few entries with a neighbor; two that are too many for one share them.
fn join_small<S: NodeRead>(store: &S, level: u8, children: &mut Vec<Child>) -> Result<(), S::Error> {
    let mut index = 0;
    while index < children.len() && children.len() > 1 {
        let is_small = matches!(&children[index], Child::New(draft) if draft.len() < ENTRIES_MIN);
        if !is_small {
            index += 1;
            continue;
        }
        let first = index.min(children.len() - 2);
        let mut pair = children.drain(first..first + 2).collect::<Vec<_>>().into_iter();
        let (Some(left), Some(right)) = (pair.next(), pair.next()) else { return Ok(()) };
        let joined = match (open(store, level, left)?, open(store, level, right)?) {
            (Draft::Leaf(mut left), Draft::Leaf(right)) => {
                left.extend(right);
                split(left).into_iter().map(|part| Child::New(Draft::Leaf(part))).collect::<Vec<_>>()
            }
            (Draft::Inner(mut left), Draft::Inner(right)) => {
                // A child that was alone in its node has neighbors now.
                left.extend(right);
                join_small(store, level - 1, &mut left)?;
                split(left).into_iter().map(|part| Child::New(Draft::Inner(part))).collect()
            }
            // Both are at `level`; only a damaged tree can have it otherwise.
            _ => return Err(TreeError::TooHigh.into()),
        };
        children.splice(first..first, joined);
        // Either one child fewer, looked at again, or two that are half full.
        index = first;
    }
    Ok(())
}

/// A child as a draft, loaded if it is a stored node.
fn open<S: NodeRead>(store: &S, level: u8, child: Child) -> Result<Draft, S::Error> {
    Ok(match child {
        Child::New(draft) => draft,
        Child::Kept((_, id)) => {
            let node = load_at(store, id, level)?;
            match level {
                0 => Draft::Leaf(node.entries().to_vec()),
                _ => Draft::Inner(node.entries().iter().copied().map(Child::Kept).collect()),
            }
        }
    })
}

/// Stores a draft and all that is new below it; returns the entry for the level above.
fn store_draft<S: NodeStore>(store: &mut S, level: u8, draft: Draft) -> Result<(u64, u64), S::Error> {
    let entries = match draft {
        Draft::Leaf(entries) => entries,
        Draft::Inner(children) => {
            let mut entries = Vec::with_capacity(children.len());
            for child in children {
                entries.push(match child {
                    Child::Kept(entry) => entry,
                    Child::New(draft) => store_draft(store, level - 1, draft)?,
                });
            }
            entries
        }
    };
    store_node(store, level, entries)
}

/// The entries of a leaf after `changes`; both ascend.
fn merge(entries: &[(u64, u64)], changes: &[(u64, Option<u64>)]) -> Vec<(u64, u64)> {
    let mut merged = Vec::with_capacity(entries.len() + changes.len());
    let mut rest = entries;
    for &(key, value) in changes {
        let (before, from) = rest.split_at(rest.partition_point(|entry| entry.0 < key));
        merged.extend_from_slice(before);
        rest = match from {
            [(same, _), after @ ..] if *same == key => after,
            _ => from,
        };
        merged.extend(value.map(|value| (key, value)));
    }
    merged.extend_from_slice(rest);
    merged
}

/// Spreads entries or children evenly over as few nodes as hold them.
fn split<T>(items: Vec<T>) -> Vec<Vec<T>> {
    let count = items.len().div_ceil(ENTRIES_MAX);
    if count <= 1 {
        return if items.is_empty() { Vec::new() } else { vec![items] };
    }
    let mut parts = Vec::with_capacity(count);
    let mut left = items.len();
    let mut items = items.into_iter();
    for parts_left in (1..=count).rev() {
        let here = left.div_ceil(parts_left);
        left -= here;
        parts.push(items.by_ref().take(here).collect());
    }
    parts
}

/// Stores a node that is not empty; returns the entry for the level above.
fn store_node<S: NodeStore>(
    store: &mut S,
    level: u8,
    entries: Vec<(u64, u64)>,
) -> Result<(u64, u64), S::Error> {
    let low = entries.first().map_or(0, |entry| entry.0);
    Ok((low, store.store(Node::new(level, entries))?))
}

/// Loads a child and checks its level, so that no damage can make a walk go round in circles.
pub(super) fn load_at<S: NodeRead>(store: &S, id: u64, level: u8) -> Result<Arc<Node>, S::Error> {
    let node = store.load(id)?;
    check_level(id, &node, level)?;
    Ok(node)
}

/// Fails unless `node` is at `level`.
pub(super) fn check_level(id: u64, node: &Node, level: u8) -> Result<(), TreeError> {
    if node.level() == level {
        Ok(())
    } else {
        Err(TreeError::Level { id, level: node.level(), expected: level })
    }
}
