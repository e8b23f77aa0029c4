//! [`start`]: puts a node together out of its parts, the program's and the simulator's alike.
//!
//! Order: the directory is locked and looked at; the listeners serve, health first; then the
//! namespaces are opened, each on a thread that may block. So a restore of many gigabytes answers
//! `/health` from the first moment (A6), and data as soon as it is there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use unisondb_http::{Connections, HostError, RenderMetrics, Settings, Tokens};
use unisondb_platform::{Dial, DiskExt as _, Listener, OffloadExt as _, Platform};
use unisondb_types::Namespace;

use crate::cluster::{self, Responder, Ways};
use crate::config::{Config, Durability, Effective};
use crate::directory::{Directory, DirectoryError, Layout};
use crate::namespaces::Outcome;
use crate::registry::{Registry, Wanted, wait};
use crate::tls::{self, TlsDial, TlsError};
use crate::{background, descriptors, listen};

/// After a stop requests have [`Connections::drain`] to end; a listener that is not done by then
/// is cut off.
const CUT_OFF: Duration = Duration::from_secs(15);
/// Most connections of other nodes: one each, and those that have not broken yet.
const PEER_CONNECTIONS: usize = 256;
/// A tokens file longer than this is none.
const TOKENS_BYTES: u64 = 16 << 20;

/// What a node is made of.
pub struct Parts<L> {
    /// The machine.
    pub platform: Platform,
    /// The configuration.
    pub effective: Effective,
    /// Where it listens to clients; bound already.
    pub listeners: Vec<L>,
    /// How it talks to other nodes, where `peer_addr` is set; otherwise it runs alone.
    pub peers: Option<PeerSide<L>>,
    /// What renders the process's metrics, if it has a recorder.
    pub render_metrics: Option<RenderMetrics>,
}

/// The side of a node that faces other nodes (D22).
pub struct PeerSide<L> {
    /// Where it listens to them; bound already.
    pub listeners: Vec<L>,
    /// How they are reached.
    pub dial: Arc<dyn Dial>,
}

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The tokens file is not one.
    #[error("{}: {why}", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The only namespace there is cannot be opened.
    #[error("{0}")]
    OnlyNamespace(HostError),
}

/// A node that runs.
pub struct Running {
    registry: Registry,
    addresses: Vec<SocketAddr>,
    scheme: &'static str,
    first_start: bool,
    /// There was one namespace at the start.
    only: bool,
    opening: Vec<watch::Receiver<Outcome>>,
    serving: JoinHandle<()>,
    background: JoinSet<()>,
    stop: watch::Sender<bool>,
    peering: Option<Peering>,
}

