//! The kinds of entries in the state, and their keys: each made and read by one pair of functions.
//! A key is the table's number, then what names the entry (layout in `docs/formats/state.md`).

use bytes::{BufMut, Bytes, BytesMut};
use unisondb_types::{ColumnName, IdempotencyKey, Key, Lsn, RowKey, SegmentId, Stamp, TxId};

/// A kind of entry. The numbers are on disk for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// About the state itself: position, lineage, owner.
    Meta = 0,
    /// Key-value pairs.
    Kv = 1,
    /// Rows (a header each) and their columns.
    Row = 2,
    /// Manifests of large objects.
    Lob = 3,
    /// Chunks of large objects. Not in the digest: their manifest's running hash stands for them.
    Chunk = 4,
    /// Open transactions.
    Tx = 5,
    /// What open transactions have staged.
    TxOp = 6,
    /// Ended transactions, remembered for a while.
    TxEnd = 7,
    /// Ended transactions by age. Not in the digest: follows from `TxEnd`.
    TxEndOrder = 8,
    /// Idempotency keys.
    Idempotency = 9,
    /// Idempotency keys by age. Not in the digest: follows from `Idempotency`.
    IdempotencyOrder = 10,
    /// Objects whose chunks may be freed. Not in the digest: freed at each node's leisure.
    Garbage = 11,
    /// Ended segments: position, digest and chain of each.
    Segment = 12,
}

impl Table {
    /// Whether its entries count in the digest (D13).
    pub const fn in_digest(self) -> bool {
        matches!(
            self,
            Table::Kv
                | Table::Row
                | Table::Lob
                | Table::Tx
                | Table::TxOp
                | Table::TxEnd
                | Table::Idempotency
        )
    }

    /// The table of a key; `None` for a number that this release does not know.
    pub fn of(key: &[u8]) -> Option<Table> {
        Some(match key.first()? {
            0 => Table::Meta,
            1 => Table::Kv,
            2 => Table::Row,
            3 => Table::Lob,
            4 => Table::Chunk,
            5 => Table::Tx,
            6 => Table::TxOp,
            7 => Table::TxEnd,
            8 => Table::TxEndOrder,
            9 => Table::Idempotency,
            10 => Table::IdempotencyOrder,
            11 => Table::Garbage,
            12 => Table::Segment,
            _ => return None,
        })
    }

    /// First key of the table, and first key behind it.
    pub fn bounds(self) -> (Bytes, Bytes) {
        (
            Bytes::copy_from_slice(&[self as u8]),
            Bytes::copy_from_slice(&[self as u8 + 1]),
        )
    }
}

fn join(table: Table, parts: &[&[u8]]) -> Bytes {
    let len = parts.iter().map(|p| p.len()).sum::<usize>();
    let mut key = BytesMut::with_capacity(1 + len);
    key.put_u8(table as u8);
    for part in parts {
        key.put_slice(part);
    }
    key.freeze()
}

/// An entry about the state itself.
pub fn meta(name: &str) -> Bytes {
    join(Table::Meta, &[name.as_bytes()])
}

/// A key-value pair.
pub fn kv(key: &Key) -> Bytes {
    join(Table::Kv, &[key.as_bytes()])
}

/// Any bytes in the key-value table: the bound of a scan.
pub fn kv_bound(bytes: &[u8]) -> Bytes {
    join(Table::Kv, &[bytes])
}

/// The client's key in a key-value entry's key.
pub fn kv_name(key: &[u8]) -> Option<Key> {
    Key::new(Bytes::copy_from_slice(key.get(1..)?)).ok()
}

/// A row's header: says that the row is there.
pub fn row(row: &RowKey) -> Bytes {
    join(Table::Row, &[&row_len(row), row.as_bytes()])
}

/// A column of a row: sorts right behind the header, in order of the names' bytes.
pub fn column(row: &RowKey, column: &ColumnName) -> Bytes {
    join(
        Table::Row,
        &[&row_len(row), row.as_bytes(), column.as_bytes()],
    )
}

/// The column's name in the key of a column of `row`; `None` for the header.
pub fn column_name(row: &RowKey, key: &[u8]) -> Option<ColumnName> {
    ColumnName::new(Bytes::copy_from_slice(
        key.get(1 + 2 + row.as_bytes().len()..)?,
    ))
    .ok()
}

fn row_len(row: &RowKey) -> [u8; 2] {
    u16::try_from(row.as_bytes().len())
        .expect("a row key has at most 479 bytes")
        .to_be_bytes()
}

/// The manifest of an object.
pub fn lob(key: &Key) -> Bytes {
    join(Table::Lob, &[key.as_bytes()])
}

