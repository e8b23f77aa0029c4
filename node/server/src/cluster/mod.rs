//! A node as one of a cluster: how the cluster comes to be, who is in it, which namespaces it has, and how
//! a request finds its leader. (Why so: `docs/adr/0005-a-cluster-is-founded-by-one-and-grows.md`.)
//!
//! ```text
//!  found ──► _cluster: catalog ──► line: namespaces made, joined, discarded; members; nodes taken in
//!              ▲    │
//!  create ─────┘    └─► ways: who is where ◄── groups' messages, forward
//!                          │
//!            other nodes ◄─┘──► respond
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | `catalog` | what lies in `_cluster` |
//! | `found` | a node that belongs to no cluster: founds one, or waits to be taken in |
//! | `line` | a node of a cluster brings itself, and what it leads, into line with the catalog |
//! | `presence` | a namespace of the cluster on this node: had, or discarded |
//! | `members` | the leader of a group brings its members into line |
//! | `membership` | who belongs to the cluster, as an operator sees and changes it |
//! | `ways`, `forward`, `respond` | who is where; what only a leader can do; what other nodes ask |
//! | `bundle` | messages of many groups that go together |

mod bundle;
mod catalog;
mod forward;
mod found;
mod line;
mod members;
mod membership;
mod presence;
mod respond;
mod ways;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use unisondb_api::WriteError;
use unisondb_api::base64;
use unisondb_api::peer::{Ask, Told};
use unisondb_engine::Engine;
use unisondb_engine::start::Origin;
use unisondb_http::HostError;
use unisondb_types::{Lsn, Namespace, Outcome, codec};

pub(crate) use self::forward::{Forward, Position};
pub(crate) use self::membership::{add, remove, view};
pub(crate) use self::respond::Responder;
pub(crate) use self::ways::Ways;

use self::catalog::{At, Catalog, Change, Fate, NamespaceRow};
use crate::registry::Registry;
use crate::writer::Lane;

/// How long one who makes or deletes a namespace waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what others do.
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks whether a snapshot has arrived for a namespace.
const LOOK_FOR_PARCELS: Duration = Duration::from_millis(200);
/// Most namespaces that a cluster has.
const NAMESPACES: usize = 1_000;

