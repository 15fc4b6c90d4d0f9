//! The embedded backend: RocksDB, one column family per [`Family`], tuned to one memory budget.
//!
//! Invariant: `commit` returns after the write-ahead log is on disk (under `Durability::Commit`).
//! When the disk is full, commits fail and reads go on; RocksDB looks for room every five seconds and, when there is
//! enough, writes its memtables out, leaves the broken log behind and takes commits again. So a batch whose log record
//! could not be written (or synced) is never visible in that run; its record may be found if the process ends before
//! the log was left behind, and the batch is then there, whole, as the last one. After another error of the disk, as that of a
//! quota, RocksDB takes no commit until the database is opened anew: its `Resume` has no binding in the crate.
//!
//! RocksDB opens what is left of a database of which files are missing as best it can, and removes what it then takes for old. So
//! nothing is opened without what every database has: `CURRENT` and a log. A single log of several may be missing all the same.
//! `track_and_verify_wals_in_manifest` would find it unless it is the last, which holds what was written last and is not tracked;
//! for that, each new log would make a commit wait for up to two syncs of the manifest, and fail where only that cannot be written.
//! This file holds the engine's only `unsafe`: a snapshot that owns the database it was taken from.

use std::{
    io::{ErrorKind, Read as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamily, ColumnFamilyDescriptor,
    CompactOptions, DBCompressionType, DBWithThreadMode, DEFAULT_COLUMN_FAMILY_NAME, InfoLogger, LogLevel,
    Options, ReadOptions, SingleThreaded, SnapshotWithThreadMode, WriteBatch, WriteBufferManager,
    WriteOptions,
};

use super::{Backend, Change, Direction, Durability, Family, Read, Visit};
use crate::store::StorageError;

type Db = DBWithThreadMode<SingleThreaded>;

/// The part of the memory budget that the block cache takes; memtables are charged to it. The rest is for the engine's
/// own caches and the server's queues.
const CACHE_SHARE_PERCENT: usize = 40;
/// Memtables over all families; at the default budget 32 MiB, so that 50,000 events are not all held in memory.
const MEMTABLES_SHARE_PERCENT: usize = 6;
/// One family's memtable; small, because several fill side by side, a flush is cheap, and RocksDB sets aside as much
/// disk for its log as one memtable takes.
const MEMTABLE_BYTES: usize = 3 << 20;
/// Values from here up go to blob files, out of compaction's way: event JSON of some size, large account data.
const BLOB_BYTES_MIN: u64 = 4096;
/// The write-ahead log is cut at this size, which bounds the time of a start after a crash.
const WAL_BYTES_MAX: u64 = 64 << 20;
/// RocksDB's own log: enough to see what happened, small on disk.
const INFO_LOG_BYTES_MAX: usize = 1 << 20;
/// Compaction and flush threads; the server shares the machine with them.
const BACKGROUND_JOBS: i32 = 2;
/// Files of tables and values that RocksDB may hold open; half of the usual limit of 1,024. It takes no commits any more when it
/// cannot open one, so that who runs the engine has to leave it as many.
pub const OPEN_FILES_MAX: u16 = 512;

/// For the few rows that are looked at before the database is opened for writing.
const PEEK_CACHE_BYTES: usize = 1 << 20;

/// With this one RocksDB begins a database, and leaves it behind when it opens one for the first time.
const FIRST_MANIFEST: &str = "MANIFEST-000001";

/// RocksDB in one folder.
pub struct Rocks {
    cache: Cache,
    db: Arc<Db>,
    /// For reads by key.
    options: ReadOptions,
    /// Bytes of the batches written so far.
    written: AtomicU64,
    /// How many they were.
    commits: AtomicU64,
    /// Bytes of the write-ahead log that could not be read when it was opened.
    unreadable: u64,
}

/// The state of a moment, keeping its database open.
struct RocksSnapshot {
    // Declared, and so dropped, before the database that it points into.
    snapshot: SnapshotWithThreadMode<'static, Db>,
    options: ReadOptions,
    db: Arc<Db>,
}

fn storage(error: rocksdb::Error) -> StorageError {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => StorageError::Corrupt(error.into_string()),
        rocksdb::ErrorKind::Busy => StorageError::InUse,
        _ if is_held_lock(error.as_ref()) => StorageError::InUse,
        _ => StorageError::Io(error.into_string()),
    }
}

