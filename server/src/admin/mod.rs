//! What administrators and their tools ask for, under the addresses that they know from other homeservers.

use crate::http::Endpoint;

pub mod register;

/// The tables of all topics.
pub const TOPICS: &[&[Endpoint]] = &[register::ENDPOINTS];
