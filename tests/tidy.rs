//! House rules that a machine can check: who may import whom, sizes of files and functions, what may not be written.
//!
//! Each test collects every breach in the tree and prints them together as `file:line: what`. The rules are tables at
//! the top; an exception is a row there with its reason. Code is looked at with comments and literals blanked out, so
//! that words in text are no breach. Formatting and lints are left to rustfmt and clippy.

mod tidy {
    pub mod source;
}

use std::collections::BTreeSet;

use tidy::source::{Function, Source, sources};

/// Files longer than this hold a second idea.
const FILE_LINES_MAX: usize = 600;
/// Functions are to about 70 lines; a signature over several lines gets some room.
const FUNCTION_LINES_MAX: usize = 80;

/// What every module but `core` may name: errors, and the way to record what it touched, which one function turns into
/// stream rows.
const EVERYBODY: &[&str] = &["error", "stream::Touch", "stream::Outgoing"];

/// The text language for rooms, for tests alone. Tests go through the façade and name what they like.
const FIXTURES: &str = "fixture";

/// Modules of the engine and the sibling modules that each may name.
const ENGINE_IMPORTS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("store", &["core"]),
    ("room", &["core", "store"]),
    ("account", &["core", "store"]),
    ("device", &["core", "store"]),
    ("media", &["core", "store"]),
    ("remote", &["core", "store"]),
    ("outbox", &["core", "store"]),
    ("stream", &["core", "store", "room::members"]),
    ("command", &["core", "store", "room", "account", "device", "media", "remote", "outbox", "stream"]),
    ("view", &["core", "store", "room", "account", "device", "media", "remote", "outbox", "stream"]),
    ("open", &["core", "store", "engine"]),
    ("check", &["core", "store", "room", "account", "device", "media", "outbox", "stream"]),
    ("intake", &["core", "room", "command"]),
    ("delivery", &["command", "view", "engine"]),
    ("reception", &["core", "room", "command", "view", "intake", "engine"]),
    ("fetching", &["room", "command", "view", "intake", "engine"]),
    ("hierarchy", &["core", "room", "view", "engine"]),
    ("approach", &["core", "room", "view", "engine"]),
    ("following", &["core", "command", "view", "engine"]),
    ("housekeeping", &["command", "view", "engine"]),
    ("engine", &["command", "view", "stream", "store", "core", "open"]),
];

/// Exceptions: (module, what it knows all the same, why).
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("store", "engine::Shared", "the transaction reaches the caches and counters of its engine"),
    ("store", "room::Event", "the transaction carries events that are not yet on disk"),
    ("room", "account::profile", "a membership carries the member's name and picture"),
    ("room", "account::invite_permission", "nobody is invited who does not want it"),
    ("room", "account::users", "nor who has closed their account"),
    ("room", "account::push_rules", "unread counts follow each member's rules"),
    ("room", "account::account_data", "visibility leaves out whom the user ignores"),
    ("check", "view::View", "a check is a view of the whole store"),
    ("check", "command::Command", "a repair writes as a series of commands"),
    ("check", "command::Lanes", "a repair runs alone, and has no lanes"),
    ("check", "engine::Engine", "a repair opens the engine anew between rounds"),
    ("check", "open", "the reserved marks are checked against what is in use"),
    ("room", "engine", "the append path reads the engine's options and caches through its transaction"),
    ("engine", "room::Event", "the cache of events is the engine's"),
    ("engine", "room::StateNode", "the cache of state nodes is the engine's"),
    ("engine", "room::Freed", "what a purge has freed is given back to the disk by the engine's backend"),
    ("engine", "room::purge", "what a purge has freed is given back to the disk by the engine's backend"),
    ("account", "stream", "presence is in memory, where the streams are"),
    ("account", "stream::Claim", "presence is in memory, where the streams are"),
    ("account", "stream::PresenceChange", "presence is in memory, where the streams are"),
    ("engine", "room::servers", "what access lists say of servers is in a cache of the engine's"),
    ("engine", "room::policy", "which policy server a state names is in a cache of the engine's"),
    ("command", "open", "a new signing key takes the place of the one that the database was made with"),
    ("engine", "remote::NeverTrusted", "which keys are never trusted is an option of the engine"),
    ("engine", "remote::ServerKey", "which keys were this server's before is an option of the engine"),
    ("engine", "account::SessionCache", "the cache of sessions is the engine's"),
    ("engine", "account::Erasures", "who is to be forgotten is in a table of the engine's"),
    ("engine", "outbox::OutgoingNews", "the wait for what is to be sent is the engine's to give out"),
    ("engine", "outbox::Waiting", "the table of servers for which something waits is the engine's"),
    ("engine", "outbox::Admissions", "the table of rooms that let this server in again is the engine's"),
    ("engine", "outbox::Reminders", "the table of servers that were reminded of a leave is the engine's"),
    ("outbox", "engine::Shared", "who waits for news of what is to be sent keeps the engine's table alive"),
    ("outbox", "room::company", "what is queued of users is kept for as long as their rooms have the server"),
    ("outbox", "room::members", "other servers are told what this one's own users have read"),
    (
        "outbox",
        "room::receipts",
        "receipts that a server is still to be told are found among those of its rooms",
    ),
    ("room", "device::elsewhere", "devices are followed of those who share a room"),
    ("room", "device::lists", "who comes into a room is told of with their devices, in the join's own batch"),
    ("room", "outbox", "what a server has been sent says what it is still to be told of a room"),
    ("device", "room::servers", "a server is told of devices unless it is met in another room of their user"),
    ("device", "outbox", "a change of devices is queued for other servers in its own batch"),
];

