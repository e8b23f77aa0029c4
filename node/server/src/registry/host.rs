//! What the routes see of a node: [`Host`], on the [`Registry`].

use std::sync::Arc;

use tokio::sync::watch;
use unisondb_api::Writer;
use unisondb_engine::Engine;
use unisondb_http::{About, Act, Host, HostError, Standing};
use unisondb_platform::Platform;
use unisondb_types::Namespace;

use super::{NAMESPACES, OnFailure, Registry, Wanted, open, wait};
use crate::config;
use crate::namespaces::{Outcome, Slot};

impl Host for Registry {
    fn platform(&self) -> &Platform {
        &self.0.platform
    }

    fn writer(&self) -> Arc<dyn Writer> {
        self.0.writer.clone()
    }

    fn about(&self) -> About {
        // First: one that is opened in between is then among those that are looked at.
        let unknown = self.0.namespaces.are_any_unopened();
        let isolated = self.0.isolated();
        About {
            node: self.0.directory.name(),
            role: "leader",
            cluster: Some(self.0.directory.cluster()),
            isolated: (isolated || !unknown).then_some(isolated),
            unnamed: self.0.namespaces.unnamed(),
            ignores_cluster: isolated && !self.0.effective.cluster_settings().is_empty(),
            version: env!("CARGO_PKG_VERSION"),
            data_dir: self.0.directory.path().to_owned(),
            durability: match self.0.effective.config.durability {
                config::Durability::Always => "always",
                config::Durability::Interval => "interval",
            },
        }
    }

    fn role(&self) -> &'static str {
        "leader"
    }

    fn namespaces(&self) -> Vec<Standing> {
        self.0.namespaces.all()
    }

    fn find(&self, namespace: &Namespace) -> Option<Standing> {
        self.0.namespaces.find(namespace)
    }

    fn create<'a>(&'a self, namespace: &'a Namespace) -> Act<'a, Engine> {
        Box::pin(async move {
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
                    let wanted = Wanted::Folder(namespace.clone());
                    tokio::spawn(open(inner.clone(), wanted, OnFailure::Forget, told));
                    outcome
                }
            };
            wait(&mut outcome).await
        })
    }

    fn auto_create(&self) -> bool {
        self.0.effective.config.auto_create() && !self.0.flat
    }

    fn delete<'a>(&'a self, namespace: &'a Namespace) -> Act<'a, ()> {
        Box::pin(async move {
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
                Some(Slot::Failed { reason }) => {
                    (None, Err(HostError::Unavailable(reason.clone())))
                }
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
        })
    }
}
