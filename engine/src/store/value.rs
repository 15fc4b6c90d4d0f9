//! Values: how what is stored is written as bytes.
//!
//! Invariant: a value begins with its encoding's version, so that a later version can read it. Texts and JSON that go out
//! as they came are stored as they are. `bincode` appears in this file only.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::key::{Slot, position_bytes, position_from};
use crate::core::num::{EventNum, NodeId, RoomNum, StateKeyId, StreamPos, TextNum, UserNum};

/// The largest record that `bincode` may make us allocate; state nodes and headers are far smaller.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// What most encodings fit in.
const ENCODED_BYTES: usize = 96;

/// The first byte of every record written by this version.
const RECORD_VERSION: u8 = 1;

/// Collects the bytes of a value, and where a position stands in it that is known only when the batch is staged.
#[derive(Default)]
pub struct ValueWriter {
    pub(crate) bytes: Vec<u8>,
    pub(crate) slot: Option<Slot>,
}

/// The bytes of a value, as of [`ValueWriter`].
pub struct Encoded {
    pub(crate) bytes: Bytes,
    pub(crate) slot: Option<Slot>,
}

/// Something that can be stored.
pub trait Value: Sized {
    /// Appends the encoding.
    fn write(&self, out: &mut ValueWriter);
    /// The encoding by itself.
    fn encoded(&self) -> Encoded {
        let mut out = ValueWriter { bytes: Vec::with_capacity(ENCODED_BYTES), slot: None };
        self.write(&mut out);
        Encoded { bytes: out.bytes.into(), slot: out.slot }
    }
    /// Reads it back; `None` means that the stored bytes are corrupt.
    fn read(bytes: &Bytes) -> Option<Self>;
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<RECORD_BYTES_MAX>()
}

/// Writes a record; shared by [`record!`] types.
pub(crate) fn write_record<T: Serialize>(value: &T, out: &mut ValueWriter) {
    out.bytes.push(RECORD_VERSION);
    // Encoding into memory fails only for types that cannot be encoded at all (unsized sequences), which none of ours is.
    let encoded = bincode::serde::encode_into_std_write(value, &mut out.bytes, config());
    debug_assert!(encoded.is_ok(), "a record type that bincode cannot encode");
}

/// Reads a record written by [`write_record`].
pub(crate) fn read_record<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    read_record_before(bytes).filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
}

/// Reads a record, and gives what stands behind it: what was added to a type since its first rows were written.
pub(crate) fn read_record_before<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (version, rest) = bytes.split_first()?;
    if *version != RECORD_VERSION {
        return None;
    }
    let (value, used) = bincode::serde::decode_from_slice(rest, config()).ok()?;
    Some((value, rest.get(used..)?))
}

/// Makes serde types storable as records.
#[macro_export]
#[doc(hidden)]
macro_rules! record {
    ($($name:ty),* $(,)?) => {$(
        impl $crate::store::Value for $name {
            fn write(&self, out: &mut $crate::store::ValueWriter) {
                $crate::store::write_record(self, out);
            }
            fn read(bytes: &bytes::Bytes) -> Option<Self> {
                $crate::store::read_record(bytes)
            }
        }
    )*};
}
pub(crate) use record;

record!(RoomNum, UserNum, EventNum, TextNum, NodeId, StateKeyId, u32, u64, bool, Vec<EventNum>);

impl Value for () {
    fn write(&self, _: &mut ValueWriter) {}
    fn encoded(&self) -> Encoded {
        Encoded { bytes: Bytes::new(), slot: None }
    }
    fn read(_: &Bytes) -> Option<Self> {
        Some(())
    }
}

/// Bytes that are stored as they are: JSON that goes out as it came.
impl Value for Bytes {
    fn write(&self, out: &mut ValueWriter) {
        out.bytes.extend_from_slice(self);
    }
    fn encoded(&self) -> Encoded {
        Encoded { bytes: self.clone(), slot: None }
    }
    fn read(bytes: &Bytes) -> Option<Self> {
        Some(bytes.clone())
    }
}

impl Value for String {
    fn write(&self, out: &mut ValueWriter) {
        out.bytes.extend_from_slice(self.as_bytes());
    }
    fn read(bytes: &Bytes) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }
}

impl Value for StreamPos {
    fn write(&self, out: &mut ValueWriter) {
        if let Some(index) = self.placeholder_index() {
            out.slot = Some(Slot { offset: out.bytes.len() as u32, index });
        }
        out.bytes.extend_from_slice(&position_bytes(*self));
    }
    fn read(bytes: &Bytes) -> Option<Self> {
        Some(position_from(bytes.as_ref().try_into().ok()?))
    }
}

/// A value together with the position at which it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positioned<T> {
    /// Where in the stream this was written.
    pub pos: StreamPos,
    /// What was written.
    pub value: T,
}

impl<T: Value> Value for Positioned<T> {
    fn write(&self, out: &mut ValueWriter) {
        self.pos.write(out);
        self.value.write(out);
    }
    fn read(bytes: &Bytes) -> Option<Self> {
        let pos = position_from(*bytes.first_chunk()?);
        Some(Self { pos, value: T::read(&bytes.slice(8..))? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode<T: Value>(value: &T) -> Bytes {
        let mut out = ValueWriter::default();
        value.write(&mut out);
        out.bytes.into()
    }

    #[test]
    fn records_keep_their_bytes() {
        // Golden bytes: version 1, then bincode's variable-length integers (251 marks a 16-bit one).
        assert_eq!(&encode(&RoomNum(7))[..], &[1, 7]);
        assert_eq!(&encode(&vec![EventNum(1), EventNum(300)])[..], &[1, 2, 1, 251, 44, 1]);
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(pos in any::<i64>(), events in proptest::collection::vec(any::<u64>(), 0..9)) {
            let value = Positioned { pos: StreamPos(pos), value: events.into_iter().map(EventNum).collect::<Vec<_>>() };
            prop_assert_eq!(Positioned::read(&encode(&value)), Some(value));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let bytes = Bytes::from(bytes);
            let _ = Positioned::<Vec<EventNum>>::read(&bytes);
            let _ = String::read(&bytes);
        }
    }
}
