//! What a cluster is made of, as it lies in `_cluster`. (Keys and values in `docs/formats/cluster.md`.)
//!
//! | key | what | written by |
//! | --- | --- | --- |
//! | `wanted/ADDRESS` | a node that is to be taken in | the founder |
//! | `origin` | the record that `_cluster` itself begins with | the founder; the leader of `_cluster` |
//! | `founded` | all nodes of the founding vote | the leader of `_cluster` |
//! | `node/ID` | a node that was taken in | the leader of `_cluster`; the node, where it is reached |
//! | `removed/ID` | a node that was taken out | the leader of `_cluster` |
//! | `namespace/NAME` | a namespace, and what is to become of it | the leader of `_cluster`; its founder, what it begins with |
//! | `member/NAME/ID` | the raft id that a node has in a namespace's group | the node |
//!
//! Values are JSON; fields are only added, each with what it is when it is not there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use unisondb_engine::{Engine, Scan};
use unisondb_types::{Action, Condition, Key, LineageId, Lsn, Namespace, Op, Value, limits};

use super::ways::Book;

/// A node that was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRow {
    /// What its operator calls it.
    pub(crate) name: String,
    /// Where other nodes reach it.
    pub(crate) address: String,
    /// Whether it is being taken out: it stays here as long as it is a member of any group, so that it can
    /// be reached.
    #[serde(default)]
    pub(crate) leaving: bool,
}

/// A node that was taken out: under that id it never comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemovedRow {
    /// What its operator called it.
    pub(crate) name: String,
}

/// What is to become of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fate {
    /// It is being made: it takes no writes yet.
    Creating,
    /// Enough nodes have it.
    Live,
    /// Every node that has it discards it.
    Deleting,
    /// None has it. One made again begins above its segments.
    Deleted,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamespaceRow {
    pub(crate) fate: Fate,
    /// The node that makes the record which its history begins with.
    pub(crate) founder: u64,
    /// That record, once it is there, as [`origin`](super::origin) has it; empty before, and where it is
    /// no longer held.
    #[serde(default)]
    pub(crate) origin: String,
    /// Its history, where nobody has that record any more: who joins begins with a snapshot.
    #[serde(default)]
    pub(crate) lineage: String,
    /// Segments of that name that were used before.
    #[serde(default)]
    pub(crate) ids_above: u64,
}

impl NamespaceRow {
    /// The history that the cluster means by the name, once it is put down.
    pub(crate) fn lineage(&self) -> Option<LineageId> {
        match super::decode(&self.origin) {
            Ok(origin) => Some(origin.lineage.lineage),
            Err(_) => self.lineage.parse().ok(),
        }
    }

    /// One of them, and when it was written last.
    pub(crate) fn read(
        engine: &Engine,
        namespace: &Namespace,
    ) -> Result<Option<(NamespaceRow, Lsn)>, String> {
        let entry = engine.kv(&At::Namespace(namespace).key());
        let Some(entry) = entry.map_err(|e| e.to_string())? else {
            return Ok(None);
        };
        Ok(Some((parse(&entry.value)?, entry.lsn)))
    }
}

/// What a node is in a namespace's group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberRow {
    pub(crate) raft_id: u64,
}

/// All of it, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Catalog {
    /// What `_cluster` begins with, as [`origin`](super::origin) has it: kept when the log has it no more.
    pub(crate) origin: String,
    pub(crate) founded: bool,
    pub(crate) wanted: BTreeSet<String>,
    pub(crate) nodes: BTreeMap<u64, NodeRow>,
    pub(crate) removed: BTreeSet<u64>,
    pub(crate) namespaces: BTreeMap<Namespace, NamespaceRow>,
    /// Raft ids, by namespace and node.
    pub(crate) members: BTreeMap<Namespace, BTreeMap<u64, u64>>,
}

impl Catalog {
    /// As this node has it, which may be old.
    pub(crate) fn read(engine: &Engine) -> Result<Catalog, String> {
        let mut catalog = Catalog::default();
        let mut scan = Scan {
            limit: limits::PAGE_ITEMS,
            ..Scan::default()
        };
        loop {
            let page = engine.scan(&scan).map_err(|e| e.to_string())?;
            for (key, value) in &page.items {
                let value = value.as_deref().unwrap_or_default();
                catalog
                    .take(key, value)
                    .map_err(|why| format!("{}: {why}", String::from_utf8_lossy(key.as_bytes())))?;
            }
            match page.next {
                Some(next) => scan.after = Some(next),
                None => return Ok(catalog),
            }
        }
    }

