//! Query strings: percent-decoding and lookup by name, without building a map.

use std::borrow::Cow;

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

/// The undecoded values of all parameters of that name, in order. Names in the specification need no encoding, but
/// clients may encode them, so an encoded name is decoded before it is compared.
pub fn values<'q, 'n>(query: &'q str, name: &'n str) -> impl Iterator<Item = &'q str> + use<'q, 'n> {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let matches =
            key == name || (key.contains('%') && percent_decode(key, true).as_deref() == Some(name));
        matches.then_some(value)
    })
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
        assert_eq!(values("a=1&b=2&a=3", "a").collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!(values("filter%5B=x", "filter[").collect::<Vec<_>>(), ["x"]);
        assert_eq!(values("flag", "flag").collect::<Vec<_>>(), [""]);
        assert_eq!(values("", "a").count(), 0);
    }
}
