//! [`Tally`]: what a segment adds up to so far. One account, kept alike by whoever appends, reads,
//! recovers or verifies, so that footers, infos and next headers all come from the same sums.

use sha2::{Digest as _, Sha256};
use unisondb_types::{
    Chain, Digest, Kind, LineageId, Lsn, Record, SegmentId, Sha256Sum, Stamp, Term, codec,
};

use crate::footer::Footer;
use crate::frame::FrameError;
use crate::header::{HEADER_BYTES, Predecessor, SegmentHeader};
use crate::info::{SegmentInfo, SegmentState};

/// Whether the SHA-256 of the content is kept along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hashing {
    On,
    Off,
}

#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub header: SegmentHeader,
    /// The last record; before the first one, that before the segment.
    pub last_lsn: Lsn,
    pub last_term: Term,
    pub first_stamp: Stamp,
    pub last_stamp: Stamp,
    pub last_crc: u32,
    pub records: u64,
    /// Length of header and frames.
    pub bytes: u64,
    pub user_data: bool,
    /// A `Seal` that names this segment while it held user data: it ends here (D4).
    pub ended: bool,
    /// Highest committed LSN on its frames.
    pub vouched: Lsn,
    hash: Option<Sha256>,
}

impl Tally {
    /// Of a segment without records.
    pub fn new(header: SegmentHeader, hashing: Hashing) -> Tally {
        let hash = (hashing == Hashing::On).then(|| {
            let mut h = Sha256::new();
            h.update(header.encode());
            h
        });
        Tally {
            last_lsn: header.first_lsn.prev(),
            last_term: Term::default(),
            first_stamp: Stamp::ZERO,
            last_stamp: Stamp::ZERO,
            last_crc: header.crc_seed,
            records: 0,
            bytes: HEADER_BYTES as u64,
            user_data: false,
            ended: false,
            vouched: Lsn::ZERO,
            hash,
            header,
        }
    }

    /// Of a sealed segment, from what its ends say.
    pub fn sealed(header: SegmentHeader, footer: &Footer) -> Tally {
        Tally {
            last_lsn: footer.last_lsn,
            last_term: footer.last_term,
            first_stamp: footer.first_stamp,
            last_stamp: footer.last_stamp,
            last_crc: footer.last_crc,
            records: footer.records,
            bytes: footer.content_bytes,
            user_data: footer.user_data,
            ended: true,
            vouched: footer.last_lsn,
            hash: None,
            header,
        }
    }

    /// Whether a record may stand next; its CRC is known to be good.
    pub fn check(&self, record: &Record) -> Result<(), FrameError> {
        let wrong = |why: String| Err(FrameError::Order(why));
        if record.lsn != self.last_lsn.next() {
            return wrong(format!("it is numbered {}", record.lsn));
        }
        if record.term < self.last_term {
            return wrong(format!(
                "its term {} is below {}",
                record.term, self.last_term
            ));
        }
        if record.stamp < self.last_stamp {
            return wrong(format!(
                "its stamp {} is before {}",
                record.stamp, self.last_stamp
            ));
        }
        if record.committed >= record.lsn {
            return wrong(format!("it vouches for itself ({})", record.committed));
        }
        Ok(())
    }

    /// One more record; `frame` is all of its bytes.
    pub fn add(&mut self, record: &Record, frame: &[u8], crc: u32) {
        debug_assert_eq!(self.check(record), Ok(()));
        if self.records == 0 {
            self.first_stamp = record.stamp;
        }
        self.last_lsn = record.lsn;
        self.last_term = record.term;
        self.last_stamp = record.stamp;
        self.last_crc = crc;
        self.records += 1;
        self.bytes += frame.len() as u64;
        self.vouched = self.vouched.max(record.committed);
        self.user_data |= record.kind.is_user_data();
        // A payload that is no segment id names no segment: alike on every node.
        self.ended |= record.kind == Kind::Seal
            && self.user_data
            && codec::decode::<SegmentId>(&record.payload).ok() == Some(self.header.id);
        if let Some(h) = &mut self.hash {
            h.update(frame);
        }
    }

    /// Whether one of its records has this position.
    pub fn holds(&self, lsn: Lsn) -> bool {
        self.header.first_lsn <= lsn && lsn <= self.last_lsn
    }

    /// Whether a frame of this length goes into the next segment instead.
    pub fn rolls_before(&self, frame_bytes: u64) -> bool {
        self.ended || (self.records > 0 && self.bytes + frame_bytes > self.header.segment_size)
    }

