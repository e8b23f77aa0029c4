//! [`Registry`]: opens, makes, finds and deletes the namespaces of a data directory; what the
//! routes see of a node ([`Host`]).
//!
//! Opening and deleting run as tasks of their own: a client that goes away in between leaves
//! nothing half done, and those who ask meanwhile wait for the same task.

mod host;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use unisondb_api::Writer;
use unisondb_engine::Engine;
use unisondb_engine::start::{self, Folders, OnGap, Opened, Request, StartError};
use unisondb_http::HostError;
use unisondb_platform::{DiskExt as _, OffloadExt as _, Platform};
use unisondb_raft::{AcceptClock, Durability};
use unisondb_types::{LineageReason, Namespace};

use crate::ballast::Ballast;
use crate::config::{self, Config, Effective};
use crate::directory::Directory;
use crate::namespaces::{NO_ROOM, Namespaces, Outcome, RECOVERING, Slot};
use crate::writer::{GroupWriter, Lane, Mode};

/// Most namespaces that one node has: each is two threads, a group, a log and an LMDB environment.
const NAMESPACES: usize = 1_000;
/// Most namespaces that are opened at once: each keeps a thread of the pool that all share.
const OPENS: usize = 8;
/// How often an opening that met the full disk is tried again.
const ROOM_EVERY: Duration = Duration::from_secs(1);

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
}

