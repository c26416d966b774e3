//! Seconds since boot, from `/proc/uptime`.

use super::{Missing, Sink, Source};
use aether_core::metric;
use procfs::Current;

pub(super) struct Uptime;

impl Source for Uptime {
    fn name(&self) -> &'static str {
        "uptime"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        into.node(metric::UPTIME, "s", &[], procfs::Uptime::current()?.uptime);
        Ok(())
    }
}
