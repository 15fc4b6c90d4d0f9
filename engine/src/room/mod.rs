//! Rooms: events, state, timeline, members and what hangs on them.

mod accept;
pub(crate) mod alias;
mod append;
mod event;
mod fork;
pub mod gap;
pub(crate) mod graph;
mod head;
pub mod members;
pub(crate) mod membership;
pub(crate) mod peer;
pub(crate) mod presets;
pub(crate) mod purge;
pub mod receipts;
pub mod receive;
mod redactions;
pub(crate) mod relations;
pub(crate) mod sending;
mod snapshot;
pub(crate) mod servers;
pub mod state;
mod stripped_state;
mod summary;
pub(crate) mod typing;
pub mod unread;
pub(crate) mod visibility;

pub(crate) use append::{NewEvent, append, create};
pub use event::Event;
pub(crate) use event::{decode_body, room_version};
pub(crate) use head::{RoomCtx, world_readable};
pub use presets::Preset;
pub use purge::{Freed, PurgeProgress};
pub use state::{Node as StateNode, StateChange};
pub use summary::RoomSummary;
pub(crate) use summary::summary;
