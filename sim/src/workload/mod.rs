//! What people do to a node, through its public HTTP interface alone: clients that write and read,
//! an operator who takes backups, an intruder who wants what is not his.

pub mod admin;
pub mod client;
pub mod http;
pub mod intruder;
pub mod juggler;
pub mod operator;
mod writing;
