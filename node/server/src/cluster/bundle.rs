//! [`Bundles`]: messages of many groups to one node that may wait a moment go there together (D18): the
//! heartbeats of a hundred idle groups are a few requests and not hundreds.
//!
//! ```text
//!  first message for a node ──► 10 ms ──► all that came meanwhile: one `Several` ──► each one's answer
//! ```
//!
//! - Who no longer waits when the bundle leaves has taken its message back.
//! - What is told to one part is nobody else's: a part that is refused, or not answered in time where it
//!   goes, fails alone. A bundle that is lost fails all.
//! - What is no longer than [`BYTES`] together goes together; the rest goes by itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use unisondb_api::WriteError;
use unisondb_api::peer::ask::PROTOCOL;
use unisondb_api::peer::{Ask, Asked, GroupId, Link, PeerError, Told, parts};
use unisondb_platform::Clock;
use unisondb_types::{ClusterId, codec};

/// How long the first message of a bundle waits for others.
pub(super) const WAIT: Duration = Duration::from_millis(10);
/// Bytes of a bundle, at most.
const BYTES: usize = 1 << 20;
/// The longest that a bundle's answer is waited for: longer than any group waits for its part.
const LOST: Duration = Duration::from_secs(1);
/// The longest that a part is worked on where it goes before the others are answered without it. Shorter than
/// a group waits for a heartbeat's answer (250 ms), the bundle's wait and the way there and back included.
pub(super) const PART: Duration = Duration::from_millis(150);

type Answer = Result<(Told, Bytes), PeerError>;

struct Waiting {
    header: Vec<u8>,
    message: Bytes,
    answer: oneshot::Sender<Answer>,
}

/// What waits for each address. There is a task to send it as long as there is an entry.
type Open = Arc<Mutex<BTreeMap<String, Vec<Waiting>>>>;

/// The bundles that are being gathered.
pub(super) struct Bundles {
    clock: Arc<dyn Clock>,
    open: Open,
}

impl Bundles {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Bundles {
        Bundles {
            clock,
            open: Open::default(),
        }
    }

    /// Asks with others that go the same way, and gives what is told to this one; nothing where the bundle is
    /// full.
    pub(super) async fn ask(
        &self,
        link: &Link,
        cluster: Option<ClusterId>,
        ask: &Ask,
        message: &Bytes,
    ) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        let one = Waiting {
            header: codec::encode(ask),
            message: message.clone(),
            answer,
        };
        {
            let mut open = self.open.lock();
            match open.get_mut(link.address()) {
                Some(waiting) if !fits(waiting, &one) => return None,
                Some(waiting) => waiting.push(one),
                None => {
                    open.insert(link.address().to_owned(), vec![one]);
                    let (clock, open) = (self.clock.clone(), self.open.clone());
                    tokio::spawn(leave(clock, open, link.clone(), cluster));
                }
            }
        }
        let gone = || PeerError::Unreachable(format!("{}: the node stops", link.address()));
        Some(answered.await.unwrap_or_else(|_| Err(gone())))
    }
}

fn fits(waiting: &[Waiting], one: &Waiting) -> bool {
    let bytes = |one: &Waiting| parts::length(one.header.len(), one.message.len());
    waiting.len() < parts::PARTS && waiting.iter().chain([one]).map(bytes).sum::<usize>() <= BYTES
}

/// Waits, sends one bundle, and hands the answers out.
async fn leave(clock: Arc<dyn Clock>, open: Open, link: Link, cluster: Option<ClusterId>) {
    clock.sleep(WAIT).await;
    let waiting = open.lock().remove(link.address()).unwrap_or_default();
    let waiting: Vec<Waiting> = waiting
        .into_iter()
        .filter(|one| !one.answer.is_closed())
        .collect();
    if waiting.is_empty() {
        return;
    }
    let mut rest = BytesMut::new();
    for one in &waiting {
        parts::put_encoded(&one.header, &one.message, &mut rest);
    }
    let asked = Asked {
        protocol: PROTOCOL,
        cluster,
        ask: Ask::Several,
    };
    let told = tokio::select! {
        biased;
        told = link.ask(&asked, &rest) => told,
        () = clock.sleep(LOST) => Err(PeerError::Lost(format!("{}: nothing in time", link.address()))),
    };
    let told = told.and_then(|(told, rest)| taken_apart(&link, told, rest, waiting.len()));
    match told {
        Ok(told) => {
            for (one, told) in waiting.into_iter().zip(told) {
                // Who asked may have gone meanwhile.
                drop(one.answer.send(Ok(told)));
            }
        }
        Err(why) => {
            for one in waiting {
                drop(one.answer.send(Err(why.clone())));
            }
        }
    }
}

/// What is told to each of `count`.
fn taken_apart(
    link: &Link,
    told: Told,
    rest: Bytes,
    count: usize,
) -> Result<Vec<(Told, Bytes)>, PeerError> {
    let lost = |why: String| PeerError::Lost(format!("{}: {why}", link.address()));
    match told {
        Told::Several => {
            let parts = parts::take::<Told>(rest).map_err(|e| lost(e.to_string()))?;
            match parts.len() == count {
                true => Ok(parts),
                false => Err(lost(format!("{} answers to {count}", parts.len()))),
            }
        }
        // The bundle as a whole: of another cluster, say.
        refused @ Told::Refused(_) => Ok(vec![(refused, Bytes::new()); count]),
        other => Err(lost(format!("an answer to something else: {other:?}"))),
    }
}

/// Has all parts of a bundle answered at once, by `one`. What is not after [`PART`] is told to be not known.
///
/// # Errors
/// In words, where it is no bundle.
pub(super) async fn answer<F>(
    clock: &dyn Clock,
    rest: Bytes,
    one: impl Fn(GroupId, u64, Bytes) -> F,
) -> Result<Bytes, String>
where
    F: Future<Output = Result<(Told, Bytes), String>>,
{
    let asked = parts::take::<Ask>(rest).map_err(|e| e.to_string())?;
    let late = || {
        Told::Not(WriteError::Unknown(
            "no answer of this group in time".to_owned(),
        ))
    };
    let refused = |why: String| (Told::Refused(why), Bytes::new());
    let mut told: Vec<(Told, Bytes)> = vec![(late(), Bytes::new()); asked.len()];
    let working = FuturesUnordered::new();
    for (at, (ask, message)) in asked.into_iter().enumerate() {
        match ask {
            Ask::Raft { group, to } => {
                let answer = one(group, to, message);
                working.push(async move { (at, answer.await) });
            }
            _ => told[at] = refused("only messages of groups go together".to_owned()),
        }
    }
    let mut working = pin!(working);
    let mut over = clock.sleep(PART);
    loop {
        tokio::select! {
            biased;
            done = working.next() => match done {
                Some((at, answer)) => told[at] = answer.unwrap_or_else(refused),
                None => break,
            },
            () = &mut over => break,
        }
    }
    let mut out = BytesMut::new();
    for (told, rest) in &told {
        parts::put(told, rest, &mut out);
    }
    Ok(out.freeze())
}

#[cfg(test)]
mod tests;
