//! A file in an answer of two parts (`multipart/mixed`), as it comes piece by piece.
//!
//! Invariant: however small the pieces are, of what has been looked at no more is looked at again than what is looked for may have begun
//! in, and that is short.
//! Specification: server-server API, "Content Repository"; RFC 2046.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use memchr::memchr;
use memchr::memmem::Finder;

use super::RemoteError;
use crate::federation::limits::BOUNDARY_BYTES_MAX;
use crate::http::percent_decode;
use crate::media::headers::CONTENT_TYPE_BYTES_MAX;

/// Bytes of a file's name that are kept.
const FILE_NAME_BYTES_MAX: usize = 255;

/// What an answer is that cannot be read.
pub fn malformed(why: &str) -> RemoteError {
    RemoteError::bad_answer("unreadable", why)
}

/// The boundary that a `Content-Type` names, with the hyphens before it. Nothing if it is not of several parts, or names none that is
/// short enough.
pub fn boundary(content_type: &HeaderValue) -> Option<Vec<u8>> {
    let content_type = content_type.to_str().ok()?;
    let kind = content_type.trim_start().to_ascii_lowercase();
    let (_, boundary) = parameters(content_type).into_iter().find(|(name, _)| name == "boundary")?;
    let is_named = kind.starts_with("multipart/") && (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len());
    is_named.then(|| [b"--", boundary.as_bytes()].concat())
}

/// What stands before the file.
#[derive(Default)]
pub struct Head {
    /// What ends the file: a line's end and the boundary.
    delimiter: Vec<u8>,
    /// Where the file is, if it is not here.
    pub location: Option<String>,
    /// What the file is said to be.
    pub content_type: Option<String>,
    /// And what it is called.
    pub file_name: Option<String>,
    /// Its own bytes.
    length: usize,
    /// Whether nothing comes behind it.
    is_over: bool,
}

impl Head {
    /// `text` are the headers of the file's part.
    fn with(text: &[u8], delimiter: Vec<u8>, length: usize) -> Head {
        let headers = String::from_utf8_lossy(text);
        let content_type =
            header(&headers, "content-type").filter(|text| text.len() <= CONTENT_TYPE_BYTES_MAX);
        Head {
            delimiter,
            location: header(&headers, "location").map(str::to_owned),
            content_type: content_type.map(str::to_owned),
            file_name: header(&headers, "content-disposition").and_then(file_name),
            length,
            is_over: false,
        }
    }

    /// The file behind it. `held` is what has come, the head with it.
    pub fn content(&self, mut held: BytesMut) -> Content {
        let _ = held.split_to(self.length.min(held.len()));
        Content { delimiter: Finder::new(&self.delimiter).into_owned(), held, is_over: self.is_over }
    }
}

/// The file in an answer.
pub struct Content {
    delimiter: Finder<'static>,
    /// What has come and was not given out: it may be the beginning of the delimiter.
    held: BytesMut,
    is_over: bool,
}

impl Content {
    /// More of the answer has come.
    pub fn push(&mut self, piece: &[u8]) {
        self.held.extend_from_slice(piece);
    }

    /// What of it has come and was not given out. Nothing if it is over, or more has to come first.
    pub fn take(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        if let Some(end) = self.delimiter.find(&self.held) {
            self.is_over = true;
            return Some(self.held.split_to(end).freeze()).filter(|last| !last.is_empty());
        }
        // A delimiter may have begun in the last bytes.
        let sure = self.held.len().saturating_sub(self.delimiter.needle().len());
        (sure > 0).then(|| self.held.split_to(sure).freeze())
    }

    /// Whether all of it has come and been given out.
    pub fn is_over(&self) -> bool {
        self.is_over
    }
}

/// Looks for something in what grows at its end.
struct Search {
    wanted: Finder<'static>,
    /// Before it, what is wanted does not begin.
    from: usize,
}

