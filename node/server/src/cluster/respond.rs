//! [`Responder`]: answers what other nodes ask. What is not for this node is refused in words, before
//! anything is done (D19).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use unisondb_api::peer::ask::PROTOCOL;
use unisondb_api::peer::{Ask, Asked, GroupId, Told, envelope};
use unisondb_api::{Respond, WriteError};
use unisondb_engine::start::Origin;
use unisondb_types::{Action, Command, Idempotency, Namespace, codec};

use super::{Ways, bundle, decide};
use crate::registry::{Registry, Wanted};
use crate::writer::Lane;

/// Answers for this node.
pub(crate) struct Responder {
    registry: Registry,
    ways: Arc<Ways>,
    address: String,
    /// One is taken in at a time.
    joining: tokio::sync::Mutex<()>,
}

impl Responder {
    pub(crate) fn new(registry: Registry, ways: Arc<Ways>, address: String) -> Responder {
        Responder {
            registry,
            ways,
            address,
            joining: tokio::sync::Mutex::default(),
        }
    }

    async fn answer(&self, asked: Asked, rest: Bytes) -> (Told, Bytes) {
        let plain = |told| (told, Bytes::new());
        if asked.protocol != PROTOCOL {
            return plain(Told::Refused(format!(
                "this node speaks protocol {PROTOCOL}, not {}",
                asked.protocol
            )));
        }
        match asked.ask {
            Ask::Who => return plain(Told::Card(self.registry.card(&self.address))),
            Ask::Join => return plain(self.join(&rest).await.unwrap_or_else(Told::Refused)),
            _ => {}
        }
        if asked.cluster.is_none() || asked.cluster != self.ways.cluster() {
            let said = |cluster: Option<_>| match cluster {
                Some(cluster) => format!("of cluster {cluster}"),
                None => "of no cluster".to_owned(),
            };
            return plain(Told::Refused(format!(
                "this node is {}, not {}",
                said(self.ways.cluster()),
                said(asked.cluster)
            )));
        }
        match self.carry_out(asked.ask, rest).await {
            Ok(told) => told,
            Err(why) => plain(Told::Refused(why)),
        }
    }

    async fn carry_out(&self, ask: Ask, rest: Bytes) -> Result<(Told, Bytes), String> {
        let told = match ask {
            Ask::Raft { group, to } => return self.of_group(&group, to, rest).await,
            Ask::Several => {
                let clock = self.registry.platform_of().clock.clone();
                let told = bundle::answer(&*clock, rest, |group, to, message| async move {
                    self.of_group(&group, to, message).await
                });
                let told = told.await?;
                return Ok((Told::Several, told));
            }
            Ask::Write(group) => {
                let lane = self.lane(&group)?;
                let decoded = codec::decode::<(Option<Idempotency>, Action)>(&rest);
                let (idempotency, action) = decoded.map_err(|e| e.to_string())?;
                let command = Command::User {
                    idempotency,
                    action,
                };
                let written = lane.write(&command, self.registry.queued()).await;
                written.map_or_else(Told::Not, Told::Written)
            }
            Ask::Seal(group) => {
                let lsn = self.lane(&group)?.end_segment().await;
                lsn.map_or_else(Told::Not, Told::Position)
            }
            Ask::Barrier(group) => {
                let lsn = self.lane(&group)?.group().barrier().await;
                lsn.map_or_else(Told::Not, Told::Position)
            }
            ask @ (Ask::Create(_) | Ask::Delete(_)) => {
                let lane = self.registry.lane(&Namespace::cluster());
                let done = match lane {
                    Some(lane) if lane.group().leads() => decide(&self.registry, &lane, &ask).await,
                    _ => Err(WriteError::Unavailable(
                        "this node does not lead the cluster".to_owned(),
                    )),
                };
                done.map_or_else(Told::Not, |()| Told::Done)
            }
            Ask::Who | Ask::Join => unreachable!("answered before"),
        };
        Ok((told, Bytes::new()))
    }

    /// Answers a message of a group.
    async fn of_group(
        &self,
        group: &GroupId,
        to: u64,
        message: Bytes,
    ) -> Result<(Told, Bytes), String> {
        let lane = self.lane(group)?;
        if lane.group().own() != to {
            return Err(format!(
                "this node is member {} of {}, not {to}",
                lane.group().own(),
                group.namespace
            ));
        }
        Ok((Told::Raft, lane.group().answer(message).await))
    }

    /// The namespace, if it has the history that is meant.
    fn lane(&self, group: &GroupId) -> Result<Arc<Lane>, String> {
        let name = &group.namespace;
        let lane = self.registry.lane(name);
        let lane = lane.ok_or_else(|| format!("namespace {name} is not open on this node"))?;
        let own = lane.engine().history().lineage;
        if own != group.lineage {
            return Err(format!(
                "namespace {name} has lineage {own} on this node, not {}",
                group.lineage
            ));
        }
        Ok(lane)
    }

    /// Belongs to a cluster from now on, which begins with the record in `rest`.
    async fn join(&self, rest: &[u8]) -> Result<Told, String> {
        let origin: Origin = codec::decode(rest).map_err(|e| e.to_string())?;
        if !origin.lineage.namespace.is_cluster() {
            return Err("that is no cluster's record".to_owned());
        }
        let cluster = origin.lineage.cluster;
        let own = Namespace::cluster();
        let _turn = self.joining.lock().await;
        self.registry.opened().await;
        if let Some(lane) = self.registry.lane(&own) {
            let history = lane.engine().history();
            return if (history.cluster, history.lineage) == (cluster, origin.lineage.lineage) {
                Ok(Told::Joined(lane.group().own()))
            } else {
                Err(format!("this node belongs to cluster {}", history.cluster))
            };
        }
        if let Some(why) = self.registry.cluster_refused() {
            return Err(why);
        }
        if self.registry.card(&self.address).has_data {
            return Err("this node has data; only an empty one is taken into a cluster".to_owned());
        }
        let adopted = self.registry.directory().join(cluster);
        adopted.map_err(|e| e.to_string())?;
        let wanted = Wanted::Join(own.clone(), Box::new(origin));
        let engine = self.registry.make(&own, wanted).await;
        engine.map_err(|e| e.to_string())?;
        self.ways.belong(cluster);
        let lane = self.registry.lane(&own);
        let lane = lane.ok_or("the node is stopping")?;
        tracing::info!(%cluster, "taken into the cluster");
        Ok(Told::Joined(lane.group().own()))
    }
}

impl Respond for Responder {
    fn respond(&self, message: Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send + '_>> {
        Box::pin(async move {
            let (told, rest) = match envelope::decode::<Asked>(message) {
                Ok((asked, rest)) => self.answer(asked, rest).await,
                Err(e) => (Told::Refused(e.to_string()), Bytes::new()),
            };
            envelope::encode(&told, |out| out.extend_from_slice(&rest))
        })
    }
}
