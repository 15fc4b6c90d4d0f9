//! `content-repo.yaml` and `authed-content-repo.yaml`: media up and down, thumbnails, and how large a file may be.
//!
//! Media of other servers is fetched from them and kept. There are no URL previews: their endpoints are not in the table.

use std::borrow::Cow;
use std::io::SeekFrom;
use std::time::Duration;

use http::header::{CONTENT_RANGE, CONTENT_TYPE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderValue, StatusCode};
use ruma_common::OwnedServerName;
use serde_json::json;
use tokio::time::Instant;
use warren_engine::MediaFile;
use warren_engine::command::{CreateMedia, NoteMediaAccess, StoreMedia};
use warren_engine::view;
use warren_engine::view::RemoteMedia;

use crate::federation::out::media as remote;
use crate::http::reading::Reading;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};
use crate::media::Thumbnail;
use crate::media::headers::{self, CONTENT_TYPE_BYTES_MAX, Caching, Part};
use crate::media::size::{Method, Wanted};
use crate::media::store::hex;

endpoints! {
    POST "/_matrix/media/v3/upload"                                          ["r0", "v1"] Required Media Stream  upload;
    PUT  "/_matrix/media/v3/upload/{serverName}/{mediaId}"                   ["r0", "v1"] Required Media Stream  upload_to_created;
    POST "/_matrix/media/v1/create"                                          ["r0", "v3"] Required Media Nothing create;
    GET  "/_matrix/media/v3/config"                                          ["r0", "v1"] Guest    Read  Nothing get_config;
    GET  "/_matrix/client/v1/media/config"                                   ["unstable/org.matrix.msc3916"] Guest Read  Nothing get_config;
    GET  "/_matrix/media/v3/download/{serverName}/{mediaId}"                 ["r0", "v1"] None     Media Nothing download_unauthenticated;
    GET  "/_matrix/media/v3/download/{serverName}/{mediaId}/{fileName}"      ["r0", "v1"] None     Media Nothing download_unauthenticated_as;
    GET  "/_matrix/media/v3/thumbnail/{serverName}/{mediaId}"                ["r0", "v1"] None     Media Nothing thumbnail_unauthenticated;
    GET  "/_matrix/client/v1/media/download/{serverName}/{mediaId}"            ["unstable/org.matrix.msc3916"] Guest Media Nothing download;
    GET  "/_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}" ["unstable/org.matrix.msc3916"] Guest Media Nothing download_as;
    GET  "/_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}"           ["unstable/org.matrix.msc3916"] Guest Media Nothing thumbnail;
}

/// How long a download waits for an upload that has not come, if the client does not say.
const TIMEOUT_MS_DEFAULT: u64 = 20_000;

/// The longest wait that a client may ask for, below the minute after which proxies give up.
const TIMEOUT_MS_MAX: u64 = 50_000;

/// Longest media id that is looked up; those of other implementations have up to 64 characters.
const MEDIA_ID_BYTES_MAX: usize = 255;

/// Longest name of an uploaded file: file systems allow 255 characters, which are four bytes each at most.
const FILE_NAME_BYTES_MAX: usize = 1020;

/// What clients of old are told who ask where no token is looked at.
const WITH_TOKEN: &str =
    "with an access token, from /_matrix/client/v1/media/download or /_matrix/client/v1/media/thumbnail";

async fn upload(mut call: Call) -> Outcome {
    let media_id = receive(&mut call, None).await?;
    Answer::json(&json!({ "content_uri": content_uri(&call, &media_id) }))
}

async fn upload_to_created(mut call: Call) -> Outcome {
    let media_id = local_media_id(&call)?;
    // Asked now so that a refused upload is not read first; the command asks again.
    let user_id = call.user()?.to_string();
    call.ctx.engine.read(&view::PendingMedia { media_id: media_id.clone(), user_id })?;
    receive(&mut call, Some(media_id)).await?;
    call.ctx.media.announce_upload();
    Ok(Answer::empty())
}

