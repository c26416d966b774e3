//! What bounds the fabric. Each setting has a default and a range; [`Settings::check`] refuses what lies outside.

use aether_proto::FRAME_BYTES_MAXIMUM;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bounds of the fabric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How often a participant that has nothing to say sends a heartbeat. Default 2 s, 10 ms to 1 min. Short costs traffic
    /// on a large fleet; long delays the news of a death.
    pub heartbeat_ms: u64,
    /// The same for the host, towards each participant; an acknowledgement of telemetry, each 10 s, counts as well. Default
    /// 10 s, 10 ms to 1 min. After three of them a participant looks for a host that answers. One that has died or was cut
    /// off is noticed sooner, by the connection: this is for one that hangs.
    pub host_heartbeat_ms: u64,
    /// Heartbeats that a participant may miss before its session is dead and its identity free. Default 3, 2 to 100.
    pub missed_heartbeats: u32,
    /// How long a new stream may take to send its `Hello`. Default 5 s, 10 ms to 1 min.
    pub hello_ms: u64,
    /// Streams that may be at their `Hello` at a time. Default 256, 1 to 65,536; the others are told to come again.
    pub handshakes_maximum: usize,
    /// Live sessions. Default 10,000, 1 to 1,000,000; a participant beyond is told to come again later.
    pub sessions_maximum: usize,
    /// Bytes of one frame. Default and maximum 4 MiB, at least 1 MiB + 64 KiB, so that a chunk fits.
    pub frame_bytes: usize,
    /// Bytes of one batch of telemetry. Default 1 MiB, 1 KiB to 4 MiB. A larger one is refused as `oversized`.
    pub batch_bytes: usize,
    /// Bytes that the series definitions of one stream may take. Default 8 MiB, 64 KiB to 256 MiB.
    pub dictionary_bytes: usize,
    /// Batches that an agent may have sent and not seen acknowledged. Default 256, 1 to 65,536. With too few an agent
    /// waits for the next seal of the recorder while it still has something to say.
    pub batches_in_flight: u32,
    /// Chunks of snapshots that one session may have under way; the host reads no further frame of it meanwhile.
    /// Default 4, 1 to 64.
    pub chunks_in_flight: u32,
    /// Frames that may wait to be sent to one participant. Default 64, 8 to 4,096. One that does not take them in time
    /// loses its session, with the reason.
    pub outgoing_frames: usize,
    /// Events that may wait for the control driver. Default 1,024, 16 to 65,536. When it is full, sessions wait.
    pub events: usize,
    /// Orders that were sent and whose end is not in the journal yet. Default 1,024, 1 to 65,536.
    pub orders_outstanding: usize,
    /// Workloads of one node. Default 1,024, 1 to 65,536. A report of more is not taken.
    pub workloads_per_node: usize,
    /// How often agents sample. Default 1 s, 100 ms to 10 min.
    pub sample_interval_ms: u32,
    /// How often agents send a batch. Default 1 s, 100 ms to 10 min.
    pub batch_interval_ms: u32,
    /// When to send a batch again for which there was no room. Default 2 s, 10 ms to 10 min.
    pub full_retry_ms: u32,
    /// How long a participant may take to leave when the host stops. Default 3 s, 0 to 1 min.
    pub drain_ms: u64,
    /// Refused batches of telemetry that are kept for a person to look at. Default 1,000, 1 to 100,000. The oldest go first.
    pub dead_letters_maximum: usize,
    /// Bytes of all of them. Default 64 MiB, 1 MiB to 16 GiB. The oldest go first.
    pub dead_letters_bytes: u64,
    /// How long one is kept. Default 7 days, 1 min to 1 year.
    pub dead_letters_age_ms: u64,
    /// Bytes of one batch, with its definitions, that are kept. Default 4 MiB, 0 to 16 MiB. Of a larger one only the reason is kept.
    pub dead_letter_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 2_000,
            host_heartbeat_ms: 10_000,
            missed_heartbeats: 3,
            hello_ms: 5_000,
            handshakes_maximum: 256,
            sessions_maximum: 10_000,
            frame_bytes: FRAME_BYTES_MAXIMUM,
            batch_bytes: 1 << 20,
            dictionary_bytes: 8 << 20,
            batches_in_flight: 256,
            chunks_in_flight: 4,
            outgoing_frames: 64,
            events: 1_024,
            orders_outstanding: 1_024,
            workloads_per_node: 1_024,
            sample_interval_ms: 1_000,
            batch_interval_ms: 1_000,
            full_retry_ms: 2_000,
            drain_ms: 3_000,
            dead_letters_maximum: 1_000,
            dead_letters_bytes: 64 << 20,
            dead_letters_age_ms: 7 * 86_400_000,
            dead_letter_bytes: FRAME_BYTES_MAXIMUM,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("fabric setting {name} is {value}: it must be between {least} and {most}")]