/// The chunk of an object that begins at `offset`.
pub fn chunk(object: &TxId, offset: u64) -> Bytes {
    join(Table::Chunk, &[object.as_bytes(), &offset.to_be_bytes()])
}

/// The offset in a chunk's key.
pub fn chunk_offset(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(17..)?.try_into().ok()?))
}

/// An open transaction.
pub fn tx(id: &TxId) -> Bytes {
    join(Table::Tx, &[id.as_bytes()])
}

/// The id in the key of a transaction, open or ended, or of garbage.
pub fn tx_id(key: &[u8]) -> Option<TxId> {
    Some(TxId::from_bytes(key.get(1..17)?.try_into().ok()?))
}

/// What a transaction staged by one record.
pub fn tx_op(id: &TxId, lsn: Lsn) -> Bytes {
    join(Table::TxOp, &[id.as_bytes(), &lsn.get().to_be_bytes()])
}

/// An ended transaction.
pub fn tx_end(id: &TxId) -> Bytes {
    join(Table::TxEnd, &[id.as_bytes()])
}

/// An ended transaction by age.
pub fn tx_end_order(stamp: Stamp, id: &TxId) -> Bytes {
    join(
        Table::TxEndOrder,
        &[&stamp.micros().to_be_bytes(), id.as_bytes()],
    )
}

/// Stamp and what it stands for in a key of one of the orders by age.
pub fn ordered(key: &[u8]) -> Option<(Stamp, &[u8])> {
    let stamp = u64::from_be_bytes(key.get(1..9)?.try_into().ok()?);
    Some((Stamp::from_micros(stamp), key.get(9..)?))
}

/// An idempotency key.
pub fn idempotency(key: &IdempotencyKey) -> Bytes {
    join(Table::Idempotency, &[key.as_bytes()])
}

/// An idempotency key by age.
pub fn idempotency_order(stamp: Stamp, key: &[u8]) -> Bytes {
    join(
        Table::IdempotencyOrder,
        &[&stamp.micros().to_be_bytes(), key],
    )
}

/// An object whose chunks may be freed.
pub fn garbage(object: &TxId) -> Bytes {
    join(Table::Garbage, &[object.as_bytes()])
}

/// An ended segment.
pub fn segment(id: SegmentId) -> Bytes {
    join(Table::Segment, &[&id.get().to_be_bytes()])
}

/// The id in the key of an ended segment.
pub fn segment_id(key: &[u8]) -> Option<SegmentId> {
    Some(SegmentId::new(u64::from_be_bytes(
        key.get(1..9)?.try_into().ok()?,
    )))
}

/// The first key behind all that begin with `prefix`.
pub fn behind(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(up) = last.checked_add(1) {
            end.push(up);
            return Bytes::from(end);
        }
    }
    // Only a prefix of 0xff bytes alone has none; every key here begins with a table's number.
    Bytes::from_static(&[0xff])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_found_by_its_number_and_no_other() {
        for n in 0..=255u8 {
            match Table::of(&[n]) {
                Some(t) => assert_eq!(t as u8, n),
                None => assert!(n > 12),
            }
        }
        assert_eq!(Table::of(&[]), None);
    }

    #[test]
    fn keys_are_made_and_read_by_pairs() {
        let id = TxId::from_bytes([7; 16]);
        assert_eq!(tx_id(&tx(&id)), Some(id));
        assert_eq!(chunk_offset(&chunk(&id, 99)), Some(99));
        assert_eq!(
            segment_id(&segment(SegmentId::new(5))),
            Some(SegmentId::new(5))
        );
        let k = Key::new("a").unwrap();
        assert_eq!(kv_name(&kv(&k)), Some(k));
        let r = RowKey::new("row").unwrap();
        let c = ColumnName::new("col").unwrap();
        assert_eq!(column_name(&r, &column(&r, &c)), Some(c.clone()));
        assert_eq!(column_name(&r, &row(&r)), None);
        assert!(row(&r) < column(&r, &c));
        let longer = RowKey::new("rowc").unwrap();
        assert!(
            !column(&longer, &c).starts_with(&row(&r)),
            "rows never share a prefix"
        );
        assert_eq!(
            ordered(&tx_end_order(Stamp::from_micros(3), &id))
                .unwrap()
                .0
                .micros(),
            3
        );
    }

    #[test]
    fn behind_is_the_first_key_after_a_prefix() {
        assert_eq!(&behind(&[1, 2])[..], &[1, 3]);
        assert_eq!(&behind(&[1, 0xff, 0xff])[..], &[2]);
    }
}
