//! A node of a cluster brings itself, and what it leads, into line with the catalog: again and again, so
//! that a kill at any point is the same as a later round.
//!
//! A round looks at `_cluster` as this node has it, which may be old, and starts what is to be done as a task
//! of its own, one a thing. So whatever it does is right, or refused, in whatever order it happens:
//! changes of the catalog are conditional on what they were decided by.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use unisondb_api::peer::{Ask, Told};
use unisondb_types::Namespace;

use super::catalog::{At, Catalog, Change, Fate, NodeRow, RemovedRow};
use super::members::{self, Step};
use super::{Ways, change_now, decode, found, fresh, origin, want};
use crate::registry::Registry;
use crate::writer::Lane;

/// How often is looked though nothing has changed.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two tries of what did not succeed, or is not finished.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks whether the leader can be reached.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// The longest that a thing is tried before it is looked at afresh.
const THING: Duration = Duration::from_secs(30);

/// What a node says that was taken out.
const TAKEN_OUT: &str =
    "this node was taken out of the cluster: stop it; to use it anew, empty its data directory";

/// Something that is being done: one of a name at a time.
type Doing = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

#[derive(Default)]
struct Work {
    names: BTreeMap<String, AbortHandle>,
    tasks: JoinSet<()>,
}

impl Work {
    fn start(&mut self, registry: &Registry, name: String, doing: Doing) {
        if self.names.contains_key(&name) {
            return;
        }
        let clock = registry.platform_of().clock.clone();
        let what = name.clone();
        let task = self.tasks.spawn(async move {
            let done = tokio::select! {
                biased;
                done = doing => done,
                () = clock.sleep(THING) => Err("it takes long".to_owned()),
            };
            if let Err(why) = done {
                tracing::debug!(what, why, "not done yet");
                clock.sleep(PAUSE).await;
            }
        });
        self.names.insert(name, task);
    }

    async fn ended(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending().await
        }
        // Also one that has panicked: it is begun anew.
        self.names.retain(|_, task| !task.is_finished());
    }
}

/// Runs until it is dropped, or `_cluster` is closed here.
pub(super) async fn run(registry: &Registry, ways: &Arc<Ways>, address: &str) {
    let clock = registry.platform_of().clock.clone();
    let Some(lane) = registry.lane(&Namespace::cluster()) else {
        return;
    };
    ways.belong(lane.engine().cluster());
    let mut applied = lane.engine().watch_applied();
    let mut work = Work::default();
    let node = Node {
        registry: registry.clone(),
        ways: ways.clone(),
        lane,
        address: address.to_owned(),
    };
    loop {
        let now = registry.lane(&Namespace::cluster());
        if !now.is_some_and(|now| Arc::ptr_eq(&now, &node.lane)) {
            return;
        }
        applied.borrow_and_update();
        match Catalog::read(node.lane.engine()) {
            Ok(catalog) => node.round(&Arc::new(catalog), &mut work),
            Err(error) => tracing::warn!(error, "_cluster cannot be read"),
        }
        tokio::select! {
            biased;
            changed = applied.changed() => if changed.is_err() { return },
            () = work.ended() => {}
            () = clock.sleep(AGAIN) => {}
        }
    }
}

/// This node, in its cluster.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) registry: Registry,
    pub(super) ways: Arc<Ways>,
    /// `_cluster`.
    pub(super) lane: Arc<Lane>,
    address: String,
}

impl Node {
    pub(super) fn id(&self) -> u64 {
        self.lane.group().own()
    }

    fn round(&self, catalog: &Arc<Catalog>, work: &mut Work) {
        self.ways.turn_to(catalog.book());
        self.lead_all(catalog, work);
        if catalog.is_leaving(self.id()) || catalog.removed.contains(&self.id()) {
            self.registry.set_cluster_waits(Some(TAKEN_OUT.to_owned()));
            let lanes = self.registry.lanes().into_iter();
            for lane in lanes.filter(|lane| !lane.engine().namespace().is_cluster()) {
                lane.close_to_clients();
            }
        }
        let mut start = |name: String, doing: Doing| work.start(&self.registry, name, doing);
        for (namespace, row) in &catalog.namespaces {
            let (node, name) = (self.clone(), namespace.clone());
            let set_down = catalog.members.get(namespace);
            let set_down = set_down.and_then(|of| of.get(&self.id())).copied();
            match row.fate {
                // What it still leads it hands over; nothing else is its business.
                Fate::Creating | Fate::Live if catalog.is_leaving(self.id()) => {}
                Fate::Creating | Fate::Live if !self.is_in_line(namespace, row, set_down) => {
                    let doing = async move { node.have(&name).await };
                    start(format!("have {namespace}"), Box::pin(doing));
                }
                // One of an old catalog may be here though it is deleted since.
                Fate::Deleting | Fate::Deleted
                    if set_down.is_some() || self.registry.is_known(namespace) =>
                {
                    let doing = async move { node.discard(&name, set_down.is_some()).await };
                    start(format!("discard {namespace}"), Box::pin(doing));
                }
                _ => {}
            }
        }
        if self.lane.group().leads() {
            self.round_of_leader(catalog, &mut start);
        } else {
            let node = self.clone();
            let doing = async move { node.look_around().await };
            start("look around".to_owned(), Box::pin(doing));
        }
        if let Some(row) = catalog.nodes.get(&self.id())
            && !row.leaving
            && (row.address != self.address || row.name != self.registry.name())
        {
            let node = self.clone();
            start(
                "tell where".to_owned(),
                Box::pin(async move { node.tell_where().await }),
            );
        }
        if catalog.founded {
            let configured = self.registry.config().namespaces.iter();
            for name in configured.filter(|name| !catalog.namespaces.contains_key(*name)) {
                let (node, ask) = (self.clone(), Ask::Create(name.clone()));
                let doing = async move {
                    let wanted = want(&node.registry, &node.ways, ask).await;
                    wanted.map_err(|e| e.to_string())
                };
                start(format!("create {name}"), Box::pin(doing));
            }
        }
    }

