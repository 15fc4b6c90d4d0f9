//! From JSON text to its canonical encoding, without building values: for whole bodies and answers, of which the parts are
//! judged one by one.
//!
//! Invariant: where the text can be parsed with lenient numbers, the result is that of parsing and writing. It takes texts
//! nested `BODY_NESTING_MAX` deep, without recursion, and numbers that no value holds, as they stand: a signature is over the
//! whole, which a part that is not taken must not spoil. The memory that it takes is a few times the text's, whatever stands
//! in it, and each byte is moved a limited number of times. So it is for what strangers send, and for what is larger than an
//! event.

use std::ops::Range;

use super::BODY_NESTING_MAX;
use super::number;
use super::parse::{JsonError, Limits, Parser, Strictness};
use super::write::{write_canonical, write_string};

/// The members of an object up to this size are put in order where they are. As a level takes ten bytes if there is anything
/// to put in order, no byte is moved more than a hundred times; those of larger objects are put in order once, at the end.
const SMALL_BYTES_MAX: usize = 1024;

/// The canonical encoding of `bytes`, which must be one JSON value and white space.
pub fn canonical_text(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, JsonError> {
    let limits = Limits { bytes_max, strictness: Strictness::Lenient };
    let mut rewriting = Rewriting {
        parser: Parser::new(bytes, limits)?.nested(BODY_NESTING_MAX),
        out: Vec::with_capacity(bytes.len()),
        open: Vec::new(),
        unsorted: Vec::new(),
    };
    rewriting.write()?;
    rewriting.parser.end()?;
    Ok(in_order(rewriting.out, rewriting.unsorted))
}

struct Rewriting<'a> {
    parser: Parser<'a>,
    out: Vec<u8>,
    /// What is being written, the innermost last.
    open: Vec<Open>,
    unsorted: Vec<Unsorted>,
}

enum Open {
    Array,
    Object(Members),
}

/// The members of an object that is being written.
#[derive(Default)]
struct Members {
    /// Where each begins.
    begins: Vec<usize>,
    last: Option<String>,
    is_unsorted: bool,
}

/// A large object whose members are written as they came.
struct Unsorted {
    /// From its opening brace up to its closing one.
    span: Range<usize>,
    /// Where its members are, in their order.
    sorted: Vec<Range<usize>>,
}

impl Rewriting<'_> {
    fn write(&mut self) -> Result<(), JsonError> {
        loop {
            // What has elements goes on with the first of them.
            if self.begin_value()? && !self.go_on()? {
                return Ok(());
            }
        }
    }

    /// Begins the value that comes next, and says whether it is over at once.
    fn begin_value(&mut self) -> Result<bool, JsonError> {
        let depth = self.open.len();
        match self.parser.peek_value() {
            Some(b'{') => {
                self.out.push(b'{');
                if self.parser.begins_empty(depth, b'}')? {
                    self.out.push(b'}');
                    return Ok(true);
                }
                let mut members = Members::default();
                write_key(&mut self.parser, &mut self.out, &mut members)?;
                self.open.push(Open::Object(members));
                return Ok(false);
            }
            Some(b'[') => {
                self.out.push(b'[');
                if self.parser.begins_empty(depth, b']')? {
                    self.out.push(b']');
                    return Ok(true);
                }
                self.open.push(Open::Array);
                return Ok(false);
            }
            Some(b'"') => write_string(&mut self.out, &self.parser.string()?),
            Some(b'-' | b'0'..=b'9') => {
                let (text, at) = self.parser.number_text()?;
                match number::read(text, at, Strictness::Lenient) {
                    Ok(number) => number::write(&mut self.out, &number),
                    // There is one way to write an integer, of whatever size.
                    Err(JsonError::IntegerRange { .. }) => self.out.extend_from_slice(text.as_bytes()),
                    Err(error) => return Err(error),
                }
            }
            // A word.
            _ => write_canonical(&mut self.out, &self.parser.value(depth)?),
        }
        Ok(true)
    }

    /// Behind a value: ends what ends there, and says whether another value comes.
    fn go_on(&mut self) -> Result<bool, JsonError> {
        while let Some(open) = self.open.last_mut() {
            let closing = match open {
                Open::Array => b']',
                Open::Object(_) => b'}',
            };
            if !self.parser.is_over(closing)? {
                self.out.push(b',');
                if let Open::Object(members) = open {
                    write_key(&mut self.parser, &mut self.out, members)?;
                }
                return Ok(true);
            }
            if let Open::Object(members) = open
                && members.is_unsorted
            {
                self.unsorted.extend(put_in_order(&mut self.out, &members.begins));
            }
            self.out.push(closing);
            self.open.pop();
        }
        Ok(false)
    }
}

