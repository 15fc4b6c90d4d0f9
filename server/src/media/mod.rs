//! Media: bytes in and out of the store, thumbnails, and waiting for an upload. Who may do what, and what is known of a
//! file, is the engine's; how it is asked for over HTTP is `client/media.rs`.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Arc;

use tokio::sync::watch;
use warren_engine::MediaFile;

use crate::config::Config;
use crate::federation::out::Asker;
use crate::federation::places::Places;
use crate::http::ApiError;
use crate::http::call::BodyStream;

pub mod headers;
pub mod size;
pub mod store;
mod sweep;
mod thumbnail;

use size::Wanted;
use store::{Blob, FileStore, MediaStore, Sha256};
use thumbnail::{Failure, Made};

/// The folder of the store inside the data folder.
const FOLDER: &str = "media";

/// Bytes of an upload that are collected before they are written: handing them to a blocking thread must not be dearer
/// than writing them.
const WRITE_BYTES: usize = 256 * 1024;

/// The part of the memory budget, in percent, within which images are decoded at once. One always is.
const DECODING_PERCENT: u64 = 25;

/// Each user, and each address of other servers and of those who have not signed in, may have one in so many of these decoded at once, at
/// least one: however many thumbnails somebody asks for, others wait for one of them at most.
const DECODING_SHARES: usize = 2;

/// What lives as long as the process: the store, who may decode, and news of uploads.
pub struct Media {
    store: Arc<FileStore>,
    decoding: Places<Asker>,
    uploads: watch::Sender<()>,
}

/// A file on its way into the store: an upload, or what another server sends.
pub trait Pieces: Send {
    /// The next piece; nothing at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<bytes::Bytes>, ApiError>> + Send;
}

impl Pieces for BodyStream {
    async fn next(&mut self) -> Result<Option<bytes::Bytes>, ApiError> {
        BodyStream::next(self).await
    }
}

/// What answers a request for a thumbnail.
pub enum Thumbnail {
    /// The file itself, sent as this type.
    Original(&'static str),
    /// A thumbnail.
    Image { bytes: Vec<u8>, content_type: &'static str },
}

impl Media {
    /// Opens the store in the data folder. Errors: a sentence about why it cannot be used.
    pub fn open(config: &Config) -> Result<Media, String> {
        let folder = config.data_dir.join(FOLDER);
        let store = FileStore::open(&folder);
        let store =
            store.map_err(|error| format!("cannot use the media in {}: {error}", folder.display()))?;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let affordable = config.memory_budget_bytes * DECODING_PERCENT / 100 / thumbnail::DECODED_BYTES_MAX;
        let at_once = usize::try_from(affordable).unwrap_or(usize::MAX).clamp(1, processors);
        let decoding = Places::new(at_once, at_once.div_ceil(DECODING_SHARES));
        Ok(Media { store: Arc::new(store), decoding, uploads: watch::Sender::new(()) })
    }

    /// Takes an upload into the store, never holding more of it than a few pieces. When this returns it is on disk.
    /// Answers with its hash and its length in bytes.
    ///
    /// Errors: those of the body (too large, too slow, broken off) and of the disk; nothing is left behind then.
    pub async fn receive(&self, body: &mut impl Pieces) -> Result<(Sha256, u64), ApiError> {
        let store = self.store.clone();
        let mut deposit = blocking(move || store.begin()).await?;
        let mut pieces = Vec::new();
        let mut collected = 0;
        loop {
            let piece = body.next().await?;
            let is_last = piece.is_none();
            collected += piece.as_ref().map_or(0, bytes::Bytes::len);
            pieces.extend(piece);
            if is_last || collected >= WRITE_BYTES {
                let taken = std::mem::take(&mut pieces);
                collected = 0;
                deposit = blocking(move || {
                    for piece in &taken {
                        deposit.write(piece)?;
                    }
                    Ok(deposit)
                })
                .await?;
            }
            if is_last {
                return blocking(move || deposit.keep()).await;
            }
        }
    }

    /// Removes the files that no id names, given the first eight bytes of the hashes of those that one does. Blocks.
    pub fn sweep(&self, used: HashSet<u64>) {
        match self.store.sweep(used) {
            Ok(swept) if swept.missing > 0 => {
                tracing::warn!(missing = swept.missing, "media files are not there that are known");
            }
            Ok(swept) if swept.removed > 0 => {
                tracing::info!(removed = swept.removed, "media files that nothing named are removed");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the media files could not be swept"),
        }
    }

    /// Tells those who wait in [`Media::uploads`] to look again.
    pub fn announce_upload(&self) {
        self.uploads.send_replace(());
    }

    /// Changes whenever an upload to an id made before has come.
    pub fn uploads(&self) -> watch::Receiver<()> {
        self.uploads.subscribe()
    }

    /// A file, opened. Errors: 404 if it is lost; those of the disk.
    pub async fn blob(&self, file: &MediaFile) -> Result<Blob, ApiError> {
        let (store, sha256, size) = (self.store.clone(), file.sha256, file.size);
        blocking(move || content(&*store, &sha256, size)).await?.ok_or_else(lost)
    }

    /// Whether a file is there, as long as it is to be. Errors: those of the disk.
    pub async fn has(&self, file: &MediaFile) -> Result<bool, ApiError> {
        let (store, sha256, size) = (self.store.clone(), file.sha256, file.size);
        Ok(blocking(move || content(&*store, &sha256, size)).await?.is_some())
    }

    /// A thumbnail of a file: kept from before, or made now and kept, when it is the asker's turn.
    ///
    /// Errors: 400 for what is not an image, 413 for one that is too large to decode, 404 for one that is lost.
    pub async fn thumbnail(
        &self,
        asker: &Asker,
        file: &MediaFile,
        wanted: Wanted,
    ) -> Result<Thumbnail, ApiError> {
        let (store, sha256, size) = (self.store.clone(), file.sha256, file.size);
        if let Some(kept) = blocking(move || kept(&*store, &sha256, &wanted)).await? {
            return Ok(kept);
        }
        let place = self.decoding.take(asker.holder()).await;
        let store = self.store.clone();
        // The place goes with the work, which goes on when the client has gone away.
        let made = blocking(move || {
            let made = make(&*store, &sha256, size, &wanted);
            drop(place);
            made
        });
        match made.await? {
            Ok(thumbnail) => Ok(thumbnail),
            Err(Failure::NotAnImage(why)) => {
                Err(ApiError::unknown(format!("No thumbnail can be made of this file: {why}")))
            }
            Err(Failure::Lost) => Err(lost()),
            Err(Failure::TooLarge) => Err(ApiError::too_large("This image is too large for a thumbnail")),
            Err(Failure::Io(error)) => Err(ApiError::storage_failed(error)),
        }
    }
}

/// Runs what blocks where it may. Errors: 503 of a disk that is full or fails; that something is not there is a fault of ours.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?;
    done.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ApiError::internal(error),
        _ => ApiError::storage_failed(error),
    })
}

