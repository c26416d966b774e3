//! Memory and what it is used for, from `/proc/meminfo`. "Available" is the kernel's own estimate of what can be had without
//! swapping.

use super::{
    Missing, Sink, Source,
    file::{Kept, fields},
};
use aether_core::metric;

pub(super) struct Memory(Kept);

impl Default for Memory {
    fn default() -> Self {
        Self(Kept::at("/proc/meminfo"))
    }
}

impl Source for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let text = self.0.text()?;
        let bytes = |kib: u64| (kib << 10) as f64;
        let [total, free, available, buffers, cached, swap_total, swap_free, commit_limit] = fields(
            text,
            ["MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapTotal", "SwapFree", "CommitLimit"],
        );
        let available = available.ok_or_else(|| Missing::new("this kernel does not tell `MemAvailable`"))?;
        let or_none = |kib: Option<u64>| kib.unwrap_or_default();
        let (total, free) = (or_none(total), or_none(free));
        into.node(metric::MEMORY_AVAILABLE, "By", &[], bytes(available));
        into.node(metric::MEMORY_LIMIT, "By", &[], bytes(total));
        if total > 0 {
            let share = 1.0 - (available as f64 / total as f64).min(1.0);
            into.node(metric::MEMORY_UTILIZATION, "1", &[], share);
        }
        let (buffers, cached) = (or_none(buffers), or_none(cached));
        let used = total.saturating_sub(free + buffers + cached);
        // These add up to all of it; shared memory is within what is cached.
        for (state, kib) in [("used", used), ("free", free), ("buffers", buffers), ("cached", cached)] {
            into.node(metric::MEMORY_USAGE, "By", &[("system.memory.state", state)], bytes(kib));
        }
        let slab = fields(text, ["SReclaimable", "SUnreclaim"]);
        for (state, kib) in ["reclaimable", "unreclaimable"].into_iter().zip(slab) {
            if let Some(kib) = kib {
                into.node(metric::MEMORY_SLAB, "By", &[("linux.memory.slab.state", state)], bytes(kib));
            }
        }
        for ((kind, _), kib) in KINDS.iter().zip(fields(text, KINDS.map(|(_, name)| name))) {
            if let Some(kib) = kib {
                into.node(metric::MEMORY_KIND, "By", &[("kind", kind)], bytes(kib));
            }
        }
        if let Some(limit) = commit_limit {
            into.node(metric::MEMORY_COMMIT_LIMIT, "By", &[], bytes(limit));
        }
        let [all, free, reserved] = fields(text, ["HugePages_Total", "HugePages_Free", "HugePages_Rsvd"]);
        if let Some((all, free)) = all.zip(free).filter(|(all, _)| *all > 0) {
            let used = all.saturating_sub(free);
            for (state, pages) in [("used", used), ("free", free), ("reserved", or_none(reserved))] {
                into.node(metric::HUGE_PAGES, "{page}", &[("state", state)], pages as f64);
            }
        }
        if let Some((total, free)) = swap_total.zip(swap_free).filter(|(total, _)| *total > 0) {
            for (state, kib) in [("used", total.saturating_sub(free)), ("free", free)] {
                into.node(metric::PAGING_USAGE, "By", &[("system.paging.state", state)], bytes(kib));
            }
        }
        Ok(())
    }

    fn rest(&mut self) {
        self.0.close();
    }
}

/// What memory is used for, and the kernel's names.
const KINDS: [(&str, &str); 20] = [
    ("anonymous", "AnonPages"),
    ("mapped", "Mapped"),
    ("shared", "Shmem"),
    ("page_tables", "PageTables"),
    ("kernel_stack", "KernelStack"),
    ("unevictable", "Unevictable"),
    // Within what is unevictable: what a program, or a device that reads and writes memory, holds.
    ("locked", "Mlocked"),
    ("dirty", "Dirty"),
    ("writeback", "Writeback"),
    ("committed", "Committed_AS"),
    ("hugetlb", "Hugetlb"),
    ("transparent_huge", "AnonHugePages"),
    ("active_anonymous", "Active(anon)"),
    ("inactive_anonymous", "Inactive(anon)"),
    ("active_file", "Active(file)"),
    ("inactive_file", "Inactive(file)"),
    ("vmalloc", "VmallocUsed"),
    ("percpu", "Percpu"),
    ("swap_cached", "SwapCached"),
    // Of pages whose memory failed: they are out of use since.
    ("corrupted", "HardwareCorrupted"),
];
