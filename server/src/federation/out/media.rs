//! Files of other servers are fetched when a local user first asks for them, and kept. What is lost here is fetched again.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use memchr::memmem;
use metrics::counter;
use tokio::time::Instant;
use warren_engine::MediaFile;
use warren_engine::command::StoreRemoteMedia;
use warren_engine::view::RemoteMedia;

use super::ask::{Ask, escaped, path};
use super::client::{Answer, open_url};
use super::flights::{Flight, Flights};
use super::questions::QuestionPlace;
use super::{Asker, RemoteError};
use crate::context::Context;
use crate::federation::limits::QUESTION_WAIT_MAX;
use crate::http::{ApiError, percent_decode};
use crate::media::Pieces;
use crate::media::headers::CONTENT_TYPE_BYTES_MAX;

/// What stands before the file in an answer: two boundaries and a few headers, and a preamble, which nobody reads.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a file's name that are kept.
const FILE_NAME_BYTES_MAX: usize = 255;

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
    /// What ends it within the answer: a line break and the boundary. Nothing where it is all of the answer.
    delimiter: Option<Vec<u8>>,
    /// What was read and not given out: it may be the beginning of the delimiter.
    held: BytesMut,
    is_over: bool,
}

/// What is in a `multipart/mixed` answer. Specification: server-server API, "Content Repository".
enum FileOrAddress {
    File(Box<Download>),
    Address { url: String, end: Instant },
}

