//! Tokens that let somebody register. Specification: client-server API, "Token-authenticated registration".
//!
//! Invariant: there is at most one first token, and only while nobody but guests has an account. All changes happen on
//! the lane [`LANE`].

use crate::{
    error::{Denied, Result},
    store::{Direction, Reader, StorageError, Tx, schema, schema::RegistrationToken},
};

/// The name of the lane of all registrations.
pub(crate) const LANE: &str = "registrations";
/// Random characters of a token, which somebody may have to type: 96 bits.
const TOKEN_CHARS: usize = 16;

/// Whether somebody could register with this token at `now_ms`.
pub fn is_valid(reader: &Reader, token: &str, now_ms: u64) -> Result<bool, StorageError> {
    Ok(valid(reader, token, now_ms)?.is_some())
}

fn valid(reader: &Reader, token: &str, now_ms: u64) -> Result<Option<RegistrationToken>, StorageError> {
    let row = reader.get(&schema::REGISTRATION_TOKENS, &token.to_owned())?;
    Ok(row.filter(|row| row.uses_left != Some(0) && row.expires_ms.is_none_or(|expires| expires > now_ms)))
}

/// The token of the first start, while it is good.
pub fn first(reader: &Reader) -> Result<Option<String>, StorageError> {
    let mut first = None;
    reader.scan(&schema::REGISTRATION_TOKENS, &(), Direction::Forward, |token: String, row| {
        first = row.is_first.then_some(token);
        first.is_none()
    })?;
    Ok(first)
}

/// Makes a token that is good for one registration, and until then for ever.
pub(crate) fn make(tx: &mut Tx, is_first: bool) -> String {
    // Without the two characters that are easily lost at the end of a line or taken for a space.
    let token = tx.random_text(TOKEN_CHARS).replace(['-', '_'], "0");
    let row = RegistrationToken { uses_left: Some(1), expires_ms: None, is_first };
    tx.put(&schema::REGISTRATION_TOKENS, &token, &row);
    token
}

/// Uses a token up by one; whether it was the first token.
///
/// Errors: [`Denied::RegistrationToken`].
pub(crate) fn spend(tx: &mut Tx, token: &str) -> Result<bool> {
    let now_ms = tx.shared.clock.now_ms();
    let mut row = valid(tx, token, now_ms)?.ok_or(Denied::RegistrationToken)?;
    row.uses_left = row.uses_left.map(|left| left.saturating_sub(1));
    let key = token.to_owned();
    match row.uses_left {
        Some(0) => tx.delete(&schema::REGISTRATION_TOKENS, &key),
        _ => tx.put(&schema::REGISTRATION_TOKENS, &key, &row),
    }
    Ok(row.is_first)
}

/// Ends the first token: somebody has an account now.
pub(crate) fn end_first(tx: &mut Tx) -> Result<()> {
    if let Some(token) = first(tx)? {
        tx.delete(&schema::REGISTRATION_TOKENS, &token);
    }
    Ok(())
}
