//! What nodes answer. Fields beyond those that scripts know stand beside them, never instead.

use serde::{Deserialize, Serialize};
use unisondb_types::{Chain, ClusterId, Digest, LineageId, Lsn, SegmentId, Sha256Sum, Stamp, TxId};

use crate::Base64;

/// A write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Always true.
    pub success: bool,
    /// Where it stands in the log.
    pub lsn: Lsn,
}

/// A batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchWritten {
    /// Always true.
    pub success: bool,
    /// How many operations.
    pub processed: u32,
    /// Where it stands in the log.
    pub lsn: Lsn,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its value; empty when it is not there.
    pub value: Base64,
    /// Whether it is there.
    pub found: bool,
}

/// A page of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In scan order.
    pub items: Vec<PageItem>,
    /// For the next page; `None` at the end.
    pub cursor: Option<String>,
    /// The moment that the page shows.
    pub lsn: Lsn,
}

/// An entry on a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageItem {
    /// The key, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key, if it is not.
    #[serde(rename = "keyB64", skip_serializing_if = "Option::is_none")]
    pub key_b64: Option<Base64>,
    /// The value, unless left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Base64>,
}

/// A transaction begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Begun {
    /// Its id.
    pub txn_id: TxId,
    /// Always true.
    pub success: bool,
    /// Where its beginning stands in the log.
    pub lsn: Lsn,
}

/// A transaction committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Always true.
    pub success: bool,
    /// Where the commit stands in the log.
    pub lsn: Lsn,
    /// CRC-32C of the object, if it wrote one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<u32>,
}

/// GET `/offset`: the end of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offset {
    /// The namespace.
    pub namespace: String,
    /// The active segment.
    pub segment_id: SegmentId,
    /// Behind the last record in it.
    pub offset: u64,
    /// Applied here.
    pub lsn: Lsn,
}

/// GET `/stats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// The namespace.
    pub namespace: String,
    /// Operations applied since the start.
    pub ops_received: u64,
    /// Of these, flushed.
    pub ops_flushed: u64,
    /// The active segment.
    pub current_segment: SegmentId,
    /// Behind the last record in it.
    pub current_offset: u64,
    /// When the memtable was last flushed.
    pub last_flush_time: Option<Stamp>,
    /// Applied here.
    pub lsn: Lsn,
    /// In LMDB, synced.
    pub flushed_lsn: Lsn,
    /// Fsynced in the log here.
    pub durable_lsn: Lsn,
    /// Durable on a quorum.
    pub committed_lsn: Lsn,
    /// The last record of the log.
    pub last_lsn: Lsn,
    /// Time of the last record applied.
    pub applied_time: Option<Stamp>,
    /// Transactions that are open.
    pub open_transactions: u64,
    /// Bytes that wait for a flush.
    pub memtable_bytes: u64,
    /// The history that this namespace is in.
    pub lineage: LineageId,
}

/// GET `/checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// The namespace.
    pub namespace: String,
    /// Records applied.
    pub record_processed: u64,
    /// The active segment.
    pub segment_id: SegmentId,
    /// Behind the last record in it.
    pub offset: u64,
    /// Applied here.
    pub lsn: Lsn,
    /// From here on a restart replays.
    pub flushed_lsn: Lsn,
}

/// GET `/digest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestAt {
    /// The position.
    pub lsn: Lsn,
    /// Of the whole state there.
    pub digest: Digest,
    /// Whose history.
    pub lineage: LineageId,
}

/// POST `/wal/backup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WalBackups {
    /// Ascending by id; empty when nothing is new.
    pub backups: Vec<BackedUp>,
    /// Whether all that was acknowledged before is in sealed segments.
    pub sealed: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The oldest sealed segment here.
    pub first_available: Option<SegmentId>,
    /// On whose disk the files are.
    pub node: String,
}

/// A segment copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackedUp {
    /// Its id.
    pub segment_id: SegmentId,
    /// Where the copy is.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Of the whole file.
    pub sha256: Sha256Sum,
    /// Where the same bytes can be pulled.
    pub download_url: String,
}

/// POST `/btree/backup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BtreeBackedUp {
    /// Where the snapshot is.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// The state after this record.
    pub lsn: Lsn,
    /// Time of that record.
    pub time: Stamp,
    /// Whose history.
    pub lineage: LineageId,
    /// Replay needs only segments above this one.
    pub segment_id: SegmentId,
    /// Whether it ends where a segment does.
    pub sealed: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of the state.
    pub digest: Digest,
    /// Of the file.
    pub sha256: Sha256Sum,
    /// On whose disk the file is.
    pub node: String,
}

/// POST `/wal/seal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedUpTo {
    /// Always true.
    pub success: bool,
    /// The newest sealed segment, if there is any.
    pub segment_id: Option<SegmentId>,
    /// At or above every write acknowledged before.
    pub lsn: Lsn,
}

/// GET `/wal/segments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segments {
    /// Ascending by id.
    pub segments: Vec<Segment>,
    /// On which node.
    pub node: String,
}

/// A segment as it is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// Its id.
    pub segment_id: SegmentId,
    /// `active`, `rolled` or `sealed`.
    pub state: String,
    /// Length of its data.
    pub bytes: u64,
    /// Records in it.
    pub records: u64,
    /// First position.
    pub first_lsn: Lsn,
    /// Last position, if any record is there.
    pub last_lsn: Option<Lsn>,
    /// Time of the first record.
    pub first_time: Option<Stamp>,
    /// Time of the last record.
    pub last_time: Option<Stamp>,
    /// Of the file, once sealed.
    pub sha256: Option<Sha256Sum>,
    /// Over all bytes up to its end, once ended.
    pub chain: Option<Chain>,
    /// Of the state at its end, once sealed.
    pub digest: Option<Digest>,
    /// Its history.
    pub lineage: LineageId,
    /// The segment before it.
    pub predecessor: Option<Predecessor>,
}

/// The segment before another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Predecessor {
    /// Its id.
    pub segment_id: SegmentId,
    /// Its history.
    pub lineage: LineageId,
    /// Its chain.
    pub chain: Chain,
}

/// GET `/health`. Notes of namespaces stand beside these fields, under names of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok` or `degraded`.
    pub status: String,
    /// Their names, sorted.
    pub namespaces: Vec<String>,
    /// The node's name.
    #[serde(default)]
    pub node: String,
    /// `leader`, `follower` or `relayer`.
    #[serde(default)]
    pub role: String,
    /// The cluster or single node.
    #[serde(default)]
    pub cluster: Option<ClusterId>,
    /// Everything else.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

/// A namespace made, or there already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceMade {
    /// Always true.
    pub success: bool,
    /// Its name.
    pub name: String,
}
