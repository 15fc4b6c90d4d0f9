//! Identifiers: their grammar, and taking them apart.
//!
//! Own code, but for the address in an IPv6 literal, rather than `ruma-common`'s: its port parser takes a sign, and
//! it has no check for ids that may be told outside of events. Comparison is always by bytes: case matters.
//! Source: Matrix specification v1.19, appendices, "Identifier Grammar".

use ruma_common::ServerName;

/// The longest user id, room id, alias or event id in bytes, with sigil and server name.
pub const IDENTIFIER_BYTES_MAX: usize = 255;

/// The longest host of a server name ("dns-name = 1*255dns-char").
const HOST_BYTES_MAX: usize = 255;

/// The longest port of a server name in digits ("port = 1*5DIGIT").
const PORT_DIGITS_MAX: usize = 5;

/// Whether `name` is a server name: host name, IPv4 address or bracketed IPv6 address, with an optional port.
pub fn is_server_name(name: &str) -> bool {
    split_port(name).is_some_and(|(host, port)| {
        let host_is_valid =
            if host.starts_with('[') { <&ServerName>::try_from(host).is_ok() } else { is_host_name(host) };
        host_is_valid && port.is_none_or(is_port)
    })
}

/// Whether `host` is a DNS name or an IPv4 address, whose grammar the first includes.
fn is_host_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(allowed)
}

/// The host of a server name without its port; brackets stay. `None` if `name` has an unclosed bracket.
pub fn server_host(name: &str) -> Option<&str> {
    split_port(name).map(|(host, _)| host)
}

fn is_port(port: &str) -> bool {
    (1..=PORT_DIGITS_MAX).contains(&port.len())
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok()
}

fn split_port(name: &str) -> Option<(&str, Option<&str>)> {
    if !name.starts_with('[') {
        return Some(name.split_once(':').map_or((name, None), |(host, port)| (host, Some(port))));
    }
    let (host, rest) = name.split_at(name.find(']')? + 1);
    if rest.is_empty() { Some((host, None)) } else { Some((host, Some(rest.strip_prefix(':')?))) }
}

/// The parts of `sigil localpart ":" server_name`, whatever they hold. `None` without sigil or colon.
pub fn split(identifier: &str, sigil: char) -> Option<(&str, &str)> {
    identifier.strip_prefix(sigil)?.split_once(':')
}

/// The server name in a user id, room id, alias or event id; `None` where it has none (room ids of room version 12,
/// event ids of room versions 3 and later).
pub fn server_name(identifier: &str) -> Option<&str> {
    identifier.split_once(':').map(|(_, server)| server)
}

/// The localpart of a user id; `None` if `user_id` lacks sigil or colon.
pub fn localpart(user_id: &str) -> Option<&str> {
    split(user_id, '@').map(|(localpart, _)| localpart)
}

/// Whether the identifier has the common form with a valid server name, and no NUL in its localpart.
fn is_with_server(identifier: &str, sigil: char) -> bool {
    identifier.len() <= IDENTIFIER_BYTES_MAX
        && split(identifier, sigil)
            .is_some_and(|(localpart, server)| !localpart.contains('\0') && is_server_name(server))
}

/// Whether a user id may appear in events: the historical grammar, any localpart without `:` and NUL.
pub fn is_user_id(user_id: &str) -> bool {
    is_with_server(user_id, '@')
}

/// Whether a user id is one that a server may give to a new user.
pub fn is_new_user_id(user_id: &str) -> bool {
    is_user_id(user_id) && localpart(user_id).is_some_and(is_new_localpart)
}

/// Whether `localpart` may be given to a new user: not empty, only `a-z 0-9 . _ = - / +`.
pub fn is_new_localpart(localpart: &str) -> bool {
    !localpart.is_empty() && localpart.bytes().all(is_localpart_byte)
}

fn is_localpart_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'=' | b'-' | b'/' | b'+')
}

/// Whether a user id may be told to clients outside of events: not empty and within U+0021 to U+007E.
/// Specification: "Historical User IDs".
pub fn is_compliant_user_id(user_id: &str) -> bool {
    is_user_id(user_id)
        && localpart(user_id).is_some_and(|localpart| {
            !localpart.is_empty() && localpart.bytes().all(|byte| byte.is_ascii_graphic())
        })
}

/// Whether `alias` is a room alias.
pub fn is_room_alias(alias: &str) -> bool {
    is_with_server(alias, '#')
}

/// Whether `room_id` is a room id with a server name, as room versions 1 to 11 have them.
pub fn is_room_id_with_server(room_id: &str) -> bool {
    is_with_server(room_id, '!')
}

