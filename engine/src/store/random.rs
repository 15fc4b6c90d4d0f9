//! Random texts and tokens, from the randomness that the engine was given.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::Reader;

impl Reader {
    /// A text of `chars` random characters of the URL-safe Base64 alphabet, six bits each.
    pub fn random_text(&self, chars: usize) -> String {
        let mut bytes = vec![0; chars.div_ceil(4) * 3];
        self.shared.random.fill(&mut bytes);
        let mut text = URL_SAFE_NO_PAD.encode(&bytes);
        text.truncate(chars);
        text
    }

    /// A number below `bound` (zero for zero), even enough for bounds far below 2^64.
    pub fn random_below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.shared.random.fill(&mut bytes);
        u64::from_le_bytes(bytes).checked_rem(bound).unwrap_or_default()
    }
}
