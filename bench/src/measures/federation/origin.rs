//! Another server, which is the generator: it joins a room, and makes transactions full of signed events of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use warren_engine::core::event::{
    EventBuilder, EventReference, JsonObject, KeyPair, Pdu, SignedRequest, encode_base64, sign_json,
};
use warren_engine::core::json::canonical;
use warren_engine::remote::ServerKey;

use crate::certificates::{Certificates, HOST, Trust};
use crate::client::Connection;
use crate::error::{Error, Result};
use crate::matrix::{Session, encoded};
use crate::measures::receive::{engine_error, version};
use crate::peers::free_port;
use crate::scan;

/// Events of a transaction: as many as the specification allows.
pub const PDUS: usize = 50;
/// How long the published key is valid: longer than any run.
const KEY_VALID: Duration = Duration::from_secs(24 * 60 * 60);
/// Where others ask for keys.
const KEY_PATH: &str = "/_matrix/key/v2/server";

/// The server that sends.
pub struct Origin {
    pub name: String,
    port: u16,
    user_id: String,
    key: KeyPair,
    destination: String,
    connection: Connection,
}

/// The room, as far as those who send messages need it.
pub struct Frontier {
    pub room_id: String,
    /// What allows a message.
    auth_events: Vec<Arc<str>>,
    pub last: Arc<str>,
    depth: u64,
}

/// A transaction, ready to be sent.
pub struct Transaction {
    uri: String,
    authorization: String,
    body: Bytes,
    /// The last event in it.
    pub last: Arc<str>,
}

impl Origin {
    pub fn new(destination: String, trust: Trust) -> Result<Origin> {
        let port = free_port()?;
        let name = format!("{HOST}:{port}");
        let key = KeyPair::from_seed("1", &[7; 32]).map_err(engine_error)?;
        let connection = Connection::secure(&destination, trust);
        Ok(Origin { user_id: format!("@writer:{name}"), name, port, key, destination, connection })
    }

    pub fn server_key(&self) -> ServerKey {
        ServerKey {
            key_id: self.key.key_id().to_owned(),
            public_key: self.key.public_key().to_vec(),
            valid_until_ts: u64::MAX / 2,
            is_old: false,
        }
    }