    /// Brings the members of every group that this node leads into line.
    fn lead_all(&self, catalog: &Catalog, work: &mut Work) {
        for lane in self.registry.lanes() {
            let namespace = lane.engine().namespace().clone();
            if !lane.group().leads() {
                continue;
            }
            let wanted: Vec<u64> = catalog.voters(&namespace).into_iter().collect();
            let row = catalog.namespaces.get(&namespace);
            let is_creating = row.is_some_and(|row| row.fate == Fate::Creating);
            let is_in_line = lane.group().members().voters == [wanted];
            if is_in_line && !is_creating && catalog.leaving(&namespace).is_empty() {
                continue;
            }
            let node = self.clone();
            let doing = async move { node.lead(&lane).await };
            work.start(
                &self.registry,
                format!("members {namespace}"),
                Box::pin(doing),
            );
        }
    }

    fn round_of_leader(&self, catalog: &Arc<Catalog>, start: &mut impl FnMut(String, Doing)) {
        if catalog.nodes.is_empty() {
            // Killed between the founding and what is put down then.
            let node = self.clone();
            let mut wanted: Vec<String> = self
                .registry
                .config()
                .peers
                .iter()
                .map(ToString::to_string)
                .collect();
            wanted.push(self.address.clone());
            let doing = async move {
                let begun = found::begin(&node.registry, &node.address, &wanted).await;
                begun.map_err(|e| e.to_string())
            };
            start("begin".to_owned(), Box::pin(doing));
            return;
        }
        let begins = origin(self.lane.engine());
        if catalog.origin.is_empty() && !begins.is_empty() {
            // Of a cluster that was founded by a release which kept it in the log alone.
            let node = self.clone();
            let doing = async move {
                let change = Change::default().only_if(&At::Origin, None);
                node.change(change.put(&At::Origin, &begins)).await
            };
            start("origin".to_owned(), Box::pin(doing));
        }
        for address in &catalog.wanted {
            let (node, address) = (self.clone(), address.clone());
            let name = format!("take in {address}");
            start(name, Box::pin(async move { node.take_in(&address).await }));
        }
        let voters = self.lane.group().members().voters;
        let all: Vec<u64> = catalog.nodes.keys().copied().collect();
        if !catalog.founded && catalog.wanted.is_empty() && voters == [all] {
            let node = self.clone();
            let doing = async move {
                let change = Change::default().only_if(&At::Founded, None);
                node.change(change.put(&At::Founded, &true)).await?;
                tracing::info!("all nodes of the founding are there");
                Ok(())
            };
            start("founded".to_owned(), Box::pin(doing));
        }
        for (id, row) in catalog.nodes.iter().filter(|(_, row)| row.leaving) {
            let is_voter = self
                .lane
                .group()
                .members()
                .voters
                .iter()
                .flatten()
                .any(|v| v == id);
            if is_voter || catalog.is_member_of_any(*id) {
                continue;
            }
            let (node, id, name) = (self.clone(), *id, row.name.clone());
            let doing = async move {
                let at = At::Node(id);
                let written = at.written(node.lane.engine())?;
                let change = Change::default().only_if(&at, written).remove(&at);
                node.change(change.put(&At::Removed(id), &RemovedRow { name }))
                    .await
            };
            start(format!("forget {id:016x}"), Box::pin(doing));
        }
        for (namespace, row) in &catalog.namespaces {
            for (left, _) in catalog.leaving(namespace) {
                // It discards nothing any more, and nobody needs to reach it there.
                if matches!(row.fate, Fate::Deleting | Fate::Deleted) {
                    let (node, name) = (self.clone(), namespace.clone());
                    let doing = async move {
                        let at = At::Member(&name, left);
                        node.change(Change::default().remove(&at)).await
                    };
                    start(format!("leave {namespace} {left:016x}"), Box::pin(doing));
                }
            }
            let gone = catalog
                .members
                .get(namespace)
                .is_none_or(|of| of.is_empty());
            // Whoever was to make it may be lost. If it has done so after all, either's record is the one.
            let is_unmade = row.fate == Fate::Creating && row.origin.is_empty();
            if is_unmade && row.founder != self.id() {
                let (node, name) = (self.clone(), namespace.clone());
                let doing = async move { node.take_over(&name).await };
                start(format!("take over {namespace}"), Box::pin(doing));
            }
            if row.fate == Fate::Deleting && gone {
                let (node, name) = (self.clone(), namespace.clone());
                let doing =
                    async move { node.change_fate(&name, Fate::Deleting, Fate::Deleted).await };
                start(format!("deleted {namespace}"), Box::pin(doing));
            }
        }
    }

