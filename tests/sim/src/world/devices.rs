//! Devices of users: how they change, what servers ask each other about them, and what everybody knows of them at rest.
//!
//! A server asks for one list at a time; the answer may be on its way while others are told of later changes.

use bytes::Bytes;
use serde_json::{Value, json};
use warren_engine::{
    account::NewSession,
    command::{
        FollowDevices, LogIn, RemoveDevices, RenameDevice, UploadCrossSigningKeys, UploadKeys, WhichDevices,
    },
    core::event::{JsonObject, KeyPair, encode_base64, sign_json},
    following::{Asked, Failure, Following},
    view::{
        JoinedRooms,
        federation::{AreDevicesFollowed, StaleDeviceList, StaleDeviceLists, UserDevices},
    },
};

use super::{Breach, Plant, SERVER_NAMES, Server, Stopped, World};
use crate::{
    keyring::devices_of,
    plan::{OfDevices, User},
};

/// Ids of the devices that come and go.
const DEVICES: [&str; 3] = ["E", "F", "G"];
/// Rounds in which clients ask for devices and servers for lists until nobody learns anything.
const ASKING_ROUNDS_MAX: usize = 10;

/// What a server has of asking for lists; in memory, so that a crash ends it.
#[derive(Default)]
pub struct Follow {
    following: Following,
    /// A list that is asked for, with the answer that is on its way; `None` if there will be none.
    under_way: Option<(Asked, Option<Bytes>)>,
}

/// Does something to a user's devices; `number` makes it different from all before.
pub(super) fn change_devices(
    server: &Server,
    user_id: &str,
    change: OfDevices,
    number: usize,
) -> Result<(), Stopped> {
    let (user_id, device) =
        (user_id.to_owned(), |pick: u8| DEVICES[usize::from(pick) % DEVICES.len()].to_owned());
    match change {
        OfDevices::Add(pick) => {
            let device_id = device(pick);
            let session = NewSession { device_id: Some(device_id.clone()), ..NewSession::default() };
            server.write(LogIn { user_id: user_id.clone(), proven_hash: None, session })?;
            let keys = json!({
                "user_id": user_id, "device_id": device_id, "algorithms": ["org.example"], "signatures": {},
                "keys": {format!("ed25519:{device_id}"): format!("key {number}")},
            });
            let (one_time_keys, fallback_keys) = (Vec::new(), Vec::new());
            let device_keys = keys.as_object().cloned();
            let upload = UploadKeys { user_id, device_id, device_keys, one_time_keys, fallback_keys };
            server.write(upload).map(drop)
        }
        OfDevices::Remove(pick) => {
            server.write(RemoveDevices { user_id, devices: WhichDevices::These(vec![device(pick)]) })
        }
        OfDevices::Rename(pick) => {
            let display_name = Some(format!("name {number}"));
            server.write(RenameDevice { user_id, device_id: device(pick), display_name })
        }
        OfDevices::SignAnew => {
            let (master, master_key) = signing_key(&user_id, "master", 2 * number);
            let (mut self_signing, _) = signing_key(&user_id, "self_signing", 2 * number + 1);
            sign(&mut self_signing, &user_id, &master_key);
            let upload = UploadCrossSigningKeys {
                user_id,
                master: Some(master),
                self_signing: Some(self_signing),
                user_signing: None,
                authenticated: true,
            };
            server.write(upload).map(drop)
        }
    }
}

/// How the story calls it.
pub(super) fn words(change: OfDevices) -> String {
    let device = |pick: u8| DEVICES[usize::from(pick) % DEVICES.len()];
    match change {
        OfDevices::Add(pick) => format!("gives device {} new keys", device(pick)),
        OfDevices::Remove(pick) => format!("removes device {}", device(pick)),
        OfDevices::Rename(pick) => format!("renames device {}", device(pick)),
        OfDevices::SignAnew => "publishes new cross-signing keys".to_owned(),
    }
}

fn signing_key(user_id: &str, usage: &str, number: usize) -> (JsonObject, KeyPair) {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let pair = KeyPair::from_seed("sim", &seed).expect("the seed is a seed");
    let public = encode_base64(pair.public_key());
    let key = json!({"user_id": user_id, "usage": [usage], "keys": {format!("ed25519:{public}"): public}});
    (key.as_object().cloned().unwrap_or_default(), pair)
}

/// Signs under the id that a cross-signing key has: its public key.
fn sign(object: &mut JsonObject, user_id: &str, pair: &KeyPair) {
    sign_json(object, user_id, pair);
    let signature = object["signatures"][user_id][pair.key_id()].take();
    let key_id = format!("ed25519:{}", encode_base64(pair.public_key()));
    object["signatures"][user_id] = json!({ key_id: signature });
}