/// Whether RocksDB says that somebody has the database open: this process, or another one. What else hinders it from taking
/// the lock, such as whose file that is, says so itself.
fn is_held_lock(text: &str) -> bool {
    let text = text.strip_prefix("IO error: ").unwrap_or(text);
    text.starts_with("lock hold by current process")
        || text.starts_with("While lock file: ") && text.ends_with(": Resource temporarily unavailable")
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(6);
    let mut options = Options::default();
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options.set_level_compaction_dynamic_level_bytes(true);
    if family == Family::Bodies {
        table.set_block_size(16 << 10);
        // Bodies are read by whole pages of a timeline; zstd halves them at once and they are never rewritten hot.
        options.set_compression_type(DBCompressionType::Zstd);
        options.set_enable_blob_files(true);
        options.set_min_blob_size(BLOB_BYTES_MIN);
        options.set_blob_compression_type(DBCompressionType::Zstd);
        options.set_enable_blob_gc(true);
    }
    options.set_block_based_table_factory(&table);
    options
}

/// The family that RocksDB insists on and nothing is written to. Its memtable counts all the same: after a full disk,
/// RocksDB takes writes again only once the largest memtable of any family would fit, 64 MiB if left unsaid.
fn unused_family_options() -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options
}

fn database_options(cache: &Cache, memory_budget: usize) -> Options {
    let mut options = Options::default();
    options.create_missing_column_families(true);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_max_open_files(OPEN_FILES_MAX.into());
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    options.set_keep_log_file_num(2);
    options.set_bytes_per_sync(1 << 20);
    // Nothing is allocated ahead: an empty server takes little disk.
    options.set_manifest_preallocation_size(64 << 10);
    let memtables = memory_budget * MEMTABLES_SHARE_PERCENT / 100;
    options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager_with_cache(
        memtables,
        false,
        cache.clone(),
    ));
    options
}

/// The names of what is in a folder; of none if it is not there.
fn names(folder: &Path) -> Result<Vec<String>, StorageError> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
    }
}

fn is_table(name: &str) -> bool {
    name.ends_with(".sst") || name.ends_with(".blob")
}

fn is_log(name: &str) -> bool {
    name.ends_with(".log")
}

/// Whether a file is only where a database was open. Who is stopped while making one leaves others: they hold nothing yet.
fn is_of_database(name: &str) -> bool {
    is_table(name)
        || is_log(name)
        || name.starts_with("OPTIONS-")
        || (name.starts_with("MANIFEST-") && name != FIRST_MANIFEST)
}

fn refuse_foreign(path: &Path) -> Result<(), StorageError> {
    let found = Db::list_cf(&Options::default(), path).map_err(storage)?;
    let ours = |name: &String| {
        name == DEFAULT_COLUMN_FAMILY_NAME || Family::ALL.iter().any(|family| family.name() == name)
    };
    if found.iter().all(ours) { Ok(()) } else { Err(StorageError::Foreign) }
}

impl Rocks {
    /// Whether there is a database in `path`. Nothing in the folder changes.
    ///
    /// Errors: [`StorageError::Incomplete`] when only a part of one is there, which RocksDB would take for an empty folder, or for a
    /// database without its last writes, and then remove what is left.
    pub fn is_in(path: &Path) -> Result<bool, StorageError> {
        let names = names(path)?;
        let has = |is: fn(&str) -> bool| names.iter().any(|name| is(name));
        if !has(|name| name == "CURRENT") {
            return if has(is_of_database) { Err(StorageError::Incomplete("CURRENT")) } else { Ok(false) };
        }
        // It makes a log before its options and its first table, and is never without one from then on.
        if !has(is_log) && has(is_of_database) { Err(StorageError::Incomplete("*.log")) } else { Ok(true) }
    }

