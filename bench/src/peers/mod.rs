//! Servers that the generator starts itself, each on a data folder of its own: Warren, and the peers it is compared
//! with. A server is a child process; its output goes to a file beside its data, never to the report.

mod synapse;
mod warren;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::certificates::{Certificates, HOST};
use crate::client::Address;
use crate::error::{Error, Result};
use crate::matrix::{Homeserver, Registration};

/// A server that is not ready by then has failed; Synapse prepares its database within a few seconds.
const READY_SECONDS_MAX: u64 = 60;
/// A server that has not ended this long after SIGTERM is killed.
const STOP_SECONDS_MAX: u64 = 30;
/// Short against the start-up time that is measured by it.
const POLL_PAUSE: Duration = Duration::from_millis(1);
/// The secret of the shared-secret registration; the servers listen on the loopback only and live for one run.
const SHARED_SECRET: &str = "warren-bench-shared-secret";
/// So much of the output of a server that does not start is shown.
const SHOWN_OUTPUT_BYTES_MAX: usize = 400;
/// Open files that a server may need for a thousand waiting clients and its database.
const OPEN_FILES: u32 = 16_384;

/// A homeserver that can be started here.
#[derive(Debug, Clone)]
pub enum Peer {
    /// Warren: its binary.
    Warren(PathBuf),
    /// Synapse on SQLite: the Python interpreter that has it.
    Synapse(PathBuf),
}

/// How other servers reach a server, over TLS.
#[derive(Debug, Clone)]
pub struct Federation {
    /// Where it listens for them.
    pub port: u16,
    /// What it shows them, and whom it believes.
    pub certificates: Certificates,
}

/// What a server is started with.
struct Serving<'a> {
    data: &'a Path,
    port: u16,
    secret: &'a str,
    federation: Option<&'a Federation>,
}

/// A running server.
pub struct Running {
    peer: Peer,
    child: Child,
    folder: PathBuf,
    port: u16,
    federation: Option<Federation>,
    started_in: Duration,
}

impl Federation {
    /// On a port that nobody listens on.
    pub fn new(certificates: &Certificates) -> Result<Federation> {
        Ok(Federation { port: free_port()?, certificates: certificates.clone() })
    }

    /// The name of a server that is reached in this way.
    pub fn name(&self) -> String {
        format!("{HOST}:{}", self.port)
    }
}

impl Serving<'_> {
    fn name(&self) -> String {
        self.federation.map_or_else(|| HOST.to_owned(), Federation::name)
    }
}

impl Peer {
    /// Warren by its binary: the one given, or the one built beside this program.
    pub fn warren(binary: Option<&Path>) -> Result<Peer> {
        let binary = match binary {
            Some(binary) => binary.to_owned(),
            None => {
                let own = std::env::current_exe().map_err(Error::system("find this program's own path"))?;
                own.with_file_name("warren")
            }
        };
        fs::metadata(&binary)
            .map_err(Error::system(format!("find the server's binary {}", binary.display())))?;
        Ok(Peer::Warren(binary))
    }

    /// Synapse, installed from PyPI into the user's cache folder on first use.
    pub fn synapse() -> Result<Peer> {
        synapse::install().map(Peer::Synapse)
    }

    /// The name that reports show.
    pub fn name(&self) -> &'static str {
        match self {
            Peer::Warren(_) => "Warren",
            Peer::Synapse(_) => "Synapse",
        }
    }

    /// The version that reports show.
    pub fn version(&self) -> String {
        match self {
            Peer::Warren(binary) => warren::version(binary),
            Peer::Synapse(python) => synapse::version(python),
        }
    }

    /// Starts on an empty or earlier `folder` and waits until it answers.
    pub fn start(&self, folder: &Path) -> Result<Running> {
        self.start_reachable(folder, None)
    }

    /// The same, and other servers can reach it.
    pub fn start_reachable(&self, folder: &Path, federation: Option<Federation>) -> Result<Running> {
        let port = free_port()?;
        let data = folder.join("data");
        fs::create_dir_all(&data).map_err(Error::system(format!("create {}", data.display())))?;
        let serving = Serving { data: &data, port, secret: SHARED_SECRET, federation: federation.as_ref() };
        let command = match self {
            Peer::Warren(binary) => warren::command(binary, &serving),
            Peer::Synapse(python) => synapse::command(python, folder, &serving)?,
        };
        let log = folder.join("output.log");
        let output = File::create(&log).map_err(Error::system(format!("create {}", log.display())))?;
        let errors = output.try_clone().map_err(Error::system("share the log file"))?;
        let begun = Instant::now();
        let child = with_open_files(&command)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(Error::system(format!("start {}", self.name())))?;
        let mut running = Running {
            peer: self.clone(),
            child,
            folder: folder.to_owned(),
            port,
            federation,
            started_in: Duration::ZERO,
        };
        running.wait_ready(begun, &log)?;
        Ok(running)
    }
}

