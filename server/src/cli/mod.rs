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

use warren_engine::Engine;

use crate::config::Config;
use crate::context::{STORE_FOLDER, open_engine, open_existing_engine, unreadable};
use crate::data_dir;
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
        Command::Resync(resync) => config
            .and_then(|config| resync::run(config, resync))
            .and_then(|(text, done)| print(&text).and(done)),
        Command::RotateKey => config.and_then(key::rotate).and_then(|text| print(&text)),
        Command::Check(options) => return check::run(config, options),
        Command::Routes => print(&routes::table()),
        Command::Config => print(&crate::config::table::example()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tell(&format!("warren: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// Takes the data folder and opens its database, which is made if there is none. Errors: a sentence; the server is running,
/// for instance.
fn open(config: &Config) -> Result<(data_dir::Lock, Engine), String> {
    open_with(config, open_engine)
}

fn open_with(
    config: &Config,
    open: fn(&Config) -> Result<Engine, String>,
) -> Result<(data_dir::Lock, Engine), String> {
    let lock = data_dir::lock(&config.data_dir)?;
    let engine = open(config)?;
    if let Some(unreadable) = unreadable(&engine) {
        tell(&format!("warren: {unreadable}"));
    }
    Ok((lock, engine))
}

/// The same of a database that is there. Errors: there is none, as where `data_dir` names another folder than was meant; then
/// nothing is made there.
fn open_existing(config: &Config) -> Result<(data_dir::Lock, Engine), String> {
    let folder = config.data_dir.join(STORE_FOLDER);
    let is_there = match std::fs::read_dir(&folder) {
        Ok(mut entries) => entries.next().is_some(),
        // What cannot be looked into says so when it is opened.
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    match is_there {
        true => open_with(config, open_existing_engine),
        false => Err(format!("there is no database in {}", folder.display())),
    }
}

/// Tells the operator something on standard error. That it cannot be told is no reason to stop.
fn tell(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints to standard output; a reader that has gone away, such as `head`, is no fault.
fn print(text: &str) -> Result<(), String> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}
