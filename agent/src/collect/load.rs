//! The run-queue load averages, and how many threads there are, from `/proc/loadavg`.

use super::{Missing, Sink, Source, file::Kept};
use aether_core::metric;

pub(super) struct Load(Kept);

impl Default for Load {
    fn default() -> Self {
        Self(Kept::at("/proc/loadavg"))
    }
}

impl Source for Load {
    fn name(&self) -> &'static str {
        "load"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let mut words = self.0.text()?.split_ascii_whitespace();
        for metric in [metric::LOAD_1M, metric::LOAD_5M, metric::LOAD_15M] {
            if let Some(load) = words.next().and_then(|word| word.parse().ok()) {
                into.node(metric, "{thread}", &[], load);
            }
        }
        // Those that could run, and all.
        let threads = words.next().and_then(|word| word.split_once('/')?.1.parse().ok());
        if let Some(threads) = threads {
            into.node(metric::THREADS, "{thread}", &[], threads);
        }
        Ok(())
    }

    fn rest(&mut self) {
        self.0.close();
    }
}
