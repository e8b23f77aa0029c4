//! Segments and records, read by `docs/formats/segment.md` and `records.md` alone.

use super::bytes::Reader;

pub type Id = [u8; 16];

const HEADER: usize = 256;
const FRAME: usize = 44;

/// One record as it stands in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub lsn: u64,
    pub term: u64,
    pub stamp: u64,
    pub committed: u64,
    pub crc: u32,
    /// Where its frame ends in the segment's file.
    pub end: usize,
    pub what: What,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Lineage(Lineage),
    User(Option<(Vec<u8>, Id)>, Action),
    Seal(u64),
    Check {
        segment: u64,
        last: u64,
        digest: [u8; 32],
    },
    /// Sets of voters: one, or two while one replaces the other; and how many learners there are.
    Members(Vec<Vec<u64>>, usize),
    Other(u16),
}

/// How a lineage began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    pub id: Id,
    /// Parent and fork.
    pub parent: Option<(Id, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Write(Vec<Condition>, Vec<Op>),
    Begin(Id, u32, u32),
    Stage(Id, Vec<Op>),
    Chunk(Id, Vec<u8>, Vec<u8>),
    Commit(Id),
    Abort(Id),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    KvPut(Vec<u8>, Vec<u8>),
    KvDelete(Vec<u8>),
    RowPut(Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>),
    RowDelete(Vec<u8>),
    RowDeleteColumns(Vec<u8>, Vec<Vec<u8>>),
    LobDelete(Vec<u8>),
}

/// Of which kind of entry, its key, and the LSN wanted (`None`: it must be absent).
pub type Condition = (Space, Vec<u8>, Option<u64>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    Kv,
    Row,
    Lob,
}

/// A segment, as far as its frames continue each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub id: u64,
    pub lineage: Id,
    pub namespace: String,
    pub records: Vec<Record>,
    /// The bytes of header and frames.
    pub bytes: usize,
    /// Whether a footer stands behind them, and the state's digest in it.
    pub footer: Option<Footer>,
}

