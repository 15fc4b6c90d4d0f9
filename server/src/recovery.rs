//! When the database takes no more writes: it is tried again and again, and where that cannot help, the server ends, to start anew.
//!
//! From a full disk the store recovers by itself. After any other error of the disk, as that of a quota, it takes nothing until
//! it is opened anew, though the disk may be well again: then the server starts anew in its own place, so that nobody has to.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{debug, error};

use crate::context::{Context, STORE_FOLDER};

/// As often as the store itself looks whether a full disk has room again, and the engine tries it.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Between two probes of the disk: a store that recovers by itself has looked for room in that time and was tried again.
const PROBE_EVERY: Duration = Duration::from_secs(15);

/// A server that starts anew has run for so long, so that a disk that fails again at once does not have it do nothing else.
const STARTS_APART: Duration = Duration::from_secs(60);

/// What a start writes, beyond what the store's logs hold: some small files, and the first log.
const START_BYTES: u64 = 8 << 20;

const BLOCK_BYTES: usize = 1 << 20;

/// Why the server stops by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The database has to be opened anew.
    Anew,
    /// A write fell with a fault of the server's own.
    Fallen,
}

/// How it is with the disk of a database that takes no writes, and what comes of it.
#[derive(Default)]
pub struct Recovery {
    /// When the disk was probed last, and whether it took the probe. Nothing while writes are taken.
    last_probe: Mutex<Option<(Instant, bool)>>,
    end: OnceLock<End>,
}

impl Recovery {
    /// Why the server stops, if it does so by itself.
    pub fn end(&self) -> Option<End> {
        self.end.get().copied()
    }

    fn is_due(&self, now: Instant) -> bool {
        self.last_probe.lock().is_none_or(|(last, _)| now.duration_since(last) >= PROBE_EVERY)
    }

    /// Notes what came of a probe; whether the disk has taken two in a row, between which the store would have recovered by itself.
    fn note(&self, now: Instant, was_taken: bool) -> bool {
        let last = self.last_probe.lock().replace((now, was_taken));
        was_taken && last.is_some_and(|(_, was_taken)| was_taken)
    }
}

/// Looks after a database that takes no writes.
pub fn look(ctx: &Arc<Context>) {
    if ctx.engine.has_fallen() {
        error!(
            "a write fell with a fault of the server's own, after which none can be taken: the server ends"
        );
        return end(ctx, End::Fallen);
    }
    if ctx.engine.takes_writes() {
        *ctx.recovery.last_probe.lock() = None;
        return;
    }
    let now = Instant::now();
    if !ctx.recovery.is_due(now) {
        return;
    }
    let folder = ctx.config.data_dir.join(STORE_FOLDER);
    // Other requests go to other threads meanwhile.
    let probed = tokio::task::block_in_place(|| start_bytes(&folder).and_then(|bytes| probe(&folder, bytes)));
    debug!(?probed, "the disk was probed");
    let is_well = ctx.recovery.note(now, probed.is_ok());
    if is_well && !ctx.engine.takes_writes() && ctx.started.elapsed() >= STARTS_APART {
        error!(
            "the disk takes writes again, and the database none until it is opened anew: the server starts anew"
        );
        end(ctx, End::Anew);
    }
}

fn end(ctx: &Context, end: End) {
    // The first reason counts.
    let _ = ctx.recovery.end.set(end);
    ctx.shutdown.cancel();
}

/// At most what a start writes to the folder of the store: all that its logs hold goes to tables before one of them is removed.
fn start_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = START_BYTES;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "log") {
            // One that is gone meanwhile is not read.
            bytes += entry.metadata().map_or(0, |file| file.len());
        }
    }
    Ok(bytes)
}

/// Writes so much to the disk of a folder, and leaves nothing there, whatever happens. Errors: the disk does not take it.
fn probe(folder: &Path, bytes: u64) -> io::Result<()> {
    let path = folder.join("probe");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    // Its bytes are the disk's again when it is closed.
    fs::remove_file(&path)?;
    let mut block = vec![0; BLOCK_BYTES];
    // A file system might pack anything else.
    getrandom::fill(&mut block).map_err(|error| io::Error::other(error.to_string()))?;
    for _ in 0..bytes.div_ceil(BLOCK_BYTES as u64) {
        file.write_all(&block)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_starts_anew_when_the_disk_has_taken_two_probes_in_a_row() {
        let recovery = Recovery::default();
        let start = Instant::now();
        let at = |round: u32| start + PROBE_EVERY * round;
        assert!(recovery.is_due(start));
        assert!(!recovery.note(at(0), true));
        assert!(!recovery.is_due(at(1) - Duration::from_millis(1)));
        assert!(recovery.is_due(at(1)));
        assert!(!recovery.note(at(1), false));
        assert!(!recovery.note(at(2), true));
        assert!(recovery.note(at(3), true));
    }

    #[test]
    fn a_probe_is_as_large_as_what_a_start_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(start_bytes(folder.path()).expect("readable"), START_BYTES);
        for (name, bytes) in
            [("000007.log", 48 << 20), ("000012.log", 16 << 20), ("000009.sst", 1 << 20), ("LOG", 1000)]
        {
            let file = fs::File::create(folder.path().join(name)).expect("room");
            file.set_len(bytes).expect("room");
        }
        assert_eq!(start_bytes(folder.path()).expect("readable"), START_BYTES + (64 << 20));
        start_bytes(&folder.path().join("missing")).expect_err("there is no such folder");
    }

    #[test]
    fn a_probe_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        probe(folder.path(), START_BYTES).expect("room");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
        probe(&folder.path().join("missing"), START_BYTES).expect_err("there is no such folder");
    }
}
