//! A machine of its own for a script that a user would paste: own mounts, processes and network
//! (`unshare`), empty `/var` and `/tmp`, and stand-ins for `sudo`, `systemctl`, `aws` and `date`.
//!
//! Ports 8080 and 9999, `/var/unison/data` and `/tmp/restore.db` are what the documentation names;
//! here they can be had by many tests at once, and nothing is left behind. As root the namespaces
//! are made outright, otherwise inside a user namespace. `/mnt` in the sandbox is a folder of the
//! test's: `bin/` (first on PATH), `deploy/` (the shipped scripts), `s3/`, `run/`, `home/`.
//! What is missing on the machine is named, with how to install it: nothing passes without running.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

use crate::document::Script;
use crate::{build, repository};

/// Longest run of one script.
const LIMIT: Duration = Duration::from_secs(120);

/// Command, and the Debian package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("bash", "bash"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("flock", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("jq", "jq"),
    ("zstd", "zstd"),
    ("gzip", "gzip"),
    ("tar", "tar"),
    ("awk", "mawk"),
    ("gpg", "gnupg"),
];

/// What the first process of the sandbox does: sets the machine up, then runs scripts by number.
const INIT: &str = r#"
set -eu
ip link set lo up
mount --bind "$1" /mnt
mount -t tmpfs -o size=1g,mode=755 tmpfs /var
mount -t tmpfs -o size=1g,mode=1777 tmpfs /tmp
mkdir -p /var/unison/data /var/lib/unison /var/backups /var/log /var/tmp
mount --bind /mnt/passwd /etc/passwd
mount --bind /mnt/group /etc/group
cd /tmp
echo 'ready 0'
while IFS= read -r n; do
    rc=0
    bash "/mnt/run/$n.sh" >"/mnt/run/$n.out" 2>"/mnt/run/$n.err" </dev/null || rc=$?
    echo "$n $rc"
done
"#;

/// Shell functions for the test's own steps (the documented scripts do not see them).
const WORDS: &str = r#"
api=http://localhost:8080/api/v1/users
put() { curl -fsS -X PUT "$api/kv/$1" -d "{\"value\":\"$(printf %s "$2" | base64 -w0)\"}" >/dev/null; }
get() { curl -sS "$api/kv/$1" | jq -er '.value | @base64d'; }
# The node dies at once, and is gone when this returns: a start beside a dying one would find it alive.
crash() {
    local pid
    pid=$(cat /mnt/run/unisondb.pid)
    kill -9 "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
}
"#;

/// A running sandbox. Dropped, every process in it ends.
#[derive(Debug)]
pub struct Sandbox {
    init: Child,
    commands: Option<ChildStdin>,
    results: Receiver<String>,
    folder: PathBuf,
    count: u32,
}

/// How a script ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Ended {
    /// This, if it ended with 0; panics with all it said otherwise.
    #[track_caller]
    pub fn ok(self) -> Ended {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
    /// Its standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("{e}\nstdout:\n{}\nstderr:\n{}", self.out, self.err))
    }
}