impl FileOrAddress {
    /// Reads up to where the file begins.
    async fn read(mut answer: Answer) -> Result<FileOrAddress, RemoteError> {
        let declared = answer.headers.get(CONTENT_TYPE).and_then(boundary);
        let mut held = BytesMut::new();
        loop {
            let seen = held.get(..held.len().min(HEAD_BYTES_MAX)).unwrap_or_default();
            if let Some(head) = Head::read(seen, declared.as_deref())? {
                if let Some(url) = head.location {
                    return Ok(FileOrAddress::Address { url, end: answer.end });
                }
                let _ = held.split_to(head.length);
                let Head { content_type, file_name, is_over, .. } = head;
                let delimiter = Some(head.delimiter);
                let file = Download { answer, content_type, file_name, delimiter, held, is_over };
                return Ok(FileOrAddress::File(Box::new(file)));
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
        let held = BytesMut::new();
        Download { answer, content_type, file_name, delimiter: None, held, is_over: false }
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, RemoteError> {
        let Some(delimiter) = &self.delimiter else { return self.answer.next().await };
        while !self.is_over {
            if let Some(end) = find(&self.held, delimiter) {
                self.is_over = true;
                let last = self.held.split_to(end).freeze();
                return Ok(Some(last).filter(|last| !last.is_empty()));
            }
            // A delimiter may have begun in the last bytes.
            let sure = self.held.len().saturating_sub(delimiter.len());
            if sure > 0 {
                return Ok(Some(self.held.split_to(sure).freeze()));
            }
            let piece =
                self.answer.next().await?.ok_or_else(|| malformed("it breaks off within the file"))?;
            self.held.extend_from_slice(&piece);
        }
        Ok(None)
    }
}

impl Pieces for Download {
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        Ok(self.next_piece().await?)
    }
}

/// The boundary that a `Content-Type` names, with the hyphens before it. Nothing if it is not of several parts, or names none.
fn boundary(content_type: &HeaderValue) -> Option<Vec<u8>> {
    let content_type = content_type.to_str().ok()?;
    let kind = content_type.trim_start().to_ascii_lowercase();
    let (_, boundary) = parameters(content_type).into_iter().find(|(name, _)| name == "boundary")?;
    let is_named = kind.starts_with("multipart/") && !boundary.is_empty();
    is_named.then(|| [b"--", boundary.as_bytes()].concat())
}

/// Where the first part of an answer begins.
struct Start {
    /// What ends a line. RFC 2046 has CRLF; an answer whose first boundary ends with a bare LF has that everywhere.
    line_end: &'static [u8],
    /// A line's end and the boundary, with its hyphens: what stands between parts.
    delimiter: Vec<u8>,
    /// The end of the line with the first boundary.
    at: usize,
}

impl Start {
    /// Nothing while it is not whole. A preamble (RFC 2046, 5.1.1) is passed over where the boundary is `declared`; else the
    /// first line is the boundary.
    fn read(bytes: &[u8], declared: Option<&[u8]>) -> Result<Option<Start>, RemoteError> {
        let first = match declared {
            Some(boundary) => line_with(bytes, boundary),
            None => bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')),
        };
        let Some(first) = first else { return Ok(None) };
        let rest = bytes.get(first..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = rest.get(..length).unwrap_or_default();
        let (line, line_end): (_, &[u8]) = match line.strip_suffix(b"\r") {
            Some(line) => (line, b"\r\n"),
            None => (line, b"\n"),
        };
        let boundary = declared.unwrap_or(line);
        if !boundary.starts_with(b"--") || boundary.len() < 3 {
            return Err(malformed("it does not begin with a boundary"));
        }
        Ok(Some(Start { line_end, delimiter: [line_end, boundary].concat(), at: first + line.len() }))
    }
}

/// Whether the first boundary is the last, behind which nothing comes.
fn has_no_part(bytes: &[u8], boundary: &[u8]) -> bool {
    let behind = line_with(bytes, boundary).and_then(|at| bytes.get(at + boundary.len()..));
    behind.is_some_and(|behind| behind.starts_with(b"--"))
}

/// Where a line begins with `start`.
fn line_with(bytes: &[u8], start: &[u8]) -> Option<usize> {
    let is_line = |at: usize| at.checked_sub(1).is_none_or(|before| bytes.get(before) == Some(&b'\n'));
    bytes
        .windows(start.len())
        .enumerate()
        // In this order: at the beginning of lines alone, so that a boundary of any length is looked for in one pass.
        .find(|(at, window)| is_line(*at) && *window == start)
        .map(|(at, _)| at)
}

/// What stands before the file.
#[derive(Default)]
struct Head {
    delimiter: Vec<u8>,
    /// Where the file is, if it is not here.
    location: Option<String>,
    content_type: Option<String>,
    file_name: Option<String>,
    length: usize,
    /// Whether nothing comes behind it.
    is_over: bool,
}

impl Head {
    /// Nothing while it is not whole. `declared` is the boundary that the answer's own head names.
    fn read(bytes: &[u8], declared: Option<&[u8]>) -> Result<Option<Head>, RemoteError> {
        // Synapse begins no part before a file's first byte, so that of an empty one it only says that it is over.
        if declared.is_some_and(|boundary| has_no_part(bytes, boundary)) {
            return Ok(Some(Head { is_over: true, ..Head::default() }));
        }
        let Some(Start { line_end, delimiter, at }) = Start::read(bytes, declared)? else { return Ok(None) };
        let first = bytes.get(at..).unwrap_or_default();
        let Some(next) = find(first, &delimiter) else { return Ok(None) };
        let second = first.get(next + delimiter.len()..).unwrap_or_default();
        if second.starts_with(b"--") {
            return Err(malformed("it has one part only"));
        }
        let empty_line = [line_end, line_end].concat();
        let Some(headers_end) = find(second, &empty_line) else { return Ok(None) };
        let headers = String::from_utf8_lossy(second.get(..headers_end).unwrap_or_default()).into_owned();
        let location = header(&headers, "location").map(str::to_owned);
        let content_type =
            header(&headers, "content-type").filter(|text| text.len() <= CONTENT_TYPE_BYTES_MAX);
        let file_name = header(&headers, "content-disposition").and_then(file_name);
        let length = at + next + delimiter.len() + headers_end + empty_line.len();
        let content_type = content_type.map(str::to_owned);
        Ok(Some(Head { delimiter, location, content_type, file_name, length, is_over: false }))
    }
}

fn malformed(why: &str) -> RemoteError {
    RemoteError::bad_answer("unreadable", why)
}

fn header<'h>(headers: &'h str, name: &str) -> Option<&'h str> {
    headers.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The name in a `Content-Disposition` header: `filename*` in UTF-8 before `filename` (RFC 6266).
fn file_name(disposition: &str) -> Option<String> {
    let mut plain = None;
    for (name, value) in parameters(disposition) {
        match name.as_str() {
            "filename*" => {
                let encoded = value.get(..7).filter(|start| start.eq_ignore_ascii_case("utf-8''"));
                let decoded = encoded.and_then(|_| percent_decode(value.get(7..)?, false));
                if decoded.is_some() {
                    return decoded.map(Cow::into_owned).filter(|name| name.len() <= FILE_NAME_BYTES_MAX);
                }
            }
            "filename" => plain = Some(value),
            _ => {}
        }
    }
    plain.filter(|name| !name.is_empty() && name.len() <= FILE_NAME_BYTES_MAX)
}

/// The parameters behind the first semicolon of a header: their names in lower case, and their values out of quotes (RFC 9110,
/// 5.6.6), which may have semicolons in them.
fn parameters(header: &str) -> Vec<(String, String)> {
    let behind_semicolon = |text: &str| text.find(';').map_or(text.len(), |at| at + 1);
    let mut found = Vec::new();
    let mut rest = header.get(behind_semicolon(header)..).unwrap_or_default();
    while !rest.is_empty() {
        let (name, behind) = rest.split_at(rest.find(['=', ';']).unwrap_or(rest.len()));
        rest = behind;
        if let Some(text) = behind.strip_prefix('=') {
            let (value, behind) = parameter_value(text.trim_start());
            found.push((name.trim().to_ascii_lowercase(), value));
            rest = behind;
        }
        rest = rest.get(behind_semicolon(rest)..).unwrap_or_default();
    }
    found
}

/// The value that a text begins with, and what stands behind it. A backslash in quotes takes its meaning from what comes next.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find(';').unwrap_or(text.len()));
        return (value.trim_end().to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => break,
            '\\' => value.extend(chars.next()),
            char => value.push(char),
        }
    }
    (value, chars.as_str())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    memmem::find(bytes, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] =
        b"\r\n--b1\r\nContent-Type: application/json\r\n\r\n{}\r\n--b1\r\nContent-Type: text/plain\r\n\
        Content-Disposition: inline; filename=\"a.txt\"\r\n\r\nthe file\r\n--b1--\r\n";

