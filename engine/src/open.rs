//! Opening: lineage, schema version and server name first; nothing is written until all are right.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    core::{event::KeyPair, identifiers, num::StreamPos},
    engine::{Counters, Options, Random},
    error::{Invalid, Result},
    store::{
        Backend, Change, Family, Read, StorageError, encode_key, next_numbers, read_record, schema,
        write_record,
    },
};

/// What marks a database as Warren's.
const LINEAGE: &[u8] = b"warren";
/// The schema that this code writes and reads. What came before was never released.
const SCHEMA_VERSION: u32 = 2;
/// Positions and numbers are reserved this many at a time, so that the mark is rarely written and nothing is given out
/// twice after a crash: 2^63 would last for ages even if each start skipped one such block.
const RESERVED_AHEAD: u64 = 1 << 16;

/// Positions that a millisecond stands for. Each opening goes on from the clock, unless more was given out: so what a copy of
/// the database goes on with, once it is restored, stands behind all that the lost one gave out after the copy was made, to
/// clients and to other servers. Hardly anybody writes that much on the average of a run; gaps in rooms take most, each four
/// seconds of it.
const POSITIONS_PER_MS: i64 = 1024;
/// Positions from here on could not be told in JSON as numbers, as other servers are told those of device lists. The clock comes
/// here in 2248.
const POSITION_BY_CLOCK_MAX: i64 = 1 << 53;
/// Openings of which it is remembered which positions they skipped. Who comes with a position of a lost database after more
/// is not told to begin anew, but goes on.
const SKIPPED_KEPT: usize = 1000;

/// The bytes that a signing key is made from.
pub(crate) const SEED_BYTES: usize = 32;

const FACT_LINEAGE: &str = "lineage";
const FACT_SCHEMA: &str = "schema_version";
const FACT_SERVER_NAME: &str = "server_name";
/// The fact that holds what the signing key is made from.
pub(crate) const FACT_SIGNING_SEED: &str = "signing_key_seed";
/// The fact that holds what the signing key is called.
pub(crate) const FACT_SIGNING_KEY_VERSION: &str = "signing_key_version";
/// The fact that holds what the key of a policy server is made from. It is there once this server was one, and stays.
const FACT_POLICY_SEED: &str = "policy_key_seed";
/// What that key is called. Specification: its id is "*always* `ed25519:policy_server`".
const POLICY_KEY_VERSION: &str = "policy_server";
/// The fact that holds the [`Reserved`] marks.
pub(crate) const FACT_RESERVED: &str = "reserved";

/// The fact that holds the positions that were [`Skipped`].
const FACT_SKIPPED: &str = "skipped";

/// Pairs of positions between which none was given out, oldest first.
pub(crate) type Skipped = Vec<(i64, i64)>;

/// The marks below which positions and numbers may be in use.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Reserved {
    pub pos: i64,
    pub events: u64,
    pub nodes: u64,
}

/// What opening found out.
pub(crate) struct Prepared {
    pub key_pair: KeyPair,
    pub policy_key: Option<KeyPair>,
    pub pos: StreamPos,
    pub counters: Counters,
    pub next_names: [u64; 3],
    pub reserved: Reserved,
    pub skipped: Skipped,
}

fn fact(store: &dyn Read, name: &str) -> Result<Option<bytes::Bytes>, StorageError> {
    store.get(Family::Meta, &encode_key(&schema::FACTS, &name.to_owned()))
}

fn required_fact(store: &dyn Read, name: &str) -> Result<bytes::Bytes, StorageError> {
    fact(store, name)?.ok_or_else(|| StorageError::Corrupt(format!("the fact {name} is missing")))
}

fn put_fact(name: &str, value: Vec<u8>) -> Change {
    Change::Put(Family::Meta, encode_key(&schema::FACTS, &name.to_owned()).into(), value.into())
}

fn put_record(name: &str, record: &impl serde::Serialize) -> Change {
    let mut out = crate::store::ValueWriter::default();
    write_record(record, &mut out);
    put_fact(name, out.bytes)
}

/// A fact that is a record, or what stands for it before it is written.
fn record<T: Default + serde::de::DeserializeOwned>(store: &dyn Read, name: &str) -> Result<T, StorageError> {
    match fact(store, name)? {
        None => Ok(T::default()),
        Some(bytes) => read_record(&bytes)
            .ok_or_else(|| StorageError::Corrupt(format!("the fact {name} cannot be read"))),
    }
}

