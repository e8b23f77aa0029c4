//! Open files: how many this process may have, and what of that is left for connections.
//!
//! A process that runs out of descriptors can neither roll a segment nor accept: so the limit is
//! raised as far as it goes, and connections leave enough for files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the process needs besides namespaces and connections.
const OWN: u64 = 256;
/// What a namespace may need: its segments, its state, readers of both.
const PER_NAMESPACE: u64 = 64;
/// Fewer connections than this would be no service.
const LEAST: usize = 64;

/// Raises the soft limit to the hard one.
///
/// # Errors
/// The system's.
pub fn raise() -> std::io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit.
    if current.is_none() || current == maximum {
        return Ok(());
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// How many connections there may be beside `namespaces`: `most`, or what the limit leaves.
pub(crate) fn connections(most: usize, namespaces: usize) -> usize {
    left(getrlimit(Resource::Nofile).current, most, namespaces)
}

fn left(limit: Option<u64>, most: usize, namespaces: usize) -> usize {
    let Some(limit) = limit else { return most };
    let files = (namespaces as u64).saturating_mul(PER_NAMESPACE) + OWN;
    let left = usize::try_from(limit.saturating_sub(files)).unwrap_or(usize::MAX);
    left.clamp(LEAST.min(most), most)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn connections_leave_room_for_files_but_there_are_always_some() {
        assert_eq!(left(None, 10_000, 1_000), 10_000);
        assert_eq!(left(Some(65_536), 10_000, 10), 10_000);
        assert_eq!(left(Some(1_024), 10_000, 1), 704);
        assert_eq!(left(Some(1_024), 10_000, 1_000), 64);
        assert_eq!(left(Some(0), 10_000, usize::MAX >> 8), 64);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let low = Rlimit {
            current: Some(maximum.map_or(512, |most| most.min(512))),
            maximum,
        };
        setrlimit(Resource::Nofile, low).unwrap();
        raise().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
