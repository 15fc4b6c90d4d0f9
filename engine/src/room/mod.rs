//! Rooms: events, state, timeline, members and what hangs on them.

mod append;
mod event;
mod head;
pub mod members;
mod redactions;
pub(crate) mod relations;
pub mod state;
pub(crate) mod visibility;

pub(crate) use append::{NewEvent, append};
pub use event::Event;
pub(crate) use event::room_version;
pub(crate) use head::RoomCtx;
pub use state::{Node as StateNode, StateChange};
