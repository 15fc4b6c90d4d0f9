//! The log: lines for people or JSON for machines, on standard error. Where that takes nothing, as on a full disk, the server goes
//! on without.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Starts logging. Errors: logging was started before in this process.
pub fn start(config: &Config) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| error.to_string())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would tell of what it cannot write where it cannot write, and whoever logged would fall.
        .log_internal_errors(false);
    let started = match config.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|error| error.to_string())
}

/// Says which settings are only for tests.
pub fn warn_of_test_settings(config: &Config) {
    if !config.rate_limits {
        tracing::warn!("rate_limits is off: passwords can be guessed without end; this is for tests only");
    }
    if config.password_hash_cost < 8 {
        tracing::warn!(
            cost = config.password_hash_cost,
            "password_hash_cost is low: stolen hashes are soon broken; this is for tests only"
        );
    }
    if config.allow_private_addresses {
        tracing::warn!(
            "allow_private_addresses is on: other servers can make this one ask addresses of your network"
        );
    }
}
