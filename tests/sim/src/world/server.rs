//! One simulated server: an engine on a disk with faults, with a clock and randomness of its own.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use warren_engine::{
    Clock, Command, Committer, Engine, Options, account::NewSession, check::Check, command::Register,
    delivery::Delivery,
};

use super::{Breach, devices::Follow};
use crate::{
    client::Client,
    dice::ServerRandom,
    disk::Disk,
    plan::{Plan, Trouble, USERS_PER_SERVER},
};

/// Names of servers, by index.
pub const SERVER_NAMES: [&str; crate::plan::SERVERS_MAX] = ["one", "two", "three", "four", "five"];
/// Names of users, by number.
pub const USER_NAMES: [&str; USERS_PER_SERVER] = ["a", "b"];
/// The device of every user.
pub const DEVICE: &str = "D";
/// When runs begin, in milliseconds since the epoch.
const START_MS: u64 = 1_600_000_000_000;
/// Bytes for the engine's caches: small, so that what is read comes from the disk too.
const CACHE_BYTES: usize = 1 << 18;

/// A clock that goes on only when it is told to.
pub struct SimClock(AtomicU64);

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A server.
pub struct Server {
    /// Its name.
    pub name: &'static str,
    /// Its disk.
    pub disk: Arc<Disk>,
    /// Its clients, one for each user.
    pub clients: Vec<Client>,
    /// What it is bringing to others, by server; in memory, so that a crash ends it.
    pub deliveries: Mutex<BTreeMap<usize, Delivery>>,
    /// Whose devices it is asking for.
    pub follow: Mutex<Follow>,
    clock: Arc<SimClock>,
    random: Arc<ServerRandom>,
    engine: Mutex<Arc<Engine>>,
}

/// Why a handling did not come to its end.
#[derive(Debug)]
pub enum Stopped {
    /// The server has died; whoever asked gets no answer.
    Crashed,
    /// What the engine says.
    Failed(warren_engine::Error),
}

impl Server {
    /// A new server with its users. `forgets`: see [`Disk::new`].
    pub fn new(plan: &Plan, index: usize, forgets: bool) -> Result<Self, Breach> {
        let name = SERVER_NAMES[index];
        let disk = Arc::new(Disk::new(forgets));
        let clock = Arc::new(SimClock(AtomicU64::new(START_MS)));
        let random = Arc::new(ServerRandom::new(plan.seed, index));
        let engine = Mutex::new(open(name, &disk, &clock, &random)?);
        let (deliveries, follow, clients) = (Mutex::default(), Mutex::default(), Vec::new());
        let server = Self { name, disk, clients, deliveries, follow, clock, random, engine };
        for localpart in USER_NAMES {
            let device_id = Some(DEVICE.to_owned());
            let session = Some(NewSession { device_id, ..NewSession::default() });
            let register = Register { localpart: localpart.to_owned(), session, ..Register::default() };
            server.engine().write(register).wait().map_err(|error| Breach::new("start", error))?;
        }
        server.disk.settle();
        let engine = server.engine();
        let client = |(number, user)| {
            let mut client = Client::new(format!("@{user}:{name}"), number, plan.servers > 1);
            // It is there before anybody has devices, so that whatever comes of them is told.
            client.sync(&engine).map(|_| client)
        };
        let clients = USER_NAMES.iter().enumerate().map(client).collect::<Result<_, _>>()?;
        Ok(Self { clients, ..server })
    }

    /// The engine as it runs now.
    pub fn engine(&self) -> Arc<Engine> {
        self.engine.lock().clone()
    }

    /// Writes, as far as the server lives.
    pub fn write<C: Command>(&self, command: C) -> Result<C::Output, Stopped> {
        let result = self.engine().write(command).wait();
        match result {
            // What is known only after the crash is known to nobody.
            _ if self.disk.has_crashed() => Err(Stopped::Crashed),
            Ok(output) => Ok(output),
            Err(error) => Err(Stopped::Failed(error)),
        }
    }

    /// Lets a fault happen to a later commit.
    pub fn arm(&self, trouble: Option<Trouble>) {
        if let Some(Trouble { skipped, fault }) = trouble {
            self.disk.arm(skipped, fault);
        }
    }

    /// Starts again after a crash, from what was durable, and looks whether all is sound.
    pub fn restart(&self) -> Result<(), Breach> {
        self.deliveries.lock().clear();
        *self.follow.lock() = Follow::default();
        self.disk.restart();
        *self.engine.lock() = open(self.name, &self.disk, &self.clock, &self.random)?;
        self.check()
    }

    /// Whether everything that is stored agrees with itself.
    pub fn check(&self) -> Result<(), Breach> {
        let report = self.engine().read(&Check { progress: &|_, _| {} });
        let report = report.map_err(|error| Breach::new("check", error))?;
        match report.findings.first() {
            None => Ok(()),
            Some(first) => {
                let more = report.findings.len() - 1;
                Err(Breach::new("check", format!("on {}: {first} (and {more} more findings)", self.name)))
            }
        }
    }

    /// Moves the clock, never before the epoch.
    pub fn move_clock(&self, ms: i64) {
        let _ = self
            .clock
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_add_signed(ms)));
    }
}

fn open(
    name: &str,
    disk: &Arc<Disk>,
    clock: &Arc<SimClock>,
    random: &Arc<ServerRandom>,
) -> Result<Arc<Engine>, Breach> {
    let mut options = Options::new(name);
    options.cache_bytes = Some(CACHE_BYTES);
    options.clock = clock.clone();
    options.random = random.clone();
    options.committer = Committer::Inline;
    let engine = Engine::open(disk.clone(), options);
    Ok(Arc::new(engine.map_err(|error| Breach::new("start", format!("{name} does not start: {error}")))?))
}
