//! A room that was entered while members were missing, and what becomes of it when they are known.

mod answered;
mod ends;
mod paged;
mod redactions;
mod rejected;
mod told;
mod unshown;

use super::*;
use crate::{
    command::SetReceipts,
    core::filter::Filter,
    view::{
        AwaitedMembers, EventContext, Members, OneEvent, StreamToken, Sync, SyncToken, Whose,
        federation::PartialRooms,
    },
};

const DORA: &str = "@dora:there.example";
const DORAS_DEPTH: u64 = 21;
const ERIN: &str = "@erin:here.example";

/// A room on one engine, entered on another by a join of Dora's that left all members out but Alice. Both engines sign as the
/// same server, so that its key is known on either side.
struct Entry {
    resident: Scene,
    newcomer: Scene,
    join: Pdu,
    /// The state before the join.
    state: Vec<Pdu>,
}

impl Entry {
    fn new(resident: Scene) -> Self {
        let join = resident.member(DORA, DORA, "join", &strs(&resident.ends()), DORAS_DEPTH);
        Self::by(resident, join)
    }

    /// Enters by a join, with the resident's state of now.
    fn by(resident: Scene, join: Pdu) -> Self {
        let state = state_of(&resident);
        Self::with(resident, join, state)
    }

    fn with(resident: Scene, join: Pdu, state: Vec<Pdu>) -> Self {
        let newcomer = Scene { world: World::new(), peer: Peer::new() };
        newcomer.world.engine.write(newcomer.peer.keys()).wait().unwrap();
        let entry = Self { resident, newcomer, join, state };
        entry.enter(&entry.join, &entry.state);
        entry
    }

    /// Enters with a part of the state before a join.
    fn enter(&self, join: &Pdu, state: &[Pdu]) {
        let needed = |pdu: &&Pdu| &*pdu.kind != "m.room.member" || pdu.state_key.as_deref() == Some(ALICE);
        let part: Vec<&Pdu> = state.iter().filter(needed).collect();
        assert!(self.store(&part).missing.is_nothing());
        let enter = EnterRoom {
            room_id: ROOM.into(),
            version: version(),
            join: self.resident.check(&[join]).remove(0),
            untold: Vec::new(),
            state: part.iter().map(|pdu| pdu.event_id.clone()).collect(),
            partial: Some(vec!["there.example".to_owned()]),
        };
        assert_eq!(self.newcomer.world.engine.write(enter).wait().unwrap().0, Outcome::Accepted);
    }

    fn store(&self, pdus: &[&Pdu]) -> Received {
        let pdus = self.resident.check(pdus);
        let outliers = StoreOutliers { room_id: ROOM.into(), version: version(), pdus };
        self.newcomer.world.engine.write(outliers).wait().unwrap()
    }

    fn store_members(&self) {
        assert!(self.store(&self.state.iter().collect::<Vec<_>>()).missing.is_nothing());
    }

    fn complete(&self) {
        self.complete_by(&self.join, &self.state);
    }

    fn complete_by(&self, join: &Pdu, state: &[Pdu]) {
        let state = state.iter().map(|pdu| pdu.event_id.clone()).collect();
        let state = GivenState { event_id: join.event_id.clone(), state };
        let complete = CompleteState { room_id: ROOM.into(), state };
        assert!(self.newcomer.world.engine.write(complete).wait().unwrap().is_nothing());
    }
}

fn state_of(scene: &Scene) -> Vec<Pdu> {
    scene.world.ask(|reader| {
        let room = RoomCtx::load(reader, ROOM)?;
        let entries = reader.state_entries(room.num, room.head.state)?;
        entries.into_iter().map(|(_, num)| Ok(Pdu::clone(&*reader.event(num)?.pdu()?))).collect()
    })
}

/// A room in which Carl has power and was banned, entered by a server that does not know of it yet.
struct Banned {
    entry: Entry,
    /// What lets Carl send, if one does not know that he is banned.
    auth: [String; 3],
    topic: String,
}

impl Banned {
    fn new() -> Self {
        Self::with(|_| ())
    }

