//! Names and numbers: the mapping must be one to one, both ways.
//!
//! The two keyspaces are copies of each other, so that either row restores the other. Where they contradict each other
//! the events decide, which name their rooms, users and types in their bodies (`events`).

use super::pass::{Pass, Row};
use crate::store::{InternedKind, StorageError, schema};

pub(super) fn passes() -> Vec<Pass> {
    vec![
        Pass::over(&schema::NAME_NUMS, |row, (kind, name), num| {
            match super::pass::readable(row.reader().get(&schema::NAME_TEXTS, &(kind, num)))? {
                Some(back) if back == name => {}
                None => {
                    row.found("the number does not lead back to the name");
                    row.put(&schema::NAME_TEXTS, &(kind, num), &name);
                }
                Some(other) => {
                    row.found("the number does not lead back to the name");
                    let others = row.reader().get(&schema::NAME_NUMS, &(kind, other))?;
                    match others == Some(num) {
                        true => row.delete(&schema::NAME_NUMS, &(kind, name)),
                        false => drop(row.seen.disputed_names.insert((kind, num))),
                    }
                }
            }
            Ok(())
        }),
        Pass::over(&schema::NAME_TEXTS, |row, (kind, num), name| {
            match super::pass::readable(row.reader().get(&schema::NAME_NUMS, &(kind, name.clone())))? {
                Some(back) if back == num => {}
                Some(_) => row.found("the name does not lead back to the number"),
                None => {
                    row.found("the name does not lead back to the number");
                    if !row.seen.disputed_names.contains(&(kind, num)) {
                        row.put(&schema::NAME_NUMS, &(kind, name), &num);
                    }
                }
            }
            Ok(())
        }),
    ]
}

/// Expects `num` to be the number of `name`. Returns whether the number must be another one; where the number's or the
/// name's row is to blame, it is mended.
pub(super) fn expect_number(
    row: &mut Row<'_>,
    kind: InternedKind,
    num: u64,
    name: &str,
    problem: &str,
) -> Result<bool, StorageError> {
    let (text, back) = (row.name(kind, num)?, row.number(kind, name)?);
    if text.as_deref() == Some(name) {
        if back.is_none() {
            row.found(format!("the name {name} does not lead to its number"));
            row.put(&schema::NAME_NUMS, &(kind as u8, name.to_owned()), &num);
        }
        return Ok(false);
    }
    if back == Some(num) || (back.is_none() && text.is_none()) {
        row.found(format!("{kind:?} number {num} has no name or another than {name}"));
        row.put(&schema::NAME_TEXTS, &(kind as u8, num), &name.to_owned());
        row.put(&schema::NAME_NUMS, &(kind as u8, name.to_owned()), &num);
        return Ok(false);
    }
    row.found(problem);
    Ok(true)
}
