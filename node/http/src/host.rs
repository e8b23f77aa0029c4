//! [`Host`]: what the routes need of the node or relayer that they are part of.

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
    /// Makes a namespace; one that is there is no error.
    fn create<'a>(&'a self, namespace: &'a Namespace) -> Act<'a, Engine>;
    /// Whether a write to an unknown namespace makes it.
    fn auto_create(&self) -> bool;
    /// Moves a namespace to the trash.
    fn delete<'a>(&'a self, namespace: &'a Namespace) -> Act<'a, ()>;
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
