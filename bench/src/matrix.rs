//! The client-server API as far as the measures need it: accounts, rooms, sends, syncs, pages. Works against any
//! homeserver; nothing here knows which one it is.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::Method;
use ring::hmac;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Address, Connection};
use crate::error::{Error, Result};
use crate::scan;

/// Requests of the set-up (registrations, joins) that are under way at once.
const SETUP_AT_ONCE: usize = 8;
/// How long a waiting sync asks the server to wait.
const SYNC_WAIT_MS: u64 = 60_000;
/// The password of every account; the measures never log in with it.
const PASSWORD: &str = "warren-bench-password";

/// How accounts are made.
#[derive(Debug, Clone)]
pub enum Registration {
    /// `/_synapse/admin/v1/register` with this shared secret, which Synapse and Warren offer.
    SharedSecret(String),
    /// `/register` with `m.login.dummy`, which needs open registration.
    Open,
}

/// A homeserver and how accounts are made on it.
#[derive(Debug, Clone)]
pub struct Homeserver {
    /// Where it is.
    pub address: Address,
    /// How accounts are made.
    pub registration: Registration,
}

/// A registered user's credentials.
#[derive(Debug, Clone)]
pub struct Account {
    /// The token of the one device it has.
    pub access_token: String,
}

/// A user with a connection of its own.
pub struct Session {
    /// Whose session it is.
    pub account: Account,
    connection: Connection,
    /// Transaction ids are unique per access token, which several sessions may share.
    number: u64,
    sent: u64,
}

/// A page of `/messages`.
pub struct Page {
    /// The events on it.
    pub events: u64,
    /// Where the next page begins; nothing at the room's start.
    pub end: Option<String>,
}

impl Homeserver {
    /// Registers `number` users whose names begin with `prefix`, several at once.
    pub async fn register(&self, prefix: &str, number: usize) -> Result<Vec<Account>> {
        let tag = unique_tag();
        let mut tasks = JoinSet::new();
        for lane in 0..SETUP_AT_ONCE.min(number) {
            let (homeserver, prefix, tag) = (self.clone(), prefix.to_owned(), tag.clone());
            tasks.spawn(async move {
                let mut connection = Connection::new(&homeserver.address, None);
                let mut accounts = Vec::new();
                for index in (lane..number).step_by(SETUP_AT_ONCE) {
                    let name = format!("{prefix}-{tag}-{index}");
                    accounts.push(homeserver.register_one(&mut connection, &name).await?);
                }
                Ok::<_, Error>(accounts)
            });
        }
        let mut accounts = Vec::with_capacity(number);
        while let Some(joined) = tasks.join_next().await {
            accounts.extend(finished(joined)?);
        }
        Ok(accounts)
    }

    /// Registers users and gives each a connection.
    pub async fn sessions(&self, prefix: &str, number: usize) -> Result<Vec<Session>> {
        let accounts = self.register(prefix, number).await?;
        Ok(accounts.into_iter().map(|account| self.session(account)).collect())
    }

    /// A further connection for an account.
    pub fn session(&self, account: Account) -> Session {
        let connection = Connection::new(&self.address, Some(&account.access_token));
        Session { account, connection, number: next_number(), sent: 0 }
    }

