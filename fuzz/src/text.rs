//! What clients write by hand: filters and query strings.

use warren_engine::core::filter::{Filter, RoomEventFilter};

#[path = "../../server/src/http/query.rs"]
mod query_string;

/// Compiles the bytes as either kind of filter, and asks it.
pub fn filter(bytes: &[u8]) {
    if let Ok(filter) = Filter::parse(bytes) {
        let includes = filter.room.includes_room("!room:example.org");
        assert!(includes || !filter.room.includes_every_room(), "every room, but not this one");
    }
    if let Ok(filter) = RoomEventFilter::parse(bytes) {
        let matches = filter.matches("m.room.message", "@alice:example.org", "!room:example.org", || true);
        assert!(!matches || !filter.is_nothing(), "nothing, but this event");
        assert!(!filter.is_everything() || matches, "everything, but not this event");
    }
}

/// The first line is a name, the rest a query string.
pub fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (name, query) = text.split_once('\n').unwrap_or(("access_token", text));
    // The target of a request is shorter than that.
    if query.len() >= usize::from(u16::MAX) {
        return;
    }
    let parameters = query_string::Parameters::of(query);
    let found: Vec<&str> = parameters.values(query, name).collect();
    let plain = query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_encoded = key.contains('%');
        let decoded = query_string::percent_decode(key, true);
        let is_meant = if is_encoded { decoded.as_deref() == Some(name) } else { key == name };
        (is_meant && !pair.is_empty()).then_some(value)
    });
    assert!(plain.eq(found.iter().copied()), "other values than by taking the string apart each time");
    for value in found {
        for plus_is_space in [true, false] {
            if let Some(decoded) = query_string::percent_decode(value, plus_is_space) {
                assert!(decoded.len() <= value.len(), "decoding made it longer");
            }
        }
    }
}
