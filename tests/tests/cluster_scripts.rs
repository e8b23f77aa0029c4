//! The documented backup scripts, byte for byte, through the shipped load balancer settings, before three
//! real nodes of which one at a time is killed or paused; and what the balancers must leave alone.
#![allow(clippy::unwrap_used)]

use serde_json::json;
use unisondb_tests::document;
use unisondb_tests::sandbox::{Sandbox, require};

const ROOT: &str = "/var/unison/data/backups/users";

/// Shell functions for nodes and balancers.
const WORDS: &str = r#"
start() {
    peers=127.0.0.1:9081,127.0.0.1:9082,127.0.0.1:9083
    setsid unisondb --data-dir "/var/unison/n$1" --http-addr "127.0.0.1:808$1" --node-name "n$1" \
        --peer-addr "127.0.0.1:908$1" --peers "$peers" --ballast-bytes 0B --map-size 64MiB \
        --backup-dir /var/unison/data/backups </dev/null >>"/mnt/run/n$1.log" 2>&1 &
    echo $! >"/mnt/run/n$1.pid"
}
end() {
    pid=$(cat "/mnt/run/$1.pid")
    kill "-${2:-9}" "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
}
haproxy_up() {
    UNISON_BIND=127.0.0.1:8080 UNISON_NODE_1=127.0.0.1:8081 UNISON_NODE_2=127.0.0.1:8082 \
        UNISON_NODE_3=127.0.0.1:8083 setsid haproxy -f /mnt/deploy/haproxy.cfg </dev/null >/mnt/run/haproxy.log 2>&1 &
    echo $! >/mnt/run/haproxy.pid
}
nginx_up() {
    printf 'daemon off; pid /tmp/nginx.pid; events {} http { access_log off; include /mnt/deploy/unisondb.conf; }\n' >/tmp/nginx.conf
    mkdir -p /var/lib/nginx /var/log/nginx
    setsid nginx -c /tmp/nginx.conf -e stderr </dev/null >/mnt/run/nginx.log 2>&1 &
    echo $! >/mnt/run/nginx.pid
}
# Retried like a client would: the same request under the same key, until some node takes it.
keep() {
    for _ in $(seq 200); do
        if curl -fsS -m 10 -X PUT "$api/kv/$1" -H "Idempotency-Key: $1" -d "{\"value\":\"$(printf %s "$2" | base64 -w0)\"}" >/dev/null; then
            return 0
        fi
        sleep 0.1
    done
    return 1
}
"#;

struct Machine(Sandbox);

impl Machine {
    fn new(name: &str) -> Machine {
        require(&[("haproxy", "haproxy"), ("nginx", "nginx-light")]);
        let sandbox = Sandbox::new(
            env!("CARGO_TARGET_TMPDIR"),
            env!("CARGO_BIN_EXE_notify-start"),
            name,
        );
        let mut machine = Machine(sandbox);
        machine.sh("start 1; start 2; start 3");
        machine
    }

    fn sh(&mut self, script: &str) -> String {
        let ended = self.0.sh(&format!("{WORDS}\n{script}"));
        let log = |name: &str| self.0.read(&format!("run/{name}.log"));
        assert_eq!(
            ended.code,
            0,
            "{script}\n{}\n{}\n{}{}{}",
            ended.out,
            ended.err,
            log("n1"),
            log("n2"),
            log("n3")
        );
        ended.out
    }

    /// The documented script, and what it says it has backed up so far.
    fn hourly(&mut self, moment: &str) -> String {
        self.0.now(moment);
        let ended = self.0.documented(document::HOURLY);
        assert_eq!(ended.code, 0, "{}\n{}", ended.out, ended.err);
        self.sh("cat /var/backups/last_wal_id.txt")
            .trim()
            .to_owned()
    }
}

