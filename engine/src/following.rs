//! The devices of users of other servers, of whom something was missed or nothing is known yet: whose list is asked for next,
//! and what is kept of the answer.
//!
//! Invariant: one list is asked for at a time, and a server that did not answer is left alone for a while, whosever lists are
//! missing. It does nothing itself: whoever drives it asks each user's own server, and writes what it makes of the answer.
//! Not here: how it is seen that something was missed (`device::elsewhere`).
//! Specification: server-server API, "Device Management".

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;

use crate::{
    command::{RemoteDevice, StoreRemoteDevices},
    core::{event::JsonObject, identifiers::server_name},
    engine::Engine,
    error::Result,
    view::federation::{StaleDeviceList, StaleDeviceLists},
};

/// How many lists are asked for in a round.
const LISTS_MAX: usize = 50;
/// How long a server that did not answer is not asked again, in milliseconds.
const SILENT_MS: u64 = 10 * 60 * 1000;

/// Whose lists are to be asked for.
#[derive(Debug, Default)]
pub struct Following {
    round: VecDeque<String>,
    /// Servers that did not answer, and until when they are left alone.
    silent: BTreeMap<String, u64>,
}

/// A list that is asked for.
#[derive(Debug)]
pub struct Asked {
    user_id: String,
    server: String,
    mark: u64,
}

/// The answer of `GET /user/devices/{userId}`. That it is of the user who was asked for is checked with the keys.
#[derive(Deserialize)]
struct DeviceList {
    stream_id: u64,
    devices: Vec<Device>,
    master_key: Option<JsonObject>,
    self_signing_key: Option<JsonObject>,
}

#[derive(Deserialize)]
struct Device {
    device_id: String,
    device_display_name: Option<String>,
    keys: JsonObject,
}

impl Following {
    /// Begins a round: looks whose lists are missing.
    ///
    /// Errors: those of the store.
    pub fn look(&mut self, engine: &Engine) -> Result<()> {
        let now_ms = engine.now_ms();
        self.silent.retain(|_, until_ms| *until_ms > now_ms);
        // Those of a silent server must not keep the others' from being seen.
        let without = |server: &str| self.silent.contains_key(server);
        self.round = engine.read(&StaleDeviceLists { limit: LISTS_MAX, without: &without })?.into();
        Ok(())
    }

    /// The list to be asked for next; `None` when the round is over.
    ///
    /// Errors: those of the store.
    pub fn next_step(&mut self, engine: &Engine) -> Result<Option<Asked>> {
        while let Some(user_id) = self.round.pop_front() {
            let Some(server) = server_name(&user_id).map(str::to_owned) else { continue };
            if self.silent.contains_key(&server) {
                continue;
            }
            // As it stands when it is asked for: what is told from now on may be later than the answer.
            if let Some(mark) = engine.read(&StaleDeviceList(&user_id))? {
                return Ok(Some(Asked { user_id, server, mark }));
            }
        }
        Ok(None)
    }

    /// The list could not be had: its server is left alone for a while.
    pub fn failed(&mut self, asked: &Asked, now_ms: u64) {
        self.silent.insert(asked.server.clone(), now_ms.saturating_add(SILENT_MS));
    }
}

impl Asked {
    /// The user, and the server to be asked.
    pub fn place(&self) -> (&str, &str) {
        (&self.user_id, &self.server)
    }

