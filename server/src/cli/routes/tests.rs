//! What is written from the table of endpoints: `docs/endpoints.md`, and in the README how complete the server is.
//! `UPDATE_DOCS=1` writes both anew, and the documented options beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The specification's endpoints, one row each: a copy of what the specification's documents say.
const SPECIFIED: &str = include_str!("../../../../tests/spec/endpoints.tsv");
const SECTION_START: &str = "<!-- made from `warren routes` and tests/spec/endpoints.tsv -->\n";
const SECTION_END: &str = "<!-- end -->";

fn project_file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(name)
}

fn is_written(name: &str, text: &str) {
    let path = project_file(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == text, "{name} differs: run with UPDATE_DOCS=1");
}

#[test]
fn the_documentation_lists_every_endpoint_and_option() {
    let mut endpoints = String::from("# Endpoints\n\nMade from `warren routes`.\n\n");
    for (number, line) in super::table().lines().enumerate() {
        endpoints.push_str(&format!("| {} |\n", line.replace('\t', " | ")));
        if number == 0 {
            endpoints.push_str("|---|---|---|---|---|\n");
        }
    }
    is_written("docs/endpoints.md", &endpoints);
    is_written("docs/warren.toml", &crate::config::table::example());
}

/// How many endpoints of a module are served, and how many there are.
type Modules = BTreeMap<&'static str, (usize, usize)>;

fn modules_of(api: &str, served: &BTreeSet<(String, String)>) -> Modules {
    let mut modules = Modules::new();
    for row in SPECIFIED.lines().skip(1) {
        let columns: Vec<&str> = row.split('\t').collect();
        let [row_api, method, path, _, module, ..] = columns[..] else { panic!("a short row: {row}") };
        if row_api != api {
            continue;
        }
        let module = module.split_once(": ").map_or(module, |(_, topic)| topic);
        let (there, all) = modules.entry(module).or_default();
        *all += 1;
        *there += usize::from(served.contains(&(method.to_owned(), path.trim_end_matches('/').to_owned())));
    }
    modules
}

/// Whether a module of which so many endpoints are there, and so many could be, is meant.
type Wanted = fn(usize, usize) -> bool;

/// One paragraph about an API: how much of it is there, and module by module what is not.
fn paragraph(title: &str, modules: &Modules) -> String {
    let (there, all) = modules.values().fold((0, 0), |sum, module| (sum.0 + module.0, sum.1 + module.1));
    let named = |wanted: Wanted| {
        let of_kind = modules.iter().filter(move |(_, (there, all))| wanted(*there, *all));
        of_kind.map(|(name, (there, all))| match there {
            0 => (*name).to_owned(),
            there if there == all => (*name).to_owned(),
            there => format!("{name} ({there} of {all})"),
        })
    };
    let mut text = format!("**{title}: {there} of {all} endpoints.**");
    let kinds: [(&str, Wanted); 3] = [
        ("Whole", |there, all| there == all),
        ("In part", |there, all| there > 0 && there < all),
        ("Not yet", |there, _| there == 0),
    ];
    for (kind, wanted) in kinds {
        let names: Vec<String> = named(wanted).collect();
        if !names.is_empty() {
            text.push_str(&format!(" {kind}: {}.", names.join(", ").replace('_', " ")));
        }
    }
    text + "\n"
}

#[test]
fn the_readme_says_how_complete_the_server_is() {
    let tables = crate::tables();
    let served = tables.iter().flat_map(|table| table.iter()).flat_map(|endpoint| {
        let method = endpoint.method.to_string();
        endpoint.paths().map(move |path| (method.clone(), path.trim_end_matches('/').to_owned()))
    });
    let served: BTreeSet<_> = served.collect();
    let section = format!(
        "{SECTION_START}{}\n{}{SECTION_END}",
        paragraph("Client-server API v1.19", &modules_of("client", &served)),
        paragraph("Server-server API v1.19", &modules_of("federation", &served)),
    );
    let readme = std::fs::read_to_string(project_file("README.md")).unwrap();
    let (before, rest) = readme.split_once(SECTION_START).expect("the section's start");
    let (_, after) = rest.split_once(SECTION_END).expect("the section's end");
    is_written("README.md", &format!("{before}{section}{after}"));
}
