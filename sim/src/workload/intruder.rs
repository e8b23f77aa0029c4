//! The intruder: asks one namespace for what is another's (P15). Nothing of it may be done.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::client::Shared;
use super::http::{Http, Reply};

/// How long it waits between two tries.
const PAUSE: Duration = Duration::from_millis(2_500);

pub struct Intruder {
    /// Whom it asks.
    pub shared: Shared,
    /// Whose things it wants.
    pub other: String,
}

impl Intruder {
    /// Until the run is over.
    #[allow(clippy::disallowed_methods)]
    pub async fn run(self) {
        let mut http = Http::new(self.shared.setting.nodes);
        for number in 0u64.. {
            tokio::time::sleep(PAUSE).await;
            if *self.shared.over.lock() {
                return;
            }
            if *self.shared.hold.lock() {
                continue;
            }
            let (ours, other) = (self.shared.namespace.as_str(), self.other.as_str());
            match number % 4 {
                0 => {
                    let body = json!({"path": format!("../{other}/snapshots/x.db")});
                    self.refused(&mut http, &format!("{ours}/btree/backup"), body)
                        .await;
                }
                1 => {
                    let body = json!({"afterSegmentId": 0, "backupDir": format!("../{other}/wal")});
                    self.refused(&mut http, &format!("{ours}/wal/backup"), body)
                        .await;
                }
                2 => {
                    let dir = format!("{}/backups/{other}/wal", crate::world::DATA);
                    let body = json!({"afterSegmentId": 0, "backupDir": dir});
                    self.refused(&mut http, &format!("{ours}/wal/backup"), body)
                        .await;
                }
                _ => self.transaction(&mut http).await,
            }
        }
    }

    /// A transaction of the other namespace is none here.
    async fn transaction(&self, http: &mut Http) {
        let (ours, other) = (&self.shared.namespace, &self.other);
        let begin = json!({"operation": "put", "entryType": "kv"});
        let Some(reply) = self.ask(http, &format!("{other}/tx/begin"), begin).await else {
            return;
        };
        let Some(id) = reply.json()["txnId"].as_str().map(str::to_owned) else {
            return;
        };
        let body = json!({"key": "k00", "value": ""});
        self.refused(http, &format!("{ours}/tx/{id}/kv"), body)
            .await;
        self.refused(http, &format!("{ours}/tx/{id}/commit"), Value::Null)
            .await;
        self.ask(http, &format!("{other}/tx/{id}/abort"), Value::Null)
            .await;
    }

    async fn refused(&self, http: &mut Http, route: &str, body: Value) {
        let what = body.to_string();
        let Some(reply) = self.ask(http, route, body).await else {
            return;
        };
        if reply.status < 400 {
            let wrong = format!("P15: POST {route} {what} is answered with {}", reply.status);
            self.shared.find(&wrong);
        } else if reply.status < 500 {
            self.shared.counters.add("an intruder was refused");
        }
    }

    async fn ask(&self, http: &mut Http, route: &str, body: Value) -> Option<Reply> {
        let body = match body {
            Value::Null => Bytes::new(),
            body => Bytes::from(body.to_string()),
        };
        let path = format!("/api/v1/{route}");
        let reply = http.send(Method::POST, &path, &[], body).await.ok()?;
        self.shared
            .trace
            .event("intruder", format_args!("POST {route} -> {}", reply.status));
        Some(reply)
    }
}
