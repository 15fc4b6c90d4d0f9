//! `warren-bench`: drives any Matrix homeserver over the client-server API, and compares Warren with others in one run.

#![forbid(unsafe_code)]

mod cli;
mod client;
mod context;
mod error;
mod histogram;
mod load;
mod machine;
mod matrix;
mod measures;
mod peers;
mod process;
mod report;
mod run;
mod scan;
mod statistics;

use std::process::ExitCode;

/// The generator shares the machine with the server: two threads are what its load needs at most.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(cli::main()),
        Err(error) => {
            eprintln!("the runtime does not start: {error}");
            ExitCode::FAILURE
        }
    }
}
