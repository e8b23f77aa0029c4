//! One running `unisondb` on this machine, for tests that need no sandbox: started over a folder,
//! waited for, stopped, killed, started again. Dropped, it is killed: no test leaves one behind.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::http::Client;

/// A running server.
#[derive(Debug)]
pub struct Node {
    child: Child,
    address: String,
    data: PathBuf,
    log: PathBuf,
}

impl Node {
    /// Starts a node over `data` on a free port and waits until it is ready. `more` are further
    /// flags. Its log goes to `DATA.log`.
    ///
    /// # Panics
    /// When it is not ready within a minute, with its log.
    pub fn start(data: &Path, more: &[&str]) -> Node {
        let mut node = Node::launch(data, more);
        node.wait_ready(Duration::from_secs(60));
        node
    }

    /// As [`start`](Self::start), without waiting.
    pub fn launch(data: &Path, more: &[&str]) -> Node {
        let address = format!("127.0.0.1:{}", free_port());
        let log = PathBuf::from(format!("{}.log", data.display()));
        let out = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log can be made");
        let child = Command::new(crate::build::unisondb())
            .arg("--data-dir")
            .arg(data)
            .args(["--http-addr", &address])
            .args(more)
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a handle can be doubled"))
            .stderr(out)
            .spawn()
            .expect("the server can be run");
        Node {
            child,
            address,
            data: data.to_owned(),
            log,
        }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }
    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }
    /// What it has said so far, earlier runs over the same folder included.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
    /// A new client of this node.
    pub fn client(&self) -> Client {
        Client::new(&*self.address)
    }

    /// Waits until `/readyz` is 200.
    ///
    /// # Panics
    /// When it is not within `limit`, or the process has ended; with its log.
    pub fn wait_ready(&mut self, limit: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                panic!("the server ended: {status}\n{}", self.log());
            }
            let mut client = self.client().deadline(Duration::from_secs(5));
            if client.get("/readyz").is_ok_and(|a| a.status == 200) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("not ready after {limit:?}\n{}", self.log());
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Panics
    /// When it has not within `limit`.
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status;
            }
            assert!(
                begun.elapsed() < limit,
                "still running after {limit:?}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("-TERM");
        self.wait_end(Duration::from_secs(60))
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) {
        self.kill_now();
    }

    /// Sends it a signal, such as `-STOP`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("kill")
            .args([signal, &pid])
            .status()
            .expect("kill is there");
        assert!(done.success(), "kill {signal} {pid}");
    }

    fn kill_now(&mut self) {
        // An error means that it has ended already.
        let _: io::Result<()> = self.child.kill();
        let _: io::Result<ExitStatus> = self.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_now();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}
