//! Arguments and `--help`. The flags of options are made from the table of options, not written here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches};

use super::check::CheckOptions;
use super::resync::Resync;
use super::room::{Before, RoomCommand};
use super::user::{PasswordSource, UserCommand};
use crate::config::table::{Kind, ROWS, Row};
use crate::config::{Config, source};

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Serve,
    User(UserCommand),
    Room(RoomCommand),
    Resync(Resync),
    RotateKey,
    Check(CheckOptions),
    Routes,
    Config,
}

const ABOUT: &str = "Warren, a Matrix homeserver in one binary.";
const HOW: &str = "\
Without a command the server is started. Every option can also stand in the file that --config names or in an
environment variable (WARREN_SERVER_NAME); `warren config` prints them all with their meaning and their defaults.";

/// Reads the arguments, and with them the configuration. The configuration's errors are left to the command, as
/// commands that need none must work without a valid one. `Err`: the process is done, help or an error was printed.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(Command, Result<Config, String>), ExitCode> {
    let matches = parser().try_get_matches_from(arguments).map_err(|error| {
        // Failing to print help leaves nothing that could be done about it.
        let _ = error.print();
        ExitCode::from(if error.use_stderr() { 2 } else { 0 })
    })?;
    let command = match matches.subcommand() {
        Some(("user", matches)) => Command::User(user_command(matches)),
        Some(("room", matches)) => room_command(matches),
        Some(("key", _)) => Command::RotateKey,
        Some(("check", matches)) => Command::Check(CheckOptions {
            repair: matches.get_flag("repair"),
            as_json: matches.get_flag("json"),
        }),
        Some(("routes", _)) => Command::Routes,
        Some(("config", _)) => Command::Config,
        _ => Command::Serve,
    };
    let mut innermost = &matches;
    while let Some((_, inner)) = innermost.subcommand() {
        innermost = inner;
    }
    Ok((command, configuration(innermost)))
}

fn parser() -> clap::Command {
    let commands = [
        clap::Command::new("serve").about("Starts the server (also what happens without a command)"),
        user_commands(),
        room_commands(),
        key_commands(),
        clap::Command::new("check")
            .about("Checks the whole database while no server runs")
            .after_help("Exits 0 if the database is sound, 1 if not, 2 if it could not be checked.")
            .args([
                switch("repair", "Makes anew what follows from the rest and does not agree with it"),
                switch("json", "Prints what was found as JSON"),
            ]),
        clap::Command::new("routes").about("Prints the table of endpoints, tab-separated"),
        clap::Command::new("config")
            .about("Prints a configuration file with every option, its meaning and its default"),
    ];
    let config = Arg::new("config").long("config").value_name("FILE").global(true);
    let mut parser = clap::Command::new("warren")
        .about(ABOUT)
        .after_help(HOW)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands(commands)
        .arg(config.value_parser(clap::value_parser!(PathBuf)).help("The configuration file (TOML)"))
        .args(ROWS.iter().map(argument));
    // From here on every command has the options, so that what its help shows of them can be chosen.
    parser.build();
    parser.mut_subcommands(|command| match command.get_name() {
        "serve" => command,
        _ => with_short_help(command),
    })
}

/// What the help of a command shows that is not about the server; it takes all other options, too.
const OPTIONS_OF_EVERY_COMMAND: [&str; 2] = ["server_name", "data_dir"];

