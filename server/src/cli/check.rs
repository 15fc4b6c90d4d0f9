//! `warren check`: whether everything in the database agrees with everything else. Nothing is repaired.

use std::fmt::Write;

use warren_engine::check::{Check, Report};

use crate::config::Config;
use crate::{context, data_dir};

/// Checks the database of a server that does not run. Errors: a sentence about why it cannot be checked, or how much is
/// wrong with it; what is wrong has then been printed.
pub fn run(config: Config) -> Result<(), String> {
    let folder = config.data_dir.join(context::STORE_FOLDER);
    if !folder.is_dir() {
        return Err(format!("there is no database in {}", folder.display()));
    }
    let _lock = data_dir::lock(&config.data_dir)?;
    let engine = context::open_engine(&config)?;
    let progress = |place: &'static str, rows: u64| eprintln!("{rows} rows of {place}");
    let report = engine.read(&Check { progress: &progress }).map_err(|error| error.to_string())?;
    super::print(&text(&report))?;
    match report.findings.len() as u64 + report.more_findings {
        0 => Ok(()),
        1 => Err("1 thing is wrong with the database".to_owned()),
        count => Err(format!("{count} things are wrong with the database")),
    }
}

/// How many rows there are of what, then what is wrong, one line each.
fn text(report: &Report) -> String {
    let mut text = String::new();
    for (place, count) in &report.counts {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{place}\t{count}");
    }
    for finding in &report.findings {
        let _ = writeln!(text, "wrong: {finding}");
    }
    if report.more_findings > 0 {
        let _ = writeln!(text, "wrong: and {} more", report.more_findings);
    }
    if report.is_clean() {
        text.push_str("the database is sound\n");
    }
    text
}
