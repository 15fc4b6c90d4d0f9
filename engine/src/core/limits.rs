//! Limits of the graphs that other servers make, in one place: what an event may be, and how far walks go.
//!
//! What is beyond a limit of the first kind is refused. Limits of the second kind bound what somebody can make this server
//! do; each walk visits an event once, whatever its shape: chains, fans, diamonds and doubled edges cost no more than their
//! events and edges. `docs/engine.md` says what becomes of each shape.

/// The largest event in bytes of canonical JSON, with hashes and signatures. Specification: client-server API, "Size limits".
pub const EVENT_BYTES_MAX: usize = 65_536;

/// The longest text in bytes that an event is parsed from. `unsigned` does not count towards the size of an event
/// and white space or escapes may blow it up, so there is room for four times the largest event.
pub const EVENT_TEXT_BYTES_MAX: usize = 4 * EVENT_BYTES_MAX;

/// The longest `type` and `state_key` in bytes. Specification: as above.
pub const KEY_BYTES_MAX: usize = 255;

/// The most `prev_events`. Specification: room versions, "Event format".
pub const PREV_EVENTS_MAX: usize = 20;

/// The most `auth_events`. Specification: as above.
pub const AUTH_EVENTS_MAX: usize = 10;

/// The largest depth where integers are not limited by canonical JSON: room versions 1 to 5. Deeper events keep it; nothing is
/// decided by the depth that a server claims but the order in which history is told.
pub const LENIENT_DEPTH_MAX: u64 = i64::MAX as u64;

/// How many events a new one of this server follows at most: fewer than the [`PREV_EVENTS_MAX`] that an event may name, as on
/// other servers. A room that was forked into more ends comes together over several events.
pub const OWN_PREV_EVENTS_MAX: usize = 10;

/// How many soft-failed or rejected events are looked through for the accepted ones behind them. Honest servers follow few.
pub const SET_ASIDE_MAX: usize = 100;

/// How many events may be missing before such events, each of which can name twenty that there never were: they are asked for.
pub const SET_ASIDE_MISSING_MAX: usize = 100;

/// How many redactions wait for one event that is not there. One is enough for an honest room, unless those who sent the
/// others were not allowed to: of more, those that can take it by themselves stay, and one of each server.
pub const EARLY_REDACTIONS_MAX: usize = 100;

/// How many events wait for one that is not there and that they relate to: the answers to a poll of a large room, say. Each
/// that comes writes their row anew, of some 20 KiB when it is full; an event itself may have three times as much.
pub const EARLY_RELATIONS_MAX: usize = 5_000;

/// The longest `rel_type` in bytes that is one. The specification sets no limit; this is that of an event's type. Each is kept for
/// ever, by a number.
pub const REL_TYPE_BYTES_MAX: usize = KEY_BYTES_MAX;

/// The longest entity in bytes that a rule of a moderation policy list is about. No identifier is longer; a longer pattern has nothing to
/// say that a shorter one could not.
pub const POLICY_ENTITY_BYTES_MAX: usize = KEY_BYTES_MAX;

/// How many rules of one moderation policy list count: the largest that are shared have some ten thousand. Each takes some hundred bytes
/// of memory.
pub const POLICY_RULES_MAX: usize = 100_000;

/// The longest auth chain that is collected. The largest public rooms have some hundred thousand events in theirs; each
/// costs about 60 bytes of memory while it is walked.
pub const AUTH_CHAIN_MAX: usize = 1_000_000;

/// How many events a walk over history looks at, found or not: rejected events lead on but are not found, and nobody
/// needs to pass more of them than this.
pub const HISTORY_WALK_MAX: usize = 2_000;

/// Bytes of denied events, and of what those name, that are stored of each room in [`OUTSIDERS_PERIOD_MS`] for servers that have no user in
/// it: some thousands of events, as come of users who are turned out while they speak.
pub const OUTSIDERS_BYTES_MAX: usize = 8 << 20;

/// How long that counts, in milliseconds: a week. So long a flood can keep out a server of whose join nothing is known here.
pub const OUTSIDERS_PERIOD_MS: u64 = 7 * 24 * 60 * 60 * 1000;
