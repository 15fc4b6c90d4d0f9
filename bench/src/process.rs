//! What the system knows about a process and a folder: processor time, resident memory, disk blocks. Read from `/proc`,
//! so for servers on the generator's own Linux machine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::error::{Error, Result};

/// `st_blocks` counts in units of this many bytes, whatever the file system's block size.
const BLOCK_BYTES: u64 = 512;

/// Processor time that all threads of a process have used, in user and kernel, to the nanosecond.
pub fn cpu(pid: u32) -> Result<Duration> {
    let clock = i32::try_from(pid).map_err(|_| nix::Error::ESRCH).map(Pid::from_raw);
    let time = clock.and_then(clock_getcpuclockid).and_then(|clock| clock.now());
    time.map(Duration::from)
        .map_err(|error| Error::system(format!("read the processor time of {pid}"))(error.into()))
}

/// Processor time that the generator itself has used.
pub fn own_cpu() -> Result<Duration> {
    cpu(std::process::id())
}

/// Bytes of memory that a process has resident now.
pub fn resident(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The most bytes of memory that a process ever had resident.
pub fn resident_peak(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmHWM:")
}

/// Files, connections included, that this process may have open; zero when the system does not say.
pub fn open_files_max() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    soft.map_or(0, |soft| soft.parse().unwrap_or(u64::MAX))
}

/// Bytes that the files below a folder occupy on disk, as `du` counts them.
pub fn disk(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    let listing = fs::read_dir(folder).map_err(Error::system(format!("list {}", folder.display())))?;
    for entry in listing {
        let entry = entry.map_err(Error::system(format!("list {}", folder.display())))?;
        // A file that the server removed meanwhile occupies nothing.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += match metadata.is_dir() {
            true => disk(&entry.path()).unwrap_or(0),
            false => metadata.blocks() * BLOCK_BYTES,
        };
    }
    Ok(bytes)
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(Error::system(format!("read {path}")))
}

fn status_bytes(pid: u32, field: &str) -> Result<u64> {
    let status = read(pid, "status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| Error::Implausible(format!("/proc/{pid}/status has no {field}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of the clock behind `/proc/PID/stat`.
    const COARSE_TICK: Duration = Duration::from_millis(10);

    #[test]
    fn this_process_is_seen() {
        let pid = std::process::id();
        assert!(resident(pid).expect("resident") > 100_000);
        assert!(resident_peak(pid).expect("peak") >= resident(pid).expect("resident") / 2);
        let before = own_cpu().expect("cpu");
        let mut after = before;
        while after <= before {
            after = cpu(pid).expect("cpu");
        }
        // One reading may happen to be a whole number of ticks; two are by a coarse clock alone.
        let is_whole = |time: Duration| time.as_nanos().is_multiple_of(COARSE_TICK.as_nanos());
        assert!(!is_whole(before) || !is_whole(after), "{before:?} and {after:?} are of a coarse clock");
        assert!(open_files_max() > 0);
    }

    #[test]
    fn a_folder_is_counted_with_what_is_below_it() {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("below")).expect("folder below");
        let empty = disk(folder.path()).expect("disk");
        fs::write(folder.path().join("below/file"), vec![1_u8; 1 << 20]).expect("file");
        let synced = fs::File::open(folder.path().join("below/file")).and_then(|file| file.sync_all());
        synced.expect("on disk");
        assert!(disk(folder.path()).expect("disk") >= empty + (1 << 20));
    }
}
