//! The client-server API, one file per topic of the specification's `data/api/client-server/`.

use crate::http::Endpoint;

mod account_data;
pub mod account_deactivation;
mod administrative_contact;
mod banning;
mod capabilities;
mod create_room;
mod directory;
mod device_management;
mod filter;
mod event_context;
mod inviting;
mod joining;
mod kicking;
mod knocking;
mod leaving;
mod list_joined_rooms;
mod list_public_rooms;
mod login;
mod login_token;
mod logout;
mod media;
mod membership;
mod openid;
mod password_management;
mod profile;
mod pushrules;
mod redaction;
mod refresh;
pub mod registration;
mod registration_tokens;
mod room_send;
mod room_state;
mod tags;
mod cross_signing;
mod key_backup;
mod keys;
mod to_device;
mod message_pagination;
mod presence;
mod read_markers;
mod receipts;
mod relations;
mod room_event_by_timestamp;
mod rooms;
mod threads_list;
mod typing;
mod users;
mod versions;
mod voip;
mod whoami;

/// The tables of all topics.
pub const TOPICS: &[&[Endpoint]] = &[
    account_data::ENDPOINTS,
    account_deactivation::ENDPOINTS,
    administrative_contact::ENDPOINTS,
    banning::ENDPOINTS,
    capabilities::ENDPOINTS,
    create_room::ENDPOINTS,
    directory::ENDPOINTS,
    device_management::ENDPOINTS,
    filter::ENDPOINTS,
    event_context::ENDPOINTS,
    inviting::ENDPOINTS,
    joining::ENDPOINTS,
    kicking::ENDPOINTS,
    knocking::ENDPOINTS,
    leaving::ENDPOINTS,
    list_joined_rooms::ENDPOINTS,
    list_public_rooms::ENDPOINTS,
    cross_signing::ENDPOINTS,
    key_backup::ENDPOINTS,
    keys::ENDPOINTS,
    login::ENDPOINTS,
    login_token::ENDPOINTS,
    logout::ENDPOINTS,
    openid::ENDPOINTS,
    password_management::ENDPOINTS,
    profile::ENDPOINTS,
    pushrules::ENDPOINTS,
    media::ENDPOINTS,
    redaction::ENDPOINTS,
    refresh::ENDPOINTS,
    registration::ENDPOINTS,
    registration_tokens::ENDPOINTS,
    room_send::ENDPOINTS,
    room_state::ENDPOINTS,
    tags::ENDPOINTS,
    to_device::ENDPOINTS,
    message_pagination::ENDPOINTS,
    presence::ENDPOINTS,
    read_markers::ENDPOINTS,
    receipts::ENDPOINTS,
    relations::ENDPOINTS,
    room_event_by_timestamp::ENDPOINTS,
    rooms::ENDPOINTS,
    threads_list::ENDPOINTS,
    typing::ENDPOINTS,
    users::ENDPOINTS,
    versions::ENDPOINTS,
    voip::ENDPOINTS,
    whoami::ENDPOINTS,
];