pub struct OutOfRange {
    pub name: &'static str,
    pub value: u64,
    pub least: u64,
    pub most: u64,
}

impl Settings {
    /// Refuses a value outside its range, by name.
    pub fn check(&self) -> Result<(), OutOfRange> {
        const MINUTE: u64 = 60_000;
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let frame = wide(FRAME_BYTES_MAXIMUM);
        let ranges = [
            ("heartbeat_ms", self.heartbeat_ms, 10, MINUTE),
            ("host_heartbeat_ms", self.host_heartbeat_ms, 10, MINUTE),
            ("missed_heartbeats", self.missed_heartbeats.into(), 2, 100),
            ("hello_ms", self.hello_ms, 10, MINUTE),
            ("handshakes_maximum", wide(self.handshakes_maximum), 1, 65_536),
            ("sessions_maximum", wide(self.sessions_maximum), 1, 1_000_000),
            ("frame_bytes", wide(self.frame_bytes), (1 << 20) + (64 << 10), frame),
            ("batch_bytes", wide(self.batch_bytes), 1 << 10, frame),
            ("dictionary_bytes", wide(self.dictionary_bytes), 64 << 10, 256 << 20),
            ("batches_in_flight", self.batches_in_flight.into(), 1, 65_536),
            ("chunks_in_flight", self.chunks_in_flight.into(), 1, 64),
            ("outgoing_frames", wide(self.outgoing_frames), 8, 4_096),
            ("events", wide(self.events), 16, 65_536),
            ("orders_outstanding", wide(self.orders_outstanding), 1, 65_536),
            ("workloads_per_node", wide(self.workloads_per_node), 1, 65_536),
            ("sample_interval_ms", self.sample_interval_ms.into(), 100, 10 * MINUTE),
            ("batch_interval_ms", self.batch_interval_ms.into(), 100, 10 * MINUTE),
            ("full_retry_ms", self.full_retry_ms.into(), 10, 10 * MINUTE),
            ("drain_ms", self.drain_ms, 0, MINUTE),
            ("dead_letters_maximum", wide(self.dead_letters_maximum), 1, 100_000),
            ("dead_letters_bytes", self.dead_letters_bytes, 1 << 20, 16 << 30),
            ("dead_letters_age_ms", self.dead_letters_age_ms, MINUTE, 365 * 86_400_000),
            ("dead_letter_bytes", wide(self.dead_letter_bytes), 0, 4 * frame),
        ];
        for (name, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(OutOfRange { name, value, least, most });
            }
        }
        Ok(())
    }

    /// When a batch comes again for which there was no room.
    pub(crate) fn full_retry(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.full_retry_ms.into())
    }

    /// How long a participant may be silent before its session is dead.
    pub(crate) fn dead_after(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.heartbeat_ms.saturating_mul(self.missed_heartbeats.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_legal_and_a_value_out_of_range_is_named() {
        Settings::default().check().unwrap();
        let error = Settings { missed_heartbeats: 1, ..Settings::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "fabric setting missed_heartbeats is 1: it must be between 2 and 100");
    }
}
