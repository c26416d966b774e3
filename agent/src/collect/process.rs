//! The workloads under this agent: whether they run, what they use, and how they progress.
//!
//! A workload that is stopped or gone says `running` 0 and nothing else: a progress that is repeated would look fresh.

use super::{Missing, Sink, Source};
use crate::{
    act::control::cgroup::Cgroups,
    drill::Stage,
    process::ProcessRef,
    workloads::{Entry, Registry, Vital},
};
use aether_core::{drill::ATTRIBUTE, id::WorkloadId, metric, snapshot::Tier, subject::SubjectRef, time::Time};
use procfs::{Current, Meminfo};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Samples over which the rate of progress is taken.
const RATE_SAMPLES: usize = 5;

/// Threads of one workload that are looked at.
const THREADS_MAXIMUM: usize = 4_096;

pub(super) struct Workloads {
    registry: Arc<Registry>,
    cgroups: Cgroups,
    stage: Stage,
    progress: BTreeMap<WorkloadId, VecDeque<(Time, u64)>>,
    /// Nanoseconds that a workload ran or waited to run, as last read.
    wanted: BTreeMap<WorkloadId, (Time, u64)>,
}

impl Workloads {
    pub(super) fn of(registry: Arc<Registry>, cgroups: Cgroups, stage: Stage) -> Self {
        Self { registry, cgroups, stage, progress: BTreeMap::new(), wanted: BTreeMap::new() }
    }

    /// What a workload wants of the node's processors, what it has of its memory, and what it could take of it.
    fn shares(&mut self, entry: &Entry, root: &ProcessRef, at: Time) -> Vec<(&'static str, &'static str, f64)> {
        let mut shares = Vec::new();
        let cpus = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
        let wanted = wanted_ns(root);
        let before = self.wanted.insert(entry.spec.id.clone(), (at, wanted));
        // A thread that ended took its time with it: that reading says nothing.
        if let Some((since, before)) = before.filter(|(since, before)| at > *since && *before <= wanted) {
            let demand = (wanted - before) as f64 / 1e6 / at.since_ms(since) as f64;
            let most = self.cgroups.processors(root).unwrap_or(cpus);
            shares.push((metric::WORKLOAD_CPU_DEMAND, "1", demand.min(most).min(cpus) / cpus));
        }
        let resident = |process: &ProcessRef| process.stat().map_or(0, |stat| stat.rss * procfs::page_size());
        let has = resident(root) + root.descendants().iter().map(resident).sum::<u64>();
        shares.push((metric::PROCESS_MEMORY, "By", has as f64));
        let total = Meminfo::current().map_or(0, |info| info.mem_total);
        if total > 0 {
            let reach = self.cgroups.memory(root).map_or(total, |limit| limit.min(total));
            shares.push((metric::WORKLOAD_MEMORY_REACH, "1", reach as f64 / total as f64));
        }
        shares
    }

    /// Tells them of the workload, and once more of the node: a scorer of nodes sees nothing else.
    fn tell_shares(&mut self, into: &mut Sink<'_>) {
        let entries = self.registry.all();
        self.wanted.retain(|id, _| entries.iter().any(|entry| entry.spec.id == *id));
        for entry in entries {
            let Some(root) = entry.root() else { continue };
            let id = entry.spec.id.clone();
            let tier = match entry.spec.tier {
                Tier::BestEffort => "best-effort",
                Tier::Standard => "standard",
                Tier::Critical => "critical",
            };
            let mut attributes = vec![("workload", id.as_str()), ("tier", tier)];
            attributes.extend(self.stage.of_workload(&id).map(|drill| (ATTRIBUTE, drill)));
            for (metric, unit, value) in self.shares(&entry, &root, into.at) {
                if metric != metric::PROCESS_MEMORY {
                    into.put(SubjectRef::workload(id.as_str()), metric, unit, &[], value);
                }
                into.node(metric, unit, &attributes, value);
            }
        }
    }

    /// Steps a second between the first and the last of the last few samples.
    fn rate(&mut self, workload: &WorkloadId, at: Time, progress: u64) -> Option<f64> {
        let window = self.progress.entry(workload.clone()).or_default();
        // A copy that was discarded leaves its source behind where the file was: begin anew.
        if window.back().is_some_and(|(_, before)| *before > progress) {
            window.clear();
        }
        window.push_back((at, progress));
        while window.len() > RATE_SAMPLES {
            window.pop_front();
        }
        let (first_at, first) = *window.front()?;
        let seconds = at.since_ms(first_at) as f64 / 1_000.0;
        (seconds > 0.0).then(|| (progress - first) as f64 / seconds)
    }
}

impl Source for Workloads {
    fn name(&self) -> &'static str {
        "process"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let vitals = self.registry.vitals(into.at);
        self.progress.retain(|id, _| vitals.iter().any(|vital| vital.id == *id && vital.running));
        for Vital { id, running, cpu, resident_bytes, progress } in vitals {
            let mut put = |metric: &str, unit: &str, attributes: &[(&str, &str)], value: f64| {
                into.put(SubjectRef::workload(id.as_str()), metric, unit, attributes, value);
            };
            put(metric::WORKLOAD_RUNNING, "1", &[], if running { 1.0 } else { 0.0 });
            if let Some((user, system)) = cpu {
                put(metric::PROCESS_CPU_TIME, "s", &[("cpu.mode", "user")], user);
                put(metric::PROCESS_CPU_TIME, "s", &[("cpu.mode", "system")], system);
            }
            if let Some(bytes) = resident_bytes {
                put(metric::PROCESS_MEMORY, "By", &[], bytes as f64);
            }
            if let Some(progress) = progress.filter(|_| running) {
                put(metric::WORKLOAD_PROGRESS, "{step}", &[], progress as f64);
                if let Some(rate) = self.rate(&id, into.at, progress) {
                    into.put(SubjectRef::workload(id.as_str()), metric::WORKLOAD_PROGRESS_RATE, "{step}/s", &[], rate);
                }
            }
        }
        self.tell_shares(into);
        Ok(())
    }
}

/// Nanoseconds that a tree ran, and waited for a processor: what it wants, whatever it gets. From each thread's
/// `schedstat`; 0 where the kernel does not keep it.
fn wanted_ns(root: &ProcessRef) -> u64 {
    let mut processes = root.descendants();
    processes.push(*root);
    let threads = processes.iter().filter_map(|process| std::fs::read_dir(format!("/proc/{}/task", process.pid)).ok());
    let stats = threads.flatten().flatten().take(THREADS_MAXIMUM);
    stats
        .filter_map(|thread| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let mut numbers = text.split_whitespace().filter_map(|number| number.parse::<u64>().ok());
            Some(numbers.next()? + numbers.next()?)
        })
        .sum()
}
