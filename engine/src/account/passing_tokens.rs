//! Short-lived tokens: for logging in another device (`m.login.token`), and for proving to others who one is (OpenID).

use super::sessions::{new_token, token_hash};
use crate::{
    core::num::UserNum,
    store::{Direction, Reader, StorageError, Tx, schema, schema::PassingTokenRow, schema::TokenHash},
};

/// What a token is for; its number is part of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TokenPurpose {
    /// `m.login.token`.
    LogIn = 1,
    /// `POST …/openid/request_token`.
    OpenId = 2,
}

/// Expired tokens that making a new one sweeps away at most: more than one, so that they do not pile up.
const SWEPT_AT_ONCE: usize = 4;

/// The user of a token that is good at `now_ms`.
pub fn owner(
    reader: &Reader,
    purpose: TokenPurpose,
    token: &str,
    now_ms: u64,
) -> Result<Option<UserNum>, StorageError> {
    let row = reader.get(&schema::PASSING_TOKENS, &(purpose as u8, token_hash(token)))?;
    Ok(row.filter(|row| row.expires_ms > now_ms).map(|row| row.user))
}

/// Makes a token that is good for `life_ms`.
pub(crate) fn make(
    tx: &mut Tx,
    purpose: TokenPurpose,
    user: UserNum,
    life_ms: u64,
) -> Result<String, StorageError> {
    sweep(tx, purpose)?;
    let token = new_token(tx, "wpt");
    let row = PassingTokenRow { user, expires_ms: tx.shared.clock.now_ms() + life_ms };
    tx.put(&schema::PASSING_TOKENS, &(purpose as u8, token_hash(&token)), &row);
    Ok(token)
}

/// Ends a token.
pub(crate) fn end(tx: &mut Tx, purpose: TokenPurpose, token: &str) {
    tx.delete(&schema::PASSING_TOKENS, &(purpose as u8, token_hash(token)));
}

/// Removes a few expired tokens from a random place on; all come up in time, as their hashes are spread evenly.
fn sweep(tx: &mut Tx, purpose: TokenPurpose) -> Result<(), StorageError> {
    let now_ms = tx.shared.clock.now_ms();
    let mut from = TokenHash::default();
    tx.shared.random.fill(&mut from);
    let (start, end) = ((purpose as u8, from), purpose as u8 + 1);
    let (mut expired, mut seen) = (Vec::new(), 0);
    tx.scan_between(&schema::PASSING_TOKENS, &start, &end, Direction::Forward, |key, row| {
        seen += 1;
        if row.expires_ms <= now_ms {
            expired.push(key);
        }
        seen < SWEPT_AT_ONCE
    })?;
    for key in expired {
        tx.delete(&schema::PASSING_TOKENS, &key);
    }
    Ok(())
}
