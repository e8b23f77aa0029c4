//! The two meta pages: what kind of file this is, and where its trees begin.

use super::{Error, Image};
use crate::Source;

/// "LMDB wrote this", at byte 16 of each meta page.
const MAGIC: u32 = 0xBEEF_C0DE;
/// The layout of LMDB 0.9 (0.9.70, which heed 0.23 builds, writes it too).
const VERSION: u32 = 1;
/// Page header (16) and the meta record behind it (136), in bytes.
const META_BYTES: usize = 152;
/// The page flag of a meta page.
const P_META: u16 = 0x08;
/// The tree flag of the list of free pages: keys are native integers.
const INTEGER_KEY: u16 = 0x08;
/// "No root": the tree is empty.
const NO_PAGE: u64 = u64::MAX;
/// LMDB's cursors go no deeper.
const DEEPEST: u16 = 32;
/// Page sizes that LMDB can have on any machine.
const PAGE_SIZES: [u32; 4] = [4_096, 8_192, 16_384, 32_768];

/// What the newer of the two meta pages says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Size of a page, in bytes.
    pub page_bytes: u64,
    /// Size of the map that it was last written with, in bytes.
    pub map_bytes: u64,
    /// Number of the last commit: LMDB's transaction id.
    pub commit: u64,
    /// Number of the last page, from 0.
    pub last_page: u64,
    /// Entries.
    pub entries: u64,
    pub(crate) main: Tree,
    pub(crate) free: Tree,
}

/// Where a tree begins, and what it promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) root: Option<u64>,
    pub(crate) depth: u16,
    pub(crate) entries: u64,
    pub(crate) order: Order,
}

/// How keys are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Byte by byte: the entries.
    Bytes,
    /// As little-endian integers: the list of free pages.
    Number,
}

/// Looks at size and both meta pages: all that is wanted of a file that this node wrote itself and
/// that nobody else has touched. Only a file shorter than its meta page says is looked at more
/// closely: it is sound if every missing page is free.
///
/// # Errors
/// What is wrong with the file.
pub fn check_live(source: impl Source) -> Result<Meta, Error> {
    Image::open(source).map(|image| *image.meta())
}

impl Meta {
    /// Least length of the file, in bytes.
    pub fn bytes(&self) -> u64 {
        (self.last_page + 1) * self.page_bytes
    }

    pub(super) fn read(source: &impl Source, len: u64) -> Result<Meta, Error> {
        let mut head = [0; 512];
        let have = usize::try_from(len).unwrap_or(usize::MAX).min(head.len());
        source.read_at(&mut head[..have], 0)?;
        if let Some(e) = not_lmdb(&head[..have]) {
            return Err(e);
        }
        let cut = |want: u64| Error::Truncated { have: len, want };
        if have < META_BYTES {
            return Err(cut(2 * u64::from(PAGE_SIZES[0])));
        }
        // Once the first page has the magic, it is an LMDB file: what is wrong now is damage.
        let page_size = u32_at(&head, 40);
        if u32_at(&head, 20) == VERSION && !PAGE_SIZES.contains(&page_size) {
            return Err(Error::PageSize { found: page_size });
        }
        let first = parse(0, &head, page_size)?;
        let page_bytes = u64::from(page_size);
        if len < 2 * page_bytes {
            return Err(cut(first.bytes().max(2 * page_bytes)));
        }
        source.read_at(&mut head[..META_BYTES], page_bytes)?;
        let second = parse(1, &head, page_size)?;
        // As LMDB picks them.
        let (newer, older) = if first.commit < second.commit {
            (second, first)
        } else {
            (first, second)
        };
        if older.bytes() > len.max(newer.bytes()) {
            return Err(cut(older.bytes()));
        }
        Ok(newer)
    }
}

