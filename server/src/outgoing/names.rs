//! The domain name system: addresses of hosts, and services under names.
//!
//! Names are asked for as they are: the search list of the system is for its users and not for what others write. The servers of
//! the system may change while this one runs, as on a machine that comes into another network.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dashmap::DashMap;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::system_conf::read_system_conf;
use parking_lot::{Mutex, RwLock};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::{RESOLVE_TIME_MAX, SECOND_FAMILY_TIME, SERVICES_MAX, SERVICES_TIME_MAX, SILENT_SERVICES_TIME};

/// Answers that are remembered, some hundred bytes each.
const CACHE_ANSWERS: u64 = 16_384;

/// How long it is remembered that there is no such name, whatever its zone says.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(5 * 60);

/// How long an answer is remembered, whatever its zone says.
const POSITIVE_TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Names of services that nobody has answered for, some hundred bytes each.
const SILENT_SERVICES_MAX: usize = 10_000;

/// Where the system says which servers are to be asked.
const SYSTEM_FILE: &str = "/etc/resolv.conf";

/// How often it is looked at most whether the system has come to say something else: the C library looks before each question.
const SYSTEM_LOOKED_AT_EVERY: Duration = Duration::from_secs(5);

/// A host and port that offer a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub host: String,
    pub port: u16,
}

pub struct Names {
    resolver: RwLock<Arc<TokioResolver>>,
    /// Where the servers of the system are asked.
    system: Option<Mutex<System>>,
    /// The names of services that nobody has answered for, and until when they are not asked for again.
    silent: DashMap<String, Instant>,
}

impl Names {
    /// Asks these servers, or if there are none those of the system. Errors: a sentence.
    pub fn new(servers: &[SocketAddr]) -> Result<Names, String> {
        let system =
            servers.is_empty().then(|| Mutex::new(System::new(Path::new(SYSTEM_FILE), Instant::now())));
        let (config, options) = match servers {
            [] => read_system_conf().unwrap_or_else(|error| {
                // What the C library does.
                warn!(%error, "/etc/resolv.conf cannot be read; the domain name server of this machine is asked");
                let local = NameServerConfig::udp_and_tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
                (ResolverConfig::from_name_servers(vec![local]), ResolverOpts::default())
            }),
            servers => {
                let servers = servers.iter().map(|address| {
                    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                    let connections =
                        connections.map(|mut connection| {
                            connection.port = address.port();
                            connection
                        });
                    NameServerConfig::new(address.ip(), true, connections.into())
                });
                (ResolverConfig::from_name_servers(servers.collect()), ResolverOpts::default())
            }
        };
        let resolver = RwLock::new(resolver(config, options)?);
        Ok(Names { resolver, system, silent: DashMap::new() })
    }

    /// Who is asked now.
    fn resolver(&self) -> Arc<TokioResolver> {
        let has_changed =
            self.system.as_ref().is_some_and(|system| system.lock().has_changed(Instant::now()));
        if has_changed {
            let read = read_system_conf().map_err(|error| error.to_string());
            match read.and_then(|(config, options)| resolver(config, options)) {
                Ok(changed) => {
                    info!("/etc/resolv.conf has changed and is in use");
                    *self.resolver.write() = changed;
                    self.silent.clear();
                }
                Err(error) => warn!(%error, "the changed /etc/resolv.conf cannot be used; the old one stays"),
            }
        }
        self.resolver.read().clone()
    }

    /// The addresses of a host, its two families alternating (RFC 8305, 4); none if they are not known.
    pub async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let resolver = self.resolver();
        let newer = of_family(host, resolver.ipv6_lookup(absolute(host)));
        let older = of_family(host, resolver.ipv4_lookup(absolute(host)));
        let (newer, older) = both(newer, older, RESOLVE_TIME_MAX, SECOND_FAMILY_TIME).await;
        alternating(newer, older)
    }

    /// The services under a name, in the order in which they are to be tried (RFC 2782); none if they are not known.
    pub async fn services(&self, name: &str) -> Vec<Service> {
        let resolver = self.resolver();
        if self.silent.get(name).is_some_and(|until| *until > Instant::now()) {
            return Vec::new();
        }
        let asked = resolver.srv_lookup(absolute(name));
        let found = match timeout(SERVICES_TIME_MAX, asked).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => return Vec::new(),
            Err(_) => {
                self.note_silent(name);
                return Vec::new();
            }
        };
        let rows = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(row) => Some(row),
            _ => None,
        });
        let mut rows: Vec<(u16, Reverse<u64>, Service)> = rows
            // The root as target says that there is no such service.
            .filter(|row| !row.target.is_root())
            .map(|row| {
                let host = row.target.to_utf8().trim_end_matches('.').to_owned();
                (row.priority, Reverse(draw(row.weight)), Service { host, port: row.port })
            })
            .collect();
        rows.sort_by_key(|(priority, drawn, _)| (*priority, *drawn));
        rows.into_iter().take(SERVICES_MAX).map(|(_, _, service)| service).collect()
    }

    fn note_silent(&self, name: &str) {
        debug!(name, "nobody answers for these services");
        let now = Instant::now();
        if self.silent.len() >= SILENT_SERVICES_MAX {
            self.silent.retain(|_, until| *until > now);
            if self.silent.len() >= SILENT_SERVICES_MAX {
                self.silent.clear();
            }
        }
        self.silent.insert(name.to_owned(), now + SILENT_SERVICES_TIME);
    }
}

