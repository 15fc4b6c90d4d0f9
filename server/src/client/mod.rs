//! The client-server API, one file per topic of the specification's `data/api/client-server/`.

use crate::http::Endpoint;

mod banning;
mod capabilities;
mod create_room;
mod inviting;
mod joining;
mod kicking;
mod knocking;
mod leaving;
mod list_joined_rooms;
mod login;
mod login_token;
mod logout;
mod membership;
mod password_management;
mod redaction;
mod refresh;
pub mod registration;
mod registration_tokens;
mod room_send;
mod room_state;
mod versions;
mod voip;
mod whoami;

/// The tables of all topics.
pub const TOPICS: &[&[Endpoint]] = &[
    banning::ENDPOINTS,
    capabilities::ENDPOINTS,
    create_room::ENDPOINTS,
    inviting::ENDPOINTS,
    joining::ENDPOINTS,
    kicking::ENDPOINTS,
    knocking::ENDPOINTS,
    leaving::ENDPOINTS,
    list_joined_rooms::ENDPOINTS,
    login::ENDPOINTS,
    login_token::ENDPOINTS,
    logout::ENDPOINTS,
    password_management::ENDPOINTS,
    redaction::ENDPOINTS,
    refresh::ENDPOINTS,
    registration::ENDPOINTS,
    registration_tokens::ENDPOINTS,
    room_send::ENDPOINTS,
    room_state::ENDPOINTS,
    versions::ENDPOINTS,
    voip::ENDPOINTS,
    whoami::ENDPOINTS,
];
