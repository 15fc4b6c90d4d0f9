//! The state of rooms: snapshots as persistent search trees.
//!
//! Invariant: a snapshot is named by the id of its tree's root and never changes; [`tree::EMPTY`] is the empty one.
//! Not here: which events make up the state (`core::resolve`), and the rows of the current state.

pub mod node;
pub mod scan;
pub mod tree;

#[cfg(test)]
mod tests;
