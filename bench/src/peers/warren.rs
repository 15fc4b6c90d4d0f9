//! Warren as its operator would start it, but for what every server under load gets: no rate limits, cheap password
//! hashes, and the shared-secret registration. Durability stays at its default: acknowledged is on disk.

use std::path::Path;
use std::process::Command;

use super::Serving;

/// The command that serves.
pub fn command(binary: &Path, serving: &Serving<'_>) -> Command {
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .args(["--server-name", &serving.name()])
        .arg("--listen")
        .arg(format!("http://127.0.0.1:{}", serving.port))
        .arg("--data-dir")
        .arg(serving.data)
        .args(["--registration", "open", "--rate-limits", "off", "--password-hash-cost", "1"])
        .env("WARREN_REGISTRATION_SHARED_SECRET", serving.secret);
    if let Some(federation) = serving.federation {
        let certificates = &federation.certificates;
        command
            .arg("--listen")
            .arg(format!("https://127.0.0.1:{}#federation", federation.port))
            .args(["--allow-private-addresses", "on"])
            .arg("--tls-cert")
            .arg(&certificates.certificate)
            .arg("--tls-key")
            .arg(&certificates.key)
            .arg("--trusted-ca-files")
            .arg(&certificates.authority);
    }
    command
}

/// What `warren --version` says.
pub fn version(binary: &Path) -> String {
    let said = Command::new(binary).arg("--version").output();
    let said =
        said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    said.rsplit(' ').next().unwrap_or_default().to_owned()
}
