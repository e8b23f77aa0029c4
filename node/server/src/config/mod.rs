//! Configuration: flags are stronger than environment variables, those than the file, that than
//! the defaults. All from one table ([`KEYS`]).
//!
//! Promises: a key that does not exist is an error that names the nearest one, whatever the source;
//! a value that does not parse is an error that names source and key; the file is read only when
//! `--config` or `UNISONDB_CONFIG` names it, never because it lies somewhere.
//! Leaves to others: what the values mean.

mod address;
mod cli;
mod file;
mod keys;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use unisondb_platform::{Disk, DiskExt as _};
use unisondb_types::{SegmentId, Target, limits};

pub use self::address::{Address, AddressError, Host};
pub use self::cli::command;
pub use self::keys::{Config, KEYS, Key};
pub use self::values::{Durability, LogFormat, LogLevel, OnGap, Setting, Share, Size};

/// Variables that begin like ours and are no keys.
const VARIABLE_CONFIG: &str = "UNISONDB_CONFIG";
const PREFIX: &str = "UNISONDB_";
/// Variables of `udbctl`, which an operator may well have set for both.
const OTHERS: [&str; 2] = ["UNISONDB_TOKEN", "UNISONDB_URL"];
/// What makes a node one of a cluster.
const CLUSTER: [&str; 6] = [
    "peer_addr",
    "peer_advertise",
    "peer_tls_cert",
    "peer_tls_key",
    "peer_tls_ca",
    "peers",
];
/// A configuration file longer than this is no configuration file.
const FILE_BYTES: u64 = 1 << 20;

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run a node.
    Serve(Box<Effective>),
    /// `config check`: print what would be in force.
    Check(Box<Effective>),
}

/// The configuration in force, and where each value came from.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The values.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Whether `--cluster` or `--config` stood on the command line: cluster settings then act on a
    /// restored directory too (A5, D21).
    pub forced: bool,
    values: BTreeMap<&'static str, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Value {
    text: String,
    source: Source,
}

/// Where a value came from, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The file.
    File,
    /// An environment variable.
    Environment,
    /// The command line.
    Flag,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Wrong usage, or help and version asked for: clap's own text and exit code.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// A key that does not exist.
    #[error("{place}: unknown key {name:?}{}", nearest_hint(.nearest))]
    UnknownKey {
        /// `environment`, or the file.
        place: String,
        /// As it was written.
        name: String,
        /// The known one that looks most like it, as it would be written there.
        nearest: Option<String>,
    },
    /// A value that is none.
    #[error("{place}: {why}")]
    Value {
        /// The flag, the variable, or the file and its key.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is not TOML.
    #[error("{}: {why}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        why: String,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Contradiction(String),
}

fn nearest_hint(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("; did you mean {name:?}?"),
        None => "; `unisondb --help` lists all keys".to_owned(),
    }
}

/// Puts the configuration together from the command line `args` (program name first), the
/// variables of the environment, and the file that either names.
///
/// # Errors
/// [`ConfigError`].
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    disk: &dyn Disk,
) -> Result<Invocation, ConfigError> {
    let line = cli::read(args)?;
    let (environment, config_variable) = from_environment(variables)?;
    let file = line.config.clone().or(config_variable);
    let mut values: BTreeMap<&'static str, Value> = BTreeMap::new();
    let mut weave = |texts: BTreeMap<&'static str, String>, source| {
        for (name, text) in texts {
            values.insert(name, Value { text, source });
        }
    };
    let defaults = KEYS.iter().map(|key| (key.name, key.default.to_owned()));
    weave(defaults.collect(), Source::Default);
    if let Some(path) = &file {
        weave(from_file(disk, path)?, Source::File);
    }
    weave(environment, Source::Environment);
    weave(line.values, Source::Flag);

    let config = Config::read(|name| values[name].text.clone()).map_err(|(name, why)| {
        ConfigError::Value {
            place: place(name, values[name].source, file.as_deref()),
            why,
        }
    })?;
    let forced =
        line.config.is_some() || (config.cluster && values["cluster"].source == Source::Flag);
    let effective = Effective {
        config,
        file,
        forced,
        values,
    };
    effective.validate()?;
    Ok(if line.check {
        Invocation::Check(Box::new(effective))
    } else {
        Invocation::Serve(Box::new(effective))
    })
}