    fn take(&mut self, key: &Key, value: &[u8]) -> Result<(), String> {
        let key = std::str::from_utf8(key.as_bytes()).map_err(|e| e.to_string())?;
        let mut words = key.splitn(3, '/');
        match (words.next(), words.next(), words.next()) {
            (Some("founded"), None, None) => self.founded = true,
            (Some("origin"), None, None) => self.origin = parse(value)?,
            (Some("wanted"), Some(address), None) => {
                self.wanted.insert(address.to_owned());
            }
            (Some("node"), Some(id), None) => {
                self.nodes.insert(node_id(id)?, parse(value)?);
            }
            (Some("removed"), Some(id), None) => {
                self.removed.insert(node_id(id)?);
            }
            (Some("namespace"), Some(name), None) => {
                let name = name.parse().map_err(|e| format!("{e}"))?;
                self.namespaces.insert(name, parse(value)?);
            }
            (Some("member"), Some(name), Some(id)) => {
                let name: Namespace = name.parse().map_err(|e| format!("{e}"))?;
                let row: MemberRow = parse(value)?;
                let of = self.members.entry(name).or_default();
                of.insert(node_id(id)?, row.raft_id);
            }
            // Of a later release: whoever raises the format level has seen to it that all know it.
            _ => {}
        }
        Ok(())
    }

    /// Who is where.
    pub(crate) fn book(&self) -> Book {
        let addresses = self.nodes.iter();
        let members = self.members.iter().map(|(namespace, of)| {
            let turned = of.iter().map(|(node, raft_id)| (*raft_id, *node));
            (namespace.clone(), turned.collect())
        });
        Book {
            addresses: addresses
                .map(|(id, row)| (*id, row.address.clone()))
                .collect(),
            members: members.collect(),
        }
    }

    /// The raft ids that are to vote in a group. A node that is being taken out leaves `_cluster` last: it
    /// learns from there what it has to hand over.
    pub(crate) fn voters(&self, namespace: &Namespace) -> BTreeSet<u64> {
        if namespace.is_cluster() {
            let stays = |id: &&u64| !self.is_leaving(**id) || self.is_member_of_any(**id);
            return self.nodes.keys().filter(stays).copied().collect();
        }
        let of = self.members.get(namespace).into_iter().flatten();
        let of = of.filter(|(node, _)| self.nodes.contains_key(node) && !self.is_leaving(**node));
        of.map(|(_, raft_id)| *raft_id).collect()
    }

    /// Whether a node is being taken out.
    pub(crate) fn is_leaving(&self, node: u64) -> bool {
        self.nodes.get(&node).is_some_and(|row| row.leaving)
    }

    /// Whether a node is set down as a member of some namespace's group.
    pub(crate) fn is_member_of_any(&self, node: u64) -> bool {
        self.members.values().any(|of| of.contains_key(&node))
    }

    /// Members of a group on nodes that are being taken out: node and raft id.
    pub(crate) fn leaving(&self, namespace: &Namespace) -> Vec<(u64, u64)> {
        let of = self.members.get(namespace).into_iter().flatten();
        let of = of.filter(|(node, _)| self.is_leaving(**node));
        of.map(|(node, raft_id)| (*node, *raft_id)).collect()
    }

    /// How many nodes must have a namespace before it takes writes: most of them.
    pub(crate) fn most(&self) -> usize {
        self.nodes.values().filter(|row| !row.leaving).count() / 2 + 1
    }
}

fn parse<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|e| e.to_string())
}

fn node_id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| format!("{text:?} is no node's id"))
}