    /// Serves its key to whoever asks, until what is given back is dropped. Whatever else it is asked or sent, it has nothing
    /// to say to.
    pub async fn publish(&self, certificates: &Certificates) -> Result<JoinSet<()>> {
        let listener =
            TcpListener::bind(("127.0.0.1", self.port)).await.map_err(Error::system("listen as a server"))?;
        let acceptor = certificates.acceptor()?;
        let keys = Bytes::from(Value::Object(self.published()).to_string());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, keys.clone()));
            }
        });
        Ok(serving)
    }

    /// Its key as others ask for it.
    fn published(&self) -> JsonObject {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let keys = json!({
            "server_name": self.name,
            "valid_until_ts": (now + KEY_VALID).as_secs() * 1_000,
            "verify_keys": {self.key.key_id(): {"key": encode_base64(self.key.public_key())}},
            "old_verify_keys": {},
        });
        let mut keys = keys.as_object().cloned().unwrap_or_default();
        sign_json(&mut keys, &self.name, &self.key);
        keys
    }

    fn authorization(&self, method: &str, uri: &str, content: Option<&Value>) -> String {
        let (origin, destination) = (&*self.name, &*self.destination);
        let content = content.map(canonical);
        SignedRequest { method, uri, origin, destination, content: content.as_deref() }
            .authorization(&self.key)
    }

    async fn ask(&mut self, method: Method, uri: &str, content: Option<&Value>) -> Result<Value> {
        let authorization = self.authorization(method.as_str(), uri, content);
        self.connection.authorize(&authorization);
        let body = content.map_or_else(Bytes::new, |content| Bytes::from(content.to_string()));
        let answer = self.connection.request(method, uri, body).await?;
        serde_json::from_slice(&answer).map_err(engine_error)
    }

    /// Its user joins the room of another.
    pub async fn join(&mut self, reader: &mut Session, room_id: String) -> Result<Frontier> {
        let (room, user) = (encoded(&room_id), encoded(&self.user_id));
        let version = version()?;
        let uri = format!("/_matrix/federation/v1/make_join/{room}/{user}?ver={}", version.id);
        let made = self.ask(Method::GET, &uri, None).await?;
        let template = made.get("event").ok_or(Error::Needs("a template"))?;
        let ids = |name: &str| {
            let ids = template.get(name).and_then(Value::as_array).into_iter().flatten();
            ids.filter_map(Value::as_str).map(Arc::from).collect::<Vec<Arc<str>>>()
        };
        let depth = template.get("depth").and_then(Value::as_u64).unwrap_or_default();
        let content = json!({"membership": "join"});
        let auth_events = ids("auth_events");
        let join =
            self.event(&room_id, content, Some(&self.user_id), [auth_events, ids("prev_events")], depth)?;
        let pdu: Value = serde_json::from_slice(&join.json).map_err(engine_error)?;
        let uri = format!("/_matrix/federation/v2/send_join/{room}/{}", encoded(&join.event_id));
        self.ask(Method::PUT, &uri, Some(&pdu)).await?;
        let mut auth_events = vec![join.event_id.clone()];
        for kind in ["m.room.create", "m.room.power_levels"] {
            let path = format!("/_matrix/client/v3/rooms/{room}/state/{kind}?format=event");
            let event = reader.request(Method::GET, &path, Bytes::new()).await?;
            auth_events
                .push(scan::string_field(&event, "event_id").ok_or(Error::Needs("an event's id"))?.into());
        }
        Ok(Frontier { room_id, auth_events, last: join.event_id, depth })
    }

    fn event(
        &self,
        room_id: &str,
        content: Value,
        state_key: Option<&str>,
        [auth_events, prev_events]: [Vec<Arc<str>>; 2],
        depth: u64,
    ) -> Result<Pdu> {
        let references = |ids: Vec<Arc<str>>| ids.into_iter().map(EventReference::from).collect();
        let builder = EventBuilder {
            room_id: Some(room_id.into()),
            sender: self.user_id.as_str().into(),
            kind: if state_key.is_some() { "m.room.member" } else { "m.room.message" }.into(),
            state_key: state_key.map(Arc::from),
            content: content.as_object().cloned().unwrap_or_default(),
            redacts: None,
            prev_events: references(prev_events),
            auth_events: references(auth_events),
            depth,
            origin_server_ts: 1_700_000_000_000 + depth,
            event_id_localpart: None,
        };
        builder.build(version()?, &self.name, &self.key).map_err(engine_error)
    }

    /// Messages that follow each other, in so many transactions.
    pub fn transactions(&self, frontier: &mut Frontier, count: usize) -> Result<Vec<Transaction>> {
        (0..count).map(|number| self.transaction(frontier, number)).collect()
    }

    fn transaction(&self, frontier: &mut Frontier, number: usize) -> Result<Transaction> {
        let mut pdus = Vec::with_capacity(PDUS);
        for _ in 0..PDUS {
            frontier.depth += 1;
            let depth = frontier.depth;
            let content = json!({"msgtype": "m.text", "body": format!("The message at depth {depth}, of usual length.")});
            let before = [frontier.auth_events.clone(), vec![frontier.last.clone()]];
            let pdu = self.event(&frontier.room_id, content, None, before, depth)?;
            frontier.last = pdu.event_id;
            pdus.push(serde_json::from_slice::<Value>(&pdu.json).map_err(engine_error)?);
        }
        let content = json!({"origin": self.name, "origin_server_ts": 1_700_000_000_000_u64, "pdus": pdus});
        let uri = format!("/_matrix/federation/v1/send/{number}");
        let authorization = self.authorization("PUT", &uri, Some(&content));
        let (body, last) = (Bytes::from(content.to_string()), frontier.last.clone());
        Ok(Transaction { uri, authorization, body, last })
    }

    /// Sends a transaction; all its events are to be accepted.
    pub async fn send(&mut self, transaction: &Transaction) -> Result<()> {
        self.connection.authorize(&transaction.authorization);
        let answer = self.connection.request(Method::PUT, &transaction.uri, transaction.body.clone()).await?;
        if scan::count(&answer, b"{}") == PDUS as u64 {
            return Ok(());
        }
        Err(Error::Implausible(String::from_utf8_lossy(&answer).into_owned()))
    }
}

/// Answers what comes over one connection.
async fn serve(acceptor: TlsAcceptor, stream: TcpStream, keys: Bytes) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let answer = service_fn(move |request: Request<Incoming>| {
        let body = match request.uri().path().starts_with(KEY_PATH) {
            true => keys.clone(),
            false => Bytes::from_static(b"{}"),
        };
        async move { Response::builder().header(header::CONTENT_TYPE, "application/json").body(Full::new(body)) }
    });
    // How it ends is seen by who asks.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

#[cfg(test)]
mod tests {
    use warren_engine::core::event::verify_json;

    use super::*;

    #[tokio::test]
    async fn whoever_asks_for_the_key_gets_it_signed() {
        let folder = tempfile::tempdir().expect("folder");
        let certificates = Certificates::make(folder.path()).expect("certificates");
        let trust = || certificates.trust().expect("trust");
        let origin = Origin::new("there.example".to_owned(), trust()).expect("an origin");
        let _serving = origin.publish(&certificates).await.expect("it listens");
        let mut asks = Connection::secure(&origin.name, trust());
        let keys = asks.request(Method::GET, KEY_PATH, Bytes::new()).await.expect("the keys");
        let keys: JsonObject = serde_json::from_slice(&keys).expect("JSON");
        assert_eq!(keys.get("server_name").and_then(Value::as_str), Some(&*origin.name));
        let key = origin.server_key();
        assert_eq!(verify_json(&keys, &origin.name, &key.key_id, &key.public_key), Ok(()));
        let sent = Bytes::from_static(b"{}");
        let path = "/_matrix/federation/v1/send/1";
        assert_eq!(asks.request(Method::PUT, path, sent).await.expect("an answer"), "{}");
    }
}
