//! Server access control lists: which servers a room's `m.room.server_acl` lets take part.
//!
//! Invariant: parsed once per event, then asked by server name; names are compared without their port and without
//! regard to case. Not here: which requests are held to it ("Server Access Control Lists" of the server-server API);
//! a room without the event lets everybody in.
//! Source: "m.room.server_acl" of the client-server API.

use serde_json::Value;

use super::event::JsonObject;
use super::glob::{Glob, Wildcards};

/// The content of an `m.room.server_acl` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAcl {
    allow: Vec<Glob>,
    deny: Vec<Glob>,
    allow_ip_literals: bool,
}

impl ServerAcl {
    /// Reads `content`. What is not of the right type counts as absent: no list allows or denies anybody, and IP
    /// literals are allowed.
    pub fn from_content(content: &JsonObject) -> ServerAcl {
        ServerAcl {
            allow: globs(content.get("allow")),
            deny: globs(content.get("deny")),
            allow_ip_literals: content.get("allow_ip_literals") != Some(&Value::Bool(false)),
        }
    }

    /// Whether the server called `server_name`, with or without a port, may take part in the room.
    pub fn allows(&self, server_name: &str) -> bool {
        let host = without_port(server_name).to_lowercase();
        // Step 1, a room without the event, is the caller's. Step 2:
        if !self.allow_ip_literals && is_ip_literal(&host) {
            return false;
        }
        // Steps 3 to 5.
        let listed = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(&host));
        !listed(&self.deny) && listed(&self.allow)
    }
}

fn globs(value: Option<&Value>) -> Vec<Glob> {
    let entries = value.and_then(Value::as_array).into_iter().flatten();
    let patterns = entries.filter_map(Value::as_str).map(str::to_lowercase);
    patterns.map(|pattern| Glob::new(&pattern, Wildcards::StarAndQuestionMark)).collect()
}

/// The host of a server name. An IPv6 literal stands in brackets, so that colons inside are not mistaken for a port's.
fn without_port(server_name: &str) -> &str {
    match server_name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => server_name,
    }
}

/// Whether `host` has the form of an IPv4 or IPv6 literal ("Server name" of the appendices), in range or not.
fn is_ip_literal(host: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    host.starts_with('[') || (host.split('.').count() == 4 && host.split('.').all(is_number))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(content: &Value, allowed: &[&str], denied: &[&str]) {
        let acl = ServerAcl::from_content(content.as_object().unwrap());
        for server in allowed {
            assert!(acl.allows(server), "{server} is to be allowed by {content}");
        }
        for server in denied {
            assert!(!acl.allows(server), "{server} is to be denied by {content}");
        }
    }

    #[test]
    fn the_lists_in_their_order() {
        check(&json!({}), &[], &["a.example"]);
        check(&json!({"deny": ["evil.example"]}), &[], &["a.example", "evil.example"]);
        check(&json!({"allow": ["*"]}), &["a.example", "1.2.3.4", "[::1]"], &[]);
        check(&json!({"allow": ["*"], "deny": ["a.example"]}), &["b.example"], &["a.example"]);
        check(&json!({"allow": ["a.example", 5, null]}), &["a.example"], &["b.example", "5"]);
        check(&json!({"allow": "*"}), &[], &["a.example"]);
    }

    #[test]
    fn neither_case_nor_port_is_a_way_around() {
        let content = json!({"allow": ["*"], "deny": ["Evil.Example", "[2001:DB8::1]", "10.0.0.1"]});
        let denied = [
            "evil.example",
            "EVIL.example",
            "evil.example:8448",
            "evil.example:",
            "[2001:db8::1]",
            "[2001:db8::1]:1234",
            "10.0.0.1:80",
        ];
        check(&content, &["not.evil.example", "evil.example.org", "[2001:db8::2]"], &denied);
    }

    #[test]
    fn ip_literals() {
        let content = json!({"allow": ["*"], "allow_ip_literals": false});
        let denied = ["1.2.3.4", "1.2.3.4:8448", "[::1]", "[::1]:8448", "999.1.1.1"];
        check(&content, &["a.example", "1.2.3.example", "1.2.3.4.example", "1.2.3"], &denied);
        check(&json!({"allow": ["*"], "allow_ip_literals": "no"}), &["1.2.3.4"], &[]);
    }

    #[test]
    fn globs_stand_for_the_whole_name() {
        check(
            &json!({"allow": ["*.example"]}),
            &["a.example", ".example", "a.b.example"],
            &["example", "a.example.org"],
        );
        check(&json!({"allow": ["?.example"]}), &["a.example"], &["ab.example", ".example"]);
        check(&json!({"allow": ["a*b*c"]}), &["abc", "axbxbc", "a.b.c.c"], &["ac", "abcd"]);
        check(&json!({"allow": ["a.example"]}), &[], &["axexample"]);
    }

    #[test]
    fn a_hostile_glob_is_cheap() {
        let glob = "*a".repeat(1000) + "b";
        check(&json!({"allow": [glob]}), &[], &[&"a".repeat(255)]);
    }
}
