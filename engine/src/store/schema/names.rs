//! Singular facts, and the mapping of names to numbers. Ids 1 to 9.

use super::keyspaces;

keyspaces! { TABLE:
    #[doc = "Facts about the database itself by name: lineage, schema version, reserved positions, secrets."]
    1 FACTS: Meta, String => bytes::Bytes;
    #[doc = "The number of a room (kind 0), user (1) or text (2)."]
    2 NAME_NUMS: Names, (u8, String) => u64;
    #[doc = "The name behind a number."]
    3 NAME_TEXTS: Names, (u8, u64) => String;
}
