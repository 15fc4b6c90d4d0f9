//! From texts to the typed [`Config`], in one step.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;

use ruma_common::{OwnedServerName, ServerName};
use tracing_subscriber::filter::LevelFilter;
use warren_engine::core::identifiers::is_room_id;

use super::access;
use super::source::{ConfigError, Given, Origin, Raw, wrong_shape};
use super::table::{self, Kind};
use super::{Access, Address, Config, Durability, Listener, LogFormat, NamedFile, Registration, Secret, Tls};

impl Config {
    /// Validates everything that was given. Errors: the first option that is wrong, and where it was given.
    pub fn from_raw(raw: &Raw) -> Result<Config, ConfigError> {
        let read = Reader { raw };
        let server_name: OwnedServerName = ServerName::parse(&read.text("server_name")?)
            .map_err(|error| read.wrong("server_name", format!("is not a server name: {error}")))?
            .to_owned();
        let federation = read.switch("federation")?;
        let listen = read.listen(federation)?;
        let public_base_url =
            read.url("public_base_url")?.unwrap_or_else(|| default_base_url(&server_name, &listen));
        Ok(Config {
            well_known_client: read.url("well_known_client")?.unwrap_or_else(|| public_base_url.clone()),
            public_base_url,
            data_dir: read.text("data_dir")?.into(),
            tls: read.tls(&listen)?,
            listen,
            trusted_ca_files: read.files("trusted_ca_files"),
            trusted_proxies: read.parsed("trusted_proxies")?,
            default_room_version: read.one("default_room_version")?,
            well_known_server: read
                .optional("well_known_server")
                .map(|name| ServerName::parse(&name).map(|_| name))
                .transpose()
                .map_err(|error| read.wrong("well_known_server", format!("is not host:port: {error}")))?,
            support_email: read.optional("support_email"),
            support_page: read.url("support_page")?,
            federation,
            federation_access: Access::new(
                read.server_patterns("federation_allow")?,
                read.server_patterns("federation_deny")?,
            ),
            device_names_over_federation: read.switch("device_names_over_federation")?,
            never_trust_keys: read.never_trust_keys()?,
            old_signing_keys: read.parsed("old_signing_keys")?,
            trusted_key_servers: read.parsed("trusted_key_servers")?,
            policy_server: read.switch("policy_server")?,
            policy_lists: read.policy_lists()?,
            federation_resolve: read.parsed("federation_resolve")?,
            dns_servers: read.dns_servers()?,
            registration: match read.text("registration")?.as_str() {
                "closed" => Registration::Closed,
                "open" => Registration::Open,
                _ => Registration::Token,
            },
            guests: read.switch("guests")?,
            registration_shared_secret: read.optional("registration_shared_secret").map(Secret::new),
            presence: read.switch("presence")?,
            rate_limits: read.switch("rate_limits")?,
            password_hash_cost: read.one("password_hash_cost")?,
            allow_private_addresses: read.switch("allow_private_addresses")?,
            appservice_files: read.files("appservice_files"),
            upload_bytes_max: read.one::<u64>("upload_limit_mib")? << 20,
            freeze_unauthenticated_media: read.switch("freeze_unauthenticated_media")?,
            memory_budget_bytes: read.one::<u64>("memory_budget_mib")? << 20,
            durability: match read.text("durability")?.as_str() {
                "relaxed" => Durability::Relaxed,
                _ => Durability::Commit,
            },
            log: read.log()?,
            log_format: match read.text("log_format")?.as_str() {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
            metrics_listen: read.metrics_listen()?,
            server_name,
        })
    }
}

/// What `log` calls its levels.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The port of the domain name system.
const DNS_PORT: u16 = 53;

/// Where clients reach a server that does not say so: on a developer's machine the first listener for them, else by its name.
fn default_base_url(server_name: &ServerName, listen: &[Listener]) -> String {
    let is_local = matches!(server_name.host(), "localhost" | "127.0.0.1" | "[::1]");
    let mut for_clients =
        listen.iter().filter(|listener| listener.apis.client).map(|listener| &listener.address);
    match for_clients.find(|address| !matches!(address, Address::Unix(_))) {
        Some(address) if is_local => {
            address.to_string().replacen("0.0.0.0", "127.0.0.1", 1).replacen("[::]", "[::1]", 1)
        }
        _ => format!("https://{server_name}"),
    }
}

struct Reader<'a> {
    raw: &'a Raw,
}

