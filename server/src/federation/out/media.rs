//! Files of other servers are fetched when a local user first asks for them, and kept. What is lost here is fetched again.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use metrics::counter;
use tokio::time::Instant;
use warren_engine::MediaFile;
use warren_engine::command::StoreRemoteMedia;
use warren_engine::view::RemoteMedia;

use super::ask::{Ask, escaped, path};
use super::client::{Answer, open_url};
use super::flights::{Flight, Flights};
use super::multipart::{Content, Head, HeadReader, boundary, file_name, malformed};
use super::questions::QuestionPlace;
use super::{Asker, RemoteError};
use crate::context::Context;
use crate::federation::limits::QUESTION_WAIT_MAX;
use crate::http::ApiError;
use crate::media::Pieces;
use crate::media::headers::CONTENT_TYPE_BYTES_MAX;

/// What stands before the file in an answer: two boundaries and a few headers, and a preamble, which nobody reads.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Files that are being fetched, with why the last attempt at each was in vain.
pub type Fetching = Flights<Option<InVain>>;

/// Why an attempt at a file was in vain. Whoever has waited for it makes none: of a server that stalls, each would wait for all that
/// come before.
pub struct InVain {
    why: ApiError,
    ended: Instant,
    timeout_ms: u64,
}

impl InVain {
    /// Whether it is so for who came at that time. That a file has not been uploaded yet holds for nobody who has more patience.
    fn holds_for(&self, came: Instant, timeout_ms: u64) -> bool {
        self.ended >= came && (self.timeout_ms >= timeout_ms || self.why.errcode != NOT_YET_UPLOADED)
    }
}

/// A file of another server: as it is kept here, or fetched now.
///
/// Errors: what the other server refused, or did while the asker waited for others who fetch it; 404 when it cannot be reached, 503
/// when too much is asked of others to ask for it, 502 when the file is too large.
pub async fn file(
    ctx: &Context,
    asker: &Asker,
    server: &str,
    media_id: &str,
    timeout_ms: u64,
) -> Result<MediaFile, ApiError> {
    let view = RemoteMedia { server_name: server, media_id };
    if let Some(file) = kept(ctx, &view).await? {
        return Ok(file);
    }
    let (mut turn, place) = match kept_or_turn(ctx, asker, &view, timeout_ms).await? {
        KeptOrTurn::Kept(file) => return Ok(file),
        KeptOrTurn::Turn(turn, place) => (turn, place),
    };
    let fetched = fetch(ctx, &place, &view, timeout_ms).await;
    if let Err(why) = &fetched {
        *turn.left() = Some(InVain { why: why.clone(), ended: Instant::now(), timeout_ms });
    }
    fetched
}

/// Fetches a file, and keeps it.
async fn fetch(
    ctx: &Context,
    place: &QuestionPlace,
    view: &RemoteMedia<'_>,
    timeout_ms: u64,
) -> Result<MediaFile, ApiError> {
    let RemoteMedia { server_name: server, media_id } = *view;
    let lost = ctx.engine.read(view)?;
    let mut download = begin(ctx, place, server, media_id, timeout_ms).await.map_err(not_there)?;
    let (content_type, file_name) = (download.content_type.take(), download.file_name.take());
    let (sha256, size) = ctx.media.receive(&mut download).await?;
    // Whoever saw it before it was lost still does.
    let authenticated_only =
        lost.map_or(ctx.config.freeze_unauthenticated_media, |file| file.authenticated_only);
    let file = MediaFile { sha256, size, content_type, file_name, authenticated_only };
    let store = StoreRemoteMedia {
        server_name: server.to_owned(),
        media_id: media_id.to_owned(),
        file: file.clone(),
    };
    ctx.engine.write(store).await?;
    Ok(file)
}

/// A file that is known here, and that the disk has.
async fn kept(ctx: &Context, view: &RemoteMedia<'_>) -> Result<Option<MediaFile>, ApiError> {
    let Some(file) = ctx.engine.read(view)? else { return Ok(None) };
    Ok(ctx.media.has(&file).await?.then_some(file))
}

/// What comes of waiting for a file.
enum KeptOrTurn<'a> {
    /// Somebody has fetched it.
    Kept(MediaFile),
    /// Nobody else is fetching it now; the place is for all of the questions that this takes.
    Turn(Flight<'a, Option<InVain>>, QuestionPlace),
}

/// Waits for others who fetch the file, and for a place; see [`Flights::turn`].
///
/// Errors: 503 if there is no place in time; why the last of those others had waited in vain, too.
async fn kept_or_turn<'a>(
    ctx: &'a Context,
    asker: &Asker,
    view: &RemoteMedia<'_>,
    timeout_ms: u64,
) -> Result<KeptOrTurn<'a>, ApiError> {
    let came = Instant::now();
    let (flights, questions) = (&ctx.federation.media, &ctx.federation.questions);
    let name = format!("{}/{}", view.server_name, view.media_id);
    let mut place = None;
    loop {
        let Some(mut turn) = flights.turn(&name, place.is_some()).await else {
            place = None;
            continue;
        };
        if let Some(file) = kept(ctx, view).await? {
            return Ok(KeptOrTurn::Kept(file));
        }
        if let Some(in_vain) = turn.left().as_ref().filter(|in_vain| in_vain.holds_for(came, timeout_ms)) {
            return Err(in_vain.why.clone());
        }
        if let Some(place) = place.take().or_else(|| questions.try_place(asker, true)) {
            return Ok(KeptOrTurn::Turn(turn, place));
        }
        drop(turn);
        place = match questions.place(asker, true, QUESTION_WAIT_MAX).await {
            Ok(place) => Some(place),
            Err(error) => {
                // Who had one may have fetched it meanwhile.
                if let Some(file) = kept(ctx, view).await? {
                    return Ok(KeptOrTurn::Kept(file));
                }
                counter!("warren_federation_requests_total", "outcome" => "no_place").increment(1);
                return Err(error.into());
            }
        };
    }
}

