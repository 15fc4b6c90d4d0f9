//! What administrators and their tools ask for, under the addresses that they know from other homeservers.

use crate::http::Endpoint;

pub mod federation;
mod listing;
pub mod register;
pub mod rooms;

/// The tables of all topics.
pub const TOPICS: &[&[Endpoint]] = &[federation::ENDPOINTS, register::ENDPOINTS, rooms::ENDPOINTS];
