//! What rooms have to do with other servers. Ids 45 to 49.

use super::keyspaces;
use crate::core::num::{RoomNum, TextNum, UserNum};

keyspaces! { TABLE:
    #[doc = "The servers (ours, too) that have joined members in a room, with how many."]
    45 ROOM_SERVERS: Rooms, (RoomNum, TextNum) => u64;
    #[doc = "A room's users by server: everybody who has or had a membership there."]
    46 SERVER_USERS: Rooms, (RoomNum, TextNum, UserNum) => ();
}
