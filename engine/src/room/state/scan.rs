//! Walks over state trees: ranges, differences, what is reachable, and whether a tree is whole.
//!
//! Invariant: a walk loads each node at most once, and a difference loads nothing of what both trees share except along
//! the paths to where they differ.
//! Not here: changes (`tree`).

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::node::Node;
use super::tree::{EMPTY, NodeRead, TreeError, check_level, load_at};

/// The entries of the tree `root` whose keys are in `keys`, ascending: one event type is one range.
///
/// Loads O(log n) nodes and those that hold the result; leaves side by side are loaded together.
pub fn range<S: NodeRead>(store: &S, root: u64, keys: RangeInclusive<u64>) -> Range<'_, S> {
    let (start, end) = keys.into_inner();
    let unloaded = if start > end { EMPTY } else { root };
    Range { store, start, end, unloaded, inner: Vec::new(), leaves: Vec::new().into_iter(), leaf: None }
}

/// All entries of the tree `root`, ascending.
pub fn entries<S: NodeRead>(store: &S, root: u64) -> Range<'_, S> {
    range(store, root, 0..=u64::MAX)
}

/// The iterator of [`range`]; it ends after an error.
pub struct Range<'a, S> {
    store: &'a S,
    start: u64,
    end: u64,
    /// The root until the first step, then [`EMPTY`].
    unloaded: u64,
    /// Inner nodes from the root down, each with the index of the child to go to next.
    inner: Vec<(Arc<Node>, usize)>,
    /// Leaves loaded ahead.
    leaves: std::vec::IntoIter<Arc<Node>>,
    /// The leaf being read and the index of the next entry.
    leaf: Option<(Arc<Node>, usize)>,
}

impl<S: NodeRead> Iterator for Range<'_, S> {
    type Item = Result<(u64, u64), S::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((leaf, index)) = &mut self.leaf {
                match leaf.entries().get(*index) {
                    Some(entry) if entry.0 <= self.end => {
                        *index += 1;
                        return Some(Ok(*entry));
                    }
                    Some(_) => {
                        self.stop();
                        return None;
                    }
                    None => self.leaf = None,
                }
            }
            match self.leaves.next() {
                Some(leaf) => self.enter(leaf),
                None => match self.load_more() {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(error) => {
                        self.stop();
                        return Some(Err(error));
                    }
                },
            }
        }
    }
}

impl<S: NodeRead> Range<'_, S> {
    fn stop(&mut self) {
        self.unloaded = EMPTY;
        self.inner.clear();
        self.leaves = Vec::new().into_iter();
        self.leaf = None;
    }

    /// Starts to read a node at the first entry that can be in the range.
    fn enter(&mut self, node: Arc<Node>) {
        if node.level() == 0 {
            let index = node.entries().partition_point(|entry| entry.0 < self.start);
            self.leaf = Some((node, index));
        } else {
            let index = node.child_index(self.start);
            self.inner.push((node, index));
        }
    }

    /// Loads the next inner node, or all the leaves of one; false when the walk is over.
    fn load_more(&mut self) -> Result<bool, S::Error> {
        if self.unloaded != EMPTY {
            let root = std::mem::replace(&mut self.unloaded, EMPTY);
            self.enter(self.store.load(root)?);
            return Ok(true);
        }
        let Some((node, index)) = self.inner.last_mut() else { return Ok(false) };
        let level = node.level() - 1;
        let rest = node.entries().get(*index..).unwrap_or_default();
        let reached = rest.partition_point(|entry| entry.0 <= self.end);
        if level == 0 {
            let ids: Vec<u64> = rest.iter().take(reached).map(|entry| entry.1).collect();
            self.inner.pop();
            let leaves = self.store.load_many(&ids)?;
            for (&id, leaf) in ids.iter().zip(&leaves) {
                check_level(id, leaf, level)?;
            }
            self.leaves = leaves.into_iter();
        } else if let Some(&(_, id)) = rest.first().filter(|_| reached > 0) {
            *index += 1;
            let child = load_at(self.store, id, level)?;
            self.enter(child);
        } else {
            self.inner.pop();
        }
        Ok(true)
    }
}