impl Search {
    fn new(wanted: &[u8], from: usize) -> Search {
        Search { wanted: Finder::new(wanted).into_owned(), from }
    }

    /// Where it is, from the beginning of `bytes`.
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let found = self.wanted.find(bytes.get(self.from..)?).map(|at| self.from + at);
        let overlap = self.wanted.needle().len().saturating_sub(1);
        self.from = found.unwrap_or(self.from.max(bytes.len().saturating_sub(overlap)));
        found
    }
}

/// Reads what stands before the file.
pub struct HeadReader {
    /// The boundary that the answer's own head names.
    declared: Option<Vec<u8>>,
    stage: Stage,
}

/// What is looked for.
enum Stage {
    First(FirstLine),
    /// What is between the parts.
    Delimiter {
        line_end: &'static [u8],
        delimiter: Search,
    },
    /// The empty line behind the second part's headers, which begin at `headers`.
    Headers {
        headers: usize,
        delimiter: Vec<u8>,
        empty_line: Search,
    },
}

/// The line with the first boundary is looked for.
#[derive(Default)]
struct FirstLine {
    /// Where the line begins that is looked at.
    line: usize,
    /// Before it, the line does not end.
    seen: usize,
}

/// The line with the first boundary.
enum Boundary {
    /// Nothing comes behind it.
    Last,
    /// What ends a line, what is between the parts, and where this line ends.
    Before { line_end: &'static [u8], delimiter: Vec<u8>, at: usize },
}

impl FirstLine {
    /// Nothing while it is not whole. A preamble (RFC 2046, 5.1.1) is passed over where the boundary is `declared`; else the first line
    /// is the boundary.
    fn read(&mut self, bytes: &[u8], declared: Option<&[u8]>) -> Result<Option<Boundary>, RemoteError> {
        let is_there = match declared {
            Some(boundary) => self.find(bytes, boundary),
            None => self.skip_empty_lines(bytes),
        };
        if !is_there {
            return Ok(None);
        }
        let rest = bytes.get(self.line..).unwrap_or_default();
        // Synapse begins no part before a file's first byte, so that of an empty one it only says that it is over.
        let behind = declared.and_then(|boundary| rest.get(boundary.len()..)).unwrap_or_default();
        if behind.starts_with(b"--") {
            return Ok(Some(Boundary::Last));
        }
        let is_whole = self.find_line_end(bytes);
        let line = bytes.get(self.line..self.seen).unwrap_or_default();
        if declared.is_none() && line.len() > BOUNDARY_BYTES_MAX + b"--\r".len() {
            return Err(malformed("its boundary is too long"));
        }
        if !is_whole {
            return Ok(None);
        }
        // RFC 2046 has CRLF; an answer whose first boundary ends with a bare LF has that everywhere.
        let (line, line_end): (_, &'static [u8]) = match line.strip_suffix(b"\r") {
            Some(line) => (line, b"\r\n"),
            None => (line, b"\n"),
        };
        let boundary = declared.unwrap_or(line);
        if !boundary.starts_with(b"--") || boundary.len() < 3 {
            return Err(malformed("it does not begin with a boundary"));
        }
        let delimiter = [line_end, boundary].concat();
        Ok(Some(Boundary::Before { line_end, delimiter, at: self.line + line.len() }))
    }

    /// Goes to the first line that begins with the boundary. Answers whether it is there.
    fn find(&mut self, bytes: &[u8], boundary: &[u8]) -> bool {
        loop {
            let rest = bytes.get(self.line..).unwrap_or_default();
            if rest.starts_with(boundary) {
                return true;
            }
            if boundary.starts_with(rest) || !self.find_line_end(bytes) {
                return false;
            }
            self.line = self.seen + 1;
            self.seen = self.line;
        }
    }

