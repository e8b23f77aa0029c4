//! A group's timers (D18). openraft ticks every 50 ms, whatever there is to do: a hundred idle groups would
//! wake a node two thousand times a second. So it ticks only where a tick could do something, and when a leader
//! shows itself is decided here, for all groups of a node at the same few moments: what they send then goes
//! together.
//!
//! | a member that | ticks | shows itself |
//! | --- | --- | --- |
//! | decides alone, and nobody hears it | no | no |
//! | leads | no | every 250 ms |
//! | has heard its leader in the last 700 ms | no | |
//! | else | yes: it may have to stand for election | |
//!
//! A member stands at the earliest 1.0 s after it heard its leader: by then openraft has been ticking for a
//! quarter of a second, and does not know that it ever rested.

use std::time::Duration;

use openraft_rt::WatchReceiver as _;
use tokio::sync::watch;

use crate::group::{Group, HEARTBEAT, Office};
use crate::types;

/// How long after its leader was heard a member has no need of ticks.
const LULL: Duration = Duration::from_millis(700);
/// The moments at which leaders of a node show themselves: so many every [`HEARTBEAT`], that not all groups of
/// a node with a thousand want its cores at once.
const MOMENTS: u32 = 5;

/// When this member heard its leader last.
#[derive(Debug, Default)]
pub(crate) struct Heard(watch::Sender<Option<Duration>>);

impl Heard {
    /// The leader's message came then, by the monotonic clock.
    pub(crate) fn at(&self, moment: Duration) {
        self.0.send_replace(Some(moment));
    }

    /// It is to be replaced: what was heard of it counts no longer.
    pub(crate) fn forget(&self) {
        self.0.send_replace(None);
    }
}

/// What a member does just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Alone,
    Leads,
    Follows,
    Looks,
}

/// Runs until openraft ends; says so where that was not wanted.
pub(crate) async fn run(group: Group) {
    let clock = group.engine().platform().clock.clone();
    let lineage = group.engine().history().lineage;
    let phase = phase(lineage.as_bytes());
    let mut office = group.watch_office();
    let mut heard = group.heard.0.subscribe();
    let mut does = role(&group, &office);
    loop {
        let last = *heard.borrow_and_update();
        let quiet = last.map(|at| (at + LULL).saturating_sub(clock.monotonic()));
        let rests = quiet.filter(|left| does == Role::Follows && !left.is_zero());
        let ticks = match does {
            Role::Alone | Role::Leads => false,
            Role::Follows => rests.is_none(),
            Role::Looks => true,
        };
        group.raft.runtime_config().tick(ticks);
        let changed = tokio::select! {
            biased;
            changed = office.changed() => {
                does = role(&group, &office);
                changed.is_ok()
            }
            () = clock.sleep(until_next(clock.monotonic(), phase)), if does == Role::Leads => {
                group.raft.trigger().heartbeat().await.is_ok()
            }
            () = clock.sleep(rests.unwrap_or_default()), if rests.is_some() => true,
            changed = heard.changed(), if does == Role::Follows && rests.is_none() => changed.is_ok(),
        };
        if !changed {
            break;
        }
    }
    if !group.is_stopped() {
        let ended = group.raft.metrics().borrow_watched().running_state.clone();
        let why = ended
            .err()
            .map_or("it has stopped".to_owned(), |e| e.to_string());
        group.standing().fail(&format!("raft: {why}"));
    }
}

fn role(group: &Group, office: &Office) -> Role {
    let (now, own) = (office.borrow_watched(), group.own());
    match now.current_leader {
        // openraft calls a member that stands alone a leader before its vote is.
        Some(id) if id == own && now.state.is_leader() => {
            let members = types::members_of(now.membership_config.membership());
            match members.is_only(own) && members.is_single() {
                true => Role::Alone,
                false => Role::Leads,
            }
        }
        Some(id) if id != own && !now.state.is_leader() => Role::Follows,
        _ => Role::Looks,
    }
}

/// Which of the moments is a group's.
fn phase(lineage: &[u8]) -> Duration {
    let at = lineage.first().map_or(0, |byte| u32::from(*byte) % MOMENTS);
    HEARTBEAT / MOMENTS * at
}

/// How long until the next of a group's moments.
fn until_next(now: Duration, phase: Duration) -> Duration {
    let (beat, now) = (HEARTBEAT.as_nanos(), now.as_nanos());
    let into = (now + beat - phase.as_nanos()) % beat;
    let left = u64::try_from(beat - into).unwrap_or(u64::MAX);
    Duration::from_nanos(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_groups_of_a_node_have_the_same_few_moments() {
        let millis = Duration::from_millis;
        for byte in 0..=u8::MAX {
            let phase = phase(&[byte, 1, 2]);
            assert!(
                phase < HEARTBEAT && phase.as_millis().is_multiple_of(50),
                "{phase:?}"
            );
            for now in [0, 1, 49, 50, 249, 250, 1_234] {
                let next = millis(now) + until_next(millis(now), phase);
                assert!(next > millis(now) && next <= millis(now) + HEARTBEAT);
                assert_eq!(next.as_nanos() % HEARTBEAT.as_nanos(), phase.as_nanos());
            }
        }
    }
}
