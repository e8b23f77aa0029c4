//! Black-box tests of UnisonDB, and what they stand on: real processes, real files, the scripts of
//! the user documentation. Nothing here links the product: a test sees what a user sees.
//!
//! - [`mod@bench`]: how fast, against what else there is.
//! - [`build`]: where the binaries under test are, made when they are not.
//! - [`node`]: one running `unisondb`: start, wait, stop, kill -9.
//! - [`cluster`]: three of them that are one cluster, and a client that goes on at another.
//! - [`http`]: a small HTTP/1.1 client over `TcpStream`.
//! - [`document`]: the scripts of `docs/operations/backup-and-restore.txt`, byte for byte.
//! - [`sandbox`]: a machine of its own for such a script: own `/var`, `/tmp`, network, `systemctl`,
//!   `aws` and day.
//! - [`repository`]: the source tree, for the house rules.
//! - [`workload`]: clients under load, backups meanwhile, and a model of what must be there.

pub mod bench;
pub mod build;
pub mod cluster;
pub mod document;
pub mod http;
pub mod node;
pub mod repository;
pub mod sandbox;
pub mod workload;
