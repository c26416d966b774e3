//! Pressure stall information, from `/proc/pressure`: the share of the last ten seconds in which some task waited.

use super::{Missing, Sink, Source};
use aether_core::metric;
use procfs::{CpuPressure, Current, IoPressure, MemoryPressure};

pub(super) struct Pressure;

impl Source for Pressure {
    fn name(&self) -> &'static str {
        "pressure"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let missing = |error: procfs::ProcError| {
            Missing::new(format!("{error}; the kernel needs CONFIG_PSI, and no `psi=0` on its command line"))
        };
        let some = [
            ("cpu", CpuPressure::current().map_err(missing)?.some.avg10),
            ("io", IoPressure::current().map_err(missing)?.some.avg10),
            ("memory", MemoryPressure::current().map_err(missing)?.some.avg10),
        ];
        for (resource, percent) in some {
            into.node(metric::PRESSURE_SOME, "1", &[("resource", resource)], f64::from(percent) / 100.0);
        }
        Ok(())
    }
}
