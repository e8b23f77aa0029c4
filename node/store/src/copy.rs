//! A compacted copy of the live environment, streamed to a receiver: the body of a snapshot.
//!
//! ```text
//! scoped thread: mdb_env_copyfd2 ── pipe ── calling thread: sink
//! ```
//!
//! LMDB writes to a descriptor, so the copy runs on a thread of its own that touches nothing but
//! its end of the pipe and is joined before [`Store::image`] returns. A receiver that fails closes
//! the other end: LMDB's writer then gets EPIPE, with SIGPIPE blocked in its own thread.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;
use std::thread;

use heed::{CompactionOption, Env, WithoutTls};

use crate::gate::Lost;
use crate::{Error, Store};

/// Bytes handed to the receiver at once, and asked for as the pipe's size.
const CHUNK_BYTES: usize = 1 << 20;

impl Store {
    /// Streams a compacted copy of one commit to `sink`: a whole `data.mdb`, entries in key order,
    /// without free pages. Calls `begun` once the copy's own transaction surely has begun, so that
    /// no later commit can be in it. The length of the copy.
    ///
    /// `sink` runs on the calling thread, and its pace is the copy's; pages that the copy can see
    /// are not used again until it ends, and the map cannot grow.
    ///
    /// # Errors
    /// [`Error::Sink`] with what `sink` said; nothing is left behind. `begun` may then not have
    /// been called.
    pub fn image(
        &self,
        begun: impl FnOnce(),
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<u64, Error> {
        let _pass = self.gate().enter().map_err(|Lost| Store::lost())?;
        let (reader, writer) = io::pipe().map_err(pipe_failed)?;
        // Only a matter of speed: a system may allow less.
        let size = rustix::pipe::fcntl_setpipe_size(&writer, CHUNK_BYTES);
        tracing::trace!(?size, "copy pipe");

        let (received, copied) = thread::scope(|scope| {
            let copier = thread::Builder::new()
                .name("store-image".to_owned())
                .spawn_scoped(scope, || copy(self.env(), writer))
                .map_err(pipe_failed)?;
            // Takes the reader along: also when the sink panics, the copier's next write fails.
            let received = receive(reader, begun, sink);
            let copied = copier.join().expect("the copier calls only LMDB");
            Ok::<_, Error>((received, copied))
        })?;
        // A failed sink is the cause, the copy's broken pipe only its consequence.
        let bytes = received?;
        copied.map_err(|e| Error::lmdb("copying the database", e))?;
        Ok(bytes)
    }
}

fn copy(env: &Env<WithoutTls>, writer: PipeWriter) -> Result<(), heed::Error> {
    #[expect(unsafe_code, reason = "LMDB writes to a raw descriptor")]
    // SAFETY: the descriptor is open, writable and ours until `writer` is dropped below.
    let copied = unsafe { env.copy_to_fd(writer.as_raw_fd(), CompactionOption::Enabled) };
    drop(writer);
    copied
}

fn receive(
    mut reader: PipeReader,
    begun: impl FnOnce(),
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<u64, Error> {
    let mut begun = Some(begun);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0u64;
    loop {
        let n = fill(&mut reader, &mut chunk).map_err(pipe_failed)?;
        if n == 0 {
            return Ok(bytes);
        }
        // LMDB begins its transaction before it writes the first byte.
        if let Some(begun) = begun.take() {
            begun();
        }
        sink(&chunk[..n]).map_err(Error::Sink)?;
        bytes += n as u64;
    }
}

/// Reads until `chunk` is full or the pipe ends: what is handed on does not depend on how two
/// threads took turns.
fn fill(reader: &mut PipeReader, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match reader.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn pipe_failed(e: io::Error) -> Error {
    Error::lmdb("copying the database", heed::Error::Io(e))
}
