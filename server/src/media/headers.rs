//! Headers around media: what a browser may do with bytes that strangers uploaded.
//!
//! Invariant: nothing that a client gave gets into a header but through this file. Specification: client-server API,
//! "Serving inline content" and "Content repository".

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The types that are shown rather than saved: the specification's list, whole.
const INLINE_TYPES: &[&str] = &[
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// What stands for a type that is missing or is none.
const OCTET_STREAM: &str = "application/octet-stream";

/// Longest content type that is stored and sent back. RFC 6838 allows 127 characters on each side of the slash.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// The policy that the specification recommends.
const POLICY: HeaderValue = HeaderValue::from_static(
    "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; \
     object-src 'self';",
);
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Who may keep a copy. A media id's content never changes; a day is for what is removed by an administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// The asker alone: it was asked for with an access token.
    Private,
    /// Everybody on the way.
    Public,
}

/// The headers of a content or a thumbnail. `tag` is a strong entity tag without its quotes, of our own making.
pub fn add(
    headers: &mut HeaderMap,
    content_type: &str,
    file_name: Option<&str>,
    tag: &str,
    caching: Caching,
) {
    let content_type = clean_type(content_type);
    let disposition = disposition(&content_type, file_name);
    let cache = match caching {
        Caching::Private => "private, max-age=86400, immutable",
        Caching::Public => "public, max-age=86400, immutable",
    };
    headers.insert(CONTENT_TYPE, value(&content_type, OCTET_STREAM));
    headers.insert(CONTENT_DISPOSITION, value(&disposition, "attachment"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(ETAG, value(&format!("\"{tag}\""), "\"\""));
}

/// What was made of printable ASCII alone is a header value; were it not, the harmless value stands in.
fn value(text: &str, otherwise: &'static str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(otherwise))
}

/// A content type as it may be sent: what is not `type/subtype` becomes `application/octet-stream`, and parameters
/// stay only if no reader can take them for something else (a comma would begin another type).
fn clean_type(given: &str) -> String {
    let (essence, parameters) = given.split_once(';').unwrap_or((given, ""));
    let essence = essence.trim().to_ascii_lowercase();
    let is_token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let is_type = essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    if !is_type || given.len() > CONTENT_TYPE_BYTES_MAX {
        return OCTET_STREAM.to_owned();
    }
    let parameters = parameters.trim();
    let is_plain =
        parameters.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" ;=-_.+\"".contains(&byte));
    if parameters.is_empty() || !is_plain { essence } else { format!("{essence}; {parameters}") }
}

/// `inline` or `attachment`, with the file's name if it has one.
fn disposition(clean_type: &str, file_name: Option<&str>) -> String {
    let essence = clean_type.split(';').next().unwrap_or_default();
    let kind = if INLINE_TYPES.contains(&essence) { "inline" } else { "attachment" };
    let name: String = file_name.unwrap_or_default().chars().filter_map(clean_character).collect();
    if name.is_empty() {
        return kind.to_owned();
    }
    // What a quoted string can hold without escapes, and without a percent sign, which some browsers decode.
    let is_plain = name.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\%".contains(&byte));
    if is_plain {
        format!("{kind}; filename=\"{name}\"")
    } else {
        format!("{kind}; filename*=utf-8''{}", percent_encoded(&name))
    }
}

/// A character of a file name: controls go, and with them what turns the direction of writing (`gpj.exe` shown as
/// `exe.jpg`); what separates folders becomes a low line.
fn clean_character(character: char) -> Option<char> {
    match character {
        '/' | '\\' => Some('_'),
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => None,
        character if character.is_control() => None,
        character => Some(character),
    }
}

/// The value characters of RFC 8187, section 3.2.1; everything else as `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Whether an `If-None-Match` header names this entity tag, weak or strong (RFC 9110, 13.1.2).
pub fn is_known(if_none_match: &str, tag: &str) -> bool {
    let mut names = if_none_match.split(',').map(|name| name.trim().trim_start_matches("W/"));
    names.any(|name| name == "*" || name.trim_matches('"') == tag)
}

/// The part of a content that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// From the first offset up to and including the second.
    Range(u64, u64),
    /// Nothing of it: the range lies behind the end.
    Unsatisfiable,
}