impl Registry {
    pub(crate) fn new(
        platform: &Platform,
        effective: Effective,
        directory: Directory,
        flat: bool,
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
            writer: Arc::new(GroupWriter::new(namespaces.clone())),
            namespaces,
            ballast: Arc::new(ballast),
            opens: Semaphore::new(OPENS),
            stopping: watch::Sender::new(false),
        }))
    }

    #[cfg(test)]
    pub(crate) fn queued(&self) -> &unisondb_raft::Queued {
        self.0.namespaces.queued()
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
            let slot = (on_failure == OnFailure::Keep).then(|| Slot::Failed {
                reason: error.to_string(),
            });
            match &wanted {
                Wanted::Folder(namespace) => inner.namespaces.put(namespace, slot),
                Wanted::Flat(_) => inner.namespaces.put_unnamed(slot),
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
    match wanted {
        Wanted::Folder(namespace) => {
            tracing::error!(%namespace, %error, "the namespace is not opened");
        }
        Wanted::Flat(_) => tracing::error!(%error, "the namespace is not opened"),
    }
}

impl Inner {
    /// Opens what has data behind it: a full disk is waited out, like a disk that is slow. `None`:
    /// the node stops meanwhile.
    async fn open_when_there_is_room(
        &self,
        wanted: &Wanted,
        told: &watch::Sender<Outcome>,
    ) -> Option<Result<Lane, StartError>> {
        let mut stopping = self.stopping.subscribe();
        let mut opened = self.open_in_turn(wanted).await?;
        if matches!(opened, Err(StartError::Full(_))) && self.give_up_ballast().await {
            opened = self.open_in_turn(wanted).await?;
        }
        let mut waits = false;
        while let Err(StartError::Full(path)) = &opened {
            if !std::mem::replace(&mut waits, true) {
                tracing::error!(path = %path.display(), "the disk is full: the namespace waits for room");
                self.put_busy(wanted, NO_ROOM, told);
            }
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => return None,
                () = self.platform.clock.sleep(ROOM_EVERY) => {}
            }
            opened = self.open_in_turn(wanted).await?;
        }
        Some(opened)
    }

    async fn give_up_ballast(&self) -> bool {
        let (ballast, platform) = (self.ballast.clone(), self.platform.clone());
        let give_up = move || ballast.give_up(&platform);
        self.platform.offload.blocking(give_up).await
    }

    /// Opens as soon as few enough others are being opened. `None`: the node stops meanwhile.
    async fn open_in_turn(&self, wanted: &Wanted) -> Option<Result<Lane, StartError>> {
        let _turn = self.opens.acquire().await.ok()?;
        if *self.stopping.borrow() {
            return None;
        }
        Some(self.open(wanted).await)
    }

    fn put_busy(&self, wanted: &Wanted, doing: &'static str, told: &watch::Sender<Outcome>) {
        let busy = Slot::Busy {
            doing,
            outcome: told.subscribe(),
        };
        match wanted {
            Wanted::Folder(namespace) => self.namespaces.put(namespace, Some(busy)),
            Wanted::Flat(_) => self.namespaces.put_unnamed(Some(busy)),
        }
    }

    async fn open(&self, wanted: &Wanted) -> Result<Lane, StartError> {
        let mut folders = self.folders(wanted);
        let home = folders.home.clone();
        let request = self.request(wanted);
        let platform = self.platform.clone();
        let rebuild = self.effective.config.rebuild;
        let directory = self.directory.clone();
        // Written down before anything is changed: afterwards nothing would tell.
        let (forced, beside_isolated) = (self.effective.forced, self.isolated());
        let decided = move |plan: &start::Plan| {
            let apart = plan.stays_in_its_lineage() || (plan.is_new() && beside_isolated);
            if apart && !forced {
                directory
                    .adopt(&plan.namespace)
                    .map_err(|e| StartError::Refused(e.to_string()))?;
            }
            Ok(())
        };
        let mut opened = self
            .platform
            .offload
            .blocking(move || {
                if folders.namespace.is_none() {
                    // Its backups lie under its name, which only the state in it tells.
                    let plan = start::inspect(&platform, &folders, &request)?;
                    folders.backups.push(plan.namespace.as_str());
                    folders.namespace = Some(plan.namespace);
                }
                match start::open_decided(&platform, &folders, &request, decided) {
                    Err(StartError::Corrupted { path, why, .. }) if rebuild => {
                        tracing::warn!(path = %path.display(), why, "the state is damaged: it is made again from the log");
                        start_without_state(&platform, &folders, &request)
                    }
                    done => done,
                }
            })
            .await?;
        let engine = opened.engine.clone();
        if opened.read_only.is_none() {
            alone(&engine)?;
        }
        if self.effective.forced
            && self.is_isolated(&engine)
            && let Err(error) = self
                .directory
                .release(engine.namespace(), engine.history().lineage)
        {
            tracing::warn!(%error, "the namespace stays isolated");
        }
        if self.is_isolated(&engine) {
            opened.notes.extend(self.keep_apart(&engine));
        }
        tracing::info!(
            namespace = %engine.namespace(),
            lineage = %engine.lineage(),
            applied = %engine.applied(),
            "open"
        );
        engine.start_flusher();
        let config = &self.effective.config;
        let mode = Mode {
            durability: match config.durability {
                config::Durability::Always => Durability::Always,
                config::Durability::Interval => Durability::Interval(config.durability_interval),
            },
            accept_clock: match config.accept_clock {
                true => AcceptClock::Always,
                false => AcceptClock::Within7Days,
            },
            read_only: config
                .drill
                .then(|| "this node was started with --drill".to_owned()),
            ballast: self.ballast.clone(),
        };
        let lane = Lane::start(&self.platform, home, opened, mode).await;
        if lane.is_err() {
            // Nothing is lost by a last flush that fails: the log has it.
            let shut_down = self.platform.offload.blocking(move || engine.shut_down());
            drop(shut_down.await);
        }
        lane
    }

    fn folders(&self, wanted: &Wanted) -> Folders {
        match wanted {
            Wanted::Flat(namespace) => Folders {
                namespace: namespace.clone(),
                home: self.directory.path().to_owned(),
                backups: match namespace {
                    Some(namespace) => self.backups().join(namespace.as_str()),
                    None => self.backups(),
                },
            },
            Wanted::Folder(namespace) => Folders {
                namespace: Some(namespace.clone()),
                home: self.directory.home(namespace),
                backups: self.backups().join(namespace.as_str()),
            },
        }
    }

    /// The root of all backups, absolute.
    fn backups(&self) -> PathBuf {
        let configured = self.effective.config.backup_dir.as_deref();
        configured
            .and_then(|dir| std::path::absolute(dir).ok())
            .unwrap_or_else(|| self.directory.path().join("backups"))
    }

    fn request(&self, wanted: &Wanted) -> Request {
        let config = &self.effective.config;
        let retired = match wanted {
            Wanted::Folder(namespace) => self.directory.retired(namespace),
            Wanted::Flat(_) => None,
        };
        Request {
            segment_size: config.segment_size.bytes(),
            map_size: config.map_size.bytes(),
            flush_bytes: usize::try_from(config.flush_bytes.bytes()).unwrap_or(usize::MAX),
            flush_interval: config.flush_interval,
            target: config.target(),
            on_gap: match config.recovery_on_gap {
                config::OnGap::Refuse => OnGap::Refuse,
                config::OnGap::ReadOnly => OnGap::ReadOnly,
                config::OnGap::SetAside => OnGap::SetAside,
            },
            ids_above: retired.max(config.first_segment_id.map(before)),
            create: match wanted {
                Wanted::Folder(_) => Some(self.directory.cluster()),
                Wanted::Flat(_) => None,
            },
        }
    }

    /// Moves a namespace that is closed into the trash.
    fn discard(&self, namespace: &Namespace) -> std::io::Result<()> {
        let disk = &self.platform.disk;
        let trash = self.directory.path().join("trash");
        disk.create_folders(&trash)?;
        let home = self.directory.home(namespace);
        // A dot is in no namespace's name: the trash is never taken for one.
        let grave = trash.join(format!(
            "{namespace}.{}",
            self.platform.clock.now().micros()
        ));
        disk.rename(&home, &grave)?;
        disk.sync_folder(&trash)?;
        disk.sync_folder(self.directory.path())
    }

    async fn delete(
        self: Arc<Self>,
        namespace: Namespace,
        lane: Arc<Lane>,
    ) -> Result<(), HostError> {
        close(&self.platform, &lane).await;
        let highest = lane.engine().wal().segments().last().map(|s| s.id);
        drop(lane);
        let inner = self.clone();
        let name = namespace.clone();
        let discarded = self.platform.offload.blocking(move || {
            if let Some(highest) = highest {
                inner
                    .directory
                    .retire(&name, highest)
                    .map_err(|e| e.to_string())?;
            }
            inner.discard(&name).map_err(|e| e.to_string())
        });
        match discarded.await {
            Ok(()) => {
                tracing::info!(%namespace, "deleted: moved to the trash");
                self.namespaces.put(&namespace, None);
                Ok(())
            }
            Err(why) => {
                let reason = format!("it could not be deleted ({why}); restart to use it again");
                let slot = Slot::Failed {
                    reason: reason.clone(),
                };
                self.namespaces.put(&namespace, Some(slot));
                Err(HostError::Failed(reason))
            }
        }
    }

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

/// Whether this node alone decides what its log holds: one of several must not write as if it did.
fn alone(engine: &Engine) -> Result<(), StartError> {
    let stand = engine.applied_stand().map_err(StartError::Engine)?;
    let (members, last) = (&stand.membership.members, engine.wal().last());
    if members.is_single() && stand.lsn == last {
        return Ok(());
    }
    Err(StartError::Refused(format!(
        "namespace {} belongs to a group (at LSN {} of {last}: {members}), and this release runs a node alone. Ways out: start it with the release that made the group, or restore it from a backup",
        engine.namespace(),
        stand.lsn
    )))
}

/// Sets a damaged state aside and starts from the log alone (`--rebuild`). Where the log does not
/// reach back far enough for that, everything is put back as it was.
fn start_without_state(
    platform: &Platform,
    folders: &Folders,
    request: &Request,
) -> Result<Opened, StartError> {
    let disk = &platform.disk;
    let state = folders.home.join("db");
    let aside = format!("db.damaged-{}", platform.clock.now().micros());
    let aside = folders.home.join(aside);
    let rename = |from: &Path, to: &Path| {
        let renamed = disk.rename(from, to);
        renamed
            .and_then(|()| disk.sync_folder(&folders.home))
            .map_err(|source| StartError::Io {
                path: from.to_owned(),
                source,
            })
    };
    rename(&state, &aside)?;
    if let Err(error) = start::inspect(platform, folders, request) {
        rename(&aside, &state)?;
        return Err(error);
    }
    start::open(platform, folders, request)
}

/// The id such that "above it" means "at least `first`".
fn before(first: unisondb_types::SegmentId) -> unisondb_types::SegmentId {
    unisondb_types::SegmentId::new(first.get().saturating_sub(1))
}

/// Waits for what an opening comes to.
pub(crate) async fn wait(outcome: &mut watch::Receiver<Outcome>) -> Result<Engine, HostError> {
    let told = outcome.wait_for(Option::is_some).await;
    match told {
        Ok(result) => result.clone().expect("waited until it is there"),
        Err(_) => Err(HostError::Unavailable("the node is stopping".to_owned())),
    }
}
