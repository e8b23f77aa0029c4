//! A client: writes and reads at random, remembers what it was told, retries some of what it does not
//! know with the same idempotency key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use unisondb_platform::memory::Random;

use super::http::{Http, Lost, Reply};
use super::writing::Effect;
use crate::invariants::walls;
use crate::oracle::history::{Answer, History, Told};
use crate::oracle::operations::{Act, Begun, Operations};
use crate::oracle::truth::{hex, unhex};
use crate::plan::Setting;
use crate::report::Counters;
use crate::trace::{Trace, What};

/// What all clients of a run share.
#[derive(Clone)]
pub struct Shared {
    pub setting: Setting,
    pub seed: u64,
    pub namespace: String,
    pub history: Arc<Mutex<History>>,
    pub operations: Operations,
    pub counters: Counters,
    pub trace: Trace,
    /// Clients end when it is set.
    pub over: Arc<Mutex<bool>>,
    /// While it is set nobody asks anything: the operator restores.
    pub hold: Arc<Mutex<bool>>,
    /// Nothing goes wrong any more.
    pub healed: Arc<Mutex<bool>>,
    /// The juggler's namespace is there, and stays.
    pub settled: Arc<Mutex<bool>>,
    pub findings: Arc<Mutex<Vec<String>>>,
}

impl Shared {
    /// Something that must not be.
    pub fn find(&self, what: &str) {
        self.trace.finding(what);
        self.findings.lock().push(what.to_owned());
    }
}

pub struct Client {
    pub(super) shared: Shared,
    pub(super) name: String,
    http: Http,
    pub(super) random: Random,
    sent: u64,
}

impl Client {
    pub fn new(shared: Shared, number: u64) -> Client {
        Client {
            name: format!("client-{number}"),
            random: Random::keyed(shared.seed, b"client", number),
            http: Http::new(shared.setting.nodes),
            shared,
            sent: 0,
        }
    }

    /// Until the run is over.
    #[allow(clippy::disallowed_methods)]
    pub async fn run(mut self) {
        loop {
            let think = self.random.below(self.shared.setting.think_ms * 2);
            tokio::time::sleep(Duration::from_millis(think)).await;
            if *self.shared.over.lock() {
                return;
            }
            if !*self.shared.hold.lock() {
                // A balancer sends it elsewhere now and then.
                if self.is_of_several() && self.random.below(4) == 0 {
                    self.http.turn(&mut self.random);
                }
                self.step().await;
            }
        }
    }

    /// Remembers an operation that has an answer, or has been given up. Not while an operator has the
    /// node down: of which life an answer is that came in between is known only afterwards.
    #[allow(clippy::disallowed_methods)]
    pub(super) async fn ended(&self, begun: Begun, key: &str, act: Act, is_known: bool) {
        while *self.shared.hold.lock() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let operations = &self.shared.operations;
        operations.end(begun, &self.name, key.as_bytes(), act, is_known);
    }

    fn is_of_several(&self) -> bool {
        self.shared.setting.nodes > 1
    }

    async fn step(&mut self) {
        match self.random.below(100) {
            0..=34 => self.put().await,
            35..=44 => self.delete().await,
            45..=54 => self.batch().await,
            55..=66 => self.row().await,
            67..=76 => self.transaction().await,
            77..=81 => self.object().await,
            82..=93 => self.get().await,
            _ => self.scan().await,
        }
    }

    fn key(&mut self) -> String {
        format!("k{:02}", self.random.below(self.shared.setting.keys))
    }

    /// A text that no other write has, and no other namespace.
    fn marker(&mut self) -> String {
        self.sent += 1;
        let wall = walls::mark(&self.shared.namespace);
        format!("{wall}{}-{}.", self.name, self.sent)
    }

    fn value(&mut self, marker: &str) -> Vec<u8> {
        let more =
            usize::try_from(self.random.below(self.shared.setting.value_bytes)).expect("small");
        format!("{marker}{}", "v".repeat(more)).into_bytes()
    }

    async fn put(&mut self) {
        let (key, marker) = (self.key(), self.marker());
        let value = self.value(&marker);
        let body = json!({"value": b64(&value)});
        let mut headers = Vec::new();
        let mut only_if = None;
        let wanted;
        match self.random.below(6) {
            0 => {
                headers.push(("if-none-match", "*"));
                only_if = Some(None);
            }
            1 => {
                if let Some(reply) = self
                    .ask(Method::GET, &format!("/kv/{key}"), &[], Value::Null)
                    .await
                    && let Some(tag) = reply.header("etag")
                {
                    wanted = tag.to_owned();
                    headers.push(("if-match", &wanted));
                    only_if = Some(reply.json()["value"].as_str().and_then(unb64));
                }
            }
            _ => {}
        }
        let effect = Effect {
            key: key.clone(),
            value: Some(value),
            only_if,
        };
        let path = format!("/kv/{key}");
        self.write(Method::PUT, &path, &headers, body, marker, &[effect])
            .await;
    }

