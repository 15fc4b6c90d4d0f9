//! `warren key …`: the signing key, while the server is stopped.

use warren_engine::command::RotateSigningKey;

use crate::config::Config;
use crate::context::open_engine;
use crate::data_dir;

/// Gives the server a new signing key, and tells of both. Errors: a sentence; the server is running, for instance.
pub fn rotate(config: Config) -> Result<String, String> {
    let _lock = data_dir::lock(&config.data_dir)?;
    let engine = open_engine(&config)?;
    let rotated = engine.write(RotateSigningKey).wait().map_err(|error| error.to_string())?;
    Ok(format!(
        "{} is the signing key from the next start on\n{} is published as out of use\n",
        rotated.new, rotated.old
    ))
}
