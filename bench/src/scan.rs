//! Reading the little that a load generator needs out of an answer, without parsing it: it shares its cores with the
//! server, and a parsed sync response would cost as much as the server spent on it.
//!
//! Only for fields whose values are plain tokens (identifiers, positions): a value with an escape is not returned.

/// The first place of `needle` in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, rest) = needle.split_first()?;
    let mut from = 0;
    while let Some(offset) = haystack.get(from..)?.iter().position(|byte| byte == first) {
        let at = from + offset;
        if haystack.get(at + 1..at + needle.len())? == rest {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// How often `needle` occurs, overlaps not counted.
pub fn count(mut haystack: &[u8], needle: &[u8]) -> u64 {
    let mut times = 0;
    while let Some(at) = find(haystack, needle) {
        times += 1;
        haystack = haystack.get(at + needle.len()..).unwrap_or_default();
    }
    times
}

/// The value of the first string field with this name, at whatever depth.
pub fn string_field<'a>(body: &'a [u8], name: &str) -> Option<&'a str> {
    let quoted = format!("\"{name}\"");
    let mut body = body;
    loop {
        let at = find(body, quoted.as_bytes())?;
        body = body.get(at + quoted.len()..)?;
        // A string equal to the name but not followed by a colon is a value, not a field.
        if let Some(rest) = body.trim_ascii_start().strip_prefix(b":") {
            let text = rest.trim_ascii_start().strip_prefix(b"\"")?;
            let end = text.iter().position(|byte| *byte == b'"' || *byte == b'\\')?;
            return match text.get(end) {
                Some(b'"') => std::str::from_utf8(text.get(..end)?).ok(),
                _ => None,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_at_the_ends_and_after_false_starts() {
        assert_eq!(find(b"abc", b"abc"), Some(0));
        assert_eq!(find(b"aabab", b"ab"), Some(1));
        assert_eq!(find(b"ababac", b"abac"), Some(2));
        assert_eq!(find(b"ab", b"abc"), None);
        assert_eq!(find(b"xxa", b"ab"), None);
        assert_eq!(find(b"", b"a"), None);
        assert_eq!(find(b"abc", b""), None);
    }

    #[test]
    fn counts_without_overlap() {
        assert_eq!(count(b"aaaa", b"aa"), 2);
        assert_eq!(count(b"{\"a\":1},{\"a\":2}", b"\"a\":"), 2);
        assert_eq!(count(b"", b"a"), 0);
    }

    #[test]
    fn reads_fields_whatever_the_spacing() {
        assert_eq!(string_field(br#"{"event_id":"$x"}"#, "event_id"), Some("$x"));
        assert_eq!(string_field(b"{ \"event_id\" :\n \"$x\" }", "event_id"), Some("$x"));
        assert_eq!(string_field(br#"{"a":{"next_batch":"s1"}}"#, "next_batch"), Some("s1"));
    }

    #[test]
    fn a_value_that_looks_like_the_name_is_passed_over() {
        assert_eq!(string_field(br#"{"type":"end","end":"t9"}"#, "end"), Some("t9"));
    }

    #[test]
    fn what_is_not_a_plain_string_is_no_value() {
        assert_eq!(string_field(br#"{"end":null}"#, "end"), None);
        assert_eq!(string_field(br#"{"end":"a\"b"}"#, "end"), None);
        assert_eq!(string_field(br#"{"end":"cut off"#, "end"), None);
        assert_eq!(string_field(br#"{"start":"t"}"#, "end"), None);
    }
}