/// A key whose value differs between two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: u64,
    /// Its value in the first tree.
    pub before: Option<u64>,
    /// Its value in the second tree.
    pub after: Option<u64>,
}

/// The keys in which the trees `before` and `after` differ, ascending.
///
/// Subtrees that both share are skipped, so trees that descend from each other, or from a common tree, cost
/// O(differences · log n) loads, of whatever heights they are.
pub fn diff<S: NodeRead>(store: &S, before: u64, after: u64) -> Diff<'_, S> {
    let roots = if before == after { None } else { Some((before, after)) };
    Diff { roots, before: Cursor { store, path: Vec::new() }, after: Cursor { store, path: Vec::new() } }
}

/// The iterator of [`diff`]; it ends after an error.
pub struct Diff<'a, S> {
    roots: Option<(u64, u64)>,
    before: Cursor<'a, S>,
    after: Cursor<'a, S>,
}

impl<S: NodeRead> Iterator for Diff<'_, S> {
    type Item = Result<Difference, S::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.step();
        if next.is_err() {
            self.before.path.clear();
            self.after.path.clear();
        }
        next.transpose()
    }
}

impl<S: NodeRead> Diff<'_, S> {
    fn step(&mut self) -> Result<Option<Difference>, S::Error> {
        if let Some((before, after)) = self.roots.take() {
            self.before.start(before)?;
            self.after.start(after)?;
        }
        loop {
            self.skip_equal();
            let (order, value_before, value_after) = match (self.before.at(), self.after.at()) {
                (None, None) => return Ok(None),
                (Some(At::Entry(_, value)), None) => (Ordering::Less, Some(value), None),
                (None, Some(At::Entry(_, value))) => (Ordering::Greater, None, Some(value)),
                (Some(At::Entry(a, x)), Some(At::Entry(b, y))) => (a.cmp(&b), Some(x), Some(y)),
                (Some(At::Entry(a, x)), Some(At::Child { low, .. })) if a < low => {
                    (Ordering::Less, Some(x), None)
                }
                (Some(At::Child { low, .. }), Some(At::Entry(b, y))) if b < low => {
                    (Ordering::Greater, None, Some(y))
                }
                (
                    Some(At::Child { low: a, id: x, level: l }),
                    Some(At::Child { low: b, id: y, level: m }),
                ) => {
                    if x == y {
                        self.before.advance();
                        self.after.advance();
                        continue;
                    }
                    // Go down where the taller child is, else where the smaller keys are, so that both stay side by side.
                    let order = l.cmp(&m).then(b.cmp(&a));
                    if order.is_ge() {
                        self.before.descend()?;
                    }
                    if order.is_le() {
                        self.after.descend()?;
                    }
                    continue;
                }
                (Some(At::Child { .. }), _) => {
                    self.before.descend()?;
                    continue;
                }
                (_, Some(At::Child { .. })) => {
                    self.after.descend()?;
                    continue;
                }
            };
            if let Some(difference) = self.take(order, value_before, value_after) {
                return Ok(Some(difference));
            }
        }
    }

    /// Steps over what both have alike from where they stand on, entries or subtrees, as far as their nodes go.
    fn skip_equal(&mut self) {
        let (Some((before, at)), Some((after, other_at))) = (self.before.path.last(), self.after.path.last())
        else {
            return;
        };
        if before.level() != after.level() {
            return;
        }
        let before = before.entries().get(*at..).unwrap_or_default();
        let both = before.iter().zip(after.entries().get(*other_at..).unwrap_or_default());
        let equal = both.take_while(|(before, after)| before == after).count();
        if equal > 0 {
            self.before.advance_by(equal);
            self.after.advance_by(equal);
        }
    }

    /// Steps over the entry that is first, or over both; the difference, if they are one.
    fn take(&mut self, order: Ordering, before: Option<u64>, after: Option<u64>) -> Option<Difference> {
        let key = match order {
            Ordering::Less | Ordering::Equal => self.before.key(),
            Ordering::Greater => self.after.key(),
        }?;
        let before = before.filter(|_| order.is_le());
        let after = after.filter(|_| order.is_ge());
        if order.is_le() {
            self.before.advance();
        }
        if order.is_ge() {
            self.after.advance();
        }
        (before != after).then_some(Difference { key, before, after })
    }
}

