//! Three `unisondb` on this machine that are one cluster: started over folders, killed, paused, started
//! again; and a client that goes on at another node when one does not answer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{Answer, Client};
use crate::node::{Node, free_port};

/// The longest that anything here is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one node's answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);

/// One cluster. Dropped, its nodes are killed.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    peers: Vec<String>,
    more: Vec<String>,
    nodes: Vec<Option<Node>>,
    /// Where each listened last.
    addresses: Vec<String>,
}

impl Cluster {
    /// Starts `size` nodes over folders in `folder`, empty or not, and waits until they are one cluster.
    pub fn start(folder: &Path, size: usize, more: &[&str]) -> Cluster {
        let peers = (0..size).map(|_| format!("127.0.0.1:{}", free_port()));
        let mut cluster = Cluster {
            folder: folder.to_owned(),
            peers: peers.collect(),
            more: more.iter().map(|flag| (*flag).to_owned()).collect(),
            nodes: (0..size).map(|_| None).collect(),
            addresses: vec![String::new(); size],
        };
        for at in 0..size {
            cluster.launch(at);
        }
        cluster
    }

    /// The data directory of a node.
    pub fn data(&self, at: usize) -> PathBuf {
        self.folder.join(format!("n{}", at + 1))
    }

    /// Starts a node that does not run.
    pub fn launch(&mut self, at: usize) {
        assert!(self.nodes[at].is_none(), "it runs");
        let name = format!("--node-name=n{}", at + 1);
        let peer_addr = format!("--peer-addr={}", self.peers[at]);
        let peers = format!("--peers={}", self.peers.join(","));
        let mut flags = vec![name.as_str(), &peer_addr, &peers];
        flags.extend(self.more.iter().map(String::as_str));
        let node = Node::launch(&self.data(at), &flags);
        node.address().clone_into(&mut self.addresses[at]);
        self.nodes[at] = Some(node);
    }

    /// SIGKILL.
    pub fn kill(&mut self, at: usize) {
        self.nodes[at].take().expect("it runs").kill();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self, at: usize) {
        let status = self.nodes[at].take().expect("it runs").stop();
        assert!(status.success(), "{status}");
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, at: usize, signal: &str) {
        self.nodes[at].as_ref().expect("it runs").signal(signal);
    }

    /// `host:port` of each node, whether it runs or not.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Where other nodes reach one: `host:port` of its peer side.
    pub fn peer(&self, at: usize) -> &str {
        &self.peers[at]
    }

    /// A client of one node.
    pub fn client(&self, at: usize) -> Client {
        Client::new(&*self.addresses[at]).deadline(ANSWER)
    }

    /// What all nodes have said, for a test that fails.
    pub fn logs(&self) -> String {
        let nodes = self.nodes.iter().flatten();
        nodes
            .map(|node| format!("== {}\n{}", node.data().display(), node.log()))
            .collect()
    }

    /// Which node says of itself that it leads the cluster, when exactly one does.
    pub fn leader(&self) -> usize {
        self.until("one leader", || {
            let leads = |at: &usize| {
                let answer = self.client(*at).get("/health");
                answer.is_ok_and(|a| a.status == 200 && a.json()["role"] == "leader")
            };
            let running = (0..self.nodes.len()).filter(|at| self.nodes[*at].is_some());
            let leading: Vec<usize> = running.filter(leads).collect();
            match leading[..] {
                [one] => Some(one),
                _ => None,
            }
        })
    }

    /// Waits until `look` finds something.
    ///
    /// # Panics
    /// When it has not within a minute, with what the nodes have said.
    pub fn until<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        let mut look = look;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "no {what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until every node that runs has applied `lsn`, and gives their digests of the state there.
    pub fn digests(&self, namespace: &str, lsn: u64) -> Vec<(u64, String)> {
        let running = (0..self.nodes.len()).filter(|at| self.nodes[*at].is_some());
        let of = |at: usize| {
            self.until(&format!("LSN {lsn} on n{}", at + 1), || {
                let path = format!("/api/v1/{namespace}/digest?minLsn={lsn}");
                let answer = self.client(at).get(&path).ok()?;
                let found = (answer.status == 200).then(|| answer.json())?;
                Some((found["lsn"].as_u64()?, found["digest"].as_str()?.to_owned()))
            })
        };
        running.map(of).collect()
    }
}

/// A client of all nodes: goes on at the next one when one does not answer, or says that it cannot.
#[derive(Debug)]
pub struct Anywhere {
    addresses: Vec<String>,
    next: usize,
    /// How often one had to be asked again.
    pub again: u64,
}

impl Anywhere {
    /// Begins with node `first`.
    pub fn new(addresses: &[String], first: usize) -> Anywhere {
        Anywhere {
            addresses: addresses.to_vec(),
            next: first,
            again: 0,
        }
    }

    /// They listen elsewhere now.
    pub fn turn_to(&mut self, addresses: &[String]) {
        self.addresses = addresses.to_vec();
    }

    /// Sends until it is answered otherwise than by 429, 503, 504 or not at all: a node after the other.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Answer> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let at = self.next % self.addresses.len();
            let mut client = Client::new(&*self.addresses[at]).deadline(ANSWER);
            match client.request(method, path, headers, body) {
                Ok(answer) if ![429, 503, 504].contains(&answer.status) => return Some(answer),
                _ => {
                    self.again += 1;
                    self.next += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        None
    }
}

/// `sha256sum` of every sealed segment that a node holds, by name.
pub fn sealed(client: &mut Client, namespace: &str) -> Vec<(u64, String)> {
    let listed = client.get(&format!("/api/v1/{namespace}/wal/segments"));
    let listed = listed.expect("it answers").expect(200).json();
    let segments = listed["segments"].as_array().cloned().unwrap_or_default();
    let sealed = segments.iter().filter(|s| s["state"] == "sealed");
    let of = |s: &Value| {
        let sum = s["sha256"].as_str().unwrap_or_default().to_owned();
        (s["segmentId"].as_u64().unwrap_or_default(), sum)
    };
    sealed.map(of).collect()
}

/// Runs a program and gives what it printed.
///
/// # Panics
/// When it fails, with what it said.
pub fn run(command: &mut Command) -> String {
    let out = command.output().expect("it can be run");
    assert!(
        out.status.success(),
        "{command:?}: {}\n{}{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("it prints text")
}
