//! How long workloads waited: for a processor, for I/O, for memory that was swapped out or had to be reclaimed. And how
//! often they gave up a processor, or were taken off it.
//!
//! From taskstats (generic netlink, CONFIG_TASKSTATS and CONFIG_TASK_DELAY_ACCT, CAP_NET_ADMIN). All but the wait for a
//! processor are counted only where `kernel.task_delayacct` is 1, which it is not by default.

use super::{
    netlink::{Socket, attributes, put, u16_at, u64_at},
    source::{Missing, Sink, Source},
};
use crate::{process::ProcessRef, workloads::Registry};
use aether_core::{metric, subject::SubjectRef};
use rustix::net::netlink::GENERIC;
use std::{fs, io, sync::Arc, time::Duration};

const EVERY: Duration = Duration::from_secs(5);
/// Workloads, and processes of each.
const WORKLOADS_MAXIMUM: usize = 16;
const PROCESSES_MAXIMUM: usize = 64;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const TASKSTATS_CMD_GET: u8 = 1;
const TASKSTATS_CMD_ATTR_TGID: u16 = 2;
const TASKSTATS_TYPE_STATS: u16 = 3;
const TASKSTATS_TYPE_AGGR_TGID: u16 = 5;
/// `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;
/// Offsets in `struct taskstats`, which only grows at its end (Documentation/accounting/taskstats-struct.rst).
const CPU_DELAY: usize = 24;
const BLKIO_DELAY: usize = 40;
const SWAPIN_DELAY: usize = 56;
const VOLUNTARY: usize = 272;
const INVOLUNTARY: usize = 280;
const RECLAIM_DELAY: usize = 320;
const BROKEN_VERSION: u16 = 15;

pub(super) struct TaskStats {
    registry: Arc<Registry>,
    kernel: Option<(Socket, u16)>,
}

/// Nanoseconds, and switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Delays {
    cpu: u64,
    io: u64,
    swap: u64,
    reclaim: u64,
    voluntary: u64,
    involuntary: u64,
}

impl Delays {
    fn parse(stats: &[u8]) -> Option<Self> {
        // Fields were put into the middle of version 15, and to the end again in 16.
        if u16_at(stats, 0)? == BROKEN_VERSION {
            return None;
        }
        Some(Self {
            cpu: u64_at(stats, CPU_DELAY)?,
            io: u64_at(stats, BLKIO_DELAY)?,
            swap: u64_at(stats, SWAPIN_DELAY)?,
            voluntary: u64_at(stats, VOLUNTARY)?,
            involuntary: u64_at(stats, INVOLUNTARY)?,
            // Kernels before 4.20 have no such field.
            reclaim: u64_at(stats, RECLAIM_DELAY).unwrap_or_default(),
        })
    }

    fn add(&mut self, other: Self) {
        let Self { cpu, io, swap, reclaim, voluntary, involuntary } = other;
        self.cpu += cpu;
        self.io += io;
        self.swap += swap;
        self.reclaim += reclaim;
        self.voluntary += voluntary;
        self.involuntary += involuntary;
    }
}

impl TaskStats {
    pub(super) fn of(registry: Arc<Registry>) -> Self {
        Self { registry, kernel: None }
    }

