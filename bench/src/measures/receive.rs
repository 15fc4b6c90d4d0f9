//! Taking in events of other servers, on an engine in this process: what it costs in a small and in a huge room, and how fast
//! a huge room is entered.
//!
//! A server that is not there makes the events; they are checked, judged and stored as those of real ones are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use warren_engine::command::{EnterRoom, ReceivePdus, StoreOutliers, StoreServerKeys};
use warren_engine::core::checked::{CheckedPdu, PduCheck};
use warren_engine::core::event::{EventBuilder, EventReference, KeyPair, Pdu, verify_content_hash};
use warren_engine::core::version::RoomVersion;
use warren_engine::remote::ServerKey;
use warren_engine::view::CheckPdus;
use warren_engine::{Durability, Engine, Options, Outcome};

use crate::context::{Context, Figure};
use crate::error::{Error, Result};

/// Members of the huge room, and of the small one.
const HUGE: usize = 100_000;
const SMALL: usize = 100;
/// Outliers in one command: a batch of a few hundred kilobytes.
const CHUNK: usize = 500;
/// Events measured one by one in each room.
const EVENTS: usize = 2_000;
/// Bytes for the engine's caches, and for the store.
const CACHE_BYTES: usize = 256 << 20;
const STORE_BYTES: usize = 256 << 20;
const SERVER: &str = "there.example";
const ROOM: &str = "!room:there.example";
const CREATOR: &str = "@creator:there.example";

fn version() -> Result<&'static RoomVersion> {
    RoomVersion::get("11").ok_or(Error::Needs("room version 11"))
}

fn engine_error(error: impl std::fmt::Display) -> Error {
    Error::Implausible(error.to_string())
}

/// The server that makes the events.
struct Peer {
    key: KeyPair,
    create: Arc<str>,
    power_levels: Arc<str>,
    join_rules: Arc<str>,
    creator: Arc<str>,
    /// The last event.
    last: Arc<str>,
    depth: u64,
}

impl Peer {
    fn make(
        &mut self,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        auth: &[Arc<str>],
    ) -> Result<Pdu> {
        let reference = |id: &Arc<str>| EventReference::from(id.clone());
        self.depth += 1;
        let builder = EventBuilder {
            room_id: Some(ROOM.into()),
            sender: sender.into(),
            kind: kind.into(),
            state_key: state_key.map(Arc::from),
            content: content.as_object().cloned().unwrap_or_default(),
            redacts: None,
            prev_events: (self.depth > 1).then(|| reference(&self.last)).into_iter().collect(),
            auth_events: auth.iter().map(reference).collect(),
            depth: self.depth,
            origin_server_ts: 1_700_000_000_000 + self.depth,
            event_id_localpart: None,
        };
        let pdu = builder.build(version()?, SERVER, &self.key).map_err(engine_error)?;
        self.last = pdu.event_id.clone();
        Ok(pdu)
    }

    /// A room with its creator and `members` others: the events of its state, oldest first.
    fn room(members: usize) -> Result<(Self, Vec<Pdu>)> {
        let key = KeyPair::from_seed("1", &[5; 32]).map_err(engine_error)?;
        let none: Arc<str> = "".into();
        let mut peer = Peer {
            key,
            create: none.clone(),
            power_levels: none.clone(),
            join_rules: none.clone(),
            creator: none.clone(),
            last: none,
            depth: 0,
        };
        let mut state = Vec::with_capacity(members + 4);
        let create = peer.make(CREATOR, "m.room.create", Some(""), json!({"room_version": "11"}), &[])?;
        peer.create = create.event_id.clone();
        let joined = json!({"membership": "join"});
        let auth = [peer.create.clone()];
        let creator = peer.make(CREATOR, "m.room.member", Some(CREATOR), joined.clone(), &auth)?;
        peer.creator = creator.event_id.clone();
        let auth = [peer.create.clone(), peer.creator.clone()];
        let levels = json!({"users": {CREATOR: 100}, "events_default": 0, "state_default": 0});
        let levels = peer.make(CREATOR, "m.room.power_levels", Some(""), levels, &auth)?;
        peer.power_levels = levels.event_id.clone();
        let auth = [peer.create.clone(), peer.power_levels.clone(), peer.creator.clone()];
        let rules = json!({"join_rule": "public"});
        let rules = peer.make(CREATOR, "m.room.join_rules", Some(""), rules, &auth)?;
        peer.join_rules = rules.event_id.clone();
        state.extend([create, creator, levels, rules]);
        for number in 0..members {
            state.push(peer.join(&format!("@member-{number}:{SERVER}"))?);
        }
        Ok((peer, state))
    }