/// A content of that size; nothing if it is lost, of which the operator is told.
fn content(store: &dyn MediaStore, sha256: &Sha256, size: u64) -> io::Result<Option<Blob>> {
    let found = store.open(sha256)?;
    let is_whole = found.as_ref().is_some_and(|blob| blob.size == size);
    if !is_whole {
        let there = found.map(|blob| blob.size);
        tracing::warn!(file = store::hex(sha256), size, there, "a media file is not there as it was stored");
        return Ok(None);
    }
    Ok(found)
}

/// What is asked for was here, and is gone from the disk, or cut short.
fn lost() -> ApiError {
    ApiError::not_found("This server has lost the file")
}

fn kept(store: &dyn MediaStore, sha256: &Sha256, wanted: &Wanted) -> io::Result<Option<Thumbnail>> {
    let Some(variant) = wanted.variant() else { return Ok(None) };
    let Some(mut blob) = store.open_thumbnail(sha256, &variant)? else { return Ok(None) };
    let mut bytes = Vec::new();
    blob.source.read_to_end(&mut bytes)?;
    Ok(Some(Thumbnail::Image { content_type: thumbnail::made_type(&bytes), bytes }))
}

fn make(
    store: &dyn MediaStore,
    sha256: &Sha256,
    size: u64,
    wanted: &Wanted,
) -> io::Result<Result<Thumbnail, Failure>> {
    // Somebody else may have made it while this one waited.
    if let Some(kept) = kept(store, sha256, wanted)? {
        return Ok(Ok(kept));
    }
    let Some(blob) = content(store, sha256, size)? else { return Ok(Err(Failure::Lost)) };
    let made = match thumbnail::make(blob, wanted) {
        Ok(made) => made,
        Err(failure) => return Ok(Err(failure)),
    };
    Ok(Ok(match made {
        Made::Original(content_type) => Thumbnail::Original(content_type),
        Made::Image { bytes, is_variant } => {
            if is_variant && let Some(variant) = wanted.variant() {
                // Without space for it, it is made again next time.
                if let Err(error) = store.keep_thumbnail(sha256, &variant, &bytes) {
                    tracing::warn!(%error, "a thumbnail could not be kept");
                }
            }
            Thumbnail::Image { content_type: thumbnail::made_type(&bytes), bytes }
        }
    }))
}
