//! Dot-separated paths to properties of events, as in `content.m\.relates_to.rel_type`.
//!
//! Specification: "Dot-separated property paths" of the appendices.

/// The names along a path. `\.` and `\\` stand for a dot and a backslash within a name, any other `\x` for itself.
pub fn parse_path(path: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut characters = path.chars().peekable();
    while let Some(character) = characters.next() {
        let escaped =
            if character == '\\' { characters.next_if(|next| matches!(next, '.' | '\\')) } else { None };
        match (character, escaped) {
            ('.', None) => names.push(String::new()),
            (plain, escaped) => {
                if let Some(name) = names.last_mut() {
                    name.push(escaped.unwrap_or(plain));
                }
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::parse_path;

    /// The examples of the specification.
    #[test]
    fn follows_the_specification() {
        assert_eq!(parse_path("content.body"), ["content", "body"]);
        assert_eq!(parse_path(r"content.m\.relates_to"), ["content", "m.relates_to"]);
        assert_eq!(parse_path(r"content.m\\foo"), ["content", r"m\foo"]);
        assert_eq!(parse_path(r"content.\x"), ["content", r"\x"]);
    }

    #[test]
    fn takes_every_string() {
        assert_eq!(parse_path(""), [""]);
        assert_eq!(parse_path("."), ["", ""]);
        assert_eq!(parse_path(r"a\"), [r"a\"]);
        assert_eq!(parse_path(r"a\\.b"), [r"a\", "b"]);
    }
}
