//! [`copy_verified`]: the fast way out for sealed segments. One pass in large blocks: what is
//! handed on is hashed, and compared with the footer before the copy is called good.

use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use unisondb_platform::{FileExt, Offload};
use unisondb_types::Sha256Sum;

use crate::error::{Error, SegmentError};
use crate::footer::{FOOTER_BYTES, Footer};
use crate::header::{HEADER_BYTES, SegmentHeader};
use crate::info::SegmentInfo;
use crate::log::SealedFile;

/// How much is read and handed on at once.
const BLOCK_BYTES: usize = 1 << 20;

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The segment, with the SHA-256 of its file.
    pub info: SegmentInfo,
    /// SHA-256 of all bytes that were handed on.
    pub sha256: Sha256Sum,
    /// How many.
    pub bytes: u64,
}

/// Reads a sealed segment once and hands its bytes on in order, in large blocks. They must not be
/// believed, published or kept before this has returned `Ok(Ok(_))`: only then are they proven to
/// be what was sealed (header, SHA-256 of the content, chain, footer).
///
/// Blocks; a block is hashed on another thread while it is handed on and the next one is read.
///
/// # Errors
/// Outer: [`Error::Damaged`] when the file is not what it was, [`Error::Io`]. Inner: what the sink
/// says, as it says it.
pub fn copy_verified<E>(
    sealed: &SealedFile,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<Result<Copied, E>, Error> {
    let id = sealed.info.id;
    let damaged = |e: SegmentError| Error::damaged(id, &sealed.path, e);
    let content_bytes = sealed.len.saturating_sub(FOOTER_BYTES as u64);
    let footer_wrong = |why: &str| {
        damaged(SegmentError::Footer {
            offset: content_bytes,
            why: why.to_owned(),
        })
    };
    let mut hasher = Hasher::new(sealed.offload.clone());
    let mut at = 0;
    while at < content_bytes {
        let mut block = hasher.spare();
        let left = usize::try_from(content_bytes - at).unwrap_or(usize::MAX);
        block.resize(left.min(BLOCK_BYTES), 0);
        sealed
            .file
            .read_exact_at(&mut block, at)
            .map_err(|e| damaged(SegmentError::Io(e)))?;
        if at == 0 {
            let header = SegmentHeader::decode(&block).map_err(damaged)?;
            if header != sealed.info.header {
                return Err(damaged(SegmentError::Header {
                    why: "it is not the header that was read when the log was opened".to_owned(),
                }));
            }
        }
        at += block.len() as u64;
        let block = Arc::new(block);
        hasher.update(block.clone());
        if let Err(e) = sink(&block) {
            return Ok(Err(e));
        }
    }
    let content = hasher.finish();
    let mut last = [0; FOOTER_BYTES];
    sealed
        .file
        .read_exact_at(&mut last, content_bytes)
        .map_err(|e| damaged(SegmentError::Io(e)))?;
    let footer = Footer::decode(&last).map_err(|why| footer_wrong(&why))?;
    let content_sha256 = Sha256Sum::from_bytes(content.clone().finalize().into());
    let info = &sealed.info;
    if footer.content_sha256 != content_sha256 {
        return Err(footer_wrong(
            "the content does not have the SHA-256 it names",
        ));
    }
    let chain = info.header.chain_before().extend(id, content_sha256);
    if footer.chain != chain || info.chain != Some(chain) || info.digest != Some(footer.digest) {
        return Err(footer_wrong("it is not the footer that was written"));
    }
    if let Err(e) = sink(&last) {
        return Ok(Err(e));
    }
    let sha256 = Sha256Sum::from_bytes(content.chain_update(last).finalize().into());
    Ok(Ok(Copied {
        info: SegmentInfo {
            sha256: Some(sha256),
            ..info.clone()
        },
        sha256,
        bytes: sealed.len,
    }))
}

/// SHA-256 over blocks in order, one block at a time on another thread. If no thread takes a block
/// before its hash is wanted, it is hashed right here: a pool whose every thread is copying never
/// waits for itself.
struct Hasher {
    offload: Arc<dyn Offload>,
    waiting: Arc<Mutex<Option<Work>>>,
    done: (mpsc::Sender<Work>, mpsc::Receiver<Work>),
    /// Between blocks: the state so far, and the last block's memory.
    idle: Option<Work>,
    busy: bool,
    spare: Option<Vec<u8>>,
}

struct Work {
    sha: Sha256,
    block: Arc<Vec<u8>>,
}

impl Work {
    fn run(mut self) -> Work {
        self.sha.update(&*self.block);
        self
    }
}

impl Hasher {
    fn new(offload: Arc<dyn Offload>) -> Hasher {
        Hasher {
            offload,
            waiting: Arc::new(Mutex::new(None)),
            done: mpsc::channel(),
            idle: Some(Work {
                sha: Sha256::new(),
                block: Arc::new(Vec::new()),
            }),
            busy: false,
            spare: None,
        }
    }

    /// Memory for a block that nobody looks at any more, if there is some.
    fn spare(&mut self) -> Vec<u8> {
        self.spare.take().unwrap_or_default()
    }

    /// Waits for the block before, and gives this one out.
    fn update(&mut self, block: Arc<Vec<u8>>) {
        let Work { sha, block: before } = self.settle();
        self.spare = Arc::try_unwrap(before).ok();
        *self.waiting.lock() = Some(Work { sha, block });
        self.busy = true;
        let (waiting, done) = (self.waiting.clone(), self.done.0.clone());
        self.offload.run(Box::new(move || {
            let work = waiting.lock().take();
            if let Some(work) = work {
                // Nobody listens when the copy was given up.
                drop(done.send(work.run()));
            }
        }));
    }

    fn settle(&mut self) -> Work {
        if !self.busy {
            return self.idle.take().expect("it is idle before the first block");
        }
        self.busy = false;
        let untouched = self.waiting.lock().take();
        match untouched {
            Some(work) => work.run(),
            None => self
                .done
                .1
                .recv()
                .expect("this side keeps a sender, and whoever took the block sends it"),
        }
    }

    fn finish(mut self) -> Sha256 {
        self.settle().sha
    }
}

const _: () = assert!(
    BLOCK_BYTES >= HEADER_BYTES,
    "the header is decoded from the first block"
);
