//! Where the processor has counters of its own, cycles and instructions; and how often threads moved from one to another.
//!
//! By `perf_event_open`: one counter for each kind and processor, that counts and never samples. Needs CAP_PERFMON, or
//! `kernel.perf_event_paranoid` of 0 or less. Context switches and faults, which come very often, are told by `cpu` and
//! `paging` from what the kernel counts anyway: whoever passes a software counter of perf pays for it, 4 % of a switch
//! (docs/benchmarks.md).

use super::source::{Missing, Sink, Source};
use aether_core::metric;
use perf_event::{
    Builder, Counter,
    events::{Event, Hardware, Software},
};
use std::{fs, io, time::Duration};

const EVERY: Duration = Duration::from_secs(5);
/// Each counter is a file descriptor, and each read of one may interrupt its processor.
const PROCESSORS_MAXIMUM: usize = 256;

/// One kind of counter, on every processor.
struct Kind {
    metric: &'static str,
    unit: &'static str,
    counters: Vec<Counter>,
}

impl Kind {
    fn open(event: impl Event + Clone, metric: &'static str, unit: &'static str) -> io::Result<Self> {
        let counters = processors().into_iter().map(|processor| {
            let mut builder = Builder::new(event.clone());
            builder.any_pid().one_cpu(processor).include_kernel().include_hv().enabled(true);
            builder.build()
        });
        Ok(Self { metric, unit, counters: counters.collect::<Result<_, _>>()? })
    }

    fn tell(&mut self, into: &mut Sink<'_>) -> io::Result<()> {
        let mut sum = 0;
        for counter in &mut self.counters {
            sum += counter.read()?;
        }
        into.node(self.metric, self.unit, &[], sum as f64);
        Ok(())
    }
}

/// The processors that are online.
fn processors() -> Vec<usize> {
    let text = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_else(|_| "0".into());
    ranges(&text)
}

/// `0-3,8` is 0, 1, 2, 3 and 8.
fn ranges(text: &str) -> Vec<usize> {
    let parts = text.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
    });
    parts.flatten().take(PROCESSORS_MAXIMUM).collect()
}

fn software() -> io::Result<Vec<Kind>> {
    Ok(vec![Kind::open(Software::CPU_MIGRATIONS, metric::CPU_MIGRATIONS, "{migration}")?])
}

fn hardware() -> io::Result<Vec<Kind>> {
    Ok(vec![
        Kind::open(Hardware::CPU_CYCLES, metric::CPU_CYCLES, "{cycle}")?,
        Kind::open(Hardware::INSTRUCTIONS, metric::CPU_INSTRUCTIONS, "{instruction}")?,
    ])
}

/// Opened at the first sample, and again after a failure.
fn tell(kinds: &mut Option<Vec<Kind>>, open: fn() -> io::Result<Vec<Kind>>, into: &mut Sink<'_>) -> io::Result<()> {
    let opened = match &mut *kinds {
        Some(kinds) => kinds,
        none => none.insert(open()?),
    };
    let told = opened.iter_mut().try_for_each(|kind| kind.tell(into));
    if told.is_err() {
        *kinds = None;
    }
    told
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
            format!(
                "perf_event_open needs the capability CAP_PERFMON, or `kernel.perf_event_paranoid` of 0 or less (it is {})",
                paranoid.trim()
            )
        }
        io::ErrorKind::NotFound | io::ErrorKind::Unsupported => {
            "this processor offers no hardware counters, as in most virtual machines".into()
        }
        _ if error.raw_os_error() == Some(ENOSYS) => {
            "the kernel has no perf events: it needs CONFIG_PERF_EVENTS".into()
        }
        _ => format!("perf_event_open: {error}"),
    }
}

const ENOSYS: i32 = 38;

#[derive(Default)]
pub(super) struct Perf {
    kinds: Option<Vec<Kind>>,
}

impl Source for Perf {
    fn name(&self) -> &str {
        "perf"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let migrations = tell(&mut self.kinds, software, into);
        migrations.map_err(|error| Missing::new(why(&error)).instead("`cpu` tells context switches"))
    }

    fn rest(&mut self) {
        self.kinds = None;
    }
}

#[derive(Default)]
pub(super) struct PerfHardware {
    kinds: Option<Vec<Kind>>,
}

impl Source for PerfHardware {
    fn name(&self) -> &str {
        "perf-hardware"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        tell(&mut self.kinds, hardware, into).map_err(|error| Missing::new(why(&error)))
    }

    fn rest(&mut self) {
        self.kinds = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Readings;
    use aether_core::{id::NodeId, time::Time};

    fn sample(source: &mut dyn Source) -> (Vec<(String, f64)>, Result<(), Missing>) {
        let mut readings = Readings::default();
        let node = NodeId::new("node-a");
        let result = source.sample(&mut Sink { node: &node, at: Time(1), readings: &mut readings });
        (readings.sorted().into_iter().map(|(key, samples)| (key.metric, samples[0].value)).collect(), result)
    }

    #[test]
    fn migrations_are_counted_or_it_is_said_why_not() {
        let (told, result) = sample(&mut Perf::default());
        match result {
            Ok(()) => assert_eq!(told[0].0, metric::CPU_MIGRATIONS),
            Err(missing) => assert!(told.is_empty() && missing.fallback.is_some(), "{missing}"),
        }
    }

    #[test]
    fn hardware_counters_are_there_or_say_why_not() {
        let (told, result) = sample(&mut PerfHardware::default());
        match result {
            Ok(()) => assert_eq!(told.len(), 2),
            Err(missing) => assert!(told.is_empty() && missing.reason.len() > 20, "{missing}"),
        }
    }

    #[test]
    fn processors_are_read_as_the_kernel_lists_them() {
        assert_eq!(ranges("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(ranges("0"), [0]);
        assert_eq!(ranges("nonsense,2"), [2]);
        assert_eq!(ranges("0-100000").len(), PROCESSORS_MAXIMUM);
    }
}
