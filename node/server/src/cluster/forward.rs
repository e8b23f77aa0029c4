//! [`Forward`]: a request that only a group's leader can carry out, whoever that is.
//!
//! - What was surely not written is tried again, at this node or another, until there is a leader or
//!   patience ends. What may have been written is tried again only under an `Idempotency-Key`.
//! - An answer is given when the change is applied here too, so that who asks this node next sees it; if that
//!   takes too long, without.

use std::time::Duration;

use bytes::Bytes;
use unisondb_api::peer::{Ask, Link, Told};
use unisondb_api::{PeerError, WriteError, Written};
use unisondb_platform::Clock;
use unisondb_raft::Queued;
use unisondb_types::{Command, Lsn};

use super::Ways;
use crate::writer::Lane;

/// How long a leader is looked for, and how long its answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest that a write is waited for.
const WRITE: Duration = Duration::from_secs(15);
/// Between two looks for a leader.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a change is waited for here that is committed already.
const APPLIED: Duration = Duration::from_secs(1);

/// Which position is wanted; each is at or above every write acknowledged before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// Any.
    Acknowledged,
    /// One that lies in a segment that has ended: the active one is ended if it holds user data.
    SegmentsEnd,
}

/// One request to a namespace's leader.
pub(crate) struct Forward<'a> {
    pub(crate) ways: &'a Ways,
    pub(crate) lane: &'a Lane,
    pub(crate) clock: &'a dyn Clock,
}

impl Forward<'_> {
    /// Commits a client's action.
    pub(crate) async fn write(
        &self,
        command: &Command,
        queued: &Queued,
    ) -> Result<Written, WriteError> {
        let since = self.clock.monotonic();
        let may_repeat = matches!(
            command,
            Command::User {
                idempotency: Some(_),
                ..
            }
        );
        let (mut payload, mut tried) = (None, Tried::default());
        loop {
            let leads = self.lane.group().leads();
            let attempt = async {
                if leads {
                    return self.lane.write(command, queued).await;
                }
                if let Some(why) = self.lane.closed_to_clients() {
                    return Err(why);
                }
                let payload: &Bytes = payload.get_or_insert_with(|| command.payload());
                self.ask_to_write(payload).await
            };
            let left = WRITE.saturating_sub(self.clock.monotonic().saturating_sub(since));
            let done = tokio::select! {
                biased;
                done = attempt => done,
                () = self.clock.sleep(left) => Err(WriteError::Unknown("no quorum answered in time".to_owned())),
            };
            let late = self.clock.monotonic().saturating_sub(since) >= PATIENCE;
            match done {
                Ok(written) => {
                    if !leads {
                        self.applied(written.lsn).await;
                    }
                    return Ok(written);
                }
                Err(why) => {
                    let again = tried.may_go_on(&why, may_repeat) && !late;
                    if !again {
                        return Err(tried.end(why));
                    }
                }
            }
            self.clock.sleep(PAUSE).await;
        }
    }

    async fn ask_to_write(&self, payload: &Bytes) -> Result<Written, WriteError> {
        let link = self.leader()?;
        let ask = Ask::Write(self.lane.group_id());
        match self.ways.ask(&link, ask, payload).await {
            Ok((Told::Written(written), _)) => Ok(written),
            Ok((told, _)) => Err(not(told)),
            Err(PeerError::Unreachable(why)) => Err(WriteError::Unavailable(why)),
            Err(PeerError::Lost(why)) => Err(WriteError::Unknown(why)),
        }
    }

    /// Has the leader say a position, as often as it takes to find one: to ask twice harms nothing.
    pub(crate) async fn position(&self, wanted: Position) -> Result<Lsn, WriteError> {
        let mut patience = self.clock.sleep(PATIENCE);
        let mut last = WriteError::Unavailable("no leader answered in time".to_owned());
        loop {
            tokio::select! {
                biased;
                done = self.ask_position(wanted) => match done {
                    Err(why @ WriteError::Unavailable(_)) => last = why,
                    done => return done,
                },
                () = &mut patience => return Err(last),
            }
            tokio::select! {
                biased;
                () = self.clock.sleep(PAUSE) => {}
                () = &mut patience => return Err(last),
            }
        }
    }

    async fn ask_position(&self, wanted: Position) -> Result<Lsn, WriteError> {
        let leads = self.lane.group().leads();
        let ask = match wanted {
            Position::SegmentsEnd if leads => return self.lane.end_segment().await,
            Position::Acknowledged if leads => return self.lane.group().barrier().await,
            Position::SegmentsEnd => Ask::Seal(self.lane.group_id()),
            Position::Acknowledged => Ask::Barrier(self.lane.group_id()),
        };
        let link = self.leader()?;
        let told = self.ways.ask(&link, ask, b"").await;
        match told.map_err(|e| WriteError::Unavailable(e.to_string()))? {
            (Told::Position(lsn), _) => Ok(lsn),
            (told, _) => Err(not(told)),
        }
    }

    fn leader(&self) -> Result<Link, WriteError> {
        let none = || WriteError::Unavailable("no leader is known just now".to_owned());
        let leader = self.lane.group().leader().ok_or_else(none)?;
        let namespace = self.lane.engine().namespace();
        self.ways.to_member(namespace, leader).ok_or_else(none)
    }

    async fn applied(&self, lsn: Lsn) {
        let mut applied = self.lane.engine().watch_applied();
        tokio::select! {
            biased;
            _ = applied.wait_for(|applied| *applied >= lsn) => {}
            () = self.clock.sleep(APPLIED) => {}
        }
    }
}

/// What the tries of one write leave open.
#[derive(Debug, Default)]
struct Tried {
    /// Why one of them may have been written, if so: no later one takes that back.
    unknown: Option<String>,
}

impl Tried {
    /// Whether it may be tried again after this.
    fn may_go_on(&mut self, why: &WriteError, may_repeat: bool) -> bool {
        match why {
            WriteError::Unavailable(_) => true,
            WriteError::Unknown(why) => {
                self.unknown.get_or_insert_with(|| why.clone());
                may_repeat
            }
            _ => false,
        }
    }

    /// What is answered at the end. All but [`WriteError::Unknown`] promise that nothing was written.
    fn end(self, last: WriteError) -> WriteError {
        match self.unknown {
            Some(why) => WriteError::Unknown(why),
            None => last,
        }
    }
}

/// Why it was not done.
fn not(told: Told) -> WriteError {
    match told {
        Told::Not(why) => why,
        Told::Refused(why) => WriteError::Unavailable(why),
        other => WriteError::Unknown(format!("an answer to something else: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_written_once_is_never_answered_as_surely_not() {
        let (lost, busy) = (
            WriteError::Unknown("lost".to_owned()),
            WriteError::Unavailable("no leader".to_owned()),
        );
        let mut tried = Tried::default();
        assert!(tried.may_go_on(&busy, false) && tried.may_go_on(&lost, true));
        assert!(tried.may_go_on(&busy, true) && !tried.may_go_on(&WriteError::Full, true));
        assert_eq!(tried.end(WriteError::Full), lost);

        let mut tried = Tried::default();
        assert!(tried.may_go_on(&busy, false));
        assert!(
            !tried.may_go_on(&lost, false),
            "without a key it would be twice"
        );
        assert_eq!(tried.end(busy.clone()), lost);
        assert_eq!(Tried::default().end(busy.clone()), busy);
    }
}
