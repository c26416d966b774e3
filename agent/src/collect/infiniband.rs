//! Ports of InfiniBand and RoCE adapters: whether they have a link and how fast it is, what goes through, what goes wrong,
//! and how they deal with congestion. From `/sys/class/infiniband`.
//!
//! Collective operations go at the pace of the slowest port, and an adapter that sends again does so silently: it is seen
//! here or nowhere. Many drivers ask the adapter's firmware for each counter, so this is on a thread of its own.

use super::{Missing, Sink, Source, file::numbers};
use aether_core::metric;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const EVERY: Duration = Duration::from_secs(5);
const PORTS_MAXIMUM: usize = 16;
/// Counters of bytes are in words of four.
const WORD_BYTES: f64 = 4.0;

pub(super) struct Infiniband {
    root: PathBuf,
}

impl Infiniband {
    pub(super) fn at(sys: &Path) -> Self {
        Self { root: sys.join("class/infiniband") }
    }

    /// Adapters and the numbers of their ports.
    fn ports(&self) -> Vec<(String, String)> {
        let mut ports: Vec<(String, String)> = names(&self.root)
            .flat_map(|adapter| {
                let numbers = names(&self.root.join(&adapter).join("ports"));
                numbers.map(|port| (adapter.clone(), port)).collect::<Vec<_>>()
            })
            .collect();
        ports.sort();
        ports.truncate(PORTS_MAXIMUM);
        ports
    }
}

fn names(folder: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok())
}

/// What goes wrong, by the file that counts it; `hw_counters` are of most RoCE adapters.
const ERRORS: [(&str, &str); 17] = [
    ("counters/symbol_error", "symbol"),
    ("counters/link_error_recovery", "link-recovery"),
    ("counters/link_downed", "link-downed"),
    ("counters/port_rcv_errors", "receive"),
    ("counters/port_rcv_remote_physical_errors", "remote-physical"),
    ("counters/port_rcv_switch_relay_errors", "switch-relay"),
    ("counters/port_xmit_discards", "transmit-discard"),
    ("counters/local_link_integrity_errors", "local-link-integrity"),
    ("counters/excessive_buffer_overrun_errors", "buffer-overrun"),
    ("counters/VL15_dropped", "vl15-dropped"),
    ("hw_counters/out_of_sequence", "out-of-sequence"),
    ("hw_counters/packet_seq_err", "packet-sequence"),
    ("hw_counters/local_ack_timeout_err", "ack-timeout"),
    ("hw_counters/rnr_nak_retry_err", "receiver-not-ready"),
    ("hw_counters/out_of_buffer", "out-of-buffer"),
    ("hw_counters/rx_icrc_encapsulated", "checksum"),
    ("hw_counters/roce_adp_retrans", "retransmit"),
];

/// What adapters tell each other of congestion.
const CONGESTION: [(&str, &str); 4] = [
    ("hw_counters/np_ecn_marked_roce_packets", "marked"),
    ("hw_counters/np_cnp_sent", "notified"),
    ("hw_counters/rp_cnp_handled", "slowed"),
    ("hw_counters/rp_cnp_ignored", "ignored"),
];

