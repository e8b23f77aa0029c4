//! [`Trailer`]: the last page of a snapshot, which says what the snapshot is and proves that it is
//! whole (D15; `docs/formats/snapshot.md`).
//!
//! It lies behind the last page that LMDB knows of, so LMDB ignores it and later writes over it:
//! `cp` into `db/` restores. It travels with the file, whatever the file is called.

use sha2::{Digest as _, Sha256};
use unisondb_types::{
    Chain, ClusterId, Digest, LineageId, Lsn, Namespace, SegmentId, Sha256Sum, Stamp, Term,
};

use crate::Source;
use crate::image::Error;

/// Length of the trailer, and what its place in a file is a multiple of, in bytes.
pub const TRAILER_BYTES: usize = 4_096;
/// The version of the layout that this release writes, and the only one that it reads.
pub const VERSION: u32 = 1;
/// What a trailer begins with. No page of LMDB's does: a page begins with its own number.
pub const MAGIC: [u8; 16] = *b"UNISONDB-SNAP\0\r\n";

/// Where the CRC stands: over everything before it.
const CRC_AT: usize = TRAILER_BYTES - 4;
/// Bytes that are read at once for the checksum.
const CHUNK_BYTES: usize = 1 << 20;

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    /// Length of all before the trailer, in bytes.
    pub image_bytes: u64,
    /// SHA-256 of all before the trailer.
    pub image_sum: Sha256Sum,
    /// The namespace.
    pub namespace: Namespace,
    /// The cluster or single node.
    pub cluster: ClusterId,
    /// The history that `lsn` is a position of.
    pub lineage: LineageId,
    /// The last record that the image holds.
    pub lsn: Lsn,
    /// That record's term.
    pub term: Term,
    /// That record's stamp.
    pub stamp: Stamp,
    /// CRC of that record's frame: the seed of the next one's.
    pub frame_crc: u32,
    /// The segment that holds that record; zero if unknown.
    pub segment: SegmentId,
    /// The segment that the next record goes into: `segment`, or the one after it when it ended
    /// with this record.
    pub next_segment: SegmentId,
    /// The chain up to and including `chain_lsn`.
    pub chain: Chain,
    /// What `chain` covers: the end of the last whole segment at or below `lsn`.
    pub chain_lsn: Lsn,
    /// Digest of the state in the image.
    pub digest: Digest,
    /// Version of the entries' encoding in the image.
    pub format: u32,
}

