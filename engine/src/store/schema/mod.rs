//! THE TABLE: every keyspace with its id byte, key, value, family and one sentence.
//!
//! Invariant: an id byte, once released, is never used for anything else.

use std::marker::PhantomData;

use bytes::Bytes;

use super::{Family, RestOfKey, StorageError, Value};

mod account;
mod device;
mod federation;
mod media;
mod names;
mod origins;
mod outbox;
mod presence;
mod purge;
mod remote;
mod room;

pub use account::*;
pub use device::*;
pub use federation::*;
pub use media::*;
pub use names::*;
pub use origins::{ORIGINS, Origin};
pub use outbox::*;
pub use presence::*;
pub use purge::*;
pub use remote::*;
pub use room::*;

/// A typed part of the store: all keys that begin with its id byte.
pub struct Keyspace<K, V> {
    /// The first byte of each of its keys.
    pub id: u8,
    /// Its name, a plural noun.
    pub name: &'static str,
    /// Where it is stored.
    pub family: Family,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V: Value> Keyspace<K, V> {
    const fn new(id: u8, name: &'static str, family: Family) -> Self {
        Self { id, name, family, types: PhantomData }
    }

    /// The same rows, not decoded.
    pub(crate) fn raw(&self) -> Keyspace<RestOfKey, Bytes> {
        Keyspace::new(self.id, self.name, self.family)
    }

    pub(crate) fn corrupt(&self) -> StorageError {
        StorageError::Corrupt(format!("a row of {} cannot be read", self.name))
    }

    pub(crate) fn read_value(&self, bytes: &Bytes) -> Result<V, StorageError> {
        V::read(bytes).ok_or_else(|| self.corrupt())
    }
}

/// One row of the table, for the documentation and for fuzz targets.
#[derive(Clone, Copy, Debug)]
pub struct KeyspaceRow {
    /// The first byte of each key.
    pub id: u8,
    /// The keyspace's name.
    pub name: &'static str,
    /// Where it is stored.
    pub family: Family,
    /// The type of its keys.
    pub key: &'static str,
    /// The type of its values.
    pub value: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Reads bytes as one of its keys, and writes it again.
    #[cfg(feature = "testing")]
    pub rewritten_key: super::testing::Rewritten,
    /// Reads bytes as one of its values, and writes it again.
    #[cfg(feature = "testing")]
    pub rewritten_value: super::testing::Rewritten,
}

/// Declares the keyspaces of one topic: constants, and their rows for the table.
macro_rules! keyspaces {
    ($table:ident: $(#[doc = $about:literal] $id:literal $name:ident: $family:ident, $key:ty => $value:ty;)*) => {
        $(
            #[doc = $about]
            pub const $name: $crate::store::schema::Keyspace<$key, $value> =
                $crate::store::schema::Keyspace::new($id, stringify!($name), $crate::store::Family::$family);
        )*
        pub(super) const $table: &[$crate::store::schema::KeyspaceRow] = &[
            $($crate::store::schema::KeyspaceRow {
                id: $id,
                name: stringify!($name),
                family: $crate::store::Family::$family,
                key: stringify!($key),
                value: stringify!($value),
                about: $about,
                #[cfg(feature = "testing")]
                rewritten_key: $crate::store::testing::rewritten_key::<$key>,
                #[cfg(feature = "testing")]
                rewritten_value: $crate::store::testing::rewritten_value::<$value>,
            },)*
        ];
    };
}
pub(crate) use keyspaces;

/// The topics, each a file beside this one.
const TOPICS: &[&[KeyspaceRow]] = &[
    names::TABLE,
    room::TABLE,
    federation::TABLE,
    presence::TABLE,
    purge::TABLE,
    account::TABLE,
    device::TABLE,
    media::TABLE,
    remote::TABLE,
    outbox::TABLE,
];

/// The whole table, in the order of the id bytes.
pub fn table() -> Vec<KeyspaceRow> {
    let mut rows: Vec<KeyspaceRow> = TOPICS.iter().copied().flatten().copied().collect();
    rows.sort_by_key(|row| row.id);
    rows
}

/// The family of each keyspace, by id byte.
const FAMILIES: [Option<Family>; 256] = families();

const fn families() -> [Option<Family>; 256] {
    let mut families = [None; 256];
    let mut topic = 0;
    while topic < TOPICS.len() {
        let mut row = 0;
        while row < TOPICS[topic].len() {
            families[TOPICS[topic][row].id as usize] = Some(TOPICS[topic][row].family);
            row += 1;
        }
        topic += 1;
    }
    families
}

/// Where a key is stored; nothing for one of no keyspace.
pub(crate) fn family_of(key: &[u8]) -> Option<Family> {
    FAMILIES.get(usize::from(*key.first()?)).copied().flatten()
}

const fn ids_are_unique() -> bool {
    let mut seen = [false; 256];
    let mut topic = 0;
    while topic < TOPICS.len() {
        let mut row = 0;
        while row < TOPICS[topic].len() {
            let id = TOPICS[topic][row].id as usize;
            // The last byte is not used, so that every prefix has an end.
            if seen[id] || id == 255 {
                return false;
            }
            seen[id] = true;
            row += 1;
        }
        topic += 1;
    }
    true
}

const _: () = assert!(ids_are_unique(), "two keyspaces share an id byte");

#[cfg(test)]
mod tests {
    /// `docs/storage.md` is this table; `UPDATE_DOCS=1` writes it anew.
    #[test]
    fn the_documentation_lists_every_keyspace() {
        let mut text = String::from(
            "# Keyspaces\n\nMade from the schema table. What follows from other rows is what `warren check --repair` makes anew.\n\n| id | name | family | key | value | what it is | what it follows from |\n|---|---|---|---|---|---|---|\n",
        );
        for row in super::table() {
            let (id, name, family, about) = (row.id, row.name, row.family, row.about.trim());
            let mut origins = super::ORIGINS.iter().filter(|(of, _)| *of == name);
            let (Some((_, origin)), None) = (origins.next(), origins.next()) else {
                panic!("{name} must stand in origins.rs once: what do its rows follow from?");
            };
            text.push_str(&format!(
                "| {id} | {name} | {family:?} | `{}` | `{}` | {about} | {origin} |\n",
                row.key, row.value
            ));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/storage.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap() == text,
            "docs/storage.md differs: run with UPDATE_DOCS=1"
        );
    }
}
