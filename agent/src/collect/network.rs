//! Network traffic over all interfaces but loopback, from `/proc/net/dev`.

use super::{Missing, Sink, Source};
use aether_core::metric;

pub(super) struct Network;

impl Source for Network {
    fn name(&self) -> &'static str {
        "network"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let devices = procfs::net::dev_status()?;
        let outward = || devices.values().filter(|device| device.name != "lo");
        let received: f64 = outward().map(|device| device.recv_bytes as f64).sum();
        let sent: f64 = outward().map(|device| device.sent_bytes as f64).sum();
        into.node(metric::NETWORK_IO, "By", &[("network.io.direction", "receive")], received);
        into.node(metric::NETWORK_IO, "By", &[("network.io.direction", "transmit")], sent);
        Ok(())
    }
}
