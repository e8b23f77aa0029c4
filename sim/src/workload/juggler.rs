//! The juggler: makes a namespace of a cluster, uses it, deletes it, and again, through whichever node. What
//! was acknowledged while it was there could be read there; made again it shows nothing of its last life.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use unisondb_platform::memory::Random;

use super::client::{Shared, lineage_of};
use super::http::{Http, Reply};
use crate::invariants::walls;
use crate::oracle::history::{Answer, Told};
use crate::run::SCRATCH;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a life lasts at least: what it wrote has been seen then.
const LIFE: Duration = Duration::from_millis(2_500);

/// How long a request that was given up may still be carried out: it would delete the next life.
const UNSURE: Duration = Duration::from_secs(15);

pub struct Juggler {
    pub shared: Shared,
    random: Random,
    http: Http,
    /// Another way in, for what is asked of two nodes at once.
    other: Http,
    number: u64,
}

impl Juggler {
    pub fn new(shared: Shared) -> Juggler {
        Juggler {
            random: Random::keyed(shared.seed, b"juggler", 0),
            http: Http::new(shared.setting.nodes),
            other: Http::new(shared.setting.nodes),
            shared,
            number: 0,
        }
    }

    /// Until everything is healed; then once more, for good.
    pub async fn run(mut self) {
        loop {
            let is_last = *self.shared.healed.lock();
            self.make().await;
            self.live().await;
            if is_last {
                *self.shared.settled.lock() = true;
                return;
            }
            if *self.shared.over.lock() {
                return;
            }
            self.delete().await;
        }
    }

    #[allow(clippy::disallowed_methods)]
    async fn pause(time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn ask(&mut self, method: Method, path: &str, body: Value) -> Option<Reply> {
        self.http.turn(&mut self.random);
        let body = Bytes::from(body.to_string());
        let reply = self.http.send(method.clone(), path, &[], body).await.ok();
        let status = reply.as_ref().map(|reply| reply.status);
        self.tell(&method, path, status);
        reply
    }

    fn tell(&self, method: &Method, path: &str, status: Option<u16>) {
        let trace = &self.shared.trace;
        trace.event("juggler", format_args!("{method} {path} -> {status:?}"));
    }

    /// Made, as often as it takes, now and then through two nodes at once.
    async fn make(&mut self) {
        loop {
            let body = json!({"name": SCRATCH});
            let path = "/api/v1/namespaces";
            let made = if self.random.coin() {
                self.ask(Method::POST, path, body).await
            } else {
                self.http.turn(&mut self.random);
                self.other.turn(&mut self.random);
                let body = Bytes::from(body.to_string());
                let (one, two) = tokio::join!(
                    self.http.send(Method::POST, path, &[], body.clone()),
                    self.other.send(Method::POST, path, &[], body)
                );
                let of = |r: &Result<Reply, _>| r.as_ref().map(|r| r.status).ok();
                self.tell(&Method::POST, path, of(&one));
                self.tell(&Method::POST, path, of(&two));
                one.ok().filter(|r| r.status < 300).or(two.ok())
            };
            if made.is_some_and(|reply| reply.status < 300) {
                self.shared.counters.add("a namespace was made");
                return;
            }
            Self::pause(PAUSE).await;
        }
    }

    /// Writes, and reads what was acknowledged, wherever.
    async fn live(&mut self) {
        let mut written = Vec::new();
        let rounds = LIFE.as_millis() / PAUSE.as_millis();
        for _ in 0..rounds {
            Self::pause(PAUSE).await;
            self.number += 1;
            let (key, value) = (
                format!("k{:02}", self.number % 40),
                format!("{}{}.", walls::mark(SCRATCH), self.number),
            );
            let path = format!("/api/v1/{SCRATCH}/kv/{key}");
            let body = json!({"value": super::client::b64(value.as_bytes())});
            let Some(reply) = self.ask(Method::PUT, &path, body).await else {
                continue;
            };
            let (200, Some(lineage)) = (reply.status, lineage_of(&reply)) else {
                continue;
            };
            let Some(lsn) = reply.json()["lsn"].as_u64() else {
                continue;
            };
            self.shared.history.lock().told.push(Told {
                client: "juggler".to_owned(),
                connection: self.http.connection(),
                request: path.clone(),
                lineage,
                what: Answer::Written {
                    lsn,
                    marker: value.clone().into_bytes(),
                },
            });
            written.push((path, value));
        }
        for (path, value) in written {
            let read = format!("{path}?consistency=linearizable");
            let Some(reply) = self.ask(Method::GET, &read, Value::Null).await else {
                continue;
            };
            let there = reply.json()["value"]
                .as_str()
                .and_then(super::client::unb64);
            let is_there = there.as_deref() == Some(value.as_bytes());
            if matches!(reply.status, 200 | 404) && !is_there {
                let wrong = format!(
                    "P1: {path} was acknowledged with {value} in a namespace that nobody deleted, and a linearizable read says {}",
                    reply.status
                );
                self.shared.find(&wrong);
            }
        }
    }

    async fn delete(&mut self) {
        let mut is_sure = true;
        loop {
            let path = format!("/api/v1/namespaces/{SCRATCH}?confirm={SCRATCH}");
            let gone = self.ask(Method::DELETE, &path, Value::Null).await;
            match gone.map(|reply| reply.status) {
                // Not found: a try before this one has done it.
                Some(200..=299 | 404) => {
                    self.shared.counters.add("a namespace was deleted");
                    if !is_sure {
                        Self::pause(UNSURE).await;
                    }
                    return;
                }
                _ => {
                    is_sure = false;
                    Self::pause(PAUSE).await;
                }
            }
        }
    }
}
