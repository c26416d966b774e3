//! What the kernel counts of context switches, page faults and migrations; and where the processor has counters of its
//! own, cycles and instructions.
//!
//! Migrations, cycles and instructions by `perf_event_open`: one counter for each kind and processor, that counts and
//! never samples. Needs CAP_PERFMON, or `kernel.perf_event_paranoid` of 0 or less. Switches and faults, which come very
//! often, from `/proc/stat` and `/proc/vmstat`, where the kernel counts them anyway: whoever passes a software counter of
//! perf pays for it, 4 % of a switch (docs/benchmarks.md).

use super::source::{Missing, Sink, Source};
use aether_core::metric;
use perf_event::{
    Builder, Counter,
    events::{Event, Hardware, Software},
};
use std::{collections::BTreeMap, fs, io, time::Duration};

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

/// Lines of a name and a number.
fn counters(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines()
        .filter_map(|line| line.split_once(' ').and_then(|(name, count)| Some((name, count.trim().parse().ok()?))))
}

/// Faults, swapping, and what taking memory back has cost, from `/proc/vmstat`. What this kernel does not count is left out.
fn pages(vmstat: &str, into: &mut Sink<'_>) {
    let counts: BTreeMap<&str, u64> = counters(vmstat).collect();
    let count = |name: &str| counts.get(name).map(|count| *count as f64);
    if let (Some(all), Some(major)) = (count("pgfault"), count("pgmajfault")) {
        into.node(metric::PAGING_FAULTS, "{fault}", &[MINOR], (all - major).max(0.0));
        into.node(metric::PAGING_FAULTS, "{fault}", &[MAJOR], major);
    }
    for (name, direction) in [("pswpin", "in"), ("pswpout", "out")] {
        if let Some(pages) = count(name) {
            into.node(metric::PAGING_OPERATIONS, "{operation}", &[("system.paging.direction", direction)], pages);
        }
    }
    for (name, by) in [("pgscan_kswapd", "kswapd"), ("pgscan_direct", "direct")] {
        if let Some(pages) = count(name) {
            into.node(metric::RECLAIM_SCANNED, "{page}", &[("by", by)], pages);
        }
    }
    // One for each zone of memory.
    let stalls: Vec<u64> = counts.iter().filter(|(name, _)| name.starts_with("allocstall")).map(|(_, n)| *n).collect();
    if !stalls.is_empty() {
        into.node(metric::RECLAIM_STALLS, "{allocation}", &[], stalls.iter().sum::<u64>() as f64);
    }
}

const MINOR: (&str, &str) = ("system.paging.fault.type", "minor");
const MAJOR: (&str, &str) = ("system.paging.fault.type", "major");

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
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        if let Some(switches) = counters(&stat).find_map(|(name, count)| (name == "ctxt").then_some(count)) {
            into.node(metric::CONTEXT_SWITCHES, "{context_switch}", &[], switches as f64);
        }
        pages(&fs::read_to_string("/proc/vmstat").unwrap_or_default(), into);
        let migrations = tell(&mut self.kinds, software, into);
        migrations.map_err(|error| Missing::new(why(&error)).instead("context switches and page faults, no migrations"))
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
        (readings.series.into_iter().map(|(key, samples)| (key.metric, samples[0].value)).collect(), result)
    }

    #[test]
    fn switches_are_counted_by_one_way_or_the_other() {
        let mut perf = Perf::default();
        let switches = |perf: &mut Perf| {
            let (told, result) = sample(perf);
            assert!(result.is_ok() || result.unwrap_err().fallback.is_some());
            told.iter().find(|(metric, _)| metric == metric::CONTEXT_SWITCHES).unwrap().1
        };
        let before = switches(&mut perf);
        for _ in 0..50 {
            std::thread::sleep(Duration::from_micros(200));
        }
        let after = switches(&mut perf);
        assert!(after >= before + 50.0, "{before} {after}");
    }

    #[test]
    fn what_the_kernel_counts_of_pages_is_told_and_what_it_does_not_is_left_out() {
        let told = |vmstat: &str| {
            let mut readings = Readings::default();
            let node = NodeId::new("node-a");
            pages(vmstat, &mut Sink { node: &node, at: Time(1), readings: &mut readings });
            let series = readings.series.into_iter().map(|(key, samples)| {
                let attribute = key.attributes.into_values().next().unwrap_or_default();
                (key.metric, attribute, samples[0].value)
            });
            series.collect::<Vec<_>>()
        };
        let vmstat = "nr_free_pages 9\nallocstall_dma 1\nallocstall_normal 4\npgfault 100\npgmajfault 7\npswpin 3\n\
                      pgscan_kswapd 50\npgscan_direct 60\npgscan_direct_throttle 70\n";
        let wanted = [
            (metric::RECLAIM_SCANNED, "direct", 60.0),
            (metric::RECLAIM_SCANNED, "kswapd", 50.0),
            (metric::RECLAIM_STALLS, "", 5.0),
            (metric::PAGING_FAULTS, "major", 7.0),
            (metric::PAGING_FAULTS, "minor", 93.0),
            (metric::PAGING_OPERATIONS, "in", 3.0),
        ];
        assert_eq!(told(vmstat), wanted.map(|(metric, attribute, value)| (metric.into(), attribute.into(), value)));
        assert_eq!(told(""), []);
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