async fn create(call: Call) -> Outcome {
    call.refuse_suspended()?;
    let created = call.ctx.engine.write(CreateMedia { user_id: call.user()?.to_string() }).await?;
    Answer::json(&json!({
        "content_uri": content_uri(&call, &created.media_id),
        "unused_expires_at": created.unused_expires_at,
    }))
}

async fn get_config(call: Call) -> Outcome {
    Answer::json(&json!({ "m.upload.size": call.ctx.config.upload_bytes_max }))
}

async fn download(call: Call) -> Outcome {
    send_file(&call, None, Caching::Private).await
}

async fn download_as(call: Call) -> Outcome {
    send_file(&call, Some(call.path("fileName")?), Caching::Private).await
}

async fn download_unauthenticated(call: Call) -> Outcome {
    send_file(&call, None, Caching::Public).await
}

async fn download_unauthenticated_as(call: Call) -> Outcome {
    send_file(&call, Some(call.path("fileName")?), Caching::Public).await
}

async fn thumbnail(call: Call) -> Outcome {
    send_thumbnail(&call, Caching::Private).await
}

async fn thumbnail_unauthenticated(call: Call) -> Outcome {
    send_thumbnail(&call, Caching::Public).await
}

/// Takes the body into the media store, then lets the engine know of it: no id is ever without its bytes.
async fn receive(call: &mut Call, media_id: Option<String>) -> Result<String, ApiError> {
    call.refuse_suspended()?;
    let user_id = call.user()?.to_string();
    let file_name = call.query("filename")?.map(Cow::into_owned).filter(|name| !name.is_empty());
    if file_name.as_ref().is_some_and(|name| name.len() > FILE_NAME_BYTES_MAX) {
        return Err(ApiError::invalid_param(format!(
            "Query parameter filename is longer than {FILE_NAME_BYTES_MAX} bytes"
        )));
    }
    let content_type = call.header(CONTENT_TYPE).map(str::to_owned);
    if content_type.as_ref().is_some_and(|kind| kind.len() > CONTENT_TYPE_BYTES_MAX) {
        return Err(ApiError::invalid_param(format!(
            "The Content-Type is longer than {CONTENT_TYPE_BYTES_MAX} bytes"
        )));
    }
    let mut body = call.take_stream()?;
    let (sha256, size) = call.ctx.media.receive(&mut body).await?;
    let authenticated_only = call.ctx.config.freeze_unauthenticated_media;
    let file = MediaFile { sha256, size, content_type, file_name, authenticated_only };
    Ok(call.ctx.engine.write(StoreMedia { user_id, media_id, file }).await?)
}

fn content_uri(call: &Call, media_id: &str) -> String {
    format!("mxc://{}/{media_id}", call.ctx.config.server_name)
}

/// The media id in the path, which must be of this server.
///
/// Errors: 400 for what is no server name or media id (section "Security considerations" of the content repository),
/// 404 for other servers' media.
fn local_media_id(call: &Call) -> Result<String, ApiError> {
    let server_name: OwnedServerName = call.path_as("serverName")?;
    let media_id = media_id(call)?;
    if server_name != call.ctx.config.server_name {
        return Err(ApiError::not_found("This server has no media of that server"));
    }
    Ok(media_id)
}

/// The media id in the path. Errors: 400 for what is none.
pub fn media_id(call: &Call) -> Result<String, ApiError> {
    let media_id = call.path("mediaId")?;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if media_id.is_empty() || media_id.len() > MEDIA_ID_BYTES_MAX || !media_id.bytes().all(is_allowed) {
        return Err(ApiError::invalid_param("A media id consists of the characters A-Z a-z 0-9 _ and -"));
    }
    Ok(media_id.into_owned())
}