impl Reader<'_> {
    fn given(&self, name: &'static str) -> Option<&Given> {
        self.raw.get(name)
    }

    fn wrong(&self, name: &'static str, message: impl Display) -> ConfigError {
        ConfigError { origin: self.origin(name), message: format!("{name} {message}") }
    }

    fn origin(&self, name: &'static str) -> Origin {
        self.given(name).map_or(Origin::Default, |given| given.origin.clone())
    }

    /// The one value of an option, checked against its row's choices and bounds.
    fn text(&self, name: &'static str) -> Result<String, ConfigError> {
        let row = table::row(name).ok_or_else(|| self.wrong(name, "is not in the table"))?;
        let misfit = || ConfigError { message: wrong_shape(row), ..self.wrong(name, "") };
        let value = match self.given(name).map(|given| given.values.as_slice()) {
            Some([value]) => value.trim(),
            _ => return Err(misfit()),
        };
        if row.kind == Kind::Text && value.is_empty() {
            return Err(self.wrong(name, "must not be empty"));
        }
        let fits = match row.kind {
            Kind::Choice(values) => values.contains(&value),
            Kind::Number(least, most) => {
                value.parse().is_ok_and(|number: u64| (least..=most).contains(&number))
            }
            Kind::Switch => matches!(value, "on" | "off" | "true" | "false"),
            Kind::Text | Kind::Secret | Kind::List => true,
        };
        if fits { Ok(value.to_owned()) } else { Err(misfit()) }
    }

    fn optional(&self, name: &'static str) -> Option<String> {
        let value = self.given(name)?.values.first()?.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn one<T: FromStr>(&self, name: &'static str) -> Result<T, ConfigError>
    where
        T::Err: Display,
    {
        self.text(name)?.parse().map_err(|error: T::Err| self.wrong(name, format!("is wrong: {error}")))
    }

    fn switch(&self, name: &'static str) -> Result<bool, ConfigError> {
        Ok(matches!(self.text(name)?.as_str(), "on" | "true"))
    }

    fn list(&self, name: &'static str) -> &[String] {
        self.given(name).map_or(&[], |given| &given.values)
    }

    fn files(&self, name: &'static str) -> Vec<NamedFile> {
        self.list(name).iter().map(|path| self.file(name, path)).collect()
    }

    fn file(&self, name: &'static str, path: &str) -> NamedFile {
        NamedFile::new(path, name, self.origin(name))
    }

    fn parsed<T: FromStr>(&self, name: &'static str) -> Result<Vec<T>, ConfigError>
    where
        T::Err: Display,
    {
        let parse = |text: &String| {
            text.parse().map_err(|error: T::Err| self.wrong(name, format!("is wrong: {error}")))
        };
        self.list(name).iter().map(parse).collect()
    }

    fn url(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let Some(text) = self.optional(name) else { return Ok(None) };
        let is_url = text.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        if is_url {
            Ok(Some(text.trim_end_matches('/').to_owned()))
        } else {
            Err(self.wrong(name, "must be a URL that starts with http:// or https://"))
        }
    }

    /// Patterns for the names of servers. One that matches nobody must not pass for a denial.
    fn server_patterns(&self, name: &'static str) -> Result<&[String], ConfigError> {
        let patterns = self.list(name);
        match patterns.iter().find_map(|text| Some((text, access::fault(text)?))) {
            Some((text, fault)) => Err(self.wrong(name, format!("has `{text}`: {fault}"))),
            None => Ok(patterns),
        }
    }

    /// Without federation no listener serves its endpoints.
    fn listen(&self, federation: bool) -> Result<Vec<Listener>, ConfigError> {
        let mut listen: Vec<Listener> = self.parsed("listen")?;
        listen.iter_mut().for_each(|listener| listener.apis.federation &= federation);
        if listen.is_empty() {
            return Err(self.wrong("listen", "must have at least one row"));
        }
        for (index, listener) in listen.iter().enumerate() {
            if listen.iter().take(index).any(|earlier| earlier.address.clashes(&listener.address)) {
                let message = format!(
                    "names {} twice; one row can serve several APIs, as #client+federation does",
                    listener.address
                );
                return Err(self.wrong("listen", message));
            }
        }
        Ok(listen)
    }

    fn tls(&self, listen: &[Listener]) -> Result<Option<Tls>, ConfigError> {
        let needed = listen.iter().any(|listener| matches!(listener.address, Address::Https(_)));
        match (self.optional("tls_cert"), self.optional("tls_key")) {
            (Some(cert), Some(key)) => {
                let (cert, key) = (self.file("tls_cert", &cert), self.file("tls_key", &key));
                Ok(Some(Tls { cert, key }))
            }
            (Some(_), None) => Err(self.wrong("tls_cert", "is set but tls_key is not")),
            (None, Some(_)) => Err(self.wrong("tls_key", "is set but tls_cert is not")),
            (None, None) if needed => {
                Err(self.wrong("listen", "has an https row, which needs tls_cert and tls_key"))
            }
            (None, None) => Ok(None),
        }
    }

    /// A key's id, or a server's name and one; the algorithm and the version are the last two parts at colons.
    fn never_trust_keys(&self) -> Result<Vec<String>, ConfigError> {
        let name = "never_trust_keys";
        let is_key = |text: &str| {
            let mut parts = text.rsplitn(3, ':');
            // Whatever a server may have called a key; a space is a slip.
            let is_version =
                |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
            parts.next().is_some_and(is_version)
                && parts.next() == Some("ed25519")
                && parts.next().is_none_or(|server| ServerName::parse(server).is_ok())
        };
        let wrong = self.list(name).iter().find(|text| !is_key(text));
        match wrong {
            Some(text) => Err(self.wrong(
                name,
                format!("has `{text}`, which is neither ed25519:VERSION nor SERVER:ed25519:VERSION"),
            )),
            None => Ok(self.list(name).to_vec()),
        }
    }

    /// Ids of rooms: an alias may come to stand for another room.
    fn policy_lists(&self) -> Result<Vec<String>, ConfigError> {
        let name = "policy_lists";
        match self.list(name).iter().find(|text| !is_room_id(text)) {
            Some(text) => Err(self.wrong(name, format!("has `{text}`, which is no room's id"))),
            None => Ok(self.list(name).to_vec()),
        }
    }

    /// Addresses, with a port or without.
    fn dns_servers(&self) -> Result<Vec<SocketAddr>, ConfigError> {
        let name = "dns_servers";
        let parse = |text: &String| {
            let alone = text.parse().map(|address| SocketAddr::new(address, DNS_PORT));
            text.parse().or(alone).map_err(|_| {
                self.wrong(name, format!("has `{text}`, which is neither ADDRESS nor ADDRESS:PORT"))
            })
        };
        self.list(name).iter().map(parse).collect()
    }

    /// Levels, for all or by module. What is neither would be taken for the name of a module, the only one to be heard of; so
    /// would a level with a space before it.
    fn log(&self) -> Result<String, ConfigError> {
        let directives = self.text("log")?;
        let is_known = |part: &str| {
            // A level of a module, or one within a span: those are written on purpose, and looked at below.
            part.is_empty() || part.contains(['=', '[']) || part.parse::<LevelFilter>().is_ok()
        };
        if let Some(word) = directives.split(',').find(|part| !is_known(part)) {
            let hint = match table::nearest_of(word, LOG_LEVELS) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("it must be one of {}, or MODULE=LEVEL", LOG_LEVELS.join(", ")),
            };
            let message = format!("has `{word}`, which is no level; {hint}");
            return Err(self.wrong("log", message));
        }
        tracing_subscriber::EnvFilter::try_new(&directives)
            .map_err(|error| self.wrong("log", format!("is wrong: {error}")))?;
        Ok(directives)
    }

    fn metrics_listen(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(text) = self.optional("metrics_listen") else { return Ok(None) };
        let address = text.strip_prefix("http://").unwrap_or(&text).trim_end_matches('/').parse();
        address.map(Some).map_err(|_| self.wrong("metrics_listen", "must be http://ADDRESS:PORT"))
    }
}
