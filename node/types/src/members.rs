//! [`Members`]: who belongs to a raft group. (D8 in `docs/architecture.md`; layout in
//! `docs/formats/records.md`.)

use bincode::{Decode, Encode};

/// Who votes in a group and who follows without a vote, by raft id. Names and addresses of nodes are
/// kept elsewhere: they change without the group's consent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Members {
    /// One set of voters; two while one is being replaced by the other, and then a majority of each
    /// decides. Ids ascend.
    pub voters: Vec<Vec<u64>>,
    /// Who follows without a vote. Ids ascend.
    pub learners: Vec<u64>,
}

impl Members {
    /// These voters and nobody else.
    pub fn of(mut voters: Vec<u64>) -> Members {
        voters.sort_unstable();
        voters.dedup();
        Members {
            voters: vec![voters],
            learners: Vec::new(),
        }
    }

    /// Whether there is one member and no other.
    pub fn is_single(&self) -> bool {
        self.learners.is_empty() && self.voters.iter().all(|set| set.len() == 1)
    }

    /// Whether `id` alone decides. Of nobody, as before the first record, nobody does.
    pub fn is_only(&self, id: u64) -> bool {
        !self.voters.is_empty() && self.voters.iter().all(|set| set[..] == [id])
    }
}

impl std::fmt::Display for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let joined = |ids: &[u64]| {
            let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
            ids.join(" ")
        };
        let sets: Vec<String> = self.voters.iter().map(|set| joined(set)).collect();
        write!(f, "voters {}", sets.join(" and "))?;
        if !self.learners.is_empty() {
            write!(f, ", learners {}", joined(&self.learners))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_decides_alone_for_nobody_or_for_two() {
        assert!(Members::of(vec![7]).is_only(7) && !Members::of(vec![7]).is_only(8));
        assert!(!Members::of(vec![7, 8]).is_only(7));
        let nobody = Members {
            voters: Vec::new(),
            learners: Vec::new(),
        };
        assert!(!nobody.is_only(7));
    }
}