/// The file that is asked for, once it is there.
///
/// Errors: 404 if there is none, or none to see without an access token; 504 if its upload did not come in time.
async fn find(call: &Call, caching: Caching) -> Result<MediaFile, ApiError> {
    let server_name: OwnedServerName = call.path_as("serverName")?;
    if server_name == call.ctx.config.server_name {
        return find_here(call, media_id(call)?, caching).await;
    }
    let ctx = &call.ctx;
    // Who has not signed in makes this server ask nobody, or everybody could use it to fetch anything.
    let known = RemoteMedia { server_name: server_name.as_str(), media_id: &media_id(call)? };
    let is_frozen = caching == Caching::Public && ctx.config.freeze_unauthenticated_media;
    if caching == Caching::Private && call.query_bool("allow_remote", true)? {
        let (asker, media_id, timeout_ms) = (call.asker(), media_id(call)?, timeout_ms(call)?);
        return remote::file(ctx, &asker, server_name.as_str(), &media_id, timeout_ms).await;
    }
    match ctx.engine.read(&known)? {
        Some(file) if !is_frozen || !file.authenticated_only => Ok(file),
        _ => Err(ApiError::not_found(format!("Media of other servers can only be fetched {WITH_TOKEN}"))),
    }
}

/// How long the asker waits for an upload that has not come.
fn timeout_ms(call: &Call) -> Result<u64, ApiError> {
    Ok(call.query_u64("timeout_ms")?.unwrap_or(TIMEOUT_MS_DEFAULT).min(TIMEOUT_MS_MAX))
}

/// A file of this server, once it is there. Errors: as [`find`].
pub async fn find_here(call: &Call, media_id: String, caching: Caching) -> Result<MediaFile, ApiError> {
    let deadline = Instant::now() + Duration::from_millis(timeout_ms(call)?);
    let ctx = &call.ctx;
    let mut uploads = ctx.media.uploads();
    let asked = view::Media { media_id: media_id.clone() };
    loop {
        uploads.mark_unchanged();
        let found = ctx.engine.read(&asked)?;
        if found.is_first_access_today {
            // Nobody waits for it: it goes with the next commit.
            drop(ctx.engine.write(NoteMediaAccess { media_id: media_id.clone() }));
        }
        if let Some(file) = found.file {
            let is_frozen = ctx.config.freeze_unauthenticated_media && file.authenticated_only;
            if caching == Caching::Public && is_frozen {
                return Err(ApiError::not_found(format!("This media can only be fetched {WITH_TOKEN}")));
            }
            return Ok(file);
        }
        let is_over = tokio::select! {
            changed = uploads.changed() => changed.is_err(),
            () = tokio::time::sleep_until(deadline) => true,
            () = ctx.shutdown.cancelled() => true,
        };
        if is_over {
            return Err(ApiError::not_yet_uploaded("The content has not been uploaded yet"));
        }
    }
}

async fn send_file(call: &Call, file_name: Option<Cow<'_, str>>, caching: Caching) -> Outcome {
    let file = find(call, caching).await?;
    let tag = hex(&file.sha256);
    let content_type = file.content_type.as_deref().unwrap_or_default();
    let file_name = file_name.as_deref().or(file.file_name.as_deref());
    let answer = if is_known(call, &tag) {
        Answer::empty().with_status(StatusCode::NOT_MODIFIED)
    } else {
        part_of_file(call, &file, &tag).await?
    };
    Ok(with_headers(answer, content_type, file_name, &tag, caching))
}

/// The whole file, or the part that a `Range` header asks for.
async fn part_of_file(call: &Call, file: &MediaFile, tag: &str) -> Outcome {
    // RFC 9110, 13.1.5: a part of something else than the asker has would be useless.
    let is_same = call.header(IF_RANGE).is_none_or(|known| known == format!("\"{tag}\""));
    let range = call.header(RANGE).filter(|_| is_same);
    let mut blob = call.ctx.media.blob(file).await?;
    let (first, length, status) = match headers::part(range, blob.size) {
        Part::Whole => (0, blob.size, StatusCode::OK),
        Part::Range(first, last) => (first, last - first + 1, StatusCode::PARTIAL_CONTENT),
        Part::Unsatisfiable => (0, 0, StatusCode::RANGE_NOT_SATISFIABLE),
    };
    let content_range = match status {
        StatusCode::PARTIAL_CONTENT => Some(format!("bytes {first}-{}/{}", first + length - 1, blob.size)),
        StatusCode::RANGE_NOT_SATISFIABLE => Some(format!("bytes */{}", blob.size)),
        _ => None,
    };
    blob.source.seek(SeekFrom::Start(first)).map_err(ApiError::internal)?;
    let reading = Reading::new(Box::new(blob.source), length);
    let mut answer =
        Answer::reading(HeaderValue::from_static("application/octet-stream"), reading).with_status(status);
    if let Some(content_range) = content_range {
        let value = HeaderValue::try_from(content_range).map_err(ApiError::internal)?;
        answer = answer.with_header(CONTENT_RANGE, value);
    }
    Ok(answer)
}

