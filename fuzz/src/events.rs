//! Events from outside, in every room version.

use warren_engine::core::event::redact;
use warren_engine::core::event::{Pdu, reference_hash, reference_hash_of_json, write_redacted};
use warren_engine::core::json::{Limits, Strictness, canonical, parse_object};
use warren_engine::core::version::ROOM_VERSIONS;

/// Parses as each room version; an accepted event survives storing, and both ways of redacting and hashing agree.
pub fn event(bytes: &[u8]) {
    for version in ROOM_VERSIONS {
        let Ok(pdu) = Pdu::parse(version, bytes) else { continue };
        let stored = Pdu::from_stored(version, pdu.event_id.clone(), pdu.json.clone());
        let stored = stored.expect("an accepted event can be read back");
        assert_eq!((&stored.room_id, &stored.sender, &stored.kind), (&pdu.room_id, &pdu.sender, &pdu.kind));
        assert_eq!((&stored.content, &stored.redacts), (&pdu.content, &pdu.redacts));
        let limits = Limits { bytes_max: pdu.json.len(), strictness: Strictness::Lenient };
        let object = parse_object(&pdu.json, limits).expect("an accepted event is JSON");
        let mut redacted = redact(version, &object);
        assert_eq!(redact(version, &redacted), redacted, "redacting twice is redacting once");
        // What is signed and hashed is the redacted event without its signatures.
        redacted.remove("signatures");
        let mut written = Vec::new();
        write_redacted(version, &pdu.json, &mut written).expect("an accepted event can be redacted");
        assert_eq!(written, canonical(&redacted.into()), "redacting bytes and redacting values differ");
        let hash = reference_hash(version, &object).ok();
        assert_eq!(reference_hash_of_json(version, &pdu.json).ok(), hash, "two reference hashes");
    }
}
