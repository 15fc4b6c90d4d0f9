//! The table of options: the one place where an option's name, kind, default and meaning are written.
//!
//! The TOML key is the name, the environment variable is `WARREN_` and the name in capitals, the flag is `--` and the
//! name with hyphens. The documented example (`warren config`), the help text and the checks are made from it.

/// One option.
pub struct Row {
    pub name: &'static str,
    pub kind: Kind,
    /// The default in the notation of an environment variable; empty means "not set" or, for a list, "none".
    pub default: &'static str,
    /// What stands in the help and in the example. The first line is a whole sentence.
    pub meaning: &'static str,
}

/// What may be given for an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Several texts.
    List,
    /// `on` or `off`; `true` and `false` are understood too.
    Switch,
    Choice(&'static [&'static str]),
    /// A whole number, smallest and largest.
    Number(u64, u64),
    /// A text that is never shown.
    Secret,
}

/// All options, in the order of the documented example.
pub const ROWS: &[Row] = &[
    Row {
        name: "server_name",
        kind: Kind::Text,
        default: "localhost",
        meaning: "The name that ends every user id of this server; it can never be changed.\nA domain, or host:port.",
    },
    Row {
        name: "public_base_url",
        kind: Kind::Text,
        default: "",
        meaning: "The address under which clients reach this server.\nDefault: the first http or https listener that serves clients if the server name is localhost, else https://<server_name>.",
    },
    Row {
        name: "data_dir",
        kind: Kind::Text,
        default: "./data",
        meaning: "The folder of the database and of the media; made if it does not exist.",
    },
    Row {
        name: "listen",
        kind: Kind::List,
        default: "http://127.0.0.1:8008",
        meaning: "Where to listen: http://ADDRESS:PORT, https://ADDRESS:PORT or unix:PATH.\nA row serves all APIs, or those it names after a #: https://0.0.0.0:8448#federation, unix:/run/warren.sock#client+admin.\n[::] is IPv6 alone; list 0.0.0.0 beside it for IPv4.\nEvery user of the machine can connect to a unix socket; the folder that it lies in can keep them out.\nhttps needs tls_cert and tls_key.",
    },
    Row {
        name: "tls_cert",
        kind: Kind::Text,
        default: "",
        meaning: "The certificate chain of the https listeners, a PEM file. Read again when it changes.",
    },
    Row {
        name: "tls_key",
        kind: Kind::Text,
        default: "",
        meaning: "The private key of tls_cert, a PEM file (PKCS#8).",
    },
    Row {
        name: "trusted_ca_files",
        kind: Kind::List,
        default: "",
        meaning: "Further certificate authorities to trust in every outgoing request, PEM files.",
    },
    Row {
        name: "trusted_proxies",
        kind: Kind::List,
        default: "",
        meaning: "Addresses or networks (10.0.0.0/8) of the reverse proxies whose X-Forwarded-For is believed.\nWho connects by a unix socket is believed without being listed.",
    },
    Row {
        name: "default_room_version",
        kind: Kind::Choice(&["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"]),
        default: "12",
        meaning: "The version of rooms that are created without naming one.",
    },
    Row {
        name: "well_known_server",
        kind: Kind::Text,
        default: "",
        meaning: "host:port where other servers reach this one, served at /.well-known/matrix/server.",
    },
    Row {
        name: "well_known_client",
        kind: Kind::Text,
        default: "",
        meaning: "The base URL served at /.well-known/matrix/client.\nDefault: public_base_url.",
    },
    Row {
        name: "support_email",
        kind: Kind::Text,
        default: "",
        meaning: "The administrator's email address, served at /.well-known/matrix/support.",
    },
    Row {
        name: "support_page",
        kind: Kind::Text,
        default: "",
        meaning: "The URL of a help page, served at /.well-known/matrix/support.",
    },
    Row {
        name: "federation",
        kind: Kind::Switch,
        default: "on",
        meaning: "Whether this server deals with other servers at all.",
    },
    Row {
        name: "federation_allow",
        kind: Kind::List,
        default: "",
        meaning: "The only servers that this one deals with, by name without port; * and ? stand for any text and any character.\nNot set: all servers.",
    },
    Row {
        name: "federation_deny",
        kind: Kind::List,
        default: "",
        meaning: "Servers that this one does not deal with, written alike. Who is on both lists is denied.",
    },
    Row {
        name: "device_names_over_federation",
        kind: Kind::Switch,
        default: "off",
        meaning: "Whether other servers are told what users call their devices, such as \"Alice's telephone\".\nAny server may ask for the devices of any user.",
    },
    Row {
        name: "never_trust_keys",
        kind: Kind::List,
        default: "",
        meaning: "Signing keys that are never trusted because they have leaked: example.org:ed25519:a_1, or of every server ed25519:a_1.",
    },
    Row {
        name: "old_signing_keys",
        kind: Kind::List,
        default: "",
        meaning: "Keys with which a server of this name signed before, and that the database does not have, as where that was lost: ed25519:VERSION PUBLIC_KEY EXPIRED_TS, with the key in base64 and the time at which it went out of use in milliseconds since the epoch.\nThey are published, and stay listed for as long as the database has what they signed. One that `warren key rotate` has replaced need not be listed.",
    },
    Row {
        name: "trusted_key_servers",
        kind: Kind::List,
        default: "",
        meaning: "Servers that are asked for the signing keys of others that do not tell them themselves, such as those that are gone.\nWhat they say is believed; name only servers that you trust.",
    },
    Row {
        name: "policy_server",
        kind: Kind::Switch,
        default: "off",
        meaning: "Whether this server signs events as the policy server of the rooms that name it as theirs, and that a user of it is in.\nIts key for that is made when this is first on, and served at /.well-known/matrix/policy_server.",
    },
    Row {
        name: "policy_lists",
        kind: Kind::List,
        default: "",
        meaning: "Rooms, by their ids, whose moderation policy lists a policy server goes by: it signs nothing of users and servers that they ban, and nothing in rooms that they ban.\nA user of this server must be in each.",
    },
    Row {
        name: "federation_resolve",
        kind: Kind::List,
        default: "",
        meaning: "Where servers are reached, instead of finding it out: NAME=HOST:PORT, for tests and unusual networks.\nThe certificate must still be for NAME. A NAME with a port stands for connections to it: example.org:443=10.0.0.1:4430 is where the well-known file of example.org is asked for.\nWhat is named here may be at a private address.",
    },
    Row {
        name: "dns_servers",
        kind: Kind::List,
        default: "",
        meaning: "The servers of the domain name system to ask: ADDRESS or ADDRESS:PORT.\nNot set: those of /etc/resolv.conf, which is read again when it has changed. The hosts file is honoured in any case.",
    },
    Row {
        name: "registration",
        kind: Kind::Choice(&["closed", "token", "open"]),
        default: "token",
        meaning: "Who may register an account: nobody, who has a registration token, or everybody.",
    },
    Row {
        name: "guests",
        kind: Kind::Switch,
        default: "off",
        meaning: "Whether guests may register without any proof.",
    },
    Row {
        name: "registration_shared_secret",
        kind: Kind::Secret,
        default: "",
        meaning: "Lets tools that know it register accounts at /_synapse/admin/v1/register.\nSet it in the file or the environment; a flag can be seen by every user of the machine.",
    },
    Row {
        name: "presence",
        kind: Kind::Switch,
        default: "on",
        meaning: "Whether users who share a room are told who of them is online, be they of this server or of others.\nOff saves the wake-ups that each coming and going costs on a busy server: nobody is shown to be there, and what other servers tell of their users is dropped.",
    },
    Row {
        name: "rate_limits",
        kind: Kind::Switch,
        default: "on",
        meaning: "Whether too frequent requests are refused. Off is for tests.",
    },
    Row {
        name: "password_hash_cost",
        kind: Kind::Number(1, 12),
        default: "8",
        meaning: "How dear it is to check a password: argon2id over 76 KiB times two to this power, two passes.\n8 is 19 MiB, the least that OWASP recommends. Below 8 is for tests.\nAfter a change each password is hashed anew when its user next gives it; until all are, a wrong one costs what the dearest costs.",
    },
    Row {
        name: "allow_private_addresses",
        kind: Kind::Switch,
        default: "off",
        meaning: "Whether outgoing requests may go to loopback and private networks.",
    },
    Row {
        name: "appservice_files",
        kind: Kind::List,
        default: "",
        meaning: "Registrations of application services: YAML files, or folders of them.",
    },
    Row {
        name: "upload_limit_mib",
        kind: Kind::Number(1, 4096),
        default: "50",
        meaning: "The largest file that may be uploaded, in MiB.",
    },
    Row {
        name: "freeze_unauthenticated_media",
        kind: Kind::Switch,
        default: "on",
        meaning: "Whether media that is uploaded from now on can only be downloaded with an access token.\nWhat was uploaded while this was off stays reachable under the old paths without one.",
    },
    Row {
        name: "memory_budget_mib",
        kind: Kind::Number(32, 1_048_576),
        default: "512",
        meaning: "What caches, write buffers and queues may use together, in MiB.",
    },
    Row {
        name: "durability",
        kind: Kind::Choice(&["commit", "relaxed"]),
        default: "commit",
        meaning: "When a write is acknowledged: once it is on disk, or once the system has it.\nrelaxed survives a crash of the server, not one of the machine.",
    },
    Row {
        name: "log",
        kind: Kind::Text,
        default: "info",
        meaning: "What is logged: a level, or levels by module: warn,warren::http=debug.",
    },
    Row {
        name: "log_format",
        kind: Kind::Choice(&["text", "json"]),
        default: "text",
        meaning: "How it is logged: lines for people, or one JSON object per line.",
    },
    Row {
        name: "metrics_listen",
        kind: Kind::Text,
        default: "",
        meaning: "http://ADDRESS:PORT where Prometheus metrics are served at /metrics.\nNot set: nowhere.",
    },
];

