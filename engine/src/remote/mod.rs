//! Other servers: their signing keys.

mod server_keys;

pub use server_keys::ServerKey;
pub(crate) use server_keys::{ServerKeys, store};