/// Whether `room_id` is a room id without a server name, as room version 12 has them.
pub fn is_room_id_without_server(room_id: &str) -> bool {
    is_opaque(room_id, '!')
}

/// Whether `room_id` is a room id of any room version.
pub fn is_room_id(room_id: &str) -> bool {
    is_room_id_without_server(room_id) || is_room_id_with_server(room_id)
}

/// Whether `event_id` is an event id with a server name, as room versions 1 and 2 have them.
pub fn is_event_id_with_server(event_id: &str) -> bool {
    is_with_server(event_id, '$')
}

/// Whether `event_id` is an event id of room version 3 or later: the sigil and something without `:` and NUL.
pub fn is_event_id_without_server(event_id: &str) -> bool {
    is_opaque(event_id, '$')
}

/// Whether `event_id` is an event id of any room version.
pub fn is_event_id(event_id: &str) -> bool {
    is_event_id_without_server(event_id) || is_event_id_with_server(event_id)
}

fn is_opaque(identifier: &str, sigil: char) -> bool {
    identifier.len() <= IDENTIFIER_BYTES_MAX
        && identifier
            .strip_prefix(sigil)
            .is_some_and(|opaque| !opaque.is_empty() && !opaque.contains([':', '\0']))
}

/// Maps any name to a localpart for a new user: upper case becomes lower case, what is not allowed (and `=`) becomes
/// `=` with two hexadecimal digits per byte. Specification: "Mapping from other character sets".
pub fn map_localpart(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        push_mapped(&mut out, byte.to_ascii_lowercase());
    }
    out
}

/// As [`map_localpart`], but names that differ in case stay different: `A` becomes `_a` and `_` becomes `__`.
pub fn map_localpart_preserving_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_uppercase() || byte == b'_' {
            out.push('_');
        }
        push_mapped(&mut out, byte.to_ascii_lowercase());
    }
    out
}

fn push_mapped(out: &mut String, byte: u8) {
    if is_localpart_byte(byte) && byte != b'=' {
        out.push(char::from(byte));
    } else {
        out.push_str(&format!("={byte:02x}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn all(list: &Value, check: impl Fn(&str) -> bool, expected: bool) {
        for item in list.as_array().unwrap() {
            assert_eq!(check(item.as_str().unwrap()), expected, "{item}");
        }
    }

    #[test]
    fn vectors() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../vectors/identifiers/identifiers.json")).unwrap();
        all(&vectors["server_name"]["valid"], is_server_name, true);
        all(&vectors["server_name"]["invalid"], is_server_name, false);
        all(&vectors["user_id"]["valid_new"], is_new_user_id, true);
        all(&vectors["user_id"]["valid_new"], is_compliant_user_id, true);
        all(&vectors["user_id"]["valid_historical"], is_user_id, true);
        all(&vectors["user_id"]["valid_historical"], is_new_user_id, false);
        all(&vectors["user_id"]["invalid"], is_user_id, false);
        all(&vectors["user_id_non_compliant_outside_events"], is_user_id, true);
        all(&vectors["user_id_non_compliant_outside_events"], is_compliant_user_id, false);
        all(&vectors["room_alias"]["valid"], is_room_alias, true);
        all(&vectors["room_alias"]["invalid"], is_room_alias, false);
        all(&vectors["room_id"]["with_domain"], is_room_id_with_server, true);
        all(&vectors["room_id"]["without_domain_room_version_12"], is_room_id_without_server, true);
        all(&vectors["event_id"]["room_versions_1_2"], is_event_id_with_server, true);
        all(&vectors["event_id"]["room_version_3"], is_event_id_without_server, true);
        all(&vectors["event_id"]["room_version_4_and_later"], is_event_id_without_server, true);
        for case in vectors["localpart_mapping"].as_array().unwrap() {
            let from = case["from"].as_str().unwrap();
            if let Some(to) = case["to"].as_str() {
                assert_eq!(map_localpart(from), to);
            }
            if let Some(to) = case["to_case_preserving"].as_str() {
                assert_eq!(map_localpart_preserving_case(from), to);
            }
        }
    }

    #[test]
    fn parts() {
        assert_eq!(server_name("@a:b:80"), Some("b:80"));
        assert_eq!(server_name("$hash"), None);
        assert_eq!(localpart("@a:b"), Some("a"));
        assert_eq!(server_host("b.example:80"), Some("b.example"));
        assert_eq!(server_host("[::1]:80"), Some("[::1]"));
        assert!(!is_server_name("matrix.org:+80"));
        assert!(!is_server_name("[::1]80"));
    }
}