/// A place in a tree: the path from the root, each node with the index of the entry that is being visited.
struct Cursor<'a, S> {
    store: &'a S,
    path: Vec<(Arc<Node>, usize)>,
}

/// What a cursor stands before.
enum At {
    /// An entry of a leaf: (key, value).
    Entry(u64, u64),
    /// A subtree, not loaded.
    Child { low: u64, id: u64, level: u8 },
}

impl<S: NodeRead> Cursor<'_, S> {
    fn start(&mut self, root: u64) -> Result<(), S::Error> {
        if root != EMPTY {
            self.path.push((self.store.load(root)?, 0));
        }
        Ok(())
    }

    fn at(&self) -> Option<At> {
        let (node, index) = self.path.last()?;
        let &(key, value) = node.entries().get(*index)?;
        Some(match node.level() {
            0 => At::Entry(key, value),
            level => At::Child { low: key, id: value, level: level - 1 },
        })
    }

    fn key(&self) -> Option<u64> {
        let (node, index) = self.path.last()?;
        node.entries().get(*index).map(|entry| entry.0)
    }

    /// Goes past what the cursor stands before, and up where a node is done.
    fn advance(&mut self) {
        self.advance_by(1);
    }

    /// Goes past so much of the node that the cursor is in, and up where it is done.
    fn advance_by(&mut self, count: usize) {
        let mut count = count;
        while let Some((node, index)) = self.path.last_mut() {
            *index += count;
            if *index < node.entries().len() {
                return;
            }
            self.path.pop();
            count = 1;
        }
    }

    /// Goes into the subtree that the cursor stands before.
    fn descend(&mut self) -> Result<(), S::Error> {
        if let Some(At::Child { id, level, .. }) = self.at() {
            self.path.push((load_at(self.store, id, level)?, 0));
        }
        Ok(())
    }
}

/// Adds the ids of all nodes of the tree `root` to `marked`, for mark and sweep within a room.
///
/// A subtree whose root is marked is taken to be marked whole, so the cost over all roots of a room is one load for each
/// inner node that any of them reaches; leaves are marked without loading them, unless one is a root itself.
pub fn reachable<S: NodeRead>(store: &S, root: u64, marked: &mut HashSet<u64>) -> Result<(), S::Error> {
    if root == EMPTY || !marked.insert(root) {
        return Ok(());
    }
    let mut pending = vec![store.load(root)?];
    while let Some(node) = pending.pop() {
        for child in node.children() {
            if marked.insert(child) && node.level() > 1 {
                pending.push(load_at(store, child, node.level() - 1)?);
            }
        }
    }
    Ok(())
}

/// Whether the tree `root` is whole: loads every node once and fails at the first that is not where it belongs.
/// Returns the number of entries.
pub fn check<S: NodeRead>(store: &S, root: u64) -> Result<u64, S::Error> {
    if root == EMPTY {
        return Ok(0);
    }
    check_below(store, root, &*store.load(root)?, 0..=u64::MAX)
}

/// [`check`] for a loaded node whose keys are to be in `keys`.
fn check_below<S: NodeRead>(
    store: &S,
    id: u64,
    node: &Node,
    keys: RangeInclusive<u64>,
) -> Result<u64, S::Error> {
    let entries = node.entries();
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Err(TreeError::Order { id }.into());
    };
    if first.0 < *keys.start() || last.0 > *keys.end() {
        return Err(TreeError::Order { id }.into());
    }
    if node.level() == 0 {
        return Ok(entries.len() as u64);
    }
    let mut count = 0;
    for (index, &(low, child_id)) in entries.iter().enumerate() {
        let end = entries.get(index + 1).map_or(*keys.end(), |next| next.0 - 1);
        let child = load_at(store, child_id, node.level() - 1)?;
        if child.entries().first().is_none_or(|entry| entry.0 != low) {
            return Err(TreeError::Order { id: child_id }.into());
        }
        count += check_below(store, child_id, &child, low..=end)?;
    }
    Ok(count)
}