    /// Goes to the first line that is not empty. Answers whether it has begun.
    fn skip_empty_lines(&mut self, bytes: &[u8]) -> bool {
        let rest = bytes.get(self.line..).unwrap_or_default();
        let first = rest.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
        self.line += first.unwrap_or(rest.len());
        self.seen = self.seen.max(self.line);
        first.is_some()
    }

    /// Goes to the end of the line. Answers whether it is there; it may be asked for again.
    fn find_line_end(&mut self, bytes: &[u8]) -> bool {
        let unseen = bytes.get(self.seen..).unwrap_or_default();
        let end = memchr(b'\n', unseen);
        self.seen += end.unwrap_or(unseen.len());
        end.is_some()
    }
}

impl HeadReader {
    /// `declared` is the boundary that the answer's own head names.
    pub fn new(declared: Option<Vec<u8>>) -> HeadReader {
        HeadReader { declared, stage: Stage::First(FirstLine::default()) }
    }

    /// The head; nothing while it is not whole. `bytes` is all that has come: what it was the last time, and more.
    ///
    /// Errors: for what has no two parts.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<Head>, RemoteError> {
        loop {
            self.stage = match &mut self.stage {
                Stage::First(first) => match first.read(bytes, self.declared.as_deref())? {
                    None => return Ok(None),
                    Some(Boundary::Last) => return Ok(Some(Head { is_over: true, ..Head::default() })),
                    Some(Boundary::Before { line_end, delimiter, at }) => {
                        Stage::Delimiter { line_end, delimiter: Search::new(&delimiter, at) }
                    }
                },
                Stage::Delimiter { line_end, delimiter } => {
                    let Some(at) = delimiter.find(bytes) else { return Ok(None) };
                    let delimiter = delimiter.wanted.needle().to_vec();
                    let headers = at + delimiter.len();
                    let empty_line = Search::new(&[*line_end, *line_end].concat(), headers);
                    Stage::Headers { headers, delimiter, empty_line }
                }
                Stage::Headers { headers, delimiter, empty_line } => {
                    if bytes.get(*headers..).is_some_and(|second| second.starts_with(b"--")) {
                        return Err(malformed("it has one part only"));
                    }
                    let Some(end) = empty_line.find(bytes) else { return Ok(None) };
                    let text = bytes.get(*headers..end).unwrap_or_default();
                    let length = end + empty_line.wanted.needle().len();
                    return Ok(Some(Head::with(text, std::mem::take(delimiter), length)));
                }
            };
        }
    }
}

fn header<'h>(headers: &'h str, name: &str) -> Option<&'h str> {
    headers.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The name in a `Content-Disposition` header: `filename*` in UTF-8 before `filename` (RFC 6266).
