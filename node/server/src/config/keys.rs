//! The one table of keys: name, type, default, help. [`Config`], the flags, the environment
//! variables, the file's keys, `--help` and `config check` all come from it.
//!
//! A key `wal_retention` is the flag `--wal-retention`, the variable `UNISONDB_WAL_RETENTION`, and
//! in the file `wal_retention` or `wal-retention`, or `retention` under `[wal]`.

use std::path::PathBuf;
use std::time::Duration;

use unisondb_types::{Lsn, Namespace, SegmentId, Stamp};

use super::address::Address;
use super::values::{Durability, LogFormat, LogLevel, OnGap, Setting, Share, Size};

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Its name, words joined by `_`.
    pub name: &'static str,
    /// The heading that it stands under in `--help`.
    pub group: &'static str,
    /// What kind of value it takes.
    pub kind: &'static str,
    /// Whether a bare flag means `true`.
    pub switch: bool,
    /// Whether it takes several values.
    pub list: bool,
    /// What it is when nobody says; empty: not set.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Parses a text and prints the value in its usual form.
    pub check: fn(&str) -> Result<String, String>,
}

impl Key {
    /// The flag, without its two dashes.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("UNISONDB_{}", self.name.to_ascii_uppercase())
    }
}

macro_rules! keys {
    ($($group:literal { $($name:ident: $t:ty = $default:literal, $help:literal;)* })*) => {
        /// Every setting of a node, checked and typed.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config { $($(#[doc = $help] pub $name: $t,)*)* }

        /// All keys, in the order of `--help`.
        pub const KEYS: &[Key] = &[$($(Key {
            name: stringify!($name),
            group: $group,
            kind: <$t as Setting>::KIND,
            switch: <$t as Setting>::SWITCH,
            list: <$t as Setting>::LIST,
            default: $default,
            help: $help,
            check: |text| <$t as Setting>::read(text).map(|value| value.print()),
        },)*)*];

        impl Config {
            /// Reads every key from the text that `text_of` gives for its name.
            ///
            /// # Errors
            /// The name of the first key whose text is not a value of its type, and why.
            pub(super) fn read(
                text_of: impl Fn(&'static str) -> String,
            ) -> Result<Config, (&'static str, String)> {
                Ok(Config { $($($name: {
                    let text = text_of(stringify!($name));
                    <$t as Setting>::read(&text).map_err(|why| (stringify!($name), why))?
                },)*)* })
            }
        }
    };
}

keys! {
    "Node" {
        data_dir: PathBuf = "./data", "Where namespaces, log and state are; made if it is not there";
        http_addr: Address = "localhost:8080", "Where clients connect: every address that the host resolves to is bound";
        node_name: Option<String> = "", "Name of this node in answers and metrics [the host's name]";
        backup_dir: Option<PathBuf> = "", "Root of the backups, one folder a namespace in it [DATA_DIR/backups]";
        namespaces: Vec<Namespace> = "", "Namespaces to make at start if they are not there, between commas";
        auto_create_namespaces: Option<bool> = "", "Whether the first write to an unknown namespace makes it [true unless `namespaces` names some]";
        namespace: Option<Namespace> = "", "Name of the one namespace when db/ and wal/ lie directly in DATA_DIR and the snapshot in it has no name";
        drill: bool = "false", "Serve reads only: for a restore drill beside a production node";
    }
    "Log" {
        segment_size: Size = "64MiB", "Size at which a log segment ends; holds for segments begun from now on";
        durability: Durability = "always", "When a write is answered: after its fsync, or (a single node only) before it, fsynced every `durability_interval`";
        durability_interval: Duration = "200ms", "Time between fsyncs when `durability` is interval: as much as a crash may lose";
        wal_retention: Duration = "7d", "How long sealed segments are kept, by the stamp of their last record";
        wal_retention_share: Share = "25%", "Share of the volume that sealed segments may fill before the oldest go early";
        scrub_interval: Duration = "7d", "Time in which every sealed segment is read again and checked once; 0s: never";
        ballast_bytes: Size = "16MiB", "Room kept aside, given up so that flush and purge still work on a full disk; 0: none";
    }
    "State" {
        map_size: Size = "64GiB", "Address space for the state of one namespace; grown when the file is larger";
        flush_bytes: Size = "32MiB", "Flush to the store when so much is only in memory";
        flush_interval: Duration = "5s", "Flush to the store at least so often";
        rebuild: bool = "false", "Make a damaged state again from the log, when the log begins at LSN 1";
    }
    "Recovery of a restored directory (ignored, with a warning, on any other)" {
        recovery_target_time: Option<Stamp> = "", "Stop after the last record stamped at or before this time (RFC 3339)";
        recovery_target_lsn: Option<Lsn> = "", "Stop after this record";
        recovery_target_immediate: bool = "false", "Stop at the snapshot: replay nothing";
        recovery_target_exclusive: bool = "false", "Stop before the target instead of after it";
        recovery_on_gap: OnGap = "refuse", "What to do when segments between snapshot and log are missing";
        first_segment_id: Option<SegmentId> = "", "Lowest id for the next lineage's first segment, when ids are known that this machine does not see";
        accept_clock: bool = "false", "Take writes although the clock is more than 7 days past the last record";
    }
    "Access" {
        tls_cert: Option<PathBuf> = "", "PEM file with the certificate chain; with tls_key: serve HTTPS";
        tls_key: Option<PathBuf> = "", "PEM file with its private key";
        tokens_file: Option<PathBuf> = "", "File with the hashes and roles of bearer tokens; without it no token is asked for";
        allowed_origins: Vec<String> = "", "Origins from which browsers may send requests, between commas";
        allowed_hosts: Vec<String> = "", "Names by which clients may address this node, besides addresses and localhost";
        compat_lenient_json: bool = "false", "Read an empty value in a backup request's JSON (`\"afterSegmentId\": ,`) as left out";
    }
    "Logging" {
        log_format: LogFormat = "text", "What log lines on stderr look like";
        log_level: LogLevel = "info", "Which log lines are written";
    }
    "Cluster" {
        cluster: bool = "false", "Let cluster settings act on a restored directory";
        peer_addr: Option<Address> = "", "Where other nodes connect; with it this node belongs to a cluster, waits to be taken into one, or founds one";
        peer_advertise: Option<Address> = "", "Where other nodes reach this one [peer_addr; where that names no host, the node's name and its port]";
        peer_tls_cert: Option<PathBuf> = "", "PEM file with the certificate chain that this node shows other nodes, for the host by which they reach it; with peer_tls_key and peer_tls_ca";
        peer_tls_key: Option<PathBuf> = "", "PEM file with its private key";
        peer_tls_ca: Option<PathBuf> = "", "PEM file with the authority that has signed the certificates of all nodes";
        peers: Vec<Address> = "", "Where the nodes of the founding are reached, between commas, this one among them; or the nodes of the cluster that it is to be taken into";
    }
}
