//! Media: what is known of a file; its bytes lie elsewhere, under their hash. Ids 130 to 139.

use serde::{Deserialize, Serialize};

use super::keyspaces;
use crate::{
    core::num::{TextNum, UserNum},
    store::record,
};

keyspaces! { TABLE:
    #[doc = "A media id of this server with its file, or with who may still upload one."]
    130 MEDIA: Users, String => MediaRow;
    #[doc = "The day (since the epoch) on which a media id was last asked for; no row before the first time."]
    131 MEDIA_ACCESS: Users, String => u32;
    #[doc = "A user's media ids that wait for their upload, by the time (milliseconds since the epoch) when they expire."]
    132 PENDING_MEDIA: Users, (UserNum, u64, String) => ();
    #[doc = "A file of another server that is kept here, by that server and its media id."]
    133 REMOTE_MEDIA: Users, (TextNum, String) => RemoteMediaRow;
}

/// A media id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaRow {
    /// Who made it.
    pub uploader: UserNum,
    /// When it was made, in milliseconds since the epoch.
    pub created_ts: u64,
    /// What there is under it.
    pub state: MediaState,
}

/// What there is under a media id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediaState {
    /// Nothing yet: its maker may upload until the time, in milliseconds since the epoch.
    Pending {
        /// When the id stops being anybody's.
        expires_at: u64,
    },
    /// A file.
    Uploaded(MediaFile),
}

/// What is known of an uploaded file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaFile {
    /// SHA-256 of the bytes, which is also where the media store keeps them.
    pub sha256: [u8; 32],
    /// Length in bytes.
    pub size: u64,
    /// The content type that the uploader claimed, if any; not checked against the bytes.
    pub content_type: Option<String>,
    /// The name that the uploader gave the file, as it came.
    pub file_name: Option<String>,
    /// Whether it may only be downloaded with an access token, whatever the server's setting becomes later.
    pub authenticated_only: bool,
}

/// A file of another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteMediaRow {
    /// When it was fetched, in milliseconds since the epoch.
    pub fetched_ts: u64,
    /// What is known of it.
    pub file: MediaFile,
}

record!(MediaRow, RemoteMediaRow);
