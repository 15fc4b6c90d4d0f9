//! Whether a server's transaction was answered before, and how.

use bytes::Bytes;

use crate::{
    error::Result,
    store::{Reader, schema},
    view::View,
};

/// The answer to a transaction that has come before.
pub struct AnsweredTransaction<'a> {
    /// The server.
    pub origin: &'a str,
    /// The transaction's id.
    pub transaction_id: &'a str,
}

impl View for AnsweredTransaction<'_> {
    /// The body; `None` if it is new, or so old that it is forgotten.
    type Output = Option<Bytes>;

    fn read(&self, reader: &Reader) -> Result<Option<Bytes>> {
        let Some(origin) = reader.text_num(self.origin)? else { return Ok(None) };
        let row = reader.get(&schema::RECEIVED_TRANSACTIONS, &(origin, self.transaction_id.to_owned()))?;
        Ok(row.map(|row| row.answer.into()))
    }
}
