//! Who belongs to the cluster, as an operator sees and changes it. What is asked for is put down in the
//! catalog, and the leaders bring their groups into line with that: so a kill in between changes nothing.

use std::sync::Arc;
use std::time::Duration;

use unisondb_api::WriteError;
use unisondb_http::{ClusterNode, ClusterView, HostError};

use super::catalog::{At, Catalog, Change, NodeRow};
use super::{LOOK, Ways, change_now, found, fresh, waits};
use crate::registry::Registry;
use crate::writer::Lane;

/// How long one who adds or removes a node waits until it is done.
const PATIENCE: Duration = Duration::from_secs(30);

/// The cluster, as this node knows it.
pub(crate) fn view(registry: &Registry, ways: &Ways) -> ClusterView {
    let mut view = ClusterView {
        waits: registry.cluster_waits(),
        ..ClusterView::default()
    };
    let Some(lane) = registry.lane(ways.own()) else {
        return view;
    };
    let catalog = match Catalog::read(lane.engine()) {
        Ok(catalog) => catalog,
        Err(why) => {
            view.waits = Some(format!("_cluster cannot be read: {why}"));
            return view;
        }
    };
    let (leader, members) = (lane.group().leader(), lane.group().members());
    for (id, row) in &catalog.nodes {
        view.nodes.push(ClusterNode {
            id: format!("{id:016x}"),
            name: row.name.clone(),
            address: row.address.clone(),
            leads: leader == Some(*id),
            votes: members.voters.iter().all(|set| set.contains(id)),
        });
    }
    view.wanted = catalog.wanted.iter().cloned().collect();
    for lane in registry.lanes() {
        let namespace = lane.engine().namespace();
        let leader = lane.group().leader();
        let node = leader.and_then(|member| ways.node_of(namespace, member));
        if let Some(row) = node.and_then(|node| catalog.nodes.get(&node))
            && !namespace.is_cluster()
        {
            view.leaders.insert(namespace.to_string(), row.name.clone());
        }
    }
    view
}

/// Takes the node at `address` in, when it answers; one that is in is no error.
pub(crate) async fn add(registry: &Registry, ways: &Ways, address: &str) -> Result<(), HostError> {
    let (lane, catalog) = now(registry, ways).await?;
    let mut nodes = catalog.nodes.iter();
    let known = nodes.find(|(_, row)| row.address == address);
    if let Some((id, row)) = known {
        let card = found::card(registry, ways, address).await;
        if card.is_some_and(|card| card.node != Some(*id)) {
            return Err(HostError::Refused(format!(
                "{address} is the address of node {} ({id:016x}), and another answers there: take that node out first",
                row.name
            )));
        }
    } else {
        let change = Change::default().put(&At::Wanted(address), &true);
        change_now(registry, change).await.map_err(failed)?;
    }
    let done = |catalog: &Catalog| {
        let voters = lane.group().members().voters;
        let votes = |id: &u64| voters.iter().all(|set| set.contains(id));
        let mut nodes = catalog.nodes.iter();
        nodes.any(|(id, row)| row.address == address && votes(id))
    };
    until(registry, &lane, done).await.map_err(|()| {
        HostError::Unavailable(format!(
            "{address} is wanted and not in yet: it is taken in as soon as it answers, is empty, and has what the others have"
        ))
    })
}

/// Takes a node out, by its id, its name or its address.
pub(crate) async fn remove(registry: &Registry, ways: &Ways, who: &str) -> Result<(), HostError> {
    let (lane, catalog) = now(registry, ways).await?;
    let refused = |why: String| HostError::Refused(why);
    if catalog.wanted.contains(who) {
        let change = Change::default().remove(&At::Wanted(who));
        return change_now(registry, change).await.map_err(failed);
    }
    let is_meant = |(id, row): &(&u64, &NodeRow)| {
        format!("{id:016x}") == who || row.name == who || row.address == who
    };
    let meant: Vec<_> = catalog.nodes.iter().filter(is_meant).collect();
    let [(id, row)] = meant[..] else {
        return Err(match meant.len() {
            0 => HostError::NoSuchNode(who.to_owned()),
            _ => refused(format!("{who} is more than one node: say which by its id")),
        });
    };
    let stays = |(other, row): &(&u64, &NodeRow)| *other != id && !row.leaving;
    let rest: Vec<_> = catalog.nodes.iter().filter(stays).collect();
    if rest.is_empty() {
        return Err(refused(
            "the last node of a cluster is not taken out".to_owned(),
        ));
    }
    let own = lane.group().own();
    let mut answer = 0;
    for (other, row) in &rest {
        let is_there = **other == own || found::card(registry, ways, &row.address).await.is_some();
        answer += usize::from(is_there);
    }
    if answer <= rest.len() / 2 {
        return Err(refused(format!(
            "{answer} of the {} other nodes answer: without most of them the cluster could decide nothing; bring them back first",
            rest.len()
        )));
    }
    let (id, at) = (*id, At::Node(*id));
    if !row.leaving {
        let written = at.written(lane.engine()).map_err(HostError::Failed)?;
        let leaving = NodeRow {
            leaving: true,
            ..row.clone()
        };
        let change = Change::default().only_if(&at, written).put(&at, &leaving);
        change_now(registry, change).await.map_err(failed)?;
    }
    let gone = |catalog: &Catalog| !catalog.nodes.contains_key(&id);
    until(registry, &lane, gone).await.map_err(|()| {
        HostError::Unavailable(format!(
            "{who} is being taken out, and is a member of a group still"
        ))
    })
}

/// `_cluster`, with all that was acknowledged before.
async fn now(registry: &Registry, ways: &Ways) -> Result<(Arc<Lane>, Catalog), HostError> {
    let lane = registry.lane(ways.own());
    let lane = lane.ok_or_else(|| HostError::Unavailable(waits(registry)))?;
    let catalog = fresh(registry, &lane).await.map_err(failed)?;
    Ok((lane, catalog))
}

async fn until(
    registry: &Registry,
    lane: &Lane,
    done: impl Fn(&Catalog) -> bool,
) -> Result<(), ()> {
    let clock = &registry.platform_of().clock;
    let mut patience = clock.sleep(PATIENCE);
    loop {
        if Catalog::read(lane.engine()).is_ok_and(|catalog| done(&catalog)) {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = clock.sleep(LOOK) => {}
            () = &mut patience => return Err(()),
        }
    }
}

fn failed(why: WriteError) -> HostError {
    match why {
        WriteError::Unavailable(why) | WriteError::Unknown(why) => HostError::Unavailable(why),
        WriteError::Full => HostError::Full,
        other => HostError::Failed(other.to_string()),
    }
}
