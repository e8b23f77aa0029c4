//! [`Registry`]: opens, makes, finds and deletes the namespaces of a data directory; what the
//! routes see of a node ([`Host`]).
//!
//! Opening and deleting run as tasks of their own: a client that goes away in between leaves
//! nothing half done, and those who ask meanwhile wait for the same task.

mod again;
mod host;
mod life;
mod opening;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use unisondb_api::Writer;
use unisondb_api::peer::{Card, GroupId};
use unisondb_engine::Engine;
use unisondb_engine::start::{self, Origin, StartError};
use unisondb_http::HostError;
use unisondb_platform::{OffloadExt as _, Platform};
use unisondb_types::{LineageReason, Namespace, SegmentId};

use crate::ballast::Ballast;
use crate::cluster::Ways;
use crate::config::{Config, Effective};
use crate::directory::Directory;
use crate::namespaces::{Namespaces, Outcome, RECOVERING, Slot};
use crate::writer::{GroupWriter, Lane};

/// Most namespaces that one node has: each is two threads, a group, a log and an LMDB environment.
const NAMESPACES: usize = 1_000;
/// Most namespaces that are opened at once: each keeps a thread of the pool that all share.
const OPENS: usize = 8;
/// How often an opening that met the full disk is tried again.
const ROOM_EVERY: Duration = Duration::from_secs(1);
/// How often one who waits for the openings looks.
const LOOK: Duration = Duration::from_millis(20);

/// The namespaces of one data directory.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    platform: Platform,
    effective: Effective,
    directory: Arc<Directory>,
    /// The data directory has `db/` and `wal/` of one namespace directly in it.
    flat: bool,
    namespaces: Arc<Namespaces>,
    writer: Arc<dyn Writer>,
    /// The ways to other nodes, if it is one of several.
    ways: Option<Arc<Ways>>,
    /// Whether it belonged to a cluster at the start.
    of_cluster: bool,
    /// Why it belongs to no cluster yet, if it shall.
    cluster_waits: Mutex<Option<String>>,
    /// Drawn at the start.
    process: u64,
    ballast: Arc<Ballast>,
    /// Bounds how many namespaces are opened at once.
    opens: Semaphore,
    stopping: watch::Sender<bool>,
}

/// What is to be opened.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// The only one, directly in the data directory; named if somebody has said how.
    Flat(Option<Namespace>),
    /// One with a folder of its own, made if it is not there.
    Folder(Namespace),
    /// The same, above these segments.
    Above(Namespace, SegmentId),
    /// One with a folder of its own that is there.
    There(Namespace),
    /// One that was open and is opened again; whether clients may write to it.
    Again(Namespace, bool),
    /// One whose history was begun elsewhere: with this record.
    Join(Namespace, Box<Origin>),
    /// One of which nobody has that record any more: with a snapshot of this history, from this member.
    Parcel(GroupId, u64),
}

impl Wanted {
    /// Its name, if it is known.
    fn namespace(&self) -> Option<&Namespace> {
        match self {
            Wanted::Flat(_) => None,
            Wanted::Folder(name)
            | Wanted::Above(name, _)
            | Wanted::There(name)
            | Wanted::Again(name, _)
            | Wanted::Join(name, _) => Some(name),
            Wanted::Parcel(group, _) => Some(&group.namespace),
        }
    }
}

impl Registry {
    pub(crate) fn new(
        platform: &Platform,
        effective: Effective,
        directory: Directory,
        flat: bool,
        ways: Option<Arc<Ways>>,
        of_cluster: bool,
    ) -> Registry {
        let namespaces = Arc::new(Namespaces::default());
        let kept = match effective.config.drill {
            true => 0,
            false => effective.config.ballast_bytes.bytes(),
        };
        let ballast = Ballast::take(platform, directory.path(), kept);
        Registry(Arc::new(Inner {
            platform: platform.clone(),
            effective,
            directory: Arc::new(directory),
            flat,
            writer: Arc::new(GroupWriter::new(
                namespaces.clone(),
                platform.clock.clone(),
                ways.clone(),
            )),
            namespaces,
            ways,
            of_cluster,
            cluster_waits: Mutex::default(),
            process: {
                let mut bytes = [0; 8];
                platform.entropy.fill(&mut bytes);
                u64::from_le_bytes(bytes)
            },
            ballast: Arc::new(ballast),
            opens: Semaphore::new(OPENS),
            stopping: watch::Sender::new(false),
        }))
    }

