//! Local accounts and what belongs to them: users, devices and their tokens, profiles, account data, filters.
//!
//! Invariant: of a token only its SHA-256 is stored. Passwords are hashed outside of the engine, which keeps the hash.

pub mod account_data;
pub mod devices;
pub(crate) mod erasures;
pub mod filters;
pub(crate) mod invite_permission;
pub mod passing_tokens;
pub mod presence;
pub mod profile;
pub mod push_rules;
pub mod registration_tokens;
mod session_cache;
pub mod sessions;
#[cfg(test)]
mod tests;
pub mod users;

pub(crate) use erasures::Erasures;
pub(crate) use session_cache::SessionCache;
pub use sessions::{NewSession, Session, Tokens};

pub use crate::store::schema::{Account, Sighting};
