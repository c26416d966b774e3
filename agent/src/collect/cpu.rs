//! How busy the processors are, from the counters of `/proc/stat`.

use super::{Missing, Sink, Source};
use aether_core::metric;
use procfs::{CurrentSI, KernelStats};

#[derive(Default)]
pub(super) struct Cpu {
    /// Ticks in all states and ticks idle, at the last sample.
    last: Option<(u64, u64)>,
}

impl Source for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let stats = KernelStats::current()?;
        let t = &stats.total;
        // Guest time is within user time already.
        let idle = t.idle + t.iowait.unwrap_or(0);
        let busy = t.user + t.nice + t.system + t.irq.unwrap_or(0) + t.softirq.unwrap_or(0) + t.steal.unwrap_or(0);
        let all = busy + idle;
        if let Some((all_before, idle_before)) = self.last.replace((all, idle)) {
            // The kernel may take idle and iowait back by a tick.
            let (all, idle) = (all.saturating_sub(all_before), idle.saturating_sub(idle_before));
            if all > 0 {
                let share = 1.0 - (idle as f64 / all as f64).min(1.0);
                into.node(metric::CPU_UTILIZATION, "1", &[], share);
            }
        }
        into.node(metric::CPU_COUNT, "{cpu}", &[], stats.cpu_time.len() as f64);
        Ok(())
    }
}