/// Crates that `engine::core` may name: serde-level, crypto, the Matrix identifiers, and lists that lie in place.
const CORE_CRATES: &[&str] = &[
    "std",
    "alloc",
    "bytes",
    "serde",
    "serde_json",
    "ring",
    "base64",
    "ruma_common",
    "smallvec",
    "thiserror",
];

/// What the pure core may not reach for, though it is in `std`: I/O, clocks, threads.
const CORE_BANNED: &[&str] =
    &["std::fs", "std::net", "std::io", "std::thread", "std::process", "SystemTime", "Instant::now"];

/// What the whole engine may not name: it never dials out, knows no HTTP and brings no runtime.
const ENGINE_BANNED: &[&str] = &["tokio::", "hyper::", "http::", "std::net", "reqwest::"];

/// Parts of the engine that are no part of its façade: nobody outside may see them, under whatever name. The last two are
/// behind a feature.
const INSIDES: &[&str] = &["store", "room", "stream", "command::testing", "view::testing"];

/// What is seen of them all the same, by what is not part of the product: (folder, path, why).
const SEEN_OUTSIDE: &[(&str, &str, &str)] = &[
    ("bench", "room::StateNode", "the differences of states are measured by themselves"),
    ("bench", "room::state", "the differences of states are measured by themselves"),
    ("bench", "store::Reader", "a measure of the engine asks what no user can"),
    ("bench", "store::Memory", "an engine without a disk"),
    ("fuzz", "store::Memory", "engines without a disk"),
    ("fuzz", "store::Read", "what two engines hold is compared row by row"),
    ("fuzz", "store::Direction", "what two engines hold is compared row by row"),
    ("fuzz", "store::Family", "what two engines hold is compared row by row"),
    ("fuzz", "store::schema", "every stored row is read and written again"),
    ("fuzz", "store::testing", "every stored row is read and written again"),
    ("fuzz", "command::testing", "events that no client could send"),
    ("fuzz", "view::testing", "events that no client could send"),
    ("tests/sim", "store", "disks that fail"),
    ("tests/sim", "room::handshake", "what servers offer each other is forged"),
    ("server/tests", "store", "a database is damaged, to see it found"),
];

/// Files in which a task may be started: the table of workers and the listeners' connections.
const SPAWN_ALLOWED: &[&str] = &["server/src/worker.rs", "server/src/http/listen.rs"];