#[test]
fn the_documented_scripts_work_through_haproxy_while_nodes_are_killed_and_paused() {
    let mut machine = Machine::new("haproxy");
    machine.sh("haproxy_up; keep a 1");
    assert_eq!(machine.hourly("2025-01-08 10:00:00"), "1");

    // Whoever led the namespace is gone; the script asks whom the balancer gives it.
    let leader =
        machine.sh("curl -fsS http://127.0.0.1:8081/api/v1/cluster | jq -r .leaders.users");
    let leader = leader.trim().to_owned();
    machine.sh(&format!("end {leader}; keep b 2"));
    assert_eq!(machine.hourly("2025-01-08 11:00:00"), "2");
    machine.sh(&format!(
        "start {}; keep c 3",
        leader.trim_start_matches('n')
    ));
    assert_eq!(machine.hourly("2025-01-08 12:00:00"), "3");

    // One hangs: the balancer notices, and so do the others.
    machine.sh("kill -STOP $(cat /mnt/run/n2.pid); keep d 4");
    machine.sh("for _ in $(seq 100); do curl -fsS -m 2 http://localhost:8080/health >/dev/null || continue; break; done; sleep 3");
    assert_eq!(machine.hourly("2025-01-08 13:00:00"), "4");
    machine.sh("kill -CONT $(cat /mnt/run/n2.pid)");
    machine.0.now("2025-01-08 14:00:00");
    let snapshot = machine.0.documented(document::SNAPSHOT_EXAMPLE).ok().json();
    assert_eq!(
        snapshot["path"],
        format!("{ROOT}/snapshots/users-20250108.snapshot")
    );

    // What four hours brought, from whichever node, is one history, and adds up to what the cluster has.
    machine.sh(&format!(
        "udbctl verify {ROOT}/wal/*
         lsn=$(keep e 5; curl -fsS -X POST $api/wal/seal | jq .lsn)
         curl -fsS -X POST $api/wal/backup -d '{{\"afterSegmentId\":4,\"backupDir\":\"wal/last\"}}' >/dev/null
         udbctl restore --json --namespace users --data-dir /tmp/restored --wal {ROOT}/wal/* | tail -1 >/tmp/report
         at=$(jq .restored.lsn /tmp/report)
         [ \"$at\" -ge \"$lsn\" ]
         there=$(curl -fsS \"$api/digest?lsn=$at\" | jq -r .digest)
         [ \"$there\" = \"$(jq -r .restored.digest /tmp/report)\" ]"
    ));
    // Equal files on every node, as soon as one that was away has them all.
    machine.sh(
        "for id in 1 2 3 4; do
             for n in 1 2 3; do
                 for _ in $(seq 200); do
                     curl -fsS \"http://127.0.0.1:808$n/api/v1/users/wal/segments\" |
                         jq -e \".segments[] | select(.segmentId == $id and .state == \\\"sealed\\\")\" >/dev/null && break
                     sleep 0.1
                 done
             done
             sums=$(for n in 1 2 3; do sha256sum <\"/var/unison/n$n/users/wal/00000000$id.wal\"; done | sort -u | wc -l)
             [ \"$sums\" = 1 ] || { echo \"segment $id differs\"; exit 1; }
         done",
    );
}

#[test]
fn balancers_leave_paths_alone_and_speak_json() {
    let mut machine = Machine::new("paths");
    for up in ["haproxy_up", "nginx_up"] {
        machine.sh(&format!("{up}; keep first 1"));
        // A key with a slash, with two, and one that looks like a way up.
        let nul = (up == "haproxy_up").then_some("x%00y");
        for key in ["a%2Fb", "a%2F%2Fb", "%2E%2E%2Fx"].into_iter().chain(nul) {
            let out = machine.sh(&format!(
                "curl -fsS --path-as-is -X PUT \"$api/kv/{key}\" -H 'content-type: application/octet-stream' -d value-of-{key} >/dev/null
                 curl -fsS \"$api/kv?key={key}\" -H 'accept: application/octet-stream'"
            ));
            assert_eq!(out, format!("value-of-{key}"), "{up}");
        }
        let out = machine.sh("curl -sS $api/kv/nothing");
        assert_eq!(out.trim(), r#"{"value":"","found":false}"#, "{up}");
        // Not killed: the processes below it would go on.
        machine.sh(&format!("end {} TERM", up.trim_end_matches("_up")));
    }
    machine.sh("haproxy_up; keep last 1; end n1; end n2; end n3");
    let out = machine.sh("for _ in $(seq 100); do
             [ \"$(curl -sS -o /tmp/answer -w '%{http_code}' $api/kv/first)\" = 503 ] && break
             sleep 0.1
         done
         cat /tmp/answer");
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said, json!({"error": "no node is ready"}));
}
