//! The client-server API, one file per topic of the specification's `data/api/client-server/`.

use crate::http::Endpoint;

mod banning;
mod capabilities;
mod create_room;
mod directory;
mod inviting;
mod joining;
mod kicking;
mod knocking;
mod leaving;
mod list_joined_rooms;
mod list_public_rooms;
mod membership;
mod redaction;
mod room_send;
mod room_state;
mod versions;
mod voip;

/// The tables of all topics.
pub const TOPICS: &[&[Endpoint]] = &[
    banning::ENDPOINTS,
    capabilities::ENDPOINTS,
    create_room::ENDPOINTS,
    directory::ENDPOINTS,
    inviting::ENDPOINTS,
    joining::ENDPOINTS,
    kicking::ENDPOINTS,
    knocking::ENDPOINTS,
    leaving::ENDPOINTS,
    list_joined_rooms::ENDPOINTS,
    list_public_rooms::ENDPOINTS,
    redaction::ENDPOINTS,
    room_send::ENDPOINTS,
    room_state::ENDPOINTS,
    versions::ENDPOINTS,
    voip::ENDPOINTS,
];
