//! Fuzz targets: plain functions that take any bytes and panic if a promise is broken.
//!
//! `tests/corpus.rs` replays the corpora with every test run; `libfuzzer/` searches for new inputs (`./x fuzz`). What a
//! search finds is fixed and its input added to the corpus.

#![forbid(unsafe_code)]

mod authorisation;
mod choices;
mod events;
mod graph;
mod json;
pub mod oracle;
mod receiving;
mod resolution;
mod server;
mod store;
mod text;

pub use authorisation::auth_rules;
pub use events::event;
pub use json::canonical_json;
pub use receiving::receive;
pub use resolution::resolution;
pub use store::keys_and_values;
pub use text::{filter, query};

/// A target: its name, which is also its corpus folder's, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("auth_rules", auth_rules),
    ("canonical_json", canonical_json),
    ("event", event),
    ("filter", filter),
    ("keys_and_values", keys_and_values),
    ("query", query),
    ("receive", receive),
    ("resolution", resolution),
];
