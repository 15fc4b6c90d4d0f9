//! What the client tests share: a user of an unmodified matrix-sdk that syncs on its own and tells what it has seen.
//!
//! A test waits for what it wants to see: each sync answer makes the waiting look again. Nothing sleeps.

use std::{
    env,
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use matrix_sdk::{
    Client, LoopCtrl, Room, RoomMemberships,
    config::SyncSettings,
    encryption::{BackupDownloadStrategy, EncryptionSettings},
    ruma::{
        OwnedEventId, OwnedRoomId, RoomId,
        api::client::{
            account::register::v3::Request as Register,
            room::create_room::v3::{Request as CreateRoom, RoomPreset},
            uiaa::{AuthData, Dummy},
        },
        events::{InitialStateEvent, room::encryption::RoomEncryptionEventContent},
    },
    sync::SyncResponse,
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle};

pub const PASSWORD: &str = "correct horse battery staple";
/// A loaded machine may take its time; a test that waits longer has failed.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// An event as the client gave it, decrypted where it could be.
#[derive(Clone, Debug)]
pub struct Seen {
    pub event: Value,
    pub was_encrypted: bool,
}

impl Seen {
    pub fn is(&self, id: &str) -> bool {
        self.event["event_id"] == id
    }

    pub fn body(&self) -> Option<&str> {
        self.event["content"]["body"].as_str()
    }
}

/// One device of a user, its client and all that it has seen.
pub struct Session {
    pub client: Client,
    seen: Arc<Mutex<Vec<Seen>>>,
    ticks: Arc<watch::Sender<u64>>,
    syncing: Mutex<Option<JoinHandle<()>>>,
}

impl Session {
    /// A new user with its first device.
    pub async fn register(word: &str) -> Result<Self> {
        let client = new_client().await?;
        let mut request = Register::new();
        request.username = Some(unique(word)?);
        request.password = Some(PASSWORD.to_owned());
        request.auth = Some(AuthData::Dummy(Dummy::new()));
        client.matrix_auth().register(request).await?;
        Self::start(client).await
    }

    /// A further device of the same user.
    pub async fn login_again(&self) -> Result<Self> {
        let client = new_client().await?;
        let user = self.client.user_id().context("logged in")?;
        client.matrix_auth().login_username(user.as_str(), PASSWORD).await?;
        Self::start(client).await
    }

    async fn start(client: Client) -> Result<Self> {
        let (ticks, _) = watch::channel(0);
        let session =
            Self { client, seen: Arc::default(), ticks: Arc::new(ticks), syncing: Mutex::new(None) };
        session.resume();
        session.until("the first sync", async || (*session.ticks.borrow() > 0).then_some(())).await?;
        Ok(session)
    }

    /// Starts syncing, from where it was paused.
    pub fn resume(&self) {
        let (client, seen, ticks) = (self.client.clone(), self.seen.clone(), self.ticks.clone());
        let task = async move {
            let settings = SyncSettings::new().timeout(Duration::from_secs(20));
            let ended = client.sync_with_callback(settings, |response| {
                note(&mut seen.lock().expect("no panic while held"), &response);
                ticks.send_modify(|count| *count += 1);
                async { LoopCtrl::Continue }
            });
            // A session ends by being paused or logged out; the test that needed it sees what is missing.
            let _ = ended.await;
        };
        *self.syncing.lock().expect("no panic while held") = Some(tokio::spawn(task));
    }

    /// Stops syncing.
    pub async fn pause(&self) {
        let task = self.syncing.lock().expect("no panic while held").take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    /// Logs out on the server.
    pub async fn logout(&self) -> Result<()> {
        self.pause().await;
        Ok(self.client.matrix_auth().logout().await.map(drop)?)
    }

    pub fn user_id(&self) -> &matrix_sdk::ruma::UserId {
        self.client.user_id().expect("a session is logged in")
    }

    pub fn room(&self, id: &RoomId) -> Result<Room> {
        self.client.get_room(id).context("the room is known")
    }

    /// Waits until `look` gives something, looking again after each sync answer.
    pub async fn until<T, F: Future<Output = Option<T>>>(
        &self,
        what: &str,
        look: impl Fn() -> F,
    ) -> Result<T> {
        let mut ticks = self.ticks.subscribe();
        let search = async {
            loop {
                ticks.borrow_and_update();
                if let Some(found) = look().await {
                    return Ok(found);
                }
                ticks.changed().await?;
            }
        };
        match tokio::time::timeout(WAIT_MAX, search).await {
            Ok(found) => found,
            Err(_) => bail!("{what}: not seen within {WAIT_MAX:?}"),
        }
    }

    /// Waits for something seen that fits.
    pub async fn sees(&self, what: &str, fits: impl Fn(&Seen) -> bool) -> Result<Seen> {
        self.until(what, async || self.all_seen().into_iter().find(|seen| fits(seen))).await
    }

    /// Waits for the event with this ID.
    pub async fn event(&self, id: &OwnedEventId) -> Result<Seen> {
        self.sees(id.as_str(), |seen| seen.is(id.as_str())).await
    }

    pub fn all_seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic while held").clone()
    }

    /// Sends an event, encrypted where the room is.
    pub async fn send(&self, room: &RoomId, kind: &str, content: Value) -> Result<OwnedEventId> {
        Ok(self.room(room)?.send_raw(kind, content).await?.response.event_id)
    }

    pub async fn send_text(&self, room: &RoomId, body: &str) -> Result<OwnedEventId> {
        self.send(room, "m.room.message", serde_json::json!({ "msgtype": "m.text", "body": body })).await
    }
}

/// An encrypted room of two, with both in it.
pub async fn encrypted_room(owner: &Session, guest: &Session) -> Result<OwnedRoomId> {
    let mut request = CreateRoom::new();
    request.preset = Some(RoomPreset::PrivateChat);
    request.invite = vec![guest.user_id().to_owned()];
    let encryption = RoomEncryptionEventContent::with_recommended_defaults();
    request.initial_state = vec![InitialStateEvent::with_empty_state_key(encryption).to_raw_any()];
    let id = owner.client.create_room(request).await?.room_id().to_owned();
    guest.until("the invitation", async || guest.client.invited_rooms().pop()).await?;
    guest.client.join_room_by_id(&id).await?;
    for session in [owner, guest] {
        let joined = async || {
            let room = session.client.get_room(&id)?;
            let members = room.members_no_sync(RoomMemberships::JOIN).await.ok()?;
            (members.len() == 2 && room.encryption_state().is_encrypted()).then_some(())
        };
        session.until("both joined and encryption on", joined).await?;
    }
    Ok(id)
}

/// Keeps all events of a sync answer.
fn note(seen: &mut Vec<Seen>, response: &SyncResponse) {
    for update in response.rooms.joined.values() {
        for event in &update.timeline.events {
            if let Ok(value) = event.raw().deserialize_as::<Value>() {
                let was_encrypted = event.encryption_info().is_some();
                seen.push(Seen { event: value, was_encrypted });
            }
        }
        for event in &update.ephemeral {
            if let Ok(value) = event.deserialize_as::<Value>() {
                seen.push(Seen { event: value, was_encrypted: false });
            }
        }
    }
}

async fn new_client() -> Result<Client> {
    let url = env::var("HOMESERVER_URL").unwrap_or_else(|_| "http://127.0.0.1:8008".to_owned());
    let settings = EncryptionSettings {
        backup_download_strategy: BackupDownloadStrategy::Manual,
        ..EncryptionSettings::default()
    };
    Ok(Client::builder().homeserver_url(url).with_encryption_settings(settings).build().await?)
}

/// A name that no other run has used.
fn unique(word: &str) -> Result<String> {
    Ok(format!("{word}-{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos()))
}
