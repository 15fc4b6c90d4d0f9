//! Filters that clients have stored. An id is the hash of the filter, so that storing the same twice changes nothing.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use ring::digest::{SHA256, digest};

use crate::{
    core::num::UserNum,
    store::{Reader, StorageError, Tx, schema},
};

/// Bytes of the hash that make the id: a user's own filters only must differ.
const ID_BYTES: usize = 12;

/// The JSON of a filter, as the client wrote it.
pub fn get(reader: &Reader, user: UserNum, id: &str) -> Result<Option<Bytes>, StorageError> {
    reader.get(&schema::FILTERS, &(user, id.to_owned()))
}

/// Stores a filter and gives its id, which does not begin with `{`.
pub(crate) fn put(tx: &mut Tx, user: UserNum, json: &Bytes) -> String {
    let hash = digest(&SHA256, json);
    let id = URL_SAFE_NO_PAD.encode(hash.as_ref().get(..ID_BYTES).unwrap_or_default());
    tx.put(&schema::FILTERS, &(user, id.clone()), json);
    id
}

/// Removes all filters of a user.
pub(crate) fn clear(tx: &mut Tx, user: UserNum) {
    tx.delete_prefix(&schema::FILTERS, &user);
}
