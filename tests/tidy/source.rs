//! Source files as the house rules look at them: text, code without comments and literals, imports, functions.
//!
//! A lexer of the few things that matter, not a parser: it knows comments, strings, characters and braces. Blanked
//! text keeps its line breaks, so that line numbers hold.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file of the project.
pub struct Source {
    /// Below the repository's root, with `/`.
    pub path: String,
    /// As it stands in the file.
    pub text: String,
    /// The text with comments and literals of Rust blanked out; other languages as they are.
    pub code: String,
}

/// A function and its length.
pub struct Function {
    pub name: String,
    /// The line of its `fn`, counted from one.
    pub line: usize,
    /// From `fn` to the closing brace.
    pub lines: usize,
}

/// All files of the languages we write below some folders of the repository.
pub fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository");
    let mut paths = Vec::new();
    for folder in folders {
        collect(&root.join(folder), &mut paths);
    }
    // A binary of a clone that is gone would find nothing to object to.
    assert!(!paths.is_empty(), "the sources of {} are not there", root.display());
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("source files are UTF-8");
            let name =
                path.strip_prefix(root).expect("found below the root").to_string_lossy().replace('\\', "/");
            let code = if name.ends_with(".rs") { blank(&text) } else { text.clone() };
            Source { path: name, text, code }
        })
        .collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.expect("a folder of the repository is readable")) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if path.is_dir()
            && !is_link
            && !matches!(name.as_str(), "target" | "node_modules" | "spec" | "vectors")
        {
            collect(&path, paths);
        } else if path
            .extension()
            .is_some_and(|ext| ext == "rs" || ext == "py" || ext == "js" || ext == "mjs")
        {
            paths.push(path);
        }
    }
}

impl Source {
    /// Whether the file is nothing but tests.
    pub fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// The code before the module of tests that ends the file.
    fn product(&self) -> &str {
        &self.code[..self.code.find("#[cfg(test)]\nmod").unwrap_or(self.code.len())]
    }

    /// Every `crate::…` path (also within braces, or reached through `super`): its line, and its first two names.
    pub fn crate_paths(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.product().match_indices("crate::") {
            if !self.code[..at].ends_with(is_name) {
                let line = line_of(&self.code, at);
                found.extend(
                    targets(&self.code[at + "crate::".len()..]).into_iter().map(|target| (line, target)),
                );
            }
        }
        for (at, _) in self.product().match_indices("super::") {
            if !self.code[..at].ends_with(|c| is_name(c) || c == ':') {
                found.extend(self.super_target(at).map(|target| (line_of(&self.code, at), target)));
            }
        }
        found
    }

    /// Every path into another crate (also within braces): its line, and its first two names there. A path to all that is
    /// there has an empty name, and the crate itself under another name is `self`.
    pub fn paths_into(&self, name: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices(name).filter(|(at, _)| !self.code[..*at].ends_with(is_name)) {
            let line = line_of(&self.code, at);
            let rest = &self.code[at + name.len()..];
            if let Some(path) = rest.strip_prefix("::") {
                found.extend(targets(path).into_iter().map(|target| (line, target)));
            } else if rest.trim_start().starts_with("as ") {
                found.push((line, "self".to_owned()));
            }
        }
        found
    }

    /// Where a chain of `super::` ends, if that is the root of the crate.
    fn super_target(&self, at: usize) -> Option<String> {
        let mut rest = &self.code[at..];
        let mut ups = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            (rest, ups) = (after, ups + 1);
        }
        let inner = self.path.split_once("/src/")?.1.trim_end_matches(".rs").trim_end_matches("/mod");
        let depth = inner.split('/').count();
        // A module written inside its file is one deeper, so that as many steps up as the file is deep may still be
        // inside; one more is surely the root's business.
        (ups > depth).then(|| targets(rest).into_iter().next()).flatten()
    }

    /// First names of `use` paths that are other crates: (line, name). Modules under `#[cfg(test)]` are left out.
    pub fn used_crates(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (number, line) in self.product().lines().enumerate() {
            let line = line.trim_start().trim_start_matches("pub ");
            let Some(path) = line.strip_prefix("use ") else { continue };
            let name: String = path.chars().take_while(|c| is_name(*c)).collect();
            if path[name.len()..].starts_with("::") && !matches!(name.as_str(), "crate" | "super" | "self") {
                found.push((number + 1, name));
            }
        }
        let local = |name: &str| {
            self.code.contains(&format!("mod {name};")) || self.code.contains(&format!("enum {name} "))
        };
        found.retain(|(_, name)| !local(name));
        found
    }

    /// The functions of a Rust file that have a body.
    pub fn functions(&self) -> Vec<Function> {
        if !self.path.ends_with(".rs") {
            return Vec::new();
        }
        let code = &self.code;
        let starts = code.match_indices("fn ").filter(|(at, _)| !code[..*at].ends_with(is_name));
        starts.filter_map(|(at, _)| self.function_at(at)).collect()
    }

    fn function_at(&self, at: usize) -> Option<Function> {
        let rest = &self.code[at + "fn ".len()..];
        let name: String = rest.chars().take_while(|c| is_name(*c)).collect();
        if name.is_empty() {
            return None;
        }
        let (mut depth, mut nested) = (0_usize, 0_isize);
        for (offset, c) in rest.char_indices() {
            match c {
                '(' | '[' if depth == 0 => nested += 1,
                ')' | ']' if depth == 0 => nested -= 1,
                // A pattern among the parameters is no body.
                '{' if depth == 0 && nested > 0 => nested += 1,
                '}' if depth == 0 && nested > 0 => nested -= 1,
                ';' if depth == 0 && nested == 0 => return None,
                '{' => depth += 1,
                '}' => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        let lines = rest[..offset].matches('\n').count() + 1;
                        return Some(Function { name, line: line_of(&self.code, at), lines });
                    }
                }
                _ => {}
            }
        }
        None
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The first two names of a path, for each branch of a group: `{core::json, store::{key, tx}}` → `core::json`,
/// `store::key`, `store::tx`.
fn targets(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        let name: String = path.chars().take_while(|c| is_name(*c)).collect();
        let Some(after) = path[name.len()..].strip_prefix("::") else { return vec![name] };
        let seconds = match after.strip_prefix('{') {
            Some(group) => branches(group).iter().map(|branch| first_name(branch)).collect(),
            None => vec![first_name(after)],
        };
        let whole = |second: &String| second.is_empty() || second == "self";
        let joined = |second: String| if whole(&second) { name.clone() } else { format!("{name}::{second}") };
        return seconds.into_iter().map(joined).collect();
    };
    branches(group).iter().flat_map(|branch| targets(branch)).collect()
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|c| is_name(*c)).collect()
}