/// What serves other nodes: as long as groups are there to answer.
struct Peering {
    serving: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

/// Starts a node. It serves when this returns; [`Running::ready`] says when all is open.
///
/// # Errors
/// [`StartError`], the last kind excepted.
pub async fn start<L: Listener>(parts: Parts<L>) -> Result<Running, StartError> {
    let Parts {
        platform,
        effective,
        listeners,
        peers,
        render_metrics,
    } = parts;
    let config = effective.config.clone();
    let path = absolute(&config.data_dir)?;
    let (directory, layout) = {
        let platform = platform.clone();
        let name = config.node_name.clone();
        let offload = platform.offload.clone();
        let open = move || {
            let directory = Directory::open(&platform, &path, name.as_deref())?;
            let layout = directory.layout()?;
            Ok::<_, DirectoryError>((directory, layout))
        };
        offload.blocking(open).await?
    };
    let tls = match (&config.tls_cert, &config.tls_key) {
        (Some(cert), Some(key)) => Some(tls::load(platform.disk.as_ref(), cert, key)?),
        _ => None,
    };
    let settings = Settings {
        tokens: tokens(&platform, &config)?,
        allowed_origins: config.allowed_origins.clone(),
        allowed_hosts: hosts(&config),
        lenient_json: config.compat_lenient_json,
        render_metrics,
        ..Settings::default()
    };
    warn(
        &effective,
        &listeners,
        settings.tokens.is_some(),
        tls.is_some(),
    );

    let of_several = config
        .advertised(&directory.name())
        .and_then(|address| Some((address, peers?)));
    let peer_tls = match (
        &config.peer_tls_cert,
        &config.peer_tls_key,
        &config.peer_tls_ca,
    ) {
        (Some(cert), Some(key), Some(authority)) => {
            let disk = platform.disk.as_ref();
            Some(tls::load_peers(disk, cert, key, authority)?)
        }
        _ => None,
    };
    if let Some((_, peers)) = &of_several {
        warn_of_peers(peers, peer_tls.is_some());
    }
    let ways = of_several.as_ref().map(|(_, peers)| {
        let dial = match &peer_tls {
            Some(tls) => Arc::new(TlsDial::new(peers.dial.clone(), tls.client.clone())),
            None => peers.dial.clone(),
        };
        Arc::new(Ways::new(dial, platform.clock.clone()))
    });
    let of_cluster = of_several.is_some() && directory.is_of_cluster()?;
    let mut wanted = wanted(&config, &layout, of_several.is_some());
    let first_start = wanted.is_empty();
    let is_flat = layout == Layout::Flat;
    let registry = Registry::new(
        &platform,
        effective,
        directory,
        is_flat,
        ways.clone(),
        of_cluster,
    );
    let mut bounds = Connections::default();
    let most = bounds.max;
    bounds.max = descriptors::connections(most, wanted.len());
    if bounds.max < most {
        tracing::warn!(
            connections = bounds.max,
            "the limit of open files leaves room for fewer connections; raise it (LimitNOFILE=, ulimit -n)"
        );
    }
    let only = wanted.len() == 1;
    if of_cluster {
        wanted.push(Wanted::There(Namespace::cluster()));
    }
    let opening = wanted.into_iter().map(|one| registry.begin(one)).collect();
    let addresses = listen::addresses(&listeners);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let router = unisondb_http::router(Arc::new(registry.clone()), settings);
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn({
        let mut stopped = stopped.clone();
        async move {
            let shutdown = async move {
                // The sender is dropped with the node: that is a stop too.
                drop(stopped.wait_for(|stop| *stop).await);
            };
            unisondb_http::serve(listeners, router, tls, bounds, shutdown).await;
        }
    });
    let mut background = background::start(&registry, &stopped);
    let peering = match (of_several, ways) {
        (Some((address, peers)), Some(ways)) => {
            let mut tasks = cluster::start(&registry, &ways, &address, &stopped);
            background.spawn(async move { while tasks.join_next().await.is_some() {} });
            let respond = Responder::new(registry.clone(), ways, address);
            let (stop, mut stopped) = watch::channel(false);
            let shutdown = async move { drop(stopped.wait_for(|stop| *stop).await) };
            let serving = unisondb_http::serve_peers(
                peers.listeners,
                Arc::new(respond),
                peer_tls.map(|tls| tls.server),
                Connections {
                    max: PEER_CONNECTIONS,
                    ..Connections::default()
                },
                shutdown,
            );
            Some(Peering {
                serving: tokio::spawn(serving),
                stop,
            })
        }
        _ => None,
    };
    Ok(Running {
        only,
        registry,
        addresses,
        scheme,
        first_start,
        opening,
        serving,
        background,
        stop,
        peering,
    })
}

impl Running {
    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The data directory, absolute.
    pub fn data_dir(&self) -> &Path {
        self.registry.directory().path()
    }

    /// Whether there was no namespace at the start.
    pub fn is_first_start(&self) -> bool {
        self.first_start
    }

    /// Its namespaces, as the routes see them.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Waits until every namespace found at the start is open, or has failed to.
    ///
    /// # Errors
    /// [`StartError::OnlyNamespace`]: there was one, and it failed. One of several that fails is
    /// answered 503 with the reason, and named in `/health`.
    pub async fn ready(&mut self) -> Result<(), StartError> {
        // Each is let go of: what it came to holds the namespace open, also one that is discarded later.
        while let Some(outcome) = self.opening.last_mut() {
            let opened = wait(outcome).await;
            self.opening.pop();
            if let Err(why) = opened
                && self.only
            {
                return Err(StartError::OnlyNamespace(why));
            }
        }
        Ok(())
    }