    /// Brings the members of a group that this node leads into line. By what is so now: an old catalog
    /// would put members out that were added since.
    async fn lead(&self, lane: &Lane) -> Result<(), String> {
        let namespace = lane.engine().namespace();
        let catalog = self.fresh().await?;
        let (wanted, most) = (catalog.voters(namespace), catalog.most());
        let step = members::step(lane, &wanted).await?;
        let voters = lane.group().members().voters;
        let enough = voters.iter().all(|set| set.len() >= most);
        if !namespace.is_cluster() && enough && self.row(namespace)?.0.fate == Fate::Creating {
            self.change_fate(namespace, Fate::Creating, Fate::Live)
                .await?;
        }
        let members = lane.group().members();
        let is_in = |id: &u64| {
            members.learners.contains(id) || members.voters.iter().any(|set| set.contains(id))
        };
        for (node, raft_id) in catalog.leaving(namespace) {
            if step == Step::InLine && !is_in(&raft_id) {
                let at = At::Member(namespace, node);
                self.change(Change::default().remove(&at)).await?;
            }
        }
        match step {
            Step::InLine => Ok(()),
            Step::OnTheWay => Err("members are on their way".to_owned()),
        }
    }

    /// Takes a node in that is wanted.
    async fn take_in(&self, address: &str) -> Result<(), String> {
        let mut origin = origin(self.lane.engine());
        if origin.is_empty() {
            origin = Catalog::read(self.lane.engine())?.origin;
        }
        if origin.is_empty() {
            return Err("what _cluster begins with is no longer held here".to_owned());
        }
        let record = unisondb_types::codec::encode(&decode(&origin)?);
        let link = self.ways.to(address);
        let card = found::card(&self.registry, &self.ways, address).await;
        let name = card.map_or_else(|| address.to_owned(), |card| card.name);
        let told = self.ways.ask(&link, Ask::Join, &record).await;
        match told.map_err(|e| e.to_string())?.0 {
            Told::Joined(id) if self.fresh().await?.removed.contains(&id) => {
                tracing::warn!(
                    address,
                    "a node that was taken out is not taken in again: empty its data directory first"
                );
                Err("it was taken out".to_owned())
            }
            Told::Joined(id) => {
                self.ways.learn(id, address);
                let at = At::Node(id);
                let row = NodeRow {
                    name,
                    address: address.to_owned(),
                    leaving: false,
                };
                let change = Change::default().remove(&At::Wanted(address));
                // By another name it is in already.
                let change = match at.written(self.lane.engine())? {
                    Some(_) => change,
                    None => change.only_if(&at, None).put(&at, &row),
                };
                self.change(change).await
            }
            Told::Refused(why) => {
                tracing::warn!(address, why, "a node cannot be taken in");
                Err(why)
            }
            other => Err(format!("an answer to something else: {other:?}")),
        }
    }

    /// Now and then looks whether the leader can be reached. If not, the book may be old: asks those that
    /// the configuration names who they are.
    async fn look_around(&self) -> Result<(), String> {
        let clock = self.registry.platform_of().clock.clone();
        if self.fresh().await.is_err() {
            for peer in &self.registry.config().peers {
                let peer = peer.to_string();
                if let Some(card) = found::card(&self.registry, &self.ways, &peer).await
                    && card.cluster == self.ways.cluster()
                    && let Some(node) = card.node.filter(|node| *node != self.id())
                {
                    self.ways.learn(node, &peer);
                }
            }
        }
        clock.sleep(LOOK_AROUND).await;
        Ok(())
    }

    async fn tell_where(&self) -> Result<(), String> {
        let at = At::Node(self.id());
        let row = NodeRow {
            name: self.registry.name(),
            address: self.address.clone(),
            leaving: false,
        };
        let written = at.written(self.lane.engine())?;
        let written = written.ok_or("it was taken out of the cluster")?;
        self.change(Change::default().only_if(&at, Some(written)).put(&at, &row))
            .await
    }

    /// The catalog with all that was acknowledged before.
    pub(super) async fn fresh(&self) -> Result<Catalog, String> {
        let catalog = fresh(&self.registry, &self.lane).await;
        catalog.map_err(|e| e.to_string())
    }

    pub(super) async fn change(&self, change: Change) -> Result<(), String> {
        change_now(&self.registry, change)
            .await
            .map_err(|e| e.to_string())
    }
}