/// The parts of a group between commas, up to its closing brace.
fn branches(group: &str) -> Vec<&str> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.into_iter().map(str::trim).filter(|branch| !branch.is_empty()).collect()
}

/// Blanks comments and literals with spaces.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = blanked_length(rest, out.chars().next_back());
        if length == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    out
}

/// How many bytes at the start of `rest` are a comment or a literal; zero if it is code.
fn blanked_length(rest: &str, before: Option<char>) -> usize {
    let until = |end: Option<usize>| end.unwrap_or(rest.len());
    if rest.starts_with("//") {
        return until(rest.find('\n'));
    }
    if rest.starts_with("/*") {
        return until(rest.find("*/").map(|at| at + 2));
    }
    let prefix = rest.len() - rest.trim_start_matches(['b', 'c', 'r']).len();
    if prefix > 0 && before.is_some_and(is_name) {
        return 0;
    }
    let literal = &rest[prefix..];
    if prefix > 0 && rest[..prefix].contains('r') {
        let hashes = literal.len() - literal.trim_start_matches('#').len();
        if literal[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = prefix + hashes + 1;
            return until(rest[body..].find(&close).map(|at| body + at + close.len()));
        }
        return 0;
    }
    match literal.chars().next() {
        Some('"') => prefix + quoted_length(literal, '"'),
        Some('\'') => match character_length(literal) {
            0 => 0,
            length => prefix + length,
        },
        _ => 0,
    }
}

/// The length of a literal that starts with its quotation mark.
fn quoted_length(literal: &str, mark: char) -> usize {
    let mut escaped = false;
    for (at, c) in literal.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == mark => return at + c.len_utf8(),
            _ => {}
        }
    }
    literal.len()
}

/// The length of a character literal; zero for a lifetime.
fn character_length(literal: &str) -> usize {
    let mut chars = literal.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => quoted_length(literal, '\''),
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        _ => 0,
    }
}

#[test]
fn paths_into_a_crate_are_found_in_groups_and_behind_other_names() {
    let found = |text: &str| {
        let source = Source { path: "a.rs".into(), text: text.into(), code: blank(text) };
        source.paths_into("engine").into_iter().map(|(_, path)| path).collect::<Vec<_>>()
    };
    assert_eq!(
        found("use engine::store::Rocks; let a = engine::Engine::open();"),
        ["store::Rocks", "Engine::open"]
    );
    assert_eq!(
        found("use engine::{\n    Engine,\n    store::{self, schema::{A, B}},\n    view::Sync,\n};"),
        ["Engine", "store", "store::schema", "view::Sync"]
    );
    assert_eq!(found("use engine::{self as e}; use engine as f; use engine::*;"), ["self", "self", ""]);
    assert_eq!(found("use my_engine::store; // engine::store"), [""; 0]);
}

#[test]
fn comments_and_literals_are_blanked() {
    let text =
        "let a = \"fn {\"; // fn b() {\nlet c = '{'; let d: &'a str = r#\"}\"}\"#; /* fn */ let e = b'\\'';";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    assert!(!code.contains("fn") && !code.contains('{') && !code.contains('}'), "{code}");
    assert!(code.contains("&'a str") && code.contains("let e = "), "{code}");
}

#[test]
fn groups_yield_their_first_two_names() {
    let path = "{core::{json::Value, event}, store::key::Key, error};";
    assert_eq!(targets(path), ["core::json", "core::event", "store::key", "error"]);
}

#[test]
fn functions_are_measured_from_name_to_closing_brace() {
    let text = "fn a(B { c, .. }: B) -> [u8; 2] {\n    if x {\n    }\n}\ntrait B {\n    fn c();\n}\n";
    let source = Source { path: "x.rs".into(), text: text.into(), code: blank(text) };
    let lengths: Vec<_> = source.functions().into_iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(lengths, [("a".to_owned(), 1, 4)]);
}
