//! Restores of what real namespaces wrote: an engine makes the backups, every state on the way is
//! remembered, and each restore must give back just that.

mod crash;
mod faults;
mod moments;
pub(crate) mod node;
mod packed;

use std::path::{Path, PathBuf};

use unisondb_types::Target;

use super::{BaseFrom, Existing, Plan, Problem, Request, RestoreError, Restored};
use node::Node;

/// A request for `users` out of the backups of `node`, into `data`.
fn request(data: &str, base: BaseFrom, wal: &[&Path], target: Target) -> Request {
    Request {
        data_dir: PathBuf::from(data),
        namespace: "users".parse().expect("a name"),
        base,
        wal: wal.iter().map(|p| p.to_path_buf()).collect(),
        target,
        lineage: None,
        first_segment: None,
        existing: Existing::Refuse,
    }
}

/// Everything below the backup root of `node`: snapshots and segments.
fn all_of(node: &Node, data: &str, target: Target) -> Request {
    request(data, BaseFrom::Folders(vec![node.backups()]), &[], target)
}

fn plan(node: &Node, request: &Request) -> Result<Plan, RestoreError> {
    super::plan(node.platform.disk.as_ref(), request, &|_| {})
}

fn restore(node: &Node, request: &Request) -> Result<Restored, RestoreError> {
    let plan = plan(node, request)?;
    super::run(&node.platform, request, &plan, &|_| {})
}

fn problem(node: &Node, request: &Request) -> Problem {
    let plan = plan(node, request).expect("a plan");
    let refused = super::run(&node.platform, request, &plan, &|_| {});
    assert!(matches!(refused, Err(RestoreError::Plan(_))), "{refused:?}");
    let exists = node.platform.disk.meta(&request.data_dir.join("users"));
    assert!(exists.is_err(), "nothing may be written");
    plan.problem.expect("a problem")
}