/// What asks these servers, with a memory of its own. Errors: a sentence.
fn resolver(config: ResolverConfig, mut options: ResolverOpts) -> Result<Arc<TokioResolver>, String> {
    options.use_hosts_file = ResolveHosts::Always;
    options.cache_size = CACHE_ANSWERS;
    options.positive_max_ttl = Some(POSITIVE_TTL_MAX);
    options.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let resolver = builder.with_options(options).build().map_err(|error| error.to_string())?;
    Ok(Arc::new(resolver))
}

/// A file of the system, and how it was when it was last looked at.
struct System {
    path: PathBuf,
    seen: Option<(SystemTime, u64)>,
    look_again: Instant,
}

impl System {
    fn new(path: &Path, now: Instant) -> System {
        System { path: path.to_owned(), seen: seen(path), look_again: now + SYSTEM_LOOKED_AT_EVERY }
    }

    /// Whether it has changed since it was last looked at.
    fn has_changed(&mut self, now: Instant) -> bool {
        if now < self.look_again {
            return false;
        }
        self.look_again = now + SYSTEM_LOOKED_AT_EVERY;
        let seen = seen(&self.path);
        std::mem::replace(&mut self.seen, seen) != seen
    }
}

/// When a file was changed, and how long it is; nothing of one that is not there.
fn seen(path: &Path) -> Option<(SystemTime, u64)> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len()))
}

async fn of_family(host: &str, asked: impl Future<Output = Result<Lookup, NetError>>) -> Vec<IpAddr> {
    match asked.await {
        Ok(found) => found.answers().iter().filter_map(|record| record.data.ip_addr()).collect(),
        Err(error) => {
            debug!(host, %error, "no address");
            Vec::new()
        }
    }
}

/// What both say within `time_max`. Once one has said something, the other is waited for no longer than `second_time_max`.
async fn both<T>(
    first: impl Future<Output = Vec<T>>,
    second: impl Future<Output = Vec<T>>,
    time_max: Duration,
    second_time_max: Duration,
) -> (Vec<T>, Vec<T>) {
    let end = Instant::now() + time_max;
    let end_after = |found: &Vec<T>| match found.is_empty() {
        true => end,
        false => end.min(Instant::now() + second_time_max),
    };
    let mut first = pin!(first);
    let mut second = pin!(second);
    tokio::select! {
        found = timeout_at(end, &mut first) => {
            let found = found.unwrap_or_default();
            let other = timeout_at(end_after(&found), second).await.unwrap_or_default();
            (found, other)
        }
        found = timeout_at(end, &mut second) => {
            let found = found.unwrap_or_default();
            let other = timeout_at(end_after(&found), first).await.unwrap_or_default();
            (other, found)
        }
    }
}

/// One of the first, one of the second, and so on.
fn alternating<T>(first: Vec<T>, second: Vec<T>) -> Vec<T> {
    let mut mixed = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let pair = [first.next(), second.next()];
        if pair.iter().all(Option::is_none) {
            return mixed;
        }
        mixed.extend(pair.into_iter().flatten());
    }
}

fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

/// A lot that beats others in proportion to its weight, or nearly so: rows of weight zero come last, as they have to.
fn draw(weight: u16) -> u64 {
    // Without randomness all lots of a weight are alike, which is an order too.
    u64::from(weight) * u64::from(getrandom::u32().unwrap_or(1) >> 8)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const LONG: Duration = Duration::from_secs(60 * 60);
    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn families_alternate_and_nothing_is_left_out() {
        assert_eq!(alternating(vec![1, 2, 3, 4], vec![10]), [1, 10, 2, 3, 4]);
        assert_eq!(alternating(vec![1], vec![10, 11, 12]), [1, 10, 11, 12]);
        assert_eq!(alternating(Vec::<u8>::new(), Vec::new()), [0; 0]);
    }

    #[tokio::test]
    async fn what_one_says_does_not_wait_for_an_other_that_is_silent() {
        assert_eq!(both(ready(vec![1]), pending(), LONG, SHORT).await, (vec![1], vec![]));
        assert_eq!(both(pending(), ready(vec![2]), LONG, SHORT).await, (vec![], vec![2]));
        assert_eq!(both(pending::<Vec<u8>>(), pending(), SHORT, LONG).await, (vec![], vec![]));
    }

    #[tokio::test]
    async fn nothing_is_no_reason_not_to_wait_for_the_other() {
        let late = || async {
            tokio::task::yield_now().await;
            vec![3]
        };
        assert_eq!(both(ready(vec![]), late(), LONG, Duration::ZERO).await, (vec![], vec![3]));
        assert_eq!(both(late(), ready(vec![]), LONG, Duration::ZERO).await, (vec![3], vec![]));
        assert_eq!(both(late(), ready(vec![2]), LONG, LONG).await, (vec![3], vec![2]));
    }

    #[test]
    fn what_the_system_says_is_looked_at_again_now_and_then() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("resolv.conf");
        let write = |text: &str| std::fs::write(&path, text).expect("it is ours");
        write("nameserver 192.0.2.1\n");
        let start = Instant::now();
        let mut system = System::new(&path, start);
        let mut at = |times: u32| system.has_changed(start + SYSTEM_LOOKED_AT_EVERY * times);
        assert!(!at(1), "nothing has happened");
        write("nameserver 192.0.2.10\n");
        assert!(!at(1), "it was looked at just now");
        assert!(at(2));
        assert!(!at(3));
        std::fs::remove_file(&path).expect("it is there");
        assert!(at(4));
        write("nameserver 192.0.2.1\n");
        assert!(at(5));
    }
}
