//! `check`: whether what is stored agrees with itself and with what the cryptography says of it; and `repair`, which
//! makes anew what follows from the rest.
//!
//! Each keyspace has a pass ([`pass`]) over its rows, which finds what is wrong and knows what would mend it. Checking
//! reads everything once, in one moment, and changes nothing. Which rows are facts and which follow from what is the
//! table `store::schema::ORIGINS`. Nothing of unread counts is stored, so there is nothing of them to check.

mod accounts;
mod citations;
mod early_events;
mod events;
mod federation;
mod gaps;
mod indexes;
mod marks;
mod names;
mod pass;
mod queues;
mod redactions;
mod relations;
mod repair;
mod rooms;
mod seen;
mod snapshots;
mod streams;
mod timeline;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

pub use repair::{Repaired, repair};

use crate::{error::Result, store::Reader, view::View};
use pass::{Cursor, Pass};
use seen::{Seen, Used};

/// How many findings are told one by one. A store with more is in ruins, and its operator needs the number alone.
pub const FINDINGS_MAX: usize = 1_000;

/// After how many rows progress is told.
const PROGRESS_ROWS: u64 = 50_000;

/// Who is told now and then which rows are being read, and how many of them have been.
pub type Progress<'a> = &'a dyn Fn(&'static str, u64);

/// Checks the whole store. O(everything stored); meant for when no server runs on it.
pub struct Check<'a> {
    /// Who is told how far it is.
    pub progress: Progress<'a>,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many rows of each kind were read.
    pub counts: BTreeMap<&'static str, u64>,
    /// What is wrong, up to [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How much more is wrong.
    pub more_findings: u64,
    /// How many writes would mend what can be mended; more may follow from them.
    pub mends: u64,
    /// The greatest numbers in use.
    used: Used,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The keyspace in whose rows it showed.
    pub place: &'static str,
    /// Which of them.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.place, self.subject, self.problem)
    }
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// How many things are wrong.
    pub fn wrong(&self) -> u64 {
        self.findings.len() as u64 + self.more_findings
    }

    fn add(&mut self, findings: Vec<Finding>, mends: usize) {
        self.mends += mends as u64;
        for finding in findings {
            if self.findings.len() < FINDINGS_MAX {
                self.findings.push(finding);
            } else {
                self.more_findings += 1;
            }
        }
    }
}

/// All passes, each before those that build on what it has seen and mended.
fn plan() -> Vec<Pass> {
    let topics = [
        names::passes,
        gaps::purges,
        snapshots::passes,
        events::passes,
        snapshots::told,
        redactions::passes,
        timeline::passes,
        rooms::passes,
        gaps::passes,
        relations::passes,
        citations::passes,
        indexes::passes,
        streams::passes,
        accounts::passes,
        federation::passes,
        queues::passes,
        marks::passes,
    ];
    topics.into_iter().flat_map(|passes| passes()).collect()
}

impl View for Check<'_> {
    type Output = Report;

    fn read(&self, reader: &Reader) -> Result<Report> {
        let (mut seen, mut report) = (Seen::default(), Report::default());
        for pass in plan() {
            let mut count = 0;
            let mut cursor = Cursor::At(Vec::new());
            while let Cursor::At(key) = cursor {
                let (rows, next) = pass.read_rows(reader, &key)?;
                cursor = next;
                for (key, value) in rows {
                    count += 1;
                    if count % PROGRESS_ROWS == 0 {
                        (self.progress)(pass.place(), count);
                    }
                    let row = pass.visit(reader, &mut seen, &key, &value)?;
                    report.add(row.findings, row.mends.len());
                }
            }
            let end = pass.visit_end(reader, &mut seen)?;
            report.add(end.findings, end.mends.len());
            report.counts.insert(pass.place(), count);
        }
        report.used = seen.used;
        Ok(report)
    }
}
