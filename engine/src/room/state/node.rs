//! One node of a state tree: its shape and its bytes.
//!
//! Invariant: a node holds 1 to [`ENTRIES_MAX`] entries, keys strictly ascending; an inner node's key is the smallest
//! key below that child. Each node has exactly one encoding, and bytes that are not that encoding are refused.
//! Not here: how nodes form a tree (`tree`), where they are stored.

use super::tree::EMPTY;

/// Most entries in one node.
///
/// A varint of 64 bits takes up to 10 bytes, so a node of random keys and values takes at most about 1 KiB, and the four
/// levels of a tree of 100,000 entries that is filled worst stay under 4 KiB. Real nodes, with dense keys and event
/// numbers, take a third of it.
pub const ENTRIES_MAX: usize = 48;

/// Fewest entries that a rewritten node keeps before it is joined with a neighbor. A quarter, not half, so that a
/// node that was just split or joined has room for changes both ways.
pub const ENTRIES_MIN: usize = ENTRIES_MAX / 4;

/// Highest level of a node. Sixteen levels of nodes that are a quarter full hold 12^16 entries, far more than there
/// can be; the limit bounds what corrupt nodes can cost.
pub const LEVEL_MAX: u8 = 15;

/// The first byte of a node is this plus its level: the version of the encoding in the upper four bits.
const VERSION: u8 = 0x10;

/// An immutable node: a leaf (level 0) of (key, value) or an inner node of (smallest key below, child's node id).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    level: u8,
    entries: Box<[(u64, u64)]>,
}

/// Why bytes are not a node. The storage is damaged, or was written by a newer version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum NodeError {
    /// The bytes end within the node.
    #[error("a state tree node is cut short")]
    Truncated,
    /// Bytes follow the node.
    #[error("a state tree node has bytes after its end")]
    TrailingBytes,
    /// The first byte names an encoding that this version does not know.
    #[error("a state tree node has an unknown encoding or level")]
    UnknownEncoding,
    /// No entries, or more than [`ENTRIES_MAX`].
    #[error("a state tree node has an impossible number of entries")]
    EntryCount,
    /// A number is longer than it needs to be, or does not fit 64 bits.
    #[error("a state tree node holds a malformed number")]
    Number,
    /// The values' base is not the smallest of them.
    #[error("a state tree node's values are not encoded canonically")]
    NotCanonical,
    /// A child has the id of the empty tree.
    #[error("a state tree node has an empty child")]
    EmptyChild,
}

impl Node {
    /// Builds a node within the tree's code, which keeps the invariant.
    pub(super) fn new(level: u8, entries: Vec<(u64, u64)>) -> Self {
        debug_assert!(entries.len() <= ENTRIES_MAX);
        debug_assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
        Node { level, entries: entries.into() }
    }

    /// 0 for a leaf; a node's children are one level lower.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// (key, value) of a leaf; (smallest key below, child's node id) of an inner node. Keys ascend strictly.
    pub fn entries(&self) -> &[(u64, u64)] {
        &self.entries
    }

    /// Node ids of the children; nothing for a leaf.
    pub fn children(&self) -> impl Iterator<Item = u64> + '_ {
        let inner: &[(u64, u64)] = if self.level == 0 { &[] } else { &self.entries };
        inner.iter().map(|&(_, child)| child)
    }

    /// The value of `key` in this leaf.
    pub(super) fn value(&self, key: u64) -> Option<u64> {
        let at = self.entries.binary_search_by_key(&key, |entry| entry.0).ok()?;
        self.entries.get(at).map(|entry| entry.1)
    }

    /// Index of the child of this inner node under which `key` belongs.
    pub(super) fn child_index(&self, key: u64) -> usize {
        self.entries.partition_point(|entry| entry.0 <= key).saturating_sub(1)
    }

    /// Heap and inline size in bytes, for the budget of a cache.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.entries)
    }

    /// Writes the node: version and level, count, keys as differences, then values relative to the smallest of them.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.entries.len() * 6);
        bytes.push(VERSION | self.level);
        put_number(&mut bytes, self.entries.len() as u64);
        let mut next = 0;
        for &(key, _) in &self.entries {
            put_number(&mut bytes, key - next);
            // Keys ascend strictly, so the next one is at least this; after the last it is not used.
            next = key.wrapping_add(1);
        }
        let base = self.entries.iter().map(|entry| entry.1).min().unwrap_or(0);
        put_number(&mut bytes, base);
        for &(_, value) in &self.entries {
            put_number(&mut bytes, value - base);
        }
        bytes
    }

    /// Reads what [`Node::encode`] wrote.
    ///
    /// # Errors
    /// Anything that `encode` cannot have written, see [`NodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NodeError> {
        let (&first, mut rest) = bytes.split_first().ok_or(NodeError::Truncated)?;
        let level = first & 0x0f;
        if first & 0xf0 != VERSION || level > LEVEL_MAX {
            return Err(NodeError::UnknownEncoding);
        }
        let count = usize::try_from(take_number(&mut rest)?).map_err(|_| NodeError::EntryCount)?;
        if count == 0 || count > ENTRIES_MAX {
            return Err(NodeError::EntryCount);
        }
        let mut entries = Vec::with_capacity(count);
        let mut next = Some(0u64);
        for _ in 0..count {
            let step = take_number(&mut rest)?;
            let key = next.and_then(|lowest| lowest.checked_add(step)).ok_or(NodeError::Number)?;
            entries.push((key, 0));
            next = key.checked_add(1);
        }
        let base = take_number(&mut rest)?;
        let mut is_base_used = false;
        for entry in &mut entries {
            let above = take_number(&mut rest)?;
            is_base_used |= above == 0;
            entry.1 = base.checked_add(above).ok_or(NodeError::Number)?;
            if level > 0 && entry.1 == EMPTY {
                return Err(NodeError::EmptyChild);
            }
        }
        if !rest.is_empty() {
            return Err(NodeError::TrailingBytes);
        }
        if !is_base_used {
            return Err(NodeError::NotCanonical);
        }
        Ok(Node { level, entries: entries.into() })
    }
}

/// Appends `number` in groups of seven bits, the lowest first, the top bit set on all but the last.
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes what [`put_number`] wrote from the front of `bytes`; only the shortest form is accepted.
fn take_number(bytes: &mut &[u8]) -> Result<u64, NodeError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(NodeError::Truncated)?;
        *bytes = rest;
        let group = u64::from(byte & 0x7f);
        if shift == 63 && group > 1 {
            return Err(NodeError::Number);
        }
        number |= group << shift;
        if byte & 0x80 == 0 {
            return if byte == 0 && shift > 0 { Err(NodeError::Number) } else { Ok(number) };
        }
    }
    Err(NodeError::Number)
}