    async fn delete(&mut self) {
        let (key, marker) = (self.key(), self.marker());
        let path = format!("/kv/{key}");
        let effect = Effect::of(key, None);
        self.write(
            Method::DELETE,
            &path,
            &[("idempotency-key", &marker.clone())],
            Value::Null,
            marker,
            &[effect],
        )
        .await;
    }

    async fn batch(&mut self) {
        let marker = self.marker();
        let count = 1 + self.random.below(6);
        let mut items = Vec::new();
        let mut effects = Vec::new();
        for _ in 0..count {
            let (key, value) = (self.key(), self.value(&marker));
            items.push(json!({"key": key, "value": b64(&value)}));
            effects.push(Effect::of(key, Some(value)));
        }
        let body = json!({"operation": "put", "items": items});
        self.write(Method::POST, "/kv/batch", &[], body, marker, &effects)
            .await;
    }

    async fn row(&mut self) {
        let (row, marker) = (self.key(), self.marker());
        let path = format!("/row/{row}");
        let key = marker.clone();
        match self.random.below(5) {
            0 => {
                self.write(
                    Method::DELETE,
                    &path,
                    &[("idempotency-key", &key)],
                    Value::Null,
                    marker,
                    &[],
                )
                .await
            }
            1 => {
                let body = json!({"columns": [format!("c{}", self.random.below(4))]});
                let path = format!("{path}/columns");
                self.write(
                    Method::DELETE,
                    &path,
                    &[("idempotency-key", &key)],
                    body,
                    marker,
                    &[],
                )
                .await;
            }
            _ => {
                let column = format!("c{}", self.random.below(4));
                let body = json!({"columns": {column: b64(&self.value(&marker))}});
                self.write(Method::PUT, &path, &[], body, marker, &[]).await;
            }
        }
    }

    async fn transaction(&mut self) {
        let begin = json!({"operation": "put", "entryType": "kv"});
        let Some(reply) = self.ask(Method::POST, "/tx/begin", &[], begin).await else {
            return;
        };
        let Some(id) = reply.json()["txnId"].as_str().map(str::to_owned) else {
            return;
        };
        let mut effects = Vec::new();
        for _ in 0..1 + self.random.below(4) {
            let marker = self.marker();
            let (key, value) = (self.key(), self.value(&marker));
            let body = json!({"key": key, "value": b64(&value)});
            let staged = self
                .ask(Method::POST, &format!("/tx/{id}/kv"), &[], body)
                .await;
            match staged {
                Some(reply) if reply.status == 200 => effects.push(Effect::of(key, Some(value))),
                // Refused, it is no part of what is committed; without an answer it may be.
                Some(reply) if reply.status < 500 => {}
                _ => return,
            }
        }
        self.end(&id, &effects).await;
    }

    async fn object(&mut self) {
        let key = self.key();
        if self.random.below(4) == 0 {
            let marker = self.marker();
            let path = format!("/lob/{key}");
            return self
                .write(
                    Method::DELETE,
                    &path,
                    &[("idempotency-key", &marker.clone())],
                    Value::Null,
                    marker,
                    &[],
                )
                .await;
        }
        let begin = json!({"operation": "put", "entryType": "lob"});
        let Some(reply) = self.ask(Method::POST, "/tx/begin", &[], begin).await else {
            return;
        };
        let Some(id) = reply.json()["txnId"].as_str().map(str::to_owned) else {
            return;
        };
        for _ in 0..1 + self.random.below(3) {
            let chunk = format!(
                "{}{}",
                self.marker(),
                "o".repeat(usize::try_from(self.random.below(2_000)).expect("small"))
            );
            let path = format!("/tx/{id}/lob?key={key}");
            let headers = [("content-type", "application/octet-stream")];
            if self
                .raw(Method::POST, &path, &headers, Bytes::from(chunk))
                .await
                .is_none_or(|r| r.status != 200)
            {
                return;
            }
        }
        self.end(&id, &[]).await;
    }

    async fn end(&mut self, id: &str, effects: &[Effect]) {
        let marker = self.marker();
        let (how, effects) = match self.random.below(5) {
            0 => ("abort", &[][..]),
            _ => ("commit", effects),
        };
        let path = format!("/tx/{id}/{how}");
        self.write(
            Method::POST,
            &path,
            &[("idempotency-key", &marker.clone())],
            Value::Null,
            marker,
            effects,
        )
        .await;
    }

    pub(super) fn remember(&self, request: &str, lineage: [u8; 16], what: Answer) {
        self.shared.history.lock().told.push(Told {
            client: self.name.clone(),
            connection: self.http.connection(),
            request: request.to_owned(),
            lineage,
            what,
        });
    }

