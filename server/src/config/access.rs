//! Which other servers this one deals with: `federation_allow` and `federation_deny`.

use warren_engine::core::glob::{Glob, Wildcards};
use warren_engine::core::identifiers::server_host;

/// Two lists of globs. Names are compared without their port and without regard to case, so that neither is a way around.
#[derive(Debug, Clone)]
pub struct Access {
    /// Empty: everybody.
    allow: Vec<Glob>,
    deny: Vec<Glob>,
}

impl Access {
    pub fn new(allow: &[String], deny: &[String]) -> Access {
        let globs = |patterns: &[String]| {
            let compile =
                |pattern: &String| Glob::new(&pattern.to_lowercase(), Wildcards::StarAndQuestionMark);
            patterns.iter().map(compile).collect()
        };
        Access { allow: globs(allow), deny: globs(deny) }
    }

    /// Whether this server deals with the one of that name. Who is on both lists is denied.
    pub fn admits(&self, server_name: &str) -> bool {
        let Some(host) = server_host(server_name).map(str::to_lowercase) else { return false };
        let is_listed = |list: &[Glob]| list.iter().any(|glob| glob.matches(&host));
        !is_listed(&self.deny) && (self.allow.is_empty() || is_listed(&self.allow))
    }
}

/// Why a pattern can match no server's name without its port, if that is so.
pub fn fault(pattern: &str) -> Option<&'static str> {
    let is_wildcard = |character: char| matches!(character, '*' | '?');
    let is_of_name = |character: char| is_wildcard(character) || character.is_ascii_alphanumeric();
    let is_of_address = |character: char| is_of_name(character) || matches!(character, ':' | '.');
    let fits = match pattern.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.chars().all(is_of_address)),
        None => !pattern.is_empty() && pattern.chars().all(|c| is_of_name(c) || matches!(c, '-' | '.')),
    };
    if fits {
        return None;
    }
    let is_port = |port: &str| port.chars().all(|c| is_wildcard(c) || c.is_ascii_digit());
    match pattern.rsplit_once(':') {
        Some((host, port)) if is_port(port) && fault(host).is_none() => {
            Some("servers are named without their port, and meant at whichever they are")
        }
        _ => Some(
            "no server is called so; write its name alone, as in example.org, *.example.org or [2001:db8::1]",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(allow: &[&str], deny: &[&str]) -> Access {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Access::new(&owned(allow), &owned(deny))
    }

    #[test]
    fn denial_wins_and_an_empty_list_allows_all() {
        assert!(access(&[], &[]).admits("a.example:8448"));
        let denied = access(&[], &["*.evil.example", "[2001:db8::1]"]);
        for name in ["a.evil.example", "A.EVIL.example:1", "[2001:DB8::1]:8448"] {
            assert!(!denied.admits(name), "{name}");
        }
        assert!(denied.admits("evil.example"));
        let both = access(&["*.Example", "b.org"], &["b.example"]);
        assert!(both.admits("a.example") && both.admits("b.org:8448"));
        assert!(!both.admits("b.example") && !both.admits("c.org"));
    }

    #[test]
    fn what_can_match_nobody_is_no_pattern() {
        for pattern in
            ["example.org", "*", "*.Evil-1.example", "a?.org", "10.0.0.*", "[2001:db8::1]", "[2001:*]"]
        {
            assert_eq!(fault(pattern), None, "{pattern}");
        }
        let others = [
            "",
            "https://evil.example",
            "evil.example/",
            "@a:evil.example",
            "a b",
            " a.org",
            "a,b",
            "[::1",
            "::1",
            "bücher.example",
        ];
        for pattern in others {
            assert!(fault(pattern).is_some_and(|fault| fault.starts_with("no server")), "{pattern}");
        }
        for pattern in ["evil.example:8448", "*:8448", "evil.example:*", "[2001:db8::1]:8448"] {
            assert!(fault(pattern).is_some_and(|fault| fault.contains("port")), "{pattern}");
        }
    }
}
