//! [`copy_verified`]: the fast way out for sealed segments. One pass in large blocks: what is
//! handed on is hashed, and compared with the footer before the copy is called good.

use sha2::{Digest as _, Sha256};
use unisondb_platform::FileExt;
use unisondb_types::Sha256Sum;

use crate::error::{Error, SegmentError};
use crate::footer::{FOOTER_BYTES, Footer};
use crate::header::{HEADER_BYTES, SegmentHeader};
use crate::info::SegmentInfo;
use crate::log::SealedFile;

/// How much is read and handed on at once: large enough to make calls cheap, small enough that a
/// block is still in the processor's cache when it is hashed.
const BLOCK_BYTES: usize = 512 << 10;

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
/// # Errors
/// Outer: [`Error::Damaged`] when the file is not what it was, [`Error::Io`]. Inner: what the sink
/// says, as it says it.
pub fn copy_verified<E>(
    sealed: &SealedFile,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<Result<Copied, E>, Error> {
    let id = sealed.info.id;
    let damaged = |e: SegmentError| Error::damaged(id, &sealed.path, e);
    let content_bytes = sealed.len - FOOTER_BYTES as u64;
    let footer_wrong = |why: &str| {
        damaged(SegmentError::Footer {
            offset: content_bytes,
            why: why.to_owned(),
        })
    };
    let mut block = vec![0; BLOCK_BYTES];
    let mut content = Sha256::new();
    let mut at = 0;
    while at < content_bytes {
        let want = block
            .len()
            .min(usize::try_from(content_bytes - at).unwrap_or(usize::MAX));
        let part = &mut block[..want];
        sealed
            .file
            .read_exact_at(part, at)
            .map_err(|e| damaged(SegmentError::Io(e)))?;
        if at == 0 {
            let header = SegmentHeader::decode(part).map_err(damaged)?;
            if header != sealed.info.header {
                return Err(damaged(SegmentError::Header {
                    why: "it is not the header that was read when the log was opened".to_owned(),
                }));
            }
        }
        // Handed on first: while it is hashed, the disk may already be busy with it.
        if let Err(e) = sink(part) {
            return Ok(Err(e));
        }
        content.update(&*part);
        at += want as u64;
    }
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

const _: () = assert!(
    BLOCK_BYTES >= HEADER_BYTES,
    "the header is decoded from the first block"
);
