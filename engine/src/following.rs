//! The devices of users of other servers, of whom something was missed or nothing is known yet: whose list is asked for next,
//! and what is kept of the answer.
//!
//! Invariant: of the lists that are asked for at once few are of one server, so that others do not wait for its answers; a
//! server that did not answer is left alone for a while, whosever lists are missing, and so is a user of whom it gave none, so
//! that the other users of the server have their turn. It does nothing itself: whoever drives it asks each user's own server,
//! and writes what it makes of the answer.
//! Not here: how it is seen that something was missed (`device::elsewhere`).
//! Specification: server-server API, "Device Management".

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    command::{RemoteDevice, StoreRemoteDevices},
    core::{deadline::has_come, event::JsonObject, identifiers::server_name},
    engine::Engine,
    error::Result,
    view::federation::{StaleDeviceList, StaleDeviceLists},
};

/// How many lists are asked for in a round, and of how many can be heard before the next.
pub const LISTS_MAX: usize = 50;
/// How many lists are asked for at once. An answer takes a mebibyte at most.
const AT_ONCE_MAX: usize = 40;
/// How many of these are of one server: one that keeps its answers back leaves the other places to others.
const AT_ONCE_OF_SERVER_MAX: usize = 4;
/// How long a server that did not answer, or a user of whom there was no list, is not asked for again, in milliseconds.
const LEFT_ALONE_MS: u64 = 10 * 60 * 1000;
/// Servers, and users, of whom this is remembered, some hundred bytes each.
const LEFT_ALONE_MAX: usize = 10_000;

/// Whose lists are to be asked for.
#[derive(Debug, Default)]
pub struct Following {
    round: VecDeque<String>,
    under_way: Vec<UnderWay>,
    /// Servers that did not answer, and until when they are left alone.
    silent: BTreeMap<String, u64>,
    /// The same of users of whom a server that did answer gave no list.
    unlisted: BTreeMap<String, u64>,
}

/// A list that is being asked for, for as long as its [`Asked`] is there.
#[derive(Debug)]
struct UnderWay {
    user_id: String,
    mark: u64,
    place: Weak<()>,
}

/// Why a list could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server could not be reached, or did not answer in time: it would be the same with its other users.
    SilentServer,
    /// It has none of this user, or none that can be read or kept.
    NoList,
}

/// A list that is asked for. Its place is another's when this is dropped.
#[derive(Debug)]
pub struct Asked {
    user_id: String,
    server: String,
    mark: u64,
    _place: Arc<()>,
}

/// The answer of `GET /user/devices/{userId}`. That it is of the user who was asked for is checked with the keys. Its parts are
/// read one by one: what is odd about one device costs no other.
#[derive(Deserialize)]
struct DeviceList<'a> {
    stream_id: u64,
    #[serde(borrow)]
    devices: Vec<&'a RawValue>,
    master_key: Option<&'a RawValue>,
    self_signing_key: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Device {
    device_id: String,
    device_display_name: Option<Value>,
    keys: JsonObject,
}

impl Device {
    /// Nothing if it is none.
    fn read(told: &RawValue) -> Option<RemoteDevice> {
        let Self { device_id, device_display_name, keys } = serde_json::from_str(told.get()).ok()?;
        let name = device_display_name.as_ref().and_then(Value::as_str).map(str::to_owned);
        Some(RemoteDevice { device_id, name, keys: Some(keys) })
    }
}

impl Following {
    /// Begins a round: looks whose lists are missing.
    ///
    /// Errors: those of the store.
    pub fn look(&mut self, engine: &Engine) -> Result<()> {
        let now_ms = engine.now_ms();
        for left_alone in [&mut self.silent, &mut self.unlisted] {
            left_alone.retain(|_, until_ms| !has_come(*until_ms, LEFT_ALONE_MS, now_ms));
        }
        self.forget_what_is_over();
        // They must not keep the others from being seen.
        let without = |user_id: &str| self.is_left_alone(user_id) || self.is_asked_for(user_id);
        let found = engine.read(&StaleDeviceLists { limit: LISTS_MAX, without: &without })?;
        // Who waits for others of their server goes on waiting.
        let is_waiting = |user_id: &&String| server_name(user_id).is_some_and(|server| self.is_busy(server));
        let waiting: Vec<String> = self.round.iter().filter(is_waiting).take(LISTS_MAX).cloned().collect();
        self.round = found.into_iter().chain(waiting).collect();
        Ok(())
    }

