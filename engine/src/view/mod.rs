//! One file per read: a view answers a question from one published moment.

mod account;
mod joined_rooms;
mod public_rooms;
#[allow(dead_code)]
pub(crate) mod render;
mod room_alias;
mod room_state;
pub mod token;

pub use account::*;
pub use joined_rooms::JoinedRooms;
pub use public_rooms::{IsListed, PUBLIC_ROOMS_MAX, PublicRooms, PublicRoomsPage};
pub use room_alias::{RoomAlias, RoomAliases};
pub use room_state::{RoomState, RoomStateEvent};
pub use token::StreamToken;

use crate::{error::Result, store::Reader};

/// A question.
pub trait View {
    /// The answer.
    type Output;

    /// Answers from the reader's moment.
    fn read(&self, reader: &Reader) -> Result<Self::Output>;
}

/// What views remember between reads. Nothing in it is needed: it can be forgotten at any time.
#[derive(Default)]
pub(crate) struct Memo {}
