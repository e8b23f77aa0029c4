//! [`tear`]: what a power loss in the middle of LMDB's next commit leaves of `data.mdb`.
//!
//! LMDB writes a commit's pages where nothing of the last commit lies, syncs, and only then writes a meta
//! page. So any mix of the next commit's pages, without its meta page, may be on the medium, and the last
//! commit must be read from it as if nothing were there. The commit is a real one, made in a copy.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use unisondb_platform::memory::Random;
use unisondb_store::{Create, DATA_FILE, Options, Store};

const PAGE: usize = 4_096;
/// Two meta pages come first.
const METAS: usize = 2;

/// Leaves some pages of a commit that was never finished; how many. `folder` holds LMDB's file of a node
/// that is down and had it open.
///
/// # Errors
/// From the machine below, or when the file is no LMDB file.
pub fn tear(folder: &Path, r: &mut Random) -> io::Result<u64> {
    let path = folder.join(DATA_FILE);
    let copy = tempfile::tempdir()?;
    fs::copy(&path, copy.path().join(DATA_FILE))?;
    let options = Options {
        map_size: 16 << 20,
        create: Create::MustExist,
    };
    let store = Store::open(copy.path(), options).map_err(io::Error::other)?;
    let number = 1 + r.below(40);
    let changes: Vec<(Vec<u8>, Option<Vec<u8>>)> = (0..number)
        .map(|_| {
            let mut key = vec![u8::try_from(r.below(6)).expect("below six")];
            key.extend_from_slice(&r.draw().to_le_bytes());
            let len = usize::try_from(r.below(6_000)).expect("small");
            (key, Some(vec![0xa5; len]))
        })
        .collect();
    let done = store.commit(changes);
    store.close();
    done.map_err(io::Error::other)?;

    let (before, after) = (fs::read(&path)?, fs::read(copy.path().join(DATA_FILE))?);
    let file = fs::OpenOptions::new().write(true).open(&path)?;
    let mut torn = 0;
    for (n, page) in after.chunks(PAGE).enumerate().skip(METAS) {
        let at = n * PAGE;
        let same = before.get(at..at + page.len()) == Some(page);
        if same || r.coin() {
            continue;
        }
        // Now and then a page is cut short itself, sector by sector.
        let len = match r.below(4) {
            0 => 512 * (1 + usize::try_from(r.below(7)).expect("small")),
            _ => page.len(),
        };
        file.write_all_at(&page[..len.min(page.len())], at as u64)?;
        torn += 1;
    }
    Ok(torn)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_commit_is_read_through_what_a_torn_one_left() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            map_size: 16 << 20,
            create: Create::IfMissing,
        };
        let entries = |n: u8| (0..200u8).map(move |k| (vec![k % 7, k], Some(vec![n; 300])));
        let mut r = Random::new(7);
        let mut torn = 0;
        for round in 0..20 {
            let store = Store::open(folder.path(), options).unwrap();
            store.commit(entries(round)).unwrap();
            store.close();
            torn += tear(folder.path(), &mut r).unwrap();
            let store = Store::open(folder.path(), options).unwrap();
            let view = store.read().unwrap();
            for k in 0..200u8 {
                let found = view.get(&[k % 7, k]).unwrap().map(|v| v.to_vec());
                assert_eq!(found, Some(vec![round; 300]));
            }
            drop(view);
            store.close();
        }
        assert!(torn > 100, "{torn} pages");
    }
}