    /// Takes in whose lists are known to be missing, so that they need not be looked for. What a round has no place for is found
    /// by the next look.
    pub fn hear(&mut self, user_ids: impl IntoIterator<Item = String>) {
        for user_id in user_ids {
            if self.round.len() < 2 * LISTS_MAX && !self.round.contains(&user_id) {
                self.round.push_back(user_id);
            }
        }
    }

    /// The list to be asked for next; `None` when the round is over, or goes on when one that is asked for is dropped.
    ///
    /// Errors: those of the store.
    pub fn next_step(&mut self, engine: &Engine) -> Result<Option<Asked>> {
        self.forget_what_is_over();
        if self.under_way.len() >= AT_ONCE_MAX {
            return Ok(None);
        }
        for _ in 0..self.round.len() {
            let Some(user_id) = self.round.pop_front() else { break };
            let Some(server) = server_name(&user_id).map(str::to_owned) else { continue };
            if self.is_left_alone(&user_id) {
                continue;
            }
            if self.is_busy(&server) {
                self.round.push_back(user_id);
                continue;
            }
            // As it stands when it is asked for: what is told from now on may be later than the answer.
            let Some(mark) = engine.read(&StaleDeviceList(&user_id))? else { continue };
            if !self.under_way.iter().any(|list| list.user_id == user_id && list.mark == mark) {
                let place = Arc::new(());
                let list = UnderWay { user_id: user_id.clone(), mark, place: Arc::downgrade(&place) };
                self.under_way.push(list);
                return Ok(Some(Asked { user_id, server, mark, _place: place }));
            }
        }
        Ok(None)
    }

    /// The list could not be had: its server, or its user, is left alone for a while.
    pub fn failed(&mut self, asked: &Asked, failure: Failure, now_ms: u64) {
        let (left_alone, name) = match failure {
            Failure::SilentServer => (&mut self.silent, &asked.server),
            Failure::NoList => (&mut self.unlisted, &asked.user_id),
        };
        if left_alone.len() >= LEFT_ALONE_MAX {
            left_alone.clear();
        }
        left_alone.insert(name.clone(), now_ms.saturating_add(LEFT_ALONE_MS));
    }

    fn forget_what_is_over(&mut self) {
        self.under_way.retain(|list| list.place.strong_count() > 0);
    }

    /// Whether a look has nothing to find of the user: their list is asked for, or would wait behind others of their server.
    fn is_asked_for(&self, user_id: &str) -> bool {
        self.under_way.iter().any(|list| list.user_id == user_id)
            || server_name(user_id).is_some_and(|server| self.is_busy(server))
    }

    /// Whether as many lists of the server are asked for as may be.
    fn is_busy(&self, server: &str) -> bool {
        let of_server = |list: &&UnderWay| server_name(&list.user_id) == Some(server);
        self.under_way.iter().filter(of_server).count() >= AT_ONCE_OF_SERVER_MAX
    }

