//! Citations: the index has what the headers of state events say of their auth events, and nothing else. Rows of create
//! events are not needed, and do no harm.

use super::pass::{Pass, Row};
use crate::{
    core::num::EventNum,
    store::{StorageError, schema, schema::EventHeader},
};

pub(super) fn passes() -> Vec<Pass> {
    vec![Pass::over_derived(&schema::CITATIONS, |row, (room, cited, citing), key| {
        if row.is_going(room) {
            return Ok(());
        }
        let is_said = row.header(citing)?.is_some_and(|header| {
            let header = header.value;
            header.room == room && header.auth.contains(&cited) && header.state_key_id() == Some(key)
        });
        if !row.expect(is_said, "no state event of this entry cites the event") {
            row.delete(&schema::CITATIONS, &(room, cited, citing));
        }
        Ok(())
    })]
}

/// Expects a state event to be found from each of its auth events.
pub(super) fn expect_of(row: &mut Row<'_>, num: EventNum, header: &EventHeader) -> Result<(), StorageError> {
    let Some(key) = header.state_key_id() else { return Ok(()) };
    for cited in &header.auth {
        if is_create(row, *cited)? {
            continue;
        }
        let problem = "the event is not among those that cite its auth event";
        row.expect_row(&schema::CITATIONS, &(header.room, *cited, num), &key, problem)?;
    }
    Ok(())
}

fn is_create(row: &Row<'_>, num: EventNum) -> Result<bool, StorageError> {
    let Some(header) = row.header(num)? else { return Ok(false) };
    Ok(header.value.auth_depth == 0 && row.text(header.value.kind)?.as_deref() == Some("m.room.create"))
}
