//! The binary `warren`: a Matrix homeserver.

#![forbid(unsafe_code)]

mod admin;
mod cli;
mod client;
mod config;
mod context;
mod data_dir;
mod discovery;
mod errands;
mod federation;
mod http;
mod log;
mod media;
mod metrics;
mod open_files;
mod outgoing;
mod page;
mod password;
mod recovery;
mod worker;

use http::Endpoint;

/// RocksDB and the async runtime allocate and free on different threads all the time, which the system's allocator
/// answers with memory that it never gives back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// All endpoints: every topic's table.
fn tables() -> Vec<&'static [Endpoint]> {
    [&[page::ENDPOINTS, discovery::ENDPOINTS], client::TOPICS, federation::TOPICS, admin::TOPICS].concat()
}

fn main() -> std::process::ExitCode {
    cli::run()
}
