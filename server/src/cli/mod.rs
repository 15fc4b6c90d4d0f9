//! The command line: arguments, and one file per command.

mod arguments;
mod check;
mod key;
mod resync;
mod room;
mod routes;
mod serve;
mod user;

use std::process::ExitCode;

use arguments::Command;

/// Runs what the arguments ask for.
pub fn run() -> ExitCode {
    let (command, config) = match arguments::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let done = match command {
        Command::Serve => config.and_then(serve::run),
        Command::User(command) => {
            config.and_then(|config| user::run(config, command)).and_then(|text| print(&text))
        }
        Command::Room(command) => {
            config.and_then(|config| room::run(config, command)).and_then(|text| print(&text))
        }
        Command::Resync(resync) => {
            config.and_then(|config| resync::run(config, resync)).and_then(|text| print(&text))
        }
        Command::RotateKey => config.and_then(key::rotate).and_then(|text| print(&text)),
        Command::Check(options) => return check::run(config, options),
        Command::Routes => print(&routes::table()),
        Command::Config => print(&crate::config::table::example()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("warren: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Prints to standard output; a reader that has gone away, such as `head`, is no fault.
fn print(text: &str) -> Result<(), String> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}