/// What the server of a file says of it for clients to know. Specification: client-server API, `GET /media/download`.
const SAID_OF_FILES: [(StatusCode, &str); 2] =
    [(StatusCode::GATEWAY_TIMEOUT, NOT_YET_UPLOADED), (StatusCode::BAD_GATEWAY, "M_TOO_LARGE")];

const NOT_YET_UPLOADED: &str = "M_NOT_YET_UPLOADED";

/// A file whose server cannot be reached is not there for a client, which may look again later.
fn not_there(error: RemoteError) -> ApiError {
    match error {
        RemoteError::NotAdmitted(_) | RemoteError::Unreachable(_) => {
            ApiError::not_found(format!("The server of this file is of no help: {error}"))
        }
        RemoteError::Refused { status, errcode, error, .. }
            if SAID_OF_FILES.contains(&(status, errcode.as_str())) =>
        {
            ApiError::verbatim(status, &errcode, error)
        }
        error => error.into(),
    }
}

/// Asks for a file, at the endpoint for servers or, where that is not known, at the one that was there before. A server may
/// answer with the address of a file that is elsewhere.
async fn begin(
    ctx: &Context,
    place: &QuestionPlace,
    server: &str,
    media_id: &str,
    timeout_ms: u64,
) -> Result<Download, RemoteError> {
    let bytes_max = ctx.config.upload_bytes_max;
    let target = format!("{}?timeout_ms={timeout_ms}", path("v1/media/download/{mediaId}", &[media_id]));
    let answer = match Ask::get(server, target).with_place(place).for_media(bytes_max).open(ctx).await {
        Err(error) if error.is_unknown_endpoint() => {
            let (name, id) = (escaped(server), escaped(media_id));
            // Specification: "When falling back, servers MUST be sure to set `allow_remote` to `false`."
            let target =
                format!("/_matrix/media/v3/download/{name}/{id}?allow_remote=false&timeout_ms={timeout_ms}");
            let asked = Ask::get(server, target).with_place(place).unsigned().for_media(bytes_max);
            return Ok(Download::whole(asked.open(ctx).await?));
        }
        answer => answer?,
    };
    match FileOrAddress::read(answer).await? {
        FileOrAddress::File(file) => Ok(*file),
        FileOrAddress::Address { url, end } => {
            let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
            Ok(Download::whole(open_url(ctx, &url, bytes_max, end).await?))
        }
    }
}

/// A file that is being read.
struct Download {
    answer: Answer,
    content_type: Option<String>,
    file_name: Option<String>,
    /// What it is within the answer. Nothing where it is all of it.
    content: Option<Content>,
}

/// What is in a `multipart/mixed` answer. Specification: server-server API, "Content Repository".
enum FileOrAddress {
    File(Box<Download>),
    Address { url: String, end: Instant },
}

impl FileOrAddress {
    /// Reads up to where the file begins.
    async fn read(mut answer: Answer) -> Result<FileOrAddress, RemoteError> {
        let mut reader = HeadReader::new(answer.headers.get(CONTENT_TYPE).and_then(boundary));
        let mut held = BytesMut::new();
        loop {
            let seen = held.get(..held.len().min(HEAD_BYTES_MAX)).unwrap_or_default();
            if let Some(mut head) = reader.read(seen)? {
                if let Some(url) = head.location.take() {
                    return Ok(FileOrAddress::Address { url, end: answer.end });
                }
                let content = Some(head.content(held));
                let Head { content_type, file_name, .. } = head;
                return Ok(FileOrAddress::File(Box::new(Download {
                    answer,
                    content_type,
                    file_name,
                    content,
                })));
            }
            if held.len() > HEAD_BYTES_MAX {
                return Err(malformed("what stands before the file is too long"));
            }
            let piece = answer.next().await?.ok_or_else(|| malformed("there is no file in it"))?;
            held.extend_from_slice(&piece);
        }
    }
}

impl Download {
    /// A file that is all of an answer.
    fn whole(answer: Answer) -> Download {
        let text = |name| answer.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let content_type = text(CONTENT_TYPE).filter(|text| text.len() <= CONTENT_TYPE_BYTES_MAX);
        let content_type = content_type.map(str::to_owned);
        let file_name = text(CONTENT_DISPOSITION).and_then(file_name);
        Download { answer, content_type, file_name, content: None }
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, RemoteError> {
        let Some(content) = &mut self.content else { return self.answer.next().await };
        while !content.is_over() {
            if let Some(bytes) = content.take() {
                return Ok(Some(bytes));
            }
            if !content.is_over() {
                let piece =
                    self.answer.next().await?.ok_or_else(|| malformed("it breaks off within the file"))?;
                content.push(&piece);
            }
        }
        Ok(None)
    }
}

impl Pieces for Download {
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        Ok(self.next_piece().await?)
    }
}
