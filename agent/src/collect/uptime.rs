//! Seconds since boot, from `/proc/uptime`.

use super::{Missing, Sink, Source, file::Kept};
use aether_core::metric;

pub(super) struct Uptime(Kept);

impl Default for Uptime {
    fn default() -> Self {
        Self(Kept::at("/proc/uptime"))
    }
}

impl Source for Uptime {
    fn name(&self) -> &'static str {
        "uptime"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let seconds = self.0.text()?.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
        let seconds = seconds.ok_or_else(|| Missing::new("/proc/uptime has no number"))?;
        into.node(metric::UPTIME, "s", &[], seconds);
        Ok(())
    }

    fn rest(&mut self) {
        self.0.close();
    }
}