/// Checks the database, makes an empty one ready, and reads where its numbers go on.
pub(crate) fn prepare(backend: &dyn Backend, options: &Options) -> Result<Prepared> {
    if !is_ours(backend, options)? {
        if !options.create {
            return Err(StorageError::Absent.into());
        }
        create(backend, options)?;
    }
    let seed = required_fact(backend, FACT_SIGNING_SEED)?;
    let key_version =
        String::from_utf8_lossy(&required_fact(backend, FACT_SIGNING_KEY_VERSION)?).into_owned();
    let key_pair = KeyPair::from_seed(&key_version, &seed)
        .map_err(|error| StorageError::Corrupt(format!("the signing key cannot be read: {error}")))?;
    let policy_key = options.is_policy_server.then(|| policy_key(backend, options)).transpose()?;
    let mut reserved: Reserved = record(backend, FACT_RESERVED)?;
    let mut skipped: Skipped = record(backend, FACT_SKIPPED)?;
    skip_to_the_clock(backend, options, &mut reserved, &mut skipped);
    let counters =
        Counters { events: AtomicU64::new(reserved.events + 1), nodes: AtomicU64::new(reserved.nodes + 1) };
    let next_names = next_numbers(backend)?;
    // Everything up to the mark may have been given out, so the marks are behind from the start and the first batch
    // moves them.
    let pos = StreamPos(reserved.pos);
    Ok(Prepared { key_pair, policy_key, pos, counters, next_names, reserved, skipped })
}

/// The key that this server signs with as a policy server, made if it never was one. Rooms name it: it stays the same.
fn policy_key(backend: &dyn Backend, options: &Options) -> Result<KeyPair> {
    let seed = match fact(backend, FACT_POLICY_SEED)? {
        Some(seed) => seed.to_vec(),
        None => {
            let mut seed = vec![0; SEED_BYTES];
            options.random.fill(&mut seed);
            backend.commit(&[put_fact(FACT_POLICY_SEED, seed.clone())], options.durability)?;
            seed
        }
    };
    let key = KeyPair::from_seed(POLICY_KEY_VERSION, &seed);
    Ok(key
        .map_err(|error| StorageError::Corrupt(format!("the policy server's key cannot be read: {error}")))?)
}

/// Lets positions go on from the clock, if that is ahead of them. It is written before the first is given out, as clients are given
/// the position that they find. On a full disk they go on as they are: the database is read all the same.
fn skip_to_the_clock(
    backend: &dyn Backend,
    options: &Options,
    reserved: &mut Reserved,
    skipped: &mut Skipped,
) {
    let Some(by_clock) = position_by_clock(options.clock.now_ms()).filter(|pos| *pos > reserved.pos) else {
        return;
    };
    let mut with_this = skipped.clone();
    with_this.push((reserved.pos, by_clock));
    with_this.drain(..with_this.len().saturating_sub(SKIPPED_KEPT));
    let ahead = Reserved { pos: by_clock, ..*reserved };
    let changes = [put_record(FACT_SKIPPED, &with_this), put_record(FACT_RESERVED, &ahead)];
    if backend.commit(&changes, options.durability).is_ok() {
        (*reserved, *skipped) = (ahead, with_this);
    }
}

/// The position for which a time stands; `None` for a clock that counts something else than milliseconds.
fn position_by_clock(now_ms: u64) -> Option<i64> {
    let pos = i64::try_from(now_ms).ok()?.checked_mul(POSITIONS_PER_MS)?;
    (pos <= POSITION_BY_CLOCK_MAX).then_some(pos)
}

/// What a new signing key is called.
pub(crate) fn key_version(random: &dyn Random) -> String {
    let mut suffix = [0; 3];
    random.fill(&mut suffix);
    format!("a_{:02x}{:02x}{:02x}", suffix[0], suffix[1], suffix[2])
}

/// Whether a database may be made for a server of this name, which is in every id that is ever given out. One that was made when
/// nobody asked keeps its name.
///
/// Errors: [`Invalid::Identifier`] if not.
pub(crate) fn check_name(server_name: &str) -> Result<()> {
    if identifiers::is_server_name(server_name) {
        return Ok(());
    }
    let why =
        format!("{server_name:?} is no host name or IP address, alone or with a port (example.org:8448)");
    Err(Invalid::Identifier { what: "the server name", why }.into())
}

fn create(backend: &dyn Backend, options: &Options) -> Result<()> {
    check_name(&options.server_name)?;
    let mut seed = [0; SEED_BYTES];
    options.random.fill(&mut seed);
    let key_version = key_version(&*options.random);
    backend.commit(
        &[
            put_fact(FACT_LINEAGE, LINEAGE.to_vec()),
            put_fact(FACT_SCHEMA, SCHEMA_VERSION.to_be_bytes().to_vec()),
            put_fact(FACT_SERVER_NAME, options.server_name.clone().into_bytes()),
            put_fact(FACT_SIGNING_SEED, seed.to_vec()),
            put_fact(FACT_SIGNING_KEY_VERSION, key_version.into_bytes()),
        ],
        options.durability,
    )?;
    Ok(())
}