impl World {
    /// A server asks for lists of which something was missed. `answers` of the servers answer, and if it `waits`, the first
    /// answer is still on its way when other things happen. Answers whether it has learnt any.
    pub(super) fn follow(&mut self, server: usize, answers: usize, waits: bool) -> Result<bool, Breach> {
        let (mut learned, mut answers) = (false, answers);
        let under_way = self.servers[server].follow.lock().under_way.take();
        if let Some((asked, answer)) = under_way {
            learned |= self.take_list(server, &asked, answer)?;
        }
        let engine = self.servers[server].engine();
        let looked = self.servers[server].follow.lock().following.look(&engine);
        looked.map_err(|error| Breach::new("devices", error))?;
        while !self.servers[server].disk.has_crashed() {
            let next = self.servers[server].follow.lock().following.next_step(&engine);
            let Some(asked) = next.map_err(|error| Breach::new("devices", error))? else { break };
            let answer = (answers > 0).then(|| self.list_of(server, &asked)).flatten();
            answers = answers.saturating_sub(1);
            if waits {
                self.tell(format!("{} asks for the devices of {}", SERVER_NAMES[server], asked.place().0));
                self.servers[server].follow.lock().under_way = Some((asked, answer));
                break;
            }
            learned |= self.take_list(server, &asked, answer)?;
        }
        if self.servers[server].disk.has_crashed() {
            self.servers[server].restart()?;
        }
        Ok(learned)
    }

    /// What the user's server answers; `None` if it cannot be reached.
    fn list_of(&self, server: usize, asked: &Asked) -> Option<Bytes> {
        let (user_id, name) = asked.place();
        let peer = self.index(name).filter(|peer| self.reaches(server, *peer))?;
        self.servers[peer].engine().read(&UserDevices { user_id: user_id.to_owned() }).ok()
    }

    fn take_list(&mut self, server: usize, asked: &Asked, answer: Option<Bytes>) -> Result<bool, Breach> {
        let (own, engine) = (SERVER_NAMES[server], self.servers[server].engine());
        let user_id = asked.place().0.to_owned();
        let Some(answer) = answer else {
            self.tell(format!("{own} is not told the devices of {user_id}"));
            let mut follow = self.servers[server].follow.lock();
            follow.following.failed(asked, Failure::SilentServer, engine.now_ms());
            return Ok(false);
        };
        let mut store = asked.answered(&answer).map_err(|why| Breach::new("devices", why))?;
        if self.plant == Plant::HastyFollower {
            store.mark = engine.read(&StaleDeviceList(&user_id)).unwrap_or_default();
        }
        let stored = self.servers[server].write(store);
        self.tell(match &stored {
            Ok(true) => format!("{own} learns the devices of {user_id}"),
            Ok(false) => {
                format!("{own} is told the devices of {user_id} as they were before others told of them")
            }
            Err(_) => format!("{own} is told the devices of {user_id}, and fails to write"),
        });
        match stored {
            Ok(is_kept) => Ok(is_kept),
            Err(_) => {
                let mut follow = self.servers[server].follow.lock();
                follow.following.failed(asked, Failure::NoList, engine.now_ms());
                Ok(false)
            }
        }
    }

    /// A user's client asks for the devices that it was told have changed.
    pub(super) fn query_devices(&mut self, user: User) -> Result<(), Breach> {
        let outdated = self.servers[user.server].clients[user.number].keyring.outdated.clone();
        for user_id in outdated {
            if let Some(list) = self.query(user.server, &user_id)? {
                self.servers[user.server].clients[user.number].keyring.learn(user_id, list);
            }
        }
        Ok(())
    }

    /// What a server answers its client of a user, asking the user's server where it has to.
    fn query(&self, server: usize, user_id: &str) -> Result<Option<Value>, Breach> {
        let engine = self.servers[server].engine();
        let home = user_id.split(':').nth(1).and_then(|name| self.index(name));
        let home = home.ok_or_else(|| Breach::new("devices", format!("nobody is called {user_id}")))?;
        let is_followed = || engine.read(&AreDevicesFollowed(user_id)).unwrap_or_default();
        if home == server || is_followed() {
            return devices_of(&engine, user_id).map(Some);
        }
        // Who cannot write it down asks again the next time.
        let _ = self.servers[server].write(FollowDevices { user_ids: vec![user_id.to_owned()] });
        match self.reaches(server, home) {
            true => devices_of(&self.servers[home].engine(), user_id).map(Some),
            false => Ok(None),
        }
    }

