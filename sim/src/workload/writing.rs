//! How a client writes: until it knows what came of it, or gives up; and what is remembered of that.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::client::{Client, lineage_of};
use super::http::{Reply, answered};
use crate::oracle::history::Answer;
use crate::oracle::operations::Act;
use crate::trace::{Answered, What};

/// What a write does to one key.
pub struct Effect {
    pub key: String,
    pub value: Option<Vec<u8>>,
    pub only_if: Option<Option<Vec<u8>>>,
}

impl Effect {
    pub fn of(key: String, value: Option<Vec<u8>>) -> Effect {
        Effect {
            key,
            value,
            only_if: None,
        }
    }
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Not done, with this status.
    Refused(u16),
    /// Not done: the node was not reached.
    Unreached,
    Unknown,
}

impl Client {
    /// A write, whose effects on keys are remembered; what is not known of it is asked again now and then.
    pub(super) async fn write(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
        marker: String,
        effects: &[Effect],
    ) {
        let begun = self.shared.operations.begin();
        let outcome = self
            .write_until_known(method, path, headers, body, &marker)
            .await;
        for (n, effect) in effects.iter().enumerate() {
            // Of several to one key in one record the last one is seen.
            if effects[n + 1..].iter().any(|later| later.key == effect.key) {
                continue;
            }
            let act = match (outcome, &effect.only_if) {
                (Outcome::Done | Outcome::Unknown, _) => Act::Write {
                    value: effect.value.clone(),
                    only_if: effect.only_if.clone(),
                },
                (Outcome::Refused(412), Some(only_if)) => Act::Refused {
                    only_if: only_if.clone(),
                },
                (Outcome::Refused(_) | Outcome::Unreached, _) => continue,
            };
            let is_known = outcome != Outcome::Unknown;
            self.ended(begun, &effect.key, act, is_known).await;
        }
    }

    async fn write_until_known(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
        marker: &str,
    ) -> Outcome {
        let body = match body {
            Value::Null => Bytes::new(),
            body => Bytes::from(body.to_string()),
        };
        let mut headers = headers.to_vec();
        let retries = self.random.below(3);
        if retries > 0 && !headers.iter().any(|(name, _)| *name == "idempotency-key") {
            headers.push(("idempotency-key", marker));
        }
        let mut tries = 0;
        let mut maybe = false;
        loop {
            tries += 1;
            let outcome = self
                .raw_or_lost(method.clone(), path, &headers, body.clone())
                .await;
            let answered = answered(&outcome);
            self.shared.trace.note(What::Write(answered));
            match (answered, &outcome) {
                (Answered::Acknowledged { .. }, Ok(reply)) => {
                    self.told(path, reply, marker);
                    return Outcome::Done;
                }
                (Answered::Unknown, _) => {}
                (answered, _) => {
                    self.shared.history.lock().refused += 1;
                    // What this try did not do, one before it may have done.
                    return match (maybe, answered) {
                        (true, _) => Outcome::Unknown,
                        (false, Answered::Refused { status }) => Outcome::Refused(status),
                        (false, _) => Outcome::Unreached,
                    };
                }
            }
            maybe = true;
            if tries > retries || headers.is_empty() {
                self.shared.history.lock().unknown += 1;
                self.shared.counters.add("a write was left unknown");
                return Outcome::Unknown;
            }
            self.shared.counters.add("an unknown write was tried again");
        }
    }

    fn told(&self, path: &str, reply: &Reply, marker: &str) {
        let Some(lineage) = lineage_of(reply) else {
            return;
        };
        let Some(lsn) = reply.json()["lsn"].as_u64() else {
            return;
        };
        self.remember(
            path,
            lineage,
            Answer::Written {
                lsn,
                marker: marker.as_bytes().to_vec(),
            },
        );
    }
}
