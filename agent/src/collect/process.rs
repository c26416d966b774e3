//! The workloads under this agent: whether they run, what they use, and how they progress.
//!
//! A workload that is stopped or gone says `running` 0 and nothing else: a progress that is repeated would look fresh.

use super::{Missing, Sink, Source};
use crate::workloads::{Registry, Vital};
use aether_core::{id::WorkloadId, metric, subject::SubjectRef, time::Time};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Samples over which the rate of progress is taken.
const RATE_SAMPLES: usize = 5;

pub(super) struct Workloads {
    registry: Arc<Registry>,
    progress: BTreeMap<WorkloadId, VecDeque<(Time, u64)>>,
}

impl Workloads {
    pub(super) fn of(registry: Arc<Registry>) -> Self {
        Self { registry, progress: BTreeMap::new() }
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
        Ok(())
    }
}
