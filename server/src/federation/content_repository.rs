//! `content_repository.yaml`: this server's media, for other servers.

use std::io::{Cursor, Read};

use http::HeaderValue;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};

use crate::client::media::{find_here, media_id, wanted};
use crate::http::reading::Reading;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};
use crate::media::Thumbnail;
use crate::media::headers::{self, Caching};

endpoints! {
    GET "/_matrix/federation/v1/media/download/{mediaId}"  ["unstable/org.matrix.msc3916.v2"] Server Federation Nothing get_content;
    GET "/_matrix/federation/v1/media/thumbnail/{mediaId}" ["unstable/org.matrix.msc3916.v2"] Server Federation Nothing get_content_thumbnail;
}

/// Characters of a boundary: 144 bits, so that no file can contain it.
const BOUNDARY_CHARS: usize = 24;

async fn get_content(call: Call) -> Outcome {
    // The server that asks shows it to those who have signed in there.
    let file = find_here(&call, media_id(&call)?, Caching::Private).await?;
    let blob = call.ctx.media.blob(&file).await?;
    let content_type = file.content_type.unwrap_or_default();
    multipart(&call, &content_type, file.file_name.as_deref(), Box::new(blob.source), blob.size)
}

async fn get_content_thumbnail(call: Call) -> Outcome {
    let wanted = wanted(&call)?;
    let file = find_here(&call, media_id(&call)?, Caching::Private).await?;
    match call.ctx.media.thumbnail(&call.asker(), &file, wanted).await? {
        Thumbnail::Original(content_type) => {
            let blob = call.ctx.media.blob(&file).await?;
            multipart(&call, content_type, None, Box::new(blob.source), blob.size)
        }
        Thumbnail::Image { bytes, content_type } => {
            let size = bytes.len() as u64;
            multipart(&call, content_type, None, Box::new(Cursor::new(bytes)), size)
        }
    }
}

/// Two parts: an object for what may be said of media one day, and the media.
fn multipart(
    call: &Call,
    content_type: &str,
    file_name: Option<&str>,
    source: Box<dyn Read + Send>,
    size: u64,
) -> Outcome {
    let boundary = call.ctx.engine.random_text(BOUNDARY_CHARS);
    let mut shown = http::HeaderMap::new();
    headers::add(&mut shown, content_type, file_name, "", Caching::Private);
    let text = |name| shown.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Disposition: {}\r\n\r\n",
        text(CONTENT_TYPE),
        text(CONTENT_DISPOSITION),
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let length = head.len() as u64 + size + tail.len() as u64;
    let whole = Cursor::new(head.into_bytes()).chain(source.take(size)).chain(Cursor::new(tail.into_bytes()));
    let header = HeaderValue::try_from(format!("multipart/mixed; boundary={boundary}"));
    Ok(Answer::reading(header.map_err(ApiError::internal)?, Reading::new(Box::new(whole), length)))
}
