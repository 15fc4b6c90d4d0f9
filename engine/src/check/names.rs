//! Names and numbers: the mapping must be one to one, both ways.

use super::Checker;
use crate::store::{StorageError, schema};

pub(super) fn check(checker: &mut Checker<'_>) -> Result<(), StorageError> {
    checker.rows(&schema::NAME_NUMS, |row, (kind, name), num| {
        let back = row.reader().get(&schema::NAME_TEXTS, &(kind, num))?;
        row.expect(back.as_ref() == Some(&name), "the number does not lead back to the name");
        Ok(())
    })?;
    checker.rows(&schema::NAME_TEXTS, |row, (kind, num), name| {
        let back = row.reader().get(&schema::NAME_NUMS, &(kind, name))?;
        row.expect(back == Some(num), "the name does not lead back to the number");
        Ok(())
    })
}