impl Trailer {
    /// The trailer's bytes.
    ///
    /// # Panics
    /// When `image_bytes` is not a multiple of [`TRAILER_BYTES`], which every LMDB file's length is.
    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        assert_eq!(
            self.image_bytes % TRAILER_BYTES as u64,
            0,
            "an image of {} bytes is not made of pages",
            self.image_bytes
        );
        let name = self.namespace.as_str().as_bytes();
        let name_len = u8::try_from(name.len()).expect("namespaces have at most 64 bytes");
        let mut page = [0; TRAILER_BYTES];
        let mut w = Writer {
            page: &mut page,
            at: 0,
        };
        w.put(&MAGIC);
        w.put(&VERSION.to_le_bytes());
        w.put(&self.format.to_le_bytes());
        w.put(&self.image_bytes.to_le_bytes());
        w.put(self.image_sum.as_bytes());
        w.put(self.cluster.as_bytes());
        w.put(self.lineage.as_bytes());
        for number in [
            self.lsn.get(),
            self.term.get(),
            self.stamp.micros(),
            self.segment.get(),
            self.next_segment.get(),
            self.chain_lsn.get(),
        ] {
            w.put(&number.to_le_bytes());
        }
        w.put(self.chain.as_bytes());
        w.put(self.digest.as_bytes());
        w.put(&self.frame_crc.to_le_bytes());
        w.put(&[name_len]);
        w.put(name);
        let crc = crc32c::crc32c(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// Reads a trailer from its bytes. `None` if they are something else: they do not begin with
    /// [`MAGIC`].
    ///
    /// # Errors
    /// [`Error::Trailer`] when they are a trailer that is damaged, or of another version.
    pub fn decode(page: &[u8; TRAILER_BYTES]) -> Result<Option<Trailer>, Error> {
        let mut r = Reader { page, at: 0 };
        if r.take::<16>() != MAGIC {
            return Ok(None);
        }
        let crc = crc32c::crc32c(&page[..CRC_AT]);
        let said = Reader { page, at: CRC_AT }.u32();
        if crc != said {
            let why = format!("its CRC is {crc:08x}, it says {said:08x}");
            return Err(Error::trailer(why));
        }
        let version = r.u32();
        if version != VERSION {
            let why = format!("its version is {version}, this release reads {VERSION}");
            return Err(Error::trailer(why));
        }
        let format = r.u32();
        let image_bytes = r.u64();
        let image_sum = Sha256Sum::from_bytes(r.take());
        let cluster = ClusterId::from_bytes(r.take());
        let lineage = LineageId::from_bytes(r.take());
        let (lsn, term, stamp) = (Lsn::new(r.u64()), Term::new(r.u64()), r.u64());
        let (segment, next_segment) = (SegmentId::new(r.u64()), SegmentId::new(r.u64()));
        let chain_lsn = Lsn::new(r.u64());
        let chain = Chain::from_bytes(r.take());
        let digest = Digest::from_bytes(r.take());
        let frame_crc = r.u32();
        let [name_len] = r.take();
        let name: [u8; 64] = r.take();
        let namespace = name
            .get(..usize::from(name_len))
            .and_then(|n| std::str::from_utf8(n).ok())
            .and_then(|n| Namespace::recorded(n).ok())
            .ok_or_else(|| Error::trailer("its namespace is not the name of one"))?;
        if !image_bytes.is_multiple_of(TRAILER_BYTES as u64) {
            let why = format!("it stands behind {image_bytes} bytes, which are not pages");
            return Err(Error::trailer(why));
        }
        Ok(Some(Trailer {
            image_bytes,
            image_sum,
            namespace,
            cluster,
            lineage,
            lsn,
            term,
            stamp: Stamp::from_micros(stamp),
            frame_crc,
            segment,
            next_segment,
            chain,
            chain_lsn,
            digest,
            format,
        }))
    }

    /// The trailer at the end of a file; `None` if it has none. The bytes before it have not been
    /// looked at: [`verify`](Trailer::verify) does.
    ///
    /// # Errors
    /// [`Error::Trailer`] when there is one, but damaged, or not where it says that it stands.
    pub fn find(source: impl Source) -> Result<Option<Trailer>, Error> {
        let len = source.len()?;
        let Some(at) = len.checked_sub(TRAILER_BYTES as u64) else {
            return Ok(None);
        };
        if !at.is_multiple_of(TRAILER_BYTES as u64) {
            return Ok(None);
        }
        let mut page = [0; TRAILER_BYTES];
        source.read_at(&mut page, at)?;
        match Trailer::decode(&page)? {
            Some(t) if t.image_bytes != at => Err(Error::trailer(format!(
                "it stands behind {at} bytes instead of {}",
                t.image_bytes
            ))),
            found => Ok(found),
        }
    }

    /// Whether `bytes` may be the beginning of a trailer, perhaps a cut one.
    pub fn may_begin(bytes: &[u8]) -> bool {
        let n = bytes.len().min(MAGIC.len());
        n > 0 && bytes[..n] == MAGIC[..n]
    }

    /// Reads all bytes before the trailer and compares their sum.
    ///
    /// # Errors
    /// [`Error::Sum`] when they differ, [`Error::Truncated`] when some are missing.
    pub fn verify(&self, source: impl Source) -> Result<(), Error> {
        let have = source.len()?;
        let want = self.image_bytes;
        if have < want {
            return Err(Error::Truncated { have, want });
        }
        let mut sum = Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut at = 0;
        while at < want {
            let n = usize::try_from(want - at).map_or(CHUNK_BYTES, |n| n.min(CHUNK_BYTES));
            source.read_at(&mut chunk[..n], at)?;
            sum.update(&chunk[..n]);
            at += n as u64;
        }
        let found = Sha256Sum::from_bytes(sum.finalize().into());
        if found == self.image_sum {
            return Ok(());
        }
        let expected = self.image_sum;
        Err(Error::Sum { expected, found })
    }
}

struct Writer<'p> {
    page: &'p mut [u8; TRAILER_BYTES],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.page[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

/// Reads fields at fixed places: the page is longer than all of them together.
struct Reader<'p> {
    page: &'p [u8; TRAILER_BYTES],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let bytes = &self.page[self.at..self.at + N];
        self.at += N;
        bytes.try_into().expect("N bytes were cut out")
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::image::{Image, check_live};
    use crate::store::tests::{MUST_EXIST, copy, store};
    use crate::{DATA_FILE, Store};

