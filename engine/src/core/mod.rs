//! The pure part of the engine: no I/O, no clock, no randomness, no async; imports nothing above it.

pub mod event;
pub mod identifiers;
pub mod json;
pub mod version;
