//! Canonical JSON: a parser with limits, a writer of the one right encoding, a way from text to text without values between,
//! and a scanner over stored bytes.
//!
//! Values are `serde_json::Value`, whose maps are sorted by code point; everything here relies on that order.
//! Source: Matrix specification v1.19, appendices, "Canonical JSON".
//! Not here: what an event must contain (`core::event::format`).

mod at_most;
mod number;
mod parse;
mod rewrite;
mod spans;
pub mod splice;
mod write;

pub use at_most::AtMost;
pub use parse::{JsonError, Limits, Strictness, check, parse, parse_around, parse_object};
pub use rewrite::canonical_text;
pub use spans::{Member, Members, SpanError, members, string_value};
pub use write::{
    canonical, write_canonical, write_members_without, write_object, write_string, write_unsigned,
};

/// How deeply arrays and objects may be nested: what common JSON libraries stop at (128), less room for the
/// responses and transactions that carry an event.
pub const NESTING_MAX: usize = 100;

/// How deeply a whole body or answer may be nested, of which single parts are judged by themselves: a user of another server
/// may nest one as deeply as its 64 KiB have room for, at two bytes a level, and must not keep what else is sent from being
/// taken; and some levels around it.
pub const BODY_NESTING_MAX: usize = 65_536 / 2 + 16;

/// The largest integer that canonical JSON allows, and with its sign turned the smallest: 2^53 - 1.
pub const INTEGER_MAX: i64 = (1 << 53) - 1;

#[cfg(test)]
mod tests;
