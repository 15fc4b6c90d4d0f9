//! Positions by their age, as far as one is noted at the beginning of each hour (`TIME_MARKS`).

use super::{Direction, Reader, StorageError, schema};
use crate::core::num::StreamPos;

/// The distance of the marks, in milliseconds.
pub(crate) const HOUR_MS: u64 = 60 * 60 * 1000;

/// The last position that is known to be so old; `None` if none is.
pub(crate) fn expired(reader: &Reader, now_ms: u64, age_ms: u64) -> Result<Option<StreamPos>, StorageError> {
    Ok(old_marks(reader, now_ms, age_ms, 1)?.first().map(|(_, pos)| *pos))
}

/// The marks that are so old, the last ones first: each the hour since the epoch, and its position.
pub(crate) fn old_marks(
    reader: &Reader,
    now_ms: u64,
    age_ms: u64,
    limit: usize,
) -> Result<Vec<(u64, StreamPos)>, StorageError> {
    let end = (now_ms.saturating_sub(age_ms) / HOUR_MS).saturating_add(1);
    let mut marks = Vec::new();
    reader.scan_between(&schema::TIME_MARKS, &0u64, &end, Direction::Backward, |hour, pos| {
        marks.push((hour, pos));
        marks.len() < limit
    })?;
    Ok(marks)
}