    /// What is to be written of the answer.
    ///
    /// Errors: a sentence about why it is no list of devices.
    pub fn answered(&self, body: &[u8]) -> Result<StoreRemoteDevices, String> {
        let list: DeviceList = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let devices = list.devices.into_iter().map(|device| RemoteDevice {
            device_id: device.device_id,
            name: device.device_display_name,
            keys: Some(device.keys),
        });
        Ok(StoreRemoteDevices {
            user_id: self.user_id.clone(),
            stream_id: list.stream_id,
            mark: Some(self.mark),
            devices: devices.collect(),
            master: list.master_key,
            self_signing: list.self_signing_key,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        command::{FollowDevices, ReceiveEdus},
        device::tests::{Signer, query, register},
        fixture::World,
    };

    const ROOM: &str = "!room:here.example";
    const ALICE: &str = "@alice:here.example";
    const BOB: &str = "@bob:there.example";
    const CARL: &str = "@carl:third.example";

    fn world() -> World {
        let world = World::new();
        register(&world, "alice", &["A"]);
        world.room(ROOM, ALICE, None);
        for user_id in [BOB, CARL] {
            world.join(ROOM, user_id);
        }
        follow(&world);
        world
    }

    fn follow(world: &World) {
        let follow = FollowDevices { user_ids: vec![BOB.to_owned(), CARL.to_owned()] };
        world.engine.write(follow).wait().unwrap();
    }

    fn next(following: &mut Following, world: &World) -> Option<Asked> {
        following.next_step(&world.engine).unwrap()
    }

    fn list(stream_id: u64, device_id: &str) -> Vec<u8> {
        let keys = Signer::new(1).device(BOB, device_id);
        let device = json!({"device_id": device_id, "keys": keys});
        json!({"user_id": BOB, "stream_id": stream_id, "devices": [device]}).to_string().into_bytes()
    }

    fn receive(world: &World, kind: &str, content: Value) {
        let edu = json!({"edu_type": kind, "content": content});
        world.engine.write(ReceiveEdus::new("there.example", [&edu])).wait().unwrap();
    }

    /// What is known of Bob's devices.
    fn devices(world: &World) -> Vec<String> {
        let answer = query(world, ALICE, &[BOB]);
        answer["device_keys"][BOB].as_object().into_iter().flatten().map(|(id, _)| id.clone()).collect()
    }

    #[test]
    fn a_silent_server_is_left_alone_and_others_are_asked() {
        let world = world();
        let mut following = Following::default();
        following.look(&world.engine).unwrap();
        let bob = next(&mut following, &world).unwrap();
        assert_eq!(bob.place(), (BOB, "there.example"));
        following.failed(&bob, world.engine.now_ms());
        for (passed_ms, asked) in [(0, CARL), (SILENT_MS - 1, CARL), (1, BOB)] {
            world.pass_ms(passed_ms);
            following.look(&world.engine).unwrap();
            assert_eq!(next(&mut following, &world).unwrap().place().0, asked, "{passed_ms}");
        }
    }

    #[test]
    fn a_silent_server_of_many_users_keeps_nobody_from_being_asked_for() {
        let world = World::new();
        register(&world, "alice", &["A"]);
        world.room(ROOM, ALICE, None);
        let silent = (0..4 * LISTS_MAX).map(|n| format!("@user{n}:silent.example"));
        let user_ids: Vec<String> = silent.chain([BOB.to_owned()]).collect();
        for user_id in &user_ids {
            world.join(ROOM, user_id);
        }
        world.engine.write(FollowDevices { user_ids }).wait().unwrap();
        let mut following = Following::default();
        following.look(&world.engine).unwrap();
        let asked = next(&mut following, &world).unwrap();
        assert_eq!(asked.place().1, "silent.example");
        following.failed(&asked, world.engine.now_ms());
        following.look(&world.engine).unwrap();
        assert_eq!(next(&mut following, &world).unwrap().place().0, BOB);
    }

    #[test]
    fn an_answer_that_was_overtaken_settles_nothing() {
        let overtaken = [
            (
                "m.device_list_update",
                json!({"user_id": BOB, "device_id": "Q", "stream_id": 6, "prev_id": [5]}),
            ),
            ("m.signing_key_update", json!({"user_id": BOB})),
        ];
        for (kind, content) in overtaken {
            let world = world();
            let mut following = Following::default();
            following.look(&world.engine).unwrap();
            let asked = next(&mut following, &world).unwrap();
            // Told while the answer, which is older, is on its way.
            receive(&world, kind, content);
            let store = asked.answered(&list(5, "P")).unwrap();
            assert!(!world.engine.write(store).wait().unwrap(), "{kind}");
            assert!(devices(&world).is_empty());
            following.look(&world.engine).unwrap();
            let asked = next(&mut following, &world).unwrap();
            assert_eq!(asked.place().0, BOB);
            assert!(world.engine.write(asked.answered(&list(6, "Q")).unwrap()).wait().unwrap());
            assert_eq!(devices(&world), ["Q"]);
        }
    }

    #[test]
    fn lists_are_asked_for_anew_when_this_server_comes_back() {
        let world = world();
        let mut following = Following::default();
        following.look(&world.engine).unwrap();
        let asked = next(&mut following, &world).unwrap();
        world.engine.write(asked.answered(&list(5, "P")).unwrap()).wait().unwrap();
        assert_eq!(devices(&world), ["P"]);
        // Nobody tells a server of devices that is not there.
        world.leave(ROOM, ALICE);
        assert!(devices(&world).is_empty());
        following.look(&world.engine).unwrap();
        assert!(next(&mut following, &world).is_none());
        world.join(ROOM, ALICE);
        following.look(&world.engine).unwrap();
        assert_eq!(next(&mut following, &world).unwrap().place().0, BOB);
    }

    #[test]
    fn what_is_no_list_is_told() {
        let asked = Asked { user_id: BOB.to_owned(), server: "there.example".to_owned(), mark: 0 };
        for body in ["", "[]", r#"{"stream_id": -1, "devices": []}"#, r#"{"stream_id": 1}"#] {
            assert!(asked.answered(body.as_bytes()).is_err(), "{body}");
        }
    }
}
