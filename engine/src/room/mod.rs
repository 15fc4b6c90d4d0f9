//! Rooms: events, state, timeline, members and what hangs on them.

pub(crate) mod alias;
mod append;
mod event;
mod head;
pub mod members;
pub(crate) mod membership;
pub(crate) mod presets;
pub mod receipts;
mod redactions;
pub(crate) mod relations;
pub(crate) mod sending;
pub mod state;
mod stripped_state;
mod summary;
pub(crate) mod tail;
pub(crate) mod typing;
pub mod unread;
pub(crate) mod visibility;

pub(crate) use append::{NewEvent, append, create};
pub use event::Event;
pub(crate) use event::{decode_body, room_version};
pub(crate) use head::{RoomCtx, world_readable};
pub use presets::Preset;
pub use state::{Node as StateNode, StateChange};
pub use summary::RoomSummary;
pub(crate) use summary::summary;
