//! The domain name system: addresses of hosts, and services under names.
//!
//! Names are asked for as they are: the search list of the system is for its users and not for what others write.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::system_conf::read_system_conf;
use tracing::{debug, warn};

use super::{RESOLVE_TIME_MAX, SERVICES_MAX};

/// Answers that are remembered, some hundred bytes each.
const CACHE_ANSWERS: u64 = 16_384;

/// How long it is remembered that there is no such name, whatever its zone says.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(5 * 60);

/// How long an answer is remembered, whatever its zone says.
const POSITIVE_TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A host and port that offer a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub host: String,
    pub port: u16,
}

pub struct Names {
    resolver: TokioResolver,
}

impl Names {
    /// Asks these servers, or if there are none those of the system. Errors: a sentence.
    pub fn new(servers: &[SocketAddr]) -> Result<Names, String> {
        let (config, mut options) = match servers {
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
        options.use_hosts_file = ResolveHosts::Always;
        options.cache_size = CACHE_ANSWERS;
        options.positive_max_ttl = Some(POSITIVE_TTL_MAX);
        options.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = builder.with_options(options).build().map_err(|error| error.to_string())?;
        Ok(Names { resolver })
    }

    /// The addresses of a host; none if they are not known.
    pub async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let asked = self.resolver.lookup_ip(absolute(host));
        match tokio::time::timeout(RESOLVE_TIME_MAX, asked).await {
            Ok(Ok(found)) => found.iter().collect(),
            Ok(Err(error)) => {
                debug!(host, %error, "no address");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    /// The services under a name, in the order in which they are to be tried (RFC 2782); none if they are not known.
    pub async fn services(&self, name: &str) -> Vec<Service> {
        let asked = self.resolver.srv_lookup(absolute(name));
        let Ok(Ok(found)) = tokio::time::timeout(RESOLVE_TIME_MAX, asked).await else { return Vec::new() };
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
}

fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

/// A lot that beats others in proportion to its weight, or nearly so: rows of weight zero come last, as they have to.
fn draw(weight: u16) -> u64 {
    // Without randomness all lots of a weight are alike, which is an order too.
    u64::from(weight) * u64::from(getrandom::u32().unwrap_or(1) >> 8)
}
