//! A scanner that finds the members of a stored object as byte ranges, without building values.
//!
//! The input is canonical JSON as we wrote it: no white space, and keys and strings escaped in the one canonical way.
//! On other bytes it returns an error or spans that mean nothing, but never panics and always ends: it checks
//! structure, not the inside of values. Responses are spliced from these spans.

use std::borrow::Cow;

/// One member of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The key's bytes between its quotes, escapes not undone. Keys of the specification have none.
    pub key: &'a [u8],
    /// The value's bytes, strings with their quotes.
    pub value: &'a [u8],
    /// Where the value starts in the scanned bytes.
    pub start: usize,
}

/// The bytes are not a canonical object: what was stored is corrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored JSON is not a canonical object at byte {at}")]
pub struct SpanError {
    /// The byte offset where the scan stopped.
    pub at: usize,
}

/// Iterates over the members of the object in `bytes`, in stored order. After an error it ends.
pub fn members(bytes: &[u8]) -> Members<'_> {
    Members { bytes, at: 0, state: State::Start }
}

/// The iterator of [`members`].
#[derive(Clone, Debug)]
pub struct Members<'a> {
    bytes: &'a [u8],
    at: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Inside,
    Done,
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<Member<'a>, SpanError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Done {
            return None;
        }
        let result = self.step().transpose();
        if !matches!(result, Some(Ok(_))) {
            self.state = State::Done;
        }
        result
    }
}

impl<'a> Members<'a> {
    fn step(&mut self) -> Result<Option<Member<'a>>, SpanError> {
        let bytes = self.bytes;
        let opening = if self.state == State::Start { b'{' } else { b',' };
        match bytes.get(self.at) {
            Some(b'}') if self.state == State::Inside => return self.end(),
            Some(&byte) if byte == opening => self.at += 1,
            _ => return Err(SpanError { at: self.at }),
        }
        if self.state == State::Start && bytes.get(self.at) == Some(&b'}') {
            return self.end();
        }
        self.state = State::Inside;
        if bytes.get(self.at) != Some(&b'"') {
            return Err(SpanError { at: self.at });
        }
        let key_start = self.at + 1;
        let key_end = string_end(bytes, key_start)?;
        if bytes.get(key_end + 1) != Some(&b':') {
            return Err(SpanError { at: key_end + 1 });
        }
        let start = key_end + 2;
        let end = value_end(bytes, start)?;
        self.at = end;
        match (bytes.get(key_start..key_end), bytes.get(start..end)) {
            (Some(key), Some(value)) => Ok(Some(Member { key, value, start })),
            _ => Err(SpanError { at: start }),
        }
    }

    /// At the closing brace: nothing may follow it.
    fn end(&mut self) -> Result<Option<Member<'a>>, SpanError> {
        if self.at + 1 == self.bytes.len() { Ok(None) } else { Err(SpanError { at: self.at + 1 }) }
    }
}

/// The text of a string value (with its quotes) from [`Member::value`]; borrowed unless it has escapes.
/// `None` if it is not a string.
pub fn string_value(value: &[u8]) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if !inner.contains(&b'\\') {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice(value).ok().map(Cow::Owned)
}

/// The index of the quote that closes the string whose first character is at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> Result<usize, SpanError> {
    loop {
        at += quote_or_backslash(bytes.get(at..).unwrap_or_default());
        match bytes.get(at) {
            Some(b'"') => return Ok(at),
            Some(_) => at += 2,
            None => return Err(SpanError { at: bytes.len() }),
        }
    }
}

/// How many bytes come before the first quote or backslash; eight at a time.
fn quote_or_backslash(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    /// The high bit of the lowest byte of `word` that equals `byte` is set (higher bytes may be false alarms).
    fn equals(word: u64, byte: u8) -> u64 {
        let difference = word ^ (ONES * u64::from(byte));
        difference.wrapping_sub(ONES) & !difference & HIGHS
    }
    let (chunks, rest) = bytes.as_chunks::<8>();
    for (index, chunk) in chunks.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        let found = equals(word, b'"') | equals(word, b'\\');
        if found != 0 {
            return index * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let tail = rest.iter().position(|&byte| byte == b'"' || byte == b'\\').unwrap_or(rest.len());
    chunks.len() * 8 + tail
}

/// The index behind the value that starts at `start`.
fn value_end(bytes: &[u8], start: usize) -> Result<usize, SpanError> {
    match bytes.get(start) {
        Some(b'"') => string_end(bytes, start + 1).map(|quote| quote + 1),
        Some(b'{' | b'[') => nested_end(bytes, start),
        Some(b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
            let rest = bytes.get(start..).unwrap_or_default();
            let scalar = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
            Ok(start + rest.iter().position(|byte| !scalar(byte)).unwrap_or(rest.len()))
        }
        _ => Err(SpanError { at: start }),
    }
}

/// The index behind the array or object that starts at `start`: brackets counted, strings skipped.
fn nested_end(bytes: &[u8], start: usize) -> Result<usize, SpanError> {
    let mut depth = 0usize;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at + 1)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    Err(SpanError { at: bytes.len() })
}
