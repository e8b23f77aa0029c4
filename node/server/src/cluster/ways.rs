//! [`Ways`]: who is where, and the way there. Carries the groups' messages ([`Peer`]).
//!
//! Who is where comes from `_cluster` as this node has it, and, where that is old or not there yet, from
//! what nodes say of themselves. Neither is trusted: each message says for whom it is, and who is not that
//! refuses it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use unisondb_api::peer::ask::PROTOCOL;
use unisondb_api::peer::{Ask, Asked, GroupId, Haste, Link, Peer, PeerError, Reply, Told};
use unisondb_platform::{Clock, Dial};
use unisondb_types::{ClusterId, Namespace};

use super::bundle::Bundles;

/// Who is where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Book {
    /// Where a node is reached, by its id.
    pub(crate) addresses: BTreeMap<u64, String>,
    /// Which node a member of a namespace's group runs on, by its raft id.
    pub(crate) members: BTreeMap<Namespace, BTreeMap<u64, u64>>,
}

/// The ways to the other nodes.
pub(crate) struct Ways {
    dial: Arc<dyn Dial>,
    clock: Arc<dyn Clock>,
    own: Namespace,
    cluster: RwLock<Option<ClusterId>>,
    book: RwLock<Book>,
    /// Where nodes said themselves that they are: stronger than the book.
    learnt: RwLock<BTreeMap<u64, String>>,
    links: Mutex<BTreeMap<String, Link>>,
    bundles: Bundles,
}

impl Ways {
    pub(crate) fn new(dial: Arc<dyn Dial>, clock: Arc<dyn Clock>) -> Ways {
        Ways {
            bundles: Bundles::new(clock.clone()),
            dial,
            clock,
            own: Namespace::cluster(),
            cluster: RwLock::default(),
            book: RwLock::default(),
            learnt: RwLock::default(),
            links: Mutex::default(),
        }
    }

    /// `_cluster`, at hand for who asks at every request.
    pub(crate) fn own(&self) -> &Namespace {
        &self.own
    }

    /// The cluster that this node belongs to, if it does.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        *self.cluster.read()
    }

    pub(crate) fn belong(&self, cluster: ClusterId) {
        *self.cluster.write() = Some(cluster);
    }

    /// Goes by another book from now on.
    pub(crate) fn turn_to(&self, book: Book) {
        let mut now = self.book.write();
        // What a node said once counts until the cluster has something new of it.
        let mut learnt = self.learnt.write();
        learnt.retain(|node, _| now.addresses.get(node) == book.addresses.get(node));
        *now = book;
    }

    /// A node said that it is there.
    pub(crate) fn learn(&self, node: u64, address: &str) {
        self.learnt.write().insert(node, address.to_owned());
    }

    /// The node that a member of a group runs on.
    pub(crate) fn node_of(&self, namespace: &Namespace, member: u64) -> Option<u64> {
        if namespace.is_cluster() {
            return Some(member);
        }
        let book = self.book.read();
        book.members.get(namespace)?.get(&member).copied()
    }

    /// The way to a member of a group.
    pub(crate) fn to_member(&self, namespace: &Namespace, member: u64) -> Option<Link> {
        let node = self.node_of(namespace, member)?;
        let learnt = self.learnt.read().get(&node).cloned();
        let address = learnt.or_else(|| self.book.read().addresses.get(&node).cloned())?;
        Some(self.to(&address))
    }

    /// The way to an address.
    pub(crate) fn to(&self, address: &str) -> Link {
        let mut links = self.links.lock();
        let link = links.entry(address.to_owned()).or_insert_with(|| {
            Link::new(address.to_owned(), self.dial.clone(), self.clock.clone())
        });
        link.clone()
    }

    /// Asks, in the name of this node's cluster.
    pub(crate) async fn ask(
        &self,
        link: &Link,
        ask: Ask,
        rest: &[u8],
    ) -> Result<(Told, Bytes), PeerError> {
        let asked = Asked {
            protocol: PROTOCOL,
            cluster: self.cluster(),
            ask,
        };
        link.ask(&asked, rest).await
    }
}

impl Peer for Ways {
    fn call<'a>(&'a self, group: &'a GroupId, to: u64, message: Bytes, haste: Haste) -> Reply<'a> {
        Box::pin(async move {
            let Some(link) = self.to_member(&group.namespace, to) else {
                return Err(PeerError::Unreachable(format!(
                    "nobody has said where member {to} of {} is",
                    group.namespace
                )));
            };
            let ask = Ask::Raft {
                group: group.clone(),
                to,
            };
            let together = match haste {
                Haste::Soon => {
                    let cluster = self.cluster();
                    self.bundles.ask(&link, cluster, &ask, &message).await
                }
                Haste::Now => None,
            };
            let told = match together {
                Some(told) => told,
                None => self.ask(&link, ask, &message).await,
            };
            match told? {
                (Told::Raft, answer) => Ok(answer),
                (Told::Refused(why), _) => {
                    Err(PeerError::Unreachable(format!("{}: {why}", link.address())))
                }
                (Told::Not(why), _) => Err(PeerError::Lost(format!("{}: {why}", link.address()))),
                (other, _) => Err(PeerError::Lost(format!(
                    "{}: an answer to something else: {other:?}",
                    link.address()
                ))),
            }
        })
    }
}
