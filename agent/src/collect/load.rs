//! The run-queue load averages, from `/proc/loadavg`.

use super::{Missing, Sink, Source};
use aether_core::metric;
use procfs::{Current, LoadAverage};

pub(super) struct Load;

impl Source for Load {
    fn name(&self) -> &'static str {
        "load"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let LoadAverage { one, five, fifteen, .. } = LoadAverage::current()?;
        for (metric, load) in [(metric::LOAD_1M, one), (metric::LOAD_5M, five), (metric::LOAD_15M, fifteen)] {
            into.node(metric, "{thread}", &[], f64::from(load));
        }
        Ok(())
    }
}
