//! A real workload, and a model of what it adds up to. Clients write through the HTTP API, each
//! acknowledged write is kept with its LSN; so the content of any moment can be told from the
//! clients' own notes, without the product's help, and compared with what a restore brings back.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`model`] | [`Timeline`](model::Timeline): writes by LSN, the content at each |
//! | [`load`] | how much, how far, when to stop |
//! | [`worker`] | a client: keys, rows, small objects, batches, transactions, conditions, retries |
//! | [`transaction`] | what a client writes in transactions |
//! | [`upload`] | one large object, in one transaction that outlives a kill |
//! | [`archive`] | backups of both kinds, and digests, while the others write |
//! | [`content`] | everything that a node serves, read back |
//! | [`restore`] | `udbctl restore`, and the times of records |
//! | [`settle`] | after a kill: what is lost, what became of unknown writes |
//! | [`text`] | base64, percent encoding, chance |
//!
//! A write that was not answered is *unknown*: it happened or not, whole. Each client has at most
//! one, in keys that are its own, so what is found after the restart tells which.

pub mod archive;
pub mod content;
pub mod load;
pub mod model;
pub mod restore;
pub mod settle;
pub mod text;
pub mod transaction;
pub mod upload;
pub mod worker;

/// The namespace under load.
pub const NAMESPACE: &str = "load";

/// The path of `rest` in that namespace.
pub fn path(rest: &str) -> String {
    format!("/api/v1/{NAMESPACE}/{rest}")
}
