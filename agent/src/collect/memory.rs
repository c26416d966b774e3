//! Memory, from `/proc/meminfo`. "Available" is the kernel's own estimate of what can be had without swapping.

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
        if info.mem_total > 0 {
            let share = 1.0 - (available as f64 / info.mem_total as f64).min(1.0);
            into.node(metric::MEMORY_UTILIZATION, "1", &[], share);
        }
        Ok(())
    }
}