    /// `prepare` does something more in the room before it is entered.
    fn with(prepare: impl Fn(&Scene)) -> Self {
        let resident = Scene::new();
        let levels = json!({"users": {ALICE: 100, BOB: 50, CARL: 60}});
        let levels = resident.world.state(ROOM, ALICE, "m.room.power_levels", "", levels);
        let topic = resident.world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "before"}));
        let carl = resident.member(CARL, CARL, "join", &strs(&resident.ends()), 20);
        assert!(accepted(&resident.receive(&[&carl])));
        let create = resident.state("m.room.create", "").unwrap();
        resident.world.member(ROOM, ALICE, CARL, "ban").unwrap();
        prepare(&resident);
        let entry = Entry::new(resident);
        // What the ban names comes before it.
        entry.store(&[&carl]);
        entry.store_members();
        Self { entry, auth: [create, levels, carl.event_id.to_string()], topic }
    }

    fn carls(&self, kind: &str, state_key: Option<&str>, content: Value, prev: &[&str], depth: u64) -> Pdu {
        let (prev, auth) = (prev.to_vec(), strs(&self.auth));
        self.entry.resident.peer.make(Draft { sender: CARL, kind, state_key, content, prev, auth, depth })
    }

    fn redaction(&self, sender: &str, target: &Pdu, prev: &Pdu, auth: &[String]) -> Pdu {
        let reference = |id: &str| EventReference::from(Arc::<str>::from(id));
        let builder = EventBuilder {
            room_id: Some(ROOM.into()),
            sender: sender.into(),
            kind: "m.room.redaction".into(),
            state_key: None,
            content: Default::default(),
            redacts: Some(target.event_id.clone()),
            prev_events: vec![reference(&prev.event_id)],
            auth_events: auth.iter().map(|id| reference(id)).collect(),
            depth: prev.depth + 1,
            origin_server_ts: START_MS + 40,
            event_id_localpart: None,
        };
        builder.build(version(), "there.example", &self.entry.resident.peer.key).unwrap()
    }
}

/// There is a gap before an event, in which another is missing, and that fills it.
fn fill_gap(scene: &Scene, behind: &Pdu, missing: &Pdu) {
    let missing_before = scene.world.ask(|reader| {
        let event = reader.event(reader.event_num(&behind.event_id)?.unwrap())?;
        assert!(gap::is_open_before(reader, &event)?);
        Ok(gap::missing_before(reader, event.header.room, event.pos())?)
    });
    assert_eq!(missing_before, [missing.event_id.to_string()]);
    scene.is_sound();
    let pdus = scene.check(&[missing]);
    let received = scene.write(ReceivePdus { pdus, backfill: true, ..ReceivePdus::default() });
    assert!(accepted(&received), "{received:?}");
    scene.is_sound();
}

