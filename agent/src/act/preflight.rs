//! What CRIU cannot take, seen before anything is stopped, and told in words.
//!
//! Of some of it CRIU says so itself, later and in its own words. Of a pipe to a process outside it says nothing: dump
//! and restore succeed, and the restored process waits for ever at a pipe that leads nowhere. A standard stream on such a
//! pipe is refused; another descriptor may be inherited and unused, so it is not. What is not seen here is
//! left to CRIU, whose words [`super::criu::explain`] translates, and to `process.confirm`, which sees no progress.

use super::hands::Failure;
use crate::process::{ProcessRef, born_of};
use procfs::{
    net::TcpState,
    process::{FDTarget, Process},
};
use std::collections::{BTreeMap, BTreeSet};

/// Refuses a tree of processes that holds on to what is outside of it.
pub fn examine(root: &ProcessRef) -> Result<(), Failure> {
    let mut tree = vec![*root];
    tree.extend(root.descendants());
    let inside: BTreeSet<u32> = tree.iter().map(|process| process.pid).collect();
    let mut pipes: BTreeMap<u64, u32> = BTreeMap::new();
    for process in &tree {
        // One that has ended meanwhile holds nothing.
        let Some(known) = open(process.pid) else { continue };
        let Ok(descriptors) = known.fd() else { continue };
        let mut sockets = BTreeSet::new();
        for descriptor in descriptors.flatten() {
            match descriptor.target {
                FDTarget::Path(path) if is_terminal(&path.to_string_lossy()) => {
                    return refuse(
                        "workload.terminal",
                        format!(
                            "process {} holds the terminal {}: start the workload with its streams on files",
                            process.pid,
                            path.display()
                        ),
                    );
                }
                // One on another descriptor is mostly inherited and never used (a build's job server, say).
                FDTarget::Pipe(inode) if (0..=2).contains(&descriptor.fd) => {
                    pipes.insert(inode, process.pid);
                }
                FDTarget::Socket(inode) => {
                    sockets.insert(inode);
                }
                FDTarget::AnonInode(name) if name.contains("io_uring") => {
                    let message = format!("process {} uses io_uring, which CRIU cannot take", process.pid);
                    return refuse("workload.io-uring", message);
                }
                FDTarget::Path(_)
                | FDTarget::Pipe(_)
                | FDTarget::AnonInode(_)
                | FDTarget::Net(_)
                | FDTarget::MemFD(_)
                | FDTarget::Other(..)
                | FDTarget::Unknown(..) => {}
            }
        }
        established(&known, &sockets)?;
    }
    if pipes.is_empty() { Ok(()) } else { outsiders(&pipes, &inside) }
}

fn refuse(code: &str, message: String) -> Result<(), Failure> {
    Err(Failure::new(code, message))
}

fn open(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

fn is_terminal(path: &str) -> bool {
    path.starts_with("/dev/pts/") || path.starts_with("/dev/tty") || path == "/dev/console"
}

/// A connection is bound to this machine's address: a copy elsewhere could not speak on it, and its peer would be reset.
fn established(process: &Process, sockets: &BTreeSet<u64>) -> Result<(), Failure> {
    if sockets.is_empty() {
        return Ok(());
    }
    let tables = [process.tcp(), process.tcp6()];
    let mut entries = tables.into_iter().flatten().flatten();
    let open = entries.find(|entry| entry.state == TcpState::Established && sockets.contains(&entry.inode));
    match open {
        None => Ok(()),
        Some(entry) => refuse(
            "workload.tcp",
            format!(
                "process {} holds a TCP connection from {} to {}, which cannot move to another machine: let the workload \
                 close it first",
                process.pid, entry.local_address, entry.remote_address
            ),
        ),
    }
}

/// Looks for processes outside of the tree that hold one of its pipes.
fn outsiders(pipes: &BTreeMap<u64, u32>, inside: &BTreeSet<u32>) -> Result<(), Failure> {
    let Ok(all) = procfs::process::all_processes() else { return Ok(()) };
    for process in all.flatten() {
        if u32::try_from(process.pid()).is_ok_and(|pid| inside.contains(&pid)) {
            continue;
        }
        let Ok(descriptors) = process.fd() else { continue };
        for descriptor in descriptors.flatten() {
            let FDTarget::Pipe(inode) = descriptor.target else { continue };
            let Some(holder) = pipes.get(&inode) else { continue };
            // One that was born after the tree was looked at is of it all the same.
            if born_of(process.pid(), inside) {
                break;
            }
            let name = process.stat().map(|stat| stat.comm).unwrap_or_default();
            return refuse(
                "workload.pipe",
                format!(
                    "process {holder} has a standard stream on a pipe to process {} ({name}), which is not of the workload: its copy would \
                     hang at it. Start the workload with its streams on files",
                    process.pid()
                ),
            );
        }
    }
    Ok(())
}
