//! All limits of the HTTP side, each with its reason. Nothing else in the server makes up a number of this kind.

use std::time::Duration;

/// Bodies of ordinary requests. An event may have 65,536 bytes; what its sender writes with more escapes than the
/// canonical form has, or wraps into a request object, still fits in four times that.
pub const JSON_BODY_BYTES_MAX: usize = 256 * 1024;

/// Bodies that carry many objects: key uploads, key backup, to-device messages, room creation with initial state.
/// matrix-js-sdk backs up 200 sessions at a time (about 200 KiB); a hundred times an event leaves room for any client.
pub const BULK_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Time in which a body that is read whole must have arrived. A phone on a 2G network sends 256 KiB in about this time.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(60);

/// Longest silence within a streamed body.
pub const BODY_SILENCE_MAX: Duration = Duration::from_secs(30);

/// Path parameters in one path; the specification's most is four (`/state/{eventType}/{stateKey}` and its kin).
pub const PATH_PARAMETERS_MAX: usize = 6;
