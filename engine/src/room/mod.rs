//! Rooms: events, state, timeline, members and what hangs on them.

pub mod state;
