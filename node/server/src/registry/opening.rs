//! Opening a namespace: as it is wanted, in turn, and on a full disk when there is room.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use unisondb_api::peer::GroupId;
use unisondb_api::{NoPeer, Peer};
use unisondb_engine::Engine;
use unisondb_engine::start::{self, Folders, OnGap, Opened, Request, StartError};
use unisondb_platform::{OffloadExt as _, Platform};
use unisondb_raft::{AcceptClock, Durability, first_parcel};
use unisondb_types::SegmentId;

use super::{Inner, ROOM_EVERY, Wanted};
use crate::config;
use crate::namespaces::{NO_ROOM, Outcome, Slot};
use crate::writer::{Lane, Mode};

impl Inner {
    /// Opens what has data behind it: a full disk is waited out, like a disk that is slow. `None`:
    /// the node stops meanwhile.
    pub(super) async fn open_when_there_is_room(
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
    pub(super) async fn open_in_turn(&self, wanted: &Wanted) -> Option<Result<Lane, StartError>> {
        let _turn = self.opens.acquire().await.ok()?;
        if *self.stopping.borrow() {
            return None;
        }
        Some(self.open(wanted).await)
    }

    pub(super) fn put_busy(
        &self,
        wanted: &Wanted,
        doing: &'static str,
        told: &watch::Sender<Outcome>,
    ) {
        let busy = Slot::Busy {
            doing,
            outcome: told.subscribe(),
        };
        match wanted.namespace() {
            Some(namespace) => self.namespaces.put(namespace, Some(busy)),
            None => self.namespaces.put_unnamed(Some(busy)),
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
            if plan.namespace.is_cluster() && !plan.goes_on() {
                return Err(StartError::Refused(
                    "_cluster is no longer as this node left it: what a cluster is made of is never restored. Empty this data directory and have the node taken in anew (udbctl cluster replace)".to_owned(),
                ));
            }
            let apart = plan.stays_in_its_lineage() || (plan.is_new() && beside_isolated);
            if apart && !forced {
                directory
                    .adopt(&plan.namespace)
                    .map_err(|e| StartError::Refused(e.to_string()))?;
            }
            Ok(())
        };
        let joins = match wanted {
            Wanted::Join(_, origin) => Some(origin.clone()),
            _ => None,
        };
        if let Wanted::Parcel(group, from) = wanted {
            self.get_parcel(&folders, group, *from).await?;
        }
        let mut opened = self
            .platform
            .offload
            .blocking(move || {
                if let Some(origin) = joins {
                    // One that was killed meanwhile has what it needs, or as good as nothing.
                    if !start::is_there(&platform, &folders)? {
                        start::join(&platform, &folders, &origin)?;
                    }
                }
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
        if opened.read_only.is_none() && self.ways.is_none() {
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
            peer: match &self.ways {
                Some(ways) => ways.clone(),
                None => Arc::new(NoPeer),
            },
            open: match wanted {
                Wanted::Flat(_) => true,
                // What this node has alone it goes on with, until there is a cluster.
                Wanted::There(namespace) => namespace.is_cluster() || !self.of_cluster,
                Wanted::Again(_, open) => *open,
                Wanted::Join(namespace, _)
                | Wanted::Folder(namespace)
                | Wanted::Above(namespace, _) => namespace.is_cluster() || self.ways.is_none(),
                Wanted::Parcel(..) => false,
            },
        };
        let lane = Lane::start(&self.platform, home, opened, mode).await;
        if lane.is_err() {
            // Nothing is lost by a last flush that fails: the log has it.
            let shut_down = self.platform.offload.blocking(move || engine.shut_down());
            drop(shut_down.await);
        }
        lane
    }

    /// Has an empty folder begin with a snapshot. One that was killed meanwhile has it, or as good as nothing.
    async fn get_parcel(
        &self,
        folders: &Folders,
        group: &GroupId,
        from: u64,
    ) -> Result<(), StartError> {
        let (platform, folders) = (self.platform.clone(), folders.clone());
        if start::is_there(&platform, &folders)? {
            return Ok(());
        }
        let Some(ways) = &self.ways else {
            let why = "this node is none of several".to_owned();
            return Err(StartError::Refused(why));
        };
        let peer: Arc<dyn Peer> = ways.clone();
        let arrived = first_parcel(&platform, &peer, group, from, &folders.home).await;
        let arrived = arrived.map_err(|e| StartError::Refused(e.to_string()))?;
        let offload = platform.offload.clone();
        let put_aside = move || {
            start::prepare(&platform, &folders, arrived.parcel.term)?;
            start::put_aside(&platform, &folders.home, arrived)
        };
        offload.blocking(put_aside).await
    }

    fn folders(&self, wanted: &Wanted) -> Folders {
        let Wanted::Flat(namespace) = wanted else {
            let namespace = wanted.namespace().expect("only a flat one may have none");
            return Folders {
                namespace: Some(namespace.clone()),
                home: self.directory.home(namespace),
                backups: self.backups().join(namespace.as_str()),
            };
        };
        Folders {
            namespace: namespace.clone(),
            home: self.directory.path().to_owned(),
            backups: match namespace {
                Some(namespace) => self.backups().join(namespace.as_str()),
                None => self.backups(),
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
        let retired = wanted
            .namespace()
            .and_then(|name| self.directory.retired(name));
        let above = match wanted {
            Wanted::Above(_, above) => Some(*above),
            _ => None,
        };
        Request {
            segment_size: config.segment_size.bytes(),
            keep_segment_size: self.ways.is_some(),
            map_size: config.map_size.bytes(),
            flush_bytes: usize::try_from(config.flush_bytes.bytes()).unwrap_or(usize::MAX),
            flush_interval: config.flush_interval,
            target: config.target(),
            on_gap: match config.recovery_on_gap {
                config::OnGap::Refuse => OnGap::Refuse,
                config::OnGap::ReadOnly => OnGap::ReadOnly,
                config::OnGap::SetAside => OnGap::SetAside,
            },
            ids_above: retired.max(above).max(config.first_segment_id.map(before)),
            create: match wanted {
                Wanted::Folder(_) | Wanted::Above(..) => Some(self.directory.cluster()),
                Wanted::Flat(_)
                | Wanted::There(_)
                | Wanted::Again(..)
                | Wanted::Join(..)
                | Wanted::Parcel(..) => None,
            },
        }
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
fn before(first: SegmentId) -> SegmentId {
    SegmentId::new(first.get().saturating_sub(1))
}
