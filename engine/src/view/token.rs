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

/// What follows it in a sync token, when to-device messages were held back: the position up to which they were given.
const TO_DEVICE_MARK: char = '_';

/// What a device has after a sync: the stream up to a position, and to-device messages up to the same or an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncToken {
    /// The stream.
    pub pos: StreamPos,
    /// The to-device messages.
    pub to_device: StreamPos,
}

impl SyncToken {
    /// Reads a token that this server gave out; one from elsewhere than `/sync` serves too.
    ///
    /// Errors: [`Invalid::Token`].
    pub fn decode(text: &str) -> Result<Self> {
        let pos = StreamToken::decode(text)?.0;
        let to_device = match text.split_once(TO_DEVICE_MARK) {
            None => pos,
            Some((_, number)) => StreamPos(number.parse().map_err(|_| Invalid::Token)?),
        };
        Ok(Self { pos, to_device })
    }
}

impl std::fmt::Display for SyncToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        StreamToken(self.pos).fmt(f)?;
        if self.to_device < self.pos { write!(f, "{TO_DEVICE_MARK}{}", self.to_device.0) } else { Ok(()) }
    }
}

/// A place in the stream that a client can come back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamToken(pub StreamPos);

impl StreamToken {
    /// The place just before `pos`: where to go on reading backwards after the event there.
    pub fn before(pos: StreamPos) -> Self {
        Self(StreamPos(pos.0.saturating_sub(1)))
    }

    /// The same place in other words: a page that ends with it does not seem to end where it began.
    pub(super) fn anew(self) -> String {
        format!("{self}{TO_DEVICE_MARK}{}", self.0.0)
    }

    /// Reads a token that this server gave out.
    ///
    /// Errors: [`Invalid::Token`].
    pub fn decode(text: &str) -> Result<Self> {
        // What a sync token says of to-device messages concerns only the next sync.
        let text = text.split_once(TO_DEVICE_MARK).map_or(text, |(text, _)| text);
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
    fn held_back_messages_are_part_of_a_sync_token() {
        let token = SyncToken { pos: StreamPos(9), to_device: StreamPos(4) };
        assert_eq!(SyncToken::decode(&token.to_string()).ok(), Some(token));
        assert_eq!(StreamToken::decode(&token.to_string()).ok(), Some(StreamToken(token.pos)));
        let complete = SyncToken { pos: StreamPos(9), to_device: StreamPos(9) };
        assert_eq!(complete.to_string(), StreamToken(StreamPos(9)).to_string());
    }

    #[test]
    fn the_same_place_in_other_words() {
        let token = StreamToken(StreamPos(-9));
        assert_ne!(token.anew(), token.to_string());
        assert_eq!(StreamToken::decode(&token.anew()).ok(), Some(token));
        let of_sync = SyncToken { pos: token.0, to_device: token.0 };
        assert_eq!(SyncToken::decode(&token.anew()).ok(), Some(of_sync));
    }

    #[test]
    fn what_is_no_token() {
        for text in ["", "s", "7", "s+7", "s 7", "t7", "s7x", "s9223372036854775808"] {
            assert!(StreamToken::decode(text).is_err(), "{text}");
        }
    }
}
