//! Rooms of version 1, where whoever sends an event chooses its id: one that stands for an event of one room stands for none of another.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{
    Engine, Options,
    command::{Command, Lanes},
    error::Result,
    fixture::SERVER,
    store::{Backend, Memory, Tx},
};

const OTHER_ROOM: &str = "!other:here.example";

/// Two rooms of one version, in which Alice, of here, and Bob, of there, are.
struct Rooms {
    scene: Scene,
    version: &'static RoomVersion,
}

impl Rooms {
    fn new(version: &str, world: World) -> Self {
        let scene = Scene { world, peer: Peer::new() };
        scene.world.engine.write(scene.peer.keys()).wait().unwrap();
        for room_id in [ROOM, OTHER_ROOM] {
            match version {
                "1" => scene.world.room_of_version_1(room_id, ALICE),
                _ => scene.world.room(room_id, ALICE, None),
            }
            scene.world.join(room_id, BOB);
        }
        Self { scene, version: RoomVersion::get(version).unwrap() }
    }

    fn state(&self, room_id: &str) -> Vec<Arc<str>> {
        self.scene.world.ask(|reader| {
            let room = RoomCtx::load(reader, room_id)?;
            let entries = reader.state_entries(room.num, room.head.state)?;
            entries.into_iter().map(|(_, num)| Ok(reader.event(num)?.event_id.clone())).collect()
        })
    }

    /// An event that is called `name`, if it can be, and follows what is said, or where the room ends.
    fn called(
        &self,
        (name, room_id): (&str, &str),
        (sender, kind, content): (&str, &str, Value),
        allowing: [(&str, &str); 2],
        prev: Option<&str>,
    ) -> Arc<CheckedPdu> {
        let (auth, ends) = self.scene.world.ask(|reader| {
            let room = RoomCtx::load(reader, room_id)?;
            let mut auth = Vec::new();
            for (kind, state_key) in allowing {
                auth.extend(room.state(reader, kind, state_key)?.map(|event| event.event_id.clone()));
            }
            let ends = room.head.extremities.iter().map(|(_, event_id)| Arc::<str>::from(event_id.as_str()));
            Ok((auth, ends.collect::<Vec<Arc<str>>>()))
        });
        let prev = prev.map_or(ends, |prev| vec![prev.into()]);
        let builder = EventBuilder {
            room_id: Some(room_id.into()),
            sender: sender.into(),
            kind: kind.into(),
            state_key: (kind == "m.room.member").then(|| sender.into()),
            content: content.as_object().cloned().unwrap(),
            redacts: None,
            prev_events: prev.into_iter().map(EventReference::from).collect(),
            auth_events: auth.into_iter().map(EventReference::from).collect(),
            depth: 20,
            origin_server_ts: START_MS,
            event_id_localpart: Some(name.to_owned()),
        };
        let json = [builder.build(self.version, "there.example", &self.scene.peer.key).unwrap().json];
        let view = CheckPdus { version: self.version, pdus: &json };
        match self.scene.world.engine.read(&view).unwrap().remove(0) {
            PduCheck::Ready(checked) => checked,
            other => panic!("{other:?}"),
        }
    }

    fn message(&self, (name, room_id): (&str, &str), sender: &str, prev: Option<&str>) -> Arc<CheckedPdu> {
        let content = json!({"msgtype": "m.text", "body": room_id});
        let allowing = [("m.room.create", ""), ("m.room.member", sender)];
        self.called((name, room_id), (sender, "m.room.message", content), allowing, prev)
    }

    /// A join that follows what nobody has.
    fn join(&self, (name, room_id): (&str, &str), user: &str) -> Arc<CheckedPdu> {
        let content = json!({"membership": "join"});
        let allowing = [("m.room.create", ""), ("m.room.join_rules", "")];
        self.called(
            (name, room_id),
            (user, "m.room.member", content),
            allowing,
            Some("$unknown:there.example"),
        )
    }

