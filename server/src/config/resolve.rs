//! Rows of `federation_resolve`: where a server is reached, as the operator says.

/// One row: `NAME=HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// A server name, or a host and port that are connected to elsewhere.
    pub name: String,
    /// Without brackets.
    pub host: String,
    pub port: u16,
}

impl std::str::FromStr for Resolve {
    type Err = String;

    /// Errors: a sentence that quotes the row.
    fn from_str(row: &str) -> Result<Resolve, String> {
        let wrong = || format!("`{row}` must be NAME=HOST:PORT, with a port from 1 to 65535");
        let (name, target) = row.split_once('=').ok_or_else(wrong)?;
        let (host, port) = target.trim().rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let name = ruma_common::ServerName::parse(name.trim()).map_err(|_| wrong())?;
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Resolve { name: name.to_string(), host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        let resolve = |name: &str, host: &str| Resolve { name: name.into(), host: host.into(), port: 81 };
        assert_eq!("a.example=127.0.0.1:81".parse(), Ok(resolve("a.example", "127.0.0.1")));
        assert_eq!("a.example:443=[::1]:81".parse(), Ok(resolve("a.example:443", "::1")));
        for wrong in ["a.example", "a.example=b", "a.example=:81", "=b:81", "a=b:99999", "a=b:0", "a b=c:81"]
        {
            assert!(wrong.parse::<Resolve>().is_err(), "{wrong}");
        }
    }
}
