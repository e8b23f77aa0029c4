//! What ended segments add up to, said by whoever leads (D5): a `Check` for each, until the log has
//! confirmed it. Said twice it is compared twice, which harms nobody; not said, a segment would never
//! be sealed. So nothing is remembered here but what is still owed.

use std::time::Duration;

use openraft_rt::WatchReceiver as _;
use unisondb_types::Command;

use crate::group::Group;

/// How long until a check that was not taken is proposed again.
const AGAIN: Duration = Duration::from_secs(1);

/// Ends with its group.
pub(crate) async fn run(group: Group) {
    // An election makes this node the one that owes them.
    let mut office = group.watch_office();
    while !group.is_stopped() {
        let mut owed = group.leads() && group.standing().failed().is_none();
        if owed {
            for check in group.engine().unconfirmed_checks() {
                // Whatever came of it: what is not confirmed stays owed.
                drop(group.propose(&Command::Check(check)).await);
            }
            owed = !group.engine().unconfirmed_checks().is_empty();
        }
        let clock = group.engine().platform().clock.clone();
        tokio::select! {
            biased;
            () = group.ended().notified() => {}
            changed = office.changed() => if changed.is_err() {
                return;
            },
            () = clock.sleep(AGAIN), if owed => {}
        }
    }
}
