//! What fuzz targets need to see of the encodings. Nothing else may use it.

use bytes::Bytes;

use super::{Key, Value, ValueWriter, key};

/// What is made of bytes by [`rewritten_key`] or [`rewritten_value`] for one type.
pub type Rewritten = fn(&[u8]) -> Option<Vec<u8>>;

/// Reads bytes as a whole stored key, and writes it again; `None` if they are no such key.
pub fn rewritten_key<K: Key>(bytes: &[u8]) -> Option<Vec<u8>> {
    let key: K = key::decode(bytes)?;
    Some(key::encode(*bytes.first()?, &key).bytes.into())
}

/// Reads bytes as a stored value, and writes it again; `None` if they are no such value.
pub fn rewritten_value<V: Value>(bytes: &[u8]) -> Option<Vec<u8>> {
    let value = V::read(&Bytes::copy_from_slice(bytes))?;
    let mut out = ValueWriter::default();
    value.write(&mut out);
    Some(out.bytes)
}
