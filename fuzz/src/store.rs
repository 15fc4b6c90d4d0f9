//! Keys and values of the store: any bytes decode to nothing, or to what encodes to the same again.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use warren_engine::store::schema;
use warren_engine::store::testing::Rewritten;

/// The types of the schema's keys, and those of its values, by their names.
static TYPES: LazyLock<[BTreeMap<&str, Rewritten>; 2]> = LazyLock::new(|| {
    let rows = schema::table();
    let keys = rows.iter().map(|row| (row.key, row.rewritten_key)).collect();
    let values = rows.iter().map(|row| (row.value, row.rewritten_value)).collect();
    [keys, values]
});

/// Reads the bytes as every shape of key and as every kind of row that the schema has.
pub fn keys_and_values(bytes: &[u8]) {
    let [keys, values] = &*TYPES;
    for (name, rewritten) in keys {
        if let Some(key) = rewritten(bytes) {
            assert_eq!(key, bytes, "a key with two encodings: {name}");
        }
    }
    for (name, rewritten) in values {
        // Integers can be written longer than need be, so that bytes from elsewhere may become shorter: once.
        let Some(written) = rewritten(bytes) else { continue };
        assert_eq!(
            rewritten(&written).as_ref(),
            Some(&written),
            "a row that changes when it is written again: {name}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_every_topic_are_read() {
        let [keys, values] = &*TYPES;
        for key in ["String", "(UserNum, UserNum, TextNum, String)", "TokenHash", "(u8, TokenHash)"] {
            assert!(keys.contains_key(key), "{key}");
        }
        let kinds = ["Account", "KeyStock", "OutOfBand", "MediaRow", "Purge", "StoredServerKey", "UserNews"];
        for value in kinds.into_iter().chain(["Destination", "StatusMessage", "Positioned<EventHeader>"]) {
            assert!(values.contains_key(value), "{value}");
        }
    }
}