impl Sandbox {
    /// A sandbox named after its test. `scratch` is the test's `CARGO_TARGET_TMPDIR`, `starter` its
    /// `CARGO_BIN_EXE_notify-start`.
    ///
    /// # Panics
    /// When a tool is missing or the system allows no namespaces, saying which and what to do.
    pub fn new(scratch: &str, starter: &str, name: &str) -> Sandbox {
        require(TOOLS);
        let folder = Path::new(scratch).join(format!("{name}-{}", std::process::id()));
        if folder.exists() {
            fs::remove_dir_all(&folder).expect("an old sandbox can be removed");
        }
        furnish(&folder, Path::new(starter));

        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]);
        if !is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        // Nothing of the caller's settings: no proxy, no language, no curlrc.
        unshare.env_clear();
        unshare.env(
            "PATH",
            "/mnt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        unshare.envs([("HOME", "/mnt/home"), ("LC_ALL", "C"), ("TZ", "UTC")]);
        unshare.env("GNUPGHOME", "/mnt/home/gnupg");
        let mut init = unshare
            .args(["bash", "-c", INIT, "init"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("run/init.err")).expect("a file can be made"))
            .spawn()
            .expect("unshare can be run");
        let commands = init.stdin.take();
        let out = BufReader::new(init.stdout.take().expect("it is piped"));
        let (send, results) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let sandbox = Sandbox {
            init,
            commands,
            results,
            folder,
            count: 0,
        };
        if sandbox.results.recv_timeout(LIMIT).as_deref() != Ok("ready 0") {
            panic!(
                "no sandbox could be made: run the tests as root, or let users make namespaces \
                 (sysctl kernel.unprivileged_userns_clone=1, \
                 kernel.apparmor_restrict_unprivileged_userns=0):\n{}",
                sandbox.read("run/init.err")
            );
        }
        sandbox
    }

    /// As [`new`](Self::new), and the node is started as the unit says.
    pub fn with_node(scratch: &str, starter: &str, name: &str) -> Sandbox {
        let mut sandbox = Sandbox::new(scratch, starter, name);
        let ended = sandbox.sh("systemctl start unisondb");
        assert_eq!(ended.code, 0, "{}\n{}", ended.err, sandbox.node_log());
        sandbox
    }

    /// Runs a script of the documentation, byte for byte.
    pub fn documented(&mut self, script: Script) -> Ended {
        self.run(script.text())
    }

    /// Runs a step of the test, with `put`, `get`, `crash` and `$api`; an error ends it.
    pub fn sh(&mut self, script: &str) -> Ended {
        self.run(&format!("set -euo pipefail\n{WORDS}\n{script}\n"))
    }

    /// Runs a script as it stands.
    ///
    /// # Panics
    /// When it has not ended within two minutes.
    pub fn run(&mut self, script: &str) -> Ended {
        self.count += 1;
        let n = self.count;
        fs::write(self.folder.join(format!("run/{n}.sh")), script)
            .expect("a script can be written");
        let commands = self
            .commands
            .as_mut()
            .expect("open while the sandbox lives");
        writeln!(commands, "{n}").expect("the sandbox takes commands");
        let line = match self.results.recv_timeout(LIMIT) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                panic!("not done after {LIMIT:?}:\n{script}\n{}", self.node_log())
            }
            Err(RecvTimeoutError::Disconnected) => {
                panic!("the sandbox ended: {}", self.read("run/init.err"))
            }
        };
        let code = line
            .strip_prefix(&format!("{n} "))
            .and_then(|c| c.parse().ok());
        Ended {
            code: code.unwrap_or_else(|| panic!("not an answer to script {n}: {line:?}")),
            out: self.read(&format!("run/{n}.out")),
            err: self.read(&format!("run/{n}.err")),
        }
    }

    /// Sets what `date` says, such as `2025-01-08 00:00:00`.
    pub fn now(&mut self, moment: &str) {
        fs::write(self.folder.join("now"), moment).expect("a file can be written");
    }

    /// Whether S3 answers.
    pub fn s3_answers(&mut self, answers: bool) {
        let down = self.folder.join("s3-down");
        if answers {
            fs::remove_file(down).expect("S3 was down");
        } else {
            fs::write(down, "").expect("a file can be written");
        }
    }

    /// The keys in a bucket that begin with `prefix`, in order.
    pub fn s3(&self, prefix: &str) -> Vec<String> {
        let root = self.folder.join("s3");
        let mut keys = Vec::new();
        let mut open = vec![root.clone()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).expect("a folder can be listed") {
                let path = entry.expect("a folder can be listed").path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let key = path.strip_prefix(&root).expect("below the root");
                    keys.push(key.to_string_lossy().into_owned());
                }
            }
        }
        keys.retain(|k| k.starts_with(prefix));
        keys.sort();
        keys
    }

    /// What the node has said since the sandbox began.
    pub fn node_log(&self) -> String {
        self.read("run/unisondb.log")
    }

    /// A file of `/mnt`; empty when it is not there.
    pub fn read(&self, path: &str) -> String {
        let bytes = fs::read(self.folder.join(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.commands.take());
        // With `--kill-child` the first process of the namespace dies with unshare, and with it all.
        let ended = self.init.kill().and_then(|()| self.init.wait());
        if !std::thread::panicking() {
            ended.expect("a child can be killed");
            fs::remove_dir_all(&self.folder).expect("a sandbox's folder can be removed");
        }
    }
}

/// Panics unless every tool is on PATH, naming those that are not and how to install them.
pub fn require(tools: &[(&str, &str)]) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let missing: Vec<_> = tools
        .iter()
        .filter(|(tool, _)| !folders.iter().any(|f| f.join(tool).exists()))
        .collect();
    let names: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    assert!(
        missing.is_empty(),
        "this test needs {}: apt-get install {}",
        names.join(", "),
        packages.join(" ")
    );
}

/// Whether this process is root where it runs.
fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id is there");
    id.stdout == b"0\n"
}

/// Fills the folder that is `/mnt` in the sandbox.
fn furnish(folder: &Path, starter: &Path) {
    let root = repository::root();
    for sub in ["bin", "run", "s3", "home/gnupg", "deploy"] {
        fs::create_dir_all(folder.join(sub)).expect("a folder can be made");
    }
    fs::set_permissions(folder.join("home/gnupg"), fs::Permissions::from_mode(0o700))
        .expect("a mode can be set");
    let copy = |from: &Path, to: PathBuf| {
        // A link where it can be had: the server's file is large.
        fs::hard_link(from, &to)
            .or_else(|_| fs::copy(from, &to).map(drop))
            .unwrap_or_else(|e| panic!("{} to {}: {e}", from.display(), to.display()));
    };
    copy(&build::unisondb(), folder.join("bin/unisondb"));
    copy(&build::udbctl(), folder.join("bin/udbctl"));
    copy(starter, folder.join("bin/notify-start"));
    for (from, to) in [
        ("tests/stubs", "bin"),
        ("deploy/scripts", "deploy"),
        ("deploy/haproxy", "deploy"),
        ("deploy/nginx", "deploy"),
    ] {
        for entry in fs::read_dir(root.join(from)).expect("the folder is in the repository") {
            let path = entry.expect("a folder can be listed").path();
            let name = path.file_name().expect("an entry has a name");
            fs::copy(&path, folder.join(to).join(name)).expect("a file can be copied");
        }
    }
    let unit = root.join("deploy/systemd/unisondb.service");
    fs::copy(unit, folder.join("unisondb.service")).expect("a file can be copied");
    // The documented user, here the namespace's own: `chown unison:unison` then works.
    fs::write(
        folder.join("passwd"),
        "root:x:0:0::/:/bin/bash\nunison:x:0:0::/:/bin/sh\n",
    )
    .expect("a file can be written");
    fs::write(folder.join("group"), "root:x:0:\nunison:x:0:\n").expect("a file can be written");
}