    pub(crate) fn queued(&self) -> &unisondb_raft::Queued {
        self.0.namespaces.queued()
    }

    /// One that is open.
    pub(crate) fn lane(&self, namespace: &Namespace) -> Option<Arc<Lane>> {
        self.0.namespaces.lane(namespace).ok()
    }

    /// Whether it is there, in whatever state.
    pub(crate) fn is_known(&self, namespace: &Namespace) -> bool {
        self.0.namespaces.is_known(namespace)
    }

    /// The node's name.
    pub(crate) fn name(&self) -> String {
        self.0.directory.name()
    }

    /// Waits until what was there at the start is open, or cannot be.
    pub(crate) async fn opened(&self) {
        while self.0.namespaces.are_any_opening() {
            self.0.platform.clock.sleep(LOOK).await;
        }
    }

    /// Whether it holds a namespace that was restored and not released (D21).
    pub(crate) fn is_apart(&self) -> bool {
        self.0.isolated()
    }

    /// Whether this one was restored and not released.
    pub(crate) fn is_isolated(&self, engine: &Engine) -> bool {
        self.0.is_isolated(engine)
    }

    /// Why this node can neither found a cluster nor join one, if so.
    pub(crate) fn cluster_refused(&self) -> Option<String> {
        let why = if self.0.flat {
            "this data directory holds one namespace, in the flat layout"
        } else if self.0.namespaces.are_any_unopened() {
            "a namespace of this node is not open"
        } else {
            return None;
        };
        Some(format!("no cluster is founded or joined: {why}"))
    }

    /// Why this node belongs to no cluster yet, if it shall.
    pub(crate) fn cluster_waits(&self) -> Option<String> {
        self.0.cluster_waits.lock().clone()
    }

    pub(crate) fn set_cluster_waits(&self, why: Option<String>) {
        *self.0.cluster_waits.lock() = why;
    }

    /// Who this node is; `address`: where others reach it.
    pub(crate) fn card(&self, address: &str) -> Card {
        let inner = &self.0;
        let of_cluster = self.lane(&Namespace::cluster());
        Card {
            node: of_cluster.as_ref().map(|lane| lane.group().own()),
            cluster: match of_cluster {
                Some(lane) => Some(lane.engine().cluster()),
                // What is not open yet, or cannot be, is there.
                None => inner.of_cluster.then(|| inner.directory.cluster()),
            },
            name: self.name(),
            has_data: inner.of_cluster
                || !inner.namespaces.all().is_empty()
                || inner.namespaces.unnamed().is_some(),
            address: address.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: inner.process,
        }
    }

    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.0.namespaces.lanes()
    }

    pub(crate) fn ballast(&self) -> &Ballast {
        &self.0.ballast
    }

    pub(crate) fn platform_of(&self) -> &Platform {
        &self.0.platform
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.effective.config
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// Begins to open a namespace; what it comes to is told to the receiver.
    pub(crate) fn begin(&self, wanted: Wanted) -> watch::Receiver<Outcome> {
        let (told, outcome) = watch::channel(None);
        self.0.put_busy(&wanted, RECOVERING, &told);
        tokio::spawn(open(self.0.clone(), wanted, OnFailure::Keep, told));
        outcome
    }

    /// Ends every namespace: what is queued is written, the state flushed and closed.
    pub(crate) async fn stop(&self) {
        self.0.stopping.send_replace(true);
        for lane in self.lanes() {
            close(&self.0.platform, &lane).await;
        }
    }
}

/// Ends one namespace.
async fn close(platform: &Platform, lane: &Arc<Lane>) {
    lane.stop().await;
    let engine = lane.engine().clone();
    let namespace = engine.namespace().clone();
    if let Err(error) = platform.offload.blocking(move || engine.shut_down()).await {
        // Nothing is lost: the log has it, and the next start replays it.
        tracing::warn!(%namespace, %error, "the state was not flushed at the end");
    }
}

