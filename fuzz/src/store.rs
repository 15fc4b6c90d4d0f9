//! Keys and values of the store: any bytes decode to nothing, or to what encodes to the same again.

use warren_engine::core::num::{EventNum, NodeId, RoomNum, StreamPos, TextNum, UserNum};
use warren_engine::store::Positioned;
use warren_engine::store::schema::{
    Alias, EventHeader, MediaRow, Receipt, Relation, RoomHead, Thread, UserNews, UserRoom,
};
use warren_engine::store::testing::{rewritten_key, rewritten_value};

/// Reads the bytes as every shape of key and as every kind of row.
pub fn keys_and_values(bytes: &[u8]) {
    let keys = [
        rewritten_key::<String>(bytes),
        rewritten_key::<EventNum>(bytes),
        rewritten_key::<(u8, u64)>(bytes),
        rewritten_key::<(u8, String)>(bytes),
        rewritten_key::<(RoomNum, StreamPos)>(bytes),
        rewritten_key::<(RoomNum, NodeId)>(bytes),
        rewritten_key::<(RoomNum, u8, UserNum)>(bytes),
        rewritten_key::<(RoomNum, EventNum, StreamPos)>(bytes),
        rewritten_key::<(RoomNum, UserNum, u8, TextNum)>(bytes),
        rewritten_key::<(UserNum, TextNum, String)>(bytes),
        rewritten_key::<(UserNum, u64, String)>(bytes),
    ];
    for key in keys.into_iter().flatten() {
        assert_eq!(key, bytes, "a key with two encodings");
    }
    let values = [
        rewritten_value::<String>,
        rewritten_value::<StreamPos>,
        rewritten_value::<EventHeader>,
        rewritten_value::<Positioned<EventHeader>>,
        rewritten_value::<RoomHead>,
        rewritten_value::<UserRoom>,
        rewritten_value::<Relation>,
        rewritten_value::<Receipt>,
        rewritten_value::<Alias>,
        rewritten_value::<Thread>,
        rewritten_value::<UserNews>,
        rewritten_value::<MediaRow>,
        rewritten_value::<Vec<EventNum>>,
    ];
    for rewritten in values {
        // Integers can be written longer than need be, so that bytes from elsewhere may become shorter: once.
        let Some(written) = rewritten(bytes) else { continue };
        assert_eq!(
            rewritten(&written).as_ref(),
            Some(&written),
            "a row that changes when it is written again"
        );
    }
}
