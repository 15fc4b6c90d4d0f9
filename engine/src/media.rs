//! Media ids: made, filled once, found. The bytes are not here: whoever embeds the engine keeps them by their hash and
//! has them on disk before the row that names them is written.
//!
//! Invariant: a pending id has exactly one row among its maker's pending ones; an uploaded one has none, and its file
//! never changes.

use crate::{
    core::num::UserNum,
    error::{Conflict, Denied, Error, Result, What},
    store::{
        Direction, Reader, Tx,
        schema::{self, MediaFile, MediaRow, MediaState},
    },
};

/// Characters of a new media id: 144 bits, so that nobody finds a file by guessing.
const MEDIA_ID_CHARS: usize = 24;

/// How long a pending id waits for its upload, in milliseconds: a day, as the specification recommends.
pub const PENDING_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Pending ids that a user may have at a time: an album's worth of files on their way.
pub const PENDING_PER_USER_MAX: usize = 100;

/// The day of a time, counted from the epoch.
pub(crate) fn day(now_ms: u64) -> u32 {
    u32::try_from(now_ms / (24 * 60 * 60 * 1000)).unwrap_or(u32::MAX)
}

/// Makes a pending id, after removing the maker's expired ones. Answers with the id and when it expires.
///
/// Errors: [`Denied::PendingMedia`] if the user has too many.
pub(crate) fn create(tx: &mut Tx, uploader: UserNum) -> Result<(String, u64)> {
    let now = tx.shared.clock.now_ms();
    let mut pending = Vec::new();
    tx.scan(&schema::PENDING_MEDIA, &uploader, Direction::Forward, |(_, expires_at, media_id), ()| {
        pending.push((expires_at, media_id));
        true
    })?;
    let alive = pending.partition_point(|(expires_at, _)| *expires_at <= now);
    let waiting = pending.split_off(alive);
    if waiting.len() >= PENDING_PER_USER_MAX {
        let first_expires_at = waiting.first().map_or(now, |(expires_at, _)| *expires_at);
        return Err(Denied::PendingMedia { retry_after_ms: first_expires_at.saturating_sub(now) }.into());
    }
    for (expires_at, media_id) in pending {
        tx.delete(&schema::PENDING_MEDIA, &(uploader, expires_at, media_id.clone()));
        tx.delete(&schema::MEDIA, &media_id);
    }
    let (media_id, expires_at) = (tx.random_text(MEDIA_ID_CHARS), now + PENDING_MS_MAX);
    let row = MediaRow { uploader, created_ts: now, state: MediaState::Pending { expires_at } };
    tx.put(&schema::MEDIA, &media_id, &row);
    tx.put(&schema::PENDING_MEDIA, &(uploader, expires_at, media_id.clone()), &());
    Ok((media_id, expires_at))
}

/// The row of a pending id that this user may upload to now, and when it expires.
///
/// Errors: not found if it was never made or has expired; [`Denied::NotYours`]; [`Conflict::MediaExists`].
pub(crate) fn pending(reader: &Reader, media_id: &str, uploader: Option<UserNum>) -> Result<(MediaRow, u64)> {
    let row = find(reader, media_id)?;
    if Some(row.uploader) != uploader {
        return Err(Denied::NotYours.into());
    }
    match row.state {
        MediaState::Uploaded(_) => Err(Conflict::MediaExists.into()),
        MediaState::Pending { expires_at } => Ok((row, expires_at)),
    }
}

/// The row of an id. Errors: not found if it was never made or expired before its upload.
pub(crate) fn find(reader: &Reader, media_id: &str) -> Result<MediaRow> {
    let row = reader.get(&schema::MEDIA, &media_id.to_owned())?.ok_or(Error::NotFound(What::Media))?;
    match row.state {
        MediaState::Pending { expires_at } if expires_at <= reader.shared.clock.now_ms() => {
            Err(Error::NotFound(What::Media))
        }
        _ => Ok(row),
    }
}

/// Puts a file under a new id.
pub(crate) fn add(tx: &mut Tx, uploader: UserNum, file: &MediaFile) -> String {
    let media_id = tx.random_text(MEDIA_ID_CHARS);
    let created_ts = tx.shared.clock.now_ms();
    let row = MediaRow { uploader, created_ts, state: MediaState::Uploaded(file.clone()) };
    tx.put(&schema::MEDIA, &media_id, &row);
    media_id
}

/// Puts a file under a pending id. Errors: as [`pending`].
pub(crate) fn fill(tx: &mut Tx, media_id: &str, uploader: UserNum, file: &MediaFile) -> Result<()> {
    let (row, expires_at) = pending(tx, media_id, Some(uploader))?;
    tx.delete(&schema::PENDING_MEDIA, &(uploader, expires_at, media_id.to_owned()));
    tx.put(
        &schema::MEDIA,
        &media_id.to_owned(),
        &MediaRow { state: MediaState::Uploaded(file.clone()), ..row },
    );
    Ok(())
}

#[cfg(test)]
mod tests;
