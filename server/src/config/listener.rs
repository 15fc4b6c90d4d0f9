//! Rows of `listen`: an address and the APIs served there.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Http(SocketAddr),
    Https(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// Whether only one of both can be listened on. Port 0 is another one each time.
    pub fn clashes(&self, other: &Address) -> bool {
        match (self, other) {
            (Address::Unix(one), Address::Unix(two)) => one == two,
            (Address::Http(one) | Address::Https(one), Address::Http(two) | Address::Https(two)) => {
                one == two && one.port() != 0
            }
            _ => false,
        }
    }
}

/// The groups of endpoints that a listener can be restricted to. `/health` and `/.well-known` are served everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apis {
    /// `/_matrix/client`, `/_matrix/media` and the page at `/`.
    pub client: bool,
    /// `/_matrix/federation`, `/_matrix/key` and `/_matrix/policy`.
    pub federation: bool,
    /// `/_synapse` and `/_warren`.
    pub admin: bool,
}

impl Apis {
    const NONE: Apis = Apis { client: false, federation: false, admin: false };
    pub const ALL: Apis = Apis { client: true, federation: true, admin: true };

    /// Whether a path is served.
    pub fn serve(self, path: &str) -> bool {
        if path == "/health" || path.starts_with("/.well-known/") {
            return true;
        }
        if ["/_matrix/federation/", "/_matrix/key/", "/_matrix/policy/"]
            .iter()
            .any(|api| path.starts_with(api))
        {
            return self.federation;
        }
        if path.starts_with("/_synapse/") || path.starts_with("/_warren/") {
            return self.admin;
        }
        self.client
    }
}

/// One row of `listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub address: Address,
    pub apis: Apis,
}

impl std::str::FromStr for Listener {
    type Err = String;

    /// Errors: a sentence that quotes the row.
    fn from_str(row: &str) -> Result<Listener, String> {
        let (address, names) = match row.split_once('#') {
            Some((address, names)) => (address, Some(names)),
            None => (row, None),
        };
        let mut apis = if names.is_some() { Apis::NONE } else { Apis::ALL };
        for name in names.into_iter().flat_map(|names| names.split('+')) {
            match name {
                "client" => apis.client = true,
                "federation" => apis.federation = true,
                "admin" => apis.admin = true,
                _ => return Err(format!("`{name}` in `{row}` is no API: client, federation, admin")),
            }
        }
        let socket = |text: &str| {
            text.trim_end_matches('/').parse::<SocketAddr>().map_err(|_| {
                format!(
                    "`{row}` must have a numeric address and a port: http://127.0.0.1:8008, http://[::]:8008"
                )
            })
        };
        let address = if let Some(rest) = address.strip_prefix("http://") {
            Address::Http(socket(&rest.replacen("localhost:", "127.0.0.1:", 1))?)
        } else if let Some(rest) = address.strip_prefix("https://") {
            Address::Https(socket(&rest.replacen("localhost:", "127.0.0.1:", 1))?)
        } else if let Some(path) = address.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            Address::Unix(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))
        } else {
            return Err(format!("`{row}` must start with http://, https:// or unix:"));
        };
        Ok(Listener { address, apis })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Http(address) => write!(out, "http://{address}"),
            Address::Https(address) => write!(out, "https://{address}"),
            Address::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}
