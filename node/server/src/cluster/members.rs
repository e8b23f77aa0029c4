//! The leader of a group brings its members into line with the catalog: who is set down and is no member
//! becomes a learner, and a voter when it has nearly all; who is a member and is not set down leaves.
//! One step a call; each can be done again, by this leader or a later one.

use std::collections::BTreeSet;

use crate::writer::Lane;

/// A learner that lacks no more than this becomes a voter.
const NEARLY: u64 = 1_000;

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// All who are wanted vote, and nobody else.
    InLine,
    /// There is more to do.
    OnTheWay,
}

/// One step.
pub(super) async fn step(lane: &Lane, wanted: &BTreeSet<u64>) -> Result<Step, String> {
    let group = lane.group();
    let members = group.members();
    let own = group.own();
    let voters: BTreeSet<u64> = members.voters.iter().flatten().copied().collect();
    if !wanted.contains(&own) {
        // Not set down yet, or taken out. Nobody puts himself out: another leads first, who does.
        if let Some(heir) = wanted.iter().find(|id| voters.contains(id)) {
            group.transfer(*heir).await.map_err(|e| e.to_string())?;
        }
        return Ok(Step::OnTheWay);
    }
    let behind = group.behind();
    let nearly = |id: &u64| behind.get(id).is_some_and(|lacks| *lacks <= NEARLY);
    let near: BTreeSet<u64> = wanted
        .iter()
        .filter(|id| voters.contains(id) || nearly(id))
        .copied()
        .collect();
    // A group of one grows to all at once, as soon as most of them have nearly all: of two, the loss of either
    // would be the end.
    let next = match voters.len() == 1 && near.len() > wanted.len() / 2 {
        true => wanted.clone(),
        false if voters.len() == 1 => voters.clone(),
        false => near,
    };
    if let Some(id) = wanted
        .iter()
        .find(|id| !voters.contains(id) && !members.learners.contains(id))
    {
        group.follow(*id).await.map_err(|e| e.to_string())?;
        return Ok(Step::OnTheWay);
    }
    let strangers = members.learners.iter().filter(|id| !wanted.contains(id));
    let strangers: Vec<u64> = strangers.copied().collect();
    if !strangers.is_empty() {
        group.forget(strangers).await.map_err(|e| e.to_string())?;
        return Ok(Step::OnTheWay);
    }
    if members.voters.len() > 1 || next != voters {
        let next: Vec<u64> = next.into_iter().collect();
        tracing::info!(namespace = %lane.engine().namespace(), voters = ?next, "members change");
        group.set_voters(next).await.map_err(|e| e.to_string())?;
        return Ok(Step::OnTheWay);
    }
    Ok(match voters == *wanted {
        true => Step::InLine,
        false => Step::OnTheWay,
    })
}
