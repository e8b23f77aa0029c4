//! Who belongs to a group: told, and changed by who leads it. Raft ids only: where they are is no
//! business of the log.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;
use openraft_rt::WatchReceiver as _;
use unisondb_types::Members;

use crate::group::{Group, GroupError, alone_only, scoped};
use crate::sync::Durability;
use crate::types::{self, LogId};

impl Group {
    /// Who belongs to it, by the newest record that says so, committed or not.
    pub fn members(&self) -> Members {
        types::members_of(
            self.raft
                .metrics()
                .borrow_watched()
                .membership_config
                .membership(),
        )
    }

    /// Adds a follower without a vote, and waits until it has nearly all.
    ///
    /// # Errors
    /// [`GroupError`].
    pub async fn add_learner(&self, id: u64) -> Result<(), GroupError> {
        self.may_change_members()?;
        let done = scoped(self.engine.platform(), self.raft.add_learner(id, (), true)).await;
        done.map(drop).map_err(|e| GroupError(e.to_string()))
    }

    /// Adds a follower without a vote; it catches up by itself, which [`behind`](Self::behind) tells.
    ///
    /// # Errors
    /// [`GroupError`].
    pub async fn follow(&self, id: u64) -> Result<(), GroupError> {
        self.may_change_members()?;
        let done = scoped(self.engine.platform(), self.raft.add_learner(id, (), false));
        done.await.map(drop).map_err(|e| GroupError(e.to_string()))
    }

    /// How many records each of those lacks who follow this leader. Nobody follows who does not lead.
    pub fn behind(&self) -> BTreeMap<u64, u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let lacks = |at: &Option<LogId>| match at {
            Some(at) => last.saturating_sub(at.index),
            None => u64::MAX,
        };
        let following = metrics.replication.iter().flatten();
        following.map(|(id, at)| (*id, lacks(at))).collect()
    }

    /// Makes `voters` the ones that vote; who votes no more leaves.
    ///
    /// # Errors
    /// [`GroupError`].
    pub async fn set_voters(&self, voters: Vec<u64>) -> Result<(), GroupError> {
        self.may_change_members()?;
        let voters: BTreeSet<u64> = voters.into_iter().collect();
        let done = scoped(
            self.engine.platform(),
            self.raft.change_membership(voters, false),
        )
        .await;
        done.map(drop).map_err(|e| GroupError(e.to_string()))
    }

    fn may_change_members(&self) -> Result<(), GroupError> {
        let shared = self.log.shared();
        if shared.durability != Durability::Always {
            return Err(alone_only());
        }
        shared.time().map(drop).map_err(GroupError)
    }

    /// Hands the lead to another voter.
    ///
    /// # Errors
    /// [`GroupError`].
    pub async fn transfer(&self, to: u64) -> Result<(), GroupError> {
        let done = self.raft.trigger().transfer_leader(to).await;
        done.map_err(|e| GroupError(e.to_string()))
    }

    /// Puts learners out.
    ///
    /// # Errors
    /// [`GroupError`].
    pub async fn forget(&self, learners: Vec<u64>) -> Result<(), GroupError> {
        self.may_change_members()?;
        let change = ChangeMembers::RemoveNodes(learners.into_iter().collect());
        let done = scoped(
            self.engine.platform(),
            self.raft.change_membership(change, false),
        );
        done.await.map(drop).map_err(|e| GroupError(e.to_string()))
    }
}
