//! What `deploy/` ships for a cluster of three, started for real: the flags of the compose file and of the
//! Kubernetes manifests, the configuration files of the systemd example, certificates made by the shipped
//! script. Only addresses and folders are this machine's.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use unisondb_tests::build;
use unisondb_tests::cluster::{Anywhere, run};
use unisondb_tests::node::{Node, free_port};
use unisondb_tests::repository::{root, text};
use unisondb_tests::sandbox::require;

const CONFIGURATIONS: [&str; 3] = ["n1", "n2", "n3"];

/// What one node is started with.
struct Shipped {
    /// `compose`, `kubernetes` or `systemd`.
    of: String,
    name: String,
    args: Vec<String>,
}

/// What the containers are started with, as their runtime expands it.
fn containers() -> Vec<Shipped> {
    require(&[("python3", "python3-venv")]);
    let mut command = Command::new(root().join("deploy/checks/python"));
    let lines = run(command
        .arg(root().join("deploy/checks/manifests.py"))
        .arg("commands"));
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let args = line["args"].as_array().unwrap();
        Shipped {
            of: text(&line["of"]),
            name: text(&line["name"]),
            args: args.iter().map(text).collect(),
        }
    };
    lines.lines().map(read).collect()
}

fn configuration(name: &str) -> PathBuf {
    PathBuf::from(format!("deploy/cluster/{name}.toml"))
}

/// An empty folder of this test's.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("deploy-cluster-{name}"));
    // What an earlier run left.
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// `unisondb config check` with these flags, over the configuration that the unit's environment names.
fn checked(args: &[String], config: Option<&Path>) -> Output {
    let mut command = Command::new(build::unisondb());
    command.args(["config", "check"]).args(args);
    if let Some(file) = config {
        command.env("UNISONDB_CONFIG", file);
    }
    command.output().unwrap()
}

#[test]
fn the_program_takes_every_shipped_configuration() {
    let containers = containers();
    assert_eq!(
        containers.len(),
        3 + 4,
        "compose, and one more than there are pods"
    );
    for Shipped { of, name, args } in &containers {
        let out = checked(args, None);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{of}: {name}: {said}");
    }
    let unit = text(Path::new("deploy/systemd/unisondb.service"));
    let start = unit.lines().find_map(|l| l.strip_prefix("ExecStart="));
    let flags = start.unwrap().split_once(' ').unwrap().1.split(' ');
    let flags: Vec<String> = flags.map(str::to_owned).collect();
    let mut founding = Vec::new();
    for name in CONFIGURATIONS {
        let out = checked(&flags, Some(&root().join(configuration(name))));
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{name}: {said}");
        let printed = String::from_utf8(out.stdout).unwrap();
        let values = printed.lines().filter_map(|line| {
            let (key, rest) = line.split_once(" = \"")?;
            Some((key, rest.split_once('"')?.0))
        });
        let values: BTreeMap<_, _> = values.collect();
        assert_eq!(values["node_name"], name);
        assert!(!values["peer_tls_ca"].is_empty(), "{printed}");
        let peers: Vec<String> = values["peers"].split(',').map(str::to_owned).collect();
        founding.push((values["peer_advertise"].to_owned(), peers));
    }
    let own: Vec<String> = founding.iter().map(|(own, _)| own.clone()).collect();
    assert!(
        founding.iter().all(|(_, peers)| *peers == own),
        "{founding:?}"
    );
    // And a key that does not exist is found.
    let wrong = folder("wrong").join("n1.toml");
    fs::write(
        &wrong,
        text(&configuration("n1")).replace("peers =", "pears ="),
    )
    .unwrap();
    let out = checked(&flags, Some(&wrong));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("pears"), "{said}");
}

/// Nodes started with what is shipped, each on ports of this machine's.
struct Started {
    folder: PathBuf,
    /// Where it is reached as shipped → where it is here.
    places: BTreeMap<String, String>,
    shipped: Vec<Shipped>,
    nodes: Vec<Option<Node>>,
}

impl Started {
    fn new(of: &str, shipped: Vec<Shipped>) -> Started {
        let folder = folder(of);
        let place = |node: &Shipped| (node.reached(), format!("127.0.0.1:{}", free_port()));
        let places: BTreeMap<_, _> = shipped.iter().map(place).collect();
        let pairs = shipped
            .iter()
            .map(|node| format!("{}:127.0.0.1", node.name));
        let mut certificates = Command::new(root().join("deploy/scripts/unison-peer-certs.sh"));
        run(certificates.arg(folder.join("peer")).args(pairs));
        Started {
            places,
            nodes: shipped.iter().map(|_| None).collect(),
            shipped,
            folder,
        }
    }

    /// A shipped text, with the addresses and folders of this machine.
    fn here(&self, node: &Shipped, shipped: &str) -> String {
        let mut text = shipped.to_owned();
        for (there, here) in &self.places {
            text = text.replace(there, here);
        }
        let own = &self.places[&node.reached()];
        for listen in ["--peer-addr=:9080", "peer_addr = \":9080\""] {
            text = text.replace(listen, &listen.replace(":9080", own));
        }
        let peer = |file: &str| self.folder.join("peer").join(file).display().to_string();
        for (there, here) in [
            ("tls.crt", format!("{}.pem", node.name)),
            ("tls.key", format!("{}.key", node.name)),
            ("cert.pem", format!("{}.pem", node.name)),
            ("key.pem", format!("{}.key", node.name)),
            ("ca.crt", "ca.pem".to_owned()),
            ("ca.pem", "ca.pem".to_owned()),
        ] {
            text = text.replace(&format!("/etc/unison/peer/{there}"), &peer(&here));
        }
        text
    }

