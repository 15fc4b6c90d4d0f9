//! What a run leaves behind: lines for a terminal, JSON for programs, a picture for people.

pub mod html;
pub mod text;

use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::run::Taken;

/// Everything that one run measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When, as `YYYY-MM-DD`, UTC.
    pub date: String,
    /// The machine and its raw limits.
    pub machine: Machine,
    /// Each server's figures; the first is the one that the others are compared with.
    pub servers: Vec<Taken>,
}

impl Report {
    /// A report of today.
    pub fn new(machine: Machine, servers: Vec<Taken>) -> Report {
        Report { date: today(), machine, servers }
    }

    /// Writes the whole report as JSON.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Implausible(format!("the report cannot be written as JSON: {error}")))?;
        std::fs::write(path, text + "\n").map_err(Error::system(format!("write {}", path.display())))
    }

    /// Writes the picture.
    pub fn write_html(&self, path: &Path) -> Result<()> {
        std::fs::write(path, html::page(self)).map_err(Error::system(format!("write {}", path.display())))
    }
}

fn today() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    date_of_day(now.as_secs() / 86_400)
}

/// The Gregorian date of a day counted from 1970-01-01.
fn date_of_day(days: u64) -> String {
    // Counted from 0000-03-01, leap days fall on the end of years, of 4-year and of 400-year cycles.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests;