type Texts = BTreeMap<&'static str, String>;

fn from_environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Texts, Option<PathBuf>), ConfigError> {
    let mut texts = Texts::new();
    let mut config = None;
    // Sorted, so that of two errors always the same one is told.
    let ours = variables.into_iter().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        name.starts_with(PREFIX).then_some((name, value))
    });
    for (name, value) in ours.collect::<BTreeMap<_, _>>() {
        // An empty variable is one that a unit file or a compose file left blank.
        if value.is_empty() || OTHERS.contains(&name.as_str()) {
            continue;
        }
        if name == VARIABLE_CONFIG {
            config = Some(PathBuf::from(value));
            continue;
        }
        let Some(key) = KEYS.iter().find(|key| key.variable() == name) else {
            let known = KEYS.iter().map(Key::variable);
            return Err(ConfigError::UnknownKey {
                place: "environment".to_owned(),
                nearest: nearest(&name, known.chain([VARIABLE_CONFIG.to_owned()])),
                name,
            });
        };
        let text = value.into_string().map_err(|_| ConfigError::Value {
            place: name,
            why: "the value is not UTF-8".to_owned(),
        })?;
        texts.insert(key.name, text);
    }
    Ok((texts, config))
}

fn from_file(disk: &dyn Disk, path: &std::path::Path) -> Result<Texts, ConfigError> {
    let wrong = |source| ConfigError::File {
        path: path.to_owned(),
        source,
    };
    let absolute = std::path::absolute(path).map_err(wrong)?;
    let bytes = disk.read(&absolute, FILE_BYTES).map_err(wrong)?;
    file::read(path, &bytes)
}

fn place(name: &str, source: Source, file: Option<&std::path::Path>) -> String {
    let key = KEYS
        .iter()
        .find(|key| key.name == name)
        .expect("names come from the table");
    match source {
        Source::Flag => format!("--{}", key.flag()),
        Source::Environment => key.variable(),
        Source::File => format!("{}: {name}", file.unwrap_or("".as_ref()).display()),
        Source::Default => format!("default of {name}"),
    }
}

impl Effective {
    /// Where the value of a key came from.
    pub fn source(&self, name: &str) -> Source {
        self.values.get(name).map_or(Source::Default, |v| v.source)
    }

    /// One line a key: `name = value  # source`. Reads back as a configuration file.
    pub fn print(&self) -> String {
        let mut out = String::new();
        for key in KEYS {
            let value = &self.values[key.name];
            let text = (key.check)(&value.text).unwrap_or_else(|_| value.text.clone());
            let text = toml::Value::String(text).to_string();
            let source = match value.source {
                Source::Default => "default".to_owned(),
                source => place(key.name, source, self.file.as_deref()),
            };
            writeln!(out, "{} = {text}  # {source}", key.name).expect("a String takes all");
        }
        out
    }

    /// Cluster settings that stand somewhere: names and where.
    pub fn cluster_settings(&self) -> Vec<String> {
        let set = CLUSTER.into_iter().filter(|name| {
            let value = &self.values[name];
            value.source != Source::Default && !value.text.is_empty()
        });
        set.map(|name| place(name, self.source(name), self.file.as_deref()))
            .collect()
    }

    /// Settings that a restored directory ignores until it is told otherwise on the command line:
    /// the cluster's, and a place for backups that nobody named on the command line, which may well
    /// be production's (A5). Names and where.
    pub fn settings_ignored_apart(&self) -> Vec<String> {
        let mut ignored = self.cluster_settings();
        if self.is_backup_dir_inherited() {
            let source = self.source("backup_dir");
            ignored.push(place("backup_dir", source, self.file.as_deref()));
        }
        ignored
    }

