//! Other servers: their signing keys, and what they tell outside of rooms.

mod edus;
pub(crate) mod received;
mod server_keys;
mod trust;

pub use edus::{IncomingEdu, IncomingPresence, IncomingReceipt, edu, parse};
pub use server_keys::ServerKey;
pub(crate) use server_keys::{ServerKeys, own_old_keys, store};
pub use trust::KeyStanding;
pub(crate) use trust::NeverTrusted;
