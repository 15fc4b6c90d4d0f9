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
}
