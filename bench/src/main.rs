//! `warren-bench`: drives any Matrix homeserver over the client-server API, and compares Warren with others in one run.

#![forbid(unsafe_code)]

mod certificates;
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

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// As the server has it: what is measured in this process is measured as it would run there.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The generator shares the machine with the server: two threads are what its load needs at most.
const THREADS: usize = 2;

/// A thousand waiting clients need a connection each; many systems allow 1,024 open files until asked.
const OPEN_FILES_MIN: u64 = 4_096;
/// Set when more open files have been asked for, so that it is tried once only.
const ASKED: &str = "WARREN_BENCH_ASKED_FOR_OPEN_FILES";

fn main() -> ExitCode {
    if process::open_files_max() < OPEN_FILES_MIN && std::env::var_os(ASKED).is_none() {
        ask_for_open_files();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    match runtime {
        // As a task, so that no request has to go from this thread to another before it is sent.
        Ok(runtime) => runtime.block_on(runtime.spawn(cli::main())).unwrap_or_else(|error| {
            eprintln!("the generator broke off: {error}");
            ExitCode::FAILURE
        }),
        Err(error) => {
            eprintln!("the runtime does not start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Replaces this process by itself under the highest limit that the system grants. When that fails, what needs more
/// files than there are will say so.
fn ask_for_open_files() {
    let Ok(own) = std::env::current_exe() else { return };
    let mut again = Command::new("sh");
    again.args(["-c", "ulimit -n \"$(ulimit -Hn)\" 2>/dev/null; exec \"$0\" \"$@\""]);
    again.arg(own).args(std::env::args_os().skip(1)).env(ASKED, "1");
    let failure = again.exec();
    eprintln!("the limit of open files stays low: {failure}");
}
