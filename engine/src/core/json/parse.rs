//! The parser: JSON text from outside to a value, within limits.
//!
//! Invariant: it never panics, and never recurses deeper than it is told to: `NESTING_MAX` and a few levels. A doubled key
//! keeps its last value, as the reference homeserver does. Lone surrogates are refused, since no string of ours could hold one.

use serde_json::{Map, Value};

use super::{NESTING_MAX, number};

/// Which numbers are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Room versions 6 and later, and everything that is not an event: integers within ±(2^53 - 1), no `-0`.
    Strict,
    /// Events of room versions 1 to 5: floats and 64-bit integers too.
    Lenient,
}

/// What a parse accepts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest accepted text in bytes.
    pub bytes_max: usize,
    /// Which numbers are accepted.
    pub strictness: Strictness,
}

/// Why a text is not accepted. `at` is a byte offset into it; zero also where there is a value and no text. The sender can act
/// on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum JsonError {
    /// The text is longer than the limit.
    #[error("the JSON text has {bytes} bytes, more than the limit of {bytes_max}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// How many it may have.
        bytes_max: usize,
    },
    /// Not JSON.
    #[error("not valid JSON{}", place(.at))]
    Syntax {
        /// Where in the text.
        at: usize,
    },
    /// A string is not UTF-8, or escapes half of a surrogate pair.
    #[error("a string is not valid Unicode{}", place(.at))]
    Unicode {
        /// Where in the text.
        at: usize,
    },
    /// Arrays and objects nested more deeply than is allowed there.
    #[error("nested too deeply{}", place(.at))]
    TooDeep {
        /// Where in the text.
        at: usize,
    },
    /// A fraction or an exponent where only integers are allowed.
    #[error("canonical JSON has no fractions and exponents{}", place(.at))]
    NotInteger {
        /// Where in the text.
        at: usize,
    },
    /// `-0`, which canonical JSON forbids.
    #[error("canonical JSON has no negative zero{}", place(.at))]
    NegativeZero {
        /// Where in the text.
        at: usize,
    },
    /// A number outside the range that is allowed.
    #[error("a number is out of range{}", place(.at))]
    IntegerRange {
        /// Where in the text.
        at: usize,
    },
    /// An object was wanted.
    #[error("the JSON text is not an object")]
    NotObject,
}

/// Where in a text, unless it is said by the text as a whole.
fn place(at: &usize) -> String {
    match at {
        0 => String::new(),
        at => format!(" at byte {at}"),
    }
}

/// Parses `bytes`, which must be one JSON value and white space.
///
/// The value may take a hundred times the memory of the text: an object with one member has some 640 bytes. For what is
/// larger than an event there is [`super::canonical_text`].
pub fn parse(bytes: &[u8], limits: Limits) -> Result<Value, JsonError> {
    parse_around(bytes, limits, 0)
}

/// The same of a text that carries, so many `levels` of arrays and objects below, what may itself be nested `NESTING_MAX` deep.
pub fn parse_around(bytes: &[u8], limits: Limits, levels: usize) -> Result<Value, JsonError> {
    let mut parser = Parser::new(bytes, limits)?.nested(NESTING_MAX + levels);
    let value = parser.value(0)?;
    parser.end()?;
    Ok(value)
}

/// Parses `bytes`, which must be one JSON object and white space.
pub fn parse_object(bytes: &[u8], limits: Limits) -> Result<Map<String, Value>, JsonError> {
    match parse(bytes, limits)? {
        Value::Object(object) => Ok(object),
        _ => Err(JsonError::NotObject),
    }
}

/// Whether a value built elsewhere obeys the rules that `parse` enforces; offsets in the error are zero.
/// `depth` is how many arrays and objects already surround it.
pub fn check(value: &Value, strictness: Strictness, depth: usize) -> Result<(), JsonError> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) => {
            if strictness == Strictness::Lenient {
                return Ok(());
            }
            if number.is_f64() {
                return Err(JsonError::NotInteger { at: 0 });
            }
            match number.as_i64() {
                Some(integer) if number::in_range(integer) => Ok(()),
                _ => Err(JsonError::IntegerRange { at: 0 }),
            }
        }
        _ if depth >= NESTING_MAX => Err(JsonError::TooDeep { at: 0 }),
        Value::Array(items) => items.iter().try_for_each(|item| check(item, strictness, depth + 1)),
        Value::Object(object) => object.values().try_for_each(|item| check(item, strictness, depth + 1)),
    }
}

pub(super) struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    strictness: Strictness,
    nesting_max: usize,
}

impl<'a> Parser<'a> {
    /// At the beginning of a text, whose arrays and objects may be nested `NESTING_MAX` deep.
    ///
    /// Errors: it is too large, or not UTF-8.
    pub fn new(bytes: &'a [u8], limits: Limits) -> Result<Parser<'a>, JsonError> {
        if bytes.len() > limits.bytes_max {
            return Err(JsonError::TooLarge { bytes: bytes.len(), bytes_max: limits.bytes_max });
        }
        let text =
            std::str::from_utf8(bytes).map_err(|error| JsonError::Unicode { at: error.valid_up_to() })?;
        Ok(Parser { text, bytes, at: 0, strictness: limits.strictness, nesting_max: NESTING_MAX })
    }

    /// With another limit to how deeply arrays and objects may be nested.
    pub fn nested(self, nesting_max: usize) -> Parser<'a> {
        Parser { nesting_max, ..self }
    }

