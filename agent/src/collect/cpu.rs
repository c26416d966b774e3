//! How busy the processors are and with what, all and each, interrupts and switches, from the counters of `/proc/stat`.

use super::{
    Missing, Sink, Source,
    file::{Kept, numbers},
};
use aether_core::metric;

/// Processors that are told one by one; all count for the sums, and for the busiest.
const EACH_MAXIMUM: usize = 32;
/// Those of the kernel's soft interrupts that say something, by their place in its line.
const SOFT_INTERRUPTS: [(usize, &str); 7] =
    [(2, "timer"), (3, "net_tx"), (4, "net_rx"), (5, "block"), (7, "tasklet"), (8, "sched"), (10, "rcu")];

pub(super) struct Cpu {
    stat: Kept,
    /// At the last sample: of all processors, and of each.
    last: Option<(Ticks, Vec<Ticks>)>,
}

impl Default for Cpu {
    fn default() -> Self {
        Self { stat: Kept::at("/proc/stat"), last: None }
    }
}

/// Ticks by OpenTelemetry's names, which has none for soft interrupts. Guest time is within user time already.
type Modes = [u64; MODES.len()];
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "interrupt", "softirq", "steal"];

/// Ticks in all states, and idle.
#[derive(Clone, Copy)]
struct Ticks {
    all: u64,
    idle: u64,
}

impl Ticks {
    fn of(modes: &Modes) -> Self {
        let [_, _, _, idle, iowait, ..] = modes;
        Self { all: modes.iter().sum(), idle: idle + iowait }
    }

    /// The share of the time since then that was not idle; none if no time has passed.
    fn busy_since(self, before: Self) -> Option<f64> {
        // The kernel may take idle and iowait back by a tick.
        let (all, idle) = (self.all.saturating_sub(before.all), self.idle.saturating_sub(before.idle));
        (all > 0).then(|| 1.0 - (idle as f64 / all as f64).min(1.0))
    }
}

fn modes(line: &str) -> Modes {
    let mut modes = Modes::default();
    for (mode, ticks) in modes.iter_mut().zip(numbers(line)) {
        *mode = ticks;
    }
    modes
}

/// What one processor does; of what it never did nothing is told.
fn tell_each(into: &mut Sink<'_>, number: &str, modes: &Modes, a_second: f64) {
    let [user, nice, system, _, iowait, interrupt, softirq, steal] = modes;
    for (mode, ticks) in [
        ("user", user + nice),
        ("system", *system),
        ("iowait", *iowait),
        ("interrupt", interrupt + softirq),
        ("steal", *steal),
    ] {
        if ticks > 0 {
            let attributes = [("cpu.logical_number", number), ("cpu.mode", mode)];
            into.node(metric::CPU_EACH_TIME, "s", &attributes, ticks as f64 / a_second);
        }
    }
}

impl Source for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let Self { stat, last } = self;
        let a_second = procfs::ticks_per_second() as f64;
        let mut total = Modes::default();
        let mut each = Vec::with_capacity(last.as_ref().map_or(0, |(_, each)| each.len()));
        for line in stat.text()?.lines() {
            let Some((name, rest)) = line.split_once(' ') else { continue };
            let count = || numbers(rest).next().unwrap_or_default() as f64;
            match name {
                "cpu" => total = modes(rest),
                "intr" => into.node(metric::INTERRUPTS, "{interrupt}", &[], count()),
                "ctxt" => into.node(metric::CONTEXT_SWITCHES, "{context_switch}", &[], count()),
                "processes" => into.node(metric::PROCESSES_CREATED, "{process}", &[], count()),
                "procs_running" => into.node(metric::TASKS, "{thread}", &[("state", "running")], count()),
                "procs_blocked" => into.node(metric::TASKS, "{thread}", &[("state", "blocked")], count()),
                "softirq" => {
                    for (place, count) in numbers(rest).enumerate() {
                        if let Some((_, kind)) = SOFT_INTERRUPTS.iter().find(|(wanted, _)| *wanted == place) {
                            into.node(metric::SOFT_INTERRUPTS, "{interrupt}", &[("kind", kind)], count as f64);
                        }
                    }
                }
                name => {
                    if let Some(number) = name.strip_prefix("cpu") {
                        let modes = modes(rest);
                        if each.len() < EACH_MAXIMUM {
                            tell_each(into, number, &modes, a_second);
                        }
                        each.push(Ticks::of(&modes));
                    }
                }
            }
        }
        for (mode, ticks) in MODES.iter().zip(total) {
            into.node(metric::CPU_TIME, "s", &[("cpu.mode", mode)], ticks as f64 / a_second);
        }
        into.node(metric::CPU_COUNT, "{cpu}", &[], each.len() as f64);
        let total = Ticks::of(&total);
        if let Some((total_before, each_before)) = last {
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
        *last = Some((total, each));
        Ok(())
    }

    fn rest(&mut self) {
        self.stat.close();
        self.last = None;
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

    #[test]
    fn each_processor_is_told_up_to_a_number_and_of_what_it_did() {
        use crate::collect::source::Readings;
        use aether_core::{id::NodeId, time::Time};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stat");
        let mut text = String::from("cpu  100 0 0 900 0 0 0 0 0 0\n");
        for cpu in 0..40 {
            text += &format!("cpu{cpu} 100 100 0 900 0 50 50 0 0 0\n");
        }
        text +=
            "intr 77 0 1\nctxt 55\nprocesses 9\nprocs_running 2\nprocs_blocked 0\nsoftirq 10 1 2 3 4 5 6 7 8 9 11\n";
        std::fs::write(&path, text).unwrap();
        let mut cpu = Cpu { stat: Kept::at(&path), last: None };
        let (mut readings, node) = (Readings::default(), NodeId::new("node-a"));
        cpu.sample(&mut Sink { node: &node, at: Time(1), readings: &mut readings }).unwrap();
        let told = readings.sorted();
        let of = |metric: &str, attribute: &str| {
            let of = told.iter().filter(|(key, _)| key.metric == metric);
            let of =
                of.filter(|(key, _)| attribute.is_empty() || key.attributes.values().any(|value| value == attribute));
            of.map(|(_, samples)| samples[0].value).collect::<Vec<_>>()
        };
        assert_eq!(of(metric::CPU_EACH_TIME, "").len(), 2 * EACH_MAXIMUM, "user and interrupt, of no more than these");
        assert_eq!(of(metric::CPU_EACH_TIME, "31").len(), 2);
        assert_eq!(of(metric::CPU_COUNT, ""), [40.0]);
        assert_eq!((of(metric::INTERRUPTS, ""), of(metric::CONTEXT_SWITCHES, "")), (vec![77.0], vec![55.0]));
        assert_eq!(
            (of(metric::SOFT_INTERRUPTS, "net_rx"), of(metric::SOFT_INTERRUPTS, "rcu")),
            (vec![4.0], vec![11.0])
        );
    }
}
