//! `repair`: makes anew what follows from the facts, where it does not agree with them.
//!
//! Invariant: a fact is never changed by what was derived from it; what cannot be made anew is left as it is and
//! reported. Nothing is written where nothing is wrong. Each batch is small and leaves the store no worse than it was, so
//! that a repair that was interrupted is simply begun again.

use std::{cell::RefCell, collections::BTreeMap};

use super::{
    Check, PROGRESS_ROWS, Progress, Report,
    pass::{Cursor, Mend, Pass},
    plan,
    seen::{Seen, Used},
};
use crate::{
    command::{Command, Lanes},
    engine::Engine,
    error::Result,
    open::FACT_RESERVED,
    store::{StorageError, Tx, schema},
};

/// How often the store is gone through at most. Two rounds do for nearly everything; what is played again event by event
/// may need more where events came out of order.
const ROUNDS_MAX: usize = 16;

/// How many writes one batch has: with the nodes of state trees some 4 KiB each, so that a batch stays below 4 MiB.
const MENDS_PER_BATCH_MAX: usize = 500;

/// What a repair did.
#[derive(Clone, Debug, Default)]
pub struct Repaired {
    /// What was wrong before it.
    pub before: Report,
    /// How many rows were written or removed, by keyspace.
    pub mended: BTreeMap<&'static str, u64>,
    /// What is wrong still.
    pub after: Report,
}

/// Checks the store that `open` opens, mends what can be mended, and checks again. No server may run on it.
///
/// The engine is opened anew between rounds, since it remembers what it has read.
///
/// Errors: those of opening, reading and writing. What was mended until then stays mended.
pub fn repair(open: &dyn Fn() -> Result<Engine>, progress: Progress<'_>) -> Result<Repaired> {
    let before = open()?.read(&Check { progress })?;
    let mut repaired = Repaired { after: before.clone(), before, ..Repaired::default() };
    for _ in 0..ROUNDS_MAX {
        if repaired.after.mends == 0 {
            break;
        }
        round(&open()?, repaired.after.used, &mut repaired.mended, progress)?;
        repaired.after = open()?.read(&Check { progress })?;
    }
    Ok(repaired)
}

/// Goes through the store once and mends.
fn round(
    engine: &Engine,
    used: Used,
    mended: &mut BTreeMap<&'static str, u64>,
    progress: Progress<'_>,
) -> Result<()> {
    engine.write(MoveMarks(used)).wait()?;
    let seen = RefCell::new(Seen::default());
    for pass in plan() {
        let mut count = 0;
        let mut names = 0;
        let mut cursor = Some(Cursor::At(Vec::new()));
        while let Some(at) = cursor.take() {
            let step = engine.write(Step { pass: &pass, seen: &seen, cursor: &at }).wait()?;
            for place in step.mended {
                *mended.entry(place).or_default() += 1;
                names += u64::from(place == schema::NAME_NUMS.name || place == schema::NAME_TEXTS.name);
            }
            if (count + step.rows) / PROGRESS_ROWS > count / PROGRESS_ROWS {
                progress(pass.place(), count + step.rows);
            }
            count += step.rows;
            cursor = step.next;
        }
        // What names mean is remembered by the engine.
        if names > 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// Moves what is given out next past everything in use.
struct MoveMarks(Used);

impl Command for MoveMarks {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let Used { pos, event, node } = self.0;
        if tx.shared.move_ahead(pos, event, node) {
            // The committer puts the marks themselves behind any write.
            tx.put(&schema::FACTS, &FACT_RESERVED.to_owned(), &bytes::Bytes::new());
        }
        Ok(())
    }
}

/// The next rows of a pass, or what comes behind the last.
struct Step<'a> {
    pass: &'a Pass,
    seen: &'a RefCell<Seen>,
    cursor: &'a Cursor,
}

/// What a step did.
#[derive(Default)]
struct Stepped {
    rows: u64,
    mended: Vec<&'static str>,
    next: Option<Cursor>,
}

impl Command for Step<'_> {
    type Output = Stepped;

    fn lanes(&self) -> Lanes {
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<Stepped> {
        let mut seen = self.seen.borrow_mut();
        let mut done = Stepped::default();
        let Cursor::At(key) = self.cursor else {
            let end = self.pass.visit_end(tx, &mut seen)?;
            let mends = end.mends;
            write(tx, mends, &mut done.mended)?;
            return Ok(done);
        };
        let (rows, next) = self.pass.read_rows(tx, key)?;
        for (key, value) in rows {
            let value = match done.mended.is_empty() {
                true => Some(value),
                false => self.pass.read_again(tx, &key)?,
            };
            done.rows += 1;
            let Some(value) = value else { continue };
            let row = self.pass.visit(tx, &mut seen, &key, &value)?;
            let (mends, is_unfinished) = (row.mends, row.is_unfinished);
            let written = write(tx, mends, &mut done.mended)?;
            if is_unfinished && written {
                done.next = Some(Cursor::At(key.0));
                return Ok(done);
            }
            if done.mended.len() >= MENDS_PER_BATCH_MAX {
                // The smallest key behind this one.
                done.next = Some(Cursor::At([key.0, vec![0]].concat()));
                return Ok(done);
            }
        }
        done.next = Some(next);
        Ok(done)
    }
}

/// Makes the writes; returns whether there were any. One that turns out to rest on what cannot be read is left out.
fn write(tx: &mut Tx, mends: Vec<Mend>, mended: &mut Vec<&'static str>) -> Result<bool> {
    let before = mended.len();
    for mend in mends {
        match (mend.write)(tx) {
            Ok(()) => mended.push(mend.place),
            Err(StorageError::Corrupt(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(mended.len() > before)
}