    /// Nothing but white space may be left.
    pub fn end(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.at == self.bytes.len() { Ok(()) } else { self.syntax() }
    }

    /// The first byte of the value that comes next.
    pub fn peek_value(&mut self) -> Option<u8> {
        self.skip_space();
        self.peek()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Steps over `byte` if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn syntax<T>(&self) -> Result<T, JsonError> {
        Err(JsonError::Syntax { at: self.at })
    }

    /// The value that comes next, with `depth` arrays and objects around it.
    pub fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        match self.peek_value() {
            Some(b'"') => self.string().map(Value::String),
            Some(b'{') => {
                let mut object = Map::new();
                self.members(depth, |parser, key| {
                    object.insert(key, parser.value(depth + 1)?);
                    Ok(())
                })?;
                Ok(Value::Object(object))
            }
            Some(b'[') => {
                let mut items = Vec::new();
                self.items(depth, |parser| {
                    items.push(parser.value(depth + 1)?);
                    Ok(())
                })?;
                Ok(Value::Array(items))
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Value::Bool(true)),
            Some(b'f') => self.literal("false", Value::Bool(false)),
            Some(b'n') => self.literal("null", Value::Null),
            _ => self.syntax(),
        }
    }

    fn literal(&mut self, word: &str, value: Value) -> Result<Value, JsonError> {
        let found = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes()));
        if !found {
            return self.syntax();
        }
        self.at += word.len();
        Ok(value)
    }

    /// The object that comes next, with `depth` around it. `member` is called behind each key, and reads the value.
    fn members(
        &mut self,
        depth: usize,
        mut member: impl FnMut(&mut Self, String) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        if self.begins_empty(depth, b'}')? {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            member(self, key)?;
            if self.is_over(b'}')? {
                return Ok(());
            }
        }
    }

    /// The key that comes next, and its colon.
    pub fn key(&mut self) -> Result<String, JsonError> {
        if self.peek_value() != Some(b'"') {
            return self.syntax();
        }
        let key = self.string()?;
        self.skip_space();
        if self.take(b':') { Ok(key) } else { self.syntax() }
    }

    /// The array that comes next, with `depth` around it. `item` is called before each value, and reads it.
    fn items(
        &mut self,
        depth: usize,
        mut item: impl FnMut(&mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        if self.begins_empty(depth, b']')? {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.is_over(b']')? {
                return Ok(());
            }
        }
    }

    /// Steps into the array or object that comes next, with `depth` around it, and says whether it ends at once.
    pub fn begins_empty(&mut self, depth: usize, closing: u8) -> Result<bool, JsonError> {
        if depth >= self.nesting_max {
            return Err(JsonError::TooDeep { at: self.at });
        }
        self.at += 1;
        self.skip_space();
        Ok(self.take(closing))
    }

    /// Behind a value of an array or object: whether it ends there, or goes on behind a comma.
    pub fn is_over(&mut self, closing: u8) -> Result<bool, JsonError> {
        self.skip_space();
        if self.take(closing) {
            return Ok(true);
        }
        if self.take(b',') { Ok(false) } else { self.syntax() }
    }

    /// Steps over decimal digits and says whether there were any.
    fn digits(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at > start
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let (text, at) = self.number_text()?;
        number::read(text, at, self.strictness).map(Value::Number)
    }

    /// The number that comes next, as it stands, and where.
    pub fn number_text(&mut self) -> Result<(&'a str, usize), JsonError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') && !self.digits() {
            return self.syntax();
        }
        if self.take(b'.') && !self.digits() {
            return self.syntax();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if !self.take(b'+') {
                self.take(b'-');
            }
            if !self.digits() {
                return self.syntax();
            }
        }
        let text = self.text.get(start..self.at).ok_or(JsonError::Syntax { at: start })?;
        Ok((text, start))
    }

    /// A string, from its opening quote on.
    pub fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(plain) = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)
            else {
                return Err(JsonError::Syntax { at: self.bytes.len() });
            };
            let end = self.at + plain;
            out.push_str(self.text.get(self.at..end).ok_or(JsonError::Unicode { at: self.at })?);
            self.at = end;
            if self.take(b'"') {
                return Ok(out);
            }
            if !self.take(b'\\') {
                return self.syntax();
            }
            out.push(self.escape()?);
        }
    }

    /// The character of an escape, from behind its backslash on.
    fn escape(&mut self) -> Result<char, JsonError> {
        let Some(byte) = self.peek() else { return self.syntax() };
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(JsonError::Syntax { at: self.at - 1 }),
        })
    }

    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let at = self.at;
        let lone = JsonError::Unicode { at };
        let first = self.hex_unit()?;
        let code = match first {
            0xd800..=0xdbff => {
                if !self.take(b'\\') || !self.take(b'u') {
                    return Err(lone);
                }
                let second = self.hex_unit()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(lone);
                }
                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            unit => unit,
        };
        char::from_u32(code).ok_or(lone)
    }

    /// Four hexadecimal digits.
    fn hex_unit(&mut self) -> Result<u32, JsonError> {
        let mut unit = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(16)) else {
                return self.syntax();
            };
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }
}
