//! Keys: order-preserving, fixed-width, big-endian encodings with their inverses.
//!
//! Invariant: the order of encoded keys is the order of the tuples they were made from. A text may stand in a key only
//! as its last part, so that no key is a prefix of a sibling's by accident.

use super::key_bytes::KeyBytes;
use crate::core::num::{EventNum, NodeId, RoomNum, StateKeyId, StreamPos, TextNum, UserNum};

/// Collects the bytes of a key, and where in it a position stands that is not known before the batch is staged.
#[derive(Default)]
pub struct KeyWriter {
    pub(crate) bytes: KeyBytes,
    pub(crate) slot: Option<Slot>,
}

/// A place in encoded bytes that receives the `index`-th position of the batch when it is staged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub offset: u32,
    pub index: u32,
}

/// Maps a signed position to bytes that sort like the number.
pub(crate) fn position_bytes(pos: StreamPos) -> [u8; 8] {
    ((pos.0 as u64) ^ (1 << 63)).to_be_bytes()
}

/// The inverse of [`position_bytes`].
pub(crate) fn position_from(bytes: [u8; 8]) -> StreamPos {
    StreamPos((u64::from_be_bytes(bytes) ^ (1 << 63)) as i64)
}

impl KeyWriter {
    fn position(&mut self, pos: StreamPos) {
        if let Some(index) = pos.placeholder_index() {
            self.slot = Some(Slot { offset: self.bytes.len() as u32, index });
        }
        self.bytes.extend_from_slice(&position_bytes(pos));
    }
}

/// Reads the parts of a key back.
pub struct KeyReader<'a>(pub(crate) &'a [u8]);

impl<'a> KeyReader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }
}

/// A part of a key, or a whole key.
pub trait Key: Sized {
    /// Appends the encoding.
    fn write(&self, out: &mut KeyWriter);
    /// Reads one back; `None` if the bytes are not an encoding of it.
    fn read(input: &mut KeyReader<'_>) -> Option<Self>;
}

macro_rules! integer_keys {
    ($($name:ident($inner:ty);)*) => {$(
        impl Key for $name {
            fn write(&self, out: &mut KeyWriter) {
                out.bytes.extend_from_slice(&self.0.to_be_bytes());
            }
            fn read(input: &mut KeyReader<'_>) -> Option<Self> {
                input.take().map(|bytes| $name(<$inner>::from_be_bytes(bytes)))
            }
        }
    )*};
}

integer_keys! { RoomNum(u64); UserNum(u64); EventNum(u64); TextNum(u32); NodeId(u64); StateKeyId(u64); }

impl Key for StreamPos {
    fn write(&self, out: &mut KeyWriter) {
        out.position(*self);
    }
    fn read(input: &mut KeyReader<'_>) -> Option<Self> {
        input.take().map(position_from)
    }
}

macro_rules! plain_integer_keys {
    ($($inner:ty),*) => {$(
        impl Key for $inner {
            fn write(&self, out: &mut KeyWriter) {
                out.bytes.extend_from_slice(&self.to_be_bytes());
            }
            fn read(input: &mut KeyReader<'_>) -> Option<Self> {
                input.take().map(<$inner>::from_be_bytes)
            }
        }
    )*};
}

plain_integer_keys!(u8, u32, u64);

impl Key for () {
    fn write(&self, _: &mut KeyWriter) {}
    fn read(_: &mut KeyReader<'_>) -> Option<Self> {
        Some(())
    }
}

impl<const N: usize> Key for [u8; N] {
    fn write(&self, out: &mut KeyWriter) {
        out.bytes.extend_from_slice(self);
    }
    fn read(input: &mut KeyReader<'_>) -> Option<Self> {
        input.take()
    }
}

/// Whatever is left of a key, unread: for those who go on behind a row that cannot be read.
pub(crate) struct RestOfKey(pub Vec<u8>);

impl Key for RestOfKey {
    fn write(&self, out: &mut KeyWriter) {
        out.bytes.extend_from_slice(&self.0);
    }
    fn read(input: &mut KeyReader<'_>) -> Option<Self> {
        Some(Self(std::mem::take(&mut input.0).to_vec()))
    }
}

impl RestOfKey {
    /// The key that this is; `None` if it is not a whole key of this type.
    pub fn decode<K: Key>(&self) -> Option<K> {
        let mut input = KeyReader(&self.0);
        let key = K::read(&mut input)?;
        input.0.is_empty().then_some(key)
    }
}

/// A text; only ever the last part of a key.
impl Key for String {
    fn write(&self, out: &mut KeyWriter) {
        out.bytes.extend_from_slice(self.as_bytes());
    }
    fn read(input: &mut KeyReader<'_>) -> Option<Self> {
        let text = std::str::from_utf8(input.0).ok()?.to_owned();
        input.0 = &[];
        Some(text)
    }
}

macro_rules! tuple_keys {
    ($(($($part:ident $index:tt),*);)*) => {$(
        impl<$($part: Key),*> Key for ($($part,)*) {
            fn write(&self, out: &mut KeyWriter) {
                $(self.$index.write(out);)*
            }
            fn read(input: &mut KeyReader<'_>) -> Option<Self> {
                Some(($($part::read(input)?,)*))
            }
        }
    )*};
}

tuple_keys! {
    (A 0, B 1);
    (A 0, B 1, C 2);
    (A 0, B 1, C 2, D 3);
    (A 0, B 1, C 2, D 3, E 4);
}

/// Encodes `key` behind the keyspace's id byte.
pub(crate) fn encode<K: Key>(keyspace: u8, key: &K) -> KeyWriter {
    let mut out = KeyWriter::default();
    out.bytes.push(keyspace);
    key.write(&mut out);
    out
}

/// Decodes a stored key; `None` if it is not a whole key of this type.
pub(crate) fn decode<K: Key>(bytes: &[u8]) -> Option<K> {
    let mut input = KeyReader(bytes.get(1..)?);
    let key = K::read(&mut input)?;
    input.0.is_empty().then_some(key)
}

/// The smallest key after all keys that begin with `prefix`, or `None` if there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Sample = (RoomNum, StreamPos, String);

    fn sample() -> impl Strategy<Value = Sample> {
        (any::<u64>(), any::<i64>(), ".{0,8}")
            .prop_map(|(room, pos, text)| (RoomNum(room), StreamPos(pos), text))
    }

    proptest! {
        #[test]
        fn order_of_keys_is_order_of_tuples(a in sample(), b in sample()) {
            prop_assert_eq!(encode(1, &a).bytes.cmp(&encode(1, &b).bytes), a.cmp(&b));
        }

        #[test]
        fn decode_inverts_encode(a in sample()) {
            prop_assert_eq!(decode::<Sample>(&encode(1, &a).bytes), Some(a));
        }

        #[test]
        fn prefix_end_is_the_least_upper_bound(prefix in proptest::collection::vec(any::<u8>(), 1..6), tail in proptest::collection::vec(any::<u8>(), 0..6)) {
            let mut longer = prefix.clone();
            longer.extend(tail);
            if let Some(end) = prefix_end(&prefix) {
                prop_assert!(longer < end);
                prop_assert!(!end.starts_with(&prefix));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode::<Sample>(&bytes);
        }
    }
}
