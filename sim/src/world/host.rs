//! A node's process: the product's own assembly over the machine's parts, until it is told to stop.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use tokio::sync::watch;
use unisondb_http::{Host as _, State};
use unisondb_platform::Platform;
use unisondb_server::config::{self, Invocation};
use unisondb_server::{Parts, PeerSide, Running, start};

use crate::invariants::positions::Watched;
use crate::world::network::{SimDial, SimListener};
use crate::world::{DATA, NODE, PEER_PORT, PORT};

/// How often a node is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What is known of the process from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Status {
    /// It is coming up.
    #[default]
    Starting,
    /// All its namespaces are open.
    Ready,
    /// A namespace takes no more writes until a restart, and says why.
    Broken(String),
    /// It did not come up, and says why.
    Failed(String),
    /// It has stopped in order.
    Stopped,
}

/// Runs one boot of the node; gives when it has stopped, or could not start.
pub async fn run(
    name: String,
    platform: Platform,
    flags: Vec<String>,
    status: Arc<Mutex<Status>>,
    wrong: Arc<Mutex<Vec<String>>>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    *status.lock() = Status::Starting;
    let args = [
        "unisondb".to_owned(),
        format!("--data-dir={DATA}"),
        format!("--http-addr={name}:{PORT}"),
        format!("--node-name={name}"),
    ];
    let args = args.into_iter().chain(flags).map(OsString::from);
    let loaded = config::load(args, [], platform.disk.as_ref()).context("the flags are known")?;
    let Invocation::Serve(effective) = loaded else {
        bail!("no check was asked for");
    };
    let is_alone = name == NODE;
    let peers = match is_alone {
        true => None,
        false => Some(PeerSide {
            listeners: vec![SimListener::bind(PEER_PORT).await?],
            dial: Arc::new(SimDial),
        }),
    };
    let parts = Parts {
        platform,
        effective: *effective,
        listeners: vec![SimListener::bind(PORT).await?],
        peers,
        render_metrics: None,
    };
    let mut node = match start(parts).await {
        Ok(node) => node,
        Err(e) => {
            *status.lock() = Status::Failed(e.to_string());
            return Ok(());
        }
    };
    if let Err(e) = node.ready().await {
        *status.lock() = Status::Failed(e.to_string());
    } else {
        // The others are served when one namespace cannot be.
        *status.lock() = broken(&node).map_or(Status::Ready, Status::Broken);
        let mut seen = Watched::of(is_alone);
        while !told(&mut stop).await {
            for one in node.registry().namespaces() {
                if let State::Open { engine, .. } = one.state {
                    // Made again it is another one.
                    let name = format!("{} of {}", engine.namespace(), engine.history().lineage);
                    let now = seen.look(&name, engine.positions());
                    wrong.lock().extend(now);
                }
            }
            if let Some(why) = broken(&node) {
                *status.lock() = Status::Broken(why);
            }
        }
    }
    let stopped = tokio::time::timeout(Duration::from_secs(60), node.stop()).await;
    stopped.context("the node did not stop within a minute")?;
    let mut status = status.lock();
    if matches!(*status, Status::Ready | Status::Broken(_)) {
        *status = Status::Stopped;
    }
    Ok(())
}

/// Waits a while for the word to stop; also when its harness is gone.
async fn told(stop: &mut watch::Receiver<bool>) -> bool {
    tokio::time::timeout(LOOK, stop.wait_for(|stop| *stop))
        .await
        .is_ok()
}

fn broken(node: &Running) -> Option<String> {
    node.registry()
        .namespaces()
        .into_iter()
        .find_map(|one| match one.state {
            // As `/health` tells it: also of a vote that cannot be written.
            State::Open { notes, .. } => {
                let stopped = notes.into_iter().find(|note| note.value == "stopped");
                stopped.map(|note| note.text)
            }
            State::Starting { .. } => None,
            State::Failed { reason } => Some(reason),
        })
}
