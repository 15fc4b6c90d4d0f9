//! The server-server API: one file per topic of the specification's `data/api/server-server/`, and what all topics share.
//!
//! Rows with auth `Server` are only reached by requests that the server in `call.origin()` has signed (`incoming.rs`).

use crate::http::Endpoint;

mod backfill;
mod content_repository;
mod event_auth;
mod events;
mod handshakes;
pub mod incoming;
mod invites;
mod joins;
mod keys_query;
mod keys_server;
mod knocks;
pub mod large_bodies;
mod leaving;
pub mod limits;
mod lists;
mod openid;
pub mod out;
pub mod places;
mod public_rooms;
pub mod published;
mod query;
pub mod refusals;
pub mod room_answers;
pub mod room_policy;
mod space_hierarchy;
mod third_party_invite;
pub mod transactions;
mod user_devices;
mod user_keys;
mod version;
mod x_matrix;

/// The tables of all topics.
pub const TOPICS: &[&[Endpoint]] = &[
    backfill::ENDPOINTS,
    content_repository::ENDPOINTS,
    event_auth::ENDPOINTS,
    events::ENDPOINTS,
    invites::ENDPOINTS,
    joins::ENDPOINTS,
    keys_query::ENDPOINTS,
    keys_server::ENDPOINTS,
    knocks::ENDPOINTS,
    leaving::ENDPOINTS,
    openid::ENDPOINTS,
    public_rooms::ENDPOINTS,
    query::ENDPOINTS,
    room_policy::ENDPOINTS,
    space_hierarchy::ENDPOINTS,
    third_party_invite::ENDPOINTS,
    transactions::ENDPOINTS,
    user_devices::ENDPOINTS,
    user_keys::ENDPOINTS,
    version::ENDPOINTS,
];

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