fn with_short_help(command: clap::Command) -> clap::Command {
    let is_option = |name: &str| ROWS.iter().any(|row| row.name == name);
    command
        .mut_args(|argument| match argument.get_id().as_str() {
            name if OPTIONS_OF_EVERY_COMMAND.contains(&name) => {
                argument.help_heading("Options of the configuration (all of `warren serve --help` are taken)")
            }
            name if is_option(name) => argument.hide(true),
            _ => argument,
        })
        .mut_subcommands(with_short_help)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// `user` and its commands.
fn user_commands() -> clap::Command {
    let name = || Arg::new("name").required(true).value_name("NAME").help("The name, or the whole user id");
    let password =
        || switch("password-stdin", "Reads the password from standard input; else one is made and printed");
    let commands = [
        clap::Command::new("create").about("Makes an account").args([
            name(),
            password(),
            switch("admin", "The account administers the server"),
        ]),
        clap::Command::new("list").about("Lists the accounts, tab-separated"),
        clap::Command::new("reset-password")
            .about("Gives an account a new password and logs it out everywhere")
            .args([name(), password()]),
        clap::Command::new("deactivate").about("Closes an account for ever and leaves its rooms").args([
            name(),
            switch("erase", "Also removes what is kept of the user, and hides messages from newcomers"),
        ]),
        clap::Command::new("set-admin")
            .about("Makes an account an administrator's")
            .args([name(), switch("no", "Takes it back: the account is an ordinary one")]),
        clap::Command::new("token").about("Makes a registration token, which is good for one account"),
    ];
    clap::Command::new("user")
        .about("Manages accounts while the server is stopped")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(commands)
}

fn user_command(matches: &ArgMatches) -> UserCommand {
    let Some((command, matches)) = matches.subcommand() else { return UserCommand::List };
    let name = || matches.get_one::<String>("name").cloned().unwrap_or_default();
    let password = || match matches.get_flag("password-stdin") {
        true => PasswordSource::Input,
        false => PasswordSource::Made,
    };
    match command {
        "create" => {
            let is_admin = matches.get_flag("admin");
            UserCommand::Create { name: name(), is_admin, password: password() }
        }
        "reset-password" => UserCommand::ResetPassword { name: name(), password: password() },
        "deactivate" => UserCommand::Deactivate { name: name(), erase: matches.get_flag("erase") },
        "set-admin" => UserCommand::SetAdmin { name: name(), is_admin: !matches.get_flag("no") },
        "token" => UserCommand::Token,
        _ => UserCommand::List,
    }
}

/// `room` and its commands.
fn room_commands() -> clap::Command {
    let room = || Arg::new("room").required(true).value_name("ROOM").help("The room's id (!…)");
    let before = Arg::new("before").long("before").required(true).value_name("TIMESTAMP_MS|EVENT_ID");
    let commands = [
        clap::Command::new("purge")
            .about("Removes a room and everything that is of it")
            .after_help(
                "The room is gone for everybody, without a word to anybody; it can be joined anew afterwards. Media are kept.\n\
                 Ctrl-C interrupts it at any time: the same command goes on, and so does the server when it runs.",
            )
            .args([room(), switch("force", "Also when users of this server are in it")]),
        clap::Command::new("purge-history")
            .about("Removes the old messages of a room; its state stays")
            .after_help(
                "Messages before that are removed from this server for good; other servers keep theirs.\n\
                 State events stay, and so do the events that the room's next ones follow.\n\
                 Ctrl-C interrupts it at any time: the same command goes on, and so does the server when it runs.",
            )
            .args([
                room(),
                before
                    .value_parser(clap::value_parser!(Before))
                    .help("Up to where: a time in milliseconds since 1970, or an event, which stays itself"),
            ]),
        resync_command().arg(room()),
    ];
    clap::Command::new("room")
        .about("Removes rooms or their history, and resynchronises rooms")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(commands)
}

/// `key` and its only command.
fn key_commands() -> clap::Command {
    let rotate = clap::Command::new("rotate")
        .about("Makes a new signing key; the old one is published as out of use")
        .after_help("What the old key has signed until now stays valid. The server signs with the new one when it is started.");
    clap::Command::new("key")
        .about("Manages the signing key while the server is stopped")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(rotate)
}

fn resync_command() -> clap::Command {
    clap::Command::new("resync")
        .about("Has the running server compare a room's state with that of other servers")
        .after_help(
            "What the room's rules allow of their state is adopted, and what changed is printed. Doing it again does no harm.\n\
             Ctrl-C ends the watching alone: the same command goes on with it.",
        )
        .args([
            Arg::new("from")
                .long("from")
                .value_name("SERVER")
                .action(ArgAction::Append)
                .help("A server to ask; else those with the most members in the room"),
            Arg::new("token-file")
                .long("token-file")
                .required(true)
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("A file with an administrator's access token; - for standard input"),
        ])
}

fn room_command(matches: &ArgMatches) -> Command {
    let (command, matches) = matches.subcommand().unwrap_or(("", matches));
    let room_id = matches.get_one::<String>("room").cloned().unwrap_or_default();
    match command {
        "purge-history" => {
            let before = matches.get_one::<Before>("before").cloned().unwrap_or(Before::Time(0));
            Command::Room(RoomCommand::PurgeHistory { room_id, before })
        }
        "resync" => Command::Resync(Resync {
            room_id,
            servers: matches.get_many("from").into_iter().flatten().cloned().collect(),
            token_file: matches.get_one("token-file").cloned().unwrap_or_default(),
        }),
        _ => Command::Room(RoomCommand::Purge { room_id, force: matches.get_flag("force") }),
    }
}

fn argument(row: &'static Row) -> Arg {
    let short = row.meaning.lines().next().unwrap_or_default().trim_end_matches('.');
    let default = match row.default {
        "" => String::new(),
        default => format!(" [default: {default}]"),
    };
    let argument = Arg::new(row.name)
        .long(lasting(row.flag()))
        .global(true)
        .help(format!("{short}{default}"))
        .long_help(format!("{}{default}", row.meaning))
        .help_heading("Options of the configuration");
    let argument = match row.kind {
        Kind::List => argument.action(ArgAction::Append),
        _ => argument.action(ArgAction::Set),
    };
    match row.kind {
        Kind::Switch => argument.value_name("on|off"),
        Kind::Choice(values) if values.len() <= 4 => argument.value_name(lasting(values.join("|"))),
        Kind::Choice(_) => argument.value_name("VALUE"),
        Kind::Number(..) => argument.value_name("NUMBER"),
        Kind::Text | Kind::List | Kind::Secret => argument.value_name("VALUE"),
    }
}

/// The parser wants names that live for ever; they are made once in the life of the process.
fn lasting(name: String) -> &'static str {
    Box::leak(name.into_boxed_str())
}

