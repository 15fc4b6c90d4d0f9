//! The configuration from all its sources, and how it is refused.

use std::path::Path;

use super::source::ConfigError;
use super::source::{Origin, Raw, add_environment, add_flags, add_text, defaults};
use super::*;

/// As it is read from a file.
pub fn from_text(text: &str) -> Result<Config, ConfigError> {
    let mut raw = defaults();
    add_text(&mut raw, Path::new("warren.toml"), text)?;
    Config::from_raw(&raw)
}

fn refusal(text: &str) -> String {
    from_text(text).expect_err("must be refused").to_string()
}

#[test]
fn the_example_parses_to_the_defaults() {
    let example = from_text(&table::example()).expect("the example is valid");
    let default = Config::from_raw(&defaults()).expect("the defaults are valid");
    assert_eq!(format!("{example:?}"), format!("{default:?}"));
    assert_eq!(default.server_name, "localhost");
    assert_eq!(default.public_base_url, "http://127.0.0.1:8008");
    assert_eq!(default.data_dir, Path::new("./data"));
    let listen: Vec<_> = default.listen.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(listen, ["http://127.0.0.1:8008"]);
    assert_eq!(default.registration, Registration::Token);
    assert_eq!(default.memory_budget_bytes, 512 << 20);
    assert_eq!(default.password_hash_memory_kib(), 19 * 1024);
}

#[test]
fn refuses_with_line_and_nearest_name() {
    assert_eq!(
        refusal("\n# comment\nserver_nam = \"a\""),
        "warren.toml, line 3: there is no option server_nam; did you mean server_name?"
    );
    assert_eq!(
        refusal("server_name = \"a\"\nguests = \"maybe\""),
        "warren.toml, line 2: guests must be on or off"
    );
    assert!(refusal("memory_budget_mib = 1").contains("from 32 to"));
    assert!(refusal("memory_budget_mib = \"512\"").contains("whole number"));
    assert!(refusal("listen = []").contains("at least one"));
    assert!(refusal("listen = [\"https://0.0.0.0:1\"]").contains("tls_cert"));
    assert!(refusal("listen = [\"http://0.0.0.0:1#cleint\"]").contains("cleint"));
    assert!(refusal("server_name = \"a b\"").starts_with("warren.toml, line 1"));
    assert!(refusal("a = \n").contains("line 1: this is not TOML"));
    assert!(refusal("[section]\nx = 1").contains("no option section"));
}

#[test]
fn flags_win_over_variables_over_the_file() {
    let mut raw: Raw = defaults();
    add_text(&mut raw, Path::new("f"), "server_name = \"file\"\nlog = \"warn\"\nguests = true")
        .expect("valid");
    let variable = |name: &str, value: &str| (name.into(), value.into());
    let variables = [
        variable("WARREN_SERVER_NAME", "environment"),
        variable("WARREN_LISTEN", "http://127.0.0.1:1, unix:/tmp/x#client+admin"),
        variable("WARREN_CONFIG", "/etc/warren.toml"),
        variable("PATH", "/bin"),
    ];
    add_environment(&mut raw, variables).expect("valid");
    add_flags(&mut raw, [("server_name", vec!["flag:8448".to_owned()])]);
    let config = Config::from_raw(&raw).expect("valid");
    assert_eq!(config.server_name, "flag:8448");
    assert_eq!(config.log, "warn");
    assert!(config.guests);
    assert_eq!(config.public_base_url, "https://flag:8448");
    let [tcp, unix] = config.listen.as_slice() else { panic!("two listeners") };
    assert_eq!(tcp.apis, Apis::ALL);
    assert_eq!(unix.apis, Apis { client: true, federation: false, admin: true });
}

#[test]
fn an_unknown_variable_is_refused() {
    let refused = add_environment(&mut defaults(), [("WARREN_SERVERNAME".into(), "a".into())]);
    let error = refused.expect_err("must be refused");
    assert_eq!(error.origin, Origin::Variable("WARREN_SERVERNAME".to_owned()));
    assert!(error.to_string().ends_with("did you mean WARREN_SERVER_NAME?"));
}

#[test]
fn secrets_are_not_shown() {
    let config = from_text("registration_shared_secret = \"hunter2\"").expect("valid");
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.registration_shared_secret.as_ref().map(Secret::expose), Some("hunter2"));
}
