//! [`Host`]: what the routes need of the node or relayer that they are part of.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use unisondb_api::Writer;
use unisondb_engine::Engine;
use unisondb_platform::Platform;
use unisondb_types::{ClusterId, Namespace};

/// Something that takes a while and may fail with a reason in words.
pub type Act<'a, T> = Pin<Box<dyn Future<Output = Result<T, HostError>> + Send + 'a>>;

/// Why something is not there, some time later.
pub type Why<'a> = Pin<Box<dyn Future<Output = HostError> + Send + 'a>>;

/// A process that has namespaces.
pub trait Host: Send + Sync + 'static {
    /// The machine below.
    fn platform(&self) -> &Platform;
    /// Where writes go.
    fn writer(&self) -> Arc<dyn Writer>;
    /// About this process.
    fn about(&self) -> About;
    /// What this process is just now: `leader`, `follower` or `relayer`. Asked at every request.
    fn role(&self) -> &'static str {
        self.about().role
    }
    /// All namespaces, ordered by name.
    fn namespaces(&self) -> Vec<Standing>;
    /// One namespace. In the flat layout of a snapshot without a name, the first name asked for.
    fn find(&self, namespace: &Namespace) -> Option<Standing>;
    /// Why it is not there: not found, unless it may be elsewhere.
    fn absent<'a>(&'a self, namespace: &'a Namespace) -> Why<'a> {
        Box::pin(std::future::ready(HostError::NotFound(namespace.clone())))
    }
    /// Makes a namespace; one that is there is no error.
    fn create<'a>(&'a self, namespace: &'a Namespace) -> Act<'a, Engine>;
    /// Whether a write to an unknown namespace makes it.
    fn auto_create(&self) -> bool;
    /// Moves a namespace to the trash.
    fn delete<'a>(&'a self, namespace: &'a Namespace) -> Act<'a, ()>;
    /// The cluster that it belongs to, or shall; `None`: it runs alone.
    fn cluster(&self) -> Option<ClusterView> {
        None
    }
    /// Why it is not one of its cluster yet, or no longer, in words. Asked by every health check.
    fn cluster_waits(&self) -> Option<String> {
        None
    }
    /// Takes the node at `address` (`host:port` of its peer side) into the cluster.
    fn add_node<'a>(&'a self, _address: &'a str) -> Act<'a, ()> {
        Box::pin(std::future::ready(Err(HostError::alone())))
    }
    /// Takes a node out of the cluster, by its id, its name or its address.
    fn remove_node<'a>(&'a self, _who: &'a str) -> Act<'a, ()> {
        Box::pin(std::future::ready(Err(HostError::alone())))
    }
}

/// A cluster, as one of its nodes knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Its nodes.
    pub nodes: Vec<ClusterNode>,
    /// Where nodes are that are to be taken in.
    pub wanted: Vec<String>,
    /// Names of the nodes that lead the namespaces, as far as they are known, by namespace.
    pub leaders: BTreeMap<String, String>,
    /// Why this node is not one of it, if it is not, in words.
    pub waits: Option<String>,
}

/// A node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its id: 16 hexadecimal digits.
    pub id: String,
    /// What its operator calls it.
    pub name: String,
    /// Where other nodes reach it.
    pub address: String,
    /// Whether it leads the cluster.
    pub leads: bool,
    /// Whether it votes in it.
    pub votes: bool,
}

/// A namespace and how it is.
#[derive(Clone)]
pub struct Standing {
    /// Its name.
    pub namespace: Namespace,
    /// Whether it can be used.
    pub state: State,
}

/// How a namespace is.
#[derive(Clone)]
pub enum State {
    /// Open. Reads are served; `notes` say what is degraded, if anything.
    Open {
        /// The namespace itself.
        engine: Engine,
        /// Whether all is well; if not, in words (`recovery:"short"`, read-only after a gap …).
        notes: Vec<Note>,
    },
    /// Being recovered: 503 with `Retry-After`.
    Starting {
        /// What it is doing, in words.
        doing: String,
    },
    /// Stopped for a reason: 503 with the reason.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
}

/// Something about a namespace that an operator should see in `/health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Field name in `/health`, such as `recovery`.
    pub field: &'static str,
    /// Its value, such as `short`.
    pub value: String,
    /// In words.
    pub text: String,
    /// Whether it makes the node `degraded`.
    pub degraded: bool,
}

/// About the process.
#[derive(Debug, Clone)]
pub struct About {
    /// The node's name (`X-Unison-Node`).
    pub node: String,
    /// `leader`, `follower` or `relayer`.
    pub role: &'static str,
    /// The cluster or single node, once known.
    pub cluster: Option<ClusterId>,
    /// A restored directory, not yet started with `--cluster` or `--config` (D21); nothing while
    /// that cannot be told.
    pub isolated: Option<bool>,
    /// It is isolated, and there were cluster settings that it therefore ignores: no balancer is
    /// to take it for the node that they describe.
    pub ignores_cluster: bool,
    /// How the namespace is whose name is not known yet, in words: it lies in the data directory
    /// itself, and only the snapshot in it tells. [`Host::namespaces`] does not have it.
    pub unnamed: Option<String>,
    /// Version of the program.
    pub version: &'static str,
    /// The data directory as given, made absolute.
    pub data_dir: PathBuf,
    /// `always` or `interval`.
    pub durability: &'static str,
}

/// Why the host did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HostError {
    /// No such namespace.
    #[error("namespace not found: {0}")]
    NotFound(Namespace),
    /// No such node.
    #[error("no such node: {0}")]
    NoSuchNode(String),
    /// Not allowed here.
    #[error("{0}")]
    Refused(String),
    /// May work later.
    #[error("{0}")]
    Unavailable(String),
    /// No room.
    #[error("no space left on device")]
    Full,
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

impl HostError {
    /// What is asked for wants a cluster.
    pub fn alone() -> HostError {
        HostError::Refused("this node runs alone: --peer-addr makes it one of a cluster".to_owned())
    }
}
