//! The client-server API, one file per topic of the specification's `data/api/client-server/`.

use crate::http::Endpoint;

mod capabilities;
mod login;
mod login_token;
mod logout;
mod password_management;
mod refresh;
pub mod registration;
mod registration_tokens;
mod versions;
mod voip;
mod whoami;

/// The tables of all topics.
pub const TOPICS: &[&[Endpoint]] = &[
    capabilities::ENDPOINTS,
    login::ENDPOINTS,
    login_token::ENDPOINTS,
    logout::ENDPOINTS,
    password_management::ENDPOINTS,
    refresh::ENDPOINTS,
    registration::ENDPOINTS,
    registration_tokens::ENDPOINTS,
    versions::ENDPOINTS,
    voip::ENDPOINTS,
    whoami::ENDPOINTS,
];