    /// The database in `path` as it is on disk, to read [`Family::Meta`] only. Nothing in the folder changes, while opening it
    /// for writing replays its log and writes new files.
    ///
    /// `None` if there is none or it cannot be read so: [`Rocks::open`] tells what is wrong.
    /// Errors: [`StorageError::Foreign`] when the folder holds a database of something else; those of [`Rocks::is_in`].
    pub fn peek(path: &Path) -> Result<Option<Self>, StorageError> {
        if !Self::is_in(path)? {
            return Ok(None);
        }
        refuse_foreign(path)?;
        let cache = Cache::new_lru_cache(PEEK_CACHE_BYTES);
        let mut options = Options::default();
        // Without a logger of ours, RocksDB would begin a new log file.
        options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
        let families = [Family::Meta.name(), DEFAULT_COLUMN_FAMILY_NAME]
            .map(|name| ColumnFamilyDescriptor::new(name, Options::default()));
        let db = Db::open_cf_descriptors_read_only(&options, path, families, false);
        Ok(db.ok().map(|db| Self {
            cache,
            db: Arc::new(db),
            written: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            unreadable: 0,
            options: ReadOptions::default(),
        }))
    }

    /// Opens the database in `path`, making it if it is not there.
    ///
    /// `memory_budget` is in bytes; block cache and memtables take their share of it.
    /// Errors: [`StorageError::InUse`] when another process has it open, [`StorageError::Foreign`] when the folder
    /// holds a database of something else; those of [`Rocks::is_in`].
    pub fn open(path: &Path, memory_budget: usize) -> Result<Self, StorageError> {
        let is_there = Self::is_in(path)?;
        if is_there {
            refuse_foreign(path)?;
        }
        let cache = Cache::new_lru_cache(memory_budget * CACHE_SHARE_PERCENT / 100);
        let families = Family::ALL
            .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family, &cache)))
            .into_iter()
            .chain([ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, unused_family_options())]);
        let mut options = database_options(&cache, memory_budget);
        options.create_if_missing(!is_there);
        let db = Db::open_cf_descriptors(&options, path, families).map_err(storage)?;
        Ok(Self {
            cache,
            db: Arc::new(db),
            options: ReadOptions::default(),
            written: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            unreadable: unreadable_bytes(path),
        })
    }
}

/// What RocksDB has just told its own log of the write-ahead log, which it replays as far as it can be read. It tells nobody
/// else: a torn end is no reason to refuse a database, and it does not know one from damage.
fn unreadable_bytes(path: &Path) -> u64 {
    let mut told = Vec::new();
    let log = std::fs::File::open(path.join("LOG"));
    // Without it nothing is known to be wrong.
    let _ = log.and_then(|log| log.take(INFO_LOG_BYTES_MAX as u64).read_to_end(&mut told));
    let told = String::from_utf8_lossy(&told);
    let dropped = told.lines().filter_map(|line| line.split_once(": dropping ")?.1.split_once(" bytes"));
    dropped.filter_map(|(bytes, _)| bytes.parse::<u64>().ok()).sum()
}

fn column(db: &Db, family: Family) -> Result<&ColumnFamily, StorageError> {
    db.cf_handle(family.name()).ok_or(StorageError::Foreign)
}

/// What is read from: a database and the moment of it.
trait Moment: Send + Sync {
    fn db(&self) -> &Db;
    /// For reads by key: made once, and not for each of them.
    fn options(&self) -> &ReadOptions;
    /// For a scan, which sets bounds of its own.
    fn scan_options(&self) -> ReadOptions;
}

impl Moment for Rocks {
    fn db(&self) -> &Db {
        &self.db
    }

    fn options(&self) -> &ReadOptions {
        &self.options
    }

    fn scan_options(&self) -> ReadOptions {
        ReadOptions::default()
    }
}

impl Moment for RocksSnapshot {
    fn db(&self) -> &Db {
        &self.db
    }

    fn options(&self) -> &ReadOptions {
        &self.options
    }

    fn scan_options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }
}

