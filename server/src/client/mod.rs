//! The client-server API, one file per topic of the specification's `data/api/client-server/`.

use crate::http::Endpoint;

mod account_data;
pub mod account_deactivation;
mod administrative_contact;
mod capabilities;
mod cross_signing;
mod device_management;
mod filter;
mod key_backup;
mod keys;
mod login;
mod login_token;
mod logout;
mod openid;
mod password_management;
mod profile;
mod refresh;
pub mod registration;
mod registration_tokens;
mod tags;
mod to_device;
mod versions;
mod voip;
mod whoami;

/// The tables of all topics.
pub const TOPICS: &[&[Endpoint]] = &[
    account_data::ENDPOINTS,
    account_deactivation::ENDPOINTS,
    administrative_contact::ENDPOINTS,
    capabilities::ENDPOINTS,
    device_management::ENDPOINTS,
    filter::ENDPOINTS,
    cross_signing::ENDPOINTS,
    key_backup::ENDPOINTS,
    keys::ENDPOINTS,
    login::ENDPOINTS,
    login_token::ENDPOINTS,
    logout::ENDPOINTS,
    openid::ENDPOINTS,
    password_management::ENDPOINTS,
    profile::ENDPOINTS,
    refresh::ENDPOINTS,
    registration::ENDPOINTS,
    registration_tokens::ENDPOINTS,
    tags::ENDPOINTS,
    to_device::ENDPOINTS,
    versions::ENDPOINTS,
    voip::ENDPOINTS,
    whoami::ENDPOINTS,
];
