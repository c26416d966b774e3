//! Processes, named so that a reused pid cannot be taken for an old one: by pid and start time.
//!
//! Signals go through a pidfd that is opened first and compared after, so that they never hit a stranger.

use procfs::process::{FDTarget, Process};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, io, os::fd::OwnedFd, time::Duration};

use crate::clock::Stopwatch;

/// One process of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessRef {
    pub pid: u32,
    /// Clock ticks from boot to the process's start.
    pub start_time: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Running,
    /// Held by a tracer, such as CRIU during a dump.
    Traced,
    /// Stopped by a signal.
    Stopped,
    /// Ended, or a zombie that nobody has buried.
    Gone,
}

/// Whether a process is a descendant of one of these. One that is gone is nobody's outsider, so it counts as one.
pub(crate) fn born_of(pid: i32, of: &BTreeSet<u32>) -> bool {
    let mut pid = pid;
    for _ in 0..TREE_MAXIMUM {
        match Process::new(pid).and_then(|process| process.stat()).map(|stat| stat.ppid) {
            Err(_) => return true,
            Ok(parent) if u32::try_from(parent).is_ok_and(|parent| of.contains(&parent)) => return true,
            Ok(parent) if parent <= 1 => return false,
            Ok(parent) => pid = parent,
        }
    }
    false
}

impl ProcessRef {
    /// The process that has `pid` now.
    pub fn find(pid: u32) -> Option<Self> {
        let stat = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
        (!matches!(stat.state, 'Z' | 'X' | 'x')).then_some(Self { pid, start_time: stat.starttime })
    }

    /// The kernel's record of it, while it lives.
    pub fn stat(&self) -> Option<procfs::process::Stat> {
        let stat = Process::new(i32::try_from(self.pid).ok()?).ok()?.stat().ok()?;
        (stat.starttime == self.start_time && !matches!(stat.state, 'Z' | 'X' | 'x')).then_some(stat)
    }

    pub fn condition(&self) -> Condition {
        match self.stat().map(|stat| stat.state) {
            None => Condition::Gone,
            Some('t') => Condition::Traced,
            Some('T') => Condition::Stopped,
            Some(_) => Condition::Running,
        }
    }

    pub fn is_alive(&self) -> bool {
        self.condition() != Condition::Gone
    }

    /// Sends `signal`; true if the process was there to take it.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if !self.is_alive() {
            return Ok(false);
        }
        match pidfd_send_signal(&process, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until its condition is one that `wanted` takes; what it is at the end.
    pub fn wait_until(&self, wanted: impl Fn(Condition) -> bool, at_most: Duration) -> Condition {
        poll(at_most, || Some(self.condition()).filter(|condition| wanted(*condition)))
            .unwrap_or_else(|| self.condition())
    }

    /// Its children, and theirs, by pid; not itself. A tree that lives has others a moment later: see [`born_of`].
    pub fn descendants(&self) -> Vec<ProcessRef> {
        let mut found = Vec::new();
        let mut unseen = vec![self.pid];
        while let Some(pid) = unseen.pop() {
            for child in children(pid) {
                if found.len() >= TREE_MAXIMUM {
                    return found;
                }
                if let Some(child) = ProcessRef::find(child) {
                    unseen.push(child.pid);
                    found.push(child);
                }
            }
        }
        found
    }

    /// Memory that it and its descendants have in use now; what they share counts for each.
    pub fn tree_resident_bytes(&self) -> u64 {
        let tree = self.descendants().into_iter().chain([*self]);
        tree.filter_map(|process| process.stat()).map(|stat| stat.rss * procfs::page_size()).sum()
    }

    /// Copies of those of its descriptors that lead to what `wanted` takes: whatever is set on one is set for the process.
    pub fn descriptors(&self, wanted: impl Fn(&FDTarget) -> bool) -> Vec<OwnedFd> {
        let pid = i32::try_from(self.pid).ok();
        let Some(known) = pid.and_then(|pid| Process::new(pid).ok()) else { return vec![] };
        let Some(Ok(pidfd)) = pid.and_then(Pid::from_raw).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            return vec![];
        };
        if !self.is_alive() {
            return vec![];
        }
        let all = known.fd().into_iter().flatten().flatten().filter(|descriptor| wanted(&descriptor.target));
        all.filter_map(|descriptor| pidfd_getfd(&pidfd, descriptor.fd, PidfdGetfdFlags::empty()).ok()).collect()
    }

    /// What it traces now.
    pub fn traced(&self) -> Vec<ProcessRef> {
        let Ok(all) = procfs::process::all_processes() else { return vec![] };
        let is = |process: &Process| {
            process.status().is_ok_and(|status| u32::try_from(status.tracerpid).is_ok_and(|tracer| tracer == self.pid))
        };
        let traced = all.flatten().filter(is);
        traced.filter_map(|process| ProcessRef::find(u32::try_from(process.pid()).ok()?)).collect()
    }

    /// Its pid in the innermost pid namespace that it is in, if that is not the agent's own.
    pub fn pid_in_namespace(&self) -> Option<u32> {
        let status = Process::new(i32::try_from(self.pid).ok()?).ok()?.status().ok()?;
        let pids = status.nspid?;
        if pids.len() < 2 {
            return None;
        }
        pids.last().and_then(|pid| u32::try_from(*pid).ok())
    }
}