    async fn get(&mut self) {
        let key = self.key();
        let linearizable = self.random.coin();
        let Some(low) = self.low() else { return };
        // Behind a balancer it names what it has seen, to see no less.
        let wants = self.is_of_several() && !linearizable && self.random.coin();
        let query = match (linearizable, wants) {
            (true, _) => "?consistency=linearizable".to_owned(),
            (_, true) => format!("?minLsn={}:{}", hex(&low.0), low.1),
            _ => String::new(),
        };
        let path = format!("/kv/{key}{query}");
        let begun = self.shared.operations.begin();
        let Some(reply) = self.ask(Method::GET, &path, &[], Value::Null).await else {
            return;
        };
        let (Some(lineage), Some(high)) = (lineage_of(&reply), lsn_of(&reply)) else {
            return;
        };
        let low = match lineage == low.0 {
            true if linearizable || wants => low.1,
            true => low.1.min(high),
            false => 0,
        };
        let found = match reply.status {
            200 => {
                let value = reply.json()["value"].as_str().and_then(unb64);
                let tag = reply
                    .header("etag")
                    .and_then(|t| t.trim_matches('"').parse().ok());
                let (Some(value), Some(tag)) = (value, tag) else {
                    return;
                };
                Some((tag, value))
            }
            404 => None,
            _ => return,
        };
        if linearizable {
            let value = found.as_ref().map(|(_, value)| value.clone());
            self.ended(begun, &key, Act::Read { value }, true).await;
        }
        self.remember(
            &path,
            lineage,
            Answer::Read {
                key: key.into_bytes(),
                found,
                low,
                high,
            },
        );
    }

    async fn scan(&mut self) {
        let Some(low) = self.low() else { return };
        let Some(reply) = self
            .ask(Method::GET, "/kv?limit=1000", &[], Value::Null)
            .await
        else {
            return;
        };
        let (Some(lineage), Some(high)) = (lineage_of(&reply), lsn_of(&reply)) else {
            return;
        };
        let answer = reply.json();
        let (Some(items), true) = (answer["items"].as_array(), answer["cursor"].is_null()) else {
            return;
        };
        let items = items.iter().filter_map(|item| {
            Some((
                item["key"].as_str()?.as_bytes().to_vec(),
                unb64(item["value"].as_str()?)?,
            ))
        });
        let low = if lineage == low.0 { low.1.min(high) } else { 0 };
        self.remember(
            "a scan",
            lineage,
            Answer::Page {
                items: items.collect(),
                low,
                high,
            },
        );
    }

    /// The newest write that anybody was told of: what a read may not fall behind.
    fn low(&self) -> Option<([u8; 16], u64)> {
        let history = self.shared.history.lock();
        let written = history
            .told
            .iter()
            .rev()
            .take(200)
            .filter_map(|t| match t.what {
                Answer::Written { lsn, .. } => Some((t.lineage, lsn)),
                _ => None,
            });
        let newest: Vec<_> = written.collect();
        let lineage = newest.first()?.0;
        newest
            .iter()
            .filter(|w| w.0 == lineage)
            .max_by_key(|w| w.1)
            .copied()
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Option<Reply> {
        let body = match body {
            Value::Null => Bytes::new(),
            body => Bytes::from(body.to_string()),
        };
        self.raw(method, path, headers, body).await
    }

    async fn raw(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Option<Reply> {
        self.shared.trace.note(What::Asked);
        self.raw_or_lost(method, path, headers, body).await.ok()
    }

    pub(super) async fn raw_or_lost(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, Lost> {
        let full = format!("/api/v1/{}{path}", self.shared.namespace);
        let outcome = self.http.send(method.clone(), &full, headers, body).await;
        let counters = &self.shared.counters;
        match &outcome {
            Ok(reply) => {
                counters.add(&format!("answer {}", reply.status));
                self.shared.trace.event(
                    &self.name,
                    format_args!(
                        "{method} {path} -> {} lsn {:?}",
                        reply.status,
                        reply.json()["lsn"]
                    ),
                );
            }
            Err(lost) => {
                counters.add("no answer");
                self.shared
                    .trace
                    .event(&self.name, format_args!("{method} {path} -> {lost:?}"));
            }
        }
        outcome
    }
}

pub(super) fn lineage_of(reply: &Reply) -> Option<[u8; 16]> {
    unhex(reply.header("x-unison-lineage")?)
}

fn lsn_of(reply: &Reply) -> Option<u64> {
    reply.header("x-unison-lsn")?.parse().ok()
}

pub(super) fn b64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

pub(super) fn unb64(text: &str) -> Option<Vec<u8>> {
    base64_simd::STANDARD.decode_to_vec(text).ok()
}
