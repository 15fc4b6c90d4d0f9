//! Whether another server is somebody here knows, or a name that anybody may have made up.

use crate::{
    core::num::{RoomNum, StreamPos, TextNum},
    error::Result,
    store::{Direction, Reader, schema},
    view::View,
};

/// Whether a server is in a room that this one is, or was, in, as far as that is known here. O(rooms that it ever was in).
pub struct SharesRoom<'a>(pub &'a str);

impl View for SharesRoom<'_> {
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        let Some(server) = reader.text_num(self.0)? else { return Ok(false) };
        let mut is_there = false;
        reader.scan(
            &schema::SERVER_STAYS,
            &server,
            Direction::Forward,
            |_: (TextNum, RoomNum, StreamPos), end| {
                is_there = end == StreamPos::MAX;
                !is_there
            },
        )?;
        Ok(is_there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::World;

    const ROOM: &str = "!room:here.example";
    const OTHER_ROOM: &str = "!other:here.example";
    const ALICE: &str = "@alice:here.example";
    const BOB: &str = "@bob:there.example";

    #[test]
    fn a_server_counts_while_it_is_in_a_room() {
        let world = World::new();
        let shares = || world.engine.read(&SharesRoom("there.example")).unwrap();
        assert!(!shares());
        world.room(ROOM, ALICE, None);
        world.room(OTHER_ROOM, ALICE, None);
        assert!(!shares());
        world.join(ROOM, BOB);
        assert!(shares());
        world.leave(ROOM, BOB);
        assert!(!shares());
        world.join(OTHER_ROOM, BOB);
        assert!(shares());
    }
}
