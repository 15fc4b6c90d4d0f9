//! `warren user …`: accounts without a running server, straight in the database.

use std::collections::BTreeSet;
use std::io::BufRead;

use warren_engine::Engine;
use warren_engine::command::{
    ChangePassword, Deactivate, EndDeactivation, MakeRegistrationToken, Register, SetAccount, WhichDevices,
};
use warren_engine::view::{AccountOf, Accounts};

use crate::client::account_deactivation::{Departure, departures};
use crate::config::{Config, Registration};
use crate::http::limits::MADE_PASSWORD_CHARS;
use crate::password::{PASSWORD_BYTES_MAX, Passwords};

/// What to do with accounts. Names are localparts or user ids.
#[derive(Debug, PartialEq, Eq)]
pub enum UserCommand {
    Create { name: String, is_admin: bool, password: PasswordSource },
    List,
    ResetPassword { name: String, password: PasswordSource },
    Deactivate { name: String, erase: bool },
    SetAdmin { name: String, is_admin: bool },
    Token,
}

/// Where a new password comes from. Never from the arguments, which every user of the machine can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordSource {
    /// The first line of standard input.
    Input,
    /// A random one, which is printed.
    Made,
}

/// Does it, and gives what is to be printed. Errors: a sentence; the server is running, for instance.
pub fn run(config: Config, command: UserCommand) -> Result<String, String> {
    let (_lock, engine) = match command {
        // The first accounts may be made before the first start.
        UserCommand::Create { .. } => super::open(&config)?,
        _ => super::open_existing(&config)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        match command {
            UserCommand::Create { name, is_admin, password } => {
                create(&config, &engine, &name, is_admin, password).await
            }
            UserCommand::List => list(&engine),
            UserCommand::ResetPassword { name, password } => {
                reset_password(&config, &engine, &name, password).await
            }
            UserCommand::Deactivate { name, erase } => {
                let user_id = existing(&config, &engine, &name)?;
                deactivate(&engine, user_id, erase).await.map_err(|error| error.to_string())
            }
            UserCommand::SetAdmin { name, is_admin } => set_admin(&config, &engine, &name, is_admin).await,
            UserCommand::Token => token(&config, &engine).await,
        }
    })
}

async fn create(
    config: &Config,
    engine: &Engine,
    name: &str,
    is_admin: bool,
    source: PasswordSource,
) -> Result<String, String> {
    let user_id = user_id(config, name);
    let suffix = format!(":{}", config.server_name);
    let localpart = user_id.strip_prefix('@').and_then(|rest| rest.strip_suffix(&suffix));
    let localpart =
        localpart.ok_or_else(|| format!("{user_id} is not a user id of {}", config.server_name))?;
    let (password_hash, shown) = new_password(config, engine, source).await?;
    let register = Register {
        localpart: localpart.to_owned(),
        password_hash: Some(password_hash),
        is_admin,
        ..Register::default()
    };
    let made = engine.write(register).await.map_err(|error| error.to_string())?;
    Ok(format!("{} is made\n{shown}", made.user_id))
}

async fn deactivate(engine: &Engine, user_id: String, erase: bool) -> warren_engine::Result<String> {
    engine.write(Deactivate { user_id: user_id.clone(), erase }).await?;
    let mut kept = String::new();
    for departure in departures(engine, &user_id)? {
        // Nobody asks other servers while this one is stopped: a room's policy server, or those that an invite came from.
        match departure {
            Departure::Here(leave) => {
                let room_id = leave.room_id.clone();
                if let Err(error) = engine.write(leave).await {
                    kept.push_str(&format!("still in {room_id}: {error}\n"));
                }
            }
            Departure::Elsewhere(change, _) => {
                kept.push_str(&format!("still invited to {}, or knocking there\n", change.room_id));
            }
        }
    }
    if !kept.is_empty() {
        return Ok(format!("{user_id} is deactivated; the server tries the rest when it runs\n{kept}"));
    }
    engine.write(EndDeactivation { user_id: user_id.clone() }).await?;
    Ok(format!("{user_id} is deactivated and has left all rooms\n"))
}

