//! What a node must not forget between two votes: its raft id, term and vote, in `raft.state`
//! (D8; layout in `docs/formats/raft-state.md`).
//!
//! Two slots of 512 bytes, written in turn into space that exists, synced before the answer: a torn
//! write leaves the other slot, a full disk cannot stop a vote. Whoever reads gets the valid slot of
//! the higher generation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use unisondb_platform::{Access, Disk, DiskExt, File, FileExt};
use unisondb_types::Term;

use crate::error::Error;
use crate::frame::{u16_at, u32_at, u64_at};

/// Length of a slot.
pub const SLOT_BYTES: usize = 512;
/// Length of the file.
pub const FILE_BYTES: usize = 2 * SLOT_BYTES;
const MAGIC: &[u8; 8] = b"UNISRAFT";
const VERSION: u16 = 1;
const CRC_AT: usize = SLOT_BYTES - 4;
const VOTED: u16 = 1;
const COMMITTED: u16 = 2;

/// What is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftState {
    /// Drawn at random when the state was created; whoever empties the folder gets another one.
    pub raft_id: u64,
    /// The highest term seen.
    pub term: Term,
    /// Whom this node voted for in that term.
    pub voted_for: Option<u64>,
    /// Whether a quorum is known to have granted that vote.
    pub committed: bool,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// There is no file.
    Missing,
    /// The newest state that a good slot holds.
    Valid(RaftState),
    /// A file without a good slot.
    Damaged,
}

/// The file, open for writing.
pub struct RaftStateFile {
    path: PathBuf,
    file: Arc<dyn File>,
    slots: Slots,
    poisoned: Option<String>,
}

/// The last state written, and where.
#[derive(Debug, Clone, Copy)]
struct Slots {
    state: RaftState,
    generation: u64,
    slot: usize,
}

/// Looks at a file; writes nothing.
///
/// # Errors
/// [`Error::Io`] when it is there and cannot be read.
pub fn read(disk: &dyn Disk, path: &Path) -> Result<Found, Error> {
    Ok(load(disk, path)?.map_or(Found::Missing, |bytes| parse(&bytes)))
}

/// What a file of these bytes holds. Never [`Found::Missing`].
pub fn parse(bytes: &[u8; FILE_BYTES]) -> Found {
    newest(bytes).map_or(Found::Damaged, |slots| Found::Valid(slots.state))
}

impl RaftStateFile {
    /// Makes the file, or replaces it whole: afterwards both slots hold `state`. Durable when it
    /// returns.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`]: what was there before is untouched.
    pub fn create(disk: &dyn Disk, path: &Path, state: RaftState) -> Result<RaftStateFile, Error> {
        let mut bytes = encode(&state, 1).to_vec();
        bytes.extend_from_slice(&encode(&state, 2));
        disk.publish(path, &bytes)
            .map_err(|e| Error::io("cannot write", path, e))?;
        let file = disk
            .open(path, Access::Write)
            .map_err(|e| Error::io("cannot open", path, e))?;
        Ok(RaftStateFile {
            path: path.to_owned(),
            file,
            slots: Slots {
                state,
                generation: 2,
                slot: 1,
            },
            poisoned: None,
        })
    }

    /// Opens the file; `None` when it is missing or has no good slot (tell them apart with
    /// [`read`]). What it holds is written and synced once more first: a state whose sync failed
    /// looks good in the page cache, and must not be acted upon (D7).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Option<RaftStateFile>, Error> {
        let Some(slots) = load(disk, path)?.and_then(|bytes| newest(&bytes)) else {
            return Ok(None);
        };
        let file = disk
            .open(path, Access::Write)
            .map_err(|e| Error::io("cannot open", path, e))?;
        let mut open = RaftStateFile {
            path: path.to_owned(),
            file,
            slots,
            poisoned: None,
        };
        open.write(slots.state)?;
        Ok(Some(open))
    }

    /// What was written last.
    pub fn state(&self) -> RaftState {
        self.slots.state
    }

    /// Writes a new state over the older slot; durable when it returns. The file never grows.
    ///
    /// # Errors
    /// [`Error::Io`], and from then on [`Error::Poisoned`]: what is on disk is not known.
    pub fn write(&mut self, state: RaftState) -> Result<(), Error> {
        if let Some(why) = &self.poisoned {
            return Err(Error::Poisoned { why: why.clone() });
        }
        let next = Slots {
            state,
            generation: self.slots.generation + 1,
            slot: 1 - self.slots.slot,
        };
        let bytes = encode(&state, next.generation);
        let written = self
            .file
            .write_all_at(&bytes, (next.slot * SLOT_BYTES) as u64)
            .and_then(|()| self.file.sync());
        if let Err(source) = written {
            let error = Error::Io {
                action: "cannot write",
                path: self.path.clone(),
                source,
            };
            self.poisoned = Some(error.to_string());
            return Err(error);
        }
        self.slots = next;
        Ok(())
    }
}

