//! Media ids are made, filled and noted as used. Specification: client-server API, "Content repository".

use crate::{
    command::{Command, Lanes},
    error::Result,
    media,
    store::{
        Tx,
        schema::{self, MediaFile, RemoteMediaRow},
    },
};

/// `POST /_matrix/media/v1/create`: an id whose content is to come later.
pub struct CreateMedia {
    /// The user who will upload.
    pub user_id: String,
}

/// An id without content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedMedia {
    /// The last part of its `mxc://` URI.
    pub media_id: String,
    /// Until when the content must have been uploaded, in milliseconds since the epoch.
    pub unused_expires_at: u64,
}

impl Command for CreateMedia {
    type Output = CreatedMedia;

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<CreatedMedia> {
        let uploader = tx.intern_user(&self.user_id)?;
        let (media_id, unused_expires_at) = media::create(tx, uploader)?;
        Ok(CreatedMedia { media_id, unused_expires_at })
    }
}

/// `POST /_matrix/media/v3/upload` and `PUT /_matrix/media/v3/upload/{serverName}/{mediaId}`: a file whose bytes are on
/// disk gets its id.
pub struct StoreMedia {
    /// The user who uploaded.
    pub user_id: String,
    /// The pending id that it is for; a new one is made if there is none.
    pub media_id: Option<String>,
    /// What is known of the file.
    pub file: MediaFile,
}

impl Command for StoreMedia {
    /// The media id.
    type Output = String;

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<String> {
        let uploader = tx.intern_user(&self.user_id)?;
        match &self.media_id {
            None => Ok(media::add(tx, uploader, &self.file)),
            Some(media_id) => {
                media::fill(tx, media_id, uploader, &self.file)?;
                Ok(media_id.clone())
            }
        }
    }
}

/// A file of another server, whose bytes are on disk, is kept for who asks next.
pub struct StoreRemoteMedia {
    /// The server.
    pub server_name: String,
    /// The last part of its `mxc://` URI.
    pub media_id: String,
    /// What is known of the file.
    pub file: MediaFile,
}

impl Command for StoreRemoteMedia {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().name(&self.server_name)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let server = tx.intern_text(&self.server_name)?;
        let row = RemoteMediaRow { fetched_ts: tx.shared.clock.now_ms(), file: self.file.clone() };
        tx.put(&schema::REMOTE_MEDIA, &(server, self.media_id.clone()), &row);
        Ok(())
    }
}

/// Notes that a file was asked for, to the day: what nobody has wanted for long can be cleaned away.
pub struct NoteMediaAccess {
    /// The id that was asked for.
    pub media_id: String,
}

impl Command for NoteMediaAccess {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let today = media::day(tx.shared.clock.now_ms());
        tx.put(&schema::MEDIA_ACCESS, &self.media_id, &today);
        Ok(())
    }
}
