//! One raft group a namespace: openraft over the log and the engine. The only crate that names
//! openraft.
//!
//! | module | what |
//! | --- | --- |
//! | [`group`], `under_way`, `stop` | a group, as a node takes part in it; what is not answered yet; how it ends |
//! | `intake` | proposals on their way to openraft, gathered into groups |
//! | `alone` | what a group of one does otherwise |
//! | `room`, `queued` | room on a disk that may be full; how much may wait for all groups of a node |
//! | `log`, `sync` | the namespace's log as openraft's; when what was appended is durable |
//! | `machine` | the namespace's state as openraft's; the apply loop |
//! | `members` | who belongs to it, told and changed |
//! | `checks` | the leader says what ended segments add up to (D5) |
//! | `network`, `message` | what members send one another |
//! | `timers`, `reads` | when openraft ticks and a leader shows itself (D18); who waits for that |
//! | `purge`, `serve`, `fetch` | records go; who lacks them gets a parcel (D10, D11) |
//! | `types`, `entry` | openraft's types filled in with ours |
//! | `office`, `clock` | which stamps a leader may give (D3); what time it is by the log |
//!
//! Why it is built so, and what is still missing: `docs/adr/0004-the-log-is-the-raft-log.md`.

mod alone;
mod checks;
mod clock;
mod entry;
mod fetch;
pub mod group;
mod intake;
mod log;
mod machine;
mod members;
mod message;
mod network;
mod office;
mod purge;
mod queued;
mod reads;
mod room;
mod serve;
mod standing;
mod stop;
mod sync;
mod timers;
mod types;
mod under_way;

pub use fetch::{TakenOver, first_parcel};
pub use group::{Group, GroupError, Parts};
pub use office::AcceptClock;
pub use queued::Queued;
pub use standing::Standing;
pub use sync::Durability;
