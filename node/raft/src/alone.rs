//! What a group does otherwise when one member decides alone: it leads as soon as it starts, and nobody has
//! to be asked before a read. (That its timers rest is said in `timers`.)

use openraft::ReadPolicy;
use openraft::errors::RaftError;
use openraft_rt::WatchReceiver as _;
use unisondb_api::WriteError;
use unisondb_types::Lsn;

use crate::group::Group;
use crate::{standing, types};

impl Group {
    /// Whether this node alone decides, as openraft has it: what its metrics say comes a while after
    /// its start.
    pub(crate) async fn is_only_voter(&self) -> bool {
        let own = self.own();
        let asked = self.raft.with_raft_state(move |state| {
            let members = state.membership_state.effective();
            types::members_of(members.membership()).is_only(own)
        });
        asked.await.unwrap_or(false)
    }

    /// Waits until this node leads, or cannot for now.
    pub(crate) async fn led(&self) {
        let mut metrics = self.raft.metrics();
        let mut stuck = self.standing.stuck();
        let leads = async {
            // The vote that it led by before it ended does not count, since it stands again; and openraft
            // calls a member that stands alone a leader before its vote is.
            while !self.leads() || self.raft.as_leader().is_err() {
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = leads => {}
            _ = standing::stuck_now(&mut stuck) => {}
        }
    }

    /// A position at or above every write acknowledged anywhere before the call: what this node has
    /// answered, where it decides alone, whatever became of its log; otherwise as the leader learns
    /// it from a quorum.
    ///
    /// # Errors
    /// [`WriteError::Unavailable`] where this node does not lead, or no quorum answers.
    pub async fn barrier(&self) -> Result<Lsn, WriteError> {
        if self.members().is_only(self.own()) {
            return Ok(self.acknowledged());
        }
        let _waits = self.reads.wait();
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((id, _)) => Ok(types::lsn(id.log_id().index)),
            Err(RaftError::APIError(e)) => Err(WriteError::Unavailable(e.to_string())),
            Err(RaftError::Fatal(e)) => Err(WriteError::Failed(e.to_string())),
        }
    }

    /// At or above every write that was answered here. With `durability = "interval"` answers run
    /// ahead of what is committed, but never of what is applied.
    pub fn acknowledged(&self) -> Lsn {
        let engine = self.engine();
        engine.wal().committed().max(engine.applied())
    }
}