/// Reads a `Range` header for a content of `size` bytes. Several ranges, other units and what is malformed count as not
/// asked for, as RFC 9110, 14.2 lets servers do.
pub fn part(range: Option<&str>, size: u64) -> Part {
    let asked =
        range.and_then(|range| range.trim().strip_prefix("bytes=")).and_then(|range| range.split_once('-'));
    let Some((first, last)) = asked.map(|(first, last)| (first.trim(), last.trim())) else {
        return Part::Whole;
    };
    let end = size.saturating_sub(1);
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), _) if first >= size && last.bytes().all(|byte| byte.is_ascii_digit()) => {
            Part::Unsatisfiable
        }
        (Ok(first), Ok(last)) if first <= last => Part::Range(first, last.min(end)),
        (Ok(first), Err(_)) if last.is_empty() => Part::Range(first, end),
        (Err(_), Ok(length)) if first.is_empty() => match length.min(size) {
            0 => Part::Unsatisfiable,
            length => Part::Range(size - length, end),
        },
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_is_on_the_list_and_saves_the_rest() {
        let kind = |given: &str| disposition(&clean_type(given), None);
        assert_eq!(kind("image/png"), "inline");
        assert_eq!(kind("Text/Plain; charset=utf-8"), "inline");
        for active in
            ["text/html", "image/svg+xml", "application/xhtml+xml", "application/pdf", "", "nonsense"]
        {
            assert_eq!(kind(active), "attachment", "{active}");
        }
    }

    #[test]
    fn a_type_cannot_hide_another() {
        assert_eq!(clean_type("image/png, text/html"), OCTET_STREAM);
        assert_eq!(clean_type("image/png; a=b, text/html"), "image/png");
        assert_eq!(clean_type("text/plain;charset=utf-8"), "text/plain; charset=utf-8");
        assert_eq!(clean_type("image/png\r\nX-Evil: 1"), OCTET_STREAM);
        assert_eq!(clean_type("image/png;\r\nX-Evil: 1"), "image/png");
        assert_eq!(clean_type(&format!("image/{}", "x".repeat(300))), OCTET_STREAM);
    }

    #[test]
    fn a_name_cannot_leave_its_header() {
        let named = |name: &str| disposition("image/png", Some(name));
        assert_eq!(named("cat.png"), "inline; filename=\"cat.png\"");
        assert_eq!(named("a\r\nSet-Cookie: b=c"), "inline; filename=\"aSet-Cookie: b=c\"");
        assert_eq!(named("a\"; filename=\"b"), "inline; filename*=utf-8''a%22%3B%20filename%3D%22b");
        assert_eq!(named("../../etc/passwd"), "inline; filename=\".._.._etc_passwd\"");
        assert_eq!(named("50%.png"), "inline; filename*=utf-8''50%25.png");
        assert_eq!(named("Grüße 🐈.png"), "inline; filename*=utf-8''Gr%C3%BC%C3%9Fe%20%F0%9F%90%88.png");
        assert_eq!(named("cat\u{202e}gpj.exe"), "inline; filename=\"catgpj.exe\"");
        assert_eq!(named("\0\r\n"), "inline");
    }

    #[test]
    fn every_name_and_type_makes_valid_headers() {
        for hostile in ["\0", "ü", "\u{7f}", "a,b", "\"", "\\", "\u{2028}", "%0d%0a"] {
            let mut headers = HeaderMap::new();
            add(&mut headers, hostile, Some(hostile), "tag", Caching::Public);
            assert_eq!(headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes), Some(OCTET_STREAM.as_bytes()));
            assert!(headers.values().all(|value| value.to_str().is_ok()), "{hostile:?}");
        }
    }

    #[test]
    fn ranges() {
        let cases = [
            (None, Part::Whole),
            (Some("bytes=0-3"), Part::Range(0, 3)),
            (Some("bytes=4-"), Part::Range(4, 9)),
            (Some("bytes=-4"), Part::Range(6, 9)),
            (Some("bytes=-40"), Part::Range(0, 9)),
            (Some("bytes=8-40"), Part::Range(8, 9)),
            (Some("bytes=10-"), Part::Unsatisfiable),
            (Some("bytes=-0"), Part::Unsatisfiable),
            (Some("bytes=3-2"), Part::Whole),
            (Some("bytes=0-1,4-5"), Part::Whole),
            (Some("lines=0-1"), Part::Whole),
            (Some("bytes=-"), Part::Whole),
            (Some("bytes=a-b"), Part::Whole),
        ];
        for (range, expected) in cases {
            assert_eq!(part(range, 10), expected, "{range:?}");
        }
        assert_eq!(part(Some("bytes=0-"), 0), Part::Unsatisfiable);
    }

    #[test]
    fn entity_tags() {
        assert!(is_known("\"abc\"", "abc"));
        assert!(is_known("\"x\", W/\"abc\"", "abc"));
        assert!(is_known("*", "abc"));
        assert!(!is_known("\"abcd\"", "abc"));
        assert!(!is_known("", "abc"));
    }
}