    fn receive(&self, room_id: &str, command: ReceivePdus) -> Vec<Outcome> {
        let command = ReceivePdus { room_id: room_id.into(), ..command };
        let received = self.scene.world.engine.write(command).wait().unwrap();
        received.outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn receive_live(&self, room_id: &str, pdu: Arc<CheckedPdu>) -> Vec<Outcome> {
        self.receive(room_id, ReceivePdus { pdus: vec![pdu], ..ReceivePdus::default() })
    }

    fn receive_outlier(&self, room_id: &str, pdu: Arc<CheckedPdu>) -> Vec<Outcome> {
        self.receive(room_id, ReceivePdus { outliers: vec![pdu], ..ReceivePdus::default() })
    }

    /// Receives an event of the other room with the state before it, of which the outliers are told to be part as well.
    fn receive_with_state(&self, pdu: Arc<CheckedPdu>, outliers: Vec<Arc<CheckedPdu>>) -> Vec<Outcome> {
        let mut state = self.state(OTHER_ROOM);
        state.extend(outliers.iter().map(|checked| checked.pdu().event_id.clone()));
        let states = vec![GivenState { event_id: pdu.pdu().event_id.clone(), state }];
        self.receive(OTHER_ROOM, ReceivePdus { pdus: vec![pdu], outliers, states, ..ReceivePdus::default() })
    }

    /// The room and the JSON of the event that the id stands for, and what became of it.
    fn stored(&self, event_id: &str) -> (String, EventStatus, Bytes) {
        self.scene.world.ask(|reader| {
            let event = reader.event(reader.event_num(event_id)?.unwrap())?;
            let room_id = reader.room_id(event.header.room)?.to_string();
            Ok((room_id, event.header.status, event.json.clone()))
        })
    }
}

const TAKEN: &str = "$taken:there.example";
const REFUSED: Outcome = Outcome::Refused(Refused::OtherRoom);

/// Takes an event of that id into the first room, which becomes this.
fn take_id(rooms: &Rooms, status: EventStatus) {
    let name = ("taken", ROOM);
    let outcomes = match status {
        EventStatus::Accepted => rooms.receive_live(ROOM, rooms.message(name, BOB, None)),
        EventStatus::Outlier => rooms.receive_outlier(ROOM, rooms.join(name, CARL)),
        // Carl is not in the room.
        _ => rooms.receive_outlier(ROOM, rooms.message(name, CARL, None)),
    };
    let [outcome] = &outcomes[..] else { panic!("{outcomes:?}") };
    let is_as_wanted = match outcome {
        Outcome::Accepted => status == EventStatus::Accepted,
        Outcome::Stored => status == EventStatus::Outlier,
        Outcome::Rejected(_) => status == EventStatus::Rejected,
        _ => false,
    };
    assert!(is_as_wanted, "{status:?}: {outcome:?}");
}

const STATUSES: [EventStatus; 3] = [EventStatus::Accepted, EventStatus::Outlier, EventStatus::Rejected];

#[test]
fn what_is_called_like_an_event_of_another_room_is_refused_however_it_comes() {
    for status in STATUSES {
        let rooms = Rooms::new("1", World::new());
        take_id(&rooms, status);
        let (before, state) = (rooms.stored(TAKEN), rooms.state(OTHER_ROOM));
        assert_eq!((&*before.0, before.1), (ROOM, status));
        let name = ("taken", OTHER_ROOM);
        assert_eq!(rooms.receive_live(OTHER_ROOM, rooms.message(name, BOB, None)), [REFUSED], "{status:?}");
        assert_eq!(rooms.receive_outlier(OTHER_ROOM, rooms.join(name, CARL)), [REFUSED], "{status:?}");
        // Nor does anything follow it.
        let after = rooms.message(("after", OTHER_ROOM), BOB, Some(TAKEN));
        assert_eq!(rooms.receive_with_state(after, Vec::new()), [REFUSED], "{status:?}");
        let after = rooms.message(("told", OTHER_ROOM), BOB, Some("$missing:there.example"));
        let outcomes = rooms.receive_with_state(after, vec![rooms.join(name, CARL)]);
        assert_eq!(outcomes, [REFUSED, Outcome::Accepted], "{status:?}");
        assert_eq!((rooms.stored(TAKEN), rooms.state(OTHER_ROOM)), (before, state), "{status:?}");
        rooms.scene.is_sound();
    }
}

#[test]
fn what_is_missing_in_a_room_is_not_what_another_room_has_of_that_id() {
    for status in STATUSES {
        let rooms = Rooms::new("1", World::new());
        let after = rooms.message(("after", OTHER_ROOM), BOB, Some(TAKEN));
        let after_id = after.pdu().event_id.clone();
        assert_eq!(rooms.receive_with_state(after, Vec::new()), [Outcome::Accepted]);
        take_id(&rooms, status);
        let before = rooms.stored(TAKEN);
        let pdus = vec![rooms.message(("taken", OTHER_ROOM), BOB, None)];
        let past = ReceivePdus { pdus, backfill: true, ..ReceivePdus::default() };
        assert_eq!(rooms.receive(OTHER_ROOM, past), [REFUSED], "{status:?}");
        assert_eq!(rooms.stored(TAKEN), before, "{status:?}");
        let missing = rooms.scene.world.ask(|reader| {
            let event = reader.event(reader.event_num(&after_id)?.unwrap())?;
            Ok(gap::missing_before(reader, event.header.room, event.pos())?)
        });
        assert_eq!(missing, [TAKEN], "{status:?}");
        rooms.scene.is_sound();
    }
}

/// How often a command had to wait for another one.
static WAITS: AtomicUsize = AtomicUsize::new(0);

/// Decides, and writes nothing before the other one has decided as well, or waits for this one.
struct Slow<'a> {
    command: ReceivePdus,
    decided: &'a AtomicUsize,
    waits_before: usize,
}

