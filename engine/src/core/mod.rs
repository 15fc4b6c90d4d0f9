//! The pure part of the engine: no I/O, no clock, no randomness, no async; imports nothing above it.

pub mod acl;
pub mod auth;
pub mod checked;
pub mod deadline;
pub mod event;
pub mod filter;
pub mod glob;
pub mod identifiers;
pub mod json;
pub mod limits;
pub mod membership;
pub mod num;
pub mod power_levels;
mod property_path;
pub mod push_rules;
pub mod resolve;
pub mod version;
pub mod visibility;
