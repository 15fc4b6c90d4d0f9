//! What another server sends: the generator is that server, and sends one transaction after the other, each full of signed
//! events of one room. An event counts when its transaction is answered, which is when it is on disk.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use warren_engine::core::event::{EventBuilder, EventReference, KeyPair, Pdu, SignedRequest};
use warren_engine::core::json::canonical;
use warren_engine::remote::ServerKey;

use super::STORE;
use crate::certificates::{Certificates, HOST, Trust};
use crate::client::Connection;
use crate::context::{Figure, Several};
use crate::error::{Error, Result};
use crate::matrix::{EncodedRoom, Session, encoded};
use crate::measures::receive::{Host, Writes, engine_error, version};
use crate::peers::{Federation, free_port};
use crate::{process, scan};

/// Events of a transaction: as many as the specification allows.
const PDUS: usize = 50;
/// Transactions that are measured, and those before them that warm up.
const TRANSACTIONS: usize = 400;
const WARM_UP: usize = 40;

/// The server that sends.
struct Origin {
    name: String,
    user_id: String,
    key: KeyPair,
    destination: String,
    connection: Connection,
}

/// The room, as far as those who send messages need it.
struct Frontier {
    room_id: String,
    /// What allows a message.
    auth_events: Vec<Arc<str>>,
    last: Arc<str>,
    depth: u64,
}

/// A transaction, ready to be sent.
struct Transaction {
    uri: String,
    authorization: String,
    body: Bytes,
}

/// Takes `federation-inbound`.
pub async fn run(ctx: &mut Several<'_>) -> Result<()> {
    let certificates = Certificates::make(&ctx.disk)?;
    let federation = Federation::new(&certificates)?;
    let folder = ctx.folder("server")?;
    let mut origin = Origin::new(federation.name(), certificates.trust()?)?;
    let host = Host::named(&federation.name(), &folder.join("data").join(STORE), Writes::AtOnce)?;
    host.know(origin.name.clone(), origin.server_key())?;
    drop(host);
    let mut running = ctx.warren.start_reachable(&folder, Some(federation))?;
    let mut reader =
        running.homeserver()?.sessions("reader", 1).await?.pop().ok_or(Error::Needs("an account"))?;
    let room_id = reader.create_room_of(version()?.id).await?;
    let mut frontier = origin.join(&mut reader, room_id).await?;
    let transactions = origin.transactions(&mut frontier)?;
    let (warm_up, measured) = transactions.split_at(WARM_UP);
    for transaction in warm_up {
        origin.send(transaction).await?;
    }
    let (server, own) = (process::cpu(running.pid())?, process::own_cpu()?);
    let begun = Instant::now();
    for transaction in measured {
        origin.send(transaction).await?;
    }
    let taken = begun.elapsed().as_secs_f64();
    let note = format!(
        "of {taken:.1} s the server used {:.1} s of the processors, the generator {:.1} s",
        process::cpu(running.pid())?.saturating_sub(server).as_secs_f64(),
        process::own_cpu()?.saturating_sub(own).as_secs_f64(),
    );
    seen(&mut reader, &frontier).await?;
    ctx.take(Figure::new("federation-inbound", (measured.len() * PDUS) as f64 / taken).noting(note));
    running.stop()
}

/// The last event must be the last that a user of the server sees.
async fn seen(reader: &mut Session, frontier: &Frontier) -> Result<()> {
    let room = EncodedRoom::new(&frontier.room_id);
    let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=1", room.as_str());
    let page = reader.request(Method::GET, &path, Bytes::new()).await?;
    match scan::find(&page, frontier.last.as_bytes()) {
        Some(_) => Ok(()),
        None => Err(Error::Implausible("the last event was not accepted".to_owned())),
    }
}

impl Origin {
    fn new(destination: String, trust: Trust) -> Result<Origin> {
        let name = format!("{HOST}:{}", free_port()?);
        let key = KeyPair::from_seed("1", &[7; 32]).map_err(engine_error)?;
        let connection = Connection::secure(&destination, trust);
        Ok(Origin { user_id: format!("@writer:{name}"), name, key, destination, connection })
    }

    fn server_key(&self) -> ServerKey {
        ServerKey {
            key_id: self.key.key_id().to_owned(),
            public_key: self.key.public_key().to_vec(),
            valid_until_ts: u64::MAX / 2,
            is_old: false,
        }
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
    async fn join(&mut self, reader: &mut Session, room_id: String) -> Result<Frontier> {
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

    /// Messages that follow each other, in transactions.
    fn transactions(&self, frontier: &mut Frontier) -> Result<Vec<Transaction>> {
        (0..WARM_UP + TRANSACTIONS).map(|number| self.transaction(frontier, number)).collect()
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
        Ok(Transaction { uri, authorization, body: Bytes::from(content.to_string()) })
    }

    /// Sends a transaction; all its events are to be accepted.
    async fn send(&mut self, transaction: &Transaction) -> Result<()> {
        self.connection.authorize(&transaction.authorization);
        let answer = self.connection.request(Method::PUT, &transaction.uri, transaction.body.clone()).await?;
        if scan::count(&answer, b"{}") == PDUS as u64 {
            return Ok(());
        }
        Err(Error::Implausible(String::from_utf8_lossy(&answer).into_owned()))
    }
}
