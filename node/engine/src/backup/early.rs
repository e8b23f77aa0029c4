//! [`Early`]: brings a file to the medium while more of it is being made, so that the sync at its
//! end has little left to wait for.
//!
//! At most one early sync is under way. One that has not begun when the end comes is called off, not
//! waited for: the pool may be full of others who wait. A failed one is the end of the file (P14):
//! the sync after it may say Ok and not mean what was lost.

use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use unisondb_platform::{File, Offload};

/// After so many bytes the next early sync may begin.
pub(super) const EARLY_BYTES: u64 = 16 << 20;

/// Syncs a file that is being written.
pub(super) struct Early {
    offload: Arc<dyn Offload>,
    file: Arc<dyn File>,
    turn: Arc<Turn>,
    /// Written since the last early sync was handed in.
    bytes: u64,
}

#[derive(Default)]
struct Turn {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    /// Handed in, not begun.
    Queued,
    Running,
    /// For good. The error is given once.
    Failed(Option<io::Error>),
}

impl State {
    fn check(&mut self) -> io::Result<()> {
        match self {
            State::Failed(e) => Err(e
                .take()
                .unwrap_or_else(|| io::Error::other("an earlier sync failed"))),
            _ => Ok(()),
        }
    }
}

impl Early {
    pub(super) fn new(offload: &Arc<dyn Offload>, file: &Arc<dyn File>) -> Early {
        Early {
            offload: offload.clone(),
            file: file.clone(),
            turn: Arc::default(),
            bytes: 0,
        }
    }

    /// So many bytes more have been written.
    ///
    /// # Errors
    /// That of an early sync.
    pub(super) fn wrote(&mut self, bytes: usize) -> io::Result<()> {
        self.bytes += bytes as u64;
        if self.bytes < EARLY_BYTES {
            return Ok(());
        }
        {
            let mut state = self.turn.state.lock();
            state.check()?;
            if !matches!(*state, State::Idle) {
                return Ok(());
            }
            *state = State::Queued;
        }
        self.bytes = 0;
        let (file, turn) = (self.file.clone(), self.turn.clone());
        self.offload.run(Box::new(move || turn.run(&*file)));
        Ok(())
    }

    /// Waits for an early sync that is under way, and calls off one that is not: what was written
    /// is then to be synced as ever.
    ///
    /// # Errors
    /// That of an early sync.
    pub(super) fn settle(&self) -> io::Result<()> {
        let mut state = self.turn.state.lock();
        while matches!(*state, State::Running) {
            self.turn.ended.wait(&mut state);
        }
        state.check()?;
        *state = State::Idle;
        Ok(())
    }
}

impl Turn {
    fn run(&self, file: &dyn File) {
        {
            let mut state = self.state.lock();
            if !matches!(*state, State::Queued) {
                return;
            }
            *state = State::Running;
        }
        let synced = file.sync();
        *self.state.lock() = match synced {
            Ok(()) => State::Idle,
            Err(e) => State::Failed(Some(e)),
        };
        self.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use unisondb_platform::memory::{Effect, InlineOffload, MemoryDisk, OpKind, Rule};
    use unisondb_platform::{Access, Disk};

    use super::*;

    type Job = Box<dyn FnOnce() + Send>;

    /// A pool that has no thread to spare until told.
    #[derive(Default)]
    struct Full(Mutex<Vec<Job>>);

    impl Offload for Full {
        fn run(&self, job: Job) {
            self.0.lock().push(job);
        }
        fn thread(&self, _: &str, _: unisondb_platform::offload::Task) {
            unreachable!("no loop is wanted")
        }
        fn rest(&self, _: std::time::Duration) {
            unreachable!("nobody rests")
        }
    }

    fn file() -> (MemoryDisk, Arc<dyn File>) {
        let disk = MemoryDisk::default();
        let file = disk.open(Path::new("/f"), Access::CreateNew).unwrap();
        (disk, file)
    }

    fn syncs(disk: &MemoryDisk) -> usize {
        disk.log().iter().filter(|o| o.kind == OpKind::Sync).count()
    }

    const STEP: usize = 8 << 20;

    #[test]
    fn a_file_is_synced_while_it_is_written() {
        let (disk, file) = file();
        let mut early = Early::new(&(Arc::new(InlineOffload) as Arc<dyn Offload>), &file);
        for _ in 0..4 {
            early.wrote(STEP).unwrap();
        }
        assert_eq!(syncs(&disk), 2);
        early.settle().unwrap();
    }

    #[test]
    fn a_failed_early_sync_is_told_and_never_made_good() {
        let (disk, file) = file();
        disk.inject(Rule::once(OpKind::Sync, "/f", Effect::Eio));
        let mut early = Early::new(&(Arc::new(InlineOffload) as Arc<dyn Offload>), &file);
        early.wrote(2 * STEP).unwrap();
        assert_eq!(early.settle().unwrap_err().raw_os_error(), Some(5));
        early.wrote(2 * STEP).unwrap_err();
        early.settle().unwrap_err();
        assert_eq!(syncs(&disk), 1);
    }

    #[test]
    fn an_early_sync_that_has_not_begun_is_not_waited_for() {
        let (disk, file) = file();
        let full = Arc::new(Full::default());
        let mut early = Early::new(&(full.clone() as Arc<dyn Offload>), &file);
        for _ in 0..8 {
            early.wrote(STEP).unwrap();
        }
        assert_eq!(full.0.lock().len(), 1, "one at a time");
        early.settle().unwrap();
        for job in std::mem::take(&mut *full.0.lock()) {
            job();
        }
        assert_eq!(syncs(&disk), 0, "called off");
    }
}
