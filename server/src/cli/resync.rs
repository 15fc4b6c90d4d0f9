//! `warren room resync`: the running server is told to resynchronise a room, and watched until it has.
//!
//! It is for the running server to do: others answer only who can be asked for its keys.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::time::sleep;
use tower_service::Service;

use crate::config::{Address, Config, Listener};
use crate::federation::out::escaped;

/// How often it is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A report with all its lists full.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resync {
    pub room_id: String,
    /// The servers to ask; else those with the most members.
    pub servers: Vec<String>,
    /// A file with an administrator's access token; `-` for standard input.
    pub token_file: PathBuf,
}

/// A report for people, and a sentence if no server was of help.
pub type Done = (String, Result<(), String>);

/// Does it, and gives the report. Errors: a sentence.
pub fn run(config: Config, resync: Resync) -> Result<Done, String> {
    let authorization = authorization(&resync.token_file)?;
    let address = address(&config.listen)?;
    let builder = Client::builder(TokioExecutor::new());
    let (host, asker) = match &address {
        Address::Http(address) | Address::Https(address) => {
            (address.to_string(), Asker::Tcp(builder.build_http()))
        }
        // A URL has a host; here nobody looks at it.
        Address::Unix(path) => ("localhost".to_owned(), Asker::Unix(builder.build(SocketFile(path.clone())))),
    };
    let path = format!("/_warren/admin/v1/rooms/{}/resynchronise", escaped(&resync.room_id));
    let server = Server { address, url: format!("http://{host}{path}"), authorization, asker };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(watch(&server, &resync.servers))
}

/// The header with the token of a file. Errors: a sentence that names the file and shows nothing of what is in it.
fn authorization(path: &Path) -> Result<HeaderValue, String> {
    let (read, name) = match path == Path::new("-") {
        true => (io::read_to_string(io::stdin()), "standard input".to_owned()),
        false => (std::fs::read_to_string(path), path.display().to_string()),
    };
    let text = read.map_err(|error| format!("cannot read the access token from {name}: {error}"))?;
    let token = text.trim();
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let header = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| is_token);
    let mut header = header.ok_or_else(|| {
        format!("{name} has no access token in it: that is one word of letters, digits and signs, and nothing else")
    })?;
    header.set_sensitive(true);
    Ok(header)
}

/// Where the running server serves administrators. An https listener is of no use: its certificate is for the names that
/// others know it by.
///
/// Errors: a sentence with what to add to the configuration.
fn address(listeners: &[Listener]) -> Result<Address, String> {
    let mut open = listeners.iter().filter(|listener| listener.apis.admin).map(|listener| &listener.address);
    let found = open.find(|address| !matches!(address, Address::Https(_)));
    found.cloned().ok_or_else(|| {
        "no http:// or unix: listener of this configuration serves administrators: add \
         \"http://127.0.0.1:8009#admin\" to listen, and start the server anew"
            .to_owned()
    })
}

/// Opens connections to a socket file, whatever the URL says.
#[derive(Clone)]
struct SocketFile(PathBuf);

impl Service<Uri> for SocketFile {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}

/// What asks at either kind of address.
enum Asker {
    Tcp(Client<HttpConnector, Full<Bytes>>),
    Unix(Client<SocketFile, Full<Bytes>>),
}

/// The running server.
struct Server {
    address: Address,
    url: String,
    authorization: HeaderValue,
    asker: Asker,
}

impl Server {
    async fn ask(&self, method: Method, body: Option<Value>) -> Result<Value, String> {
        let request = Request::builder()
            .method(method)
            .uri(&self.url)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body.map(|body| body.to_string()).unwrap_or_default()))
            .map_err(|error| error.to_string())?;
        let unreachable = |error: &dyn std::fmt::Display| {
            format!("the server does not answer at {}: {error}; it has to run", self.address)
        };
        let asked = match &self.asker {
            Asker::Tcp(client) => client.request(request),
            Asker::Unix(client) => client.request(request),
        };
        let response = asked.await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| unreachable(&error))?.to_bytes();
        let answer: Value = serde_json::from_slice(&body).map_err(|error| unreachable(&error))?;
        match status.is_success() {
            true => Ok(answer),
            false => Err(answer["error"].as_str().unwrap_or("the server refuses").to_owned()),
        }
    }
}