/// What Alice is told, who loads members lazily: the next position and her room.
fn sync(scene: &Scene, since: Option<SyncToken>) -> (SyncToken, Value) {
    sync_with(scene, since, Filter::parse(br#"{"room":{"state":{"lazy_load_members":true}}}"#).unwrap())
}

pub(super) fn sync_with(scene: &Scene, since: Option<SyncToken>, filter: Filter) -> (SyncToken, Value) {
    let sync = Sync {
        user_id: ALICE.to_owned(),
        device_id: None,
        since,
        filter: Arc::new(filter),
        full_state: false,
        state_after: None,
        waits: false,
    };
    let answer = scene.world.engine.read(&sync).unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    (answer.token, body["rooms"]["join"][ROOM].clone())
}

/// The ids of events in an answer.
fn ids(events: &Value) -> Vec<&str> {
    events.as_array().into_iter().flatten().map(|event| event["event_id"].as_str().unwrap()).collect()
}

/// The users whose membership is among events, sorted.
fn users(events: &Value) -> Vec<&str> {
    let events = events.as_array().into_iter().flatten();
    let members = events.filter(|event| event["type"] == "m.room.member");
    let mut users: Vec<&str> = members.map(|event| event["state_key"].as_str().unwrap()).collect();
    users.sort_unstable();
    users
}

/// Whether memberships that a user asks for are still to come.
fn is_awaited(scene: &Scene, user: &str, whose: Whose<'_>) -> bool {
    scene.world.engine.read(&AwaitedMembers { room_id: ROOM, user, whose }).unwrap().is_some()
}

/// The members as Alice is told of them as of some time.
fn members_at(scene: &Scene, at: SyncToken) -> Value {
    let members = Members {
        room_id: ROOM.to_owned(),
        user: ALICE.to_owned(),
        at: Some(StreamToken(at.pos)),
        membership: None,
        not_membership: None,
    };
    let told: Value = serde_json::from_slice(&scene.world.engine.read(&members).unwrap()).unwrap();
    told["chunk"].clone()
}

fn read(scene: &Scene, user: &str, event_id: &str) {
    let receipt = SetReceipts {
        room_id: ROOM.to_owned(),
        user: user.to_owned(),
        read: Some(event_id.to_owned()),
        read_private: None,
        fully_read: None,
        thread_id: None,
    };
    scene.world.engine.write(receipt).wait().unwrap();
}

#[test]
fn a_room_is_entered_with_part_of_its_state_and_becomes_whole() {
    let resident = Scene::new();
    let carl = resident.member(CARL, CARL, "join", &strs(&resident.ends()), 20);
    assert!(accepted(&resident.receive(&[&carl])));
    let entry = Entry::new(resident);
    let Entry { resident, newcomer, join, .. } = &entry;
    assert!(newcomer.is_joined(DORA) && !newcomer.is_joined(CARL));
    // It can be sent to and received from, also from those who were left out.
    let from_carl = resident.message(CARL, &[&join.event_id], 22);
    let received = newcomer.receive(&[&from_carl]);
    assert_eq!(
        received.outcomes,
        [(from_carl.event_id.clone(), Outcome::Waiting)],
        "Carl's join is not here"
    );
    entry.store_members();
    assert!(accepted(&newcomer.receive(&[&from_carl])));
    let (since, room) = sync(newcomer, None);
    assert!(!users(&room["state"]["events"]).contains(&BOB));
    newcomer.is_sound();
    entry.complete();
    assert!(newcomer.is_joined(CARL) && newcomer.is_joined(BOB) && newcomer.is_joined(DORA));
    let partial = newcomer.world.ask(|reader| {
        let event = reader.event(reader.event_num(&from_carl.event_id)?.unwrap())?;
        Ok((RoomCtx::load(reader, ROOM)?.head.partial_state, event.header.partial_state))
    });
    assert_eq!(partial, (false, false));
    newcomer.is_sound();
    // Who synced in between is told of those who were missing; who asks for the members as of now gets them.
    let (now, room) = sync(newcomer, Some(since));
    assert!(users(&room["state"]["events"]).contains(&BOB), "{room}");
    let members = members_at(newcomer, now);
    assert!(ids(&members).contains(&&*carl.event_id), "{members}");
}

#[test]
fn members_of_a_time_in_which_they_were_missing_are_told_once_they_are_known() {
    const FRED: &str = "@fred:there.example";
    let resident = Scene::new();
    let carl = resident.member(CARL, CARL, "join", &strs(&resident.ends()), 20);
    assert!(accepted(&resident.receive(&[&carl])));
    let entry = Entry::new(resident);
    let Entry { resident, newcomer, join, .. } = &entry;
    entry.store_members();
    let (at_join, _) = sync(newcomer, None);
    // Fred comes in, which the last event does not follow.
    let fred = resident.member(FRED, FRED, "join", &[&join.event_id], 22);
    let from_carl = resident.message(CARL, &[&join.event_id], 23);
    assert!(accepted(&newcomer.receive(&[&fred, &from_carl])));
    let (at_end, _) = sync(newcomer, Some(at_join));
    let [then, now] = [at_join, at_end].map(|at| Whose::EverybodyAt(StreamToken(at.pos)));
    let awaited = [Whose::Everybody, then, now, Whose::User(CARL)];
    assert!(awaited.iter().all(|whose| is_awaited(newcomer, ALICE, *whose)));
    let before = Whose::EverybodyAt(StreamToken(StreamPos::ZERO));
    let known = [before, Whose::User(FRED), Whose::User(DORA), Whose::User("nobody")];
    assert!(!known.iter().any(|whose| is_awaited(newcomer, ALICE, *whose)));
    entry.complete();
    assert!(!awaited.iter().any(|whose| is_awaited(newcomer, ALICE, *whose)));
    assert_eq!(users(&members_at(newcomer, at_join)), [ALICE, BOB, CARL, DORA]);
    assert_eq!(users(&members_at(newcomer, at_end)), [ALICE, BOB, CARL, DORA, FRED]);
    newcomer.is_sound();
}

#[test]
fn what_was_withdrawn_is_no_membership_of_the_time_either() {
    let banned = Banned::new();
    let Entry { newcomer, join, .. } = &banned.entry;
    let renamed = json!({"membership": "join", "displayname": "Carl"});
    let renamed = banned.carls("m.room.member", Some(CARL), renamed, &[&join.event_id], 30);
    assert!(accepted(&newcomer.receive(&[&renamed])));
    let (then, _) = sync(newcomer, None);
    assert!(ids(&members_at(newcomer, then)).contains(&&*renamed.event_id));
    banned.entry.complete();
    assert_eq!(newcomer.status(&renamed.event_id), Some(EventStatus::Rejected));
    let ban = newcomer.state("m.room.member", CARL).unwrap();
    let members = members_at(newcomer, then);
    assert_eq!(users(&members), [ALICE, BOB, CARL, DORA]);
    assert!(ids(&members).contains(&&*ban));
}

#[test]
fn who_has_left_waits_for_no_members() {
    let resident = Scene::new();
    let state = state_of(&resident);
    let join = resident.world.join(ROOM, ERIN);
    let join = resident.world.ask(|reader| {
        let event = reader.event(reader.event_num(&join)?.unwrap())?;
        Ok(Pdu::clone(&*event.pdu()?))
    });
    let newcomer = Entry::with(resident, join, state).newcomer;
    let stranger = AwaitedMembers { room_id: ROOM, user: "@stranger:here.example", whose: Whose::Everybody };
    assert!(newcomer.world.engine.read(&stranger).is_err());
    assert!(is_awaited(&newcomer, ALICE, Whose::Everybody) && is_awaited(&newcomer, ERIN, Whose::User(BOB)));
    newcomer.world.leave(ROOM, ERIN);
    assert!(!is_awaited(&newcomer, ERIN, Whose::Everybody) && is_awaited(&newcomer, ALICE, Whose::Everybody));
    // Nobody tells a server what it is not in.
    newcomer.world.leave(ROOM, ALICE);
    assert!(!is_awaited(&newcomer, ALICE, Whose::Everybody));
}

/// The next position, and whose memberships come with the state, for a client that loads members lazily.
fn lazily(scene: &Scene, since: Option<SyncToken>, limit: usize) -> (SyncToken, Vec<String>) {
    let filter = json!({"room": {"state": {"lazy_load_members": true}, "timeline": {"limit": limit}}});
    let filter = Filter::parse(filter.to_string().as_bytes()).unwrap();
    let (token, room) = sync_with(scene, since, filter);
    (token, users(&room["state"]["events"]).into_iter().map(str::to_owned).collect())
}

#[test]
fn who_speaks_while_members_are_missing_comes_with_their_membership() {
    let resident = Scene::new();
    let carl = resident.member(CARL, CARL, "join", &strs(&resident.ends()), 20);
    assert!(accepted(&resident.receive(&[&carl])));
    let entry = Entry::new(resident);
    let Entry { resident, newcomer, join, .. } = &entry;
    entry.store_members();
    let (since, told) = lazily(newcomer, None, 10);
    assert!(!told.contains(&CARL.to_owned()));
    let one = resident.message(CARL, &[&join.event_id], 22);
    let other = resident.message(CARL, &[&one.event_id], 23);
    assert!(accepted(&newcomer.receive(&[&one, &other])));
    let tells_of_carl = |since, limit| {
        let (next, told) = lazily(newcomer, since, limit);
        (next, told.contains(&CARL.to_owned()))
    };
    assert!(tells_of_carl(None, 10).1);
    // Another who asks the same at the same time is told the same.
    assert!(tells_of_carl(Some(since), 10).1 && tells_of_carl(Some(since), 10).1);
    let (next, is_told) = tells_of_carl(Some(since), 1);
    assert!(is_told);
    let filter = || RoomEventFilter::parse(br#"{"lazy_load_members":true}"#).unwrap();
    let messages = Messages {
        room_id: ROOM.into(),
        user: ALICE.into(),
        device: None,
        from: None,
        to: None,
        forwards: false,
        limit: Some(2),
        filter: filter(),
    };
    let event = OneEvent {
        room_id: ROOM.into(),
        event_id: one.event_id.to_string(),
        user: ALICE.into(),
        device: None,
    };
    let context = EventContext { event, limit: Some(1), filter: filter() };
    let engine = &newcomer.world.engine;
    for answer in [engine.read(&messages).unwrap(), engine.read(&context).unwrap()] {
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(users(&answer["state"]), [CARL], "{answer}");
    }
    // Once is enough, until all are told of.
    let last = resident.message(CARL, &[&other.event_id], 24);
    assert!(accepted(&newcomer.receive(&[&last])));
    let (next, is_told) = tells_of_carl(Some(next), 10);
    assert!(!is_told);
    entry.complete();
    assert!(tells_of_carl(Some(next), 10).1 && tells_of_carl(None, 10).1);
}

#[test]
fn what_is_not_allowed_after_all_is_withdrawn_with_everything_that_it_wrote() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, .. } = &banned.entry;
    // Of all this only Bob's messages are allowed.
    let first = resident.message(BOB, &[&join.event_id], 30);
    let relates_to = json!({"rel_type": "m.thread", "event_id": first.event_id});
    let reply = json!({"msgtype": "m.text", "body": "in the thread", "m.relates_to": relates_to});
    let reply = banned.carls("m.room.message", None, reply, &[&first.event_id], 31);
    let own_topic = banned.carls("m.room.topic", Some(""), json!({"topic": "mine"}), &[&reply.event_id], 32);
    let second = resident.message(BOB, &[&own_topic.event_id], 33);
    let last = json!({"msgtype": "m.text", "body": "the last word"});
    let last = banned.carls("m.room.message", None, last, &[&second.event_id], 34);
    assert!(accepted(&newcomer.receive(&[&first, &reply, &own_topic, &second, &last])));
    assert_eq!(newcomer.state("m.room.topic", ""), Some(own_topic.event_id.to_string()));
    read(newcomer, ALICE, &first.event_id);
    read(newcomer, DORA, &last.event_id);
    let (since, room) = sync(newcomer, None);
    assert_eq!(room["unread_notifications"]["notification_count"], 3, "{room}");
    newcomer.is_sound();

    banned.entry.complete();
    for (pdu, status) in [
        (&first, EventStatus::Accepted),
        (&reply, EventStatus::Rejected),
        (&own_topic, EventStatus::Rejected),
        (&second, EventStatus::Accepted),
        (&last, EventStatus::Rejected),
    ] {
        assert_eq!(newcomer.status(&pdu.event_id), Some(status), "{:?}", pdu.content);
    }
    let left = [&join.event_id, &first.event_id, &second.event_id].map(|event_id| event_id.to_string());
    assert!(newcomer.timeline().ends_with(&left), "{:?}", newcomer.timeline());
    assert_eq!(newcomer.ends(), [second.event_id.to_string()]);
    assert_eq!(newcomer.state("m.room.topic", ""), Some(banned.topic.clone()));
    newcomer.is_sound();
    // Clients that were told of it are told what stands instead.
    let (_, room) = sync(newcomer, Some(since));
    assert!(ids(&room["state"]["events"]).contains(&&*banned.topic), "{room}");
    assert_eq!(room["unread_notifications"]["notification_count"], 1, "{room}");
    // And the room goes on from there.
    let next = newcomer.world.message(ROOM, ALICE, "and on");
    assert_eq!(newcomer.ends(), [next]);
    newcomer.is_sound();
}

#[test]
fn who_names_what_is_withdrawn_is_withdrawn_too() {
    let mut banned = Banned::new();
    let (create, join) = (banned.auth[0].clone(), banned.entry.join.event_id.clone());
    let levels = json!({"users": {ALICE: 100, BOB: 50, CARL: 50}, "kick": 40});
    let levels = banned.carls("m.room.power_levels", Some(""), levels, &[&join], 30);
    let Entry { resident, newcomer, .. } = &banned.entry;
    // Bob's message is allowed by all but what it says itself.
    let bob = resident.state("m.room.member", BOB).unwrap();
    banned.auth = [create, levels.event_id.to_string(), bob];
    let message = resident.peer.make(Draft {
        sender: BOB,
        kind: "m.room.message",
        state_key: None,
        content: json!({"body": "by Carl's levels"}),
        prev: vec![&levels.event_id],
        auth: strs(&banned.auth),
        depth: 31,
    });
    assert!(accepted(&newcomer.receive(&[&levels, &message])));
    banned.entry.complete();
    let newcomer = &banned.entry.newcomer;
    assert_eq!(newcomer.status(&message.event_id), Some(EventStatus::Rejected));
    assert_eq!(newcomer.ends(), [join.to_string()]);
    newcomer.is_sound();
}

#[test]
fn a_gap_before_what_is_withdrawn_is_handed_on() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, state } = &banned.entry;
    // A state that lacks the ban, too.
    let state = state.iter().filter(|pdu| pdu.state_key.as_deref() != Some(CARL));
    let known = resident.message(BOB, &[&join.event_id], 30);
    let missing = resident.message(BOB, &[&join.event_id], 31);
    let content = json!({"msgtype": "m.text", "body": "behind a gap"});
    let both = [&*known.event_id, &*missing.event_id];
    let behind = banned.carls("m.room.message", None, content, &both, 32);
    let next = resident.message(BOB, &[&behind.event_id], 33);
    let state = state.map(|pdu| pdu.event_id.clone()).collect();
    let received = newcomer.write(ReceivePdus {
        pdus: newcomer.check(&[&known, &behind, &next]),
        states: vec![GivenState { event_id: behind.event_id.clone(), state }],
        ..ReceivePdus::default()
    });
    assert!(accepted(&received), "{received:?}");
    newcomer.is_sound();
    banned.entry.complete();
    assert_eq!(newcomer.status(&behind.event_id), Some(EventStatus::Rejected));
    fill_gap(newcomer, &next, &missing);
}