    fn join(&mut self, user_id: &str) -> Result<Pdu> {
        let auth = [self.create.clone(), self.power_levels.clone(), self.join_rules.clone()];
        let content = json!({"membership": "join", "displayname": user_id});
        self.make(user_id, "m.room.member", Some(user_id), content, &auth)
    }

    fn by_creator(&mut self, kind: &str, state_key: Option<&str>, content: Value) -> Result<Pdu> {
        let auth = [self.create.clone(), self.power_levels.clone(), self.creator.clone()];
        self.make(CREATOR, kind, state_key, content, &auth)
    }
}

/// An engine that has entered the room.
struct Resident {
    engine: Engine,
    peer: Peer,
    directory: PathBuf,
}

/// How long entering took.
struct Entered {
    /// Parsing and hashing.
    parsing: Duration,
    /// Judging and storing.
    storing: Duration,
}

impl Resident {
    fn enter(ctx: &Context, name: &str, members: usize) -> Result<(Self, Entered)> {
        let directory = ctx.disk.join(name);
        let mut options = Options::new("here.example");
        options.cache_bytes = CACHE_BYTES;
        options.durability = Durability::Commit;
        let engine = Engine::open_embedded(&directory, STORE_BYTES, options).map_err(engine_error)?;
        let (mut peer, state) = Peer::room(members)?;
        let join = peer.join("@first:there.example")?;
        let key = ServerKey {
            key_id: peer.key.key_id().to_owned(),
            public_key: peer.key.public_key().to_vec(),
            valid_until_ts: u64::MAX / 2,
            is_old: false,
        };
        let keys = StoreServerKeys { server_name: SERVER.to_owned(), keys: vec![key] };
        engine.write(keys).wait().map_err(engine_error)?;
        let json: Vec<Bytes> = state.iter().map(|pdu| pdu.json.clone()).collect();
        let ids: Vec<Arc<str>> = state.iter().map(|pdu| pdu.event_id.clone()).collect();
        drop(state);
        let parsing = parse(&json)?;
        let checked = check(&engine, &json)?;
        let join = check(&engine, &[join.json])?.remove(0);
        let begun = Instant::now();
        let mut pending = Vec::new();
        for chunk in checked.chunks(CHUNK) {
            let pdus = chunk.to_vec();
            // The next is judged while this one is written.
            pending.push(engine.write(StoreOutliers { room_id: ROOM.into(), version: version()?, pdus }));
        }
        for stored in pending {
            let stored = stored.wait().map_err(engine_error)?;
            if stored.outcomes.iter().any(|(_, outcome)| *outcome != Outcome::Stored) {
                return Err(Error::Implausible("an event of the state was not stored".to_owned()));
            }
        }
        let enter = EnterRoom { room_id: ROOM.into(), version: version()?, join, state: ids, partial: None };
        let (outcome, _) = engine.write(enter).wait().map_err(engine_error)?;
        if outcome != Outcome::Accepted {
            return Err(Error::Implausible(format!("the join: {outcome:?}")));
        }
        let storing = begun.elapsed();
        Ok((Self { engine, peer, directory }, Entered { parsing, storing }))
    }

