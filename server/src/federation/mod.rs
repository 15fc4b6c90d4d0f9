//! The server-server API: one file per topic of the specification's `data/api/server-server/`, and what all topics share.
//!
//! Rows with auth `Server` are only reached by requests that the server in `call.origin()` has signed (`incoming.rs`).

use crate::http::Endpoint;

pub mod incoming;
mod keys_query;
mod keys_server;
pub mod limits;
pub mod out;
mod public_rooms;
mod published;
mod version;
mod x_matrix;

/// The tables of all topics.
pub const TOPICS: &[&[Endpoint]] =
    &[keys_query::ENDPOINTS, keys_server::ENDPOINTS, public_rooms::ENDPOINTS, version::ENDPOINTS];

#[cfg(test)]
mod tests {
    use crate::config::Apis;

    #[test]
    fn every_endpoint_is_of_the_federation_listeners() {
        let federation = Apis { client: false, federation: true, admin: false };
        let others = Apis { client: true, federation: false, admin: true };
        for path in super::TOPICS.iter().flat_map(|table| table.iter()).flat_map(|row| row.paths()) {
            assert!(federation.serve(&path) && !others.serve(&path), "{path}");
        }
    }
}
