//! Which files of a folder are the log that is opened: the live segment, those below it, strangers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use unisondb_platform::{Access, Disk};
use unisondb_types::SegmentId;

use super::Options;
use super::sync::SPARE_NAME;
use crate::error::{Error, SegmentError};
use crate::footer::Footer;
use crate::header::SegmentHeader;
use crate::reader::ends;
use crate::rewrite::is_tmp_name;
use crate::survey::{Stranger, named, right_name};

/// A file that has the name of a segment, and what its ends say.
pub(super) struct Candidate {
    pub path: PathBuf,
    pub header: SegmentHeader,
    pub footer: Option<Footer>,
}

/// Removes what interrupted acts left, and looks at both ends of every segment.
pub(super) fn find(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<(BTreeMap<SegmentId, Candidate>, Vec<Stranger>), Error> {
    let entries = disk
        .list(dir)
        .map_err(|e| Error::io("cannot list", dir, e))?;
    let mut files = BTreeMap::new();
    let mut strangers = Vec::new();
    for entry in entries {
        let path = dir.join(&entry.name);
        if entry.name == SPARE_NAME || is_tmp_name(&entry.name) {
            disk.remove_file(&path)
                .map_err(|e| Error::io("cannot remove", &path, e))?;
            continue;
        }
        match named(&entry) {
            Ok(id) => {
                let read = || -> Result<Candidate, SegmentError> {
                    let file = disk.open(&path, Access::Read)?;
                    let (header, footer, _) = ends(&*file)?;
                    right_name(&path, header.id)?;
                    Ok(Candidate {
                        path: path.clone(),
                        header,
                        footer,
                    })
                };
                files.insert(id, read().map_err(|e| Error::damaged(id, &path, e))?);
            }
            // Beside the segments lies what raft must remember (D8).
            Err(_) if entry.name.starts_with("raft.state") => {}
            Err(why) => strangers.push(Stranger {
                name: entry.name,
                why: why.to_owned(),
            }),
        }
    }
    Ok((files, strangers))
}

/// From the highest id down through the predecessors; the result is in ascending order.
pub(super) fn choose(
    mut files: BTreeMap<SegmentId, Candidate>,
    dir: &Path,
    options: &Options,
    strangers: &mut Vec<Stranger>,
) -> Result<Vec<Candidate>, Error> {
    let Some((_, live)) = files.pop_last() else {
        return Err(Error::Empty {
            dir: dir.to_owned(),
        });
    };
    let namespace = options.namespace.as_ref().unwrap_or(&live.header.namespace);
    let cluster = options.cluster.unwrap_or(live.header.cluster);
    for c in files.values().chain([&live]) {
        let h = &c.header;
        if h.namespace != *namespace || h.cluster != cluster {
            return Err(Error::Foreign {
                path: c.path.clone(),
                expected: format!("namespace {namespace} of cluster {cluster}"),
                found: format!("namespace {} of cluster {}", h.namespace, h.cluster),
            });
        }
    }
    let mut chosen = vec![live];
    loop {
        let above = chosen.last().expect("it begins with the live one");
        let (above_id, wanted) = (above.header.id, above.header.predecessor.map(|p| p.id));
        let Some(wanted) = wanted.filter(|id| *id != SegmentId::ZERO) else {
            let why = format!("segment {above_id} does not continue it");
            strangers.extend(files.into_values().map(|c| stranger(&c, &why)));
            break;
        };
        // Between a fork and the lineage that begins there lies only what was given up.
        let why = format!("it lies behind the fork at which segment {above_id} begins");
        let given_up = files.split_off(&wanted.next());
        strangers.extend(given_up.into_values().map(|c| stranger(&c, &why)));
        match files.remove(&wanted) {
            Some(candidate) => chosen.push(candidate),
            None => match files.last_key_value() {
                None => break,
                Some((below, _)) => {
                    let block = SegmentId::new(
                        wanted.get() / SegmentId::LINEAGE_STEP * SegmentId::LINEAGE_STEP,
                    );
                    return Err(Error::MissingSegments {
                        from: below.next().max(block),
                        to: wanted,
                    });
                }
            },
        }
    }
    chosen.reverse();
    Ok(chosen)
}

fn stranger(c: &Candidate, why: &str) -> Stranger {
    Stranger {
        name: c.header.id.file_name(),
        why: why.to_owned(),
    }
}