    fn launch(&mut self, at: usize) {
        let node = &self.shipped[at];
        // The harness says these two itself; a file's are weaker than its flags.
        let ours =
            |arg: &&String| !arg.starts_with("--data-dir") && !arg.starts_with("--http-addr");
        let args = node.args.iter().filter(ours);
        let mut args: Vec<String> = args.map(|arg| self.here(node, arg)).collect();
        args.push("--ballast-bytes=0B".to_owned());
        if node.of == "systemd" {
            let file = self.folder.join(format!("{}.toml", node.name));
            let shipped = text(&configuration(&node.name));
            fs::write(&file, self.here(node, &shipped)).unwrap();
            args.push(format!("--config={}", file.display()));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.nodes[at] = Some(Node::launch(&self.folder.join(&node.name), &args));
    }

    fn node(&mut self, at: usize) -> &mut Node {
        self.nodes[at].as_mut().unwrap()
    }

    fn client(&self) -> Anywhere {
        let nodes = self.nodes.iter().flatten();
        let addresses: Vec<String> = nodes.map(|node| node.address().to_owned()).collect();
        Anywhere::new(&addresses, 0)
    }

    fn logs(&self) -> String {
        self.nodes.iter().flatten().map(Node::log).collect()
    }

    fn put(&self, key: &str) {
        let path = format!("/api/v1/users/kv/{key}");
        let put = self
            .client()
            .send("PUT", &path, &[], br#"{"value":"YQ=="}"#);
        put.unwrap_or_else(|| panic!("{}", self.logs())).expect(200);
    }

    /// Founded, written to, one node killed that leads, written to, started again: all of it is everywhere.
    fn lives(&mut self) {
        for at in 0..3 {
            self.launch(at);
        }
        for at in 0..3 {
            self.node(at).wait_ready(Duration::from_secs(60));
        }
        self.put("before");
        let leads = |at: &usize| {
            let health = self.nodes[*at].as_ref().unwrap().client().get("/health");
            health.is_ok_and(|a| a.json()["role"] == "leader")
        };
        let killed = (0..3).find(leads).unwrap_or(0);
        self.nodes[killed].take().unwrap().kill();
        self.put("without");
        self.launch(killed);
        self.node(killed).wait_ready(Duration::from_secs(60));
        self.put("after");
        for at in 0..3 {
            self.has(at, "after");
            for key in ["before", "without"] {
                let path = format!("/api/v1/users/kv/{key}");
                let found = self.node(at).client().get(&path).unwrap();
                assert_eq!(found.status, 200, "{key} on {}", self.shipped[at].name);
            }
        }
    }

    /// Waits for a key on a node.
    fn has(&mut self, at: usize, key: &str) {
        let begun = Instant::now();
        let path = format!("/api/v1/users/kv/{key}");
        while !matches!(self.node(at).client().get(&path), Ok(answer) if answer.status == 200) {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "no {key}\n{}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Shipped {
    /// Where others reach it, as shipped.
    fn reached(&self) -> String {
        let of = |flag: &str| {
            let mut args = self.args.iter();
            args.find_map(|arg| arg.strip_prefix(flag).map(str::to_owned))
        };
        of("--peer-advertise=")
            .or_else(|| of("--peer-addr="))
            .unwrap_or_else(|| format!("{}.example.com:9080", self.name))
    }
}

fn shipped(of: &str) -> Vec<Shipped> {
    containers()
        .into_iter()
        .filter(|node| node.of == of)
        .collect()
}

#[test]
fn the_compose_file_s_flags_make_a_cluster_that_outlives_its_leader() {
    Started::new("compose", shipped("compose")).lives();
}

#[test]
fn the_systemd_example_s_files_make_a_cluster_that_outlives_its_leader() {
    let nodes = CONFIGURATIONS.map(|name| Shipped {
        of: "systemd".to_owned(),
        name: name.to_owned(),
        args: Vec::new(),
    });
    Started::new("systemd", nodes.into()).lives();
}

#[test]
fn the_manifests_flags_make_a_cluster_that_outlives_its_leader_and_takes_a_fourth_replica() {
    let mut pods = Started::new("kubernetes", shipped("kubernetes"));
    pods.lives();
    // What `kubectl scale --replicas=4` starts: it waits, and founds nothing.
    pods.launch(3);
    let begun = Instant::now();
    loop {
        let health = pods.node(3).client().get("/health").ok().map(|a| a.text());
        if health.is_some_and(|text| text.contains("waiting to be taken into")) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", pods.logs());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(pods.node(3).client().get("/readyz").unwrap().status, 503);
    let (there, here) = (pods.shipped[3].reached(), pods.node(0).address().to_owned());
    let mut udbctl = Command::new(build::udbctl());
    udbctl.args([
        "cluster",
        "add",
        &pods.places[&there],
        "--url",
        &format!("http://{here}"),
    ]);
    run(&mut udbctl);
    pods.node(3).wait_ready(Duration::from_secs(60));
    pods.has(3, "after");
}