fn configuration(matches: &ArgMatches) -> Result<Config, String> {
    let mut raw = source::defaults();
    let file = matches.get_one::<PathBuf>("config").cloned();
    let file =
        file.or_else(|| std::env::var_os("WARREN_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    load(&mut raw, file.as_deref(), matches).map_err(|error| error.to_string())?;
    Config::from_raw(&raw).map_err(|error| error.to_string())
}

fn load(raw: &mut source::Raw, file: Option<&Path>, matches: &ArgMatches) -> Result<(), source::ConfigError> {
    if let Some(path) = file {
        source::add_file(raw, path)?;
    }
    source::add_environment(raw, std::env::vars_os())?;
    let flags = ROWS.iter().filter_map(|row| {
        let values: Vec<String> = matches.get_many::<String>(row.name)?.cloned().collect();
        Some((row.name, values))
    });
    source::add_flags(raw, flags);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> (Command, Result<Config, String>) {
        parse(text.split(' ').map(OsString::from)).expect("accepted")
    }

    #[test]
    fn the_parser_is_sound() {
        parser().debug_assert();
    }

    #[test]
    fn the_help_of_a_command_is_about_that_command() {
        let mut parser = parser();
        let mut help = |names: &[&str]| {
            let found = names.iter().try_fold(&mut parser, |command, name| command.find_subcommand_mut(name));
            found.expect("a command").render_long_help().to_string()
        };
        let serve = help(&["serve"]);
        assert!(ROWS.iter().all(|row| serve.contains(&format!("--{} ", row.flag()))), "{serve}");
        for names in [&["user", "create"][..], &["room", "purge"], &["check"]] {
            let text = help(names);
            assert!(text.contains("--data-dir") && !text.contains("--dns-servers"), "{text}");
        }
    }

    #[test]
    fn flags_before_and_after_the_command() {
        for text in [
            "warren serve --server-name a.b --listen http://127.0.0.1:1 --listen unix:/x",
            "warren --server-name a.b --listen http://127.0.0.1:1 --listen unix:/x serve",
            "warren --server-name a.b --listen http://127.0.0.1:1 --listen unix:/x",
        ] {
            let (command, config) = arguments(text);
            assert_eq!(command, Command::Serve);
            let config = config.expect("valid");
            assert_eq!(config.server_name, "a.b");
            assert_eq!(config.listen.len(), 2);
        }
    }

    #[test]
    fn commands_about_accounts() {
        let user = |text: &str| match arguments(text) {
            (Command::User(command), config) => (command, config.expect("valid").server_name.to_string()),
            (other, _) => panic!("{text} is {other:?}"),
        };
        let create = |is_admin, password| UserCommand::Create { name: "bilbo".into(), is_admin, password };
        assert_eq!(
            user("warren user create bilbo --admin --server-name a.b"),
            (create(true, PasswordSource::Made), "a.b".into())
        );
        assert_eq!(
            user("warren --server-name a.b user create --password-stdin bilbo"),
            (create(false, PasswordSource::Input), "a.b".into())
        );
        let deactivate = UserCommand::Deactivate { name: "@a:b".into(), erase: false };
        assert_eq!(user("warren user deactivate @a:b").0, deactivate);
        let set_admin = |is_admin| UserCommand::SetAdmin { name: "bilbo".into(), is_admin };
        assert_eq!(user("warren user set-admin bilbo").0, set_admin(true));
        assert_eq!(user("warren user set-admin --no bilbo").0, set_admin(false));
        assert_eq!(user("warren user list").0, UserCommand::List);
        assert_eq!(user("warren user token --registration token").0, UserCommand::Token);
    }

    #[test]
    fn commands_about_rooms() {
        let room = |text: &str| match arguments(text).0 {
            Command::Room(command) => command,
            other => panic!("{text} is {other:?}"),
        };
        let history = |before| RoomCommand::PurgeHistory { room_id: "!a:b".into(), before };
        assert_eq!(
            room("warren room purge !a:b"),
            RoomCommand::Purge { room_id: "!a:b".into(), force: false }
        );
        assert_eq!(
            room("warren room purge-history !a:b --before 1700000000000"),
            history(Before::Time(1_700_000_000_000))
        );
        assert_eq!(room("warren room purge-history --before $c !a:b"), history(Before::Event("$c".into())));
        let resync = arguments("warren room resync !a:b --from c.d --from e.f --token-file t").0;
        let servers = vec!["c.d".into(), "e.f".into()];
        let expected = Resync { room_id: "!a:b".into(), servers, token_file: "t".into() };
        assert_eq!(resync, Command::Resync(expected));
    }

    #[test]
    fn wrong_arguments() {
        let refused = |text: &str| parse(text.split(' ').map(OsString::from)).is_err();
        assert!(refused("warren serv"));
        assert!(refused("warren serve --server-nam x"));
        assert!(refused("warren --help"));
        assert!(refused("warren user create"));
        assert!(refused("warren user list x"));
        assert!(refused("warren user set-admin"));
        assert!(refused("warren check --mend"));
        assert!(refused("warren room purge"));
        assert!(refused("warren room resync !a:b"));
        assert!(refused("warren key"));
        assert_eq!(arguments("warren key rotate").0, Command::RotateKey);
        assert!(refused("warren room purge-history !a:b"));
        assert!(refused("warren room purge-history !a:b --before yesterday"));
        assert_eq!(arguments("warren routes").0, Command::Routes);
        let check = |repair, as_json| Command::Check(CheckOptions { repair, as_json });
        assert_eq!(arguments("warren check").0, check(false, false));
        assert_eq!(arguments("warren check --repair --json").0, check(true, true));
        let (_, config) = arguments("warren serve --guests maybe");
        assert_eq!(config.expect_err("refused"), "flag --guests: guests must be on or off");
    }
}
