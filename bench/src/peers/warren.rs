//! Warren as its operator would start it, but for what every server under load gets: no rate limits, cheap password
//! hashes, and the shared-secret registration. Durability stays at its default: acknowledged is on disk.

use std::path::Path;
use std::process::Command;

/// The command that serves `data` on `port`.
pub fn command(binary: &Path, data: &Path, port: u16, secret: &str) -> Command {
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .args(["--server-name", "localhost"])
        .arg("--listen")
        .arg(format!("http://127.0.0.1:{port}"))
        .arg("--data-dir")
        .arg(data)
        .args(["--registration", "open", "--rate-limits", "off", "--password-hash-cost", "1"])
        .env("WARREN_REGISTRATION_SHARED_SECRET", secret);
    command
}

/// What `warren --version` says.
pub fn version(binary: &Path) -> String {
    let said = Command::new(binary).arg("--version").output();
    let said =
        said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    said.rsplit(' ').next().unwrap_or_default().to_owned()
}