/// Where something lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum At<'a> {
    Founded,
    Origin,
    Wanted(&'a str),
    Node(u64),
    Removed(u64),
    Namespace(&'a Namespace),
    Member(&'a Namespace, u64),
}

impl At<'_> {
    pub(crate) fn key(&self) -> Key {
        let text = match self {
            At::Founded => "founded".to_owned(),
            At::Origin => "origin".to_owned(),
            At::Wanted(address) => format!("wanted/{address}"),
            At::Node(id) => format!("node/{id:016x}"),
            At::Removed(id) => format!("removed/{id:016x}"),
            At::Namespace(name) => format!("namespace/{name}"),
            At::Member(name, id) => format!("member/{name}/{id:016x}"),
        };
        Key::new(Bytes::from(text)).expect("a name, an address or an id is a short key")
    }

    /// When what lies there was written last; nothing when there is nothing.
    pub(crate) fn written(&self, engine: &Engine) -> Result<Option<Lsn>, String> {
        let found = engine.kv(&self.key()).map_err(|e| e.to_string())?;
        Ok(found.map(|entry| entry.lsn))
    }
}

/// A change of `_cluster`: all of it, or nothing if what it was decided by is no longer so.
#[derive(Debug, Default)]
pub(crate) struct Change {
    conditions: Vec<Condition>,
    ops: Vec<Op>,
}

impl Change {
    /// Only if what lies there was last written then; `None`: only if nothing lies there.
    pub(crate) fn only_if(mut self, at: &At<'_>, written: Option<Lsn>) -> Change {
        self.conditions.push(match written {
            Some(lsn) => Condition::KvAt(at.key(), lsn),
            None => Condition::KvAbsent(at.key()),
        });
        self
    }

    pub(crate) fn put(mut self, at: &At<'_>, row: &impl Serialize) -> Change {
        let bytes = serde_json::to_vec(row).expect("a few texts and numbers are JSON");
        self.ops.push(Op::KvPut {
            key: at.key(),
            value: Value::new(bytes),
        });
        self
    }

    pub(crate) fn remove(mut self, at: &At<'_>) -> Change {
        self.ops.push(Op::KvDelete { key: at.key() });
        self
    }

    pub(crate) fn action(self) -> Action {
        Action::Write {
            conditions: self.conditions,
            ops: self.ops,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn take(catalog: &mut Catalog, at: &At<'_>, value: &str) -> Result<(), String> {
        catalog.take(&at.key(), value.as_bytes())
    }

    /// Keeps `docs/formats/cluster.md`: values as a release wrote them are read for ever.
    #[test]
    fn what_lies_in_the_catalog_is_read_and_what_is_unknown_is_passed_over() {
        let (users, mut catalog) = ("users".parse().unwrap(), Catalog::default());
        take(&mut catalog, &At::Founded, "true").unwrap();
        take(&mut catalog, &At::Origin, r#""AQ==""#).unwrap();
        take(&mut catalog, &At::Wanted("h:1"), "true").unwrap();
        let node = r#"{"name":"n1","address":"h:1"}"#;
        take(&mut catalog, &At::Node(0xfe), node).unwrap();
        let row = r#"{"fate":"live","founder":254,"origin":"AA==","ids_above":7,"later":1}"#;
        take(&mut catalog, &At::Namespace(&users), row).unwrap();
        take(&mut catalog, &At::Member(&users, 0xfe), r#"{"raft_id":9}"#).unwrap();
        take(&mut catalog, &At::Member(&users, 0xff), r#"{"raft_id":10}"#).unwrap();
        let later = Key::new("later/thing").unwrap();
        catalog.take(&later, b"\xff").unwrap();

        assert_eq!(catalog.origin, "AQ==");
        assert!(catalog.founded && catalog.wanted.contains("h:1"));
        let row = &catalog.namespaces[&users];
        assert_eq!((row.fate, row.founder, row.ids_above), (Fate::Live, 254, 7));
        assert_eq!(row.origin, "AA==");
        assert_eq!(
            catalog.voters(&users),
            BTreeSet::from([9]),
            "the other's node was taken out"
        );
        assert_eq!(
            catalog.voters(&Namespace::cluster()),
            BTreeSet::from([0xfe])
        );
        let book = catalog.book();
        assert_eq!(book.addresses[&0xfe], "h:1");
        assert_eq!(book.members[&users][&9], 0xfe);
        assert_eq!(catalog.most(), 1);
        for (key, value) in [("node/x", "{}"), ("node/fe", "{}"), ("namespace/_", "{}")] {
            let key = Key::new(key).unwrap();
            assert!(catalog.take(&key, value.as_bytes()).is_err(), "{key:?}");
        }
    }

    #[test]
    fn a_key_is_found_again_where_it_was_put() {
        let name: Namespace = "a-b".parse().unwrap();
        let key = |at: At<'_>| String::from_utf8(at.key().as_bytes().to_vec()).unwrap();
        assert_eq!(key(At::Member(&name, 10)), "member/a-b/000000000000000a");
        assert_eq!(key(At::Node(u64::MAX)), "node/ffffffffffffffff");
        assert_eq!(key(At::Namespace(&name)), "namespace/a-b");
    }
}