impl Running {
    /// How to reach it.
    pub fn homeserver(&self) -> Result<Homeserver> {
        let address = Address::parse(&format!("http://127.0.0.1:{}", self.port))?;
        Ok(Homeserver { address, registration: Registration::SharedSecret(SHARED_SECRET.to_owned()) })
    }

    /// The server's name, by which others reach it.
    pub fn name(&self) -> String {
        self.federation.as_ref().map_or_else(|| HOST.to_owned(), Federation::name)
    }

    /// The process whose time and memory are the server's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder with all that the server stores.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// From the start of its process to its first answer.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Ends the server as its operator would, and starts it again on the same data.
    pub fn restart(mut self) -> Result<Running> {
        self.stop()?;
        let (peer, folder, federation) = (self.peer.clone(), self.folder.clone(), self.federation.clone());
        peer.start_reachable(&folder, federation)
    }

    /// SIGTERM, and patience; a server that does not obey is killed and that is an error.
    pub fn stop(&mut self) -> Result<()> {
        signal(self.child.id(), "TERM")?;
        let begun = Instant::now();
        while begun.elapsed().as_secs() < STOP_SECONDS_MAX {
            if self.ended()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(POLL_PAUSE * 10);
        }
        Err(Error::Implausible(format!("{} still ran {STOP_SECONDS_MAX} s after SIGTERM", self.peer.name())))
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(Error::system("wait for the server"))
    }

    fn wait_ready(&mut self, begun: Instant, log: &Path) -> Result<()> {
        let name = self.peer.name();
        let failed = |reason: String| Error::Start { name, reason, said: end_of(log) };
        while begun.elapsed().as_secs() < READY_SECONDS_MAX {
            if answers(self.port) {
                self.started_in = begun.elapsed();
                return Ok(());
            }
            if let Some(status) = self.ended()? {
                return Err(failed(format!("it ended with {status}")));
            }
            std::thread::sleep(POLL_PAUSE);
        }
        Err(failed(format!("no answer within {READY_SECONDS_MAX} s")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `stop` there is nothing to end, and a failure here has nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the project keeps what outlives a clone: `$XDG_CACHE_HOME/warren`, by default `~/.cache/warren`.
pub fn cache_folder() -> Result<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = named.or_else(home).ok_or(Error::Needs("HOME or XDG_CACHE_HOME, to keep caches in"))?;
    Ok(cache.join("warren"))
}

/// Sends a signal by name, by the shell's own command: `kill` as a program is not on every system.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    let done = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).output();
    done.map(drop).map_err(Error::system(format!("signal process {pid}")))
}

/// The same command with as many open files as a thousand clients need, as far as the system allows. The shell
/// replaces itself, so the child's process id stays the server's.
fn with_open_files(command: &Command) -> Command {
    let mut wrapped = Command::new("sh");
    wrapped.arg("-c").arg(format!("ulimit -n {OPEN_FILES} 2>/dev/null; exec \"$0\" \"$@\""));
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// The end of a server's output, for the report: its folder is gone when the report is read.
fn end_of(log: &Path) -> String {
    let output = fs::read(log).unwrap_or_default();
    let from = output.len().saturating_sub(SHOWN_OUTPUT_BYTES_MAX);
    String::from_utf8_lossy(output.get(from..).unwrap_or_default()).trim().to_owned()
}

/// Whether the server answers the first request that every client makes.
fn answers(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(
            b"GET /_matrix/client/versions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(&head == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// A port that nobody listens on.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(Error::system("find a free port"))?;
    listener.local_addr().map(|address| address.port()).map_err(Error::system("find a free port"))
}