    async fn register_one(&self, connection: &mut Connection, name: &str) -> Result<Account> {
        let (path, body) = match &self.registration {
            Registration::SharedSecret(secret) => {
                let path = "/_synapse/admin/v1/register";
                let offered = connection.request(Method::GET, path, Bytes::new()).await?;
                let nonce = field(&offered, path, "nonce")?;
                let mac = registration_mac(secret, &nonce, name);
                let body = json!({
                    "nonce": nonce, "username": name, "password": PASSWORD, "admin": false, "mac": mac,
                });
                (path, body)
            }
            Registration::Open => {
                let path = "/_matrix/client/v3/register";
                let mut body =
                    json!({"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}});
                // A server that insists on its session names it in the refusal of a first request without one.
                let asked = connection.answer(Method::POST, path, bytes_of(&json!({}))).await?;
                if let Some(session) = scan::string_field(&asked.body, "session")
                    && let Some(auth) = body.get_mut("auth").and_then(Value::as_object_mut)
                {
                    auth.insert("session".to_owned(), session.into());
                }
                (path, body)
            }
        };
        let made = connection.request(Method::POST, path, bytes_of(&body)).await?;
        Ok(Account { access_token: field(&made, path, "access_token")? })
    }
}

impl Session {
    /// A request of this user.
    pub async fn request(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        self.connection.request(method, path, body).await
    }

    /// Makes a room: private, or one that anybody may join.
    pub async fn create_room(&mut self, public: bool) -> Result<String> {
        let preset = if public { "public_chat" } else { "private_chat" };
        self.create(&json!({"preset": preset, "name": "Benchmark"})).await
    }

    /// Makes a room of a certain version that anybody may join.
    pub async fn create_room_of(&mut self, version: &str) -> Result<String> {
        self.create(&json!({"preset": "public_chat", "name": "Benchmark", "room_version": version})).await
    }

    async fn create(&mut self, room: &Value) -> Result<String> {
        let path = "/_matrix/client/v3/createRoom";
        let made = self.request(Method::POST, path, bytes_of(room)).await?;
        field(&made, path, "room_id")
    }

    /// Joins a room by way of another server that is in it.
    pub async fn join_by(&mut self, room: &str, server: &str) -> Result<()> {
        let (room, server) = (encoded(room), encoded(server));
        let path = format!("/_matrix/client/v3/join/{room}?via={server}&server_name={server}");
        self.request(Method::POST, &path, Bytes::from_static(b"{}")).await.map(drop)
    }

    /// Joins a room that anybody may join.
    pub async fn join(&mut self, room: &str) -> Result<()> {
        let path = format!("/_matrix/client/v3/rooms/{}/join", encoded(room));
        self.request(Method::POST, &path, Bytes::from_static(b"{}")).await.map(drop)
    }

    /// Sends a text message and gives its event id. The transaction id is new each time.
    pub async fn send(&mut self, room: &EncodedRoom, body: Bytes) -> Result<String> {
        self.sent += 1;
        let path =
            format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{}.{}", room.0, self.number, self.sent);
        let sent = self.request(Method::PUT, &path, body).await?;
        field(&sent, &path, "event_id")
    }

    /// Syncs at once and gives the next position. `rooms: []` leaves out every room's content.
    pub async fn position(&mut self) -> Result<String> {
        let filter = encoded(r#"{"room":{"rooms":[]}}"#);
        let path = format!("/_matrix/client/v3/sync?timeout=0&set_presence=offline&filter={filter}");
        let synced = self.request(Method::GET, &path, Bytes::new()).await?;
        field(&synced, &path, "next_batch")
    }

    /// Waits for news since a position: the answer, and the next position.
    pub async fn wait(&mut self, since: &str) -> Result<(Bytes, String)> {
        let path = sync_path(since, SYNC_WAIT_MS);
        let synced = self.request(Method::GET, &path, Bytes::new()).await?;
        let next = field(&synced, &path, "next_batch")?;
        Ok((synced, next))
    }

    /// One page of a room's history, backwards from `from` or the end.
    pub async fn messages(&mut self, room: &EncodedRoom, from: Option<&str>, limit: u64) -> Result<Page> {
        let mut path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit={limit}", room.0);
        if let Some(from) = from {
            path.push_str("&from=");
            path.push_str(&encoded(from));
        }
        let page = self.request(Method::GET, &path, Bytes::new()).await?;
        // Every event has this field once, and no other part of the answer does.
        let events = scan::count(&page, b"\"origin_server_ts\"");
        Ok(Page { events, end: scan::string_field(&page, "end").map(str::to_owned) })
    }
}

/// A room id as it stands in a path.
#[derive(Debug, Clone)]
pub struct EncodedRoom(String);

impl EncodedRoom {
    /// Encodes a room id.
    pub fn new(room: &str) -> EncodedRoom {
        EncodedRoom(encoded(room))
    }

    /// The encoded text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The path of an incremental sync.
pub fn sync_path(since: &str, timeout_ms: u64) -> String {
    format!("/_matrix/client/v3/sync?timeout={timeout_ms}&set_presence=offline&since={}", encoded(since))
}

/// Lets every account join a room, several at once.
pub async fn join_all(homeserver: &Homeserver, accounts: &[Account], room: &str) -> Result<()> {
    let mut tasks = JoinSet::new();
    for lane in 0..SETUP_AT_ONCE {
        let accounts: Vec<Account> = accounts.iter().skip(lane).step_by(SETUP_AT_ONCE).cloned().collect();
        let (homeserver, room) = (homeserver.clone(), room.to_owned());
        tasks.spawn(async move {
            for account in accounts {
                homeserver.session(account).join(&room).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(joined) = tasks.join_next().await {
        finished(joined)?;
    }
    Ok(())
}

/// The content of a text message of about the length people write, with a mark that a reader can look for.
pub fn text_message(mark: &str) -> Bytes {
    let body = json!({
        "msgtype": "m.text",
        "body": format!("{mark} The quick brown fox jumps over the lazy dog, and the dog does not mind at all."),
    });
    bytes_of(&body)
}

/// The JSON text of a value.
pub fn bytes_of(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// Text as one segment of a path or one value of a query.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// What a task of the set-up gave; a panic in it goes on here.
pub fn finished<T>(joined: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    match joined {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Error::Implausible(format!("a task was cancelled: {error}"))),
    }
}

fn field(body: &[u8], path: &str, name: &'static str) -> Result<String> {
    let value = scan::string_field(body, name).map(str::to_owned);
    value.ok_or_else(|| Error::Lacks { path: path.to_owned(), field: name })
}

/// `HMAC-SHA1(secret, nonce NUL name NUL password NUL "notadmin")` in hex, as the shared-secret registration asks.
fn registration_mac(secret: &str, nonce: &str, name: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let signed = [nonce, name, PASSWORD, "notadmin"].join("\0");
    let tag = hmac::sign(&key, signed.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tells the users of this run from those of earlier runs against the same server.
fn unique_tag() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", now.as_millis(), next_number())
}

/// A number that this process has not given out before.
fn next_number() -> u64 {
    static GIVEN: AtomicU64 = AtomicU64::new(0);
    GIVEN.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments_are_encoded() {
        assert_eq!(encoded("!a:localhost:8008"), "%21a%3Alocalhost%3A8008");
        assert_eq!(encoded("s12_3~x.y-z"), "s12_3~x.y-z");
        assert_eq!(encoded("/ä"), "%2F%C3%A4");
    }

    #[test]
    fn the_mac_is_the_legacy_hmac_in_hex() {
        // The same text put through `openssl dgst -sha1 -hmac secret`.
        assert_eq!(registration_mac("secret", "nonce", "alice"), "8ba1ceada6b0b35b39506633741c7bf0bf2b17b9");
    }

    #[test]
    fn messages_are_json_and_hold_their_mark() {
        let message: Value = serde_json::from_slice(&text_message("m-17")).expect("JSON");
        assert_eq!(message.get("msgtype").and_then(Value::as_str), Some("m.text"));
        assert!(message.get("body").and_then(Value::as_str).is_some_and(|body| body.starts_with("m-17 ")));
    }
}
