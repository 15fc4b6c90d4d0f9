//! Other servers: their signing keys.

mod server_keys;

mod trust;

pub use server_keys::ServerKey;
pub(crate) use server_keys::{ServerKeys, store};
pub use trust::KeyStanding;
pub(crate) use trust::NeverTrusted;
