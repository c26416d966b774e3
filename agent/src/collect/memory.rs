//! Memory and what it is used for, from `/proc/meminfo`. "Available" is the kernel's own estimate of what can be had without
//! swapping.

use super::{Missing, Sink, Source};
use aether_core::metric;
use procfs::{Current, Meminfo};

pub(super) struct Memory;

impl Source for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let info = Meminfo::current()?;
        let available = info.mem_available.ok_or_else(|| Missing::new("this kernel does not tell `MemAvailable`"))?;
        into.node(metric::MEMORY_AVAILABLE, "By", &[], available as f64);
        into.node(metric::MEMORY_LIMIT, "By", &[], info.mem_total as f64);
        if info.mem_total > 0 {
            let share = 1.0 - (available as f64 / info.mem_total as f64).min(1.0);
            into.node(metric::MEMORY_UTILIZATION, "1", &[], share);
        }
        let used = info.mem_total.saturating_sub(info.mem_free + info.buffers + info.cached);
        // These add up to all of it; shared memory is within what is cached.
        for (state, bytes) in
            [("used", used), ("free", info.mem_free), ("buffers", info.buffers), ("cached", info.cached)]
        {
            into.node(metric::MEMORY_USAGE, "By", &[("system.memory.state", state)], bytes as f64);
        }
        for (state, bytes) in [("reclaimable", info.s_reclaimable), ("unreclaimable", info.s_unreclaim)] {
            if let Some(bytes) = bytes {
                into.node(metric::MEMORY_SLAB, "By", &[("linux.memory.slab.state", state)], bytes as f64);
            }
        }
        for (kind, bytes) in [
            ("anonymous", info.anon_pages),
            ("mapped", Some(info.mapped)),
            ("shared", info.shmem),
            ("page_tables", info.page_tables),
            ("kernel_stack", info.kernel_stack),
            ("unevictable", info.unevictable),
            ("dirty", Some(info.dirty)),
            ("writeback", Some(info.writeback)),
            ("committed", Some(info.committed_as)),
            ("hugetlb", info.hugetlb),
            // Of pages whose memory failed: they are out of use since.
            ("corrupted", info.hardware_corrupted),
        ] {
            if let Some(bytes) = bytes {
                into.node(metric::MEMORY_KIND, "By", &[("kind", kind)], bytes as f64);
            }
        }
        if info.swap_total > 0 {
            let used = info.swap_total.saturating_sub(info.swap_free);
            for (state, bytes) in [("used", used), ("free", info.swap_free)] {
                into.node(metric::PAGING_USAGE, "By", &[("system.paging.state", state)], bytes as f64);
            }
        }
        Ok(())
    }
}
