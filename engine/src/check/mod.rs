//! `check`: whether what is stored agrees with itself and with what the cryptography says of it.
//!
//! Reads everything once, in one moment, and changes nothing. Invariant: a row that cannot be read is a finding and does
//! not hide the rows behind it. Not here: repair.

mod events;
mod indexes;
mod names;
mod rooms;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use crate::{
    error::Result,
    store::{Direction, Key, Reader, RestOfKey, StorageError, Value, schema::Keyspace},
    view::View,
};

/// How many findings are told one by one. A store with more is in ruins, and its operator needs the number alone.
pub const FINDINGS_MAX: usize = 1_000;

/// After how many rows progress is told.
const PROGRESS_ROWS: u64 = 50_000;

/// Checks the whole store. O(everything stored); meant for when no server runs on it.
pub struct Check<'a> {
    /// Told now and then: the rows that are being read, and how many of them have been.
    pub progress: &'a dyn Fn(&'static str, u64),
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
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

impl View for Check<'_> {
    type Output = Report;

    fn read(&self, reader: &Reader) -> Result<Report> {
        let mut checker = Checker { reader, report: Report::default(), progress: self.progress };
        names::check(&mut checker)?;
        events::check(&mut checker)?;
        rooms::check(&mut checker)?;
        indexes::check(&mut checker)?;
        Ok(checker.report)
    }
}

/// A check on its way.
struct Checker<'a> {
    reader: &'a Reader,
    report: Report,
    progress: &'a dyn Fn(&'static str, u64),
}

impl<'a> Checker<'a> {
    /// Visits all rows of a keyspace. What is corrupt, by itself or as `visit` reports it, is a finding; other errors end
    /// the check.
    fn rows<K: Key + fmt::Debug, V: Value>(
        &mut self,
        keyspace: &Keyspace<K, V>,
        mut visit: impl FnMut(&mut Row<'_, 'a>, K, V) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut failure = None;
        let reader = self.reader;
        let place = keyspace.name;
        reader.scan(&keyspace.raw(), &(), Direction::Forward, |raw: RestOfKey, value| {
            self.count(place);
            let (key, value) = (raw.decode::<K>(), keyspace.read_value(&value));
            let (Some(key), Ok(value)) = (key, value) else {
                let subject = raw.0.iter().map(|byte| format!("{byte:02x}")).collect();
                self.found(Finding { place, subject, problem: "the row cannot be read".into() });
                return true;
            };
            let subject = format!("{key:?}");
            let mut row = Row { checker: self, place, subject };
            match visit(&mut row, key, value) {
                Ok(()) => true,
                Err(StorageError::Corrupt(problem)) => {
                    row.found(problem);
                    true
                }
                Err(error) => {
                    failure = Some(error);
                    false
                }
            }
        })?;
        failure.map_or(Ok(()), Err)
    }

    fn count(&mut self, place: &'static str) {
        let count = self.report.counts.entry(place).or_default();
        *count += 1;
        if count.is_multiple_of(PROGRESS_ROWS) {
            (self.progress)(place, *count);
        }
    }

    fn found(&mut self, finding: Finding) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        } else {
            self.report.more_findings += 1;
        }
    }
}

/// A row that is being looked at.
struct Row<'c, 'a> {
    checker: &'c mut Checker<'a>,
    place: &'static str,
    subject: String,
}

impl<'a> Row<'_, 'a> {
    fn reader(&self) -> &'a Reader {
        self.checker.reader
    }

    /// Notes that something is wrong with the row.
    fn found(&mut self, problem: impl Into<String>) {
        let (place, subject) = (self.place, self.subject.clone());
        self.checker.found(Finding { place, subject, problem: problem.into() });
    }

    /// Notes `problem` unless `holds`.
    fn expect(&mut self, holds: bool, problem: &str) {
        if !holds {
            self.found(problem);
        }
    }
}
