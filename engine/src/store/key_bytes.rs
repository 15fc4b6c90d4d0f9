//! The bytes of a key. Nearly all are short and lie in place, so that maps of rows compare them without looking elsewhere, and
//! a key costs no allocation.
//!
//! Invariant: only the bytes count; where they lie makes no difference.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    ops::{Deref, DerefMut},
};

/// The longest key that lies in place: that of an event by its id has 45 bytes, and most names are shorter.
const IN_PLACE_MAX: usize = 54;

/// The bytes of a key.
#[derive(Clone, Debug)]
pub enum KeyBytes {
    /// So many of these.
    InPlace(u8, [u8; IN_PLACE_MAX]),
    /// A longer key.
    Elsewhere(Vec<u8>),
}

impl KeyBytes {
    /// Appends a byte.
    pub fn push(&mut self, byte: u8) {
        self.extend_from_slice(&[byte]);
    }

    /// Appends bytes.
    pub fn extend_from_slice(&mut self, more: &[u8]) {
        match self {
            Self::InPlace(len, bytes) => {
                let start = usize::from(*len);
                match bytes.get_mut(start..start + more.len()) {
                    Some(place) => {
                        place.copy_from_slice(more);
                        *len += more.len() as u8;
                    }
                    None => *self = Self::Elsewhere([&**self, more].concat()),
                }
            }
            Self::Elsewhere(bytes) => bytes.extend_from_slice(more),
        }
    }
}

impl Default for KeyBytes {
    fn default() -> Self {
        Self::InPlace(0, [0; IN_PLACE_MAX])
    }
}

impl From<&[u8]> for KeyBytes {
    fn from(bytes: &[u8]) -> Self {
        let mut key = Self::default();
        key.extend_from_slice(bytes);
        key
    }
}

impl From<Vec<u8>> for KeyBytes {
    fn from(bytes: Vec<u8>) -> Self {
        KeyBytes::from(bytes.as_slice())
    }
}

impl From<KeyBytes> for Vec<u8> {
    fn from(key: KeyBytes) -> Self {
        match key {
            KeyBytes::Elsewhere(bytes) => bytes,
            in_place => in_place.to_vec(),
        }
    }
}

impl Deref for KeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::InPlace(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Elsewhere(bytes) => bytes,
        }
    }
}

impl DerefMut for KeyBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::InPlace(len, bytes) => bytes.get_mut(..usize::from(*len)).unwrap_or_default(),
            Self::Elsewhere(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for KeyBytes {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl AsRef<[u8]> for KeyBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for KeyBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for KeyBytes {}

impl PartialOrd for KeyBytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyBytes {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_are_their_bytes_in_pieces_of_any_length(
            one in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5),
            other in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut key = KeyBytes::default();
            one.iter().for_each(|piece| key.extend_from_slice(piece));
            let bytes = one.concat();
            prop_assert_eq!(&*key, &*bytes);
            prop_assert_eq!(key.cmp(&KeyBytes::from(&*other)), bytes.cmp(&other));
            prop_assert_eq!(Vec::from(key), bytes);
        }
    }
}