/// What becomes of the name when opening fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnFailure {
    /// It stays, with the reason: there is data behind it.
    Keep,
    /// It goes: it was to be made, and there is nothing.
    Forget,
}

async fn open(
    inner: Arc<Inner>,
    wanted: Wanted,
    on_failure: OnFailure,
    told: watch::Sender<Outcome>,
) {
    let opened = match on_failure {
        OnFailure::Keep => inner.open_when_there_is_room(&wanted, &told).await,
        OnFailure::Forget => inner.open_in_turn(&wanted).await,
    };
    let Some(opened) = opened else {
        let why = HostError::Unavailable("the node is stopping".to_owned());
        told.send_replace(Some(Err(why)));
        return;
    };
    let outcome = match opened {
        Ok(lane) => {
            let (engine, lane) = (lane.engine().clone(), Arc::new(lane));
            inner
                .namespaces
                .put(engine.namespace(), Some(Slot::Open(lane.clone())));
            inner.namespaces.put_unnamed(None);
            if *inner.stopping.borrow() {
                // Whoever stops the node may have looked before.
                close(&inner.platform, &lane).await;
            }
            Ok(engine)
        }
        Err(error) => {
            announce(&wanted, &error);
            let there_is_nothing =
                matches!(error, StartError::Nothing(_)) && matches!(wanted, Wanted::There(_));
            let keep = on_failure == OnFailure::Keep && !there_is_nothing;
            let slot = keep.then(|| Slot::Failed {
                reason: error.to_string(),
            });
            match wanted.namespace() {
                Some(namespace) => inner.namespaces.put(namespace, slot),
                None => inner.namespaces.put_unnamed(slot),
            }
            Err(match error {
                StartError::Full(_) => HostError::Full,
                error => HostError::Failed(error.to_string()),
            })
        }
    };
    told.send_replace(Some(outcome));
}

/// Says on stderr why a namespace does not open; damage in the documented words.
fn announce(wanted: &Wanted, error: &StartError) {
    if error.is_damage() {
        // The documented line, by itself, whatever the log format is: people grep for it. A stderr
        // that cannot be written is no reason to panic.
        let line = b"ERROR: database file is corrupted\n";
        drop(std::io::Write::write_all(&mut std::io::stderr(), line));
    }
    match wanted.namespace() {
        Some(namespace) => tracing::error!(%namespace, %error, "the namespace is not opened"),
        None => tracing::error!(%error, "the namespace is not opened"),
    }
}

impl Inner {
    fn isolated(&self) -> bool {
        self.namespaces
            .lanes()
            .iter()
            .any(|lane| self.is_isolated(lane.engine()))
    }

    fn is_isolated(&self, engine: &Engine) -> bool {
        let restored = matches!(engine.history().reason, LineageReason::Restored(_));
        (restored && !self.directory.is_released(engine.history().lineage))
            || self.directory.is_adopted(engine.namespace())
    }

    /// A restored namespace touches nothing that another node may own. Gives what it ignores.
    fn keep_apart(&self, engine: &Engine) -> Option<start::Note> {
        let namespace = engine.namespace();
        let mut backups = String::new();
        if self.effective.is_backup_dir_inherited() {
            let root = self.directory.path().join("backups");
            let root = root.join(namespace.as_str());
            backups = format!("; backups go to {}", root.display());
            engine.keep_backups_in(root);
        }
        let ignored = self.effective.settings_ignored_apart();
        if ignored.is_empty() {
            tracing::info!(%namespace, "restored, so isolated; there are no settings that this makes it ignore");
            return None;
        }
        let ignored = ignored.join(", ");
        let text = format!(
            "restored, so isolated: ignored are {ignored}{backups}. To obey them, start with --cluster, or with --config FILE on the command line"
        );
        tracing::warn!(%namespace, "{text}");
        Some(start::Note {
            field: "ignored",
            value: ignored,
            text,
            degraded: false,
        })
    }
}

/// Waits for what an opening comes to.
pub(crate) async fn wait(outcome: &mut watch::Receiver<Outcome>) -> Result<Engine, HostError> {
    let told = outcome.wait_for(Option::is_some).await;
    match told {
        Ok(result) => result.clone().expect("waited until it is there"),
        Err(_) => Err(HostError::Unavailable("the node is stopping".to_owned())),
    }
}