/// Whether this version may write to a database: `false` if nothing is in it yet.
///
/// Errors: [`StorageError::Foreign`], [`StorageError::OtherSchema`], [`StorageError::OtherServer`] for one that it must leave alone.
pub(crate) fn is_ours(store: &dyn Read, options: &Options) -> Result<bool, StorageError> {
    match fact(store, FACT_LINEAGE)? {
        None => return Ok(false),
        Some(lineage) if lineage == LINEAGE => {}
        Some(_) => return Err(StorageError::Foreign),
    }
    let found = required_fact(store, FACT_SCHEMA)?;
    let found = found.as_ref().try_into().map(u32::from_be_bytes);
    let found = found.map_err(|_| StorageError::Corrupt("the schema version cannot be read".into()))?;
    if found != SCHEMA_VERSION {
        return Err(StorageError::OtherSchema { found, known: SCHEMA_VERSION });
    }
    let server_name = required_fact(store, FACT_SERVER_NAME)?;
    if server_name != options.server_name {
        return Err(StorageError::OtherServer(String::from_utf8_lossy(&server_name).into_owned()));
    }
    Ok(true)
}

/// Moves the marks ahead when half of what was reserved has been given out, or when they are behind.
pub(crate) fn reserve_more(reserved: &mut Reserved, pos: StreamPos, counters: &Counters) -> Option<Change> {
    let (events, nodes) = (counters.events.load(Ordering::Relaxed), counters.nodes.load(Ordering::Relaxed));
    let margin = RESERVED_AHEAD / 2;
    let enough = reserved.pos > pos.0.saturating_add(margin as i64)
        && reserved.events > events + margin
        && reserved.nodes > nodes + margin;
    if enough {
        return None;
    }
    *reserved = Reserved {
        pos: pos.0.saturating_add(RESERVED_AHEAD as i64),
        events: events + RESERVED_AHEAD,
        nodes: nodes + RESERVED_AHEAD,
    };
    Some(put_record(FACT_RESERVED, reserved))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{engine::Clock, error::Error, store::Memory};

    #[test]
    fn a_database_of_another_schema_is_left_alone() {
        for found in [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1] {
            let memory = Memory::default();
            let options = Options::new("here.example");
            prepare(&memory, &options).unwrap();
            let schema = put_fact(FACT_SCHEMA, found.to_be_bytes().to_vec());
            memory.commit(&[schema], options.durability).unwrap();
            let refused = prepare(&memory, &options).err();
            let expected = StorageError::OtherSchema { found, known: SCHEMA_VERSION }.to_string();
            assert_eq!(refused.map(|error| error.to_string()), Some(expected));
            assert_eq!(fact(&memory, FACT_SCHEMA).unwrap().as_deref(), Some(&found.to_be_bytes()[..]));
        }
    }

    #[test]
    fn a_database_is_made_for_a_server_name_only_and_one_that_is_there_opens_by_its_name() {
        for name in
            ["https://example.org", "", "example.org/", "exa mple.org", "@a:example.org", "example.org:+80"]
        {
            let memory = Memory::default();
            let refused = prepare(&memory, &Options::new(name)).err().expect("it is no server name");
            assert!(matches!(refused, Error::Invalid(Invalid::Identifier { what: "the server name", .. })));
            assert!(refused.to_string().contains(&format!("{name:?}")), "{refused}");
            assert!(!is_ours(&memory, &Options::new(name)).unwrap(), "nothing is written");
            // It was made before anybody looked at names.
            prepare(&memory, &Options::new("example.org")).unwrap();
            let named = put_fact(FACT_SERVER_NAME, name.as_bytes().to_vec());
            memory.commit(&[named], Options::new(name).durability).unwrap();
            assert!(prepare(&memory, &Options::new(name)).is_ok());
        }
        for name in ["example.org", "example.org:8448", "192.0.2.1", "[2001:db8::1]:8448", "localhost"] {
            assert!(prepare(&Memory::default(), &Options::new(name)).is_ok());
        }
    }

    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn positions_go_on_from_the_clock_and_never_back() {
        let (memory, clock) = (Memory::default(), Arc::new(Hand(AtomicU64::new(0))));
        let mut options = Options::new("here.example");
        options.clock = clock.clone();
        let opened = |now_ms: u64| {
            clock.0.store(now_ms, Ordering::Relaxed);
            let prepared = prepare(&memory, &options).unwrap();
            (prepared.pos.0, prepared.skipped)
        };
        assert_eq!(opened(1_000), (1_024_000, vec![(0, 1_024_000)]));
        // Set back, or of no use, the clock skips nothing.
        for now_ms in [500, 1_000, u64::MAX, 1_700_000_000_000_000_000] {
            assert_eq!(opened(now_ms), (1_024_000, vec![(0, 1_024_000)]), "{now_ms}");
        }
        assert_eq!(opened(2_000), (2_048_000, vec![(0, 1_024_000), (1_024_000, 2_048_000)]));
        for now_ms in 3_000..4_001 {
            opened(now_ms);
        }
        let (pos, skipped) = opened(4_001);
        assert_eq!((pos, skipped.len()), (4_097_024, SKIPPED_KEPT));
        assert_eq!(skipped.last(), Some(&(4_096_000, 4_097_024)));
    }
}
