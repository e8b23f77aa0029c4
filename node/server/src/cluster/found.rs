//! A node that belongs to no cluster. It founds one if that is its part, and otherwise waits to be taken in.
//!
//! Promises: of nodes that are started with the same `peers` at most one founds, and only after every
//! other has said that it belongs to no cluster (D19). What it waits for is said, in the log and to whoever
//! asks for a namespace. A node that was restored and not released founds nothing (D21).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use unisondb_api::peer::{Ask, Card, Told};
use unisondb_types::Namespace;

use super::catalog::{At, Change, Fate, NamespaceRow, NodeRow};
use super::{Ways, change_now, origin};
use crate::registry::{Registry, Wanted};

/// Between two rounds of asking.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a card is waited for.
const CARD: Duration = Duration::from_secs(1);

/// Returns when this node belongs to a cluster.
pub(super) async fn run(registry: &Registry, ways: &Ways, address: &str) {
    let clock = registry.platform_of().clock.clone();
    registry.opened().await;
    while registry.lane(&Namespace::cluster()).is_none() {
        let waits = match round(registry, ways, address).await {
            Ok(()) => continue,
            Err(why) => why,
        };
        if registry.cluster_waits().as_ref() != Some(&waits) {
            tracing::info!("{waits}");
            registry.set_cluster_waits(Some(waits));
        }
        clock.sleep(AGAIN).await;
    }
    registry.set_cluster_waits(None);
}

/// One round: founds, or says what it waits for.
async fn round(registry: &Registry, ways: &Ways, address: &str) -> Result<(), String> {
    if let Some(why) = registry.cluster_refused() {
        return Err(why);
    }
    if registry.is_apart() {
        return Err("restored, so isolated: no cluster is founded or joined; start it with --cluster, or with --config FILE on the command line".to_owned());
    }
    let own = registry.card(address);
    let peers = registry.config().peers.iter().map(ToString::to_string);
    let peers: BTreeSet<String> = peers.collect();
    // By what each says that it is reached at: so all of them sort the same names.
    let mut cards = BTreeMap::from([(own.address.clone(), own.clone())]);
    let mut silent = Vec::new();
    for peer in peers.iter().filter(|peer| *peer != address) {
        match card(registry, ways, peer).await {
            Some(card) if card.process == own.process => {}
            Some(card) => drop(cards.insert(card.address.clone(), card)),
            None => silent.push(peer.clone()),
        }
    }
    if let Some((peer, card)) = cards.iter().find(|(_, card)| card.cluster.is_some()) {
        let cluster = card.cluster.expect("just looked at");
        return Err(format!(
            "waiting to be taken into cluster {cluster}, which {peer} belongs to; if that does not happen by itself: udbctl cluster add (or replace, if this node had another life), on a node of it"
        ));
    }
    // Whom a founding is not told of it neither begins nor waits for.
    if !peers.contains(address) {
        return Err(format!(
            "waiting to be taken into a cluster: on a node of it, udbctl cluster add {address} (a node founds one only where its own address is among its peers)"
        ));
    }
    if let Some(stranger) = cards.keys().find(|at| !peers.contains(*at)) {
        return Err(format!(
            "the cluster is not founded: a peer says that it is reached at {stranger}, which is not among the peers; give it --peer-advertise, or name it so on every node"
        ));
    }
    if !silent.is_empty() {
        return Err(format!(
            "the cluster is not founded yet: waiting for {}",
            silent.join(", ")
        ));
    }
    let with_data: Vec<_> = cards.iter().filter(|(_, card)| card.has_data).collect();
    let founder = match with_data[..] {
        [] => cards.first_key_value(),
        [one] => Some(one),
        _ => None,
    };
    let Some((at, founder)) = founder else {
        let names: Vec<_> = with_data.iter().map(|(at, _)| at.as_str()).collect();
        return Err(format!(
            "the cluster is not founded: more than one node has data ({}); empty all but one of them",
            names.join(", ")
        ));
    };
    if founder.process != own.process {
        return Err(format!("waiting for {at}, which founds the cluster"));
    }
    for lane in registry.lanes() {
        if lane.engine().history().parent.is_some() {
            return Err(format!(
                "the cluster is not founded: namespace {} began at a restore, and this release makes no cluster of that",
                lane.engine().namespace()
            ));
        }
    }
    let wanted: Vec<String> = cards.into_keys().collect();
    found(registry, ways, address, &wanted).await
}

/// Who a peer is, if it says so in time.
pub(super) async fn card(registry: &Registry, ways: &Ways, peer: &str) -> Option<Card> {
    let link = ways.to(peer);
    let told = tokio::select! {
        biased;
        told = ways.ask(&link, Ask::Who, b"") => told,
        () = registry.platform_of().clock.sleep(CARD) => return None,
    };
    match told {
        Ok((Told::Card(card), _)) => Some(card),
        Ok((told, _)) => {
            tracing::warn!(peer, ?told, "a peer does not say who it is");
            None
        }
        Err(error) => {
            tracing::debug!(peer, %error, "a peer does not answer");
            None
        }
    }
}

/// Founds the cluster, of this node alone for now. A kill in between is the same as a later round: what is
/// there is gone on from.
async fn found(
    registry: &Registry,
    ways: &Ways,
    address: &str,
    wanted: &[String],
) -> Result<(), String> {
    let own = Namespace::cluster();
    let engine = registry.make(&own, Wanted::Folder(own.clone())).await;
    let engine = engine.map_err(|e| format!("the cluster cannot be founded: {e}"))?;
    let cluster = engine.cluster();
    ways.belong(cluster);
    tracing::info!(%cluster, nodes = wanted.join(", "), "the cluster is founded");
    begin(registry, address, wanted)
        .await
        .map_err(|e| format!("the cluster is founded, and cannot be written to: {e}"))
}

/// Puts down what the cluster begins with, if nobody has.
pub(super) async fn begin(
    registry: &Registry,
    address: &str,
    wanted: &[String],
) -> Result<(), unisondb_api::WriteError> {
    let Some(lane) = registry.lane(&Namespace::cluster()) else {
        return Ok(());
    };
    let node = lane.group().own();
    let mut change = Change::default().only_if(&At::Node(node), None).put(
        &At::Node(node),
        &NodeRow {
            name: registry.name(),
            address: address.to_owned(),
            leaving: false,
        },
    );
    // Nobody is taken in without it, and the log does not keep it for ever.
    change = change.put(&At::Origin, &origin(lane.engine()));
    for other in wanted.iter().filter(|wanted| *wanted != address) {
        change = change.put(&At::Wanted(other), &true);
    }
    // What this node had alone the cluster has from now on; it was live, and stays so.
    for lane in registry.lanes() {
        let namespace = lane.engine().namespace().clone();
        if !namespace.is_cluster() {
            change = change.put(
                &At::Namespace(&namespace),
                &NamespaceRow {
                    fate: Fate::Live,
                    founder: node,
                    origin: origin(lane.engine()),
                    lineage: lane.engine().history().lineage.to_string(),
                    ids_above: 0,
                },
            );
        }
    }
    change_now(registry, change).await
}
