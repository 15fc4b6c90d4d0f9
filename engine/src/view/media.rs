//! What is known of a media id: to send the file, or before its upload is read.

use std::collections::HashSet;

use crate::{
    core::num::TextNum,
    error::Result,
    media,
    store::{
        Direction, Reader,
        schema::{self, MediaFile, MediaState},
    },
    view::View,
};

/// The file under a media id of this server.
pub struct Media {
    /// The last part of its `mxc://` URI.
    pub media_id: String,
}

/// A media id that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundMedia {
    /// The file; `None` while its upload is awaited.
    pub file: Option<MediaFile>,
    /// Whether [`crate::command::NoteMediaAccess`] has something to note: nobody has asked for it today.
    pub is_first_access_today: bool,
}

impl View for Media {
    type Output = FoundMedia;

    /// Errors: not found, also for an id whose upload did not come in time.
    fn read(&self, reader: &Reader) -> Result<FoundMedia> {
        let file = match media::find(reader, &self.media_id)?.state {
            MediaState::Pending { .. } => None,
            MediaState::Uploaded(file) => Some(file),
        };
        let accessed = reader.get(&schema::MEDIA_ACCESS, &self.media_id)?;
        let today = media::day(reader.shared.clock.now_ms());
        Ok(FoundMedia { is_first_access_today: file.is_some() && accessed != Some(today), file })
    }
}

/// A file of another server that is kept here.
pub struct RemoteMedia<'a> {
    /// The server.
    pub server_name: &'a str,
    /// The last part of its `mxc://` URI.
    pub media_id: &'a str,
}

impl View for RemoteMedia<'_> {
    type Output = Option<MediaFile>;

    fn read(&self, reader: &Reader) -> Result<Option<MediaFile>> {
        let Some(server) = reader.text_num(self.server_name)? else { return Ok(None) };
        let row = reader.get(&schema::REMOTE_MEDIA, &(server, self.media_id.to_owned()))?;
        Ok(row.map(|row| row.file))
    }
}

/// The hashes of all files that are there by any id, each by its first eight bytes: two files that share them by accident
/// are one here. Eight bytes a file; O(ids).
pub struct StoredFiles;

impl View for StoredFiles {
    type Output = HashSet<u64>;

    fn read(&self, reader: &Reader) -> Result<HashSet<u64>> {
        let mut files = HashSet::new();
        // The empty string is the beginning of every id.
        reader.scan(&schema::MEDIA, &(), Direction::Forward, |_, row| {
            if let MediaState::Uploaded(file) = row.state {
                files.extend(file.sha256.first_chunk().map(|chunk| u64::from_be_bytes(*chunk)));
            }
            true
        })?;
        reader.scan(&schema::REMOTE_MEDIA, &(), Direction::Forward, |_: (TextNum, String), row| {
            files.extend(row.file.sha256.first_chunk().map(|chunk| u64::from_be_bytes(*chunk)));
            true
        })?;
        Ok(files)
    }
}

/// Whether a user may upload to an id now: asked before the body is read.
pub struct PendingMedia {
    /// The id.
    pub media_id: String,
    /// The user who wants to upload.
    pub user_id: String,
}

impl View for PendingMedia {
    type Output = ();

    /// Errors: not found, [`crate::Denied::NotYours`] or [`crate::Conflict::MediaExists`] if not.
    fn read(&self, reader: &Reader) -> Result<()> {
        let uploader = reader.user_num(&self.user_id)?;
        media::pending(reader, &self.media_id, uploader).map(|_| ())
    }
}