    fn trailer(image: &[u8]) -> Trailer {
        Trailer {
            image_bytes: image.len() as u64,
            image_sum: Sha256Sum::from_bytes(Sha256::digest(image).into()),
            namespace: "users".parse().unwrap(),
            cluster: ClusterId::from_bytes([0xc1; 16]),
            lineage: LineageId::from_bytes([0x11; 16]),
            lsn: Lsn::new(0x0102_0304),
            term: Term::new(7),
            stamp: Stamp::from_micros(1_736_346_600_000_000),
            frame_crc: 0xdead_beef,
            segment: SegmentId::new(42),
            next_segment: SegmentId::new(43),
            chain: Chain::from_bytes([0xcc; 32]),
            chain_lsn: Lsn::new(0x0102_0300),
            digest: Digest::from_bytes([0xdd; 32]),
            format: 1,
        }
    }

    /// An image of a hundred entries and its trailer.
    fn snapshot() -> (Vec<u8>, Trailer) {
        let (_dir, store) = store();
        let entries = (0..100u8).map(|n| ([n], Some(vec![n; 500])));
        store.commit(entries).unwrap();
        let mut file = copy(&store);
        let trailer = trailer(&file);
        file.extend_from_slice(&trailer.encode());
        (file, trailer)
    }

    #[test]
    fn every_field_stands_where_the_format_says() {
        let page = trailer(&[5; 8_192]).encode();
        assert_eq!(&page[0..16], b"UNISONDB-SNAP\0\r\n");
        assert_eq!(page[16..20], 1u32.to_le_bytes());
        assert_eq!(page[20..24], 1u32.to_le_bytes());
        assert_eq!(page[24..32], 8_192u64.to_le_bytes());
        assert_eq!(page[32..64], *Sha256::digest([5; 8_192]));
        assert_eq!(page[64..80], [0xc1; 16]);
        assert_eq!(page[80..96], [0x11; 16]);
        assert_eq!(page[96..104], 0x0102_0304u64.to_le_bytes());
        assert_eq!(page[104..112], 7u64.to_le_bytes());
        assert_eq!(page[112..120], 1_736_346_600_000_000u64.to_le_bytes());
        assert_eq!(page[120..128], 42u64.to_le_bytes());
        assert_eq!(page[128..136], 43u64.to_le_bytes());
        assert_eq!(page[136..144], 0x0102_0300u64.to_le_bytes());
        assert_eq!(page[144..176], [0xcc; 32]);
        assert_eq!(page[176..208], [0xdd; 32]);
        assert_eq!(page[208..212], [0xef, 0xbe, 0xad, 0xde]);
        assert_eq!(&page[212..218], b"\x05users");
        assert!(page[218..CRC_AT].iter().all(|&b| b == 0));
        assert_eq!(
            page[CRC_AT..],
            crc32c::crc32c(&page[..CRC_AT]).to_le_bytes()
        );
    }

    #[test]
    fn a_snapshot_opens_in_lmdb_and_goes_on() {
        let (file, expected) = snapshot();
        assert_eq!(Trailer::find(&file).unwrap().as_ref(), Some(&expected));
        expected.verify(&file).unwrap();
        let image = Image::open(&file).unwrap();
        assert_eq!(
            (image.scan().unwrap().entries, image.iter().count()),
            (100, 100)
        );

        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join(DATA_FILE);
        fs::write(&data, &file).unwrap();
        for round in 0..3u8 {
            let store = Store::open(dir.path(), MUST_EXIST).unwrap();
            let entries = (0..200u8).map(|n| ([n], Some(vec![round; 3_000])));
            store.commit(entries).unwrap();
            assert_eq!(store.read().unwrap().entries().unwrap(), 200);
            store.close();
        }
        let live = fs::read(&data).unwrap();
        assert_eq!(Image::open(&live).unwrap().scan().unwrap().entries, 200);
        // LMDB has written over the trailer: the file is no snapshot any more.
        assert_eq!(Trailer::find(&live).unwrap(), None);
    }