impl Source for Infiniband {
    fn name(&self) -> &'static str {
        "infiniband"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let ports = self.ports();
        if ports.is_empty() {
            return Err(Missing::new(format!(
                "{} has no port: there is no InfiniBand or RoCE adapter, or its driver (such as mlx5_ib) is not loaded",
                self.root.display()
            )));
        }
        for (adapter, port) in ports {
            let folder = self.root.join(&adapter).join("ports").join(&port);
            let text = |file: &str| fs::read_to_string(folder.join(file)).ok();
            // What an adapter does not count it has no file for, or says that it cannot.
            let count = |file: &str| text(file).and_then(|text| numbers(&text).next()).map(|count| count as f64);
            let here = [("hw.name", adapter.as_str()), ("port", port.as_str())];
            let with = |name, value| [here[0], here[1], (name, value)];
            // `4: ACTIVE`, and `200 Gb/sec (4X HDR)`.
            if let Some(state) = text("state") {
                let up = state.trim_start().starts_with("4:");
                into.node(metric::INFINIBAND_UP, "1", &here, f64::from(u8::from(up)));
            }
            let speed = text("rate").and_then(|rate| rate.split_ascii_whitespace().next()?.parse::<f64>().ok());
            if let Some(gigabits) = speed {
                into.node(metric::INFINIBAND_SPEED, "bit/s", &here, gigabits * 1e9);
            }
            for (direction, bytes, packets) in [
                ("receive", "counters/port_rcv_data", "counters/port_rcv_packets"),
                ("transmit", "counters/port_xmit_data", "counters/port_xmit_packets"),
            ] {
                let attributes = with("network.io.direction", direction);
                if let Some(words) = count(bytes) {
                    into.node(metric::INFINIBAND_IO, "By", &attributes, words * WORD_BYTES);
                }
                if let Some(packets) = count(packets) {
                    into.node(metric::INFINIBAND_PACKETS, "{packet}", &attributes, packets);
                }
            }
            if let Some(ticks) = count("counters/port_xmit_wait") {
                into.node(metric::INFINIBAND_WAITS, "{tick}", &here, ticks);
            }
            for (file, kind) in ERRORS {
                if let Some(count) = count(file) {
                    into.node(metric::INFINIBAND_ERRORS, "{error}", &with("kind", kind), count);
                }
            }
            for (file, event) in CONGESTION {
                if let Some(count) = count(file) {
                    into.node(metric::INFINIBAND_CONGESTION, "{event}", &with("event", event), count);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Readings;
    use aether_core::{id::NodeId, time::Time};
    use std::collections::BTreeMap;

    #[test]
    fn ports_tell_what_their_adapter_counts() {
        let sys = tempfile::tempdir().unwrap();
        let mut infiniband = Infiniband::at(sys.path());
        let mut look = || {
            let (mut readings, node) = (Readings::default(), NodeId::new("node-a"));
            let result = infiniband.sample(&mut Sink { node: &node, at: Time(1), readings: &mut readings });
            let told = readings.sorted().into_iter().map(|(key, samples)| {
                (
                    format!("{} {}", key.metric, key.attributes.into_values().collect::<Vec<_>>().join(" ")),
                    samples[0].value,
                )
            });
            (told.collect::<BTreeMap<_, _>>(), result)
        };
        assert!(look().1.unwrap_err().reason.contains("mlx5_ib"));
        let write = |adapter: &str, file: &str, text: &str| {
            let path = sys.path().join("class/infiniband").join(adapter).join("ports/1").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("mlx5_0", "state", "4: ACTIVE\n");
        write("mlx5_0", "rate", "200 Gb/sec (4X HDR)\n");
        write("mlx5_0", "counters/port_rcv_data", "250\n");
        write("mlx5_0", "counters/port_xmit_wait", "77\n");
        write("mlx5_0", "counters/symbol_error", "2\n");
        write("mlx5_0", "hw_counters/out_of_sequence", "5\n");
        write("mlx5_0", "hw_counters/np_cnp_sent", "9\n");
        // As some drivers answer for what they do not count.
        write("mlx5_0", "counters/VL15_dropped", "N/A (no PMA)\n");
        write("mlx5_1", "state", "1: DOWN\n");
        let (told, result) = look();
        assert_eq!(result, Ok(()));
        let wanted = [
            ("aether.infiniband.congestion notified mlx5_0 1", 9.0),
            ("aether.infiniband.errors mlx5_0 out-of-sequence 1", 5.0),
            ("aether.infiniband.errors mlx5_0 symbol 1", 2.0),
            ("aether.infiniband.io mlx5_0 receive 1", 1_000.0),
            ("aether.infiniband.speed mlx5_0 1", 200e9),
            ("aether.infiniband.up mlx5_0 1", 1.0),
            ("aether.infiniband.up mlx5_1 1", 0.0),
            ("aether.infiniband.waits mlx5_0 1", 77.0),
        ];
        let wanted: BTreeMap<String, f64> = wanted.map(|(name, value)| (name.into(), value)).into();
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_crowd_of_ports_is_cut() {
        let sys = tempfile::tempdir().unwrap();
        for adapter in 0..40 {
            fs::create_dir_all(sys.path().join(format!("class/infiniband/mlx5_{adapter}/ports/1"))).unwrap();
        }
        assert_eq!(Infiniband::at(sys.path()).ports().len(), PORTS_MAXIMUM);
    }
}