    /// Takes in events one after the other, and returns the median time of one in microseconds.
    fn take_in(&mut self, make: impl Fn(&mut Peer, usize) -> Result<Pdu>) -> Result<f64> {
        let pdus = (0..EVENTS).map(|number| make(&mut self.peer, number)).collect::<Result<Vec<_>>>()?;
        let json: Vec<Bytes> = pdus.iter().map(|pdu| pdu.json.clone()).collect();
        let checked = check(&self.engine, &json)?;
        let mut times = Vec::with_capacity(EVENTS);
        let mut pending = Vec::with_capacity(EVENTS);
        for pdu in checked {
            let command = ReceivePdus { room_id: ROOM.into(), pdus: vec![pdu], ..ReceivePdus::default() };
            let begun = Instant::now();
            // Until it is decided: the disk's sync is the same for every room, and shared.
            pending.push(self.engine.write(command));
            times.push(begun.elapsed());
        }
        for received in pending {
            let received = received.wait().map_err(engine_error)?;
            if received.outcomes.iter().any(|(_, outcome)| *outcome != Outcome::Accepted) {
                return Err(Error::Implausible(format!("{:?}", received.outcomes)));
            }
        }
        times.sort_unstable();
        Ok(times.get(times.len() / 2).map_or(0.0, |median| median.as_secs_f64() * 1e6))
    }

    fn messages(&mut self) -> Result<f64> {
        self.take_in(|peer, number| {
            peer.by_creator(
                "m.room.message",
                None,
                json!({"msgtype": "m.text", "body": format!("number {number}")}),
            )
        })
    }

    fn state_events(&mut self) -> Result<f64> {
        self.take_in(|peer, number| {
            peer.by_creator("org.example.state", Some(&format!("{}", number % 50)), json!({"number": number}))
        })
    }

    fn figure(&self, name: &str) -> u64 {
        let figures = self.engine.figures();
        figures.into_iter().find(|(found, _)| *found == name).map_or(0, |(_, value)| value)
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever named the folder.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Parses and hashes on two threads, as a server with two cores does.
fn parse(json: &[Bytes]) -> Result<Duration> {
    let version = version()?;
    let begun = Instant::now();
    let half = json.len().div_ceil(2).max(1);
    let is_good = std::thread::scope(|scope| {
        let parts = json.chunks(half).map(|part| {
            scope.spawn(move || {
                part.iter().all(|json| {
                    Pdu::parse(version, json)
                        .is_ok_and(|pdu| verify_content_hash(&pdu).is_ok_and(|good| good))
                })
            })
        });
        parts.collect::<Vec<_>>().into_iter().all(|part| part.join().is_ok_and(|good| good))
    });
    if is_good { Ok(begun.elapsed()) } else { Err(Error::Implausible("an event does not parse".to_owned())) }
}

fn check(engine: &Engine, json: &[Bytes]) -> Result<Vec<Arc<CheckedPdu>>> {
    let checks = engine.read(&CheckPdus { version: version()?, pdus: json }).map_err(engine_error)?;
    let ready = |check| match check {
        PduCheck::Ready(checked) => Ok(checked),
        other => Err(Error::Implausible(format!("{other:?}"))),
    };
    checks.into_iter().map(ready).collect()
}

/// Takes the measures.
pub async fn run(ctx: &mut Context) -> Result<()> {
    let (mut small, _) = Resident::enter(ctx, "small-room", SMALL)?;
    let (small_message, small_state) = (small.messages()?, small.state_events()?);
    drop(small);
    let (mut huge, entered) = Resident::enter(ctx, "huge-room", HUGE)?;
    let whole = entered.parsing + entered.storing;
    let rate = HUGE as f64 / whole.as_secs_f64();
    let note = format!(
        "parsed and hashed in {:.2} s, judged and stored in {:.2} s",
        entered.parsing.as_secs_f64(),
        entered.storing.as_secs_f64()
    );
    ctx.take(Figure::new("enter-100000", rate).noting(note));
    let message = huge.messages()?;
    let written = huge.figure("bytes_written");
    let state = huge.state_events()?;
    let written = huge.figure("bytes_written").saturating_sub(written);
    let note = |huge: f64, small: f64| format!("{huge:.1} µs, {small:.1} µs in a room of {SMALL}");
    ctx.take(
        Figure::new("receive-message-ratio", message / small_message).noting(note(message, small_message)),
    );
    ctx.take(Figure::new("receive-state-ratio", state / small_state).noting(note(state, small_state)));
    ctx.take(Figure::new("state-event-bytes", written as f64 / EVENTS as f64 / 1024.0));
    Ok(())
}
