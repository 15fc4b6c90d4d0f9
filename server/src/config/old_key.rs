//! Rows of `old_signing_keys`: keys with which this server signed before, as the operator knows them.

use warren_engine::core::event::decode_base64;
use warren_engine::remote::ServerKey;

use crate::federation::published::is_key;

/// One row: `ID PUBLIC_KEY EXPIRED_TS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldKey(pub ServerKey);

impl std::str::FromStr for OldKey {
    type Err = String;

    /// Errors: a sentence that quotes the row.
    fn from_str(row: &str) -> Result<OldKey, String> {
        let wrong = || {
            format!(
                "`{row}` must be ed25519:VERSION PUBLIC_KEY EXPIRED_TS, with the key in base64 and the time in milliseconds since the epoch"
            )
        };
        let parts: Vec<&str> = row.split_whitespace().collect();
        let &[key_id, public_key, expired_ts] = parts.as_slice() else { return Err(wrong()) };
        let public_key =
            decode_base64(public_key).filter(|public_key| is_key(key_id, public_key)).ok_or_else(wrong)?;
        let valid_until_ts: u64 = expired_ts.parse().map_err(|_| wrong())?;
        Ok(OldKey(ServerKey { key_id: key_id.to_owned(), public_key, valid_until_ts, is_old: true }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keys_and_times() {
        let text = "ed25519:a_1  AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE 5";
        let (key_id, public_key) = ("ed25519:a_1".to_owned(), vec![1; 32]);
        let key = ServerKey { key_id, public_key, valid_until_ts: 5, is_old: true };
        assert_eq!(text.parse(), Ok(OldKey(key)));
        for (part, other) in [
            ("ed25519:", "curve:"),
            ("a_1", ""),
            ("a_1", "a-1"),
            ("AQEB", ""),
            (" 5", ""),
            (" 5", " -5"),
            (" 5", " 5 6"),
        ] {
            let wrong = text.replacen(part, other, 1);
            assert!(wrong.parse::<OldKey>().is_err(), "{wrong}");
        }
    }
}