impl<M: Moment> Read for M {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let column = column(self.db(), family)?;
        let value = self.db().get_pinned_cf_opt(column, key, self.options()).map_err(storage)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, StorageError> {
        self.db()
            .batched_multi_get_cf_opt(column(self.db(), family)?, keys, false, self.options())
            .into_iter()
            .map(|row| row.map(|value| value.map(|value| Bytes::copy_from_slice(&value))).map_err(storage))
            .collect()
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StorageError> {
        let mut options = self.scan_options();
        options.set_iterate_lower_bound(start);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let mut rows = self.db().raw_iterator_cf_opt(column(self.db(), family)?, options);
        match direction {
            Direction::Forward => rows.seek_to_first(),
            Direction::Backward => rows.seek_to_last(),
        }
        while let Some((key, value)) = rows.item() {
            if !visit(key, value) {
                return Ok(());
            }
            match direction {
                Direction::Forward => rows.next(),
                Direction::Backward => rows.prev(),
            }
        }
        rows.status().map_err(storage)
    }
}

impl RocksSnapshot {
    #[allow(unsafe_code)]
    fn take(db: &Arc<Db>) -> Self {
        let snapshot = db.snapshot();
        // SAFETY: the snapshot borrows the `Db` behind the `Arc`, whose address does not change, and this struct holds
        // that `Arc` for as long as the snapshot lives: `snapshot` is dropped first. The longer lifetime never leaves
        // the struct.
        let snapshot = unsafe {
            std::mem::transmute::<SnapshotWithThreadMode<'_, Db>, SnapshotWithThreadMode<'static, Db>>(
                snapshot,
            )
        };
        // They point to the snapshot, and are read by nobody but this struct.
        let mut options = ReadOptions::default();
        options.set_snapshot(&snapshot);
        Self { snapshot, options, db: db.clone() }
    }
}

impl Backend for Rocks {
    fn snapshot(&self) -> Arc<dyn Read> {
        Arc::new(RocksSnapshot::take(&self.db))
    }

