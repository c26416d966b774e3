//! The run-queue load average, from `/proc/loadavg`.

use super::{Missing, Sink, Source};
use aether_core::metric;
use procfs::{Current, LoadAverage};

pub(super) struct Load;

impl Source for Load {
    fn name(&self) -> &'static str {
        "load"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        into.node(metric::LOAD_1M, "{thread}", &[], f64::from(LoadAverage::current()?.one));
        Ok(())
    }
}
