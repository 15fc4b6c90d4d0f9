//! `warren key …`: the signing key, while the server is stopped.

use warren_engine::command::RotateSigningKey;

use crate::config::Config;

/// Gives the server a new signing key, and tells of both. Errors: a sentence; the server is running, for instance.
pub fn rotate(config: Config) -> Result<String, String> {
    let (_lock, engine) = super::open_existing(&config)?;
    let rotated = engine.write(RotateSigningKey).wait().map_err(|error| error.to_string())?;
    Ok(format!(
        "{} is the signing key from the next start on\n{} is published as out of use\n",
        rotated.new, rotated.old
    ))
}