/// Processes of one tree that are looked at.
const TREE_MAXIMUM: usize = 10_000;

fn children(pid: u32) -> Vec<u32> {
    let Some(process) = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()) else { return vec![] };
    let Ok(tasks) = process.tasks() else { return vec![] };
    tasks.flatten().filter_map(|task| task.children().ok()).flatten().collect()
}

/// Tries `attempt` every 10 ms until it gives something or `at_most` has passed. For a blocking thread: what is
/// waited for here (another process's state in `/proc`) tells nobody when it changes.
pub fn poll<T>(at_most: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = attempt() {
            return Some(found);
        }
        if watch.elapsed() >= at_most {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends a whole tree: stops the root first so that it begins nothing new, then kills all. True if all are gone.
pub fn end_tree(root: &ProcessRef, at_most: Duration) -> io::Result<bool> {
    let watch = Stopwatch::start();
    root.signal(Signal::STOP)?;
    loop {
        let mut tree = root.descendants();
        tree.push(*root);
        for process in &tree {
            process.signal(Signal::KILL)?;
        }
        if poll(Duration::from_millis(200), || tree.iter().all(|p| !p.is_alive()).then_some(())).is_some() {
            return Ok(true);
        }
        if watch.elapsed() >= at_most {
            return Ok(false);
        }
    }
}

/// Lets a whole tree go on. CRIU stops every process of it.
pub fn continue_tree(root: &ProcessRef) -> io::Result<()> {
    for process in root.descendants() {
        process.signal(Signal::CONT)?;
    }
    root.signal(Signal::CONT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_tree_is_stopped_continued_and_ended() {
        let mut shell = Command::new("/bin/sh").args(["-c", "sleep 60 & sleep 60; wait"]).spawn().unwrap();
        let root = ProcessRef::find(shell.id()).unwrap();
        let tree = poll(Duration::from_secs(5), || Some(root.descendants()).filter(|tree| tree.len() == 2)).unwrap();
        assert!(root.signal(Signal::STOP).unwrap());
        let stopped = root.wait_until(|c| c == Condition::Stopped, Duration::from_secs(5));
        assert_eq!(stopped, Condition::Stopped);
        continue_tree(&root).unwrap();
        assert_eq!(root.wait_until(|c| c == Condition::Running, Duration::from_secs(5)), Condition::Running);
        assert!(end_tree(&root, Duration::from_secs(5)).unwrap());
        assert!(tree.iter().all(|process| !process.is_alive()));
        shell.wait().unwrap();
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let me = ProcessRef::find(std::process::id()).unwrap();
        let former = ProcessRef { start_time: me.start_time + 1, ..me };
        assert_eq!(former.condition(), Condition::Gone);
        assert!(!former.signal(Signal::CONT).unwrap());
    }

    #[test]
    fn a_child_born_a_moment_later_is_of_the_tree_and_a_stranger_is_not() {
        let mut shell = Command::new("/bin/sh").args(["-c", "sh -c 'sleep 60; :' & wait"]).spawn().unwrap();
        let root = ProcessRef::find(shell.id()).unwrap();
        let tree = poll(Duration::from_secs(5), || Some(root.descendants()).filter(|tree| tree.len() == 2)).unwrap();
        let known = BTreeSet::from([root.pid]);
        for process in &tree {
            assert!(born_of(i32::try_from(process.pid).unwrap(), &known), "{process:?}");
        }
        assert!(!born_of(i32::try_from(std::process::id()).unwrap(), &known));
        assert!(end_tree(&root, Duration::from_secs(5)).unwrap());
        shell.wait().unwrap();
        assert!(born_of(i32::try_from(root.pid).unwrap(), &BTreeSet::new()), "one that is gone holds nothing");
    }
}