pub fn file_name(disposition: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] =
        b"\r\n--b1\r\nContent-Type: application/json\r\n\r\n{}\r\n--b1\r\nContent-Type: text/plain\r\n\
        Content-Disposition: inline; filename=\"a.txt\"\r\n\r\nthe file\r\n--b1--\r\n";

    fn read(bytes: &[u8], declared: Option<&[u8]>) -> Result<Option<Head>, RemoteError> {
        HeadReader::new(declared.map(<[u8]>::to_vec)).read(bytes)
    }

    /// From where on the reader looks at what has come when more of it comes.
    fn looks_from(reader: &HeadReader) -> usize {
        match &reader.stage {
            Stage::First(first) => first.seen,
            Stage::Delimiter { delimiter, .. } => delimiter.from,
            Stage::Headers { empty_line, .. } => empty_line.from,
        }
    }

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
                let head = read(&answer, declared).expect("well-formed").expect("whole");
                assert_eq!(answer.get(head.length..head.length + 8), Some(&b"the file"[..]));
                assert_eq!(
                    (head.content_type.as_deref(), head.file_name.as_deref()),
                    (Some("text/plain"), Some("a.txt"))
                );
                assert_eq!(head.delimiter, format!("{line_end}--b1").into_bytes());
                for length in 0..head.length {
                    let part = answer.get(..length).expect("shorter");
                    assert!(read(part, declared).expect("well-formed so far").is_none(), "{length}");
                }
            }
        }
    }

    #[test]
    fn what_comes_byte_by_byte_is_read_as_what_comes_at_once_and_looked_at_little_more_often() {
        const LONG: usize = 20_000;
        let boundary = format!("--{}", "b".repeat(BOUNDARY_BYTES_MAX));
        let (long, begun) = ("x".repeat(LONG), format!("\r\n{}", "--bbb\r\n".repeat(LONG / 7)));
        let file = format!("{begun}the file\r\n--b\r\n-{begun}");
        for (declared, before) in
            [(None, "\n".repeat(LONG)), (Some(boundary.clone()), format!("{long}{begun}"))]
        {
            let answer = format!(
                "{before}{boundary}\r\nA: {long}\r\n\r\n{{}}{begun}\r\n{boundary}\r\nContent-Type: text/plain\r\n\
                B: {long}\r\n\r\n{file}\r\n{boundary}--\r\n"
            );
            let answer = answer.as_bytes();
            let mut reader = HeadReader::new(declared.clone().map(String::into_bytes));
            let (mut length, mut looked_at) = (0, 0);
            let head = loop {
                length += 1;
                looked_at += length - looks_from(&reader);
                let come = answer.get(..length).expect("the head ends");
                if let Some(head) = reader.read(come).expect("well-formed") {
                    break head;
                }
            };
            assert!(looked_at <= length * (boundary.len() + 2), "{looked_at}");
            let declared = declared.as_ref().map(String::as_bytes);
            assert_eq!(head.length, read(answer, declared).expect("well-formed").expect("whole").length);
            assert_eq!((head.length, head.content_type.as_deref()), (length, Some("text/plain")));
            let mut content = head.content(answer.get(..length).expect("its head").into());
            let (mut rest, mut read) = (answer.get(length..).expect("its file").iter(), Vec::new());
            while !content.is_over() {
                content.push(&[*rest.next().expect("the file ends")]);
                while let Some(bytes) = content.take() {
                    read.extend_from_slice(&bytes);
                }
                assert!(content.is_over() || content.held.len() <= boundary.len() + 2);
            }
            assert_eq!(read, file.as_bytes());
        }
    }

    #[test]
    fn a_boundary_that_is_too_long_is_none() {
        let long = "b".repeat(BOUNDARY_BYTES_MAX);
        assert!(boundary_of(&format!("multipart/mixed; boundary={long}")).is_some());
        assert_eq!(boundary_of(&format!("multipart/mixed; boundary={long}b")), None);
        let answer = |long: &str| format!("--{long}\r\n\r\n{{}}\r\n--{long}\r\n\r\nx").into_bytes();
        assert!(read(&answer(&long), None).expect("well-formed").is_some());
        assert!(read(&answer(&format!("{long}bb")), None).is_err());
        assert!(read(format!("--{long}bb").as_bytes(), None).is_err(), "its end is not waited for");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        assert!(read(b"<html>\r\n", None).is_err());
        assert!(read(b"--b\r\n\r\n{}\r\n--b--\r\n", None).is_err());
        assert!(read(b"--b\n\n{}\n--b--\n", Some(b"--b")).is_err());
        assert!(
            read(b"--b--\r\n", None).expect("well-formed so far").is_none(),
            "a boundary, for all that is known"
        );
        // Another boundary than the one that was declared may stand in a preamble of any length.
        assert!(read(b"--a\r\n\r\n{}\r\n--a\r\n\r\nx", Some(b"--b")).expect("well-formed").is_none());
    }

    #[test]
    fn an_answer_that_ends_at_once_is_an_empty_file() {
        let is_over = |answer: &[u8]| read(answer, Some(b"--b")).map(|head| head.map(|head| head.is_over));
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
        let head = read(answer, None).expect("well-formed").expect("whole");
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
