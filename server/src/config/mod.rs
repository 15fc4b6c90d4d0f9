//! The configuration: typed, validated values, made in one step from everything that was given.

mod access;
mod file;
pub mod listener;
mod network;
mod old_key;
mod resolve;
mod secret;
pub mod source;
pub mod table;
mod validate;

#[cfg(test)]
pub mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use ruma_common::{OwnedServerName, RoomVersionId};

pub use access::Access;
pub use file::NamedFile;
pub use listener::{Address, Apis, Listener};
pub use network::Network;
pub use old_key::OldKey;
pub use resolve::Resolve;
pub use secret::Secret;

/// The validated configuration; the fields are the options of [`table::ROWS`] under the same names.
#[derive(Debug, Clone)]
pub struct Config {
    pub server_name: OwnedServerName,
    /// Without a slash at its end.
    pub public_base_url: String,
    pub data_dir: PathBuf,
    /// At least one.
    pub listen: Vec<Listener>,
    /// `tls_cert` and `tls_key`: both or none; there if a listener needs them.
    pub tls: Option<Tls>,
    pub trusted_ca_files: Vec<NamedFile>,
    pub trusted_proxies: Vec<Network>,
    pub default_room_version: RoomVersionId,
    pub well_known_server: Option<String>,
    /// Without a slash at its end.
    pub well_known_client: String,
    pub support_email: Option<String>,
    pub support_page: Option<String>,
    pub federation: bool,
    pub federation_access: Access,
    pub device_names_over_federation: bool,
    pub never_trust_keys: Vec<String>,
    pub old_signing_keys: Vec<OldKey>,
    pub trusted_key_servers: Vec<OwnedServerName>,
    pub policy_server: bool,
    /// Ids of rooms.
    pub policy_lists: Vec<String>,
    pub federation_resolve: Vec<Resolve>,
    /// Empty: those of the system.
    pub dns_servers: Vec<SocketAddr>,
    pub registration: Registration,
    pub guests: bool,
    pub registration_shared_secret: Option<Secret>,
    pub presence: bool,
    pub rate_limits: bool,
    /// Argon2id over 76 KiB times two to this power; see [`Config::password_hash_memory_kib`].
    pub password_hash_cost: u32,
    pub allow_private_addresses: bool,
    pub appservice_files: Vec<NamedFile>,
    /// `upload_limit_mib` in bytes.
    pub upload_bytes_max: u64,
    pub freeze_unauthenticated_media: bool,
    /// `memory_budget_mib` in bytes.
    pub memory_budget_bytes: u64,
    pub durability: Durability,
    pub log: String,
    pub log_format: LogFormat,
    pub metrics_listen: Option<SocketAddr>,
}

impl Config {
    /// The memory parameter of argon2id in KiB; the passes are always two, the lanes one.
    pub fn password_hash_memory_kib(&self) -> u32 {
        76 << self.password_hash_cost
    }
}

/// Certificate and key files of the https listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub cert: NamedFile,
    pub key: NamedFile,
}

/// Who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    Closed,
    Token,
    Open,
}

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it is on disk.
    Commit,
    /// When the operating system has it.
    Relaxed,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
