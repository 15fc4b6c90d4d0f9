//! From JSON text to its canonical encoding, without building values.
//!
//! Invariant: the result, or the error, is that of parsing and writing; the memory that it takes is a few times the text's,
//! whatever stands in it. So it is for what strangers send, and for what is larger than an event.

use std::ops::Range;

use super::parse::{JsonError, Limits, Parser};
use super::write::{write_canonical, write_string};

/// The canonical encoding of `bytes`, which must be one JSON value and white space.
pub fn canonical_text(bytes: &[u8], limits: Limits) -> Result<Vec<u8>, JsonError> {
    let mut parser = Parser::new(bytes, limits)?;
    let mut out = Vec::with_capacity(bytes.len());
    write_value(&mut parser, 0, &mut out)?;
    parser.end()?;
    Ok(out)
}

/// Appends the value that comes next, with `depth` arrays and objects around it.
fn write_value(parser: &mut Parser<'_>, depth: usize, out: &mut Vec<u8>) -> Result<(), JsonError> {
    match parser.peek_value() {
        Some(b'{') => write_object(parser, depth, out),
        Some(b'[') => {
            out.push(b'[');
            let start = out.len();
            parser.items(depth, |parser| {
                if out.len() > start {
                    out.push(b',');
                }
                write_value(parser, depth + 1, out)
            })?;
            out.push(b']');
            Ok(())
        }
        // A string, a number or a word, of which there is one at a time.
        _ => {
            write_canonical(out, &parser.value(depth)?);
            Ok(())
        }
    }
}

/// The members are written as they come, and put in order afterwards if they were not.
fn write_object(parser: &mut Parser<'_>, depth: usize, out: &mut Vec<u8>) -> Result<(), JsonError> {
    out.push(b'{');
    let start = out.len();
    let (mut members, mut last, mut is_sorted): (Vec<Range<usize>>, Option<String>, bool) =
        (Vec::new(), None, true);
    parser.members(depth, |parser, key| {
        if out.len() > start {
            out.push(b',');
        }
        let at = out.len();
        write_string(out, &key);
        out.push(b':');
        is_sorted &= last.as_ref().is_none_or(|last| *last < key);
        last = Some(key);
        write_value(parser, depth + 1, out)?;
        members.push(at..out.len());
        Ok(())
    })?;
    if !is_sorted {
        let sorted = in_order(out, members);
        out.truncate(start);
        out.extend_from_slice(&sorted);
    }
    out.push(b'}');
    Ok(())
}

/// The members in the order of their keys; of those with the same key the last.
fn in_order(written: &[u8], mut members: Vec<Range<usize>>) -> Vec<u8> {
    let text = |member: &Range<usize>| written.get(member.clone()).unwrap_or_default();
    members.sort_by(|a, b| key(text(a)).cmp(key(text(b))));
    let mut out = Vec::with_capacity(members.iter().map(|member| member.len() + 1).sum());
    let mut rest = members.iter().map(text).peekable();
    while let Some(member) = rest.next() {
        if rest.peek().is_some_and(|next| key(next).eq(key(member))) {
            continue;
        }
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(member);
    }
    out
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
