//! What people do to a node, through its public HTTP interface alone: clients that write and read,
//! an operator who takes backups.

pub mod client;
pub mod http;
pub mod operator;
