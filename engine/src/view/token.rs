//! Tokens: places in the stream as clients hold them.
//!
//! Invariant: a token stands between two positions, behind the one it carries: reading forwards from it begins after that
//! position, reading backwards begins with it. One form serves `/sync`, `/messages`, `/context` and `/relations`.

use crate::{
    core::num::StreamPos,
    error::{Invalid, Result},
};

/// What a token begins with, so that a number from elsewhere is not taken for one.
const MARK: char = 's';

/// A place in the stream that a client can come back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamToken(pub StreamPos);

impl StreamToken {
    /// The place just before `pos`: where to go on reading backwards after the event there.
    pub fn before(pos: StreamPos) -> Self {
        Self(StreamPos(pos.0.saturating_sub(1)))
    }

    /// Reads a token that this server gave out.
    ///
    /// Errors: [`Invalid::Token`].
    pub fn decode(text: &str) -> Result<Self> {
        let number = text.strip_prefix(MARK).filter(|number| !number.starts_with('+'));
        let pos = number.and_then(|number| number.parse().ok()).ok_or(Invalid::Token)?;
        Ok(Self(StreamPos(pos)))
    }
}

impl std::fmt::Display for StreamToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{MARK}{}", self.0.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decode_inverts_encode(pos in any::<i64>()) {
            let token = StreamToken(StreamPos(pos));
            prop_assert_eq!(StreamToken::decode(&token.to_string()).ok(), Some(token));
        }
    }

    #[test]
    fn what_is_no_token() {
        for text in ["", "s", "7", "s+7", "s 7", "t7", "s7x", "s9223372036854775808"] {
            assert!(StreamToken::decode(text).is_err(), "{text}");
        }
    }
}