#[test]
fn what_was_rejected_meanwhile_does_not_keep_the_room_from_becoming_whole() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, .. } = &banned.entry;
    let content = json!({"users": {ALICE: 0, CARL: 100}});
    let rejected = banned.carls("m.room.power_levels", Some(""), content, &[&join.event_id], 30);
    let received = newcomer.receive(&[&rejected]);
    assert!(matches!(received.outcomes[..], [(_, Outcome::Rejected(_))]), "{received:?}");
    banned.entry.complete();
    let after = resident.message(BOB, &[&rejected.event_id], 31);
    assert!(accepted(&newcomer.receive(&[&after])));
    let is_partial = newcomer.world.ask(|reader| Ok(RoomCtx::load(reader, ROOM)?.head.partial_state));
    assert!(!is_partial);
    newcomer.is_sound();
}

#[test]
fn a_room_that_was_not_to_be_entered_is_left() {
    let resident = Scene::new();
    let join = resident.member(DORA, DORA, "join", &strs(&resident.ends()), DORAS_DEPTH);
    resident.world.member(ROOM, ALICE, DORA, "ban").unwrap();
    let entry = Entry::by(resident, join);
    let Entry { newcomer, join, .. } = &entry;
    entry.store_members();
    assert!(newcomer.is_joined(DORA) && newcomer.is_joined(ALICE));
    entry.complete();
    assert_eq!(newcomer.status(&join.event_id), Some(EventStatus::Rejected));
    assert!(!newcomer.is_joined(DORA) && !newcomer.is_joined(ALICE));
    assert!(newcomer.world.ask(|reader| Ok(RoomCtx::find(reader, ROOM)?.is_none())));
    newcomer.is_sound();
}