/// Writes the key that comes next.
fn write_key(parser: &mut Parser<'_>, out: &mut Vec<u8>, members: &mut Members) -> Result<(), JsonError> {
    let key = parser.key()?;
    members.begins.push(out.len());
    write_string(out, &key);
    out.push(b':');
    members.is_unsorted |= members.last.as_ref().is_some_and(|last| *last >= key);
    members.last = Some(key);
    Ok(())
}

/// Puts the members at the end of `out` in order. Those of a large object stay where they are, and are told.
fn put_in_order(out: &mut Vec<u8>, begins: &[usize]) -> Option<Unsorted> {
    let sorted = sorted(out, begins);
    let start = begins.first().copied().unwrap_or(out.len());
    if out.len() - start > SMALL_BYTES_MAX {
        return Some(Unsorted { span: start.saturating_sub(1)..out.len(), sorted });
    }
    // There is no large one within.
    let mut members = Vec::with_capacity(out.len() - start);
    for member in &sorted {
        if !members.is_empty() {
            members.push(b',');
        }
        members.extend_from_slice(part(out, member));
    }
    out.truncate(start);
    out.extend_from_slice(&members);
    None
}

/// Where the members are that begin there and are the last of what is written, in the order of their keys; of those with the
/// same key the last.
fn sorted(written: &[u8], begins: &[usize]) -> Vec<Range<usize>> {
    // A comma stands between two of them.
    let ends = begins.iter().skip(1).map(|next| next - 1).chain([written.len()]);
    let mut members: Vec<Range<usize>> = begins.iter().zip(ends).map(|(begin, end)| *begin..end).collect();
    members.sort_by(|a, b| key(part(written, a)).cmp(key(part(written, b))));
    members.reverse();
    members.dedup_by(|earlier, later| key(part(written, earlier)).eq(key(part(written, later))));
    members.reverse();
    members
}

/// What of a text is still to be written in order.
enum Left<'u> {
    Text(Range<usize>),
    Members(std::slice::Iter<'u, Range<usize>>),
}

/// What is written, with the members of the objects that are named in their order.
fn in_order(written: Vec<u8>, mut unsorted: Vec<Unsorted>) -> Vec<u8> {
    if unsorted.is_empty() {
        return written;
    }
    // They were told when they ended.
    unsorted.sort_unstable_by_key(|object| object.span.start);
    let mut out = Vec::with_capacity(written.len());
    let mut left = vec![Left::Text(0..written.len())];
    while let Some(next) = left.pop() {
        match next {
            Left::Text(text) => {
                let next = unsorted.partition_point(|object| object.span.start < text.start);
                match unsorted.get(next).filter(|object| object.span.start < text.end) {
                    None => out.extend_from_slice(part(&written, &text)),
                    Some(object) => {
                        out.extend_from_slice(part(&written, &(text.start..object.span.start)));
                        out.push(b'{');
                        left.push(Left::Text(object.span.end..text.end));
                        left.push(Left::Members(object.sorted.iter()));
                    }
                }
            }
            Left::Members(mut members) => {
                let Some(member) = members.next() else { continue };
                if out.last() != Some(&b'{') {
                    out.push(b',');
                }
                left.push(Left::Members(members));
                left.push(Left::Text(member.clone()));
            }
        }
    }
    out
}

fn part<'w>(written: &'w [u8], range: &Range<usize>) -> &'w [u8] {
    written.get(range.clone()).unwrap_or_default()
}

/// The bytes of a written member's key, escapes undone: their order is that of the code points.
fn key(member: &[u8]) -> impl Iterator<Item = u8> {
    let mut bytes = member.iter().skip(1).copied();
    let hex = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
    std::iter::from_fn(move || match bytes.next()? {
        b'"' => None,
        b'\\' => match bytes.next()? {
            b'b' => Some(0x08),
            b't' => Some(b'\t'),
            b'n' => Some(b'\n'),
            b'f' => Some(0x0c),
            b'r' => Some(b'\r'),
            // Only control characters are written so, with two zeros before.
            b'u' => {
                let (high, low) = (bytes.nth(2)?, bytes.next()?);
                Some(hex(high) * 16 + hex(low))
            }
            byte => Some(byte),
        },
        byte => Some(byte),
    })
}
