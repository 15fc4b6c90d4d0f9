//! matrix-sdk, unmodified, against the homeserver at `HOMESERVER_URL`.

// The futures of the SDK nest deeply.
#![recursion_limit = "256"]

mod chat;
mod devices;
mod session;
