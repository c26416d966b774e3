//! What bounds the metrics that come by OTLP.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// When a request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acknowledge {
    /// When its points are in the hot window.
    #[default]
    Appended,
    /// When they are safe on disk: up to one seal interval later.
    Sealed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether OTLP is served at all. Default: yes; each request needs a token.
    pub enabled: bool,
    /// When a request is answered. Default: appended.
    pub acknowledge: Acknowledge,
    /// How long a request may wait to be safe. Default 20 s, 100 ms to 1 min. Then the sender is told to come again.
    pub seal_wait_ms: u64,
    /// Bytes of one request, unpacked. Default 4 MiB, 1 KiB to 64 MiB.
    pub request_bytes: usize,
    /// Data points of one request. Default 100,000, 1 to 1,000,000.
    pub points_maximum: usize,
    /// Requests at one time. Default 16, 1 to 1,024. One beyond is told to come again.
    pub requests_at_once: usize,
    /// Series of one token that come as differences and are summed up here. Default 20,000, 1 to 1,000,000.
    pub delta_series_maximum: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            acknowledge: Acknowledge::default(),
            seal_wait_ms: 20_000,
            request_bytes: 4 << 20,
            points_maximum: 100_000,
            requests_at_once: 16,
            delta_series_maximum: 20_000,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("otlp setting {name} is {value}: it must be between {least} and {most}")]
pub struct OutOfRange {
    pub name: &'static str,
    pub value: u64,
    pub least: u64,
    pub most: u64,
}

impl Settings {
    /// Refuses a value outside its range, by name.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let ranges = [
            ("seal_wait_ms", self.seal_wait_ms, 100, 60_000),
            ("request_bytes", wide(self.request_bytes), 1 << 10, 64 << 20),
            ("points_maximum", wide(self.points_maximum), 1, 1_000_000),
            ("requests_at_once", wide(self.requests_at_once), 1, 1_024),
            ("delta_series_maximum", wide(self.delta_series_maximum), 1, 1_000_000),
        ];
        for (name, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(OutOfRange { name, value, least, most });
            }
        }
        Ok(())
    }
}