/// Files that may say `unsafe`: a snapshot that holds its database in the same struct.
const UNSAFE_ALLOWED: &[&str] = &["engine/src/store/backend/rocks.rs"];

/// Folders whose tests run together: pytest tells their files apart by name alone, and runs none if two have the same.
const RUN_TOGETHER: &[&[&str]] = &[
    &["tests/api", "tests/security", "tests/operating", "tests/chaos"],
    &["tests/federation"],
    &["tests/crash"],
];

/// Fails with all breaches at once.
fn check(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{rule}\n{}", breaches.join("\n"));
}

/// One line per place in the code where any of `words` stands.
fn places(source: &Source, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in source.code.lines().enumerate() {
        for word in words.iter().filter(|word| contains_word(line, word)) {
            found.push(format!("{}:{}: {word}", source.path, number + 1));
        }
    }
    found
}

/// Whether `line` has `word` not as a part of a longer name.
fn contains_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let open_end = word.ends_with(|c: char| !is_name(c));
        !before.is_some_and(|c| is_name(c) || c == ':') && (open_end || !after.is_some_and(is_name))
    })
}

/// The module of the engine that a file belongs to: `engine/src/room/dag.rs` → `room`.
fn engine_module(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("engine/src/")?;
    Some(rest.split('/').next()?.trim_end_matches(".rs"))
}

fn may_import(module: &str, target: &str) -> bool {
    let within = |allowed: &str| target == allowed || target.starts_with(&format!("{allowed}::"));
    let Some((_, allowed)) = ENGINE_IMPORTS.iter().find(|(name, _)| *name == module) else { return true };
    within(module)
        || (module != "core" && EVERYBODY.iter().any(|name| within(name)))
        || allowed.iter().any(|name| within(name))
        || EXCEPTIONS.iter().any(|(reader, read, _)| *reader == module && within(read))
}

#[test]
fn engine_modules_import_what_the_table_allows() {
    let mut breaches = Vec::new();
    for source in sources(&["engine/src"]).iter().filter(|source| !source.is_test()) {
        let Some(module) = engine_module(&source.path) else { continue };
        if module == FIXTURES {
            continue;
        }
        for (line, target) in source.crate_paths() {
            if !may_import(module, &target) {
                breaches.push(format!("{}:{line}: `{module}` may not know `{target}`", source.path));
            }
        }
    }
    check("An engine module imports what the table does not allow.", breaches);
}

#[test]
fn tests_that_run_together_have_names_of_their_own() {
    let mut breaches = Vec::new();
    for folders in RUN_TOGETHER {
        let mut known = BTreeSet::new();
        for path in sources(folders).into_iter().map(|source| source.path) {
            let name = path.rsplit('/').next().unwrap_or_default();
            if name.starts_with("test_") && !known.insert(name.to_owned()) {
                breaches.push(path);
            }
        }
    }
    check("A test file has the name of another that runs with it.", breaches);
}

#[test]
fn every_engine_module_is_in_the_table() {
    let known: BTreeSet<&str> =
        ENGINE_IMPORTS.iter().map(|(name, _)| *name).chain(["lib", "error", FIXTURES]).collect();
    let modules: BTreeSet<String> =
        sources(&["engine/src"]).iter().filter_map(|s| engine_module(&s.path).map(String::from)).collect();
    let breaches = modules.into_iter().filter(|module| !known.contains(module.as_str())).collect();
    check("A module of the engine has no row in the import table.", breaches);
}

#[test]
fn the_core_is_pure() {
    let mut breaches = Vec::new();
    for source in sources(&["engine/src/core"]).iter().filter(|source| !source.is_test()) {
        breaches.extend(places(source, CORE_BANNED));
        for (line, name) in source.used_crates() {
            if !CORE_CRATES.contains(&name.as_str()) {
                breaches.push(format!("{}:{line}: crate {name}", source.path));
            }
        }
    }
    check("`engine::core` has no I/O, clock, thread or other crate.", breaches);
}

#[test]
fn the_engine_knows_no_network_and_no_runtime() {
    let breaches = sources(&["engine/src"]).iter().flat_map(|source| places(source, ENGINE_BANNED)).collect();
    check("The engine never dials out and brings no runtime.", breaches);
}

