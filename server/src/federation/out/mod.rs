//! Requests to other servers.
//!
//! `discover.rs` finds where a server is, `client.rs` asks it, `keys.rs` gets its signing keys; `sender.rs` brings it what there
//! is for it, `devices.rs` asks for the devices of its users.

mod client;
pub mod devices;
mod discover;
mod error;
mod flights;
pub mod keys;
pub mod sender;

use std::sync::Arc;

use client::Client;
use discover::Discovery;
use keys::KeyFetches;

pub use client::Request;
pub use error::RemoteError;

use crate::config::Config;
use crate::outgoing::Outgoing;

/// What requests to other servers share: the connections, and what was found out about servers.
pub struct Federation {
    client: Client,
    discovery: Discovery,
    keys: KeyFetches,
}

impl Federation {
    pub fn new(config: &Config, outgoing: &Arc<Outgoing>) -> Federation {
        let resolve: Arc<[_]> = config.federation_resolve.clone().into();
        Federation {
            client: Client::new(outgoing, &resolve),
            discovery: Discovery::new(outgoing, &resolve),
            keys: KeyFetches::default(),
        }
    }
}
