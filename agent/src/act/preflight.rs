//! What CRIU cannot take, seen before anything is stopped, and told in words.
//!
//! What leads out of the workload, and what of it can be left behind, is [`super::outside`]'s. What is not seen here is
//! left to CRIU, whose words [`super::criu::explain`] translates, and to `process.confirm`, which sees no progress.

use super::hands::Failure;
use crate::process::ProcessRef;
use procfs::process::{FDTarget, Process};

/// Refuses a tree of processes that holds what CRIU cannot take.
pub fn examine(root: &ProcessRef) -> Result<(), Failure> {
    let mut tree = vec![*root];
    tree.extend(root.descendants());
    for process in &tree {
        // One that has ended meanwhile holds nothing.
        let known = i32::try_from(process.pid).ok().and_then(|pid| Process::new(pid).ok());
        let Some(Ok(descriptors)) = known.map(|known| known.fd()) else { continue };
        for descriptor in descriptors.flatten() {
            match descriptor.target {
                FDTarget::Path(path) if is_terminal(&path.to_string_lossy()) => {
                    let message = format!(
                        "process {} holds the terminal {}: start the workload with its streams on files",
                        process.pid,
                        path.display()
                    );
                    return Err(Failure::new("workload.terminal", message));
                }
                FDTarget::AnonInode(name) if name.contains("io_uring") => {
                    let message = format!("process {} uses io_uring, which CRIU cannot take", process.pid);
                    return Err(Failure::new("workload.io-uring", message));
                }
                FDTarget::Path(_)
                | FDTarget::Pipe(_)
                | FDTarget::Socket(_)
                | FDTarget::AnonInode(_)
                | FDTarget::Net(_)
                | FDTarget::MemFD(_)
                | FDTarget::Other(..)
                | FDTarget::Unknown(..) => {}
            }
        }
    }
    Ok(())
}

fn is_terminal(path: &str) -> bool {
    path.starts_with("/dev/pts/") || path.starts_with("/dev/tty") || path == "/dev/console"
}
