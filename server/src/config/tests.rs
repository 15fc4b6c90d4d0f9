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
fn the_file_that_operators_are_shown_is_valid() {
    let page = include_str!("../../../docs/deploying.md");
    let file =
        page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("it shows one");
    let config = from_text(file).expect("it is valid");
    assert_eq!(config.public_base_url, "https://matrix.example.org");
    assert_eq!(config.well_known_server.as_deref(), Some("matrix.example.org:443"));
    let limit = format!("client_max_body_size {}m;", (config.upload_bytes_max >> 20) + 2);
    assert!(page.contains(&limit), "the proxy that it shows takes less than Warren, or far more");
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
    assert_eq!(refusal("data_dir = \" \""), "warren.toml, line 1: data_dir must not be empty");
    assert!(refusal("listen = [\"https://0.0.0.0:1\"]").contains("tls_cert"));
    assert!(refusal("listen = [\"http://0.0.0.0:1#cleint\"]").contains("cleint"));
    assert!(refusal("server_name = \"a b\"").starts_with("warren.toml, line 1"));
    assert!(refusal("a = \n").contains("line 1: this is not TOML"));
    assert!(refusal("[section]\nx = 1").contains("no option section"));
}

#[test]
fn refuses_a_word_that_is_no_level() {
    for log in [
        "info",
        "WARN",
        "off",
        "3",
        "warn,warren::http=debug",
        "info,hyper=off",
        "warn,",
        "warn,[request]=debug",
    ] {
        from_text(&format!("log = \"{log}\"")).expect("valid");
    }
    assert_eq!(
        refusal("\nlog = \"infoo\""),
        "warren.toml, line 2: log has `infoo`, which is no level; did you mean info?"
    );
    assert!(refusal("log = \"warn,debgu\"").ends_with("did you mean debug?"));
    assert!(
        refusal("log = \"warn, debug\"").ends_with("has ` debug`, which is no level; did you mean debug?")
    );
    for log in ["warren::http", "everything", "6"] {
        let refusal = refusal(&format!("log = \"{log}\""));
        assert!(refusal.contains(&format!("`{log}`")) && refusal.contains("level"), "{refusal}");
    }
}

#[test]
fn refuses_a_listener_that_is_named_twice() {
    for (one, two) in [
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://127.0.0.1:1#client", "http://localhost:1#federation"),
        ("http://[::]:1", "https://[::]:1"),
        ("unix:/run/a", "unix:///run/a#admin"),
    ] {
        let files = "tls_cert = \"c\"\ntls_key = \"k\"\n";
        let refusal = refusal(&format!("{files}listen = [\"http://127.0.0.1:2\", \"{one}\", \"{two}\"]"));
        assert!(
            refusal.starts_with("warren.toml, line 3: listen names ") && refusal.contains(" twice"),
            "{refusal}"
        );
    }
    // Any free port is another one each time.
    from_text("listen = [\"http://127.0.0.1:0\", \"http://127.0.0.1:0\", \"http://[::1]:0\"]")
        .expect("valid");
}

#[test]
fn clients_are_sent_to_a_listener_that_serves_them() {
    for (listen, base_url) in [
        (r#"["http://127.0.0.1:1#federation", "http://127.0.0.1:2#client"]"#, "http://127.0.0.1:2"),
        (r#"["unix:/run/a", "http://[::]:1#admin", "http://[::]:2#federation+client"]"#, "http://[::1]:2"),
        (r#"["http://127.0.0.1:1#federation", "unix:/run/a#client"]"#, "https://localhost"),
    ] {
        let config = from_text(&format!("listen = {listen}")).expect("valid");
        assert_eq!(config.public_base_url, base_url, "{listen}");
        assert_eq!(config.well_known_client, base_url, "{listen}");
    }
}

#[test]
fn refuses_what_can_be_no_servers_name() {
    for option in ["federation_allow", "federation_deny"] {
        from_text(&format!("{option} = [\"a.example\", \"*.b.example\"]")).expect("valid");
        let refused = refusal(&format!("{option} = [\"a.example\", \"https://b.example\"]"));
        assert!(
            refused.starts_with(&format!("warren.toml, line 1: {option} has `https://b.example`")),
            "{refused}"
        );
        assert!(refusal(&format!("{option} = \"b.example:8448\"")).contains("without their port"));
    }
}

#[test]
fn refuses_a_policy_list_that_is_no_room() {
    let config =
        from_text("policy_lists = [\"!list:example.org\", \"!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM\"]");
    assert_eq!(config.expect("valid").policy_lists.len(), 2);
    for wrong in ["#list:example.org", "list"] {
        let refused = refusal(&format!("policy_lists = [\"{wrong}\"]"));
        assert!(
            refused.starts_with(&format!("warren.toml, line 1: policy_lists has `{wrong}`")),
            "{refused}"
        );
    }
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
