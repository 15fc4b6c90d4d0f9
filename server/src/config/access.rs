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
}