#[test]
fn joins_of_several_stays_become_whole_in_any_order() {
    for earlier_first in [true, false] {
        come_twice(earlier_first);
    }
}

fn come_twice(earlier_first: bool) {
    let pdu = |scene: &Scene, event_id: &str| {
        scene.world.ask(|reader| Ok(Pdu::clone(&*reader.event(reader.event_num(event_id)?.unwrap())?.pdu()?)))
    };
    let resident = Scene::new();
    let state = state_of(&resident);
    let join = resident.world.join(ROOM, ERIN);
    let join = pdu(&resident, &join);
    let entry = Entry::with(resident, join, state);
    let Entry { resident, newcomer, .. } = &entry;
    // She leaves, others speak unheard, she comes back.
    let leave = newcomer.world.leave(ROOM, ERIN);
    assert!(accepted(&resident.receive(&[&pdu(newcomer, &leave)])));
    newcomer.world.deliver("there.example");
    resident.world.message(ROOM, ALICE, "unheard");
    let state = state_of(resident);
    let again = pdu(resident, &resident.world.join(ROOM, ERIN));
    entry.enter(&again, &state);
    let is_partial = || newcomer.world.ask(|reader| Ok(RoomCtx::load(reader, ROOM)?.head.partial_state));
    let waiting = || {
        let rooms = newcomer.world.engine.read(&PartialRooms).unwrap();
        rooms.into_iter().map(|room| room.join_event_id).collect::<Vec<_>>()
    };
    entry.store_members();
    assert_eq!(waiting(), [again.event_id.to_string()]);
    match earlier_first {
        true => {
            entry.complete();
            assert!(is_partial() && !newcomer.is_joined(BOB));
            assert_eq!(waiting(), [again.event_id.to_string()]);
            entry.complete_by(&again, &state);
        }
        false => {
            entry.complete_by(&again, &state);
            assert!(!is_partial() && newcomer.is_joined(BOB));
            assert_eq!(waiting(), [entry.join.event_id.to_string()]);
            entry.complete();
        }
    }
    assert!(!is_partial() && newcomer.is_joined(BOB));
    assert!(waiting().is_empty());
    newcomer.is_sound();
}
