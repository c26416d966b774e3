//! Network traffic over all interfaces but loopback, from `/proc/net/dev`.

use super::{
    Missing, Sink, Source,
    file::{Kept, numbers},
};
use aether_core::metric;

pub(super) struct Network(Kept);

impl Default for Network {
    fn default() -> Self {
        Self(Kept::at("/proc/net/dev"))
    }
}

impl Source for Network {
    fn name(&self) -> &'static str {
        "network"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let (mut received, mut sent) = (0.0, 0.0);
        // Behind two lines of headings.
        for line in self.0.text()?.lines().skip(2) {
            let Some((name, counts)) = line.split_once(':') else { continue };
            let mut counts = numbers(counts);
            if let (Some(in_bytes), Some(out_bytes)) = (counts.next(), counts.nth(7))
                && name.trim_start() != "lo"
            {
                received += in_bytes as f64;
                sent += out_bytes as f64;
            }
        }
        into.node(metric::NETWORK_IO, "By", &[("network.io.direction", "receive")], received);
        into.node(metric::NETWORK_IO, "By", &[("network.io.direction", "transmit")], sent);
        Ok(())
    }

    fn rest(&mut self) {
        self.0.close();
    }
}
