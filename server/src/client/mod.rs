//! The client-server API, one file per topic of the specification's `data/api/client-server/`.

use crate::http::Endpoint;

mod versions;

/// The tables of all topics.
pub const TOPICS: &[&[Endpoint]] = &[versions::ENDPOINTS];