#[test]
fn outside_of_the_engine_its_facade_is_seen_only() {
    let within = |path: &str, allowed: &str| path == allowed || path.starts_with(&format!("{allowed}::"));
    let mut breaches = Vec::new();
    for source in sources(&["server", "bench", "fuzz", "tests"]) {
        let is_seen = |path: &str| {
            SEEN_OUTSIDE
                .iter()
                .any(|(folder, seen, _)| source.path.starts_with(&format!("{folder}/")) && within(path, seen))
        };
        for (line, path) in source.paths_into("warren_engine") {
            let hides = matches!(path.as_str(), "" | "self");
            if hides || INSIDES.iter().any(|inside| within(&path, inside)) && !is_seen(&path) {
                breaches.push(format!("{}:{line}: warren_engine::{path}", source.path));
            }
        }
    }
    check("What is not the engine uses its façade only.", breaches);
}

#[test]
fn what_may_be_seen_is_seen() {
    let breaches = SEEN_OUTSIDE.iter().filter(|(folder, seen, _)| {
        let is_seen = |path: &str| path == *seen || path.starts_with(&format!("{seen}::"));
        let sources = sources(&[folder]);
        !sources.iter().flat_map(|source| source.paths_into("warren_engine")).any(|(_, path)| is_seen(&path))
    });
    let breaches = breaches.map(|(folder, seen, _)| format!("{folder}: {seen}")).collect();
    check("An exception is not needed any more.", breaches);
}

#[test]
fn tasks_start_only_where_the_table_says() {
    let mut breaches = Vec::new();
    for source in sources(&["engine/src", "server/src"]) {
        if !SPAWN_ALLOWED.contains(&source.path.as_str()) && !source.is_test() {
            breaches.extend(places(&source, &["tokio::spawn", "tokio::task::spawn"]));
        }
    }
    check("A task is started outside the table of workers.", breaches);
}

#[test]
fn nothing_is_unsafe() {
    let mut breaches = Vec::new();
    for source in sources(&["engine", "server", "bench", "fuzz", "tests"]) {
        if !UNSAFE_ALLOWED.contains(&source.path.as_str()) {
            breaches.extend(places(&source, &["unsafe"]));
        }
    }
    check("`unsafe` needs a row in the table.", breaches);
}

#[test]
fn the_server_goes_on_when_nobody_can_be_told() {
    let mut breaches = Vec::new();
    for source in sources(&["engine/src", "server/src"]) {
        breaches.extend(places(&source, &["print!(", "println!(", "eprint!(", "eprintln!("]));
    }
    check("Whoever prints so falls when the output is closed or its disk is full.", breaches);
}

#[test]
fn nothing_is_left_open() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut breaches = Vec::new();
    for source in sources(&["engine", "server", "bench", "fuzz", "tests"]) {
        for (number, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| contains_word(line, mark)) {
                breaches.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
        if source.path.ends_with(".rs") {
            breaches.extend(places(&source, &["todo!(", "unimplemented!(", "#[ignore"]));
        }
    }
    check("Something is left open.", breaches);
}

#[test]
fn files_say_what_they_are_and_stay_short() {
    let mut breaches = Vec::new();
    for source in sources(&["engine", "server", "bench", "fuzz", "tests"]) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            breaches.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path));
        }
        if source.path.ends_with(".rs") && !source.text.starts_with("//!") {
            breaches.push(format!("{}:1: does not open with `//!`", source.path));
        }
    }
    check("A file is too long or does not say what it is.", breaches);
}

#[test]
fn functions_stay_short() {
    let mut breaches = Vec::new();
    for source in sources(&["engine", "server", "bench", "fuzz", "tests"]) {
        for Function { name, line, lines } in source.functions() {
            if lines > FUNCTION_LINES_MAX {
                breaches.push(format!("{}:{line}: {name} has {lines} lines", source.path));
            }
        }
    }
    check("A function is longer than the house rule.", breaches);
}
