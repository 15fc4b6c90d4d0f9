//! The configuration: typed, validated values. Nothing here is optional by accident.

use ruma_common::OwnedServerName;

/// The validated configuration.
pub struct Config {
    pub server_name: OwnedServerName,
}