    fn boundary_of(content_type: &str) -> Option<Vec<u8>> {
        boundary(&HeaderValue::from_str(content_type).expect("a header"))
    }

    #[test]
    fn the_file_begins_behind_the_second_head() {
        for declared in [None, Some(&b"--b1"[..])] {
            for (line_end, before) in [("\r\n", ""), ("\n", "")].into_iter().chain([
                // What is no boundary: a preamble.
                ("\r\n", "This is in several parts.\r\n--b2\r\nx--b1\r\n"),
                ("\n", "several\n\nparts\n"),
            ]) {
                if declared.is_none() && !before.is_empty() {
                    continue;
                }
                let text = std::str::from_utf8(ANSWER).expect("a text").replace("\r\n", line_end);
                let answer = [before, &text].concat().into_bytes();
                let head = Head::read(&answer, declared).expect("well-formed").expect("whole");
                assert_eq!(answer.get(head.length..head.length + 8), Some(&b"the file"[..]));
                assert_eq!(
                    (head.content_type.as_deref(), head.file_name.as_deref()),
                    (Some("text/plain"), Some("a.txt"))
                );
                assert_eq!(head.delimiter, format!("{line_end}--b1").into_bytes());
                for length in 0..head.length {
                    let part = answer.get(..length).expect("shorter");
                    assert!(Head::read(part, declared).expect("well-formed so far").is_none(), "{length}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        assert!(Head::read(b"<html>\r\n", None).is_err());
        assert!(Head::read(b"--b\r\n\r\n{}\r\n--b--\r\n", None).is_err());
        assert!(Head::read(b"--b\n\n{}\n--b--\n", Some(b"--b")).is_err());
        assert!(
            Head::read(b"--b--\r\n", None).expect("well-formed so far").is_none(),
            "a boundary, for all that is known"
        );
        // Another boundary than the one that was declared may stand in a preamble of any length.
        assert!(Head::read(b"--a\r\n\r\n{}\r\n--a\r\n\r\nx", Some(b"--b")).expect("well-formed").is_none());
    }

    #[test]
    fn an_answer_that_ends_at_once_is_an_empty_file() {
        let is_over =
            |answer: &[u8]| Head::read(answer, Some(b"--b")).map(|head| head.map(|head| head.is_over));
        for answer in [&b"--b--"[..], b"--b--\r\n", b"\r\n--b--\r\n", b"before\n--b--\n"] {
            assert!(matches!(is_over(answer), Ok(Some(true))), "{answer:?}");
        }
        for unfinished in [&b""[..], b"\r\n--b", b"--b-", b"--b\r\n"] {
            assert!(matches!(is_over(unfinished), Ok(None)), "{unfinished:?}");
        }
    }

    #[test]
    fn boundaries_are_named_in_the_head_of_an_answer() {
        for content_type in [
            "multipart/mixed; boundary=b1",
            "Multipart/Mixed;charset=utf-8; Boundary=\"b1\"",
            "multipart/form-data;boundary=b1 ; x=y",
            "multipart/mixed; x=\"; boundary=b2\"; boundary=b1",
        ] {
            assert_eq!(boundary_of(content_type).as_deref(), Some(&b"--b1"[..]), "{content_type}");
        }
        assert_eq!(
            boundary_of("multipart/mixed; boundary=\"a=b:c/d?e\"").as_deref(),
            Some(&b"--a=b:c/d?e"[..])
        );
        for content_type in [
            "text/plain; boundary=b1",
            "multipart/mixed",
            "multipart/mixed; boundary=\"\"",
            "",
            "boundary=b1",
        ] {
            assert_eq!(boundary_of(content_type), None, "{content_type}");
        }
    }

    #[test]
    fn a_file_may_be_elsewhere() {
        let answer = b"--b\r\n\r\n{}\r\n--b\r\nLocation: https://a.example/x\r\n\r\n\r\n--b--";
        let head = Head::read(answer, None).expect("well-formed").expect("whole");
        assert_eq!(head.location.as_deref(), Some("https://a.example/x"));
    }

    #[test]
    fn names_of_files() {
        assert_eq!(
            file_name("attachment; filename*=utf-8''%C3%BC.png; filename=\"u.png\"").as_deref(),
            Some("ü.png")
        );
        for (disposition, name) in [
            ("inline; filename=a.png", "a.png"),
            ("inline; filename=a b.png ; size=5", "a b.png"),
            (r#"inline; filename="a; b.txt""#, "a; b.txt"),
            (r#"inline;FileName = "a; filename=b.txt" ;size=5"#, "a; filename=b.txt"),
            (r#"inline; x="; filename=no"; y; filename="a=b.txt"; z"#, "a=b.txt"),
            (r#"inline; filename="say \"a; b\\c\".txt""#, r#"say "a; b\c".txt"#),
            (r#"inline; filename="never closed; at all"#, "never closed; at all"),
            (r#"inline; filename="a;b.png"; filename*=utf-8''%3B%C3%BC.png"#, ";ü.png"),
            (r#"inline; filename="\"#, ""),
        ] {
            assert_eq!(file_name(disposition).as_deref(), Some(name).filter(|name| !name.is_empty()));
        }
        for nameless in
            ["", "inline", "inline;", "inline; filename", "inline; filename=", r#"inline; filename="""#]
        {
            assert_eq!(file_name(nameless), None, "{nameless}");
        }
    }
}
