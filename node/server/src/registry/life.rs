//! Making and discarding a namespace while the node runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use unisondb_engine::Engine;
use unisondb_http::HostError;
use unisondb_platform::{DiskExt as _, OffloadExt as _};
use unisondb_types::Namespace;

use super::{Inner, NAMESPACES, OnFailure, Registry, Wanted, close, open, wait};
use crate::directory::io_error;
use crate::namespaces::{Outcome, Slot};
use crate::writer::Lane;

/// How long until a namespace is tried to be deleted again that a full disk kept from it.
const NO_ROOM: Duration = Duration::from_secs(1);

impl Registry {
    /// Makes a namespace as `wanted` says, or waits for who does; one that is there is no error.
    pub(crate) async fn make(
        &self,
        namespace: &Namespace,
        wanted: Wanted,
    ) -> Result<Engine, HostError> {
        enum Next {
            There(Engine),
            Wait(watch::Receiver<Outcome>),
            Open(watch::Sender<Outcome>, watch::Receiver<Outcome>),
            No(HostError),
        }
        let inner = &self.0;
        let no = |why: &str| Next::No(HostError::Refused(why.to_owned()));
        let next = inner
            .namespaces
            .change(namespace, |slot, count| match slot {
                Some(Slot::Open(lane)) => (None, Next::There(lane.engine().clone())),
                Some(Slot::Busy { outcome, .. }) => (None, Next::Wait(outcome.clone())),
                Some(Slot::Failed { reason }) => {
                    (None, Next::No(HostError::Unavailable(reason.clone())))
                }
                None if *inner.stopping.borrow() => {
                    let why = "the node is stopping".to_owned();
                    (None, Next::No(HostError::Unavailable(why)))
                }
                None if inner.flat => (
                    None,
                    no("this data directory holds one namespace, in the flat layout"),
                ),
                None if inner.effective.config.drill => {
                    (None, no("this node was started with --drill"))
                }
                None if count >= NAMESPACES => (
                    None,
                    no("this node has 1000 namespaces, the most there can be"),
                ),
                None => {
                    let (told, outcome) = watch::channel(None);
                    let busy = Slot::Busy {
                        doing: "the namespace is being made",
                        outcome: outcome.clone(),
                    };
                    (Some(busy), Next::Open(told, outcome))
                }
            });
        let mut outcome = match next {
            Next::There(engine) => return Ok(engine),
            Next::No(why) => return Err(why),
            Next::Wait(outcome) => outcome,
            Next::Open(told, outcome) => {
                tokio::spawn(open(inner.clone(), wanted, OnFailure::Forget, told));
                outcome
            }
        };
        wait(&mut outcome).await
    }

    /// Moves a namespace to the trash.
    pub(crate) async fn discard(&self, namespace: &Namespace) -> Result<(), HostError> {
        let inner = self.0.clone();
        if inner.flat || inner.effective.config.drill {
            let why = "the namespace of a flat layout or a drill cannot be deleted";
            return Err(HostError::Refused(why.to_owned()));
        }
        let (told, outcome) = watch::channel(None);
        let found = inner.namespaces.change(namespace, |slot, _| match slot {
            Some(Slot::Open(lane)) => {
                let busy = Slot::Busy {
                    doing: "the namespace is being deleted",
                    outcome: outcome.clone(),
                };
                (Some(busy), Ok(lane.clone()))
            }
            Some(Slot::Busy { doing, .. }) => {
                (None, Err(HostError::Unavailable((*doing).to_owned())))
            }
            Some(Slot::Failed { reason }) => (None, Err(HostError::Unavailable(reason.clone()))),
            None => (None, Err(HostError::NotFound(namespace.clone()))),
        });
        let lane = found?;
        let name = namespace.clone();
        let task = tokio::spawn(async move {
            let done = inner.delete(name.clone(), lane).await;
            // Who waited for it as for one being opened learns that it is gone.
            told.send_replace(Some(Err(HostError::NotFound(name))));
            done
        });
        task.await
            .unwrap_or_else(|e| Err(HostError::Failed(e.to_string())))
    }
}

impl Inner {
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
        let discarded = loop {
            let (inner, name) = (self.clone(), namespace.clone());
            let attempt = self.platform.offload.blocking(move || {
                if let Some(highest) = highest {
                    inner.directory.retire(&name, highest)?;
                }
                let home = inner.directory.home(&name);
                inner.discard(&name).map_err(|e| io_error(&home, e))
            });
            // Where there is no room it waits for some: nothing has been moved.
            match attempt.await {
                Err(e) if e.is_full() && !*self.stopping.borrow() => {
                    tracing::warn!(%namespace, error = %e, "no room to delete it yet: it is tried again");
                    self.platform.clock.sleep(NO_ROOM).await;
                }
                done => break done,
            }
        };
        match discarded {
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
}
