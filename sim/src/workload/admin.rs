//! Who decides which nodes a cluster has: replaces one that has lost its disk, as documented.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use unisondb_platform::memory::Random;

use super::client::Shared;
use super::http::{Http, Reply};
use crate::world::{PEER_PORT, hosts};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Nodes to be replaced, by their number; the first one is under way.
pub type Lost = Arc<Mutex<VecDeque<usize>>>;

pub struct Admin {
    pub shared: Shared,
    pub lost: Lost,
}

impl Admin {
    /// Until the run is over.
    #[allow(clippy::disallowed_methods)]
    pub async fn run(self) {
        let mut http = Http::new(self.shared.setting.nodes);
        let mut random = Random::keyed(self.shared.seed, b"admin", 0);
        let names = hosts(self.shared.setting.nodes);
        loop {
            tokio::time::sleep(PAUSE).await;
            if *self.shared.over.lock() {
                return;
            }
            let next = self.lost.lock().front().copied();
            let Some(node) = next else { continue };
            if self.replace(&mut http, &mut random, &names[node]).await {
                self.shared.counters.add("a lost node was replaced");
                self.lost.lock().pop_front();
            }
        }
    }

    /// Takes the old one out and the new one in; each as often as it takes.
    #[allow(clippy::disallowed_methods)]
    async fn replace(&self, http: &mut Http, random: &mut Random, name: &str) -> bool {
        let address = format!("{name}:{PEER_PORT}");
        let old = loop {
            let cluster = self
                .ask(http, random, Method::GET, "/api/v1/cluster", Value::Null)
                .await;
            // Of one that has the cluster; the lost one has not.
            let nodes = cluster.map(|reply| reply.json()["nodes"].clone());
            let nodes = nodes.as_ref().and_then(Value::as_array);
            let old = nodes.and_then(|nodes| nodes.iter().find(|n| n["address"] == *address));
            if let Some(id) = old.and_then(|node| node["id"].as_str()) {
                break id.to_owned();
            }
            tokio::time::sleep(PAUSE).await;
            if *self.shared.over.lock() {
                return false;
            }
        };
        let member = format!("/api/v1/cluster/members/{old}");
        let members = "/api/v1/cluster/members";
        let out = (Method::DELETE, member.as_str(), Value::Null);
        let back = (Method::POST, members, json!({"address": address}));
        for (method, path, body) in [out, back] {
            loop {
                let reply = self
                    .ask(http, random, method.clone(), path, body.clone())
                    .await;
                let status = reply.map(|reply| reply.status);
                if matches!(status, Some(200..=299))
                    || (method == Method::DELETE && status == Some(404))
                {
                    break;
                }
                if *self.shared.over.lock() {
                    return false;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        true
    }

    async fn ask(
        &self,
        http: &mut Http,
        random: &mut Random,
        method: Method,
        path: &str,
        body: Value,
    ) -> Option<Reply> {
        http.turn(random);
        let sent = match &body {
            Value::Null => Bytes::new(),
            body => Bytes::from(body.to_string()),
        };
        let reply = http.send(method.clone(), path, &[], sent).await.ok();
        let said = reply.as_ref().map(|r| (r.status, r.json()));
        let trace = &self.shared.trace;
        trace.event("admin", format_args!("{method} {path} {body} -> {said:?}"));
        reply
    }
}