    fn open() -> io::Result<(Socket, u16)> {
        let mut socket = Socket::open(Some(GENERIC))?;
        let mut request = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
        put(&mut request, CTRL_ATTR_FAMILY_NAME, b"TASKSTATS\0");
        let mut family = None;
        socket.get(GENL_ID_CTRL, &request, |message| {
            let mut all = attributes(message.get(GENERIC_HEADER..).unwrap_or_default());
            family = all.find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID).and_then(|(_, id)| u16_at(id, 0));
        })?;
        family.map(|family| (socket, family)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn ask(&mut self, pid: u32) -> io::Result<Delays> {
        let (socket, family) = match &mut self.kernel {
            Some(kernel) => kernel,
            none => none.insert(Self::open()?),
        };
        let mut request = vec![TASKSTATS_CMD_GET, 1, 0, 0];
        put(&mut request, TASKSTATS_CMD_ATTR_TGID, &pid.to_ne_bytes());
        let mut delays = None;
        socket.get(*family, &request, |message| {
            let mut all = attributes(message.get(GENERIC_HEADER..).unwrap_or_default());
            let group = all.find(|(kind, _)| *kind == TASKSTATS_TYPE_AGGR_TGID).map(|(_, group)| group);
            let stats = group.and_then(|group| attributes(group).find(|(kind, _)| *kind == TASKSTATS_TYPE_STATS));
            delays = stats.and_then(|(_, stats)| Delays::parse(stats));
        })?;
        delays.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn of_tree(&mut self, root: &ProcessRef) -> io::Result<Delays> {
        let mut sum = self.ask(root.pid)?;
        for process in root.descendants().into_iter().take(PROCESSES_MAXIMUM) {
            match self.ask(process.pid) {
                Ok(delays) => sum.add(delays),
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(ESRCH) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }
}

const ESRCH: i32 = 3;

impl Source for TaskStats {
    fn name(&self) -> &str {
        "taskstats"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        // The agent itself is asked for first: so that what lacks is known before there is a workload.
        let asked = self.ask(std::process::id());
        let counted = fs::read_to_string("/proc/sys/kernel/task_delayacct").is_ok_and(|text| text.trim() == "1");
        let entries = self.registry.all();
        let with_root = entries.iter().filter_map(|entry| Some((entry.spec.id.as_str(), entry.root()?)));
        for (id, root) in with_root.take(WORKLOADS_MAXIMUM) {
            let tell = |into: &mut Sink<'_>, resource: &str, ns: u64| {
                let attributes = [("resource", resource)];
                into.put(SubjectRef::workload(id), metric::WORKLOAD_DELAY, "s", &attributes, ns as f64 / 1e9);
            };
            let Ok(delays) = (if asked.is_ok() { self.of_tree(&root) } else { Err(io::ErrorKind::Other.into()) })
            else {
                if let Some(ns) = waited(root.pid) {
                    tell(into, "cpu", ns);
                }
                continue;
            };
            tell(into, "cpu", delays.cpu);
            if counted {
                tell(into, "io", delays.io);
                tell(into, "swap", delays.swap);
                tell(into, "reclaim", delays.reclaim);
            }
            for (kind, count) in [("voluntary", delays.voluntary), ("involuntary", delays.involuntary)] {
                let attributes = [("process.context_switch.type", kind)];
                let subject = SubjectRef::workload(id);
                into.put(subject, metric::PROCESS_CONTEXT_SWITCHES, "{context_switch}", &attributes, count as f64);
            }
        }
        match asked {
            Err(error) => {
                self.kernel = None;
                let reason = match error.kind() {
                    io::ErrorKind::PermissionDenied => "taskstats needs the capability CAP_NET_ADMIN".to_string(),
                    io::ErrorKind::NotFound => "the kernel has no taskstats: it needs CONFIG_TASKSTATS".to_string(),
                    _ => format!("taskstats does not answer: {error}"),
                };
                Err(Missing::new(reason)
                    .instead("/proc/<pid>/schedstat: the wait of a workload's first process for a processor"))
            }
            Ok(_) if !counted => Err(Missing::new(
                "`kernel.task_delayacct` is not 1, so the kernel counts no waits for I/O, swap and reclaim; \
                 `sysctl kernel.task_delayacct=1` switches it on",
            )
            .instead("taskstats: the wait for a processor and context switches; pressure (PSI) of the whole node")),
            Ok(_) => Ok(()),
        }
    }
}

/// Nanoseconds that a process's first thread was ready to run and did not.
fn waited(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_this_process_or_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Arc::new(Registry::open(&folder.path().join("workloads.json"), "boot".into()).unwrap());
        let mut stats = TaskStats::of(registry);
        match stats.ask(std::process::id()) {
            Ok(before) => {
                for _ in 0..20 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let after = stats.ask(std::process::id()).unwrap();
                assert!(after.voluntary >= before.voluntary + 20, "{before:?} {after:?}");
                assert_eq!(stats.ask(u32::MAX >> 2).unwrap_err().raw_os_error(), Some(ESRCH));
            }
            Err(error) => {
                assert!([io::ErrorKind::PermissionDenied, io::ErrorKind::NotFound].contains(&error.kind()), "{error}");
            }
        }
    }

    #[test]
    fn fields_are_where_the_kernels_header_has_them() {
        let stats: Vec<u8> = (0..64u64).flat_map(u64::to_ne_bytes).collect();
        let wanted = Delays { cpu: 3, io: 5, swap: 7, reclaim: 40, voluntary: 34, involuntary: 35 };
        assert_eq!(Delays::parse(&stats), Some(wanted));
        // An older kernel's is shorter.
        assert_eq!(Delays::parse(&stats[..288]), Some(Delays { reclaim: 0, ..wanted }));
        assert_eq!(Delays::parse(&stats[..200]), None);
        let broken = [&BROKEN_VERSION.to_ne_bytes()[..], &stats[2..]].concat();
        assert_eq!(Delays::parse(&broken), None);
    }
}