async fn watch(server: &Server, servers: &[String]) -> Result<Done, String> {
    let mut report = server.ask(Method::POST, Some(json!({ "servers": servers }))).await?;
    let mut told = String::new();
    while report["status"] == "active" {
        let now = progress(&report);
        if now != told {
            super::tell(&now);
            told = now;
        }
        // Ctrl-C ends the watching alone; the same command goes on with it.
        sleep(LOOK_EVERY).await;
        report = server.ask(Method::GET, None).await?;
    }
    Ok((shown(&report), judged(&report)))
}

fn list<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value[name].as_array().into_iter().flatten()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

fn progress(report: &Value) -> String {
    let states = list(report, "servers").map(|of| format!("{}: {}", text(of, "server"), text(of, "status")));
    format!("{}; {} entries of the state changed", states.collect::<Vec<_>>().join(", "), report["changed"])
}

/// Errors: all servers have failed, so that nothing is known of where the room stands elsewhere.
fn judged(report: &Value) -> Result<(), String> {
    match list(report, "servers").all(|of| text(of, "status") == "failed") {
        true => Err("none of the servers could be asked for the room".to_owned()),
        false => Ok(()),
    }
}

/// The report for people: a line for each server, each event that waits, each refusal and each change, tab-separated.
fn shown(report: &Value) -> String {
    let mut out = String::new();
    for of in list(report, "servers") {
        out.push_str(&format!(
            "{}\t{}\t{} events accepted, {} events of states fetched, {} made whole, {} entries differ, {} refused, {} wait\n",
            text(of, "server"),
            if of["error"].is_string() { text(of, "error") } else { text(of, "status") },
            of["events_accepted"],
            of["state_events_fetched"],
            of["state_events_made_whole"],
            of["differing"],
            of["refused"],
            list(of, "waiting").count(),
        ));
        for waiting in list(of, "waiting") {
            out.push_str(&format!("waits\t{}\t{}\n", text(waiting, "event_id"), text(waiting, "lacks")));
        }
        for refusal in list(of, "refusals") {
            out.push_str(&format!("refused\t{}\t{}\n", text(refusal, "event_id"), text(refusal, "reason")));
        }
    }
    for change in list(report, "changes") {
        out.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\n",
            text(change, "change"),
            text(change, "type"),
            text(change, "state_key"),
            change["before"].as_str().unwrap_or("-"),
            change["after"].as_str().unwrap_or("-"),
        ));
    }
    out.push_str(&format!("{} entries of the state changed\n", report["changed"]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(rows: &[&str]) -> Vec<Listener> {
        rows.iter().map(|row| row.parse().expect("a listener")).collect()
    }

    #[test]
    fn the_server_is_asked_where_it_serves_administrators_without_a_certificate() {
        let rows = ["https://127.0.0.1:1", "http://127.0.0.1:2#client", "unix:/run/w", "http://127.0.0.1:3"];
        let found = address(&listeners(&rows)).expect("two are good");
        assert_eq!(found.to_string(), "unix:/run/w");
        for rows in [&rows[..2], &[]] {
            let refused = address(&listeners(rows)).expect_err("none is good");
            assert!(refused.contains("add \"http://127.0.0.1:8009#admin\" to listen"), "{refused}");
        }
    }

    #[test]
    fn a_last_event_that_waits_is_shown_with_what_it_lacks() {
        let waiting = json!([{ "event_id": "$end", "lacks": "a signing key of gone.test is not here" }]);
        let of_server = json!({ "server": "there.test", "status": "complete", "waiting": waiting });
        let shown = shown(&json!({ "servers": [of_server], "changed": 0 }));
        assert!(shown.contains("\nwaits\t$end\ta signing key of gone.test is not here\n"), "{shown}");
        assert!(shown.lines().next().is_some_and(|line| line.ends_with(", 1 wait")), "{shown}");
    }

    #[test]
    fn a_file_without_a_token_is_named_and_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        for text in ["", "\n", "two words", "a\nb", "tök", "sig\u{1}n"] {
            std::fs::write(&path, text).expect("written");
            let refused = authorization(&path).expect_err("no token");
            assert!(refused.contains(&path.display().to_string()), "{refused}");
            assert!(text.trim().is_empty() || !refused.contains(text), "{refused}");
        }
        std::fs::write(&path, " a_token-1\n").expect("written");
        assert_eq!(authorization(&path).expect("a token"), "Bearer a_token-1");
        let absent = authorization(&folder.path().join("absent")).expect_err("no file");
        assert!(absent.contains("absent"), "{absent}");
    }
}