/// Starts all of it; each ends when `stop` turns true.
pub(crate) fn start(
    registry: &Registry,
    ways: &Arc<Ways>,
    address: &str,
    stop: &watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (registry, ways, address) = (registry.clone(), ways.clone(), address.to_owned());
    let mut stop = stop.clone();
    tasks.spawn(async move {
        let clock = registry.platform_of().clock.clone();
        let work = async {
            loop {
                // Closed while it takes over a snapshot: this node belongs to a cluster all the same.
                let own = Namespace::cluster();
                while registry.lane(&own).is_none() && ways.cluster().is_some() {
                    clock.sleep(LOOK).await;
                }
                found::run(&registry, &ways, &address).await;
                line::run(&registry, &ways, &address).await;
            }
        };
        let take_over = async {
            loop {
                registry.take_over_what_has_arrived();
                clock.sleep(LOOK_FOR_PARCELS).await;
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = work => {}
            () = take_over => {}
        }
    });
    tasks
}

/// Makes a namespace, in the whole cluster.
pub(crate) async fn create(
    registry: &Registry,
    ways: &Ways,
    namespace: &Namespace,
) -> Result<Engine, HostError> {
    let made = async {
        want(registry, ways, Ask::Create(namespace.clone())).await?;
        loop {
            if let Some(lane) = registry.lane(namespace)
                && lane.is_open_to_clients()
            {
                return Ok(lane.engine().clone());
            }
            registry.platform_of().clock.sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        made = made => made,
        () = registry.platform_of().clock.sleep(PATIENCE) => Err(HostError::Unavailable(format!(
            "namespace {namespace} is being made; not enough nodes have it yet"
        ))),
    }
}

/// Deletes a namespace, in the whole cluster: done when it is gone here, and on so many nodes that the others
/// can acknowledge nothing more.
pub(crate) async fn delete(
    registry: &Registry,
    ways: &Ways,
    namespace: &Namespace,
) -> Result<(), HostError> {
    let gone = async {
        want(registry, ways, Ask::Delete(namespace.clone())).await?;
        loop {
            let rest = registry.lane(ways.own()).map_or(Ok(0), |lane| {
                let catalog = Catalog::read(lane.engine())?;
                let rest = catalog.members.get(namespace).map_or(0, |of| of.len());
                Ok::<_, String>(if rest < catalog.most() { 0 } else { rest })
            });
            if rest == Ok(0) && !registry.is_known(namespace) {
                return Ok(());
            }
            registry.platform_of().clock.sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        gone = gone => gone,
        () = registry.platform_of().clock.sleep(PATIENCE) => Err(HostError::Unavailable(format!(
            "namespace {namespace} is being deleted"
        ))),
    }
}

/// Why a namespace is not open on this node. Only the cluster knows that there is none: what this node has not
/// been told yet, or cannot ask for, is not "not found".
pub(crate) async fn absent(registry: &Registry, namespace: &Namespace) -> HostError {
    if let Some(why) = registry.cluster_waits() {
        return HostError::Unavailable(why);
    }
    let Some(lane) = registry.lane(&Namespace::cluster()) else {
        return HostError::Unavailable(waits(registry));
    };
    let row = match fresh(registry, &lane).await {
        Ok(catalog) => catalog.namespaces.get(namespace).map(|row| row.fate),
        Err(why) => {
            return HostError::Unavailable(format!(
                "namespace {namespace} is not on this node, and whether there is one is not known: {why}"
            ));
        }
    };
    match row {
        Some(Fate::Creating | Fate::Live) => {
            HostError::Unavailable(format!("namespace {namespace} is not on this node yet"))
        }
        Some(Fate::Deleting | Fate::Deleted) | None => HostError::NotFound(namespace.clone()),
    }
}

/// Has the leader of `_cluster` decide, as often as it takes to find one.
async fn want(registry: &Registry, ways: &Ways, ask: Ask) -> Result<(), HostError> {
    let clock = registry.platform_of().clock.clone();
    let since = clock.monotonic();
    let own = Namespace::cluster();
    loop {
        let attempt = async {
            let Some(lane) = registry.lane(&own) else {
                return Err(WriteError::Unavailable(waits(registry)));
            };
            if lane.group().leads() {
                return decide(registry, &lane, &ask).await;
            }
            let none =
                || WriteError::Unavailable("no leader of the cluster is known just now".to_owned());
            let leader = lane.group().leader().ok_or_else(none)?;
            let link = ways.to_member(&own, leader).ok_or_else(none)?;
            match ways.ask(&link, ask.clone(), b"").await {
                Ok((Told::Done, _)) => Ok(()),
                Ok((Told::Not(why), _)) => Err(why),
                // To have decided it twice is to have decided it.
                Ok((Told::Refused(why), _)) => Err(WriteError::Unavailable(why)),
                Ok((told, _)) => Err(WriteError::Failed(format!(
                    "an answer to something else: {told:?}"
                ))),
                Err(e) => Err(WriteError::Unavailable(e.to_string())),
            }
        };
        let left = PATIENCE.saturating_sub(clock.monotonic().saturating_sub(since));
        let done = tokio::select! {
            biased;
            done = attempt => done,
            () = clock.sleep(left) => Err(WriteError::Unavailable(
                "no leader of the cluster answered in time".to_owned(),
            )),
        };
        let late = clock.monotonic().saturating_sub(since) >= PATIENCE;
        match done {
            Ok(()) => return Ok(()),
            Err(WriteError::Unavailable(why) | WriteError::Unknown(why)) if late => {
                return Err(HostError::Unavailable(why));
            }
            Err(WriteError::Unavailable(_) | WriteError::Unknown(_)) => clock.sleep(LOOK).await,
            Err(WriteError::NotFound(name)) => return Err(HostError::NotFound(name)),
            Err(WriteError::ReadOnly(why)) => return Err(HostError::Refused(why)),
            Err(WriteError::Full) => return Err(HostError::Full),
            Err(other) => return Err(HostError::Failed(other.to_string())),
        }
    }
}

/// Decides, as the leader of `_cluster`, what is to become of a namespace.
async fn decide(registry: &Registry, lane: &Lane, ask: &Ask) -> Result<(), WriteError> {
    let engine = lane.engine();
    let catalog = fresh(registry, lane).await?;
    if !catalog.founded {
        return Err(WriteError::Unavailable(waits(registry)));
    }
    let (Ask::Create(namespace) | Ask::Delete(namespace)) = ask else {
        return Err(WriteError::Failed("that is nothing to decide".to_owned()));
    };
    let at = At::Namespace(namespace);
    let written = at.written(engine).map_err(WriteError::Failed)?;
    let known = catalog.namespaces.get(namespace);
    let fate = known.map_or(Fate::Deleted, |row| row.fate);
    let row = match (ask, fate) {
        (Ask::Create(_), Fate::Creating | Fate::Live) => return Ok(()),
        (Ask::Create(_), Fate::Deleting) => {
            let of = catalog.members.get(namespace).into_iter().flatten();
            let names = of.filter_map(|(node, _)| catalog.nodes.get(node));
            let names: Vec<&str> = names.map(|row| row.name.as_str()).collect();
            return Err(WriteError::Unavailable(format!(
                "namespace {namespace} is being deleted, and still on: {}",
                names.join(", ")
            )));
        }
        (Ask::Create(_), Fate::Deleted) => {
            let there = catalog.namespaces.values();
            let there = there.filter(|row| row.fate != Fate::Deleted).count();
            if there >= NAMESPACES {
                return Err(WriteError::ReadOnly(format!(
                    "this cluster has {NAMESPACES} namespaces, the most there can be"
                )));
            }
            NamespaceRow {
                fate: Fate::Creating,
                founder: lane.group().own(),
                origin: String::new(),
                lineage: String::new(),
                ids_above: known.map_or(0, |row| row.ids_above),
            }
        }
        (_, Fate::Deleted) => return Err(WriteError::NotFound(namespace.clone())),
        (_, Fate::Deleting) => return Ok(()),
        (_, Fate::Creating | Fate::Live) => {
            let mut row = known.cloned().expect("it has a fate");
            row.fate = Fate::Deleting;
            row
        }
    };
    let change = Change::default().only_if(&at, written).put(&at, &row);
    change_now(registry, change).await
}

/// The catalog with all that was acknowledged before.
async fn fresh(registry: &Registry, lane: &Lane) -> Result<Catalog, WriteError> {
    let writer = unisondb_http::Host::writer(registry);
    let lsn = writer.barrier(&Namespace::cluster()).await?;
    let mut applied = lane.engine().watch_applied();
    tokio::select! {
        biased;
        _ = applied.wait_for(|applied| *applied >= lsn) => {}
        () = registry.platform_of().clock.sleep(PATIENCE) => {
            let why = format!("LSN {lsn} of _cluster is not applied here yet");
            return Err(WriteError::Unavailable(why));
        }
    }
    Catalog::read(lane.engine()).map_err(WriteError::Failed)
}

/// Changes `_cluster`, through whoever leads it.
///
/// # Errors
/// [`WriteError::Unavailable`] also where what it was decided by is no longer so.
async fn change_now(registry: &Registry, change: Change) -> Result<(), WriteError> {
    let own = Namespace::cluster();
    let writer = unisondb_http::Host::writer(registry);
    let written = writer.write(&own, change.action(), None).await?;
    match written.outcome {
        Outcome::Written { .. } => Ok(()),
        _ => Err(WriteError::Unavailable(
            "the cluster has changed meanwhile".to_owned(),
        )),
    }
}

/// Why there is no cluster yet that could do anything, in words.
fn waits(registry: &Registry) -> String {
    registry
        .cluster_waits()
        .unwrap_or_else(|| "the cluster is being founded".to_owned())
}

/// What a namespace's history begins with, as the catalog has it; nothing where that is no longer held, or
/// where what lies before comes with a snapshot only.
fn origin(engine: &Engine) -> String {
    let first = engine.wal().read(Lsn::FIRST, 1).unwrap_or_default();
    let origin = first.first().and_then(|entry| Origin::of(&entry.record));
    let origin = origin.filter(|origin| origin.lineage.parent.is_none());
    origin.map_or(String::new(), |origin| encode(&origin))
}

fn encode(origin: &Origin) -> String {
    base64::encode(&codec::encode(origin))
}

fn decode(text: &str) -> Result<Origin, String> {
    let bytes = base64::decode(text).map_err(|e| e.to_string())?;
    codec::decode(&bytes).map_err(|e| e.to_string())
}