    fn is_left_alone(&self, user_id: &str) -> bool {
        self.unlisted.contains_key(user_id)
            || server_name(user_id).is_some_and(|server| self.silent.contains_key(server))
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
        let list: DeviceList<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let key = |told: Option<&RawValue>| serde_json::from_str::<JsonObject>(told?.get()).ok();
        Ok(StoreRemoteDevices {
            user_id: self.user_id.clone(),
            stream_id: list.stream_id,
            mark: Some(self.mark),
            devices: list.devices.into_iter().filter_map(Device::read).collect(),
            master: key(list.master_key),
            self_signing: key(list.self_signing_key),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        command::{FollowDevices, ReceiveEdus},
        core::num::StreamPos,
        device::tests::{Signer, query, register},
        fixture::World,
        housekeeping::{CHORES, Housekeeping},
        view::SyncToken,
    };

    const ROOM: &str = "!room:here.example";
    const ALICE: &str = "@alice:here.example";
    const BOB: &str = "@bob:there.example";
    const CARL: &str = "@carl:third.example";
    const BEN: &str = "@ben:there.example";

    fn world() -> World {
        following(&[BOB, CARL])
    }

    /// A world in which the lists of users are missing, in this order.
    fn following(user_ids: &[&str]) -> World {
        let world = World::new();
        register(&world, "alice", &["A"]);
        world.room(ROOM, ALICE, None);
        for user_id in user_ids {
            world.join(ROOM, user_id);
        }
        let user_ids = user_ids.iter().map(|user_id| (*user_id).to_owned()).collect();
        world.engine.write(FollowDevices { user_ids }).wait().unwrap();
        world
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
        following.failed(&bob, Failure::SilentServer, world.engine.now_ms());
        drop(bob);
        for (passed_ms, asked) in [(0, CARL), (LEFT_ALONE_MS - 1, CARL), (1, BOB)] {
            world.pass_ms(passed_ms);
            following.look(&world.engine).unwrap();
            assert_eq!(next(&mut following, &world).unwrap().place().0, asked, "{passed_ms}");
        }
    }

    #[test]
    fn a_server_is_not_left_alone_until_a_clock_that_was_set_back_catches_up() {
        let world = world();
        let mut following = Following::default();
        world.pass_ms(2 * LEFT_ALONE_MS);
        following.look(&world.engine).unwrap();
        let bob = next(&mut following, &world).unwrap();
        following.failed(&bob, Failure::SilentServer, world.engine.now_ms());
        drop(bob);
        world.set_back_ms(2 * LEFT_ALONE_MS);
        following.look(&world.engine).unwrap();
        assert_eq!(next(&mut following, &world).unwrap().place().0, BOB);
    }

    #[test]
    fn a_user_without_a_list_keeps_no_other_of_their_server_from_being_asked_for() {
        let world = following(&[BOB, BEN]);
        let mut following = Following::default();
        // Bob's comes first each time.
        for (passed_ms, asked) in [(0, BOB), (0, BEN), (LEFT_ALONE_MS - 1, BEN), (1, BOB)] {
            world.pass_ms(passed_ms);
            following.look(&world.engine).unwrap();
            let next = next(&mut following, &world).unwrap();
            assert_eq!(next.place().0, asked, "{passed_ms}");
            if asked == BOB {
                following.failed(&next, Failure::NoList, world.engine.now_ms());
            }
        }
        // In the same round, too.
        assert_eq!(next(&mut following, &world).unwrap().place().0, BEN);
    }

    #[test]
    fn what_is_heard_of_needs_no_look() {
        let world = world();
        let mut following = Following::default();
        following.hear([CARL, "@nobody:there.example", CARL, BEN].map(str::to_owned));
        let carl = next(&mut following, &world).unwrap();
        assert_eq!(carl.place(), (CARL, "third.example"));
        assert!(next(&mut following, &world).is_none(), "once, and nobody whose list is not missing");
        // Who is left alone is not asked for however often it is heard of them.
        following.failed(&carl, Failure::NoList, world.engine.now_ms());
        following.hear([CARL, BOB].map(str::to_owned));
        assert_eq!(next(&mut following, &world).unwrap().place().0, BOB);
        // A look finds the others all the same.
        following.hear((0..1_000).map(|number| format!("@{number}:there.example")));
        assert!(following.round.len() <= 2 * LISTS_MAX);
        following.look(&world.engine).unwrap();
        assert_eq!(following.round, [BOB]);
    }

    #[test]
    fn who_is_left_alone_takes_little_memory() {
        let mut following = Following::default();
        for number in 0..2 * LEFT_ALONE_MAX {
            let server = format!("{number}.example");
            let user_id = format!("@bob:{server}");
            let asked = Asked { user_id, server, mark: 0, _place: Arc::default() };
            for failure in [Failure::SilentServer, Failure::NoList] {
                following.failed(&asked, failure, 0);
            }
            assert!(following.silent.len().max(following.unlisted.len()) <= LEFT_ALONE_MAX);
            assert!(following.is_left_alone(&asked.user_id));
        }
    }

    #[test]
    fn a_silent_server_of_many_users_keeps_nobody_from_being_asked_for() {
        let silent: Vec<String> = (0..4 * LISTS_MAX).map(|n| format!("@user{n}:silent.example")).collect();
        let user_ids: Vec<&str> = silent.iter().map(String::as_str).chain([BOB]).collect();
        let world = following(&user_ids);
        let mut following = Following::default();
        following.look(&world.engine).unwrap();
        let asked = next(&mut following, &world).unwrap();
        assert_eq!(asked.place().1, "silent.example");
        following.failed(&asked, Failure::SilentServer, world.engine.now_ms());
        following.look(&world.engine).unwrap();
        assert_eq!(next(&mut following, &world).unwrap().place().0, BOB);
    }

    /// All that are asked for before any of them has answered.
    fn all_at_once(following: &mut Following, world: &World) -> Vec<Asked> {
        std::iter::from_fn(|| next(following, world)).collect()
    }

    #[test]
    fn a_slow_server_holds_up_its_own_users_alone() {
        let slow: Vec<String> =
            (0..2 * LISTS_MAX).map(|number| format!("@user{number}:slow.example")).collect();
        let user_ids: Vec<&str> = slow.iter().map(String::as_str).chain([BOB, CARL]).collect();
        let world = following(&user_ids);
        let mut following = Following::default();
        following.hear([&*slow[0], &*slow[1], &*slow[2], &*slow[3], &*slow[4], BOB].map(str::to_owned));
        let mut under_way = all_at_once(&mut following, &world);
        let asked: Vec<&str> = under_way.iter().map(|asked| asked.place().0).collect();
        assert_eq!(asked, [&*slow[0], &*slow[1], &*slow[2], &*slow[3], BOB]);
        // One more of its users when one was told of, who was heard of first.
        drop(under_way.remove(0));
        let more = all_at_once(&mut following, &world);
        assert_eq!(more.iter().map(|asked| asked.place().0).collect::<Vec<_>>(), [&*slow[4]]);
        // A look sees past them, and who waits goes on waiting.
        following.hear([slow[5].clone()]);
        following.look(&world.engine).unwrap();
        assert_eq!(next(&mut following, &world).unwrap().place().0, CARL);
        assert!(next(&mut following, &world).is_none());
        drop(under_way);
        assert_eq!(next(&mut following, &world).unwrap().place().0, slow[5]);
    }

    #[test]
    fn many_servers_are_asked_at_once_and_not_all() {
        let many: Vec<String> = (0..LISTS_MAX).map(|number| format!("@bob:{number}.example")).collect();
        let world = following(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let mut following = Following::default();
        following.look(&world.engine).unwrap();
        let under_way = all_at_once(&mut following, &world);
        assert_eq!(under_way.len(), AT_ONCE_MAX);
        drop(under_way);
        assert_eq!(all_at_once(&mut following, &world).len(), LISTS_MAX - AT_ONCE_MAX);
    }

    #[test]
    fn a_list_of_which_news_came_is_asked_for_beside_an_answer_that_is_under_way() {
        let world = world();
        let mut following = Following::default();
        following.hear([BOB.to_owned()]);
        let first = next(&mut following, &world).unwrap();
        following.hear([BOB.to_owned()]);
        assert!(next(&mut following, &world).is_none(), "the answer will do");
        receive(&world, "m.signing_key_update", json!({"user_id": BOB}));
        following.hear([BOB.to_owned()]);
        let second = next(&mut following, &world).unwrap();
        for (asked, is_kept) in [(first, false), (second, true)] {
            let stored = world.engine.write(asked.answered(&list(5, "P")).unwrap()).wait().unwrap();
            assert_eq!(stored, is_kept);
        }
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
            drop(asked);
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
        drop(asked);
        // Nobody tells a server of devices that is not there.
        world.leave(ROOM, ALICE);
        assert!(devices(&world).is_empty());
        following.look(&world.engine).unwrap();
        assert!(next(&mut following, &world).is_none());
        world.join(ROOM, ALICE);
        following.look(&world.engine).unwrap();
        assert_eq!(next(&mut following, &world).unwrap().place().0, BOB);
    }

    fn lost(world: &World) -> SyncToken {
        let pos = StreamPos(world.engine.position().0 + 1);
        SyncToken { pos, to_device: pos }
    }

    fn doubt(world: &World, house: &Housekeeping) {
        let chore = CHORES.iter().find(|chore| chore.name == "restored lists").unwrap();
        house.run(&world.engine, chore).unwrap();
    }

    #[test]
    fn a_client_of_a_database_that_was_lost_has_each_list_asked_for_once() {
        let (world, house) = (world(), Housekeeping::default());
        let store = |stream_id: u64, device_id: &str| {
            let mut following = Following::default();
            following.look(&world.engine).unwrap();
            let asked = next(&mut following, &world).unwrap();
            assert_eq!(asked.place().0, BOB);
            let list = asked.answered(&list(stream_id, device_id)).unwrap();
            assert!(world.engine.write(list).wait().unwrap());
            assert_eq!(devices(&world), [device_id]);
        };
        let is_missing = || world.engine.read(&StaleDeviceList(BOB)).unwrap().is_some();
        store(5, "P");
        let pos = world.engine.position();
        for (since, misses) in
            [(None, false), (Some(SyncToken { pos, to_device: pos }), false), (Some(lost(&world)), true)]
        {
            world.presences_told_to(ALICE, since);
            doubt(&world, &house);
            assert_eq!(is_missing(), misses, "{since:?}");
        }
        store(6, "Q");
        // Another one, or one that makes its token up.
        world.presences_told_to(ALICE, Some(lost(&world)));
        doubt(&world, &house);
        assert!(!is_missing());
    }

    #[test]
    fn many_lists_are_doubted_some_at_a_time() {
        let many: Vec<String> = (0..150).map(|number| format!("@user{number}:there.example")).collect();
        let world = following(&many.iter().map(String::as_str).collect::<Vec<_>>());
        for user_id in &many {
            let known = StoreRemoteDevices { user_id: user_id.clone(), mark: Some(0), ..Default::default() };
            assert!(world.engine.write(known).wait().unwrap());
        }
        world.presences_told_to(ALICE, Some(lost(&world)));
        let missing = || world.engine.read(&StaleDeviceLists { limit: 1_000, without: &|_| false }).unwrap();
        let house = Housekeeping::default();
        for doubted in [100, 150] {
            doubt(&world, &house);
            assert_eq!(missing().len(), doubted);
        }
    }

    #[test]
    fn a_device_that_is_odd_costs_no_other() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let keys = |device_id: &str, more: &str| {
            let keys = Value::Object(Signer::new(1).device(BOB, device_id)).to_string();
            format!("{}{more}}}", keys.strip_suffix('}').unwrap())
        };
        let odd = [
            "5".to_owned(),
            "null".to_owned(),
            nested(20_000),
            r#"{"device_id":"X","keys":5}"#.to_owned(),
            format!(
                r#"{{"device_id":"DEEP","keys":{}}}"#,
                keys("DEEP", &format!(r#","x":{}"#, nested(20_000)))
            ),
            format!(
                r#"{{"device_id":"HUGE","keys":{}}}"#,
                keys("HUGE", &format!(r#","x":1{}"#, "0".repeat(30)))
            ),
            format!(r#"{{"device_id":"N","device_display_name":5,"keys":{}}}"#, keys("N", "")),
            format!(r#"{{"device_id":"P","keys":{}}}"#, keys("P", "")),
        ];
        let body = format!(
            r#"{{"stream_id":5,"devices":[{}],"master_key":{},"self_signing_key":null}}"#,
            odd.join(","),
            nested(20_000)
        );
        let world = world();
        let mut following = Following::default();
        following.look(&world.engine).unwrap();
        let asked = next(&mut following, &world).unwrap();
        assert_eq!(asked.place().0, BOB);
        assert!(world.engine.write(asked.answered(body.as_bytes()).unwrap()).wait().unwrap());
        assert_eq!(devices(&world), ["N", "P"]);
    }

    #[test]
    fn what_is_no_list_is_told() {
        let (user_id, server) = (BOB.to_owned(), "there.example".to_owned());
        let asked = Asked { user_id, server, mark: 0, _place: Arc::default() };
        for body in ["", "[]", r#"{"stream_id": -1, "devices": []}"#, r#"{"stream_id": 1}"#] {
            assert!(asked.answered(body.as_bytes()).is_err(), "{body}");
        }
    }
}
