//! Rooms in memory for the tests, fuzz targets and benches of resolution. Nothing else may use it.

mod room;

pub use room::{Room, State, Unknown, pdu};