/// What a file is whose first bytes are not those of an LMDB file.
fn not_lmdb(head: &[u8]) -> Option<Error> {
    const COMPRESSED: [(&[u8], &str); 8] = [
        (
            b"\x28\xb5\x2f\xfd",
            "it is still compressed, run zstd -d first",
        ),
        (b"\x1f\x8b", "it is still compressed, run gunzip first"),
        (b"\xfd7zXZ\0", "it is still compressed, run unxz first"),
        (b"BZh", "it is still compressed, run bunzip2 first"),
        (
            b"\x04\x22\x4d\x18",
            "it is still compressed, run lz4 -d first",
        ),
        (b"PK\x03\x04", "it is still compressed, run unzip first"),
        (b"-----BEGIN PGP", "it is still encrypted, run gpg -d first"),
        (
            b"age-encryption.org",
            "it is still encrypted, run age -d first",
        ),
    ];
    if head.is_empty() {
        return Some(Error::Empty);
    }
    match head.get(16..20).map(|b| u32_at(b, 0)) {
        Some(MAGIC) => return None,
        Some(m) if m.swap_bytes() == MAGIC => return Some(Error::ByteOrder),
        // On a big-endian machine the field stands at the same place.
        _ => {}
    }
    let mut looks_like = COMPRESSED
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map(|&(_, what)| what);
    if head.get(257..262) == Some(b"ustar") {
        looks_like = Some("it is a tar archive, unpack it first");
    }
    // OpenPGP packets without armour: an encrypted session key, by public key or passphrase.
    if matches!(head, [0x84 | 0x85 | 0x8c | 0xc1 | 0xc3, ..]) {
        looks_like = looks_like.or(Some("it may still be encrypted, run gpg -d first"));
    }
    Some(Error::NotLmdb { looks_like })
}

/// One meta page. `number` is 0 or 1.
fn parse(number: u64, page: &[u8], page_size: u32) -> Result<Meta, Error> {
    let wrong = |why: String| Err(Error::corrupted(number, why));
    if u16_at(page, 10) & P_META == 0 || u32_at(page, 16) != MAGIC {
        return wrong("is not a meta page".to_owned());
    }
    let version = u32_at(page, 20);
    if version != VERSION {
        return Err(Error::Version { found: version });
    }
    if u32_at(page, 40) != page_size {
        return wrong(format!("says another page size than page 0: {page_size}"));
    }
    let page_bytes = u64::from(page_size);
    let (last_page, commit) = (u64_at(page, 136), u64_at(page, 144));
    // The second bound keeps every offset in an i64.
    if last_page < 1 || last_page >= (1 << 62) / page_bytes {
        return wrong(format!("says that the last page is {last_page}"));
    }
    if commit != 0 && commit % 2 != number {
        return wrong(format!("holds commit {commit}, which belongs on the other"));
    }
    let free_flags = u16_at(page, 44);
    if free_flags & INTEGER_KEY == 0 {
        return wrong(format!("has flags {free_flags:#x} for the free pages"));
    }
    let flags = u16_at(page, 92);
    if flags != 0 {
        return wrong(format!("has database flags {flags:#x}, 0 is expected"));
    }
    let tree = |at: usize, order: Order| {
        let (depth, entries, root) = (
            u16_at(page, at + 6),
            u64_at(page, at + 32),
            u64_at(page, at + 40),
        );
        let root = (root != NO_PAGE).then_some(root);
        let sound = match root {
            None => depth == 0 && entries == 0,
            Some(root) => {
                (2..=last_page).contains(&root) && (1..=DEEPEST).contains(&depth) && entries > 0
            }
        };
        let tree = Tree {
            root,
            depth,
            entries,
            order,
        };
        sound.then_some(tree).ok_or_else(|| {
            let root = root.map_or("nowhere".to_owned(), |page| format!("page {page}"));
            let why =
                format!("names a tree with its root {root}, depth {depth}, {entries} entries");
            Error::corrupted(number, why)
        })
    };
    let (free, main) = (tree(40, Order::Number)?, tree(88, Order::Bytes)?);
    Ok(Meta {
        page_bytes,
        map_bytes: u64_at(page, 32),
        commit,
        last_page,
        entries: main.entries,
        main,
        free,
    })
}

/// The number at `at`, which the caller knows to be inside.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}
/// As [`u16_at`].
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}
/// As [`u16_at`].
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes were cut out")
}
