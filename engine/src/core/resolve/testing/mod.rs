//! Rooms in memory for the tests, fuzz targets and benches of resolution. Nothing else may use it.

mod history;
mod reference;
mod room;

pub use history::History;
pub use reference::{auth_difference, resolve_v1, subgraph};
pub use room::{Room, State, Unknown, pdu};