    fn commit(&self, changes: &[Change], durability: Durability) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        // They are found by name, and a batch may have thousands of rows.
        let columns = Family::ALL.map(|family| column(&self.db, family));
        let column = |family: Family| match columns.get(family as usize) {
            Some(Ok(column)) => Ok(*column),
            Some(Err(error)) => Err(error.clone()),
            None => Err(StorageError::Foreign),
        };
        for change in changes {
            match change {
                Change::Put(family, key, value) => batch.put_cf(column(*family)?, key, value),
                Change::Delete(family, key) => batch.delete_cf(column(*family)?, key),
                Change::DeleteRange(family, start, end) => {
                    batch.delete_range_cf(column(*family)?, start, end)
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Commit);
        let bytes = batch.size_in_bytes() as u64;
        self.db.write_opt(batch, &options).map_err(storage)?;
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<(), StorageError> {
        for family in Family::ALL {
            self.db.flush_cf(column(&self.db, family)?).map_err(storage)?;
        }
        Ok(())
    }

    fn compact(&self, family: Family, start: &[u8], end: Option<&[u8]>) -> Result<(), StorageError> {
        let column = column(&self.db, family)?;
        // Removals still in the memtable are no part of a compaction.
        self.db.flush_cf(column).map_err(storage)?;
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        // The bottom level is where nearly all of the bytes lie; left out, nothing would be freed.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        self.db.compact_range_cf_opt(column, Some(start), end, &options);
        Ok(())
    }

    fn unreadable_bytes(&self) -> u64 {
        self.unreadable
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let property = |name| self.db.property_int_value(name).ok().flatten().unwrap_or_default();
        // Each family has its own, which the database alone does not tell.
        let memtable = |family| {
            let column = column(&self.db, family).ok()?;
            self.db.property_int_value_cf(column, "rocksdb.cur-size-all-mem-tables").ok()?
        };
        vec![
            ("block_cache_bytes", self.cache.get_usage() as u64),
            ("memtable_bytes", Family::ALL.into_iter().filter_map(memtable).sum()),
            ("bytes_written", self.written.load(Ordering::Relaxed)),
            ("commits", self.commits.load(Ordering::Relaxed)),
            ("running_compactions", property("rocksdb.num-running-compactions")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;

    const MEMORY_BUDGET: usize = 8 << 20;

    type IsMissing = fn(&str) -> bool;

    /// What may be missing, and which files that is.
    const PARTS: [(&str, IsMissing); 2] = [("CURRENT", |name| name == "CURRENT"), ("*.log", is_log)];

    fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let name_and_bytes = |name: String| (name.clone(), fs::read(folder.join(name)).unwrap());
        names(folder).unwrap().into_iter().map(name_and_bytes).collect()
    }

    fn put(database: &Rocks) {
        let change = Change::Put(Family::Meta, b"key".to_vec().into(), Bytes::from_static(b"value"));
        database.commit(&[change], Durability::Commit).unwrap();
    }

    fn remove(folder: &Path, is_to_go: IsMissing) {
        for name in names(folder).unwrap().iter().filter(|name| is_to_go(name)) {
            fs::remove_file(folder.join(name)).unwrap();
        }
    }

    #[test]
    fn what_is_not_written_out_is_counted_over_all_families() {
        let folder = tempfile::tempdir().unwrap();
        let database = Rocks::open(folder.path(), 32 * MEMORY_BUDGET).unwrap();
        let held = || database.figures().iter().find(|(name, _)| *name == "memtable_bytes").unwrap().1;
        for family in [Family::Meta, Family::Bodies] {
            let (before, value) = (held(), Bytes::from(vec![7; 1 << 20]));
            let change = Change::Put(family, b"large".to_vec().into(), value);
            database.commit(&[change], Durability::Relaxed).unwrap();
            assert!(held() >= before + (1 << 20), "{family:?}: {before}, then {}", held());
        }
        let before = held();
        database.flush().unwrap();
        assert!(held() + (2 << 20) <= before, "{before}, then {}", held());
    }

    #[test]
    fn what_is_left_of_a_database_is_not_touched() {
        for (missing, is_missing) in PARTS {
            let folder = tempfile::tempdir().unwrap();
            put(&Rocks::open(folder.path(), MEMORY_BUDGET).unwrap());
            remove(folder.path(), is_missing);
            let before = contents(folder.path());
            for refused in [
                Rocks::open(folder.path(), MEMORY_BUDGET).err(),
                Rocks::peek(folder.path()).err(),
                Rocks::is_in(folder.path()).err(),
            ] {
                assert!(matches!(refused, Some(StorageError::Incomplete(name)) if name == missing));
            }
            assert!(contents(folder.path()) == before);
        }
    }

    #[test]
    fn who_has_lost_the_log_for_good_can_go_on_without() {
        let folder = tempfile::tempdir().unwrap();
        let database = Rocks::open(folder.path(), MEMORY_BUDGET).unwrap();
        put(&database);
        database.flush().unwrap();
        drop(database);
        remove(folder.path(), is_log);
        fs::write(folder.path().join("000000.log"), "").unwrap();
        let database = Rocks::open(folder.path(), MEMORY_BUDGET).unwrap();
        assert_eq!(database.get(Family::Meta, b"key").unwrap().as_deref(), Some(&b"value"[..]));
    }

    #[test]
    fn who_was_stopped_while_making_a_database_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["LOG", "LOCK", "IDENTITY", FIRST_MANIFEST, "000001.dbtmp"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert!(!Rocks::is_in(folder.path()).unwrap());
        let database = Rocks::open(folder.path(), MEMORY_BUDGET).unwrap();
        put(&database);
        assert_eq!(database.get(Family::Meta, b"key").unwrap().as_deref(), Some(&b"value"[..]));
        assert!(Rocks::is_in(folder.path()).unwrap());
    }

    #[test]
    fn a_held_lock_is_known_by_its_own_sentences() {
        for held in [
            "IO error: lock hold by current process, acquire time 5 acquiring thread 7: /d/LOCK: No locks available",
            "IO error: While lock file: /d/LOCK: Resource temporarily unavailable",
        ] {
            assert!(is_held_lock(held), "{held}");
        }
        for other in [
            "IO error: while open a file for lock: /d/LOCK: Permission denied",
            "IO error: While lock file: /d/LOCK: No locks available",
            "IO error: No space left on device: While appending to file: /LOCK/000005.log: No space left on device",
            "IO error: While open a file for appending: /LOCK/000005.log: Resource temporarily unavailable",
        ] {
            assert!(!is_held_lock(other), "{other}");
        }
    }

    #[test]
    fn a_database_that_is_open_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let open = Rocks::open(folder.path(), MEMORY_BUDGET).unwrap();
        assert!(matches!(Rocks::open(folder.path(), MEMORY_BUDGET), Err(StorageError::InUse)));
        drop(open);
        assert!(Rocks::open(folder.path(), MEMORY_BUDGET).is_ok());
    }

    #[test]
    fn a_lock_that_cannot_be_taken_says_why() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("LOCK")).unwrap();
        match Rocks::open(folder.path(), MEMORY_BUDGET) {
            Err(StorageError::Io(why)) => assert!(why.contains("Is a directory"), "{why}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("opened"),
        }
    }
}
