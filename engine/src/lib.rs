//! The engine of the Warren Matrix homeserver.

#![forbid(unsafe_code)]

pub mod core;
pub mod room;
