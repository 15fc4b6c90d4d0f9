//! A room of one server is entered by another, with its members' rows prepared.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    Membership, Outcome,
    check::Check,
    command::{
        CarrySettings, Deactivate, EndDeactivation, EnterRoom, ReceiveEdus, ReceivePdus, StoreOutliers,
        StoreServerKeys,
    },
    core::{
        checked::{CheckedPdu, PduCheck, Refused},
        event::EventBuilder,
        num::EventNum,
        version::RoomVersion,
    },
    device::tests::register,
    fixture::{START_MS, World, observed::Observed},
    remote::ServerKey,
    room::{RoomCtx, graph::auth_chain},
    store::{Backend, Memory, Tx, schema},
    view::{CheckPdus, Deactivations, Sync, UncarriedSettings, UncarriedSettingsIn},
};

const ROOM: &str = "!room:there.example";
const CREATOR: &str = "@creator:there.example";

/// The server that is in the room.
struct Resident(World);

/// What it tells of the room to whom it lets in.
struct Told {
    /// The state and its auth chain.
    events: Vec<Bytes>,
    /// The ids of the state.
    ids: Vec<Arc<str>>,
    join: Bytes,
}

fn version() -> &'static RoomVersion {
    RoomVersion::get("10").unwrap()
}

fn member(number: usize) -> String {
    format!("@member-{number}:there.example")
}

impl Resident {
    fn new(members: usize) -> Self {
        let world = World::named("there.example");
        world.room(ROOM, CREATOR, None);
        (0..members).for_each(|number| drop(world.join(ROOM, &member(number))));
        Self(world)
    }

    /// Lets a user in, and tells the state before that.
    fn let_in(&self, user_id: &str) -> Told {
        let (events, ids) = self.0.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            let entries = reader.state_entries(room.num, room.head.state)?;
            let state: Vec<EventNum> = entries.into_iter().map(|(_, num)| num).collect();
            let mut all = auth_chain(reader, room.num, state.clone())?;
            all.extend(&state);
            all.sort_unstable();
            all.dedup();
            let events = reader.events(&all)?.iter().map(|event| event.json.clone()).collect();
            let ids = reader.events(&state)?.iter().map(|event| event.event_id.clone()).collect();
            Ok((events, ids))
        });
        let join = self.0.join(ROOM, user_id);
        let join = self.0.ask(|reader| {
            let num = reader.event_num(&join)?.unwrap();
            Ok(reader.event(num)?.json.clone())
        });
        Told { events, ids, join }
    }

    /// A server that knows this one's key.
    fn newcomer(&self, backend: Arc<dyn Backend>) -> World {
        let world = World::on(backend);
        let key = ServerKey {
            key_id: self.0.engine.key_pair().key_id().to_owned(),
            public_key: self.0.engine.key_pair().public_key().to_vec(),
            valid_until_ts: START_MS * 2,
            is_old: false,
        };
        let keys = StoreServerKeys { server_name: "there.example".to_owned(), keys: vec![key] };
        world.engine.write(keys).wait().unwrap();
        world
    }
}

fn checked(world: &World, json: &[Bytes]) -> Vec<Arc<CheckedPdu>> {
    let checks = world.engine.read(&CheckPdus { version: version(), pdus: json }).unwrap();
    let ready = |check| match check {
        PduCheck::Ready(checked) => checked,
        other => panic!("{other:?}"),
    };
    checks.into_iter().map(ready).collect()
}

/// Stores what is told, some at once.
fn store(world: &World, told: &Told) {
    for pdus in checked(world, &told.events).chunks(50) {
        let store = StoreOutliers { room_id: ROOM.to_owned(), version: version(), pdus: pdus.to_vec() };
        assert!(world.engine.write(store).wait().unwrap().missing.is_nothing());
    }
}

fn enter(world: &World, told: &Told, ids: &[Arc<str>], partial: bool) -> Outcome {
    enter_with(world, told, ids, Vec::new(), partial)
}

/// The same, with ends of the room here that the resident had not been told of.
fn enter_with(world: &World, told: &Told, ids: &[Arc<str>], untold: Vec<Arc<str>>, partial: bool) -> Outcome {
    let join = checked(world, std::slice::from_ref(&told.join)).remove(0);
    let enter = EnterRoom {
        room_id: ROOM.to_owned(),
        version: version(),
        join,
        untold,
        state: ids.to_vec(),
        partial: partial.then(Vec::new),
    };
    world.engine.write(enter).wait().unwrap().0
}

fn memberships(world: &World, membership: Membership) -> usize {
    world.ask(|reader| {
        let room = reader.room_num(ROOM)?.unwrap();
        Ok(reader.members(room, membership)?.len())
    })
}