impl Segment {
    /// Up to where it says that records are committed.
    pub fn vouched(&self) -> u64 {
        let said = self.records.iter().map(|r| r.committed);
        let sealed = self.footer.iter().map(|f| f.last);
        said.chain(sealed).max().unwrap_or(0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    pub last: u64,
    pub digest: [u8; 32],
}

/// Reads a segment. `None`: its header is none.
pub fn segment(file: &[u8]) -> Option<Segment> {
    let header = file.get(..HEADER)?;
    let good = header.starts_with(b"UNISNWAL") && crc(0, &header[..252]) == word(&header[252..]);
    if !good {
        return None;
    }
    let mut r = Reader(&header[12..]);
    let mut seed = r.int()?;
    let id = r.long()?;
    r.take(8 + 16)?;
    let lineage = r.array()?;
    let name_len = usize::from(header[128]);
    let namespace = String::from_utf8(header.get(129..129 + name_len)?.to_vec()).ok()?;
    let mut records = Vec::new();
    let mut at = HEADER;
    while let Some(record) = frame(&file[at..], seed) {
        let (record, len) = record;
        seed = record.crc;
        at += len;
        records.push(Record { end: at, ..record });
    }
    Some(Segment {
        id,
        lineage,
        namespace,
        records,
        bytes: at,
        footer: footer(&file[at..]),
    })
}

fn frame(bytes: &[u8], seed: u32) -> Option<(Record, usize)> {
    let mut r = Reader(bytes);
    let sum = r.int()?;
    let len = usize::try_from(r.int()?).ok()?;
    let (lsn, term, stamp, committed) = (r.long()?, r.long()?, r.long()?, r.long()?);
    let (kind, _flags) = (r.short()?, r.short()?);
    let payload = r.take(len)?;
    if lsn == 0 || crc(seed, &bytes[4..FRAME + len]) != sum {
        return None;
    }
    let what = payload_of(kind, payload)?;
    let record = Record {
        lsn,
        term,
        stamp,
        committed,
        crc: sum,
        end: FRAME + len,
        what,
    };
    Some((record, FRAME + len))
}

fn footer(bytes: &[u8]) -> Option<Footer> {
    let bytes = bytes.get(..256)?;
    let good = bytes.starts_with(b"UNISNEND") && crc(0, &bytes[..252]) == word(&bytes[252..]);
    good.then(|| Footer {
        last: u64::from_le_bytes(bytes[40..48].try_into().expect("eight bytes")),
        digest: bytes[80..112].try_into().expect("32 bytes"),
    })
}

fn payload_of(kind: u16, payload: &[u8]) -> Option<What> {
    let mut r = Reader(payload);
    let what = match kind {
        1 => {
            let _cluster: Id = r.array()?;
            r.bytes()?;
            let id = r.array()?;
            let parent = r.option(|r| {
                let (id, fork) = (r.array()?, r.long()?);
                r.take(8 + 8 + 32 + 8 + 32 + 8)?;
                Some((id, fork))
            })?;
            return Some(What::Lineage(Lineage { id, parent }));
        }
        2 => {
            let idempotency = r.option(|r| Some((r.bytes()?, r.array()?)))?;
            What::User(idempotency, action(&mut r)?)
        }
        3 => What::Seal(r.long()?),
        4 => {
            let (segment, last, digest) = (r.long()?, r.long()?, r.array()?);
            r.take(32)?;
            What::Check {
                segment,
                last,
                digest,
            }
        }
        6 => {
            let voters = r.list(|r| r.list(Reader::long))?;
            What::Members(voters, r.list(Reader::long)?.len())
        }
        other => return Some(What::Other(other)),
    };
    r.0.is_empty().then_some(what)
}

fn action(r: &mut Reader<'_>) -> Option<Action> {
    Some(match r.int()? {
        0 => Action::Write(r.list(condition)?, r.list(op)?),
        1 => Action::Begin(r.array()?, r.int()?, r.int()?),
        2 => Action::Stage(r.array()?, r.list(op)?),
        3 => Action::Chunk(r.array()?, r.bytes()?, r.bytes()?),
        4 => Action::Commit(r.array()?),
        5 => {
            let id = r.array()?;
            r.int()?;
            Action::Abort(id)
        }
        _ => return None,
    })
}

fn op(r: &mut Reader<'_>) -> Option<Op> {
    Some(match r.int()? {
        0 => Op::KvPut(r.bytes()?, r.bytes()?),
        1 => Op::KvDelete(r.bytes()?),
        2 => Op::RowPut(r.bytes()?, r.list(|r| Some((r.bytes()?, r.bytes()?)))?),
        3 => Op::RowDelete(r.bytes()?),
        4 => Op::RowDeleteColumns(r.bytes()?, r.list(Reader::bytes)?),
        5 => Op::LobDelete(r.bytes()?),
        _ => return None,
    })
}

fn condition(r: &mut Reader<'_>) -> Option<Condition> {
    let number = r.int()?;
    let space = [Space::Kv, Space::Row, Space::Lob]
        .into_iter()
        .nth(usize::try_from(number / 2).ok()?)?;
    let key = r.bytes()?;
    let wanted = if number % 2 == 1 {
        Some(r.long()?)
    } else {
        None
    };
    Some((space, key, wanted))
}

/// CRC-32C continued from `seed`, bit by bit: a table of its own rather than the product's library.
pub fn crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut crc = !seed;
    for byte in bytes {
        crc = TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8);
    }
    !crc
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    let mut number = 0;
    while n < 256 {
        let mut crc: u32 = number;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
        number += 1;
    }
    table
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_format() {
        assert_eq!(crc(0, b"123456789"), 0xe306_9283);
        assert_eq!(crc(crc(0, b"12345"), b"6789"), 0xe306_9283);
    }

    #[test]
    fn what_is_no_segment_is_none() {
        assert_eq!(segment(b""), None);
        assert_eq!(segment(&[0; 4_096]), None);
    }
}