    /// SHA-256 of header and frames.
    ///
    /// # Panics
    /// When it was not kept.
    pub fn content_sha256(&self) -> Sha256Sum {
        let hash = self.hash.clone().expect("the tally was begun with hashing");
        Sha256Sum::from_bytes(hash.finalize().into())
    }

    /// SHA-256 of header, frames and `footer`.
    pub fn file_sha256(&self, footer: &Footer) -> Sha256Sum {
        let hash = self.hash.clone().expect("the tally was begun with hashing");
        Sha256Sum::from_bytes(hash.chain_update(footer.encode()).finalize().into())
    }

    /// Nothing is added any more: the hash is not needed.
    pub fn forget_hash(&mut self) {
        self.hash = None;
    }

    /// The chain up to here.
    pub fn chain(&self) -> Chain {
        self.header
            .chain_before()
            .extend(self.header.id, self.content_sha256())
    }

    /// The footer that seals the segment here.
    pub fn footer(&self, digest: Digest, cut_by: Option<LineageId>) -> Footer {
        assert!(self.records > 0, "segment {} is empty", self.header.id);
        Footer {
            id: self.header.id,
            records: self.records,
            first_lsn: self.header.first_lsn,
            last_lsn: self.last_lsn,
            first_stamp: self.first_stamp,
            last_stamp: self.last_stamp,
            last_term: self.last_term,
            last_crc: self.last_crc,
            user_data: self.user_data,
            digest,
            chain: self.chain(),
            content_bytes: self.bytes,
            content_sha256: self.content_sha256(),
            cut_by,
        }
    }

    /// Which fact of `footer` differs from these sums, if one does. The chain and the content's
    /// SHA-256 are compared when they were kept.
    pub fn contradicts(&self, footer: &Footer) -> Option<String> {
        let differ = |what: &str, footer: String, found: String| {
            (footer != found).then(|| format!("{what} should be {found}, the footer says {footer}"))
        };
        let text = |t: &dyn std::fmt::Display| t.to_string();
        let first = self.header.first_lsn;
        differ("id", text(&footer.id), text(&self.header.id))
            .or_else(|| differ("first LSN", text(&footer.first_lsn), text(&first)))
            .or_else(|| differ("last LSN", text(&footer.last_lsn), text(&self.last_lsn)))
            .or_else(|| differ("records", text(&footer.records), text(&self.records)))
            .or_else(|| differ("content", text(&footer.content_bytes), text(&self.bytes)))
            .or_else(|| differ("last CRC", text(&footer.last_crc), text(&self.last_crc)))
            .or_else(|| differ("last term", text(&footer.last_term), text(&self.last_term)))
            .or_else(|| {
                let (f, t) = (footer.first_stamp, self.first_stamp);
                differ("first stamp", text(&f), text(&t))
            })
            .or_else(|| {
                let (f, t) = (footer.last_stamp, self.last_stamp);
                differ("last stamp", text(&f), text(&t))
            })
            .or_else(|| differ("user data", text(&footer.user_data), text(&self.user_data)))
            .or_else(|| {
                self.hash.as_ref()?;
                let sha = self.content_sha256();
                differ("content SHA-256", text(&footer.content_sha256), text(&sha))
                    .or_else(|| differ("chain", text(&footer.chain), text(&self.chain())))
            })
    }

    /// What a header that follows this segment in its own lineage says of it.
    pub fn as_predecessor(&self, chain: Chain) -> Predecessor {
        Predecessor {
            id: self.header.id,
            lineage: self.header.lineage,
            chain,
        }
    }

    /// For callers.
    pub fn info(&self, state: SegmentState, chain: Option<Chain>) -> SegmentInfo {
        SegmentInfo {
            id: self.header.id,
            state,
            header: self.header.clone(),
            last_lsn: (self.records > 0).then_some(self.last_lsn),
            first_stamp: self.first_stamp,
            last_stamp: self.last_stamp,
            last_term: self.last_term,
            last_crc: self.last_crc,
            records: self.records,
            bytes: self.bytes,
            user_data: self.user_data,
            vouched: self.vouched,
            chain,
            digest: None,
            sha256: None,
            cut_by: None,
        }
    }

    /// For callers: a sealed segment's.
    pub fn sealed_info(&self, footer: &Footer, sha256: Option<Sha256Sum>) -> SegmentInfo {
        SegmentInfo {
            bytes: footer.content_bytes + crate::footer::FOOTER_BYTES as u64,
            digest: Some(footer.digest),
            sha256,
            cut_by: footer.cut_by,
            ..self.info(SegmentState::Sealed, Some(footer.chain))
        }
    }
}