/// The row of that name.
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

impl Row {
    /// `server-name`.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// What a value looks like, for help and messages.
    pub fn shape(&self) -> String {
        match self.kind {
            Kind::Text | Kind::Secret => "a text".to_owned(),
            Kind::List => "a list of texts".to_owned(),
            Kind::Switch => "on or off".to_owned(),
            Kind::Choice(values) => format!("one of {}", values.join(", ")),
            Kind::Number(least, most) => format!("a whole number from {least} to {most}"),
        }
    }

    fn default_as_toml(&self) -> String {
        match self.kind {
            Kind::Number(..) => self.default.to_owned(),
            Kind::List if self.default.is_empty() => "[]".to_owned(),
            Kind::List => format!("[{}]", self.default.split(',').map(quoted).collect::<Vec<_>>().join(", ")),
            _ => quoted(self.default),
        }
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The documented example: every option with its meaning and its default, as a file that can be used as it is.
pub fn example() -> String {
    let mut text = String::from(
        "# Warren's options with their defaults. Each is also an environment variable (WARREN_SERVER_NAME)\n\
         # and a flag (--server-name). A flag wins over a variable, a variable over this file.\n\
         # A list is written by repeating the flag, or in a variable with commas.\n",
    );
    for row in ROWS {
        text.push('\n');
        for line in row.meaning.lines() {
            text.push_str(&format!("# {line}\n"));
        }
        if !matches!(row.kind, Kind::Text | Kind::List | Kind::Secret) {
            text.push_str(&format!("# Value: {}.\n", row.shape()));
        }
        text.push_str(&format!("{} = {}\n", row.name, row.default_as_toml()));
    }
    text
}

/// The option nearest to a mistyped one, if any is near enough to be meant.
pub fn nearest(wrong: &str) -> Option<&'static str> {
    nearest_of(&wrong.replace('-', "_"), ROWS.iter().map(|row| row.name))
}

/// The one of some names nearest to a mistyped one, if any is near enough to be meant.
pub fn nearest_of(wrong: &str, names: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let wrong = wrong.to_ascii_lowercase();
    let best = names.into_iter().map(|name| (edit_distance(&wrong, name), name)).min()?;
    // A third of the letters wrong is still a typing error; more is another word.
    (best.0 <= (wrong.len() / 3).max(2)).then_some(best.1)
}

/// Levenshtein distance, over bytes: option names are ASCII.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, left_byte) in left.bytes().enumerate() {
        let mut current = vec![row + 1];
        for ((right_byte, diagonal), above) in right.bytes().zip(&previous).zip(previous.iter().skip(1)) {
            let beside = current.last().copied().unwrap_or(row);
            let replaced = diagonal + usize::from(left_byte != right_byte);
            current.push(replaced.min(above + 1).min(beside + 1));
        }
        previous = current;
    }
    previous.last().copied().unwrap_or(left.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_name() {
        assert_eq!(nearest("server-nam"), Some("server_name"));
        assert_eq!(nearest("registrations"), Some("registration"));
        assert_eq!(nearest("LISTN"), Some("listen"));
        assert_eq!(nearest("colour_of_the_sky"), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }

    #[test]
    fn names_are_unique_and_meanings_are_sentences() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(ROWS.iter().skip(index + 1).all(|other| other.name != row.name), "{} twice", row.name);
            assert!(row.meaning.lines().all(|line| line.ends_with('.')), "{}", row.name);
        }
    }
}