fn list(engine: &Engine) -> Result<String, String> {
    let accounts = engine.read(&Accounts).map_err(|error| error.to_string())?;
    let mut text = String::from("user_id\tcreated_ms\tkind\n");
    for (user_id, account) in accounts {
        let kinds = [
            (account.is_admin, "admin"),
            (account.is_guest, "guest"),
            (account.is_locked, "locked"),
            (account.is_suspended, "suspended"),
            (account.is_deactivated, "deactivated"),
        ];
        let kinds: Vec<&str> = kinds.into_iter().filter_map(|(is, kind)| is.then_some(kind)).collect();
        let kinds = if kinds.is_empty() { "user".to_owned() } else { kinds.join(",") };
        text.push_str(&format!("{user_id}\t{}\t{kinds}\n", account.created_ms));
    }
    Ok(text)
}

async fn reset_password(
    config: &Config,
    engine: &Engine,
    name: &str,
    source: PasswordSource,
) -> Result<String, String> {
    let user_id = existing(config, engine, name)?;
    let (password_hash, shown) = new_password(config, engine, source).await?;
    let change = ChangePassword {
        user_id: user_id.clone(),
        proven_hash: None,
        password_hash,
        log_out: WhichDevices::All,
    };
    engine.write(change).await.map_err(|error| error.to_string())?;
    Ok(format!("{user_id} has a new password and is logged out everywhere\n{shown}"))
}

/// Errors: there is no such account, or nobody can log in to it.
async fn set_admin(config: &Config, engine: &Engine, name: &str, is_admin: bool) -> Result<String, String> {
    let user_id = existing(config, engine, name)?;
    let account = engine.read(&AccountOf(&user_id)).map_err(|error| error.to_string())?;
    if is_admin && account.is_some_and(|account| account.is_guest || account.is_deactivated) {
        return Err(format!("{user_id} cannot administer the server: it is a guest's account, or closed"));
    }
    let set = SetAccount { user_id: user_id.clone(), is_admin: Some(is_admin), ..SetAccount::default() };
    engine.write(set).await.map_err(|error| error.to_string())?;
    Ok(match is_admin {
        true => format!("{user_id} administers the server\n"),
        false => format!("{user_id} does not administer the server\n"),
    })
}

async fn token(config: &Config, engine: &Engine) -> Result<String, String> {
    if config.registration != Registration::Token {
        return Err("no token is asked for unless registration is \"token\"".to_owned());
    }
    let made = engine.write(MakeRegistrationToken).await.map_err(|error| error.to_string())?;
    let what = match made.is_first {
        true => "the first account, which administers the server",
        false => "one account",
    };
    Ok(format!("a token is made that registers {what}\ntoken: {}\n", made.token))
}

/// The hash to store, and what is to be printed of the password.
async fn new_password(
    config: &Config,
    engine: &Engine,
    source: PasswordSource,
) -> Result<(String, String), String> {
    let (password, shown) = match source {
        PasswordSource::Made => {
            let password = engine.random_text(MADE_PASSWORD_CHARS);
            let shown = format!("password: {password}\n");
            (password, shown)
        }
        PasswordSource::Input => {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map_err(|error| error.to_string())?;
            (line.trim_end_matches(['\r', '\n']).to_owned(), String::new())
        }
    };
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes"));
    }
    // Nothing is checked here, so that it does not matter what else is stored.
    let passwords = Passwords::new(config, &BTreeSet::new())?;
    Ok((passwords.hash(password).await?, shown))
}

fn user_id(config: &Config, name: &str) -> String {
    match name.starts_with('@') {
        true => name.to_owned(),
        false => format!("@{name}:{}", config.server_name),
    }
}

fn existing(config: &Config, engine: &Engine, name: &str) -> Result<String, String> {
    let user_id = user_id(config, name);
    let account = engine.read(&AccountOf(&user_id)).map_err(|error| error.to_string())?;
    account.map(|_| user_id.clone()).ok_or_else(|| format!("there is no account {user_id}"))
}