    /// A user's devices have changed. Servers that believe to share a room with the user, which the user's own server does not
    /// know, cannot be told of it. They see that with the next change of a device; cross-signing keys come without a number.
    pub(super) fn note_devices(&mut self, user: User, change: OfDevices) {
        let (user_id, home) = (self.user_id(user), user.server);
        for server in (0..self.servers.len()).filter(|server| *server != home) {
            if self.shares(home, &user_id, server) {
                if change != OfDevices::SignAnew {
                    self.ledger.torn.remove(&(user, server));
                }
            } else if self.shares(server, &user_id, server) {
                self.ledger.torn.insert((user, server));
            }
        }
    }

    /// Whether, as `viewer` knows, the user is in a room that `server` is in.
    fn shares(&self, viewer: usize, user_id: &str, server: usize) -> bool {
        let joined = self.joined(viewer, user_id);
        joined.into_iter().any(|room| self.servers_in_room(viewer, room).contains(&server))
    }

    /// The rooms that a user is in, as a server knows.
    pub(super) fn joined(&self, viewer: usize, user_id: &str) -> Vec<usize> {
        let joined = JoinedRooms { user_id: user_id.to_owned() };
        let joined = self.servers[viewer].engine().read(&joined).unwrap_or_default();
        let is_there = |room: &usize| joined.iter().any(|joined| **joined == *self.rooms[*room].id);
        (0..self.rooms.len()).filter(is_there).collect()
    }

    /// Clients sync and ask, and servers ask each other, until nobody learns anything.
    pub(super) fn settle_devices(&mut self) -> Result<(), Breach> {
        for _ in 0..ASKING_ROUNDS_MAX {
            let mut learned = false;
            for user in self.plan.users() {
                self.sync(user)?;
                learned |= !self.servers[user.server].clients[user.number].keyring.outdated.is_empty();
            }
            for server in 0..self.servers.len() {
                learned |= self.follow(server, usize::MAX, false)?;
            }
            if !learned {
                return Ok(());
            }
        }
        Err(Breach::new("devices", "there is no end to asking for them"))
    }

    /// Everybody who shares a room with a user has that user's devices as they are, and nobody else's.
    pub(super) fn check_devices(&self) -> Result<(), Breach> {
        for server in &self.servers {
            let stale = server.engine().read(&StaleDeviceLists { limit: 1, without: &|_| false });
            if let Some(user_id) = stale.map_err(|error| Breach::new("devices", error))?.first() {
                let what = format!("{} has not learnt the devices of {user_id}", server.name);
                return Err(Breach::new("devices", what));
            }
        }
        for user in self.plan.users() {
            let user_id = self.user_id(user);
            let published = devices_of(&self.servers[user.server].engine(), &user_id)?;
            for server in 0..self.servers.len() {
                let is_torn = self.ledger.torn.contains(&(user, server));
                self.check_followed(server, (user, &user_id), &published, is_torn)?;
                for number in 0..self.servers[server].clients.len() {
                    self.check_keyring(User { server, number }, (user, &user_id), &published, is_torn)?;
                }
            }
        }
        Ok(())
    }

    /// What a server answers from what it has of another server's user is what that one publishes.
    fn check_followed(
        &self,
        server: usize,
        (user, user_id): (User, &str),
        published: &Value,
        is_torn: bool,
    ) -> Result<(), Breach> {
        let engine = self.servers[server].engine();
        let is_followed = engine.read(&AreDevicesFollowed(user_id)).unwrap_or_default();
        let is_told = self.shares(user.server, user_id, server) && self.shares(server, user_id, server);
        if user.server == server || !is_followed || is_torn || !is_told {
            return Ok(());
        }
        let known = devices_of(&engine, user_id)?;
        if known != *published {
            let own = SERVER_NAMES[server];
            let what = format!("{own} takes the devices of {user_id} to be {known}, they are {published}");
            return Err(Breach::new("devices", what));
        }
        Ok(())
    }

    /// What a client has of a user, who may be its own.
    fn check_keyring(
        &self,
        client: User,
        (user, user_id): (User, &str),
        published: &Value,
        is_torn: bool,
    ) -> Result<(), Breach> {
        let known = self.servers[client.server].clients[client.number].keyring.lists.get(user_id);
        let own_id = self.user_id(client);
        let meet = |viewer: usize| {
            let theirs = self.joined(viewer, user_id);
            self.joined(viewer, &own_id).iter().any(|room| theirs.contains(room))
        };
        let (meet_here, meet_there) = (meet(client.server), meet(user.server));
        let is_due = match client == user {
            true => known.is_some(),
            false => meet_here && meet_there && !is_torn,
        };
        let what = if is_due && known != Some(published) {
            format!("{own_id} has {known:?} of {user_id}, who has {published}")
        } else if client != user && !meet_here && known.is_some() && !self.ledger.asked.contains(&user) {
            format!("{own_id} was not told that {user_id} is out of sight")
        } else {
            return Ok(());
        };
        Err(Breach::new("devices", what))
    }
}
