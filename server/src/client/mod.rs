//! The client-server API, one file per topic of the specification's `data/api/client-server/`.

use crate::http::Endpoint;

mod banning;
mod capabilities;
mod create_room;
mod event_context;
mod inviting;
mod joining;
mod kicking;
mod knocking;
mod leaving;
mod list_joined_rooms;
mod membership;
mod message_pagination;
mod presence;
mod read_markers;
mod receipts;
mod redaction;
mod relations;
mod room_event_by_timestamp;
mod room_send;
mod room_state;
mod rooms;
mod threads_list;
mod typing;
mod users;
mod versions;
mod voip;

/// The tables of all topics.
pub const TOPICS: &[&[Endpoint]] = &[
    banning::ENDPOINTS,
    capabilities::ENDPOINTS,
    create_room::ENDPOINTS,
    event_context::ENDPOINTS,
    inviting::ENDPOINTS,
    joining::ENDPOINTS,
    kicking::ENDPOINTS,
    knocking::ENDPOINTS,
    leaving::ENDPOINTS,
    list_joined_rooms::ENDPOINTS,
    message_pagination::ENDPOINTS,
    presence::ENDPOINTS,
    read_markers::ENDPOINTS,
    receipts::ENDPOINTS,
    redaction::ENDPOINTS,
    relations::ENDPOINTS,
    room_event_by_timestamp::ENDPOINTS,
    room_send::ENDPOINTS,
    room_state::ENDPOINTS,
    rooms::ENDPOINTS,
    threads_list::ENDPOINTS,
    typing::ENDPOINTS,
    users::ENDPOINTS,
    versions::ENDPOINTS,
    voip::ENDPOINTS,
];