    #[test]
    fn a_trailer_counts_only_at_the_very_end() {
        let (file, _) = snapshot();
        let image = file.len() - TRAILER_BYTES;
        // Cut, in the trailer or before it: no trailer, and before it too short as well.
        for keep in [
            file.len() - 1,
            image + 1,
            image,
            image - 1,
            image - TRAILER_BYTES,
            100,
            0,
        ] {
            assert_eq!(Trailer::find(&file[..keep]).unwrap(), None, "{keep}");
            assert_eq!(check_live(&file[..keep]).is_ok(), keep >= image, "{keep}");
        }
        // Something behind it.
        for more in [1, TRAILER_BYTES] {
            let longer = [&file[..], &vec![0; more]].concat();
            assert_eq!(Trailer::find(&longer).unwrap(), None);
        }
        // The right trailer behind the wrong number of pages.
        let moved = [&file[..TRAILER_BYTES], &file[image..]].concat();
        let e = Trailer::find(&moved).unwrap_err().to_string();
        assert!(e.contains("it stands behind 4096 bytes instead of"), "{e}");
    }

    #[test]
    fn any_flipped_byte_of_a_snapshot_is_found() {
        let (file, expected) = snapshot();
        let image = file.len() - TRAILER_BYTES;
        for at in image..file.len() {
            let mut page: [u8; TRAILER_BYTES] = file[image..].try_into().unwrap();
            page[at - image] ^= 0x10;
            match Trailer::decode(&page) {
                // Not to be known as a trailer: the file is then of unknown origin.
                Ok(found) => assert!(found.is_none() && at - image < MAGIC.len(), "{at}"),
                Err(e) => assert!(matches!(e, Error::Trailer { .. }), "{e}"),
            }
        }
        for at in (0..image).step_by(997) {
            let mut file = file.clone();
            file[at] ^= 1;
            let e = expected.verify(&file);
            assert!(matches!(e, Err(Error::Sum { .. })), "{e:?} at {at}");
        }
        assert!(matches!(
            expected.verify(&file[..image - 1]),
            Err(Error::Truncated { .. })
        ));
    }

    #[test]
    fn another_version_is_refused_by_number() {
        let mut page = trailer(&[]).encode();
        page[16] = 9;
        let crc = crc32c::crc32c(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        let e = Trailer::decode(&page).unwrap_err().to_string();
        assert!(e.ends_with("its version is 9, this release reads 1"), "{e}");
    }

    proptest! {
        #[test]
        fn decoding_gives_back_what_was_encoded(
            name in "[a-z0-9][a-z0-9_-]{0,63}",
            pages in 0u64..1 << 40,
            numbers in any::<[u64; 6]>(),
            hashes in any::<[[u8; 32]; 3]>(),
            ids in any::<[[u8; 16]; 2]>(),
            small in any::<[u32; 2]>(),
        ) {
            let Ok(namespace) = name.parse() else { return Ok(()) };
            let t = Trailer {
                image_bytes: pages * TRAILER_BYTES as u64,
                image_sum: Sha256Sum::from_bytes(hashes[0]),
                namespace,
                cluster: ClusterId::from_bytes(ids[0]),
                lineage: LineageId::from_bytes(ids[1]),
                lsn: Lsn::new(numbers[0]),
                term: Term::new(numbers[1]),
                stamp: Stamp::from_micros(numbers[2]),
                frame_crc: small[0],
                segment: SegmentId::new(numbers[3]),
                next_segment: SegmentId::new(numbers[4]),
                chain: Chain::from_bytes(hashes[1]),
                chain_lsn: Lsn::new(numbers[5]),
                digest: Digest::from_bytes(hashes[2]),
                format: small[1],
            };
            prop_assert_eq!(Trailer::decode(&t.encode()).unwrap(), Some(t));
        }

        #[test]
        fn any_page_gives_an_answer(bytes in prop::collection::vec(any::<u8>(), 300), magic: bool, crc: bool) {
            let mut page = [0; TRAILER_BYTES];
            page[..300].copy_from_slice(&bytes);
            if magic {
                page[..16].copy_from_slice(&MAGIC);
                page[16..20].copy_from_slice(&VERSION.to_le_bytes());
            }
            if crc {
                let crc = crc32c::crc32c(&page[..CRC_AT]);
                page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            }
            let decoded = Trailer::decode(&page);
            // What is understood is written the same way again, up to room that nobody reads.
            if let Ok(Some(t)) = decoded {
                prop_assert_eq!(Trailer::decode(&t.encode()).unwrap(), Some(t));
            }
        }
    }
}
