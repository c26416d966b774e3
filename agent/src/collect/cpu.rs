//! How busy the processors are and with what, from the counters of `/proc/stat`.

use super::{Missing, Sink, Source};
use aether_core::metric;
use procfs::{CpuTime, CurrentSI, KernelStats};

#[derive(Default)]
pub(super) struct Cpu {
    /// At the last sample: of all processors, and of each.
    last: Option<(Ticks, Vec<Ticks>)>,
}

/// Ticks in all states, and idle.
#[derive(Clone, Copy)]
struct Ticks {
    all: u64,
    idle: u64,
}

impl Ticks {
    fn of(time: &CpuTime) -> Self {
        let all = modes(time).iter().map(|(_, ticks)| ticks).sum();
        Self { all, idle: time.idle + time.iowait.unwrap_or(0) }
    }

    /// The share of the time since then that was not idle; none if no time has passed.
    fn busy_since(self, before: Self) -> Option<f64> {
        // The kernel may take idle and iowait back by a tick.
        let (all, idle) = (self.all.saturating_sub(before.all), self.idle.saturating_sub(before.idle));
        (all > 0).then(|| 1.0 - (idle as f64 / all as f64).min(1.0))
    }
}

/// By OpenTelemetry's names, which has none for soft interrupts. Guest time is within user time already.
fn modes(time: &CpuTime) -> [(&'static str, u64); 8] {
    [
        ("user", time.user),
        ("nice", time.nice),
        ("system", time.system),
        ("idle", time.idle),
        ("iowait", time.iowait.unwrap_or(0)),
        ("interrupt", time.irq.unwrap_or(0)),
        ("softirq", time.softirq.unwrap_or(0)),
        ("steal", time.steal.unwrap_or(0)),
    ]
}

impl Source for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let stats = KernelStats::current()?;
        let (total, each) = (Ticks::of(&stats.total), stats.cpu_time.iter().map(Ticks::of).collect::<Vec<_>>());
        if let Some((total_before, each_before)) = &self.last {
            if let Some(share) = total.busy_since(*total_before) {
                into.node(metric::CPU_UTILIZATION, "1", &[], share);
            }
            // One that was switched on or off meanwhile moves the others to another place.
            if each.len() == each_before.len() {
                let busy = each.iter().zip(each_before).filter_map(|(now, before)| now.busy_since(*before));
                if let Some(busiest) = busy.reduce(f64::max) {
                    into.node(metric::CPU_BUSIEST, "1", &[], busiest);
                }
            }
        }
        self.last = Some((total, each));
        let a_second = procfs::ticks_per_second() as f64;
        for (mode, ticks) in modes(&stats.total) {
            into.node(metric::CPU_TIME, "s", &[("cpu.mode", mode)], ticks as f64 / a_second);
        }
        into.node(metric::CPU_COUNT, "{cpu}", &[], stats.cpu_time.len() as f64);
        into.node(metric::PROCESSES_CREATED, "{process}", &[], stats.processes as f64);
        for (state, count) in [("running", stats.procs_running), ("blocked", stats.procs_blocked)] {
            if let Some(count) = count {
                into.node(metric::TASKS, "{thread}", &[("state", state)], f64::from(count));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_what_passed_and_a_tick_taken_back_makes_it_no_less_than_none() {
        let ticks = |all, idle| Ticks { all, idle };
        for (before, now, wanted) in [
            (ticks(100, 50), ticks(200, 75), Some(0.75)),
            (ticks(100, 50), ticks(100, 50), None),
            (ticks(100, 50), ticks(200, 49), Some(1.0)),
            (ticks(100, 50), ticks(150, 150), Some(0.0)),
        ] {
            assert_eq!(now.busy_since(before), wanted);
        }
    }
}
