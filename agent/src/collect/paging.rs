//! Faults, swapping, and what it costs the kernel to find memory: taking it back, making room in one piece, huge pages, and
//! on a machine with several NUMA nodes where it came from. From `/proc/vmstat`; what this kernel does not count is left out.

use super::{
    Missing, Sink, Source,
    file::{Kept, named},
};
use aether_core::metric;

pub(super) struct Paging(Kept);

impl Default for Paging {
    fn default() -> Self {
        Self(Kept::at("/proc/vmstat"))
    }
}

/// What is told as it is counted: the kernel's name, ours, the unit, and an attribute.
type Told = (&'static str, &'static str, &'static str, (&'static str, &'static str));

const TOLD: [Told; 24] = [
    ("pswpin", metric::PAGING_OPERATIONS, "{operation}", ("system.paging.direction", "in")),
    ("pswpout", metric::PAGING_OPERATIONS, "{operation}", ("system.paging.direction", "out")),
    ("pgscan_kswapd", metric::RECLAIM_SCANNED, "{page}", ("by", "kswapd")),
    ("pgscan_direct", metric::RECLAIM_SCANNED, "{page}", ("by", "direct")),
    ("pgsteal_kswapd", metric::RECLAIMED, "{page}", ("by", "kswapd")),
    ("pgsteal_direct", metric::RECLAIMED, "{page}", ("by", "direct")),
    ("workingset_refault_anon", metric::REFAULTS, "{page}", ("kind", "anonymous")),
    ("workingset_refault_file", metric::REFAULTS, "{page}", ("kind", "file")),
    // Before Linux 5.9: of both.
    ("workingset_refault", metric::REFAULTS, "{page}", ("kind", "file")),
    ("oom_kill", metric::OOM_KILLED, "{process}", NONE),
    ("compact_stall", metric::COMPACTIONS, "{attempt}", ("outcome", "stalled")),
    ("compact_success", metric::COMPACTIONS, "{attempt}", ("outcome", "done")),
    ("compact_fail", metric::COMPACTIONS, "{attempt}", ("outcome", "failed")),
    ("thp_fault_alloc", metric::THP, "{page}", ("event", "allocated")),
    ("thp_fault_fallback", metric::THP, "{page}", ("event", "fallback")),
    ("thp_collapse_alloc", metric::THP, "{page}", ("event", "collapsed")),
    ("thp_split_page", metric::THP, "{page}", ("event", "split")),
    ("pgmigrate_fail", metric::MIGRATION_FAILED, "{page}", NONE),
    // On a machine with one node there is no other to come from.
    ("numa_hit", metric::NUMA_PAGES, "{page}", ("kind", "hit")),
    ("numa_miss", metric::NUMA_PAGES, "{page}", ("kind", "miss")),
    ("numa_foreign", metric::NUMA_PAGES, "{page}", ("kind", "foreign")),
    ("numa_other", metric::NUMA_PAGES, "{page}", ("kind", "other")),
    ("numa_hint_faults", metric::NUMA_PAGES, "{page}", ("kind", "hint_faults")),
    ("numa_pages_migrated", metric::NUMA_PAGES, "{page}", ("kind", "migrated")),
];
const NONE: (&str, &str) = ("", "");
const MINOR: (&str, &str) = ("system.paging.fault.type", "minor");
const MAJOR: (&str, &str) = ("system.paging.fault.type", "major");

fn tell(text: &str, into: &mut Sink<'_>) {
    let (mut faults, mut major, mut stalls) = (None, None, None);
    let mut found = [None; TOLD.len()];
    for (name, count) in named(text) {
        match name {
            "pgfault" => faults = Some(count),
            "pgmajfault" => major = Some(count),
            // One for each zone of memory.
            name if name.starts_with("allocstall") => *stalls.get_or_insert(0) += count,
            name => {
                if let Some(place) = TOLD.iter().position(|(wanted, ..)| *wanted == name) {
                    found[place] = Some(count);
                }
            }
        }
    }
    if let Some((all, major)) = faults.zip(major) {
        into.node(metric::PAGING_FAULTS, "{fault}", &[MINOR], all.saturating_sub(major) as f64);
        into.node(metric::PAGING_FAULTS, "{fault}", &[MAJOR], major as f64);
    }
    if let Some(stalls) = stalls {
        into.node(metric::RECLAIM_STALLS, "{allocation}", &[], stalls as f64);
    }
    let several = found[TOLD.len() - 4..].iter().any(|count| count.is_some_and(|count| count > 0));
    for ((_, name, unit, attribute), count) in TOLD.iter().zip(found) {
        let Some(count) = count else { continue };
        if *name == metric::NUMA_PAGES && !several {
            continue;
        }
        let attributes = if *attribute == NONE { &[][..] } else { std::slice::from_ref(attribute) };
        into.node(name, unit, attributes, count as f64);
    }
}

impl Source for Paging {
    fn name(&self) -> &'static str {
        "paging"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        tell(self.0.text()?, into);
        Ok(())
    }

    fn rest(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Readings;
    use aether_core::{id::NodeId, time::Time};

    fn told(vmstat: &str) -> Vec<String> {
        let (mut readings, node) = (Readings::default(), NodeId::new("node-a"));
        tell(vmstat, &mut Sink { node: &node, at: Time(1), readings: &mut readings });
        let lines = readings.sorted().into_iter().map(|(key, samples)| {
            let attribute = key.attributes.into_values().next().unwrap_or_default();
            format!("{}/{attribute}={}", key.metric, samples[0].value)
        });
        lines.collect()
    }

    #[test]
    fn what_a_kernel_does_not_count_is_left_out_and_the_zones_of_memory_are_one() {
        let text = "pgfault 100\npgmajfault 7\nallocstall_dma 1\nallocstall_normal 2\nallocstall_movable 3\n\
                    pgscan_kswapd 40\npgscan_kswapd_extra 9\noom_kill 2\nnuma_hit 50\nnuma_miss 0\nnuma_other 0\n";
        assert_eq!(
            told(text),
            [
                "aether.system.memory.oom_kills/=2",
                "aether.system.memory.reclaim.scanned/kswapd=40",
                "aether.system.memory.reclaim.stalls/=6",
                "system.paging.faults/major=7",
                "system.paging.faults/minor=93",
            ]
        );
        assert!(told("pgfault 100\n").is_empty(), "how many were minor cannot be said");
        assert!(told("").is_empty());
    }

    #[test]
    fn several_nodes_are_told_of_once_one_took_from_another() {
        let lines = told("numa_hit 50\nnuma_miss 1\nnuma_foreign 1\nnuma_other 3\n");
        assert_eq!(lines.len(), 4, "{lines:?}");
    }

    #[test]
    fn this_kernel_counts_faults() {
        let (mut readings, node) = (Readings::default(), NodeId::new("node-a"));
        Paging::default().sample(&mut Sink { node: &node, at: Time(1), readings: &mut readings }).unwrap();
        let told = readings.sorted();
        assert!(told.keys().filter(|key| key.metric == metric::PAGING_FAULTS).count() == 2, "{told:?}");
        assert!(told.keys().any(|key| key.metric == metric::OOM_KILLED), "{told:?}");
    }
}
