//! The contract, route by route, over a real engine on a real disk; only sockets are left out
//! (`listener` has those). Every answer that the rig sees is held to the rules that all have.
// Tests look at the disk behind the node, and wait in real time.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod backups;
mod data;
mod fresh;
mod guards;
mod listener;
mod node;
mod peers;
mod rig;
mod rules;
mod transactions;
