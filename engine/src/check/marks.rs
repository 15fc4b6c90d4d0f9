//! The reserved marks: everything in use lies at or below them, so that nothing is given out twice.

use super::pass::{Pass, Row};
use crate::{
    open::{FACT_RESERVED, Reserved},
    store::{StorageError, read_record, schema},
};

pub(super) fn passes() -> Vec<Pass> {
    vec![Pass::over(&schema::FACTS, |_, _, _| Ok(())).finish(marks)]
}

fn marks(row: &mut Row<'_>) -> Result<(), StorageError> {
    row.subject = FACT_RESERVED.to_owned();
    let stored = row.reader().get(&schema::FACTS, &FACT_RESERVED.to_owned())?;
    let reserved = match stored {
        None => Reserved::default(),
        Some(bytes) => read_record(&bytes)
            .ok_or_else(|| StorageError::Corrupt("the reserved marks cannot be read".into()))?,
    };
    let used = row.seen.used;
    let holds = used.pos.0 <= reserved.pos && used.event <= reserved.events && used.node <= reserved.nodes;
    if !row.expect(holds, "a number above the reserved marks is in use") {
        // Written by the committer itself, which is moved ahead before anything else is mended.
        row.mend(schema::FACTS.name, |_| Ok(()));
    }
    Ok(())
}
