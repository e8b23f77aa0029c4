//! What a `data.mdb` says of itself, read without mapping it: the `Position` and the lineage
//! record among its entries, and, entry by entry, whether all that it holds is what was written.

use std::collections::BTreeMap;

use unisondb_store::image::Image;
use unisondb_store::{Source, Trailer};
use unisondb_types::{Digest, LineageRecord, SegmentId, Sha256Sum, TxId, codec};

use crate::state::entry;
use crate::state::position::{self, Position};
use crate::state::rows::{Manifest, TxRow};
use crate::state::table::{self, Table};

/// Where the state in a file stands, and in which history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where it stands.
    pub position: Position,
    /// The record that its lineage began with.
    pub history: LineageRecord,
}

/// What walking all entries of a file counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Entries.
    pub entries: u64,
    /// Digest of the state that they are.
    pub digest: Digest,
}

impl Stored {
    /// Reads both entries.
    ///
    /// # Errors
    /// In words: a damaged page or entry, or none of them there, so that it is no state of ours.
    pub fn of<S: Source>(image: &Image<S>) -> Result<Stored, String> {
        let stored = Stored {
            position: meta(image, position::POSITION)?,
            history: meta(image, position::LINEAGE)?,
        };
        let format = stored.position.format;
        if format != position::FORMAT {
            let known = position::FORMAT;
            return Err(format!(
                "its format is {format}, this release reads {known}"
            ));
        }
        if stored.position.lineage != stored.history.lineage {
            return Err(format!(
                "its position is of lineage {}, its lineage record of {}",
                stored.position.lineage, stored.history.lineage
            ));
        }
        Ok(stored)
    }

    /// The facts of a trailer, for a file of `image_bytes` that has none (and so no checksum).
    pub fn as_trailer(&self, image_bytes: u64) -> Trailer {
        let p = &self.position;
        Trailer {
            image_bytes,
            image_sum: Sha256Sum::default(),
            namespace: p.namespace.clone(),
            cluster: p.cluster,
            lineage: p.lineage,
            lsn: p.lsn,
            term: p.term,
            stamp: p.stamp,
            frame_crc: p.crc,
            segment: p.segment,
            next_segment: if p.segment_ended {
                p.segment.next()
            } else {
                p.segment
            },
            chain: p.chain,
            chain_lsn: p.chain_lsn,
            digest: p.digest,
            format: u32::from(p.format),
        }
    }

    /// Whether `trailer` speaks of this state; if not, of which fact it says something else.
    pub fn contradicts(&self, trailer: &Trailer) -> Option<String> {
        let own = self.as_trailer(trailer.image_bytes);
        let differ = |what: &str, own: String, said: String| {
            (own != said).then(|| format!("{what} is {own}, its trailer says {said}"))
        };
        let text = |t: &dyn std::fmt::Display| t.to_string();
        differ(
            "its namespace",
            text(&own.namespace),
            text(&trailer.namespace),
        )
        .or_else(|| differ("its lineage", text(&own.lineage), text(&trailer.lineage)))
        .or_else(|| differ("its LSN", text(&own.lsn), text(&trailer.lsn)))
        .or_else(|| differ("its stamp", text(&own.stamp), text(&trailer.stamp)))
        .or_else(|| differ("its digest", text(&own.digest), text(&trailer.digest)))
        .or_else(|| differ("its chain", text(&own.chain), text(&trailer.chain)))
    }

    /// Walks all entries: each one's checksum, the digest over those that count, the chunks of
    /// each large object. `each` hears of every entry's length.
    ///
    /// # Errors
    /// In words, the first thing found wrong.
    pub fn walk<S: Source>(
        &self,
        image: &Image<S>,
        each: &mut dyn FnMut(u64),
    ) -> Result<Walked, String> {
        let mut walked = Walked {
            entries: 0,
            digest: Digest::EMPTY,
        };
        let mut wanted: Vec<Manifest> = Vec::new();
        let mut found: BTreeMap<TxId, Manifest> = BTreeMap::new();
        for item in image.iter() {
            let item = item.map_err(|e| e.to_string())?;
            let shown = || item.key.escape_ascii().to_string();
            let table = Table::of(&item.key)
                .ok_or_else(|| format!("entry {} is of no table known here", shown()))?;
            let entry = entry::open(&item.key, &item.value).map_err(|e| e.to_string())?;
            let bad = |e| format!("entry {}: {e}", shown());
            match table {
                Table::Lob => wanted.push(codec::decode(entry.payload).map_err(bad)?),
                Table::Tx => {
                    let row: TxRow = codec::decode(entry.payload).map_err(bad)?;
                    wanted.extend(row.lob.map(|(_, manifest)| manifest));
                }
                Table::Chunk => {
                    let object = table::tx_id(&item.key);
                    let object = object.ok_or_else(|| format!("{} is no chunk's key", shown()))?;
                    let sum = found
                        .entry(object)
                        .or_insert_with(|| Manifest::empty(object));
                    sum.push(entry.payload);
                }
                _ => {}
            }
            if table.in_digest() {
                walked.digest.add(&entry.hash);
            }
            walked.entries += 1;
            each(item.value.len() as u64);
        }
        for manifest in wanted {
            let object = manifest.object;
            let none = Manifest::empty(object);
            let sum = found.get(&object).unwrap_or(&none);
            if *sum != manifest {
                return Err(format!(
                    "large object {object} should have {} bytes in {} chunks, {} in {} were found",
                    manifest.len, manifest.chunks, sum.len, sum.chunks
                ));
            }
        }
        if walked.digest != self.position.digest {
            return Err(format!(
                "the digest of its entries is {}, it says {}",
                walked.digest, self.position.digest
            ));
        }
        Ok(walked)
    }

    /// The highest segment id that it knows of.
    pub fn newest_segment(&self) -> SegmentId {
        self.position.segment
    }
}

fn meta<S: Source, T: bincode::Decode<()>>(image: &Image<S>, name: &str) -> Result<T, String> {
    let key = table::meta(name);
    let bytes = image.get(&key).map_err(|e| e.to_string())?;
    let bytes = bytes.ok_or_else(|| {
        format!("it has no {name} entry: an LMDB file, but no state of a namespace")
    })?;
    let entry = entry::open(&key, &bytes).map_err(|e| e.to_string())?;
    codec::decode(entry.payload).map_err(|e| format!("its {name} entry: {e}"))
}