async fn send_thumbnail(call: &Call, caching: Caching) -> Outcome {
    let wanted = wanted(call)?;
    let file = find(call, caching).await?;
    let hash = hex(&file.sha256);
    // What is beyond the variants is answered with the image in its own size, moving or not.
    let variant = wanted.variant().unwrap_or_else(|| format!("whole-{}", wanted.animated));
    let tag = format!("{hash}-{variant}-{}x{}", wanted.width, wanted.height);
    if is_known(call, &tag) {
        let answer = Answer::empty().with_status(StatusCode::NOT_MODIFIED);
        return Ok(with_headers(answer, "image/png", None, &tag, caching));
    }
    let made = call.ctx.media.thumbnail(&call.asker(), &file, wanted).await;
    let (answer, content_type) = match made.map_err(|error| of_its_server(call, error))? {
        Thumbnail::Original(content_type) => {
            let blob = call.ctx.media.blob(&file).await?;
            let reading = Reading::new(Box::new(blob.source), blob.size);
            (Answer::reading(HeaderValue::from_static(content_type), reading), content_type)
        }
        Thumbnail::Image { bytes, content_type } => {
            (Answer::bytes(HeaderValue::from_static(content_type), bytes.into()), content_type)
        }
    };
    let file_name = match content_type {
        "image/jpeg" => "thumbnail.jpg",
        "image/gif" => "thumbnail.gif",
        "image/webp" => "thumbnail.webp",
        _ => "thumbnail.png",
    };
    Ok(with_headers(answer, content_type, Some(file_name), &tag, caching))
}

/// An image that is too large is told of otherwise if it is another server's.
fn of_its_server(call: &Call, error: ApiError) -> ApiError {
    let is_here = call.path("serverName").is_ok_and(|name| name == call.ctx.config.server_name.as_str());
    match error.status == StatusCode::PAYLOAD_TOO_LARGE && !is_here {
        true => error.with_status(StatusCode::BAD_GATEWAY),
        false => error,
    }
}

pub fn wanted(call: &Call) -> Result<Wanted, ApiError> {
    let side = |name: &str| match call.query_required(name)?.parse::<u32>() {
        Ok(pixels) if pixels > 0 => Ok(pixels),
        _ => Err(ApiError::invalid_param(format!(
            "Query parameter {name} must be a whole number of pixels above zero"
        ))),
    };
    Ok(Wanted {
        width: side("width")?,
        height: side("height")?,
        method: call
            .query_enum("method", &[("scale", Method::Scale), ("crop", Method::Crop)])?
            .unwrap_or(Method::Scale),
        animated: call.query_bool("animated", false)?,
    })
}

fn is_known(call: &Call, tag: &str) -> bool {
    call.header(IF_NONE_MATCH).is_some_and(|known| headers::is_known(known, tag))
}

fn with_headers(
    mut answer: Answer,
    content_type: &str,
    file_name: Option<&str>,
    tag: &str,
    caching: Caching,
) -> Answer {
    headers::add(&mut answer.headers, content_type, file_name, tag, caching);
    if answer.status == StatusCode::NOT_MODIFIED {
        answer.body = crate::http::answer::AnswerBody::Full(bytes::Bytes::new());
    }
    answer
}
