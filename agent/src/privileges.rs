//! What the agent may do by itself: no more than its own work takes, as far as the kernel can hold it to that.
//!
//! Only the agent's own process gives privileges up. What it starts, CRIU and workloads and scripts, begins as the user that
//! the agent is, within the bounding set that it was started with: a workload may need what the agent does not.

use rustix::{
    io,
    thread::{CapabilitySet, capabilities, set_capabilities},
};

/// What the agent's own code uses, each with what for.
const USED: [(CapabilitySet, &str); 9] = [
    (CapabilitySet::BPF, "loads eBPF programs"),
    (CapabilitySet::PERFMON, "attaches them, and opens perf counters"),
    (CapabilitySet::CHECKPOINT_RESTORE, "reads the maps of what is moved"),
    (CapabilitySet::SYS_PTRACE, "reads the processes of others, and holds the memory that a copy still misses"),
    (CapabilitySet::KILL, "stops, resumes and ends workloads"),
    (CapabilitySet::NET_ADMIN, "asks the kernel for taskstats and sockets, and moves addresses"),
    (CapabilitySet::SYS_ADMIN, "has the kernel measure what eBPF costs, and reads what it counts for others"),
    (CapabilitySet::DAC_OVERRIDE, "writes what workloads own"),
    (CapabilitySet::DAC_READ_SEARCH, "reads what workloads own"),
];

/// What is used, whoever has it.
fn used() -> CapabilitySet {
    USED.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one)
}

/// Gives up, for this thread and all that it starts from now on, what the agent never uses; gives back what that was, as
/// the kernel calls it. Privileges are the threads' own, so it must come before the second thread.
pub fn give_up() -> io::Result<Vec<String>> {
    let mut sets = capabilities(None)?;
    let surplus = sets.permitted.difference(used());
    sets.permitted &= used();
    sets.effective &= sets.permitted;
    // Programs that gain nothing by the user that they run as inherit no more either.
    sets.inheritable &= sets.permitted;
    set_capabilities(None, sets)?;
    Ok(surplus.iter_names().map(|(name, _)| format!("CAP_{name}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// As `/proc/PID/status` has it.
    fn held(status: &str, set: &str) -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    }

    #[test]
    fn what_is_not_used_is_given_up_by_the_agent_and_not_by_what_it_starts() {
        // On a thread of its own: the others of this test's process keep what they have.
        let (mine, child) = std::thread::spawn(|| {
            give_up().unwrap();
            let child = Command::new("cat").arg("/proc/self/status").output().unwrap();
            let mine = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            (mine, String::from_utf8(child.stdout).unwrap())
        })
        .join()
        .unwrap();
        let bounding = held(&mine, "CapBnd");
        for set in ["CapPrm", "CapEff", "CapInh"] {
            assert_eq!(held(&mine, set) & !used().bits(), 0, "{set}");
        }
        assert_eq!(held(&child, "CapBnd"), bounding);
        if rustix::process::geteuid().is_root() {
            assert_eq!(held(&mine, "CapEff"), bounding & used().bits(), "and nothing else");
            assert_eq!(held(&child, "CapEff"), bounding, "a workload has what it had before");
        }
    }

    #[test]
    fn the_unit_leaves_the_agent_what_it_uses() {
        let unit = include_str!("../systemd/aether-agent.service");
        let granted: Vec<&str> = unit
            .lines()
            .filter_map(|line| line.strip_prefix("CapabilityBoundingSet="))
            .flat_map(str::split_whitespace)
            .collect();
        for (one, what_for) in used().iter_names().map(|(name, one)| (name, USED.iter().find(|used| used.0 == one))) {
            assert!(granted.contains(&format!("CAP_{one}").as_str()), "CAP_{one}: {what_for:?}");
        }
    }
}
