//! What was under way when the node ended is gone once it has started and taken a snapshot again: no
//! temporary file stays in the namespace's folder (but `wal/next.tmp`, the next segment, made ahead), and
//! none where snapshots go. (One that cannot be read, or whose first sector the disk wrote elsewhere,
//! stays: nobody can tell whose it is.) In a folder of the backups that no call came to again, as it may be on
//! one of several nodes, it may stay, as `docs/operations/backup.md` says.

use super::Seen;
use crate::world::DATA;

pub fn check(seen: &Seen<'_>) -> Vec<String> {
    let ours = |path: &str| {
        path.starts_with(&format!("{DATA}/{}/", seen.namespace))
            || path.starts_with(&format!("{DATA}/{}.", seen.namespace))
            || (seen.is_alone
                && path.starts_with(&format!("{DATA}/backups/{}/snapshots/", seen.namespace)))
    };
    let names = seen.files.iter().map(|p| p.to_string_lossy().into_owned());
    let left = names.filter(|path| {
        let temporary = path.contains(".tmp") || path.contains(".partial");
        ours(path) && temporary && !path.ends_with("/wal/next.tmp")
    });
    left.map(|path| format!("{path} was left behind")).collect()
}