impl Command for Slow<'_> {
    type Output = Received;

    fn lanes(&self) -> Lanes {
        self.command.lanes()
    }

    fn run(&self, tx: &mut Tx) -> Result<Received> {
        let received = self.command.run(tx)?;
        self.decided.fetch_add(1, Ordering::Relaxed);
        while self.decided.load(Ordering::Relaxed) + WAITS.load(Ordering::Relaxed) - self.waits_before < 2 {
            std::thread::yield_now();
        }
        Ok(received)
    }
}

/// Takes a message of one name into either room at once. What became of each, and how often one waited for the other.
fn at_once(version: &str) -> (Vec<Outcome>, usize) {
    let store: Arc<dyn Backend> = Arc::new(Memory::default());
    let rooms = Rooms::new(version, World::on(store.clone()));
    let messages = [ROOM, OTHER_ROOM].map(|room_id| (room_id, rooms.message(("taken", room_id), BOB, None)));
    drop(rooms);
    let mut options = Options::new(SERVER);
    options.wait = |work| {
        WAITS.fetch_add(1, Ordering::Relaxed);
        work();
    };
    let engine = Engine::open(store, options).unwrap();
    let (decided, waits_before) = (AtomicUsize::new(0), WAITS.load(Ordering::Relaxed));
    let mut outcomes = Vec::new();
    std::thread::scope(|scope| {
        let (engine, decided) = (&engine, &decided);
        let takers = messages.map(|(room_id, message)| {
            let pdus = vec![message];
            let command = ReceivePdus { room_id: room_id.into(), pdus, ..ReceivePdus::default() };
            scope.spawn(move || engine.write(Slow { command, decided, waits_before }).wait().unwrap())
        });
        for taker in takers {
            outcomes.extend(taker.join().unwrap().outcomes.into_iter().map(|(_, outcome)| outcome));
        }
    });
    assert_eq!(engine.read(&Check { progress: &|_, _| () }).unwrap().findings, []);
    (outcomes, WAITS.load(Ordering::Relaxed) - waits_before)
}

#[test]
fn of_two_of_one_name_that_come_at_once_one_room_has_the_first() {
    let (outcomes, waits) = at_once("1");
    assert!(
        outcomes == [Outcome::Accepted, REFUSED] || outcomes == [REFUSED, Outcome::Accepted],
        "{outcomes:?}"
    );
    assert_eq!(waits, 1);
    // Where ids are hashes, rooms are taken care of side by side.
    assert_eq!(at_once("10"), (vec![Outcome::Accepted, Outcome::Accepted], 0));
}
