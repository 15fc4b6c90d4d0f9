//! Synapse, the reference homeserver, on SQLite as it comes: installed from PyPI into the user's cache folder, rate
//! limits and presence off, the cheapest password hashes it takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Serving, cache_folder};
use crate::error::{Error, Result};

/// Its configuration; `{…}` is filled in.
const CONFIGURATION: &str = include_str!("synapse.yaml");
/// What it has besides where others are to reach it.
const FEDERATION: &str = include_str!("synapse-federation.yaml");
/// Its logging: warnings only, so that what is measured is not the log.
const LOGGING: &str = include_str!("synapse-log.yaml");
/// The package on PyPI.
const PACKAGE: &str = "matrix-synapse";

/// The Python that has Synapse; makes the environment when it is not there.
pub fn install() -> Result<PathBuf> {
    let environment = cache_folder()?.join("synapse");
    let python = environment.join("bin").join("python");
    if !version(&python).is_empty() {
        return Ok(python);
    }
    eprintln!("installing {PACKAGE} from PyPI into {} (once)", environment.display());
    step(Command::new("python3").args(["-m", "venv"]).arg(&environment), "make a Python environment")?;
    step(Command::new(&python).args(["-m", "pip", "install", "--quiet", PACKAGE]), "install matrix-synapse")?;
    Ok(python)
}

/// The installed version, or nothing.
pub fn version(python: &Path) -> String {
    let ask = format!("from importlib.metadata import version; print(version({PACKAGE:?}))");
    match Command::new(python).arg("-c").arg(ask).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => String::new(),
    }
}

/// The command that serves; writes the configuration first.
pub fn command(python: &Path, folder: &Path, serving: &Serving<'_>) -> Result<Command> {
    let configuration = folder.join("homeserver.yaml");
    let filled = |text: &str| {
        text.replace("{name}", &serving.name())
            .replace("{port}", &serving.port.to_string())
            .replace("{data}", &serving.data.display().to_string())
            .replace("{folder}", &folder.display().to_string())
            .replace("{secret}", serving.secret)
    };
    let mut text = filled(CONFIGURATION);
    if let Some(federation) = serving.federation {
        let certificates = &federation.certificates;
        let of_federation = FEDERATION
            .replace("{federation_port}", &federation.port.to_string())
            .replace("{certificate}", &certificates.certificate.display().to_string())
            .replace("{key}", &certificates.key.display().to_string())
            .replace("{authority}", &certificates.authority.display().to_string());
        text.push_str(&filled(&of_federation));
    }
    for (path, text) in [(&configuration, text), (&folder.join("log.yaml"), filled(LOGGING))] {
        fs::write(path, text).map_err(Error::system(format!("write {}", path.display())))?;
    }
    let mut serve = Command::new(python);
    serve.args(["-m", "synapse.app.homeserver", "--config-path"]).arg(&configuration);
    if !folder.join("signing.key").exists() {
        let mut keys = Command::new(python);
        keys.args(["-m", "synapse.app.homeserver", "--generate-keys", "--config-path"]).arg(&configuration);
        step(&mut keys, "make Synapse's signing key")?;
    }
    Ok(serve)
}

/// Runs a set-up command; its output is shown only when it fails.
fn step(command: &mut Command, what: &str) -> Result<()> {
    let output = command.output().map_err(Error::system(what))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::System { what: what.to_owned(), source: std::io::Error::other(said) })
}