fn findings(world: &World) -> Vec<String> {
    let report = world.engine.read(&Check { progress: &|_, _| {} }).unwrap();
    report.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn no_batch_of_a_join_grows_with_the_room() {
    let resident = Resident::new(400);
    let told = resident.let_in("@first:there.example");
    let backend = Observed::counting();
    let newcomer = resident.newcomer(backend.clone());
    store(&newcomer, &told);
    let largest = backend.observer.take_largest_commit();
    assert_eq!(enter(&newcomer, &told, &told.ids, false), Outcome::Accepted);
    let last = backend.observer.take_largest_commit();
    // With the members' rows it would be some 40 kB.
    assert!(last < largest && last < 10_000, "{last} bytes after batches of {largest}");
    assert_eq!(memberships(&newcomer, Membership::Join), 402);
    let room = newcomer.ask(|reader| Ok(RoomCtx::load(reader, ROOM)?.head));
    assert_eq!(room.joined, 402);
    assert_eq!(findings(&newcomer), [""; 0]);
}

#[test]
fn a_join_that_broke_off_leaves_nothing_wrong_and_is_made_good_by_the_next() {
    let resident = Resident::new(8);
    let broken_off = resident.let_in("@first:there.example");
    let backend = Arc::new(Memory::default());
    let newcomer = resident.newcomer(backend.clone());
    store(&newcomer, &broken_off);
    drop(newcomer);
    let newcomer = World::on(backend);
    assert_eq!(findings(&newcomer), [""; 0]);
    assert!(newcomer.ask(|reader| Ok(RoomCtx::find(reader, ROOM)?)).is_none());
    // The room has changed until it is entered.
    resident.0.leave(ROOM, &member(2));
    resident.0.member(ROOM, CREATOR, &member(3), "ban").unwrap();
    resident.0.leave(ROOM, &member(4));
    resident.0.join(ROOM, &member(4));
    let told = resident.let_in("@second:there.example");
    store(&newcomer, &told);
    assert_eq!(findings(&newcomer), [""; 0]);
    assert_eq!(enter(&newcomer, &told, &told.ids, false), Outcome::Accepted);
    // The creator, six members and the two who were let in.
    assert_eq!(memberships(&newcomer, Membership::Join), 9);
    assert_eq!(memberships(&newcomer, Membership::Leave), 1);
    assert_eq!(memberships(&newcomer, Membership::Ban), 1);
    assert_eq!(findings(&newcomer), [""; 0]);
}

#[test]
fn members_that_the_state_leaves_out_have_no_rows() {
    let resident = Resident::new(5);
    let told = resident.let_in("@first:there.example");
    let newcomer = resident.newcomer(Arc::new(Memory::default()));
    store(&newcomer, &told);
    let is_left_out = |event_id: &Arc<str>| {
        newcomer.ask(|reader| {
            let num = reader.event_num(event_id)?.unwrap();
            Ok(reader.event(num)?.pdu()?.state_key.as_deref() == Some(&*member(1)))
        })
    };
    let ids: Vec<Arc<str>> = told.ids.iter().filter(|id| !is_left_out(id)).cloned().collect();
    assert_eq!(ids.len() + 1, told.ids.len());
    assert_eq!(enter(&newcomer, &told, &ids, true), Outcome::Accepted);
    // The creator, four members and the one who was let in.
    assert_eq!(memberships(&newcomer, Membership::Join), 6);
    assert_eq!(findings(&newcomer), [""; 0]);
}

#[test]
fn who_enters_sees_who_is_known_to_be_there_from_other_rooms() {
    let resident = Resident::new(3);
    let told = resident.let_in("@first:there.example");
    let newcomer = resident.newcomer(Arc::new(Memory::default()));
    let other = "!other:here.example";
    newcomer.room(other, &register(&newcomer, "alice", &[]), None);
    for number in [1, 2] {
        newcomer.join(other, &member(number));
    }
    let update = json!({"user_id": member(1), "presence": "online", "last_active_ago": 1});
    let edu = json!({"edu_type": "m.presence", "content": {"push": [update]}});
    newcomer.engine.write(ReceiveEdus::new("there.example", [&edu])).wait().unwrap();
    store(&newcomer, &told);
    assert_eq!(enter(&newcomer, &told, &told.ids, false), Outcome::Accepted);
    let bob = register(&newcomer, "bob", &[]);
    newcomer.join(ROOM, &bob);
    let sync = Sync {
        user_id: bob,
        device_id: None,
        since: None,
        filter: Default::default(),
        full_state: false,
        state_after: None,
        waits: false,
    };
    let answer: Value = serde_json::from_slice(&newcomer.engine.read(&sync).unwrap().body).unwrap();
    let events = answer["presence"]["events"].as_array().unwrap();
    let senders: Vec<&str> = events.iter().map(|event| event["sender"].as_str().unwrap()).collect();
    assert_eq!(senders, [member(1)]);
}

#[test]
fn it_is_not_forgotten_that_settings_are_to_follow_who_enters() {
    const FIRST: &str = "@first:there.example";
    const SECOND: &str = "@second:there.example";
    let resident = Resident::new(1);
    let told = resident.let_in(FIRST);
    let newcomer = resident.newcomer(Arc::new(Memory::default()));
    // Whose account is here is one of this server's users.
    let have_accounts = |tx: &mut Tx| {
        for user_id in [FIRST, SECOND] {
            let user = tx.intern_user(user_id)?;
            tx.put(&schema::ACCOUNTS, &user, &schema::Account::default());
        }
        Ok(())
    };
    newcomer.act(have_accounts).unwrap();
    store(&newcomer, &told);
    assert_eq!(enter(&newcomer, &told, &told.ids, false), Outcome::Accepted);
    let marked = || {
        let rooms = newcomer.engine.read(&UncarriedSettings).unwrap();
        (rooms, newcomer.engine.read(&UncarriedSettingsIn(ROOM)).unwrap())
    };
    let one = |user_id: &str| (vec![ROOM.to_owned()], vec![user_id.to_owned()]);
    let none = (Vec::new(), Vec::new());
    assert_eq!(marked(), one(FIRST));
    assert_eq!(findings(&newcomer), [""; 0]);
    let carry = |user_id: &str| {
        let carry = CarrySettings { room_id: ROOM.into(), user_id: user_id.into() };
        newcomer.engine.write(carry).wait().unwrap();
    };
    carry(FIRST);
    assert_eq!(marked(), none);
    // The same for a join into a room that is here already, and of nobody else; while it waits there is nothing to be done.
    let other = resident.let_in("@other:there.example");
    let told = resident.let_in(SECOND);
    let receive = |told: &Told| {
        let pdus = checked(&newcomer, std::slice::from_ref(&told.join));
        let receive = ReceivePdus { room_id: ROOM.to_owned(), pdus, ..ReceivePdus::default() };
        newcomer.engine.write(receive).wait().unwrap().outcomes.remove(0).1
    };
    // Who closed their account while they were let in, and whose rooms are left by then, is taken out again.
    let closed = || newcomer.engine.read(&Deactivations).unwrap();
    newcomer.engine.write(Deactivate { user_id: SECOND.into(), erase: false }).wait().unwrap();
    newcomer.engine.write(EndDeactivation { user_id: SECOND.into() }).wait().unwrap();
    assert_eq!((receive(&told), marked()), (Outcome::Waiting, none.clone()));
    assert_eq!((receive(&other), marked()), (Outcome::Accepted, none.clone()));
    assert_eq!((receive(&told), marked()), (Outcome::Accepted, one(SECOND)));
    assert_eq!(closed(), [""; 0]);
    carry(SECOND);
    assert_eq!((closed(), marked()), (vec![SECOND.to_owned()], none));
}

#[test]
fn of_two_events_for_one_entry_one_counts() {
    let resident = Resident::new(3);
    resident.0.leave(ROOM, &member(1));
    let before = resident.let_in("@first:there.example");
    resident.0.join(ROOM, &member(1));
    let mut told = resident.let_in("@second:there.example");
    // No honest server tells of both.
    told.events.extend(before.events);
    told.ids.extend(before.ids);
    let newcomer = resident.newcomer(Arc::new(Memory::default()));
    store(&newcomer, &told);
    assert_eq!(enter(&newcomer, &told, &told.ids, false), Outcome::Accepted);
    let counted = [Membership::Join, Membership::Leave].map(|membership| memberships(&newcomer, membership));
    assert_eq!(counted.iter().sum::<usize>(), 6);
    assert_eq!(findings(&newcomer), [""; 0]);
}

/// Who left here, unheard by the resident, and is let in twice, as where the first answer was lost: of the three memberships resolution
/// takes the latest, wherever it stands.
#[test]
fn an_earlier_join_that_stands_against_the_one_that_enters_makes_a_member() {
    const FIRST: &str = "@first:there.example";
    let resident = Resident::new(1);
    let told = resident.let_in(FIRST);
    let newcomer = resident.newcomer(Arc::new(Memory::default()));
    store(&newcomer, &told);
    assert_eq!(enter(&newcomer, &told, &told.ids, false), Outcome::Accepted);
    let left = newcomer.leave(ROOM, FIRST);
    assert_eq!(memberships(&newcomer, Membership::Leave), 1);
    resident.0.pass_ms(10);
    resident.let_in(FIRST);
    let lost = resident.0.ask(|reader| {
        let room = RoomCtx::load(reader, ROOM)?;
        Ok(room.state(reader, "m.room.member", FIRST)?.unwrap().event_id.clone())
    });
    resident.0.set_back_ms(5);
    let told = resident.let_in(FIRST);
    store(&newcomer, &told);
    let untold = vec![left.as_str().into()];
    assert_eq!(enter_with(&newcomer, &told, &told.ids, untold, false), Outcome::Accepted);
    let stands = newcomer.ask(|reader| {
        let room = RoomCtx::load(reader, ROOM)?;
        Ok(room.state(reader, "m.room.member", FIRST)?.unwrap().event_id.clone())
    });
    assert_eq!(stands, lost);
    assert_eq!(memberships(&newcomer, Membership::Join), 3);
    assert_eq!(memberships(&newcomer, Membership::Leave), 0);
    assert_eq!(findings(&newcomer), [""; 0]);
}

/// Whatever the server said that let a user in. Most events are the same in several versions.
#[test]
fn a_room_is_of_the_version_that_its_create_event_says() {
    let resident = Resident::new(3);
    let told = resident.let_in("@first:there.example");
    let newcomer = resident.newcomer(Arc::new(Memory::default()));
    let other = RoomVersion::get("9").unwrap();
    let pdus = checked(&newcomer, &told.events);
    let is_create = |checked: &&Arc<CheckedPdu>| &*checked.pdu().kind == "m.room.create";
    let create = pdus.iter().find(is_create).unwrap().pdu().event_id.clone();
    let store_as_other = StoreOutliers { room_id: ROOM.to_owned(), version: other, pdus };
    for (event_id, outcome) in newcomer.engine.write(store_as_other).wait().unwrap().outcomes {
        let is_create = event_id == create;
        let expected = if is_create { Outcome::Refused(Refused::OtherVersion) } else { Outcome::Waiting };
        assert_eq!(outcome, expected, "{event_id}");
    }
    // Nothing of it is kept that another server's word would have to do with.
    store(&newcomer, &told);
    let enter_as_other = EnterRoom {
        room_id: ROOM.to_owned(),
        version: other,
        join: checked(&newcomer, std::slice::from_ref(&told.join)).remove(0),
        untold: Vec::new(),
        state: told.ids.clone(),
        partial: None,
    };
    let (outcome, _) = newcomer.engine.write(enter_as_other).wait().unwrap();
    assert_eq!(outcome, Outcome::Refused(Refused::OtherVersion));
    assert_eq!(enter(&newcomer, &told, &told.ids, false), Outcome::Accepted);
    assert_eq!(findings(&newcomer), [""; 0]);
}

/// The rules about create events look at nothing else, so that they would allow it.
#[test]
fn a_room_is_not_created_twice() {
    let resident = Resident::new(3);
    let told = resident.let_in("@first:there.example");
    let newcomer = resident.newcomer(Arc::new(Memory::default()));
    store(&newcomer, &told);
    assert_eq!(enter(&newcomer, &told, &told.ids, false), Outcome::Accepted);
    let state = |world: &World| {
        world.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            let create = reader.state_event(room.num, room.head.state, "m.room.create", "")?.unwrap();
            Ok((room.head.state, room.head.extremities.clone(), create.event_id.clone()))
        })
    };
    let before = state(&newcomer);
    for state_key in ["", "other"] {
        let builder = EventBuilder {
            room_id: Some(ROOM.into()),
            sender: CREATOR.into(),
            kind: "m.room.create".into(),
            state_key: Some(state_key.into()),
            content: serde_json::from_value(json!({ "creator": CREATOR, "m.federate": false })).unwrap(),
            redacts: None,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: START_MS + 9,
            event_id_localpart: None,
        };
        let second = builder.build(version(), "there.example", resident.0.engine.key_pair()).unwrap();
        let pdus = checked(&newcomer, &[second.json]);
        let live = ReceivePdus { room_id: ROOM.to_owned(), pdus, ..ReceivePdus::default() };
        let outlier = ReceivePdus { outliers: live.pdus.clone(), pdus: Vec::new(), ..live.clone() };
        for command in [live, outlier] {
            let received = newcomer.engine.write(command).wait().unwrap();
            let refused = Outcome::Refused(Refused::SecondCreate);
            assert_eq!(received.outcomes, [(second.event_id.clone(), refused)]);
        }
    }
    assert_eq!(state(&newcomer), before);
    assert_eq!(findings(&newcomer), Vec::<String>::new());
}
