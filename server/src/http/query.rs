//! Query strings: percent-decoding and lookup by name.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

/// Decodes `%XX`, and `+` as a space if `plus_is_space` (query strings, not paths). `None` if it is not UTF-8.
///
/// A `%` that no two hexadecimal digits follow stands for itself, as in the URL standard.
pub fn percent_decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || (plus_is_space && byte == b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(hex_digit(*high) << 4 | hex_digit(*low));
                rest = after;
            }
            (b'+', _) if plus_is_space => decoded.push(b' '),
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|byte| *byte == wanted)
}

/// The parameters of a request, taken apart once because a sync asks for eight of them.
#[derive(Default)]
pub struct Parameters(SmallVec<[Parameter; PARAMETERS_USUAL]>);

/// Most requests have no more; those of others are kept on the heap.
const PARAMETERS_USUAL: usize = 6;

/// Where in the query string a name and its value are. A request's target is shorter than 64 KiB.
struct Parameter {
    name: Range<u16>,
    value: Range<u16>,
    /// Names in the specification need no encoding, but clients may encode them.
    is_encoded: bool,
}

impl Parameters {
    pub fn of(query: &str) -> Parameters {
        let mut parameters = SmallVec::new();
        let mut start = 0;
        while start < query.len() {
            let pair = query.as_bytes().get(start..).unwrap_or_default();
            let length = position(pair, b'&').unwrap_or(pair.len());
            let pair = pair.get(..length).unwrap_or_default();
            let equals = position(pair, b'=').unwrap_or(length);
            let is_encoded = pair.iter().take(equals).any(|byte| *byte == b'%');
            let [from, middle, to] = [start, start + equals, start + length].map(|at| at as u16);
            let value = middle.saturating_add(1).min(to)..to;
            // Between two `&` there may be nothing at all, which is no parameter.
            if length > 0 {
                parameters.push(Parameter { name: from..middle, value, is_encoded });
            }
            start += length + 1;
        }
        Parameters(parameters)
    }

    /// The undecoded values of all parameters of that name, in order; `query` is the string that was taken apart.
    pub fn values<'q>(&self, query: &'q str, name: &str) -> impl Iterator<Item = &'q str> {
        let text = move |range: &Range<u16>| {
            query.get(usize::from(range.start)..usize::from(range.end)).unwrap_or_default()
        };
        self.0.iter().filter_map(move |parameter| {
            let found = text(&parameter.name);
            let is_meant = match parameter.is_encoded {
                false => found == name,
                true => percent_decode(found, true).as_deref() == Some(name),
            };
            is_meant.then(|| text(&parameter.value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_once_and_refuses_what_is_not_utf8() {
        assert_eq!(percent_decode("a%2Fb+c", true).as_deref(), Some("a/b c"));
        assert_eq!(percent_decode("a%2Fb+c", false).as_deref(), Some("a/b+c"));
        assert_eq!(percent_decode("%252F", false).as_deref(), Some("%2F"));
        assert_eq!(percent_decode("100%", false).as_deref(), Some("100%"));
        assert_eq!(percent_decode("%e2%82%AC", false).as_deref(), Some("€"));
        assert_eq!(percent_decode("%ff", false), None);
    }

    #[test]
    fn finds_all_values_of_a_name() {
        let values =
            |query: &'static str, name| Parameters::of(query).values(query, name).collect::<Vec<_>>();
        assert_eq!(values("a=1&b=2&a=3", "a"), ["1", "3"]);
        assert_eq!(values("filter%5B=x", "filter["), ["x"]);
        assert_eq!(values("flag", "flag"), [""]);
        assert!(values("", "a").is_empty());
        assert_eq!(values("ab=1&a&a=%3D&=2&&", "a"), ["", "%3D"]);
        assert_eq!(values("&a=1&&=2&", ""), ["2"]);
        assert_eq!(values("a=b%26=c&%61=2&b=a=3", "a"), ["b%26=c", "2"]);
    }
}