    /// Ends in order: no new connections, requests under way (ten seconds at most), what is queued
    /// for the logs, a last flush.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let clock = self.registry.platform_of().clock.clone();
        tokio::select! {
            biased;
            _ = &mut self.serving => {}
            () = clock.sleep(CUT_OFF) => {
                tracing::warn!("requests still run; they are cut off");
                self.serving.abort();
            }
        }
        // A purge or scrub that is under way ends first: nothing touches the directory afterwards.
        while self.background.join_next().await.is_some() {}
        self.registry.stop().await;
        if let Some(Peering { mut serving, stop }) = self.peering {
            stop.send_replace(true);
            tokio::select! {
                biased;
                _ = &mut serving => {}
                () = clock.sleep(CUT_OFF) => serving.abort(),
            }
        }
    }
}

/// What is opened at the start.
fn wanted(config: &Config, layout: &Layout, of_several: bool) -> Vec<Wanted> {
    match layout {
        // What else there shall be the cluster decides.
        Layout::Folders(found) if of_several => found.iter().cloned().map(Wanted::There).collect(),
        Layout::Flat => vec![Wanted::Flat(config.namespace.clone())],
        Layout::Folders(found) => {
            let mut names: Vec<Namespace> = found.clone();
            if !config.drill {
                names.extend(config.namespaces.iter().cloned());
            }
            names.sort();
            names.dedup();
            names.into_iter().map(Wanted::Folder).collect()
        }
    }
}

/// The names by which clients may address this node: those configured, and the one it listens by.
fn hosts(config: &Config) -> Vec<String> {
    let mut hosts = config.allowed_hosts.clone();
    if let crate::config::Host::Name(name) = config.http_addr.host() {
        hosts.push(name.clone());
    }
    hosts
}

fn tokens(platform: &Platform, config: &Config) -> Result<Option<Tokens>, StartError> {
    let Some(path) = &config.tokens_file else {
        return Ok(None);
    };
    let wrong = |why: String| StartError::Tokens {
        path: path.clone(),
        why,
    };
    let bytes = std::path::absolute(path).and_then(|path| platform.disk.read(&path, TOKENS_BYTES));
    let text = String::from_utf8(bytes.map_err(|e| wrong(e.to_string()))?)
        .map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    Tokens::parse(&text)
        .map(Some)
        .map_err(|e| wrong(e.to_string()))
}

/// Says loudly what an operator may not have meant of the side that faces other nodes.
fn warn_of_peers<L: Listener>(peers: &PeerSide<L>, tls: bool) {
    if !tls && !listen::is_loopback(&peers.listeners) {
        tracing::warn!(
            addresses = ?listen::addresses(&peers.listeners),
            "WHOEVER REACHES THE PEER SIDE CAN DO WHAT A NODE CAN: it is not bound to the loopback, and peer_tls_cert, peer_tls_key and peer_tls_ca are not set"
        );
    }
}

/// Says loudly what an operator may not have meant.
fn warn<L: Listener>(effective: &Effective, listeners: &[L], tokens: bool, tls: bool) {
    if !tokens && !tls && !listen::is_loopback(listeners) {
        tracing::warn!(
            addresses = ?listen::addresses(listeners),
            "ANYBODY WHO REACHES THIS LISTENER CAN READ, WRITE AND DELETE: it is not bound to the loopback, and neither tokens_file nor tls_cert is set"
        );
    } else if tokens && !tls && !listen::is_loopback(listeners) {
        tracing::warn!("tokens travel in the clear: set tls_cert and tls_key, or put TLS in front");
    }
    if effective.config.durability == Durability::Interval {
        tracing::warn!(
            interval = ?effective.config.durability_interval,
            "durability = \"interval\": a crash loses what was answered since the last fsync"
        );
    }
    let ignored = effective.cluster_settings();
    if !ignored.is_empty() && (effective.config.peer_addr.is_none() || effective.config.drill) {
        tracing::warn!(
            settings = ignored.join(", "),
            "cluster settings are ignored: this node runs alone"
        );
    }
}

/// The data directory as given, absolute; links in it are not resolved.
fn absolute(path: &Path) -> Result<PathBuf, DirectoryError> {
    std::path::absolute(path).map_err(|source| DirectoryError::Io {
        path: path.to_owned(),
        source,
    })
}
