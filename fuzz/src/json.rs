//! Canonical JSON: what is accepted has one encoding, which is accepted and stays the same.

use warren_engine::core::json::{JsonError, Limits, Strictness, canonical, canonical_text, members, parse};

/// Parses with both kinds of numbers, and scans as if the bytes were stored.
pub fn canonical_json(bytes: &[u8]) {
    without_values(bytes);
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        let limits = Limits { bytes_max: bytes.len(), strictness };
        let Ok(value) = parse(bytes, limits) else { continue };
        let written = canonical(&value);
        // Numbers may be written longer than they came: 1e2 is 100.
        let again = parse(&written, Limits { bytes_max: written.len(), strictness });
        assert_eq!(again.as_ref(), Ok(&value), "the canonical form means something else");
        assert_eq!(again.map(|again| canonical(&again)), Ok(written.clone()), "two canonical forms");
        if let Some(object) = value.as_object() {
            let found = members(&written).map(|member| member.map(|member| member.value.len()));
            assert_eq!(found.filter(Result::is_ok).count(), object.len(), "the scanner sees other members");
        }
    }
    // The scanner must bear corrupt bytes: it ends with an error, never with a panic or without end.
    let _ = members(bytes).take_while(Result::is_ok).count();
}

/// What is made of the text without values is what is made of its value, if it has one; else it stays the same.
fn without_values(bytes: &[u8]) {
    let rewritten = canonical_text(bytes, bytes.len());
    let limits = Limits { bytes_max: bytes.len(), strictness: Strictness::Lenient };
    match parse(bytes, limits).map(|value| canonical(&value)) {
        Err(JsonError::TooDeep { .. } | JsonError::IntegerRange { .. }) => {
            let Ok(written) = rewritten else { return };
            assert_eq!(canonical_text(&written, written.len()).as_ref(), Ok(&written), "two canonical forms");
        }
        parsed => assert_eq!(rewritten, parsed, "another text"),
    }
}
