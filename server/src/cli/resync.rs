//! `warren room resync`: the running server is told to resynchronise a room, and watched until it has.
//!
//! It is for the running server to do: others answer only who can be asked for its keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::config::{Address, Config};
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

/// Does it, and gives the report. Errors: a sentence.
pub fn run(config: Config, resync: Resync) -> Result<String, String> {
    let token = read_token(&resync.token_file)
        .map_err(|error| format!("cannot read {}: {error}", resync.token_file.display()))?;
    let base = config.listen.iter().find_map(|listener| match &listener.address {
        Address::Http(address) if listener.apis.admin => Some(format!("http://{address}")),
        _ => None,
    });
    let base = base.ok_or("no http:// listener of this configuration serves administrators")?;
    let path = format!("/_warren/admin/v1/rooms/{}/resynchronise", escaped(&resync.room_id));
    let server = Server { url: format!("{base}{path}"), token: token.trim().to_owned(), client: client() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(watch(&server, &resync.servers))
}

fn read_token(path: &Path) -> std::io::Result<String> {
    match path == Path::new("-") {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(path),
    }
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// The running server.
struct Server {
    url: String,
    token: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Server {
    async fn ask(&self, method: Method, body: Option<Value>) -> Result<Value, String> {
        let request = Request::builder()
            .method(method)
            .uri(&self.url)
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body.map(|body| body.to_string()).unwrap_or_default()))
            .map_err(|error| error.to_string())?;
        let unreachable = |error: &dyn std::fmt::Display| {
            format!("the server does not answer at {}: {error}; it has to run", self.url)
        };
        let response = self.client.request(request).await.map_err(|error| unreachable(&error))?;
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

async fn watch(server: &Server, servers: &[String]) -> Result<String, String> {
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
    Ok(shown(&report))
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

/// The report for people: a line for each server, each refusal and each change, tab-separated.
fn shown(report: &Value) -> String {
    let mut out = String::new();
    for of in list(report, "servers") {
        out.push_str(&format!(
            "{}\t{}\t{} events accepted, {} events of states fetched, {} entries differ, {} refused\n",
            text(of, "server"),
            if of["error"].is_string() { text(of, "error") } else { text(of, "status") },
            of["events_accepted"],
            of["state_events_fetched"],
            of["differing"],
            of["refused"],
        ));
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