    /// Whether `backup_dir` is set, but neither on the command line nor by a file named there.
    pub fn is_backup_dir_inherited(&self) -> bool {
        let source = self.source("backup_dir");
        !self.forced
            && self.config.backup_dir.is_some()
            && matches!(source, Source::File | Source::Environment)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let c = &self.config;
        let no = |text: &str| Err(ConfigError::Contradiction(text.to_owned()));
        if c.tls_cert.is_some() != c.tls_key.is_some() {
            return no("tls_cert and tls_key belong together: one of them is missing");
        }
        let of_peers = [&c.peer_tls_cert, &c.peer_tls_key, &c.peer_tls_ca];
        if of_peers.iter().any(|path| path.is_some()) && of_peers.iter().any(|path| path.is_none())
        {
            return no(
                "peer_tls_cert, peer_tls_key and peer_tls_ca belong together: one is missing",
            );
        }
        let targets = usize::from(c.recovery_target_time.is_some())
            + usize::from(c.recovery_target_lsn.is_some())
            + usize::from(c.recovery_target_immediate);
        if targets > 1 {
            return no(
                "only one of recovery_target_time, recovery_target_lsn and recovery_target_immediate can be the target",
            );
        }
        if c.recovery_target_exclusive
            && c.recovery_target_time.is_none()
            && c.recovery_target_lsn.is_none()
        {
            return no(
                "recovery_target_exclusive wants recovery_target_time or recovery_target_lsn",
            );
        }
        let (least, most) = (limits::SEGMENT_MIN_BYTES, limits::SEGMENT_MAX_BYTES);
        if !(least..=most).contains(&c.segment_size.bytes()) {
            return Err(ConfigError::Contradiction(format!(
                "segment_size is {}: {least} to {most} bytes are wanted",
                c.segment_size.print()
            )));
        }
        if let Some(id) = c.first_segment_id.filter(|id| *id > SegmentId::FIRST_MOST) {
            return Err(ConfigError::Contradiction(format!(
                "first_segment_id is {id}: at most {} is wanted, so that later lineages have room",
                SegmentId::FIRST_MOST
            )));
        }
        if c.map_size.bytes() < 1 << 20 {
            return no("map_size is below 1MiB");
        }
        if c.flush_bytes.bytes() == 0 || c.flush_interval.is_zero() {
            return no("flush_bytes and flush_interval must be above zero");
        }
        if c.durability == Durability::Interval && c.durability_interval.is_zero() {
            return no(
                "durability_interval must be above zero; durability = \"always\" fsyncs before each answer",
            );
        }
        if let Some(name) = &c.node_name
            && (name.len() > 255 || name.chars().any(|c| c.is_control() || !c.is_ascii()))
        {
            return no(
                "node_name: up to 255 printable ASCII characters are wanted (it stands in a header)",
            );
        }
        if c.peer_addr.is_some() && c.durability == Durability::Interval {
            return no(
                "durability = \"interval\" is for a node alone: leave it out, or leave peer_addr out",
            );
        }
        Ok(())
    }
}

impl Config {
    /// Where other nodes reach this one, whose name is `name`, if it takes part in a cluster.
    pub fn advertised(&self, name: &str) -> Option<String> {
        let listen = self.peer_addr.as_ref().filter(|_| !self.drill)?;
        let said = self.peer_advertise.as_ref().unwrap_or(listen);
        Some(match said.host() {
            Host::Ip(ip) if !ip.is_unspecified() => said.to_string(),
            Host::Name(_) => said.to_string(),
            Host::Ip(_) | Host::Any => format!("{name}:{}", said.port()),
        })
    }

    /// Where a restore is to stop, if a target is set.
    pub fn target(&self) -> Option<Target> {
        if self.recovery_target_immediate {
            return Some(Target::Immediate);
        }
        let exclusive = self.recovery_target_exclusive;
        let time = self.recovery_target_time.map(|time| match exclusive {
            true => Target::BeforeTime(time),
            false => Target::Time(time),
        });
        let lsn = self.recovery_target_lsn.map(|lsn| match exclusive {
            true => Target::BeforeLsn(lsn),
            false => Target::Lsn(lsn),
        });
        time.or(lsn)
    }

    /// Whether the first write to an unknown namespace makes it (A10).
    pub fn auto_create(&self) -> bool {
        !self.drill
            && self
                .auto_create_namespaces
                .unwrap_or(self.namespaces.is_empty())
    }
}

/// The candidate that needs the fewest edits to become `name`, if any comes near.
fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let by_edits = candidates.map(|known| (edits(name, &known), known));
    by_edits
        .min()
        .filter(|(edits, known)| *edits <= known.len().max(name.len()) / 3)
        .map(|(_, known)| known)
}

/// Levenshtein's distance between two names, over bytes.
fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(128)], b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
