//! Every bound in one place: what a client may send, and how much the server keeps in memory.
//! A request past a limit is refused with 413 and the limit's name; none is silently cut.

/// Longest key, in bytes.
pub const KEY_BYTES: usize = 480;
/// Longest row key and column name together, in bytes.
pub const ROW_AND_COLUMN_BYTES: usize = 480;
/// Most bytes of a row: the names and values of its columns together. Looked at before a write is
/// proposed and when an operation is staged, against the row as it is then: what is in flight or
/// staged at that moment may carry a row past it, by no more than that.
pub const ROW_BYTES: u64 = 64 << 20;
/// Longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES: usize = 255;
/// Longest request body, object chunks included, in bytes.
pub const BODY_BYTES: usize = 1 << 20;
/// Most items in a batch or operations in a transaction.
pub const ITEMS: usize = 10_000;
/// Most bytes staged in a transaction, object chunks not counted.
pub const TRANSACTION_BYTES: u64 = 64 << 20;
/// Most transactions open in a namespace at once.
pub const OPEN_TRANSACTIONS: u64 = 10_000;
/// A transaction without a new operation for this long is aborted. Microseconds.
pub const TRANSACTION_IDLE_MICROS: u64 = 120 * 1_000_000;
/// A transaction older than this is aborted. Microseconds.
pub const TRANSACTION_AGE_MICROS: u64 = 900 * 1_000_000;
/// How long the end of a transaction is remembered (409 "already committed"). Microseconds.
pub const TRANSACTION_MEMORY_MICROS: u64 = 3_600 * 1_000_000;
/// How long an idempotency key is remembered. Microseconds of record stamps.
pub const IDEMPOTENCY_MICROS: u64 = 24 * 3_600 * 1_000_000;
/// Most idempotency keys remembered in a namespace.
pub const IDEMPOTENCY_KEYS: u64 = 1_000_000;
/// Longest frame payload in the log, in bytes. Above [`BODY_BYTES`] by what an encoding adds.
pub const FRAME_PAYLOAD_BYTES: usize = 2 << 20;
/// Smallest segment size that may be configured, in bytes.
pub const SEGMENT_MIN_BYTES: u64 = 4 << 10;
/// Largest segment size that may be configured, in bytes.
pub const SEGMENT_MAX_BYTES: u64 = 4 << 30;
/// Proposals that may wait for the log of one namespace; more are answered 429.
pub const PROPOSALS: usize = 4_096;
/// Bytes of proposals that may wait for the logs of a node, all namespaces together; more are
/// answered 429.
pub const PROPOSAL_BYTES: usize = 128 << 20;
/// Bytes of request bodies that a node has in memory at once, those still being read counted as
/// announced; more are answered 429 before they are read. What waits for the log counts there too.
pub const BODIES_BYTES: usize = 128 << 20;
/// Most entries on one page of a scan.
pub const PAGE_ITEMS: usize = 10_000;
/// Most value bytes on one page of a scan (one entry always fits).
pub const PAGE_BYTES: usize = 8 << 20;
/// Most ancestors that a lineage may name. A restore past this is refused.
pub const ANCESTORS: usize = 10_000;
