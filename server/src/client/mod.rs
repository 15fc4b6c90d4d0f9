//! The client-server API, one file per topic of the specification's `data/api/client-server/`.

use crate::http::Endpoint;

mod capabilities;
mod versions;
mod voip;

/// The tables of all topics.
pub const TOPICS: &[&[Endpoint]] = &[capabilities::ENDPOINTS, versions::ENDPOINTS, voip::ENDPOINTS];