impl std::fmt::Debug for RaftStateFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftStateFile")
            .field("path", &self.path)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

/// The file's bytes, no more than it can have; shorter ones are filled with zeroes.
fn load(disk: &dyn Disk, path: &Path) -> Result<Option<[u8; FILE_BYTES]>, Error> {
    let failed = |e| Error::io("cannot read", path, e);
    let file = match disk.open(path, Access::Read) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut bytes = [0; FILE_BYTES];
    let mut have = 0;
    while have < FILE_BYTES {
        match file.read_at(&mut bytes[have..], have as u64) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(Some(bytes))
}

/// The good slot with the higher generation.
fn newest(bytes: &[u8; FILE_BYTES]) -> Option<Slots> {
    (0..2)
        .filter_map(|slot| {
            let (state, generation) = decode(&bytes[slot * SLOT_BYTES..][..SLOT_BYTES])?;
            Some(Slots {
                state,
                generation,
                slot,
            })
        })
        .max_by_key(|s| s.generation)
}

fn encode(state: &RaftState, generation: u64) -> [u8; SLOT_BYTES] {
    let mut b = [0; SLOT_BYTES];
    b[0..8].copy_from_slice(MAGIC);
    b[8..10].copy_from_slice(&VERSION.to_le_bytes());
    let mut flags = 0;
    if state.voted_for.is_some() {
        flags |= VOTED;
    }
    if state.committed {
        flags |= COMMITTED;
    }
    b[10..12].copy_from_slice(&flags.to_le_bytes());
    b[16..24].copy_from_slice(&generation.to_le_bytes());
    b[24..32].copy_from_slice(&state.raft_id.to_le_bytes());
    b[32..40].copy_from_slice(&state.term.get().to_le_bytes());
    b[40..48].copy_from_slice(&state.voted_for.unwrap_or(0).to_le_bytes());
    let crc = crc32c::crc32c(&b[..CRC_AT]);
    b[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    b
}

/// One slot's state and generation; `None` for anything that [`encode`] does not make.
fn decode(slot: &[u8]) -> Option<(RaftState, u64)> {
    let b: &[u8; SLOT_BYTES] = slot.try_into().ok()?;
    if u32_at(b, CRC_AT) != crc32c::crc32c(&b[..CRC_AT]) {
        return None;
    }
    let flags = u16_at(b, 10);
    let generation = u64_at(b, 16);
    let state = RaftState {
        raft_id: u64_at(b, 24),
        term: Term::new(u64_at(b, 32)),
        voted_for: (flags & VOTED != 0).then_some(u64_at(b, 40)),
        committed: flags & COMMITTED != 0,
    };
    // No life is long enough to write so many: a slot that leaves no room for a next one is none.
    let sound = generation < u64::MAX && encode(&state, generation) == *b;
    sound.then_some((state, generation))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use unisondb_platform::memory::{Effect, MemoryDisk, OpKind, Rule};

    fn at() -> &'static Path {
        Path::new("/raft.state")
    }

    fn state(term: u64) -> RaftState {
        RaftState {
            raft_id: 77,
            term: Term::new(term),
            voted_for: Some(3),
            committed: true,
        }
    }

    #[test]
    fn a_generation_that_cannot_be_followed_is_no_slot() {
        assert!(decode(&encode(&state(5), u64::MAX - 1)).is_some());
        assert!(decode(&encode(&state(5), u64::MAX)).is_none());
    }

    #[test]
    fn golden_slot() {
        let b = encode(&state(5), 9);
        let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
        let expected = "554e495352414654 0100 0300 00000000 0900000000000000 \
                        4d00000000000000 0500000000000000 0300000000000000"
            .replace(' ', "");
        assert_eq!(hex[..96], expected);
        assert_eq!(hex[96..1016], "0".repeat(920));
        assert_eq!(&hex[1016..], GOLDEN_CRC);
        assert_eq!(decode(&b), Some((state(5), 9)));
    }
    /// By a bitwise implementation of CRC-32C.
    const GOLDEN_CRC: &str = "51e9fe1e";

    #[test]
    fn a_vote_outlives_the_machine_and_the_file_never_grows() {
        let disk = MemoryDisk::default();
        assert_eq!(read(&disk, at()).unwrap(), Found::Missing);
        let mut file = RaftStateFile::create(&disk, at(), state(1)).unwrap();
        // Not one byte of room: what is preallocated suffices.
        disk.set_capacity(Some(0));
        for term in 2..9 {
            file.write(state(term)).unwrap();
            assert_eq!(disk.durable(at()).unwrap().len(), FILE_BYTES);
        }
        let after = disk.crash(1);
        assert_eq!(read(&after, at()).unwrap(), Found::Valid(state(8)));
        let mut opened = RaftStateFile::open(&after, at()).unwrap().unwrap();
        assert_eq!(opened.state(), state(8));
        opened.write(state(9)).unwrap();
        assert_eq!(read(&after.crash(2), at()).unwrap(), Found::Valid(state(9)));
    }

    #[test]
    fn a_torn_write_leaves_the_state_before_it() {
        for n in 0.. {
            let disk = MemoryDisk::default();
            let mut file = RaftStateFile::create(&disk, at(), state(1)).unwrap();
            let from = disk.ops();
            disk.freeze_at(from + n);
            let mut told = state(1);
            let mut tried = state(1);
            for term in 2..5 {
                tried = state(term);
                if file.write(tried).is_err() {
                    break;
                }
                told = tried;
            }
            let done = told == state(4);
            for seed in 0..20 {
                let found = read(&disk.crash(seed), at()).unwrap();
                assert!(
                    found == Found::Valid(told) || found == Found::Valid(tried),
                    "{n} {found:?}"
                );
            }
            if done {
                return;
            }
        }
    }

    #[test]
    fn a_failed_sync_is_final_and_what_it_left_is_synced_before_it_is_believed() {
        for seed in 0..20 {
            let disk = MemoryDisk::default();
            disk.set_seed(seed);
            let mut file = RaftStateFile::create(&disk, at(), state(1)).unwrap();
            disk.inject(Rule::once(OpKind::Sync, "/", Effect::Eio));
            assert!(matches!(file.write(state(2)), Err(Error::Io { .. })));
            assert!(matches!(file.write(state(2)), Err(Error::Poisoned { .. })));
            let restarted = disk.kill();
            let shown = RaftStateFile::open(&restarted, at())
                .unwrap()
                .unwrap()
                .state();
            let after = read(&restarted.crash(seed), at()).unwrap();
            assert_eq!(after, Found::Valid(shown));
        }
    }

    #[test]
    fn one_bad_slot_is_survived_two_are_told() {
        let disk = MemoryDisk::default();
        let mut file = RaftStateFile::create(&disk, at(), state(1)).unwrap();
        file.write(state(2)).unwrap();
        let good = DiskExt::read(&disk, at(), 4096).unwrap();
        for byte in 0..FILE_BYTES {
            let mut bad = good.clone();
            bad[byte] ^= 1;
            disk.publish(at(), &bad).unwrap();
            let found = read(&disk, at()).unwrap();
            let newest = byte >= SLOT_BYTES;
            let expected = state(if newest { 2 } else { 1 });
            assert_eq!(found, Found::Valid(expected), "byte {byte}");
            bad[(byte + SLOT_BYTES) % FILE_BYTES] ^= 1;
            disk.publish(at(), &bad).unwrap();
            assert_eq!(read(&disk, at()).unwrap(), Found::Damaged);
            assert!(RaftStateFile::open(&disk, at()).unwrap().is_none());
        }
        disk.publish(at(), b"").unwrap();
        assert_eq!(read(&disk, at()).unwrap(), Found::Damaged);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_state_or_damaged(
            bytes in proptest::collection::vec(any::<u8>(), 0..1100),
            good: bool,
        ) {
            let mut bytes = bytes;
            if good && bytes.len() >= SLOT_BYTES {
                let crc = crc32c::crc32c(&bytes[..CRC_AT]);
                bytes[CRC_AT..SLOT_BYTES].copy_from_slice(&crc.to_le_bytes());
            }
            let disk = MemoryDisk::default();
            disk.publish(at(), &bytes).unwrap();
            prop_assert_eq!(read(&disk, at()).unwrap(), Found::Damaged);
        }
    }
}
