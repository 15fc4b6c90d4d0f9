//! The binary `warren`: a Matrix homeserver.

#![forbid(unsafe_code)]

mod client;
mod config;
mod context;
mod http;

fn main() {}
