//! `warren check`: whether everything in the database agrees with everything else; with `--repair`, what follows from
//! other things is made anew where it does not.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::{Value, json};
use warren_engine::check::{self, Check, Repaired, Report};

use crate::config::Config;
use crate::context;

/// The database was looked at, and something in it is wrong (still).
const UNSOUND: u8 = 1;
/// The database could not be looked at; also what wrong arguments end with.
const NOT_CHECKED: u8 = 2;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// Whether to mend what can be mended.
    pub repair: bool,
    /// Whether to print JSON.
    pub as_json: bool,
}

/// Checks, or repairs, the database of a server that does not run, and prints what was found and done.
pub fn run(config: Result<Config, String>, options: CheckOptions) -> ExitCode {
    match config.and_then(|config| looked_at(&config, options)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(1) => told("1 thing is wrong with the database", UNSOUND),
        Ok(wrong) => told(&format!("{wrong} things are wrong with the database"), UNSOUND),
        Err(message) => told(&message, NOT_CHECKED),
    }
}

fn told(message: &str, code: u8) -> ExitCode {
    super::tell(&format!("warren: {message}"));
    ExitCode::from(code)
}

/// Returns how much is wrong (still). Errors: a sentence about why that cannot be told.
fn looked_at(config: &Config, options: CheckOptions) -> Result<u64, String> {
    // What cannot be opened says so better than a failed repair.
    let (_lock, engine) = super::open_existing(config)?;
    let progress = |place: &'static str, rows: u64| super::tell(&format!("{rows} rows of {place}"));
    if !options.repair {
        let report = engine.read(&Check { progress: &progress }).map_err(|error| error.to_string())?;
        let text = if options.as_json { json_line(&report_json(&report)) } else { report_text(&report) };
        super::print(&text)?;
        return Ok(report.wrong());
    }
    drop(engine);
    let repaired = check::repair(&|| context::open_store(config), &progress);
    let repaired = repaired.map_err(|error| error.to_string())?;
    let text = if options.as_json { json_line(&repaired_json(&repaired)) } else { repaired_text(&repaired) };
    super::print(&text)?;
    Ok(repaired.after.wrong())
}

/// How many rows there are of what, then what is wrong, one line each.
fn report_text(report: &Report) -> String {
    let mut text = String::new();
    for (place, count) in &report.counts {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{place}\t{count}");
    }
    text.push_str(&findings_text(report));
    if report.mends > 0 {
        text.push_str("`warren check --repair` mends what follows from the rest\n");
    }
    text
}

fn findings_text(report: &Report) -> String {
    let mut text = String::new();
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

/// What was wrong, what was done about it, and what is wrong still.
fn repaired_text(repaired: &Repaired) -> String {
    let mut text = String::new();
    if !repaired.before.is_clean() {
        text.push_str("before:\n");
        text.push_str(&findings_text(&repaired.before));
        for (place, count) in &repaired.mended {
            let _ = writeln!(text, "mended: {count} rows of {place}");
        }
        text.push_str("after:\n");
    }
    text.push_str(&findings_text(&repaired.after));
    text
}

fn report_json(report: &Report) -> Value {
    json!({ "rows": report.counts, "findings": report.findings, "more_findings": report.more_findings })
}

fn repaired_json(repaired: &Repaired) -> Value {
    json!({
        "before": report_json(&repaired.before),
        "mended": repaired.mended,
        "after": report_json(&repaired.after),
    })
}

fn json_line(value: &Value) -> String {
    format!("{value}\n")
}
