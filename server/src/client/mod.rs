//! The client-server API, one file per topic of the specification's `data/api/client-server/`.

use crate::http::Endpoint;

mod account_data;
pub mod account_deactivation;
mod admin;
mod administrative_contact;
mod authentication_fallback;
mod banning;
mod capabilities;
mod create_room;
mod cross_signing;
mod device_management;
pub mod directory;
mod event_context;
mod filter;
mod inviting;
mod joining;
mod key_backup;
pub mod keys;
mod kicking;
mod knocking;
mod leaving;
mod list_joined_rooms;
pub mod list_public_rooms;
mod login;
mod login_token;
mod logout;
pub mod media;
pub mod membership;
mod message_pagination;
mod openid;
mod password_management;
mod presence;
pub mod profile;
mod pushrules;
mod read_markers;
mod receipts;
mod redaction;
mod refresh;
pub mod registration;
mod registration_tokens;
mod relations;
mod room_event_by_timestamp;
mod room_send;
mod room_state;
mod room_upgrades;
mod rooms;
pub mod space_hierarchy;
mod sync;
mod tags;
mod threads_list;
mod to_device;
mod typing;
mod users;
mod versions;
mod voip;
mod whoami;

/// The tables of all topics.
pub const TOPICS: &[&[Endpoint]] = &[
    account_data::ENDPOINTS,
    account_deactivation::ENDPOINTS,
    admin::ENDPOINTS,
    administrative_contact::ENDPOINTS,
    authentication_fallback::ENDPOINTS,
    banning::ENDPOINTS,
    capabilities::ENDPOINTS,
    create_room::ENDPOINTS,
    cross_signing::ENDPOINTS,
    device_management::ENDPOINTS,
    directory::ENDPOINTS,
    event_context::ENDPOINTS,
    filter::ENDPOINTS,
    inviting::ENDPOINTS,
    joining::ENDPOINTS,
    key_backup::ENDPOINTS,
    keys::ENDPOINTS,
    kicking::ENDPOINTS,
    knocking::ENDPOINTS,
    leaving::ENDPOINTS,
    list_joined_rooms::ENDPOINTS,
    list_public_rooms::ENDPOINTS,
    login::ENDPOINTS,
    login_token::ENDPOINTS,
    logout::ENDPOINTS,
    media::ENDPOINTS,
    message_pagination::ENDPOINTS,
    openid::ENDPOINTS,
    password_management::ENDPOINTS,
    presence::ENDPOINTS,
    profile::ENDPOINTS,
    pushrules::ENDPOINTS,
    read_markers::ENDPOINTS,
    receipts::ENDPOINTS,
    redaction::ENDPOINTS,
    refresh::ENDPOINTS,
    registration::ENDPOINTS,
    registration_tokens::ENDPOINTS,
    relations::ENDPOINTS,
    room_event_by_timestamp::ENDPOINTS,
    room_send::ENDPOINTS,
    room_state::ENDPOINTS,
    room_upgrades::ENDPOINTS,
    rooms::ENDPOINTS,
    space_hierarchy::ENDPOINTS,
    sync::ENDPOINTS,
    tags::ENDPOINTS,
    threads_list::ENDPOINTS,
    to_device::ENDPOINTS,
    typing::ENDPOINTS,
    users::ENDPOINTS,
    versions::ENDPOINTS,
    voip::ENDPOINTS,
    whoami::ENDPOINTS,
];
