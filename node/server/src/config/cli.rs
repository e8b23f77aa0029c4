//! The command line: flags from the table, `config check`, `--help` that explains every key.
//! No subcommand starts the node.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{ConfigError, KEYS, Texts};

/// What stood on the command line.
pub(super) struct Line {
    pub(super) values: Texts,
    pub(super) config: Option<PathBuf>,
    pub(super) check: bool,
}

const ABOUT: &str = "A log-native key-value database: writes, backups and restores over REST.

Starts a node. Every setting is a flag, an environment variable UNISONDB_NAME, and a key of the \
TOML file given with --config: flags are stronger than variables, those than the file.";

/// The command as clap knows it.
pub fn command() -> Command {
    let mut command = Command::new("unisondb")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A log-native key-value database")
        .long_about(ABOUT)
        .disable_help_subcommand(true)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help("Configuration file (TOML); read only when named [env: UNISONDB_CONFIG]")
                .value_parser(clap::value_parser!(PathBuf))
                .global(true),
        );
    for key in KEYS {
        let mut help = key.help.to_owned();
        if !key.default.is_empty() {
            help.push_str(&format!(" [default: {}]", key.default));
        }
        help.push_str(&format!(" [env: {}]", key.variable()));
        let mut arg = Arg::new(key.name)
            .long(key.flag())
            .value_name(key.kind.trim_end_matches('|'))
            .help(help)
            .help_heading(key.group)
            .allow_hyphen_values(true)
            .global(true);
        arg = match (key.switch, key.list) {
            (true, _) => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            (false, true) => arg.action(ArgAction::Append),
            (false, false) => arg,
        };
        command = command.arg(arg);
    }
    command.subcommand(
        Command::new("config")
            .about("About the configuration")
            .subcommand_required(true)
            .subcommand(Command::new("check").about(
                "Print the configuration in force, with the source of each value, and check it",
            )),
    )
}

/// Parses a command line, program name first.
pub(super) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Line, ConfigError> {
    let matches = command().try_get_matches_from(args)?;
    // Global flags are found in the innermost command, wherever they stood.
    let (inner, check) = match matches.subcommand() {
        Some((_, config)) => match config.subcommand() {
            Some((_, check)) => (check, true),
            None => (config, true),
        },
        None => (&matches, false),
    };
    let text = |inner: &ArgMatches, name| {
        let given = inner.get_many::<String>(name)?;
        Some(given.cloned().collect::<Vec<_>>().join(","))
    };
    let values = KEYS
        .iter()
        .filter_map(|key| Some((key.name, text(inner, key.name)?)));
    Ok(Line {
        values: values.collect(),
        config: inner.get_one::<PathBuf>("config").cloned(),
        check,
    })
}
