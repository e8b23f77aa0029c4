//! The command line: commands and flags, each explained where it is declared.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};
use unisondb_types::{LineageId, Lsn, Namespace, SegmentId, Stamp, Target};

/// Restores, verifies and inspects UnisonDB backups, and asks nodes for them.
#[derive(Debug, Parser)]
#[command(
    name = "udbctl",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 node not reachable, 4 not found, 5 conflict or gap, 6 verification failed."
)]
pub struct Cli {
    /// Print one JSON object on one line instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring a namespace back to a record or a moment, out of snapshots and segments.
    ///
    /// Nothing is written before everything needed has been read and proven. The namespace is
    /// built beside its place and renamed; a new lineage begins behind the target.
    Restore(RestoreArgs),
    /// Prove snapshots and segments: that they are whole, and that none is missing, swapped,
    /// altered or foreign.
    Verify(VerifyArgs),
    /// Look into segments. Strictly read-only, on a live directory too.
    #[command(subcommand)]
    Wal(WalCommand),
    /// Ask a node for a backup.
    Backup(BackupArgs),
    /// Ask a node how it is.
    Status(StatusArgs),
    /// Show and change who belongs to a cluster, through any of its nodes.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Show, make and delete namespaces, in the whole cluster.
    #[command(subcommand)]
    Namespace(NamespaceCommand),
}

/// `udbctl cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show the nodes, who leads, and what is waited for.
    Status(NodeArgs),
    /// Take a node in: empty, and started with --peer-addr. Done when it votes.
    Add {
        /// A node of the cluster.
        #[command(flatten)]
        node: NodeArgs,
        /// Where the others reach the new one: host:port of its peer side.
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
    /// Take a node out. Under its id it never comes back: empty it to use it anew.
    Remove {
        /// A node of the cluster.
        #[command(flatten)]
        node: NodeArgs,
        /// Its id, its name or its address.
        #[arg(value_name = "NODE")]
        who: String,
    },
    /// Take a node in, and then another out: for one whose disk is lost.
    Replace {
        /// A node of the cluster.
        #[command(flatten)]
        node: NodeArgs,
        /// The id, name or address of the one that goes.
        #[arg(value_name = "NODE")]
        who: String,
        /// Where the others reach the new one.
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
}

/// `udbctl namespace`.
#[derive(Debug, Subcommand)]
pub enum NamespaceCommand {
    /// Show them.
    List(NodeArgs),
    /// Make one; one that is there is no error.
    Create {
        /// A node.
        #[command(flatten)]
        node: NodeArgs,
        /// Its name.
        #[arg(value_name = "NAME")]
        name: Namespace,
    },
    /// Move one with all its data to the trash, on every node.
    Delete {
        /// A node.
        #[command(flatten)]
        node: NodeArgs,
        /// Its name.
        #[arg(value_name = "NAME")]
        name: Namespace,
        /// Its name once more.
        #[arg(long, value_name = "NAME")]
        confirm: Namespace,
    },
}

/// `udbctl restore`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).multiple(true).args(["btree", "from", "wal"])))]
#[command(group(ArgGroup::new("target").args(["to_time", "to_lsn", "to_latest"])))]
pub struct RestoreArgs {
    /// The data directory to restore into; no server may be running on it.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The namespace to restore.
    #[arg(long, value_name = "NAME")]
    pub namespace: Namespace,
    /// Start from this snapshot (plain, .gz or .zst).
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub btree: Option<PathBuf>,
    /// Choose the best snapshot in these folders; segments in them are used too.
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub from: Vec<PathBuf>,
    /// Files and folders with segments: .wal, .wal.gz, .wal.zst, or in a tar, .tar.gz, .tar.zst.
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub wal: Vec<PathBuf>,
    /// Stop after the last record stamped at or before this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub to_time: Option<Stamp>,
    /// Stop after this record.
    #[arg(long, value_name = "LSN")]
    pub to_lsn: Option<Lsn>,
    /// Replay all there is (the default).
    #[arg(long)]
    pub to_latest: bool,
    /// Stop before the target instead of behind it.
    #[arg(long, conflicts_with = "to_latest")]
    pub exclusive: bool,
    /// Print the plan and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Move a namespace that is there already to trash/ first.
    #[arg(long)]
    pub force: bool,
    /// Follow the history that ends in this lineage instead of the newest one.
    #[arg(long, value_name = "ID")]
    pub lineage: Option<LineageId>,
    /// Begin the new lineage at this segment id or above.
    #[arg(long, value_name = "ID")]
    pub first_segment_id: Option<SegmentId>,
}

impl RestoreArgs {
    /// Where to stop.
    ///
    /// # Errors
    /// `--exclusive` without a moment to exclude.
    pub fn target(&self) -> Result<Target, &'static str> {
        Ok(match (self.to_time, self.to_lsn, self.exclusive) {
            (Some(t), _, false) => Target::Time(t),
            (Some(t), _, true) => Target::BeforeTime(t),
            (None, Some(n), false) => Target::Lsn(n),
            (None, Some(n), true) => Target::BeforeLsn(n),
            (None, None, false) => Target::Latest,
            (None, None, true) => return Err("--exclusive goes with --to-time or --to-lsn"),
        })
    }
}

/// `udbctl verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Folders, snapshots, segments, archives.
    #[arg(required = true, value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
}

/// `udbctl wal`.
#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// List the segments of a folder, each read to its end and checked.
    ///
    /// One that is damaged, and one that is missing between others, is shown as such: exit code 6.
    /// What is torn at the end of the newest is shown, and is none: a node may be writing there.
    List(FolderArgs),
    /// Read segments and say what is in them: first and last time and LSN, records by kind.
    Inspect(InspectArgs),
    /// Add up the segments of a folder. Of sealed ones only header and footer are read.
    Stats(FolderArgs),
}

/// A folder of segments.
#[derive(Debug, Args)]
pub struct FolderArgs {
    /// The folder with the segments, or a namespace's folder with `wal/` in it.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// `udbctl wal inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Segments: .wal, .wal.gz, .wal.zst, or in a tar.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print every record before the summary.
    #[arg(long)]
    pub records: bool,
}

/// How to reach a node.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The node.
    #[arg(long, env = "UNISONDB_URL", default_value = "http://localhost:8080")]
    pub url: String,
    /// Bearer token, if the node wants one.
    #[arg(long, env = "UNISONDB_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// `udbctl backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// What to back up.
    #[command(subcommand)]
    pub what: BackupCommand,
}

/// `udbctl backup wal|btree`.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Copy sealed segments to a folder below the node's backup root.
    Wal {
        /// The node.
        #[command(flatten)]
        node: NodeArgs,
        /// The namespace.
        #[arg(long, value_name = "NAME")]
        namespace: Namespace,
        /// The folder, relative to the namespace's backup root.
        #[arg(long, value_name = "DIR")]
        dir: String,
        /// Only segments above this id.
        #[arg(long, value_name = "ID")]
        after: Option<SegmentId>,
        /// Do not seal the active segment first.
        #[arg(long)]
        no_seal: bool,
    },
    /// Write a snapshot below the node's backup root.
    Btree {
        /// The node.
        #[command(flatten)]
        node: NodeArgs,
        /// The namespace.
        #[arg(long, value_name = "NAME")]
        namespace: Namespace,
        /// The file, relative to the namespace's backup root.
        #[arg(long, value_name = "FILE")]
        path: String,
    },
}

/// `udbctl status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Only this namespace.
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<Namespace>,
}
